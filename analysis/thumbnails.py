"""A few decoded training images of each class, small, as PNG."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from analysis.text_table import read_text_table

LARGEST = 96
"""Pixels of a side."""


def thumbnails(arrays: Path, per_class: int = 6) -> dict[str, list[bytes]]:
    """PNG files by class, from the training part alone, so that nobody sees an image of the test part.

    Images of one class come from as many groups as there are, always the same ones. Arrays that are gone or not whole
    give none.
    """
    try:
        images = np.load(arrays / "train.npy", mmap_mode="r", allow_pickle=False)
        rows = read_text_table(arrays / "train.csv")
        classes = json.loads((arrays / "train.json").read_text(encoding="utf-8"))["classes"]
    except (OSError, ValueError, KeyError):
        return {}
    if len(images) != len(rows) or not {"class", "group"} <= set(rows):
        return {}
    return {name: [_png(images[at]) for at in _chosen(rows[rows["class"] == name], per_class)] for name in classes}


def _chosen(rows: pd.DataFrame, count: int) -> list[int]:
    """Rows evenly spread over the groups, the first of each; then over the other rows."""
    firsts = rows.drop_duplicates("group")
    order = [*firsts.index, *rows.index.difference(firsts.index)]
    pool = order[: len(firsts)] if len(firsts) >= count else order[:count]
    return [int(pool[place]) for place in np.linspace(0, len(pool) - 1, min(count, len(pool))).astype(int)]


def _png(pixels: np.ndarray) -> bytes:
    image = Image.fromarray(np.squeeze(np.asarray(pixels)))
    image.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
