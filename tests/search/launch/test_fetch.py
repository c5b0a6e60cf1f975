import io
import os
import shutil
import signal
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.errors import ConfigurationError, StudyStopped
from search.events import Asked
from search.launch.door import Unreachable
from search.launch.fetch import _lent, _put_in_place, check_free, check_later, extract, fetch_run
from search.ledger import Ledger
from search.paths import ORIGIN


def archive(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def file(name, content=b"x", mode=0o644):
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    return member, content


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def test_an_archive_becomes_its_files(tmp_path):
    extract(archive(tmp_path / "a.tgz", file("study.yaml", b"a"), file("trials/0/log.txt", b"b")), tmp_path / "run")
    assert (tmp_path / "run" / "trials" / "0" / "log.txt").read_bytes() == b"b"
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "member",
    [
        file("../outside.txt"),
        file("trials/../../outside.txt"),
        file("/outside.txt"),
        link("a", "/etc/passwd", tarfile.SYMTYPE),
        link("a", "../outside.txt", tarfile.LNKTYPE),
        link("a", "", tarfile.FIFOTYPE),
        link("a", "", tarfile.CHRTYPE),
    ],
)
def test_f54_nothing_in_an_archive_leads_out_of_the_folder(tmp_path, member):
    path = archive(tmp_path / "a.tgz", file("study.yaml"), member)
    with pytest.raises(StudyStopped, match="a fetched run must"):
        extract(path, tmp_path / "run")
    assert names_in(tmp_path) == ["a.tgz", "run"]


def test_a_torn_archive_is_told_as_one(tmp_path):
    path = archive(tmp_path / "a.tgz", file("study.yaml", os.urandom(5000)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(StudyStopped):
        extract(path, tmp_path / "run")


def test_no_rights_come_along(tmp_path):
    extract(archive(tmp_path / "a.tgz", file("tool", mode=0o4777)), tmp_path / "run")
    assert (tmp_path / "run" / "tool").stat().st_mode & 0o7022 == 0


def test_a_run_that_was_made_here_is_never_fetched_over(tmp_path):
    check_free(tmp_path / "lungs")
    (tmp_path / "lungs").mkdir()
    with pytest.raises(ConfigurationError, match="a run that was made here is there"):
        check_free(tmp_path / "lungs")
    (tmp_path / "lungs" / ORIGIN).write_text("{}")
    check_free(tmp_path / "lungs")


def test_a_newer_copy_takes_the_place_of_an_older_one_and_what_was_added_here_stays(tmp_path):
    old, new = tmp_path / "lungs", tmp_path / "arrived"
    for folder, text in ((old, "old"), (new, "new")):
        folder.mkdir()
        (folder / "study.db").write_text(text)
    (old / "study.db-wal").write_text("of the old ledger")
    (old / "exported").mkdir()
    (old / "exported" / "model.onnx").write_text("mine")
    _put_in_place(new, old, tmp_path / "before")
    assert names_in(old) == ["exported", "study.db"]
    assert (old / "study.db").read_text() == "new"
    assert (old / "exported" / "model.onnx").read_text() == "mine"


def recorded(folder, *numbers):
    folder.mkdir(exist_ok=True)
    with Ledger(folder / "study.db") as ledger:
        for number in numbers:
            ledger.append(Asked(number, {}, 0))
    return folder


def test_a_copy_is_replaced_by_a_later_state_of_its_own_study_alone(tmp_path):
    here = recorded(tmp_path / "here", 0, 1)
    later = shutil.copytree(here, tmp_path / "later")
    recorded(later, 2)
    check_later(here, later)
    check_later(here, shutil.copytree(here, tmp_path / "same"))
    check_later(tmp_path / "nothing", later)
    for other in (recorded(tmp_path / "other", 0, 1, 2), recorded(tmp_path / "begun anew")):
        with pytest.raises(StudyStopped, match="has events that the fetched run lacks"):
            check_later(here, other)
    with pytest.raises(StudyStopped, match="has events that the fetched run lacks"):
        check_later(later, here)  # somebody went on with the copy
    (here / "study.db").write_bytes(b"no ledger")
    with pytest.raises(StudyStopped, match="must be a ledger to tell what is new"):
        check_later(here, later)


def test_ctrl_c_in_the_exchange_waits_until_it_is_done(tmp_path, monkeypatch):
    def download(door, name, folder, arrived, *, ledger_only):
        recorded(arrived)
        (arrived / "study.yaml").write_text("new")

    monkeypatch.setattr("search.launch.fetch._download", download)
    target = recorded(tmp_path / "lungs")
    (target / ORIGIN).write_text("{}")
    (target / "exported").mkdir()
    rename = Path.rename

    def interrupted(path, other):
        os.kill(os.getpid(), signal.SIGINT)
        return rename(path, other)

    monkeypatch.setattr(Path, "rename", interrupted)
    done = threading.Event()
    threading.Thread(target=done.wait, daemon=True).start()  # such as draws the live view, and may take the signal
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # it may be ignored, as of what runs in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            fetch_run(SimpleNamespace(address="http://here"), "lungs", target)
    finally:
        signal.signal(signal.SIGINT, before)
        done.set()
    assert (target / "study.yaml").read_text() == "new"
    assert (target / "exported").is_dir()


def test_an_interruption_comes_through_although_the_door_is_lost_meanwhile(monkeypatch):
    class Lost:
        def log(self, submission):
            raise KeyboardInterrupt

        def stop(self, submission):
            raise Unreachable("nothing answers")

    monkeypatch.setattr("search.launch.fetch.start_errand", lambda *_: "thawline-errand-1")
    with pytest.raises(KeyboardInterrupt), _lent(Lost(), {}):
        pass
