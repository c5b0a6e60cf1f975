import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from pandas.testing import assert_frame_equal

from analysis.trials import (
    FIXED,
    filter_trials,
    read_reruns,
    read_table,
    read_trials,
    select_columns,
    sort_trials,
    table_from_history,
    to_json_rows,
    top,
    write_table,
)
from search.config import StudyConfig
from search.errors import ConfigurationError, LedgerError
from search.events import Asked, EpochReported, Failed, SessionOpened, Started
from search.history import History
from search.ledger import Ledger

STUDY = {
    "name": "study",
    "space": {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1, "log": True},
        "freeze_depth": {"type": "int", "low": 0, "high": 5},
        "optimizer": {"type": "choice", "values": ["adam", "sgd"]},
        "momentum": {"type": "float", "low": 0.5, "high": 0.9, "when": {"optimizer": "sgd"}},
        "nesterov": {"type": "choice", "values": [True, False], "when": {"optimizer": "sgd"}},
        "head_width": {"type": "choice", "values": [0, 64], "when": {"optimizer": "adam"}},
    },
    "objective": {"metric": "val_auc"},
}
EVENTS = [
    SessionOpened("host", 1),
    Asked(
        0, {"learning_rate": 0.1, "freeze_depth": 4, "optimizer": "adam", "head_width": 64}, 2**32 - 1, "first_point"
    ),
    Started(0, worker="node/7"),
    EpochReported(0, 1, {"val_auc": 0.7, "loss": 2}, "continue", seconds={"train": 2.0, "setup": 9.0}),
    EpochReported(0, 2, {"val_auc": 0.9, "loss": 1}, "continue", seconds={"train": 0.5, "validation": 0.25}),
    EpochReported(0, 3, {"val_auc": 0.8, "loss": 0}, "complete", seconds={"train": 0.5}),
    Asked(1, {"learning_rate": 1, "freeze_depth": 0, "optimizer": "sgd", "momentum": 0.9, "nesterov": False}, 12),
    Started(1, worker="node/8"),
    Started(1, worker="node/9"),
    EpochReported(1, 1, {"val_auc": math.nan, "loss": 3.5, "learning_rate": 1.0}, "fail", reason="=diverged"),
    Asked(2, {"learning_rate": 0.01, "freeze_depth": 2, "optimizer": "adam", "head_width": 0}, 13),
    Started(2, worker="node/7"),
    EpochReported(2, 1, {"val_auc": 0.6, "accuracy": 0.5, "learning_rate": 7.0, "momentum": 7.0}, "prune"),
    Asked(3, {"learning_rate": 0.02, "freeze_depth": 3, "optimizer": "adam", "head_width": 0}, 14),
    Asked(0, {"learning_rate": 0.1, "freeze_depth": 4, "optimizer": "adam", "head_width": 64}, 15, "rerun", repeat=2),
    Asked(0, {"learning_rate": 0.1, "freeze_depth": 4, "optimizer": "adam", "head_width": 64}, 16, "rerun", repeat=1),
    EpochReported(0, 1, {"val_auc": 0.75}, "complete", repeat=1),
]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    with Ledger(folder / "study.db") as ledger:
        ledger.append(*EVENTS)
    return folder


@pytest.fixture
def table():
    return table_from_history(History((float(at), event) for at, event in enumerate(EVENTS)), StudyConfig.parse(STUDY))


def test_each_trial_of_the_search_is_one_row_in_order_of_number(run):
    assert read_trials(run)["number"].tolist() == [0, 1, 2, 3]


def test_the_columns_stand_in_the_documented_order(table):
    assert list(table.columns) == [
        *("number", "status", "value", "best_epoch", "epochs_run"),
        *("learning_rate", "freeze_depth", "optimizer", "momentum", "nesterov", "head_width", "origin"),
        *("accuracy", "loss", "val_auc"),
        *("train_seconds", "validation_seconds", "step_seconds", "setup_seconds", "checkpoint_seconds"),
        *("started_at_seconds", "ended_at_seconds", "attempts", "worker", "seed", "reason"),
    ]


def test_a_row_tells_the_best_epoch_and_sums_the_times_of_all(table):
    row = to_json_rows(table)[0]
    assert row == {
        "number": 0,
        "status": "completed",
        "value": 0.9,
        "best_epoch": 2,
        "epochs_run": 3,
        "learning_rate": 0.1,
        "freeze_depth": 4,
        "optimizer": "adam",
        "momentum": None,
        "nesterov": None,
        "head_width": 64,
        "origin": "first_point",
        "accuracy": None,
        "loss": 1.0,
        "val_auc": 0.9,
        "train_seconds": 3.0,
        "validation_seconds": 0.25,
        "step_seconds": 0.0,
        "setup_seconds": 9.0,
        "checkpoint_seconds": 0.0,
        "started_at_seconds": 2.0,
        "ended_at_seconds": 5.0,
        "attempts": 1,
        "worker": "node/7",
        "seed": 2**32 - 1,
        "reason": None,
    }


def test_a_trial_without_a_value_keeps_its_row(table):
    failed, waiting = to_json_rows(table)[1], to_json_rows(table)[3]
    assert (failed["status"], failed["value"], failed["best_epoch"], failed["epochs_run"]) == ("failed", None, None, 1)
    assert (failed["attempts"], failed["worker"], failed["nesterov"]) == (2, "node/9", False)
    assert (waiting["status"], waiting["started_at_seconds"], waiting["worker"]) == ("waiting", None, None)


def test_a_metric_gives_way_to_a_hyperparameter_of_its_name_even_where_that_is_absent(table):
    assert table["learning_rate"].tolist() == [0.1, 1.0, 0.01, 0.02]
    assert table["momentum"].isna().tolist() == [True, False, True, True]


def test_minimizing_takes_the_lowest_epoch():
    config = StudyConfig.parse({**STUDY, "objective": {"metric": "loss", "direction": "minimize"}})
    assert to_json_rows(table_from_history(History((0.0, e) for e in EVENTS), config))[0]["best_epoch"] == 3


def test_types_follow_the_space_and_not_the_values(table):
    names = ["best_epoch", "learning_rate", "freeze_depth", "optimizer", "nesterov", "head_width", "loss", "seed"]
    assert [str(table[name].dtype) for name in names] == [
        *("Int64", "float64", "Int64", "str", "boolean", "Int64", "float64", "int64")
    ]


def test_a_study_without_trials_has_every_column_and_no_row():
    table = table_from_history(History(), StudyConfig.parse(STUDY))
    assert len(table) == 0
    assert str(table["freeze_depth"].dtype) == "Int64"


def test_reruns_have_their_own_table(run):
    reruns = read_reruns(run)
    assert list(reruns.columns[:6]) == ["number", "repeat", "seed", "status", "value", "best_epoch"]
    assert reruns[["number", "repeat", "seed", "status"]].to_numpy().tolist() == [
        [0, 1, 16, "completed"],
        [0, 2, 15, "waiting"],
    ]


def test_a_missing_run_and_a_damaged_ledger_are_told_apart(run, tmp_path):
    with pytest.raises(ConfigurationError, match=r"there is no study\.yaml"):
        read_trials(tmp_path / "nothing")
    (run / "study.db").write_bytes(b"not a ledger" * 100)
    (run / "study.events.jsonl").unlink()
    with pytest.raises(LedgerError):
        read_trials(run)


def test_missing_values_are_sorted_last_either_way(table):
    assert sort_trials(table, "value")["number"].tolist() == [2, 0, 1, 3]
    assert sort_trials(table, "value", descending=True)["number"].tolist() == [0, 2, 1, 3]


def test_rows_that_sort_equal_keep_their_order(table):
    assert sort_trials(table, "optimizer", descending=True)["number"].tolist() == [1, 0, 2, 3]


@pytest.mark.parametrize(
    ("expressions", "numbers"),
    [
        ([], [0, 1, 2, 3]),
        (["status=completed"], [0]),
        (["status == pruned"], [2]),
        (["value>0.6"], [0]),
        (["value>=0.6", "freeze_depth < 3"], [2]),
        (["optimizer!=sgd"], [0, 2, 3]),
        (["learning_rate<=1e-2"], [2]),
        (["momentum!=0.9"], [0, 2, 3]),  # a missing value is unlike every other
        (["best_epoch!=2"], [1, 2, 3]),
        (["nesterov=false"], [1]),
        (["nesterov!=True"], [0, 1, 2, 3]),
        (["best_epoch="], [1, 3]),
        (["reason!="], [1]),
        (["reason==diverged"], []),
        (["freeze_depth=4", "freeze_depth=2"], []),
        (["seed<100000000000000000000"], [0, 1, 2, 3]),
    ],
)
def test_all_expressions_must_hold(table, expressions, numbers):
    assert filter_trials(table, expressions)["number"].tolist() == numbers


def test_every_expression_that_cannot_be_meant_is_named(table):
    with pytest.raises(ConfigurationError) as caught:
        filter_trials(table, ["freze_depth=3", "value>high", "optimizer<sgd", "loss", "value=nan", "nesterov=maybe"])
    problems = caught.value.problems
    assert len(problems) == 6
    assert "did you mean `freeze_depth`?" in problems[0]
    assert "`value` holds numbers, but got 'high'" in problems[1]
    assert "`optimizer` has no order" in problems[2]
    assert "must read column, comparison" in problems[3]
    assert "'nan'" in problems[4]
    assert "true or false" in problems[5]


def test_columns_are_selected_in_the_order_asked_and_every_unknown_one_is_named(table):
    assert list(select_columns(table, ["value", "number"]).columns) == ["value", "number"]
    with pytest.raises(ConfigurationError) as caught:
        select_columns(table, ["valeu", "number", "zzzzzzzz"])
    assert len(caught.value.problems) == 2
    assert "`value`" in caught.value.problems[0]
    assert "columns: number, status" in caught.value.problems[1]


def test_the_top_is_best_first_and_only_of_trials_with_a_value(table):
    assert top(table, 5, "maximize")["number"].tolist() == [0, 2]
    assert top(table, 1, "minimize")["number"].tolist() == [2]


def test_failed_trials_are_at_the_end_of_the_top_whatever_they_had_reached():
    status, value = ["failed", "completed", "pruned", "failed"], [0.95, 0.91, 0.8, 0.99]
    made = pd.DataFrame({"number": range(4), "status": status, "value": value})
    assert top(made, 3, "maximize")["number"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_written_table_reads_back_bit_equal_and_of_the_same_types(table, tmp_path, ending):
    path = tmp_path / "made" / f"trials.{ending}"
    write_table(table, path)
    assert_frame_equal(read_table(path), table, check_exact=True)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_float_survives(tmp_path, ending):
    draw = random.Random(5)
    values = [draw.uniform(-1, 1) * 10.0 ** draw.randrange(-300, 300) for _ in range(2000)]
    values += [1.0, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan]
    table = pd.DataFrame({"loss": values})
    write_table(table, tmp_path / f"t.{ending}")
    read = read_table(tmp_path / f"t.{ending}")["loss"].tolist()
    assert [value.hex() for value in read] == [value.hex() for value in values]


HOSTILE = [
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "-2",
    "@sum",
    "\tx",
    "\r\nx",
    "'quoted",
    "''",
    "12",
    "1e5",
    "nan",
    "inf",
    "True",
    "NA",
    "None",
    "",
    'say "a, b"\n\ntwice',
    "torn\rline",
    "é 中 \u202e",
    None,
]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["reason", "optimizer"])
def test_every_text_survives(tmp_path, ending, column):
    table = pd.DataFrame({"number": range(len(HOSTILE)), column: pd.Series(HOSTILE, dtype="str")})
    write_table(table, tmp_path / f"t.{ending}")
    assert_frame_equal(read_table(tmp_path / f"t.{ending}"), table)


def test_a_choice_of_texts_that_look_like_numbers_stays_text(tmp_path):
    table = pd.DataFrame({"width": pd.Series(["16", "32", None], dtype="str")})
    write_table(table, tmp_path / "t.csv")
    assert_frame_equal(read_table(tmp_path / "t.csv"), table)


def test_negative_numbers_are_no_formulas(tmp_path):
    write_table(pd.DataFrame({"loss": [-0.5]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").split() == ["loss", "-0.5"]


def test_json_has_null_for_what_is_missing_and_whole_numbers_stay_whole(table, tmp_path):
    write_table(table, tmp_path / "trials.json")
    rows = json.loads((tmp_path / "trials.json").read_text(encoding="utf-8"))
    assert rows == to_json_rows(table)
    assert '"freeze_depth": 4,' in (tmp_path / "trials.json").read_text(encoding="utf-8")
    assert rows[1]["value"] is None
    assert rows[1]["reason"] == "=diverged"


def test_json_rows_hold_plain_values_only(table):
    kinds = {type(value) for row in to_json_rows(table) for value in row.values()}
    assert kinds == {int, float, str, bool, type(None)}
    assert to_json_rows(pd.DataFrame({"loss": [math.inf]})) == [{"loss": None}]


@pytest.mark.parametrize("path", ["trials.xlsx", "trials"])
def test_another_ending_is_refused(table, tmp_path, path):
    with pytest.raises(ConfigurationError, match=r"must end in \.csv or \.parquet"):
        write_table(table, tmp_path / path)
    with pytest.raises(ConfigurationError, match=r"must end in"):
        read_table(tmp_path / path)


def test_a_file_that_is_no_table_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("number,value\nx,y\n", encoding="utf-8")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    for name in ("a.csv", "b.parquet", "c.csv"):
        with pytest.raises(ConfigurationError, match=name):
            read_table(tmp_path / name)


def test_a_table_that_cannot_be_written_leaves_the_one_that_is_there(table, tmp_path):
    write_table(table, tmp_path / "t.parquet")
    before = (tmp_path / "t.parquet").read_bytes()
    mixed = pd.DataFrame({"a": pd.Series([1, "x"], dtype=object)})
    with pytest.raises(Exception, match="a"):
        write_table(mixed, tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").read_bytes() == before


def test_every_column_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "trial_table.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    assert [name for name in documented if name in FIXED] == list(FIXED)


def test_the_package_gives_its_names_without_loading_pandas_first():
    code = "import sys, analysis; assert 'pandas' not in sys.modules; [getattr(analysis, n) for n in analysis.__all__]"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_failed_start_is_told_with_its_reason():
    events = [Asked(0, {}, 1), Failed(0, "no memory")]
    table = table_from_history(History((0.0, event) for event in events), StudyConfig.parse({}))
    assert to_json_rows(table[["status", "reason", "ended_at_seconds"]]) == [
        {"status": "failed", "reason": "no memory", "ended_at_seconds": 0.0}
    ]
