import json
import os
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from search.cluster import (
    LONGEST_FOLDER,
    connect,
    lets_strangers_in,
    ray_environment,
    secure_token,
)
from search.errors import ConfigurationError
from search.leftovers import no_leftovers


def test_a_new_token_is_long_and_only_its_owners(tmp_path):
    path = tmp_path / ".ray" / "auth_token"
    secure_token(path, create=True)
    assert len(path.read_text()) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_token_that_others_could_read_is_kept_and_closed(tmp_path):
    path = tmp_path / "auth_token"
    path.write_text("old")
    path.chmod(0o644)
    secure_token(path, create=False)
    assert path.read_text() == "old"
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_token_file_is_replaced_only_where_a_token_may_be_made(tmp_path):
    path = tmp_path / "auth_token"
    path.write_text("\n")
    secure_token(path, create=False)
    assert path.read_text() == "\n"
    secure_token(path, create=True)
    assert len(path.read_text()) == 64


def test_studies_that_start_together_share_one_token(tmp_path):
    path = tmp_path / ".ray" / "auth_token"

    def token(_):
        secure_token(path, create=True)
        return path.read_text()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(token, range(32)))) == 1


class _Answer(grpc.GenericRpcHandler):
    """Answers every call, or only those that show a token."""

    def __init__(self, asks_for_token):
        self._asks = asks_for_token

    def service(self, details):
        def respond(request, context):
            if self._asks and not any(key == "authorization" for key, _ in details.invocation_metadata):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
            return b""

        return grpc.unary_unary_rpc_method_handler(respond)


@pytest.mark.parametrize(("asks_for_token", "open_to_all"), [(True, False), (False, True)])
def test_a_cluster_that_answers_without_a_token_lets_strangers_in(asks_for_token, open_to_all):
    server = grpc.server(ThreadPoolExecutor(1), handlers=[_Answer(asks_for_token)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert lets_strangers_in(f"127.0.0.1:{port}") is open_to_all
    finally:
        server.stop(None)


def test_a_ray_client_address_is_refused_before_ray_is_imported():
    with (
        pytest.raises(ConfigurationError, match=r"must be `auto` or `host:port`.*address: auto"),
        connect("ray://head:10001"),
    ):
        pass


def test_a_folder_too_long_for_a_socket_is_refused(tmp_path):
    folder = tmp_path / ("x" * LONGEST_FOLDER)
    with pytest.raises(ConfigurationError, match=f"at most {LONGEST_FOLDER} bytes"), connect(folder=folder):
        pass
    assert not folder.exists()


def _run(script, home, **environment):
    """What a Python process prints as JSON, its home elsewhere and without what the tests set for Ray."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=inherited | {"HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1]), finished.stdout + finished.stderr


@pytest.fixture
def short_folder():
    """A folder of its own directly under /tmp, because pytest's are too long for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as folder:
        yield folder


@pytest.mark.ray
def test_a_ray_started_here_asks_for_a_token_and_leaves_nothing(tmp_path, short_folder):
    seen, output = _run(
        """
        import json, os, pathlib, subprocess, tempfile
        import ray  # imported before anything asked for a token
        from search.cluster import connect, lets_strangers_in

        def answer():
            return 6 * 7

        def folder_of_work():
            return os.getcwd()

        token = pathlib.Path.home() / ".ray" / "auth_token"
        folders = []
        for turn in range(2):
            with connect(cpus=1) as cluster:
                [folder] = pathlib.Path(tempfile.gettempdir()).glob("thawline-*")
                folders.append(folder)
                seen = {
                    "cpus": [node["CPU"] for node in cluster.nodes],
                    "worked": ray.get(ray.remote(answer).remote()),
                    "same folder": ray.get(ray.remote(folder_of_work).remote()) == os.getcwd(),
                    "strangers": lets_strangers_in(cluster.address),
                    "modes": [oct(token.stat().st_mode & 0o777), oct(folder.stat().st_mode & 0o777)],
                    "told": subprocess.getoutput(f"grep -rlF {token.read_text()} {folder}"),
                }
            token.chmod(0o644)
        seen["left"] = [folder.name for folder in folders if folder.exists()]
        seen["running"] = [line for line in subprocess.getoutput("ps -eo args").splitlines() if str(folders[0]) in line]
        print(json.dumps(seen))
        """,
        home=tmp_path,
        TMPDIR=short_folder,
        RAY_AUTH_MODE="disabled",
    )
    assert seen == {
        "cpus": [1.0],
        "worked": 42,
        "same folder": True,
        "strangers": False,
        "modes": ["0o600", "0o700"],
        "told": "",
        "left": [],
        "running": [],
    }
    assert (tmp_path / ".ray" / "auth_token").read_text() not in output


@pytest.mark.ray
def test_a_home_that_cannot_be_written_does_not_stop_a_search(tmp_path):
    home = tmp_path / "home"
    home.write_text("a file, so that nothing can be made in it, not even by root")
    seen, _ = _run(
        """
        import json
        from search.cluster import connect, lets_strangers_in
        with connect(cpus=1) as cluster:
            print(json.dumps(lets_strangers_in(cluster.address)))
        """,
        home=home,
    )
    assert seen is False


@pytest.mark.ray
def test_a_running_cluster_without_a_token_is_joined_only_knowingly_and_its_missing_nodes_are_counted(tmp_path):
    promised = {"local.cluster.node": {"resources": {}, "min_workers": 2, "max_workers": 2}}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps({"available_node_types": promised}))
    seen, _ = _run(
        """
        import json, os, subprocess, sys
        os.environ["RAY_AUTH_MODE"] = "disabled"
        from ray.cluster_utils import Cluster

        join = '''
        import sys
        from search.cluster import connect
        from search.errors import ConfigurationError
        try:
            with connect(sys.argv[1]) as cluster:
                print("joined", cluster.address, cluster.nodes[0]["CPU"], cluster.missing)
        except ConfigurationError as error:
            print(error)
        '''
        running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
        answers = []
        for mode in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
            environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"} | mode
            called = [sys.executable, "-c", join, running.address]
            answers.append(subprocess.run(called, env=environment, capture_output=True, text=True).stdout.strip())
        running.shutdown()
        print(json.dumps(answers))
        """,
        home=tmp_path,
    )
    knowingly, unknowingly = seen
    assert knowingly.startswith("joined ")
    assert knowingly.endswith(" 1.0 2")
    assert "must ask for a token, but lets in whoever reaches it" in unknowingly


def test_an_address_without_ray_is_told_at_once():
    with pytest.raises(ConfigurationError) as caught, connect("127.0.0.1:1"):
        pass
    [sentence] = caught.value.problems
    assert sentence.startswith("resources.address: must be where a Ray cluster's head listens, but 127.0.0.1:1 ")


def test_what_ray_is_told_never_holds_the_token():
    assert ray_environment()["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in ray_environment()


@pytest.mark.ray
def test_an_autoscaler_sees_all_trials_that_may_run_at_once_before_any_of_them_runs(tmp_path):
    """A head without CPUs: nothing can run, so whatever waits is what an autoscaler would make nodes for."""
    script = """
        import json, sys, threading, time
        from pathlib import Path
        from ray.cluster_utils import Cluster
        from ray import tune
        from search.cluster import connect
        from search.config import StudyConfig
        from search.ledger import Ledger
        from search.study import Study

        class Trial(tune.Trainable):
            def setup(self, config):
                self.reset_config(config)

            def reset_config(self, new_config):
                self._messages = iter([
                    {"kind": "started", "worker": "w"},
                    {"kind": "epoch", "epoch": 1, "metrics": {"v": 1.0}, "seconds": {}, "last": False},
                ])
                return True

            def step(self):
                return {"thawline": [next(self._messages)]}

        config = StudyConfig.parse({
            "space": {"x": {"type": "float", "low": 0.1, "high": 1.0}},
            "objective": {"metric": "v"},
            "budget": {"trials": 4, "epochs": 1},
        })
        few = {"object_store_memory": 100_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **few}, shutdown_at_exit=False)
        waiting = []

        def grow():
            from ray.util import placement_group_table
            deadline = time.monotonic() + 60
            while len(waiting) < 3 and time.monotonic() < deadline:
                groups = placement_group_table().values()
                waiting[:] = [group["state"] for group in groups if group["state"] == "PENDING"]
                time.sleep(0.2)
            for _ in range(3):
                cluster.add_node(num_cpus=1, object_store_memory=100_000_000)

        with connect(cluster.address), Ledger(Path.home() / "study.db") as ledger:
            from search.tune_bridge import run_trials
            autoscaler = threading.Thread(target=grow)
            autoscaler.start()
            run_trials(Study(config, ledger), Trial, {}, {"CPU": 1}, 3)
            autoscaler.join()
            ended = [trial.status for trial in ledger.history.search_trials()]
        cluster.shutdown()
        print(json.dumps([waiting, ended]))
        """
    with no_leftovers():
        seen, _ = _run(script, home=tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert seen == [["PENDING"] * 3, ["completed"] * 4]
