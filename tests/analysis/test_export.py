import math

import pytest
import yaml

from analysis.export import best_document, export_trial, named_winner
from search.config import StudyConfig
from search.errors import ConfigurationError
from search.events import Asked, EpochReported, Failed, Noted, TrialKey
from search.ledger import Ledger, read_history

STUDY = {
    "name": "lungs",
    "seed": 7,
    "data": {"path": "images", "split": {"train": 0.8}},
    "model": {"architecture": "resnet50"},
    "training": {"batch_size": 16, "freeze_depth": 1, "transforms": ["zoom", "shift"]},
    "space": {
        "learning_rate": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
        "freeze_depth": {"type": "int", "low": 0, "high": 5},
        "optimizer": {"type": "choice", "values": ["adam", "no"]},
    },
    "first_points": [{"freeze_depth": 3}],
    "objective": {"metric": "val_auc"},
    "budget": {"trials": 5, "wall_seconds": 60},
    "record": {"versions": {"python": "3.11"}, "data": {"fingerprint": "ab"}, "weights_sha256": None},
}
LUCKY = {"learning_rate": 1e-05, "freeze_depth": 4, "optimizer": "no"}
STEADY = {"learning_rate": 0.0012345678901234567, "freeze_depth": 5, "optimizer": "adam"}


def report(number, epoch, value, verdict="continue", repeat=0):
    metrics = {"val_auc": value, "loss": math.nan, "learning_rate": 0.5**epoch}
    return EpochReported(number, epoch, metrics, verdict, repeat)


SEARCHED = [
    *(Asked(0, LUCKY, 10), report(0, 1, 0.7), report(0, 2, 0.95), report(0, 3, 0.9, "complete")),
    *(Asked(1, STEADY, 11), report(1, 1, 0.9, "prune")),
    *(Asked(2, STEADY, 12), Failed(2, "no memory")),
]
RERUN = [
    *(Asked(0, LUCKY, 20, "rerun", 1), report(0, 1, 0.6, "complete", repeat=1)),
    *(Asked(1, STEADY, 21, "rerun", 1), report(1, 1, 0.7, repeat=1), report(1, 2, 0.8, "complete", repeat=1)),
]


@pytest.fixture
def make_run(tmp_path):
    def make(*events, study=STUDY):
        folder = tmp_path / "lungs"
        folder.mkdir()
        (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        with Ledger(folder / "study.db") as ledger:
            ledger.append(*events)
        return folder

    return make


def test_the_exported_file_loads_as_the_study_with_the_trial_in_it(make_run):
    run = make_run(*SEARCHED)
    path = export_trial(run)
    assert path == run / "best.yaml"
    study, exported = StudyConfig.load(run / "study.yaml"), StudyConfig.load(path)
    assert exported.training == {"batch_size": 16, "transforms": ["zoom", "shift"], **LUCKY}
    assert exported.first_points == [LUCKY]
    kept = ("name", "seed", "storage", "data", "model", "space", "objective", "sampler", "pruner", "budget", "final")
    assert {name: getattr(exported, name) for name in kept} == {name: getattr(study, name) for name in kept}


def test_what_was_loaded_is_what_was_written(make_run):
    run = make_run(*SEARCHED)
    config, history = StudyConfig.load(run / "study.yaml"), read_history(run / "study.db")
    record = {**config.record, "source_run": "lungs"}
    document = best_document(config, record, history.trials[TrialKey(0)], named_winner(history, config))
    written = StudyConfig.load(export_trial(run))
    assert written == StudyConfig.parse(document)
    assert StudyConfig.parse(written.dump()) == StudyConfig.parse(StudyConfig.parse(document).dump())
    assert written.record == document["record"]


def test_the_record_tells_where_the_configuration_comes_from(make_run):
    record = StudyConfig.load(export_trial(make_run(*SEARCHED))).record
    reason = record["winner"].pop("reason")
    assert record == {
        **STUDY["record"],
        "source_run": "lungs",
        "exported": "best",
        "trial": {
            "number": 0,
            "value": 0.95,
            "best_epoch": 2,
            "learning_rates": [0.5, 0.25],
            "epochs_run": 3,
            "seed": 10,
            "parameters": LUCKY,
            "status": "completed",
            "metrics": {"val_auc": 0.95, "learning_rate": 0.25},
        },
        "winner": {"seeds": 0},
    }
    assert reason.startswith("trial 0 has the best val_auc")


def test_after_reruns_their_winner_is_exported_with_their_epochs(make_run):
    record = StudyConfig.load(export_trial(make_run(*SEARCHED, *RERUN))).record
    trial = record["trial"]
    assert (trial["number"], trial["value"], trial["status"]) == (1, 0.9, "pruned")
    assert (trial["best_epoch"], trial["learning_rates"]) == (2, [0.5, 0.25])
    assert (record["winner"]["mean"], record["winner"]["seeds"]) == (0.8, 1)


def test_the_winner_that_the_ledger_names_is_exported(make_run):
    note = Noted("winner", {"number": 1, "best_epoch": 5, "mean": 0.8, "standard_error": math.nan, "reason": "it said"})
    path = export_trial(make_run(*SEARCHED, note))
    record = StudyConfig.load(path).record
    assert (record["trial"]["number"], record["trial"]["best_epoch"]) == (1, 5)
    assert record["winner"] == {"mean": 0.8, "reason": "it said"}


def test_a_winner_that_was_named_before_the_search_went_on_is_not_taken_for_its_best(make_run):
    note = Noted("winner", {"number": 1, "best_epoch": 5, "mean": math.nan, "standard_error": math.nan, "reason": "x"})
    more = [Asked(3, STEADY, 13), report(3, 1, 0.99, "complete")]
    assert StudyConfig.load(export_trial(make_run(*SEARCHED, note, *more))).record["trial"]["number"] == 3


def test_a_numbered_trial_gets_a_file_of_its_own(make_run):
    run = make_run(*SEARCHED)
    path = export_trial(run, 1)
    config = StudyConfig.load(path)
    assert path == run / "trial_1.yaml"
    assert not (run / "best.yaml").exists()
    assert (config.record["exported"], config.record["trial"]["number"]) == ("trial", 1)
    assert "winner" not in config.record
    assert config.training["learning_rate"].hex() == STEADY["learning_rate"].hex()


def test_another_place_is_made_and_nothing_is_left_beside_the_file(make_run, tmp_path):
    path = export_trial(make_run(*SEARCHED), 0, tmp_path / "new" / "place.yaml")
    assert list(path.parent.iterdir()) == [path]
    assert StudyConfig.load(path).name == "lungs"


def test_the_file_begins_with_run_trial_and_value_for_people(make_run):
    lines = export_trial(make_run(*SEARCHED)).read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# Trial 0 of the study lungs, its winner", "# val_auc 0.95 in the search; train 2 epochs"]
    assert lines[2].startswith("# trial 0 has the best val_auc")
    assert lines[3] == "name: lungs"


def test_a_reason_of_many_lines_stays_a_comment(make_run):
    note = Noted("winner", {"number": 0, "best_epoch": 2, "reason": "a\nseed: 99\n\u2028seed: 98"})
    assert StudyConfig.load(export_trial(make_run(*SEARCHED, note))).seed == 7


def test_a_hyperparameter_that_a_condition_excludes_keeps_its_fixed_value(make_run):
    space = {**STUDY["space"], "momentum": {"type": "float", "low": 0.5, "high": 0.9, "when": {"optimizer": "adam"}}}
    study = {**STUDY, "space": space, "training": {"momentum": 0.7}}
    config = StudyConfig.load(export_trial(make_run(*SEARCHED, study=study)))
    assert config.training["momentum"] == 0.7
    assert "momentum" not in config.first_points[0]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (3, "one of the 3 trials of the study, numbered from 0, but got 3"),
        (-1, "but got -1"),
        (2, "trial 2: must have a value of val_auc to be exported, but it is failed: no memory"),
    ],
)
def test_a_trial_that_cannot_be_exported_is_named_and_nothing_is_written(make_run, number, message):
    run = make_run(*SEARCHED)
    with pytest.raises(ConfigurationError, match=message):
        export_trial(run, number)
    assert sorted(path.name for path in run.glob("*.yaml")) == ["study.yaml"]


def test_a_study_without_a_usable_trial_has_no_winner(make_run):
    with pytest.raises(ConfigurationError, match="there is none"):
        export_trial(make_run(Asked(0, LUCKY, 1), Failed(0, "no memory")))
