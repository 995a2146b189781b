"""JupyterLab in headless Chromium: panels are alive, answer while the kernel is busy, and go on after a restart.

Waits are on effects, never on sleeps; times are printed, not asserted, for a busy machine would fail them.
In CI a missing browser is a failure, elsewhere the reason for skipping.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import MINUTE, Notebook, write_notebook

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
TESTS = str(Path(__file__).parent)
SHOWN = "import sys\nsys.path.insert(0, {tests!r})\nimport test_money, test_panels"
LIVE = [f"test_panels.{name}_panel()" for name in ("temperature", "try", "sweep", "compare", "traces")]
LIVE += ["test_money.panel([])"]
PANEL = """import sys, time
sys.path.insert(0, {tests!r})
from dataclasses import replace
from pathlib import Path
from tiny import PLAIN, make_labels, make_task
from workbench.show import panels
task = make_task(Path("."))
labels = make_labels(task)
panel = panels.TrainingPanel({{"3 labels": (task, labels)}}, replace(PLAIN, steps=60))
panel"""
SOURCES = {
    "busy": 'end = time.time() + 600\nwhile time.time() < end and not Path("enough").exists():\n    sum(range(1000))',
    "marker": 'Path("marker").write_text("ran")',
}


@pytest.fixture
def panel(lab, open_notebook) -> Iterator[Notebook]:
    """The training panel of a tiny task, in a kernel of its own; what keeps it busy ends with the test."""
    cells = [PANEL.format(tests=TESTS), *SOURCES.values()]
    write_notebook(lab[2] / "panel.ipynb", *cells)
    notebook = open_notebook("panel")
    for name in ("enough", "marker"):
        (notebook.root / name).unlink(missing_ok=True)
    notebook.run_cell(0)
    notebook.says("Ready.")
    yield notebook
    (notebook.root / "enough").touch()


def steps(panel: Notebook, number: int, seed: int) -> None:
    """Set the run's length and seed as a person would; each test has a seed, and so runs, of its own."""
    for label, value in (("steps (batches)", number), ("seed", seed)):
        box = panel.page.get_by_label(label)
        box.fill(str(value))
        box.press("Tab")
    panel.page.locator(".jp-OutputArea pre", has_text=f"seed={seed}").first.wait_for(timeout=MINUTE)


def test_each_panel_shows_its_picture_in_lab(lab, open_notebook):
    """Live ones of few numbers; reports run the notebooks that have them, and show how they look without a kernel."""
    write_notebook(lab[2] / "panels.ipynb", SHOWN.format(tests=TESTS), *LIVE)
    notebook = open_notebook("panels")
    notebook.run_through()
    assert notebook.page.locator(".jp-OutputArea .widget-image").count() == len(LIVE)


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
    notebook.run_through()
    link = notebook.page.locator(".jp-MarkdownOutput a", has_text=re.compile("^01 ")).last
    link.scroll_into_view_if_needed()
    link.click()
    notebook.page.locator(".jp-NotebookPanel h1", has_text="Choosing a teacher").first.wait_for(timeout=MINUTE)
