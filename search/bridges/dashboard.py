"""optuna-dashboard on a study: a storage that Optuna can only read, made of the ledger as it grows."""

import threading
from collections.abc import Callable, Container, Iterable, Sequence
from datetime import UTC, datetime
from socketserver import ThreadingMixIn
from typing import Any, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from search.config import StudyConfig
from search.errors import ConfigurationError
from search.events import TrialKey
from search.follow import Follower
from search.history import TrialRecord
from search.optuna_terms import frozen
from search.paths import StudyPaths

HOST = "127.0.0.1"
STUDY = 0  # the only study's number


class LedgerStorage(BaseStorage):
    """The search's trials as Optuna knows them; each look reads what is new. Writing is refused."""

    def __init__(self, paths: StudyPaths):
        self._config = StudyConfig.load(paths.study_file)
        self._follower = Follower(paths.ledger)
        self._began = 0.0
        self._known: dict[TrialKey, tuple[TrialRecord, FrozenTrial]] = {}
        self._lock = threading.Lock()

    def get_all_studies(self) -> list[FrozenStudy]:
        attributes = self.get_study_system_attrs(STUDY)
        directions = self.get_study_directions(STUDY)
        return [FrozenStudy(self.get_study_name_from_id(STUDY), None, {}, attributes, STUDY, directions=directions)]

    def get_study_id_from_name(self, study_name: str) -> int:
        return STUDY

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._config.name or "study"

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection[self._config.objective.direction.upper()]]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return {"study:metric_names": [self._config.objective.metric]}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.get_all_trials(STUDY)[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._lock:
            for happening in self._follower.new():
                self._began = self._began or happening.at
            trials = [self._frozen(trial) for trial in self._follower.history.search_trials()]
        return [trial for trial in trials if states is None or trial.state in states]

    def _frozen(self, trial: TrialRecord) -> FrozenTrial:
        """Made again only when something happened to the trial: records are values."""
        record, made = self._known.get(trial.key, (None, None))
        if made is None or record is not trial:
            made = look_at(trial, self._config, self._began)
            self._known[trial.key] = (trial, made)
        return made

    def _refuse(self, *given: Any, **named: Any) -> NoReturn:
        raise PermissionError("the study can only be looked at here: its ledger has one writer, the driver")

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._refuse()

    def delete_study(self, study_id: int) -> None:
        self._refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._refuse()

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self._refuse()

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._refuse()

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self._refuse()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._refuse()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._refuse()


def look_at(trial: TrialRecord, config: StudyConfig, began: float) -> FrozenTrial:
    """A trial as the dashboard shows it, with its moments and what Optuna has no place for.

    Args:
        trial: The trial.
        config: The study.
        began: When the study began, in seconds since 1970; moments are this plus used study time, so that pauses
            between sessions do not show.
    """
    found = frozen(trial, config.space, config.objective)
    found.number = found._trial_id = trial.number
    if trial.infeasible:
        found.state = TrialState.FAIL  # only samplers must see it as something else
    started = trial.asked_at if trial.started_at is None else trial.started_at
    found.datetime_start = _moment(began + started)
    found.datetime_complete = None if trial.ended_at is None else _moment(began + trial.ended_at)
    best = trial.best(config.objective)
    remarks = {
        **(trial.metrics_at(best[0]) if best else {}),
        "best_epoch": best[0] if best else None,
        "epochs_run": len(trial.epochs),
        "origin": trial.origin,
        "worker": trial.worker,
        "reason": trial.reason,
    }
    found.user_attrs = {name: value for name, value in remarks.items() if value not in (None, "")}
    return found


def serve_dashboard(paths: StudyPaths, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted, on this machine alone.

    Args:
        paths: The study.
        port: 0: any that is free.
        ready: Is told the address.

    Raises:
        ConfigurationError: when the dashboard is not installed or the port is taken.
    """
    try:
        import optuna_dashboard  # type: ignore[import-untyped]  # it ships none
    except ImportError as error:
        raise ConfigurationError(
            "dashboard: needs the package optuna-dashboard: pip install 'thawline[dashboard]'"
        ) from error
    app = only_reading(optuna_dashboard.wsgi(LedgerStorage(paths)))
    try:
        server = make_server(HOST, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise ConfigurationError(f"--port: must be free, but {port} on {HOST}: {error.strerror}") from error
    with server:
        ready(f"http://{HOST}:{server.server_port}/dashboard/studies/{STUDY}")
        server.serve_forever()


def only_reading(app: Any) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """The application for browsers on this machine that want to look: nothing is changed through it, and no page from
    elsewhere reads it under a name of its own that leads here.
    """

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").rpartition(":")[0]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or host not in (HOST, "localhost"):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"this study can only be looked at, from this machine\n"]
        return app(environ, start_response)

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *values: Any) -> None:
        """Requests are nobody's news."""


def _moment(seconds: float) -> datetime:
    """Local and without a zone, as Optuna's own: they are compared with its clock."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().replace(tzinfo=None)
