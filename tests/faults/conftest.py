"""What the tests of faults share: their modules by name, and a folder in memory."""

import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # damage, failing_disk, soak


@pytest.fixture
def memory():
    """A folder where a flush costs nothing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)
