"""Hosts for a module's tests, gone when they end; without root and its programs the tests say so and skip."""

import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # hosts, furniture, followed

from hosts import Hosts, why_impossible


@pytest.fixture(scope="session")
def possible():
    reason = why_impossible()
    if reason:
        pytest.skip(f"hosts of their own need root on Linux: {reason}")


@pytest.fixture(scope="module")
def folder():
    """Seen by those hosts that share it, under the name that it has here."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def hosts(possible, folder):
    with Hosts(folder) as made:
        yield made
