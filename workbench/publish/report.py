"""Run the notebooks in order; publish standalone pages and an index that opens on the answer.

What ran is a notebook that says so itself: code hash, parameters, device, versions and answer stand in its
``metadata.workbench``, and pages are made from that alone, at any later time. `run` is the way in, `publish` makes the
pages; `workbench.publish.notebook` has what is read from a notebook, ``report.html`` what a page looks like.
"""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import escape
from workbench.errors import WorkbenchError, unknown
from workbench.publish import ask, glossary
from workbench.publish import notebook as nb_
from workbench.store import check_writable, commit, data_dir, versions, write_atomic

if TYPE_CHECKING:
    import pandas
    from nbformat import NotebookNode

REPO = Path(__file__).resolve().parents[2]
NOTEBOOKS = REPO / "notebooks"
BUDGETS = ("quick", "laptop", "gpu")
REDRAW, SPARSE = 1.0, 30.0  # seconds between two words on progress, on a terminal and in a log
MARKS = ("<!-- results -->", "<!-- /results -->")  # of what `report --update` writes into README and notebooks
CLAIMS = {  # what was said when distillation came into the news; notebooks measure what they can of it
    "cheaper": "A distilled student is cheaper",
    "faster": "It is faster",
    "smaller": "It needs far fewer resources",
    "complex": "It struggles with complex tasks",
    "enough": "Most jobs don't need the large model",
    "open": "Open models gain",
    "prevented": "Makers of models try to prevent it",
}
MAIN = "03_"  # begins the notebook whose question is that of the whole report
PICTURES = ("headline", "panel_temperature", "panel_training", "panel_try_it")  # by tag; the README shows them


@dataclass(frozen=True)
class Answer:
    """What a notebook found (see `notebook.content`): Markdown in JupyterLab and on GitHub, the top of the report."""

    content: dict[str, Any]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        text, table = nb_.worded(self.content["text"]), nb_.markdown_table(self.content)
        shown = f"{escape.prose(text)}\n\n{table}".strip()
        plain = f"{escape.visible(text)}\n\n{table}".strip()
        return {"text/plain": plain, "text/markdown": shown, nb_.ANSWER: self.content}


def start(budget: str, **settings: object) -> None:
    """Print on what device a notebook runs, with which budget and settings, and what a smoke run is not."""
    from workbench.training import choose_device  # torch takes a second to import

    told = "".join(f" {name}={value}" for name, value in settings.items())
    print(choose_device()[2], f"budget={budget}{told}")
    if budget == "quick":
        print("Smoke run: the numbers below are not findings, and no verdict is given.")


def answer(
    text: str, table: pandas.DataFrame | None = None, *, smoke: bool = False, gates: Sequence[str] = (),
    claims: Mapping[str, str] | None = None,
) -> Answer:  # fmt: skip
    """What a notebook found, as the value of its last cell.

    Args:
        text: a few sentences, of which the first stands alone in the README's table. ``**bold**`` is the only markup
            in them, and in the table there is none: names of classes, teachers and tasks may stand there as they are.
        table: the numbers behind it. A named index becomes the first columns; floats are shown with three
            decimals and NaN as a dash, so give counts as integers and anything else as text.
        smoke: say first that a smoke run finds nothing.
        gates: sentences of `workbench.gates`, which make the answer another one: they stand before it, here and
            wherever it is shown.
        claims: what it measured of the claims in `CLAIMS`: a sentence each, for the table that leads README and report.
    """
    for name in claims or {}:
        if name not in CLAIMS:
            raise unknown("claim", name, CLAIMS)
    first = "Smoke run, not a finding. " * smoke + f"**Before you read on:** {' '.join(gates)} **Then:** " * bool(gates)
    return Answer(nb_.content(first + text, table) | ({"claims": dict(claims)} if claims else {}))


def run(
    notebooks: Path = NOTEBOOKS,
    *,
    budget: str = "laptop",
    only: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    update: bool = False,
    data: Path | None = None,
) -> list[str]:
    """Run notebooks, each in a fresh kernel of this interpreter, and publish under `<data>/reports/`.

    A page and the index are published as soon as a notebook ends; one that fails does not stop the others and
    its page keeps what it had shown. A zip of all pages lies among them. The working folder is `notebooks`, as in
    JupyterLab. At `quick` everything made goes to `<data>/quick`, so that a smoke run never feeds a page; weights
    are shared.

    Args:
        notebooks: the folder of ``NN_snake_case.ipynb`` and ``budgets.yaml``.
        budget: ``laptop`` runs the notebooks as they are, ``quick`` and ``gpu`` read ``budgets.yaml``.
        only: numbers or names of the notebooks to run, default all.
        flags: parameters, such as ``task_name``, injected wherever a notebook has them; one without a ``task_name``
            is then left out, unless `only` names it.
        update: afterwards write outputs back into `notebooks` and results into the README beside it.
        data: the data folder, default `store.data_dir()`.

    Returns:
        The names of the notebooks that failed.

    Raises:
        WorkbenchError: before anything runs: unknown budget, notebook or parameter, or an `update` of
            another run than the default one; afterwards: an `update` of a notebook edited while it ran.
    """
    injected = plan(notebooks, budget, only, flags or {})
    if update and (budget != "laptop" or any(injected.values())):
        raise WorkbenchError("--update stores the default run: use the budget laptop and the default task.")
    data = data or data_dir()
    told = {key: value for values in injected.values() for key, value in values.items() if key in (flags or {})}
    special = [slug(told[key]) for key in ("task_name", "teacher_name") if key in told]
    if "labels_per_class" in told:
        special.append(f"{told['labels_per_class'] or 'all'}-labels")
    out = data / "reports" / "-".join([budget, *special])
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    # The package that is running, not another one that happens to be installed.
    path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"PYTHONPATH": path, "WORKBENCH_DATA": str(data)}
    if budget == "quick":
        cache = os.environ.get("WORKBENCH_CACHE") or str(data / "cache")
        env |= {"WORKBENCH_DATA": str(data / "quick"), "WORKBENCH_CACHE": cache}

    failed = []
    print(f"{len(injected)} notebooks at budget {budget}; read along in {out / 'index.html'}", flush=True)
    for number, (name, values) in enumerate(injected.items(), 1):
        if lacking := (flags or {}).keys() - nb_.parameters(nb_.load(notebooks / f"{name}.ipynb"), name).keys():
            print(f"{name} has no {', '.join(sorted(lacking))}: it runs without", flush=True)
        executed = _execute(notebooks / f"{name}.ipynb", values, budget, env, f"{number}/{len(injected)} {name}")
        nb_.save(executed, out / f"{name}.ipynb")
        publish(out, notebooks)
        record = executed.metadata.workbench
        print(f"{name}: {record.error or 'done'} ({duration(record.seconds)})", flush=True)
        failed += [name] if record.error else []
    if update and not failed:
        _update(notebooks, out, injected)
    return failed


def plan(notebooks: Path, budget: str, only: Sequence[str], flags: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The notebooks to run, in order, each with the values to inject: those that differ from its literals.

    Raises:
        WorkbenchError: unknown budget, notebook or parameter, or no notebooks at all.
    """
    import yaml

    names = [path.stem for path in _sources(notebooks)]
    if not names:
        raise WorkbenchError(f"{notebooks} has no notebooks: run from a clone of the repository.")
    if budget not in BUDGETS:
        raise unknown("budget", budget, BUDGETS)
    chosen = set()
    for wanted in only:
        matches = {name for name in names if wanted in (name, name.split("_")[0])}
        if not matches:
            raise unknown("notebook", wanted, names)
        chosen |= matches
    table = yaml.safe_load((notebooks / "budgets.yaml").read_text(encoding="utf-8")) or {}
    values_of = table.get(budget) or {}
    for name in values_of:
        if name not in names:
            raise unknown(f"notebook in budgets.yaml under {budget}:", name, names)
    injected, known = {}, set()
    for name in names:
        if only and name not in chosen:
            continue
        literals = nb_.parameters(nb_.load(notebooks / f"{name}.ipynb"), name)
        if flags and "task_name" not in literals and name not in chosen:
            continue  # not about a task of one's own
        values = {**(values_of.get(name) or {}), "budget": budget}
        for key in values:
            if key not in literals:
                raise unknown(f"parameter of {name}", key, literals)
        values |= flags
        injected[name] = {key: value for key, value in values.items() if literals.get(key, value) != value}
        known |= literals.keys()
    for key in sorted(flags.keys() - known):
        raise unknown(f"parameter of {', '.join(injected)}", key, known)
    return injected


def _execute(source: Path, values: dict[str, Any], budget: str, env: dict[str, str], told: str) -> NotebookNode:
    """The cleaned notebook after its run, described in ``metadata.workbench``; errors are in there too."""
    import papermill
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from nbformat import from_dict
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import remove_error_markers

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]

    class ThisPython(AsyncKernelManager):  # a kernelspec named python3 may belong to another environment
        kernel_spec = KernelSpec(argv=argv, language="python", env=env, metadata={"supported_encryption": "curve"})
        transport_encryption = "auto"  # ports on loopback are open to every user of the machine

        async def start_kernel(self, **options: Any) -> None:
            # What cells print arrives as outputs; left is the kernel's own complaint about being stopped.
            await super().start_kernel(stderr=subprocess.DEVNULL, **options)

    original = nb_.load(source)
    started, error = time.monotonic(), None
    cells, begun = len(original.cells) + bool(values), [0]
    options = {"kernel_name": "python3", "language": "python", "kernel_manager_class": ThisPython}
    options |= {"progress_bar": False, "coalesce_streams": True, "cwd": source.parent}
    options["on_cell_start"] = lambda cell, cell_index: begun.append(cell_index + 1)
    with tempfile.TemporaryDirectory() as folder, _progress(told, cells, begun):
        made = Path(folder, source.name)
        try:
            papermill.execute_notebook(source, made, values, **options)
        except PapermillExecutionError as stopped:
            kind = "" if stopped.ename == "WorkbenchError" else f"{stopped.ename}: "
            error = f"cell {begun[-1]}: {kind}{stopped.evalue}"
        except Exception as stopped:  # a dead kernel, a full disk: the next notebook may still run
            error = f"cell {begun[-1]}: {type(stopped).__name__}: {stopped}"
        seconds = round(time.monotonic() - started, 1)
        executed = nb_.clean(remove_error_markers(nb_.load(made) if made.exists() else original))
        if not made.exists():  # outputs of an earlier run must not pass for those of this one
            executed.cells = [cell for cell in executed.cells if cell.cell_type == "markdown"]
    record = dict(
        code=nb_.code_hash(executed),
        parameters={**nb_.parameters(original, source.stem), **values},
        device=device(),
        versions=versions(),
        commit=commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        budget=budget,
        seconds=seconds,
        answer=nb_.answer(executed),
        error=" ".join(error.split()) if error else None,
    )
    executed.metadata.workbench = from_dict(record)
    return executed


@contextmanager
def _progress(name: str, cells: int, begun: Sequence[int]) -> Iterator[None]:
    """Tell the cell last `begun` and the time: one line, redrawn, on a terminal; a line now and then elsewhere."""
    started, over, live = time.monotonic(), threading.Event(), sys.stdout.isatty()

    def draw() -> None:
        while not over.wait(REDRAW if live else SPARSE):
            line = f"{name}: cell {begun[-1]}/{cells}, {duration(time.monotonic() - started)}"
            print(f"\r\x1b[K{line}" if live else line, end="" if live else "\n", flush=True)
        print("\r\x1b[K" * live, end="", flush=True)

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def device() -> str:
    """The device that PyTorch would use here, in words."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} cores"


def duration(seconds: float) -> str:
    """Seconds in words: ``"42 s"`` or ``"3 min 5 s"``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def slug(value: str) -> str:
    """A folder's name for a task or teacher: a hub data set, the stem of a CSV, the end of a path or a model's name."""
    path = Path(value[4:])
    stem = value[4:] if value.startswith("hub:") and not path.is_absolute() else Path(value.removeprefix("csv:")).stem
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")


def publish(out: Path, notebooks: Path = NOTEBOOKS) -> None:
    """Write a page for every executed notebook in `out`, an ``index.html`` of all of `notebooks`, and a zip of them.

    What cells tagged ``decision`` show is a page of its own, ``decision.html``; the last one explains the terms.
    """
    from markupsafe import Markup

    pages = []
    for path in _sources(notebooks):
        source, made = nb_.load(path), out / path.name
        nb = nb_.load(made) if made.exists() else source
        record = nb.metadata.workbench if made.exists() else None
        edited = record is not None and record.code != nb_.code_hash(source)
        told = {"question": nb_.question(nb), "label": _label(path.stem, nb), "run": record, "edited": edited}
        pages.append({"name": path.stem, "notebook": nb, **told})
    done = [page for page in pages if page["run"]]
    # MAIN asks the question of the whole report; until it has run, the latest answer is the nearest to it.
    answered = sorted((p for p in done if p["run"].answer), key=lambda p: p["name"].startswith(MAIN))
    best = answered[-1] if answered else None
    decisions = [(page, nb_.outputs(nb_.tagged(page["notebook"], "decision"), page["label"])) for page in done]
    decided = next(((page, shown) for page, shown in decisions if shown), None)
    turns = [{"name": "index", "label": "Report"}, *done]
    turns += [{"name": "decision", "label": "Decision"}] if decided else []
    turns += [{"name": glossary.PAGE, "label": "Glossary"}]
    template, terms = nb_.templates().get_template("report.html"), glossary.terms()

    def write(number: int, title: str, told: str, html: str = "", more: Sequence[str] = (), **values: Any) -> None:
        """One page of `turns`; what is data on it is sanitised, and explained where it first says a term."""
        seen: set[str] = set()
        body, *rest = (Markup(glossary.explain(escape.sanitise(part), seen)) for part in (html, *more))
        beside = {"before": turns[number - 1] if number else None, "after": [*turns, None][number + 1]}
        shared = {"pages": pages, "turns": turns, "scripts": nb_.scripts(body), "digest": nb_.digest} | beside
        shared |= {"duration": duration, "rest": rest, "terms": terms, "slug": glossary.slug, "best": best}
        name = turns[number]["name"]
        shared |= {"title": title, "told": told.replace("**", "")}
        made = template.render(here=name, body=body, **shared | values)
        write_atomic(out / f"{name}.html", made)

    found = ""
    if best:
        pictures = nb_.figures(nb_.tagged(best["notebook"], "headline"), f"The finding of {best['label']}")
        found = nb_.answer_html(best["run"].answer, pictures)
    run = (best or next(iter(done), {})).get("run")
    findings = [nb_.markdown(escape.prose(_told(page["run"]))) for page in pages]
    claims = nb_.markdown(news((p["name"], p["label"], p["run"].answer) for p in done)) if best else ""
    task = terms.get(run.parameters.get("task_name") if run else None, {}).get("says")
    students = filter(None, (nb_.shown_last(page["notebook"], ask.ASK) for page in reversed(done)))
    asked = ask.parts(student) if (student := next(students, None)) else None
    beside = {"run": run, "task": task, "asked": asked}
    write(0, best["question"] if best else "Report", _told(run), found, [*findings, claims], **beside)
    for number, page in enumerate(done, 1):
        write(number, page["label"], _told(page["run"]), nb_.to_html(page["notebook"]), run=page["run"])
    if decided:
        page, shown = decided
        write(len(turns) - 2, "Decision", _told(page["run"]), shown, run=page["run"], best=page)
    write(len(turns) - 1, "Glossary", "The terms of these pages, each in a sentence or two.", run=run)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for turn in turns:
            archive.write(out / f"{turn['name']}.html", f"{out.name}/{turn['name']}.html")
    write_atomic(out / f"{out.name}.zip", packed.getvalue())


def _told(run: Any) -> str:
    """The first sentence of what a run found, "" without one."""
    return nb_.sentences(run["answer"]["text"])[0] if run and run["answer"] else ""


def _sources(notebooks: Path) -> list[Path]:
    return sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))


def _label(name: str, nb: NotebookNode) -> str:
    return f"{name[:2]} {nb_.title(nb) or name[3:].replace('_', ' ')}"


def _update(notebooks: Path, out: Path, names: Iterable[str]) -> None:
    """Store the executed notebooks and their results in the repository."""
    for name in names:
        path, executed = notebooks / f"{name}.ipynb", nb_.load(out / f"{name}.ipynb")
        if [cell.source for cell in nb_.load(path).cells] != [cell.source for cell in executed.cells]:
            raise WorkbenchError(f"{path.name} was edited while it ran: run `report --update` again.")
        nb_.save(nb_.without(executed, ask.ASK), path)
        for tag in PICTURES if name.startswith(MAIN) else PICTURES[1:]:
            for output in [o for cell in nb_.tagged(executed, tag) for o in cell.outputs]:
                if picture := output.get("data", {}).get("image/png"):
                    write_atomic(notebooks / f"{tag}.png", base64.b64decode(picture))
    told = committed(notebooks)
    for path, nb in told.items():
        if marked := [cell for cell in nb.cells if cell.cell_type == "markdown" and MARKS[0] in cell.source]:
            for cell in marked:
                cell.source = _between(cell.source, committed_news(told), path)
            nb_.save(nb, path)
    readme = notebooks.parent / "README.md"
    write_atomic(readme, _between(readme.read_text(encoding="utf-8"), readme_results(told), readme))


def _between(text: str, found: str, path: Path) -> str:
    """`text` with what was found in place of what stands between its `MARKS`."""
    before, mark, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not end:
        raise WorkbenchError(f"{path} lacks {' and '.join(MARKS)}: put them where results belong.")
    return f"{before}{mark}\n{found}\n{end}{after}"


def cited(name: str, words: str, notebooks: Path = NOTEBOOKS) -> str:
    """The sentence with these words in what a committed notebook found, without its bold; "" if there is none."""
    sentences = nb_.sentences(_committed(name, notebooks).get("text", ""))
    return next((one.strip().replace("**", "") for one in sentences if words in one), "")


def cited_table(name: str, columns: Sequence[str], notebooks: Path = NOTEBOOKS) -> pandas.DataFrame:
    """These columns of the table in what a committed notebook found; without one no rows, and NaN for what it lacks."""
    import pandas as pd

    found = _committed(name, notebooks)
    return pd.DataFrame(found.get("rows", []), columns=found.get("columns", [])).reindex(columns=columns)


def _committed(name: str, notebooks: Path) -> Mapping[str, Any]:
    """What a committed notebook found; empty if it hasn't run, or isn't there."""
    path = notebooks / f"{name}.ipynb"
    record = nb_.load(path).metadata.get("workbench") if path.exists() else None
    return (record or {}).get("answer") or {}


def committed(notebooks: Path = NOTEBOOKS) -> dict[Path, NotebookNode]:
    """The notebooks of a folder, in order."""
    return {path: nb_.load(path) for path in _sources(notebooks)}


def committed_news(notebooks: Mapping[Path, NotebookNode] | None = None, folder: str = "") -> str:
    """`news` of the committed notebooks, for a cell of one of them."""
    found = notebooks or committed()
    told = ((p.stem, _label(p.stem, nb), (nb.metadata.get("workbench") or {}).get("answer")) for p, nb in found.items())
    return news(told, folder)


def readme_results(notebooks: Mapping[Path, NotebookNode] | None = None) -> str:
    """Markdown of what the committed notebooks found, for the README: claims in the news, then a row per notebook."""
    rows = ["| notebook | what it asks | what it found | run in |", "|---|---|---|--:|"]
    notebooks = notebooks or committed()
    for path, nb in notebooks.items():
        record = nb.metadata.get("workbench") or {}
        if answered := record.get("answer"):
            link = f"[{_label(path.stem, nb)}](notebooks/{path.name})"
            first = _in_cell(nb_.sentences(answered["text"])[0])
            rows.append(f"| {link} | {nb_.question(nb)} | {first} | {duration(record['seconds'])} |")
    return "\n\n".join(filter(None, [committed_news(notebooks, "notebooks/"), "\n".join(rows)]))


def news(found: Iterable[tuple[str, str, Mapping[str, Any] | None]], folder: str = "") -> str:
    """Markdown of `CLAIMS` and what was measured of each, by notebooks' (name, label, answer); "" where nothing was."""
    said: dict[str, list[str]] = {name: [] for name in CLAIMS}
    for name, label, answered in found:
        for claim, sentence in (answered or {}).get("claims", {}).items():
            said[claim].append(f"{_in_cell(nb_.worded(sentence))} ([{label[:2]}]({folder}{name}.ipynb))")
    if not any(said.values()):
        return ""
    rows = [f"| {CLAIMS[claim]} | {' '.join(sentences) or 'not measured'} |" for claim, sentences in said.items()]
    return "\n".join(["| in the news | measured here |", "|---|---|", *rows])


def _in_cell(text: str) -> str:
    return escape.prose(text).replace("|", "&#124;")
