"""The notebook in examples/ runs from top to bottom, and what git holds of it is clean."""

import os
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_is_a_notebook():
    assert [path.name for path in NOTEBOOKS] == ["first_search.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_outputs_and_nothing_of_a_machine_are_kept(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert [cell.source for cell in code_of(notebook) if cell.outputs or cell.execution_count is not None] == []
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert dict(notebook.metadata.language_info) == {"name": "python"}
    assert all(set(cell.metadata) == set() for cell in notebook.cells)
    assert "/home" not in path.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel draws into the notebook
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    notebook = read(path)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert "same probabilities as model.keras" in text
    assert "locked test set" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert len(list((tmp_path / "heat").glob("*.png"))) == 40
    assert (tmp_path / "runs" / "notebook" / "final" / "metrics.json").is_file()
