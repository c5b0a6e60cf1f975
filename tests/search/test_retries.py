import pytest

from search.retries import Death, Losses, read_death

SIGKILL = """The actor died unexpectedly before finishing this task.
	class_name: A
	pid: 8039
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed \
by the OOM killer due to high memory usage, (2) ray stop --force was called"""
NODE = """The actor died unexpectedly before finishing this task.
	pid: 8161
The actor died because its node has died. Node Id: 004db0e693b037e7
	the actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"""
MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory was 4.20GB used / 23.54GB limit
Object store memory usage: [- objects spillable: 0"""
BROKEN = """The actor died because of an error raised in its creation task, ray::A()
ImportError: no module"""


@pytest.mark.parametrize(
    ("error", "began", "expected"),
    [
        ("", True, Death("died", "its worker died")),
        ("", False, Death("made_room", "its worker died")),
        (
            SIGKILL,
            True,
            Death(
                "died",
                "its worker process has died: Worker unexpectedly exits with a connection error code 2. End of file.",
            ),
        ),
        (
            NODE,
            True,
            Death(
                "node",
                "its node died: terminated unexpectedly: health check failed due to missing too many heartbeats",
            ),
        ),
        (
            MEMORY,
            True,
            Death(
                "memory",
                "its worker was ended because the node ran out of memory: 1 worker(s) were killed due to the node "
                "running low on memory. Memory was 4.20GB used / 23.54GB limit",
            ),
        ),
        (BROKEN, False, Death("died", "ImportError: no module")),
        ("ray::train()\nRuntimeError: a mistake", True, Death("died", "RuntimeError: a mistake")),
        ("The actor 12 is unavailable: RPC failed", True, Death("node", "its worker could not be reached")),
    ],
)
def test_what_ray_says_of_a_death_becomes_a_cause_and_a_sentence(error, began, expected):
    assert read_death(error, began) == expected


def after(*causes, epochs=0):
    losses = Losses()
    for cause in causes:
        losses = losses.and_now(cause, epochs)
    return losses


def test_the_first_loss_costs_no_time_and_repeated_ones_more_and_more_up_to_a_minute():
    waits = [after(*["died"] * losses).wait for losses in range(1, 9)]
    assert waits == [0, 2, 4, 8, 16, 32, 60, 60]
    assert after(*["node"] * 2000).wait == 60


def test_an_epoch_in_between_makes_a_loss_the_first_again():
    losses = after("node", "node", "node").and_now("node", 1)
    assert (losses.fruitless, losses.wait) == (1, 0)
    assert losses.and_now("node", 1).wait == 2


def test_whoever_ran_out_of_memory_waits_for_others_to_end():
    assert after("memory").wait == 10
    assert after("memory", "memory", "memory", "memory", "memory").wait == 16


@pytest.mark.parametrize(
    ("causes", "retries", "expected"),
    [
        (["died"] * 3, 3, None),
        (["died"] * 4, 3, "its worker died 4 times"),
        (["died"], 0, "its worker died once"),
        (["memory", "died"], 1, "its worker died 2 times"),
        (["hung"], 3, None),
        (["hung"], 0, "timeout: it hung"),
        (["hung", "died", "hung"], 9, "timeout: it hung 2 times"),
        (["node"] * 20, 0, None),
        (["node"] * 21, 0, "it lost its worker 21 times without a new epoch"),
    ],
)
def test_a_trial_is_given_up_for_its_own_losses_soon_and_for_others_late(causes, retries, expected):
    assert after(*causes).given_up(retries) == expected


def test_a_trial_may_lose_any_number_of_nodes_as_long_as_it_gets_on():
    losses = Losses()
    for epoch in range(200):
        losses = losses.and_now("node", epoch)
        assert losses.given_up(0) is None
