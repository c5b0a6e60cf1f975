"""What is sent to a cluster, packed: the study file, the code where it is wanted, images and weights from here."""

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from search.config import StudyConfig
from search.errors import ConfigurationError
from search.paths import is_there
from search.safe_yaml import to_yaml
from search.whole_file import sha256

LIMIT = 100 * 1024**2  # bytes; what Ray's dashboard takes at a time (DASHBOARD_CLIENT_MAX_SIZE, Ray 2.60)
ROOM = 1024**2  # bytes of it that are left for the zip's own entries and the errands
RUNS = "~/thawline/runs"  # on the head
INPUTS = "~/thawline/inputs"
PACKAGES = ("search", "trainable", "analysis")
STUDY_FILE = "study.yaml"
MOST_PROBLEMS = 10  # that are told
_MOMENT = (1980, 1, 1, 0, 0, 0)  # of every file in a package, so that the same content is the same package


@dataclass(frozen=True)
class Inputs:
    """Files and folders of a study that are here.

    Attributes:
        paths: By setting (`data.path`), where each is here.
        there: By setting, where each will be on the head; the name of its folder stands for the content.
        target: That folder.
        size: Bytes of all.
    """

    paths: dict[str, Path]
    there: dict[str, str]
    target: str
    size: int

    def files(self) -> Iterator[tuple[str, Path]]:
        """Name in the package and path here of every file."""
        for number, path in enumerate(self.paths.values()):
            for file in _files(path):
                yield "/".join(("inputs", str(number), path.name, *file.relative_to(path).parts)), file


def paths_of(config: StudyConfig) -> dict[str, Path]:
    """The paths that a study's trainable is told, by setting."""
    return {
        f"{section}.{name}": value
        for section in ("data", "model", "training")
        if isinstance(settings := getattr(config, section), BaseModel)
        for name, value in settings
        if isinstance(value, Path)
    }


def inputs_of(paths: Mapping[str, Path]) -> Inputs | None:
    """Those of the paths that exist here; None when there are none.

    Raises:
        ConfigurationError: when they are too much to send, or would not arrive as a search here finds them.
    """
    here = {setting: path for setting, path in paths.items() if is_there(path)}
    if not here:
        return None
    problems = [f"{setting}: {problem}" for setting, path in here.items() for problem in _unsendable(path)]
    if problems:
        more = f"and {len(problems) - MOST_PROBLEMS} more like these"
        raise ConfigurationError(problems[:MOST_PROBLEMS] + [more] * (len(problems) > MOST_PROBLEMS))
    size = sum(file.stat().st_size for path in here.values() for file in _files(path))
    if size > LIMIT - ROOM:
        raise ConfigurationError(
            f"{', '.join(here)}: what is sent must have less than {LIMIT / 1e6:.0f} MB, which is what Ray's dashboard "
            f"takes, but has {size / 1e6:.0f} MB; put it where the cluster's head sees it and give the path there: "
            + " ".join(f"--set {setting}=/path/there" for setting in here)
        )
    plain = Inputs(here, {}, "", size)
    content = hashlib.sha256()
    for name, file in plain.files():
        content.update(f"{name}\0{sha256(file)}\n".encode("utf-8", "surrogateescape"))
    target = f"{INPUTS}/{content.hexdigest()[:32]}"
    there = {setting: f"{target}/{number}/{path.name}" for number, (setting, path) in enumerate(here.items())}
    return Inputs(here, there, target, size)


def _unsendable(path: Path) -> list[str]:
    """What of a file or folder would be lost or changed on its way, each with what to do."""
    failures: list[OSError] = []
    names = [path] if path.is_file() else []
    for folder, below, files in () if names else os.walk(path, onerror=failures.append):
        names += [Path(folder, name) for name in sorted([*below, *files])]
    links = [
        f"{each} is a link; put what it leads to in its place" for each in names if each != path and each.is_symlink()
    ]
    named = [
        f"{os.fsencode(each)!r} must have a name in UTF-8 without a backslash; rename it"
        for each in names
        if "\\" in each.name or not _is_utf8(each.name)
    ]
    return [*(f"{each.filename}: {each.strerror}" for each in failures), *links, *named]


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def study_there(config: StudyConfig, inputs: Inputs | None) -> str:
    """The study file that the cluster gets: this study, with the paths of the head."""
    document = config.model_dump(mode="json", exclude_unset=True, exclude={"record"})
    document |= {"name": config.name, "storage": RUNS}
    document["resources"] = {**document.get("resources", {}), "address": "auto"}
    for setting, path in (inputs.there if inputs else {}).items():
        section, name = setting.split(".")
        document.setdefault(section, {})[name] = path
    return to_yaml(document)


def pack_search(study: str, with_code: bool, target: Path) -> Path:
    """The package that a search runs from; `target` gets it and gives it its name."""
    files = list(_code()) if with_code else []
    return _write(target, [], [(STUDY_FILE, study.encode()), *((name, path.read_bytes()) for name, path in files)])


def pack_errands(target: Path, inputs: Inputs | None = None) -> Path:
    """The package with what runs on the head beside a search, and with inputs where there are some to send."""
    errands = sorted(Path(__file__).with_name("errands").glob("*.py"))
    return _write(target, inputs.files() if inputs else [], [(path.name, path.read_bytes()) for path in errands])


def _code() -> Iterator[tuple[str, Path]]:
    """Every file of the three packages and the study files that come with them, as they are laid out installed."""
    root = Path(__file__).parents[2]
    for package in PACKAGES:
        for path in _files(root / package):
            if path.suffix != ".pyc":
                yield path.relative_to(root).as_posix(), path
    if not (root / "search" / "configs").exists():
        for path in sorted((root / "configs").glob("*.yaml")):
            yield f"search/configs/{path.name}", path


def _write(target: Path, files: Iterable[tuple[str, Path]], contents: Iterable[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(target, "w") as package:
        for name, content in contents:
            package.writestr(_entry(name), content, zipfile.ZIP_DEFLATED)
        for name, path in files:  # images and weights, which are packed already
            package.writestr(_entry(name), path.read_bytes(), zipfile.ZIP_STORED)
    return target


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _MOMENT)
    entry.external_attr = 0o600 << 16
    return entry


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())


def digest_of(document: Any) -> str:
    """Stands for a study file and the way it is searched: the same when nothing about them has changed."""
    return hashlib.sha256(str(document).encode()).hexdigest()
