"""The nodes of the connected Ray cluster: whether the head answers, which are being drained, who runs where."""

import os
import threading
from collections.abc import Callable, Collection
from typing import Any, Self

from search.watchdog import AwakeClock

HEAD_SECONDS = 25.0  # without an answer; Ray itself would abort this process after 60, with nothing tidied up
LOOK_SECONDS = 1.0


class HeadWatch(threading.Thread):
    """Asks the head of a cluster now and then whether it is there. Use as a context manager; `watch` starts it.

    A thread, because Ray's own calls, which the main thread is in sooner or later, wait for a lost head without end.
    """

    def __init__(self, lost: Callable[[str], None]):
        super().__init__(name="head watch", daemon=True)
        self._lost = lost
        self._over = threading.Event()
        self._address = ""

    def watch(self, address: str) -> None:
        """From now on `lost` is called, with a sentence, when nobody answers at `host:port` for `HEAD_SECONDS`."""
        self._address = address
        if os.environ.get("RAY_USE_TLS") != "1":  # there is no certificate here to show
            self.start()

    def run(self) -> None:
        clock = AwakeClock(longest_step=2 * LOOK_SECONDS)
        heard = clock.read()
        while not self._over.wait(LOOK_SECONDS):
            now = clock.read()
            heard = now if _answers(self._address) else heard
            if now - heard >= HEAD_SECONDS:
                self._lost(
                    f"the head of the Ray cluster must answer, but {self._address} has not for {HEAD_SECONDS:.0f} "
                    "seconds; start the same search on a new cluster: it goes on from what is recorded"
                )
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self.is_alive():
            self.join()


def _answers(address: str) -> bool:
    import grpc

    with grpc.insecure_channel(address) as channel:  # anew each time: one that is open when Ray ends says so on stderr
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=LOOK_SECONDS)
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
