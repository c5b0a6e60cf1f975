"""The dashboard over HTTP, as a browser would ask it."""

import csv
import http.client
import json
import queue
import sys
import threading
import time

import pytest
from optuna.trial import TrialState

from search.bridges.dashboard import LedgerStorage, serve_dashboard
from search.config import StudyConfig
from search.errors import ConfigurationError
from search.events import Asked, EpochReported, Failed, SessionOpened, Started
from search.ledger import Ledger
from search.paths import StudyPaths
from search.safe_yaml import to_yaml

CONFIG = StudyConfig.parse(
    {
        "name": "lungs",
        "objective": {"metric": "val_auc"},
        "space": {"rate": {"type": "float", "low": 1e-5, "high": 1, "log": True}},
    }
)
EVENTS = [
    SessionOpened("host", 1),
    Asked(0, {"rate": 0.01}, 0),
    Started(0, worker="host/2"),
    EpochReported(0, 1, {"val_auc": 0.75, "loss": 0.5}, "continue"),
    EpochReported(0, 2, {"val_auc": 0.5, "loss": 0.25}, "complete"),
    Asked(1, {"rate": 0.1}, 0),
    Started(1, worker="host/2"),
    EpochReported(1, 1, {"val_auc": 0.25}, "prune", reason="behind others at epoch 1"),
    Asked(2, {"rate": 0.001}, 0),
    Started(2, worker="host/2"),
    EpochReported(2, 1, {"val_auc": 0.5}, "continue"),
]


@pytest.fixture
def study(tmp_path):
    """A run and its ledger, open for writing."""
    paths = StudyPaths(tmp_path)
    paths.study_file.write_text(to_yaml(CONFIG.dump()), encoding="utf-8")
    with Ledger(paths.ledger) as ledger:
        ledger.append(*EVENTS)
        yield paths, ledger


@pytest.fixture
def ask(study):
    """Sends a request to a dashboard on the study: status and body."""
    address = queue.Queue()
    threading.Thread(target=serve_dashboard, args=(study[0], 0, address.put), daemon=True).start()
    host, _, port = address.get(timeout=120).removeprefix("http://").partition("/")[0].partition(":")

    def ask(path, method="GET", **headers):
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    return ask


def trials(ask):
    status, body = ask("/api/studies/0?after=0")
    assert status == 200
    return json.loads(body)["trials"]


def test_the_dashboard_lists_every_trial_with_its_value_and_new_ones_as_they_come(study, ask):
    assert [each["study_name"] for each in json.loads(ask("/api/studies")[1])["study_summaries"]] == ["lungs"]
    found = trials(ask)
    assert [(each["number"], each["state"], each.get("values")) for each in found] == [
        (0, "Complete", [0.75]),
        (1, "Pruned", None),
        (2, "Running", None),
    ]
    assert [point["value"] for point in found[0]["intermediate_values"]] == [0.75, 0.5]
    study[1].append(
        EpochReported(2, 2, {"val_auc": 0.875}, "complete"), Asked(3, {"rate": 1e-4}, 0), Failed(3, "no memory")
    )
    deadline = time.monotonic() + 60  # the dashboard itself looks again after two seconds
    while len(found := trials(ask)) < 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [(each["number"], each["state"], each.get("values")) for each in found[2:]] == [
        (2, "Complete", [0.875]),
        (3, "Fail", None),
    ]


def test_a_page_and_a_table_are_served(ask):
    assert ask("/dashboard/studies/0")[0] == 200
    status, body = ask("/csv/0")
    assert status == 200
    rows = list(csv.DictReader(body.decode("utf-8").splitlines()))
    assert [row["Number"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["UserAttribute worker"] == "host/2"


@pytest.mark.parametrize(("path", "method"), [("/api/studies/0", "DELETE"), ("/api/trials/2/tell", "POST")])
def test_nothing_can_be_changed_through_it(ask, path, method):
    status, body = ask(path, method)
    assert status == 403
    assert b"can only be looked at" in body
    assert len(trials(ask)) == 3


def test_a_page_that_leads_here_under_another_name_gets_no_answer(ask):
    assert ask("/api/studies", Host="evil.example:8080")[0] == 403
    assert ask("/api/studies", Host="localhost:8080")[0] == 200


def test_optuna_can_read_the_storage_but_not_write_it(study):
    import optuna

    paths, ledger = study
    storage = LedgerStorage(paths)
    opened = optuna.load_study(study_name="lungs", storage=storage)
    assert (opened.best_value, opened.best_trial.number, opened.metric_names) == (0.75, 0, ["val_auc"])
    assert opened.best_trial.user_attrs["loss"] == 0.5
    assert opened.best_trial.user_attrs["best_epoch"] == 1
    assert abs(opened.best_trial.datetime_start.timestamp() - time.time()) < 3600
    before = opened.trials
    ledger.append(EpochReported(2, 2, {"val_auc": 0.875}, "complete"))
    assert opened.best_value == 0.875
    assert storage.get_trial(0) is before[0]  # made once
    with pytest.raises(PermissionError, match="can only be looked at"):
        opened.ask()
    with pytest.raises(PermissionError, match="can only be looked at"):
        opened.set_user_attr("a", 1)


def test_a_trial_that_cannot_run_here_is_shown_as_failed(study):
    paths, ledger = study
    ledger.append(Failed(2, "no memory", infeasible=True))
    assert LedgerStorage(paths).get_trial(2).state is TrialState.FAIL


def test_where_the_dashboard_is_not_installed_it_is_said_how(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'thawline\[dashboard\]'"):
        serve_dashboard(study[0], 0, print)


def test_a_port_that_is_taken_is_said(study):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"--port: must be free, but {port}"):
            serve_dashboard(study[0], port, print)
