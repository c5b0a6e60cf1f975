import pytest

from search.entries import Entry, from_line, to_line, unbroken, united
from search.errors import LedgerError
from search.journal import Journal, Pages, last_sequence, parse, read_journal, write_journal


def entry(sequence, body="{}"):
    return Entry(sequence, 1.8e9 + sequence / 7, sequence / 3, "asked", body)


ENTRIES = [entry(1), entry(2, '{"text": "ünique\\n"}'), entry(3)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.events.jsonl"


def test_an_entry_reads_back_bit_equal_from_its_line():
    assert [from_line(to_line(each)) for each in ENTRIES] == ENTRIES


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b"[1]", b"null", b"\xff", b'["a", 1, 1, "k", "{}", 1]', b"[1e999,1,1,1,1,1]"]
)
def test_a_line_that_holds_no_entry_is_none(line):
    assert from_line(line) is None


def test_every_changed_byte_of_a_line_is_noticed_or_means_nothing():
    line = to_line(ENTRIES[1])
    for position in range(len(line) - 1):
        changed = from_line(line[:position] + bytes([line[position] ^ 1]) + line[position + 1 :])
        assert changed in (None, ENTRIES[1]), position


def test_what_was_appended_is_found(path):
    with Journal(path) as journal:
        journal.append(ENTRIES[:1])
        journal.append(ENTRIES[1:])
        assert journal.length == path.stat().st_size
    assert read_journal(path) == Pages(ENTRIES)
    assert last_sequence(path) == 3


def test_what_was_taken_back_is_gone_and_the_next_takes_its_place(path):
    with Journal(path) as journal:
        journal.append(ENTRIES[:1])
        length = journal.length
        journal.append([entry(2, '{"a": 1}')])
        journal.cut(length)
        journal.append(ENTRIES[1:2])
    assert read_journal(path).entries == ENTRIES[:2]


def test_a_missing_journal_is_an_empty_one(path):
    assert (read_journal(path), last_sequence(path)) == (Pages(), 0)
    write_journal(path, [])
    assert (read_journal(path), last_sequence(path)) == (Pages([]), 0)


@pytest.mark.parametrize(
    ("content", "found", "clean", "torn"),
    [
        (b"".join(map(to_line, ENTRIES))[:-1], 3, False, True),
        (b"".join(map(to_line, ENTRIES))[:-5], 2, False, True),
        (b"x" + b"".join(map(to_line, ENTRIES)), 2, False, False),
        (to_line(ENTRIES[0]) + b"\n" + to_line(ENTRIES[1]), 2, False, False),
    ],
)
def test_what_is_not_whole_is_told_apart(path, content, found, clean, torn):
    pages = parse(content)
    assert (len(pages.entries), pages.clean, pages.torn) == (found, clean, torn)
    path.write_bytes(content)
    assert last_sequence(path) == (3 if content.endswith(to_line(ENTRIES[2])) else 2 if content[-1:] == b"\n" else None)


def test_the_newest_number_is_found_behind_a_long_entry(path):
    write_journal(path, [entry(1), entry(2, "x" * 200_000)])
    assert last_sequence(path) is None  # so the whole file is read
    assert len(read_journal(path).entries) == 2


def test_records_are_united_by_number():
    assert united({"a": ENTRIES[:2], "b": ENTRIES[1:]}) == ENTRIES
    assert united({}) == []
    with pytest.raises(LedgerError, match="event 2 must be the same in every record of a study, but a and b differ"):
        united({"a": ENTRIES, "b": [entry(2)]})


def test_what_follows_a_gap_does_not_count():
    assert unbroken([entry(1), entry(2), entry(4)]) == [entry(1), entry(2)]
    assert unbroken([entry(2)]) == unbroken([]) == []
