import pytest

from search.errors import LedgerError
from search.events import Asked, EpochReported, SessionOpened, Started
from search.follow import Follower
from search.ledger import Ledger, read_history


def test_every_event_is_given_once_beside_its_writer(tmp_path):
    path = tmp_path / "study.db"
    with Ledger(path) as ledger:
        follower = Follower(path)
        assert list(follower.new()) == []
        ledger.append(SessionOpened("host", 1), Asked(0, {"x": 0.5}, 7))
        first = list(follower.new())
        assert [type(happening.event) for happening in first] == [SessionOpened, Asked]
        assert [happening.sequence for happening in first] == [1, 2]
        assert list(follower.new()) == []
        ledger.append(Started(0, worker="host/2"))
        ledger.append(EpochReported(0, 1, {"v": 0.25}, "complete", usage={"memory_bytes": 5.0}))
        assert [happening.event.kind for happening in follower.new()] == ["started", "epoch_reported"]
        assert follower.last.sequence == 4
        assert follower.last.at > 1_700_000_000
    assert follower.history.trials == read_history(path).trials
    assert follower.history.trials[0, 0].epochs[0].usage == {"memory_bytes": 5.0}


def test_only_what_is_new_is_read(tmp_path):
    path = tmp_path / "study.db"
    with Ledger(path) as ledger:
        ledger.append(SessionOpened("host", 1), *(Asked(number, {}, 0) for number in range(3)))
        follower = Follower(path)
        follower.catch_up()
        ledger._database.execute("UPDATE events SET body = 'not JSON'")
        ledger.append(Started(0))
        assert [happening.event for happening in follower.new()] == [Started(0)]


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    with pytest.raises(LedgerError, match=r"study\.db: must be a readable ledger"):
        Follower(tmp_path / "study.db").catch_up()
    (tmp_path / "other.db").write_bytes(b"text, not SQLite" * 100)
    with pytest.raises(LedgerError, match="must be a readable ledger"):
        Follower(tmp_path / "other.db").catch_up()


def test_an_event_of_a_later_version_is_named_and_nothing_of_it_is_taken_in(tmp_path):
    path = tmp_path / "study.db"
    with Ledger(path) as ledger:
        ledger.append(SessionOpened("host", 1), Asked(0, {}, 0))
        ledger._database.execute("UPDATE events SET kind = 'foreseen' WHERE sequence = 2")
        follower = Follower(path)
        for _ in range(2):
            with pytest.raises(LedgerError, match="event 2 must be one that this Thawline knows"):
                follower.catch_up()
        assert follower.last.sequence == 1
