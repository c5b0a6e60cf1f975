"""What may befall workers of a Ray on one machine: every trouble in one study, each to a trial of its own."""

import os
from types import SimpleNamespace

import grpc
import pytest

from search.cluster import connect
from search.config import StudyConfig
from search.ledger import Ledger
from search.study import Study
from search.trial_source import MAX_REASON
from search.tune_bridge import run_trials

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

TROUBLES = {
    "1": "killed",
    "2": "stopped",
    "3": "sleeps!",
    "4": "raises!",
    "5": "raises_megabytes!",
    "6": "raises_unpicklable!",
    "7": "told_to_end",
    "8": "leaves_children_and_is_killed",
}


@pytest.fixture(scope="module")
def study(folder, pretended, left_behind):
    """The trials of the study when all is over, and the lines that each wrote when it began an epoch."""
    config = StudyConfig.parse(
        {
            "space": {"x": {"type": "float", "low": 0.1, "high": 1.0}},
            "objective": {"metric": "v"},
            "pruner": {"name": "none"},
            "budget": {"trials": 10, "epochs": 3, "retries": 1, "silence_seconds": 6, "consecutive_failures": 9},
        }
    )
    context = {"folder": str(folder / "trials"), "fails": False, "epoch_seconds": 0.3, "troubles": TROUBLES}
    with pytest.MonkeyPatch.context() as patch, Ledger(folder / "study.db") as ledger:
        patch.setenv("MARK_OF_THE_TEST", str(folder))
        patch.setenv("TMPDIR", str(folder))
        with connect(cpus=3, folder=folder / "ray") as cluster:
            answers = [answer(cluster.address, token) for token in (None, "0" * 64, os.environ["RAY_AUTH_TOKEN"])]
            run_trials(Study(config, ledger), pretended.PretendedTrial, context, {"CPU": 1}, 3)
        trials = ledger.history.search_trials()
    begun = [
        [line.split() for line in (folder / "trials" / str(number) / "begun").read_text().splitlines()]
        for number in range(10)
    ]
    told = [path for path in (folder / "ray").rglob("*") if path.is_file() and holds_token(path)]
    return SimpleNamespace(trials=trials, begun=begun, left=left_behind(), answers=answers, told=told)


def answer(address, token):
    """What the door of Ray says to a caller with this token, as a gRPC status."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary("/ray.rpc.JobInfoGcsService/GetAllJobInfo")(b"", timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


def holds_token(path):
    return os.environ["RAY_AUTH_TOKEN"].encode() in path.read_bytes()


def test_f01_a_trial_whose_worker_is_killed_in_mid_epoch_goes_on_with_at_most_one_epoch_done_again(study):
    trial = study.trials[1]
    assert (trial.status, trial.attempts, len(trial.epochs)) == ("completed", 2, 3)
    assert [int(epoch) for epoch, _ in study.begun[1]] == [1, 2, 2, 3]
    killed, again = (float(at) for _, at in study.begun[1][1:3])
    assert again - killed < 60


def test_f13_a_worker_that_is_stopped_loses_its_trial_to_another(study):
    trial = study.trials[2]
    assert (trial.status, trial.attempts) == ("completed", 2)
    assert [int(epoch) for epoch, _ in study.begun[2]] == [1, 2, 2, 3]


def test_f13_a_trial_that_hangs_each_time_fails_as_timed_out_and_frees_its_place(study):
    trial = study.trials[3]
    assert (trial.status, trial.attempts, len(trial.epochs)) == ("failed", 2, 1)
    assert trial.reason.startswith("timeout: it hung 2 times, the last time: nothing was heard of its worker for ")
    assert study.trials[9].status == "completed"


def test_f21_a_trial_that_breaks_each_time_fails_with_its_error(study):
    trial = study.trials[4]
    assert (trial.status, trial.attempts) == ("failed", 2)
    assert trial.reason == "its worker died 2 times, the last time: RuntimeError: a mistake of the trainable"


def test_f43_huge_and_unpicklable_exceptions_are_recorded_cut(study):
    huge, unpicklable = study.trials[5:7]
    assert huge.status == unpicklable.status == "failed"
    assert huge.reason.startswith("its worker died 2 times, the last time: RuntimeError: xxx")
    assert len(huge.reason) == MAX_REASON
    assert "an exception that cannot be pickled" in unpicklable.reason


def test_f05_a_worker_that_is_told_to_end_loses_its_trial_to_another(study):
    assert (study.trials[7].status, study.trials[7].attempts) == ("completed", 2)


def test_f15_children_of_a_killed_worker_that_ignore_sigterm_do_not_outlive_the_search(study):
    assert (study.trials[8].status, study.trials[8].attempts) == ("completed", 2)
    assert study.left == []


def test_f50_callers_without_the_token_or_with_another_are_turned_away_and_no_log_has_it(study):
    without, wrong, right = study.answers
    assert without == "UNAUTHENTICATED"
    assert wrong in ("UNAUTHENTICATED", "PERMISSION_DENIED")
    assert right == "OK"
    assert study.told == []


def test_other_trials_run_as_if_nothing_had_happened(study):
    assert [(study.trials[number].status, study.trials[number].attempts) for number in (0, 9)] == [("completed", 1)] * 2
