"""A study of four trials, one of each kind, for tests of what shows it."""

import pytest

from search.config import StudyConfig
from search.events import Asked, EpochReported, Failed, SessionOpened, Started

_CONFIG = StudyConfig.parse(
    {
        "name": "it",
        "objective": {"metric": "v"},
        "budget": {"trials": 4, "epochs": 3},
        "space": {
            "rate": {"type": "float", "low": 0, "high": 1},
            "kind": {"type": "choice", "values": ["a", "[/b] [red]x", "a[1].h5"]},
        },
    }
)
_EVENTS = [
    SessionOpened("host", 1),
    Asked(0, {"rate": 0.00123456, "kind": "a"}, 0),
    Started(0, worker="host/1"),
    EpochReported(0, 1, {"v": 0.25}, "continue"),
    EpochReported(0, 2, {"v": 0.75}, "continue"),
    EpochReported(0, 3, {"v": 0.5}, "complete"),
    Asked(1, {"rate": 0.1, "kind": "[/b] [red]x"}, 0),
    Started(1, worker="host/2"),
    EpochReported(1, 1, {"v": 0.125}, "prune", reason="behind others at epoch 1"),
    Asked(2, {"rate": 0.2}, 0),
    Failed(2, "no [memory]"),
    Asked(3, {"rate": 0.3, "kind": "a[1].h5"}, 0),
    Started(3, worker="host/4"),
    EpochReported(3, 1, {"v": 0.0}, "continue"),
    EpochReported(3, 2, {"v": 0.125}, "continue"),
]


@pytest.fixture
def small_config():
    """Four trials of at most three epochs, ranked by `v`; some names and values look like markup."""
    return _CONFIG


@pytest.fixture
def small_events():
    """Trial 0 completed, 1 pruned, 2 failed, 3 running."""
    return list(_EVENTS)
