"""What may befall a driver and the Ray that it started: signals at any time, too little memory, a slow network."""

import signal
import time
from types import SimpleNamespace

import pytest

from search.ledger import read_history
from search.lock import driver_at_work

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

SECONDS = 5.0  # within which a driver must end
BUSY = 4.0  # times slower a machine may be that does other things as well
SLOW_NETWORK = {  # some first requests for workers are lost, answers come late
    "RAY_testing_rpc_failure": '{"NodeManagerService.grpc_client.RequestWorkerLease": {"num_failures": 2, '
    '"req_failure_prob": 50, "resp_failure_prob": 50}}',
    "RAY_testing_asio_delay_us": "NodeManagerService.grpc_server.RequestWorkerLease=10000:200000",
}


def told_to_end(driver, *signals):
    """Send these signals a third of a second apart; exit code, and seconds from the first to the end."""
    began = time.monotonic()
    for number in signals:
        driver.process.send_signal(number)
        time.sleep(0.3)
    exit_code = driver.process.wait(timeout=60)
    return exit_code, time.monotonic() - began


@pytest.fixture(scope="module")
def stopped(drive, left_behind):
    """A driver that stands still for a while, is told to end, and finishes its study over a bad network."""
    story = {"budget": {"trials": 6, "epochs": 6, "silence_seconds": 5}, "training": {"epoch_seconds": 0.4}}
    story["training"]["troubles"] = {"0": "leaves_children"}
    with drive(name="stopped", **story) as driver:
        driver.wait_until(lambda: driver.epochs() >= 4)
        driver.process.send_signal(signal.SIGSTOP)
        time.sleep(12)
        driver.process.send_signal(signal.SIGCONT)
        epochs = driver.epochs()
        driver.wait_until(lambda: driver.epochs() >= epochs + 3)
        exit_code, seconds = told_to_end(driver, signal.SIGTERM)
        told = SimpleNamespace(exit_code=exit_code, seconds=seconds, left=left_behind(), paths=driver.paths)
        told.at_work = driver_at_work(driver.paths.lock)
        told.after = read_history(driver.paths.ledger)
    with drive(SLOW_NETWORK, name="stopped", **story) as driver:
        told.resumed = driver.ended()
        told.finished = read_history(driver.paths.ledger)
    return told


def test_f10_a_driver_that_is_told_to_end_does_so_at_once_and_leaves_nothing(stopped):
    assert stopped.exit_code == 143
    assert stopped.seconds < SECONDS * BUSY
    assert stopped.left == []
    assert stopped.at_work is None


def test_f12_a_driver_that_stood_still_takes_no_worker_for_dead(stopped):
    assert stopped.after.note("trial_lost") is None
    assert {trial.attempts for trial in stopped.after.trials.values()} <= {0, 1}


def test_f14_a_study_over_a_network_that_loses_and_delays_calls_has_every_trial_once(stopped):
    assert stopped.resumed[0] == 0, stopped.resumed[1]
    trials = stopped.finished.search_trials()
    assert [(trial.number, trial.status, len(trial.epochs)) for trial in trials] == [
        (number, "completed", 6) for number in range(6)
    ]
    assert max(trial.attempts for trial in trials) <= 2


def test_f15_children_that_ignore_sigterm_do_not_outlive_the_driver(stopped):
    assert [line for line in stopped.left if "97531" in line] == []


def test_f11_two_interrupts_while_ray_starts_end_the_driver_once_and_leave_nothing(drive, folder, left_behind):
    with drive(name="starting") as driver:
        driver.wait_until(lambda: list(folder.glob("thawline-*/ray/session_*")))
        time.sleep(0.5)
        exit_code, seconds = told_to_end(driver, signal.SIGINT, signal.SIGINT)
        said = driver.process.stderr.read()
        assert exit_code == 130, said
        assert seconds < SECONDS * BUSY
        assert left_behind() == []
        assert "Traceback" not in said


def test_f10_a_driver_that_prepares_ends_at_once_and_leaves_no_run(drive, left_behind):
    with drive(name="prepares", training={"preparing_seconds": 60}) as driver:
        driver.wait_until((driver.paths.root.parent / "prepares.preparing").exists)
        assert told_to_end(driver, signal.SIGTERM) == (143, pytest.approx(0, abs=SECONDS * BUSY))
        assert left_behind() == []
        assert not driver.paths.root.exists()


def test_f10_a_driver_waits_for_no_epoch_that_takes_a_minute(drive, left_behind):
    with drive(name="long", training={"epoch_seconds": 60}) as driver:
        driver.wait_until(lambda: len([trial for trial in driver.trials() if trial.status == "running"]) == 2)
        time.sleep(1)  # by then it waits for its workers
        exit_code, seconds = told_to_end(driver, signal.SIGTERM)
        assert exit_code == 143
        assert seconds < 2 * SECONDS  # not times BUSY: Tune itself would wait ten for a worker
        assert left_behind() == []


def test_f36_f42_a_trial_that_takes_all_memory_is_named_and_runs_again_while_others_go_on(drive):
    """And f36: the disk that objects are spilled to is full all the while; nothing of a search is spilled."""
    if _memory("MemAvailable") < 8e9:
        pytest.skip("there must be room for a trial that takes 4 GB")
    used = 1 - _memory("MemAvailable") / _memory("MemTotal")
    environment = {
        "RAY_memory_usage_threshold": str(used + 4e9 / _memory("MemTotal")),
        "RAY_memory_monitor_refresh_ms": "100",
        "RAY_local_fs_capacity_threshold": "0.0",
    }
    budget = {"trials": 3, "epochs": 3, "retries": 20}  # what else runs on this machine takes memory, too
    story = {"budget": budget, "training": {"troubles": {"1": "takes_all_memory"}}}
    with drive(environment, name="memory", **story) as driver:
        exit_code, said = driver.ended(seconds=280)
        assert exit_code == 0, said
        history = read_history(driver.paths.ledger)
    assert {trial.status for trial in history.search_trials()} == {"completed"}
    lost = next(note.facts for note in history.notes if note.facts.get("trial") == "1")
    assert lost["cause"] == "memory"
    assert lost["again_after_seconds"] >= 10
    assert "ended because the node ran out of memory" in lost["reason"]


def _memory(name):
    """Bytes, from /proc/meminfo."""
    with open("/proc/meminfo") as lines:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def headless(drive):
    """A driver on a cluster whose head is lost, and the study's second half on another."""
    from ray.cluster_utils import Cluster

    story = {"name": "headless", "budget": {"trials": 4, "epochs": 5}, "training": {"epoch_seconds": 0.4}}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False},
    )
    try:
        with drive(**story, resources={"address": cluster.address}) as driver:
            driver.wait_until(lambda: driver.epochs() >= 4)
            cluster.head_node.kill_gcs_server(check_alive=False)
            began = time.monotonic()
            exit_code, said = driver.ended()
            lost = SimpleNamespace(exit_code=exit_code, said=said, seconds=time.monotonic() - began)
            lost.after = read_history(driver.paths.ledger)
    finally:
        cluster.shutdown()
    with drive(**story) as driver:
        lost.resumed = driver.ended()
        lost.finished = read_history(driver.paths.ledger)
    return lost


def test_f06_a_driver_whose_cluster_lost_its_head_ends_within_a_minute_and_says_why(headless):
    assert headless.exit_code == 1
    assert headless.seconds < 60, headless.said
    assert "the head of the Ray cluster must answer, but" in headless.said


def test_f06_the_study_goes_on_elsewhere_with_nothing_lost(headless):
    assert headless.resumed[0] == 0, headless.resumed[1]
    trials = headless.finished.search_trials()
    assert [(trial.number, trial.status, len(trial.epochs)) for trial in trials] == [
        (number, "completed", 5) for number in range(4)
    ]
    for trial in headless.after.search_trials():
        assert headless.finished.trials[trial.key].epochs[: len(trial.epochs)] == trial.epochs
