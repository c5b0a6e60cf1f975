import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from trainable.features import FeatureKey, FeatureStore, worth_keeping

KEY = FeatureKey("images and weights", "train", 4, (1, 0, 0.5, ("zoom",)), "float32")
SHAPE = (70, 2, 3)


def fill(array):
    array[:] = np.arange(array.size, dtype=np.float32).reshape(array.shape)


def refuse(array):
    raise AssertionError("must not be built again")


def test_features_are_built_once_and_found_by_every_later_store(tmp_path: Path):
    first = FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
    second = FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, refuse)
    assert first is not None
    assert second is not None
    assert second[69, 1, 2] == 419
    assert np.array_equal(first, second)


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
def test_anything_that_features_depend_on_gives_another_file(tmp_path: Path, other: FeatureKey):
    store = FeatureStore(tmp_path, 10**6)
    store.get(KEY, SHAPE, fill)
    assert not store.has(other)


def test_a_flipped_bit_is_found_when_a_process_first_opens_the_file(tmp_path: Path):
    FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
    path = tmp_path / f"{KEY.digest}.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    again = FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
    assert again is not None
    assert again[69, 1, 1] == 418


def test_a_file_of_another_shape_is_built_again(tmp_path: Path):
    FeatureStore(tmp_path, 10**6).get(KEY, (3, 2), fill)
    found = FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
    assert found is not None
    assert found.shape == SHAPE


def test_a_build_that_fails_leaves_nothing_under_the_final_name(tmp_path: Path):
    def fails(array):
        array[:3] = 1
        raise ValueError("worker died")

    store = FeatureStore(tmp_path, 10**6)
    with pytest.raises(ValueError, match="worker died"):
        store.get(KEY, SHAPE, fails)
    assert not store.has(KEY)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_the_least_recently_used_goes_when_the_limit_is_reached(tmp_path: Path):
    size = 70 * 6 * 4 + 128
    store = FeatureStore(tmp_path, int(2.5 * size))
    keys = [FeatureKey("x", "train", cut, None, "float32") for cut in (1, 2, 3)]
    for age, key in enumerate(keys[:2]):
        store.get(key, SHAPE, fill)
        os.utime(tmp_path / f"{key.digest}.npy", (1000 + age, 1000 + age))
    store.get(keys[0], SHAPE, refuse)
    store.get(keys[2], SHAPE, fill)
    assert [store.has(key) for key in keys] == [True, False, True]


def test_features_larger_than_the_limit_are_not_kept(tmp_path: Path):
    assert FeatureStore(tmp_path, 100).get(KEY, SHAPE, refuse) is None


def test_a_place_that_cannot_be_written_means_computing_instead(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert FeatureStore(tmp_path / "file" / "below", 10**6).get(KEY, SHAPE, fill) is None


def test_deleting_the_store_at_any_time_costs_only_a_rebuild(tmp_path: Path):
    store = FeatureStore(tmp_path, 10**6)
    mapped = store.get(KEY, SHAPE, fill)
    for path in tmp_path.iterdir():
        path.unlink()
    again = store.get(KEY, SHAPE, fill)
    assert mapped is not None
    assert again is not None
    assert mapped[69, 1, 2] == again[69, 1, 2] == 419


def test_of_two_builders_at_once_one_builds_and_the_other_waits(tmp_path: Path):
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


def test_the_description_beside_a_file_says_what_it_is(tmp_path: Path):
    FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill)
    described = json.loads((tmp_path / f"{KEY.digest}.json").read_text())
    assert (described["cut"], described["part"]) == (4, "train")


@pytest.mark.parametrize(
    ("policy", "seconds", "size", "sure", "kept"),
    [
        ("off", 1.0, 1, True, False),
        ("all", 1e-9, 10**9, False, True),
        ("auto", 4e-3, 16_000, True, True),  # ResNet50, depth 4, 64 px: computing costs 300 times reading
        ("auto", 1e-5, 65_536, True, False),  # reading would take longer than computing
        ("auto", 4e-3, 8_192, False, True),  # pooled features cost next to nothing to keep
        ("auto", 4e-3, 262_144, False, False),  # a view nobody is sure to want again
    ],
)
def test_features_are_kept_where_that_is_cheaper(policy, seconds, size, sure, kept):
    assert worth_keeping(policy, seconds, size, sure) is kept
