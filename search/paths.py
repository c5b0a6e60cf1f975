"""Every file a study owns, named once."""

import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from search.errors import ConfigurationError

MANIFEST = "manifest.json"
"""Of a checkpoint: written last, and without it the rest counts for nothing."""
ORIGIN = "launched.json"
"""In a run folder that is a copy of one on a cluster: of which, and when it was fetched."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str) -> str:
    """A study's name as a folder name: letters, digits, dot, dash, underscore; at most 100 characters.

    Raises:
        ConfigurationError: for anything else, so that no name can lead outside the storage folder.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"name: must be 1-100 letters, digits, `.`, `-` or `_`, starting with a letter or digit, but got {name!r}"
        )
    return name


@dataclass(frozen=True)
class StudyPaths:
    """The files of one study under `root`."""

    root: Path

    @property
    def study_file(self) -> Path:
        return self.root / "study.yaml"

    @property
    def ledger(self) -> Path:
        return self.root / "study.db"

    @property
    def journal(self) -> Path:
        """The ledger's second record."""
        return self.root / "study.events.jsonl"

    @property
    def lock(self) -> Path:
        return self.root / "study.lock"

    @property
    def split(self) -> Path:
        return self.root / "split.csv"

    @property
    def arrays(self) -> Path:
        """Decoded images."""
        return self.root / "arrays"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    def trial(self, number: int, repeat: int = 0) -> Path:
        """Folder of one trial: `trials/7`, its reruns `trials/7.1`, `trials/7.2` and so on."""
        return self.trials / (f"{number}.{repeat}" if repeat else str(number))

    def checkpoints(self, number: int, repeat: int = 0) -> Path:
        """A trial's checkpoints: a folder for each epoch that is kept, under its number."""
        return self.trial(number, repeat) / "checkpoint"

    @property
    def scratch(self) -> Path:
        """What a trainable keeps only while trials run; removed when the search is complete."""
        return self.root / "scratch"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def best(self) -> Path:
        return self.root / "best.yaml"

    @property
    def final(self) -> Path:
        return self.root / "final"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


def check_private(paths: StudyPaths) -> None:
    """Refuse to go on from a run folder in which anybody may change files; close a new one to them.

    File systems that keep no modes say of every file that anybody may write it; there it means nothing.

    Raises:
        ConfigurationError: what to look at and what to type.
    """
    mode = paths.root.stat().st_mode
    if not mode & stat.S_IWOTH or not _keeps_modes(paths.root):
        return
    if paths.study_file.exists() or paths.ledger.exists() or paths.journal.exists():
        raise ConfigurationError(
            f"storage: the run folder {paths.root} must not be writable for everybody, because a study goes on from "
            f"what lies there; make sure that it is yours, then: chmod -R o-w {paths.root}"
        )
    paths.root.chmod(stat.S_IMODE(mode) & ~stat.S_IWOTH)


def _keeps_modes(folder: Path) -> bool:
    descriptor, name = tempfile.mkstemp(dir=folder)  # asks for 0600
    os.close(descriptor)
    mode = Path(name).stat().st_mode
    Path(name).unlink()
    return not mode & stat.S_IWOTH


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder, as far as this user may look; `Path.exists` raises where it may not."""
    return os.path.exists(path)  # noqa: PTH110


def find_run(run: str | Path, storage: Path = Path("runs")) -> StudyPaths:
    """The study meant by a path or by a name under `storage`.

    Raises:
        ConfigurationError: when neither holds a study, naming the runs that exist.
    """
    found = [folder for folder in (Path(run), storage / run) if (folder / "study.yaml").is_file()]
    if found:  # a folder of images, say, may have the run's name and a study file in it
        return StudyPaths(next((folder for folder in found if (folder / "study.db").is_file()), found[0]).resolve())
    known = sorted(path.parent.name for path in storage.glob("*/study.yaml"))
    raise ConfigurationError(
        f"{run}: must be a run folder or the name of one under {storage}/, but there is no study.yaml in it; "
        + (f"known runs: {', '.join(known)}" if known else f"there are no runs under {storage}/")
    )


def shipped_study(name: str) -> Path:
    """A study file that comes with Thawline: inside the installed package, or in the checkout it is installed from."""
    package = Path(__file__).parent
    installed = package / "configs" / f"{name}.yaml"
    return installed if installed.exists() else package.parent / "configs" / f"{name}.yaml"
