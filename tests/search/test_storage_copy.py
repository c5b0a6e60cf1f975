import importlib.util
import io
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyarrow import fs

from search import storage_copy
from search.config import StudyConfig
from search.database import read
from search.errors import ConfigurationError, StudyStopped
from search.events import Asked, EpochReported, Failed, Pruned
from search.ledger import Ledger
from search.object_stores import PART
from search.paths import StudyPaths
from search.place import Place
from search.storage_copy import copied, copy_of, read_copy, restore_files

spec = importlib.util.spec_from_file_location("failing_place", Path(__file__).parents[1] / "fakes" / "failing_place.py")
fakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)


@pytest.fixture
def paths(tmp_path):
    paths = StudyPaths(tmp_path / "it")
    paths.root.mkdir()
    return paths


@pytest.fixture
def handler(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return fakes.Handler(tmp_path / "elsewhere")


@pytest.fixture
def place(handler):
    """A place on a wrapped file system of which a test is the master."""
    return Place(fs.PyFileSystem(handler), "it", "fake://it")


@pytest.fixture
def said():
    return []


def asked(*numbers):
    return [Asked(number, {"x": 0.5}, number) for number in numbers]


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("address", ["{}/disk", "file://{}/disk"])
def test_a_copy_is_complete_when_the_session_has_ended_well(tmp_path, paths, said, address):
    place = copy_of(paths, address.format(tmp_path))
    paths.study_file.write_text("seed: 1\n")
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        for number in range(30):
            ledger.append(*asked(number))
        paths.split.write_text("file\n")
        paths.best.write_text("winner: 1\n")
    assert read_copy(place) == read(paths.ledger)
    found = StudyPaths(tmp_path / "back")
    restore_files(place, found)
    assert (found.study_file.read_text(), found.best.read_text()) == ("seed: 1\n", "winner: 1\n")
    assert found.split.exists()
    assert said == []


def test_without_the_setting_there_is_no_copy(paths):
    assert copy_of(paths, None) is None


@pytest.mark.parametrize("address", ["{}", "{}/it/copies", "file://{}"])
def test_a_place_in_the_run_folder_itself_is_refused(tmp_path, paths, address):
    with pytest.raises(ConfigurationError, match="must be another place than the run folder"):
        copy_of(paths, address.format(tmp_path))


def test_a_bucket_may_be_the_copys_place_wherever_the_command_is_typed(paths, place, monkeypatch):
    monkeypatch.chdir(paths.root)  # which a bucket's name has nothing to do with
    monkeypatch.setattr(Place, "at", lambda address: place)
    assert copy_of(paths, "fake://it").folder == "it/it"


def test_a_folder_is_the_same_one_from_everywhere_and_a_uri_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert StudyConfig.parse({"storage_copy": "disk"}).storage_copy == str(tmp_path / "disk")
    assert StudyConfig.parse({"storage_copy": "s3://bucket/x"}).storage_copy == "s3://bucket/x"
    assert StudyConfig.parse({}).storage_copy is None


def test_a_place_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match=r"storage_copy: must be a folder or a URI .* got 'nonsense://x'"):
        Place.at("nonsense://x")


def test_a_copy_follows_while_the_study_runs(paths, place, said):
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        for count in range(1, 4):
            ledger.append(*asked(count))
            wait_for(lambda: len(read_copy(place)) == ledger.sequence)
            assert read_copy(place) == read(paths.ledger)


def test_whole_pieces_are_written_once_and_many_changes_together(paths, place, handler, said, monkeypatch):
    monkeypatch.setattr(storage_copy, "PIECE", 10)
    with Ledger(paths.ledger) as ledger:
        ledger.append(*asked(*range(35)))
        with copied(ledger, paths, place, said.append):
            wait_for(lambda: len(read_copy(place)) == 35)
            handler.open_gate.clear()
            for number in range(35, 60):
                ledger.append(*asked(number))
            handler.open_gate.set()
        first_pieces = [name for name in handler.written if name.endswith(("0.jsonl", "1.jsonl", "2.jsonl"))]
        assert first_pieces == ["it/events/000000.jsonl", "it/events/000001.jsonl", "it/events/000002.jsonl"]
        assert len(handler.written) < 15
        assert read_copy(place) == read(paths.ledger)


def test_another_session_writes_only_what_is_new(paths, place, handler, said, monkeypatch):
    monkeypatch.setattr(storage_copy, "PIECE", 10)
    for numbers in (range(15), range(15, 25)):
        handler.written.clear()
        with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
            ledger.append(*asked(*numbers))
    assert set(handler.written) == {"it/events/000001.jsonl", "it/events/000002.jsonl"}
    assert read_copy(place) == read(paths.ledger)


def test_a_place_that_does_not_answer_delays_no_event(paths, place, handler, said):
    handler.open_gate.clear()
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        for number in range(50):
            ledger.append(*asked(number))
        assert read_copy(place) == []
        handler.open_gate.set()
    assert len(read_copy(place)) == 50


def test_a_copy_that_fails_for_a_while_is_told_once_and_catches_up(paths, place, handler, said, monkeypatch):
    monkeypatch.setattr(storage_copy, "_PAUSES", (0.01, 0.02))
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        handler.failure = OSError(5, "the network is down")
        for number in range(10):
            ledger.append(*asked(number))
            time.sleep(0.01)
        wait_for(lambda: said)
        assert len(said) == 1
        assert said[0].startswith("copy to fake://it: ")
        assert said[0].endswith("the network is down; it is tried again")
        handler.failure = None
        wait_for(lambda: len(said) == 2)
        assert said[1] == "copy to fake://it: works again and is up to date"
    assert len(read_copy(place)) == 10


def test_a_copy_goes_on_though_nobody_can_be_told_of_it(paths, place, handler, monkeypatch):
    def hung_up(text):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage_copy, "_PAUSES", (0.01,))
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, hung_up) as copy:
        handler.failure = OSError(5, "the network is down")
        ledger.append(*asked(1))
        wait_for(lambda: copy.problem)
        handler.failure = None
        wait_for(lambda: len(read_copy(place)) == ledger.sequence)
        assert read_copy(place) == read(paths.ledger)
    assert copy.problem is None


def test_a_session_whose_copy_cannot_be_completed_does_not_end_well(paths, place, handler, said, monkeypatch):
    monkeypatch.setattr(storage_copy, "PATIENCE_SECONDS", 0.3)
    handler.failure = OSError(5, "the network is down")
    match = r"the copy in fake://it must be complete, but .*the network is down; the study itself is whole in"
    with Ledger(paths.ledger) as ledger:
        with pytest.raises(StudyStopped, match=match), copied(ledger, paths, place, said.append):
            ledger.append(*asked(0))
        handler.failure = None
        with copied(ledger, paths, place, said.append):
            pass
    assert len(read_copy(place)) == 1


def test_a_file_that_never_gets_through_ends_the_session_though_all_events_are_there(paths, place, said, monkeypatch):
    monkeypatch.setattr(storage_copy, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(storage_copy, "_PAUSES", (0.01,))
    send = Place.send

    def full(there, source, size, between=lambda: None):
        if "model.keras" not in there.folder:
            return send(there, source, size, between)
        between()  # its first part gets through each time
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Place, "send", full)
    paths.final.mkdir()
    (paths.final / "model.keras").write_bytes(b"a model")
    with Ledger(paths.ledger) as ledger:
        match = r"must be complete, but .*No space left on device"
        with pytest.raises(StudyStopped, match=match), copied(ledger, paths, place, said.append):
            ledger.append(*asked(0))
    assert read_copy(place) == read(paths.ledger)


def test_a_copy_that_was_emptied_while_the_study_ran_is_whole_again_in_the_end(
    paths, place, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(storage_copy, "PIECE", 10)
    paths.study_file.write_text("seed: 1\n")
    with Ledger(paths.ledger) as ledger:
        with copied(ledger, paths, place, said.append):
            ledger.append(*asked(*range(25)))
            wait_for(lambda: len(read_copy(place)) == 25 and "study.yaml" in place.files())
            shutil.rmtree(tmp_path / "elsewhere" / "it")
            ledger.append(*asked(25))
            wait_for(lambda: len(read_copy(place)) == 6)  # the last piece alone
        assert read_copy(place) == read(paths.ledger)
        assert (place / "study.yaml").read() == b"seed: 1\n"


def test_a_copy_with_a_gap_is_filled_and_not_taken_for_that_of_another_study(paths, place, said, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_copy, "PIECE", 10)
    with Ledger(paths.ledger) as ledger:
        with copied(ledger, paths, place, said.append):
            ledger.append(*asked(*range(25)))
        (tmp_path / "elsewhere" / "it" / "events" / "000000.jsonl").unlink()
        with copied(ledger, paths, place, said.append):
            pass
        assert read_copy(place) == read(paths.ledger)
    assert said == []


def test_a_session_that_is_told_to_stop_does_not_wait_long_for_its_copy(paths, place, handler, said, monkeypatch):
    monkeypatch.setattr(storage_copy, "PATIENCE_SECONDS", 1e6)
    monkeypatch.setattr(storage_copy, "HASTE_SECONDS", 0.1)
    handler.open_gate.clear()
    with Ledger(paths.ledger) as ledger:
        ledger.append(*asked(0))
        with pytest.raises(KeyboardInterrupt), copied(ledger, paths, place, said.append):
            raise KeyboardInterrupt
    handler.open_gate.set()


def test_the_copy_of_another_study_is_not_written_over(paths, place, said, tmp_path, monkeypatch):
    other = StudyPaths(tmp_path / "other")
    other.root.mkdir()
    with Ledger(other.ledger) as ledger, copied(ledger, other, place, said.append):
        ledger.append(*asked(7))
    monkeypatch.setattr(storage_copy, "PATIENCE_SECONDS", 0.3)
    with Ledger(paths.ledger) as ledger:
        ledger.append(*asked(0))
        with pytest.raises(StudyStopped, match="a copy of another study"), copied(ledger, paths, place, said.append):
            pass
    assert read_copy(place) == read(other.ledger)


def checkpoint(paths, number, epoch):
    folder = paths.trial(number) / "checkpoint" / f"{epoch:06d}"
    folder.mkdir(parents=True)
    for name in ("arrays.npz", "values.json", "manifest.json"):
        (folder / name).write_text(f"{name} of epoch {epoch}")


def test_the_newest_checkpoint_of_a_running_or_paused_trial_is_there_and_goes_with_its_end(paths, place, handler, said):
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        ledger.append(*asked(3, 4))
        for epoch, verdict in ((1, "continue"), (2, "pause")):
            for number in (3, 4):
                checkpoint(paths, number, epoch)
                ledger.append(EpochReported(number, epoch, {"v": 0.5}, verdict))
            wait_for(lambda: f"it/trials/4/checkpoint/{epoch:06d}/manifest.json" in handler.written)  # noqa: B023
        wait_for(lambda: len([name for name in place.files() if "checkpoint" in name]) == 6)
        ledger.append(Pruned(3, "why"))
    kept = [name for name in place.files() if "checkpoint" in name]
    assert kept == [f"trials/4/checkpoint/000002/{name}" for name in ("arrays.npz", "manifest.json", "values.json")]
    order = [name.rpartition("/")[2] for name in handler.written if "4/checkpoint/000002" in name]
    assert order[-1] == "manifest.json"
    found = StudyPaths(paths.root.parent / "back")
    restore_files(place, found)
    assert (found.trial(4) / "checkpoint" / "000002" / "values.json").read_text() == "values.json of epoch 2"


def test_what_an_earlier_session_copied_of_a_trial_goes_too(paths, place, said):
    for epoch, event in ((1, None), (2, None), (3, Failed(3, "why"))):
        with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
            if epoch == 1:
                ledger.append(*asked(3))
            checkpoint(paths, 3, epoch)
            ledger.append(event or EpochReported(3, epoch, {"v": 0.5}, "continue"))
        epochs = {name.split("/")[3] for name in place.files() if "checkpoint" in name}
        assert epochs == ({f"{epoch:06d}"} if event is None else set())


def test_checkpoints_of_trials_that_wait_are_carried_in_the_next_session_though_they_say_nothing(paths, place, said):
    with Ledger(paths.ledger) as ledger:  # before the study had a copy
        ledger.append(*asked(3))
        checkpoint(paths, 3, 1)
        ledger.append(EpochReported(3, 1, {"v": 0.5}, "pause"))
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        ledger.append(*asked(4))
        wait_for(lambda: "trials/3/checkpoint/000001/manifest.json" in place.files())
    there = [name for name in place.files() if "checkpoint" in name]
    assert there == [f"trials/3/checkpoint/000001/{name}" for name in ("arrays.npz", "manifest.json", "values.json")]


def test_a_checkpoint_that_an_earlier_session_carried_is_not_carried_again(paths, place, handler, said):
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        ledger.append(*asked(3))
        checkpoint(paths, 3, 1)
        ledger.append(EpochReported(3, 1, {"v": 0.5}, "pause"))
    handler.written.clear()
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        ledger.append(*asked(4))
    assert [name for name in handler.written if "checkpoint" in name] == []
    assert "trials/3/checkpoint/000001/manifest.json" in place.files()


def test_what_a_session_could_not_remove_of_an_ended_trial_the_next_one_does(paths, place, said):
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        ledger.append(*asked(3, 4))
        for number in (3, 4):
            checkpoint(paths, number, 1)
            ledger.append(EpochReported(number, 1, {"v": 0.5}, "continue"))
    with Ledger(paths.ledger) as ledger:  # a driver that was killed before its copy heard of it
        ledger.append(Failed(3, "why"))
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        pass
    assert {name.split("/")[1] for name in place.files() if "checkpoint" in name} == {"4"}


class Hostile:
    """A place whose file names lead elsewhere."""

    def files(self):
        return ["trials/../../evil", "trials/1/fine", "/etc/passwd", "study.sh"]

    def __truediv__(self, name):
        return SimpleNamespace(fetch=lambda path: (path.parent.mkdir(parents=True), path.write_text(name)))


def test_a_name_that_leads_out_of_the_run_folder_is_not_restored(paths, tmp_path):
    restore_files(Hostile(), paths)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "it/trials/1/fine"
    ]


def test_a_checkpoint_that_is_removed_while_it_is_carried_arrives_whole(paths, place, handler, said):
    opened = handler.open_output_stream

    def remove_and_open(path, metadata):
        if "checkpoint" in path:
            shutil.rmtree(paths.trial(3) / "checkpoint", ignore_errors=True)
        return opened(path, metadata)

    handler.open_output_stream = remove_and_open
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        ledger.append(*asked(3))
        checkpoint(paths, 3, 1)
        ledger.append(EpochReported(3, 1, {"v": 0.5}, "continue"))
    assert not (paths.trial(3) / "checkpoint").exists()
    assert [name for name in place.files() if "checkpoint" in name] == [
        f"trials/3/checkpoint/000001/{name}" for name in ("arrays.npz", "manifest.json", "values.json")
    ]


@pytest.mark.parametrize("kind", ["folder", "fake"])
def test_something_else_can_be_done_between_the_parts_of_a_large_file(tmp_path, place, kind):
    there = place if kind == "fake" else Place.at(str(tmp_path / "there"))
    content, calls = bytes(2 * PART + 1), []
    (there / "large").send(io.BytesIO(content), len(content), lambda: calls.append(1))
    assert len(calls) == 3
    assert (there / "large").read() == content


def test_what_was_made_of_the_winner_is_carried_at_the_end_and_comes_back(paths, place, said, tmp_path):
    with Ledger(paths.ledger) as ledger, copied(ledger, paths, place, said.append):
        ledger.append(*asked(0))
        (paths.final / "figures").mkdir(parents=True)
        (paths.final / "model.keras").write_bytes(b"a model")
        (paths.final / "figures" / "roc.png").write_bytes(b"a figure")
    found = StudyPaths(tmp_path / "back")
    restore_files(place, found)
    assert (found.final / "model.keras").read_bytes() == b"a model"
    assert (found.final / "figures" / "roc.png").read_bytes() == b"a figure"


def test_a_file_that_was_cut_short_is_an_error_and_leaves_no_half(tmp_path):
    cut = Place(SimpleNamespace(open_input_file=lambda path: Cut()), "file", "fake://file")
    with pytest.raises(OSError, match=r"fake://file was cut short: 40 of 100 bytes did not come"):
        cut.fetch(tmp_path / "back" / "file")
    assert list((tmp_path / "back").iterdir()) == []


class Cut(io.BytesIO):
    """A stream that ends before its size."""

    def __init__(self):
        super().__init__(b"x" * 60)

    def size(self):
        return 100
