import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_f01_real_trials_whose_worker_is_killed_give_the_table_of_a_study_left_alone():
    command = [sys.executable, str(SOAK), "--kills", "1", "--trials", "4", "--epochs", "4", "--one-worker"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=850, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "one worker, kills 1: the table is the same" in told.stdout
    assert "SIGTERM to exit" in told.stdout
