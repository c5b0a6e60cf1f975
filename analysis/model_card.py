"""The model card of a final evaluation: what the model is for, how good it is, and what it must not be used for.

After Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.evaluation import (
    Evaluation,
    class_names,
    confident_mistakes,
    confusion,
    doubts,
    read_evaluation,
    stated,
)
from search.whole_file import write_whole


class Markdown(str):
    """Text that is Markdown already; every other value a template prints is escaped."""

    def __html__(self) -> "Markdown":
        """What markupsafe asks for: Jinja must not escape this for HTML as well."""
        return self


def write_model_card(final_folder: Path, facts: Mapping[str, Any]) -> Path:
    """Writes `final/model_card.md` from the files of the evaluation and what only the study knows.

    Args:
        final_folder: With `metrics.json` (`counts` and `configuration` included), `predictions.csv`, `history.csv`;
            `figures/` is linked to.
        facts: `study` (name of the run) and the sections `data`, `model`, `training`, `versions`: flat mappings, shown
            as they are. `data` must hold `fingerprint` and `groups` (`near_duplicates`, `none`, or where groups came
            from).

    Returns:
        The file written.

    Raises:
        ValueError: Facts are missing.
    """
    card = card_of(Path(final_folder))
    write_whole(card, render_model_card(read_evaluation(final_folder), facts))
    return card


def card_of(final_folder: Path) -> Path:
    """Where the card of an evaluation is; written last, it says that everything before it was."""
    return final_folder / "model_card.md"


def render_model_card(evaluation: Evaluation, facts: Mapping[str, Any]) -> str:
    """The card as Markdown; arguments and errors as in `write_model_card`."""
    missing = [name for name in ("study", "data", "model", "training", "versions") if name not in facts]
    missing += [f"data.{name}" for name in ("fingerprint", "groups") if name not in facts.get("data", {})]
    if missing:
        raise ValueError(f"a model card must state study, data, model, training and versions, but lacks {missing}")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        finalize=escaped,
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "section": section}
    metrics, classes = evaluation.metrics, class_names(evaluation.predictions)
    return environment.get_template("model_card.md.j2").render(
        facts=facts,
        metrics=metrics,
        class_list=Markdown(", ".join(code(name) for name in classes)),
        counts=_counts_table(metrics["counts"], classes),
        scores=_scores_table(metrics),
        mistakes=_mistakes_table(evaluation),
        by_class=_by_class_table(evaluation),
        best_epoch=evaluation.best_epoch,
        doubts=doubts(evaluation),
    )


def escaped(value: Any) -> Markdown:
    """A value as one line of Markdown text in which no markup, HTML, formula or link begins."""
    if isinstance(value, Markdown):
        return value
    return Markdown(html.escape(re.sub(r"[\\`*_{}\[\]()#!~$:]", r"\\\g<0>", _one_line(value)), quote=False))


def code(value: Any) -> Markdown:
    """A value as a code span, fenced by more backticks than it holds in a row (CommonMark 6.1)."""
    line = _one_line(value) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    padding = " " if "`" in line else ""
    return Markdown(f"{fence}{padding}{line}{padding}{fence}")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markdown:
    """Cells are escaped unless they are Markdown; numbers stand to the right."""
    rows = list(rows)
    numeric = [bool(rows) and all(isinstance(row[column], int) for row in rows) for column in range(len(header))]
    rule = ["---:" if right else "---" for right in numeric]
    lines = [[escaped(cell).replace("|", r"\|") for cell in cells] for cells in (header, *rows)]
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:])))


def section(values: Mapping[str, Any]) -> Markdown:
    """A flat mapping as a table of two columns, in its order; lists are joined by commas."""
    joined = {
        key: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value for key, value in values.items()
    }
    return table(["setting", "value"], [[code(key), code(value)] for key, value in joined.items()])


def _counts_table(counts: Mapping[str, Any], classes: Sequence[str]) -> Markdown:
    images = counts["images"]
    rows = [[code(name), *(part.get(name, 0) for part in images.values())] for name in classes]
    total = ["all images", *(sum(part.values()) for part in images.values())]
    return table(["images", *images], [*rows, total, ["groups", *(counts["groups"][part] for part in images)]])


def _scores_table(metrics: Mapping[str, Any]) -> Markdown:
    names = [
        name for name, value in metrics.items() if isinstance(value, dict) and value.keys() >= {"value", "interval"}
    ]
    parts = {"test": metrics} | ({"validation": metrics["validation"]} if metrics["validation"] else {})
    rows = [[name.replace("_", " "), *(Markdown(stated(part[name])) for part in parts.values())] for name in names]
    return table(["metric", *parts], rows)


def _by_class_table(evaluation: Evaluation) -> Markdown:
    """How many test images of each class were found, and how many of those called so are of it."""
    counted = confusion(evaluation.test)
    actual, called, right = counted.counts.sum(axis=1), counted.counts.sum(axis=0), counted.counts.diagonal()
    rows = [
        [code(name), int(actual[index]), _share(right[index], actual[index]), _share(right[index], called[index])]
        for index, name in enumerate(counted.classes)
    ]
    return table(["class", "test images", "of them found", "right when called so"], rows)


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({part / whole:.1%})" if whole else "")


def _mistakes_table(evaluation: Evaluation) -> Markdown:
    mistakes = confident_mistakes(evaluation.test, count=5)
    if mistakes.empty:
        return Markdown("None: every test image was predicted right.")
    rows = [
        [code(mistake["file"]), code(mistake["class"]), code(mistake["predicted"]), f"{mistake['confidence']:.3f}"]
        for mistake in mistakes.to_dict("records")
    ]
    return table(["file", "actual", "predicted", "probability"], rows)


def _one_line(value: Any) -> str:
    return "".join(character if character.isprintable() else " " for character in str(value)).strip()
