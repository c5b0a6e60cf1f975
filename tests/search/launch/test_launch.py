"""What is sent to a cluster and what is found there; a whole launch is in test_launch_on_a_cluster.py."""

import shlex
from importlib import metadata
from types import SimpleNamespace

import pytest

from search.commands.launching import _act, _command_again
from search.config import StudyConfig
from search.errors import ConfigurationError, StudyStopped
from search.launch.launch import Launch, Order
from search.paths import ORIGIN, StudyPaths
from search.safe_yaml import parse_yaml
from search.view.progress import View
from trainable import ImageTrainable


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Begins the launch of a study whose images are too much to send; what the cluster then gets to run."""
    images = tmp_path / "scans"
    images.mkdir()
    (images / "1.png").write_bytes(bytes(1000))
    monkeypatch.setattr("search.launch.parcel.LIMIT", 500)
    submitted = []
    monkeypatch.setattr(Launch, "_submit", lambda self, name, study, *_: submitted.append(parse_yaml(study)))
    document = {"name": "it", "data": {"path": str(images)}, "storage": str(tmp_path / "runs")}
    config = StudyConfig.of(ImageTrainable.sections).parse(document)

    def begin(*there):
        known = {"paths": list(there), "modules": [], "thawline": metadata.version("thawline"), "launcher": {}}
        monkeypatch.setattr("search.launch.launch.run_errand", lambda *_: {**known, "python": "3.11.7"})
        door = SimpleNamespace(jobs=lambda name: [], nodes=lambda: [{"CPU": 4.0}])
        Launch(door, Order(config), View()).begin()
        return submitted[-1]["data"]["path"]

    return begin, str(images)


def test_images_that_are_too_much_to_send_are_used_where_the_cluster_has_them_too(launched):
    begin, images = launched
    assert begin(images) == images


def test_images_that_are_too_much_to_send_and_not_there_are_refused_with_what_to_do(launched):
    begin, _ = launched
    with pytest.raises(ConfigurationError, match=r"data\.path: what is sent must have less than 0 MB"):
        begin()


def test_a_search_that_was_started_with_other_settings_is_not_taken_for_what_was_asked(tmp_path, monkeypatch):
    job = SimpleNamespace(submission_id="thawline-it-1", status="RUNNING", metadata={"thawline_order": "another"})
    door = SimpleNamespace(jobs=lambda name: [job])
    config = StudyConfig.of(ImageTrainable.sections).parse(
        {"name": "it", "data": {"path": "/there"}, "storage": str(tmp_path)}
    )
    launched = Launch(door, Order(config), View())
    monkeypatch.setattr(launched, "follow", lambda: "SUCCEEDED")
    monkeypatch.setattr(launched, "fetch", lambda: StudyPaths(tmp_path / "it"))
    with pytest.raises(StudyStopped, match="thawline-it-1 did what it was started with"):
        _act(launched, stop=False, fetch=False)
    assert _act(launched, stop=False, fetch=True).root == tmp_path / "it"


def test_a_copy_of_a_run_that_is_gone_is_not_made_room_with(launched, tmp_path):
    begin, images = launched
    (tmp_path / "runs" / "it").mkdir(parents=True)
    (tmp_path / "runs" / "it" / ORIGIN).write_text("{}")
    with pytest.raises(ConfigurationError, match="is a copy of a run that is not there any more"):
        begin(images)
    assert begin(images, "~/thawline/runs/it") == images


def test_the_command_that_is_printed_orders_the_same():
    options = {"--name": "far", "--address": None, "--trials": 50, "--time-budget": "2h"}
    told = _command_again("a study.yaml", options, ["data.path=/mnt/my scans"], ["--final"])
    assert shlex.split(told) == [
        *("thawline", "launch", "a study.yaml", "--name", "far", "--trials", "50", "--time-budget", "2h"),
        *("--set", "data.path=/mnt/my scans", "--final"),
    ]
