import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource
from search.errors import ConfigurationError
from search.limits import check_limits

for kind, limit in {limits}.items():
    resource.setrlimit(getattr(resource, kind), limit)
try:
    check_limits()
    print(json.dumps([resource.getrlimit(resource.RLIMIT_NOFILE)[0]]))
except ConfigurationError as error:
    print(json.dumps(error.problems))
"""

FEW_FILES = "this system must allow 1024 open files to start Ray, but allows 128; raise it (`ulimit -n 1024`)"
FEW_PROCESSES = (
    "this system must allow 1000 processes and threads to start Ray, but allows 100; raise it (`ulimit -u 1000`)"
)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"RLIMIT_NOFILE": (256, 4096)}, [1024]),
        ({"RLIMIT_NOFILE": (2048, 4096)}, [2048]),
        (
            {"RLIMIT_NOFILE": (128, 128)},
            [FEW_FILES],
        ),
        (
            {"RLIMIT_NOFILE": (128, 128), "RLIMIT_NPROC": (100, 100)},
            [
                FEW_FILES,
                FEW_PROCESSES,
            ],
        ),
    ],
)
def test_f37_limits_too_low_for_ray_are_raised_or_refused_before_it_starts(limits, expected):
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(limits=limits)], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(told.stdout) == expected
