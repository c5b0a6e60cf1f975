"""A study in Optuna's terms: ranges as distributions, recorded trials as its trials. Proposes and decides nothing."""

from collections.abc import Iterable

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.config import Objective
from search.events import Status
from search.history import TrialRecord
from search.space import Choice, FloatRange, IntRange, Space

_STATES = {
    "waiting": TrialState.RUNNING,
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def state(status: Status, infeasible: bool) -> TrialState:
    """Samplers pass over failed trials; one that does not fit must be seen, with its constraint, to be avoided."""
    return TrialState.PRUNED if infeasible else _STATES[status]


def distribution(parameter: FloatRange | IntRange | Choice) -> BaseDistribution:
    """The range in Optuna's terms."""
    match parameter:
        case FloatRange():
            return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
        case IntRange():
            return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step or 1)
        case Choice():
            return CategoricalDistribution(parameter.values)


def frozen(record: TrialRecord, space: Space, objective: Objective) -> FrozenTrial:
    """A recorded trial as a sampler must see it."""
    best = record.best(objective)
    return create_trial(
        state=state(record.status, record.infeasible),
        value=best[1] if best and record.status == "completed" else None,
        params=record.parameters,
        distributions={name: distribution(space[name]) for name in record.parameters},
        intermediate_values=record.values(objective.metric),
        system_attrs=record.system_attributes,
    )


def as_if_completed(
    trials: Iterable[TrialRecord], space: Space, objective: Objective, name: str | None = None
) -> optuna.Study:
    """A study for looking at only: every trial with a value counts as completed with its best one, pruned ones too.

    Hyperparameters that are not in the space are left out.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name=name, direction=objective.direction)
    distributions = {name: distribution(parameter) for name, parameter in space.items()}
    for trial in trials:
        if best := trial.best(objective):
            parameters = {name: value for name, value in trial.parameters.items() if name in space}
            known = {name: distributions[name] for name in parameters}
            study.add_trial(create_trial(value=best[1], params=parameters, distributions=known))
    return study
