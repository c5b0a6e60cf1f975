"""Which package may know of which; how heavy an import is; and that the packages work outside the repository."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("search", "trainable", "analysis")
HEAVY = ("ray", "tensorflow", "keras")
# What describes a study and what happened in it, in Optuna's terms too, and how a file is written whole; nothing that
# could drive a study.
OPEN_TO_ANALYSIS = {
    f"search.{module}"
    for module in (
        "config",
        "errors",
        "events",
        "history",
        "ledger",
        "optuna_terms",
        "paths",
        "safe_yaml",
        "space",
        "whole_file",
    )
}


def imports_of(source, package=""):
    """Every module that Python source imports, anywhere in it, as dotted names; `from a import b` counts as `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(part for part in (package if node.level else "", node.module) if part)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def _imports(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ has no modules"
    return {
        (str(path.relative_to(ROOT)), name)
        for path in files
        for name in imports_of(path.read_text(encoding="utf-8"), package)
    }


def _top(name):
    return name.partition(".")[0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b", {"a.b"}),
        ("from a import b, c", {"a.b", "a.c"}),
        ("def f():\n    from a.b import c", {"a.b.c"}),
        ("from . import b", {"here.b"}),
        ("from .b import c", {"here.b.c"}),
    ],
)
def test_imports_are_found_wherever_they_stand(source, expected):
    assert imports_of(source, "here") == expected


def test_trainable_knows_of_neither_sibling():
    assert {hit for hit in _imports("trainable") if _top(hit[1]) in ("search", "analysis")} == set()


def test_only_the_command_line_joins_the_packages():
    joining = {hit[0] for hit in _imports("search") if _top(hit[1]) in ("trainable", "analysis")}
    assert {path for path in joining if path != "search/cli.py" and not path.startswith("search/commands/")} == set()


def test_analysis_knows_a_study_only_by_what_describes_it():
    from_search = {hit for hit in _imports("analysis") if _top(hit[1]) == "search"}
    allowed = {hit for hit in from_search if {hit[1], hit[1].rpartition(".")[0]} & OPEN_TO_ANALYSIS}
    assert from_search - allowed == set()


def test_analysis_needs_neither_trainable_nor_what_trains():
    assert {hit for hit in _imports("analysis") if _top(hit[1]) in ("trainable", *HEAVY)} == set()


def _python(code, folder):
    """What `code` prints when it runs in another folder, so that only what is installed is found."""
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


def test_the_packages_are_found_from_outside_the_repository(tmp_path):
    found = _python(
        f"import {', '.join(PACKAGES)}; print({', '.join(f'{name}.__file__' for name in PACKAGES)})", tmp_path
    )
    assert [Path(path).parent.name for path in found] == list(PACKAGES)


def test_importing_the_packages_starts_nothing_heavy(tmp_path):
    code = f"import sys, {', '.join(PACKAGES)}; print(*({set(HEAVY)!r} & set(sys.modules)))"
    assert _python(code, tmp_path) == []
