import csv
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from trainable.errors import InputError
from trainable.inspection import ImageFile, Inspection
from trainable.settings import DataSettings, GroupPattern, SplitShares
from trainable.split import (
    SplitRow,
    data_fingerprint,
    make_split,
    plan_split,
    read_split,
    split_summary,
    write_split,
)


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


def study(random, groups=60, largest=8, classes=("a", "b", "c")):
    """Images and groups of random sizes; some groups have images of two classes."""
    images, group_of = [], {}
    shares = np.array([6, 3, 1][: len(classes)]) / sum([6, 3, 1][: len(classes)])
    for group in range(groups):
        own = random.choice(classes, size=random.integers(1, 3), p=shares)
        for index in range(random.integers(1, largest + 1)):
            file = f"{random.choice(own)}/g{group}_{index}.png"
            images.append(image(file))
            group_of[file] = f"group {group}"
    return images, group_of


def parts_by_group(rows):
    parts = defaultdict(set)
    for row in rows:
        parts[row.group].add(row.part)
    return parts


# --- planned splits -----------------------------------------------------------------------------------------------


def test_a_group_is_never_torn_apart():
    for seed in range(30):
        images, groups = study(np.random.default_rng(seed), classes=("a", "b"))
        rows = plan_split(images, groups, SplitShares(), seed)
        assert all(len(parts) == 1 for parts in parts_by_group(rows).values())
        assert sorted(row.file for row in rows) == sorted(groups)


def test_every_class_with_three_groups_is_in_every_part_and_one_with_fewer_is_a_problem():
    refused = 0
    for seed in range(60):
        images, groups = study(np.random.default_rng(seed), groups=25)
        spread = {name: len({groups[each.file] for each in images if each.class_name == name}) for name in "abc"}
        if 0 < min(spread.values()) < 3:
            refused += 1
            with pytest.raises(InputError, match=f"`{min(spread, key=spread.get)}`, in {min(spread.values())} groups"):
                plan_split(images, groups, SplitShares(), seed)
        else:
            rows = plan_split(images, groups, SplitShares(), seed)
            wanted = {(part, name) for part in ("train", "validation", "test") for name in spread if spread[name]}
            assert {(row.part, row.class_name) for row in rows} == wanted
    assert 5 < refused < 55


def test_single_images_meet_the_shares_to_the_image():
    files = [f"a/{index}" for index in range(200)] + [f"b/{index}" for index in range(40)]
    summary = split_summary(
        plan_split([image(file) for file in files], {file: file for file in files}, SplitShares(), 0)
    )
    assert {part: values["classes"] for part, values in summary.items()} == {
        "train": {"a": 140, "b": 28},
        "validation": {"a": 30, "b": 6},
        "test": {"a": 30, "b": 6},
    }


def test_groups_of_a_study_meet_the_shares_by_class_within_two_points():
    for seed in range(10):
        images, groups = study(np.random.default_rng(200 + seed), groups=300)
        rows = plan_split(images, groups, SplitShares(train=0.6, validation=0.2, test=0.2), seed)
        totals, train = (
            Counter(row.class_name for row in rows),
            Counter(r.class_name for r in rows if r.part == "train"),
        )
        assert all(abs(train[name] / totals[name] - 0.6) < 0.02 for name in totals)


def test_large_groups_are_not_all_trained_on():
    files = [
        f"{name}/{group}_{index}" for name in "ab" for group in range(60) for index in range(6 if group < 20 else 1)
    ]
    groups = {file: file.split("_")[0] for file in files}
    rows = plan_split([image(file) for file in files], groups, SplitShares(), 0)
    sizes = Counter(groups.values())
    large = Counter(next(iter(parts)) for group, parts in parts_by_group(rows).items() if sizes[group] == 6)
    assert large == {"train": 28, "validation": 6, "test": 6}


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    images, groups = study(np.random.default_rng(7))
    rows = plan_split(images, groups, SplitShares(), 3)
    assert rows == plan_split(images[::-1], dict(reversed(groups.items())), SplitShares(), 3)
    assert rows != plan_split(images, groups, SplitShares(), 4)


def test_a_part_without_a_share_stays_empty():
    images, groups = study(np.random.default_rng(8))
    rows = plan_split(images, groups, SplitShares(train=0.8, validation=0.2, test=0), 0)
    assert {row.part for row in rows} == {"train", "validation"}


def test_few_groups_of_a_class_are_spread_over_all_parts():
    files = [f"a/{group}_{index}" for group in range(3) for index in range(4)] + [f"b/{index}" for index in range(50)]
    groups = {file: file.split("_")[0] for file in files}
    summary = split_summary(plan_split([image(file) for file in files], groups, SplitShares(), 0))
    assert [values["classes"]["a"] for values in summary.values()] == [4, 4, 4]


def test_too_few_groups_of_a_class_are_a_problem_that_names_it():
    files = [f"a/{index}" for index in range(10)] + [f"b/{group}_{index}" for group in range(2) for index in range(5)]
    groups = {file: file.split("_")[0] for file in files}
    with pytest.raises(InputError, match=r"`b`, in 2 groups, is missing in (test|validation); no split into 3 parts"):
        plan_split([image(file) for file in files], groups, SplitShares(), 0)


# --- given splits -------------------------------------------------------------------------------------------------


def given(tmp_path, part_of):
    table = write_table(tmp_path / "split.csv", ("file", "part"), part_of.items())
    return settings(tmp_path, split_file=table, groups=GroupPattern(pattern=r"(\w+/p\d)_"))


PART_OF = {file: {"p0": "test", "p1": "validation"}.get(file.split("/")[1][:2], "train") for file in FILES}


def test_a_given_split_is_used_as_it_is(tmp_path):
    rows = make_split(inspection_of(FILES), given(tmp_path, PART_OF), seed=0)
    assert {row.file: row.part for row in rows} == PART_OF
    assert rows[0] == SplitRow("ill/p0_0.png", "sha-ill/p0_0.png", "ill", "ill/p0", "test")


def test_a_given_split_may_have_no_test_part(tmp_path):
    part_of = {file: "train" if part == "test" else part for file, part in PART_OF.items()}
    assert {row.part for row in make_split(inspection_of(FILES), given(tmp_path, part_of), 0)} == {
        "train",
        "validation",
    }


def test_a_given_split_that_tears_a_group_is_a_problem_that_names_it(tmp_path):
    with pytest.raises(
        InputError, match=r"`well/p0` is in several: `well/p0_0.png \(test\)`, `well/p0_1.png \(train\)`"
    ):
        make_split(inspection_of(FILES), given(tmp_path, PART_OF | {"well/p0_1.png": "train"}), 0)


def test_a_given_split_that_parts_look_alikes_is_refused_with_how_to_take_it_as_it_is(tmp_path):
    settings = given(tmp_path, PART_OF).model_copy(update={"groups": "near_duplicates"})
    inspection = replace(inspection_of(FILES), near_duplicates=(("well/p0_0.png", "ill/p0_0.png"),))
    given(tmp_path, PART_OF | {"well/p0_0.png": "train"})
    with pytest.raises(InputError, match=r"is in several: .*looks alike here: with `data.groups: none` only equal"):
        make_split(inspection, settings, 0)
    assert len(make_split(inspection, settings.model_copy(update={"groups": "none"}), 0)) == len(FILES)


def test_unknown_parts_and_missing_files_of_a_given_split_are_problems(tmp_path):
    with pytest.raises(InputError, match="must be one of train, validation, test, but got `val`"):
        make_split(inspection_of(FILES), given(tmp_path, PART_OF | {"well/p0_1.png": "val"}), 0)
    with pytest.raises(InputError, match="2 have none"):
        make_split(inspection_of(FILES), given(tmp_path, dict(list(PART_OF.items())[2:])), 0)


def test_a_given_part_that_lacks_a_class_is_a_problem(tmp_path):
    part_of = {file: "train" if file.startswith("well/p1") else part for file, part in PART_OF.items()}
    with pytest.raises(InputError, match="`well`, in 4 groups, is missing in validation"):
        make_split(inspection_of(FILES), given(tmp_path, part_of), 0)


# --- the one door, and the file -----------------------------------------------------------------------------------


def test_problems_of_images_and_groups_are_told_together(tmp_path):
    with pytest.raises(InputError) as caught:
        make_split(
            inspection_of(FILES),
            settings(tmp_path, positive_class="sick", groups=GroupPattern(pattern="patient(.)")),
            seed=0,
        )
    assert [problem.split()[0] for problem in caught.value.problems] == ["`positive_class`", "the"]


def test_a_split_without_problems_is_planned_by_the_shares(tmp_path):
    rows = make_split(inspection_of(FILES), settings(tmp_path, groups="none"), seed=1)
    assert rows == plan_split([image(f) for f in FILES], dict(zip(FILES, FILES, strict=True)), SplitShares(), 1)


def test_a_written_split_is_read_back_exactly(tmp_path):
    names = ["=1+1.png", "+x", "-x", "@x", "two\nlines", "a\r\nb", 'quo"te', "com,ma", " space ", "NA", "ü€"]
    rows = [SplitRow(f"a/{name}", "0" * 64, "a", name, "test") for name in names]
    write_split(tmp_path / "split.csv", rows)
    assert read_split(tmp_path / "split.csv") == tuple(rows)
    assert (tmp_path / "split.csv").read_text(encoding="utf-8").splitlines()[0] == "file,sha256,class,group,part"


def test_what_is_no_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="columns file, sha256, class, group, part"):
        read_split(write_table(tmp_path / "a.csv", ("file", "part"), [("a", "train")]))
    with pytest.raises(InputError, match="but got `dev`"):
        read_split(
            write_table(tmp_path / "b.csv", ("file", "sha256", "class", "group", "part"), [("a",) * 4 + ("dev",)])
        )


def test_a_summary_counts_images_groups_and_classes():
    rows = [SplitRow(f"a/{i}", "", "a", "g", "train") for i in range(3)] + [SplitRow("b/0", "", "b", "h", "train")]
    assert split_summary(rows) == {
        "train": {"images": 4, "groups": 2, "classes": {"a": 3, "b": 1}},
        "validation": {"images": 0, "groups": 0, "classes": {}},
        "test": {"images": 0, "groups": 0, "classes": {}},
    }


def test_the_fingerprint_changes_with_what_decides_the_arrays_and_not_with_the_rest(tmp_path):
    rows = [SplitRow("a/0", "s", "a", "g", "train"), SplitRow("a/1", "t", "a", "g", "test")]
    print_ = data_fingerprint(rows, settings(tmp_path))
    assert len(print_) == 64
    assert print_ == data_fingerprint(rows[::-1], settings(tmp_path / "elsewhere", max_unreadable_share=1))
    others = [
        data_fingerprint(rows, settings(tmp_path, image_size=65)),
        data_fingerprint(rows, settings(tmp_path, colour="rgb")),
        *(
            data_fingerprint([replace(rows[0], **{field: "test"}), rows[1]], settings(tmp_path))
            for field in vars(rows[0])
        ),
    ]
    assert len({print_, *others}) == 8
