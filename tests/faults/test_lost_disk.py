"""F51: the disk of the head node is gone, and the study goes on elsewhere from its copy."""

import re
import shutil
import threading

import pytest
import soak

from search import storage_copy
from search.driver import Session
from search.errors import ConfigurationError, LedgerError
from search.ledger import read_history
from search.paths import StudyPaths
from search.storage_copy import copy_of, read_copy
from search.view.progress import View

SEED = 21


class Saying(View):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def opened(config, view=None):
    with Session(config, soak.Pretender(), view) as session:
        return session.history


def test_f51_a_study_whose_disk_is_lost_ends_as_an_uninterrupted_one(memory, monkeypatch):
    monkeypatch.setattr(soak.Driver, "pause", 0.2)
    config, paths = soak.study(memory, SEED, budget={"trials": 6, "epochs": 3}), StudyPaths(memory / "it")
    killed = soak.fork_driver(config, soak.Kill(1.5, at_work=True))
    monkeypatch.setattr(soak.Driver, "pause", 0.0)
    there = [f"{entry.kind} {entry.body}" for entry in read_copy(copy_of(paths, config.storage_copy))]
    lost = [line for line in killed.told if line not in there]
    assert sum(line.startswith("epoch_reported") for line in lost) <= 1  # of the one trial that ran
    shutil.rmtree(paths.root)
    assert soak.fork_driver(config).status == 0
    assert soak.outline(paths, config) == soak.uninterrupted(SEED, budget={"trials": 6, "epochs": 3})


@pytest.fixture
def lost(memory):
    """A finished study of which the copy is all there is."""
    config = soak.study(memory, SEED)
    assert soak.fork_driver(config).status == 0
    finished = read_history(memory / "it" / "study.db").trials
    shutil.rmtree(memory / "it")
    return config, finished


def test_f51_a_study_that_comes_back_says_so_in_one_line(lost):
    config, finished = lost
    view = Saying()
    assert opened(config, view).trials == finished
    [said] = view.said
    assert re.search(r"/it is empty: the study, \d+ events, comes back from its copy in ", said)
    assert said.endswith(f"{config.storage_copy}/it")


def test_f51_a_study_is_not_begun_anew_while_its_copy_is_out_of_reach(lost, monkeypatch):
    config, _ = lost

    def unreachable(place):
        raise OSError(5, "the network is down")

    monkeypatch.setattr("search.opening.read_copy", unreachable)
    with pytest.raises(
        ConfigurationError, match=r"storage_copy: .*/copy/it must be within reach, but .*network is down"
    ):
        opened(config)
    assert not (config.storage / "it").exists()


def test_f51_a_study_that_is_here_goes_on_though_its_copy_is_out_of_reach(lost, monkeypatch):
    config, _ = lost
    opened(config)
    view, reachable = Saying(), threading.Event()
    real = storage_copy.read_copy

    def read(*asked):
        if not reachable.is_set():
            raise OSError(5, "the network is down")
        return real(*asked)

    monkeypatch.setattr("search.opening.read_copy", read)
    monkeypatch.setattr(storage_copy, "read_copy", read)
    with Session(config, soak.Pretender(), view) as session:
        session.note("winner", {"number": 1})
        reachable.set()
    assert "the study goes on without it for now" in view.said[0]
    assert real(copy_of(StudyPaths(config.storage / "it"), config.storage_copy))[-1].kind == "noted"


def test_f51_what_a_disk_from_an_older_backup_lacks_comes_back_from_the_copy(lost, memory):
    config, _ = lost
    opened(config)
    shutil.copytree(memory / "it", memory / "backup")
    with Session(config, soak.Pretender()) as session:
        session.note("winner", {"number": 1})
    shutil.rmtree(memory / "it")
    (memory / "backup").rename(memory / "it")
    assert opened(config).note("winner") == {"number": 1}


def test_f51_a_disk_that_both_records_are_damaged_on_needs_a_word_of_the_user(lost, memory):
    config, finished = lost
    opened(config)
    (memory / "it" / "study.db").write_bytes(b"")
    (memory / "it" / "study.events.jsonl").write_bytes(b"[1,")
    with pytest.raises(LedgerError, match="--accept-loss"):
        opened(config)
    with Session(config, soak.Pretender(), accept_loss=True) as session:
        assert session.history.trials == finished


def test_f51_trials_that_the_ledger_does_not_know_are_a_sign_of_loss(memory):
    config = soak.study(memory, SEED, storage_copy=None)
    opened(config)
    paths = StudyPaths(memory / "it")
    for name in ("3", "3.1", "notes"):
        (paths.trials / name).mkdir(parents=True)
    with pytest.raises(LedgerError, match=r"must know every trial that has a folder, but does not know 3, 3.1: events"):
        opened(config)
    with Session(config, soak.Pretender(), accept_loss=True):
        pass
    assert sorted(path.name.partition("-lost-")[0] for path in paths.trials.iterdir()) == ["3", "3.1", "notes"]
    opened(config)
