"""Searches in virtual time: what a cluster's time goes to, by hand; and that decisions are real, and repeatable."""

from collections import Counter
from dataclasses import dataclass

import pytest

from benchmarks.simulation.cluster import Cluster, Simulation
from benchmarks.simulation.compare import Course, middle_mean
from benchmarks.simulation.costs import Cost, checkpoint_bytes
from benchmarks.simulation.curves import read_curves
from benchmarks.simulation.driver import FINISHED, RealDriver, RecordedDriver, TimedLedger, Work
from benchmarks.simulation.recorded import EPOCHS, StockDriver, curves, search
from benchmarks.simulation.scale import SPACE, Pretended, replay, seconds_of, simulate
from search.config import StudyConfig
from search.events import SessionOpened
from search.ledger import read_history

BARE = {"cold_start": 0.0, "warm_start": 0.0, "tracing": 0.0, "latency": 0.0, "ray": 0.0}


@dataclass
class Same:
    """Trials that all take as long, and leave checkpoints as large."""

    each: float
    size: float = 0.0

    def seconds(self, parameters, epoch):
        return self.each

    def metrics(self, parameters, seed, epoch):
        return {"val_auc": 0.5}

    def checkpoint_bytes(self, parameters):
        return self.size


def recorded(trials, ask=0.0, told=0.0):
    """A driver that gives out so many trials of one epoch and takes so many seconds for each call."""
    courses = [(Work("", number, {}, 0, 1), 1) for number in range(trials)]
    keys = [(number, epoch) for number in range(trials) for epoch in (0, 1)]
    seconds = {"ask": ask, "started": told, "epoch": told}
    return RecordedDriver(courses, {kind: dict.fromkeys(keys, each) for kind, each in seconds.items()})


def config(trials=50, seed=3, **pruner):
    budget = {"trials": trials, "epochs": 9}
    return StudyConfig.parse({"space": SPACE, "seed": seed, "budget": budget, "pruner": pruner})


def decisions(records):
    return [
        (trial.parameters, trial.seed, trial.status, [epoch.metrics for epoch in trial.epochs], trial.attempts)
        for trial in records
    ]


def test_time_in_epochs_is_what_it_is_by_hand():
    # The driver takes 1 s for each suggestion, and hears that worker 0 has started after it has answered worker 1: both
    # train from 2 to 12. Worker 0 asks again at 12 and has the last trial at 13: of 2 * 13 seconds, 20 were in epochs.
    outcome = Simulation(Cluster(2, **BARE), Same(10.0), recorded(3, ask=1.0)).run()
    assert [(begin, end) for begin, end, _ in outcome.epochs] == [(2, 12), (2, 12), (13, 23)]
    assert (outcome.last_ask, outcome.end, outcome.driver) == (13, 23, 3)
    assert outcome.utilisation == 20 / 26


def test_starts_tracing_and_messages_are_not_counted_as_epochs():
    cluster = Cluster(1, cold_start=10.0, warm_start=0.5, tracing=7.0, latency=0.25, ray=0.5)
    outcome = Simulation(cluster, Same(4.0), recorded(2)).run()
    # 0.5 for the suggestion, there and back 0.5, start 10.5: told at 11.5, answered at 12, heard at 12.25, traced until
    # 19.25, trained until 23.25, told at 23.5, answered at 24, asked until 24.5; nothing is cold or traced again.
    assert [(begin, end) for begin, end, _ in outcome.epochs] == [(19.25, 23.25), (26.25, 30.25)]
    assert outcome.tracing == [(12.25, 19.25), (26.25, 26.25)]
    assert outcome.utilisation == 4 / 24.5
    assert outcome.tracing_share == 7 / 24.5


def test_checkpoints_pass_a_link_one_after_the_other():
    outcome = Simulation(Cluster(2, **BARE, link=5.0), Same(10.0, size=20.0), recorded(2)).run()
    assert [when for _, when, _, _ in outcome.ends] == [14, 18]
    assert outcome.bytes == 40


def test_the_driver_serves_one_worker_at_a_time():
    outcome = Simulation(Cluster(3, **BARE), Same(10.0), recorded(3, told=2.0)).run()
    assert [begin for begin, _, _ in outcome.epochs] == [2, 4, 6]


def test_the_same_seed_gives_the_same_decisions_and_another_one_others(tmp_path):
    tables = []
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        (tmp_path / name).mkdir()
        _, _, records = simulate(config(seed=seed), Cluster(5), Pretended(), tmp_path / name)
        tables.append(decisions(records))
    assert tables[0] == tables[1] != tables[2]


def test_every_trial_is_asked_and_ended_exactly_once_in_both_records(tmp_path):
    outcome, driver, _ = simulate(config(), Cluster(5), Pretended(), tmp_path)
    records = read_history(tmp_path / "study.db").search_trials()
    assert [trial.number for trial in records] == list(range(50))
    assert {trial.status for trial in records} == {"completed", "pruned"}
    assert Counter(number for _, _, number, _ in outcome.ends) == Counter(range(50))
    assert sorted(number for number, _ in driver.measured["ask"].cpu) == list(range(50))
    assert (tmp_path / "study.events.jsonl").read_bytes().count(b"\n") == 1 + 50 + 50 + len(outcome.epochs)


def test_trials_of_lost_workers_run_again_and_no_epoch_counts_twice(tmp_path):
    outcome, _, records = simulate(config(), Cluster(5, loss_per_hour=20.0), Pretended(), tmp_path)
    assert sum(trial.attempts for trial in records) > 50
    assert all(trial.ended and trial.status != "failed" for trial in records)
    assert all([epoch.epoch for epoch in t.epochs] == list(range(1, len(t.epochs) + 1)) for t in records)
    assert Counter(number for _, _, number, _ in outcome.ends) == Counter(range(50))


def test_a_worker_leaves_a_trial_at_each_pause_and_goes_on_with_the_next_epoch(tmp_path):
    outcome, _, records = simulate(config(variant="promotion"), Cluster(5), Pretended(), tmp_path)
    assert all(trial.ended for trial in records)
    left = {
        trial.number: [epoch for _, _, number, epoch in outcome.ends if number == trial.number] for trial in records
    }
    assert [epochs[-1] for epochs in left.values()] == [len(trial.epochs) for trial in records]
    assert {tuple(epochs) for epochs in left.values()} > {(1,), (1, 3), (1, 3, 9)}
    assert len(outcome.epochs) == sum(len(trial.epochs) for trial in records)


def test_recorded_decisions_are_played_again_with_the_seconds_that_were_measured(tmp_path):
    outcome, driver, _ = simulate(config(), Cluster(5), Pretended(), tmp_path)
    courses = [outcome.courses[number] for number in range(50)]
    again = replay(courses, seconds_of(driver.measured, "processor"), Cluster(5))
    assert {number: epochs for number, (_, epochs) in again.courses.items()} == {
        number: epochs for number, (_, epochs) in outcome.courses.items()
    }
    assert again.bytes == outcome.bytes


def test_no_more_epochs_are_done_than_asked_for(tmp_path):
    with TimedLedger(tmp_path / "study.db") as ledger:
        ledger.append(SessionOpened("here", 0))
        Simulation(Cluster(5), Pretended(), RealDriver(config(), ledger, 5)).run(epochs=20)
        assert sum(len(trial.epochs) for trial in ledger.history.search_trials()) == 20


def test_an_epoch_costs_what_its_images_weigh():
    cost = Cost(training_images=100, validation_images=10, side=64, speed=1e9)
    # 100 images of 1.89 and 10 of 0.63 GFLOP at 1 GFLOP/s, and a step costs 7.8 images more than its 32.
    assert cost.epoch_seconds({"freeze_depth": 0, "batch_size": 32}) == pytest.approx(100 * 1.89 * 39.8 / 32 + 6.3)
    assert checkpoint_bytes(0) == 23_600_000 * 12


def test_regret_is_that_of_the_last_trial_ended_by_then():
    import numpy as np

    course = Course(np.array([3, 9, 20]), np.array([30.0, 90.0, 200.0]), np.array([0.3, 0.1, 0.2]))
    assert course.at([1, 3, 8, 9, 30]).tolist() == [0.3, 0.3, 0.3, 0.1, 0.2]
    assert course.at([89.0, 90.0], "seconds").tolist() == [0.3, 0.1]
    assert middle_mean(np.array([0.0, 1.0, 2.0, 100.0]))[0] == 1.5


def test_recorded_curves_are_whole():
    table = read_curves()
    assert (table.groupby("trial")["epoch"].agg(list).map(lambda epochs: epochs == list(range(1, 10)))).all()
    assert table["trial"].nunique() == 120
    assert table["val_auc"].between(0, 1).all()


def test_curves_to_the_end_are_whole_and_every_pruner_is_given_the_same_configurations():
    known = curves(without=0)
    assert known.values.shape == known.tests.shape == (48, EPOCHS)
    drawn = [known.place(point) for point in known.draw(3)]
    assert len(set(drawn)) == 24
    everything = search("none", 3, without=0)
    assert (everything.whole, everything.passes) == (24, 216)
    assert everything.value == known.values[drawn].max()
    fewer = search("promotion", 3, without=0)
    assert fewer.passes < 100
    assert fewer.value in known.values[drawn]
    fewest = search("synchronous", 3, without=0)
    assert (fewest.whole, fewest.passes) == (2, 24 + 8 * 2 + 2 * 6)
    assert fewest.value in known.values[drawn]


def test_ray_tunes_scheduler_looks_after_whole_passes_and_lets_the_better_third_go_on():
    driver = StockDriver([{"a": number} for number in range(3)])
    ahead, behind, between = (driver.ask(str(number), 0.0)[0] for number in range(3))
    assert driver.ask("3", 0.0) == (FINISHED, 0.0)

    def goes_on(work, epoch, value):
        work.epoch = epoch
        return driver.tell(work, {"kind": "epoch", "metrics": {"val_auc": value}}, 0.0)[0]

    assert [goes_on(ahead, epoch, 0.8) for epoch in range(1, EPOCHS + 1)] == [True] * (EPOCHS - 1) + [False]
    assert [goes_on(behind, epoch, 0.6) for epoch in (1, 2)] == [True, False]
    assert [goes_on(between, epoch, 0.75) for epoch in (1, 2, 3, 6)] == [True, True, True, False]


def test_searches_can_do_without_the_configurations_that_stand_out():
    known, fewer = curves(without=0), curves(without=3)
    best = known.values.max(axis=1).argsort()[-3:]
    offered = {known.place(point) for seed in range(20) for point in fewer.draw(seed)}
    assert offered == set(range(len(known.points))) - set(best)
