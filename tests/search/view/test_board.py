from io import StringIO

import pytest
from rich.console import Console

from search.config import StudyConfig
from search.events import Asked, EpochReported, Noted, Started
from search.history import History
from search.view.board import Board

CLUSTER = {"nodes": 1, "cpus": 8.0, "gpus": 0.0, "trials_at_once": 4, "cpus_per_trial": 2, "gpus_per_trial": 0}


def of(events):
    return History((0.0, event) for event in events)


def drawn(board, width=200):
    console = Console(file=StringIO(), width=width)
    console.print(board)
    return console.file.getvalue()


def limited(config, seconds):
    return config.model_copy(update={"budget": config.budget.model_copy(update={"wall_seconds": seconds})})


def test_the_board_says_how_far_the_study_is_what_is_best_what_runs_and_what_went_wrong(small_config, small_events):
    text = drawn(Board.of(small_config, of(small_events), used=3725.0))
    for part in (
        "it  1 h 02 min used, about 20 min 41 s left",
        "3 of 4 trials",
        "1 completed, 1 pruned, 1 failed, 1 running",
        "6 of 7 epochs",
        "trial 1 pruned: behind others at epoch 1",
        "trial 2 failed: no [memory]",
    ):
        assert part in text
    [best] = [line for line in text.splitlines() if "best 0" in line]
    assert best.split()[:7] == ["best", "0", "2/3", "0.7500", "▁█▅", "0.001235", "a"]
    [running] = [line for line in text.splitlines() if "trial 3" in line]
    assert running.split()[:7] == ["trial", "3", "2/3", "0.1250", "▁█", "0.3", "a[1].h5"]
    assert running.split()[-1] == "host/4"


def test_the_pace_is_shown_while_somebody_is_at_work(small_config):
    events = [(0.0, Asked(0, {"rate": 0.1}, 0)), (0.0, Started(0)), (30.0, EpochReported(0, 1, {"v": 1}, "complete"))]
    assert "2 epochs/min, 2 trials/min" in drawn(Board.of(small_config, History(events)))
    assert "/min" not in drawn(Board.of(small_config, History(events), at_work=False))


def test_workers_are_shown_with_their_share_of_the_cluster_and_their_memory(small_config, small_events):
    told = EpochReported(3, 3, {"v": 0.1}, "continue", usage={"memory_bytes": 1.84e9})
    text = drawn(Board.of(small_config, of([*small_events, Noted("cluster", CLUSTER), told])))
    assert " workers  1 of 4 at once on host, each 2 CPUs of 8 CPUs, 0 GPUs; 1.8 GB in use" in text
    assert "workers" not in drawn(Board.of(small_config, of(small_events)))


def test_what_the_store_of_features_saved_is_shown_once_it_is_used(small_config, small_events):
    use = {"features_found": 5, "features_built": 2, "features_bytes": 9.6e7}
    told = EpochReported(3, 3, {"v": 0.1}, "continue", usage=use)
    assert " features 5 of 7 times ready, 2 built, 96 MB kept" in drawn(
        Board.of(small_config, of([*small_events, told]))
    )
    assert "features" not in drawn(Board.of(small_config, of(small_events)))


@pytest.mark.parametrize("columns", [1, 7])
def test_brackets_in_values_are_shown_and_are_no_markup(small_config, small_events, columns):
    space = {name: {"type": "choice", "values": [0]} for name in ("kind", "[red]b", "c", "d", "e", "f", "g")[:columns]}
    config = small_config.model_copy(update={"space": StudyConfig.parse({"space": space}).space})
    assert "[/b] [red]x" in drawn(Board.of(config, of(small_events[:8])))


def test_time_that_is_left_is_shown_where_time_is_limited(small_config, small_events):
    config, study = limited(small_config, 100.0), of(small_events)
    text = drawn(Board.of(config, study, used=35.0))
    assert "1 min 05 s left" in text
    assert "of 1 min 40 s" in text
    assert "about 11 s left" in text
    assert " 0 s left" in drawn(Board.of(config, study, used=135.0))
    assert "about 5 s left" in drawn(Board.of(limited(small_config, 40.0), study, used=35.0))


def test_trials_that_ran_wait_when_no_driver_is_at_work(small_config, small_events):
    text = drawn(Board.of(small_config, of(small_events), at_work=False))
    assert "1 completed, 1 pruned, 1 failed, 1 waiting" in text
    assert "trial 3" not in text
    assert "about" not in text


def test_an_empty_study_can_be_drawn(small_config):
    assert "0 of 4 trials" in drawn(Board.of(small_config, of([])))


def test_reruns_and_the_winner_are_shown_when_there_are_any(small_config, small_events):
    events = [*small_events[:6], Asked(0, {"rate": 0.1}, 0, "rerun", 1), Started(0, 1)]
    text = drawn(Board.of(small_config, of(events)))
    assert "trial 0.1 " in text
    assert "0 of 2 reruns" in text
    noted = [*events, Noted("winner", {"number": 0, "reason": "best mean v"})]
    assert "winner: trial 0; best mean v" in drawn(Board.of(small_config, of(noted)))


SEARCHED = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"type": "choice", "values": [16, 32]},
    "augmentation_strength": {"type": "float", "low": 0, "high": 1, "step": 0.25},
    "freeze_depth": {"type": "int", "low": 0, "high": 5},
}


def busy_study():
    """Four trials running side by side, a best, reasons, features, a limit: all that a screen can have at once."""
    document = {
        "name": "lungs",
        "objective": {"metric": "val_auc"},
        "budget": {"trials": 24, "epochs": 9, "wall_seconds": 7200},
        "space": SEARCHED,
    }
    point = {"learning_rate": 0.000123456, "batch_size": 32, "augmentation_strength": 0.25, "freeze_depth": 3}
    usage = {"memory_bytes": 1.2e9, "features_found": 3, "features_built": 1, "features_bytes": 2.5e9}
    events = [(0.0, Noted("cluster", CLUSTER))]
    for number in range(10):
        events += [(1.0, Asked(number, point, 0)), (1.0, Started(number, worker=f"a-rather-long-host-name/{number}"))]
        for epoch in range(1, 7):
            verdict = "prune" if number < 5 and epoch == 6 else "complete" if number == 5 and epoch == 6 else "continue"
            reason = "behind others at epoch 6" if verdict == "prune" else None
            metrics = {"val_auc": 0.5 + epoch / 100 + number / 1000}
            events.append((9.0 * epoch, EpochReported(number, epoch, metrics, verdict, reason=reason, usage=usage)))
    return StudyConfig.parse(document), History(events)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_busy_study_fits_every_terminal(width):
    lines = drawn(Board.of(*busy_study(), used=400.0), width).splitlines()
    assert len(lines) <= 22
    assert all(len(line) <= width for line in lines)
    rows = [line for line in lines if line.startswith((" best", " trial 6", " trial 7", " trial 8", " trial 9"))]
    assert len(rows) == 5
    assert all("6/9" in row and "0.5" in row for row in rows)


@pytest.mark.parametrize(
    ("width", "curve", "columns", "worker"),
    [(40, False, False, False), (60, True, False, False), (80, True, True, False), (140, True, True, True)],
)
def test_what_a_table_shows_depends_on_its_room(width, curve, columns, worker):
    text = drawn(Board.of(*busy_study(), used=400.0), width)
    assert ("▁▂▄▅▇█" in text) is curve
    assert ("strength" in text and "0.0001235" in text) is columns
    assert ("rather-long-host-name/9" in text) is worker


def test_columns_do_not_move_when_numbers_grow(small_config, small_events):
    def at(events, used):
        text = drawn(Board.of(small_config, of(events), used=used)).splitlines()
        return next(line.index("a[1].h5") for line in text if "trial 3" in line)

    assert at(small_events[:-2], 3.0) == at(small_events, 3725.0)


def completed(number, repeat=0):
    origin = "rerun" if repeat else "sampler"
    return [
        *(Asked(number, {"rate": 0.1}, 0, origin, repeat), Started(number, repeat)),
        EpochReported(number, 1, {"v": 0.5}, "complete", repeat),
    ]


def test_pruned_trials_with_a_value_may_be_finalists_too(small_config):
    pruned = [Asked(3, {"rate": 0.1}, 0), Started(3), EpochReported(3, 1, {"v": 0.4}, "prune")]
    events = [
        *completed(0),
        *completed(1),
        *completed(2),
        *pruned,
        Asked(0, {"rate": 0.1}, 0, "rerun", 1),
        Started(0, 1),
    ]
    final = small_config.final.model_copy(update={"finalists": 4, "repeats": 2})
    assert "0 of 8 reruns" in drawn(Board.of(small_config.model_copy(update={"final": final}), of(events)))


def test_a_study_that_is_extended_is_searching_again_whatever_its_winner_was(small_config):
    events = [
        *((float(number), event) for number in range(3) for event in completed(number)),
        *((4.0, event) for event in completed(0, repeat=1)),
        (5.0, Noted("winner", {"number": 0, "reason": "best mean v"})),
    ]
    config = limited(small_config, 100.0)
    text = drawn(Board.of(config, History(events), used=8.0))
    assert "about" in text
    assert "1 min 33 s left" in text
    assert "reruns" not in text
    ended = drawn(Board.of(config, History([*events, *((9.0, event) for event in completed(3))]), used=10.0))
    assert f"1 of {config.final.repeats * config.final.finalists} reruns" in ended
    assert "about" not in ended
