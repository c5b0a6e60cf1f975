"""How much Thawline's ledger survives, and what that costs: kills, cuts, failing writes, times.

make faults                            # 200 kills, every event, every 64 bytes, every write: some ten minutes
python benchmarks/faults.py --kills 20 --cut 1024 --write 9 --event 17
"""

import argparse
import errno
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "faults"))

import damage
import soak

from search.events import Asked, EpochReported, SessionOpened, TrialKey
from search.ledger import Ledger
from search.study import Study
from search.trial_source import Report


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder where a flush costs nothing: for what is counted, not timed."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


def kills(count: int, step: int) -> bool:
    account = soak.soak(count, seed=1)
    events = soak.kill_at_every_event(seed=11, step=step)
    for what, each in (("at random times", account), ("before, in and after commits", events)):
        print(
            f"drivers killed {what}: {each.kills}, {each.acknowledged} events acknowledged; lost {each.lost}, "
            f"duplicated {each.duplicated}, stuck {each.stuck}, different from the uninterrupted {each.different}, "
            f"files left {each.left_over}",
            *each.notes,
            flush=True,
        )
    return account.clean and events.clean


def cuts(step: int) -> bool:
    """Each file of the ledger cut at every `step` bytes, and with changed bits; both records damaged at once."""
    fine = True
    with in_memory() as folder:
        entries = damage.make_ledger(folder)
        for name in damage.FILES:
            size = (folder / name).stat().st_size
            places = sorted({*range(100), *random.Random(1).sample(range(size), min(size, 6400 // step * 10))})
            for what, harms in (
                (f"cut at every {step} bytes", damage.cuts(folder, name, step)),
                ("with a bit changed", damage.flips(folder, name, places)),
            ):
                fine &= _say(
                    f"{name} {what}", damage.try_harm(folder, ((each,) for each in harms), entries, folder / "scratch")
                )
        both = (
            (first, second)
            for first in damage.cuts(folder, damage.FILES[0], 64 * step)
            for second in damage.cuts(folder, damage.FILES[2], 4 * step + 1)
        )
        # A journal that ends with a whole line has nothing wrong: what is then missing, only trials' folders know.
        torn = ((first, second) for first, second in both if not second.content.endswith(b"\n"))
        fine &= _say("both records cut", damage.try_harm(folder, torn, entries, folder / "scratch"))
    return fine


def _say(what: str, found: damage.Outcomes) -> bool:
    print(
        f"{what}: {found.tried} tried, {found.recovered} recovered whole, {found.refused} refused, {found.fewer} wrong"
    )
    return found.fewer == 0 and found.recovered + found.refused == found.tried


def writes(step: int) -> bool:
    """Every write of a session fails once, for want of space and for an error of the disk."""
    fine = True
    for code in (errno.ENOSPC, errno.EIO):
        with in_memory() as folder:
            found = soak.fail_every_write(folder, code, step)
        print(
            f"n-th write of a session fails, {errno.errorcode[code]}: {found.tried} tried, {found.recovered} made good",
            *found.wrong,
            flush=True,
        )
        fine &= found.recovered == found.tried
    return fine


def times(reports: int) -> None:
    """On the disk that holds temporary files, with flushes that wait for it."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        config = soak.study(folder, 1, storage_copy=None, budget={"trials": 1_001, "epochs": 3}, final={"finalists": 0})
        _thousand(folder, config)
        began = time.perf_counter()
        command = [sys.executable, "-c", RESUME, str(Path(soak.__file__).parent), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while not process.stdout.readline().startswith("asked"):
                pass
            print(
                f"a resumed driver asks again, at 1,000 finished trials: {time.perf_counter() - began:.1f} s",
                flush=True,
            )
            process.wait()
    with tempfile.TemporaryDirectory() as made:
        for what, waits in (
            ("from report to durable", _report_times(Path(made), reports)),
            ("a bare write and flush here", _flush_times(Path(made) / "bare", reports)),
        ):
            print(
                f"{what}, {len(waits)} times: p50 {statistics.median(waits):.1f} ms, "
                f"p99 {statistics.quantiles(waits, n=100)[98]:.1f} ms, longest {max(waits):.1f} ms",
                flush=True,
            )
    ends = [_seconds_to_end() for _ in range(10)]
    print(f"from SIGTERM to exit, without Ray: median {statistics.median(ends):.2f} s, at most {max(ends):.2f}")


RESUME = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import soak
more = {"storage_copy": None, "budget": {"trials": 1001, "epochs": 3}, "final": {"finalists": 0}}
config = soak.study(Path(sys.argv[2]), 1, **more)
soak.drive(config, lambda text: print(text, end="", flush=True))
"""


def _thousand(folder: Path, config) -> None:
    """A run with 1,000 finished trials of three epochs."""
    small = config.model_copy(update={"budget": config.budget.model_copy(update={"trials": 1})})
    soak.drive(small)
    draw = random.Random(1)
    with Ledger(folder / "it" / "study.db") as ledger:
        ledger.append(SessionOpened("host", 1))
        events = []
        for number in range(1, 1000):
            parameters = {"x": draw.random(), "kind": draw.choice("abc")}
            events.append(Asked(number, parameters, number))
            for epoch in (1, 2, 3):
                values = {"v": soak.score(parameters, epoch)}
                events.append(EpochReported(number, epoch, values, "complete" if epoch == 3 else "continue"))
        ledger.append(*events)


def _report_times(folder: Path, reports: int) -> list[float]:
    """Milliseconds of each report to a study, its verdict and both records included."""
    config = soak.study(folder, 1, storage_copy=None, budget={"trials": 10_000, "epochs": 100}, pruner={"name": "none"})
    waits: list[float] = []
    with Ledger(folder / "study.db") as ledger:
        ledger.append(SessionOpened("host", 1))
        source = Study(config, ledger)
        while len(waits) < reports:
            key: TrialKey = source.ask().key
            for epoch in range(1, 101):
                began = time.perf_counter()
                source.report(key, Report(epoch, {"v": 0.5 + epoch / 1000}))
                waits.append(1000 * (time.perf_counter() - began))
    return waits[:reports]


def _flush_times(path: Path, count: int) -> list[float]:
    """Milliseconds that the disk itself takes, busy as it is with other work."""
    waits = []
    with path.open("wb", buffering=0) as stream:
        for _ in range(count):
            began = time.perf_counter()
            stream.write(b"x" * 300)
            os.fsync(stream.fileno())
            waits.append(1000 * (time.perf_counter() - began))
    return waits


def _seconds_to_end() -> float:
    with tempfile.TemporaryDirectory() as folder:
        soak.Driver.pause = 0.01
        outcome = soak.fork_driver(soak.study(Path(folder), 1), soak.Kill(0.1, at_work=True, signal=signal.SIGTERM))
        soak.Driver.pause = 0.0
        assert outcome.status >> 8 == 128 + signal.SIGTERM, outcome.status
        return outcome.seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--event", type=int, default=1, help="kill at every so-manieth event")
    parser.add_argument("--cut", type=int, default=64, help="bytes from cut to cut")
    parser.add_argument("--write", type=int, default=1, help="every so-manieth write fails")
    parser.add_argument("--reports", type=int, default=2000)
    arguments = parser.parse_args()
    times(arguments.reports)
    fine = [cuts(arguments.cut), writes(arguments.write), kills(arguments.kills, arguments.event)]
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
