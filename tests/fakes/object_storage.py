"""A real object store on loopback, SeaweedFS, and a line to it that tests cut, slow down and count on."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY, SECRET = "a-key-of-the-test", "a-secret-that-nobody-may-see"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",  # nobody is asked for a role
    "AWS_CONFIG_FILE": "/dev/null",  # nor what the user has at home
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_REGION": "us-east-1",
    "AWS_PROFILE": "default",
}
_COMPONENTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class Store:
    """A running store.

    Attributes:
        port: Where its S3 protocol is spoken, on 127.0.0.1.
    """

    port: int

    def bucket(self, name: str) -> None:
        """Make a bucket, as somebody would before a study."""
        filesystem(self.port, allow_bucket_creation=True).create_dir(name)


def filesystem(port: int, **options: Any) -> Any:
    """The store as pyarrow sees it, past all of the project's own code."""
    from pyarrow.fs import S3FileSystem

    return S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        region="us-east-1",
        scheme="http",
        endpoint_override=f"127.0.0.1:{port}",
        **options,
    )


@contextlib.contextmanager
def object_store() -> Iterator[Store]:
    """The store in a process of its own and a folder of its own; both are gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        identity = {"accessKey": KEY, "secretKey": SECRET}
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        reader = {"accessKey": f"{KEY}-that-reads", "secretKey": SECRET}
        identities = [
            {"name": "writer", "credentials": [identity], "actions": actions},
            {"name": "reader", "credentials": [reader], "actions": ["Read", "List"]},
        ]
        (Path(folder) / "s3.json").write_text(json.dumps({"identities": identities}))
        ports = free_ports(2 * len(_COMPONENTS))
        options = [f"-{name}.port={ports[2 * i]}" for i, name in enumerate(_COMPONENTS)]
        options += [f"-{name}.port.grpc={ports[2 * i + 1]}" for i, name in enumerate(_COMPONENTS)]
        options += [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.port.iceberg=0"]
        options += ["-s3.port.lance=0"]
        options += [f"-s3.config={folder}/s3.json", "-s3.autoCreateBucket=false", "-master.telemetry=false"]
        options += ["-master.volumeSizeLimitMB=1024", "-volume.max=50"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [Path(sys.executable).parent / "weed", "server", *options], stdout=log, stderr=log, cwd=folder
            )
            try:
                _wait_until_ready(process, ports[-2], Path(log.name))
                yield Store(ports[-2])
            finally:
                process.kill()
                process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_ready(process: Any, port: int, log: Path) -> None:
    """A bucket can be made and written to: only then do all its parts know each other."""
    end = time.monotonic() + 120
    while True:
        try:
            ready = filesystem(port, allow_bucket_creation=True)
            ready.create_dir("ready")
            with ready.open_output_stream("ready/yes") as stream:
                stream.write(b"yes")
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(log.read_text()[-3000:]) from None
            time.sleep(0.2)


@dataclass(frozen=True)
class Request:
    """What came along the line: `sent` and `received` are bytes of bodies."""

    method: str
    path: str
    query: dict[str, list[str]]
    sent: int
    number: int

    @property
    def what(self) -> str:
        """The operation in S3's words."""
        if self.method == "PUT":
            return "UploadPart" if "partNumber" in self.query else "PutObject"
        if self.method == "POST":
            if "delete" in self.query:
                return "DeleteObjects"
            return "CreateMultipartUpload" if "uploads" in self.query else "CompleteMultipartUpload"
        if self.method == "GET":
            return "ListObjects" if "list-type" in self.query else "GetObject"
        return f"{self.method.title()}{'Object' if self.path.strip('/').count('/') else 'Bucket'}"


class Line:
    """A proxy between a client and the store, of which a test is the master.

    Attributes:
        trouble: Called with each request; gives what befalls it, or None: `reset` (the connection), `silence` (no
            answer until `talks` is set), `half request` (the store gets half of it), `half answer`, `lost answer`
            (the store has done it), or a status such as `503`.
        seen: All requests so far.
        talks: Set unless a test wants silence.
    """

    def __init__(self, store: int):
        self.store = store
        self.trouble: Callable[[Request], str | None] = lambda request: None
        self.seen: list[Request] = []
        self.troubled: list[str] = []
        self.talks = threading.Event()
        self.talks.set()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = free_ports(1)[0]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def address(self, folder: str = "bucket/studies") -> str:
        """A place at the other end, as a study file names it."""
        return f"s3://{folder}?endpoint_override={self.endpoint}"

    def up(self) -> None:
        """Be there; on the port it had before."""
        line = self

        class Handler(_Handler):
            pass

        Handler.line = line

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is none of the test's business."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Be gone: connections are refused."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def note(self, method: str, target: str, sent: int) -> Request:
        with self._lock:
            parts = urlsplit(target)
            query = parse_qs(parts.query, keep_blank_values=True)
            self.seen.append(Request(method, parts.path, query, sent, len(self.seen)))
            return self.seen[-1]


@contextlib.contextmanager
def line_to(store: Store) -> Iterator[Line]:
    """A line that is up."""
    line = Line(store.port)
    line.up()
    try:
        yield line
    finally:
        line.talks.set()
        line.down()


class _Handler(BaseHTTPRequestHandler):
    line: Line
    protocol_version = "HTTP/1.1"

    def handle_request(self) -> None:
        head = f"{self.requestline}\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in self.headers.items() if name.lower() != "expect"
        )
        body = self._body()
        request = self.line.note(self.command, self.path, len(body))
        trouble = self.line.trouble(request)
        if trouble:
            self.line.troubled.append(trouble)
        if trouble in ("reset", "silence", "half request"):
            if trouble == "silence":
                self.line.talks.wait(300)
            if trouble == "half request":
                self._forward(head, body[: len(body) // 2], whole=False)
            self._cut()
        elif trouble and trouble.isdigit():
            self._answer(int(trouble), [], b"<Error><Code>InternalError</Code><Message>of the test</Message></Error>")
        else:
            status, headers, content = self._forward(head, body)
            if trouble == "lost answer":
                self._cut()
            elif trouble == "half answer":
                self._answer(status, headers, content, len(content) // 2)
                self._cut()
            else:
                self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request  # noqa: N815 - as http.server wants them

    def _body(self) -> bytes:
        """As it came, with the lengths between the chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            raw = b""
            while True:
                line = self.rfile.readline()
                size = int(line.split(b";")[0], 16)
                raw += line + self.rfile.read(size + 2)
                if not size:
                    return raw
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, head: str, body: bytes, whole: bool = True) -> tuple[int, list[tuple[str, str]], bytes]:
        with socket.create_connection(("127.0.0.1", self.line.store), timeout=60) as there:
            there.sendall(f"{head}Connection: close\r\n\r\n".encode("latin-1") + body)
            if not whole:
                return 0, [], b""
            answer = http.client.HTTPResponse(there, method=self.command)
            answer.begin()
            return answer.status, answer.getheaders(), answer.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        kept = dict(headers) if self.command == "HEAD" else {}
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", kept.get("Content-Length", str(len(content))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:length])

    def _cut(self) -> None:
        """Close with a reset."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Be quiet."""
