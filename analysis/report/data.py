"""What was learnt from, and everything that is needed to do it again."""

from analysis.parts import Parts
from analysis.report.page import Block, Code, Facts, Gallery, Section, Table, Warnings
from analysis.report.run import Run
from analysis.report.wording import count, number, several
from search.safe_yaml import to_yaml


def data(run: Run) -> Section:
    """Images, parts, leaks, a few pictures."""
    findings = ["The split is not there: `split.csv` is missing or cannot be read."]
    blocks: list[Block] = []
    if run.parts is not None:
        leaks = _leaks(run.parts)
        verdict = "The split leaks." if leaks else "No group and no file is in two parts."
        findings = [_how_much(run.parts), verdict, *_groups(run)]
        blocks += [*([Warnings(leaks)] if leaks else []), _counts(run.parts)]
    note = "No pictures: the decoded images are not in the run folder any more, or not yet."
    if run.images:
        blocks.append(Gallery(run.images))
        note = "The pictures are training images as decoded for the study; images of the test part are never shown."
    return Section("data", "The images and their split", findings, blocks, note)


def _how_much(parts: Parts) -> str:
    images = sum(sum(classes.values()) for classes in parts.images.values())
    classes = len(next(iter(parts.images.values()), {}))
    groups = count(sum(parts.groups.values()), "group")
    return f"{count(images, 'image')} of {count(classes, 'class')}, in {groups} that the split keeps together."


def _leaks(parts: Parts) -> list[str]:
    torn, repeated = parts.torn_groups, parts.repeated_files
    sentences = []
    if torn:
        sentences.append(f"{count(len(torn), 'group')} with images in several parts: {several(torn)}.")
    if repeated:
        sentences.append(f"{count(len(repeated), 'file')} with the same bytes in another part: {several(repeated)}.")
    return sentences


def _groups(run: Run) -> list[str]:
    """What the groups are worth; nothing where they came with the images."""
    groups = run.config.data.get("groups") if isinstance(run.config.data, dict) else None
    if groups == "none":
        return ["The split was made image by image: images of one person may be in training and in test."]
    if groups == "near_duplicates":
        alike = "Groups are clusters of look-alike images: copies and neighbouring slices stay together, two images of"
        return [f"{alike} one person that look different may not."]
    return []


def _counts(parts: Parts) -> Table:
    classes = list(next(iter(parts.images.values()), {}))
    rows = [
        (part, number(sum(images.values())), number(parts.groups[part]), *(number(images[name]) for name in classes))
        for part, images in parts.images.items()
    ]
    return Table(["part", "images", "groups", *classes], rows)


def repetition(run: Run) -> Section:
    """Versions, fingerprints, seeds, commands, the study file."""
    facts = [
        ("seed", str(run.config.seed)),
        ("data fingerprint", run.record.get("data", {}).get("fingerprint") or "not recorded"),
        ("weights sha256", run.record.get("weights_sha256") or "none: random weights"),
    ]
    versions = [(name, str(version)) for name, version in run.record.get("versions", {}).items()]
    commands = [
        "# with the file below as study.yaml",
        f"thawline search study.yaml --name {run.name} --final",
        f"thawline report {run.name}",
    ]
    return Section(
        "repeat",
        "To do it again",
        [
            "On one worker, the same study file, images, weights and versions give the same table.",
            "Several workers finish in another order each time, and what is suggested next depends on what has ended.",
        ],
        [
            Table(["made from", "value"], facts),
            Facts(versions),
            Code("Commands", "\n".join(commands)),
            Code("study.yaml", to_yaml(run.config.settings())),
        ],
    )
