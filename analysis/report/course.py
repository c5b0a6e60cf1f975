"""How the search went: convergence, pruning, learning curves, workers, failures, and the table of all trials."""

import math
from collections import Counter
from collections.abc import Mapping

import pandas as pd

from analysis.convergence import Curve, best_by_trial, best_by_worker_second, last_improvement
from analysis.course_plots import draw_convergence, draw_learning_curves, draw_prospects, draw_shares, draw_timeline
from analysis.pruning import Prospect, prospects, savings
from analysis.report.page import Block, Cell, LiveTable, Plot, Section, Table
from analysis.report.run import Run
from analysis.report.wording import count, duration, listed, number, score, several, share
from analysis.selection import rank
from analysis.trials import table_from_history, to_json_rows
from analysis.utilisation import time_by_kind, utilisation
from search.history import TrialRecord

MOST_PROSPECTS = 20
MOST_CURVES = 6
MOST_REASONS = 12
KINDS = {
    "train": "training",
    "validation": "validation",
    "setup": "set-up",
    "checkpoint": "checkpoints",
    "other": "rest",
}
MAIN = ("number", "status", "value", "best_epoch", "epochs_run", "train_seconds", "reason")


def convergence(run: Run) -> Section:
    """How fast the search got better, by trial and by worker time."""
    title = "How fast the search got better"
    by_trial = best_by_trial(run.trials, run.config.objective)
    by_second = best_by_worker_second(run.trials, run.config.objective)
    at, when = last_improvement(by_trial), last_improvement(by_second)
    if at is None or when is None:
        return Section("convergence", title, ["No trial has a value yet."])
    minutes = Curve(by_second.spent / 60, by_second.value, by_second.best)
    plots = [
        Plot("By trial", draw_convergence(by_trial, run.metric, "trials"), half=True),
        Plot("By worker time", draw_convergence(minutes, run.metric, "worker time, minutes"), half=True),
    ]
    later = len(run.trials) - at - 1
    spent = by_second.spent[when] / by_second.spent[-1] if by_second.spent[-1] else math.nan
    after = f"The {count(later, 'trial')} after it brought nothing better." if later else "It was the last one so far."
    finding = (
        f"The best value, {score(float(by_trial.best[at]))}, came from trial {run.trials[at].number}, after "
        f"{share(spent)} of the worker time. {after}"
    )
    return Section("convergence", title, [finding], plots)


def pruning(run: Run) -> Section:
    """What pruning saved, and whether a pruned trial might have won."""
    title = "What pruning saved, and what it may have cost"
    saved = savings(run.trials, run.config.budget.epochs)
    if not saved.pruned:
        return Section("pruning", title, [f"No trial was pruned ({run.config.pruner.name})."])
    finding = (
        f"{count(saved.pruned, 'trial')} ended early, which saved {count(saved.epochs, 'epoch')} beside the "
        f"{number(saved.epochs_run)} that were run; at each trial's own pace an estimated {duration(saved.seconds)} of "
        f"worker time beside {duration(saved.seconds_run)}."
    )
    completed = [run.best_value(trial) for trial in run.trials if trial.status == "completed"]
    found = prospects(run.trials, run.config.objective)
    if not found:
        lacking = "no pruned trial has a value" if completed else "no trial has completed"
        return Section("pruning", title, [finding, f"Whether one might have won cannot be told: {lacking}."])
    if unknown := saved.pruned - len(found):
        finding += f" {count(unknown, 'pruned trial')} without a value may have won or not."
    best = max(
        (value for value in completed if not math.isnan(value)), key=lambda value: run.config.objective.sign * value
    )
    shown = found[:MOST_PROSPECTS]
    heading = "Where pruned trials might have ended" + (
        f": the likeliest {len(shown)}" if len(found) > len(shown) else ""
    )
    plot = Plot(heading, draw_prospects(shown, best, run.metric, run.config.objective.sign))
    note = (
        "To each pruned trial's value are added the gains that completed trials made after the same epoch. Completed "
        "trials were in good standing; one that was behind may gain more, or less. Reruns of a pruned finalist, which "
        "go to the end, settle it."
    )
    return Section("pruning", title, [finding, _might_have_won(found)], [plot], note)


def _might_have_won(found: list[Prospect]) -> str:
    first, likely = found[0], [each for each in found if each.gained_as_much]
    if first.needed <= 0:
        return f"Trial {first.number} was already ahead of the best completed trial when it was pruned."
    needed = (
        f"trial {first.number} would have had to gain {score(first.needed)} after epoch {first.epoch}, and "
        f"{first.gained_as_much or 'none'} of {count(len(first.gains), 'completed trial')} did"
    )
    if not likely:
        most = f"; the most was {score(float(first.gains.max()))}" if len(first.gains) else ""
        return f"Probably none of them would have won: {needed}{most}."
    others = [each.number for each in likely[1:]]
    also = f" Less likely, but possible: {several([f'trial {each}' for each in others])}." if others else ""
    return f"A pruned trial might have won: {needed}.{also}"


def curves(run: Run) -> Section:
    """Values by epoch of the winner, its reruns and the next best, before all others."""
    title = "Learning curves"
    if not run.valued:
        return Section("curves", title, ["No trial has a value yet."])
    chosen = _chosen(run)
    others = [trial.values(run.metric) for trial in run.valued if f"trial {trial.key}" not in chosen]
    plot = Plot(f"{run.metric} by epoch", draw_learning_curves(chosen, others, run.metric))
    completed = [trial for trial in run.valued if trial.status == "completed"]
    last = [t for t in completed if _best_epoch(run, t) == run.config.budget.epochs]
    finding = "No trial has completed yet."
    if completed:
        finding = (
            f"{len(last)} of {count(len(completed), 'completed trial')} were at their best in the last epoch allowed"
        )
        finding += (
            "; a larger `budget.epochs` may give better values." if 2 * len(last) > len(completed)
            else "; the others had peaked before."
        )  # fmt: skip
    return Section("curves", title, [finding], [plot])


def _chosen(run: Run) -> dict[str, Mapping[int, float]]:
    best = rank(run.valued, run.config.objective)
    winner = run.winner["number"] if run.winner else None
    first = [*(t for t in best if t.number == winner), *run.history.reruns(winner if winner is not None else -1)]
    picked = [*first, *(trial for trial in best if trial.number != winner)][:MOST_CURVES]
    return {_label(trial): trial.values(run.metric) for trial in picked if trial.values(run.metric)}


def _label(trial: TrialRecord) -> str:
    return f"trial {trial.number}, rerun {trial.repeat}" if trial.repeat else f"trial {trial.number}"


def _best_epoch(run: Run, trial: TrialRecord) -> int:
    return (trial.best(run.config.objective) or (0, 0.0))[0]


def workers(run: Run) -> Section:
    """Who worked when, and what the time went into."""
    title = "What the workers did"
    everything = list(run.history.trials.values())
    used = utilisation(everything, run.history.used_seconds)
    if not used.spans:
        return Section("workers", title, ["No trial has started yet."])
    parts = {name: seconds for name, seconds in time_by_kind(everything).items() if seconds > 0}
    total = math.fsum(parts.values())
    finding = (
        f"At most {count(used.lanes, 'training run')} at once, at work for {share(used.share)} of the "
        f"{duration(used.wall_seconds)} from the first start to the last end, reruns included."
    )
    blocks: list[Block] = [Plot("Training runs side by side", draw_timeline(used))]
    findings = [finding]
    if total:
        split = listed(f"{share(seconds / total)} {KINDS[name]}" for name, seconds in parts.items())
        findings.append(f"Of the time of the runs that ended: {split}.")
        blocks.append(Plot("What the time went into", draw_shares({KINDS[name]: parts[name] for name in parts})))
    note = (
        "Used time: pauses between sessions do not count. Set-up is from a configuration's arrival to its first epoch; "
        "the rest is what workers did not measure: waiting for the driver, and work that was lost with a worker."
    )
    return Section("workers", title, findings, blocks, note)


def failures(run: Run) -> Section:
    """What failed, why, and what was lost on the way."""
    title = "Failures"
    everything = list(run.history.trials.values())
    failed = [trial for trial in everything if trial.status == "failed"]
    again = [trial for trial in everything if trial.attempts > 1]
    findings = [f"{count(len(failed), 'training run')} of {len(everything)} failed." if failed else "No trial failed."]
    if again:
        names = several([_label(trial) for trial in again])
        findings.append(f"Taken up again after a worker or the driver was lost: {names}.")
    reasons = Counter(trial.reason or "no reason given" for trial in failed).most_common(MOST_REASONS)
    rows = [
        (reason, number(times), several([_label(t) for t in failed if (t.reason or "no reason given") == reason]))
        for reason, times in reasons
    ]
    blocks = [Table(["reason", "times", "which"], rows)] if rows else []
    return Section("failures", title, findings, blocks)


def trial_table(run: Run) -> Section:
    """Every trial, sortable and filterable."""
    table = table_from_history(run.history, run.config)
    if table.empty:
        return Section("trials", "All trials", ["No trial has been asked for yet."])
    known = [name for name in map(str, table.columns) if table[name].notna().any() and not _unmeasured(table[name])]
    main = {*MAIN, *run.config.space}
    rows = [[_cell(row[name]) for name in known] for row in to_json_rows(table[known])]
    live = LiveTable("Trials of the search", known, frozenset(known) - main, rows)
    finding = (
        "A column's name sorts by it. The filter takes words, and conditions such as `status=completed` or "
        "`value>0.8`; all must hold."
    )
    return Section("trials", "All trials", [finding], [live], "Every column is explained in docs/trial_table.md.")


def _unmeasured(column: "pd.Series") -> bool:
    """Seconds are 0 where nobody measured them."""
    return str(column.name).endswith("_seconds") and bool((column.fillna(0) == 0).all())


def _cell(value: bool | float | str | None) -> Cell:
    if isinstance(value, bool):
        return Cell(str(value).lower(), str(value).lower())
    if isinstance(value, float) and not value.is_integer() and 1e-3 <= abs(value) < 1e5:
        return Cell(f"{value:.4g}", value)
    if isinstance(value, int):
        return Cell(str(value), value)
    return Cell("" if value is None else number(value) if isinstance(value, float) else value, value)
