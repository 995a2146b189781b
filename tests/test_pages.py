"""The committed notebooks' pages in a browser: on a desk, a phone, in the dark and on paper, by keys and by axe."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import NAMES, lacking

from workbench.publish import glossary, report

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
PAGES = ["index", *NAMES, "decision", glossary.PAGE]
MOST = 1.2e6  # bytes a page


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """The report of the committed notebooks, as they ran."""
    out = tmp_path_factory.mktemp("report")
    for name in NAMES:
        shutil.copy(report.NOTEBOOKS / f"{name}.ipynb", out)
    report.publish(out)
    return out


@pytest.fixture
def show(browser, pages) -> Iterator:
    """Open a page in a window of its own."""
    opened = []

    def open_page(name: str, width: int = 1280, dark: bool = False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        opened.append(context)
        page = context.new_page()
        page.goto((pages / f"{name}.html").as_uri())
        return page

    yield open_page
    for context in opened:
        context.close()


def test_pages_are_light_and_their_links_lead_somewhere(pages):
    assert {path.stem for path in pages.glob("*.html")} == set(PAGES)
    weights = {name: (pages / f"{name}.html").stat().st_size for name in PAGES}
    print(json.dumps({"bytes": weights}))
    assert max(weights.values()) <= MOST


@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_sideways_on_a_phone_and_pictures_can_be_enlarged(show, name):
    page = show(name, 390)
    wide = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(wide) <= 0
    buttons = page.locator("figure button")
    assert buttons.count() == page.locator("figure").count()
    if buttons.count():
        picture = page.locator("figure img").first
        narrow = picture.bounding_box()["width"]
        buttons.first.press("Enter")
        assert picture.bounding_box()["width"] > 1.5 * narrow and page.evaluate(wide) <= 0
        assert page.locator("figure").first.get_attribute("tabindex") == "0", "it scrolls by keys"


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_and_its_picture_stand_before_all_code_and_one_switch_opens_it(show, name):
    page = show(name)
    answer = page.locator(".answer").first
    assert answer.bounding_box()["y"] < 900, "on the first screen"
    code = page.locator("details.code")
    assert page.locator("#finding img").count() == 1 and code.first.bounding_box()["y"] > answer.bounding_box()["y"]
    assert not page.locator("details.code[open]").count()
    page.get_by_role("button", name="Show all code").press("Enter")
    assert page.locator("details.code[open]").count() == code.count()
    page.get_by_role("button", name="Hide all code").press("Space")
    assert not page.locator("details.code[open]").count()


def test_the_dark_scheme_is_dark_but_for_pictures(show):
    light = """selector => { const colour = getComputedStyle(document.querySelector(selector)).backgroundColor;
        return colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0); }"""
    page, day = show("00_overview", dark=True), show("00_overview")
    assert page.evaluate(light, "body") < 150 < 700 < day.evaluate(light, "body")
    assert page.evaluate(light, "figure") > 700


def test_folded_code_is_not_printed(show):
    page = show("00_overview")
    page.emulate_media(media="print")
    assert not page.locator("summary", has_text="Code, ").first.is_visible() and not page.locator("header").is_visible()
    assert page.locator(".answer").first.is_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(show, name, dark):
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        lacking("no axe (pip install axe-playwright-python)")
    page = show(name, dark=dark)
    if page.locator(".tools button").count():
        page.locator(".tools button").click()  # code is read, too
    found = Axe().run(page).response["violations"]
    told = [f"{v['impact']}: {v['help']}, {len(v['nodes'])} times, as {v['nodes'][0]['html'][:200]}" for v in found]
    assert [one for one in told if one.startswith(("serious", "critical"))] == [], told
