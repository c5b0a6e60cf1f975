"""Which checkpoints a study keeps: those of trials that have not ended, and the best epoch's of its best completed
trials.
"""

import os
import shutil
from pathlib import Path

from search.config import StudyConfig
from search.events import EpochReported, Event, Failed, Pruned, TrialKey
from search.history import History, TrialRecord
from search.paths import StudyPaths


class Retention:
    """Removes checkpoints that nobody will want, as trials end; listens to the ledger.

    A trial's checkpoints are folders named after their epochs. While it runs they are its worker's business; while it
    is paused, what it goes on from. When it has ended, one is left at most: of the best epoch, if the trial is among
    the `final.kept_checkpoints` best completed ones of the search. The winner's final model is trained anew, so reruns
    keep none.
    """

    def __init__(self, paths: StudyPaths, config: StudyConfig, history: History):
        """Also removes what an earlier session had no time to remove."""
        self._paths, self._objective, self._most = paths, config.objective, config.final.kept_checkpoints
        self._history = history
        self.tidy()

    def tidy(self) -> None:
        """Remove whatever no longer stands for anything, as a worker that was slow to leave its trial may leave it."""
        history = self._history
        completed = [trial for trial in history.search_trials() if trial.status == "completed"]
        self._kept = self._best_of(completed)
        for trial in history.trials.values():
            if trial.ended:
                self._tidy(trial)

    def happened(self, event: Event) -> None:
        """Tidy up after a trial that has ended, and after one that is no longer among the best."""
        match event:
            case Failed() | Pruned() | EpochReported(verdict="complete" | "prune" | "fail"):
                trial = self._history.trials[TrialKey(event.number, event.repeat)]
                before = self._kept
                if trial.status == "completed" and not trial.repeat:
                    self._kept = self._best_of([*before, trial])
                for each in {one.key: one for one in (*before, trial)}.values():
                    self._tidy(each)

    def _best_of(self, completed: list[TrialRecord]) -> list[TrialRecord]:
        values = {trial.key: best[1] for trial in completed if (best := self._best(trial))}
        valued = [trial for trial in completed if trial.key in values]
        return sorted(valued, key=lambda trial: (-self._objective.sign * values[trial.key], trial.number))[: self._most]

    def _best(self, trial: TrialRecord) -> tuple[int, float] | None:
        return trial.best(self._objective)

    def _tidy(self, trial: TrialRecord) -> None:
        folder, best = self._paths.checkpoints(*trial.key), self._best(trial)
        if trial not in self._kept or not best:
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.is_dir():
            for path in folder.iterdir():
                if not (path.name.isdigit() and int(path.name) == best[0]):
                    shutil.rmtree(path, ignore_errors=True)


def checkpoint_bytes(paths: StudyPaths) -> dict[Path, int]:
    """What the checkpoints of each trial that has any take on disk, by their folder."""
    sizes = {folder: bytes_below(folder) for folder in paths.trials.glob("*/checkpoint")}
    return {folder: size for folder, size in sizes.items() if size}


def bytes_below(folder: Path) -> int:
    """Of all files below; what vanishes meanwhile, because workers are at it, does not count."""
    return sum(_size(Path(root) / name) for root, _, names in os.walk(folder) for name in names)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
