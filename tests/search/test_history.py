import math

import pytest

from search.config import Objective
from search.events import (
    Asked,
    EpochReported,
    Failed,
    Noted,
    Promoted,
    Pruned,
    SessionOpened,
    Started,
    TrialKey,
)
from search.history import History

OPENED = SessionOpened("host", 1)


def reported(number, epoch, value, verdict="continue", repeat=0, **more):
    return EpochReported(number, epoch, {"v": value}, verdict, repeat, **more)


def history(*events):
    """The events, one second apart, in one session."""
    return History((float(second), event) for second, event in enumerate([OPENED, *events]))


@pytest.mark.parametrize(
    ("events", "status", "ended"),
    [
        ([], "waiting", False),
        ([Started(0)], "running", False),
        ([Started(0), reported(0, 1, 0.5)], "running", False),
        ([Started(0), reported(0, 1, 0.5, "complete")], "completed", True),
        ([Started(0), reported(0, 1, 0.5, "prune")], "pruned", True),
        ([Started(0), reported(0, 1, math.nan, "fail")], "failed", True),
        ([Started(0), reported(0, 1, 0.5, "pause")], "waiting", False),
        ([Started(0), reported(0, 1, 0.5, "pause"), Promoted(0)], "waiting", False),
        ([Started(0), reported(0, 1, 0.5, "pause"), Promoted(0), Started(0)], "running", False),
        ([Started(0), reported(0, 1, 0.5, "pause"), Pruned(0, "why")], "pruned", True),
        ([Failed(0, "why")], "failed", True),
        ([Started(0), Started(0)], "running", False),
    ],
)
def test_a_trials_status_follows_from_its_last_event(events, status, ended):
    [trial] = history(Asked(0, {"a": 1}, 5), *events).search_trials()
    assert (trial.status, trial.ended) == (status, ended)
    assert (trial.parameters, trial.seed, trial.origin) == ({"a": 1}, 5, "sampler")


def test_times_attempts_and_the_last_worker_are_kept():
    [trial] = history(
        Asked(0, {}, 0),
        Started(0, worker="a"),
        reported(0, 1, 0.5),
        Started(0, worker="b"),
        reported(0, 2, 0.6, "prune"),
    ).search_trials()
    assert (trial.asked_at, trial.started_at, trial.ended_at) == (1.0, 2.0, 5.0)
    assert [epoch.at for epoch in trial.epochs] == [3.0, 5.0]
    assert (trial.attempts, trial.worker) == (2, "b")


def test_a_trial_is_paused_until_it_is_promoted_or_pruned_and_its_next_start_is_no_further_attempt():
    events = [Started(0), reported(0, 1, 0.5, "pause"), Promoted(0), Started(0), Started(0)]
    stages = [history(Asked(0, {}, 0), *events[:count]).trials[TrialKey(0)] for count in range(len(events) + 1)]
    assert [trial.paused for trial in stages] == [False, False, True, False, False, False]
    assert [trial.attempts for trial in stages] == [0, 1, 1, 1, 1, 2]
    pruned = history(Asked(0, {}, 0), *events[:2], Pruned(0, "why")).trials[TrialKey(0)]
    assert (pruned.paused, pruned.reason, pruned.ended_at) == (False, "why", 4.0)
    assert stages[2].ended_at is None


def test_waits_at_rungs_hold_no_worker():
    events = [Started(0), reported(0, 1, 0.5, "pause"), Promoted(0), Started(0), reported(0, 2, 0.5)]
    stints = [history(Asked(0, {}, 0), *events[:count]).trials[TrialKey(0)].stints(10.0) for count in range(6)]
    assert stints == [[], [(2, 10)], [(2, 3)], [(2, 3)], [(2, 3), (5, 10)], [(2, 3), (5, 10)]]
    left = history(Asked(0, {}, 0), *events[:2], Pruned(0, "why")).trials[TrialKey(0)]
    assert left.stints(10.0) == [(2, 3)]
    ended = history(Asked(0, {}, 0), *events, reported(0, 3, 0.5, "complete")).trials[TrialKey(0)]
    assert ended.stints(10.0) == [(2, 3), (5, 7)]


def test_what_optuna_wants_remembered_adds_up_over_a_trial():
    [trial] = history(
        Asked(0, {}, 0, system_attributes={"a": 1, "b": 1}),
        reported(0, 1, 0.5, system_attributes={"b": 2}),
        reported(0, 2, 0.5, system_attributes={"c": 3}),
    ).search_trials()
    assert trial.system_attributes == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    ("values", "maximized", "minimized"),
    [
        ([0.5], (1, 0.5), (1, 0.5)),
        ([0.1, 0.9, 0.3], (2, 0.9), (1, 0.1)),
        ([0.5, 0.9, 0.9, 0.5], (2, 0.9), (1, 0.5)),
        ([math.nan, -0.5, math.nan], (2, -0.5), (2, -0.5)),
        ([math.nan], None, None),
        ([], None, None),
    ],
)
def test_a_trials_value_is_its_best_epoch_the_earliest_of_equals(values, maximized, minimized):
    [trial] = history(
        Asked(0, {}, 0), *(reported(0, epoch, value) for epoch, value in enumerate(values, 1))
    ).search_trials()
    assert trial.best(Objective(metric="v")) == maximized
    assert trial.best(Objective(metric="v", direction="minimize")) == minimized
    assert trial.best(Objective(metric="other")) is None


def test_reruns_stand_beside_the_trials_and_not_among_them():
    study = history(Asked(0, {}, 1), Asked(1, {}, 2), Asked(1, {}, 3, "rerun", 1), Asked(0, {}, 4, "rerun", 2))
    assert [trial.key for trial in study.search_trials()] == [(0, 0), (1, 0)]
    assert [trial.key for trial in study.reruns()] == [(1, 1), (0, 2)]
    assert [trial.key for trial in study.reruns(0)] == [TrialKey(0, 2)]


def test_the_newest_note_of_a_topic_counts_and_all_are_kept():
    study = history(Noted("winner", {"number": 1}), Noted("test_opened", {}), Noted("winner", {"number": 2}))
    assert study.note("winner") == {"number": 2}
    assert study.note("nothing") is None
    assert [note.topic for note in study.notes] == ["winner", "test_opened", "winner"]


def test_time_between_sessions_is_not_used_time():
    study = History(
        [
            (0.0, OPENED),
            (10.0, Asked(0, {}, 0)),
            (0.5, OPENED),
            (4.5, Started(0)),
            (0.0, OPENED),
            (1.0, Asked(1, {}, 0)),
        ]
    )
    assert [study.trials[key].asked_at for key in study.trials] == [10.0, 15.5]
    assert study.trials[TrialKey(0)].started_at == 14.5
    assert (study.used_before_session, study.used_seconds) == (14.5, 15.5)


def test_what_reruns_and_the_final_stage_took_is_set_aside():
    study = History(
        [
            (0.0, OPENED),
            (10.0, Asked(0, {}, 0)),
            (12.0, Asked(0, {}, 7, repeat=1)),  # until here it was the search's
            (15.0, Started(0, 1)),
            (20.0, Noted("trial_lost", {"trial": "0.1"})),
            (21.0, Started(0, 1)),
            (30.0, Asked(1, {}, 0)),
            (32.0, Noted("trial_lost", {"trial": "1"})),
            (33.0, Noted("winner", {})),
            (40.0, Noted("test_opened", {})),
            (0.0, OPENED),
            (5.0, Started(0, 1)),
        ]
    )
    assert study.used_seconds == 45
    assert study.aside_seconds == 3 + 5 + 1 + 7


def test_the_searchs_own_trials_are_counted_without_their_reruns():
    found = history(Asked(0, {}, 0), Asked(1, {}, 0), Asked(0, {}, 7, repeat=1), Failed(1, "why"))
    assert found.searched == len(found.search_trials()) == 2
