"""The split as it stands in `split.csv`: how much is where, and whether anything is in two places."""

from dataclasses import dataclass
from pathlib import Path

from analysis.text_table import read_text_table

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Parts:
    """The parts of a split.

    Attributes:
        images: By part, then by class.
        groups: Different groups, by part.
        torn_groups: Groups that have images in more than one part; there must be none.
        repeated_files: Files with the same bytes (sha256) as a file in another part; there must be none.
    """

    images: dict[str, dict[str, int]]
    groups: dict[str, int]
    torn_groups: list[str]
    repeated_files: list[str]


def read_parts(path: Path) -> Parts:
    """Counts what `split.csv` says; looks at no image.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not such a file.
    """
    rows = read_text_table(path)
    if missing := [name for name in ("file", "sha256", "class", "group", "part") if name not in rows]:
        raise ValueError(f"{path}: must have the columns of a split, but lacks {missing}")
    classes = sorted(rows["class"].unique())
    counts = rows.groupby(["part", "class"]).size()
    spread = rows.groupby("group")["part"].nunique()
    copies = rows.groupby("sha256")["part"].transform("nunique")
    present = [part for part in PARTS if part in set(rows["part"])]
    return Parts(
        images={part: {name: int(counts.get((part, name), 0)) for name in classes} for part in present},
        groups={part: int(rows.loc[rows["part"] == part, "group"].nunique()) for part in present},
        torn_groups=sorted(map(str, spread[spread > 1].index)),
        repeated_files=sorted(rows.loc[copies > 1, "file"]),
    )
