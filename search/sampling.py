"""Optuna's part: it proposes configurations and decides who is pruned, in memory, rebuilt from the ledger at every
start.
"""

import hashlib
import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from search.config import Sampler, StudyConfig
from search.errors import ConfigurationError
from search.events import Status
from search.history import TrialRecord
from search.optuna_terms import frozen, state
from search.pruning import build_pruner
from search.space import Choice, FloatRange, IntRange, Point, Space, Value, in_order
from search.tpe import JointTPE, Memory


def derive_seed(seed: int, *purpose: object) -> int:
    """A seed in [0, 2**32) for one purpose, the same on every machine; different purposes share nothing."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())


class Optimizer:
    """An in-memory Optuna study over the trials of a ledger.

    Every suggestion draws from a generator seeded by (study seed, trial number), so the next suggestion depends on the
    recorded trials alone: an interrupted study goes on exactly as if it had not been.
    """

    def __init__(self, config: StudyConfig, trials: Iterable[TrialRecord] = ()):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        self._space = dict(in_order(config.space))
        self._study = optuna.create_study(
            study_name="study",  # Hyperband hashes it with the trial's number: it must never change
            direction=config.objective.direction,
            sampler=RandomSampler(seed=0),
            pruner=build_pruner(config.pruner, config.budget.epochs),
        )
        records = list(trials)
        self._study.add_trials([frozen(record, self._space, config.objective) for record in records])
        self._running = {r.number: optuna.Trial(self._study, r.number) for r in records if not r.ended}
        self._memory = Memory(self._space)
        for record in records:
            if record.paused:
                self.pause(record.number)
        self._grid = grid(self._space, config.seed) if config.sampler.name == "grid" else []

    def propose(self, number: int, fixed: Point | None = None) -> tuple[Point, dict[str, Any]]:
        """The configuration of trial `number`, which must be the next one, and what Optuna wants remembered with it.

        Values in `fixed` are taken as they are; the others are sampled.
        """
        if self._grid:  # first points come before the grid, and take from it what they leave out
            turn = max(0, number - len(self._config.first_points))
            fixed = {**self._grid[turn % len(self._grid)], **(fixed or {})}
        if fixed is not None:
            self._study.enqueue_trial(fixed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # versions are pinned
            seed = derive_seed(self._config.seed, "suggestion", number)
            self._study.sampler = build_sampler(self._config.sampler, self._space, seed, self._memory)
            trial = self._study.ask()
            point = suggest(trial, self._space)
        if trial.number != number:
            raise RuntimeError(f"trial {number} must be asked next, but Optuna is at {trial.number}")
        self._running[number] = trial
        return point, self._attributes(number)

    def observe(self, number: int, epoch: int, value: float) -> tuple[bool, dict[str, Any]]:
        """Take an epoch's objective value; whether the trial should be pruned, and what is to be remembered with it."""
        trial = self._running[number]
        before = self._attributes(number)
        trial.report(value, epoch)
        prune = trial.should_prune()
        after = self._attributes(number)
        return prune, {key: item for key, item in after.items() if before.get(key) != item}

    @property
    def running(self) -> int:
        """Trials that were proposed and have neither ended nor been paused."""
        return len(self._running.keys() - self._memory.paused)

    def pause(self, number: int) -> None:
        """A running trial waits from now on. In Optuna's study it still runs; `Memory` knows better."""
        self._memory.pause(number)

    def go_on(self, number: int) -> None:
        """A paused trial runs again."""
        self._memory.go_on(number)

    def forbid(self, number: int) -> dict[str, Any]:
        """Mark a running trial's configuration as one that does not fit; what is to be remembered with it."""
        before = self._attributes(number)
        self._running[number].set_constraint("memory", 1.0)
        return {key: item for key, item in self._attributes(number).items() if key not in before}

    def finish(self, number: int, status: Status, value: float | None, infeasible: bool = False) -> None:
        """Tell how a trial ended; `value` is its best epoch's, needed when it completed."""
        told = value if status == "completed" else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Constraints have been set")  # cmaes has no use for them, and says so
            self._study.tell(self._running.pop(number), told, state(status, infeasible))

    def _attributes(self, number: int) -> dict[str, Any]:
        return dict(self._study._storage.get_trial(self._running[number]._trial_id).system_attrs)


def suggest(trial: optuna.Trial, space: Space) -> Point:
    """Values for all hyperparameters whose conditions hold. `space` must be in order."""
    point: Point = {}
    for name, parameter in space.items():
        if parameter.applies(point):
            point[name] = _suggest(trial, name, parameter)
    return point


def _suggest(trial: optuna.Trial, name: str, parameter: FloatRange | IntRange | Choice) -> Value:
    match parameter:
        case FloatRange():
            return trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
        case IntRange():
            return trial.suggest_int(name, parameter.low, parameter.high, step=parameter.step or 1, log=parameter.log)
        case Choice():
            chosen: Any = trial.suggest_categorical(name, parameter.values)
            return cast(Value, chosen)


def build_sampler(settings: Sampler, space: Space, seed: int, memory: Memory | None = None) -> BaseSampler:
    """Optuna's sampler with every argument that matters given; `memory` is of the study that it is for (tpe).

    Raises:
        ConfigurationError: when the sampler needs a package that isn't installed.
    """
    match settings.name:
        case "random" | "grid":  # a grid's points are given; see Optimizer.propose
            return RandomSampler(seed=seed)
        case "cmaes":
            _require("cmaes", "cmaes")
            return CmaEsSampler(n_startup_trials=settings.startup_trials, seed=seed, warn_independent_sampling=False)
        case "gp":
            _require("gp", "torch")
            return GPSampler(n_startup_trials=settings.startup_trials, seed=seed, deterministic_objective=False)
        case "tpe":
            conditional = any(parameter.when for parameter in space.values())
            kind = (
                TPESampler if conditional or not settings.multivariate else partial(JointTPE, memory or Memory(space))
            )
            return kind(
                n_startup_trials=settings.startup_trials,
                n_ei_candidates=settings.candidates,
                multivariate=settings.multivariate,
                group=settings.multivariate and conditional,
                constant_liar=settings.constant_liar,
                seed=seed,
            )


def grid(space: Space, seed: int) -> list[Point]:
    """Every configuration of a space whose ranges have steps, shuffled. `space` must be in order."""
    points: list[Point] = [{}]
    for name, parameter in space.items():
        points = [
            {**point, **more}
            for point in points
            for more in ([{name: value} for value in _grid_values(parameter)] if parameter.applies(point) else [{}])
        ]
    return [points[index] for index in sorted(range(len(points)), key=lambda index: derive_seed(seed, "grid", index))]


def _grid_values(parameter: FloatRange | IntRange | Choice) -> list[Value]:
    if isinstance(parameter, Choice):
        return parameter.values
    step = parameter.step or 1
    count = round((parameter.high - parameter.low) / step) + 1
    return [min(parameter.low + index * step, parameter.high) for index in range(count)]  # 3 * 0.1 is above 0.3


def _require(sampler: str, package: str) -> None:
    try:
        __import__(package)
    except ImportError as error:
        raise ConfigurationError(
            f"sampler.name: `{sampler}` needs the package {package}: pip install 'thawline[{sampler}]'"
        ) from error
