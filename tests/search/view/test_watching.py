import os
import signal
import time

import pytest

from search.config import StudyConfig
from search.errors import ConfigurationError
from search.events import Asked, EpochReported, SessionOpened, Started
from search.ledger import Ledger
from search.lock import exclusive
from search.paths import StudyPaths
from search.safe_yaml import to_yaml
from search.view.progress import View
from search.view.watching import follow_log, trial_log, until_interrupted, watch_study

CONFIG = StudyConfig.parse({"name": "it", "objective": {"metric": "v"}, "budget": {"trials": 4, "epochs": 3}})
BEGUN = [SessionOpened("host", 1), Asked(0, {}, 0), Started(0, worker="host/1")]


class Seen(View):
    """Keeps what it was told."""

    def __init__(self):
        self.told = []
        self.ages = []

    def watch(self, config, history, age=0.0):
        super().watch(config, history, age)
        self.told.append(("study", config.budget.trials, len(history.trials)))
        self.ages.append(age)

    def happened(self, event):
        self.told.append((event.kind, self.at_work))


@pytest.fixture
def paths(tmp_path):
    paths = StudyPaths(tmp_path)
    paths.study_file.write_text(to_yaml(CONFIG.dump()), encoding="utf-8")
    return paths


def test_a_study_is_watched_until_its_driver_ends(paths):
    """The driver extends the study, works, and ends while nobody looks."""
    view = Seen()

    def driver(ledger):
        with exclusive(paths.lock):
            yield
            extended = CONFIG.model_copy(update={"budget": CONFIG.budget.model_copy(update={"trials": 6})})
            paths.study_file.write_text(to_yaml(extended.dump()), encoding="utf-8")
            ledger.append(SessionOpened("host", 2))
            yield
            ledger.append(EpochReported(0, 1, {"v": 0.5}, "continue"))
            yield
            ledger.append(EpochReported(0, 2, {"v": 0.5}, "complete"))
        yield

    with Ledger(paths.ledger) as ledger:
        ledger.append(*BEGUN)
        works = driver(ledger)
        next(works)
        watch_study(paths, view, lambda: next(works))
    assert view.told == [
        ("study", 4, 1),
        ("study", 6, 1),
        ("session_opened", True),
        ("epoch_reported", True),
        ("epoch_reported", False),
    ]
    assert view.history.trials[0, 0].status == "completed"
    assert 0 <= view.ages[0] < 60


def test_a_study_without_a_driver_is_not_waited_for(paths):
    view = Seen()
    with Ledger(paths.ledger) as ledger:
        ledger.append(*BEGUN)
    watch_study(paths, view)
    assert view.told == [("study", 4, 1)]


def test_ctrl_c_ends_looking_and_is_no_failure():
    before = signal.getsignal(signal.SIGINT)
    with until_interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    assert signal.getsignal(signal.SIGINT) is before


def written(paths, name, text):
    log = paths.trials / name / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text(text, encoding="utf-8")
    return log


def test_a_log_is_found_by_the_number_of_its_trial_or_rerun(paths):
    first, rerun = written(paths, "7", "a"), written(paths, "7.1", "b")
    assert trial_log(paths, "7") == first
    assert trial_log(paths, "7.1") == rerun


@pytest.mark.parametrize("trial", ["x", "", "-1", "7.1.2", "../7", "7.", "1e3", "٣x"])
def test_what_is_no_number_of_a_trial_is_refused(paths, trial):
    written(paths, "7", "a")
    with pytest.raises(ConfigurationError, match=r"such as 7, or a rerun's, 7\.1"):
        trial_log(paths, trial)


def test_a_trial_without_a_log_is_told_with_those_that_have_one(paths):
    for name in ("7", "10", "7.1", "notes"):
        written(paths, name, "a")
    with pytest.raises(ConfigurationError, match=r"trial 9: must have a log, .* with logs: 7, 7\.1, 10$"):
        trial_log(paths, "9")


def test_a_log_is_followed_until_its_trial_ends(paths):
    log = written(paths, "0", "first\n")

    def driver(ledger):
        with exclusive(paths.lock):
            with log.open("a", encoding="utf-8") as stream:
                stream.write("second\n")
            yield
            yield
            with log.open("a", encoding="utf-8") as stream:
                stream.write("third\n")
            ledger.append(EpochReported(0, 1, {"v": 0.5}, "complete"))
            yield

    with Ledger(paths.ledger) as ledger:
        ledger.append(*BEGUN)
        works = driver(ledger)
        next(works)
        assert list(follow_log(log, paths, "0", lambda: next(works))) == ["first\nsecond\n", "third\n"]


def test_a_log_is_not_followed_when_nobody_works(paths):
    log = written(paths, "0", "first\n")
    with Ledger(paths.ledger) as ledger:
        ledger.append(*BEGUN)
        assert list(follow_log(log, paths, "0")) == ["first\n"]
