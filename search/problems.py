"""What is wrong with a study file, in sentences: where it stands, what must hold, what came."""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from search.space import Parameter, Point, Space, condition_problems, point_problems

MOST_PROBLEMS = 100  # that are told of one study file

_SHORT = reprlib.Repr()  # what came is shown, but not a megabyte of it
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxdict = 20


def explained(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Every problem of a document that is to be this model, in sentences that start with where it stands."""
    details = error.errors()
    problems = [line for detail in details[:MOST_PROBLEMS] for line in _explain(detail, model)]
    if len(details) > MOST_PROBLEMS:
        problems.append(f"and {len(details) - MOST_PROBLEMS} more problems")
    return problems


def space_problems(document: Mapping[str, Any], training: Any) -> list[str]:
    """Where ranges of a document contradict each other, the first points, the sampler or `training`, the trainable's
    hyperparameters, where it has such a section.

    Reads only those parts of the document that are valid by themselves, so that these problems are told together with
    the others.
    """
    space = {name: range_ for name, raw in _mapping(document, "space").items() if (range_ := _valid(Parameter, raw))}
    points = _valid(list[Any], document.get("first_points")) or []
    problems = condition_problems(space) if len(space) == len(_mapping(document, "space")) else []
    for number, raw in enumerate(points):
        point = _valid(Point, raw) or {}
        known = {
            name: value for name, value in point.items() if name in space or name not in _mapping(document, "space")
        }
        problems += [f"first_points.{number}.{problem}" for problem in point_problems(space, known)]
    if _mapping(document, "sampler").get("name") == "grid":
        problems += _grid_problems(space)
    if isinstance(training, type) and issubclass(training, BaseModel):
        problems += _range_problems(space, training)
    return problems


def _explain(detail: Any, model: type[BaseModel]) -> list[str]:
    """A pydantic error as sentences that start with where it stands."""
    where = ".".join(str(part) for part in _place(detail["loc"]))
    if detail["type"] == "extra_forbidden":
        *parents, name = detail["loc"]
        return [f"{where}: unknown key{_nearest(str(name), _keys_at(model, parents))}"]
    return [f"{where}: {line}" if where else line for line in _sentence(detail).split("\n")]


def _place(location: Sequence[Any]) -> list[Any]:
    """Without what pydantic adds: the tag of a union member or the name of a type."""
    return [
        part
        for part in location
        if part not in ("float", "int", "choice") and not (isinstance(part, str) and "[" in part)
    ]


def _sentence(detail: Any) -> str:
    context = detail.get("ctx", {})
    if "error" in context:
        return str(context["error"])
    text = detail["msg"].replace("Input should be", "must be").replace("Field required", "must be given")
    if detail["type"] in ("missing", "union_tag_not_found"):
        return text.replace(
            "Unable to extract tag using discriminator 'type'", "must have a `type`: float, int or choice"
        )
    came = detail["input"]
    return f"{text}, but got {_SHORT.repr(came)}" if not isinstance(came, dict | BaseModel) else text


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known: {', '.join(known)}" if known else ""


def _keys_at(model: Any, parents: Sequence[Any]) -> list[str]:
    """Names that may stand at a place in the document; empty when the place is not a fixed section."""
    for part in parents:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            break
        field = model.model_fields.get(str(part))
        model = field.annotation if field else None
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    tags = {kind.model_fields["type"].annotation: kind for kind in get_args(get_args(get_args(Space)[1])[0])}
    return sorted({name for kind in tags.values() for name in kind.model_fields})


def _range_problems(space: Space, training: type[BaseModel]) -> list[str]:
    """Ranges of hyperparameters that the trainable does not have, or that reach where it cannot go."""
    problems = []
    for name, parameter in space.items():
        if name not in training.model_fields:
            problems.append(f"space.{name}: unknown hyperparameter{_nearest(name, training.model_fields)}")
            continue
        for value in parameter.ends:
            try:
                training.model_validate({name: value})
            except ValidationError as error:
                problems += [f"space.{name}: {_sentence(detail)}" for detail in error.errors()]
    return problems


def _grid_problems(space: Space) -> list[str]:
    return [
        f"space.{name}: the grid sampler needs `step` or a choice"
        for name, parameter in space.items()
        if parameter.type == "float" and not parameter.step and parameter.low != parameter.high
    ]


def _mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _valid(kind: Any, raw: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError:
        return None
