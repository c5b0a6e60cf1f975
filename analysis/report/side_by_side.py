"""Several runs on one page: what each found, and the pictures laid over each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.visualization import plot_edf

from analysis.contrast import Contrast, Outcome, contrast, outcome
from analysis.contrast_plots import draw_comparisons, draw_convergences, draw_distributions, draw_intervals
from analysis.convergence import Curve, best_by_trial, best_by_worker_second
from analysis.depth import compare_at_epoch
from analysis.evaluation import stated
from analysis.report.answer import outdated
from analysis.report.page import Block, Page, Plot, Section, Table, Warnings
from analysis.report.run import Run
from analysis.report.space import DEPTH
from analysis.report.wording import NONE, count, duration, listed, number, plus_minus, recipe, score, words
from search.optuna_terms import as_if_completed


def contrast_runs(runs: Sequence[Run]) -> Contrast:
    """What the runs differ in, by what is on disk."""
    names = _names(runs)
    outcomes = [
        outcome(name, run.config, run.history, _scores(run), earlier=outdated(run) is not None)
        for name, run in zip(names, runs, strict=True)
    ]
    return contrast(outcomes, [run.config for run in runs])


def _scores(run: Run) -> Mapping[str, Any]:
    return run.evaluation.metrics if run.evaluation else {}


def comparison_page(runs: Sequence[Run]) -> Page:
    """One page over two or more runs."""
    found = contrast_runs(runs)
    names = [each.name for each in found.outcomes]
    sections = [_answer(found), _differences(found), _convergence(runs, names), _depth(runs, names)]
    sections += [_values(runs, names), _tests(found)]
    return Page(listed(names), "Studies side by side", [count(len(runs), "run")], sections)


def rows_side_by_side(found: Contrast) -> list[list[str]]:
    """A row per fact, a column per run after the name of the fact."""
    outcomes = found.outcomes
    metrics = dict.fromkeys(name for each in outcomes for name in each.test)
    facts: list[tuple[str, list[str]]] = [
        ("objective", [f"{each.metric}, {each.direction}" for each in outcomes]),
        ("winner's value in the search", [score(each.value) for each in outcomes]),
        ("mean on fresh seeds ± standard error", [_mean(each) for each in outcomes]),
        ("winner", [NONE if each.number is None else f"trial {each.number}" for each in outcomes]),
        *_parameters(outcomes),
        ("trials", [_statuses(each) for each in outcomes]),
        ("epochs", [number(each.epochs) for each in outcomes]),
        ("worker time", [duration(each.worker_seconds) for each in outcomes]),
        *((f"test {words(name)}", [_tested(each, name) for each in outcomes]) for name in metrics),
        ("data fingerprint", [(each.fingerprint or NONE)[:12] for each in outcomes]),
    ]
    return [[name, *values] for name, values in facts]


def _names(runs: Sequence[Run]) -> list[str]:
    """Folder names; where two are the same, with as many of the folders above as tell them apart."""
    paths = [run.paths.root.absolute().parts for run in runs]
    return [_shortest(path, [other for other in paths if other != path]) for path in paths]


def _shortest(path: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    """The end of `path` that none of the others has."""
    lengths = range(1, len(path))
    length = next((n for n in lengths if all(other[-n:] != path[-n:] for other in others)), len(path))
    return "/".join(path[-length:])


def _parameters(outcomes: Sequence[Outcome]) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for each in outcomes for name in each.parameters)
    return [(f"winner's {words(name)}", [number(each.parameters.get(name)) for each in outcomes]) for name in names]


def _mean(each: Outcome) -> str:
    if each.mean is None:
        return "not rerun"
    return f"{plus_minus(each.mean, each.standard_error)} ({count(each.seeds, 'seed')})"


def _statuses(each: Outcome) -> str:
    split = listed(f"{amount} {status}" for status, amount in sorted(each.statuses.items()))
    return f"{sum(each.statuses.values())}: {split}" if split else "0"


def _tested(each: Outcome, name: str) -> str:
    if name not in each.test:
        return NONE
    return stated(each.test[name]) + (", an earlier model's" if each.earlier else "")


def _answer(found: Contrast) -> Section:
    blocks: list[Block] = [Warnings(found.warnings)] if found.warnings else []
    blocks.append(Table(["", *(each.name for each in found.outcomes)], rows_side_by_side(found)))
    return Section("answer", "What each run found", [_headline(found), *_recipes(found)], blocks)


def _headline(found: Contrast) -> str:
    """Who is ahead, where that can be said."""
    if found.warnings:
        return "These runs cannot be compared by their scores."
    known = [each for each in found.outcomes if each.mean is not None]
    if len(known) < 2:
        return "Fewer than two of the runs were tried on fresh seeds, so it is open which found more."
    first, second = sorted(known, key=lambda each: each.mean or 0.0, reverse=known[0].direction == "maximize")[:2]
    ahead = f"{first.name} has the best mean {first.metric} on fresh seeds, {_mean(first)}, before {second.name} with"
    return f"{ahead} {_mean(second)}."


def _recipes(found: Contrast) -> list[str]:
    return [f"{each.name}: {recipe(each.parameters)}." for each in found.outcomes if each.parameters]


def _differences(found: Contrast) -> Section:
    title = "What differs in their configuration"
    if not found.differing:
        return Section("differences", title, ["Nothing: the configurations are the same."])
    rows = [[name, *(_setting(value) for value in values)] for name, values in found.differing.items()]
    finding = f"{count(len(rows), 'setting')} differ{'s' if len(rows) == 1 else ''}; all others are the same."
    return Section("differences", title, [finding], [Table(["setting", *(e.name for e in found.outcomes)], rows)])


def _setting(value: Any) -> str:
    return NONE if value is None else number(value) if isinstance(value, int | float | str) else str(value)


def _convergence(runs: Sequence[Run], names: Sequence[str]) -> Section:
    by_trial = {name: best_by_trial(r.trials, r.config.objective) for name, r in zip(names, runs, strict=True)}
    by_time = {name: _minutes(run) for name, run in zip(names, runs, strict=True)}
    metric = _metrics(runs)
    plots = [
        Plot("By trial", draw_convergences(by_trial, metric, "trials"), half=True),
        Plot("By worker time", draw_convergences(by_time, metric, "worker time, minutes"), half=True),
    ]
    finding = "The best value so far, as the search saw it: the luckiest of many, without reruns."
    return Section("convergence", "How fast each got better", [finding], plots)


def _minutes(run: Run) -> Curve:
    curve = best_by_worker_second(run.trials, run.config.objective)
    return Curve(curve.spent / 60, curve.value, curve.best)


def _metrics(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(run.metric for run in runs))


def _depth(runs: Sequence[Run], names: Sequence[str]) -> Section:
    title = "Freeze depth side by side"
    compared = {
        name: found
        for name, run in zip(names, runs, strict=True)
        if len((found := compare_at_epoch(run.valued, run.config.objective, 1, DEPTH)).settings)
    }
    if not compared:
        return Section("depth", title, [f"No run has a trial with a value that varied {words(DEPTH)}."])
    values = [float(value) for each in compared.values() for value in each.value]
    margin = 0.12 * (max(values) - min(values)) or 0.05
    plot = Plot(
        "Mean after 1 epoch, when no trial has been pruned yet",
        draw_comparisons(compared, _metrics(runs), words(DEPTH), (min(values) - margin, max(values) + margin)),
    )
    note = "With 95 % intervals (Student's t); a depth with one trial has none, those of two may leave the picture."
    return Section(
        "depth", title, ["Each depth's mean over its trials, whatever their other hyperparameters."], [plot], note
    )


def _values(runs: Sequence[Run], names: Sequence[str]) -> Section:
    """Optuna's empirical distribution of the values."""
    studies = [_study(run, name) for name, run in zip(names, runs, strict=True) if run.valued]
    title = "How good their trials were"
    if not studies:
        return Section("values", title, ["No run has a trial with a value."])
    drawn = plot_edf(studies, target_name=_metrics(runs))
    finding = (
        "For each value, the share of a run's trials that were not above it; pruned trials with what they reached."
    )
    return Section(
        "values", title, [finding], [Plot("Distribution of values", draw_distributions(drawn, _metrics(runs)))]
    )


def _study(run: Run, name: str) -> optuna.Study:
    return as_if_completed(run.valued, run.config.space, run.config.objective, name)


def _tests(found: Contrast) -> Section:
    title = "On the test part"
    tested = {each.name: each.test for each in found.outcomes if each.test and not each.earlier}
    earlier = [each.name for each in found.outcomes if each.test and each.earlier]
    left_out = [f"Not in the picture, because an earlier model was evaluated: {listed(earlier)}."] if earlier else []
    if not tested:
        return Section("test", title, left_out or ["None of the runs has opened its test part."])
    plots = [
        Plot(words(name), draw_intervals({run: test[name] for run, test in tested.items()}, words(name)), half=True)
        for name in ("auc", "accuracy")
        if all(name in test and test[name]["value"] is not None for test in tested.values())
    ]
    finding = "Values with 95 % intervals over groups. Where intervals overlap widely, the runs are not told apart."
    return Section("test", title, [finding, *left_out], plots)
