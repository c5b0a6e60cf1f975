"""Connect to Ray or start it, safely: with a token, without a dashboard, in a folder that only this user can enter."""

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.errors import ConfigurationError
from search.inside_ray import bare_node, own_signals, raylet_unheard
from search.leftovers import end_at_once, no_leftovers, temporary_folder
from search.limits import check_limits
from search.nodes import HeadWatch
from search.placement import nodes_to_plan_for, promised_nodes

# Trials exchange a few numbers per epoch; images reach them through memory-mapped files.
OBJECT_STORE_BYTES = 100_000_000
# A Unix socket's path has at most 107 bytes (Linux; 103 on macOS), of which Ray's session and socket take 64.
LONGEST_FOLDER = 103 - 64 - len("/ray")
# `ray up` leaves the cluster's description on the head.
LAUNCHER_FILE = Path("~/ray_bootstrap_config.yaml")


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process is connected to.

    Attributes:
        address: `host:port`.
        nodes: Resources (`CPU`, `GPU`, …) of every node that it has or, started with a launcher file, may grow to.
        missing: Nodes that a launcher file promises without saying what they have, and that have not come yet.
    """

    address: str
    nodes: Sequence[Mapping[str, float]]
    missing: int = 0


def ray_environment() -> dict[str, str]:
    """Environment variables that Ray reads when it is imported, started, or starts a worker."""
    return {
        "RAY_AUTH_MODE": "token",  # without one, whoever reaches the machine runs code on it (CVE-2023-48022)
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a trial keeps the driver's working directory
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # CUDA_VISIBLE_DEVICES of CPU trials is the trial's own business
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # it prints the errors of futures that nobody asks for any more
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger remembers, not a CSV in every trial folder
        "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints boxes even when it is told to be quiet
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own would end the search as if it were done
        "TUNE_WARN_THRESHOLD_S": "10",  # starting TensorFlow takes longer than Tune's 0.5 s
    }


@contextmanager
def connect(address: str | None = None, folder: Path | None = None, cpus: int | None = None) -> Iterator[Cluster]:
    """Start Ray here, or connect to one that runs; disconnect, and stop what was started, on the way out.

    When the head is lost, this process ends at once, with exit code 1: Ray gives no other way out.

    A Ray started here always asks for a token. A running one that does not is refused, unless RAY_AUTH_MODE=disabled
    in the environment says that this is known.

    Args:
        address: `auto` or `host:port` of a cluster that this machine is a node of; None starts one.
        folder: Where a Ray started here keeps sockets and logs; None: a private one, removed at the end.
        cpus: CPUs a Ray started here may use; None: all of them.

    Raises:
        ConfigurationError: when Ray cannot be reached or started, with the cause and what to do.
    """
    with ExitStack() as stack:
        if address is None:
            options = _start_options(folder or _private_folder(stack), cpus)
            check_limits()
            stack.enter_context(no_leftovers())
        else:
            options = {"address": _check_address(address)}
        _enter_environment(starts=address is None)
        import ray

        _read_environment_again()
        stack.enter_context(raylet_unheard())
        head = stack.enter_context(HeadWatch(lost=end_at_once))
        stack.callback(ray.shutdown)
        try:
            with own_signals(), bare_node():
                ray.init(**options, log_to_driver=False, configure_logging=False)
        except Exception as error:
            raise ConfigurationError(_explain(address, error)) from error
        found = ray.get_runtime_context().gcs_address
        head.watch(found)
        if address == "auto":
            _check_door(found)
        living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        description = {} if address is None else _launcher_description()
        nodes = nodes_to_plan_for(description, living)
        yield Cluster(found, nodes, max(0, promised_nodes(description) - len(living)) if nodes is living else 0)


def secure_token(path: Path, create: bool) -> None:
    """See to a token file that only its owner can read; Ray itself writes it with mode 0644.

    Raises:
        OSError: when it can't be written or is not ours to tighten.
    """
    if create and path.exists() and not path.read_bytes().strip():
        path.unlink()
    if create and not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:  # 0600 from the start
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):  # another study was first; its token is as good
                path.hardlink_to(file.name)
    if path.exists() and path.stat().st_mode & 0o077:
        path.chmod(0o600)


def show_token() -> None:
    """From now on this process shows the user's token to a cluster that it did not start."""
    _enter_environment(starts=False)
    import ray  # noqa: F401 - what reads the environment

    _read_environment_again()


def lets_strangers_in(address: str) -> bool:
    """Whether the Ray at `host:port` answers a caller who shows no token.

    Raises:
        ConfigurationError: when nobody is there. Asked before Ray is, which would try for minutes.
    """
    import grpc

    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=10)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise ConfigurationError(
                f"resources.address: must be where a Ray cluster's head listens, but {address} does not answer as "
                f"one ({error.code().name}); look whether it runs (`ray status`), or leave it out to start one here"
            ) from error
    return True


def _private_folder(stack: ExitStack) -> Path:
    """A folder that only this user can enter (Ray gives its own mode 0777), removed with the stack."""
    parent = tempfile.gettempdir()
    name = "thawline-"
    if len(os.fsencode(parent)) + len("/") + len(name) + 8 > LONGEST_FOLDER:
        parent = "/tmp"  # noqa: S108 - a private folder in it, because TMPDIR leaves no room for a socket's name
    return stack.enter_context(temporary_folder(name, parent))


def _start_options(folder: Path, cpus: int | None) -> dict[str, Any]:
    folder = folder.absolute()
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        raise ConfigurationError(
            f"Ray's temporary folder must have a path of at most {LONGEST_FOLDER} bytes, because sockets lie in it, "
            f"but got {len(os.fsencode(folder))}: {folder}"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        "address": "local",  # never a cluster that happens to run here
        "include_dashboard": False,
        "num_cpus": cpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": str(folder / "ray"),
    }


def _check_address(address: str) -> str:
    if address.startswith("ray://"):
        raise ConfigurationError(
            f"resources.address: must be `auto` or `host:port`, but got {address!r}; a Ray client would run the "
            "search, and open its ledger, on the cluster's head: run thawline there, with `address: auto`"
        )
    if address != "auto":
        _check_door(address)
    return address


def _check_door(address: str) -> None:
    if os.environ.get("RAY_USE_TLS") == "1":
        return  # certificates on both sides keep strangers out
    if lets_strangers_in(address) and os.environ.get("RAY_AUTH_MODE", "token") == "token":
        raise ConfigurationError(
            f"resources.address: Ray at {address} must ask for a token, but lets in whoever reaches it; start it "
            "with RAY_AUTH_MODE=token, or set RAY_AUTH_MODE=disabled here to use it as it is"
        )


def _enter_environment(starts: bool) -> None:
    """Set what Ray reads, and a token; what the user has set stays, but a Ray started here is never without a token."""
    if starts:
        os.environ.pop("RAY_AUTH_MODE", None)
    for name, value in ray_environment().items():
        os.environ.setdefault(name, value)
    if os.environ["RAY_AUTH_MODE"] == "token" and not os.environ.get("RAY_AUTH_TOKEN"):
        _enter_token(starts)


def _enter_token(starts: bool) -> None:
    try:
        secure_token(Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"), create=starts)
    except (OSError, RuntimeError):  # no home, a home that can't be written, or a token file of somebody else
        if starts:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _read_environment_again() -> None:
    """Make a Ray that was imported before the environment was set see it, the way its own start-up does."""
    from ray._raylet import Config  # type: ignore[attr-defined]  # missing in Ray's stubs

    Config.initialize("")


def _launcher_description() -> dict[str, Any]:
    path = LAUNCHER_FILE.expanduser()
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _explain(address: str | None, error: Exception) -> str:
    cause = str(error).strip().split("\n")[0].rstrip(".")
    if address is None:
        return f"Ray could not be started here: {cause}; look for free memory and disk space in {tempfile.gettempdir()}"
    return (
        f"resources.address: must be a Ray cluster that this machine is a node of, but {address} could not be joined: "
        f"{cause}; look whether it runs (`ray status`) and whether its token is the one in ~/.ray/auth_token"
    )
