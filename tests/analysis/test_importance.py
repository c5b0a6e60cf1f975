import random

import pytest

from analysis.importance import ENOUGH, importances
from search.config import StudyConfig
from search.history import Epoch, TrialRecord

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "freeze_depth": {"type": "int", "low": 0, "high": 5},
}


def config(direction="maximize"):
    return StudyConfig.parse({"space": SPACE, "objective": {"metric": "v", "direction": direction}})


def trials(count, worth, status="completed"):
    draw = random.Random(3)
    points = [{"learning_rate": 10 ** draw.uniform(-5, -2), "freeze_depth": draw.randrange(6)} for _ in range(count)]
    return [
        TrialRecord(n, 0, point, 0, "sampler", status, 0.0, (Epoch(1, {"v": worth(point, draw)}, {}, 0.0),))
        for n, point in enumerate(points)
    ]


def by_depth(point, draw):
    return point["freeze_depth"] + draw.gauss(0, 0.3)


def noise(point, draw):
    return draw.random()


def test_what_decides_comes_first_and_stands_out_from_chance():
    first, second = importances(trials(120, by_depth), config())
    assert (first.name, first.stands_out) == ("freeze_depth", True)
    assert first.share > 0.8
    assert first.share + second.share == pytest.approx(1)
    assert first.chance < 0.2


def test_noise_does_not_stand_out():
    assert [each.stands_out for each in importances(trials(60, noise), config())] == [False, False]


def test_the_share_lies_in_its_interval_and_the_interval_between_nothing_and_all():
    for each in importances(trials(60, noise), config()):
        assert 0 <= each.low <= each.share <= each.high <= 1
        assert each.high > each.low


def test_for_a_loss_the_low_values_are_the_good_ones():
    def loss(point, draw):
        return abs(point["freeze_depth"] - 5) + draw.gauss(0, 0.3)

    falling = importances(trials(120, loss), config("minimize"))
    rising = importances(trials(120, lambda point, draw: -loss(point, draw)), config())
    assert falling == rising


@pytest.mark.parametrize("status", ["completed", "pruned", "running"])
def test_every_trial_with_a_value_counts(status):
    assert len(importances(trials(ENOUGH, by_depth, status), config())) == 2


def test_few_trials_or_equal_values_say_nothing():
    assert importances(trials(ENOUGH - 1, by_depth), config()) == []
    assert importances(trials(60, lambda point, draw: 0.5), config()) == []
    assert importances([], config()) == []


def test_the_same_trials_give_the_same_answer():
    assert importances(trials(40, by_depth), config()) == importances(trials(40, by_depth), config())
