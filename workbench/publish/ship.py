"""A student to ship: one folder in hub format with ONNX files, a model card and an example that serves it.

The folder stands alone: who gets it needs nothing of this project, and reads in ``README.md`` (from ``card.md``) what
the student is good for, with intervals, and what it is not. `ship` makes it; ``serve.py`` beside this file is copied.
"""

import shutil
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from workbench import metrics
from workbench.errors import WorkbenchError, reason
from workbench.escape import markdown, yaml
from workbench.publish.notebook import content, markdown_table
from workbench.publish.onnx import FILES, OnnxClassifier, to_onnx
from workbench.soft_labels import KINDS, Teacher, soft_labels
from workbench.store import Entry, Store
from workbench.tasks import Task
from workbench.training import Run
from workbench.verdicts import Results, arm_estimates

WORST = 5  # classes named in the card
SHOWN = ("arm", "baseline", "estimate", "low", "high", "verdict", "replaces")  # of the verdicts


def ship(
    run: Run,
    folder: str | Path,
    *,
    task: Task,
    licence: str,
    teacher: Teacher | None = None,
    teacher_terms: str | None = None,
    verdicts: pd.DataFrame | None = None,
    store: Store | None = None,
) -> Path:
    """Write all that someone needs to use a student, and to know what it is good for.

    The folder holds the student (`transformers.pipeline("text-classification", folder)` loads it), ``model.onnx`` and
    ``model_int8.onnx``, both checked on the test texts, ``serve.py`` and the model card ``README.md``. It appears whole
    or not at all. Nothing is sent anywhere: `push_to_hub` does that, or ``hf upload NAME FOLDER``.

    Args:
        run: the student.
        folder: a new one.
        task: what the run was trained and tested on.
        licence: the student's, a hub identifier such as ``"apache-2.0"``. Yours to decide: the terms of the teacher,
            the data and a pretrained start may bind it.
        teacher: whose soft labels it learnt from; None for a run without any.
        teacher_terms: the teacher's licence or terms; its own `licence` if it has that attribute.
        verdicts: what `workbench.verdicts.compare` found, for the card.
        store: where the export is kept.

    Raises:
        WorkbenchError: the folder exists, the task or the teacher is not the run's, the teacher's terms are unknown, or
            the export is refused (see `to_onnx`).
    """
    folder, inputs = Path(folder).absolute(), run.entry.record["inputs"]
    if folder.exists():
        raise WorkbenchError(f"{folder} is already there: ship to a new folder, or remove it first.")
    if inputs["task"] != task.fingerprint:
        raise WorkbenchError(f"Run {run.entry.key} was not trained on {task.name} as given: pass the run's own task.")
    if inputs["labels"] is None:
        teacher = None
    elif teacher is None or inputs["labels"] not in {
        soft_labels(teacher, task, kind, texts=[], store=store).fingerprint for kind in KINDS
    }:
        given = teacher.name if teacher else "none"
        raise WorkbenchError(f"Run {run.entry.key} learnt from another teacher (given: {given}): pass the run's own.")
    terms = teacher_terms or getattr(teacher, "licence", None)
    if teacher and not terms:
        raise WorkbenchError(f"The terms of teacher {teacher.name} are unknown: give teacher_terms.")

    exported = to_onnx(run.path, task.test["text"][:], task.test["label"][:], store=store)
    if verdicts is not None:
        verdicts = verdicts[[name for name in SHOWN if name in verdicts]]
    card = _card(run, task, exported, teacher, licence=licence, terms=terms, verdicts=verdicts)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary) / "made"
        shutil.copytree(run.path, made)
        for name in (*FILES.values(), "tokenizer.json"):  # the export's tokenizer also cuts and pads by itself
            shutil.copyfile(exported.path / name, made / name)
        shutil.copyfile(Path(__file__).parent / "serve.py", made / "serve.py")
        (made / "README.md").write_text(card, encoding="utf-8")
        made.rename(folder)
    return folder


def push_to_hub(folder: str | Path, name: str, *, private: bool = True) -> str:
    """Upload a shipped folder as ``user/name`` with the credentials of ``hf auth login``; return its address.

    Raises:
        WorkbenchError: not logged in, no network, or no right to write there.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Ship a student"))
    except (OSError, ValueError) as error:  # what huggingface_hub raises is one of them
        why = reason(error)
        raise WorkbenchError(f"Can't push {folder} to {name} ({why}): run `hf auth login` and try again.") from None


def _card(run: Run, task: Task, exported: Entry, teacher: Teacher | None, **told: Any) -> str:
    """The card's template, filled in: what it prints is escaped as Markdown, unless a filter made it `Markup`."""
    record, config = run.entry.record, run.config
    texts, labels, groups = task.test["text"][:], np.array(task.test["label"]), task.test["group"][:]
    own = run.logits("test")
    logits = {"this student": own} | ({"its teacher": np.asarray(teacher.logits(texts))} if teacher else {})
    results = Results.of(logits, labels, groups)
    scores = metrics.scores(own, labels, groups, logits.get("its teacher"))
    kept = ("macro_f1", "ece", "nll", "agreement", "negative_flip_rate")
    changed = {f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != f.default}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
    environment.finalize = lambda value: value if isinstance(value, Markup) else markdown(value)
    table = {"table": lambda frame: Markup(markdown_table(content("", frame)))}
    environment.filters |= table | {"yaml": lambda head: Markup(yaml(head))}
    return environment.get_template("card.md").render(
        told,
        task=task,
        record=record,
        key=run.entry.key,
        teacher=teacher,
        checks=pd.DataFrame.from_dict(exported.record["checks"], orient="index").rename(FILES).rename_axis("file"),
        estimates=arm_estimates(results),
        scores=scores,
        more=pd.DataFrame([(name, scores[name]) for name in kept if name in scores], columns=["metric", "value"]),
        worst=WORST,
        slices=_slices(results.only("this student"), own, texts, task.label_names),
        auroc=_auroc(exported, task, own),
        settings=", ".join(f"{name}={value!r}" for name, value in changed.items()),
        built=", ".join(f"{name} {version}" for name, version in record["versions"].items() if name != "platform"),
    )


def _slices(results: Results, logits: np.ndarray, texts: list[str], names: tuple[str, ...]) -> pd.DataFrame:
    """Accuracy with its interval in the worst classes, and in the shorter and the longer half of the texts."""
    labels = results.labels
    worst = metrics.flip_table(logits, labels, labels, results.groups).head(WORST)  # flips against the truth are errors
    made = [(names[w.label], 1 - w.negative, 1 - w.high, 1 - w.low, w.n_templates) for w in worst.itertuples()]
    words = np.array([len(text.split()) for text in texts])
    middle = int(np.median(words))
    for name, chosen in ((f"up to {middle} words", words <= middle), (f"over {middle} words", words > middle)):
        inside = results.at(chosen)
        if len(set(inside.groups)) > 1:
            found = arm_estimates(inside).iloc[0]
            made.append((name, *found[["estimate", "low", "high", "n_templates"]]))
    return pd.DataFrame(made, columns=["slice", "accuracy", "low", "high", "templates"])


def _auroc(exported: Entry, task: Task, logits: np.ndarray) -> float | None:
    """How well confidence tells texts of a class from those of none; None if the task has none of these."""
    if not len(task.out_of_scope):
        return None
    outside = OnnxClassifier(exported.path / FILES["fp32"]).logits(task.out_of_scope["text"][:])
    return metrics.auroc(*(metrics.softmax(values).max(1) for values in (logits, outside)))
