"""Runs one of the programs in `errands` on the head."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from search.errors import StudyStopped
from search.launch.door import ERRAND_SECONDS, TERMINAL, Door, last_line
from search.launch.parcel import Inputs, pack_errands

PAUSE = 0.3  # seconds between looks


def start_errand(door: Door, name: str, asked: dict[str, Any], inputs: Inputs | None = None) -> str:
    """Start it; the job's name."""
    submission = f"thawline-{name}-{uuid4().hex}"
    with tempfile.TemporaryDirectory() as folder:
        package = pack_errands(Path(folder) / "errands.zip", inputs)
        door.submit(["python", f"{name}.py", json.dumps(asked)], package, submission, {"thawline_errand": name})
    return submission


def run_errand(door: Door, name: str, asked: dict[str, Any], inputs: Inputs | None = None) -> dict[str, Any]:
    """Run it to its end; what it answers.

    Raises:
        StudyStopped: when it fails, with the last it said.
    """
    submission = start_errand(door, name, asked, inputs)
    deadline = time.monotonic() + ERRAND_SECONDS
    while (job := door.job(submission)).status not in TERMINAL:
        if time.monotonic() > deadline:
            door.stop(submission)
            raise StudyStopped(f"`{name}` on the cluster's head must end within {ERRAND_SECONDS:.0f} s, but did not")
        time.sleep(PAUSE)
    log = door.log(submission)
    answer = last_line(log) if job.status == "SUCCEEDED" else None
    if answer is None:
        said = log.decode(errors="replace").strip().splitlines()
        raise StudyStopped(f"`{name}` on the cluster's head must succeed, but: {said[-1] if said else job.message}")
    return answer
