"""What a worker does when memory runs out, and when it makes room for a fresh one."""

import numpy as np
import pytest

from trainable.memory import at_once, fair_share, is_out_of_memory, own_bytes
from trainable.trial import TRIALS_PER_WORKER, Wear


class ResourceExhaustedError(Exception):
    """Named as TensorFlow names it."""


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [(MemoryError(), True), (ResourceExhaustedError("OOM"), True), (ValueError("OOM"), False)],
)
def test_only_a_lack_of_memory_is_taken_for_one(error, is_memory):
    assert is_out_of_memory(error) is is_memory


@pytest.mark.parametrize(
    ("wear", "own", "reason"),
    [
        (Wear(), 5, None),
        (Wear(trials=TRIALS_PER_WORKER - 1), 10, None),
        (Wear(memory_ran_out=True), 5, "memory ran out in its last trial"),
        (Wear(), 11 * 10**9, "it has 11.0 GB of memory, its share is 10.0 GB"),
        (Wear(trials=TRIALS_PER_WORKER), 5, f"it has run {TRIALS_PER_WORKER} trials"),
    ],
)
def test_a_worker_ends_when_it_is_worn(wear, own, reason):
    assert wear.reason(own, 10**10) == reason


def test_this_process_has_memory_and_a_share_of_the_machines():
    assert 10**6 < own_bytes() < fair_share(1000)
    assert fair_share(0.5) < fair_share(1000)


def test_what_is_mapped_from_a_file_is_not_the_processes_own(tmp_path):
    size = 64_000_000
    np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(size,))[:] = 1
    before = own_bytes()
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert int(mapped.sum()) == size  # every page was touched
    assert own_bytes() - before < size / 4
    held = np.ones(size, np.uint8)
    assert own_bytes() - before > 3 * size / 4
    assert len(held) == size


@pytest.mark.parametrize(
    ("memory", "cpus", "share"),
    [
        ("2000000\n", "400000 100000\n", 400_000),  # one CPU of four, four fifths of a quarter
        ("2000000\n", "50000 100000\n", 1_600_000),  # a worker that has more CPUs than the container
        ("2000000\n", "max 100000\n", 1_600_000),  # how many workers share it is not known
        ("2000000\n", None, 1_600_000),
        ("max\n", "400000 100000\n", "machine"),
        ("99999999999999999\n", "400000 100000\n", "machine"),
        (None, None, "machine"),
    ],
)
def test_a_container_has_its_limit_shared_out_and_never_more_than_the_machine_gives(tmp_path, memory, cpus, share):
    for name, content in (("memory.max", memory), ("cpu.max", cpus)):
        if content is not None:
            (tmp_path / name).write_text(content)
    assert fair_share(1.0, tmp_path) == (fair_share(1.0, tmp_path / "nothing") if share == "machine" else share)


@pytest.mark.parametrize(
    ("most", "side", "images"), [(128, 32, 128), (128, 224, 128), (128, 448, 32), (128, 1024, 6), (16, 2048, 1)]
)
def test_of_large_images_fewer_are_computed_at_once(most, side, images):
    assert at_once(most, side) == images
