"""Thirty kills at random moments of whatever takes long: nothing half made is shown, and the end is the same.

`test_endpoint` does it to replies that are paid for, `test_store_kill` to the store itself.
"""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from kills import check_killed
from nbformat import v4
from tiny import CONFIG, PLAIN, each, make_labels

from workbench import soft_labels
from workbench.language import causal, traces
from workbench.language.problems import problems
from workbench.publish import notebook as nb_
from workbench.publish import report
from workbench.store import Store
from workbench.sweeps import run_all
from workbench.tasks import Task
from workbench.teachers import BagOfWords
from workbench.training import Job, train

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600), pytest.mark.filterwarnings("error:.* is damaged")]
KILLS = 30


class Slow(BagOfWords):
    """Takes its time over each text."""

    def logits(self, texts):
        time.sleep(0.02 * len(texts))
        return super().logits(texts)


def label(home: Path, task: Task) -> None:
    soft_labels.SHARD_ROWS = 4
    soft_labels.soft_labels(Slow(task), task, store=Store(home))


def learn(home: Path, task: Task) -> None:
    list(train(Job(task, make_labels(task), replace(CONFIG, steps=60)), store=Store(home), checkpoint_seconds=0))


def sweep(home: Path, task: Task) -> None:
    configs = [replace(PLAIN, steps=100, seed=seed) for seed in range(8)]
    run_all(each(configs, task, make_labels(task)), workers=2, store=Store(home))


def generate(home: Path, model: Path) -> None:
    traces.SHARD = 4
    asked, how = problems("sums", [2, 3], 8), causal.Sampling(temperature=1.0, max_new_tokens=24, seed=3)
    traces.sample(traces.Local(model), asked, how, per_problem=3, store=Store(home))


@pytest.mark.parametrize("work", [label, learn, sweep])
def test_killed_it_goes_on_to_the_same_end(work, task, tmp_path):
    check_killed(work, tmp_path, KILLS, task)


def test_killed_a_writer_goes_on_to_the_same_texts(tmp_path):
    for part in causal.build_causal("llama-1x32"):
        part.save_pretrained(tmp_path / "model")
    check_killed(generate, tmp_path, KILLS, tmp_path / "model")


CELLS = [
    'budget = "laptop"',
    "from workbench.publish import report\nfrom workbench.store import Store\nimport time",
    """def build(folder):
    time.sleep(0.2)
    (folder / "text").write_text("x" * 10_000)
for i in range(5):
    Store().make("texts", {"of": {number}, "i": i}, build)""",
    "report.answer('It is {number}.')",
]


def publish(home: Path, notebooks: Path) -> None:
    assert report.run(notebooks, data=home) == []


def shown(home: Path) -> dict[str, str]:
    """What a report's folder holds, all of it whole: its pages, and what its notebooks found."""
    out = home / "reports" / "laptop"
    pages = {path.name: path.read_text(encoding="utf-8") for path in out.glob("*.html")}
    assert all(page.rstrip().endswith("</html>") for page in pages.values())
    made = {path.name: nb_.load(path) for path in out.glob("*.ipynb")}
    return dict.fromkeys(pages, "") | {name: nb_.answer(nb)["text"] for name, nb in made.items()}


def test_killed_a_report_goes_on_to_the_same_pages(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "budgets.yaml").write_text("quick: {}\n")
    for number in (0, 1):
        cells = [v4.new_code_cell(source.replace("{number}", str(number))) for source in CELLS]
        cells[0].metadata.tags = ["parameters"]
        made = v4.new_notebook(cells=[v4.new_markdown_cell(f"# Number {number}\n\n> Which?"), *cells])
        nb_.save(made, folder / f"{number:02}_number.ipynb")
    check_killed(publish, tmp_path, KILLS, folder, check=shown, made=shown)
