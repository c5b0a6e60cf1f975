"""The final evaluation: what the retrained model is worth on the locked test part."""

from typing import Any

from analysis.evaluation import (
    Evaluation,
    confident_mistakes,
    confusion,
    doubts,
    reliability,
    roc_curves,
    stated,
    training_curve,
)
from analysis.evaluation_plots import draw_confusion, draw_reliability, draw_roc, draw_training
from analysis.report.answer import outdated
from analysis.report.page import Block, Plot, Section, Table, Warnings
from analysis.report.run import Run
from analysis.report.wording import count, number, score, share, words


def evaluation(run: Run) -> Section:
    """Scores with intervals, and the pictures behind them."""
    title = "The final evaluation"
    if run.evaluation is None:
        if run.history.note("test_opened") is None:
            lacking = f"The test part has not been opened; `thawline evaluate {run.name}` opens it, once."
        else:
            lacking = "The test part was opened, but the files of its evaluation are not there, or not whole."
        return Section("evaluation", title, [lacking])
    metrics, earlier = run.evaluation.metrics, outdated(run)
    warnings: list[Block] = [Warnings([earlier])] if earlier else []
    blocks = [*warnings, _scores(metrics), *_plots(run.evaluation, run.trained_since)]
    return Section("evaluation", title, _findings(run.evaluation), blocks, _note(metrics))


def _findings(evaluation: Evaluation) -> list[str]:
    metrics = evaluation.metrics
    images, groups = sum(metrics["counts"]["images"]["test"].values()), metrics["counts"]["groups"]["test"]
    times = metrics.get("test_opened", {}).get("times")
    opened = "" if times is None else ", opened once, after every choice" if times == 1 else f", opened {times} times"
    findings = [f"{count(images, 'image')} of {count(groups, 'group')}{opened}."]
    if metrics.get("positive_class") is not None:
        findings.append(
            f"An image is called {metrics['positive_class']} when its probability is at least "
            f"{metrics['threshold']:.4f}; the threshold was chosen on validation images that its network had not seen."
        )
    return findings + doubts(evaluation)


def _scores(metrics: dict[str, Any]) -> Table:
    names = [name for name, value in metrics.items() if isinstance(value, dict) and "interval" in value]
    validation = metrics.get("validation") or {}
    rows = [
        (words(name), stated(metrics[name]), stated(validation[name]) if name in validation else "–") for name in names
    ]
    return Table(["score", "test", "validation"], rows)


def _note(metrics: dict[str, Any]) -> str:
    bootstrap = metrics["bootstrap"]
    return (
        f"In brackets, and at the operating point: {share(bootstrap['level'])} intervals, percentiles of "
        f"{number(bootstrap['repeats'])} resamples of whole groups (seed {bootstrap['seed']}). They cover the choice "
        "of test groups, not another training, split or hospital. Validation images took part in choices, so their "
        "scores are too good. Not a medical device."
    )


def _plots(evaluation: Evaluation, trained_since: bool) -> list[Block]:
    test, metrics = evaluation.test, evaluation.metrics
    curves = roc_curves(test, evaluation.positive_class)
    area = "AUC" if len(curves) == 1 else "macro AUC"
    error = stated(metrics["expected_calibration_error"])
    best, model = (None, ", of the model trained since") if trained_since else (evaluation.best_epoch, "")
    trained = [
        Plot(f"{name.capitalize()} of the final training{model}", draw_training(curve, best), half=True)
        for name in ("loss", "accuracy")
        if len((curve := training_curve(evaluation.history, name)).epochs)
    ]
    return [
        Plot("Actual against predicted class", draw_confusion(confusion(test)), half=True),
        Plot(f"ROC: {area} {stated(metrics['auc'])}", draw_roc(curves, metrics), half=True),
        *trained,
        Plot(f"Reliability: expected calibration error {error}", draw_reliability(reliability(test))),
        _mistakes(evaluation),
    ]


def _mistakes(evaluation: Evaluation) -> Table:
    rows = [
        (*(str(row[name]) for name in ("file", "group", "class", "predicted")), score(row["confidence"]))
        for row in confident_mistakes(evaluation.test).to_dict("records")
    ]
    caption = "The most confident mistakes on test images." if rows else "No test image was mistaken."
    return Table(["file", "group", "actual", "predicted", "probability of the predicted class"], rows, caption)
