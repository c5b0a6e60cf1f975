from pathlib import Path

import pytest
import yaml

from search.placement import (
    TrialResources,
    allowed_nodes,
    check_fits,
    idle_gpu,
    late_nodes,
    plan_concurrency,
    promised_nodes,
)

LAPTOP = [{"CPU": 2.0}]
GPU_PAIR = [{"CPU": 0}, {"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}]


@pytest.mark.parametrize(
    ("nodes", "per_trial", "requested", "expected"),
    [
        (LAPTOP, TrialResources(1), None, 2),
        (LAPTOP, TrialResources(2), None, 1),
        (LAPTOP, TrialResources(4), None, 1),  # never none: check_fits speaks of what can't run
        (LAPTOP, TrialResources(1), 1, 1),
        (LAPTOP, TrialResources(1), 8, 8),
        ([{"CPU": 3}, {"CPU": 3}], TrialResources(2), None, 2),  # 6 CPUs, but no trial spans nodes
        ([{"CPU": 0.3}], TrialResources(0.1), None, 3),
        (GPU_PAIR, TrialResources(1, 1), None, 2),
        (GPU_PAIR, TrialResources(1, 0.3), None, 6),
        (GPU_PAIR, TrialResources(2, 0.25), None, 4),  # by CPU
        ([{"CPU": 8, "GPU": 3}], TrialResources(1, 2), None, 1),
        ([], TrialResources(), None, 1),
    ],
)
def test_as_many_trials_run_at_once_as_fit_on_single_nodes(nodes, per_trial, requested, expected):
    assert plan_concurrency(nodes, per_trial, requested) == expected


@pytest.mark.parametrize(
    ("nodes", "per_trial", "expected"),
    [
        (LAPTOP, TrialResources(2), None),
        (LAPTOP, TrialResources(4), "asked for 4 CPUs per trial, the largest node has 2"),
        (LAPTOP, TrialResources(1, 1), "asked for 1 GPUs per trial, the largest node has 0"),
        (
            [{"CPU": 8, "GPU": 2}],
            TrialResources(16, 4),
            "asked for 16 CPUs per trial, the largest node has 8; asked for 4 GPUs per trial, the largest node has 2",
        ),
        (
            [{"CPU": 8}, {"CPU": 1, "GPU": 1}],
            TrialResources(4, 1),
            "asked for 4 CPUs and 1 GPUs per trial, no node has both",
        ),
        ([{"CPU": 0}], TrialResources(1, 1), None),  # a head that waits for its autoscaler
        ([], TrialResources(), None),
    ],
)
def test_a_trial_that_fits_nowhere_is_explained(nodes, per_trial, expected):
    assert check_fits(nodes, per_trial) == expected


@pytest.mark.parametrize("share", [0, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.8, 1, 2])
def test_shares_that_use_a_gpu_well_are_nothing_to_speak_of(share):
    assert idle_gpu(TrialResources(1, share)) is None


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.6, "with 0.6, 1 at once fit on a GPU and 40% of it lies idle; 1 leaves nothing, 0.5 lets 2 trials share it"),
        (0.35, "with 0.35, 2 at once fit on a GPU and 30% of it lies idle; 0.5 leaves nothing, 0.33 lets 3 trials"),
    ],
)
def test_a_share_that_leaves_much_of_a_gpu_idle_is_spoken_of(share, expected):
    assert expected in idle_gpu(TrialResources(1, share))


def test_a_launcher_file_says_what_a_cluster_may_grow_to():
    description = {
        "max_workers": 3,
        "head_node_type": "head",
        "available_node_types": {
            "big": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 1},
            "head": {"resources": {"CPU": 0}},
            "small": {"resources": {"CPU": 4}},
        },
    }
    assert allowed_nodes(description) == [{"CPU": 0}, {"CPU": 8, "GPU": 1}, {"CPU": 4}, {"CPU": 4}]
    assert allowed_nodes({}) == []


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({}, 0),
        ({"available_node_types": {"local.cluster.node": {"resources": {}, "min_workers": 2, "max_workers": 2}}}, 3),
        ({"available_node_types": {"head": {"min_workers": 0}, "gpu": {"min_workers": 1}, "cpu": {}}}, 2),
    ],
)
def test_a_launcher_file_promises_the_head_and_the_workers_it_keeps(description, expected):
    assert promised_nodes(description) == expected


def test_a_search_planned_without_some_nodes_says_so_and_what_to_do():
    assert late_nodes(2, 1).startswith("resources.concurrency: planned as 1 from the nodes that are there, but 2 more")


def test_the_launcher_file_of_this_project_has_room_for_gpu_trials():
    description = yaml.safe_load((Path(__file__).parents[2] / "cluster.yaml").read_text(encoding="utf-8"))
    nodes = allowed_nodes(description)
    assert check_fits(nodes, TrialResources(1, 1)) is None
    assert plan_concurrency(nodes, TrialResources(1, 1), None) == description["max_workers"]
