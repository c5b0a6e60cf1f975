import random
from itertools import count

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner

from search.pruning import SuccessiveHalving


def told(pruner, direction, resumed_at=()):
    """Verdicts and attributes when thirty trials, some side by side, report random values; the pruner is forgotten and
    made anew after the given numbers of reports.
    """
    generator = random.Random(5)
    study = optuna.create_study(direction=direction, pruner=pruner())
    running, verdicts = [], []
    for report in range(150):
        if len(running) < 4:
            running.append((study.ask(), count(1)))
        trial, epochs = running[generator.randrange(len(running))]
        trial.report(round(generator.random(), 1), next(epochs))  # rounded, so that values tie
        verdicts.append(trial.should_prune())
        if verdicts[-1]:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            running = [each for each in running if each[0] is not trial]
        if report in resumed_at:
            study.pruner = pruner()
    return verdicts, [trial.system_attrs for trial in study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(("min_epochs", "factor"), [(1, 3), (2, 2)])
def test_verdicts_and_attributes_are_those_of_optuna(direction, min_epochs, factor):
    def theirs():
        return SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=factor, min_early_stopping_rate=0)

    verdicts, attributes = told(theirs, direction)
    assert {True, False} == set(verdicts)
    assert told(lambda: SuccessiveHalving(min_epochs, factor), direction) == (verdicts, attributes)


def test_a_resumed_study_goes_on_with_the_rungs_its_trials_have():
    def ours():
        return SuccessiveHalving(1, 3)

    assert told(ours, "maximize", resumed_at=[20, 21, 90]) == told(ours, "maximize")


def test_a_trial_without_a_report_is_not_pruned():
    study = optuna.create_study(pruner=SuccessiveHalving(1, 3))
    assert not study.ask().should_prune()
