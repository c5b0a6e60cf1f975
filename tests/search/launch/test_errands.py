import tarfile

import pytest

from search.events import Asked, EpochReported, Started
from search.launch.errands.lend import pack
from search.launch.errands.probe import probe
from search.launch.errands.receive import receive
from search.ledger import Ledger, read_history


@pytest.fixture
def run(tmp_path):
    """A run whose trial 0 has ended and whose trial 1 is paused."""
    folder = tmp_path / "head" / "lungs"
    for name in (
        "study.yaml",
        "split.csv",
        "report.html",
        "final/model.keras",
        "arrays/train.npy",
        "scratch/x",
        "study.lock",
        "trials/0/log.txt",
        "trials/0/checkpoint/000002/arrays.npz",
        "trials/1/log.txt",
        "trials/1/checkpoint/000001/arrays.npz",
        "trials/1.1/checkpoint/000001/arrays.npz",
        ".best.yaml.0123.tmp",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "way_out").symlink_to("/etc/hostname")
    with Ledger(folder / "study.db") as ledger:
        for event in (
            Asked(0, {"x": 0.5}, 0),
            Started(0),
            EpochReported(0, 1, {"v": 1.0}, "complete"),
            Asked(1, {"x": 0.25}, 0),
            Started(1),
            EpochReported(1, 1, {"v": 0.5}, "pause"),
        ):
            ledger.append(event)
        yield folder


def names(archive):
    with tarfile.open(archive) as tar:
        return sorted(tar.getnames())


def test_a_run_at_work_is_lent_without_arrays_scratch_and_checkpoints_that_are_being_written(run, tmp_path):
    pack(run, tmp_path / "run.tar.gz")
    assert names(tmp_path / "run.tar.gz") == [
        "final/model.keras",
        "report.html",
        "split.csv",
        "study.db",
        "study.events.jsonl",
        "study.yaml",
        "trials/0/checkpoint/000002/arrays.npz",
        "trials/0/log.txt",
        "trials/1/log.txt",
    ]


def test_the_ledger_of_a_run_at_work_is_lent_whole(run, tmp_path):
    pack(run, tmp_path / "run.tar.gz", ledger_only=True)
    assert names(tmp_path / "run.tar.gz") == ["study.db", "study.events.jsonl", "study.yaml"]
    with tarfile.open(tmp_path / "run.tar.gz") as tar:
        (tmp_path / "study.db").write_bytes(tar.extractfile("study.db").read())
    trials = read_history(tmp_path / "study.db").search_trials()
    assert [trial.status for trial in trials] == ["completed", "waiting"]


def test_a_run_that_is_not_there_is_an_empty_archive(tmp_path):
    pack(tmp_path / "nowhere", tmp_path / "run.tar.gz")
    assert names(tmp_path / "run.tar.gz") == []


def test_inputs_come_to_a_lasting_place_once(tmp_path):
    source, target = tmp_path / "inputs", tmp_path / "lasting" / "0123"
    (source / "0" / "scans").mkdir(parents=True)
    (source / "0" / "scans" / "1.png").write_bytes(b"one")
    receive(source, target)
    (source / "0" / "scans" / "1.png").write_bytes(b"other")
    receive(source, target)
    assert (target / "0" / "scans" / "1.png").read_bytes() == b"one"
    assert [path.name for path in target.parent.iterdir()] == ["0123"]


def test_inputs_that_could_not_be_copied_leave_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        receive(tmp_path / "inputs", tmp_path / "lasting" / "0123")
    assert list((tmp_path / "lasting").iterdir()) == []


def test_the_probe_tells_what_is_there_and_of_the_launcher_file_only_what_it_may_grow_to(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ray_bootstrap_config.yaml").write_text(
        "auth: {ssh_user: secret}\n"
        "head_node_type: head\nmax_workers: 3\n"
        "available_node_types:\n"
        "  head: {resources: {CPU: 0}, node_config: {secret: 1}}\n"
        "  worker: {resources: {CPU: 8, GPU: 2}, max_workers: 3}\n"
    )
    found = probe({"paths": ["~", str(tmp_path / "nothing")], "modules": ["json", "no_such_module"]})
    assert (found["paths"], found["modules"]) == (["~"], ["json"])
    assert found["launcher"] == {
        "head_node_type": "head",
        "max_workers": 3,
        "available_node_types": {
            "head": {"resources": {"CPU": 0}},
            "worker": {"resources": {"CPU": 8, "GPU": 2}, "max_workers": 3},
        },
    }
