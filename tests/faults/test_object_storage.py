"""F52: a study whose copy is in a bucket, on a real store and a line to it that fails."""

import importlib.util
import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import soak

from search.database import read
from search.events import TrialKey
from search.ledger import read_history
from search.object_stores import PART
from search.paths import StudyPaths
from search.place import Place
from search.storage_copy import copy_of, read_copy

FAKES = Path(__file__).parents[1] / "fakes"
spec = importlib.util.spec_from_file_location("object_storage", FAKES / "object_storage.py")
stores = importlib.util.module_from_spec(spec)
sys.modules["object_storage"] = stores
spec.loader.exec_module(stores)
TROUBLES = ["503", "500", "reset", "half request", "half answer", "lost answer"]
SMALL = {"budget": {"trials": 6, "epochs": 3}, "final": {"finalists": 0}, "pruner": {"name": "none"}}
SEED = 21


@pytest.fixture(scope="module")
def store():
    with stores.object_store() as store:
        store.bucket("bucket")
        yield store


@pytest.fixture
def line(store, monkeypatch):
    for name, value in stores.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with stores.line_to(store) as line:
        yield line


@pytest.fixture
def address(line, request):
    """A folder in the bucket that no other test has."""
    return line.address(f"bucket/{abs(hash(request.node.name))}")


class Driver:
    """The study in a process of its own; what it prints can be waited for."""

    def __init__(self, folder, address, environment=(), **document):
        document = {"folder": str(folder), "seed": SEED, "storage_copy": address, **SMALL, **document}
        self.printed = []
        self.process = subprocess.Popen(
            [sys.executable, FAKES / "copied_study.py", json.dumps(document)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **dict(environment)},
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for text in self.process.stdout:
            self.printed.append(text.rstrip("\n"))

    def wait_until(self, holds):
        end = time.monotonic() + 120
        while not holds():
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < end, self.printed
            time.sleep(0.02)

    def end(self, seconds=150):
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()
            self._reader.join(10)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def told(self, *beginnings):
        return [text for text in self.printed if text.startswith(beginnings)]


def config_of(folder, address):
    return soak.study(folder, SEED, storage_copy=address, **SMALL)


def outline(folder, address):
    return soak.outline(StudyPaths(folder / "it"), config_of(folder, address))


@pytest.fixture(scope="module")
def undisturbed():
    return soak.uninterrupted(SEED, **SMALL)


def place_of(folder, address):
    return copy_of(StudyPaths(folder / "it"), address)


def test_f52_a_finished_study_is_in_the_bucket_and_comes_back_whole(tmp_path, address, undisturbed):
    assert Driver(tmp_path, address).end() == 0
    place = place_of(tmp_path, address)
    assert read_copy(place) == read(tmp_path / "it" / "study.db")
    assert place.files() == ["events/000000.jsonl", "study.yaml"]
    assert (place / "study.yaml").read() == (tmp_path / "it" / "study.yaml").read_bytes()
    before = outline(tmp_path, address)
    shutil.rmtree(tmp_path / "it")
    again = Driver(tmp_path, address)
    assert again.end() == 0, again.printed
    assert len(again.told(f"{tmp_path}/it is empty: the study, ")) == 1
    assert outline(tmp_path, address) == before == undisturbed


def test_f52_a_killed_driver_goes_on_elsewhere_after_the_last_epoch_in_the_bucket(tmp_path, address, undisturbed):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    place = place_of(here, address)
    pretence = {"checkpoint_bytes": 12_000_000, "epoch_seconds": 2.0}
    driver = Driver(here, address, pretence=pretence)
    driver.wait_until(lambda: "trials/0/checkpoint/000002/manifest.json" in place.files())
    driver.kill()
    in_the_bucket = max(int(name.split("/")[3]) for name in place.files() if name.endswith("manifest.json"))
    shutil.rmtree(here)
    other = Driver(elsewhere, address)
    assert other.end() == 0, other.printed
    assert other.told("trial 0 begins") == [f"trial 0 begins after epoch {in_the_bucket}"]
    assert outline(elsewhere, address) == undisturbed
    assert [name for name in place.files() if "checkpoint" in name] == []


@pytest.mark.parametrize("trouble", TROUBLES)
def test_f52_requests_that_fail_now_and_then_lose_nothing(tmp_path, line, address, trouble, undisturbed):
    draw = random.Random(SEED)
    line.trouble = lambda request: trouble if request.number > 5 and draw.random() < 0.3 else None
    driver = Driver(tmp_path, address, pretence={"checkpoint_bytes": 11_000_000})
    assert driver.end() == 0, driver.printed
    assert line.troubled
    line.trouble = lambda request: None
    place = place_of(tmp_path, address)
    assert read_copy(place) == read(tmp_path / "it" / "study.db")
    assert [name for name in place.files() if "checkpoint" in name] == []
    assert outline(tmp_path, address) == undisturbed
    failed, worked = driver.told("copy to"), [text for text in driver.told("copy to") if "works again" in text]
    assert len(failed) == 2 * len(worked)  # each outage is told once, and so is its end


def test_f52_no_trial_waits_for_a_store_that_has_gone_silent(tmp_path, line, address):
    line.trouble = lambda request: "silence" if request.number > 8 else None
    line.talks.clear()
    driver = Driver(tmp_path, address)
    driver.wait_until(lambda: driver.told("the search is over"))
    assert {trial.status for trial in read_history(tmp_path / "it" / "study.db").trials.values()} == {"completed"}
    line.trouble = lambda request: None
    line.talks.set()
    assert driver.end() == 0, driver.printed
    assert read_copy(place_of(tmp_path, address)) == read(tmp_path / "it" / "study.db")


def test_f52_a_store_that_goes_away_and_comes_back_is_told_of_twice(tmp_path, line, address):
    gone = threading.Event()

    def leave_once(request):
        if request.number == 12 and not gone.is_set():
            gone.set()
            threading.Thread(target=line.down).start()
            return "reset"
        return None

    line.trouble = leave_once
    driver = Driver(tmp_path, address, pretence={"epoch_seconds": 0.3})
    driver.wait_until(lambda: driver.told("copy to"))
    assert gone.is_set()
    line.up()
    assert driver.end() == 0, driver.printed
    first, second = driver.told("copy to")
    assert f"127.0.0.1:{line.port} does not answer (" in first
    assert first.endswith("; it is tried again")
    assert second.endswith("/it: works again and is up to date")
    assert read_copy(place_of(tmp_path, address)) == read(tmp_path / "it" / "study.db")


def test_f52_a_copy_that_stays_incomplete_is_said_so_and_the_same_command_completes_it(tmp_path, line, address):
    line.trouble = lambda request: "503" if request.number > 8 else None
    driver = Driver(tmp_path, address, pretence={"patience": 15.0})
    assert driver.end() == 1
    assert driver.printed[-1].startswith("the copy in s3://bucket/")
    assert " must be complete, but 127.0.0.1:" in driver.printed[-1]
    assert driver.printed[-1].endswith("and the same command completes the copy")
    line.trouble = lambda request: None
    assert Driver(tmp_path, address).end() == 0
    assert read_copy(place_of(tmp_path, address)) == read(tmp_path / "it" / "study.db")


def test_f52_the_end_of_the_command_does_not_wait_for_a_silent_store(tmp_path, line, address):
    line.trouble = lambda request: "silence" if request.number > 8 else None
    line.talks.clear()
    driver = Driver(tmp_path, address, pretence={"patience": 0.5})
    assert driver.end() == 1
    assert "nothing got through in time" in driver.printed[-1]
    assert len(line.troubled) < 3  # a process that waits lives to see the third and last try of a request


def cannot_begin(tmp_path, address, environment=()):
    driver = Driver(tmp_path / "runs", address, environment)
    assert driver.end() == 2, driver.printed
    assert not (tmp_path / "runs" / "it").exists()
    text = "\n".join(driver.printed)
    assert stores.SECRET not in text
    return text


def test_f52_wrong_credentials_are_refused_before_any_work(tmp_path, address):
    text = cannot_begin(tmp_path, address, {"AWS_SECRET_ACCESS_KEY": "another"})
    assert "must be within reach, but the credentials were refused for 'bucket' at 127.0.0.1:" in text
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws, must be allowed to" in text


def test_f52_credentials_that_may_only_read_are_refused_before_any_work(tmp_path, address):
    text = cannot_begin(tmp_path, address, {"AWS_ACCESS_KEY_ID": f"{stores.KEY}-that-reads"})
    assert "the credentials were refused for 'bucket' at 127.0.0.1:" in text
    assert "(ACCESS_DENIED in PutObject)" in text


def test_f52_a_bucket_that_is_not_there_is_refused_and_not_made(tmp_path, line, store):
    text = cannot_begin(tmp_path, line.address("absent/studies"))
    assert f"there is no bucket 'absent' at 127.0.0.1:{line.port}; make it, or correct storage_copy" in text
    assert [info.path for info in stores.filesystem(store.port).get_file_info(["absent"]) if info.type.value] == []


def test_f52_an_endpoint_where_nobody_answers_is_refused_before_any_work(tmp_path, line, address):
    line.down()
    text = cannot_begin(tmp_path, address)
    assert f"must be within reach, but 127.0.0.1:{line.port} does not answer (Could not connect to server)" in text


def test_f52_an_endpoint_in_the_environment_is_used(tmp_path, line, request):
    folder = f"s3://bucket/{abs(hash(request.node.name))}"
    driver = Driver(tmp_path, folder, {"AWS_ENDPOINT_URL": line.endpoint})
    assert driver.end() == 0, driver.printed
    assert [seen for seen in line.seen if seen.what == "PutObject"]


def test_f52_the_secret_stands_nowhere(tmp_path, line, address):
    draw = random.Random(SEED)
    line.trouble = lambda request: draw.choice([*TROUBLES, *[None] * 12]) if request.number > 5 else None
    driver = Driver(tmp_path, address)
    assert driver.end() == 0, driver.printed
    assert stores.SECRET not in "\n".join(driver.printed)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or stores.SECRET.encode() not in path.read_bytes(), path


def large(parts):
    return random.Random(SEED).randbytes(PART) * parts + b"end"


def test_f52_a_large_file_travels_in_parts_of_which_one_is_in_memory(line, address):
    content, place = large(4), Place.at(address) / "large"

    class Source(io.BytesIO):
        def read(self, size):
            arrived = sum(request.sent for request in line.seen if request.what == "UploadPart")
            assert arrived >= self.tell()
            return super().read(size)

    place.send(Source(content), len(content))
    assert Counter(request.what for request in line.seen)["UploadPart"] == 5
    line.seen.clear()
    assert place.read() == content
    assert Counter(request.what for request in line.seen) == {"HeadObject": 1, "GetObject": 5}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("at", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_f52_an_upload_that_fails_leaves_what_was_there(line, address, at, trouble):
    place = Place.at(address) / "large"
    place.write(b"what was there")
    done = []

    def trouble_from_the_second_on(request):
        done.append(request.what)
        return trouble if request.what == at and (at != "UploadPart" or done.count(at) > 1) else None

    line.trouble = trouble_from_the_second_on
    try:
        place.write(large(2))
    except OSError:
        line.trouble = lambda request: None
        whole = [b"what was there"] + [large(2)] * (at == "CompleteMultipartUpload")  # done, and the answer lost
        assert place.read() in whole
    else:
        line.trouble = lambda request: None
        assert trouble == "half answer"  # of an answer that is empty
        assert place.read() == large(2)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_f52_half_a_file_is_never_taken_for_a_whole_one(line, address, tmp_path, trouble):
    place = Place.at(address) / "large"
    place.write(large(2))
    line.trouble = lambda request: trouble if request.what == "GetObject" and request.number % 2 else None
    try:
        assert place.fetch(tmp_path / "large")
    except OSError:
        assert list(tmp_path.iterdir()) == []
    else:
        assert (tmp_path / "large").read_bytes() == large(2)


def test_f52_a_checkpoint_is_removed_though_its_removal_fails_at_first(tmp_path, line, address):
    failing = iter(["503"] * 3)  # as often as one removal is tried
    line.trouble = lambda request: (
        next(failing, None) if request.what == "DeleteObjects" and request.number > 10 else None
    )
    driver = Driver(tmp_path, address, pretence={"epoch_seconds": 0.3})  # so that checkpoints are carried
    assert driver.end() == 0, driver.printed
    assert next(failing, None) is None
    assert [name for name in place_of(tmp_path, address).files() if "checkpoint" in name] == []
    assert TrialKey(0) in read_history(tmp_path / "it" / "study.db").trials
