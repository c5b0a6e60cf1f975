"""What trials may do to a search, without Ray: workers are scripts, and time passes only where a test lets it."""

import math
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.config import StudyConfig
from search.driver import Session
from search.events import TrialKey
from search.ledger import Ledger
from search.retries import Death
from search.study import Study
from search.trial_source import MAX_REASON
from search.tune_bridge import _Courier
from search.view.progress import View
from search.watchdog import AwakeClock, Watchdog

NODE_DIED = "The actor died because its node has died.\n\tthe actor's node was terminated unexpectedly: no heartbeats"


def config(trials=3, epochs=3, pruner="none", space=None, **budget):
    return StudyConfig.parse(
        {
            "space": space or {"x": {"type": "float", "low": 0.1, "high": 1.0}},
            "objective": {"metric": "v"},
            "sampler": {"name": "tpe", "startup_trials": 4},
            "pruner": {"name": pruner},
            "budget": {"trials": trials, "epochs": epochs, **budget},
        }
    )


def epoch(number, value, last=False):
    return {"kind": "epoch", "epoch": number, "metrics": {"v": value}, "seconds": {}, "last": last}


class Bench:
    """A search and its workers on one bench: a courier whose messages come from scripts."""

    def __init__(self, path, settings, concurrency=1, silence=None):
        self.time = SimpleNamespace(now=0.0)
        self.ledger = Ledger(path)
        self.study = Study(settings, self.ledger, lambda: self.time.now)
        self.courier = _Courier(self.study, {}, concurrency, Watchdog(silence), AwakeClock(lambda: self.time.now))
        self.names = iter(f"ray-{number}" for number in range(10_000))

    def ask(self):
        """A Ray trial's name and what it is to run; the second is None or FINISHED when there is nothing."""
        name = next(self.names)
        return name, self.courier.next(name)

    def say(self, name, *messages):
        """The worker's words; what the last of them is answered."""
        for message in messages:
            answer = self.courier.deliver(name, message)
        if answer == TrialScheduler.STOP:
            self.courier.over(name, error=False)
        return answer

    def die(self, name, error="RayError: its worker process has died"):
        self.courier.errors[name] = error
        self.courier.over(name, error=True)

    def wait(self, seconds, workers=()):
        """Time passes as it does for a driver that looks several times a second; who was found hanging."""
        found = {}
        for _ in range(int(seconds)):
            self.time.now += 1
            found |= self.courier.hanging(workers)
        return found

    def trial(self, number=0):
        return self.ledger.history.trials[TrialKey(number)]

    def run(self, work):
        """Everything that is asked for, one after the other; `work` gives a trial's messages."""
        while True:
            name, asked = self.ask()
            if asked == Searcher.FINISHED:
                return
            if asked is None:
                self.wait(1)
                continue
            for message in work(asked["trial"]):
                if message is None:
                    self.die(name)
                    break
                if self.say(name, message) == TrialScheduler.STOP:
                    break


@pytest.fixture
def bench(tmp_path):
    opened = []

    def make(settings, **more):
        opened.append(Bench(tmp_path / "study.db", settings, **more))
        return opened[-1]

    yield make
    for each in opened:
        each.ledger.close()


STARTED = {"kind": "started", "worker": "host/1"}


def test_f03_a_lost_node_is_not_charged_to_the_trial(bench):
    it = bench(config(retries=0))
    for reported in range(3):
        name, asked = it.ask()
        assert asked["trial"]["epochs_reported"] == reported
        answer = it.say(name, STARTED, epoch(reported + 1, 0.5))
        if reported < 2:
            it.die(name, NODE_DIED)
    assert answer == TrialScheduler.STOP
    assert (it.trial().status, it.trial().attempts) == ("completed", 3)


def test_f04_a_trial_whose_node_is_lost_before_it_ran_is_asked_again(bench):
    it = bench(config(retries=0))
    name, _ = it.ask()
    it.die(name, NODE_DIED)
    name, asked = it.ask()
    assert asked["trial"]["key"] == [0, 0]
    assert it.trial().status == "waiting"


def test_f05_a_trial_on_a_drained_node_goes_on_elsewhere_uncharged(bench):
    it = bench(config(retries=0))
    name, _ = it.ask()
    it.say(name, STARTED, epoch(1, 0.5))
    it.courier.ending[name] = Death("node", "its node is being drained")
    it.die(name, "The actor is dead because it was killed by `ray.kill`.")
    _, asked = it.ask()
    assert (asked["trial"]["key"], asked["trial"]["epochs_reported"]) == ([0, 0], 1)


def test_f12_a_driver_that_was_stopped_for_an_hour_finds_nobody_hanging(bench):
    it = bench(config(), silence=30)
    name, _ = it.ask()
    it.say(name, STARTED)
    assert it.wait(20, [name]) == {}
    it.time.now += 3600  # the driver, or the whole machine, stood still
    assert it.courier.hanging([name]) == {}
    assert list(it.wait(10, [name])) == [name]


def test_f13_a_trial_that_hangs_is_tried_again_once_and_then_fails_as_timed_out(bench):
    it = bench(config(trials=2, retries=9), silence=60)
    for attempt in (1, 2):
        name, _ = it.ask()
        it.say(name, STARTED)
        assert it.wait(60, [name]) == {}
        it.courier.ending |= it.wait(1, [name])
        it.die(name)
        assert it.trial().ended == (attempt == 2)
    assert it.trial().status == "failed"
    assert (
        it.trial().reason == "timeout: it hung 2 times, the last time: nothing was heard of its worker for 61 seconds"
    )
    _, asked = it.ask()
    assert asked["trial"]["key"] == [1, 0]  # its slot is free


def test_f13_slow_first_epochs_are_waited_for(bench):
    it = bench(config(trials=2, epochs=1))
    name, _ = it.ask()
    it.say(name, STARTED, epoch(1, 0.5))  # a trial with quick epochs
    name, _ = it.ask()
    it.say(name, STARTED)
    assert it.wait(5 * 3600, [name]) == {}


def test_f21_a_trial_that_kills_its_worker_each_time_fails_and_the_search_goes_on(bench):
    it = bench(config(trials=4, retries=2))
    it.run(
        lambda asked: [STARTED, *([None] if asked["key"][0] == 1 else [epoch(1, asked["parameters"]["x"], last=True)])]
    )
    assert [it.trial(number).status for number in range(4)] == ["completed", "failed", "completed", "completed"]
    assert it.trial(1).attempts == 3
    assert it.trial(1).reason.startswith("its worker died 3 times, the last time: its worker process has died")
    assert it.study.stopped is None


def test_f21_waits_grow_between_retries_and_hold_the_place_of_the_trial(bench):
    it = bench(config(trials=4, retries=4), concurrency=2)
    name, _ = it.ask()
    it.ask()
    waited = []
    for _ in range(4):
        it.say(name, STARTED)
        it.die(name)
        waited.append(0)
        while (again := it.ask())[1] is None:
            it.wait(1)
            waited[-1] += 1
        name, asked = again
        assert asked["trial"]["key"] == [0, 0]  # nothing new is asked for without its result
    assert waited == [0, 2, 4, 8]
    assert len(it.ledger.history.trials) == 2


def test_f40_a_study_whose_trials_all_fail_stops_and_the_table_says_why(bench):
    it = bench(config(trials=20, consecutive_failures=3))
    it.run(lambda asked: [STARTED, epoch(1, math.nan)])
    reason = "v must be a finite number, but epoch 1 gave nan"
    assert it.study.stopped == f"3 trials in a row failed, the last one because {reason}"
    assert [(trial.status, trial.reason) for trial in it.ledger.history.search_trials()] == [("failed", reason)] * 3


def test_f40_a_trial_that_waits_at_a_rung_ends_a_row_of_failures(bench):
    settings = config(trials=24, consecutive_failures=3).model_dump()
    settings["pruner"] = {"name": "successive_halving", "variant": "synchronous", "min_epochs": 1}
    it = bench(StudyConfig.parse(settings))
    it.run(
        lambda asked: [
            STARTED,
            *(epoch(n, math.nan if asked["key"][0] % 2 else 0.5 + asked["key"][0] / 100) for n in (1, 2, 3)),
        ]
    )
    assert it.study.stopped is None
    counted = [trial.status for trial in it.ledger.history.search_trials()]
    assert (counted.count("failed"), len(counted)) == (12, 24)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "0.9", True, [0.9]], ids=repr)
def test_f39_a_value_that_is_no_finite_number_is_a_failure_and_never_the_best(bench, value):
    it = bench(config(trials=3, epochs=2))
    it.run(
        lambda asked: (
            [STARTED, epoch(1, 0.5), epoch(2, value)]
            if asked["key"][0] == 1
            else [STARTED, epoch(1, 0.4), epoch(2, 0.4)]
        )
    )
    assert [it.trial(number).status for number in range(3)] == ["completed", "failed", "completed"]
    told = it.study._optimizer._study.trials[1]
    assert (told.state, told.value) == (TrialState.FAIL, None)
    assert it.study._optimizer._study.best_trial.number == 0


def test_f39_a_missing_value_is_a_failure_and_a_numpy_scalar_is_none(bench):
    numpy = pytest.importorskip("numpy")
    it = bench(config(trials=2, epochs=1))
    it.run(
        lambda asked: (
            [STARTED, epoch(1, numpy.float32(0.5))]
            if asked["key"][0]
            else [STARTED, {"kind": "epoch", "epoch": 1, "metrics": {}, "seconds": {}, "last": False}]
        )
    )
    assert [it.trial(number).status for number in range(2)] == ["failed", "completed"]


@pytest.mark.parametrize(("infeasible", "tried"), [(True, range(1, 21)), (False, range(22, 61))])
def test_f41_a_configuration_that_does_not_fit_is_not_retried_and_the_sampler_keeps_away(bench, infeasible, tried):
    space = {"batch": {"type": "float", "low": 0, "high": 1}}
    it = bench(config(trials=60, epochs=1, space=space, consecutive_failures=100))
    too_large = {"kind": "failed", "reason": "a batch must fit into memory", "infeasible": infeasible}
    it.run(lambda asked: [STARTED, too_large if asked["parameters"]["batch"] > 0.5 else epoch(1, 0.5)])
    trials = it.ledger.history.search_trials()
    assert {trial.attempts for trial in trials} == {1}
    failed = [trial for trial in trials if trial.status == "failed"]
    assert {(trial.parameters["batch"] > 0.5, trial.infeasible) for trial in failed} == {(True, infeasible)}
    assert len(failed) in tried


def test_f42_a_trial_whose_worker_was_ended_for_memory_waits_before_it_runs_again(bench):
    it = bench(config())
    name, _ = it.ask()
    it.say(name, STARTED, epoch(1, 0.5))
    it.die(name, "1 worker(s) were killed due to the node running low on memory. It was 4.20GB / 4GB.\nmore")
    assert it.ask()[1] is None
    it.wait(10)
    assert it.ask()[1]["trial"]["epochs_reported"] == 1


def test_f43_an_exception_of_ten_megabytes_is_recorded_cut(bench):
    it = bench(config(trials=1, retries=0))
    name, _ = it.ask()
    it.say(name, STARTED)
    it.die(name, "ray::train()\nRuntimeError: " + "x" * 10_000_000)
    assert it.trial().status == "failed"
    assert it.trial().reason.startswith("its worker died once, the last time: RuntimeError: xxx")
    assert len(it.trial().reason) == MAX_REASON


class Mistaken(View):
    """Cannot show anything."""

    def happened(self, event):
        raise ZeroDivisionError("while drawing")


def test_f43_a_view_that_breaks_does_not_end_the_search(tmp_path, caplog):
    prepared = SimpleNamespace(record={}, context={}, remarks=())
    doings = {"settled": lambda config, _: config, "prepare": lambda *_: prepared}
    trainable = SimpleNamespace(sections={}, metrics={"v": "maximize"}, **doings)
    document = config(trials=1).model_dump(mode="json") | {"name": "it", "storage": str(tmp_path)}
    with Session(StudyConfig.parse(document), trainable, Mistaken()) as session:
        session.note("winner", {"number": 1})
        assert session.history.note("winner") == {"number": 1}
    assert "the view could not show Noted" in caplog.text


def test_f44_a_pruned_trial_is_told_to_optuna_as_pruned_with_all_its_values(bench):
    it = bench(config(trials=2, epochs=9, pruner="successive_halving"))
    it.run(lambda asked: [STARTED, *(epoch(number, 0.9 - asked["key"][0]) for number in range(1, 10))])
    assert (it.trial(1).status, it.trial(1).reason) == ("pruned", "behind others at epoch 1")
    told = it.study._optimizer._study.trials[1]
    assert (told.state, told.intermediate_values) == (TrialState.PRUNED, {1: pytest.approx(-0.1)})
