"""What every test needs: quiet libraries, caches of its own, a token for every Ray it starts."""

import os
import secrets
import sys
from types import ModuleType

import pytest

from search.cluster import ray_environment

# TensorBoard reads its files without TensorFlow, seconds sooner, where this module can be imported.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

# Read when TensorFlow, Matplotlib and Ray are imported, so set before any test is.
for name, value in {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",  # the same numbers with and without a GPU
    "MPLBACKEND": "Agg",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # so that no test writes to the user's home
    **ray_environment(),
}.items():
    os.environ.setdefault(name, value)


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test finds what an earlier run of the tests has remembered."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))
