"""An errand: one piece of work that a node of the cluster does for this one, which lacks a GPU."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.desk import Home, open_desk
from search.node_folder import node_folder
from search.outpost import Line, Outpost
from search.paths import StudyPaths

LOOK_SECONDS = 0.5  # between looks at how far it is
RETRIES = 5  # when its node goes away, it begins anew on another


@dataclass(frozen=True)
class Errand:
    """What is to be done.

    Attributes:
        name: Of a folder beside the trials', in which the result comes back.
        work: A function that can be imported; gets the arguments, a folder for its result, and whom to tell its
            progress.
        arguments: Plain values; paths in them are brought to the node.
        mark: Name of the file without which there is no result.
        resources: `CPU` and `GPU` that it takes.
    """

    name: str
    work: Callable[..., None]
    arguments: Mapping[str, Any]
    mark: str
    resources: Mapping[str, float]


def run_errand(errand: Errand, paths: StudyPaths, result: Path, progress: Callable[[str, int, int], None]) -> None:
    """Have it done on the connected cluster; its files then lie in `result`, the mark put there last.

    Raises:
        Exception: whatever the work raised.
    """
    import ray

    folder = paths.trials / errand.name
    shutil.rmtree(folder, ignore_errors=True)
    with open_desk(Home.of(paths, errand.arguments)) as home:
        options = {"num_cpus": errand.resources["CPU"], "num_gpus": errand.resources["GPU"]}
        done: Any = ray.remote(_do).options(**options, max_retries=RETRIES).remote(home, errand)
        line, before = Line(home.desk), None
        while not ray.wait([done], timeout=LOOK_SECONDS)[0]:
            if (now := line.ask("told")) not in (None, before):
                progress(*now)
                before = now
        ray.get(done)
    _take(folder / "checkpoint" / _RESULT, result, errand.mark)
    shutil.rmtree(folder)


_RESULT = "000001"  # what a trial would call its first epoch


def _do(home: Home, errand: Errand) -> None:
    line = Line(home.desk)
    outpost = Outpost(home, line, node_folder())
    outpost.take(errand.name)
    outpost.bring()
    result = outpost.placed(StudyPaths(home.root).trials) / errand.name / "checkpoint" / _RESULT
    shutil.rmtree(result, ignore_errors=True)  # of a try whose node died
    result.mkdir(parents=True)
    errand.work(**outpost.placed(errand.arguments), result=result, progress=lambda *told: line.ask("tell", *told))
    outpost.hand_over(all_of_it=True)


def _take(folder: Path, result: Path, mark: str) -> None:
    """Move the files; what was marked whole before is not, until all of them are there."""
    files = sorted(folder.iterdir(), key=lambda path: path.name == mark)
    result.mkdir(exist_ok=True)
    (result / mark).unlink(missing_ok=True)
    for path in files:
        path.replace(result / path.name)
