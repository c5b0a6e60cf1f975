"""Which images belong together, so that no split may tear them apart: slices of a patient, copies of an image."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from scipy.cluster.hierarchy import DisjointSet

from trainable.errors import InputError
from trainable.inspection import Inspection, some
from trainable.settings import DataSettings, GroupPattern
from trainable.whole_file import read_csv


def assign_groups(inspection: Inspection, settings: DataSettings) -> dict[str, str]:
    """Names the group of every readable image: what must not be torn apart by the split.

    Groups that share an image with the same bytes become one, under the name that sorts first. Without names from a
    CSV file or a pattern, a group is called after its first file.

    Raises:
        InputError: A CSV file or pattern does not give every image one group.
    """
    files = [image.file for image in inspection.images]
    match settings.groups:
        case "none" | "near_duplicates":
            named = {file: file for file in files}
        case GroupPattern(pattern=pattern):
            named = _groups_by_pattern(files, pattern)
        case Path() as path:
            named = read_column(path, inspection, "group")
    alike = inspection.near_duplicates if settings.groups == "near_duplicates" else ()
    return _merged(named, [*inspection.exact_duplicates, *alike])


def read_column(path: Path, inspection: Inspection, column: str) -> dict[str, str]:
    """Reads one value per readable image from a CSV file with a column `file`.

    Lines on unreadable files are passed over. For `group`, the only other column may have any name.

    Raises:
        InputError: The columns are not there, or images have no value, an empty one or several, or are unknown.
    """
    lines = read_csv(path)
    column = _value_column(path, lines, column)
    images = {image.file for image in inspection.images}
    unreadable = {entry.file for entry in inspection.unreadable}
    unread = tuple(f"{entry.file}/" for entry in inspection.unreadable if entry.is_folder)
    values: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        values[line["file"]].add(line[column])
    passed_over = {file for file in values if file in unreadable or file.startswith(unread)}
    example = min(images, default="")
    empty = {file for file in images & set(values) if "" in values[file]}
    several = {file for file in images & set(values) if len(values[file]) > 1}
    problems = [
        f"{path}: {what}, but {len(files)} {came}: {some(sorted(files))}"
        for what, came, files in [
            ("every image must have a line", f"have none (`file` as in `{example}`)", images - set(values)),
            ("every `file` must be an image below the data folder", "are not", set(values) - images - passed_over),
            (f"every image must have a `{column}`", "have an empty one", empty),
            (f"every image must have one `{column}`", "have several", several),
        ]
        if files
    ]
    if problems:
        raise InputError(problems)
    return {file: min(values[file]) for file in sorted(images)}


def _groups_by_pattern(files: Sequence[str], pattern: str) -> dict[str, str]:
    found = {file: re.search(pattern, file) for file in files}
    named = {file: match[1] for file, match in found.items() if match and match[1]}
    without = [file for file in files if file not in named]
    if without:
        raise InputError(
            f"the `groups` pattern {pattern!r} must find a group in every file name, but finds none in "
            f"{len(without)} of {len(files)}: {some(without)}"
        )
    return named


def _value_column(path: Path, lines: Sequence[Mapping[str, str]], wanted: str) -> str:
    columns = list(lines[0]) if lines else []
    others = [name for name in columns if name != "file"]
    if "file" in columns and wanted in columns:
        return wanted
    if "file" in columns and wanted == "group" and len(others) == 1:
        return others[0]
    came = f"has {some(columns, 10)}" if columns else "has no rows"
    raise InputError(f"{path} must have the columns `file` and `{wanted}`, but {came}")


def _merged(named: Mapping[str, str], together: Sequence[Sequence[str]]) -> dict[str, str]:
    """Joins the groups of files that belong together; a joined group takes the name that sorts first."""
    joined = DisjointSet(sorted(set(named.values())))
    for files in together:
        for file in files[1:]:
            joined.merge(named[files[0]], named[file])
    name_of = {member: min(members) for members in joined.subsets() for member in members}
    return {file: name_of[group] for file, group in named.items()}
