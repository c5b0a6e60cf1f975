"""A study on a cluster made by hand, followed from outside while hosts come and go."""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml
from furniture import HOME, PROJECT, WEIGHTS, bring_images, install_project, on
from hosts import Failed, Host, Process, until

from search.entries import from_line
from search.events import Asked, EpochReported, SessionOpened, Started, from_json
from search.history import History
from search.paths import StudyPaths

ACTIVATED = f"source {PROJECT}/venv/bin/activate; export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0;"
SMALL = "--object-store-memory=100000000 --disable-usage-stats"
PORT = 6379
MORE = 4  # trials, when a study is done before a test is
STUDY = {
    "seed": 3,
    "data": {"path": f"{HOME}/images", "groups": f"{HOME}/groups.csv", "image_size": 32},
    "model": {"architecture": "mobilenetv2", "weights": str(HOME / WEIGHTS.name) if WEIGHTS.exists() else "random"},
    "space": {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "batch_size": {"type": "choice", "values": [16]},
        "augmentation_strength": {"type": "choice", "values": [0.5]},
        "freeze_depth": {"type": "choice", "values": [1]},
    },
    "pruner": {"name": "none"},
    "resources": {"address": "auto"},
}


def say(what: str) -> None:
    sys.stdout.write(f"    {time.strftime('%H:%M:%S')} {what}\n")
    sys.stdout.flush()


class HandMade:
    """A cluster started with `ray start`, as by hand.

    Args:
        head: Runs no trials.
        workers: Run one each.
    """

    def __init__(self, head: Host, workers: list[Host]):
        self.head, self.workers = head, []
        head.run(f"{ACTIVATED} ray get-auth-token --generate; chmod 600 ~/.ray/auth_token")
        head.run(
            f"{ACTIVATED} ray start --head --port={PORT} --node-ip-address={head.address} --num-cpus=0 {SMALL} "
            "--include-dashboard=false"
        )
        for worker in workers:
            self.join(worker)

    def join(self, worker: Host) -> None:
        """Bring the token and start Ray there."""
        token = on(worker, HOME / ".ray" / "auth_token")
        token.parent.mkdir(exist_ok=True)
        token.write_text(on(self.head, HOME / ".ray" / "auth_token").read_text())
        token.chmod(0o600)
        worker.run(
            f"{ACTIVATED} ray start --address={self.head.address}:{PORT} --node-ip-address={worker.address} "
            f"--num-cpus=1 {SMALL}"
        )
        self.workers.append(worker)

    def node_of(self, worker: Host) -> tuple[str, bool]:
        """Id of the newest node with this host's address, and whether Ray takes it for alive."""
        question = (
            "import ray, json; ray.init(address='auto', log_to_driver=False, logging_level='ERROR'); "
            f"print([(n['NodeID'], n['Alive']) for n in ray.nodes() if n['NodeManagerAddress'] == '{worker.address}'])"
        )
        answer = self.head.run(f'{ACTIVATED} python -c "{question}" 2>/dev/null')
        found = re.findall(r"\('(\w+)', (True|False)\)", answer)
        node, alive = next((each for each in found if each[1] == "True"), found[-1])
        return node, alive == "True"

    def drain(self, worker: Host, seconds: int) -> None:
        """Announce that this host is taken away in so many seconds."""
        node, _ = self.node_of(worker)
        self.head.run(
            f"{ACTIVATED} ray drain-node --address={self.head.address}:{PORT} --node-id={node} "
            "--reason=DRAIN_NODE_REASON_PREEMPTION --reason-message=test "
            f"--deadline-remaining-seconds={seconds}"
        )


class Followed:
    """A study whose driver works on the head of a cluster.

    Attributes:
        process: The driver.
        trials: How many it is to do; more as long as something that a test waits for has not happened, because nobody
            knows how fast a machine is.
        events: All that the ledger has, in order.
    """

    def __init__(self, head: Host, trials: int, epochs: int, concurrency: int, storage: Path | None = None):
        self.head = head
        document = {
            **STUDY,
            "name": "it",
            "budget": {"trials": trials, "epochs": epochs, "retries": 0},
            "resources": {"address": "auto", "concurrency": concurrency},
            **({"storage_copy": str(storage)} if storage else {}),
        }
        on(head, HOME / "study.yaml").write_text(yaml.safe_dump(document))
        self.paths = StudyPaths(on(head, HOME / "runs" / "it"))
        self.trials = trials
        self.process: Process = self._search()
        self.history, self.events = History(), []
        self._read = 0

    def _search(self) -> Process:
        command = f"{ACTIVATED} cd {HOME}; thawline search study.yaml --trials {self.trials}"
        return self.head.start(command, f"/tmp/search-{self.trials}.log")

    def look(self) -> None:
        """Take in what is new in the journal: a file that can be read across hosts, as the database can't."""
        if not self.paths.journal.exists():
            return
        with self.paths.journal.open("rb") as journal:
            journal.seek(self._read)
            for line in journal:
                entry = from_line(line)
                if entry is None:
                    return  # it is just being written
                self._read += len(line)
                self.events.append(from_json(entry.kind, entry.body))
                self.history.apply(entry.elapsed, self.events[-1])

    def until(self, what: str, holds: Callable[[], object], seconds: float = 400) -> float:
        """Wait for something to be true of the events; the seconds it took."""
        began = time.monotonic()

        def look():
            code = self.process.poll()
            self.look()
            if code not in (None, 0):
                raise Failed(f"the driver ended: {self.process.said()}")
            found = holds()
            if code == 0 and not found:
                self.trials += MORE
                self.process = self._search()
            return found

        until(f"{what}\n{self.process.said()[-2000:]}", look, seconds)
        return time.monotonic() - began

    def places(self) -> dict[int, str]:
        """Host of every trial that started and has not ended, by number."""
        found: dict[int, str] = {}
        for event in self.events:
            if isinstance(event, Started):
                found[event.number] = event.worker.split("/")[0]
            elif isinstance(event, EpochReported) and event.verdict != "continue":
                found.pop(event.number, None)
        return found

    def session(self) -> tuple[list, list]:
        """Events before the newest session was opened, none for the first one, and since."""
        opened = [place for place, event in enumerate(self.events) if isinstance(event, SessionOpened)] or [0]
        return self.events[: opened[-1]], self.events[opened[-1] :]

    def hosts(self) -> Counter:
        """Starts of trials by host."""
        return Counter(event.worker.split("/")[0] for event in self.events if isinstance(event, Started))

    def of(self, kind: type) -> list:
        """Events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def epochs(self, number: int) -> list[int]:
        return [event.epoch for event in self.events if isinstance(event, EpochReported) and event.number == number]

    def starts(self, number: int) -> list[str]:
        return [e.worker.split("/")[0] for e in self.events if isinstance(e, Started) and e.number == number]

    def wait_mid_epoch(self, host: Host) -> int:
        """Wait until a trial on this host has just finished an epoch that is not its last; its number."""
        seen = len(self.events)

        def just_now():
            places = self.places()
            new = [event for event in self.events[seen:] if isinstance(event, EpochReported)]
            return [e.number for e in new if e.verdict == "continue" and places.get(e.number) == host.name]

        self.until(f"an epoch on {host.name}", just_now)
        return just_now()[-1]

    def ended(self, seconds: float = 600) -> int:
        """Wait for the driver; its exit code."""
        self.until("the end of the search", lambda: self.process.poll() is not None, seconds)
        self.look()
        return self.process.poll()

    def check_counts(self, epochs: int) -> None:
        """Every trial once, completed, with every epoch once, and at most one of them computed again."""
        trials = self.trials
        asked = [event.number for event in self.events if isinstance(event, Asked)]
        assert asked == list(range(trials))
        records = self.history.search_trials()
        assert [(r.number, r.status, r.reason) for r in records] == [(n, "completed", None) for n in range(trials)]
        assert [self.epochs(number) for number in range(trials)] == [list(range(1, epochs + 1))] * trials
        assert [redone for redone in map(self.redone, range(trials)) if redone > 1] == []

    def redone(self, number: int) -> int:
        """Epochs that the trial's log has more than once."""
        done = re.findall(r"epoch (\d+): ", (self.paths.trial(number) / "log.txt").read_text())
        return len(done) - len(set(done))


def furnish(*hosts: Host, head: Host) -> None:
    """Install the project on hosts; images only where the driver runs."""
    for host in (head, *hosts):
        install_project(host)
    bring_images(head)
