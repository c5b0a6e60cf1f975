"""The lock names exact versions of all that is needed and nothing else; no file leads pip anywhere."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK_LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
# Extras that the lock leaves out: they are large, or need hardware, and no test needs them.
UNLOCKED = {"cuda", "onnx", "mlflow", "dashboard", "gp"}


def _locked():
    pins = (line.split("==") for line in LOCK_LINES)
    return {canonicalize_name(name): Version(version) for name, version in pins}


def _needed():
    locked_extras = [line for extra, lines in EXTRAS.items() if extra not in UNLOCKED for line in lines]
    needed = [Requirement(line) for line in PROJECT["dependencies"] + locked_extras]
    return [requirement for requirement in needed if requirement.name != PROJECT["name"]]


def test_the_lock_holds_sorted_exact_versions_and_nothing_else():
    assert [line for line in LOCK_LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    assert sorted(LOCK_LINES, key=str.upper) == LOCK_LINES
    assert len(_locked()) == len(LOCK_LINES)


@pytest.mark.parametrize("requirement", _needed(), ids=str)
def test_the_lock_meets_every_requirement(requirement):
    assert canonicalize_name(requirement.name) in _locked()
    assert requirement.specifier.contains(_locked()[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("line", PROJECT["dependencies"] + [line for lines in EXTRAS.values() for line in lines])
def test_every_requirement_has_both_bounds(line):
    requirement = Requirement(line)
    operators = {bound.operator for bound in requirement.specifier}
    assert requirement.name == PROJECT["name"] or operators in ({">=", "<"}, {"=="})


def test_every_requirement_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text[text.index("\ndependencies = [") : text.index("[project.scripts]")]
    lines = [line.strip() for line in section.splitlines() if re.search(r'"[a-z]', line, re.IGNORECASE)]
    assert len(lines) > 20
    assert [line for line in lines if "#" not in line] == []


def test_no_file_leads_pip_to_an_index_of_its_own():
    leads = re.compile(
        r"--(extra-)?index-url|--find-links|\bextra-index-url\b|\b(simple|pypi)/?\s*file:|pypi\.[a-z]+/simple"
    )
    assert [path for path in _files() if leads.search((ROOT / path).read_text(encoding="utf-8", errors="ignore"))] == []


def _files():
    """Text files of the project, as git sees it, this one aside."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    here = Path(__file__).resolve()
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [path.relative_to(ROOT) for path in paths if path.is_file() and path != here]
