"""What is kept and when; damaged and half-built files are in tests/faults/test_feature_cache.py."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trainable.features import RESERVE, FeatureKey, FeatureStore, worth_keeping

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


def test_room_is_made_before_a_file_is_built(tmp_path: Path):
    size = 70 * 6 * 4 + 128
    store = FeatureStore(tmp_path, int(1.5 * size))
    first, second = (FeatureKey("x", "train", cut, None, "float32") for cut in (1, 2))
    store.get(first, SHAPE, fill)

    def build(array):
        assert not store.has(first)
        fill(array)

    assert store.get(second, SHAPE, build) is not None


def test_what_others_are_building_counts(tmp_path: Path):
    store = FeatureStore(tmp_path, int(1.5 * (70 * 6 * 4 + 128)))

    def build(array):
        other = FeatureKey("other", "train", 4, None, "float32")
        assert FeatureStore(tmp_path, store.limit).get(other, SHAPE, refuse) is None
        fill(array)

    assert store.get(KEY, SHAPE, build) is not None


def test_a_nearly_full_disk_is_left_to_those_who_need_it(tmp_path: Path, monkeypatch):
    size = 70 * 6 * 4
    free = SimpleNamespace(free=RESERVE + size - 1)
    monkeypatch.setattr("trainable.features.shutil.disk_usage", lambda folder: free)
    assert FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, refuse) is None
    free.free += 1
    assert FeatureStore(tmp_path, 10**6).get(KEY, SHAPE, fill) is not None


def test_a_store_counts_what_it_found_what_it_built_and_what_it_holds(tmp_path):
    store = FeatureStore(tmp_path, 10**6)
    store.get(KEY, SHAPE, fill)
    store.get(KEY, SHAPE, refuse)
    other = FeatureStore(tmp_path, 10**6)
    other.get(KEY, SHAPE, refuse)
    size = (tmp_path / f"{KEY.digest}.npy").stat().st_size
    assert (store.found, store.built, store.bytes) == (1, 1, size)
    assert (other.found, other.built, other.bytes) == (1, 0, size)


def test_features_larger_than_the_limit_are_not_kept(tmp_path: Path):
    assert FeatureStore(tmp_path, 100).get(KEY, SHAPE, refuse) is None


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
