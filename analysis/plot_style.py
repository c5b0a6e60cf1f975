"""How interactive plots look: colours for light and dark, one template, and text that stays text."""

import html
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]  # ships no types

# Okabe and Ito 2008: told apart with any colour vision.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
BLUE, ORANGE = PALETTE[:2]
INK, QUIET, FAINT, PAPER = "#1f2a33", "#6a7680", "#dfe4e8", "#ffffff"
RED = "#B3261E"
SCALE = ["#e3edf4", "#a9cbe2", "#5fa3cb", "#0072B2", "#003d63"]
"""From worst to best value."""
STATUS = {"completed": BLUE, "pruned": "#9aa5ae", "failed": RED, "running": "#E69F00", "waiting": FAINT}

DARK = {
    "#0072B2": "#5db7ea",
    "#D55E00": "#f2935c",
    "#009E73": "#3fc79c",
    "#CC79A7": "#e29cc4",
    "#E69F00": "#f0b840",
    "#56B4E9": "#9ad4f5",
    INK: "#e4e9ed",
    QUIET: "#93a0aa",
    FAINT: "#313b43",
    PAPER: "#171d22",
    RED: "#f28b82",
    "#9aa5ae": "#6d7983",
    "#e3edf4": "#232d35",
    "#a9cbe2": "#26506b",
    "#5fa3cb": "#347ca8",
    "#003d63": "#c4e6fa",
}
"""What each colour of a plot becomes on a dark page; the page's script swaps them."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
LONGEST_LABEL = 40
NUMBER = ".4~g"
"""How hover texts show a value."""
MANY = 150
"""Above so many marks each is drawn smaller and fainter."""

_AXIS: Any = {
    "gridcolor": FAINT,
    "linecolor": FAINT,
    "zeroline": False,
    "automargin": True,
    "ticks": "",
    "tickfont": {"color": QUIET},
    "title": {"font": {"color": QUIET, "size": 13}, "standoff": 10},
}
_TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "colorway": PALETTE,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hovermode": "closest",
        "dragmode": False,  # a finger on a plot scrolls the page
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": QUIET, "font": {"color": INK, "family": FONT}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": QUIET}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": INK},
    }
)


def canvas(height: int = 380, **layout: Any) -> go.Figure:
    """An empty plot of the house, `height` pixels high and as wide as its place."""
    return go.Figure(layout={"template": _TEMPLATE, "height": height, **layout})


def plain(text: object, longest: int = LONGEST_LABEL) -> str:
    """Text for a label, one line, at most so long, in which Plotly finds none of the HTML that it would obey."""
    line = "".join(character if character.isprintable() else " " for character in str(text)).strip()
    return html.escape(line if len(line) <= longest else line[: longest - 1] + "…", quote=False)


def dot(count: int) -> dict[str, Any]:
    """The mark of one of so many results."""
    return {"color": QUIET, **({"size": 6, "opacity": 0.75} if count <= MANY else {"size": 4, "opacity": 0.3})}


def hover(what: str, name: str = "%{y}") -> str:
    """Of a row: its name, what the mark is, its value."""
    return f"{name}, {what}: %{{x:{NUMBER}}}<extra></extra>"


def hover_point() -> str:
    """Of a mark: its height and place."""
    return f"%{{y:{NUMBER}}} at %{{x:{NUMBER}}}<extra></extra>"
