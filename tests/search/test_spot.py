"""The provider in cluster.yaml, with everything of Ray's and nothing of Amazon's but its answers."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

botocore = pytest.importorskip("botocore", reason="boto3 is needed where `ray up` runs, nowhere else")
pytest.importorskip("boto3")

from ray.autoscaler.node_launch_exception import NodeLaunchException  # noqa: E402 - after the skip

from search.spot import SpotFirst  # noqa: E402

SPOT = {"InstanceType": "g4dn.xlarge", "SubnetIds": ["a", "b"], "InstanceMarketOptions": {"MarketType": "spot"}}
ON_DEMAND = {name: value for name, value in SPOT.items() if name != "InstanceMarketOptions"}


class _Amazon:
    """Answers requests for instances; refuses spot ones, or all, with a code."""

    def __init__(self, refuses, code):
        self.asked = []
        self._refuses, self._code = refuses, code

    def create_instances(self, MaxCount, **request):  # noqa: N803 - Amazon's spelling
        market = request.get("InstanceMarketOptions", {}).get("MarketType", "on demand")
        self.asked.append((market, request["SubnetId"]))
        if market in self._refuses:
            raise botocore.exceptions.ClientError({"Error": {"Code": self._code, "Message": "no"}}, "RunInstances")
        state = {"state_reason": None, "state": {"Name": "pending"}}
        return [SimpleNamespace(id=f"i-{market}-{number}", instance_id="", **state) for number in range(MaxCount)]


@pytest.fixture
def provider(monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def make(refuses=(), code="InsufficientInstanceCapacity"):
        made = SpotFirst({"type": "external", "region": "us-west-2", "cache_stopped_nodes": False}, "study")
        made.ec2_fail_fast = _Amazon(refuses, code)
        return made

    return make


def _markets(provider):
    return [market for market, _ in provider.ec2_fail_fast.asked]


def test_workers_come_from_the_spot_market_while_it_has_any(provider):
    made = provider()
    assert len(made.create_node(SPOT, {"Name": "worker"}, 3)) == 3
    assert _markets(made) == ["spot"]


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded"])
def test_without_spot_instances_in_any_zone_workers_are_started_on_demand(provider, code):
    made = provider(refuses=["spot"], code=code)
    assert list(made.create_node(SPOT, {"Name": "worker"}, 2)) == ["i-on demand-0", "i-on demand-1"]
    spot, others = made.ec2_fail_fast.asked[:-1], made.ec2_fail_fast.asked[-1:]
    assert {zone for market, zone in spot if market == "spot"} == {"a", "b"}
    assert [market for market, _ in others] == ["on demand"]
    assert SPOT["InstanceMarketOptions"] == {"MarketType": "spot"}  # the next launch tries spot again


def test_what_is_no_matter_of_the_market_is_not_tried_again(provider):
    made = provider(refuses=["spot"], code="UnauthorizedOperation")
    with pytest.raises(NodeLaunchException):
        made.create_node(SPOT, {"Name": "worker"}, 1)
    assert set(_markets(made)) == {"spot"}


def test_when_there_is_nothing_on_demand_either_the_autoscaler_hears_of_it(provider):
    made = provider(refuses=["spot", "on demand"])
    with pytest.raises(NodeLaunchException):
        made.create_node(SPOT, {"Name": "worker"}, 1)


def test_a_head_on_demand_is_asked_for_once(provider):
    made = provider(refuses=["on demand"])
    with pytest.raises(NodeLaunchException):
        made.create_node(ON_DEMAND, {"Name": "head"}, 1)
    assert len(made.ec2_fail_fast.asked) == 5  # Ray's own attempts, over the zones


_UP = """
import json, sys, time
import yaml
from moto import mock_aws
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider

time.sleep = lambda seconds: None  # until new roles are known everywhere
with mock_aws():
    resolved = _bootstrap_config(yaml.safe_load(open(sys.argv[1])), no_config_cache=True)
    provider = _get_node_provider(resolved["provider"], resolved["cluster_name"])
    worker = resolved["available_node_types"]["gpu_worker"]["node_config"]
    head = resolved["available_node_types"]["head"]["node_config"]
    started = provider.create_node(worker, {"ray-node-type": "worker"}, 1)
    print(json.dumps({
        "provider": type(provider).__name__,
        "profile": resolved["head_node"]["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        "groups": [bool(each["SecurityGroupIds"] and each["SubnetIds"]) for each in (head, worker)],
        "started": len(started),
    }))
"""


def test_ray_up_finds_network_roles_and_provider_for_the_file(tmp_path):
    pytest.importorskip("moto", reason="a made-up Amazon")
    file = Path(__file__).resolve().parents[2] / "cluster.yaml"
    finished = subprocess.run(
        [sys.executable, "-c", _UP, file],
        cwd=file.parent,
        env={
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join([str(file.parent), *filter(None, sys.path)]),
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1]) == {
        "provider": "SpotFirst",
        "profile": "ray-autoscaler-v1",
        "groups": [True, True],
        "started": 1,
    }
