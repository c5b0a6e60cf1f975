"""Whether a cluster can do a study, before anything runs: every problem at once."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from search.config import StudyConfig
from search.placement import TrialResources, check_fits, nodes_to_plan_for

MODULES = (  # that sent code imports; what they are installed as is in pyproject.toml
    "ray", "tensorflow", "keras", "optuna", "numpy", "sklearn", "pandas", "scipy", "pydantic", "typer", "rich", "yaml",
    "PIL", "matplotlib", "pyarrow", "jinja2", "plotly", "h5py", "grpc",
)  # fmt: skip


def code_is_sent(there: Mapping[str, Any], wanted: bool) -> bool:
    """Whether our code goes along: where it is wanted, and where the cluster has none or another version."""
    return wanted or there["thawline"] != metadata.version("thawline")


def problems_of(
    config: StudyConfig, there: Mapping[str, Any], nodes: Sequence[Mapping[str, float]], elsewhere: Mapping[str, Path]
) -> list[str]:
    """Why the search cannot run there.

    Args:
        config: The study.
        there: What the probe found.
        nodes: Resources of the nodes that are there now.
        elsewhere: Paths by setting that are not here, so that they must be there.
    """
    return [*_resource_problems(config, there, nodes), *_path_problems(there, elsewhere)]


def code_problems(there: Mapping[str, Any]) -> list[str]:
    """Why code that is sent could not run there."""
    here = platform.python_version()
    problems = []
    if _minor(here) != _minor(there["python"]):
        problems.append(
            f"Python must be of one minor version at both ends when code is sent, but is {here} here and "
            f"{there['python']} there; install thawline {metadata.version('thawline')} on the cluster instead"
        )
    missing = [name for name in MODULES if name not in there["modules"]]
    if missing:
        problems.append(
            f"the cluster must have the packages that thawline needs, but lacks {', '.join(missing)}; install "
            f"thawline {metadata.version('thawline')} on it"
        )
    return problems


def _resource_problems(
    config: StudyConfig, there: Mapping[str, Any], nodes: Sequence[Mapping[str, float]]
) -> list[str]:
    asked = config.resources
    per_trial = TrialResources(asked.cpus_per_trial, asked.gpus_per_trial)
    problem = check_fits(nodes_to_plan_for(there["launcher"], nodes), per_trial)
    return [f"resources: {problem}"] if problem else []


def _path_problems(there: Mapping[str, Any], elsewhere: Mapping[str, Path]) -> list[str]:
    return [
        f"{setting}: must exist here, to be sent, or on the cluster's head, but {path} is in neither place"
        for setting, path in elsewhere.items()
        if str(path) not in there["paths"]
    ]


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
