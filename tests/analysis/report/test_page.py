import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from analysis.plot_style import canvas
from analysis.report.page import (
    Cell,
    Code,
    Facts,
    Gallery,
    LiveTable,
    Page,
    Plot,
    Section,
    Table,
    Warnings,
    _unbroken,
    content_policy,
    script_safe,
)

EVIL = "</script><script>alert(1)</script><!--&'\""


class Elements(HTMLParser):
    """Every element with its attributes and the text in it."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes), ""))

    def handle_data(self, data):
        self.text += data
        if self.found:
            tag, attributes, before = self.found[-1]
            self.found[-1] = (tag, attributes, before + data)

    def all(self, tag, **attributes):
        return [each for each in self.found if each[0] == tag and attributes.items() <= each[1].items()]


def evil_page():
    figure = canvas(200)
    figure.add_scatter(x=[1, None], y=[2, float("nan")], name=EVIL)
    blocks = [
        Plot(EVIL, figure, EVIL),
        Facts([(EVIL, EVIL)]),
        Table([EVIL], [[EVIL]], EVIL),
        LiveTable(EVIL, [EVIL, "number"], frozenset([EVIL]), [[Cell(EVIL, EVIL), Cell("1", 1)], [Cell("", None)] * 2]),
        Gallery({EVIL: [b"png"]}),
        Code(EVIL, EVIL),
        Warnings([EVIL]),
    ]
    return Page(EVIL, EVIL, [EVIL], [Section("answer", EVIL, [f"{EVIL} `{EVIL}`"], blocks, EVIL)]).render()


@pytest.fixture(scope="module")
def page():
    return evil_page()


@pytest.fixture(scope="module")
def elements(page):
    return Elements(page)


def test_no_text_becomes_markup(elements):
    assert "alert(1)" in elements.text
    assert all("alert(1)" not in attributes.get("src", "") for _, attributes, _ in elements.found)
    scripts = elements.all("script")
    assert len(scripts) == 4  # a figure, the dark colours, Plotly, the page's own
    assert [attributes.get("type") for _, attributes, _ in scripts] == ["application/json"] * 2 + [None] * 2


def test_the_figure_in_the_page_is_the_figure(elements):
    ((_, _, text),) = elements.all("script", id="figure-1-1")
    assert json.loads(text)["data"][0]["name"] == EVIL


def test_the_policy_lets_run_exactly_the_scripts_of_the_page(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1).replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_nothing_is_fetched_from_anywhere(elements):
    addresses = [
        value for _, attributes, _ in elements.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)


def test_numbers_are_sorted_as_numbers_and_columns_of_numbers_are_told(elements):
    assert [attributes["data-value"] for _, attributes, _ in elements.all("td") if "data-value" in attributes] == ["1"]
    heads = {
        attributes["data-name"]: attributes["class"].split()
        for _, attributes, _ in elements.all("th")
        if "data-name" in attributes
    }
    assert heads == {EVIL: ["extra"], "number": ["numeric"]}


def test_code_between_backticks_is_set_as_code():
    assert any(text.startswith("thawline") for _, _, text in Elements(
        Page("t", "k", [], [Section("answer", "a", ["say `thawline x` now"])]).render()
    ).all("code"))  # fmt: skip


def test_policy_and_json_are_what_a_browser_takes():
    assert content_policy(["a"]).count("sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=") == 1
    assert script_safe(json.dumps({"a": "</script>&"})) == '{"a": "\\u003c/script\\u003e\\u0026"}'


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("95 % of 3 s", "95\u00a0% of 3\u00a0s"),
        ("0.8 ± 0.1", "0.8\u00a0±\u00a00.1"),
        ("0.85 [0.79, 0.90]", "0.85\u00a0[0.79,\u00a00.90]"),
        ("at 1.5e-4 < 2", 'at <span class="one">1.5e-4</span> &lt; 2'),
        ("3 trials, 4 more", "3 trials, 4 more"),
    ],
)
def test_lines_do_not_end_inside_a_quantity(text, kept):
    assert _unbroken(text) == kept
