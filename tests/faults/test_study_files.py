"""Study files that are hostile: refused as a whole, in no time, with one sentence that says where."""

import os
import sys
import time

import pytest

from search import cli
from search.config import StudyConfig
from search.errors import ConfigurationError
from search.problems import MOST_PROBLEMS
from search.safe_yaml import MAX_BYTES
from trainable import ImageTrainable

LONG = "0x" + "f" * 5000


def written(tmp_path, text):
    path = tmp_path / "it.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key 'a' stands here a second time"),
        ("budget:\n  trials: 1\n  trials: 2\n", "the key 'trials' stands here a second time"),
        ("a: &x [1]\nb: *x\n", "anchors and aliases are not allowed"),
        ("a: &x 1\n", "anchors and aliases are not allowed"),
        ("a: *x\n", "anchors and aliases are not allowed"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", "anchors and aliases are not allowed"),
        ("a: {<<: {b: 1}}\n", "could not determine a constructor"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: !!python/object:pathlib.Path {}\n", "could not determine a constructor"),
        ("a: !!python/name:os.system\n", "could not determine a constructor"),
        ("a: !mine 1\n", "could not determine a constructor"),
        ("a: [1\n", "must be YAML, but"),
        ("a: \x07\n", "must be YAML, but"),
        ("a: " + "[" * 1000, "must be YAML, but"),
        ("a: " + "{a: " * 1000, "must be YAML, but"),
        ("a: 2026-13-01\n", "month must be in 1..12"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        (f"a: {LONG}", "a whole number must fit into 64 bits"),
        ("? [1]\n: 2\n", "unhashable key"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("- 1\n", "but got list"),
        ("", "but got NoneType"),
    ],
)
def test_f49_a_file_that_is_not_plain_yaml_is_refused_by_name(tmp_path, text, reason):
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        StudyConfig.load(path)
    [problem] = caught.value.problems
    assert "\n  File" not in problem


def test_f49_a_file_may_have_a_megabyte_and_not_a_byte_more(tmp_path):
    path = written(tmp_path, "seed: 3\n#")
    path.write_text(path.read_text() + "x" * (MAX_BYTES - path.stat().st_size))
    assert StudyConfig.load(path).seed == 3
    path.write_text(path.read_text() + "x")
    with pytest.raises(ConfigurationError, match="must be at most 1,000,000 bytes, but has 1,000,001"):
        StudyConfig.load(path)


def test_f49_many_keys_are_refused_in_seconds_and_not_all_of_them_told(tmp_path):
    path = written(tmp_path, "".join(f"k{number}: 1\n" for number in range(20_000)))
    began = time.process_time()
    with pytest.raises(ConfigurationError) as caught:
        StudyConfig.load(path)
    assert time.process_time() - began < 15  # 2 s; with each key compared with all before it 22 s
    assert len(caught.value.problems) == MOST_PROBLEMS + 1
    assert caught.value.problems[0].startswith("k0: unknown key; known: name, seed")
    assert caught.value.problems[-1] == "and 19900 more problems"


def test_f49_what_came_is_shown_but_not_a_megabyte_of_it(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        StudyConfig.load(written(tmp_path, f"seed: {'x' * 100_000}\nspace: [{'1, ' * 10_000}]\n"))
    assert [len(problem) < 400 for problem in caught.value.problems] == [True, True]


@pytest.mark.parametrize("text", ["1e400", "-1e400", ".inf", ".nan", "1.0e+400"])
def test_f49_numbers_that_no_float_holds_are_refused(tmp_path, text):
    with pytest.raises(ConfigurationError, match=r"^budget.wall_seconds: must be a finite number"):
        StudyConfig.load(written(tmp_path, f"budget: {{wall_seconds: {text}}}"))
    with pytest.raises(ConfigurationError, match=r"^space.a.low: must be a finite number"):
        StudyConfig.load(written(tmp_path, f"space: {{a: {{type: float, low: {text}, high: 1}}}}"))


@pytest.mark.parametrize("value", ["2026-13-01", "9" * 5000, "[" * 1000, "!!python/name:os.system", "&a 1", LONG, "\0"])
def test_f49_an_override_that_is_no_plain_yaml_is_text(value):
    with pytest.raises(ConfigurationError, match=r"^seed: .* integer"):
        StudyConfig.parse({}, [f"seed={value}"])


@pytest.mark.parametrize("key", ["__class__", "training.__init__", "..", "data..path", "récord"])
def test_f49_unknown_keys_are_refused_wherever_they_stand(key):
    with pytest.raises(ConfigurationError, match="unknown key"):
        StudyConfig.of(ImageTrainable.sections).parse({"data": {"path": "x"}}, [f"{key}=1"])


@pytest.mark.timeout(60)
def test_f49_a_named_pipe_is_no_study_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigurationError, match="must be a study file, but is a named pipe"):
        StudyConfig.load(tmp_path / "pipe.yaml")


@pytest.mark.parametrize(
    "text",
    ["- a\n- b\n", "data: &a {path: x}\nmodel: *a\n", "seed: 1\nseed: 2\n", "data: [", "x: !!python/name:os.system"],
)
def test_f49_the_command_refuses_it_with_exit_code_2_and_makes_nothing(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, text)
    monkeypatch.setattr(sys, "argv", ["thawline", "search", "it.yaml"])
    assert cli._exit_code() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["it.yaml"]
