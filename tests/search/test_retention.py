import pytest

from search.config import StudyConfig
from search.events import Asked, EpochReported, Failed, Promoted, Pruned
from search.history import History
from search.paths import StudyPaths
from search.retention import Retention, bytes_below, checkpoint_bytes


class Told:
    """A study whose trials write a checkpoint of ten bytes after each epoch; every event is heard by its retention."""

    def __init__(self, root, kept=1, direction="maximize"):
        self.paths, self.history = StudyPaths(root), History()
        document = {"objective": {"metric": "v", "direction": direction}, "final": {"kept_checkpoints": kept}}
        self.config = StudyConfig.parse(document)
        self.retention = self.again()

    def again(self):
        return Retention(self.paths, self.config, self.history)

    def tell(self, *events):
        for event in events:
            self.history.apply(0.0, event)
            self.retention.happened(event)

    def run(self, number, values, verdict="complete", repeat=0):
        if (number, repeat) not in self.history.trials:
            self.tell(Asked(number, {}, 0, repeat=repeat))
        for epoch, value in enumerate(values, start=1):
            folder = self.paths.checkpoints(number, repeat) / f"{epoch:06d}"
            folder.mkdir(parents=True)
            (folder / "arrays.npz").write_bytes(b"0123456789")
            last = epoch == len(values)
            self.tell(EpochReported(number, epoch, {"v": value}, verdict if last else "continue", repeat=repeat))

    @property
    def left(self):
        """Epochs left by trial."""
        found = {}
        for path in self.paths.trials.glob("*/checkpoint/*"):
            found.setdefault(path.parent.parent.name, []).append(int(path.name) if path.name.isdigit() else path.name)
        return {trial: sorted(epochs) for trial, epochs in found.items()}


def test_the_best_epoch_of_the_best_completed_trial_stays(tmp_path):
    told = Told(tmp_path)
    told.run(0, [0.5, 0.7, 0.6])
    assert told.left == {"0": [2]}
    told.run(1, [0.6, 0.65])
    assert told.left == {"0": [2]}
    told.run(2, [0.8, 0.9])
    assert told.left == {"2": [2]}


def test_the_lowest_wins_where_less_is_better_and_the_earlier_of_equals(tmp_path):
    told = Told(tmp_path, kept=2, direction="minimize")
    for number, values in enumerate([[0.5, 0.5], [0.4, 0.6], [0.5, 0.7], [0.9, 0.8]]):
        told.run(number, values)
    assert told.left == {"0": [1], "1": [1]}


def test_running_trials_keep_theirs_and_those_that_ended_otherwise_none(tmp_path):
    told = Told(tmp_path, kept=9)
    told.run(0, [0.5, 0.7], "continue")
    told.run(1, [0.9, 0.9], "prune")
    told.run(2, [0.9, 0.9], "continue")
    told.tell(Failed(2, "why"))
    told.run(3, [float("nan")], "fail")
    assert told.left == {"0": [1, 2]}


def test_a_paused_trial_keeps_its_checkpoint_until_it_will_not_go_on(tmp_path):
    told = Told(tmp_path)
    for number in range(3):
        told.run(number, [0.5], "pause")
    told.tell(Promoted(0))
    told.again()
    assert told.left == {"0": [1], "1": [1], "2": [1]}
    told.tell(Pruned(1, "not among the best"))
    assert told.left == {"0": [1], "2": [1]}


def test_reruns_keep_none_and_do_not_take_the_place_of_their_trial(tmp_path):
    told = Told(tmp_path)
    told.run(0, [0.5])
    told.run(0, [0.9], repeat=1)
    assert told.left == {"0": [1]}


def test_none_may_be_kept(tmp_path):
    told = Told(tmp_path, kept=0)
    told.run(0, [0.5, 0.6])
    assert told.left == {}


def test_a_trial_whose_best_epoch_was_not_saved_leaves_nothing(tmp_path):
    told = Told(tmp_path)
    told.run(0, [0.5, 0.6], "continue")
    told.tell(EpochReported(0, 3, {"v": 0.7}, "complete"))
    assert told.left == {}


@pytest.mark.parametrize(
    ("kept", "left"), [(0, {"3": [1]}), (1, {"1": [2], "3": [1]}), (2, {"0": [1], "1": [2], "3": [1]})]
)
def test_f02_what_a_killed_driver_left_goes_at_the_next_start(tmp_path, kept, left):
    told = Told(tmp_path, kept)
    for number, values in enumerate([[0.5, 0.4], [0.6, 0.7], [0.1]]):
        told.run(number, values)
    told.run(3, [0.2], "continue")
    for number in range(3):
        for name in ("000001", "000002", ".000003.0123.tmp"):
            (told.paths.checkpoints(number) / name).mkdir(parents=True, exist_ok=True)
    told.again()
    assert told.left == left


def test_bytes_are_counted_by_trial_and_what_vanishes_meanwhile_does_not_count(tmp_path):
    told = Told(tmp_path, kept=2)
    told.run(0, [0.5, 0.7])
    told.run(1, [0.5, 0.7], "continue")
    told.paths.checkpoints(2).mkdir(parents=True)
    assert checkpoint_bytes(told.paths) == {told.paths.checkpoints(0): 10, told.paths.checkpoints(1): 20}
    (tmp_path / "link").symlink_to("nowhere")
    assert bytes_below(tmp_path) == 30
