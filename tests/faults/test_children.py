import subprocess
import sys
import textwrap
import time

import pytest

from trainable.settings import ModelSettings
from trainable.weights_check import WeightsCheck

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and prctl are Linux's")


def test_f15_what_a_trial_leaves_behind_is_gone_even_if_it_made_a_session_of_its_own():
    script = """
        import subprocess, time
        from pathlib import Path
        from trainable.children import adopt_orphans, end_children

        def alive(process):
            stat = Path(f"/proc/{process}/stat")
            return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"

        adopt_orphans()
        shell = "sleep 97 & echo $!; setsid sleep 97 & echo $!; setsid sh -c 'sleep 97 & echo $!' & wait $!"
        child = subprocess.Popen(["sleep", "97"], start_new_session=True)
        leaving = subprocess.Popen(shell, shell=True, stdout=subprocess.PIPE, text=True)
        orphans = [int(leaving.stdout.readline()) for _ in range(3)]
        leaving.wait()
        left = [child.pid, *orphans]
        print(sum(map(alive, left)), end_children(), sum(map(alive, left)), end_children())
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert told.stdout.split() == ["4", "4", "0", "0"]


def test_f10_a_check_of_weights_that_is_interrupted_ends_at_once_with_its_process():
    check = WeightsCheck(ModelSettings(weights="random"), image_size=32)
    check._pool.submit(time.sleep, 1000)
    [process] = check._pool._processes.values()
    began = time.monotonic()
    check.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert not process.is_alive()
    assert time.monotonic() - began < 60
