"""StudyConfig: what a study file may say, checked before any work, all problems at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from search.errors import ConfigurationError
from search.problems import explained, space_problems
from search.safe_yaml import parse_yaml, read_yaml
from search.space import Point, Space

Direction = Literal["maximize", "minimize"]


class Section(BaseModel):
    """A part of a study file: unknown keys refused, values fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Objective(Section):
    """What trials are ranked by."""

    metric: str = "val_auc"
    """A metric that every epoch reports, such as `val_auc`, `val_accuracy`, `val_f1`, `val_loss`; `auc` is that of the
    training images."""
    direction: Direction = "maximize"
    """The way in which the metric is better: `minimize` with a loss."""

    @property
    def sign(self) -> int:
        """1 when larger values are better, else -1."""
        return 1 if self.direction == "maximize" else -1

    def better(self, value: float, than: float) -> bool:
        """Whether `value` beats `than`; NaN beats nothing."""
        return self.sign * value > self.sign * than


class Sampler(Section):
    """Who proposes configurations. Arguments are pinned here, because Optuna's defaults change between versions."""

    name: Literal["tpe", "random", "grid", "cmaes", "gp"] = "tpe"
    startup_trials: Annotated[int, Field(ge=0)] = 10
    """Random trials before the model takes over (tpe, cmaes, gp)."""
    candidates: Annotated[int, Field(ge=1)] = 24
    """Candidates compared for each suggestion (tpe)."""
    multivariate: bool = True
    """Model hyperparameters together rather than one by one (tpe)."""
    constant_liar: bool = True
    """Count running trials as bad ones, so that parallel workers spread out (tpe)."""


class Pruner(Section):
    """Who ends hopeless trials early."""

    name: Literal["successive_halving", "hyperband", "median", "none"] = "successive_halving"
    variant: Literal["stopping", "promotion", "synchronous"] = "stopping"
    """What becomes of a trial that is behind at a rung (successive_halving). `stopping`: it is pruned; the first trials
    go on, because nobody is there to compare them with. `promotion`: it waits, and goes on from its checkpoint once it
    is among the best. Fewer epochs are trained, and waiting trials keep a checkpoint each on disk: at the first rung at
    most one in `reduction_factor` of `budget.trials`, at each further rung as much less again. Of the samplers, tpe
    (multivariate, without conditions) counts a waiting trial as a pruned one; the others as one that runs.
    `synchronous`: it waits until nobody that comes later can take its place, or a worker would have nothing else to do.
    Fewest epochs, but hardly a trial is trained to the end before all have begun: not with `budget.wall_seconds`.
    """
    min_epochs: Annotated[int, Field(ge=1)] = 1
    """No trial is pruned before this many epochs."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One in this many trials goes on at each rung (successive_halving, hyperband)."""
    startup_trials: Annotated[int, Field(ge=0)] = 5
    """Completed trials before anything is pruned (median)."""

    @model_validator(mode="after")
    def _has_rungs(self) -> Self:
        if self.variant != "stopping" and self.name != "successive_halving":
            raise ValueError(f"variant `{self.variant}` needs the name `successive_halving`, but got {self.name!r}")
        return self


class Budget(Section):
    """How much a study may spend."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 24
    """Configurations tried."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 9
    """Epochs one trial may get."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between checkpoints of a running trial, which cost time, as epochs done again after a loss do. A trial
    that waits has one of its last epoch, written when its worker leaves it."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 0
    """Seconds that a trial has trained since its last checkpoint before it writes the next one: what a loss may cost,
    beside one epoch. Where epochs take seconds, 60 saves most of what checkpoints cost."""
    wall_seconds: Annotated[float, Field(gt=0)] | None = None
    """Time the search may take, in seconds; time in which no driver ran is not counted."""
    consecutive_failures: Annotated[int, Field(ge=1)] = 8
    """So many failed trials in a row stop the study: something is wrong that another configuration won't mend."""
    retries: Annotated[int, Field(ge=0)] = 3
    """Times a trial is started again after its worker died; after one that hung, once at most. A lost node is not
    counted."""
    silence_seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds without an epoch after which a worker is taken to hang and is ended; the first epoch of a trial includes
    its set-up. Default: 20 times the trial's slowest epoch so far, twice any trial's, at least 10 minutes; before its
    first epoch 6 hours, or 20 times any trial's.
    """


def _whole_or_a_share(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(f"must be a whole number, or below 1 for a share of one GPU, but got {gpus:g}")
    return gpus


class Resources(Section):
    """What one trial takes and where it runs."""

    cpus_per_trial: Annotated[float, Field(gt=0)] = 1
    """TensorFlow's threads equal this."""
    gpus_per_trial: Annotated[float, Field(ge=0), AfterValidator(_whole_or_a_share)] = 0
    """A fraction shares one GPU between trials, each with that share of its memory. A trial computes on one GPU: more
    than 1 leaves the others idle."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Trials at once; default: as many as fit."""
    address: str | None = None
    """A running Ray cluster (`auto` or `host:port`); default: a local one."""


class Final(Section):
    """What happens between the search and the test set."""

    finalists: Annotated[int, Field(ge=0)] = 3
    """The best trials that are run again on fresh seeds before a winner is named; 0: the best trial wins."""
    repeats: Annotated[int, Field(ge=1)] = 2
    """Fresh seeds for each finalist."""
    kept_checkpoints: Annotated[int, Field(ge=0)] = 1
    """The best completed trials of which the best epoch's checkpoint stays on disk; 0: none. Running trials always
    have theirs."""


def _wherever(address: str) -> str:
    """A folder as an absolute path, so that it is the same one from everywhere; a URI as it is."""
    return address if "://" in address else str(Path(address).expanduser().absolute())


class Logging(Section):
    """Where else a study is written down while it runs. The ledger is complete without."""

    tensorboard: bool = False
    """Event files in the run's folder `tensorboard`: a run per trial, its hyperparameters, every metric by epoch."""
    mlflow: bool | Annotated[str, Field(min_length=1, max_length=1000)] = False
    """A run per trial below the study's own, at this tracking address; `true`: in the run's `mlflow.db`."""


class StudyConfig(Section):
    """One study: the search, and under `data`, `model` and `training` what its trainable wants to know."""

    name: str | None = None
    """Name of the run folder; default: the study file's."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Everything random follows from it."""
    storage: Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())] = Field(
        default=Path("runs"), validate_default=True
    )
    """Folder that holds the run folders."""
    storage_copy: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_wherever)] | None = None
    """Another place (a folder on another disk, `file://`, `s3://`, `gs://`) that the ledger, and what else a resumed
    study needs, is copied to while the study runs.
    """
    data: Any = {}
    """Images, groups and split."""
    model: Any = {}
    """The pre-trained network."""
    training: Any = {}
    """Hyperparameters that do not vary."""
    space: Space = {}
    """Hyperparameters that vary; each replaces its namesake under `training`."""
    first_points: list[Point] = []
    """Configurations tried first; what a point leaves out is sampled."""
    objective: Objective = Objective()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    budget: Budget = Budget()
    resources: Resources = Resources()
    final: Final = Final()
    logging: Logging = Logging()
    record: dict[str, Any] | None = None
    """Written by Thawline beside the configuration (versions, fingerprints, the exported trial); never read as a
    setting.
    """

    @classmethod
    def of(cls, sections: Mapping[str, type[BaseModel]]) -> type[Self]:
        """This configuration with the sections of one trainable typed: `data`, `model`, `training`."""
        fields: dict[str, Any] = {
            name: (
                section,
                Field(default_factory=dict, validate_default=True, description=cls.model_fields[name].description),
            )
            for name, section in sections.items()
        }
        return create_model(cls.__name__, __base__=cls, **fields)

    @classmethod
    def parse(cls, document: Any, overrides: Sequence[str] = ()) -> Self:
        """The configuration that a parsed study file and `section.key=value` overrides describe.

        Raises:
            ConfigurationError: with every problem, each with where it stands, what must hold and what came.
        """
        if not isinstance(document, dict):
            raise ConfigurationError(f"a study file must hold `key: value` lines, but got {type(document).__name__}")
        problems: list[str] = []
        for override in overrides:
            problems += _apply(document, override)
        try:
            config = cls.model_validate(document)
        except ValidationError as error:
            problems += explained(error, cls)
        problems += space_problems(document, cls.model_fields["training"].annotation)
        if problems:
            raise ConfigurationError(list(dict.fromkeys(problems)))
        return config

    @classmethod
    def load(
        cls, path: str | Path, overrides: Sequence[str] = (), sections: Mapping[str, type[BaseModel]] | None = None
    ) -> Self:
        """Read a study file. With a trainable's `sections`, those are checked in the same pass.

        Raises:
            ConfigurationError: when it can't be read, isn't safe YAML, or says what it may not.
        """
        path = Path(path)
        document = read_yaml(path)
        if isinstance(document, dict):
            document.setdefault("name", path.stem)
        return (cls.of(sections) if sections else cls).parse(document, overrides)

    def typed(self, sections: Mapping[str, type[BaseModel]]) -> "StudyConfig":
        """The same configuration with a trainable's sections checked and typed.

        Raises:
            ConfigurationError: with every problem.
        """
        return StudyConfig.of(sections).parse(self.model_dump(mode="json", exclude_unset=True))

    def dump(self) -> dict[str, Any]:
        """Plain values that `parse` takes back."""
        return self.model_dump(mode="json", exclude_none=True)

    def settings(self) -> dict[str, Any]:
        """What `dump` gives, without where a run lies and what was recorded of it."""
        return {key: value for key, value in self.dump().items() if key not in ("record", "storage", "name")}

    def recorded(self, part: str) -> dict[str, Any]:
        """A part of the record; empty when it says nothing of it."""
        found = (self.record or {}).get(part)
        return found if isinstance(found, dict) else {}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What two configurations say differently, one line each: `section.key: old -> new`."""
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


def _apply(document: dict[str, Any], override: str) -> list[str]:
    """Write one `section.key=value` into the document; the problems it has."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        return [f"--set {override}: must read section.key=value"]
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        value = text
    *sections, last = key.strip().split(".")
    place = document
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            return [f"--set {override}: `{section}` must be a section, but is {place!r}"]
    place[last] = value
    return []
