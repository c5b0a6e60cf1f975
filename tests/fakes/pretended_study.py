"""A driver as a process of its own, for tests that kill it: a study on real Ray whose trials only pretend to train.

`python pretended_study.py DOCUMENT`, where DOCUMENT is a study as JSON. Run as a script, so that Ray sends the trial's
class to workers by value.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ray import tune

from search.config import StudyConfig
from search.driver import Session, run_study
from search.errors import ConfigurationError, StudyStopped
from search.history import History
from search.interruption import Interrupted, interruptible


class Pretence(BaseModel):
    """How trials behave; under `training` in the study."""

    x: float = 0.0
    epoch_seconds: float = 0.0
    fails: bool = False
    preparing_seconds: float = 0.0
    troubles: dict[str, str] = {}
    """What a trial does in its second epoch, by its number, the first time: a method of `Trouble`; with a `!` behind
    it, every time.
    """


class Unpicklable(Exception):
    """Cannot be sent anywhere."""

    def __init__(self, message: str = "an exception that cannot be pickled"):
        super().__init__(message)
        self.held = threading.Lock()


class Trouble:
    """What may go wrong with a worker, done by itself."""

    def killed(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def told_to_end(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    def stopped(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def sleeps(self) -> None:
        time.sleep(100_000)

    def raises(self) -> None:
        raise RuntimeError("a mistake of the trainable")

    def raises_megabytes(self) -> None:
        raise RuntimeError("x" * 10_000_000)

    def raises_unpicklable(self) -> None:
        raise Unpicklable

    def leaves_children(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # and so do they
        subprocess.Popen(["sleep", "97531"])
        subprocess.Popen(["sleep", "97531"], start_new_session=True)
        subprocess.run("sleep 97531 & sleep 97531 &", shell=True, check=True, start_new_session=True)

    def leaves_children_and_is_killed(self) -> None:
        self.leaves_children()
        self.killed()

    def takes_all_memory(self) -> None:
        taken = []
        while True:
            taken.append(bytearray(os.urandom(1 << 20) * 100))
            time.sleep(0.02)


class PretendedTrial(tune.Trainable):
    """Reports `x * epoch` as `v`. As a checkpoint it keeps how many epochs it has done, one line each in `epochs`."""

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
        number, repeat = trial["key"]
        folder = Path(study["folder"]) / (f"{number}.{repeat}" if repeat else str(number))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pauses").write_text(json.dumps(study.get("pauses")))
        done = len((folder / "epochs").read_text().splitlines()) if (folder / "epochs").exists() else 0
        for epoch in range(1, trial["epochs"] + 1):
            if epoch > done:
                with (folder / "begun").open("a") as begun:
                    begun.write(f"{epoch} {time.time()}\n")
                self._misbehave(study["troubles"].get(str(trial["key"][0]), ""), folder, epoch)
                time.sleep(study["epoch_seconds"])
                with (folder / "epochs").open("a") as epochs:
                    epochs.write(f"{epoch}\n")
            if epoch > trial["epochs_reported"]:
                metrics = {"v": trial["parameters"]["x"] * epoch}
                yield {"kind": "epoch", "epoch": epoch, "metrics": metrics, "seconds": {}, "last": False}

    def _misbehave(self, trouble: str, folder: Path, epoch: int) -> None:
        before = folder / "trouble"
        if not trouble or epoch != 2 or (before.exists() and not trouble.endswith("!")):
            return
        before.touch()
        getattr(Trouble(), trouble.rstrip("!"))()


@dataclass
class Prepared:
    record: dict[str, Any]
    context: dict[str, Any]
    remarks: tuple[str, ...] = ()


class Pretender:
    """The trainable."""

    sections = {"training": Pretence}  # noqa: RUF012 - as the protocol has it
    metrics = {"v": "maximize"}  # noqa: RUF012 - as the protocol has it
    trial_class = PretendedTrial

    def settled(self, config: Any, earlier: Any) -> Any:
        return config

    def prepare(self, config: Any, largest: Any, folder: Path, progress: Any) -> Prepared:
        (folder.parent / f"{folder.name}.preparing").touch()
        time.sleep(config.training.preparing_seconds)
        return Prepared({}, {**config.training.model_dump(), "folder": str(folder / "trials")})


def first(history: History) -> list[int]:
    """The first trial as the only finalist."""
    return [history.search_trials()[0].number]


def main() -> int:
    """Search and, with finalists, rerun one; the exit code."""
    config = StudyConfig.parse(json.loads(sys.argv[1]))
    try:
        with interruptible():
            if config.final.finalists:
                with Session(config, Pretender()) as session:
                    session.search(first)
            else:
                run_study(config, Pretender())
    except Interrupted as interruption:
        return interruption.exit_code
    except (StudyStopped, ConfigurationError) as error:
        sys.stderr.write(str(error))
        return 2 if isinstance(error, ConfigurationError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
