"""Copies of a study elsewhere, read back with the programs that they are for."""

import threading
import time
from types import SimpleNamespace

import pytest

from search.bridges import copies
from search.bridges.copies import Bridges, copied_to_bridges, logging_problems
from search.bridges.mlflow_runs import MlflowCopy
from search.bridges.tensorboard import TensorBoardCopy
from search.config import Logging, StudyConfig
from search.errors import ConfigurationError
from search.events import Asked, EpochReported, Failed, Noted, SessionOpened, Started
from search.follow import Follower
from search.ledger import Ledger

CONFIG = StudyConfig.parse(
    {
        "name": "it",
        "objective": {"metric": "v"},
        "space": {
            "rate": {"type": "float", "low": 0, "high": 1},
            "kind": {"type": "choice", "values": ["a", "b"]},
        },
    }
)
BEFORE = [
    SessionOpened("host", 1),
    Asked(0, {"rate": 0.5, "kind": "a"}, 7),
    Started(0, worker="host/2"),
    EpochReported(0, 1, {"v": 0.75, "loss": 0.5}, "continue", seconds={"train": 1.5}),
    EpochReported(0, 2, {"v": 0.5, "loss": 0.25}, "complete"),
    Asked(1, {"rate": 0.25, "kind": "b"}, 8),
    Started(1, worker="host/3"),
    EpochReported(1, 1, {"v": 0.125, "loss": float("nan")}, "continue"),
]
AFTER = [
    SessionOpened("host", 9),
    Started(1, worker="host/4"),
    EpochReported(1, 2, {"v": 0.25, "loss": 0.5}, "prune", reason="behind others at epoch 2"),
    Asked(2, {"rate": 0.75}, 9),
    Failed(2, "no memory"),
    Asked(0, {"rate": 0.5, "kind": "a"}, 10, "rerun", 1),
    EpochReported(0, 1, {"v": 0.5}, "complete", 1),
    Noted("winner", {"number": 0}),
]


def session(copy, path):
    """What a driver's thread does from its start to its end."""
    follower = Follower(path)
    copy.open()
    for happening in follower.new():
        copy.take(happening, follower.history)
    copy.flush()
    copy.close()


def two_sessions(make, path):
    with Ledger(path) as ledger:
        ledger.append(*BEFORE)
        session(make(), path)
        ledger.append(*AFTER)
        session(make(), path)
        session(make(), path)


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """TensorBoard's view of each trial, after a session, a second one, and one in which nothing happened."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path_factory.mktemp("run")
    two_sessions(lambda: TensorBoardCopy(CONFIG, folder / "tensorboard"), folder / "study.db")
    found = {path.name: EventAccumulator(str(path)) for path in (folder / "tensorboard").iterdir()}
    return {name: accumulator.Reload() for name, accumulator in found.items()}


def points(accumulator, tag):
    return [(scalar.step, scalar.value) for scalar in accumulator.Scalars(tag)]


def test_tensorboard_has_a_run_per_trial_with_each_metric_once_by_epoch(boards):
    assert sorted(boards) == ["trial_0", "trial_0.1", "trial_1", "trial_2"]
    assert points(boards["trial_0"], "v") == [(1, 0.75), (2, 0.5)]
    assert points(boards["trial_0"], "loss") == [(1, 0.5), (2, 0.25)]
    assert points(boards["trial_0"], "seconds/train") == [(1, 1.5)]
    assert points(boards["trial_1"], "v") == [(1, 0.125), (2, 0.25)]
    assert points(boards["trial_1"], "loss") == [(2, 0.5)]
    assert points(boards["trial_0.1"], "v") == [(1, 0.5)]
    assert boards["trial_2"].Tags()["scalars"] == []


def test_tensorboard_knows_the_hyperparameters_of_each_trial(boards):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    contents = boards["trial_0"].PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(contents["_hparams_/session_start_info"]).session_start_info
    experiment = HParamsPluginData.FromString(contents["_hparams_/experiment"]).experiment
    assert start.hparams["rate"].number_value == 0.5
    assert start.hparams["kind"].string_value == "a"
    assert [info.name.tag for info in experiment.metric_infos] == ["v"]
    assert "_hparams_/session_end_info" in contents


def test_tensorboards_times_are_those_of_the_events(boards):
    first, second = boards["trial_0"].Scalars("v")
    assert abs(time.time() - first.wall_time) < 3600
    assert first.wall_time <= second.wall_time


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """MLflow's client and its runs by name, after the same sessions."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("run")
    address = f"sqlite:///{folder}/mlflow.db"
    two_sessions(lambda: MlflowCopy(CONFIG, address), folder / "study.db")
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("it")
    return client, client.search_runs([experiment.experiment_id])


def named(tracked):
    return {run.info.run_name: run for run in tracked[1]}


def test_mlflow_has_one_run_per_trial_below_the_studys(tracked):
    runs = named(tracked)
    assert sorted(run.info.run_name for run in tracked[1]) == ["it", "trial 0", "trial 0.1", "trial 1", "trial 2"]
    parents = {run.data.tags.get("mlflow.parentRunId") for name, run in runs.items() if name != "it"}
    assert parents == {runs["it"].info.run_id}
    assert runs["it"].info.status == "FINISHED"
    assert runs["it"].data.tags["thawline.winner"] == "0"


def test_mlflow_knows_parameters_status_and_reason_of_each_trial(tracked):
    runs = named(tracked)
    assert runs["trial 0"].data.params == {"rate": "0.5", "kind": "a", "seed": "7"}
    assert {name: run.info.status for name, run in runs.items() if name != "it"} == {
        "trial 0": "FINISHED",
        "trial 0.1": "FINISHED",
        "trial 1": "KILLED",
        "trial 2": "FAILED",
    }
    assert runs["trial 1"].data.tags["thawline.status"] == "pruned"
    assert runs["trial 1"].data.tags["thawline.worker"] == "host/4"
    assert runs["trial 2"].data.tags["thawline.reason"] == "no memory"
    assert runs["trial 0"].data.metrics["value"] == 0.75
    assert runs["trial 0"].data.metrics["best_epoch"] == 1


def test_mlflow_has_each_metric_once_by_epoch(tracked):
    def curve(name, metric):
        return [(m.step, m.value) for m in tracked[0].get_metric_history(named(tracked)[name].info.run_id, metric)]

    assert curve("trial 0", "v") == [(1, 0.75), (2, 0.5)]
    assert curve("trial 0", "seconds/train") == [(1, 1.5)]
    assert curve("trial 1", "v") == [(1, 0.125), (2, 0.25)]
    assert curve("trial 1", "loss") == [(2, 0.5)]


def test_a_password_in_an_address_is_refused_without_repeating_it():
    [problem] = logging_problems(Logging(mlflow="https://me:secret@host/x"))
    assert problem.startswith("logging.mlflow: must hold no credentials")
    assert "secret" not in problem
    assert problem.endswith("put credentials into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    [problem] = logging_problems(Logging(mlflow="postgresql://me:secret@host/mlflow"))
    assert problem.endswith("put credentials into PGPASSWORD or ~/.pgpass")
    for address in ("https://host/x", "postgresql://me@host/mlflow", "sqlite:///a@b.db", "runs/mlflow"):
        assert logging_problems(Logging(mlflow=address)) == []


class Listening:
    """Keeps the kinds of events it took; may break or hang on the way."""

    def __init__(self, breaks_at=None, hangs=None):
        self.heard, self.closed = [], False
        self._breaks_at, self._hangs = breaks_at, hangs

    def __str__(self):
        return "a copy"

    def open(self):
        if self._hangs:
            self._hangs.wait()

    def take(self, happening, history):
        self.heard.append(happening.event.kind)
        if len(self.heard) == self._breaks_at:
            raise OSError("no room\nand more")

    def flush(self):
        pass

    def close(self):
        self.closed = True


def test_a_copy_that_breaks_is_told_once_and_neither_the_others_nor_the_study_mind(tmp_path):
    said, good, bad = [], Listening(), Listening(breaks_at=2)
    with Ledger(tmp_path / "study.db") as ledger:
        ledger.append(*BEFORE[:3])
        thread = Bridges(ledger.path, [bad, good], said.append)
        thread.start()
        ledger.append(*BEFORE[3:5])
        thread.finish(patience=60)
    assert said == ["a copy ends, the search goes on: OSError: no room"]
    assert bad.heard == ["session_opened", "asked"]
    assert good.heard == ["session_opened", "asked", "started", "epoch_reported", "epoch_reported"]
    assert bad.closed
    assert good.closed


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("no answer from https://me:secret@host/x\nmore"), "OSError: no answer from https://host/x"),
        (OSError(), "OSError: "),
    ],
)
def test_what_a_copy_ends_with_is_told_without_a_password_even_where_it_says_nothing(tmp_path, error, told):
    class Broken(Listening):
        def __str__(self):
            return str(MlflowCopy(CONFIG, "https://me:secret@host/x"))

        def take(self, happening, history):
            raise error

    said = []
    with Ledger(tmp_path / "study.db") as ledger:
        whole = Listening()
        thread = Bridges(ledger.path, [Broken(), whole], said.append)
        ledger.append(SessionOpened("host", 1))
        thread.start()
        thread.finish()
    assert said == [f"the copy in MLflow at https://host/x ends, the search goes on: {told}"]
    assert whole.heard == ["session_opened"]


def test_an_ending_driver_does_not_wait_for_a_copy_that_hangs(tmp_path):
    never = threading.Event()
    with Ledger(tmp_path / "study.db") as ledger:
        ledger.append(*BEFORE[:1])
        thread = Bridges(ledger.path, [Listening(hangs=never)], print)
        thread.start()
        thread.finish(patience=0.1)
    assert thread.is_alive()
    never.set()
    thread.join(60)


def test_a_study_that_wants_no_copies_starts_no_thread():
    before = threading.active_count()
    with copied_to_bridges(CONFIG, SimpleNamespace(), print):
        assert threading.active_count() == before


def test_what_is_wanted_must_be_installed(monkeypatch):
    monkeypatch.setattr(copies, "find_spec", lambda name: None)
    assert logging_problems(Logging()) == []
    assert logging_problems(Logging(tensorboard=True, mlflow=True)) == [
        "logging.mlflow: needs the package mlflow: pip install 'thawline[mlflow]'",
        "logging.tensorboard: needs the package tensorboardX: pip install tensorboardX",
    ]


def test_a_study_file_says_where_else_it_is_written_down():
    logging = StudyConfig.parse({"logging": {"tensorboard": True, "mlflow": "http://127.0.0.1:5000"}}).logging
    assert (logging.tensorboard, logging.mlflow) == (True, "http://127.0.0.1:5000")
    with pytest.raises(ConfigurationError, match=r"logging\.tensorbord: unknown key; did you mean `tensorboard`"):
        StudyConfig.parse({"logging": {"tensorbord": True}})
