"""A real study on hosts that share no disk, while hosts are added, lose power, lose their network and are drained; and
the loss of the head.
"""

import time
from collections import defaultdict
from types import SimpleNamespace

import pytest
from followed import Followed, HandMade, furnish, say
from furniture import HOME, WEIGHTS, bring_images, install_project, on
from hosts import ROOT

from search.events import EpochReported, SessionOpened, Started

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

TRIALS, EPOCHS = 12, 10  # more trials when the machine is fast
CUT_SECONDS = 30


def brought_inputs(host):
    """What was brought to a host of images and weights: inode and time of each file."""
    inputs = on(host, HOME.parent / "tmp").glob("thawline-node-*/*/inputs/**/*")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in inputs if path.is_file()}


@pytest.fixture(scope="module")
def cluster(hosts):
    names = ["head", "worker1", "worker2", "worker3", "worker4"]
    head, *workers = [hosts.add(name) for name in names]
    furnish(*workers, head=head)
    say(f"hosts made: {', '.join(names)}")
    began = time.monotonic()
    made = HandMade(head, workers[:3])
    say(f"ray started by hand on four of them in {time.monotonic() - began:.0f} s")
    return made


@pytest.fixture(scope="module")
def story(cluster, hosts):
    """One search, and all that befalls its hosts."""
    worker1, worker2, worker3, worker4 = (hosts[f"worker{number}"] for number in (1, 2, 3, 4))
    study = Followed(cluster.head, TRIALS, EPOCHS, concurrency=4)
    seen = SimpleNamespace(study=study, moved={}, brought=[])

    def look_at_inputs():
        """What worker3 has now, and of which session: a complete search takes away what was brought for it."""
        seen.brought.append((len(study.of(SessionOpened)), brought_inputs(worker3)))

    took = study.until("trials on three hosts", lambda: len(set(study.places().values())) == 3)
    say(f"trials on three hosts after {took:.0f} s")
    study.wait_mid_epoch(worker3)
    seen.private = {
        worker.name: [name for name in ("runs", "images", WEIGHTS.name) if on(worker, HOME / name).exists()]
        + [str(ROOT / "pyproject.toml")] * (worker.files / str(ROOT / "pyproject.toml").lstrip("/")).exists()
        for worker in cluster.workers
    }
    look_at_inputs()

    cluster.join(worker4)
    took = study.until("a trial on the added host", lambda: study.hosts()["worker4"])
    say(f"a host was added: its first trial started {took:.0f} s after `ray start` returned")

    def move(how, worker):
        number = study.wait_mid_epoch(worker)
        starts = len(study.starts(number))
        how(worker)
        took = study.until(f"trial {number} on another host", lambda: len(study.starts(number)) > starts)
        seen.moved[worker.name] = number
        say(f"{worker.name}: trial {number} started on {study.starts(number)[-1]} {took:.0f} s later")

    say("worker1 loses its power in mid-epoch")
    move(lambda worker: worker.kill(), worker1)

    study.wait_mid_epoch(worker3)
    look_at_inputs()
    number = study.wait_mid_epoch(worker2)
    before = len(study.epochs(number))
    worker2.cut()
    say(f"worker2 loses its network in the middle of an epoch of trial {number}")
    time.sleep(CUT_SECONDS)
    worker2.restore()
    took = study.until(f"the next epoch of trial {number}", lambda: len(study.epochs(number)) > before)
    seen.cut = number
    seen.survived = cluster.node_of(worker2)[1]
    say(f"{CUT_SECONDS} s later it is back: next epoch after {took:.0f} s more, on {study.starts(number)[-1]}")
    say(f"Ray takes worker2 for {'alive' if seen.survived else 'dead'}")

    say("worker3 is drained")
    study.wait_mid_epoch(worker3)
    look_at_inputs()
    move(lambda worker: cluster.drain(worker, seconds=120), worker3)
    seen.code = study.ended()
    say(f"the search ended with {seen.code}; starts by host: {dict(study.hosts())}")
    return seen


def test_every_trial_and_every_epoch_is_there_once_whatever_befell_the_hosts(story):
    assert story.code == 0, story.study.process.said()
    story.study.check_counts(EPOCHS)


def test_no_worker_host_sees_what_only_the_head_has(story):
    assert story.private == {"worker1": [], "worker2": [], "worker3": []}


def test_trials_run_on_every_worker_host_and_none_on_the_head(story):
    assert set(story.study.hosts()) == {"worker1", "worker2", "worker3", "worker4"}


def test_images_and_weights_are_brought_to_a_host_once(story):
    sessions = defaultdict(list)
    for session, brought in story.brought:
        sessions[session].append(brought)
    for first, *later in sessions.values():
        assert {"train.npy", "validation.npy"} <= first.keys()
        assert WEIGHTS.name in first or not WEIGHTS.exists()
        assert later == [first] * len(later)
    assert max(map(len, sessions.values())) > 1


def test_a_trial_leaves_a_host_without_power_and_one_that_is_drained(story):
    for name, number in story.moved.items():
        starts = story.study.starts(number)
        assert starts[-1] != name
    assert set(story.moved) == {"worker1", "worker3"}


def test_the_run_folder_on_the_head_has_every_trials_log(story):
    logs = [story.study.paths.trial(number) / "log.txt" for number in range(story.study.trials)]
    assert [log.parent.name for log in logs if f"epoch {EPOCHS}: " not in log.read_text()] == []


def test_a_study_whose_head_lost_its_power_goes_on_on_a_new_cluster_from_its_copy(story, cluster, hosts, folder):
    trials, budget = 4, 6
    storage = folder / "storage"
    storage.mkdir()
    first, second = (hosts.add(name, shared=[storage]) for name in ("head2", "head3"))
    workers = [hosts["worker2"], hosts["worker4"]]
    for host in (first, second):
        install_project(host)
        bring_images(host)
    for host in [cluster.head, *cluster.workers]:
        if host.name != "worker1":
            stop_ray(host)
    before = HandMade(first, workers)
    study = Followed(first, trials, budget, concurrency=2, storage=storage)
    study.until("epochs of two trials", lambda: min(len(study.epochs(0)), len(study.epochs(1))) >= 2)
    study.wait_mid_epoch(workers[0])
    reported = {number: study.epochs(number) for number in range(trials)}
    say(f"head2 loses its power; epochs reported: {[len(each) for each in reported.values()]}")
    before.head.kill()
    for worker in workers:
        stop_ray(worker)
    began = time.monotonic()
    HandMade(second, workers)
    study = Followed(second, trials, budget, concurrency=2, storage=storage)
    took = study.until("a trial of a second session", lambda: all(study.session()) and started(study.session()[1]))
    say(
        f"a trial runs on the new cluster {took:.0f} s after the search's start, "
        f"{time.monotonic() - began:.0f} s after the first command on the new head"
    )
    copied = [(event.number, event.epoch) for event in study.session()[0] if isinstance(event, EpochReported)]
    lost = {number: len([e for e in epochs if (number, e) not in copied]) for number, epochs in reported.items()}
    assert study.ended() == 0, study.process.said()
    study.check_counts(budget)
    say(f"epochs that the copy did not have: {lost}")
    assert max(lost.values()) <= 1
    assert sum(study.redone(number) for number in range(trials)) <= 2


def started(events):
    return any(isinstance(event, Started) for event in events)


def stop_ray(host):
    host.run(f"source {HOME}/thawline/venv/bin/activate; ray stop --force", check=False)
