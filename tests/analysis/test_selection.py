import math

import pytest

from analysis.selection import choose_winner, edges, finalists, lead, learning_rates, place, rank, rank_finalists
from search.config import Objective, StudyConfig
from search.errors import ConfigurationError
from search.events import Asked, EpochReported, Failed
from search.history import History
from search.space import FloatRange

CONFIG = StudyConfig.parse({"objective": {"metric": "val_auc"}})
LOSS = Objective(metric="val_loss", direction="minimize")


def trial(number, values, end="complete", repeat=0, metric="val_auc", depth=0, **metrics):
    """A trial's events: one epoch per value; the last one's verdict is `end`."""
    verdicts = ["continue"] * (len(values) - 1) + [end]
    return [
        Asked(number, {"freeze_depth": depth}, number, "rerun" if repeat else "sampler", repeat),
        *(
            EpochReported(number, epoch, {metric: value, **metrics}, verdict, repeat)
            for epoch, (value, verdict) in enumerate(zip(values, verdicts, strict=True), start=1)
        ),
    ]


def history(*trials):
    return History((0.0, event) for events in trials for event in events)


def numbers(trials):
    return [trial.number for trial in trials]


def test_trials_rank_by_their_best_epoch_and_those_without_a_value_are_left_out():
    made = history(trial(0, [0.9, 0.1]), trial(1, [0.5, 0.8]), trial(2, [math.nan]), trial(3, [0.95], "prune"))
    assert numbers(rank(made.search_trials(), CONFIG.objective)) == [3, 0, 1]


def test_a_smaller_loss_ranks_first():
    made = history(trial(0, [0.9], metric="val_loss"), trial(1, [0.5], metric="val_loss"))
    assert numbers(rank(made.search_trials(), LOSS)) == [1, 0]


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ({"depth": 3}, {"depth": 5}, [1, 0]),
        ({"depth": 5}, {"depth": 3}, [0, 1]),
        ({"depth": 5, "trainable_share": 0.4}, {"depth": 3, "trainable_share": 0.3}, [1, 0]),
        ({}, {}, [0, 1]),
    ],
)
def test_of_equal_values_the_cheaper_then_the_earlier_ranks_first(first, second, order):
    made = history(trial(0, [0.9], **first), trial(1, [0.9], **second))
    assert numbers(rank(made.search_trials(), CONFIG.objective)) == order


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [1]), (2, [1, 0]), (3, [1, 0, 2]), (9, [1, 0, 2])])
def test_completed_trials_go_before_pruned_ones_and_failed_ones_never(count, expected):
    made = history(
        *(trial(0, [0.5]), trial(1, [0.6]), trial(2, [0.9], "prune")),
        *(trial(3, [0.99], "fail"), trial(4, [0.99], "continue")),
    )
    assert numbers(finalists(made.search_trials(), CONFIG.objective, count)) == expected


def test_without_reruns_the_best_completed_trial_wins():
    winner = choose_winner(history(trial(0, [0.5, 0.8, 0.7]), trial(1, [0.6]), trial(2, [0.9], "prune")), CONFIG)
    assert (winner.number, winner.value, winner.best_epoch, winner.seeds) == (0, 0.8, 2, 0)
    assert math.isnan(winner.mean)
    assert math.isnan(winner.standard_error)
    assert winner.reason == (
        "trial 0 has the best val_auc of the completed trials, 0.8 at epoch 2; "
        "it was not rerun on fresh seeds, so part of that may be luck"
    )


def test_a_tie_is_told():
    winner = choose_winner(history(trial(0, [0.8], depth=1), trial(1, [0.8], depth=2)), CONFIG)
    assert winner.number == 1
    assert "as good as trial 0, but cheaper or earlier" in winner.reason


def test_when_no_trial_completed_the_best_pruned_one_wins():
    winner = choose_winner(history(trial(0, [0.5], "prune"), trial(1, [0.6], "prune")), CONFIG)
    assert winner.number == 1
    assert "of the pruned trials" in winner.reason


def failed(number, repeat):
    return [Asked(number, {"freeze_depth": 0}, number, "rerun", repeat), Failed(number, "no memory", repeat)]


def test_when_every_rerun_failed_the_best_trial_that_was_not_rerun_wins_and_it_is_told():
    made = history(trial(0, [0.9]), trial(1, [0.8]), trial(2, [0.7]), failed(0, 1), failed(0, 2), failed(1, 1))
    winner = choose_winner(made, CONFIG)
    assert (winner.number, winner.seeds) == (2, 0)
    assert winner.reason == (
        "trial 2 has the best val_auc of the completed trials without failed reruns, 0.7 at epoch 1; "
        "it was not rerun on fresh seeds, and the reruns of trials 0, 1 all failed"
    )


def test_while_reruns_are_under_way_one_that_failed_decides_nothing():
    running = [Asked(1, {"freeze_depth": 0}, 1, "rerun", 1)]
    winner = choose_winner(history(trial(0, [0.9]), trial(1, [0.8]), failed(0, 1), running), CONFIG)
    assert winner.number == 0
    assert winner.reason.endswith("it was not rerun on fresh seeds, so part of that may be luck")


def test_when_reruns_of_all_candidates_failed_the_one_with_the_fewest_wins_and_it_is_told():
    winner = choose_winner(
        history(trial(0, [0.9]), trial(1, [0.8]), *[failed(0, 1), failed(0, 2), failed(1, 1)]), CONFIG
    )
    assert winner.number == 1
    assert winner.reason.endswith(
        "none of its reruns on fresh seeds completed (1 failed), as with every other candidate"
    )


def test_the_best_mean_over_reruns_wins_over_the_luckiest_search():
    made = history(
        *(trial(0, [0.99], depth=2), trial(1, [0.80])),
        *(trial(0, [0.6, 0.7], repeat=1), trial(0, [0.8], repeat=2)),
        *(trial(1, [0.7, 0.7, 0.8], repeat=1), trial(1, [0.9, 0.1], repeat=2)),
    )
    winner = choose_winner(made, CONFIG)
    assert (winner.number, winner.value, winner.seeds) == (1, 0.8, 2)
    assert winner.mean == pytest.approx(0.85)
    assert winner.standard_error == pytest.approx(0.05)  # sample deviation 0.0707 over the root of 2
    assert winner.parameters == {"freeze_depth": 0}
    assert winner.reason == (
        "best mean val_auc: trial 1 with 0.85 ± 0.05 (standard error) over 2 fresh seeds; "
        "next: trial 0 with 0.75 ± 0.05 (standard error) over 2 fresh seeds; the search's leader was trial 0 with 0.99"
    )


def test_the_smallest_mean_loss_wins():
    config = StudyConfig.parse({"objective": LOSS.model_dump()})
    made = history(
        *(trial(0, [0.1], metric="val_loss"), trial(1, [0.2], metric="val_loss")),
        *(trial(0, [0.5], repeat=1, metric="val_loss"), trial(1, [0.3], repeat=1, metric="val_loss")),
    )
    assert choose_winner(made, config).number == 1


@pytest.mark.parametrize(
    ("best_epochs", "median"), [([4], 4), ([2, 5], 5), ([7, 1, 3], 3), ([1, 1, 1], 1), ([8, 2, 6, 4], 6)]
)
def test_the_best_epoch_is_the_median_over_reruns_and_its_learning_rates_come_along(best_epochs, median):
    reruns = [
        trial(0, [0.1] * (best - 1) + [0.9, 0.2], repeat=repeat, learning_rate=best / 100)
        for repeat, best in enumerate(best_epochs, start=1)
    ]
    winner = choose_winner(history(trial(0, [0.9]), *reruns), CONFIG)
    assert winner.best_epoch == median
    assert winner.learning_rates == [median / 100] * median


def test_learning_rates_are_those_of_the_first_epochs_or_none():
    events = trial(0, [0.1, 0.2, 0.3])
    told = [
        EpochReported(0, e.epoch, {**e.metrics, "learning_rate": 1 / e.epoch}, e.verdict) for e in events[1:]
    ]  # fmt: skip
    assert learning_rates(history(events[:1], told).search_trials()[0], 2) == [1.0, 0.5]
    assert learning_rates(history(events[:2], told[1:]).search_trials()[0], 2) == []


def test_one_fresh_seed_has_no_standard_error():
    winner = choose_winner(history(trial(0, [0.9]), trial(0, [0.7], repeat=1)), CONFIG)
    assert (winner.mean, winner.seeds) == (0.7, 1)
    assert math.isnan(winner.standard_error)
    assert "±" not in winner.reason


def test_a_finalist_that_failed_on_a_fresh_seed_stands_behind_one_that_did_not():
    made = history(
        *(trial(0, [0.9]), trial(1, [0.8])),
        *(trial(0, [0.9], repeat=1), trial(0, [0.99, math.nan], "fail", repeat=2)),
        *(trial(1, [0.7], repeat=1), trial(1, [0.7], repeat=2)),
    )
    winner = choose_winner(made, CONFIG)
    assert winner.number == 1
    assert "trial 0 with 0.9 over 1 fresh seed, 1 more failed" in winner.reason


def test_reruns_that_have_not_ended_do_not_count():
    made = history(trial(0, [0.9]), trial(1, [0.8]), trial(1, [0.99], "continue", repeat=1))
    assert (choose_winner(made, CONFIG).number, choose_winner(made, CONFIG).seeds) == (0, 0)


def test_equal_means_go_to_the_cheaper_finalist():
    made = history(
        *(trial(0, [0.9], depth=1), trial(1, [0.8], depth=4)),
        *(trial(0, [0.7], repeat=1, depth=1), trial(1, [0.7], repeat=1, depth=4)),
    )
    assert choose_winner(made, CONFIG).number == 1


@pytest.mark.parametrize(
    "made",
    [
        history(),
        history([Asked(0, {}, 1), Failed(0, "no memory")]),
        history(trial(0, [0.9], "fail")),
        history(trial(0, [0.9], "continue")),
    ],
)
def test_there_is_no_winner_without_a_trial_that_ended_well(made):
    with pytest.raises(ConfigurationError, match="val_auc, but there is none"):
        choose_winner(made, CONFIG)


SPACE = StudyConfig.parse(
    {
        "space": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
            "batch_size": {"type": "int", "low": 8, "high": 64, "step": 8},
            "freeze_depth": {"type": "int", "low": 0, "high": 5},
            "augmentation_strength": {"type": "float", "low": 0, "high": 1},
            "optimizer": {"type": "choice", "values": ["adam", "sgd"]},
            "dropout": {"type": "float", "low": 0.2, "high": 0.2},
        }
    }
).space


@pytest.mark.parametrize(
    ("point", "names"),
    [
        ({"learning_rate": 1e-3, "batch_size": 32, "freeze_depth": 3}, []),
        ({"learning_rate": 1e-1}, ["learning_rate"]),
        ({"learning_rate": 7e-2}, ["learning_rate"]),  # 96 % of the way in the logarithm
        ({"learning_rate": 5e-2}, []),  # 92 % of it
        ({"learning_rate": 1.5e-5, "batch_size": 8}, ["learning_rate", "batch_size"]),
        ({"batch_size": 16}, []),
        ({"batch_size": 64}, ["batch_size"]),
        ({"freeze_depth": 0, "augmentation_strength": 0.0}, []),
        ({"freeze_depth": 5, "augmentation_strength": 1.0}, ["freeze_depth"]),
        ({"optimizer": "adam", "dropout": 0.2}, []),
    ],
)
def test_a_value_at_an_end_that_could_be_wider_is_named(point, names):
    assert [sentence.partition(":")[0] for sentence in edges(SPACE, point)] == names


def test_an_edge_says_which_end_and_of_what():
    (sentence,) = edges(SPACE, {"batch_size": 64})
    assert sentence == (
        "batch_size: the best value, 64, lies at the high end of its range (8 to 64); "
        "widen the range, because something better may lie above"
    )


def test_an_end_where_the_network_ends_is_none():
    assert edges(SPACE, {"freeze_depth": 5}, limits={"freeze_depth": (0, 5)}) == []


def test_ranked_finalists_are_those_with_a_completed_rerun_the_winner_first():
    made = history(
        trial(0, [0.9]), trial(1, [0.8]), trial(2, [0.7]), trial(0, [0.5], repeat=1), trial(1, [0.6], repeat=1)
    )
    assert [each.trial.number for each in rank_finalists(made, CONFIG.objective)] == [1, 0]


def test_the_lead_is_between_the_means_and_its_error_is_of_both():
    reruns = [(0, 1, 0.9), (0, 2, 0.7), (1, 1, 0.6), (1, 2, 0.4)]
    made = history(trial(0, [0.9]), trial(1, [0.8]), *(trial(n, [v], repeat=r) for n, r, v in reruns))
    difference, error = lead(rank_finalists(made, CONFIG.objective), CONFIG.objective)
    assert difference == pytest.approx(0.3)
    assert error == pytest.approx(math.sqrt(0.1**2 + 0.1**2))


def test_for_a_loss_the_lead_is_downwards():
    runs = [trial(0, [0.2], metric="val_loss"), trial(1, [0.3], metric="val_loss")]
    reruns = [trial(n, [v], repeat=1, metric="val_loss") for n, v in ((0, 0.2), (1, 0.5))]
    difference, error = lead(rank_finalists(history(*runs, *reruns), LOSS), LOSS)
    assert difference == pytest.approx(0.3)
    assert math.isnan(error)
    assert lead([], LOSS) is None


@pytest.mark.parametrize(("log", "value", "share"), [(False, 1.0, 0.0), (False, 100.0, 1.0), (True, 10.0, 0.5)])
def test_a_place_in_a_range_is_on_its_own_scale(log, value, share):
    assert place(FloatRange(type="float", low=1.0, high=100.0, log=log), value) == pytest.approx(share)
