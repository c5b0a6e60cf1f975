"""Learning curves of a real random search as a small table: written from a run, and read back.

python -m benchmarks.simulation.curves RUN benchmarks/curves/ct_mobilenetv2_32px.csv
"""

import argparse
from pathlib import Path

import pandas as pd

from search.ledger import read_history
from search.paths import StudyPaths

RECORDED = Path(__file__).resolve().parents[1] / "curves" / "ct_mobilenetv2_32px.csv"
METRICS = ("val_auc", "val_loss", "val_accuracy")
HYPERPARAMETERS = ("learning_rate", "batch_size", "augmentation_strength", "freeze_depth")


def curves_of(run: Path) -> pd.DataFrame:
    """A row per epoch of the completed trials of a run; floats to seven digits."""
    rows = [
        {"trial": trial.number, **trial.parameters, "epoch": epoch.epoch}
        | {name: float(f"{epoch.metrics[name]:.7g}") for name in METRICS}
        | {"train_seconds": round(epoch.seconds["train"], 3)}
        for trial in read_history(StudyPaths(run).ledger).search_trials()
        if trial.status == "completed"
        for epoch in trial.epochs
    ]
    table = pd.DataFrame(rows)
    table["learning_rate"] = [float(f"{rate:.7g}") for rate in table["learning_rate"]]
    return table


def read_curves(path: Path = RECORDED) -> pd.DataFrame:
    """The recorded table."""
    return pd.read_csv(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    asked = parser.parse_args()
    table = curves_of(asked.run)
    table.to_csv(asked.output, index=False, lineterminator="\n")
    print(f"{asked.output}: {table.trial.nunique()} trials, {len(table)} epochs, {asked.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
