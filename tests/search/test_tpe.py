from statistics import fmean

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from search import tpe
from search.config import StudyConfig
from search.optuna_terms import distribution
from search.tpe import JointTPE, Memory

SPACE = StudyConfig.parse(
    {
        "space": {
            "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
            "depth": {"type": "int", "low": 0, "high": 5},
            "optimizer": {"type": "choice", "values": ["adam", "sgd"]},
            "same": {"type": "int", "low": 3, "high": 3},
        }
    }
).space
SETTINGS = {"n_startup_trials": 3, "multivariate": True, "constant_liar": True}


def suggestions(make, count, running=3, direction="maximize"):
    """Points asked one after another; each ends, every fourth one pruned, when `running` more have been asked."""
    study = optuna.create_study(direction=direction)
    points, open_trials = [], []
    for number in range(count):
        study.sampler = make(number)
        trial = study.ask({name: distribution(parameter) for name, parameter in SPACE.items()})
        points.append(trial.params)
        open_trials.append(trial)
        if len(open_trials) > running:
            ended = open_trials.pop(0)
            value = float(ended.params["depth"]) - abs(ended.params["rate"] - 0.01)
            ended.report(value, 1)
            pruned = ended.number % 4 == 0
            study.tell(ended, None if pruned else value, TrialState.PRUNED if pruned else TrialState.COMPLETE)
    return points


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_up_to_the_limit_suggestions_are_those_of_optuna(direction):
    ours = suggestions(lambda seed: JointTPE(Memory(SPACE), seed=seed, **SETTINGS), 40, direction=direction)
    assert ours == suggestions(lambda seed: TPESampler(seed=seed, **SETTINGS), 40, direction=direction)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_beyond_the_limit_suggestions_still_go_where_values_are_good(monkeypatch):
    monkeypatch.setattr(tpe, "MODELLED", 20)
    points = suggestions(lambda seed: JointTPE(Memory(SPACE), seed=seed, **SETTINGS), 120)
    assert fmean(point["depth"] for point in points[60:]) > 3.5  # at random it would be 2.5


@pytest.mark.parametrize(("direction", "best"), [("maximize", [7, 8, 9]), ("minimize", [0, 1, 2])])
def test_the_good_the_newest_and_all_that_run_are_modelled(monkeypatch, direction, best):
    monkeypatch.setattr(tpe, "MODELLED", 2)
    monkeypatch.setattr(tpe, "GOOD", 3)
    study = optuna.create_study(direction=direction)
    for number in range(10):
        study.add_trial(create_trial(value=float(number)))
    study.add_trial(create_trial(state=TrialState.RUNNING))
    for state in (TrialState.FAIL, TrialState.PRUNED, TrialState.PRUNED):
        study.add_trial(create_trial(state=state))
    memory = Memory(SPACE)
    memory.look(study, 14)
    good, others = memory.split(running=True)
    assert sorted(good + others) == [*best, 10, 12, 13]
    good, others = memory.split(running=False)
    assert sorted(good + others) == [*best, 12, 13]


def reported(*values):
    """A study of a completed trial and others that run and have reported these values."""
    study = optuna.create_study(direction="maximize")
    study.add_trial(create_trial(value=9.0))
    for value in values:
        study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values={1: value}))
    return study


def model(study, memory):
    memory.look(study, len(study.trials))
    return memory.ended, memory.split(running=True), memory.split(running=False)


def test_a_paused_trial_is_modelled_as_a_pruned_one_and_as_one_that_runs_when_it_goes_on():
    values = [0.1 * number for number in range(20)]
    paused, pruned, running = reported(*values), reported(*values), reported(*values)
    memory = Memory(SPACE)
    for number in range(1, 16):
        memory.pause(number)
        pruned.tell(number, state=TrialState.PRUNED)
    assert model(paused, memory) == model(pruned, Memory(SPACE)) != model(running, Memory(SPACE))
    for number in range(1, 16):
        memory.go_on(number)
    assert model(paused, memory) == model(running, Memory(SPACE))


def test_a_trial_that_ends_or_is_paused_again_between_two_looks_is_modelled_once():
    values = [0.1 * number for number in range(20)]
    memory, paused, pruned = Memory(SPACE), reported(*values), reported(*values)
    for number in range(1, 16):
        memory.pause(number)
    memory.look(paused, 21)
    for number in range(1, 16):
        if number % 3:
            memory.go_on(number)
            optuna.Trial(paused, number).report(5.0 - number, 2)
            optuna.Trial(pruned, number).report(5.0 - number, 2)
            memory.pause(number)
        if number % 2:
            paused.tell(number, state=TrialState.PRUNED)
        pruned.tell(number, state=TrialState.PRUNED)
    assert model(paused, memory) == model(pruned, Memory(SPACE))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("liar", [True, False])
def test_a_memory_kept_from_suggestion_to_suggestion_changes_none_of_them(liar):
    memory, settings = Memory(SPACE), SETTINGS | {"constant_liar": liar}
    kept = suggestions(lambda seed: JointTPE(memory, seed=seed, **settings), 300, running=20)
    assert kept == suggestions(lambda seed: TPESampler(seed=seed, **settings), 300, running=20)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_failed_infeasible_and_incomplete_trials_are_seen_as_optuna_sees_them():
    class Told(TPESampler):
        def infer_relative_search_space(self, study, trial):
            return Memory(SPACE).joint

    def told(sampler):
        study = optuna.create_study(sampler=sampler)
        distributions = {name: distribution(parameter) for name, parameter in SPACE.items()}
        for number in range(40):
            trial = study.ask(distributions if number % 5 else None)
            if number % 7 == 0:
                trial.set_constraint("memory", 1.0)
            if number % 3 == 0:
                trial.report(number % 4, 1)
            state = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.PRUNED][number % 4]
            study.tell(trial, float(number % 6) if state == TrialState.COMPLETE else None, state)
        return [trial.params for trial in study.trials]

    assert told(JointTPE(Memory(SPACE), seed=1, **SETTINGS)) == told(Told(seed=1, **SETTINGS))
