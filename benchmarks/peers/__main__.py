"""Thawline beside stock Ray Tune, plain Optuna and KerasTuner: the same images, network, space, budget and cores.

make bench-peers DATA=covid-ct WEIGHTS=resnet50_cxr64.weights.h5                    # three seeds; hours
python benchmarks/peers search --data covid-ct --weights W --seeds 1 --systems thawline ray_tune
python benchmarks/peers replay --data covid-ct --weights W      # what Ray Tune's search trained, on each
python benchmarks/peers judge --data covid-ct --weights W       # the best configuration of each search, on test images
python benchmarks/peers record --data covid-ct --weights W      # whole curves of 48 random configurations: 15 minutes
python benchmarks/peers table                                   # what there is so far

Each run is a process of its own; what it used and every epoch it trained go into runs/peers/results.jsonl. Runs that
are there already are not done again. The folders beside this file hold those of docs/experiments.md, one for each
machine; copied to runs/peers/ on such a machine, they are gone on from.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from findings import processor, spread  # noqa: E402 - it lies beside this folder
from record import record  # noqa: E402

PLACE = Path("runs/peers")
RESULTS = PLACE / "results.jsonl"
KINDS = ("search", "replay")
RECORDED = 48
NAMES = ("thawline", "ray_tune", "optuna", "keras_tuner")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=[*KINDS, "judge", "record", "table", "one"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--groups", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 1 2 3, to replay 1")
    parser.add_argument("--systems", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--label", default="", help="of a variant of thawline, set by PEERS_SETTINGS")
    parser.add_argument("--every", type=int, default=1, help="replay one in so many of the list, for want of hours")
    asked = parser.parse_args()
    asked.seeds = asked.seeds or ([1] if asked.what == "replay" else [1, 2, 3])
    if asked.what == "table":
        return print_table(read_results())
    if asked.what == "one":
        return run_one(asked.systems[0], asked.seeds[0], PLACE / "runs.json")
    if asked.data is None or asked.weights is None:
        parser.error("--data FOLDER and --weights FILE: say on what")
    if asked.what in KINDS and "keras_tuner" in asked.systems and not find_spec("keras_tuner"):
        parser.error(
            "keras_tuner: pip install --no-deps keras-tuner==1.4.8 kt-legacy==1.0.5, or leave it out (--systems)"
        )
    prepare_task(asked)
    if asked.what == "record":
        return record(PLACE.absolute(), PLACE / "curves.csv", RECORDED)
    if asked.what == "judge":
        judge_searches({(f"{system}{asked.label}", seed) for system in asked.systems for seed in asked.seeds})
        return print_table(read_results())
    for seed in asked.seeds:
        for system in asked.systems:
            run(asked.what, system, seed, asked.label, asked.every)
    return print_table(read_results())


def prepare_task(asked: argparse.Namespace) -> None:
    """Decode the images, for the peers; Thawline does it again in its time. That the weights fit is known from here on,
    so its searches are spared that check: 7 s of a first one (docs/experiments.md).
    """
    from search.config import StudyConfig
    from trainable import ImageTrainable
    from trainable.dataset import build_arrays
    from trainable.split import read_split

    groups = asked.groups or asked.data / "groups.csv"
    study = {
        "data": {"path": str(asked.data.absolute()), "groups": str(groups.absolute()), "image_size": 64},
        "model": {"architecture": "resnet50", "weights": str(asked.weights.absolute()), "batch_norm": "frozen"},
        "objective": {"metric": "val_auc", "direction": "maximize"},
        "space": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "batch_size": {"type": "choice", "values": [16, 32, 64]},
            "augmentation_strength": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
            "freeze_depth": {"type": "int", "low": 0, "high": 5},
        },
        "seed": 1,
    }
    PLACE.mkdir(parents=True, exist_ok=True)
    config: Any = StudyConfig.parse(study).typed(ImageTrainable.sections)
    largest = {"freeze_depth": 5, "batch_size": 64}
    ImageTrainable().prepare(config, largest, PLACE.absolute(), lambda *_: None)
    build_arrays(PLACE / "arrays", config.data, read_split(PLACE / "split.csv"), "test")
    (PLACE / "task.json").write_text(json.dumps({"study": study, "weights": str(asked.weights.absolute())}))


def judge_searches(chosen: Collection[tuple[str, int]]) -> None:
    """Judge those of the chosen searches that have not been yet, and write each down."""
    from trainable.devices import apply_devices, plan_devices

    apply_devices(plan_devices(len(os.sched_getaffinity(0)), 0, []))
    from judge import judge, judged
    from task import Task

    done = {(line["system"], line["seed"]) for line in judged(PLACE)}
    for (system, seed), line in of_kind(read_results(), "search").items():
        if (system, seed) in chosen and (system, seed) not in done:
            found = {"system": system, "seed": seed, **judge(Task.read(PLACE.absolute()), line)}
            with (PLACE / "judged.jsonl").open("a") as stream:
                stream.write(json.dumps(found) + "\n")


def run(kind: str, system: str, seed: int, label: str, every: int) -> None:
    """One run of one system, unless there is one; its line is added to the results."""
    from meter import metered

    name, listed = f"{system}{label}", None
    if kind == "replay":
        listed = listed_runs()[every // 2 :: every]
        kind = kind if every == 1 else f"{kind}-{every}"  # another list: not to be taken for the whole one
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:12]
    for line in read_results():
        if listed and line["kind"] == kind and line.get("list", digest) != digest:
            sys.exit(
                f"{kind}: {RESULTS} has runs of another list ({line['list']}) than this one ({digest}); move them away"
            )
        if (line["kind"], line["system"], line["seed"]) == (kind, name, seed):
            return
    runs = PLACE / "runs.json"
    runs.write_text(json.dumps(listed))
    epochs = (PLACE / "epochs.jsonl").absolute()
    epochs.write_text("")
    print(f"{kind} {name} seed {seed}: begun", flush=True)
    command = [sys.executable, str(HERE), "one", "--systems", system, "--seeds", str(seed)]
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.time()
    usage = metered(command, {"PEERS_EPOCHS": str(epochs), "PYTHONPATH": path}, PLACE / f"{kind}-{name}-{seed}.log")
    trained = [json.loads(line) for line in epochs.read_text().splitlines()]
    for epoch in trained:
        epoch["after"] = round(epoch.pop("at") - began, 2)  # seconds since the command was given
    line = {
        "kind": kind,
        "system": name,
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        "versions": {package: metadata.version(package) for package in ("ray", "optuna", "keras", "tensorflow")},
        **vars(usage),
        **({"list": digest} if listed else {}),
        "epochs": trained,
    }
    if not trained:
        raise RuntimeError(f"{name} must train something, but did not; see {PLACE}/{kind}-{name}-{seed}.log")
    with RESULTS.open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    print(f"{kind} {name} seed {seed}: {summary(line)}", flush=True)


def run_one(system: str, seed: int, runs: Path) -> None:
    """In a process of its own."""
    from systems import SYSTEMS
    from task import Task

    SYSTEMS[system](Task.read(PLACE.absolute()), seed, json.loads(runs.read_text()))


def read_results() -> list[dict[str, Any]]:
    """The runs there are."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def listed_runs() -> list[dict[str, Any]]:
    """Configurations and epochs of Ray Tune's search at the lowest seed."""
    searches = of_kind(read_results(), "search")
    seeds = [seed for system, seed in searches if system == "ray_tune"]
    if not seeds:
        sys.exit(
            "replay: needs a search of Ray Tune, whose configurations are the list; `search --systems ray_tune` first"
        )
    first = searches["ray_tune", min(seeds)]
    longest: dict[str, dict[str, Any]] = {}
    for each in first["epochs"]:
        key = json.dumps(each["parameters"], sort_keys=True)
        longest[key] = {
            "parameters": each["parameters"],
            "epochs": max(each["epoch"], longest.get(key, each)["epoch" if key not in longest else "epochs"]),
        }
    return list(longest.values())


def summary(line: dict[str, Any]) -> str:
    """A run in words; an epoch is a pass through the training images."""
    count = sum(epoch.get("share", 1.0) for epoch in line["epochs"])
    best = max((epoch["value"] for epoch in line["epochs"]), default=float("nan"))
    processes = len({epoch["process"] for epoch in line["epochs"]})
    each = line["seconds"] / max(1.0, count)
    return (
        f"{line['seconds']:.0f} s, {line['cpu_seconds']:.0f} CPU s, {count:.1f} epochs, {each:.1f} s each, "
        f"best {best:.3f}, {processes} workers, {line['peak_bytes'] / 1e9:.1f} GB"
    )


def print_table(results: Iterable[dict[str, Any]]) -> None:
    """Every run, then medians, and ratios seed by seed."""
    from judge import judged

    lines = list(results)
    test = {(line["system"], line["seed"]): line["test_auc"] for line in judged(PLACE)}
    for line in lines:
        scored = test.get((line["system"], line["seed"])) if line["kind"] == "search" else None
        aucs = f", test AUC of three seeds {', '.join(f'{auc:.3f}' for auc in scored)}" if scored else ""
        print(f"{line['kind']:7} {line['system']:14} seed {line['seed']}: {summary(line)}{aucs}")
    for kind in dict.fromkeys(line["kind"] for line in lines):
        of = of_kind(lines, kind)
        for system in dict.fromkeys(name for name, _ in of):
            for measure, unit in (("seconds", "wall time"), ("cpu_seconds", "CPU time")):
                print_ratio(of, kind, system, measure, unit)
    searches = of_kind(lines, "search")
    for (system, seed), line in searches.items():
        if system in NAMES and system != "thawline" and ("thawline", seed) in searches:
            print_arrival(line, searches["thawline", seed])
    for system in dict.fromkeys(name for name, _ in test):
        means = [statistics.fmean(aucs) for (name, _), aucs in test.items() if name == system]
        print(f"{system}: test AUC of the configuration found, mean {spread(means, 3)}, {len(means)} searches")


def of_kind(lines: Iterable[dict[str, Any]], kind: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The searches or the replays of one list, by system and seed."""
    return {(line["system"], line["seed"]): line for line in lines if line["kind"] == kind}


def print_arrival(peer: dict[str, Any], ours: dict[str, Any]) -> None:
    """When each search had found a score as good as the best of the other one's."""
    for one, other in ((ours, peer), (peer, ours)):
        sought = max(epoch["value"] for epoch in other["epochs"])
        when = f"{arrival(one, sought)}, {other['system']} itself {arrival(other, sought)}"
        print(f"search: {one['system']} seed {one['seed']} was as good as {other['system']}'s {sought:.3f} {when}")


def arrival(line: dict[str, Any], sought: float) -> str:
    """When a search first had this score, in words; the first runs did not note it."""
    after = [epoch.get("after") for epoch in line["epochs"] if epoch["value"] >= sought]
    if not after:
        return "never"
    return "at some time" if None in after else f"after {min(after):.0f} s"


def print_ratio(of: dict[tuple[str, int], Any], kind: str, system: str, measure: str, unit: str) -> None:
    """How many times what Thawline takes, seed by seed."""
    both = [key for key in of if key[0] == system and ("thawline", key[1]) in of and system != "thawline"]
    if both:
        ratios = [of[key][measure] / of["thawline", key[1]][measure] for key in both]
        print(f"{kind}: {system} / thawline {unit}: {spread(ratios, 1)}, {len(ratios)} seeds")


if __name__ == "__main__":
    main()
