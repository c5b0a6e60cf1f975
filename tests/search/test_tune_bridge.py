import os
import pickle
import signal
from pathlib import Path

import pytest

import trainable.trial
from search import tune_bridge
from search.cluster import connect
from search.config import StudyConfig
from search.errors import LedgerError
from search.events import TrialKey
from search.ledger import Ledger
from search.retries import Death
from search.study import Study
from search.trial_source import Report, Request
from search.tune_bridge import Searcher, TrialScheduler, run_trials

pytestmark = pytest.mark.ray


def test_workers_and_driver_agree_where_messages_are():
    assert tune_bridge.MESSAGE == trainable.trial.MESSAGE


class Script:
    """A source that hands out what it was given and writes down what it hears."""

    resting = 0
    waiting = ()

    def __init__(self, *answers):
        self.answers = list(answers)
        self.heard = []

    def ask(self):
        return self.answers.pop(0) if self.answers else None

    def started(self, key, worker):
        self.heard.append(("started", key, worker))

    def report(self, key, report):
        self.heard.append(("report", key, report))
        return {1: "continue", 2: "prune", 3: "complete", 4: "fail"}[report.epoch]

    def fail(self, key, reason, infeasible):
        self.heard.append(("fail", key, reason, infeasible))

    def lost(self, key, death):
        self.heard.append(("lost", key, death))


def request(number, repeat=0, reported=0):
    return Request(TrialKey(number, repeat), {"x": 0.5}, 7, 9, reported)


def epoch(number, last=False):
    return {"kind": "epoch", "epoch": number, "metrics": {"v": 0.5}, "seconds": {"train": 1.0}, "last": last}


def test_a_request_becomes_plain_values_beside_what_all_trials_share():
    courier = tune_bridge._Courier(Script(request(3, 1, reported=2)), {"folder": "x"}, 1)
    assert courier.next("ray") == {
        "study": {"folder": "x"},
        "trial": {"key": [3, 1], "parameters": {"x": 0.5}, "seed": 7, "epochs": 9, "epochs_reported": 2},
        "waiting": [],
    }


def test_a_worker_is_told_which_trials_wait_so_that_it_can_save_the_one_it_leaves():
    source = Script(request(0), request(1), request(2))
    source.report = lambda key, report: source.waiting.append(key) or "pause"
    source.waiting = []
    courier = tune_bridge._Courier(source, {}, 3)
    for name in "ab":
        courier.next(name)
        courier.deliver(name, {"kind": "started", "worker": f"host/{name}"})
        courier.deliver(name, epoch(1))
    source.waiting.remove(TrialKey(1))  # pruned meanwhile
    assert courier.next("c")["waiting"] == [[0, 0]]


def test_no_trial_is_told_of_more_waiting_ones_than_there_are_workers():
    source = Script(*map(request, range(300)))
    source.report = lambda key, report: source.waiting.append(key) or "pause"
    source.waiting = []
    courier = tune_bridge._Courier(source, {}, 2)
    for number in range(300):
        name, worker = f"ray-{number}", f"host/{number % 2}"
        told = courier.next(name)["waiting"]
        assert told == [[left, 0] for left in range(max(0, number - 2), number)]
        courier.deliver(name, {"kind": "started", "worker": worker})
        courier.deliver(name, epoch(1))
        courier.over(name, error=False)


def test_no_more_is_asked_than_run_at_once_and_an_end_is_called_only_when_nothing_runs():
    source = Script(request(0), request(1), None, request(2), None, None)
    courier = tune_bridge._Courier(source, {}, 2)
    assert [type(courier.next(name)) for name in "ab"] == [dict, dict]
    assert courier.next("c") is None
    assert len(source.answers) == 4
    courier.over("a", error=False)
    assert courier.next("c") is None  # the other may yet lose its worker
    assert courier.next("c")["trial"]["key"] == [2, 0]
    for name in "bc":
        courier.over(name, error=False)
    assert courier.next("d") == Searcher.FINISHED


def test_messages_become_calls_and_verdicts_become_decisions():
    source = Script(request(5, 1))
    courier = tune_bridge._Courier(source, {}, 1)
    courier.next("a")
    messages = [
        {"kind": "started", "worker": "host/1"},
        epoch(1),
        epoch(2),
        epoch(3, last=True),
        epoch(4),
        {"kind": "failed", "reason": "no memory", "infeasible": True},
        {"kind": "failed", "reason": "other"},
    ]
    go_on, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert [courier.deliver("a", message) for message in messages] == [go_on, go_on, stop, stop, stop, stop, stop]
    key = TrialKey(5, 1)
    assert source.heard == [
        ("started", key, "host/1"),
        *(("report", key, Report(number, {"v": 0.5}, {"train": 1.0}, number == 3)) for number in (1, 2, 3, 4)),
        ("fail", key, "no memory", True),
        ("fail", key, "other", False),
    ]


def test_a_trial_is_lost_only_when_its_worker_died_and_only_once():
    source = Script(request(0), request(1), request(2))
    courier = tune_bridge._Courier(source, {}, 3)
    for name in "abc":
        courier.next(name)
    courier.deliver("b", {"kind": "started", "worker": "w"})
    courier.errors["b"] = "killed"
    courier.over("a", error=False)
    for name in "bbc":
        courier.over(name, error=True)
    assert source.heard[1:] == [
        ("lost", (1, 0), Death("died", "killed")),
        ("lost", (2, 0), Death("made_room", "its worker died")),
    ]


def test_tune_may_pickle_what_it_holds_without_taking_the_ledger_along(tmp_path):
    with Ledger(tmp_path / "study.db") as ledger:
        courier = tune_bridge._Courier(Study(config(), ledger), {}, 1)
        assert len(pickle.dumps(courier)) < 100


def config(trials=4, **budget):
    return StudyConfig.parse(
        {
            "space": {"x": {"type": "float", "low": 0.1, "high": 1.0}},
            "objective": {"metric": "v"},
            "pruner": {"name": "none"},
            "budget": {"trials": trials, "epochs": 2, **budget},
        }
    )


def pretended_trial():
    """A trial that reports `x * epoch`. Made in a function, so that Ray sends it to workers by value."""
    from ray import tune

    class Trial(tune.Trainable):
        def setup(self, config):
            self.reset_config(config)

        def reset_config(self, new_config):
            self._messages = self._run(new_config["study"], new_config["trial"])
            return True

        def step(self):
            return {"thawline": [next(self._messages)]}

        def _run(self, study, trial):
            yield {"kind": "started", "worker": str(os.getpid())}
            for epoch in range(1, trial["epochs"] + 1):
                value = trial["parameters"]["x"] * epoch
                yield {"kind": "epoch", "epoch": epoch, "metrics": {"v": value}, "seconds": {}, "last": False}
                if trial["key"][0] in study["raises"]:
                    raise RuntimeError("a mistake of the trainable")
                died = Path(study["folder"]) / "died"
                if trial["key"][0] in study["dies"] and not died.exists():
                    died.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

    return Trial


@pytest.fixture(scope="module")
def ray():
    with connect(cpus=2):
        yield


@pytest.fixture
def run(ray, tmp_path):
    """Runs a study made of a ledger, with these trials misbehaving."""

    def run(source, dies=(), raises=()):
        context = {"folder": str(tmp_path), "dies": list(dies), "raises": list(raises)}
        run_trials(source, pretended_trial(), context, {"CPU": 1}, 2)

    return run


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "study.db") as opened:
        yield opened


def test_trials_run_to_their_ends_on_two_workers_that_are_reused(run, ledger):
    run(Study(config(trials=6), ledger))
    trials = ledger.history.search_trials()
    assert [trial.number for trial in trials] == list(range(6))
    for trial in trials:
        assert (trial.status, trial.attempts) == ("completed", 1)
        assert [epoch.metrics["v"] for epoch in trial.epochs] == [trial.parameters["x"], trial.parameters["x"] * 2]
    assert len({trial.worker for trial in trials}) <= 2


def test_a_trial_whose_worker_dies_or_whose_code_breaks_is_tried_again(run, ledger):
    run(Study(config(retries=1), ledger), dies=[0], raises=[2])
    trials = ledger.history.search_trials()
    assert [trial.status for trial in trials] == ["completed", "completed", "failed", "completed"]
    assert [trial.attempts for trial in trials] == [2, 1, 2, 1]
    assert trials[0].epochs[0].metrics["v"] == trials[0].parameters["x"]
    assert trials[2].reason == "its worker died 2 times, the last time: RuntimeError: a mistake of the trainable"


def test_a_trial_whose_worker_dies_each_time_fails_with_what_is_known_of_the_death(run, ledger):
    run(Study(config(trials=1, retries=0), ledger), dies=[0])
    [trial] = ledger.history.search_trials()
    assert trial.status == "failed"
    assert "its worker process has died" in trial.reason


def test_a_ledger_that_cannot_be_written_ends_the_search_with_its_own_error(run, ledger):
    def fill_disk(event):
        if len(ledger.history.trials) == 3:
            ledger._database.execute("PRAGMA query_only = 1")

    ledger.listeners.append(fill_disk)
    with pytest.raises(LedgerError, match="every event must be durable"):
        run(Study(config(), ledger))
    assert len(ledger.history.trials) == 3


def test_a_mistake_in_asking_comes_through_as_it_is(run, ledger):
    class Mistaken(Study):
        def ask(self):
            if len(self.ledger.history.trials) == 2:
                raise ZeroDivisionError("while choosing")
            return super().ask()

    with pytest.raises(ZeroDivisionError, match="while choosing"):
        run(Mistaken(config(), ledger))
