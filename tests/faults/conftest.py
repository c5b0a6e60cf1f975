"""What the tests of faults share: modules by name, a folder in memory, drivers to kill, a study that pretends."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from search.ledger import read_history
from search.paths import StudyPaths

sys.path.insert(0, str(Path(__file__).parent))  # damage, failing_disk, soak

PRETENDED = Path(__file__).parents[1] / "fakes" / "pretended_study.py"
STORY = {
    "name": "it",
    "space": {"x": {"type": "float", "low": 0.1, "high": 1.0}},
    "objective": {"metric": "v"},
    "pruner": {"name": "none"},
    "budget": {"trials": 4, "epochs": 3},
    "resources": {"concurrency": 2, "cpus_per_trial": 0.5},
    "training": {"epoch_seconds": 0.2},
    "final": {"finalists": 0},
}


class Driver:
    """A driver process at work on the story, with what a test changes in it."""

    def __init__(self, folder, changes, environment):
        document = {
            section: {**story, **changes.get(section, {})} if isinstance(story, dict) else changes.get(section, story)
            for section, story in STORY.items()
        }
        self.paths = StudyPaths(folder / document["name"])
        self.process = subprocess.Popen(
            [sys.executable, str(PRETENDED), json.dumps({**document, "storage": str(folder)})],
            env={**os.environ, "TMPDIR": str(folder), "MARK_OF_THE_TEST": str(folder), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until(self, holds, seconds=120):
        """Wait until `holds()` while the driver works."""
        end = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, "it took too long"
            time.sleep(0.02)

    def trials(self):
        return read_history(self.paths.ledger).search_trials() if self.paths.ledger.exists() else []

    def epochs(self):
        """Epochs reported so far."""
        return sum(len(trial.epochs) for trial in self.trials())

    def ended(self, seconds=150):
        """Exit code and what was said."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@pytest.fixture(scope="module")
def folder():
    """Directly under /tmp, because pytest's folders are too long for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def drive(folder):
    """Starts a driver: `with drive(budget={…}) as driver`; killed if it still works in the end."""

    @contextmanager
    def drive(environment=None, **changes):
        driver = Driver(folder, changes, environment or {})
        try:
            yield driver
        finally:
            driver.kill()

    return drive


@pytest.fixture(scope="module")
def left_behind(folder):
    """Processes that descend from a driver under `folder`, as command lines; and what is left of temporary files."""

    def left_behind():
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"MARK_OF_THE_TEST={folder}".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found + [path.name for path in folder.iterdir() if path.name.startswith("thawline-")]

    return left_behind


@pytest.fixture(scope="session")
def pretended():
    """The module of the pretended study; what is in it is sent to workers by value."""
    from ray import cloudpickle

    spec = importlib.util.spec_from_file_location("pretended_study", PRETENDED)
    module = sys.modules["pretended_study"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    return module


@pytest.fixture
def memory():
    """A folder where a flush costs nothing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)
