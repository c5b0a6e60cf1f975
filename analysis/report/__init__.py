"""report.html: what a study found, in one offline file; and several studies side by side."""

from collections.abc import Sequence
from pathlib import Path

from analysis.report.page import Page
from analysis.report.run import Limits, Run, read_run
from search.whole_file import write_whole

__all__ = ["write_comparison", "write_report"]


def write_report(run: str | Path, output: Path | None = None, limits: Limits | None = None) -> Path:
    """Write what is known now, whether the search has ended or not; the same ledger gives the same file.

    Args:
        run: A run folder, or the name of one under `runs/`.
        output: Where; default: `report.html` in the run folder. Missing folders are made.
        limits: Lowest and highest possible value of hyperparameters by name: a best value there is at no edge.

    Returns:
        Where it was written.

    Raises:
        ConfigurationError: when there is no such run.
        LedgerError: when its ledger is missing or damaged.
    """
    from analysis.report import answer, course, data, final, space

    study = read_run(run, limits or {})
    sections = [
        answer.answer,
        space.importance,
        space.depth,
        space.interaction,
        space.ends,
        course.convergence,
        course.pruning,
        space.parallel,
        course.curves,
        course.workers,
        course.failures,
        course.trial_table,
        data.data,
        final.evaluation,
        data.repetition,
    ]
    page = Page(study.name, "Fine-tuning study", answer.summary(study), [make(study) for make in sections])
    return _write(page, output or study.paths.report)


def write_comparison(runs: Sequence[Run], output: Path) -> Path:
    """Write several runs, as `read_run` gives them, side by side; missing folders are made.

    Returns:
        Where it was written.
    """
    from analysis.report.side_by_side import comparison_page

    return _write(comparison_page(runs), output)


def _write(page: Page, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.render())
    return path
