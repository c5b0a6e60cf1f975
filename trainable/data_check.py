"""What there is to know about the images before a search: plain values, for a command line to print."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median_low

from trainable.errors import InputError
from trainable.inspection import ImageFile, Inspection, UnreadableFile
from trainable.settings import DataSettings
from trainable.split import SplitRow, make_split, split_summary

GIVEAWAY = 0.1  # balanced accuracy above chance at which a file property counts as giving the label away


@dataclass(frozen=True)
class SizeRange:
    """Pixels along one side, over all images."""

    smallest: int
    median: int
    largest: int


@dataclass(frozen=True)
class DataCheck:
    """The findings of `check_data`.

    Attributes:
        images_by_class: Readable images of every class folder.
        imbalance_ratio: Images of the largest class by those of the smallest; infinite with an empty class, NaN
            without classes.
        width: None without images, like `height`.
        modes_by_class: Images by class and Pillow mode.
        formats_by_class: Images by class and content format.
        unreadable: Every file without an image, with its reason.
        exact_duplicates: See `Inspection`.
        near_duplicates: See `Inspection`.
        split: `split_summary` of the planned or given split; empty when there are problems.
        straddling: Clusters of near duplicates with images in several parts, as files with their part: a leak unless
            they are known to be different cases.
        warnings: What deserves a look.
        problems: Why no study may start; empty when one may.
    """

    images_by_class: dict[str, int]
    imbalance_ratio: float
    width: SizeRange | None
    height: SizeRange | None
    modes_by_class: dict[str, dict[str, int]]
    formats_by_class: dict[str, dict[str, int]]
    unreadable: tuple[UnreadableFile, ...]
    exact_duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, ...], ...]
    split: dict[str, dict[str, object]]
    straddling: tuple[tuple[tuple[str, str], ...], ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]


def check_data(inspection: Inspection, settings: DataSettings, seed: int) -> DataCheck:
    """Describes the images and tries the split that a study with this seed would make. Opens no file but CSVs."""
    rows: tuple[SplitRow, ...] = ()
    problems: list[str] = []
    try:
        rows = make_split(inspection, settings, seed)
    except InputError as error:
        problems = error.problems
    counts = Counter(image.class_name for image in inspection.images)
    by_class = {name: counts[name] for name in inspection.classes}
    modes = _count(inspection, lambda image: image.mode)
    formats = _count(inspection, lambda image: image.format)
    straddling = tuple(_straddling(inspection, rows))
    cure = "`colour: grey` hides it" if settings.colour == "grey" else "set `colour: grey` to hide it"
    return DataCheck(
        images_by_class=by_class,
        imbalance_ratio=_ratio(list(by_class.values())),
        width=_range([image.width for image in inspection.images]),
        height=_range([image.height for image in inspection.images]),
        modes_by_class=modes,
        formats_by_class=formats,
        unreadable=inspection.unreadable,
        exact_duplicates=inspection.exact_duplicates,
        near_duplicates=inspection.near_duplicates,
        split=split_summary(rows) if rows else {},
        straddling=straddling,
        warnings=(
            *inspection.warnings,
            *_giveaway("mode", modes, f"{cure} from the network"),
            *_giveaway("format", formats, "traces of its compression may reach the network"),
            *_leaks(straddling),
        ),
        problems=tuple(problems),
    )


def _ratio(counts: list[int]) -> float:
    if not counts:
        return float("nan")
    return max(counts) / min(counts) if min(counts) else float("inf")


def _range(values: list[int]) -> SizeRange | None:
    return SizeRange(min(values), median_low(values), max(values)) if values else None


def _count(inspection: Inspection, of: Callable[[ImageFile], str]) -> dict[str, dict[str, int]]:
    return {
        name: dict(sorted(Counter(of(image) for image in inspection.images if image.class_name == name).items()))
        for name in inspection.classes
    }


def _giveaway(what: str, counts: dict[str, dict[str, int]], advice: str) -> Iterator[str]:
    """Warns when a property of the file, which no network should learn, tells the class."""
    accuracy, chance = _balanced_accuracy([values for values in counts.values() if values]), 1 / max(len(counts), 1)
    if accuracy >= chance + GIVEAWAY:
        yield (
            f"the {what} of a file alone tells its class with a balanced accuracy of {accuracy:.0%} "
            f"(chance: {chance:.0%}); {advice}"
        )


def _balanced_accuracy(counts: list[dict[str, int]]) -> float:
    """Of the best guess of the class from the value: counts of values, one dictionary per class."""
    shares = [{value: count / sum(values.values()) for value, count in values.items()} for values in counts]
    guessed = sum(max(share.get(value, 0.0) for share in shares) for value in {v for values in counts for v in values})
    return guessed / len(counts) if counts else 0.0


def _straddling(inspection: Inspection, rows: tuple[SplitRow, ...]) -> Iterator[tuple[tuple[str, str], ...]]:
    part_of = {row.file: row.part for row in rows}
    for cluster in inspection.near_duplicates if rows else ():
        if len({part_of[file] for file in cluster}) > 1:
            yield tuple((file, part_of[file]) for file in cluster)


def _leaks(straddling: tuple[tuple[tuple[str, str], ...], ...]) -> Iterator[str]:
    if straddling:
        yield (
            f"{len(straddling)} clusters of images that look alike lie in several parts of the split, "
            f"so that the network may be tested on what it has seen"
        )
