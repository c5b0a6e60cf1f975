import pytest

from analysis.parts import read_parts

HEADER = "file,sha256,class,group,part\n"


def written(tmp_path, *lines):
    path = tmp_path / "split.csv"
    path.write_text(HEADER + "\n".join(lines), encoding="utf-8")
    return path


def test_images_and_groups_are_counted_by_part_in_the_order_of_their_use(tmp_path):
    parts = read_parts(
        written(tmp_path, "a,1,ill,g,test", "b,2,ill,h,train", "c,3,NA,h,train", "d,4,ill,i,train", "e,5,NA,7,test")
    )
    assert parts.images == {"train": {"NA": 1, "ill": 2}, "test": {"NA": 1, "ill": 1}}
    assert parts.groups == {"train": 2, "test": 2}
    assert (parts.torn_groups, parts.repeated_files) == ([], [])


def test_a_torn_group_and_a_copy_in_another_part_are_leaks(tmp_path):
    parts = read_parts(
        written(tmp_path, "a,1,ill,007,train", "b,2,ill,007,test", "c,3,ill,h,train", "d,3,ill,i,validation")
    )
    assert parts.torn_groups == ["007"]
    assert parts.repeated_files == ["c", "d"]


def test_names_are_those_of_the_images_without_what_a_spreadsheet_needs(tmp_path):
    parts = read_parts(written(tmp_path, "'-a/1.png,1,'-a,'=g,train", "'-a/2.png,2,'-a,'=g,test"))
    assert parts.images == {"train": {"-a": 1}, "test": {"-a": 1}}
    assert parts.torn_groups == ["=g"]


def test_copies_within_a_part_are_no_leak(tmp_path):
    assert read_parts(written(tmp_path, "a,1,ill,g,train", "b,1,ill,h,train")).repeated_files == []


def test_a_file_that_is_no_split_is_named(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("file,part\na,train\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"split\.csv: must have the columns of a split, but lacks \['sha256'"):
        read_parts(path)
    with pytest.raises(OSError, match="gone"):
        read_parts(tmp_path / "gone.csv")
