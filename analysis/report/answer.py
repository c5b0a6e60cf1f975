"""What is the best configuration, and how sure are we?"""

import math
from typing import Any

from analysis.report.page import Block, Facts, Plot, Section, Table, Warnings
from analysis.report.run import Run
from analysis.report.wording import count, duration, listed, number, plus_minus, recipe, score, share, words
from analysis.selection import lead
from analysis.space_plots import draw_finalists
from search.events import TrialKey


def answer(run: Run) -> Section:
    """The first thing to read; without a usable trial it says what is awaited."""
    title = "The best configuration"
    if run.winner is None:
        return Section("answer", title, [_nothing_yet(run)])
    findings = [_recommendation(run, run.winner), _certainty(run, run.winner), *_margin(run, run.winner), _tested(run)]
    return Section("answer", title, findings, [*_facts(run, run.winner), *_finalists(run)])


def _nothing_yet(run: Run) -> str:
    if not run.trials:
        return "No trial has been asked for yet; there is nothing to say."
    return (
        f"There is no best configuration yet: none of {count(len(run.trials), 'trial')} completed or was pruned with a "
        f"value of {run.metric}."
    )


def _recommendation(run: Run, winner: dict[str, Any]) -> str:
    ended, reruns = sum(trial.ended for trial in run.trials), run.history.reruns()
    opening = "Fine-tune with"
    if ended < run.config.budget.trials:
        opening = f"So far ({count(ended, 'trial')} ended):"
    elif open_reruns := sum(not rerun.ended for rerun in reruns):
        opening = f"So far ({open_reruns} of {count(len(reruns), 'rerun')} not ended):"
    return f"{opening} {recipe(winner['parameters'])}."


def _certainty(run: Run, winner: dict[str, Any]) -> str:
    searched = f"The search had seen {score(winner['value'])} from it"
    if not winner.get("seeds"):
        failed = any(rerun.status == "failed" for rerun in run.history.reruns(winner["number"]))
        rerun = "every rerun of it on a fresh seed failed" if failed else "it was not run again on fresh seeds"
        wanted = run.config.final.finalists and not run.history.reruns()
        advice = f" `thawline retrain {run.name}` reruns the finalists." if wanted else ""
        return (
            f"{searched} ({run.metric}, trial {winner['number']}, epoch {winner['best_epoch']}), and {rerun}: as the "
            f"best of {count(len(run.valued), 'trial')}, part of that is luck.{advice}"
        )
    error = winner.get("standard_error")
    spread = "" if error is None or math.isnan(error) else " (mean ± standard error)"
    return (
        f"On {count(winner['seeds'], 'fresh seed')} its {run.metric} is {plus_minus(winner['mean'], error)}{spread}. "
        f"{searched}, as trial {winner['number']} of {len(run.trials)}."
    )


def _margin(run: Run, winner: dict[str, Any]) -> list[str]:
    """How far the winner is ahead of the next finalist, in standard errors of the difference."""
    margin = lead(run.finalists, run.config.objective)
    if margin is None or run.finalists[0].trial.number != winner["number"]:  # reruns came after it was named
        return []
    difference, error = margin
    second = run.finalists[1]
    sentence = (
        f"The next finalist, trial {second.trial.number}, has {plus_minus(second.mean, second.standard_error)}: "
        f"{score(abs(difference))} {'behind' if difference >= 0 else 'ahead, but with more failed reruns'}"
    )
    if math.isnan(error):
        return [f"{sentence}. One seed each does not say how much of that is chance."]
    if error == 0:
        return [f"{sentence}. Reruns of one finalist gave one value, so they do not say how much of that is chance."]
    if difference < 0:
        return [f"{sentence}."]
    ratio = difference / error
    verdict = "a clear lead" if ratio >= 3 else "a likely lead" if ratio >= 2 else "too close to call"
    rough = "; with so few seeds the standard errors are rough themselves" if len(second.values) < 5 else ""
    return [f"{sentence}, {ratio:.1f} standard errors of the difference, {verdict}{rough}."]


def _tested(run: Run) -> str:
    if run.evaluation is None:
        return f"The locked test part has not been opened; `thawline evaluate {run.name}` opens it, once."
    metrics = run.evaluation.metrics
    from analysis.evaluation import stated

    images = sum(metrics["counts"]["images"]["test"].values())
    scores = listed(f"{name} {stated(metrics[key])}" for key, name in (("accuracy", "accuracy"), ("auc", "AUC")))
    model = "an earlier model reached" if outdated(run) else "the retrained model reaches"
    return (
        f"On the locked test part ({count(images, 'image')} of {count(metrics['counts']['groups']['test'], 'group')}) "
        f"{model} {scores}; in brackets 95 % intervals."
    )


def _facts(run: Run, winner: dict[str, Any]) -> list[Block]:
    pairs = [(words(name), number(value)) for name, value in winner["parameters"].items()]
    pairs.append(("epochs to train", number(winner["best_epoch"])))
    trial = run.history.trials.get(TrialKey(winner["number"]))
    weights = trial.epochs[-1].metrics.get("trainable_share") if trial and trial.epochs else None
    if weights is not None and not math.isnan(weights):
        pairs.append(("weights that train", share(weights)))
    earlier = outdated(run)
    return [Facts(pairs), *([Warnings([earlier])] if earlier else [])]


def outdated(run: Run) -> str | None:
    """Why the evaluation is not of the model that would be used now; None when it is, or there is none."""
    if run.evaluation is None or run.winner is None:
        return None
    tested = run.evaluation.metrics.get("trial", {}).get("number")
    if tested not in (None, run.winner["number"]):
        return (
            f"The test figures belong to trial {tested}, which was the winner when it was evaluated; the winner is now "
            f"trial {run.winner['number']}."
        )
    if run.trained_since:
        return (
            f"The test figures belong to an earlier model; the one in final/ was trained since. `thawline evaluate "
            f"{run.name}` scores it, which opens the test part once more."
        )
    return None


def _finalists(run: Run) -> list[Block]:
    if not run.finalists:
        return []
    searched = [run.best_value(each.trial) for each in run.finalists]
    rows = [
        (
            f"trial {each.trial.number}",
            plus_minus(each.mean, each.standard_error),
            ",\u00a0".join(map(score, each.values)) + (f" ({each.failed} failed)" if each.failed else ""),
            score(value),
            recipe(each.trial.parameters),
        )
        for each, value in zip(run.finalists, searched, strict=True)
    ]
    columns = ["finalist", f"mean {run.metric} ± standard error", "reruns", "in the search", "configuration"]
    plot = Plot("Finalists on fresh seeds", draw_finalists(run.finalists, searched, run.metric))
    return [plot, Table(columns, rows)]


def summary(run: Run) -> list[str]:
    """The line under the title: how much was tried."""
    epochs = sum(len(trial.epochs) for trial in run.trials)
    statuses = [
        f"{run.ended(status)} {status}"
        for status in ("completed", "pruned", "failed", "running", "waiting")
        if run.ended(status)
    ]
    return [
        f"{count(len(run.trials), 'trial')} of {run.config.budget.trials}: {listed(statuses) or 'none begun'}",
        count(epochs, "epoch"),
        f"{duration(run.history.used_seconds)} of study time",
        f"ranked by {run.metric}, to {run.config.objective.direction}",
    ]
