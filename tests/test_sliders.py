"""Sliders in a published page: what is packed, how a page shows it, and in a browser that they move it."""

import base64
import hashlib
import itertools
import json
import re
import time
from pathlib import Path

import hostile
import numpy as np
import pytest
from nbformat import from_dict, v4
from refusal import refused
from test_escape import Read
from test_money import panel as money_panel

from workbench import escape, metrics
from workbench.publish import notebook as nb_
from workbench.publish import report
from workbench.show import money
from workbench.show.frames import FRAMES, MOST, Dial, first, pack

DIALS = [Dial("price ($)", "of 1,000", ["1", "2", "5"], 1), Dial("day ($)", "of a person", ["10", "20"], 0)]


def packed(name: str = "teacher") -> dict:
    """Six frames, a sentence and two bars each; the name stands wherever a name can."""
    dials = [Dial(f"price {name}", name, ["1", name, "5"], 1), DIALS[1]]
    rows = [[f"{a} {b} {name}", (name, 0.1 * a, f"{a} {name}"), ("student", 0.5, f"{b}")]
            for a, b in itertools.product((1, 2, 5), (10, 20))]  # fmt: skip
    return pack(f"costs of {name}", dials, rows, ["#000000", "#0072B2"])


def shown(found: dict, *at: int) -> list[str]:
    """The lines at these stops, as the dials would have it if they stood there."""
    moved = [dial | {"at": stop} for dial, stop in zip(found["dials"], at, strict=True)]
    return first(found | {"dials": moved})


def published(folder: Path, *bundles: dict, tag: str = "decision") -> dict[str, str]:
    """The pages of a report of one notebook with these outputs."""
    cells = [v4.new_code_cell("1", outputs=[v4.new_output("display_data", bundle)]) for bundle in bundles]
    for cell in cells:
        cell.metadata["tags"] = [tag]
    made = v4.new_notebook(cells=[v4.new_markdown_cell("# Money\n\n> Does it pay?"), *cells])
    run = {"parameters": {"task_name": "t"}, "device": "d", "versions": {}, "commit": "c", "budget": "laptop"}
    run |= {"date": "2026-11-28T00:00:00+00:00", "seconds": 1.0, "answer": None, "error": None}
    made.metadata.workbench = from_dict(run | {"code": nb_.code_hash(made)})
    for place in ("notebooks", "out"):
        (folder / place).mkdir(parents=True)
        nb_.save(made, folder / place / "00_money.ipynb")
    report.publish(folder / "out", folder / "notebooks")
    return {path.stem: path.read_text(encoding="utf-8") for path in (folder / "out").glob("*.html")}


def data_of(page: str) -> list[dict]:
    return [json.loads(found["data-frames"]) for tag, found in Read(page).tags if "data-frames" in found]


def test_each_combination_of_stops_finds_its_lines_again():
    found = packed()
    for (i, a), (j, b) in itertools.product(enumerate((1, 2, 5)), enumerate((10, 20))):
        bar = f"teacher\t{10 * a}\t{a} teacher"
        assert shown(found, i, j) == [f"{a} {b} teacher", bar, f"student\t50\t{b}"]
    assert first(found)[0] == "2 10 teacher"
    assert len(found["lines"].split("\n")) == 6 + 3 + 2, "a line that comes again is kept once"


@pytest.mark.parametrize("name", [*hostile.NAMES, hostile.NUL, "tab\tand\nline"])
def test_a_name_in_a_frame_is_text(name):
    cell = v4.new_code_cell(outputs=[v4.new_output("display_data", {FRAMES: packed(name), "text/plain": name})])
    page = escape.sanitise(nb_.outputs([cell], name))
    told = escape.visible(name)
    assert data_of(page) == [packed(name)] and data_of(page)[0]["dials"][0]["stops"][1] == told
    assert shown(packed(name), 1, 0)[:2] == [f"2 10 {told}", f"{told}\t20\t2 {told}"]
    read = Read(page)
    assert {tag for tag, _ in read.tags} == {"section", "div", "label", "output", "p", "span"}
    assert {key for _, found in read.tags for key in found} == {"class", "data-frames", "style", "title"}
    assert " ".join(read.text.split()).count(told) >= 5


def test_a_page_lets_our_script_alone_run_and_only_where_there_are_frames(tmp_path):
    from test_report import check_standalone

    bundle = {FRAMES: packed(), "image/png": "AAAA", "text/plain": "a panel"}
    forged = {"text/html": "<b>&lt;section data-frames=&quot;{}&quot;&gt;</b><script>window.hit=1</script>"}
    for page in published(tmp_path / "with", bundle, forged).values():
        policy = re.search(r'Content-Security-Policy" content="(.+?)"', page, re.DOTALL)[1]
        inside = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
                  for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)]  # fmt: skip
        sources = [part.split()[1:] for part in policy.split(";") if part.split()[0] == "script-src"]
        assert sources == [[f"'sha256-{code}'" for code in inside]] and len(inside) == 1 + nb_.moves(page)
        assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'", "")
        check_standalone(page)
    pages = published(tmp_path / "without", forged, {"text/plain": '<section data-frames="{}">'})
    assert set(pages) == {"index", "00_money", "decision", "glossary"}
    assert not [name for name, page in pages.items() if nb_.MOVER in page or page.count("<script") != 1]


def test_the_decision_is_the_last_page_but_the_glossary_and_has_no_code(tmp_path):
    pages = published(tmp_path / "a", {FRAMES: packed()}, {"text/plain": "what it hangs on"})
    assert nb_.moves(pages["decision"]) and nb_.moves(pages["00_money"]) and not nb_.moves(pages["index"])
    assert "what it hangs on" in pages["decision"] and 'class="highlight"' not in pages["decision"]
    assert all(page.index('href="00_money.html"') < page.index('href="decision.html"') for page in pages.values())
    assert set(published(tmp_path / "b", {"text/plain": "x"}, tag="other")) == {"index", "00_money", "glossary"}


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([["a", ("b", 0.5, "c")]] * 5, "5 frames for 6 combinations"),
        ([["a", ("b", 0.5, "c")]] * 5 + [["a", "b"]], "built in 2 ways"),
        ([["a", "b"]] * 6, "1 bars"),
        ([[f"{i}" * MOST, ("b", 0.5, "c")] for i in range(6)], "give fewer stops"),
    ],
)
def test_frames_that_no_page_could_turn_are_refused(rows, part):
    with refused(part):
        pack("costs", DIALS, rows, ["#000000"])


def test_the_stops_of_a_price_are_round_and_hold_the_first_value():
    assert money.stops(0.0108, 9.75, 0.325, 11) == [0.02, 0.05, 0.1, 0.2, 0.325, 1, 2, 5]
    assert money.stops(1e4, 1e9, 1e6, 11) == [m * 10.0**k for k in range(4, 9) for m in (1, 3)] + [1e9]
    assert len(money.stops(1e-5, 10, 1e-3, 11)) == 7


def test_a_frame_of_prices_says_what_the_panel_would(tmp_path):
    panel = money_panel([])
    bundle, _ = panel._repr_mimebundle_()
    found, stops = bundle[FRAMES], [money.stops(*values[2:], panel.STOPS) for values in panel.sliders.values()]
    assert [of[dial["at"]] for of, dial in zip(stops, found["dials"], strict=True)] == [0.3, 1e-3]
    for at in itertools.product(*(range(len(of)) for of in stops)):
        values = {name: of[i] for name, i, of in zip(panel.sliders, at, stops, strict=True)}
        decided, ways = panel.costs(**values)
        said, *bars = shown(found, *at)
        assert said == decided
        lengths = np.array([int(bar.split("\t")[1]) for bar in bars])
        shares = np.log10([dollars / 0.01 for _, dollars, _ in ways]) / 3  # the bars run from $ 0.01 to 10
        assert abs(lengths - 100 * shares).max() <= 0.51
        assert all(bar.startswith(f"{way}\t") and bar.endswith(words)
                   for bar, (way, _, words) in zip(bars, ways, strict=True))  # fmt: skip
    assert bundle["image/png"] and bundle["application/vnd.jupyter.widget-view+json"], "Lab shows the live one"


def test_a_frame_of_a_temperature_is_the_softmax_at_it():
    from test_panels import temperature_panel  # torch takes a second to import

    panel = temperature_panel()
    found = panel.frames()
    texts, levels = (dial["stops"] for dial in found["dials"])
    assert texts[found["dials"][0]["at"]] == panel.texts[panel.example.value] and levels[found["dials"][1]["at"]] == "2"
    for at in itertools.product(range(len(texts)), (0, 7, len(levels) - 1)):
        said, *rest = shown(found, *at)
        row = panel.texts.index(texts[at[0]])
        soft = metrics.softmax(panel.logits[[row]], float(levels[at[1]]))[0]
        bars = [line.split("\t") for line in rest if "\t" in line]
        assert said.startswith(f"T = {levels[at[1]]}; entropy ")
        percent = [float(words.removesuffix(" %")) for _, _, words in bars]
        assert percent == pytest.approx(100 * np.sort(soft)[::-1], abs=0.5)  # stops are told in three digits
        assert len(rest) - len(bars) == panel.NEIGHBOURS


STATE = """() => ({outputs: [...document.querySelectorAll('.dial output')].map(o => o.textContent),
    lines: [...document.querySelectorAll('.line')].map(line => line.innerText),
    widths: [...document.querySelectorAll('.bar > span > span')].map(bar => bar.getBoundingClientRect().width)})"""


def open_page(browser, path: Path, **options: object):
    """The page, other addresses that it asks for, and what the browser complains of."""
    page = browser.new_context(**options).new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    return page, asked, said


@pytest.mark.long
def test_a_slider_moved_by_keys_changes_number_and_picture_without_a_kernel(browser, tmp_path):
    from test_panels import temperature_panel

    bundles = [panel._repr_mimebundle_()[0] for panel in (money_panel([]), temperature_panel(hostile.NAMES))]
    published(tmp_path, *({FRAMES: bundle[FRAMES]} for bundle in bundles))
    page, asked, said = open_page(browser, tmp_path / "out" / "decision.html")
    before = page.evaluate(STATE)
    assert len(page.get_by_role("slider").all()) == 4
    slider = page.get_by_role("slider", name="price ($)")
    while page.evaluate("document.activeElement.type") != "range":
        page.keyboard.press("Tab")
    for key in ("ArrowRight", "End"):
        began = time.perf_counter()
        page.keyboard.press(key)
        after = page.evaluate(STATE)
        print({"slider_to_picture_ms": round(1000 * (time.perf_counter() - began), 1)})
        assert after["outputs"][0] != before["outputs"][0] == "0.3"
        assert after["lines"][1] != before["lines"][1] and after["widths"][0] > before["widths"][0] > 0
        assert slider.get_attribute("aria-valuetext") == after["outputs"][0]
        assert after["lines"][3:] == before["lines"][3:], "the other panel stays"
    assert after["outputs"][0] == "10" and "distil" in after["lines"][0]
    took = page.evaluate("""() => { const input = document.querySelector('input'), began = performance.now();
        for (let i = 0; i < 100; i++) { input.value = i % 5; input.dispatchEvent(new Event('input')); }
        document.body.getBoundingClientRect(); return (performance.now() - began) / 100; }""")
    print({"ms_a_frame": round(took, 2)})
    for name in ("text", "temperature T"):
        page.get_by_role("slider", name=name).press("End")
    last = page.evaluate(STATE)["lines"][3:]
    assert "T = 16;" in last[0] and "window.hit" in " ".join(last)
    assert page.evaluate("window.hit === undefined") and not page.locator(".frames").locator("script, img").count()
    assert asked == [(tmp_path / "out" / "decision.html").as_uri()] and said == []
    page.context.close()


@pytest.mark.long
def test_without_a_script_the_first_frame_stands_there(browser, tmp_path):
    published(tmp_path, {FRAMES: packed()})
    page, _, said = open_page(browser, tmp_path / "out" / "decision.html", java_script_enabled=False)
    text = page.locator(".frames").inner_text()
    assert not page.locator("input").count() and said == []
    assert "2 10 teacher" in text and "student" in text and re.search(r"day \(\$\)\s*10", text)
    widths = [page.locator(".bar > span > span").nth(i).bounding_box()["width"] for i in range(2)]
    assert widths[1] == pytest.approx(2.5 * widths[0], rel=0.02)
    page.context.close()


@pytest.mark.long
def test_a_script_of_anybody_else_stays_out(browser, tmp_path):
    """The policy itself, on a page that nobody sanitised."""
    published(tmp_path, {FRAMES: packed()})
    path = tmp_path / "out" / "decision.html"
    live = f"{hostile.NAMES[0]}{hostile.NAMES[1]}{hostile.NAMES[13]}</main>"
    path.write_text(path.read_text(encoding="utf-8").replace("</main>", live), encoding="utf-8")
    page, _, said = open_page(browser, path)
    page.get_by_role("slider").first.wait_for()
    assert page.evaluate("window.hit === undefined") and len(said) >= 2  # refused, aloud
    page.context.close()
