"""The pages in docs/ do what they say: their commands run, their links lead somewhere, their settings are those of the
code.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from search.cli import app
from search.commands.settings_page import settings_page
from trainable.synthetic import draw_study

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# In the order in which somebody would read them; they share one folder and the run `first`.
PAGES = [
    "your_images.md",
    "first_search.md",
    "follow_a_search.md",
    "read_the_report.md",
    "choose_a_space.md",
    "resume_and_extend.md",
    "export_and_deploy.md",
]
# Their commands have RUN and such where a reader's own name belongs: only their names and options are held.
REFERENCE = {
    "checkpoints.md",
    "faults.md",
    "ledger.md",
    "trial_table.md",
    "decisions.md",
    "experiments.md",
}
# Followed on hosts of its own, by tests/cluster/test_guide.py.
ELSEWHERE = {"run_on_a_cluster.md"}
# What makes the pages' numbers small enough for a test; docs/README.md says that this is done.
SMALLER = {
    "architecture: mobilenetv2": "architecture: vgg16",
    "weights: imagenet": "weights: random",
    "image_size: 64": "image_size: 32",
    "{trials: 6, epochs: 3}": "{trials: 2, epochs: 1}",
    "--trials 24": "--trials 3",
    "--trials 6": "--trials 1",
}
NOT_RUN = "# not run by the tests: "


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    @property
    def runs(self):
        return self.language in ("sh", "python") and not self.text.startswith(NOT_RUN)


def blocks_of(page):
    """Fenced blocks of a page, in order; those without a language are pictures of folders."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text.count("\n", 0, hit.start()) + 2, hit[1], hit[2]) for hit in found]


def all_pages():
    return sorted(path.name for path in DOCS.glob("*.md"))


def smaller(text):
    for said, small in SMALLER.items():
        text = text.replace(said, small)
    return text


def run(block, folder):
    """Run a block as somebody would who copies it, in `folder`."""
    program = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [*program, smaller(block.text)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture
def folder(tmp_path):
    """Images as the pages have them."""
    draw_study(tmp_path, images_per_class=30, image_size=32, seed=1)
    (tmp_path / "images").rename(tmp_path / "scans")
    (tmp_path / "groups.csv").rename(tmp_path / "scans" / "groups.csv")
    draw_study(tmp_path / "new", images_per_class=3, image_size=48, seed=2).rename(tmp_path / "new_scans")
    return tmp_path


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_commands_on_the_pages_run_from_top_to_bottom(folder):
    for block in [block for page in PAGES for block in blocks_of(page)]:
        if block.language == "yaml" and block.text.startswith("# "):
            name = block.text.splitlines()[0].removeprefix("# ")
            (folder / name).write_text(smaller(block.text), encoding="utf-8")
        if block.runs:
            finished = run(block, folder)
            assert finished.returncode == 0, f"{block.page}:{block.line}\n{block.text}\n{finished.stderr}"
            assert "Traceback" not in finished.stderr, f"{block.page}:{block.line}\n{finished.stderr}"
    made = [
        "runs/first/final/model_card.md",
        "runs/first/best.yaml",
        "runs/first/report.html",
        "comparison.html",
        "runs/first/exported/model.onnx.json",
        "phone/lungs.tflite",
        "predictions.csv",
        "predictions.json",
        "heat/index.csv",
    ]
    assert [name for name in made if not (folder / name).is_file()] == []
    assert len(list((folder / "heat").glob("*.png"))) == 6


def test_every_page_with_commands_is_run():
    running = {page for page in all_pages() if any(block.runs for block in blocks_of(page))}
    assert running - set(PAGES) - REFERENCE - ELSEWHERE == set()


def options_of(words):
    """Options of the command that a line begins with; None where there is no such command."""
    command = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        if word not in command.commands:
            return None
        command = command.commands[word]
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}


@pytest.mark.parametrize("page", all_pages())
def test_commands_and_options_on_a_page_exist(page):
    lines = [line for block in blocks_of(page) if block.language == "sh" for line in block.text.splitlines()]
    commands = [line.partition(" | ")[0].partition("#")[0].split() for line in lines if line.startswith("thawline ")]
    for words in commands:
        if words[1].startswith("--"):  # --version, --install-completion
            continue
        options = options_of(words[1:])
        assert options is not None, f"{page}: {' '.join(words)}"
        assert {word for word in words if re.match("--[a-z]", word)} <= options, f"{page}: {' '.join(words)}"


@pytest.mark.parametrize("page", all_pages())
def test_what_is_not_run_says_why(page):
    skipped = [block for block in blocks_of(page) if block.language in ("sh", "python") and not block.runs]
    for block in skipped:
        reason = block.text.splitlines()[0].removeprefix(NOT_RUN)
        assert len(reason) > 10, f"{page}:{block.line}"


def test_every_number_that_is_made_smaller_stands_on_a_page():
    text = "".join(block.text for page in PAGES for block in blocks_of(page))
    assert [said for said in SMALLER if said not in text] == []


@pytest.mark.parametrize("page", all_pages())
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", (DOCS / page).read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = DOCS / (name or page)
        if path.name not in ("read_the_report.md", "follow_a_search.md"):
            assert path.exists(), f"{page}: {target}"
        if heading:
            assert f"## {heading}" in path.read_text(encoding="utf-8").lower(), f"{page}: {target}"


def test_the_index_names_every_page():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [page for page in all_pages() if page != "README.md" and f"({page})" not in index] == []


def test_the_settings_page_is_what_the_schema_says():
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == settings_page(), "run `make docs`"


def test_the_settings_page_has_every_setting_with_its_bounds_and_default():
    page = settings_page()
    for line in (
        "| `budget.trials` | whole number ≥ 1, ≤ 1,000,000 | `24` | Configurations tried. |",
        "| `data.colour` | `grey`, `rgb` | `grey` |",
        "| `data.path` | path | must be given |",
        "| `training.momentum` | number ≥ 0, < 1 | `0.9` |",
    ):
        assert line in page
    assert "`record`" not in page
