"""What Ray's own autoscaler does with cluster.yaml: driven step by step, with a cloud that only counts."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.instance_manager import InstanceManager
from ray.autoscaler.v2.instance_manager.instance_storage import InstanceStorage
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter
from ray.autoscaler.v2.instance_manager.reconciler import Reconciler
from ray.autoscaler.v2.instance_manager.storage import InMemoryStorage
from ray.autoscaler.v2.instance_manager.subscribers.cloud_instance_updater import CloudInstanceUpdater
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ClusterResourceState, NodeState, NodeStatus, ResourceRequestByCount

from search.placement import TrialResources, allowed_nodes, plan_concurrency

ROOT = Path(__file__).resolve().parents[1]


class _Cloud(NodeProvider):
    """Starts nodes at once, or refuses some kinds; remembers what it was asked for."""

    def __init__(self, refuses=()):
        super().__init__({"type": "external"}, "study")
        self.asked = []
        self._refuses = set(refuses)
        self._nodes = {"head": {TAG_RAY_NODE_KIND: "head", TAG_RAY_USER_NODE_TYPE: "head"}}

    def non_terminated_nodes(self, tag_filters):
        return list(self._nodes)

    def node_tags(self, node_id):
        return self._nodes[node_id]

    def is_running(self, node_id):
        return True

    def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        kind = tags[TAG_RAY_USER_NODE_TYPE]
        self.asked.extend([kind] * count)
        if kind in self._refuses:
            raise NodeLaunchException("InsufficientInstanceCapacity", "there is none", None)
        for _ in range(count):
            self._nodes[f"{kind}-{len(self._nodes)}"] = dict(tags)


class _Autoscaler:
    """Ray's, put together as `ray.autoscaler.v2.autoscaler.Autoscaler` does, without the cluster around it."""

    def __init__(self, description, cloud):
        self.cloud = cloud
        self._config = AutoscalingConfig(description, skip_content_hash=True)
        reader = SimpleNamespace(get_cached_autoscaling_config=lambda: self._config)
        self._provider = NodeProviderAdapter(cloud, reader, max_launch_batch_per_type=5, max_concurrent_launches=5)
        self._monitor = CloudResourceMonitor()
        watching = [CloudInstanceUpdater(cloud_provider=self._provider), self._monitor]
        self._instances = InstanceManager(InstanceStorage("cluster", InMemoryStorage()), watching)
        self._scheduler = ResourceDemandScheduler()
        self._version = 0

    def step(self, trials, needs):
        """One look at a cluster whose head runs and whose trials all wait; what the cloud was asked for."""
        self._version += 1
        asked = len(self.cloud.asked)
        Reconciler.reconcile(
            self._instances,
            self._scheduler,
            self._provider,
            self._monitor,
            self._waiting(trials, needs),
            self._provider.get_non_terminated(),
            self._config,
            self._provider.poll_errors(),
        )
        self._settle()
        return self.cloud.asked[asked:]

    def _waiting(self, trials, needs):
        head = {"node:__internal_head__": 1.0}
        state = ClusterResourceState(cluster_resource_state_version=self._version)
        state.node_states.append(
            NodeState(
                node_id=b"h" * 28,
                instance_id="head",
                ray_node_type_name="head",
                status=NodeStatus.RUNNING,
                total_resources=head,
                available_resources=head,
            )
        )
        request = ResourceRequestByCount(request=ResourceRequestUtil.make(needs), count=trials)
        state.pending_resource_requests.append(request)
        return state

    def _settle(self):
        """Wait until the launches have been made: a thread hands them to another, each one at a time."""
        self._provider._main_executor.submit(lambda: None).result(60)
        self._provider._node_launcher_executors.submit(lambda: None).result(60)


@pytest.fixture
def description():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_four_waiting_gpu_trials_bring_four_gpu_workers_in_one_step(description):
    autoscaler = _Autoscaler(description, _Cloud())
    assert autoscaler.step(4, {"CPU": 1, "GPU": 1}) == ["gpu_worker"] * 4
    assert autoscaler.step(4, {"CPU": 1, "GPU": 1}) == []  # they are coming


def test_trials_that_share_a_gpu_share_a_worker(description):
    autoscaler = _Autoscaler(description, _Cloud())
    assert autoscaler.step(4, {"CPU": 1, "GPU": 0.5}) == ["gpu_worker"] * 2


def test_no_number_of_trials_brings_more_workers_than_may_be_paid(description):
    autoscaler = _Autoscaler(description, _Cloud())
    asked = [kind for _ in range(4) for kind in autoscaler.step(100, {"CPU": 1, "GPU": 1})]
    assert asked == ["gpu_worker"] * description["max_workers"]


def test_a_search_plans_as_many_trials_at_once_as_the_autoscaler_brings_room_for(description):
    planned = plan_concurrency(allowed_nodes(description), TrialResources(1, 0.5), None)
    autoscaler = _Autoscaler(description, _Cloud())
    asked = [kind for _ in range(3) for kind in autoscaler.step(planned, {"CPU": 1, "GPU": 0.5})]
    assert len(asked) == description["max_workers"]
    assert planned == 2 * len(asked)


def test_nothing_waits_nothing_is_started(description):
    autoscaler = _Autoscaler(description, _Cloud())
    assert autoscaler.step(0, {"CPU": 1, "GPU": 1}) == []


def test_ray_alone_asks_for_spot_for_ever_which_is_why_there_is_a_provider_of_ours(description):
    """When this fails, Ray has learnt to fall back: a second kind of node can then replace `search/spot.py`."""
    kinds = description["available_node_types"]
    kinds["spot"] = kinds["gpu_worker"] | {"priority": 1}
    kinds["on_demand"] = kinds.pop("gpu_worker")
    autoscaler = _Autoscaler(description, _Cloud(refuses=["spot"]))
    asked = [kind for _ in range(5) for kind in autoscaler.step(4, {"CPU": 1, "GPU": 1})]
    assert set(asked) == {"spot"}
    assert len(asked) > 4
