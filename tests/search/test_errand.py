"""How the result of an errand arrives; errands themselves are in tests/test_final_on_cluster.py."""

import pytest

from search.errand import _take


@pytest.fixture
def result(tmp_path):
    """A folder with an earlier result."""
    folder = tmp_path / "final"
    folder.mkdir()
    for name in ("model.keras", "model.json"):
        (folder / name).write_text("earlier")
    return folder


def test_a_result_that_did_not_arrive_leaves_the_earlier_one_as_it_was(tmp_path, result):
    with pytest.raises(FileNotFoundError):
        _take(tmp_path / "nothing", result, "model.json")
    assert (result / "model.json").read_text() == (result / "model.keras").read_text() == "earlier"


def test_the_mark_arrives_last(tmp_path, result, monkeypatch):
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for name in ("a.csv", "model.json", "z.npy"):
        (arrived / name).write_text("new")
    monkeypatch.setattr("pathlib.Path.replace", broken_at := Breaking("z.npy"))
    with pytest.raises(OSError, match="no room"):
        _take(arrived, result, "model.json")
    assert broken_at.moved == ["a.csv"]
    assert not (result / "model.json").exists()
    monkeypatch.undo()
    _take(arrived, result, "model.json")
    assert (result / "model.json").read_text() == "new"


class Breaking:
    """Moves no file from a certain one on."""

    def __init__(self, name):
        self.name, self.moved = name, []

    def __get__(self, path, owner=None):
        def replace(target):
            if path.name == self.name:
                raise OSError("no room")
            self.moved.append(path.name)
            return path.rename(target)

        return replace
