"""A driver as a process of its own, for tests that kill it: a study on real Ray whose trials only pretend to train.

`python pretended_study.py DOCUMENT`, where DOCUMENT is a study as JSON. Run as a script, so that Ray sends the trial's
class to workers by value.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ray import tune

from search.config import StudyConfig
from search.driver import Session, run_study
from search.errors import StudyStopped
from search.history import History
from search.interruption import Interrupted


class Pretence(BaseModel):
    """How trials behave; under `training` in the study."""

    x: float = 0.0
    epoch_seconds: float = 0.0
    fails: bool = False


class PretendedTrial(tune.Trainable):
    """Reports `x * epoch` as `v`, from the first epoch on every attempt: it keeps no checkpoints."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._messages = self._run(new_config["study"], new_config["trial"])
        return True

    def step(self) -> dict[str, Any]:
        return {"thawline": [next(self._messages)]}

    def _run(self, study: dict[str, Any], trial: dict[str, Any]) -> Any:
        yield {"kind": "started", "worker": str(os.getpid())}
        if study["fails"]:
            yield {"kind": "failed", "reason": "it pretends to fail"}
        for epoch in range(1, trial["epochs"] + 1):
            time.sleep(study["epoch_seconds"])
            metrics = {"v": trial["parameters"]["x"] * epoch}
            yield {"kind": "epoch", "epoch": epoch, "metrics": metrics, "seconds": {}, "last": False}


@dataclass
class Prepared:
    record: dict[str, Any]
    context: dict[str, Any]


class Pretender:
    """The trainable."""

    sections = {"training": Pretence}  # noqa: RUF012 - as the protocol has it
    metrics = ("v",)
    trial_class = PretendedTrial

    def prepare(self, config: Any, largest: Any, folder: Path, progress: Any) -> Prepared:
        return Prepared({}, config.training.model_dump())


def first(history: History) -> list[int]:
    """The first trial as the only finalist."""
    return [history.search_trials()[0].number]


def main() -> int:
    """Search and, with finalists, rerun one; the exit code."""
    config = StudyConfig.parse(json.loads(sys.argv[1]))
    try:
        if config.final.finalists:
            with Session(config, Pretender()) as session:
                session.search(first)
        else:
            run_study(config, Pretender())
    except Interrupted as interruption:
        return interruption.exit_code
    except StudyStopped as error:
        sys.stderr.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
