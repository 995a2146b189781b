"""Names that would do harm, through a report and JupyterLab, in a real browser: nothing runs, nothing is asked for.

What is looked at is what a browser made of it: scripts that ran, addresses that were asked, elements that are there.
"""

import json
from pathlib import Path

import hostile
import pytest
from lab import MINUTE, NAMES, smoke, smoke_report, write_notebook

from workbench import escape
from workbench.publish import ask, report
from workbench.publish import notebook as nb_

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
SHOWN = ["02", "03", "05"]  # of these notebooks 02 and 05 show the user's texts and names, 03 fills the index
TESTS = Path(__file__).parent
COLUMNS = {"text": "utterance", "label": "intent", "group": "group"}
# What no name may become, wherever outputs are shown. (JupyterLab itself links an address that is printed, as printed;
# JSON in a script's element is data, which runs nowhere.)
HARM = """root => ({
    hit: window.hit === undefined ? 'no' : 'yes',
    elements: [...root.querySelectorAll('script:not([type="application/json"]), form, base, iframe, object, embed, '
        + 'link, meta[http-equiv=refresh i]')].map(element => element.outerHTML.slice(0, 200)),
    links: [...root.querySelectorAll('a')].filter(a => !/^(https:..)?www.evil.invalid$|^https:..evil.invalid.$/
        .test(a.innerText)).map(a => a.getAttribute('href') || '')
        .filter(href => /^\\s*(javascript|data):|evil/i.test(href)),
    handlers: [...root.querySelectorAll('*')].filter(e => [...e.attributes].some(a => /^on/i.test(a.name)))
        .map(element => element.outerHTML.slice(0, 200)),
    formulas: root.querySelectorAll('mjx-container').length,
    headings: [...root.querySelectorAll('h1')].filter(h => h.innerText.includes('broken out')).length,
})"""
HARMLESS = {"hit": "no", "elements": [], "links": [], "handlers": [], "formulas": 0, "headings": 0}


@pytest.fixture(scope="module")
def csv(tmp_path_factory) -> Path:
    return hostile.write_csv(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def pages(csv, tmp_path_factory) -> Path:
    """The folder of a smoke run's pages on the hostile CSV, with columns of its own."""
    data = tmp_path_factory.mktemp("data")
    columns = [word for name, column in COLUMNS.items() for word in (f"--{name}", column)]
    done = smoke_report(data, "--task", f"csv:{csv}", *columns, "--only", *SHOWN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr and "\x00" not in done.stdout + done.stderr
    (out,) = (data / "reports").iterdir()
    return out


def read_page(browser, path: Path, script: str) -> tuple[dict, list[str], list[str], str]:
    """(what was found on it, other addresses that were asked, what the browser complained of, its text)."""
    page = browser.new_context().new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
    page.goto(path.as_uri(), wait_until="networkidle")
    for slider in page.get_by_role("slider").all():
        slider.press("End")
    found = page.locator("body").evaluate(script)
    ours = [f"<script>{script}</script>"[:200] for script in (nb_.SCRIPT, nb_.MOVER, ask.SCRIPT)]
    found["elements"] = [one for one in found["elements"] if one not in ours]
    text = " ".join(page.locator("body").evaluate("body => body.textContent").split())
    address = page.url
    page.context.close()
    assert address == path.as_uri()
    return found, [url for url in asked if url != path.as_uri() and not url.startswith("data:")], said, text


def test_no_page_runs_loads_or_sends_anything_and_names_read_as_written(browser, pages):
    shown = {}
    for path in sorted(pages.glob("*.html")):
        found, asked, said, shown[path.stem] = read_page(browser, path, HARM)
        assert found == HARMLESS and asked == [] and said == [], path.name
        assert "Smoke run" in shown[path.stem]
    assert shown.pop("glossary") and shown.keys() == {"index", *(name for name in NAMES if name[:2] in SHOWN)}
    assert "voice-commands" not in shown["index"]
    everything = " ".join(shown.values())
    names = [escape.visible(name) for name in hostile.NAMES]
    # pandas cuts a cell at 50 characters, and tables show the first few classes: below a page has them all
    assert sum(name[:45].strip() in everything for name in names) >= 20
    assert escape.visible(hostile.TITLE) in shown["index"]
    for path in pages.glob("*.ipynb"):  # beside the pages, for Lab and GitHub
        outputs = [output for cell in nb_.load(path).cells for output in cell.get("outputs", [])]
        for told in (output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})):
            assert not [name for name in hostile.NAMES if name[0] == "<" and name in told]


def test_a_live_page_would_be_caught(browser, tmp_path):
    """The check itself: a page without any protection fails it in every way."""
    path = tmp_path / "live.html"
    path.write_text("".join(f"<p>{name}</p>" for name in hostile.NAMES[:4]) + hostile.NAMES[5] + hostile.NAMES[12])
    found, asked, _, _ = read_page(browser, path, HARM)
    assert found["hit"] == "yes" and found["elements"] and found["handlers"] and found["headings"] == 1
    assert [url for url in asked if "evil.invalid" in url]


def test_the_card_is_text_even_where_nobody_sanitises(browser, csv, tmp_path, monkeypatch):
    from test_escape import plain_markdown
    from tiny import make_shipped

    from workbench.tasks import load_task
    from workbench.teachers import BagOfWords

    class Named(BagOfWords):
        licence = hostile.NAMES[1]

        def __init__(self, task):
            super().__init__(task)
            self.name = hostile.TITLE

    monkeypatch.setattr("tiny.BagOfWords", Named)
    folder = make_shipped(load_task(f"csv:{csv}", **COLUMNS, labels_per_class=3), tmp_path).folder
    card = (folder / "README.md").read_text(encoding="utf-8")
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    path = tmp_path / "card.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><body>{plain_markdown(body)}", encoding="utf-8")
    found, asked, said, text = read_page(browser, path, HARM)
    assert found == HARMLESS and asked == [] and said == []
    names = [escape.visible(name) for name in [*hostile.NAMES, hostile.TITLE]]
    assert [name for name in names if name not in text] == []
    assert "evil" not in head and hostile.TITLE in head  # the task's name stands there, as YAML


CELLS = [
    """import sys
sys.path.insert(0, {tests!r})
import hostile
import numpy as np
import pandas as pd
from workbench.publish import report
from workbench.show import figures, panels
from workbench.tasks import load_task
from workbench.errors import WorkbenchError
from workbench.language.problems import Problem, TraceView
task = load_task("csv:" + {csv!r}, text="utterance", label="intent", group="group")
names = task.label_names
task.test.to_pandas().assign(label=names[0])""",
    "pd.DataFrame({{'name': names, 'n': 1}}).set_index('name')",
    "report.answer('Classes: ' + ', '.join(names) + ' of ' + task.name, pd.DataFrame({{'class': names, 'n': 1}}))",
    "TraceView([Problem('hub:x', 1, name, name, name) for name in names[:8]], {{'model': list(names[:8])}})",
    "figures.class_similarity(np.eye(30) + 1.0, names)",
    """logits = np.eye(30)
panel = panels.ComparePanel(pd.DataFrame({{'accuracy': [1.0, 0.5], 'p50_ms': [1.0, 2.0]}}, index=['a', 'b']),
    {{'a': logits, 'b': logits[::-1]}}, list(names), np.arange(30), names)
panel""",
    "panels.TemperaturePanel(np.eye(30) + 0.1, list(names), names, truth=np.arange(30)[::-1])",
    "print(*names, sep='\\n')",
    "raise WorkbenchError('No such class: ' + ' '.join(names))",
]


def test_a_page_of_all_names_shows_each_as_it_was_written(browser, csv, tmp_path):
    from nbformat import v4

    sources = ['budget = "laptop"\ntask_name = "hostile"', *(c.format(tests=str(TESTS), csv=str(csv)) for c in CELLS)]
    made = v4.new_notebook(cells=[v4.new_markdown_cell("# Names\n\n> Who?"), *map(v4.new_code_cell, sources)])
    made.cells[1].metadata.tags = ["parameters"]
    folder = tmp_path / "notebooks"
    folder.mkdir()
    nb_.save(made, folder / "00_names.ipynb")
    (folder / "budgets.yaml").write_text("quick: {}\n")
    assert report.run(folder, data=tmp_path) == ["00_names"]  # its last cell raises, and no other
    ran = nb_.load(tmp_path / "reports" / "laptop" / "00_names.ipynb").cells
    assert [cell.execution_count is None for cell in ran if cell.cell_type == "code"] == [False] * len(sources)
    for page in ("index", "00_names"):
        found, asked, said, text = read_page(browser, tmp_path / "reports" / "laptop" / f"{page}.html", HARM)
        assert found == HARMLESS and asked == [] and said == []
        bold = text.replace("**", "")  # an answer's one markup
        assert [n for n in map(escape.visible, hostile.NAMES) if n.replace("**", "") not in bold] == []


def lab_evil(notebook) -> list[str]:
    asked = []
    notebook.page.on("request", lambda request: asked.append(request.url))
    return asked


def test_in_jupyterlab_nothing_runs_and_names_read_as_written(lab, open_notebook, csv):
    root = lab[2]
    write_notebook(root / "names.ipynb", *(c.format(tests=str(TESTS), csv=str(csv)) for c in CELLS))
    notebook = open_notebook("names")
    asked = lab_evil(notebook)
    notebook.start("notebook:run-all-cells")
    notebook.wait(
        """() => window.panel.content.widgets.map(cell => cell.model).filter(m => m.type === 'code')
            .every(m => m.executionCount)""",
        3,
    )
    notebook.page.locator(".jp-OutputArea", has_text="No such class").first.wait_for(timeout=3 * MINUTE)
    notebook.page.wait_for_timeout(3000)  # time in which something could run
    assert len(notebook.errors()) == 1
    areas = notebook.page.locator(".jp-Cell-outputArea")
    texts = [" ".join(text.split()) for text in areas.evaluate_all("areas => areas.map(area => area.textContent)")]
    for i in range(areas.count()):
        assert areas.nth(i).evaluate(HARM) == HARMLESS, CELLS[i]
    assert [url for url in asked if "evil" in url] == []
    wanted = [escape.visible(name).replace("**", "") for name in hostile.NAMES]  # bold is an answer's one markup
    for i in (2, 5, 8):  # the answer, the panel's list of classes, the error
        assert [name for name in wanted if name not in texts[i].replace("**", "")] == [], CELLS[i]
    plain = [name for name in hostile.NAMES if name == escape.visible(name)]
    assert [name for name in plain if " ".join(name.split()) not in texts[1]] == []  # a table of pandas


def test_a_notebook_on_such_a_task_runs_through_in_jupyterlab_and_a_slider_moved_by_keys_changes_its_picture(
    lab, open_notebook, csv
):
    columns = {"text_column": COLUMNS["text"], "label_column": COLUMNS["label"]}  # and no groups
    smoke("02_soft_labels", lab[2], saved="hostile", task_name=f"csv:{csv}", **columns)
    notebook = open_notebook("hostile")
    asked = lab_evil(notebook)
    notebook.run_through()
    handle = notebook.page.locator(".jp-OutputArea .noUi-handle").first
    handle.scroll_into_view_if_needed()
    handle.focus()
    taken = []
    for _ in range(5):
        notebook.page.evaluate(
            """() => { const image = document.querySelector('.jp-OutputArea .widget-image');
                       const [before, began] = [image.src, performance.now()];
                       window.took = null;
                       const look = () => { const now = document.querySelector('.jp-OutputArea .widget-image');
                           if (now.src !== before && now.complete) window.took = performance.now() - began;
                           else requestAnimationFrame(look); };
                       look(); }"""
        )
        handle.press("ArrowRight")
        notebook.wait("() => window.took !== null")
        taken.append(notebook.page.evaluate("() => window.took"))
    print(json.dumps({"slider_to_picture_ms": [round(ms) for ms in taken]}))
    value = notebook.page.locator(".jp-OutputArea .widget-readout").first.inner_text()
    for key in ["ArrowRight"] * 50 + ["ArrowLeft"] * 50 + ["Home"]:
        handle.press(key)
    notebook.wait("() => document.querySelector('.jp-OutputArea .widget-readout').innerText === '0.25'")
    assert value != "0.25" and notebook.errors() == []
    notebook.page.wait_for_timeout(2000)
    areas = notebook.page.locator(".jp-Cell-outputArea")
    for i in range(areas.count()):
        assert areas.nth(i).evaluate(HARM) == HARMLESS
    assert [url for url in asked if "evil" in url] == []
