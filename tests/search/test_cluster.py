import json
import os
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import yaml

from search.cluster import (
    LONGEST_FOLDER,
    TrialResources,
    allowed_nodes,
    check_fits,
    connect,
    idle_gpu,
    lets_strangers_in,
    plan_concurrency,
    promised_nodes,
    ray_environment,
    secure_token,
)
from search.errors import ConfigurationError

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


def test_the_launcher_file_of_this_project_has_room_for_gpu_trials():
    description = yaml.safe_load((Path(__file__).parents[2] / "cluster.yaml").read_text(encoding="utf-8"))
    nodes = allowed_nodes(description)
    assert check_fits(nodes, TrialResources(1, 1)) is None
    assert plan_concurrency(nodes, TrialResources(1, 1), None) == description["max_workers"]


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
def test_a_running_cluster_without_a_token_is_joined_only_knowingly(tmp_path):
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
                print("joined", cluster.address)
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
    assert "must ask for a token, but lets in whoever reaches it" in unknowingly


def test_an_address_without_ray_is_told_at_once():
    with pytest.raises(ConfigurationError) as caught, connect("127.0.0.1:1"):
        pass
    [sentence] = caught.value.problems
    assert sentence.startswith("resources.address: must be where a Ray cluster's head listens, but 127.0.0.1:1 ")


def test_what_ray_is_told_never_holds_the_token():
    assert ray_environment()["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in ray_environment()
