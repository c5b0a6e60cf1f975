"""The search space as plain values: what each hyperparameter may be. Both ends of a range are included."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Value = bool | int | float | str
Point = dict[str, Value]


class Range(BaseModel):
    """What all ranges share: a condition under which the hyperparameter exists at all."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    when: dict[str, Value | list[Value]] = {}
    """Sampled only when every named hyperparameter has the value (or one of the values) given here."""

    def applies(self, point: Mapping[str, Value]) -> bool:
        """Whether the conditions hold for what `point` says so far; an absent hyperparameter satisfies none."""
        return all(
            point.get(name) in (wanted if isinstance(wanted, list) else [wanted]) for name, wanted in self.when.items()
        )


class NumberRange(Range):
    """Ends, spacing and scale that both kinds of number share."""

    low: float
    high: float
    step: Annotated[float, Field(gt=0)] | None = None
    """Grid of allowed values, counted from `low`."""
    log: bool = False
    """Sample the logarithm uniformly."""

    @model_validator(mode="after")
    def _ends_in_order(self) -> Self:
        if not self.low <= self.high:
            raise ValueError(f"`low <= high` must hold, but got (low={self.low:g}, high={self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"`low > 0` must hold on a log scale, but got (low={self.low:g})")
        if self.log and self.step:
            raise ValueError("a log scale has no step: `step` must be absent when `log: true`")
        low, high, step = (Fraction(str(number or 0)) for number in (self.low, self.high, self.step))
        if step and (high - low) % step:  # as written: to Optuna too, three steps of 0.333 do not lead from 0 to 1
            raise ValueError(
                f"`high` must lie on the grid, but (low={self.low:g}, high={self.high:g}, step={self.step:g}) misses it"
            )
        return self

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return abs(steps - round(steps)) < 1e-8  # as close as Optuna wants it

    @property
    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)


class FloatRange(NumberRange):
    """Real numbers from `low` to `high`."""

    type: Literal["float"]


class IntRange(NumberRange):
    """Whole numbers from `low` to `high`."""

    type: Literal["int"]
    low: int
    high: int
    step: Annotated[int, Field(gt=0)] | None = None

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and super().__contains__(value)


class Choice(Range):
    """One of a list of values; numbers in it have no order for the sampler."""

    type: Literal["choice"]
    values: Annotated[list[Value], Field(min_length=1)]

    @model_validator(mode="after")
    def _all_different(self) -> Self:
        doubled = sorted({str(value) for value in self.values if self.values.count(value) > 1})
        if doubled:
            raise ValueError(f"all values must differ, but {', '.join(doubled)} came more than once")
        return self

    def __contains__(self, value: object) -> bool:
        return value in self.values

    @property
    def ends(self) -> tuple[Value, ...]:
        return tuple(self.values)


Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="type")]
Space = dict[str, Parameter]


def in_order(space: Space) -> Iterator[tuple[str, FloatRange | IntRange | Choice]]:
    """The hyperparameters, each after those its condition names; otherwise in the order given."""
    done: set[str] = set()
    waiting = dict(space)
    while waiting:
        ready = [name for name, parameter in waiting.items() if done.issuperset(parameter.when)]
        if not ready:
            raise ValueError(
                f"conditions must not go in a circle or name what is not in the space: {', '.join(waiting)}"
            )
        for name in ready:
            yield name, waiting.pop(name)
        done.update(ready)


def condition_problems(space: Space) -> list[str]:
    """Every condition that can never hold, one sentence each."""
    problems = []
    for name, parameter in space.items():
        for other, wanted in parameter.when.items():
            if other not in space:
                problems.append(f"space.{name}.when: `{other}` must be in the space too")
                continue
            problems += [
                f"space.{name}.when.{other}: must be a value that `{other}` can take, but got {value!r}"
                for value in (wanted if isinstance(wanted, list) else [wanted])
                if value not in space[other]
            ]
    try:
        list(in_order(space))
    except ValueError as error:
        if not problems:
            problems.append(f"space: {error}")
    return problems


def point_problems(space: Space, point: Mapping[str, Any]) -> list[str]:
    """Why `point` cannot be tried in this space; a hyperparameter it leaves out is sampled."""
    unknown = [f"{name}: not in the space" for name in point if name not in space]
    outside = [
        f"{name}: must lie in the range given, but got {value!r}"
        for name, value in point.items()
        if name in space and value not in space[name]
    ]
    return unknown + outside
