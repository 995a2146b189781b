"""JupyterLab in headless Chromium as fixtures: `browser`, `lab` (a server and its folder), `open_notebook`."""

import json
import os
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

from workbench.publish import notebook as nb_
from workbench.publish import report

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


def smoke(name: str, root: Path, saved: str | None = None, **changes: object) -> None:
    """Put a notebook into `root` with the values of a smoke run typed into it, as a person would."""
    quick = yaml.safe_load((report.NOTEBOOKS / "budgets.yaml").read_text(encoding="utf-8"))["quick"]
    nb = nb_.load(report.NOTEBOOKS / f"{name}.ipynb")
    (cell,) = nb_.tagged(nb, "parameters")
    values = {**nb_.parameters(nb), **quick.get(name, {}), "budget": "quick", **changes}
    cell.source = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    for code in (cell for cell in nb.cells if cell.cell_type == "code"):
        code.outputs, code.execution_count = [], None
    nb_.save(nb, root / f"{saved or name}.ipynb")


def write_notebook(path: Path, *sources: str) -> None:
    """A notebook of code cells."""
    from nbformat import v4  # seconds

    nb_.save(nb_.clean(v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])), path)


def smoke_report(data: Path, *options: str, cwd: Path = report.REPO, **variables: str) -> subprocess.CompletedProcess:
    """`python -m workbench report --budget quick`, which is answered y whatever it asks, and sees one core only.

    So notebooks make their runs in their kernels: what a pool costs them is paid in Lab alone.
    """
    cores, number = sorted(os.sched_getaffinity(0)), int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    mine = {cores[number % len(cores)]}
    path = os.pathsep.join([str(report.REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"WORKBENCH_DATA": str(data), "PYTHONPATH": path} | variables
    return subprocess.run(
        [sys.executable, "-m", "workbench", "report", "--budget", "quick", *options], cwd=cwd, env=env,
        preexec_fn=lambda: os.sched_setaffinity(0, mine), input="y\n" * 100, capture_output=True, text=True,
    )  # fmt: skip


def lacking(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what}: CI must have a browser")
    pytest.skip(what)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory) -> Iterator[tuple[str, str, Path]]:
    """(address, token, root folder) of a JupyterLab with settings and data of its own."""
    home = tmp_path_factory.mktemp("lab")
    root = home / "notebooks"
    root.mkdir()
    for name in NAMES:
        smoke(name, root)
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
        # Lab lists its folder again and again; a file that is put in another's place just then raises a dialog.
        passing = self.page.locator("dialog[aria-label^='Directory not found']")
        self.page.add_locator_handler(passing, lambda _: self.page.keyboard.press("Escape"))
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

    def run_through(self) -> None:
        """The same, and every panel must show its picture."""
        self.run_all()
        images = self.page.locator(".jp-OutputArea .widget-image")
        for i in range(images.count()):
            assert images.nth(i).evaluate("image => image.complete && image.naturalWidth") > 500
        assert "interactive(children=" not in self.text()

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
