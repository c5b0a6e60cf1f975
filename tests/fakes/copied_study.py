"""A driver as a process of its own whose study is copied to a bucket: trials are computed on the spot, and their
checkpoints are real ones.

`python copied_study.py DOCUMENT`, where DOCUMENT is JSON: what `soak.study` takes, and `Pretence`. Ends as the command
does; prints what a view is told, where each trial begins, and when the search is over.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
import soak

from search import storage_copy
from search.answers import leave
from search.errors import ConfigurationError, LedgerError, StudyStopped
from search.interruption import Interrupted, interruptible
from search.trial_source import Report
from search.view.progress import View
from trainable.checkpoint import Checkpoint, Checkpoints


@dataclass(frozen=True)
class Pretence:
    """How its trials behave, and how patient the copy is."""

    checkpoint_bytes: int = 1000
    epoch_seconds: float = 0.0
    patience: float = 60.0
    pauses: tuple[float, ...] = (0.05, 0.1)


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Telling(View):
    def say(self, text: str) -> None:
        tell(text)


class Driver(soak.Driver):
    pretence = Pretence()

    def _run(self, source: Any) -> None:
        content = np.random.default_rng(0).integers(0, 256, self.pretence.checkpoint_bytes, np.uint8)
        while request := source.ask():
            source.started(request.key, "here")
            checkpoints = Checkpoints(self.paths.checkpoints(*request.key), str(request.key))
            found = checkpoints.load()
            tell(f"trial {request.key} begins after epoch {found.epoch if found else 0}")
            for epoch in range((found.epoch if found else 0) + 1, request.epochs + 1):
                time.sleep(self.pretence.epoch_seconds)
                checkpoints.save(Checkpoint(epoch, {"weights": content}, {}))
                report = Report(epoch, {"v": soak.score(request.parameters, epoch)})
                if epoch > request.epochs_reported and source.report(request.key, report) != "continue":
                    break
        tell("the search is over")


def main() -> int:
    document = json.loads(sys.argv[1])
    Driver.pretence = Pretence(**document.pop("pretence", {}))
    storage_copy.PATIENCE_SECONDS = Driver.pretence.patience
    storage_copy._PAUSES = tuple(Driver.pretence.pauses)
    try:
        with interruptible():
            config = soak.study(Path(document.pop("folder")), **document)
            with Driver(config, soak.Pretender(), Telling()) as session:
                session.search(soak.best_two)
    except Interrupted as interruption:
        return interruption.exit_code
    except ConfigurationError as error:
        tell("\n".join(error.problems))
        return 2
    except (StudyStopped, LedgerError) as error:
        tell(str(error))
        return 1
    return 0


if __name__ == "__main__":
    leave(main())
