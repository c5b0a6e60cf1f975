import math
from dataclasses import replace
from pathlib import Path

import pytest

from trainable.data_check import SizeRange, check_data
from trainable.inspection import ImageFile, Inspection, inspect_images
from trainable.settings import DataSettings

COVID_CT = Path(__file__).parents[3] / "shared/data/covid-ct"


def inspection_of(*images, **values):
    found = Inspection(tuple(sorted({image.class_name for image in images})), images, (), (), (), ())
    return replace(found, **values)


def image(file, mode="L", image_format="PNG", width=64):
    return ImageFile(file, file.split("/")[0], f"sha-{file}", width, 32, mode, image_format, 0)


IMAGES = [image(f"ill/{i}", width=40 + i) for i in range(10)] + [image(f"well/{i}") for i in range(20)]


def check(inspection, tmp_path, **values):
    return check_data(inspection, DataSettings(path=tmp_path, groups="none", **values), seed=0)


def test_healthy_images_are_described_and_split(tmp_path):
    found = check(inspection_of(*IMAGES), tmp_path)
    assert found.images_by_class == {"ill": 10, "well": 20}
    assert found.imbalance_ratio == 2
    assert (found.width, found.height) == (SizeRange(40, 64, 64), SizeRange(32, 32, 32))
    assert found.modes_by_class == {"ill": {"L": 10}, "well": {"L": 20}}
    assert found.formats_by_class == {"ill": {"PNG": 10}, "well": {"PNG": 20}}
    assert found.split["train"]["classes"] == {"ill": 7, "well": 14}
    assert found.straddling == found.warnings == found.problems == ()


def test_a_mode_that_gives_the_class_away_is_warned_of(tmp_path):
    telling = [image(f"ill/{i}", mode="RGB" if i < 6 else "RGBA") for i in range(20)]
    telling += [image(f"well/{i}", mode="RGBA") for i in range(20)]
    (grey,) = check(inspection_of(*telling), tmp_path).warnings
    assert "the mode of a file alone tells its class with a balanced accuracy of 65% (chance: 50%)" in grey
    assert "`colour: grey` hides it" in grey
    assert "set `colour: grey`" in check(inspection_of(*telling), tmp_path, colour="rgb").warnings[0]


def test_a_format_that_gives_the_class_away_is_warned_of(tmp_path):
    telling = [image(f"ill/{i}") for i in range(5)] + [image(f"well/{i}", image_format="JPEG") for i in range(50)]
    assert "the format of a file alone tells its class with a balanced accuracy of 100%" in str(
        check(inspection_of(*telling), tmp_path).warnings
    )


def test_the_same_mix_of_modes_in_both_classes_is_no_giveaway(tmp_path):
    mixed = [image(f"{name}/{i}", mode=("L", "RGB")[i % 2]) for name in ("ill", "well") for i in range(20)]
    assert check(inspection_of(*mixed), tmp_path).warnings == ()


def test_near_duplicates_in_several_parts_are_shown_with_their_parts(tmp_path):
    everything = tuple(each.file for each in IMAGES)
    found = check(inspection_of(*IMAGES, near_duplicates=(everything,)), tmp_path)
    assert {part for _, part in found.straddling[0]} == {"train", "validation", "test"}
    assert "1 clusters of images that look alike lie in several parts" in found.warnings[0]


def test_problems_leave_the_rest_of_the_findings_standing(tmp_path):
    found = check(inspection_of(*IMAGES), tmp_path, positive_class="sick")
    assert len(found.problems) == 1
    assert found.split == {}
    assert found.images_by_class == {"ill": 10, "well": 20}


def test_an_empty_folder_and_an_empty_class_are_described_too(tmp_path):
    nothing = check(inspection_of(), tmp_path)
    assert (nothing.width, nothing.problems[0].endswith("holds no folder")) == (None, True)
    assert math.isnan(nothing.imbalance_ratio)
    assert check(inspection_of(*IMAGES, classes=("ill", "none", "well")), tmp_path).imbalance_ratio == math.inf


@pytest.mark.skipif(not COVID_CT.is_dir(), reason="real CT slices are not here")
def test_real_slices_are_split_by_patient_in_both_classes():
    settings = DataSettings(path=COVID_CT, groups=COVID_CT / "groups.csv")
    found = check_data(inspect_images(settings), settings, seed=0)
    assert found.problems == ()
    assert found.images_by_class == {"COVID": 349, "NonCOVID": 397}
    for part, share in {"train": 0.7, "validation": 0.15, "test": 0.15}.items():
        for name, total in found.images_by_class.items():
            assert abs(found.split[part]["classes"][name] / total - share) < 0.01
