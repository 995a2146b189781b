"""JupyterLab in headless Chromium: every notebook through, and panels that answer while the kernel is busy.

Waits are on effects, never on sleeps; times are printed, not asserted, for a busy machine would fail them.
In CI a missing browser is a failure, elsewhere the reason for skipping.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from nbformat import v4

from workbench import notebook as nb_
from workbench import report

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
MINUTE = 60_000  # milliseconds, as playwright counts
NAMES = [path.stem for path in sorted(report.NOTEBOOKS.glob("*.ipynb"))]
# All cells are rendered, so that a panel can be scrolled to.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
PANEL = """import sys, time
sys.path.insert(0, {tests!r})
from dataclasses import replace
from pathlib import Path
from tiny import PLAIN, make_labels, make_task
from workbench import widgets
task = make_task(Path("."))
labels = make_labels(task)
panel = widgets.TrainingPanel({{"3 labels": (task, labels)}}, replace(PLAIN, steps=60))
panel"""
SOURCES = {
    "busy": 'end = time.time() + 600\nwhile time.time() < end and not Path("enough").exists():\n    sum(range(1000))',
    "marker": 'Path("marker").write_text("ran")',
}


def lacking(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what}: CI must have a browser")
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        lacking("no Chromium on PATH (apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("no playwright (pip install playwright)")
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory) -> Iterator[tuple[str, str, Path]]:
    """(address, token, root folder) of a JupyterLab with settings and data of its own."""
    home = tmp_path_factory.mktemp("lab")
    root = home / "notebooks"
    root.mkdir()
    quick = yaml.safe_load((report.NOTEBOOKS / "budgets.yaml").read_text(encoding="utf-8"))["quick"]
    for name in NAMES:  # the notebooks with the values of a smoke run typed into them, as a person would
        nb = nb_.load(report.NOTEBOOKS / f"{name}.ipynb")
        (cell,) = nb_.tagged(nb, "parameters")
        values = {**nb_.parameters(nb), **quick.get(name, {}), "budget": "quick"}
        cell.source = "\n".join(f"{key} = {value!r}" for key, value in values.items())
        for code in (cell for cell in nb.cells if cell.cell_type == "code"):
            code.outputs, code.execution_count = [], None
        nb_.save(nb, root / f"{name}.ipynb")
    cells = [PANEL.format(tests=str(Path(__file__).parent)), *SOURCES.values()]
    made = nb_.clean(v4.new_notebook(cells=[v4.new_code_cell(source) for source in cells]))  # names its kernel
    nb_.save(made, root / "panel.ipynb")
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    own = {name: str(home / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    path = os.pathsep.join([str(report.REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    own |= {"PYTHONPATH": path, "WORKBENCH_DATA": str(home / "data"), "JUPYTER_TOKEN": token}
    command = f"-m jupyterlab --no-browser --expose-app-in-browser --ip=127.0.0.1 --port={port} --allow-root"
    log = (home / "lab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, *command.split(), f"--ServerApp.root_dir={root}"],
        env=os.environ | own, stdout=log, stderr=log, cwd=root,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, (home / "lab.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/api?token={token}", timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        yield address, token, root
    finally:
        server.terminate()
        server.wait(60)


class Notebook:
    """One notebook open in Lab."""

    def __init__(self, browser, lab, name: str) -> None:
        address, token, self.root = lab
        self.page = browser.new_context(viewport={"width": 1440, "height": 1100}).new_page()
        self.page.goto(f"{address}/lab/tree/{name}.ipynb?token={token}&reset", timeout=5 * MINUTE)
        self.page.wait_for_function("() => window.jupyterapp", timeout=5 * MINUTE)
        self.page.evaluate(
            """async name => {
                const app = window.jupyterapp;
                await app.restored;
                const panel = await app.commands.execute('docmanager:open', {path: name});
                await panel.context.ready;
                await panel.sessionContext.ready;
                await panel.sessionContext.session.kernel.info;
                window.panel = panel;
                window.sources = index => panel.content.widgets[index].model;
            }""",
            f"{name}.ipynb",
        )

    def run_all(self) -> None:
        """Run every cell, wait for the last one, and refuse any error."""
        self.start("notebook:run-all-cells")
        self.wait(
            """() => {
                const cells = window.panel.content.widgets.map(cell => cell.model).filter(m => m.type === 'code');
                const outputs = cells.flatMap(m => m.outputs.toJSON());
                if (outputs.some(output => output.output_type === 'error')) return true;
                return cells.every(m => m.executionCount && m.executionState !== 'running'
                                        || !m.sharedModel.source.trim());
            }""",
            25,
        )
        assert self.errors() == []

    def errors(self) -> list[str]:
        return self.page.evaluate(
            """() => window.panel.content.widgets.map(cell => cell.model).filter(m => m.type === 'code')
                .flatMap(m => m.outputs.toJSON()).filter(o => o.output_type === 'error')
                .map(o => o.ename + ': ' + o.evalue)"""
        )

    def start(self, command: str) -> None:
        self.page.evaluate(
            "command => { window.jupyterapp.shell.activateById(window.panel.id);"
            " window.jupyterapp.commands.execute(command); }",
            command,
        )

    def run_cell(self, index: int) -> None:
        """Start one cell, without waiting for it."""
        self.page.evaluate("index => { window.panel.content.activeCellIndex = index; }", index)
        self.start("notebook:run-cell")

    def wait(self, condition: str, minutes: float = 3, argument: object = None) -> None:
        self.page.wait_for_function(condition, arg=argument, timeout=minutes * MINUTE, polling=20)

    def text(self) -> str:
        return self.page.locator(".jp-OutputArea").all_inner_texts().__str__()

    def says(self, text: str, minutes: float = 3) -> None:
        """Wait until the panel says it."""
        self.page.locator(".jp-OutputArea .widget-html", has_text=text).first.wait_for(timeout=minutes * MINUTE)

    def click(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click(timeout=MINUTE)

    def enabled(self, button: str) -> None:
        self.page.wait_for_function(
            "name => [...document.querySelectorAll('.jp-OutputArea button')]"
            ".some(b => b.innerText.trim() === name && !b.disabled)",
            arg=button, timeout=3 * MINUTE,
        )  # fmt: skip

    def close(self) -> None:
        self.page.evaluate("async () => { await window.panel.sessionContext.shutdown(); }")
        self.page.context.close()


@pytest.fixture
def open_notebook(browser, lab):
    opened = []

    def open_(name: str) -> Notebook:
        opened.append(Notebook(browser, lab, name))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


@pytest.fixture
def panel(open_notebook) -> Notebook:
    """The training panel of a tiny task, in a kernel of its own."""
    notebook = open_notebook("panel")
    for name in ("enough", "marker"):
        (notebook.root / name).unlink(missing_ok=True)
    notebook.run_cell(0)
    notebook.says("Ready.")
    yield notebook
    (notebook.root / "enough").touch()


def steps(panel: Notebook, number: int, seed: int) -> None:
    """Set the run's length and seed as a person would; each test has a seed, and so runs, of its own."""
    for label, value in (("steps (batches)", number), ("seed (number)", seed)):
        box = panel.page.get_by_label(label)
        box.fill(str(value))
        box.press("Tab")
    panel.page.locator(".jp-OutputArea pre", has_text=f"seed={seed}").first.wait_for(timeout=MINUTE)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_through(open_notebook, name):
    notebook = open_notebook(name)
    notebook.run_all()
    images = notebook.page.locator(".jp-OutputArea .widget-image")
    for i in range(images.count()):
        assert images.nth(i).evaluate("image => image.complete && image.naturalWidth") > 500
    assert "interactive(children=" not in notebook.text()


def test_a_slider_moved_by_the_keyboard_changes_the_picture(open_notebook):
    notebook = open_notebook("02_soft_labels")
    notebook.run_all()
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
    for _ in range(50):
        handle.press("ArrowRight")
    for _ in range(50):
        handle.press("ArrowLeft")
    handle.press("Home")
    notebook.wait("() => document.querySelector('.jp-OutputArea .widget-readout').innerText === '0.25'")
    assert value != "0.25" and notebook.errors() == []


def test_training_goes_on_while_another_cell_runs_and_twice(panel):
    steps(panel, 4000, 11)
    panel.click("Train")
    panel.says("Step ")
    panel.run_cell(2)
    while not (panel.root / "marker").exists():
        panel.page.wait_for_timeout(20)
    panel.says("Step ")
    panel.click("Stop")
    panel.says("Stopped at step")
    steps(panel, 40, 12)
    for seed in (12, 13):
        steps(panel, 40, seed)
        panel.click("Train")
        panel.page.locator(".jp-OutputArea td", has_text=f"seed {seed}").first.wait_for(timeout=3 * MINUTE)
        panel.enabled("Train")


def test_stop_works_while_a_long_cell_is_busy(panel):
    steps(panel, 100_000, 21)
    panel.click("Train")
    panel.says("Step ")
    panel.run_cell(1)
    panel.wait("() => window.panel.sessionContext.session.kernel.status === 'busy'")
    began = time.monotonic()
    panel.click("Stop")
    panel.says("Stopped at step")
    print(json.dumps({"stop_seconds_while_busy": round(time.monotonic() - began, 2)}))
    assert panel.page.evaluate("() => window.panel.content.widgets[1].model.executionCount") is None
    panel.enabled("Train")


def test_a_failing_run_shows_its_text_and_train_is_enabled_again(panel):
    panel.page.evaluate(
        """async () => { const kernel = window.panel.sessionContext.session.kernel;
            await kernel.requestExecute({code: `
def fail(*_):
    yield {"step": 1, "loss": 1.0}
    raise ValueError("told by the test")
panel.train_function = fail`}).done; }"""
    )
    panel.click("Train")
    panel.says("ValueError: told by the test")
    panel.enabled("Train")


def test_a_kernel_restarted_in_the_middle_of_a_run_goes_on(panel):
    steps(panel, 3000, 31)
    panel.click("Train")
    panel.says("Step ")
    checkpoints = panel.root.parent / "data" / "store" / ".partial"
    while not list(checkpoints.glob("runs+*/checkpoint/state.safetensors")):
        panel.page.wait_for_timeout(100)
    panel.page.evaluate("async () => { await window.panel.sessionContext.restartKernel(); }")
    panel.run_cell(0)
    panel.says("Ready.")
    steps(panel, 3000, 31)
    panel.says("was interrupted: Train goes on from its last checkpoint")
    panel.click("Train")
    panel.says("Done: 3,000 steps", minutes=10)


def test_a_newcomers_first_minutes(open_notebook):
    """00, Run All, then the link at its end opens 01 in Lab."""
    notebook = open_notebook("00_overview")
    notebook.run_all()
    link = notebook.page.locator(".jp-MarkdownOutput a", has_text=re.compile("^01 ")).last
    link.scroll_into_view_if_needed()
    link.click()
    notebook.page.locator(".jp-NotebookPanel h1", has_text="Choosing a teacher").first.wait_for(timeout=MINUTE)
