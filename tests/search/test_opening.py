import os

import pytest

from search.errors import ConfigurationError
from search.opening import only_driver
from search.paths import StudyPaths


@pytest.fixture
def paths(tmp_path):
    return StudyPaths(tmp_path / "it")


def names(paths):
    return sorted(path.name for path in paths.root.iterdir())


def test_what_killed_drivers_left_half_written_is_removed_and_nothing_else(paths):
    paths.root.mkdir()
    for name in (".study.yaml.0123.tmp", ".study.db.tmp", ".study.db.tmp-journal", ".hidden", "study.yaml"):
        (paths.root / name).touch()
    with only_driver(paths):
        assert names(paths) == [".hidden", "study.lock", "study.yaml"]
    assert names(paths) == [".hidden", "study.yaml"]


def test_a_study_that_is_refused_leaves_no_folder(paths):
    with pytest.raises(RuntimeError, match="refused"), only_driver(paths):
        raise RuntimeError("refused")
    assert not paths.root.exists()


def test_an_error_inside_is_not_taken_for_one_of_the_folder(paths):
    with pytest.raises(OSError, match="inside"), only_driver(paths):
        raise OSError(5, "inside")


def test_a_folder_that_cannot_be_written_is_refused(paths, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(ConfigurationError) as caught, only_driver(paths):
        pass
    assert caught.value.problems == [
        f"storage: the run folder {paths.root} must be writable, but Read-only file system"
    ]
    assert not paths.root.exists()
