"""EC2 workers on the spot market while it has any, else on demand; named in cluster.yaml.

Ray 2.60 asks again for a kind of node that was just refused, and so waits for the spot market for ever, even where
another kind would do: its autoscaler counts only nodes that came and then stayed silent (`ALLOCATION_TIMEOUT`).
"""

from collections.abc import Mapping
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

# EC2's words for: not now, not at this price, not so many.
NO_SPOT = {
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
}


class SpotFirst(AWSNodeProvider):
    """Ray's own provider for EC2, with a second attempt. It is imported where `ray up` runs, and on the head."""

    def _create_node(self, node_config: Mapping[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Ray has tried every availability zone by the time it raises.

        Raises:
            NodeLaunchException: when there are none on demand either, or for another reason than the market's.
        """
        try:
            return super()._create_node(node_config, tags, count)
        except NodeLaunchException as refusal:
            if refusal.category not in NO_SPOT or "InstanceMarketOptions" not in node_config:
                raise
        on_demand = {name: value for name, value in node_config.items() if name != "InstanceMarketOptions"}
        return super()._create_node(on_demand, tags, count)
