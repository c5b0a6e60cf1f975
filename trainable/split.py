"""Which image belongs to train, validation or test: by whole groups, balanced by class, decided once and kept."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np

from trainable.decoding import DECODING
from trainable.errors import InputError
from trainable.groups import assign_groups, read_column
from trainable.inspection import ImageFile, Inspection, some
from trainable.settings import DataSettings, Part, SplitShares
from trainable.whole_file import read_csv, write_csv

PARTS: tuple[Part, ...] = get_args(Part)

COLUMNS = ("file", "sha256", "class", "group", "part")


@dataclass(frozen=True)
class SplitRow:
    """One image's place in the study: a line of `split.csv`."""

    file: str
    sha256: str
    class_name: str
    group: str
    part: Part


def make_split(inspection: Inspection, settings: DataSettings, seed: int) -> tuple[SplitRow, ...]:
    """Splits the inspected images as the settings say: by a given file, or by shares.

    Returns:
        One row per readable image, sorted by file.

    Raises:
        InputError: Every problem of the images, their groups and, if those have none, the parts.
    """
    problems = inspection.problems(settings)
    groups: dict[str, str] = {}
    try:
        groups = assign_groups(inspection, settings)
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    if settings.split_file is not None:
        return given_split(inspection, groups, settings.split_file, settings.groups == "near_duplicates")
    return plan_split(inspection.images, groups, settings.split, seed)


def plan_split(
    images: Sequence[ImageFile], groups: Mapping[str, str], shares: SplitShares, seed: int
) -> tuple[SplitRow, ...]:
    """Shares whole groups out so that every part gets its share of every class as closely as groups allow.

    Groups go from the largest down, ties in an order drawn from `seed`, each to the part where it brings the counts
    closest to the shares; then single groups move while that gives an absent class or a closer fit. Closeness is the
    chi-square distance, the sum over parts and classes of (held - wanted)^2 / wanted in shares of the class: it hands
    out groups of every size in proportion (as Webster's method does seats), where the plain squared distance would put
    all large groups into train and leave only small ones to be tested on.

    Args:
        images: In any order; the result does not depend on it.
        groups: The group of every image by its file.
        shares: A part with share 0 stays empty.
        seed: Same images, groups, shares and seed give the same rows.

    Raises:
        InputError: No way was found to put every class into every part.
    """
    images = sorted(images, key=lambda image: image.file)
    parts = [part for part in PARTS if getattr(shares, part) > 0]
    names, counts = _count_by_group(images, groups)
    wanted = np.array([getattr(shares, part) for part in parts])[:, None]
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts.sum(axis=1)[shuffled], kind="stable")]
    assigned = _refine(counts, wanted, _fill(counts, wanted, order))
    part_of = {name: parts[index] for name, index in zip(names, assigned.tolist(), strict=True)}
    rows = tuple(_row(image, groups, part_of[groups[image.file]]) for image in images)
    absent = _absent_classes(rows, parts)
    if absent:
        advice = f"no split into {len(parts)} parts was found: add images, use smaller groups or set `split.test: 0`"
        raise InputError([f"{problem}; {advice}" for problem in absent])
    return rows


def given_split(
    inspection: Inspection, groups: Mapping[str, str], path: Path, by_looks: bool = False
) -> tuple[SplitRow, ...]:
    """Takes the parts from a CSV file with the columns `file` and `part`, exactly as they are.

    Args:
        inspection: What there is.
        groups: Group of each image.
        path: Of the CSV file.
        by_looks: Whether groups are images that look alike, which those who made the split may not have looked for.

    Raises:
        InputError: Images without a part, files that are not there, unknown parts, groups in several parts, or classes
            that a part lacks (the test part may be empty).
    """
    part_of = read_column(path, inspection, "part")
    unknown = sorted(set(part_of.values()) - set(PARTS))
    if unknown:
        raise InputError(f"{path}: `part` must be one of {', '.join(PARTS)}, but got {some(unknown)}")
    rows = tuple(_row(image, groups, cast(Part, part_of[image.file])) for image in inspection.images)
    used = [part for part in PARTS if part != "test" or any(row.part == "test" for row in rows)]
    cure = "; a group is what looks alike here: with `data.groups: none` only equal files are" if by_looks else ""
    problems = [*_absent_classes(rows, used), *(f"{problem}{cure}" for problem in _torn_groups(rows))]
    if problems:
        raise InputError([f"{path}: {problem}" for problem in problems])
    return rows


def write_split(path: Path, rows: Sequence[SplitRow]) -> None:
    """Writes the columns file, sha256, class, group, part; whole or not at all."""
    write_csv(path, COLUMNS, (astuple(row) for row in rows))


def read_split(path: Path) -> tuple[SplitRow, ...]:
    """Reads what `write_split` wrote: equal rows in equal order.

    Raises:
        InputError: Not such a file.
    """
    lines = read_csv(path)
    if not lines or set(lines[0]) != set(COLUMNS):
        raise InputError(f"{path} must have rows with the columns {', '.join(COLUMNS)}; make the split anew")
    unknown = sorted({line["part"] for line in lines} - set(PARTS))
    if unknown:
        raise InputError(f"{path}: `part` must be one of {', '.join(PARTS)}, but got {some(unknown)}")
    return tuple(SplitRow(*(line[column] for column in COLUMNS)) for line in lines)  # type: ignore[arg-type]


def split_summary(rows: Sequence[SplitRow]) -> dict[str, dict[str, object]]:
    """Counts `images`, `groups` and `classes` (images by class name) of every part, empty parts included."""
    summary: dict[str, dict[str, object]] = {}
    for part in PARTS:
        inside = [row for row in rows if row.part == part]
        summary[part] = {
            "images": len(inside),
            "groups": len({row.group for row in inside}),
            "classes": dict(sorted(Counter(row.class_name for row in inside).items())),
        }
    return summary


def data_fingerprint(rows: Sequence[SplitRow], settings: DataSettings) -> str:
    """sha256 (hexadecimal) over all that decides the arrays: the rows in any order, image size, colour and decoder."""
    decoded = {"image_size": settings.image_size, "colour": settings.colour, "decoding": DECODING}
    content = json.dumps([decoded, sorted(astuple(row) for row in rows)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _count_by_group(images: Sequence[ImageFile], groups: Mapping[str, str]) -> tuple[list[str], np.ndarray]:
    """Group names, and how many images of each group are in each class: int [groups, classes], classes sorted."""
    names, group_index = np.unique([groups[image.file] for image in images], return_inverse=True)
    classes, class_index = np.unique([image.class_name for image in images], return_inverse=True)
    counts = np.zeros((len(names), len(classes)), dtype=np.int64)
    np.add.at(counts, (group_index, class_index), 1)
    return names.tolist(), counts


def _fill(counts: np.ndarray, wanted: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The part of every group [groups], given one after the other to where it helps most."""
    weights = counts / counts.sum(axis=0)
    missing = np.repeat(wanted, counts.shape[1], axis=1)  # [parts, classes], in shares of the class
    assigned = np.zeros(len(counts), dtype=np.int64)
    for group in order:
        # (missing - weight)^2 / wanted - missing^2 / wanted, summed over classes: how much the distance grows
        growth = (weights[group] * (weights[group] - 2 * missing) / wanted).sum(axis=1)
        assigned[group] = growth.argmin()
        missing[assigned[group]] -= weights[group]
    return assigned


def _refine(counts: np.ndarray, wanted: np.ndarray, assigned: np.ndarray) -> np.ndarray:
    """Moves single groups, the best move first, while that gives a part a class it lacked or lessens the distance."""
    weights, every = counts / counts.sum(axis=0), np.arange(len(counts))
    present = counts > 0
    lacking_weight = 4 * wanted.size * counts.shape[1] / wanted.min()  # above any change of the distance
    while True:
        held = np.stack([counts[assigned == part].sum(axis=0) for part in range(len(wanted))])
        missing = wanted - held / counts.sum(axis=0)
        leaving = (weights * (weights + 2 * missing[assigned]) / wanted[assigned]).sum(axis=1)
        joining = (weights[:, None] * (weights[:, None] - 2 * missing) / wanted).sum(axis=2)
        emptied = (present & (held[assigned] == counts)).sum(axis=1)
        newly_held = (present[:, None] & (held == 0)).sum(axis=2)
        growth = leaving[:, None] + joining + lacking_weight * (emptied[:, None] - newly_held)
        growth[every, assigned] = 0
        group, part = np.unravel_index(growth.argmin(), growth.shape)
        if growth[group, part] > -1e-9:
            return assigned
        assigned[group] = part


def _absent_classes(rows: Sequence[SplitRow], parts: Sequence[Part]) -> list[str]:
    held = {(row.part, row.class_name) for row in rows}
    groups = {row.class_name: set[str]() for row in rows}
    for row in rows:
        groups[row.class_name].add(row.group)
    return [
        f"every class must occur in every part, but `{name}`, in {len(inside)} groups, is missing in {part}"
        for name, inside in sorted(groups.items())
        for part in parts
        if (part, name) not in held
    ]


def _torn_groups(rows: Sequence[SplitRow], limit: int = 10) -> list[str]:
    members: dict[str, list[SplitRow]] = defaultdict(list)
    for row in rows:
        members[row.group].append(row)
    torn = {group: inside for group, inside in members.items() if len({row.part for row in inside}) > 1}
    problems = [
        f"a group must lie in one part, but `{group}` is in several: "
        f"{some([f'{row.file} ({row.part})' for row in inside], 6)}"
        for group, inside in list(torn.items())[:limit]
    ]
    return problems + ([f"{len(torn) - limit} more groups lie in several parts"] if len(torn) > limit else [])


def _row(image: ImageFile, groups: Mapping[str, str], part: Part) -> SplitRow:
    return SplitRow(image.file, image.sha256, image.class_name, groups[image.file], part)
