"""docs/run_on_a_cluster.md followed line by line: your machine, a head and two workers, with `ray up` and by hand."""

import re
import time
from dataclasses import dataclass

import pytest
import yaml
from followed import STUDY, say
from furniture import HOME, bring_images, install_project, make_environment, on, other_than_locked
from hosts import ROOT, until

from search.entries import from_line

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

PAGE = ROOT / "docs" / "run_on_a_cluster.md"
WORKERS = ("worker1", "worker2")
PLACES = {
    "on your machine": ("laptop",),
    "on the head": ("head",),
    "on each worker": WORKERS,
    "on the head and on each worker": ("head", *WORKERS),
    "on a worker that is to go": ("worker2",),
}
NOT_RUN = "not run by the tests: "
SECONDS = 600  # for one block; a search is the longest


@dataclass(frozen=True)
class Block:
    line: int
    place: str
    text: str


def blocks():
    text = PAGE.read_text(encoding="utf-8")
    found = re.finditer(r"^```sh\n# ([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(text.count("\n", 0, hit.start()) + 2, hit[1], hit[2]) for hit in found]


@pytest.fixture(scope="module")
def machines(hosts):
    """What the page expects: the project on your machine, Python on the others, and images with a study file."""
    assert other_than_locked() == [], "hosts install requirements.lock without a network: run `make setup` first"
    laptop, *others = [hosts.add(name) for name in ("laptop", "head", *WORKERS)]
    install_project(laptop)
    for host in others:
        make_environment(host)
    bring_images(laptop)
    on(laptop, HOME / "images").rename(on(laptop, HOME / "scans"))
    on(laptop, HOME / "groups.csv").rename(on(laptop, HOME / "scans" / "groups.csv"))
    document = {
        **STUDY,
        "data": {"path": "scans", "groups": "scans/groups.csv", "image_size": 32},
        "model": {"architecture": "mobilenetv2", "weights": "random"},
        "budget": {"trials": 2, "epochs": 2},
        "resources": {"cpus_per_trial": machine_cpus(laptop)},  # a trial takes a host: both get one
    }
    on(laptop, HOME / "study.yaml").write_text(yaml.safe_dump(document))
    return hosts


def machine_cpus(host):
    return int(host.run("nproc"))


def variables(hosts):
    workers = " ".join(hosts[name].address for name in WORKERS)
    return f'HEAD={hosts["head"].address}; WORKERS="{workers}"; SSH_USER=root; KEY=~/.ssh/thawline\n'


def let_in(hosts):
    """What `ssh-copy-id` does."""
    key = on(hosts["laptop"], HOME / ".ssh" / "thawline.pub").read_text()
    for name in ("head", *WORKERS):
        on(hosts[name], HOME / ".ssh" / "authorized_keys").write_text(key)


def wait_for_workers(hosts):
    """As somebody does who repeats `ray status`."""
    activated = "source ~/thawline/venv/bin/activate; RAY_AUTH_MODE=token ray status"
    cpus = len(WORKERS) * machine_cpus(hosts["head"])
    until("both workers", lambda: f"/{cpus}.0 CPU" in hosts["head"].run(activated, check=False), seconds=300, every=2)


def started_on(hosts):
    """Hosts that trials started on, by the journal on the head."""
    lines = on(hosts["head"], HOME / "runs" / "first" / "study.events.jsonl").read_bytes().splitlines()
    entries = [from_line(line) for line in lines]
    return [re.search('"worker": "(.*?)/', entry.body)[1] for entry in entries if entry.kind == "started"]


def living_raylets(hosts):
    return [name for name in ("head", *WORKERS) if hosts[name].run("pgrep raylet", check=False)]


@pytest.fixture(scope="module")
def followed(machines):
    """Everything on the page done in order; what was seen after some of the blocks, by what they do."""
    seen = {}
    for block in blocks():
        if block.place == "everywhere" or block.place.startswith(NOT_RUN):
            continue
        began = time.monotonic()
        for name in PLACES[block.place]:
            activated = "source ~/thawline/venv/bin/activate\n" if name == "laptop" else ""
            machines[name].run(f"set -eo pipefail\n{activated}{variables(machines)}{block.text}", seconds=SECONDS)
        say(f"line {block.line}, {block.place}: {block.text.splitlines()[-1][:60]} … {time.monotonic() - began:.0f} s")
        if "ssh-keygen" in block.text:
            let_in(machines)
        if "ray up" in block.text or "ray start --address" in block.text:
            wait_for_workers(machines)
            say(f"all workers were there {time.monotonic() - began:.0f} s after the block began")
        if "thawline search" in block.text:
            seen.setdefault("searches", []).append(started_on(machines))
        if "ray down" in block.text:
            until("Ray has ended on all hosts", lambda: not living_raylets(machines), seconds=60)
            seen["after ray down"] = living_raylets(machines)
        if "drain-node" in block.text:
            seen["after draining"] = living_raylets(machines)
    return seen


def test_every_block_says_where_it_is_run():
    fences = PAGE.read_text(encoding="utf-8").count("```sh\n")
    assert fences == len(blocks())
    known = {*PLACES, "everywhere"}
    assert [b.line for b in blocks() if b.place not in known and not b.place.startswith(NOT_RUN)] == []


def test_a_cluster_made_with_ray_up_runs_trials_on_both_workers(followed):
    assert sorted(followed["searches"][0]) == ["worker1", "worker2"]


def test_ray_down_stops_ray_on_all_hosts(followed):
    assert followed["after ray down"] == []


def test_what_was_fetched_is_the_whole_run(followed, machines):
    run = on(machines["laptop"], HOME / "thawline" / "runs" / "first")
    assert [
        name for name in ("study.db", "study.yaml", "split.csv", "trials/0/log.txt") if not (run / name).exists()
    ] == []


def test_the_same_study_goes_on_on_a_cluster_made_by_hand(followed):
    assert len(followed["searches"][1]) == 4
    assert set(followed["searches"][1][2:]) == {"worker1", "worker2"}


def test_a_drained_worker_is_gone_and_the_others_stay(followed):
    assert followed["after draining"] == ["head", "worker1"]
