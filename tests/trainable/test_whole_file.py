import ast
import re
from contextlib import suppress
from pathlib import Path

import pytest

import trainable
from trainable.errors import InputError
from trainable.whole_file import read_csv, remove_unfinished, sha256, whole_file, whole_folder, write_csv


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


def test_a_folder_appears_whole_and_takes_the_place_of_an_earlier_one(tmp_path):
    for text in ("first", "second"):
        with whole_folder(tmp_path / "it") as temporary:
            (temporary / text).write_text(text)
            assert (tmp_path / "it").exists() == (text == "second")
    assert [path.name for path in (tmp_path / "it").iterdir()] == ["second"]
    with suppress(RuntimeError), whole_folder(tmp_path / "it") as temporary:
        (temporary / "third").write_text("half")
        raise RuntimeError("disk")
    assert [path.name for path in (tmp_path / "it").iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_a_temporary_file_has_the_ending_of_the_final_one_and_fits_into_a_name(tmp_path):
    for name in ("model.keras", "x" * 251 + ".csv", "ü" * 120, "a." + "b" * 250):
        with whole_file(tmp_path / name) as temporary:
            temporary.write_text("")
            assert temporary.suffix == Path(name).suffix[:16] or temporary.suffix == ".tmp"
        assert (tmp_path / name).exists()


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    kept = [".hidden", ".notes.tmp", "a.tmp", ".it.0123.tmp", ".split.csv"]
    for name in kept:
        (tmp_path / name).touch()
    for name in ("it.npy", "model.keras", "split.csv", "000003"):
        stem, _, ending = name.partition(".")
        (tmp_path / f".{stem}.{'0123456789abcdef' * 2}.tmp{'.' if ending else ''}{ending}").touch()
    (tmp_path / f".000004.{'f' * 32}.tmp").mkdir()
    remove_unfinished(tmp_path, "split.")
    assert len(list(tmp_path.iterdir())) == len(kept) + 4
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    remove_unfinished(tmp_path / "absent")


def test_the_sha256_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def _writes(node):
    """Whether a call writes to disk: flushes, renames, or opens a file to be written."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    literals = [each.value for each in node.args if isinstance(each, ast.Constant)]
    opens = name == "open" and any(re.fullmatch("[rwaxbt+]*[wax+][bt+]*", str(mode)) for mode in literals)
    owner = node.func.value.id if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) else ""
    return opens or name in ("write_bytes", "write_text", "fsync", "rename") or (owner, name) == ("os", "replace")


def _is_whole(block):
    calls = [item.context_expr for item in block.items if isinstance(item.context_expr, ast.Call)]
    return bool({ast.unparse(call.func) for call in calls} & {"whole_file", "whole_folder"})


@pytest.mark.parametrize("path", sorted(Path(trainable.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_f23_every_write_goes_through_one_module(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [block for block in ast.walk(tree) if isinstance(block, ast.With) and _is_whole(block)]
    whole = {id(inside) for block in blocks for inside in ast.walk(block)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in whole]
    writes = [ast.unparse(call) for call in calls if _writes(call) and ast.unparse(call.func) != "write_text"]
    assert path.stem == "whole_file" or writes == []
