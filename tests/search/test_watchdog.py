from types import SimpleNamespace

import pytest

from search.watchdog import AwakeClock, Watchdog, patience


@pytest.mark.parametrize(
    ("setting", "own", "any_trial", "expected"),
    [
        (None, 0.0, 0.0, 6 * 3600),  # nothing is known: compiling and computing features may take hours
        (None, 0.0, 1.0, 6 * 3600),  # others' quick epochs say nothing about this trial's first
        (None, 0.0, 3600.0, 20 * 3600),
        (None, 0.5, 250.0, 600),
        (None, 0.5, 1350.0, 2700),  # another trial's epoch made features; this one's next may
        (None, 60.0, 60.0, 1200),
        (7.0, 0.0, 0.0, 7),
        (7.0, 60.0, 60.0, 7),
    ],
)
def test_patience_follows_the_setting_else_the_slowest_epoch(setting, own, any_trial, expected):
    assert patience(setting, own, any_trial) == expected


def test_a_trial_hangs_when_its_silence_is_longer_than_its_slowest_epoch_allows():
    dog = Watchdog()
    dog.watch(["a", "b"], 0)
    dog.heard("a", 100, epoch=True)
    dog.heard("b", 100, epoch=False)
    assert dog.hanging(100 + 2000) == {}
    assert dog.hanging(100 + 2001) == {"a": 2001}


def test_a_slow_epoch_of_an_earlier_session_gives_patience_to_all():
    dog = Watchdog(slowest_of_all=1350)
    dog.watch(["a"], 0)
    dog.heard("a", 2, epoch=True)
    assert dog.hanging(2 + 2700) == {}
    assert dog.hanging(2 + 2701) == {"a": 2701}


def test_whoever_has_no_worker_is_not_listened_to():
    dog = Watchdog(setting=10)
    dog.watch(["a", "b"], 0)
    dog.watch(["b"], 5)
    assert dog.hanging(11) == {"b": 11}
    dog.watch(["a", "b"], 11)
    assert dog.hanging(21) == {"b": 21}


def test_a_clock_that_is_read_seldom_counts_what_was_surely_awake():
    time = SimpleNamespace(now=100.0)
    clock = AwakeClock(lambda: time.now, longest_step=5.0)
    for step, expected in ((0.0, 0.0), (0.1, 0.1), (5.0, 5.1), (3600.0, 10.1), (1.0, 11.1)):
        time.now += step
        assert clock.read() == pytest.approx(expected)
