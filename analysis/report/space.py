"""What mattered: the hyperparameters, alone and together, and the ends of their ranges."""

from collections.abc import Sequence

from optuna.visualization import plot_parallel_coordinate

from analysis.depth import (
    Comparison,
    compare_at_epoch,
    compare_at_train_seconds,
    costs,
    leading,
    seconds_of_completed,
    seconds_of_first_epochs,
)
from analysis.importance import ENOUGH, Importance, importances
from analysis.interaction import Interaction, interact
from analysis.report.page import Block, Plot, Section, Table
from analysis.report.run import Run
from analysis.report.wording import count, duration, interval, listed, number, score, share, words
from analysis.selection import LIMITS, edges, place
from analysis.space_plots import draw_comparison, draw_importances, draw_interaction, draw_parallel_coordinates
from search.optuna_terms import as_if_completed
from search.space import Choice, FloatRange, IntRange

RATE, DEPTH = "learning_rate", "freeze_depth"


def importance(run: Run) -> Section:
    """Which hyperparameters set the best trials apart."""
    found = importances(run.valued, run.config)
    if not found:
        lacking = (
            f"Too few trials to tell: {count(len(run.valued), 'trial')} with a value, and it takes {ENOUGH} for the "
            "best quarter to be more than a handful."
            if len(run.valued) < ENOUGH
            else "Nothing to tell: all values are equal, or no hyperparameter sets the best apart."
        )
        return Section("importance", "What mattered", [lacking])
    note = (
        "PED-ANOVA: how far the values of the best quarter of trials differ from those of all trials. Every trial "
        "counts with its best value, pruned ones with what they had reached. The interval comes from leaving out a "
        "tenth of the trials at a time, the orange mark from 39 shuffles of the values."
    )
    plot = Plot("Importance of each hyperparameter", draw_importances(found, [words(each.name) for each in found]))
    return Section("importance", "What mattered", [_what_mattered(found)], [plot], note)


def _what_mattered(found: Sequence[Importance]) -> str:
    beyond = [words(each.name) for each in found if each.stands_out]
    first = found[0]
    leader = f"{words(first.name)} carries {share(first.share)} of the importance"
    if not beyond:
        return (
            f"Nothing stands out: {leader}, but dealing the values out at random gives as much often enough. More "
            "trials would tell."
        )
    rest = [words(each.name) for each in found if not each.stands_out]
    quiet = f" What {listed(rest)} did cannot be told from chance." if rest else ""
    return f"{leader[0].upper()}{leader[1:]}; beyond what chance gives {_are(beyond)}.{quiet}"


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {listed(names)}"


def depth(run: Run) -> Section:
    """Value against freeze depth, at equal epochs and at equal time."""
    title = "How the score depends on freeze depth"
    trials = [trial for trial in run.valued if DEPTH in trial.parameters]
    if not trials:
        return Section("depth", title, [f"Nothing to show: no trial with a value has varied {words(DEPTH)}."])
    first = compare_at_epoch(run.valued, run.config.objective, 1, DEPTH)
    findings = [_leading_depth(run, first, "After 1 epoch, when no trial has been pruned yet,")]
    fair = seconds_of_first_epochs(trials)
    if fair is not None:
        compared = compare_at_train_seconds(run.valued, run.config.objective, fair, DEPTH)
        findings.append(_leading_depth(run, compared, f"Within {duration(fair)} of training"))
    note = (
        "A dot is a trial, a bar the mean of a depth with the 95 % interval of that mean (Student's t); a depth "
        "with one trial has none. Where trials had been pruned before, those left are the better ones, so their means "
        "flatter depths at which many were pruned. Other hyperparameters vary too, which widens the intervals; those "
        "of two or three trials may leave the picture, and even the range of the score."
    )
    return Section("depth", title, findings, [*_depth_plots(run), _depth_table(run, first)], note)


def _leading_depth(run: Run, comparison: Comparison, when: str) -> str:
    found = leading(comparison, run.config.objective)
    if found is None:
        return f"{when} no depth has two trials, so there is nothing to compare."
    at, near = found
    middle = interval(comparison.mean[at], comparison.low[at], comparison.high[at])
    opening = (
        f"{when} depth {comparison.settings[at]:g} has the best mean {run.metric}, {middle} over "
        f"{count(int(comparison.count[at]), 'trial')}"
    )
    others = len(comparison.settings) - 1
    if not others:
        return f"{opening}; no other depth was tried."
    if len(near) == others:
        return f"{opening}; no other depth's interval lies clear of its own, so none is ruled out."
    if not near:
        return f"{opening}; the intervals of all other depths lie clear of its own."
    return f"{opening}; not clear of it are {listed(f'depth {each:g}' for each in near)}, all others are."


def _compared(run: Run) -> list[tuple[str, Comparison]]:
    """At equal epochs, then at equal time, each once when nobody is missing and once as far as it went."""
    objective, most = run.config.objective, max(len(trial.epochs) for trial in run.valued)
    moments = {seconds_of_first_epochs(run.valued), seconds_of_completed(run.valued)}
    found = [
        (f"After {count(epoch, 'epoch')}", compare_at_epoch(run.valued, objective, epoch, DEPTH))
        for epoch in sorted({1, most})
    ]
    found += [
        (f"Within {duration(seconds)} of training", compare_at_train_seconds(run.valued, objective, seconds, DEPTH))
        for seconds in sorted(moment for moment in moments if moment is not None)
    ]
    return found


def _depth_plots(run: Run) -> list[Block]:
    """On one scale, so that they can be compared with each other."""
    compared = _compared(run)
    values = [float(value) for _, comparison in compared for value in comparison.value]
    margin = 0.12 * (max(values) - min(values)) or 0.05
    span = (min(values) - margin, max(values) + margin)
    return [
        Plot(
            f"{when}: {count(len(each.value), 'trial')}",
            draw_comparison(each, run.metric, words(DEPTH), span),
            half=True,
        )
        for when, each in compared
    ]


def _depth_table(run: Run, first: Comparison) -> Table:
    taken = costs(run.trials)
    rows = [
        (
            f"{setting:g}",
            number(int(first.count[at])),
            share(taken[float(setting)].trainable_share),
            duration(taken[float(setting)].epoch_seconds) if taken[float(setting)].epoch_seconds > 0 else "–",
            interval(first.mean[at], first.low[at], first.high[at]),
        )
        for at, setting in enumerate(first.settings)
    ]
    columns = [words(DEPTH), "trials", "weights that train", "training per epoch", f"mean {run.metric} after 1 epoch"]
    return Table(
        columns, rows, "In brackets: 95 % interval of the mean. Training per epoch: median, first epochs left out."
    )


def interaction(run: Run) -> Section:
    """Learning rate and freeze depth together."""
    title = "Learning rate and freeze depth together"
    rate = run.config.space.get(RATE)
    together = [trial for trial in run.valued if {RATE, DEPTH} <= trial.parameters.keys()]
    if not isinstance(rate, FloatRange) or not together or rate.low == rate.high:
        return Section("interaction", title, ["Nothing to show: no trial with a value has varied both."])
    found = interact(together, run.config.objective, (RATE, rate))
    plot = Plot(
        f"Mean {run.metric} by learning rate and freeze depth",
        draw_interaction(found, run.metric, words(RATE), words(DEPTH), rate.log),
    )
    note = (
        "A dot is a trial. A cell's colour is the mean of its trials' best values; of pruned trials, what they reached."
    )
    return Section("interaction", title, [_best_rates(found), _gaps(found)], [plot], note)


def _best_rates(found: Interaction) -> str:
    pairs = [f"{number(rate)} at depth {depth:g}" for depth, rate in zip(found.settings, found.best_at, strict=True)]
    return f"The best learning rate tried was {listed(pairs)}: one trial each, so read them as a tendency."


def _gaps(found: Interaction) -> str:
    empty, single = int((found.count == 0).sum()), int((found.count == 1).sum())
    return (
        f"Of {found.count.size} cells {empty} {'was' if empty == 1 else 'were'} never tried and {single} hold a single "
        "trial."
    )


def ends(run: Run) -> Section:
    """Whether the best lies where the space ends."""
    title = "Is the best at an edge of the space?"
    if run.winner is None:
        return Section("edges", title, ["There is no best configuration yet."])
    point = run.winner["parameters"]
    sentences = edges(run.config.space, point, {**LIMITS, **run.limits})
    findings = sentences or ["No: wherever a range could be wider, the winner lies inside it."]
    rows = [
        (
            words(name),
            _range(parameter),
            number(point.get(name)),
            "–" if (at := _place(parameter, point.get(name))) is None else share(at),
        )
        for name, parameter in run.config.space.items()
    ]
    columns = ["hyperparameter", "range searched", "winner", "place in the range"]
    return Section("edges", title, findings, [Table(columns, rows, "0 % is the low end, 100 % the high one.")])


def _range(parameter: FloatRange | IntRange | Choice) -> str:
    if isinstance(parameter, Choice):
        return f"one of {listed(map(number, parameter.values), 'or')}"
    scale = ", log scale" if parameter.log else f", step {parameter.step:g}" if parameter.step else ""
    return f"{number(parameter.low)} to {number(parameter.high)}{scale}"


def _place(parameter: FloatRange | IntRange | Choice, value: object) -> float | None:
    if isinstance(parameter, Choice) or not isinstance(value, int | float) or parameter.low == parameter.high:
        return None
    return place(parameter, value)


def parallel(run: Run) -> Section:
    """All hyperparameters of all trials in one picture."""
    title = "All trials at a glance"
    if len(run.valued) < 2:
        return Section("parallel", title, ["It takes two trials with a value to draw this."])
    study = as_if_completed(run.valued, run.config.space, run.config.objective)
    values = [run.best_value(trial) for trial in run.valued]
    worst, best = sorted(values, key=lambda value: run.config.objective.sign * value)[:: len(values) - 1]
    finding = (
        f"Each line is a trial, from its {run.metric} on the left through its hyperparameters; the darker, the better "
        f"(on a dark page the brighter), from {score(worst)} to {score(best)}. Pruned trials are here with what they "
        "had reached."
    )
    used = sorted({name for trial in study.get_trials(deepcopy=False) for name in trial.params})
    optunas = plot_parallel_coordinate(study, used, target_name=run.metric)
    drawn = draw_parallel_coordinates(optunas, [words(run.metric), *map(words, used)], run.config.objective.sign)
    return Section("parallel", title, [finding], [Plot("Parallel coordinates", drawn)])
