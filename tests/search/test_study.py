"""The study without Ray: a scripted objective, workers that take turns, and drivers that die between any two events."""

import json
import math
import random
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState

from search.config import Objective, StudyConfig
from search.events import Noted, SessionOpened, TrialKey
from search.ledger import Ledger, read_history
from search.retries import Death
from search.sampling import derive_seed
from search.study import Finalists, Study, Then
from search.trial_source import MAX_REASON, Report, Request

OBJECTIVE = Objective(metric="v")
NUMBERS = {
    "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "strength": {"type": "float", "low": 0.0, "high": 1.0},
    "depth": {"type": "int", "low": 0, "high": 5},
}
CONDITIONAL = {
    **NUMBERS,
    "optimizer": {"type": "choice", "values": ["adam", "sgd"]},
    "momentum": {"type": "float", "low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
}
GRID = {
    "depth": {"type": "int", "low": 0, "high": 5},
    "strength": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.1},
}


class Killed(BaseException):
    """The driver's process is no more."""


@contextmanager
def opened(path, events=None):
    """A ledger with a session opened; its driver dies after so many more events."""
    with Ledger(path) as ledger:
        ledger._database.execute("PRAGMA synchronous = OFF")  # faster, and nothing here loses power
        ledger.append(SessionOpened("host", 1))
        left = iter(range(10_000 if events is None else events))

        def live(event):
            if next(left, None) is None:
                raise Killed

        ledger.listeners.append(live)
        yield ledger


WAITING = ("promotion", "synchronous")  # variants of successive halving


def config(space=NUMBERS, trials=18, epochs=9, sampler="tpe", pruner="successive_halving", **budget):
    return StudyConfig.parse(
        {
            "seed": 3,
            "space": space,
            "objective": {"metric": "v"},
            "sampler": {"name": sampler, "startup_trials": 4},
            "pruner": {"variant": pruner} if pruner in WAITING else {"name": pruner, "startup_trials": 2},
            "budget": {"trials": trials, "epochs": epochs, "consecutive_failures": 1000, **budget},
            "final": {"repeats": 2},
        }
    )


def score(key, parameters, epoch):
    """A learning curve that depends on the configuration, with a little noise; some diverge."""
    noise = derive_seed(0, *key, epoch) / 2**32
    if epoch == 3 and derive_seed(1, *key) % 7 == 0:
        return math.nan
    rate = 1 - abs(math.log10(parameters.get("rate", 1e-3)) + 3) / 3
    best = rate + parameters["depth"] / 10 - abs(parameters.get("strength", 0.5) - 0.4)
    return best * (1 - math.exp(-epoch / 3)) + 0.02 * noise


def work(source, concurrency=1):
    """Do all that the source asks for. Who reports next follows from how much was reported, not from the session."""
    running = {}
    while True:
        while len(running) < concurrency and (request := source.ask()):
            running[request.key] = request
            source.started(request.key, "worker")
        if not running:
            return
        trials = source.ledger.history.trials
        reported = sum(len(trial.epochs) for trial in trials.values())
        key = sorted(running)[derive_seed(2, reported) % len(running)]
        epoch = len(trials[key].epochs) + 1
        if epoch == 2 and derive_seed(3, *key) % 8 == 0:
            source.fail(key, "out of memory", infeasible=True)
            del running[key]
            continue
        verdict = source.report(key, Report(epoch, {"v": score(key, running[key].parameters, epoch)}, {"train": 0.5}))
        if verdict != "continue":
            del running[key]


def session(path, settings, concurrency=1, events=None):
    """One driver at work; it dies after so many events. The study, when it lived to its end."""
    with suppress(Killed), opened(path, events) as ledger:
        study = Study(settings, ledger)
        work(study, concurrency)
        return study


def table(path):
    """Everything about every trial, without times, attempts and workers."""
    history = read_history(path)
    assert not [trial.key for trial in history.trials.values() if not trial.ended]
    return [
        repr((t.key, t.parameters, t.seed, t.origin, t.status, t.reason, t.system_attributes))
        + repr([(epoch.epoch, epoch.metrics, epoch.seconds) for epoch in t.epochs])
        for t in history.trials.values()
    ]


def optuna_trials(study):
    return study._optimizer._study.trials


def in_optuna(study):
    """Optuna's own view of all trials."""
    return [(t.state, t.params, t.intermediate_values, t.system_attrs) for t in optuna_trials(study)]


@pytest.mark.parametrize("pruner", ["successive_halving", *WAITING, "hyperband", "median", "none"])
@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "grid"])
def test_a_study_killed_between_any_events_ends_as_if_it_had_not_been(tmp_path, sampler, pruner):
    settings = config({"grid": GRID, "tpe": CONDITIONAL}.get(sampler, NUMBERS), sampler=sampler, pruner=pruner)
    concurrency = 3
    whole = session(tmp_path / "whole.db", settings, concurrency)
    expected = table(tmp_path / "whole.db")
    draw = random.Random(f"{sampler} {pruner}")
    path, study, sessions = tmp_path / "cut.db", None, 0
    while study is None:
        study = session(path, settings, concurrency, events=draw.randrange(1, 30))
        sessions += 1
    assert sessions > 2
    assert table(path) == expected
    assert in_optuna(study) == in_optuna(whole)
    statuses = {trial.status for trial in study.ledger.history.search_trials()}
    assert statuses == {"completed", "failed"} | ({"pruned"} if pruner != "none" else set())


def test_a_driver_that_dies_again_and_again_gets_to_the_same_end(tmp_path):
    settings = config(CONDITIONAL, trials=8, epochs=4, pruner="hyperband")
    session(tmp_path / "whole.db", settings, concurrency=2)
    sessions = 1
    while session(tmp_path / "cut.db", settings, concurrency=2, events=2) is None:  # two starts, and one thing more
        sessions += 1
    assert sessions > 20
    assert table(tmp_path / "cut.db") == table(tmp_path / "whole.db")


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [("tpe", "hyperband"), ("tpe", "successive_halving"), ("random", "none"), ("cmaes", "median"), ("grid", "median")],
)
def test_an_extended_study_equals_one_that_was_long_from_the_start(tmp_path, sampler, pruner):
    def settings(trials):
        return config(GRID if sampler == "grid" else NUMBERS, trials=trials, sampler=sampler, pruner=pruner)

    session(tmp_path / "long.db", settings(24))
    for trials in (5, 12, 13, 18, 24):
        session(tmp_path / "extended.db", settings(trials))
        assert len(table(tmp_path / "extended.db")) == trials
    assert table(tmp_path / "extended.db") == table(tmp_path / "long.db")


def test_a_finished_study_asks_for_nothing(tmp_path):
    session(tmp_path / "it.db", config(trials=3))
    with Ledger(tmp_path / "it.db") as ledger:
        for trials in (3, 2):
            study = Study(config(trials=trials), ledger)
            assert (study.ask(), study.missing, study.stopped) == (None, 0, None)


@pytest.fixture
def ledger(tmp_path):
    with opened(tmp_path / "study.db") as opened_ledger:
        yield opened_ledger


@pytest.fixture
def clock(monkeypatch):
    """The ledger's clock, which stands still unless a test moves it."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("search.ledger.time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 0.0))
    return clock


def events(ledger):
    return ledger._database.execute("SELECT count(*) FROM events").fetchone()[0]


def report(source, request, *values, **more):
    """Report epochs with these values, after those that the request has; the last verdict."""
    first = len(source.ledger.history.trials[request.key].epochs) + 1
    for epoch, value in enumerate(values, first):
        verdict = source.report(request.key, Report(epoch, {"v": value}, **more))
    return verdict


def test_first_points_come_first_and_what_they_leave_out_is_sampled(ledger):
    document = config(CONDITIONAL).model_dump()
    document["first_points"] = [
        {"depth": 5, "optimizer": "adam"},
        {"rate": 0.01, "optimizer": "sgd", "momentum": 0.9},
        {},
    ]
    study = Study(StudyConfig.model_validate(document), ledger)
    requests = [study.ask() for _ in range(5)]
    points = [request.parameters for request in requests]
    assert (points[0]["depth"], points[0]["optimizer"]) == (5, "adam")
    assert {name: points[1][name] for name in ("rate", "optimizer", "momentum")} == {
        "rate": 0.01,
        "optimizer": "sgd",
        "momentum": 0.9,
    }
    assert all(set(NUMBERS) <= set(point) for point in points)
    assert [trial.origin for trial in ledger.history.search_trials()] == ["first_point"] * 3 + ["sampler"] * 2


def test_a_hyperparameter_is_asked_for_only_where_its_condition_holds(ledger):
    study = Study(config(CONDITIONAL, trials=30, sampler="random"), ledger)
    points = [study.ask().parameters for _ in range(30)]
    assert {point["optimizer"] for point in points} == {"adam", "sgd"}
    assert all(("momentum" in point) == (point["optimizer"] == "sgd") for point in points)


def test_every_trial_has_its_own_number_seed_and_configuration(ledger):
    study = Study(config(trials=20, sampler="random"), ledger)
    requests = [study.ask() for _ in range(21)]
    assert requests.pop() is None
    assert [request.key for request in requests] == [TrialKey(number) for number in range(20)]
    assert len({request.seed for request in requests}) == 20
    assert len({str(request.parameters) for request in requests}) == 20


def test_a_request_says_how_far_an_earlier_session_got(tmp_path):
    path = tmp_path / "it.db"
    with opened(path) as ledger:
        study = Study(config(pruner="none"), ledger)
        first, second = study.ask(), study.ask()
        study.started(first.key, "a")
        report(study, first, 0.1, 0.2)
    with opened(path) as ledger:
        again = Study(config(pruner="none"), ledger)
        assert [again.ask(), again.ask()] == [
            Request(first.key, first.parameters, first.seed, first.epochs, 2),
            second,
        ]
        assert again.ask().key == TrialKey(2)
        again.started(first.key, "b")
        assert ledger.history.trials[first.key].attempts == 2


def test_a_trial_completes_at_its_last_epoch_with_its_best_as_value(ledger):
    study = Study(config(epochs=4, pruner="none"), ledger)
    request = study.ask()
    assert [report(study, request, value) for value in (0.2, 0.8, 0.5, 0.1)] == ["continue"] * 3 + ["complete"]
    trial = ledger.history.trials[request.key]
    assert (trial.status, trial.best(OBJECTIVE)) == ("completed", (2, 0.8))
    [told] = optuna_trials(study)
    assert (told.state, told.value) == (TrialState.COMPLETE, 0.8)
    assert told.intermediate_values == {1: 0.2, 2: 0.8, 3: 0.5, 4: 0.1}


def test_the_smallest_value_is_the_best_when_minimizing(ledger):
    document = config(epochs=3).model_dump()
    document["objective"] = {"metric": "v", "direction": "minimize"}
    study = Study(StudyConfig.model_validate(document), ledger)
    assert report(study, study.ask(), 0.5, 0.2, 0.9) == "complete"
    assert optuna_trials(study)[0].value == 0.2


def test_a_worker_may_end_its_trial_early(ledger):
    study = Study(config(pruner="none"), ledger)
    request = study.ask()
    report(study, request, 0.5)
    assert report(study, request, 0.6, last=True) == "complete"
    assert ledger.history.trials[request.key].status == "completed"


def test_a_pruned_trial_is_pruned_in_optuna_too_with_every_epoch_it_had(ledger):
    study = Study(config(), ledger)
    first, second = study.ask(), study.ask()
    assert report(study, first, *[0.9] * 9) == "complete"
    assert report(study, second, 0.1) == "prune"
    trial = ledger.history.trials[second.key]
    assert (trial.status, trial.reason) == ("pruned", "behind others at epoch 1")
    told = optuna_trials(study)[1]
    assert (told.state, told.intermediate_values) == (TrialState.PRUNED, {1: 0.1})


def test_a_trial_that_reaches_its_last_epoch_is_complete_even_if_it_is_behind(ledger):
    study = Study(config(epochs=1), ledger)
    assert [report(study, study.ask(), value) for value in (0.9, 0.1)] == ["complete", "complete"]


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, None, "0.9", "x" * 10_000, True, [0.9], {"a": 1}, 1j],
    ids=lambda v: repr(v)[:9],
)
def test_an_objective_value_that_is_no_finite_number_fails_the_trial_and_not_the_study(tmp_path, value):
    path = tmp_path / "it.db"
    with opened(path) as ledger:
        study = Study(config(pruner="none"), ledger)
        request = study.ask()
        report(study, request, 0.5)
        assert study.report(request.key, Report(2, {"v": value, "other": 1.5})) == "fail"
        trial = ledger.history.trials[request.key]
        assert trial.status == "failed"
        assert trial.reason == f"v must be a finite number, but epoch 2 gave {value!r}"[:MAX_REASON]
        assert trial.best(OBJECTIVE) == (1, 0.5)
        assert trial.epochs[1].metrics["other"] == 1.5
        [told] = optuna_trials(study)
        assert (told.state, told.value) == (TrialState.FAIL, None)
        assert report(study, study.ask(), 0.5) == "continue"
        trials = repr(ledger.history.trials)
    with opened(path) as ledger:
        assert repr(ledger.history.trials) == trials
        assert in_optuna(Study(config(pruner="none"), ledger)) == in_optuna(study)


def test_a_missing_objective_value_fails_the_trial(ledger):
    study = Study(config(), ledger)
    request = study.ask()
    assert study.report(request.key, Report(1, {"loss": 0.5})) == "fail"
    assert ledger.history.trials[request.key].reason == "v must be a finite number, but epoch 1 gave None"


def test_other_metrics_need_not_be_numbers(ledger):
    study = Study(config(), ledger)
    request = study.ask()
    study.report(
        request.key, Report(1, {"v": 1, "w": math.nan, "x": math.inf, "y": "text", "z": None}, {"train": None})
    )
    [epoch] = ledger.history.trials[request.key].epochs
    assert epoch.metrics["v"] == 1.0
    assert [math.isnan(epoch.metrics[name]) for name in "wxyz"] == [True] * 4
    assert math.isnan(epoch.seconds["train"])


def test_numbers_of_other_kinds_are_numbers(ledger):
    numpy = pytest.importorskip("numpy")
    study = Study(config(epochs=2), ledger)
    request = study.ask()
    assert report(study, request, numpy.float32(0.5), numpy.int64(1)) == "complete"
    assert (
        json.dumps([epoch.metrics for epoch in ledger.history.trials[request.key].epochs]) == '[{"v": 0.5}, {"v": 1.0}]'
    )


def test_a_trial_that_says_it_failed_is_failed_in_optuna_too(ledger):
    study = Study(config(), ledger)
    request = study.ask()
    report(study, request, 0.5)
    study.fail(request.key, "y" * 10_000)
    trial = ledger.history.trials[request.key]
    assert (trial.status, trial.reason) == ("failed", "y" * MAX_REASON)
    told = optuna_trials(study)[0]
    assert (told.state, told.intermediate_values) == (TrialState.FAIL, {1: 0.5})


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([0.5], "continue"), ([0.5] * 9, "complete"), ([0.5, math.nan], "complete"), ([0.1], "prune")],
)
def test_a_repeated_report_gets_the_recorded_answer_and_is_not_recorded(ledger, values, verdict):
    study = Study(config(), ledger)
    if verdict == "prune":
        report(study, study.ask(), *[0.9] * 9)
    request = study.ask()
    report(study, request, *values)
    before = events(ledger)
    for epoch in range(1, len(values) + 1):
        answer = study.report(request.key, Report(epoch, {"v": 0.0}))
        assert answer == verdict
    assert events(ledger) == before
    told = optuna_trials(study)[request.key.number]
    assert list(told.intermediate_values.values()) == [value for value in values if not math.isnan(value)]


def test_nothing_that_comes_after_a_trials_end_changes_it(ledger):
    study = Study(config(), ledger)
    request = study.ask()
    report(study, request, *[0.5] * 9)
    before = events(ledger)
    study.started(request.key, "late")
    study.fail(request.key, "late")
    study.lost(request.key, Death("died", "late"))
    assert study.report(request.key, Report(10, {"v": 0.9})) == "complete"
    assert events(ledger) == before
    assert study.ask().key == TrialKey(1)


def test_a_lost_trial_is_asked_again_before_new_ones_until_its_retries_are_used_up(ledger):
    clock = SimpleNamespace(now=0.0)
    study = Study(config(retries=2), ledger, lambda: clock.now)
    lost, other = study.ask(), study.ask()
    report(study, lost, 0.5)
    for _ in range(2):
        study.lost(lost.key, Death("died", "killed"))
        clock.now += 100
        again = study.ask()
        assert (again.key, again.parameters, again.seed, again.epochs_reported) == (
            *[lost.key, lost.parameters],
            lost.seed,
            1,
        )
    assert study.ask().key == TrialKey(2)
    study.lost(lost.key, Death("died", "killed again"))
    trial = ledger.history.trials[lost.key]
    assert (trial.status, trial.reason) == ("failed", "its worker died 3 times, the last time: killed again")
    assert optuna_trials(study)[0].state == TrialState.FAIL
    study.lost(other.key, Death("died", "first time"))
    assert study.ask().key == other.key


def test_without_retries_the_first_loss_is_a_failure(ledger):
    study = Study(config(retries=0), ledger)
    request = study.ask()
    study.lost(request.key, Death("died", "gone"))
    assert ledger.history.trials[request.key].status == "failed"
    assert study.ask().key == TrialKey(1)


def test_failures_in_a_row_stop_the_study_and_say_why(ledger):
    study = Study(config(trials=20, consecutive_failures=3), ledger)
    for outcome in ("fail", "fail", "complete", "fail", "fail"):
        request = study.ask()
        if outcome == "fail":
            study.fail(request.key, "no memory")
        else:
            report(study, request, 0.5, last=True)
    running, last = study.ask(), study.ask()
    report(study, last, math.nan)
    assert (
        study.stopped
        == "3 trials in a row failed, the last one because v must be a finite number, but epoch 1 gave nan"
    )
    assert study.ask() is None
    assert report(study, running, 0.5) in ("continue", "prune")
    assert study.missing > 0


def test_a_stopped_study_can_be_tried_again(tmp_path):
    for session_number in (1, 2):
        with Ledger(tmp_path / "it.db") as ledger:
            study = Study(config(consecutive_failures=2), ledger)
            while request := study.ask():
                study.fail(request.key, "no memory")
            assert len(ledger.history.trials) == 2 * session_number


def test_wall_time_ends_the_search_and_prunes_what_runs(clock, ledger):
    study = Study(config(trials=5, pruner="none", wall_seconds=60), ledger)
    running, waiting = study.ask(), study.ask()
    assert report(study, running, 0.5) == "continue"
    clock.now += 60
    assert study.ask() is None
    assert study.missing == 2
    assert report(study, running, 0.6) == "prune"
    assert report(study, waiting, 0.6, last=True) == "complete"
    assert ledger.history.trials[running.key].reason == "the study's time was used up"
    assert (study.missing, study.stopped) == (0, None)


def test_trials_that_run_out_of_time_in_an_earlier_session_are_brought_to_an_end(tmp_path, clock):
    settings = config(pruner="none", wall_seconds=60)
    with opened(tmp_path / "it.db") as ledger:
        study = Study(settings, ledger)
        request = study.ask()
        report(study, request, 0.5)
        clock.now += 61
        ledger.append(Noted("the end of this session", {}))
    with opened(tmp_path / "it.db") as ledger:
        study = Study(settings, ledger)
        assert study.missing == 1
        assert study.ask().key == request.key
        assert study.ask() is None
        assert report(study, request, 0.6) == "prune"
        assert study.missing == 0


def test_more_wall_time_lets_a_study_go_on(tmp_path, clock):
    for wall, asked in ((60, 1), (60, 0), (120, 1)):
        with opened(tmp_path / "it.db") as ledger:
            study = Study(config(wall_seconds=wall), ledger)
            requests = 0
            while request := study.ask():
                clock.now += 60
                report(study, request, 0.5, last=True)
                requests += 1
            assert requests == asked
        clock.now += 1e6


def test_reruns_use_up_nothing_of_the_searchs_time(tmp_path, clock):
    with opened(tmp_path / "it.db") as ledger:
        report(study := Study(config(wall_seconds=120), ledger), study.ask(), 0.5, last=True)
        rerun = Finalists(study.config, ledger, [0])
        request = rerun.ask()
        clock.now += 100
        report(rerun, request, 0.5, last=True)
        clock.now += 60
        assert study.ask()
        clock.now += 60
        assert study.ask() is None


def finished_search(ledger, trials=3):
    study = Study(config(trials=trials), ledger)
    work(study)
    return study


def test_finalists_run_every_configuration_as_often_as_configured_on_seeds_of_their_own(ledger):
    search = finished_search(ledger)
    rerun = Finalists(search.config, ledger, [2, 0])
    assert rerun.missing == 4
    requests = [rerun.ask() for _ in range(5)]
    assert requests.pop() is None
    assert [request.key for request in requests] == [(2, 1), (0, 1), (2, 2), (0, 2)]
    trials = ledger.history.trials
    assert all(request.parameters == trials[TrialKey(request.key.number)].parameters for request in requests)
    assert len({request.seed for request in requests} | {trial.seed for trial in ledger.history.search_trials()}) == 7
    assert {trial.origin for trial in ledger.history.reruns()} == {"rerun"}


def test_finalists_are_never_pruned_nor_out_of_time(clock, ledger):
    finished_search(ledger)
    settings = config(wall_seconds=1)
    clock.now += 100
    rerun = Finalists(settings, ledger, [0])
    request = rerun.ask()
    assert [report(rerun, request, value) for value in [0.9, *[-9.0] * 8]] == ["continue"] * 8 + ["complete"]
    assert rerun.missing == 1


def test_finalists_go_on_where_an_earlier_session_left_off(tmp_path):
    path = tmp_path / "it.db"
    with opened(path) as ledger:
        rerun = Finalists(finished_search(ledger).config, ledger, [1, 2])
        first, second = rerun.ask(), rerun.ask()
        report(rerun, first, *[0.5] * 9)
        report(rerun, second, 0.5)
    with opened(path) as ledger:
        again = Finalists(config(trials=3), ledger, [1, 2])
        assert again.missing == 3
        requests = [again.ask() for _ in range(3)]
        assert [(request.key, request.epochs_reported) for request in requests] == [
            ((2, 1), 1),
            ((1, 2), 0),
            ((2, 2), 0),
        ]
        assert again.ask() is None
        for request in requests:
            report(again, request, 0.5, last=True)
        assert again.missing == 0


def test_reruns_leave_the_search_as_it_was(ledger):
    search = finished_search(ledger)
    before = in_optuna(search)
    work(Finalists(search.config, ledger, [0, 1]))
    assert in_optuna(Study(search.config, ledger)) == before
    assert search.missing == 0


def then(ledger, **budget):
    """A search of three trials and, made when that has ended, two reruns of its first; and when it was made."""
    made = []

    def following():
        made.append([trial.status for trial in ledger.history.search_trials()])
        return Finalists(config(), ledger, [0])

    return Then(Study(config(trials=3, pruner="none", **budget), ledger), following), made


def test_what_follows_is_asked_only_when_everything_before_has_ended(ledger):
    source, made = then(ledger)
    requests = [source.ask() for _ in range(3)]
    assert source.ask() is None
    for request in requests[:2]:
        report(source, request, 0.5, last=True)
    assert source.ask() is None
    source.lost(requests[2].key, Death("died", "killed"))
    assert source.ask().key == requests[2].key
    assert made == []
    report(source, requests[2], 0.5, last=True)
    assert [source.ask().key, source.ask().key, source.ask()] == [(0, 1), (0, 2), None]
    assert made == [["completed"] * 3]


def test_what_follows_waits_for_trials_that_run_when_the_time_is_up(clock, ledger):
    source, made = then(ledger, wall_seconds=60)
    first, second = source.ask(), source.ask()
    clock.now += 61
    assert report(source, first, 0.5) == "prune"
    assert source.ask() is None
    assert made == []
    assert report(source, second, 0.5) == "prune"
    assert source.ask().key == (0, 1)
    assert made == [["pruned", "pruned"]]


def test_nothing_follows_a_search_that_was_stopped(ledger):
    source, made = then(ledger, consecutive_failures=3)
    for _ in range(3):
        source.fail(source.ask().key, "no memory")
    assert (source.ask(), source.missing) == (None, 0)
    assert source.stopped.startswith("3 trials in a row failed")
    assert made == []


@pytest.mark.parametrize("pruner", ["successive_halving", *WAITING])
def test_a_search_and_its_reruns_killed_between_any_events_end_as_if_they_had_not_been(tmp_path, pruner):
    settings = config(trials=6, epochs=3, pruner=pruner)

    def one_session(path, events=None):
        with suppress(Killed), opened(path, events) as ledger:
            work(Then(Study(settings, ledger), lambda: Finalists(settings, ledger, [1, 4])), concurrency=2)
            return True

    assert one_session(tmp_path / "whole.db")
    draw = random.Random(5)
    sessions = 1
    while not one_session(tmp_path / "cut.db", draw.randrange(1, 12)):
        sessions += 1
    assert sessions > 3
    assert table(tmp_path / "cut.db") == table(tmp_path / "whole.db")
    assert len(table(tmp_path / "cut.db")) == 6 + 4


@pytest.mark.parametrize(("infeasible", "expected"), [(True, range(1, 20)), (False, range(40, 61))])
def test_the_sampler_keeps_away_only_from_failures_that_do_not_fit(ledger, infeasible, expected):
    space = {"rate": {"type": "float", "low": 0, "high": 1}}
    study = Study(config(space, trials=60), ledger)
    failed = 0
    for _ in range(60):
        request = study.ask()
        if request.parameters["rate"] > 0.5:
            failed += 1
            study.fail(request.key, "a batch must fit into memory", infeasible)
            study._failures_in_a_row = 0
        else:
            report(study, request, *[0.5] * 9)
    assert failed in expected
    assert [t.status for t in ledger.history.search_trials()].count("failed") == failed


def test_what_does_not_fit_is_still_known_when_the_study_is_opened_again(tmp_path):
    with opened(tmp_path / "study.db") as first:
        study = Study(config(), first)
        study.fail(study.ask().key, "too large", infeasible=True)
        expected = study.ask().parameters
    with opened(tmp_path / "study.db") as second:
        again = Study(config(), second)
        told = again._optimizer._study.get_trials()[0]
        assert (told.state.name, told.constraints) == ("PRUNED", {"memory": 1.0})
        assert again.ask().parameters == expected


def test_losses_that_are_nobodys_fault_are_not_charged_but_not_endless_either(ledger):
    clock = SimpleNamespace(now=0.0)
    study = Study(config(retries=0), ledger, lambda: clock.now)
    request = study.ask()
    for _ in range(20):
        study.lost(request.key, Death("made_room", "its worker made room"))
        clock.now += 60
        assert study.ask().key == request.key
    study.lost(request.key, Death("made_room", "its worker made room"))
    [trial] = ledger.history.search_trials()
    reason = "it lost its worker 21 times without a new epoch, the last time: its worker made room"
    assert (trial.status, trial.reason) == ("failed", reason)


def climb(source, values, concurrency=1):
    """Do all that the source asks for, the workers taking turns; `values` gives a trial's value, always the same."""
    running = []
    while True:
        while len(running) < concurrency and (request := source.ask()):
            source.started(request.key, "worker")
            running.append(request)
        if not running:
            return
        request = running.pop(0)
        if report(source, request, values(request.key.number)) == "continue":
            running.append(request)


@pytest.mark.parametrize(
    ("values", "epochs", "to_the_end", "of_one_epoch"),
    [
        # Each worse than those before: 24 reach the first rung, 8 of them the second, 3 of those the last epoch.
        (lambda number: -number, 24 + 8 * 2 + 3 * 6, 3, 16),
        # Each better than those before: who comes is the best. The first two of each rung have no chance later.
        (lambda number: number, 24 + 22 * 2 + 20 * 6, 20, 2),
        # All equal: the first two of each rung wait until a third one is there.
        (lambda number: 0, 24 * 9, 24, 0),
    ],
)
def test_with_promotion_as_many_epochs_are_trained_as_the_order_of_values_says(
    ledger, values, epochs, to_the_end, of_one_epoch
):
    study = Study(config(trials=24, pruner="promotion", sampler="random"), ledger)
    climb(study, values)
    trials = ledger.history.search_trials()
    lengths = [len(trial.epochs) for trial in trials]
    assert (sum(lengths), lengths.count(9), lengths.count(1)) == (epochs, to_the_end, of_one_epoch)
    assert [trial.status == "completed" for trial in trials] == [length == 9 for length in lengths]
    assert {trial.status for trial in trials} <= {"completed", "pruned"}
    assert (study.missing, study.stopped) == (0, None)


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    "values", [lambda number: -number, lambda number: number, lambda number: derive_seed(4, number)]
)
def test_synchronous_trains_one_in_three_on_at_each_rung_in_whatever_order_they_come(ledger, values, concurrency):
    study = Study(config(trials=24, pruner="synchronous", sampler="random"), ledger)
    climb(study, values, concurrency)
    best_first = sorted(ledger.history.search_trials(), key=lambda trial: -values(trial.number))
    assert [len(trial.epochs) for trial in best_first] == [9] * 2 + [3] * 6 + [1] * 16
    assert (study.missing, study.stopped) == (0, None)


def test_synchronous_asks_for_all_trials_before_one_that_others_may_outdo_goes_on(ledger):
    study = Study(config(trials=9, pruner="synchronous", sampler="random"), ledger)
    asked, verdicts = [], []
    while "continue" not in verdicts:
        request = study.ask()
        asked.append(request.key.number)
        verdicts.append(report(study, request, request.key.number))
    assert asked == list(range(7))  # two are left, and there are three places
    assert verdicts == ["pause"] * 6 + ["continue"]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("pruner", WAITING)
def test_where_trials_wait_every_one_ends_and_has_each_of_its_epochs_once(ledger, pruner, sampler, concurrency):
    study = Study(config(trials=24, pruner=pruner, sampler=sampler), ledger)
    work(study, concurrency)
    trials = ledger.history.search_trials()
    assert len(trials) == 24
    assert {trial.status for trial in trials} == {"completed", "pruned", "failed"}
    for trial in trials:
        assert [epoch.epoch for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
        assert (trial.attempts, trial.paused) == (1, False)
    assert {len(trial.epochs) for trial in trials if trial.status == "pruned"} == {1, 3}


@pytest.mark.parametrize("left", range(1, 4))
@pytest.mark.parametrize("pruner", WAITING)
def test_where_trials_wait_a_driver_killed_at_any_event_and_again_soon_after_changes_nothing(tmp_path, pruner, left):
    settings = config(trials=9, pruner=pruner)
    session(tmp_path / "whole.db", settings, concurrency=2)
    expected = table(tmp_path / "whole.db")
    with Ledger(tmp_path / "whole.db") as ledger:
        count = events(ledger)
    for number in range(left, count, 3):
        path = tmp_path / f"{number}.db"
        for more in (number, left, None):
            session(path, settings, concurrency=2, events=more)
        assert table(path) == expected


def paused_study(ledger, **budget):
    """A study of which trial 0 waits at the first rung while trial 1 runs."""
    study = Study(config(pruner="promotion", sampler="random", **budget), ledger)
    paused, running = study.ask(), study.ask()
    for request in (paused, running):
        study.started(request.key, "worker")
    assert report(study, paused, 0.5) == "pause"
    return study, paused, running


def test_a_promoted_trial_goes_on_after_the_epochs_it_has_before_anything_new_is_asked(ledger):
    study, paused, running = paused_study(ledger)
    assert report(study, running, 0.4) == "pause"
    third = study.ask()
    assert third.key == TrialKey(2)
    assert report(study, third, 0.3) == "pause"
    assert study.ask() == Request(paused.key, paused.parameters, paused.seed, 9, epochs_reported=1)
    assert study.ask().key == TrialKey(3)


def test_what_is_heard_of_a_trial_that_is_paused_changes_nothing(ledger):
    study, paused, _ = paused_study(ledger)
    before = events(ledger)
    study.started(paused.key, "late")
    study.fail(paused.key, "late")
    study.lost(paused.key, Death("died", "late"))
    assert [study.report(paused.key, Report(epoch, {"v": 0.9})) for epoch in (1, 2)] == ["pause", "pause"]
    assert events(ledger) == before
    assert study.ask().key == TrialKey(2)


def test_a_paused_trial_is_pruned_with_the_report_that_leaves_it_no_chance(ledger):
    study, paused, running = paused_study(ledger, trials=3)
    before = events(ledger)
    assert report(study, running, 0.6) == "pause"
    assert events(ledger) == before + 2
    trial = ledger.history.trials[paused.key]
    assert (trial.status, trial.reason) == ("pruned", "behind others at epoch 1")
    assert optuna_trials(study)[0].state == TrialState.PRUNED


def test_trials_wait_as_long_as_one_runs_or_may_run_again_and_no_longer(ledger):
    clock = SimpleNamespace(now=0.0)
    study = Study(config(trials=4, pruner="promotion", sampler="random"), ledger, lambda: clock.now)
    first, best = study.ask(), study.ask()
    assert [report(study, first, 0.5), report(study, best, 0.6)] == ["pause", "pause"]
    behind, last = study.ask(), study.ask()
    assert report(study, behind, 0.4) == "prune"
    assert study.ask().key == best.key  # the one place of three
    assert report(study, best, *[0.6] * 8) == "complete"
    for _ in range(2):  # the first time it is asked for again at once
        study.lost(last.key, Death("died", "killed"))
    assert (study.ask(), study.resting) == (None, 1)
    clock.now += 100
    assert study.ask().key == last.key
    assert study.ask() is None
    assert not ledger.history.trials[first.key].ended
    study.fail(last.key, "no memory")
    assert study.ask() is None
    trial = ledger.history.trials[first.key]
    assert (trial.status, trial.reason) == ("pruned", "not among the best when all had been tried")
    assert study.missing == 0


def test_when_time_is_used_up_no_trial_waits_any_longer(clock, ledger):
    study, paused, running = paused_study(ledger, wall_seconds=60)
    clock.now += 60
    assert study.ask() is None
    trial = ledger.history.trials[paused.key]
    assert (trial.status, trial.reason) == ("pruned", "the study's time was used up")
    assert report(study, running, 0.1) == "prune"
    assert (study.ask(), study.missing) == (None, 0)


def test_what_follows_is_asked_only_when_no_trial_waits_any_more(ledger):
    settings = config(trials=4, epochs=2, pruner="promotion", sampler="random")
    source = Then(Study(settings, ledger), lambda: Finalists(settings, ledger, [0]))
    climb(source, lambda number: -number)
    trials = ledger.history.trials
    assert [str(key) for key in trials] == ["0", "1", "2", "3", "0.1", "0.2"]
    assert [trial.status for trial in trials.values()] == ["completed"] * 2 + ["pruned"] * 2 + ["completed"] * 2


def test_a_paused_trial_counts_for_the_sampler_as_one_that_has_ended_until_it_goes_on(ledger):
    study = Study(config(trials=100, pruner="promotion"), ledger)
    requests = [study.ask() for _ in range(6)]
    assert [report(study, request, -request.key.number) for request in requests] == ["pause"] * 6
    assert [study.ask().key.number for _ in range(3)] == [0, 1, 6]
    memory = study._optimizer._memory
    assert (memory.ended, sorted(memory._running)) == (4, [0, 1])
