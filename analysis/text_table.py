"""Our CSV files as text: what was written, without what guards a formula."""

from pathlib import Path

import pandas as pd


def read_text_table(path: Path) -> pd.DataFrame:
    """Every cell the text that was written: `007` and `NA` stay."""
    return pd.read_csv(path, dtype=str, keep_default_na=False).map(unguarded)


def unguarded(cell: str) -> str:
    """The text in a cell that was kept from looking like a formula."""
    return cell.removeprefix("'")
