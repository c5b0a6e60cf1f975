import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from search.errors import ConfigurationError, StudyStopped
from search.launch.door import Door, Unreachable, door_address, last_line


@pytest.mark.parametrize(
    ("given", "server", "ray", "expected"),
    [
        (None, None, None, "http://127.0.0.1:8265"),
        ("head:8265", None, None, "http://head:8265"),
        ("https://head/", "http://other:1", "http://third:1", "https://head"),
        (None, "http://head:8265", "http://third:1", "http://head:8265"),
        (None, None, "http://head:8265", "http://head:8265"),
        (None, None, "head:6379", "http://127.0.0.1:8265"),
    ],
)
def test_a_given_address_goes_before_the_environment(given, server, ray, expected, monkeypatch):
    for name, value in (("RAY_API_SERVER_ADDRESS", server), ("RAY_ADDRESS", ray)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    assert door_address(given) == expected


def test_a_ray_client_address_takes_no_jobs():
    with pytest.raises(ConfigurationError, match="must be where the dashboard listens"):
        door_address("ray://head:10001")


def test_nobody_there_is_told_with_what_to_look_at():
    with pytest.raises(ConfigurationError) as caught:
        Door("http://127.0.0.1:1").check()
    assert "nothing answers at http://127.0.0.1:1; is the tunnel open" in caught.value.problems[0]


def test_a_door_that_lets_strangers_in_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    class Open(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"ray_version": "1.0"}')

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Open) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ConfigurationError, match="must ask for a token, but lets in whoever reaches it"):
            Door(f"http://127.0.0.1:{server.server_port}").check()
        server.shutdown()


def test_an_errand_answers_with_the_last_object_it_prints():
    assert last_line(b'Running {x}\n{"a": 1}\n{torn\nwarning\n') == {"a": 1}
    assert last_line(b"nothing\n") is None


def test_an_upload_may_take_as_long_as_a_thin_line_needs(monkeypatch):
    from ray.job_submission import JobSubmissionClient

    waits = []
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # put back afterwards
    monkeypatch.setattr("search.launch.door.show_token", lambda: None)
    monkeypatch.setattr(JobSubmissionClient, "__init__", lambda self, address: None)
    monkeypatch.setattr(JobSubmissionClient, "_do_request", lambda self, *_, **how: waits.append(how["timeout"]))
    client = Door("http://127.0.0.1:1")._client
    client._do_request("GET", "/api/jobs/")
    client._do_request("PUT", "/api/packages/x", data=bytes(2_000_000))
    assert waits == [(60.0, 60.0), (160.0, 60.0)]


def test_a_job_that_a_head_started_anew_does_not_know_is_not_waited_for(monkeypatch):
    door = Door("http://127.0.0.1:1")
    answers = {"/api/jobs/thawline-it-1": 404, "/api/version": 404}
    door.__dict__["_client"] = SimpleNamespace(
        _do_request=lambda method, path: SimpleNamespace(status_code=answers[path])
    )
    with pytest.raises(StudyStopped, match="thawline-it-1 must be a job at"):
        door.job("thawline-it-1")
    with pytest.raises(Unreachable, match="answers 404"):
        _ = door.version
