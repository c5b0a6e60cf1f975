import csv
import hashlib
import shutil

import numpy as np
import pytest

from trainable.dataset import ImageSet
from trainable.errors import InputError
from trainable.hyperparameters import Hyperparameters
from trainable.preparation import depth_problems, positive_index, prepare
from trainable.settings import DataSettings, ModelSettings
from trainable.split import read_split

RANDOM = ModelSettings(weights="random")


def largest(**values):
    return Hyperparameters(**{"freeze_depth": 5, "batch_size": 8, **values}).model_dump()


def silent(*_):
    pass


@pytest.fixture
def data(drawn, tmp_path):
    """The drawn images, copied, so that a test may change them."""
    shutil.copytree(drawn.path.parent, tmp_path / "images", dirs_exist_ok=True)
    return drawn.model_copy(
        update={"path": tmp_path / "images" / "images", "groups": tmp_path / "images" / "groups.csv"}
    )


@pytest.fixture
def run(tmp_path):
    """A run folder that exists already, as the driver makes it."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_study_that_may_start_has_its_split_and_its_arrays(data, run):
    told = []
    prepared = prepare(data, RANDOM, largest(), run, 1, lambda *progress: told.append(progress))
    rows = read_split(run / "split.csv")
    assert len(rows) == 40
    for part in ("train", "validation"):
        assert ImageSet.open(run / "arrays", part).files == tuple(row.file for row in rows if row.part == part)
    assert {what for what, *_ in told} == {"checking images", "checking weights", "decoding images"}
    assert all(0 <= done <= of for _, done, of in told)
    assert prepared.context["arrays"] == run / "arrays"
    assert prepared.context["trials"] == run / "trials"
    assert ModelSettings.model_validate(prepared.context["model"]) == RANDOM
    assert (prepared.context["positive"], prepared.context["seed"]) == (1, 1)


def test_what_is_written_down_says_what_the_study_stands_on(data, run):
    record = prepare(data, RANDOM, largest(), run, 1, silent).record
    assert record["data"]["classes"] == ["clear", "lesion"]
    assert record["data"]["positive_class"] == "lesion"
    assert len(record["data"]["fingerprint"]) == 64
    counts = record["data"]["counts"]
    assert sum(part["images"] for part in counts.values()) == 40
    assert {part: sorted(counts[part]["classes"]) for part in counts} == {
        "train": ["clear", "lesion"],
        "validation": ["clear", "lesion"],
        "test": ["clear", "lesion"],
    }
    assert record["weights_sha256"] is None


def test_a_search_never_opens_a_test_image(data, run):
    prepare(data, RANDOM, largest(), run, 1, silent)
    assert not list((run / "arrays").glob("test*"))
    for row in read_split(run / "split.csv"):
        if row.part == "test":
            (data.path / row.file).unlink()
    shutil.rmtree(run / "arrays")
    prepare(data, RANDOM, largest(), run, 1, silent)
    assert len(ImageSet.open(run / "arrays", "train")) > 0


def test_a_study_prepared_before_uses_its_split_and_arrays_again_even_without_the_images(data, run):
    first = prepare(data, RANDOM, largest(), run, 1, silent)
    before = contents(run)
    shutil.rmtree(data.path)
    data.path.mkdir()
    told = []
    # Another seed and other shares would give another split; the one that is there counts.
    other = DataSettings.model_validate(
        {**data.model_dump(), "split": {"train": 0.5, "validation": 0.25, "test": 0.25}}
    )
    again = prepare(other, RANDOM, largest(), run, 2, lambda what, *_: told.append(what))
    assert contents(run) == before
    assert again.record == first.record
    assert "checking images" not in told


def test_files_that_are_left_out_are_listed_in_the_run_and_said_once(data, run):
    (data.path / "clear" / "broken.png").write_bytes(b"no image")
    lines = data.groups.read_text(encoding="utf-8").splitlines()
    data.groups.write_text("\n".join([*lines, "clear/broken.png,z"]) + "\n", encoding="utf-8")
    prepared = prepare(data, RANDOM, largest(), run, 1, silent)
    assert prepared.remarks == ("1 of the files cannot be read and is left out; unreadable.csv in the run lists them",)
    [row] = csv.DictReader((run / "unreadable.csv").open(encoding="utf-8", newline=""))
    assert row["file"] == "clear/broken.png"
    assert row["reason"]
    assert prepare(data, RANDOM, largest(), run, 1, silent).remarks == ()


def test_another_seed_makes_another_split_in_a_new_run_folder(data, run, tmp_path):
    prepare(data, RANDOM, largest(), run, 1, silent)
    (tmp_path / "other").mkdir()
    prepare(data, RANDOM, largest(), tmp_path / "other", 2, silent)
    assert read_split(run / "split.csv") != read_split(tmp_path / "other" / "split.csv")


def problems_of(*arguments):
    with pytest.raises(InputError) as caught:
        prepare(*arguments, silent)
    return caught.value.problems


def test_depth_batch_size_and_weights_are_complained_of_together_and_nothing_is_written(data, run, tmp_path):
    (tmp_path / "some.weights.h5").write_text("not the ones")
    came = hashlib.sha256(b"not the ones").hexdigest()
    model = ModelSettings(weights=tmp_path / "some.weights.h5", weights_sha256="0" * 64)
    depth, batch, weights = problems_of(data, model, largest(freeze_depth=6, batch_size=64), run, 1)
    assert depth == "freeze_depth: must be at most 5 for resnet50 counted by stage, but got 6"
    assert batch.startswith("batch_size: must be at most the ")
    assert batch.endswith("training images, but got 64")
    [divided] = problems_of(data, ModelSettings(weights="random"), largest(epochs_per_pass=8, batch_size=8), run, 1)
    assert divided.endswith("training images of an epoch, but got 8")
    assert weights.startswith("model.weights_sha256: ")
    assert weights.endswith(f"must have the sha256 {'0' * 64}, but has {came}")
    assert list(run.iterdir()) == []


def test_images_without_a_group_are_complained_of_beside_depth_and_weights(data, run, tmp_path):
    lines = list(csv.reader(data.groups.open(encoding="utf-8", newline="")))
    with data.groups.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(lines[:-1])
    model = ModelSettings(weights=tmp_path / "missing.weights.h5")
    depth, groups, weights = problems_of(data, model, largest(freeze_depth=6), run, 1)
    assert depth.startswith("freeze_depth: ")
    assert "every image must have a line, but 1 have none" in groups
    assert weights.startswith("model.weights: must be imagenet, random or a readable file, but ")
    assert weights.endswith("missing.weights.h5: No such file or directory")
    assert list(run.iterdir()) == []


def test_images_that_changed_since_the_split_are_named(data, run):
    prepare(data, RANDOM, largest(), run, 1, silent)
    shutil.rmtree(run / "arrays")
    row = next(row for row in read_split(run / "split.csv") if row.part == "validation")
    (data.path / row.file).write_bytes(b"something else")
    [problem] = problems_of(data, RANDOM, largest(), run, 1)
    assert problem.startswith(f"{row.file} changed since the split was made")


@pytest.mark.parametrize(
    ("architecture", "unit", "depth", "largest_depth"),
    [("resnet50", "stage", 5, 5), ("resnet50", "block", 17, 17), ("vgg16", "block", 14, 14)],
)
def test_a_freeze_depth_may_reach_the_head_and_not_beyond(architecture, unit, depth, largest_depth):
    model = ModelSettings(architecture=architecture, freeze_unit=unit)
    assert depth_problems(model, {"freeze_depth": depth}) == []
    assert depth_problems(model, {"freeze_depth": depth + 1}) == [
        f"freeze_depth: must be at most {largest_depth} for {architecture} counted by {unit}, but got {depth + 1}"
    ]


@pytest.mark.parametrize(
    ("positive_class", "classes", "expected"),
    [
        ("well", ["ill", "well"], 1),
        ("ill", ["ill", "well"], 0),
        (None, ["ill", "well"], 0),
        (None, ["a", "b", "c"], None),
    ],
)
def test_the_positive_class_of_two_is_the_one_named_or_the_first(tmp_path, positive_class, classes, expected):
    assert positive_index(DataSettings(path=tmp_path, positive_class=positive_class), classes) == expected


@pytest.mark.slow
def test_weights_that_do_not_fit_are_found_before_any_trial(data, run, weights_file):
    model = ModelSettings(weights=weights_file, architecture="vgg16")
    depth, weights = problems_of(data, model, largest(freeze_depth=6), run, 1)
    assert depth.startswith("freeze_depth: ")
    assert weights.startswith(f"model.weights: {weights_file} must hold weights of VGG16 without its top")
    assert list(run.iterdir()) == []


def test_what_trials_share_differs_where_images_weights_or_cuts_do(data, run, tmp_path):
    def identity(seed=1, folder=run, **model):
        settings = ModelSettings(weights="random", **model)
        return prepare(data, settings, largest(), folder, seed, silent).context["identity"]

    first = identity()
    assert identity() == first
    (tmp_path / "other").mkdir()
    others = [
        identity(seed=2),
        identity(architecture="densenet121"),
        identity(freeze_unit="block"),
        identity(precision="mixed_bfloat16"),
        identity(folder=tmp_path / "other", seed=3),
    ]
    assert len({first, *others}) == 6
    assert np.unique([len(each) for each in others]).tolist() == [64]


def test_a_positive_class_that_is_none_of_the_classes_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"data\.positive_class: must be one of ill, well, but got 'sick'"):
        positive_index(DataSettings(path=tmp_path, positive_class="sick"), ["ill", "well"])
