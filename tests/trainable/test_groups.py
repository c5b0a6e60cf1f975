import csv
from dataclasses import replace

import pytest

from trainable.errors import InputError
from trainable.groups import assign_groups
from trainable.inspection import ImageFile, Inspection, UnreadableFile
from trainable.settings import DataSettings, GroupPattern


def image(file):
    return ImageFile(file, file.split("/")[0], f"sha-{file}", 64, 64, "L", "PNG", 0)


def inspection_of(files, **values):
    found = Inspection(
        tuple(sorted({f.split("/")[0] for f in files})), tuple(map(image, sorted(files))), (), (), (), ()
    )
    return replace(found, **values)


FILES = [f"{name}/p{patient}_{index}.png" for name in ("ill", "well") for patient in range(4) for index in range(2)]


def settings(tmp_path, **values):
    return DataSettings(path=tmp_path, **values)


def write_table(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def test_without_groups_every_image_stands_alone(tmp_path):
    groups = assign_groups(inspection_of(FILES), settings(tmp_path, groups="none"))
    assert groups == {file: file for file in FILES}


def test_near_duplicates_group_under_their_first_file(tmp_path):
    inspection = inspection_of(FILES, near_duplicates=(("ill/p0_0.png", "ill/p3_1.png"),))
    groups = assign_groups(inspection, settings(tmp_path))
    assert groups["ill/p3_1.png"] == groups["ill/p0_0.png"] == "ill/p0_0.png"
    assert len(set(groups.values())) == len(FILES) - 1


def test_a_pattern_reads_groups_out_of_class_and_file(tmp_path):
    groups = assign_groups(inspection_of(FILES), settings(tmp_path, groups=GroupPattern(pattern=r"(\w+/p\d)_")))
    assert groups["ill/p2_1.png"] == "ill/p2"
    assert len(set(groups.values())) == 8


def test_a_pattern_that_misses_files_counts_them(tmp_path):
    with pytest.raises(InputError, match=r"none in 12 of 16: `ill/p0_0.png`, `ill/p0_1.png`, .* and 9 more"):
        assign_groups(inspection_of(FILES), settings(tmp_path, groups=GroupPattern(pattern="(p3)")))


@pytest.mark.parametrize("header", [("file", "group"), ("patient", "file"), ("file", "group", "age")])
def test_a_table_names_groups_as_text(tmp_path, header):
    values = {"group": "007", "patient": "007", "age": "60"}
    table = write_table(tmp_path / "g.csv", header, [[values.get(name, file) for name in header] for file in FILES])
    assert assign_groups(inspection_of(FILES), settings(tmp_path, groups=table)) == dict.fromkeys(FILES, "007")


def test_a_table_without_a_clear_group_column_is_refused(tmp_path):
    for header, rows in [
        (("file", "age", "sex"), [("a", "1", "f")]),
        (("name", "group"), [("a", "1")]),
        (("file",), []),
    ]:
        table = write_table(tmp_path / "g.csv", header, rows)
        with pytest.raises(InputError, match="must have the columns `file` and `group`"):
            assign_groups(inspection_of(FILES), settings(tmp_path, groups=table))


def test_everything_wrong_with_a_table_is_told_at_once(tmp_path):
    rows = [(file, "g") for file in FILES[4:]] + [
        (FILES[3], ""),
        (FILES[4], "h"),
        ("ill/ghost.png", "g"),
        ("ill/bad", "g"),
    ]
    table = write_table(tmp_path / "g.csv", ("file", "group"), rows)
    inspection = inspection_of(FILES, unreadable=(UnreadableFile("ill/bad", "empty"),))
    with pytest.raises(InputError) as caught:
        assign_groups(inspection, settings(tmp_path, groups=table))
    missing, unknown, empty, several = caught.value.problems
    assert "3 have none (`file` as in `ill/p0_0.png`): `ill/p0_0.png`" in missing
    assert "1 are not: `ill/ghost.png`" in unknown
    assert "`ill/p1_1.png`" in empty
    assert "`ill/p2_0.png`" in several


@pytest.mark.parametrize("source", ["none", "near_duplicates", "pattern", "table"])
def test_exact_duplicates_share_a_group_whatever_the_source(tmp_path, source):
    table = write_table(tmp_path / "g.csv", ("file", "group"), [(file, file) for file in FILES])
    groups = {"pattern": GroupPattern(pattern="(.*)"), "table": table}.get(source, source)
    inspection = inspection_of(FILES, exact_duplicates=(("ill/p1_0.png", "well/p2_0.png"),))
    found = assign_groups(inspection, settings(tmp_path, groups=groups))
    assert found["ill/p1_0.png"] == found["well/p2_0.png"]
    assert len(set(found.values())) == len(FILES) - 1


def test_a_duplicate_joins_the_whole_groups_of_both_files(tmp_path):
    inspection = inspection_of(FILES, exact_duplicates=(("ill/p1_0.png", "well/p2_0.png"),))
    found = assign_groups(inspection, settings(tmp_path, groups=GroupPattern(pattern=r"(\w+/p\d)_")))
    assert {file for file, group in found.items() if group == "ill/p1"} == {
        "ill/p1_0.png",
        "ill/p1_1.png",
        "well/p2_0.png",
        "well/p2_1.png",
    }
