"""The committed notebooks: their structure, and that their outputs are those of their code."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from lab import smoke_report
from test_report import check_standalone

from workbench.publish import notebook as nb_
from workbench.publish import report
from workbench.show.frames import FRAMES
from workbench.training import TrainConfig

PATHS = sorted(report.NOTEBOOKS.glob("*.ipynb"))
TASK = {  # of every notebook that is about a task of one's own
    "task_name": "voice-commands",
    "text_column": "text",
    "label_column": "label",
    "group_column": None,
    "split_column": None,
    "out_of_scope": None,
    "teacher_name": "auto",
    "labels_per_class": 5,
}
STORY = {"00_overview", "03_student_training", "05_benchmark"}  # reads no label but those it counts
# About text, problems, an API of their own.
OTHER = {"06_language_models", "07_reasoning_traces", "08_hosted_teachers", "09_access_and_terms"}
WALK = ["00", "01"]  # `make report` runs 02 and 03, too
# 02, 03 and 05 run in test_hostile, on a task of hostile names, 02 in Lab as well; 08 in test_hosted_serve.
REST = sorted({path.name[:2] for path in PATHS} - {*WALK, "02", "03", "05", "08"})
each = pytest.mark.parametrize("path", PATHS or [None], ids=lambda path: path.stem if path else "none")


def outputs(path: Path) -> str:
    """All text that its outputs show; pictures left out."""
    cells = [cell for cell in nb_.load(path).cells if cell.cell_type == "code"]
    data = [output.get("data", {}) for cell in cells for output in cell.outputs]
    values = [value for bundle in data for kind, value in bundle.items() if kind != "image/png"]
    shown = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "\n".join(shown + [output.get("text", "") for cell in cells for output in cell.outputs])


def test_there_are_notebooks_in_order():
    assert PATHS, "notebooks/ is empty"
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name) for path in PATHS)
    numbers = [int(path.name[:2]) for path in PATHS]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0


@each
def test_title_question_and_parameters_come_first(path):
    nb = nb_.load(path)
    assert re.match(r"# .+\n+> .+\?", nb.cells[0].source), "the first cell is '# Title' and a quoted question"
    parameters = nb_.parameters(nb, path.stem)  # exactly one cell, literals only
    assert parameters["budget"] == "laptop"
    if path.stem in OTHER:
        assert "task_name" not in parameters
    else:
        assert {key: parameters.get(key, "missing") for key in TASK} == TASK
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert nb_.tagged(nb, "parameters") == code[:1]
    assert not nb_.tagged(nb, "injected-parameters")


@each
def test_cells_are_short_and_install_nothing(path):
    code = [cell.source for cell in nb_.load(path).cells if cell.cell_type == "code"]
    # The first two, parameters and imports, are lists and may be long.
    assert [source for source in code[2:] if len(source.strip().splitlines()) > 15] == []
    assert [source for source in code if re.search(r"^\s*[!%]+\s*(pip|conda)\b", source, re.MULTILINE)] == []
    for source in code:
        ast.parse(re.sub(r"^%.*$", "", source, flags=re.MULTILINE))


@each
def test_no_student_of_the_story_is_chosen_by_a_label(path):
    """The last step's weights, and no setting that validation or calibration could move."""
    code = "\n".join(cell.source for cell in nb_.load(path).cells if cell.cell_type == "code")
    configs = re.findall(r"TrainConfig\(.*?\)", code, re.DOTALL)
    if path.stem in STORY:
        assert configs and TrainConfig().keep == "last"
        assert not re.search(r"\bchoose\(|\bsearch\(|keep=\"best\"", code)


@each
def test_outputs_are_those_of_the_code_in_a_default_run(path):
    nb = nb_.load(path)
    record = nb.metadata.workbench
    assert record.code == nb_.code_hash(nb), "the code was edited: python -m workbench report --update"
    assert record.budget == "laptop"
    assert record.parameters == nb_.parameters(nb)
    assert record.error is None
    assert record.answer == nb_.answer(nb)
    assert {"device", "versions", "commit", "date", "seconds"} <= record.keys()
    assert nb.metadata.keys() == {"kernelspec", "language_info", "workbench"}
    assert all(cell.execution_count for cell in nb.cells if cell.cell_type == "code" and cell.source.strip())


@each
def test_outputs_hold_nothing_of_the_machine(path):
    shown = outputs(path)
    assert re.findall(r"(?<![\w.:/<~])/(?:[\w.-]+/)+[\w.-]+|\b[A-Z]:\\\w.*", shown) == [], "absolute paths"
    assert re.findall(r"\b0x[0-9a-f]{6,}", shown) == [], "memory addresses"
    assert re.findall(r"\d+%\|.*", shown) == [], "progress bars"
    assert "widget-view" not in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 3e6


def test_budgets_name_existing_parameters():
    budgets = yaml.safe_load((report.NOTEBOOKS / "budgets.yaml").read_text(encoding="utf-8"))
    assert budgets.keys() == {"quick", "gpu"}
    for budget in budgets:
        report.plan(report.NOTEBOOKS, budget, [], {})  # refuses an unknown notebook or parameter
    assert budgets["quick"], "a smoke run needs small values"


def test_exactly_one_notebook_answers_for_the_report():
    best = nb_.load(next(path for path in PATHS if path.name.startswith("03_")))
    assert nb_.answer(best)["rows"]
    assert nb_.figures(nb_.tagged(best, "headline"), "").count("<img") >= 1


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(WALK, marks=pytest.mark.slow, id="walk"),
        pytest.param(REST, marks=pytest.mark.long, id="rest"),
    ],
)
def test_the_notebooks_run_at_quick(chosen, tmp_path):
    done = smoke_report(tmp_path, "--only", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    (out,) = (tmp_path / "reports").iterdir()
    pages = sorted(out.glob("*.html"))
    more = ["decision"] * ("10" in chosen) + ["glossary", "index"]
    assert [page.stem for page in pages] == [*(path.stem for path in PATHS if path.name[:2] in chosen), *more]
    for page in pages:
        check_standalone(page.read_text(encoding="utf-8"))
        assert "Smoke run" in page.read_text(encoding="utf-8")
    for page in pages[: -len(more)]:
        nb = nb_.load(page.with_suffix(".ipynb"))
        data = [output.get("data", {}) for cell in nb.cells for output in cell.get("outputs", [])]
        pictures = sum("image/png" in bundle and not {nb_.ANSWER, FRAMES} & bundle.keys() for bundle in data)
        assert page.read_text(encoding="utf-8").count("<img") == pictures
    assert (tmp_path / "quick").exists()
    assert not (tmp_path / "store").exists(), "a smoke run wrote into the store of real runs"
