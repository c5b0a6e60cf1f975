import random
from itertools import count

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner

from search.config import StudyConfig
from search.history import Epoch, TrialRecord
from search.pruning import Ladder, SuccessiveHalving, pauses


def told(pruner, direction, resumed_at=()):
    """Verdicts and attributes when thirty trials, some side by side, report random values; the pruner is forgotten and
    made anew after the given numbers of reports.
    """
    generator = random.Random(5)
    study = optuna.create_study(direction=direction, pruner=pruner())
    running, verdicts = [], []
    for report in range(150):
        if len(running) < 4:
            running.append((study.ask(), count(1)))
        trial, epochs = running[generator.randrange(len(running))]
        trial.report(round(generator.random(), 1), next(epochs))  # rounded, so that values tie
        verdicts.append(trial.should_prune())
        if verdicts[-1]:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            running = [each for each in running if each[0] is not trial]
        if report in resumed_at:
            study.pruner = pruner()
    return verdicts, [trial.system_attrs for trial in study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(("min_epochs", "factor"), [(1, 3), (2, 2)])
def test_verdicts_and_attributes_are_those_of_optuna(direction, min_epochs, factor):
    def theirs():
        return SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=factor, min_early_stopping_rate=0)

    verdicts, attributes = told(theirs, direction)
    assert {True, False} == set(verdicts)
    assert told(lambda: SuccessiveHalving(min_epochs, factor), direction) == (verdicts, attributes)


def test_a_resumed_study_goes_on_with_the_rungs_its_trials_have():
    def ours():
        return SuccessiveHalving(1, 3)

    assert told(ours, "maximize", resumed_at=[20, 21, 90]) == told(ours, "maximize")


def test_a_trial_without_a_report_is_not_pruned():
    study = optuna.create_study(pruner=SuccessiveHalving(1, 3))
    assert not study.ask().should_prune()


def settings(trials=9, epochs=9, direction="maximize", **pruner):
    return StudyConfig.parse(
        {
            "objective": {"metric": "v", "direction": direction},
            "pruner": {"variant": "promotion", **pruner},
            "budget": {"trials": trials, "epochs": epochs},
        }
    )


@pytest.mark.parametrize(
    ("pruner", "epochs", "expected"),
    [
        ({}, 9, [1, 3]),
        ({}, 10, [1, 3, 9]),
        ({"min_epochs": 2, "reduction_factor": 2}, 9, [2, 4, 8]),
        ({"min_epochs": 9}, 9, []),
        ({"variant": "stopping"}, 9, []),
    ],
)
def test_a_trial_may_have_to_wait_at_the_rungs_below_its_last_epoch(pruner, epochs, expected):
    assert pauses(settings(**pruner).pruner, epochs) == expected


def standing(before, value, trials, more, direction="maximize", synchronous=False):
    """What follows from a value at the first rung after these others, of so many trials, one in three goes on."""
    ladder = Ladder([1, 3], 3, trials, direction, synchronous)
    for number, each in enumerate(before):
        ladder.enter(number, 1, each, more)
    return ladder.enter(len(before), 1, value, more)


@pytest.mark.parametrize(
    ("before", "value", "trials", "more", "expected"),
    [
        ([], 5, 9, True, "pause"),  # nobody to compare it with yet
        ([], 5, 9, False, "continue"),  # and nobody will come
        ([4], 5, 9, True, "pause"),
        ([4, 4], 5, 9, True, "continue"),
        ([4, 6], 5, 9, True, "pause"),
        ([4, 5], 5, 9, True, "continue"),  # ties go on
        ([4, 6, 6], 5, 9, True, "pause"),
        ([4, 6, 6], 5, 9, False, "pause"),
        ([4, 4, 6], 5, 9, True, "pause"),
        ([4, 4, 6], 5, 9, False, "continue"),  # rounded up: two of four
        ([6, 6, 6], 5, 9, True, "prune"),  # three of nine will go on, and three are better
        ([6, 6, 5], 5, 9, True, "pause"),  # of equals either may be the third
        ([6, 6, 6], 5, 10, True, "pause"),  # four of ten will
        ([6] * 4, 5, 10, True, "prune"),
        ([6] * 4, 5, 4, True, "prune"),
    ],
)
def test_a_trial_at_a_rung_goes_on_waits_or_has_no_chance(before, value, trials, more, expected):
    assert standing(before, value, trials, more) == expected
    assert standing([-each for each in before], -value, trials, more, "minimize") == expected


@pytest.mark.parametrize(
    ("before", "value", "trials", "more", "expected"),
    [
        ([], 5, 9, True, "pause"),
        ([4] * 5, 5, 9, True, "pause"),  # three of nine will go on, and three more come
        ([4] * 6, 5, 9, True, "continue"),  # two more cannot take all of three places
        ([4] * 5 + [6], 5, 9, True, "pause"),
        ([4] * 6 + [6], 5, 9, True, "continue"),
        ([4] * 6, 4, 9, True, "continue"),  # ties go on
        ([4] * 5, 5, 9, False, "continue"),  # the others are on their way: a worker would wait for them
        ([4] * 5 + [6], 5, 9, False, "continue"),  # two of seven, rounded down
        ([4] * 5 + [6, 6], 5, 9, False, "pause"),
        ([4] * 4 + [6, 6, 6], 5, 9, False, "prune"),
        ([6, 6, 6], 5, 9, True, "prune"),
    ],
)
def test_in_the_synchronous_variant_a_trial_goes_on_once_nobody_can_take_its_place(
    before, value, trials, more, expected
):
    assert standing(before, value, trials, more, synchronous=True) == expected
    assert standing([-each for each in before], -value, trials, more, "minimize", synchronous=True) == expected


def test_in_the_synchronous_variant_a_rung_is_settled_when_the_one_below_it_has_nobody_left_to_send():
    ladder = Ladder([1, 3], 3, 9, "maximize", synchronous=True)
    for number, value in enumerate([0.9, 0.8, 0.7, 0.6]):
        verdict = ladder.enter(number, 1, value, True)
        assert verdict == ("pause" if number < 3 else "prune")
        if verdict == "pause":
            ladder.wait(number, 1, value)
    for number in range(4, 9):
        assert ladder.enter(number, 1, 0.1, number < 8) == "prune"
    assert ladder.promote(False) == 0
    assert ladder.enter(0, 3, 0.9, False) == "pause"  # two are still to come
    ladder.wait(0, 3, 0.9)
    assert [ladder.promote(False), ladder.promote(False)] == [1, 2]
    assert ladder.promote(False) == 0  # both are on their way


def test_away_from_the_rungs_every_trial_goes_on():
    ladder = Ladder([1, 3], 3, 9, "maximize")
    assert [ladder.enter(number, epoch, 0.0, True) for number, epoch in ((0, 2), (1, 4), (2, 9))] == ["continue"] * 3
    assert Ladder([], 3, 9, "maximize").enter(0, 1, 0.0, True) == "continue"


def ladder_with(*entries, trials=27):
    """Entries are trial, epoch, value and whether it waits there."""
    ladder = Ladder([1, 3], 3, trials, "maximize")
    for number, epoch, value, waits in entries:
        ladder.enter(number, epoch, value, True)
        if waits:
            ladder.wait(number, epoch, value)
    return ladder


FOUR_WAIT = [(0, 1, 0.1, True), (1, 1, 0.5, True), (2, 1, 0.5, True), (3, 1, 0.2, True)]


@pytest.mark.parametrize(
    ("entries", "more", "expected"),
    [
        ([], True, []),
        (FOUR_WAIT[:2], True, []),
        (FOUR_WAIT, True, [1, 2]),  # one of four, and its equal
        (FOUR_WAIT[:1] + FOUR_WAIT[2:], False, [2]),
        ([*FOUR_WAIT, (4, 1, 0.3, True)], False, [1, 2]),
        ([*FOUR_WAIT[:2], (2, 1, 0.9, False)], True, []),  # the place is taken by one that went on
        ([*FOUR_WAIT[:3], *((n, 3, 0.3 - n / 100, n == 5) for n in (5, 6, 7))], True, [5, 1, 2]),  # the highest rung
    ],
)
def test_the_best_that_waits_at_the_highest_rung_is_promoted_first(entries, more, expected):
    ladder = ladder_with(*entries)
    promoted = [ladder.promote(more) for _ in range(len(expected) + 1)]
    assert promoted == [*expected, None]


def test_who_waits_and_has_no_chance_any_more_is_outdone_and_no_other():
    ladder = ladder_with(*FOUR_WAIT, trials=9)
    assert ladder.outdone(1) == [0]  # three are better
    assert ladder.outdone(1) == []
    ladder.enter(4, 1, 0.6, True)
    assert ladder.outdone(3) == []
    assert ladder.outdone(2) == []
    assert ladder.outdone(1) == [3]
    ladder.enter(5, 1, 0.7, True)
    assert ladder.outdone(1) == []  # of the equals either may be the third
    ladder.enter(6, 1, 0.8, True)
    assert ladder.outdone(1) == [1, 2]


@pytest.mark.parametrize(("trials", "most"), [(9, 3), (24, 8), (25, 9)])
def test_at_most_as_many_wait_as_can_go_on(trials, most):
    generator, ladder, waiting = random.Random(1), Ladder([1, 3], 3, trials, "maximize"), set()
    seen = 0
    for number in range(trials):
        value = generator.random()
        if ladder.enter(number, 1, value, True) == "pause":
            ladder.wait(number, 1, value)
            waiting.add(number)
        waiting -= set(ladder.outdone(1))
        seen = max(seen, len(waiting))
    assert 1 < seen <= most
    assert ladder.clear() == sorted(waiting)
    assert ladder.clear() == []


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_ladder_made_of_recorded_trials_goes_on_like_the_one_they_climbed(direction):
    generator, climbed = random.Random(2), Ladder([1, 3], 3, 30, direction)
    values, paused = {}, set()
    for number in range(20):
        values[number] = []
        for epoch in (1, 2, 3, 4):
            values[number].append(round(generator.random(), 1))
            if climbed.enter(number, epoch, values[number][-1], True) == "pause":
                climbed.wait(number, epoch, values[number][-1])
                paused.add(number)
                break
    records = [
        TrialRecord(
            number,
            0,
            {},
            0,
            "sampler",
            "waiting",
            0.0,
            left_at=0.0 if number in paused else None,
            epochs=tuple(Epoch(epoch, {"v": value}, {}, 0.0) for epoch, value in enumerate(each, 1)),
        )
        for number, each in values.items()
    ]
    again = Ladder.of(settings(trials=30, direction=direction), records)
    told = [
        [ladder.promote(True) for _ in range(4)] + ladder.outdone(1) + ladder.clear() for ladder in (climbed, again)
    ]
    assert told[0] == told[1]
    assert len(set(told[0])) > 4
