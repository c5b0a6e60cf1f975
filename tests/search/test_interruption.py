import signal
from contextlib import suppress

import pytest

from search.interruption import Interrupted, interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers():
    """What the signals did before; put back after the test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_work_with_the_exit_code_that_shells_expect(number, exit_code):
    with pytest.raises(Interrupted) as caught, interruptible():
        signal.raise_signal(number)
    assert caught.value.exit_code == exit_code
    assert str(caught.value) == number.name


def test_signals_that_come_while_work_ends_are_ignored_and_stay_so():
    steps = []

    def work():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            steps.append("clean up")
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            steps.append("cleaned up")

    with pytest.raises(Interrupted), interruptible():
        work()
    signal.raise_signal(signal.SIGTERM)
    assert steps == ["clean up", "cleaned up"]


def turn_into_another_error():
    try:
        signal.raise_signal(signal.SIGTERM)
    except Interrupted as interruption:
        raise SystemError("as native code does") from interruption


def swallow():
    with suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("work", [turn_into_another_error, swallow])
def test_an_interruption_arrives_whatever_a_library_makes_of_it(work):
    with pytest.raises(Interrupted) as caught, interruptible():
        work()
    assert caught.value.exit_code == 143


def test_signals_do_afterwards_what_they_did_before(handlers):
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != handlers[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers
    with pytest.raises(RuntimeError, match="other"), interruptible():
        raise RuntimeError("other")
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers
