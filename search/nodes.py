"""The nodes of the connected Ray cluster: whether the head answers, which are being drained, who runs where."""

import os
from collections.abc import Collection
from typing import Any

HEAD_SECONDS = 20.0  # without an answer; Ray itself would abort this process after 60, with nothing tidied up


class HeadLost(BaseException):
    """The head of the cluster is gone. No Exception, so that Tune does not ask it to clean up."""


class Head:
    """The cluster's head, asked now and then whether it is there."""

    def __init__(self, address: str):
        import grpc

        self.address = address
        self._unheard_since: float | None = None
        self._channel = grpc.insecure_channel(address)

    def answers(self, now: float) -> bool:
        """Ask once, for a second at most.

        Raises:
            HeadLost: when it has not answered for `HEAD_SECONDS`.
        """
        if self._answers():
            self._unheard_since = None
            return True
        self._unheard_since = now if self._unheard_since is None else self._unheard_since
        if now - self._unheard_since >= HEAD_SECONDS:
            raise HeadLost(
                f"the head of the Ray cluster must answer, but {self.address} has not for {HEAD_SECONDS:.0f} seconds; "
                "start the same search on a new cluster: it goes on from what is recorded"
            )
        return False

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()

    def _answers(self) -> bool:
        import grpc

        if os.environ.get("RAY_USE_TLS") == "1":  # this channel has no certificate to show
            return True
        try:
            self._channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=1)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED  # it asks for a token, so it is there
        return True


def draining_nodes() -> Collection[str]:
    """Ids of nodes that take no new work because they will soon be gone (preempted, or scaled down)."""
    from ray._private.state import state  # Ray has no public name for it outside its dashboard

    return state.get_draining_nodes().keys()


def node_of(actor: Any) -> str:
    """Id of the node that an actor runs on; empty while that is not known."""
    from ray._private.state import actors

    return actors(actor._ray_actor_id.hex()).get("Address", {}).get("NodeID", "")
