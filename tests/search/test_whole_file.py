import threading

import pytest

from search.whole_file import whole_file, write_whole


@pytest.mark.parametrize(("content", "expected"), [("ü\r\n", "ü\r\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")])
def test_text_and_bytes_arrive_unchanged(tmp_path, content, expected):
    write_whole(tmp_path / "it", content)
    assert (tmp_path / "it").read_bytes() == expected


@pytest.mark.parametrize("broken", ["os.fsync", "os.replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "it"
    write_whole(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broken, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path):
    write_whole(tmp_path / ("x" * 255), "it")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "it"
    texts = [letter * 200_000 for letter in "ab"]
    write_whole(path, texts[0])
    seen = set()
    done = threading.Event()

    def read():
        while not (seen and done.is_set()):
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(50):
        write_whole(path, texts[turn % 2])
    done.set()
    reader.join()
    assert seen <= set(texts)


def test_a_file_whose_writing_fails_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(TypeError), whole_file(path) as stream:
        stream.writelines([b"half", "no bytes"])
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"before", [path])
    with whole_file(path) as stream:
        stream.write(b"after")
    assert path.read_bytes() == b"after"
