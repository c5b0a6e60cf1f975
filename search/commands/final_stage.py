"""From the search's end to a usable model: winner, best.yaml, retraining, the test set.

Imports what a step needs when it runs.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.commands.final_training import plan_of, retrain_exported, use_this_machine
from search.config import StudyConfig, differences
from search.console import near
from search.errors import ConfigurationError
from search.paths import StudyPaths, find_run
from trainable import ImageTrainable

if TYPE_CHECKING:
    from search.driver import Session
    from search.history import History
    from search.view.progress import View


def finish(session: "Session") -> None:
    """From a finished search to test figures and report; what was done for the same winner is not done again."""
    from analysis.model_card import card_of

    paths = session.paths
    name_winner(session)
    if trained_otherwise(exported(paths), paths.final) != []:
        retrain_exported(paths.best, paths, session.view, on_cluster=True)
    if not (is_evaluated(paths, session.history) and card_of(paths.final).exists()):
        open_test_set(paths, session.ledger, session.view)
    session.view.preparing("writing the report", 0, 1)
    report_on(paths)
    session.view.preparing("writing the report", 1, 1)


def report_on(paths: StudyPaths, output: Path | None = None) -> Path:
    """Write the report of a run; a best freeze depth at the end of the backbone lies at no edge of the space."""
    from analysis.report import write_report
    from trainable.architectures import ARCHITECTURES

    model: Any = StudyConfig.load(paths.study_file).typed(ImageTrainable.sections).model
    deepest = len(ARCHITECTURES[model.architecture].cuts(model.freeze_unit))
    return write_report(paths.root, output, {"freeze_depth": (0.0, float(deepest))})


def choose_finalists(session: "Session") -> "Callable[[History], list[int]]":
    """Chooses the trials to run again from a finished search."""
    from analysis.selection import finalists

    config = session.config

    def choose(history: "History") -> list[int]:
        best = finalists(history.search_trials(), config.objective, config.final.finalists)
        return [trial.number for trial in best]

    return choose


def name_winner(session: "Session") -> None:
    """Choose among the finalists by their reruns, write best.yaml."""
    from analysis.export import export_trial
    from analysis.selection import choose_winner

    session.note("winner", asdict(choose_winner(session.history, session.config)))
    export_trial(str(session.paths.root), None, None)


def exported(paths: StudyPaths) -> Any:
    """The configuration in best.yaml, with its sections typed."""
    if not paths.best.exists():
        raise ConfigurationError(
            f"{near(paths.best)}: must be there, but no winner is named yet; `thawline retrain {near(paths.root)}` does"
        )
    return StudyConfig.load(paths.best, (), ImageTrainable.sections)


def _describe(final: Path) -> dict[str, Any]:
    """What is known of the trained model in `final`; empty when there is none."""
    from trainable.predict import read_description

    try:
        return read_description(final)
    except (OSError, ValueError):
        return {}


def trained_otherwise(config: StudyConfig, final: Path) -> list[str] | None:
    """How the model in `final` was trained otherwise than the configuration says; None when there is no model."""
    plan, described = plan_of(config), _describe(final)
    if not described or not (final / "model.keras").exists():
        return None
    known = {key: described.get(key, value) for key, value in plan.items()}  # models of earlier versions tell less
    known["hyperparameters"] = {**plan["hyperparameters"], **known["hyperparameters"]}
    return differences(known, plan)


def is_evaluated(paths: StudyPaths, history: "History") -> bool:
    """Whether the test scores that are there are those of the model that is there."""
    opened, model = history.note("test_opened") or {}, _describe(paths.final)
    try:
        scores = json.loads((paths.final / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    noted = [opened.get("model_sha256"), opened.get("times")]
    return noted == [model.get("sha256"), scores.get("test_opened", {}).get("times")]


def open_test_set(paths: StudyPaths, ledger: Any, view: "View") -> None:
    """Score the model on the test images, after the ledger says that they are opened; figures and model card.

    Where only figures and card are missing, because that was cut off, they are made of the scores that are there.
    """
    from analysis.model_card import card_of
    from search.events import Noted
    from trainable.evaluate import evaluate

    config = exported(paths)
    if is_evaluated(paths, ledger.history) and not card_of(paths.final).exists():
        _present_evaluation(paths, config)
        return
    _check_test_can_open(config, paths)
    opened = 1 + sum(note.topic == "test_opened" for note in ledger.history.notes)
    at = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "times": opened}
    view.preparing("evaluating", 0, 1)
    use_this_machine(config.resources.gpus_per_trial)
    ledger.append(Noted("test_opened", {**at, "model_sha256": _describe(paths.final)["sha256"]}))
    card_of(paths.final).unlink(missing_ok=True)  # of an earlier evaluation
    trial = config.recorded("trial")
    facts = {
        "study": paths.root.name,
        "test_opened": at,
        "trial": trial,
        "best_epoch": trial.get("best_epoch", config.budget.epochs),
    }
    evaluate(config.data, paths.root, facts, config.seed, view.preparing)
    _present_evaluation(paths, config)
    view.preparing("evaluating", 1, 1)


def _present_evaluation(paths: StudyPaths, config: Any) -> None:
    """Figures and, last, the model card of the scores that are there."""
    from analysis.figures import draw_evaluation
    from analysis.model_card import write_model_card

    draw_evaluation(paths.final)
    _draw_mistakes(paths.final, config.data)
    write_model_card(paths.final, _card_facts(paths, config))


def _draw_mistakes(final: Path, data: Any) -> None:
    """The test images that the model got wrong with most confidence: the test set is open, and only they tell why."""
    from analysis.evaluation import confident_mistakes, read_evaluation
    from analysis.figures import draw_mistakes
    from trainable.dataset import decode
    from trainable.errors import InputError

    picture = final / "figures" / "confident_mistakes.png"
    picture.unlink(missing_ok=True)  # of an earlier model
    mistakes = confident_mistakes(read_evaluation(final).test, count=12)
    size = max(256, data.image_size)  # more than the model saw, so that a person can judge
    images = {}
    for file in mistakes["file"]:
        with suppress(InputError):  # a study goes on with what it decoded, whatever became of the files
            images[file] = decode(data.path / file, size, data.colour, data.max_pixels)
    if images:
        draw_mistakes(mistakes[mistakes["file"].isin(images)], images, picture)


def _check_test_can_open(config: Any, paths: StudyPaths) -> None:
    """That all is there which `evaluate` needs, before it is written down that the test set was opened."""
    from trainable.evaluate import check_evaluable

    run, final = near(paths.root), near(paths.final)
    otherwise = trained_otherwise(config, paths.final)
    if otherwise is None:
        raise ConfigurationError(
            f"{final}: must hold a trained model, but has none; `thawline retrain {run}` trains it"
        )
    if otherwise:
        problem = f"{final}: must hold the model that {near(paths.best)} describes, but its model was trained otherwise"
        raise ConfigurationError([f"{problem}; `thawline retrain {run}` trains it anew:", *otherwise])
    check_evaluable(config.data, paths.root)


def _card_facts(paths: StudyPaths, config: Any) -> dict[str, Any]:
    record = config.record
    groups = config.data.groups if isinstance(config.data.groups, str) else "given with the images"
    return {
        "study": paths.root.name,
        "data": {
            "fingerprint": record["data"]["fingerprint"],
            "groups": groups,
            "image_size": config.data.image_size,
            "colour": config.data.colour,
        },
        "model": {**config.model.model_dump(mode="json"), "weights_sha256": record.get("weights_sha256")},
        "training": {"epochs": record["trial"]["best_epoch"], "seed": config.seed},
        "versions": record["versions"],
    }


def model_folder(model: str) -> Path:
    """The folder `final` of a run, or the one that a model lies in."""
    path = Path(model)
    if path.suffix == ".keras" or (path / "model.json").is_file():
        return path
    run = find_run(model)
    if not (run.final / "model.json").is_file():
        raise ConfigurationError(
            f"{model}: must have a trained model, but has none; `thawline retrain {model}` trains it"
        )
    return run.final
