"""What many tests need: quiet libraries, a token for every Ray they start, and the images and weights that lie
outside.
"""

import os
import secrets
import sys
from pathlib import Path
from types import ModuleType

import pytest

from search.cluster import ray_environment

# TensorBoard reads its files without TensorFlow, seconds sooner, where this module can be imported.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

SHARED = Path(__file__).resolve().parents[2] / "shared"

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


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository: images and weights that are not the project's to pass on."""
    return _existing(SHARED)


@pytest.fixture(scope="session")
def covid_ct(shared: Path) -> Path:
    """CT slices, one folder per class."""
    return _existing(shared / "data" / "covid-ct")


@pytest.fixture(scope="session")
def resnet_weights(shared: Path) -> Path:
    """ResNet50 without its top, trained on chest X-rays at 64 pixels."""
    return _existing(shared / "weights" / "resnet50_cxr64_notop.weights.h5")


def _existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not here; see the README for where its files come from")
    return path
