"""What documents say of tests is true."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


def names_of_tests(path):
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", ["ledger.md", "faults.md"])
def test_every_test_that_a_document_names_exists(name):
    named = TEST.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert len(named) > 10
    known = {path: names_of_tests(ROOT / path) for path, _ in named}
    assert [f"{path}::{test}" for path, test in named if test not in known[path]] == []


def rows():
    """The cells of each fault's row, by its number."""
    lines = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    return {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("| F")}


def test_every_fault_has_a_promise_and_a_test_that_is_named_after_it():
    found = rows()
    assert list(found) == sorted(found)
    assert set(found) >= {f"F{number:02d}" for number in range(1, 51)}
    for number, (promise, held_by) in found.items():
        assert promise.strip(), number
        named_after_it = [test for _, test in TEST.findall(held_by) if f"_{number.lower()}_" in test]
        assert named_after_it, f"{number}: {held_by}"
