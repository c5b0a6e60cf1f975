"""What a worker does when memory runs out, and when it makes room for a fresh one."""

import pytest

from trainable.trial import TRIALS_PER_WORKER, Wear, is_out_of_memory
from trainable.workshop import fair_share, resident_bytes


class ResourceExhaustedError(Exception):
    """Named as TensorFlow names it."""


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [(MemoryError(), True), (ResourceExhaustedError("OOM"), True), (ValueError("OOM"), False)],
)
def test_only_a_lack_of_memory_is_taken_for_one(error, is_memory):
    assert is_out_of_memory(error) is is_memory


@pytest.mark.parametrize(
    ("wear", "resident", "reason"),
    [
        (Wear(), 5, None),
        (Wear(trials=TRIALS_PER_WORKER - 1), 10, None),
        (Wear(memory_ran_out=True), 5, "memory ran out in its last trial"),
        (Wear(), 11 * 10**9, "it has 11.0 GB of memory, its share is 10.0 GB"),
        (Wear(trials=TRIALS_PER_WORKER), 5, f"it has run {TRIALS_PER_WORKER} trials"),
    ],
)
def test_a_worker_ends_when_it_is_worn(wear, resident, reason):
    assert wear.reason(resident, 10**10) == reason


def test_this_process_has_memory_and_a_share_of_the_machines():
    assert 10**6 < resident_bytes() < fair_share(1000)
    assert fair_share(0.5) < fair_share(1000)
