"""One offline HTML file from sections of plain values: nothing from outside, no text taken for code."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

import jinja2
import plotly.graph_objects as go  # type: ignore[import-untyped]  # ships no types
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from analysis.plot_style import DARK

TEMPLATES = Path(__file__).parents[1] / "templates"


@dataclass(frozen=True)
class Plot:
    """A figure under a heading; `half` of the page's width where there is room."""

    kind: ClassVar[str] = "plot"
    title: str
    figure: go.Figure
    note: str = ""
    half: bool = False

    @property
    def data(self) -> Markup:
        """The figure as JSON that no HTML parser finds an end of a script in."""
        return script_safe(self.figure.to_json())


@dataclass(frozen=True)
class Facts:
    """Names and values side by side."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Texts in columns; the first column names its row."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted and compared by; None for a missing value."""

    text: str
    value: str | float | None


@dataclass(frozen=True)
class LiveTable:
    """A table that the reader sorts and filters; columns in `extra` are hidden until asked for."""

    kind: ClassVar[str] = "live"
    caption: str
    columns: Sequence[str]
    extra: frozenset[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def numeric(self) -> set[str]:
        """Columns that hold numbers."""
        cells = zip(*self.rows, strict=True) if self.rows else iter(())
        return {
            name
            for name, column in zip(self.columns, cells, strict=False)
            if not any(isinstance(cell.value, str) for cell in column)
        }


@dataclass(frozen=True)
class Gallery:
    """PNG files by name."""

    kind: ClassVar[str] = "gallery"
    images: dict[str, list[bytes]]

    @property
    def sources(self) -> dict[str, list[str]]:
        return {
            name: [f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in files]
            for name, files in self.images.items()
        }


@dataclass(frozen=True)
class Code:
    """Text to copy, under a heading."""

    kind: ClassVar[str] = "code"
    title: str
    text: str


@dataclass(frozen=True)
class Warnings:
    """Sentences that must not be missed."""

    kind: ClassVar[str] = "warnings"
    sentences: Sequence[str]


Block = Plot | Facts | Table | LiveTable | Gallery | Code | Warnings


@dataclass(frozen=True)
class Section:
    """A question, what was found, and what shows it.

    Attributes:
        findings: Sentences; what is still missing is said here, too.
        note: How to read it, smaller.
    """

    anchor: str
    title: str
    findings: Sequence[str]
    blocks: Sequence[Block] = field(default_factory=tuple)
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A whole file.

    Attributes:
        facts: A line under the title.
        sections: The first one is the answer and stands out.
    """

    title: str
    kicker: str
    facts: Sequence[str]
    sections: Sequence[Section]

    def render(self) -> str:
        scripts = [_plotly(), _source("report.js")]
        return (
            _environment()
            .get_template("report.html.j2")
            .render(
                page=self,
                style=Markup(_source("report.css")),  # noqa: S704 - our own files
                scripts=[Markup(script) for script in scripts],  # noqa: S704
                policy=content_policy(scripts),
                dark=script_safe(json.dumps(DARK)),
            )
        )


def content_policy(scripts: Sequence[str]) -> str:
    """Only these very scripts run, and nothing is fetched from anywhere.

    Styles may be inline: Plotly places what it draws by them.
    """
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def script_safe(document: str) -> Markup:
    """JSON for a script element: what could end the element, or begin a comment in it, is written as an escape."""
    for character in "<>&":
        document = document.replace(character, f"\\u{ord(character):04x}")
    return Markup(document)  # noqa: S704 - just made safe


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    return environment


def _unbroken(text: str) -> Markup:
    """The text, escaped, with no line end before a unit, inside an interval or inside `1.5e-4`."""
    kept = re.sub(r"(?<=\d) (?=%|±|\[|s\b|min\b|h\b)|(?<=±) |(?<=\d,) (?=[-\d.]+\])", "\u00a0", text)
    return Markup(re.sub(r"\d[\d.]*e-\d+", r'<span class="one">\g<0></span>', str(escape(kept))))  # noqa: S704 - escaped


@cache
def _plotly() -> str:
    """Browsers hash a script after they made all its line ends one character."""
    return get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
