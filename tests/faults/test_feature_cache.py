"""Outputs of the frozen part that are damaged, stale or half built are built again; results are those without them."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from search.commands.final_training import _check_same_images
from search.config import StudyConfig
from search.errors import ConfigurationError
from search.paths import StudyPaths
from trainable.errors import InputError
from trainable.features import FeatureKey, FeatureStore
from trainable.preparation import _identity, prepare
from trainable.settings import DataSettings, ModelSettings

KEY = FeatureKey("images and weights", "train", 4, (1, 0, 0.5, ("zoom",)), "float32")
SHAPE = (70, 2, 3)
RANDOM = ModelSettings(weights="random")


def fill(array):
    array[:] = np.arange(array.size, dtype=np.float32).reshape(array.shape)


def uncached():
    array = np.empty(SHAPE, np.float32)
    fill(array)
    return array


@pytest.mark.parametrize(
    "other",
    [
        FeatureKey("other images", "train", 4, KEY.view, "float32"),
        FeatureKey(KEY.identity, "validation", 4, KEY.view, "float32"),
        FeatureKey(KEY.identity, "train", 3, KEY.view, "float32"),
        FeatureKey(KEY.identity, "train", 4, (1, 1, 0.5, ("zoom",)), "float32"),
        FeatureKey(KEY.identity, "train", 4, None, "float32"),
        FeatureKey(KEY.identity, "train", 4, KEY.view, "float16"),
    ],
)
def test_f38_anything_that_features_depend_on_gives_another_file(tmp_path: Path, other: FeatureKey):
    store = FeatureStore(tmp_path, 10**6)
    store.get(KEY, SHAPE, fill)
    assert not store.has(other)


def test_f38_a_flipped_bit_is_found_when_a_process_first_opens_the_file(tmp_path: Path):
    FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
    path = tmp_path / f"{KEY.digest}.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    again = FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
    assert again is not None
    assert again[69, 1, 1] == 418


def test_f38_a_build_that_fails_leaves_nothing_under_the_final_name(tmp_path: Path):
    def fails(array):
        array[:3] = 1
        raise ValueError("worker died")

    store = FeatureStore(tmp_path, 10**6)
    with pytest.raises(ValueError, match="worker died"):
        store.get(KEY, SHAPE, fails)
    assert not store.has(KEY)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_f38_deleting_the_store_at_any_time_costs_only_a_rebuild(tmp_path: Path):
    store = FeatureStore(tmp_path, 10**6)
    mapped = store.get(KEY, SHAPE, fill)
    for path in tmp_path.iterdir():
        path.unlink()
    again = store.get(KEY, SHAPE, fill)
    assert mapped is not None
    assert again is not None
    assert mapped[69, 1, 2] == again[69, 1, 2] == 419


def test_f38_of_two_builders_at_once_one_builds_and_the_other_waits(tmp_path: Path):
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from trainable.features import FeatureKey, FeatureStore
        folder = Path(sys.argv[1])
        def build(array):
            with (folder / "builds").open("a") as log:
                log.write("built\\n")
            time.sleep(0.5)
            array[:] = 7
        key = FeatureKey("images", "train", 4, None, "float32")
        print(float(FeatureStore(folder / "store", 10**6).get(key, (5, 2), build).sum()))
        """
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [worker.communicate(timeout=60)[0].strip() for worker in workers] == ["70.0", "70.0"]
    assert (tmp_path / "builds").read_text() == "built\n"


def test_f38_a_place_that_cannot_be_written_means_computing_instead(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert FeatureStore(tmp_path / "file" / "below", 10**6).get(KEY, SHAPE, fill) is None


def test_f38_a_file_of_another_shape_is_built_again(tmp_path: Path):
    FeatureStore(tmp_path, 10**6).get(KEY, (3, 2), fill)
    found = FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
    assert found is not None
    assert found.shape == SHAPE


def test_f38_a_byte_flipped_anywhere_means_building_again_and_the_same_features(tmp_path: Path):
    FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
    draw = np.random.default_rng(0)
    for path in (tmp_path / f"{KEY.digest}.npy", tmp_path / f"{KEY.digest}.json"):
        whole = path.read_bytes()
        for place in draw.integers(0, len(whole), 25):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << draw.integers(8)
            path.write_bytes(damaged)
            found = FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
            assert np.array_equal(found, uncached())
        for length in (0, 1, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert np.array_equal(FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill), uncached())


def test_f38_a_file_that_took_the_place_of_one_already_checked_is_checked_as_well(tmp_path: Path):
    store, path = FeatureStore(tmp_path, 10**6), tmp_path / f"{KEY.digest}.npy"
    store.get(KEY, SHAPE, fill)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.rename(tmp_path / "aside")
    path.write_bytes(content)
    assert store.find(KEY, SHAPE) is None
    assert np.array_equal(store.get(KEY, SHAPE, fill), uncached())


KILLED_WHILE_BUILDING = """
import os, signal, sys
from pathlib import Path
from trainable.features import FeatureKey, FeatureStore

def build(array):
    array[:30] = 1
    os.kill(os.getpid(), signal.SIGKILL)

key = FeatureKey("images and weights", "train", 4, (1, 0, 0.5, ("zoom",)), "float32")
FeatureStore(Path(sys.argv[1]), 10**6).get(key, (70, 2, 3), build)
"""


def test_f38_a_killed_builder_leaves_nothing_that_counts_and_the_next_one_cleans_up(tmp_path: Path):
    arguments = [sys.executable, "-c", KILLED_WHILE_BUILDING, str(tmp_path)]
    assert subprocess.run(arguments, timeout=120, check=False).returncode == -signal.SIGKILL
    assert len([path for path in tmp_path.iterdir() if ".tmp" in path.name]) == 1
    store = FeatureStore(tmp_path, 10**6)
    assert store.find(KEY, SHAPE) is None
    assert np.array_equal(store.get(KEY, SHAPE, fill), uncached())
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".lock", ".npy"]


def test_f38_what_a_killed_builder_left_goes_with_the_next_file_of_whatever_key(tmp_path: Path):
    arguments = [sys.executable, "-c", KILLED_WHILE_BUILDING, str(tmp_path)]
    assert subprocess.run(arguments, timeout=120, check=False).returncode == -signal.SIGKILL
    other = FeatureKey("other", "train", 4, None, "float32")
    assert FeatureStore(tmp_path, 10**6).get(other, SHAPE, fill) is not None
    assert not [path for path in tmp_path.iterdir() if ".tmp" in path.name]


def test_f38_a_file_being_built_is_not_dropped_to_make_room(tmp_path: Path):
    size = 70 * 6 * 4 + 128
    store = FeatureStore(tmp_path, int(1.5 * size))
    other = FeatureKey("other", "train", 4, None, "float32")

    def build(array):
        FeatureStore(tmp_path, int(1.5 * size)).get(other, SHAPE, fill)
        fill(array)

    assert np.array_equal(store.get(KEY, SHAPE, build), uncached())


@pytest.fixture
def data(tmp_path):
    """Two classes of six images."""
    for index in range(12):
        path = tmp_path / "data" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (32, 32), dtype=np.uint8)).save(path)
    return DataSettings(path=tmp_path / "data", groups="none", image_size=32)


def identity(data, run, model=RANDOM):
    return prepare(data, model, {"freeze_depth": 1, "batch_size": 1}, run, 1, lambda *_: None).context["identity"]


def test_f38_one_changed_pixel_other_weights_or_another_preprocessing_give_other_files(data, tmp_path):
    before = identity(data, tmp_path / "run")
    assert identity(data, tmp_path / "same") == before
    others = {
        identity(data.model_copy(update=change), tmp_path / str(number))
        for number, change in enumerate([{"image_size": 48}, {"colour": "rgb"}])
    }
    others.add(identity(data, tmp_path / "precise", RANDOM.model_copy(update={"precision": "mixed_bfloat16"})))
    with Image.open(data.path / "a" / "0.png") as image:
        image.putpixel((5, 5), image.getpixel((5, 5)) ^ 1)
        image.save(data.path / "a" / "0.png")
    others.add(identity(data, tmp_path / "changed"))
    others.update(_identity("fingerprint", RANDOM, weights, 0) for weights in ("sha256 of these", "sha256 of those"))
    assert len(others | {before}) == 7


def mappings():
    return Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_f35_features_are_mapped_from_the_run_folder_and_take_no_shared_memory(tmp_path: Path):
    shared = mappings().count("/dev/shm")
    found = FeatureStore(tmp_path / "run" / "scratch", 10**6).get(KEY, SHAPE, fill)
    assert found is not None
    assert str(tmp_path / "run" / "scratch" / f"{KEY.digest}.npy") in mappings()
    assert mappings().count("/dev/shm") == shared


# F48: images that change while a study is at work


def test_f48_a_study_goes_on_with_the_pixels_it_began_with_whatever_becomes_of_the_files(data, tmp_path):
    run = tmp_path / "run"
    before = identity(data, run)
    arrays = {path.name: path.read_bytes() for path in (run / "arrays").iterdir()}
    for number, path in enumerate(sorted(data.path.rglob("*.png"))):
        path.unlink() if number % 2 else Image.new("L", (32, 32), number).save(path)
    assert identity(data, run) == before
    assert {path.name: path.read_bytes() for path in (run / "arrays").iterdir()} == arrays


def test_f48_what_must_be_decoded_again_of_changed_or_deleted_files_stops_with_their_names(data, tmp_path):
    run = tmp_path / "run"
    identity(data, run)
    (run / "arrays" / "train.npy").unlink()
    lines = (run / "split.csv").read_text().split()
    first, second = [line.split(",")[0] for line in lines if line.endswith(",train")][:2]
    Image.new("L", (32, 32), 1).save(data.path / first)
    (data.path / second).unlink()
    with pytest.raises(InputError) as caught:
        identity(data, run)
    assert caught.value.problems == [
        f"{first} changed since the split was made; restore it, or start a new study",
        f"{second}: No such file or directory",
    ]


def test_f48_a_configuration_is_trained_for_good_on_the_images_and_weights_that_it_was_found_with(tmp_path):
    record = {"data": {"fingerprint": "f1"}, "weights_sha256": "w1"}
    config, paths = StudyConfig.parse({"record": record}), StudyPaths(tmp_path)
    _check_same_images(config, SimpleNamespace(record=record), paths)
    for change, problem in [
        ({"data": {"fingerprint": "f2"}}, "data: .* images with fingerprint f1, but these have f2"),
        ({"weights_sha256": "w2"}, r"model\.weights: .* weights with sha256 w1, but these have w2"),
    ]:
        with pytest.raises(ConfigurationError, match=problem):
            _check_same_images(config, SimpleNamespace(record=record | change), paths)
