import math

import pytest

from analysis.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (True, "True"),
        ("adam", "adam"),
        (0, "0"),
        (1234567, "1234567"),
        (2.0, "2"),
        (0.25, "0.25"),
        (0.0010917, "0.001092"),
        (0.00015199783, "1.52e-4"),
        (1e-05, "1e-5"),
        (-3.2e-12, "-3.2e-12"),
    ],
)
def test_a_number_has_four_digits_and_small_ones_a_power_of_ten(value, text):
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.87083, "0.871"), (0.0042, "0.0042"), (1234.5, "1.23e+03"), (0.0, "0.000"), (None, "–")]
)
def test_a_score_has_three_decimals_where_they_say_anything(value, text):
    assert wording.score(value) == text


@pytest.mark.parametrize(("error", "text"), [(0.0183, "0.871 ± 0.018"), (math.nan, "0.871"), (None, "0.871")])
def test_an_error_that_is_not_known_is_not_said(error, text):
    assert wording.plus_minus(0.8708, error) == text


def test_an_interval_that_is_not_known_is_not_said():
    assert wording.interval(0.85, 0.79, 0.9) == "0.850 [0.790, 0.900]"
    assert wording.interval(0.85, math.nan, math.nan) == "0.850"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (3.24, "3.2 s"), (45.4, "45 s"), (59.7, "1 min"), (626, "10 min 26 s"), (11520, "3 h 12 min")],
)
def test_durations_are_said_in_the_units_that_fit(seconds, text):
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "noun", "text"), [(1, "trial", "1 trial"), (0, "class", "0 classes"), (2, "study", "2 studies")]
)
def test_nouns_follow_their_number(amount, noun, text):
    assert wording.count(amount, noun) == text


def test_lists_are_read_aloud():
    assert wording.listed([]) == ""
    assert wording.listed([1]) == "1"
    assert wording.listed([1, 2, 3], "or") == "1, 2 or 3"
    assert wording.several(range(4)) == "0, 1, 2 and 3"
    assert wording.several(range(9)) == "0, 1, 2 and 6 more"


@pytest.mark.parametrize(("value", "text"), [(0.42, "42 %"), (0.0011, "0.11 %"), (0, "0 %"), (math.nan, "–")])
def test_shares_are_percentages(value, text):
    assert wording.share(value) == text


def test_a_configuration_is_a_sentence():
    point = {"learning_rate": 1.5e-4, "batch_size": 16, "freeze_depth": 3}
    assert wording.recipe(point) == "learning rate 1.5e-4, batch size 16 and freeze depth 3"
    assert [wording.words(name) for name in ("auc", "balanced_accuracy")] == ["AUC", "balanced accuracy"]
