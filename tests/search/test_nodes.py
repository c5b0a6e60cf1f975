import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from search import nodes
from search.nodes import HeadWatch


def server(port=0):
    started = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    return started, started.add_insecure_port(f"127.0.0.1:{port}")


def test_a_head_that_answers_no_more_is_told_once(monkeypatch):
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(nodes, "HEAD_SECONDS", 0.3)

    class Door(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
            )

    head, port = server()
    head.add_generic_rpc_handlers([Door()])
    head.start()
    told = []
    with HeadWatch(told.append) as watch:
        watch.watch(f"127.0.0.1:{port}")
        time.sleep(0.6)
        assert told == []
        head.stop(None).wait()
        end = time.monotonic() + 20
        while not told and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.2)
    assert len(told) == 1
    assert told[0].startswith(f"the head of the Ray cluster must answer, but 127.0.0.1:{port} has not for ")


def test_a_watch_that_never_began_ends_at_once():
    told = []
    with HeadWatch(told.append):
        pass
    assert told == []
