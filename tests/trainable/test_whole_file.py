import pytest

from trainable.errors import InputError
from trainable.whole_file import read_csv, whole_file, write_csv


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail_half_way():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail_half_way()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]


def test_a_finished_write_replaces_the_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "table.csv"
    for text in ("first", "second"):
        with whole_file(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent
    assert path.read_text() == "second"
    assert [each.name for each in path.parent.iterdir()] == ["table.csv"]


def test_every_text_survives_the_way_through_a_csv_file(tmp_path):
    texts = [
        "=1+1",
        "+a",
        "-b",
        "@c",
        "two\nlines",
        "a\rb",
        "a\r\nb",
        'a"b',
        "a,b",
        " a ",
        "007",
        "NA",
        "",
        "ü€😀",
        "\tt",
    ]
    write_csv(tmp_path / "t.csv", ("name", "other"), [(text, "x") for text in texts])
    assert [row["name"] for row in read_csv(tmp_path / "t.csv")] == texts


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbffile,group\r\na,1\r\n\r\n")
    assert read_csv(tmp_path / "t.csv") == [{"file": "a", "group": "1"}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"a,b\n1\n", "row 2"),
        (b"a\n\xff\n", "utf-8"),
        (b'a\n"x', "unexpected end"),
    ],
)
def test_what_is_no_csv_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_csv(path)
