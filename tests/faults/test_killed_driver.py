"""F07, F08, F09, F18: drivers killed at any moment, and what the next one makes of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soak

from search.ledger import read_history
from search.paths import StudyPaths
from search.recovery import read_entries

SEED = 11


@pytest.fixture(scope="module")
def reference():
    return soak.uninterrupted(SEED)


def killed_at(folder, event, point):
    """A study whose driver was killed at an event, and how it was resumed; what was told before."""
    config = soak.study(folder, SEED)
    killed = soak.fork_driver(config, prepare=soak.die_at(event, point))
    assert os.WIFSIGNALED(killed.status)
    assert soak.fork_driver(config).status == 0
    return config, killed.told


def test_f07_f08_a_kill_around_any_commit_loses_and_repeats_nothing():
    """Every seventeenth event; `make faults` takes each."""
    account = soak.kill_at_every_event(SEED, step=17)
    assert account.kills >= 12
    assert account.clean, account


def kinds(folder):
    return [entry.kind for entry in read_entries(folder / "it" / "study.db")]


def test_f07_a_suggestion_that_was_not_committed_is_made_once_more_and_the_same(memory, reference):
    killed_at(memory, 2, soak.POINTS[0])
    assert kinds(memory)[:3] == ["session_opened", "session_opened", "asked"]
    assert read_history(memory / "it" / "study.db").search_trials()[0].parameters == reference[0][0][1]


def test_f08_a_result_that_was_committed_but_not_acknowledged_counts_once(memory):
    killed_at(memory, 4, soak.POINTS[2])
    epochs = [json.loads(entry.body) for entry in read_entries(memory / "it" / "study.db") if "epoch" in entry.kind]
    assert kinds(memory)[3:5] == ["epoch_reported", "session_opened"]
    assert [body["epoch"] for body in epochs if (body["number"], body["repeat"]) == (0, 0)] == [1, 2, 3]


def test_f09_the_account_tells_what_is_lost_repeated_or_different(memory, reference):
    config, paths = soak.study(memory, SEED), StudyPaths(memory / "it")
    told = soak.fork_driver(config).told
    account = soak.Account()
    soak.check_after_kill(paths, [*told[:5], "asked {}", *told[5:]], account, kills=0)
    soak.check_after_kill(paths, told[:-2], account, kills=1)
    (paths.root / "left").touch()
    soak.check_finished(paths, config, account, soak.uninterrupted(SEED + 1))
    assert (account.lost, account.duplicated, account.different, account.left_over) == (1, 1, 1, 1)


def test_f09_drivers_killed_at_random_lose_repeat_and_leave_nothing():
    """Twenty kills; `make faults` has two hundred."""
    command = [sys.executable, soak.__file__, "--kills", "20", "--seed", "7"]
    account = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=170).stdout)
    assert account["kills"] == 20
    assert account["acknowledged"] > 20
    counts = {name: account[name] for name in ("lost", "duplicated", "stuck", "different", "left_over")}
    assert set(counts.values()) == {0}, account


WINNER_POINTS = ["before the winner is noted", "before best.yaml", "while best.yaml is written"]


@pytest.mark.parametrize("point", WINNER_POINTS)
def test_f18_a_kill_between_search_and_export_changes_no_winner_and_asks_for_no_trial(memory, point):
    config = soak.study(memory, SEED)

    def drive(tell=None):
        from search.commands.final_stage import name_winner

        with soak.Driver(config, soak.Pretender()) as session:
            session.search(soak.best_two)
            name_winner(session)

    def die():
        import analysis.export
        import search.driver

        def kill(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)

        if point == WINNER_POINTS[0]:
            search.driver.Session.note = kill
        elif point == WINNER_POINTS[1]:
            analysis.export.export_trial = kill
        else:
            analysis.export.write_whole = lambda path, content: (path.with_name(".best.yaml.0.tmp").touch(), kill())

    assert os.WIFSIGNALED(soak.fork(drive, die))
    paths = StudyPaths(memory / "it")
    before = read_history(paths.ledger)
    assert len(before.trials) == 12 + 4
    assert not paths.best.exists()
    assert soak.fork(drive) == 0
    after = read_history(paths.ledger)
    assert after.trials == before.trials
    assert after.note("winner")["number"] in soak.best_two(after)
    if before.note("winner"):
        assert after.note("winner") == before.note("winner")
    assert f"number: {after.note('winner')['number']}" in paths.best.read_text()
    assert not list(Path(paths.root).glob(".*"))
