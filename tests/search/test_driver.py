import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml
from pydantic import BaseModel

from search.config import Direction, StudyConfig
from search.driver import Session, largest_values, run_study
from search.errors import ConfigurationError, LedgerError, StudyStopped
from search.events import Asked, EpochReported, TrialKey
from search.ledger import Ledger, read_history
from search.lock import exclusive
from search.paths import StudyPaths
from search.recovery import read_entries
from search.view.progress import View

DRIVER = Path(__file__).parents[1] / "fakes" / "pretended_study.py"
SPACE = {"x": {"type": "float", "low": 0.1, "high": 1.0}}


class Training(BaseModel):
    x: float = 0.0
    width: int = 8


class Nothing:
    """A trainable that prepares, but is never asked for a trial."""

    sections: Mapping[str, type[BaseModel]] = {"training": Training}
    metrics: Mapping[str, Direction] = {"v": "maximize", "w": "maximize", "error": "minimize"}
    trial_class = object

    def __init__(self, fingerprint="f1"):
        self.fingerprint = fingerprint
        self.prepared: list[Any] = []

    def settled(self, config, earlier):
        return config

    def prepare(self, config, largest, folder, progress):
        self.prepared.append((config, largest, folder))
        return SimpleNamespace(record={"data": {"fingerprint": self.fingerprint}}, context={}, remarks=())


def study(tmp_path, **more):
    document = {"name": "it", "storage": str(tmp_path), "space": SPACE, "objective": {"metric": "v"}} | more
    return StudyConfig.parse(document)


def refused(config, trainable=None):
    with pytest.raises(ConfigurationError) as caught, Session(config, trainable or Nothing()):
        pass
    return caught.value.problems


def opened(config, trainable=None):
    with Session(config, trainable or Nothing()) as session:
        return session.paths


def test_a_session_writes_down_what_is_resolved_before_the_first_trial(tmp_path):
    trainable = Nothing()
    paths = opened(study(tmp_path), trainable)
    written = StudyConfig.load(paths.study_file)
    assert written.training == {"x": 0.0, "width": 8}
    assert written.record["data"] == {"fingerprint": "f1"}
    assert written.record["versions"]["optuna"].startswith("5.")
    [(config, largest, folder)] = trainable.prepared
    assert (config.training, largest, folder) == (Training(), {"x": 1.0}, tmp_path / "it")
    assert read_history(paths.ledger).trials == {}


def test_what_is_wrong_with_a_study_is_told_before_anything_is_written(tmp_path):
    config = study(tmp_path / "runs", space={}, objective={"metric": "auc"})
    assert refused(config) == [
        "objective.metric: must be one of v, w, error, but got 'auc'",
        "space: must name at least one hyperparameter to search",
    ]
    assert not (tmp_path / "runs").exists()


def test_a_search_for_the_worst_trial_is_refused(tmp_path):
    assert refused(study(tmp_path, objective={"metric": "error"})) == [
        "objective.direction: must be 'minimize' with error, but got 'maximize'"
    ]
    opened(study(tmp_path, objective={"metric": "error", "direction": "minimize"}))


def test_another_configuration_on_a_run_is_refused_with_every_difference(tmp_path):
    paths = opened(study(tmp_path))
    before = paths.study_file.read_bytes()
    changed = study(tmp_path, seed=1, training={"width": 9}, budget={"epochs": 3}, objective={"metric": "w"})
    assert refused(changed) == [
        f"{paths.root} holds a study with another configuration; give another --name, or undo:",
        "seed: 0 -> 1",
        "training.width: 8 -> 9",
        "objective.metric: 'v' -> 'w'",
        "budget.epochs: 9 -> 3",
    ]
    assert paths.study_file.read_bytes() == before


def rewritten(paths, change):
    """Changes a run's study file."""
    document = yaml.safe_load(paths.study_file.read_text())
    change(document)
    paths.study_file.write_text(yaml.safe_dump(document))


def test_a_study_that_is_older_than_a_setting_goes_on_with_its_default(tmp_path):
    paths = opened(study(tmp_path))
    rewritten(paths, lambda document: document["training"].pop("width"))
    opened(study(tmp_path))
    assert refused(study(tmp_path, training={"width": 9}))[1:] == ["training.width: 8 -> 9"]


def test_other_versions_than_the_last_sessions_are_told(tmp_path):
    paths, said = opened(study(tmp_path)), []
    rewritten(paths, lambda document: document["record"]["versions"].update(optuna="4.0.0"))
    view = View()
    view.say = said.append
    for expected in (1, 0):  # told once: then it is the last session's
        said.clear()
        with Session(study(tmp_path), Nothing(), view):
            pass
        assert sum("so results may differ: optuna: '4.0.0' -> '5." in line for line in said) == expected


def test_a_start_that_was_cut_off_before_its_study_file_leaves_no_split(tmp_path):
    paths = opened(study(tmp_path))
    paths.study_file.unlink()
    paths.split.write_text("of other groups")
    opened(study(tmp_path, seed=1))
    assert not paths.split.exists()


def test_trials_whose_study_file_is_gone_are_not_gone_on_with(tmp_path):
    paths = opened(study(tmp_path))
    with Ledger(paths.ledger) as ledger:
        ledger.append(Asked(0, {"x": 0.5}, 1))
    paths.study_file.unlink()
    with pytest.raises(LedgerError, match="the study file must be here too, but it is gone; put it back"):
        opened(study(tmp_path))


class Deciding(Nothing):
    """Makes a width of 0 one that suits the machine."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def settled(self, config, earlier):
        width = earlier.training["width"] if earlier else self.width
        return config.model_copy(update={"training": Training(width=config.training.width or width)})


def test_what_is_left_to_the_machine_is_decided_once_and_said(tmp_path):
    class Told(View):
        said: ClassVar[list[str]] = []

        def say(self, text):
            self.said.append(text)

    left_open = study(tmp_path, training={"width": 0})
    with Session(left_open, Deciding(16), Told()) as session:
        assert session._trainable.prepared[0][0].training.width == session.config.training.width == 16
    assert Told.said == ["training.width: 0 -> 16 on this machine"]
    assert StudyConfig.load(session.paths.study_file).training["width"] == 16
    for again in (left_open, StudyConfig.load(session.paths.study_file), study(tmp_path, training={"width": 16})):
        with Session(again, Deciding(32)) as session:
            assert session.config.training.width == 16
    [_, line] = refused(study(tmp_path, training={"width": 32}), Deciding(32))
    assert line == "training.width: 16 -> 32"


def test_how_long_and_where_a_study_runs_may_change(tmp_path):
    opened(study(tmp_path))
    budget = {"trials": 99, "wall_seconds": 5.5, "retries": 0, "consecutive_failures": 1}
    budget |= {"checkpoint_every": 2, "checkpoint_seconds": 60}
    more = {"budget": budget, "resources": {"cpus_per_trial": 2, "address": "auto"}, "final": {"finalists": 0}}
    paths = opened(study(tmp_path, **more))
    assert StudyConfig.load(paths.study_file).budget.trials == 99


def test_a_moved_run_is_still_the_same_study(tmp_path):
    opened(study(tmp_path))
    (tmp_path / "it").rename(tmp_path / "renamed")
    assert opened(study(tmp_path, name="renamed")).root == tmp_path / "renamed"


def test_text_that_looks_like_a_number_is_the_same_study_again(tmp_path):
    space = {**SPACE, "width": {"type": "choice", "values": [1, 2]}}
    config = study(tmp_path, name="1e5", space=space, first_points=[{"x": 0.1}])
    assert opened(config).root == opened(config).root


def test_other_images_on_a_run_are_refused(tmp_path):
    opened(study(tmp_path))
    assert refused(study(tmp_path), Nothing("f2")) == [
        "data: a study is of one set of images, but its fingerprint was f1 and is f2"
    ]


def test_a_second_driver_is_refused_before_it_prepares_anything(tmp_path):
    paths = opened(study(tmp_path))
    trainable = Nothing()
    with exclusive(paths.lock):
        [problem] = refused(study(tmp_path), trainable)
    assert f"process {os.getpid()} on" in problem
    assert trainable.prepared == []


def test_a_run_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "it").write_text("a file")
    [problem] = refused(study(tmp_path))
    assert problem == f"storage: the run folder {tmp_path / 'it'} must be writable, but File exists"


def test_a_name_cannot_lead_out_of_the_storage(tmp_path):
    assert "must be 1-100 letters" in refused(study(tmp_path / "a", name="../b"))[0]
    assert list(tmp_path.iterdir()) == []


def test_a_session_that_cannot_start_lets_go_of_lock_and_ledger(tmp_path):
    paths = opened(study(tmp_path))
    content = paths.ledger.read_bytes()
    paths.ledger.write_bytes(b"no ledger")
    lines = paths.journal.read_bytes()
    paths.journal.write_bytes(b"no journal")
    with pytest.raises(LedgerError), Session(study(tmp_path), Nothing()):
        pass
    paths.ledger.write_bytes(content)
    paths.journal.write_bytes(lines)
    opened(study(tmp_path))


class Seeing(View):
    """Remembers what it was told, and how the study ended."""

    def __init__(self):
        self.told: list[Any] = []

    def happened(self, event):
        self.told.append(type(event).__name__)

    def __exit__(self, kind, error, trace):
        self.told.append(kind)


def test_a_session_copies_what_happened_where_its_study_file_says(tmp_path):
    with Session(study(tmp_path, logging={"tensorboard": True}), Nothing()) as session:
        session.ledger.append(Asked(0, {"x": 0.5}, 0), EpochReported(0, 1, {"v": 0.5}, "complete"))
    assert (session.paths.tensorboard / "trial_0" / "whole").exists()


def test_the_view_hears_every_event_and_how_the_study_ended(tmp_path):
    view = Seeing()
    with Session(study(tmp_path), Nothing(), view) as session:
        session.note("winner", {"number": 1})
    assert view.told == ["SessionOpened", "Noted", None]
    again = Seeing()
    with pytest.raises(RuntimeError, match="inside"), Session(study(tmp_path), Nothing(), again):
        raise RuntimeError("inside")
    assert again.told == ["SessionOpened", RuntimeError]


def test_checkpoints_go_as_trials_end_and_what_an_earlier_session_left_goes_at_the_next_start(tmp_path):
    with Session(study(tmp_path), Nothing()) as session:
        folders = {number: session.paths.checkpoints(number) for number in (0, 1)}
        session.ledger.append(*(Asked(number, {}, 0) for number in folders))
        (folders[1] / "000001").mkdir(parents=True)
        session.ledger.append(EpochReported(0, 1, {"v": 1.0}, "prune"), EpochReported(1, 1, {"v": 1.0}, "prune"))
        assert not folders[1].exists()
    (folders[0] / ".000002.tmp").mkdir(parents=True)
    opened(study(tmp_path))
    assert not folders[0].exists()


def test_f48_other_weights_on_a_run_are_refused(tmp_path):
    trainable = Nothing()
    trainable.prepare = lambda *_: SimpleNamespace(record={"weights_sha256": "w1"}, context={}, remarks=())
    opened(study(tmp_path), trainable)
    trainable.prepare = lambda *_: SimpleNamespace(record={"weights_sha256": "w2"}, context={}, remarks=())
    assert refused(study(tmp_path), trainable) == [
        "model.weights: a study starts from one set of weights, but their sha256 was w1 and is w2"
    ]


@pytest.mark.parametrize(("end", "stops"), [("fail", True), ("prune", False), ("complete", False)])
def test_values_of_failed_trials_are_none_of_the_search(tmp_path, end, stops):
    with Session(study(tmp_path, budget={"trials": 1, "epochs": 2}), Nothing()) as session:
        session.ledger.append(Asked(0, {"x": 0.5}, 0), EpochReported(0, 1, {"v": 0.9}, "continue"))
        session.ledger.append(EpochReported(0, 2, {"v": 0.9}, end, reason="it diverged"))
        if stops:
            with pytest.raises(StudyStopped, match="no trial completed or was pruned with a value of v; see `thawline"):
                session.search()
        else:
            session.search()


def test_a_finished_study_needs_no_ray(tmp_path, monkeypatch):
    paths = opened(study(tmp_path))
    with Ledger(paths.ledger) as ledger:
        ledger.append(Asked(0, {"x": 0.5}, 0), EpochReported(0, 1, {"v": 0.5}, "complete"))
    monkeypatch.setattr("search.cluster.connect", None)
    assert run_study(study(tmp_path, budget={"trials": 1}), Nothing()) == StudyPaths(tmp_path / "it")


def test_a_complete_study_says_so_and_what_was_left_out_is_said(tmp_path):
    class Told(View):
        said: ClassVar[list[str]] = []

        def say(self, text):
            self.said.append(text)

    trainable = Nothing()
    prepared = SimpleNamespace(record={}, context={}, remarks=("1 of the files cannot be read",))
    trainable.prepare = lambda *_: prepared
    with Session(study(tmp_path, budget={"trials": 1, "epochs": 1}), trainable, Told()) as session:
        session.ledger.append(Asked(0, {"x": 0.5}, 0), EpochReported(0, 1, {"v": 0.9}, "complete"))
        session.search(then_rerun=lambda history: [])
    assert Told.said == [
        "1 of the files cannot be read",
        "the search is complete; more --trials, or a larger --time-budget, extend it",
    ]


def test_the_largest_values_of_a_study_are_those_that_are_numbers():
    space = {
        "a": {"type": "int", "low": 0, "high": 5},
        "b": {"type": "choice", "values": [64, 16]},
        "c": {"type": "choice", "values": ["x", 1]},
    }
    assert largest_values(StudyConfig.parse({"space": space})) == {"a": 5, "b": 64}


# From here on with real Ray: a driver is a process that can be killed.

STORY = {
    "name": "it",
    "space": SPACE,
    "objective": {"metric": "v"},
    "pruner": {"name": "none"},
    "budget": {"trials": 8, "epochs": 3},
    "resources": {"concurrency": 2, "cpus_per_trial": 0.5},
    "training": {"epoch_seconds": 0.2},
    "final": {"finalists": 0},
}


@pytest.fixture(scope="module")
def folder():
    """Directly under /tmp, because pytest's folders are too long for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@contextmanager
def driver(folder, document):
    """A driver at work on a study under `folder`; killed if it still works in the end."""
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), json.dumps({**document, "storage": str(folder)})],
        env={**os.environ, "TMPDIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_until_ended(paths, count, process):
    """Wait until so many trials have ended while the driver works."""
    while sum(trial.ended for trial in history_of(paths)) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def ended(process):
    """Its exit code and what it said."""
    _, said = process.communicate()
    return process.returncode, said


def recorded(paths, kind):
    """What was recorded of events of one kind."""
    return [json.loads(entry.body) for entry in read_entries(paths.ledger) if entry.kind == kind]


def history_of(paths):
    return read_history(paths.ledger).search_trials() if paths.ledger.exists() and paths.ledger.stat().st_size else []


@pytest.fixture(scope="module")
def story(folder):
    """A study whose driver is killed, told to stop, started again, and whose budget is raised in the end."""
    paths = StudyPaths(folder / "it")
    told = SimpleNamespace(paths=paths)
    copied = {**STORY, "logging": {"tensorboard": True}}
    with driver(folder, copied) as process:
        wait_until_ended(paths, 2, process)
        process.kill()
    told.after_kill = read_history(paths.ledger)
    with driver(folder, STORY) as process:
        wait_until_ended(paths, 4, process)
        process.terminate()
        told.exit_code = process.wait(timeout=5)
    told.after_stop = read_history(paths.ledger)
    with driver(folder, copied) as process:
        told.finished = ended(process)
    told.after_finish = read_history(paths.ledger)
    extended = {**copied, "budget": {"trials": 10, "epochs": 3}, "final": {"finalists": 1, "repeats": 2}}
    with driver(folder, extended) as process:
        told.extended = ended(process)
    told.after_extension = read_history(paths.ledger)
    return told


def keys(history):
    return [str(key) for key in history.trials]


@pytest.mark.ray
def test_a_killed_drivers_study_goes_on_to_exactly_as_many_trials_as_asked(story):
    assert 2 <= len(story.after_kill.trials) < 8
    assert story.finished[0] == 0, story.finished[1]
    assert keys(story.after_finish) == [str(number) for number in range(8)]
    for trial in story.after_finish.search_trials():
        assert trial.status == "completed"
        assert [(epoch.epoch, epoch.metrics["v"]) for epoch in trial.epochs] == [
            (epoch, trial.parameters["x"] * epoch) for epoch in (1, 2, 3)
        ]


@pytest.mark.ray
def test_what_had_ended_before_a_kill_stays_as_it_was(story):
    ended = [trial for trial in story.after_kill.search_trials() if trial.ended]
    assert len(ended) >= 2
    assert all(story.after_extension.trials[trial.key] == trial for trial in ended)


@pytest.mark.ray
def test_a_driver_told_to_stop_ends_within_seconds_and_says_so_in_its_exit_code(story):
    assert story.exit_code == 143
    assert 4 <= sum(trial.ended for trial in story.after_stop.search_trials()) < 8


@pytest.mark.ray
def test_a_finished_study_can_be_extended_and_its_finalists_rerun(story):
    assert story.extended[0] == 0, story.extended[1]
    assert keys(story.after_extension) == [*(str(number) for number in range(10)), "0.1", "0.2"]
    assert {trial.status for trial in story.after_extension.trials.values()} == {"completed"}
    reruns = story.after_extension.reruns()
    assert len({trial.seed for trial in [*reruns, story.after_extension.trials[TrialKey(0)]]}) == 3
    assert all(trial.parameters == story.after_extension.trials[TrialKey(0)].parameters for trial in reruns)


@pytest.mark.ray
def test_the_copy_for_tensorboard_has_every_epoch_once_though_a_session_was_killed_and_one_made_no_copy(story):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for key, trial in story.after_extension.trials.items():
        found = EventAccumulator(str(story.paths.tensorboard / f"trial_{key}")).Reload().Scalars("v")
        expected = {epoch.epoch: pytest.approx(epoch.metrics["v"]) for epoch in trial.epochs}
        assert [(point.step, point.value) for point in found] == list(expected.items())


@pytest.mark.ray
def test_the_ledger_says_what_there_was_to_work_with(story):
    facts = story.after_extension.note("cluster")
    assert (facts["nodes"], facts["trials_at_once"], facts["cpus_per_trial"]) == (1, 2, 0.5)
    assert facts["cpus"] >= 1


@pytest.mark.ray
def test_workers_are_reused_from_trial_to_trial(story):
    last = [trial for trial in story.after_extension.trials.values() if trial.number >= 8 or trial.repeat]
    assert len({trial.worker for trial in last}) <= 2


@pytest.mark.ray
def test_paused_trials_go_on_from_their_own_state_on_whichever_worker_is_free(folder):
    pruner = {"variant": "promotion", "reduction_factor": 2}
    document = {**STORY, "name": "promoting", "pruner": pruner, "training": {}, "budget": {"trials": 8, "epochs": 3}}
    with driver(folder, document) as process:
        exit_code, said = ended(process)
    assert exit_code == 0, said
    paths = StudyPaths(folder / "promoting")
    trials = history_of(paths)
    assert {trial.status for trial in trials} == {"completed", "pruned"}
    promoted = [event["number"] for event in recorded(paths, "promoted")]
    assert promoted
    for trial in trials:
        done = [str(epoch.epoch) for epoch in trial.epochs]
        assert (paths.trial(trial.number) / "epochs").read_text().split() == done
        assert json.loads((paths.trial(trial.number) / "pauses").read_text()) == [1, 2]
        assert trial.attempts == 1
    starts = Counter(event["number"] for event in recorded(paths, "started"))
    assert starts == Counter(range(8)) + Counter(promoted)


@pytest.mark.ray
def test_a_study_whose_trials_all_fail_stops_with_the_reason(folder):
    document = {**STORY, "name": "failing", "training": {"fails": True}, "resources": {"concurrency": 1}}
    document["budget"] = {"trials": 8, "epochs": 3, "consecutive_failures": 3}
    with driver(folder, document) as process:
        exit_code, said = ended(process)
    assert exit_code == 1
    assert "3 trials in a row failed, the last one because it pretends to fail" in said
    trials = history_of(StudyPaths(folder / "failing"))
    assert [(trial.status, trial.reason) for trial in trials] == [("failed", "it pretends to fail")] * 3
