import subprocess
import sys
import threading

import pytest

from search.answers import answer_of


def test_an_answer_or_an_error_comes_back():
    assert answer_of(lambda: 7) == 7
    with pytest.raises(KeyError, match="x"):
        answer_of(lambda: {}["x"])


def test_one_who_asked_somebody_silent_goes_on():
    never = threading.Event()
    with pytest.raises(TimeoutError, match="there was no answer within 0 s"):
        answer_of(never.wait, 0.05)
    never.set()


WAITING = """
import atexit, sys, threading
from search.answers import answer_of, leave
atexit.register(print, "waited")
try:
    answer_of({}, 0.05)
except TimeoutError:
    pass
print("said")
leave(7)
"""


@pytest.mark.parametrize(("ask", "printed"), [("threading.Event().wait", ["said"]), ("int", ["said", "waited"])])
def test_the_end_of_a_process_waits_for_no_answer(ask, printed):
    finished = subprocess.run(
        [sys.executable, "-c", WAITING.format(ask)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (finished.returncode, finished.stdout.split()) == (7, printed)
