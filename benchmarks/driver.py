"""What a trial costs beside its training: no-op trials through Thawline and through stock Ray Tune with OptunaSearch.

make bench-driver                      # 200 trials each, three rounds, in turn
python benchmarks/driver.py --trials 1000 --rounds 3
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS = 1
SPACE = {"learning_rate": (1e-5, 1e-2), "batch_size": [16, 32, 64], "augmentation_strength": (0.0, 1.0, 0.25)}


def thawline(trials: int) -> float:
    """Seconds from the first suggestion to the last verdict, Ray running already."""
    from ray import tune

    from search.cluster import connect
    from search.config import StudyConfig
    from search.events import SessionOpened
    from search.ledger import Ledger
    from search.study import Study
    from search.tune_bridge import MESSAGE, run_trials

    class NoOperation(tune.Trainable):
        def setup(self, config):
            self.steps = 0

        def reset_config(self, new_config):
            self.steps = 0
            return True

        def step(self):
            self.steps += 1
            if self.steps == 1:
                return {MESSAGE: [{"kind": "started", "worker": "here"}]}
            metrics = {"val_auc": self.config["trial"]["parameters"]["learning_rate"]}
            return {MESSAGE: [{"kind": "epoch", "epoch": 1, "metrics": metrics, "seconds": {}, "last": True}]}

    low, high = SPACE["learning_rate"]
    config = StudyConfig.parse(
        {
            "space": {
                "learning_rate": {"type": "float", "low": low, "high": high, "log": True},
                "batch_size": {"type": "choice", "values": SPACE["batch_size"]},
                "augmentation_strength": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
                "freeze_depth": {"type": "int", "low": 0, "high": 5},
            },
            "budget": {"trials": trials, "epochs": EPOCHS},
        }
    )
    with tempfile.TemporaryDirectory() as folder, connect(), Ledger(Path(folder) / "study.db") as ledger:
        ledger.append(SessionOpened("here", 0))
        began = time.perf_counter()
        run_trials(Study(config, ledger), NoOperation, {}, {"CPU": 1, "GPU": 0}, 2)
        seconds = time.perf_counter() - began
        assert sum(trial.ended for trial in ledger.history.search_trials()) == trials
    return seconds


def stock(trials: int) -> float:
    """The same through a class trainable, `reuse_actors`, OptunaSearch and ASHA, as Ray's documentation shows."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    class NoOperation(tune.Trainable):
        def setup(self, config):
            pass

        def reset_config(self, new_config):
            return True

        def step(self):
            return {"val_auc": self.config["learning_rate"], "done": True}

        def save_checkpoint(self, folder):
            return {}

    space = {
        "learning_rate": tune.loguniform(*SPACE["learning_rate"]),
        "batch_size": tune.choice(SPACE["batch_size"]),
        "augmentation_strength": tune.quniform(*SPACE["augmentation_strength"]),
        "freeze_depth": tune.randint(0, 6),
    }
    with tempfile.TemporaryDirectory() as folder:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        began = time.perf_counter()
        tune.Tuner(
            tune.with_resources(NoOperation, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="val_auc",
                mode="max",
                num_samples=trials,
                search_alg=OptunaSearch(),
                scheduler=ASHAScheduler(max_t=9),
                max_concurrent_trials=2,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, name="stock", verbose=0),
        ).fit()
        seconds = time.perf_counter() - began
        ray.shutdown()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["thawline", "stock"])
    arguments = parser.parse_args()
    if arguments.one:
        print(f"SECONDS {globals()[arguments.one](arguments.trials)}")
        return
    measured: dict[str, list[float]] = {"thawline": [], "stock": []}
    for round_number in range(arguments.rounds):
        for name, values in measured.items():
            command = [sys.executable, __file__, "--one", name, "--trials", str(arguments.trials)]
            output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800).stdout
            seconds = float(output.split("SECONDS ")[1])
            values.append(1000 * seconds / arguments.trials)
            print(f"round {round_number + 1}: {name} {values[-1]:.1f} ms per trial", flush=True)
    for name, values in measured.items():
        print(f"{name}: median {statistics.median(values):.1f} ms per trial ({min(values):.1f} to {max(values):.1f})")
    ratios = [ours / theirs for ours, theirs in zip(measured["thawline"], measured["stock"], strict=True)]
    print(f"ratio thawline / stock, round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
