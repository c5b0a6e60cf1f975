"""The door of a cluster: its dashboard, which takes jobs and shows logs to whoever has the token."""

import json
import logging
import os
import queue
import shlex
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from search.cluster import show_token
from search.errors import ConfigurationError, StudyStopped

DEFAULT = "http://127.0.0.1:8265"
ANSWER_SECONDS = 60.0  # for an answer to a question
THIN_LINE = 20_000  # bytes per second of an upload, at least
LOOK_SECONDS = 1.0
ERRAND_SECONDS = 600.0
GRACE_SECONDS = 30  # for a search that is told to stop, before it is killed
LOG = "job-driver-{}.log"
TERMINAL = ("STOPPED", "SUCCEEDED", "FAILED")


class Unreachable(Exception):
    """The door does not answer just now."""


def door_address(given: str | None) -> str:
    """Where the door is: as given, else as Ray's own commands are told, else the near end of a tunnel.

    Raises:
        ConfigurationError: for what is no address of a dashboard.
    """
    told = given or os.environ.get("RAY_API_SERVER_ADDRESS")
    if told is None and "://" in os.environ.get("RAY_ADDRESS", ""):
        told = os.environ["RAY_ADDRESS"]
    address = (told or DEFAULT).rstrip("/")
    address = address if "://" in address else f"http://{address}"
    if not address.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"--address: must be where the dashboard listens, such as {DEFAULT}, but got {address!r}; jobs are not "
            "taken anywhere else"
        )
    return address


class Door:
    """Jobs, logs and nodes behind one address. Its methods raise Unreachable when nothing answers."""

    def __init__(self, address: str):
        self.address = address

    def check(self) -> None:
        """See that somebody is there, keeps strangers out, lets this user in, and is of the same Ray.

        Raises:
            ConfigurationError: what must hold, what came, what to do.
        """
        stranger = self._as_stranger()
        if stranger == 200 and os.environ.get("RAY_AUTH_MODE", "token") == "token":
            raise ConfigurationError(
                f"the dashboard at {self.address} must ask for a token, but lets in whoever reaches it; start its Ray "
                "with RAY_AUTH_MODE=token, or set RAY_AUTH_MODE=disabled here to use it as it is"
            )
        import ray

        there = self.version
        if there != ray.__version__:
            raise ConfigurationError(
                f"Ray must be of one version at both ends, but is {ray.__version__} here and {there} at "
                f"{self.address}; install ray=={there} here, or the cluster's anew"
            )

    def _as_stranger(self) -> int:
        try:
            with urllib.request.urlopen(f"{self.address}/api/version", timeout=10) as answer:  # noqa: S310 - http(s)
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"--address: must be a cluster's dashboard, but nothing answers at {self.address}; is the tunnel open "
                f"(ray dashboard, ssh -L, kubectl port-forward) and the head running? ({error})"
            ) from error

    @cached_property
    def _client(self) -> Any:
        show_token()
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address  # Ray would let the environment win
        try:
            from ray.job_submission import JobSubmissionClient

            logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)  # a line per package

            class Client(JobSubmissionClient):
                """Ray's own, which would wait for ever."""

                def _do_request(self, method: str, endpoint: str, **how: Any) -> Any:
                    # The first of both also bounds how long all that is sent may take.
                    sending = ANSWER_SECONDS + len(how.get("data") or b"") / THIN_LINE
                    return super()._do_request(method, endpoint, **{"timeout": (sending, ANSWER_SECONDS), **how})

            with self._reaching():
                return Client(self.address)
        except (ImportError, RuntimeError) as error:
            raise ConfigurationError(
                f"thawline launch must find Ray's Jobs client, but {error}; pip install 'thawline[launch]'"
            ) from error

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Ray's and its client's errors in our words."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ConfigurationError(
                f"the token must be the cluster's, but {self.address} turned it away "
                f"({str(error).strip().splitlines()[0]}); put the head's token into RAY_AUTH_TOKEN, a file that "
                "RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"
            ) from None
        except requests.exceptions.HTTPError as error:
            raise ConfigurationError(f"--address: must be a cluster's dashboard, but {error}") from error
        except (requests.exceptions.RequestException, ConnectionError) as error:
            raise Unreachable(f"nothing answers at {self.address} ({type(error).__name__})") from error

    def _get(self, path: str, **how: Any) -> Any:
        client = self._client
        with self._reaching():
            answer = client._do_request("GET", path, **how)
        if answer.status_code == 404 and path.startswith("/api/jobs/"):
            raise StudyStopped(
                f"{path.rpartition('/')[2]} must be a job at {self.address}, but is none: the head was started anew; "
                "the same command goes on from what it has recorded"
            )
        if answer.status_code != 200:
            raise Unreachable(f"{self.address}{path.partition('?')[0]} answers {answer.status_code}")
        return answer

    def stream(self, path: str, silence: float | None = ANSWER_SECONDS) -> Any:
        """An answer that is read as it comes; Ray's own client reads it to its end. To be closed.

        Args:
            path: What is asked for.
            silence: Seconds without a byte after which the connection is lost; None: however long.
        """
        import requests

        client = self._client
        with self._reaching():
            answer = requests.get(
                f"{self.address}{path}",
                headers=client._headers,
                verify=client._verify,
                stream=True,
                timeout=(ANSWER_SECONDS, silence),
            )
        if answer.status_code != 200:
            answer.close()
            raise Unreachable(f"{self.address}{path.partition('?')[0]} answers {answer.status_code}")
        return answer

    @property
    def version(self) -> str:
        """Ray's, there."""
        return str(self._get("/api/version").json()["ray_version"])

    def nodes(self) -> list[dict[str, float]]:
        """Resources of the nodes that are there now."""
        found = self._get("/api/v0/nodes?detail=1").json()["data"]["result"]["result"]
        return [node["resources_total"] for node in found if node["state"] == "ALIVE"]

    def jobs(self, study: str) -> list[Any]:
        """The searches that were launched for a study of this name, oldest first, as Ray describes jobs."""
        client = self._client
        with self._reaching():
            found = client.list_jobs()
        own = [job for job in found if (job.metadata or {}).get("thawline_search") == study]
        return sorted(own, key=lambda job: int(job.submission_id.rpartition("-")[2]))

    def job(self, submission: str) -> Any:
        """A job as Ray describes it."""
        return _Description(self._get(f"/api/jobs/{submission}").json())

    def submit(self, command: list[str], package: Path, submission: str, metadata: Mapping[str, str]) -> None:
        """Start a job in the folder that `package`, a zip, holds; its workers find that folder too.

        Raises:
            ConfigurationError: when the cluster refuses.
        """
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_SECONDS)}
        if os.environ.get("RAY_AUTH_MODE") == "disabled":  # then the search shall know as well that this is meant
            variables["RAY_AUTH_MODE"] = "disabled"
        client = self._client
        try:
            with self._reaching():
                client.submit_job(
                    entrypoint=shlex.join(command),
                    runtime_env={"working_dir": str(package), "env_vars": variables},
                    submission_id=submission,
                    metadata=dict(metadata),
                )
        except RuntimeError as error:
            reason = next((line for line in reversed(str(error).splitlines()) if len(line) > 1), type(error).__name__)
            raise ConfigurationError(f"the cluster must take the job, but {self.address} says: {reason}") from error

    def stop(self, submission: str) -> None:
        """Tell a job to end; it has `GRACE_SECONDS`."""
        client = self._client
        with self._reaching(), suppress(RuntimeError):  # it is over already
            client.stop_job(submission)

    def log(self, submission: str) -> bytes:
        """All that a job has printed."""
        node = self.job(submission).driver_node_id
        if node is None:  # it never began
            return b""
        return bytes(self._get(_log_path("file", node, LOG.format(submission))).content)

    def follow(self, submission: str, seen: int) -> Iterator[bytes]:
        """What a job prints after its first `seen` bytes, as it comes, until the job is over; b"" when nothing came."""
        while (job := self.job(submission)).driver_node_id is None and job.status not in TERMINAL:
            yield b""
            time.sleep(LOOK_SECONDS)
        if job.status not in TERMINAL:
            with closing(_Stream(self, _log_path("stream", job.driver_node_id, LOG.format(submission)))) as stream:
                at = 0
                while (piece := stream.next()) or self.job(submission).status not in TERMINAL:
                    yield piece[max(0, seen - at) :]
                    at += len(piece)
                    seen = max(seen, at)
        yield self.log(submission)[seen:]

    def download(self, node: str, name: str, target: Path) -> None:
        """Write a file of Ray's log folder on a node to `target`."""
        import requests

        with self.stream(_log_path("file", node, name)) as answer, target.open("wb") as file:
            try:
                for piece in answer.iter_content(1_000_000):
                    file.write(piece)
            except requests.exceptions.RequestException as error:
                raise Unreachable(f"{self.address} stopped answering ({type(error).__name__})") from error


class _Description:
    """A job as the door describes it; what it leaves out is None."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return self._values.get(name)


class _Stream:
    """A log that a thread reads along, so that whoever waits for it can look whether the job is over."""

    def __init__(self, door: Door, path: str):
        self._answer = door.stream(path, silence=None)
        self._pieces: queue.Queue[bytes | None] = queue.Queue(maxsize=1000)
        threading.Thread(target=self._read, name="job-log", daemon=True).start()

    def _read(self) -> None:
        with suppress(Exception):  # a lost connection; whoever asks next is told
            for piece in self._answer.iter_content(None):
                self._pieces.put(piece)
        self._pieces.put(None)

    def next(self) -> bytes:
        """The next piece; b"" when none came for a while.

        Raises:
            Unreachable: when the connection is lost.
        """
        try:
            piece = self._pieces.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return b""
        if piece is None:
            raise Unreachable("the connection was lost")
        return piece

    def close(self) -> None:
        threading.Thread(target=self._answer.close, daemon=True).start()  # which waits for the reader's lock


def _log_path(way: str, node: str, name: str) -> str:
    # A deadline of a day: Ray's own, of 30 s, would cut off what takes longer on a thin line.
    return f"/api/v0/logs/{way}?node_id={node}&filename={name}&lines=-1&timeout=86400"


def last_line(log: bytes) -> dict[str, Any] | None:
    """The JSON object that an errand printed last."""
    for line in reversed(log.decode(errors="replace").splitlines()):
        if line.startswith("{"):
            with suppress(json.JSONDecodeError):
                return dict(json.loads(line))
    return None
