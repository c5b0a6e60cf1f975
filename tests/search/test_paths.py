from pathlib import Path

import pytest
import yaml

from search.errors import ConfigurationError
from search.paths import StudyPaths, check_name, find_run, shipped_study


@pytest.mark.parametrize("name", ["a", "ct_resnet50", "2024-05-01.v2", "x" * 100])
def test_a_plain_name_is_taken_as_it_is(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "a\n", "\na", "-rf", ".hidden", "a b", "é", "a\0", "x" * 101]
)
def test_a_name_that_could_lead_elsewhere_is_refused_and_shown(name):
    with pytest.raises(ConfigurationError) as caught:
        check_name(name)
    assert repr(name) in caught.value.problems[0]


def test_all_files_of_a_study_lie_in_its_folder_under_different_names():
    paths = StudyPaths(Path("/runs/it"))
    names = [name for name, value in vars(StudyPaths).items() if isinstance(value, property)]
    places = [getattr(paths, name) for name in names] + [paths.trial(7), paths.trial(7, 2)]
    assert len(set(places)) == len(names) + 2
    assert all(place.is_relative_to(paths.root) for place in places)


def test_a_rerun_has_a_folder_beside_its_trial():
    paths = StudyPaths(Path("it"))
    assert [str(paths.trial(*key)) for key in ((7,), (7, 0), (7, 1), (71, 2))] == [
        "it/trials/7",
        "it/trials/7",
        "it/trials/7.1",
        "it/trials/71.2",
    ]


def make_run(folder):
    folder.mkdir(parents=True)
    (folder / "study.yaml").touch()


def test_a_run_is_found_by_its_path_and_by_its_name(tmp_path):
    make_run(tmp_path / "runs" / "it")
    for run in (tmp_path / "runs" / "it", str(tmp_path / "runs" / "it"), "it"):
        assert find_run(run, tmp_path / "runs").root == (tmp_path / "runs" / "it").resolve()


def test_a_run_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    with pytest.raises(ConfigurationError, match="there are no runs under"):
        find_run("it", tmp_path)
    make_run(tmp_path / "b")
    make_run(tmp_path / "a")
    (tmp_path / "no-study").mkdir()
    with pytest.raises(ConfigurationError, match=r"known runs: a, b$"):
        find_run("it", tmp_path)


def test_study_files_come_with_the_package():
    assert yaml.safe_load(shipped_study("quickstart").read_text(encoding="utf-8"))["budget"]["trials"] > 0
