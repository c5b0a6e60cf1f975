from statistics import fmean

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from search import tpe
from search.config import StudyConfig
from search.optuna_terms import distribution
from search.tpe import JointTPE

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
    ours = suggestions(lambda seed: JointTPE(SPACE, seed=seed, **SETTINGS), 40, direction=direction)
    assert ours == suggestions(lambda seed: TPESampler(seed=seed, **SETTINGS), 40, direction=direction)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_beyond_the_limit_suggestions_still_go_where_values_are_good(monkeypatch):
    monkeypatch.setattr(tpe, "MODELLED", 20)
    points = suggestions(lambda seed: JointTPE(SPACE, seed=seed, **SETTINGS), 120)
    assert fmean(point["depth"] for point in points[60:]) > 3.5  # at random it would be 2.5


@pytest.mark.parametrize(("direction", "best"), [("maximize", [7, 8, 9]), ("minimize", [0, 1, 2])])
def test_the_good_the_newest_and_all_that_run_are_modelled(monkeypatch, direction, best):
    monkeypatch.setattr(tpe, "MODELLED", 2)
    monkeypatch.setattr(tpe, "GOOD", 3)
    study = optuna.create_study(direction=direction)
    for number in range(10):
        study.add_trial(create_trial(value=float(number)))
    study.add_trial(create_trial(state=TrialState.RUNNING))
    for _ in range(2):
        study.add_trial(create_trial(state=TrialState.PRUNED))
    seen = tpe._Modelled(study)._get_trials(deepcopy=False)
    assert [trial.number for trial in seen] == [*best, 10, 11, 12]
