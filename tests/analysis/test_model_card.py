import json
import math

import pandas as pd
import pytest

from analysis.evaluation import Evaluation
from analysis.model_card import code, escaped, render_model_card, section, table, write_model_card

FACTS = {
    "study": "ct_resnet50",
    "data": {"path": "images", "fingerprint": "0123abcd", "groups": "near_duplicates"},
    "model": {"architecture": "resnet50", "weights_sha256": None},
    "training": {"epochs": 9, "trained_on": ["train", "validation"]},
    "versions": {"keras": "3.15.1"},
}


def evaluation(classes=("COVID", "NonCOVID"), mistake=True, **changes):
    predicted = classes[1] if mistake else classes[0]
    predictions = pd.DataFrame(
        [
            {"file": f"{classes[0]}/1.png", "group": "g", "part": "test", "class": classes[0], "predicted": predicted}
            | {f"probability_{name}": 0.25 if name == classes[0] else 0.75 for name in classes}
        ]
    )
    metrics = {
        "accuracy": {"value": 0.85, "interval": [0.79, 0.9]},
        "auc": {"value": None, "interval": [None, None]},
        "validation": {"accuracy": {"value": 0.9, "interval": [0.8, 1]}, "auc": {"value": 0.5, "interval": [0.4, 0.6]}},
        "bootstrap": {"repeats": 2000, "level": 0.95, "seed": 7},
        "threshold": 0.4375,
        "positive_class": classes[0] if len(classes) == 2 else None,
        "classes": list(classes),
        "counts": {
            "images": {part: dict.fromkeys(classes, 30) for part in ("train", "validation", "test")},
            "groups": {"train": 40, "validation": 21, "test": 30},
        },
        "configuration": {"learning_rate": 0.001, "transforms": ["zoom", "shift"]},
    }
    history = pd.DataFrame({"epoch": [1], "loss": [1.0], "val_loss": [math.nan]})
    return Evaluation(predictions, history, metrics | changes)


def test_the_card_states_what_was_measured():
    card = render_model_card(evaluation(), FACTS)
    for line in (
        "# Model card: ct\\_resnet50",
        "`COVID`, `NonCOVID`.",
        "| accuracy | 0.850 [0.790, 0.900] | 0.900 [0.800, 1.000] |",
        "| auc | not defined | 0.500 [0.400, 0.600] |",
        "| images | train | validation | test |",
        "| `COVID` | 30 | 30 | 30 |",
        "| all images | 60 | 60 | 60 |",
        "| groups | 40 | 21 | 30 |",
        "| `fingerprint` | `0123abcd` |",
        "| `learning_rate` | `0.001` |",
        "| `transforms` | `zoom, shift` |",
        "| `keras` | `3.15.1` |",
        "| `COVID/1.png` | `COVID` | `NonCOVID` | 0.750 |",
        "| `COVID` | 1 | 0 of 1 \\(0.0%\\) | 0 of 0 |",
        "| `NonCOVID` | 0 | 0 of 0 | 0 of 1 \\(0.0%\\) |",
    ):
        assert line in card.splitlines()
    for words in ("Not a medical device", "at least 0.4375", "95 % intervals", "2000 resamples", "(seed 7)"):
        assert words in card
    assert "`thawline predict ct_resnet50 path/to/images`" in card
    assert "Best epoch" not in card
    assert "{{" not in card
    assert "{%" not in card


def test_the_card_is_written_beside_what_it_speaks_of(tmp_path):
    source = evaluation()
    source.predictions.to_csv(tmp_path / "predictions.csv", index=False)
    source.history.to_csv(tmp_path / "history.csv", index=False)
    (tmp_path / "metrics.json").write_text(json.dumps(source.metrics), encoding="utf-8")
    assert write_model_card(tmp_path, FACTS) == tmp_path / "model_card.md"
    assert (tmp_path / "model_card.md").read_text(encoding="utf-8") == render_model_card(source, FACTS)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ("none", "**The split was made image by image.**"),
        ("near_duplicates", "clusters of near-duplicate images"),
        ("patients.csv", "Groups came with the data (`patients.csv`)"),
    ],
)
def test_the_card_says_what_groups_mean(groups, words):
    assert words in render_model_card(evaluation(), FACTS | {"data": {"fingerprint": "0", "groups": groups}})


def test_more_classes_have_no_operating_point():
    card = render_model_card(evaluation(("a", "b", "c")), FACTS)
    assert "macro averages" in card
    assert "Operating point" not in card


def test_a_test_set_that_was_opened_again_is_not_called_evaluated_once():
    opened = {"at": "2026-01-01T00:00:00+00:00", "times": 2}
    card = render_model_card(evaluation(test_opened=opened), FACTS)
    assert "had then been opened 2 time(s)" in card
    assert "evaluated once" not in card
    assert "evaluated once" in render_model_card(evaluation(test_opened=opened | {"times": 1}), FACTS)


def test_without_validation_scores_there_is_no_column_for_them():
    card = render_model_card(evaluation(validation={}), FACTS)
    assert "| accuracy | 0.850 [0.790, 0.900] |" in card.splitlines()
    assert "Validation images took part" not in card


def test_what_intervals_do_not_tell_is_said():
    card = render_model_card(evaluation(("a_b", "other")), FACTS)
    assert "Few test groups hold a\\_b \\(1\\), so the intervals are too narrow" in card


def test_no_mistakes_are_said_in_words():
    assert "None: every test image was predicted right." in render_model_card(evaluation(mistake=False), FACTS)


def test_all_missing_facts_are_named_at_once():
    with pytest.raises(ValueError, match=r"lacks \['model', 'versions', 'data.groups'\]"):
        render_model_card(evaluation(), {"study": "a", "data": {"fingerprint": "0"}, "training": {}})


def test_a_hostile_class_name_cannot_leave_its_code_span_or_table_cell():
    name = "a | b\n# c `` <script>alert(1)</script> $x$"
    card = render_model_card(evaluation((name, "other")), FACTS)
    span = "``` a | b # c `` <script>alert(1)</script> $x$ ```"
    assert f"{span}, `other`." in card
    assert f"| {span.replace('|', chr(92) + '|')} | 30 | 30 | 30 |" in card.splitlines()
    assert "# c" not in [line[:3] for line in card.splitlines()]


@pytest.mark.parametrize(
    ("value", "markdown"),
    [
        ("plain", "`plain`"),
        ("", "` `"),
        ("a`b", "`` a`b ``"),
        ("`", "`` ` ``"),
        ("a\nb\x00", "`a b`"),
        (0.001, "`0.001`"),
    ],
)
def test_a_code_span_has_more_backticks_than_it_holds(value, markdown):
    assert code(value) == markdown


def test_text_is_escaped_once():
    assert escaped("<b> & *x* [y](z) _v_ $1$") == r"&lt;b&gt; &amp; \*x\* \[y\]\(z\) \_v\_ \$1\$"
    assert escaped(escaped("*")) == r"\*"
    assert escaped(3) == "3"


def test_numbers_stand_to_the_right_and_pipes_stay_in_their_cell():
    assert table(["a|b", "n"], [["x", 1]]) == "| a\\|b | n |\n| --- | ---: |\n| x | 1 |"
    assert section({"k": ("x", "y")}) == "| setting | value |\n| --- | --- |\n| `k` | `x, y` |"
