"""The frame: requirements that agree, imports in one direction, make targets, an honest README."""

import ast
import pickle
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

from workbench.language.blocks import TextTask
from workbench.language.problems import TraceTask
from workbench.publish import notebook, report

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "workbench"
# Each module imports only from those of its own wing that stand before it, and from the core; publish, from two more.
CORE = (
    "escape errors turns store noise weights splits columns own_data voice_commands tasks teacher losses quality "
    "metrics verdicts reading students soft_labels answers training hints gates teachers sweeps speed contest"
).split()
WINGS = {
    "hosted": "tables prices economics hosts next_purchase terms defences queries cascade replies batch exchange "
    "endpoint pilot teacher writer serve",
    "language": "blocks problems fused causal ngrams texts prefixes labels traces lessons processes on_policy "
    "zero_shot",
    "show": "style findings figures frames widgets money training_panel panels",
    "publish": "glossary notebook onnx judged ask ship report escalate serve",
}
MAY_USE = {"publish": ["show", "hosted"]}
ORDER = {"": CORE} | {wing: [f"{wing}.{name}" for name in names.split()] for wing, names in WINGS.items()}
PATHS = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}
MODULES = [*PATHS]
DISTRIBUTIONS = {"sklearn": "scikit-learn", "IPython": "ipython", "yaml": "pyyaml", "PIL": "pillow"}


def imports(module: str) -> set[tuple[str, ...]]:
    """What a module imports anywhere, as dotted names split at the dots."""
    found = set()
    for node in ast.walk(ast.parse(PATHS[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ["workbench"] * bool(node.level) + (node.module.split(".") if node.module else [])
            found |= {(*base, alias.name) for alias in node.names}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_before_it_and_no_pyplot(module):
    assert not [name for name in imports(module) if "pyplot" in name], "pyplot is not safe on threads"
    dotted = {".".join(name[1:]) for name in imports(module) if name[0] == "workbench" and len(name) > 1}
    used = {next(m for m in (name, name.rpartition(".")[0]) if m in PATHS) for name in dotted}
    if module == "__main__":  # it starts everything
        return
    wing = module.rpartition(".")[0]
    own = ORDER[wing]
    others = [m for other in ["", *MAY_USE.get(wing, [])] for m in ORDER[other]] if wing else []
    assert used <= {*own[: own.index(module)], *others}


def test_the_order_names_every_module_once():
    assert sorted([*(m for modules in ORDER.values() for m in modules), "__main__"]) == sorted(MODULES)


def project() -> dict:
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_import_is_a_declared_dependency():
    extras = [line for extra in project()["optional-dependencies"].values() for line in extra]
    declared = {re.match(r"[\w-]+", line)[0] for line in project()["dependencies"] + extras}
    roots = {name[0] for module in MODULES for name in imports(module)}
    used = roots - sys.stdlib_module_names - {"workbench", "escalate"}  # which is shipped beside serve.py
    assert {DISTRIBUTIONS.get(root, root.replace("_", "-")) for root in used} <= declared


def test_environment_yml_agrees_with_pyproject_and_says_who_needs_what():
    text = (REPO / "environment.yml").read_text(encoding="utf-8")
    conda = yaml.safe_load(text)["dependencies"]
    assert conda[-1]["pip"] == project()["dependencies"]
    python = next(entry for entry in conda if str(entry).startswith("python="))
    assert project()["requires-python"] == f">={python.removeprefix('python=')}"
    listed = [line for line in text.splitlines() if line.startswith("      - ")]
    assert [line for line in listed if not re.search(r" # \w{4,}", line)] == []


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
def test_make_has_the_targets_and_help_lists_them():
    targets = "report report-all lab test test-fast test-long test-soak lint release-check clean clean-data".split()
    shown = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert set(targets) <= {line.split()[0] for line in shown.splitlines()}
    subprocess.run(["make", "-n", *targets], cwd=REPO, capture_output=True, check=True)


LIGHT = """
import contextlib, sys

def without(*heavy):
    assert not {*heavy} & {*sys.modules}, heavy

import workbench.store
without("numpy", "pandas", "torch", "transformers")
from workbench.__main__ import main
with contextlib.suppress(SystemExit):
    main(["report", "--help"])
without("nbformat", "pandas", "torch")
import workbench.language.problems
without("torch")
import workbench.hosted.economics, workbench.verdicts
without("datasets", "evaluate", "torch")
"""


def test_what_needs_little_imports_little():
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=REPO, capture_output=True, text=True)
    assert not done.returncode, done.stderr


def marked(text: str) -> str:
    return text.partition(report.MARKS[0])[2].partition(report.MARKS[1])[0].strip()


def test_the_readme_holds_what_the_notebooks_found():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    assert [text.count(mark) for mark in report.MARKS] == [1, 1]
    assert marked(text) == report.readme_results().strip() != ""


def test_the_overview_ends_with_the_claims_as_they_stand():
    cells = notebook.load(report.NOTEBOOKS / "00_overview.ipynb").cells
    (told,) = [marked(cell.source) for cell in cells if report.MARKS[0] in cell.source]
    assert told == report.committed_news() and all(claim in told for claim in report.CLAIMS.values())


def test_what_one_notebook_cites_of_others_still_stands_there():
    cells = notebook.load(report.NOTEBOOKS / "09_access_and_terms.ipynb").cells
    (cell,) = [cell for cell in cells if "cited(name, words)" in cell.source]
    lines = "".join(output.get("text", "") for output in cell.outputs).splitlines()
    assert len(lines) == 2
    for line, words in zip(lines, ("ladder of access", "summaries"), strict=True):
        name, _, sentence = line.partition(": ")
        assert sentence == report.cited(name, words) != ""
    (shown,) = [output.data["text/html"] for output in cell.outputs if "data" in output]
    rungs = report.cited_table("06_language_models", ["access", "nats over the rung below"]).dropna(subset="access")
    assert len(rungs) == 4 and all(f"<td>{step}</td>" in shown for step in rungs.iloc[1:, 1])


SENT = """
import pickle, sys
from workbench import training
wings = ("workbench.language", "workbench.show", "workbench.publish")
print(*[name for name in sys.modules if name.startswith(wings)])
for task in pickle.load(sys.stdin.buffer):
    job = training.Job(task, None, training.TrainConfig(student="llama-1x32", steps=1))
    assert training.run_inputs(job)["task"] == task.fingerprint
    print(training.lesson_of(task).__name__)
"""


@pytest.mark.slow
def test_training_needs_no_wing_until_a_process_is_sent_a_task_of_one_whose_lesson_it_finds():
    blocks = np.zeros((1, 4), np.int32)
    text = TextTask("t", blocks, blocks, blocks, {}, "tokenizer", "source", "licence")
    tasks = pickle.dumps([text, TraceTask("t", ("a",), ("b",), (("a", "b"),))])
    done = subprocess.run([sys.executable, "-c", SENT], cwd=REPO, input=tasks, capture_output=True)
    assert done.stdout.decode().splitlines() == ["", "TextLesson", "TraceLesson"], done.stderr.decode()[-2000:]
