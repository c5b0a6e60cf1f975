"""The report in a real browser that reaches no network: it draws, sorts, filters, fits, and obeys no name."""

import json
import shutil

import pytest

from analysis.report import write_comparison, write_report
from analysis.report.run import read_run
from tests.fakes.drawn_study import Drawing, draw_run

pytestmark = pytest.mark.slow

SCRIPT = "<script>document.title='owned'</script>"
HOSTILE = Drawing(
    classes=("<script>alert(1)<", "<b>well< %{x}"), failure=f"{SCRIPT}<img src=x onerror=alert(1)>", worker="<i>host<"
)
WAIT = 90  # seconds; drawing takes three on an idle machine


def _browser():
    """Chromium and its driver, or a skip that says what is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver; `make test` installs them where it may")
    return chromium, driver


@pytest.fixture(scope="module")
def chrome():
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    chromium, driver = _browser()
    options = Options()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.set_script_timeout(WAIT)
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = draw_run(tmp_path_factory.mktemp("runs") / "hostile", HOSTILE)
    return write_report(run)


def resize(chrome, width):
    chrome.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600},
    )


def prefer(chrome, scheme):
    wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}  # or a click would chase its target
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def show(chrome, report, width=1440, scheme="light"):
    """Opens the page and waits until its last plot is drawn."""
    resize(chrome, width)
    prefer(chrome, scheme)
    chrome.get(report.as_uri())
    wait_until(chrome, "return document.documentElement.dataset.drawn === 'all'")


def wait_until(chrome, script):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(chrome, WAIT).until(lambda browser: browser.execute_script(script))


@pytest.fixture(scope="module")
def page(chrome, report):
    """Shown on a wide, light screen; tests of the table begin from here and put back what they change."""
    show(chrome, report)
    return chrome


def test_every_plot_is_drawn_and_nothing_is_complained_of(page):
    drawn = page.execute_script(
        "return [...document.querySelectorAll('.drawing')].map((e) => e.querySelectorAll('svg.main-svg').length)"
    )
    assert len(drawn) >= 15
    assert min(drawn) >= 1
    marks = page.execute_script("return document.querySelectorAll('.drawing svg path').length")
    assert marks > 500
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")] == []


def test_nothing_but_the_file_itself_is_asked_for(page, report):
    show(page, report)
    asked = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    addresses = {m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"}
    assert {address.partition(":")[0] for address in addresses} <= {"file", "data", "blob"}
    assert report.as_uri() in addresses


def test_the_policy_keeps_out_a_script_that_is_not_the_reports_own(page):
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.injected = 1'; document.body.append(s);"
        "const i = document.createElement('img'); i.src = 'https://example.org/x.png'; document.body.append(i);"
    )
    assert page.execute_script("return window.injected ?? null") is None
    messages = " ".join(entry["message"] for entry in page.get_log("browser"))
    assert "script-src" in messages
    assert "img-src" in messages


def test_names_that_look_like_code_stay_text(page):
    from selenium.common.exceptions import NoAlertPresentException

    with pytest.raises(NoAlertPresentException):
        page.switch_to.alert.accept()
    assert page.title.startswith("hostile")
    text = page.execute_script("return document.body.textContent")
    assert SCRIPT in text
    assert (
        page.execute_script(
            "return document.querySelectorAll('main script:not([type]), main img[onerror], main b').length"
        )
        == 0
    )
    drawn = page.execute_script(
        "return [...document.querySelectorAll('.drawing svg text')].map((e) => e.textContent).join('|')"
    )
    assert "<script>alert(1)<" in drawn
    assert "<b>well< %{x}" in drawn


def numbers(page):
    """Trial numbers in the order of the rows that are shown."""
    rows = "[...document.querySelectorAll('.live tbody tr:not([hidden])')]"
    return page.execute_script(f"return {rows}.map((row) => Number(row.cells[0].textContent))")


def values(page):
    return page.execute_script(
        "return [...document.querySelectorAll('.live tbody tr')].map((r) => r.cells[2].dataset.value ?? null)"
    )


def column(page, name):
    return page.find_element("css selector", f".live th[data-name='{name}']")


def test_the_table_sorts_by_click_and_by_key_with_missing_values_last(page):
    from selenium.webdriver.common.keys import Keys

    head = column(page, "value")
    head.find_element("tag name", "button").click()
    rising = values(page)
    known = [float(value) for value in rising if value is not None]
    assert known == sorted(known)
    assert rising[len(known) :] == [None] * 2
    assert head.get_attribute("aria-sort") == "ascending"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    falling = values(page)
    assert [float(value) for value in falling[: len(known)]] == sorted(known, reverse=True)
    assert falling[len(known) :] == [None] * 2
    assert head.get_attribute("aria-sort") == "descending"
    column(page, "number").find_element("tag name", "button").send_keys(Keys.SPACE)
    assert numbers(page) == list(range(24))
    assert head.get_attribute("aria-sort") == "none"


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("status=failed", {10, 21}),
        ("status!=failed number<12", set(range(12)) - {10}),
        ("number>=22", {22, 23}),
        ("number<=1.5", {0, 1}),
        ("value>2", set()),
        ("onerror", {10, 21}),
        ("", set(range(24))),
    ],
)
def test_the_table_filters_as_one_types(page, text, keeps):
    field = page.find_element("css selector", ".live input[type=search]")
    field.clear()
    field.send_keys(text or " ")
    assert set(numbers(page)) == keeps
    told = page.find_element("css selector", ".live output").text
    assert told == f"{len(keeps)} of 24 rows"


def test_a_filter_on_a_column_that_is_not_there_says_so_and_hides_nothing(page):
    field = page.find_element("css selector", ".live input[type=search]")
    field.clear()
    field.send_keys("valeu>0.5")
    assert page.find_element("css selector", ".live output").text == "no such column"
    assert field.get_attribute("aria-invalid") == "true"
    assert len(numbers(page)) == 24
    field.clear()
    field.send_keys(" ")


def test_more_columns_come_when_asked_for(page):
    from selenium.webdriver.common.keys import Keys

    seed = column(page, "seed")
    assert not seed.is_displayed()
    page.find_element("css selector", ".live input[type=checkbox]").send_keys(Keys.SPACE)
    assert seed.is_displayed()
    page.find_element("css selector", ".live input[type=checkbox]").send_keys(Keys.SPACE)


def test_the_keyboard_reaches_contents_filter_heads_and_whatever_scrolls(page):
    reached = page.execute_script(
        "return [...document.querySelectorAll('nav a, .live input, .live th button, .scroll, pre')]"
        ".filter((e) => e.offsetParent && e.tabIndex < 0).length"
    )
    assert reached == 0
    assert page.find_element("css selector", "a.skip").get_attribute("href").endswith("#answer")


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_is_never_wider_than_the_screen(page, report, width):
    show(page, report, width=width)
    assert page.execute_script("return document.documentElement.scrollWidth") == width
    outside = page.execute_script(
        "return [...document.querySelectorAll('main p, main figure, main dl, main .scroll, .drawing svg')]"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


def test_a_dark_page_has_dark_plots_and_follows_the_system(page, report):
    def ink():
        return page.execute_script(
            "const text = document.querySelector('.drawing svg .g-xtitle text, .drawing svg .xtitle');"
            "return [getComputedStyle(document.body).backgroundColor, text.style.fill]"
        )

    show(page, report)
    paper, label = ink()
    assert paper == "rgb(255, 255, 255)"
    prefer(page, "dark")
    wait_until(page, f"return document.querySelector('.drawing svg .xtitle').style.fill !== '{label}'")
    assert ink()[0] == "rgb(23, 29, 34)"
    prefer(page, "light")
    wait_until(page, f"return document.querySelector('.drawing svg .xtitle').style.fill === '{label}'")


def test_printing_is_on_light_paper_and_leaves_the_screen_as_it_was(page, report):
    show(page, report, scheme="dark")
    width = "return document.querySelector('.drawing svg').getAttribute('width')"
    before = page.execute_script(width)
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script(width) == "660"
    assert (
        page.execute_script("return document.querySelector('.drawing svg .xtitle').style.fill") == "rgb(106, 118, 128)"
    )
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    wait_until(page, f"return document.querySelector('.drawing svg').getAttribute('width') === '{before}'")


def test_a_study_that_has_barely_begun_makes_a_page_without_complaints(chrome, tmp_path):
    begun = Drawing(trials=3, open_trials=2, failing=0, reruns=0, evaluated=False)
    show(chrome, write_report(draw_run(tmp_path / "begun", begun)))
    assert [entry for entry in chrome.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")] == []
    assert "Too few trials to tell" in chrome.find_element("id", "importance").text


def test_a_comparison_is_drawn_without_complaints_and_fits_a_phone(chrome, report, tmp_path):
    runs = [read_run(report.parent, {}), read_run(draw_run(tmp_path / "other", Drawing(trials=12, seed=1)), {})]
    show(chrome, write_comparison(runs, tmp_path / "comparison.html"), width=390)
    assert [entry for entry in chrome.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")] == []
    assert chrome.execute_script("return document.querySelectorAll('.drawing svg.main-svg').length") >= 6
    assert chrome.execute_script("return document.documentElement.scrollWidth") == 390


def test_without_chromium_the_tests_are_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="needs chromium"):
        _browser()
