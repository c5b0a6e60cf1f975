import os
import zipfile
from pathlib import Path

import pytest
from pydantic import BaseModel

from search.config import StudyConfig
from search.errors import ConfigurationError
from search.launch.parcel import LIMIT, digest_of, inputs_of, pack_errands, pack_search, paths_of, study_there
from search.safe_yaml import parse_yaml


class Data(BaseModel):
    path: Path
    groups: Path | None = None
    size: int = 32


class Model(BaseModel):
    weights: str | Path = "random"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "scans"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.png").write_bytes(b"one")
    (folder / "a" / "2.png").write_bytes(b"two")
    return folder


def study(**more):
    return StudyConfig.of({"data": Data, "model": Model}).parse({"name": "lungs"} | more)


def test_paths_are_what_the_trainable_is_told_as_paths():
    assert paths_of(study(data={"path": "/a"}, model={"weights": "/w.h5"})) == {"data.path": Path("/a")}
    assert paths_of(study(data={"path": "/a", "groups": "/b"})) == {"data.path": Path("/a"), "data.groups": Path("/b")}


def test_only_what_is_here_is_sent(images):
    inputs = inputs_of({"data.path": images, "data.groups": Path("/there/groups.csv")})
    assert inputs.paths == {"data.path": images}
    assert inputs.size == 6
    assert [name for name, _ in inputs.files()] == ["inputs/0/scans/a/1.png", "inputs/0/scans/a/2.png"]
    assert inputs_of({"data.path": Path("/there")}) is None


def test_a_folder_there_is_named_after_its_content(images):
    before = inputs_of({"data.path": images})
    assert inputs_of({"data.path": images}) == before
    (images / "a" / "2.png").write_bytes(b"TWO")
    assert inputs_of({"data.path": images}).target != before.target


def test_a_file_is_sent_under_its_name(images):
    groups = images / "a" / "1.png"
    assert inputs_of({"data.groups": groups}).there["data.groups"].endswith("/0/1.png")
    assert [name for name, _ in inputs_of({"data.groups": groups}).files()] == ["inputs/0/1.png"]


def test_what_would_not_arrive_as_it_is_is_refused_whatever_else_is_there(images, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (images / "b").symlink_to(tmp_path / "elsewhere")
    (images / "a" / "3.png").symlink_to("/etc/hostname")
    (images / "a" / "gone.png").symlink_to("nowhere")
    (images / "a" / "back\\slash.png").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(images / "a") + b"/caf\xe9.png")).write_bytes(b"x")
    with pytest.raises(ConfigurationError) as caught:
        inputs_of({"data.path": images})
    told = "\n".join(caught.value.problems)
    for name in ("b", "a/3.png", "a/gone.png"):
        assert f"data.path: {images / name} is a link; put what it leads to in its place" in told
    assert "caf\\xe9.png' must have a name in UTF-8 without a backslash" in told
    assert len(caught.value.problems) == 5
    for number in range(20):
        (images / f"link {number}").symlink_to(images)
    with pytest.raises(ConfigurationError) as caught:
        inputs_of({"data.path": images})
    assert caught.value.problems[10:] == ["and 15 more like these"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_may_not_be_read_is_not_sent_as_an_empty_one(images):
    (images / "a").chmod(0)
    try:
        with pytest.raises(ConfigurationError, match="Permission denied"):
            inputs_of({"data.path": images})
    finally:
        (images / "a").chmod(0o700)


def test_a_file_that_is_a_link_itself_is_sent_as_what_it_leads_to(images, tmp_path):
    (tmp_path / "weights.h5").symlink_to(images / "a" / "1.png")
    assert inputs_of({"model.weights": tmp_path / "weights.h5"}).size == 3


def test_too_much_to_send_is_refused_with_what_to_do(images):
    with (images / "big.png").open("wb") as file:
        file.truncate(LIMIT)
    with pytest.raises(ConfigurationError) as caught:
        inputs_of({"data.path": images})
    [problem] = caught.value.problems
    assert problem == (
        "data.path: what is sent must have less than 105 MB, which is what Ray's dashboard takes, but has 105 MB; put "
        "it where the cluster's head sees it and give the path there: --set data.path=/path/there"
    )


def test_the_study_there_has_the_paths_of_the_head_and_keeps_its_runs_in_a_lasting_place(images):
    config = study(data={"path": str(images), "groups": "/there/g.csv"}, budget={"trials": 7}, storage="/here/runs")
    there = parse_yaml(study_there(config, inputs_of(paths_of(config))))
    assert there["data"]["path"].startswith("~/thawline/inputs/")
    assert there["data"]["path"].endswith("/0/scans")
    assert there["data"]["groups"] == "/there/g.csv"
    assert (there["storage"], there["name"], there["resources"]) == ("~/thawline/runs", "lungs", {"address": "auto"})
    assert there["budget"] == {"trials": 7}


def test_an_order_is_another_one_when_anything_about_it_changes():
    assert digest_of(("a", ("--final",))) == digest_of(("a", ("--final",)))
    assert digest_of(("a", ("--final",))) != digest_of(("a", ()))


def test_the_same_content_is_the_same_package_to_the_byte(tmp_path):
    first, second = (pack_search("name: a\n", True, tmp_path / name).read_bytes() for name in ("1.zip", "2.zip"))
    assert first == second


def test_code_goes_along_with_the_study_files_that_come_with_it_and_nothing_compiled(tmp_path):
    names = zipfile.ZipFile(pack_search("name: a\n", True, tmp_path / "1.zip")).namelist()
    assert {"study.yaml", "search/cli.py", "trainable/trial.py", "analysis/trials.py"} <= set(names)
    assert "search/configs/quickstart.yaml" in names
    assert [name for name in names if name.endswith(".pyc")] == []
    assert zipfile.ZipFile(pack_search("name: a\n", False, tmp_path / "2.zip")).namelist() == ["study.yaml"]


def test_errands_travel_with_the_inputs_they_are_for(tmp_path, images):
    package = zipfile.ZipFile(pack_errands(tmp_path / "1.zip", inputs_of({"data.path": images})))
    assert {"probe.py", "receive.py", "lend.py", "inputs/0/scans/a/1.png"} <= set(package.namelist())
    assert package.read("inputs/0/scans/a/2.png") == b"two"
