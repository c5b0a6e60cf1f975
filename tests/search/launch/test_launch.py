"""What is sent to a cluster and what is found there; a whole launch is in test_launch_on_a_cluster.py."""

from importlib import metadata
from types import SimpleNamespace

import pytest

from search.config import StudyConfig
from search.errors import ConfigurationError
from search.launch.launch import Launch, Order
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
