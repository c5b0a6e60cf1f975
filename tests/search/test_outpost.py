"""A desk and outposts that talk to it without Ray between them."""

import fcntl
import shutil
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest

from search import desk as desk_module
from search.desk import Desk, Home, Stale
from search.node_folder import OutOfReach, forget, node_folder
from search.outpost import Outpost, on_any_host
from search.paths import StudyPaths
from search.retries import Death, read_death


class DirectLine:
    """Asks a desk in this process; counts how often what was lent is fetched."""

    def __init__(self, desk):
        self.desk, self.fetched = desk, 0

    def ask(self, method, *arguments):
        return getattr(self.desk, method)(*arguments)

    def fetch(self, piece):
        self.fetched += 1
        return piece


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A run folder with images, and weights beside it; pieces of ten bytes."""
    monkeypatch.setattr(desk_module, "PIECE", 10)
    run, weights = tmp_path / "head" / "run", tmp_path / "head" / "resnet.h5"
    (run / "arrays").mkdir(parents=True)
    (run / "arrays" / "train.npy").write_bytes(bytes(range(25)))
    (run / "arrays" / "train.json").write_bytes(b"")
    weights.write_bytes(b"0123456789" * 3)
    context = {"arrays": run / "arrays", "trials": run / "trials", "model": {"weights": weights}, "seed": 1}
    return Home.of(StudyPaths(run), context), context


@pytest.fixture
def line(home):
    return DirectLine(Desk(home[0].root / "trials", put=lambda piece: piece))


def settled(home, line, node, trial="0"):
    """An outpost with a trial, its inputs and its checkpoints there; and the folder of the trial."""
    node.mkdir(exist_ok=True)
    outpost = Outpost(home[0], line, node)
    outpost.take(trial)
    outpost.bring()
    return outpost, outpost.placed(home[1])["trials"] / trial


def checkpoint(folder, epoch, content=b"weights of twenty bytes and more"):
    (folder / "checkpoint" / epoch).mkdir(parents=True)
    (folder / "checkpoint" / epoch / "arrays.npz").write_bytes(content)
    (folder / "checkpoint" / epoch / "manifest.json").write_bytes(b"{}")


def kept(home, trial="0"):
    return {
        path.name: sorted(each.name for each in path.iterdir())
        for path in sorted((home[0].root / "trials" / trial / "checkpoint").glob("*"))
    }


WHOLE = ["arrays.npz", "manifest.json"]


def test_what_trials_read_is_whatever_paths_their_context_has_outside_their_own_folders(home):
    assert home[0].inputs == (home[0].root.parent / "resnet.h5", home[0].root / "arrays")


def test_a_host_sees_the_run_folder_when_it_sees_a_name_that_nobody_else_has_and_all_inputs(home):
    assert not home[0].is_seen()
    home[0].sign.parent.mkdir()
    home[0].sign.touch()
    assert home[0].is_seen()
    (home[0].root.parent / "resnet.h5").unlink()
    assert not home[0].is_seen()
    assert Home.of(StudyPaths(home[0].root), home[1]).sign != home[0].sign


def test_paths_are_moved_under_the_node_folder_and_nothing_else_is(home, line, tmp_path):
    outpost, _ = settled(home, line, tmp_path / "node")
    placed = outpost.placed({**home[1], "elsewhere": tmp_path / "else", "list": [home[0].root / "scratch", 2]})
    below = tmp_path / "node" / home[0].study
    assert placed["seed"] == 1
    assert placed["trials"] == below / "trials"
    assert placed["list"] == [below / "scratch", 2]
    assert placed["elsewhere"] == tmp_path / "else"
    assert placed["model"]["weights"].is_relative_to(below)


def test_inputs_arrive_byte_for_byte_in_pieces(home, line, tmp_path):
    outpost, _ = settled(home, line, tmp_path / "node")
    placed = outpost.placed(home[1])
    assert (placed["arrays"] / "train.npy").read_bytes() == bytes(range(25))
    assert (placed["arrays"] / "train.json").read_bytes() == b""
    assert placed["model"]["weights"].read_bytes() == b"0123456789" * 3
    assert line.fetched == 3 + 1 + 3


def test_a_second_worker_of_the_node_finds_the_inputs_there(home, line, tmp_path):
    settled(home, line, tmp_path / "node")
    before = line.fetched
    settled(home, line, tmp_path / "node", trial="1")
    assert line.fetched == before


def test_an_input_that_arrives_damaged_is_not_taken(home, line, tmp_path, monkeypatch):
    monkeypatch.setattr(line, "fetch", np.zeros_like)
    with pytest.raises(OutOfReach, match=f"sha256 {sha256(b'0123456789' * 3).hexdigest()}"):
        settled(home, line, tmp_path / "node")
    monkeypatch.undo()
    monkeypatch.setattr(desk_module, "PIECE", 10)
    _, folder = settled(home, line, tmp_path / "node")
    assert folder.parent.parent == tmp_path / "node" / home[0].study


def test_checkpoints_and_log_come_home_and_only_those_that_are_new(home, line, tmp_path):
    outpost, folder = settled(home, line, tmp_path / "node")
    checkpoint(folder, "000001")
    (folder / "log.txt").write_text("epoch 1\n")
    outpost.hand_over()
    assert kept(home) == {"000001": WHOLE}
    shutil.rmtree(folder / "checkpoint" / "000001")
    checkpoint(folder, "000002")
    checkpoint(folder, "000003")
    (folder / "log.txt").write_text("epoch 1\nepoch 2, 3\n")
    outpost.hand_over()
    assert kept(home) == {"000002": WHOLE, "000003": WHOLE}
    home_trial = home[0].root / "trials" / "0"
    assert (home_trial / "checkpoint/000003/arrays.npz").read_bytes() == b"weights of twenty bytes and more"
    assert (home_trial / "log.txt").read_text() == "epoch 1\nepoch 2, 3\n"


def test_a_trial_goes_on_elsewhere_from_the_checkpoints_at_home(home, line, tmp_path):
    first, folder = settled(home, line, tmp_path / "node")
    checkpoint(folder, "000001")
    checkpoint(folder, "000002")
    first.hand_over()
    second, elsewhere = settled(home, line, tmp_path / "another")
    assert {path.name for path in (elsewhere / "checkpoint").iterdir()} == {"000001", "000002"}
    assert (elsewhere / "checkpoint/000002/arrays.npz").read_bytes() == b"weights of twenty bytes and more"
    (elsewhere / "log.txt").write_text("on another host\n")
    second.hand_over()
    assert kept(home) == {"000001": WHOLE, "000002": WHOLE}


def test_an_epoch_that_only_its_dead_worker_had_counts_when_the_trial_comes_back_to_the_node(home, line, tmp_path):
    first, folder = settled(home, line, tmp_path / "node")
    checkpoint(folder, "000001")
    first.hand_over()
    checkpoint(folder, "000002")
    second, _ = settled(home, line, tmp_path / "node")
    second.hand_over()
    assert kept(home) == {"000001": WHOLE, "000002": WHOLE}


def test_a_worker_that_was_cut_off_can_not_overwrite_what_its_successor_did(home, line, tmp_path):
    first, folder = settled(home, line, tmp_path / "node")
    second, elsewhere = settled(home, line, tmp_path / "another")
    checkpoint(elsewhere, "000005")
    second.hand_over()
    checkpoint(folder, "000001")
    with pytest.raises(Stale, match="trial 0 runs on another worker now"):
        first.hand_over()
    assert kept(home) == {"000005": WHOLE}


def test_half_a_checkpoint_never_counts(home, line, tmp_path, monkeypatch):
    outpost, folder = settled(home, line, tmp_path / "node")
    checkpoint(folder, "000001")
    write, written = line.desk.write, []

    def dies(trial, holder, name, offset, content):
        if offset:
            raise OutOfReach("the line is cut")
        written.append(name)
        write(trial, holder, name, offset, content)

    monkeypatch.setattr(line.desk, "write", dies)
    with pytest.raises(OutOfReach):
        outpost.hand_over()
    assert written == ["000001/arrays.npz"]
    _, elsewhere = settled(home, line, tmp_path / "another")
    assert not (elsewhere / "checkpoint").exists()


def test_a_full_disk_at_home_costs_a_checkpoint_not_the_trial(home, line, tmp_path, monkeypatch):
    outpost, folder = settled(home, line, tmp_path / "node")
    checkpoint(folder, "000001")
    with monkeypatch.context() as patch:

        def full(*arguments):
            raise OSError(28, "No space left on device")

        patch.setattr(line.desk, "write", full)
        (folder / "log.txt").write_text("epoch 1\n")
        outpost.hand_over()
    assert kept(home) == {}
    outpost.hand_over()
    assert kept(home) == {"000001": WHOLE}
    assert (home[0].root / "trials/0/log.txt").read_text() == "epoch 1\n"


def test_where_all_of_it_must_arrive_a_full_disk_at_home_is_told(home, line, tmp_path, monkeypatch):
    outpost, folder = settled(home, line, tmp_path / "node")
    checkpoint(folder, "000001")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(line.desk, "write", full)
    with pytest.raises(OSError, match="No space left on device"):
        outpost.hand_over(all_of_it=True)


def test_a_checkpoint_of_which_a_killed_worker_brought_a_part_is_brought_whole(home, line, tmp_path):
    first, folder = settled(home, line, tmp_path / "node")
    checkpoint(folder, "000001")
    first.hand_over()
    partly = tmp_path / "another" / home[0].study / "trials/0/checkpoint/000001"
    partly.mkdir(parents=True)
    (partly / "arrays.npz").write_bytes(b"weights of")
    _, elsewhere = settled(home, line, tmp_path / "another")
    assert (elsewhere / "checkpoint/000001/arrays.npz").read_bytes() == b"weights of twenty bytes and more"
    assert (elsewhere / "checkpoint/000001/manifest.json").exists()


def test_images_that_an_interrupted_search_of_this_name_left_on_the_node_are_not_taken_for_those_of_now(
    home, line, tmp_path
):
    settled(home, line, tmp_path / "node")
    images = home[0].root / "arrays" / "train.npy"
    images.write_bytes(bytes(reversed(images.read_bytes())))  # as many bytes, others
    line.desk = Desk(home[0].root / "trials", put=lambda piece: piece)
    later = (Home.of(StudyPaths(home[0].root), home[1]), home[1])  # of another session
    again, _ = settled(later, line, tmp_path / "node")
    assert (again.placed(home[1])["arrays"] / "train.npy").read_bytes() == images.read_bytes()


def test_the_next_trial_leaves_nothing_of_the_one_before_on_the_node(home, line, tmp_path):
    outpost, folder = settled(home, line, tmp_path / "node")
    checkpoint(folder, "000001")
    outpost.hand_over()
    outpost.take("1")
    assert not folder.exists()


def test_a_restarted_desk_takes_what_workers_go_on_to_hand_over(home, line, tmp_path):
    outpost, folder = settled(home, line, tmp_path / "node")
    line.desk = Desk(home[0].root / "trials", put=lambda piece: piece)
    checkpoint(folder, "000001")
    outpost.hand_over()
    assert kept(home) == {"000001": WHOLE}


def test_what_killed_studies_left_on_a_node_goes_when_the_next_one_comes_but_not_what_is_used(home, line, tmp_path):
    node = tmp_path / "node"
    for study in ("killed", "working"):
        (node / study).mkdir(parents=True)
    with (node / "working.lock").open("w") as lock:
        (node / "killed.lock").touch()
        fcntl.flock(lock, fcntl.LOCK_SH)
        settled(home, line, node)
    assert {path.name for path in node.iterdir() if path.is_dir()} == {"working", home[0].study}


def test_a_node_forgets_a_study_once_its_workers_are_gone(home, line, tmp_path, monkeypatch):
    monkeypatch.setenv("THAWLINE_NODE_FOLDER", str(tmp_path / "node"))
    monkeypatch.setattr("search.node_folder.FORGET_SECONDS", 0.1)
    outpost, _ = settled(home, line, tmp_path / "node")
    forget(home[0])
    assert (tmp_path / "node" / home[0].study).is_dir()
    del outpost
    forget(home[0])
    assert not (tmp_path / "node" / home[0].study).exists()


def test_the_node_folder_is_for_its_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("THAWLINE_NODE_FOLDER", str(tmp_path / "new"))
    assert node_folder().stat().st_mode & 0o777 == 0o700
    (tmp_path / "new").chmod(0o777)
    with pytest.raises(OutOfReach, match="must be a folder that only this user can write"):
        node_folder()
    (tmp_path / "planted").symlink_to(tmp_path)
    monkeypatch.setenv("THAWLINE_NODE_FOLDER", str(tmp_path / "planted"))
    with pytest.raises(OutOfReach):
        node_folder()


def test_a_trial_is_not_charged_for_what_could_not_be_brought_to_its_host():
    error = "ray::X.train()\nsearch.outpost.OutOfReach: the driver's node must answer, but it is gone"
    assert read_death(error, began=True) == Death("node", "the driver's node must answer, but it is gone")


class Plain:
    """A trainable that says where its folder is."""

    def setup(self, config):
        self.config = config

    def step(self):
        return {"trials": self.config["study"]["trials"]}


def test_a_node_whose_disk_is_full_is_no_trials_fault():
    def full():
        raise OSError(28, "No space left on device")

    worker = on_any_host(Plain)()
    worker._outpost, worker._began = SimpleNamespace(bring=full), True
    with pytest.raises(OutOfReach, match=r"must have room for what a trial needs, but .*No space left on device"):
        worker.step()


def test_a_worker_that_sees_the_run_folder_uses_it(home):
    home[0].sign.parent.mkdir()
    home[0].sign.touch()
    worker = on_any_host(Plain)()
    worker.setup({"study": {**home[1], "home": home[0]}, "trial": {"key": [0, 0]}})
    assert [worker.step(), worker.step()] == [{"trials": home[0].root / "trials"}] * 2
    assert type(worker).__name__ == "Plain"
