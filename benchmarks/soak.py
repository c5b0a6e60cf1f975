"""Real Keras trials whose workers are killed at random: with one worker the table is that of a study left alone, with
several its counts are.

`python benchmarks/soak.py --kills 20`; the exit code is 1 when something was lost.
"""

import argparse
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from os import kill
from pathlib import Path

from analysis import read_trials
from search.ledger import read_history
from search.paths import StudyPaths
from trainable.synthetic import draw_study

STUDY = """
seed: 4
data: {path: images, groups: groups.csv, image_size: 32}
model: {architecture: vgg16, weights: random} # whose graphs are built in no time
training: {dropout: 0.1}
space:
  learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
  augmentation_strength: {type: float, low: 0.0, high: 1.0, step: 0.5}
  freeze_depth: {type: int, low: 4, high: 5}
sampler: {name: tpe, startup_trials: 2}
pruner: {name: none}
budget: {retries: 100000}
"""
OF_THE_CLOCK = ("_seconds", "worker", "attempts")  # what differs between runs without anything being wrong


class Soak:
    def __init__(self, folder: Path, trials: int, epochs: int, seed: int):
        self.folder = folder
        self.draw = random.Random(seed)
        self.budget = ["--set", f"budget.trials={trials}", "--set", f"budget.epochs={epochs}"]
        self.again_seconds: list[float] = []
        draw_study(folder, images_per_class=24, image_size=32, seed=3)
        (folder / "study.yaml").write_text(STUDY)

    @contextmanager
    def driver(self, name: str, concurrency: int):
        command = [sys.executable, "-m", "search.cli", "search", "study.yaml", "--name", name, *self.budget]
        command += ["--set", f"resources.concurrency={concurrency}"]
        process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
            _, said = process.communicate(timeout=3600)
            if process.returncode not in (0, 143):
                raise SystemExit(f"{name}: the driver ended with {process.returncode}: {said}")
        finally:
            process.kill()
            process.wait()

    def trials(self, name: str):
        ledger = StudyPaths(self.folder / "runs" / name).ledger
        return read_history(ledger).search_trials() if ledger.exists() else []

    def epochs(self, name: str) -> int:
        return sum(len(trial.epochs) for trial in self.trials(name))

    def table(self, name: str):
        trials = read_trials(self.folder / "runs" / name)
        return trials.drop(columns=[column for column in trials if column.endswith(OF_THE_CLOCK)])

    def left_alone(self, name: str, concurrency: int) -> None:
        with self.driver(name, concurrency):
            pass

    def killed(self, name: str, concurrency: int, kills: int) -> int:
        """Kill workers, one at a time, until so many were or the study is over; how many were."""
        done = epochs = 0
        with self.driver(name, concurrency) as process:
            while process.poll() is None and done < kills:
                time.sleep(0.05)
                if self.epochs(name) <= epochs:  # a start of TensorFlow takes longer than most of what is to be hit
                    continue
                time.sleep(self.draw.uniform(0.0, 1.0))  # trials are short
                running = [trial for trial in self.trials(name) if trial.status == "running"]
                if not running:
                    continue
                victim = self.draw.choice(running)
                with suppress(ProcessLookupError):
                    kill(int(victim.worker.rpartition("/")[2]), signal.SIGKILL)
                    done, epochs = done + 1, self.epochs(name)
                    self._wait_until_again(process, name, victim)
        return done

    def _wait_until_again(self, process, name, victim) -> None:
        killed = time.monotonic()
        while process.poll() is None:
            now = next(trial for trial in self.trials(name) if trial.key == victim.key)
            if now.attempts > victim.attempts:
                self.again_seconds.append(time.monotonic() - killed)
                return
            if now.ended:  # it was at its end already
                return
            time.sleep(0.05)

    def stopped(self, name: str) -> tuple[float, float]:
        """Seconds from SIGTERM to the driver's end, and from the next driver's start to a trial that runs."""
        with self.driver(name, 1) as process:
            while not any(trial.epochs for trial in self.trials(name)):
                time.sleep(0.05)
            began = time.monotonic()
            process.terminate()
            process.wait(timeout=120)
            to_exit = time.monotonic() - began
        attempts = sum(trial.attempts for trial in self.trials(name))
        began = time.monotonic()
        with self.driver(name, 1):
            while sum(trial.attempts for trial in self.trials(name)) == attempts:
                time.sleep(0.05)
            to_running = time.monotonic() - began
        return to_exit, to_running


def counts(table):
    """What does not depend on who finished first: statuses, and the epochs of each trial."""
    return table.sort_values("number")[["number", "status", "epochs_run"]].reset_index(drop=True)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=20, help="of workers, in each part")
    arguments.add_argument("--trials", type=int, default=8)
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument("--seed", type=int, default=1, help="of the moments and victims")
    arguments.add_argument("--one-worker", action="store_true", help="leave out the part with two workers")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Path(folder), asked.trials, asked.epochs, asked.seed)
        soak.left_alone("whole", 1)
        kills = soak.killed("killed", 1, asked.kills)
        same = soak.table("killed").equals(soak.table("whole"))
        print(f"one worker, kills {kills}: the table is {'the same' if same else 'ANOTHER'}")
        if not asked.one_worker:
            kills = soak.killed("parallel", 2, asked.kills)
            same_counts = counts(soak.table("parallel")).equals(counts(soak.table("whole")))
            print(f"two workers, kills {kills}: the counts are {'the same' if same_counts else 'OTHERS'}")
            same = same and same_counts
        if soak.again_seconds:
            middle, most = statistics.median(soak.again_seconds), max(soak.again_seconds)
            print(
                f"killed trial running again: median {middle:.1f} s, at most {most:.1f} s ({len(soak.again_seconds)})"
            )
        to_exit, to_running = soak.stopped("stopped")
        print(f"SIGTERM to exit {to_exit:.1f} s; driver started again to a trial running {to_running:.1f} s")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
