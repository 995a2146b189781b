"""A student to ship: one folder in hub format with ONNX files, a model card and an example that serves it.

The folder stands alone: who gets it needs nothing of this project, and reads in ``README.md`` (from ``card.md``) what
the student is good for, with intervals, and what it is not. Its one idea: what is shipped decides like what was judged,
so temperature and threshold are fitted once, and every way to run the folder has them from ``config.json``.
There, too, stands who wrote what it learnt from, so that nothing is pushed against the terms of one of them.
`ship` makes it; ``serve.py`` and ``escalate.py`` beside this file are copied, `workbench.publish.onnx` makes the ONNX
files, `workbench.publish.ask` a page that holds the student.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from workbench import metrics, students, weights
from workbench.errors import WorkbenchError, number, reason, shown, strings
from workbench.escape import markdown, yaml
from workbench.hosted.teacher import MOST_CLASSES, hard_request
from workbench.hosted.terms import NO_ADVICE, Terms, obligations, terms
from workbench.publish import ask
from workbench.publish.judged import Judged, judge
from workbench.publish.notebook import content, markdown_table
from workbench.publish.onnx import FILES, OnnxClassifier, to_onnx
from workbench.soft_labels import KINDS, recorded_authors, soft_labels
from workbench.store import Entry, Store
from workbench.tasks import Task
from workbench.teacher import Author, Teacher, authors
from workbench.training import Run, TrainConfig
from workbench.verdicts import SMALLEST_STRATUM, Results, arm_estimates, by_slice

SERVER = ("serve.py", "escalate.py")
WORST = 5  # classes named in the card
SURELY = 0.05  # of a class's texts: losing more than that for sure, a student should leave the class to its teacher
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
SHOWN = ("arm", "baseline", "estimate", "low", "high", "verdict", "replaces")  # of the verdicts


def ship(
    run: Run,
    folder: str | Path,
    *,
    task: Task,
    licence: str,
    teacher: Teacher | None = None,
    verdicts: pd.DataFrame | None = None,
    refused: float = 0.1,
    store: Store | None = None,
) -> Path:
    """Write all that someone needs to use a student, and to know what it is good for.

    The folder holds the student (`transformers.pipeline("text-classification", folder)` loads it), ``model.onnx`` and
    ``model_int8.onnx``, both checked on the test texts, ``serve.py`` and the model card ``README.md``, which quotes one
    test text as an example. A small student (``"2x64"``) also answers in ``ask.html``, opened from its file; there
    stands what the teacher had said of test texts, too, of a CSV's only of that example. ``config.json`` holds
    ``temperature``, ``refuse_below`` and ``authors``, whose terms the card quotes with what they ask for;
    ``escalate.json`` holds what a teacher behind an API is asked where the student is unsure, with the examples that a
    hosted teacher was given. It appears whole or not at all.
    The teacher is asked only for test texts that the store has no answer to. Nothing is sent anywhere: `push_to_hub`
    does that, or ``hf upload NAME FOLDER``.

    Args:
        run: the student.
        folder: a new one.
        task: what the run was trained and tested on; temperature and threshold are set on its calibration split.
        licence: the student's, a hub identifier such as ``"apache-2.0"``. Yours to decide: the terms of the teacher,
            the data and a pretrained start may bind it.
        teacher: whose soft labels it learnt from; None for a run without any. Its attribute ``licence`` says its terms.
        verdicts: what `workbench.verdicts.compare` found, for the card.
        refused: share of texts that do belong to a class which may be refused, in (0, 1).
        store: where the export and the teacher's answers are kept.

    Raises:
        WorkbenchError: the folder exists, the task or the teacher is not the run's, the teacher's terms are unknown, or
            the export is refused (see `to_onnx`).
    """
    folder, inputs = Path(folder).absolute(), run.entry.record["inputs"]
    refused = number("refused", refused, above=0, below=1)
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
    if teacher and not getattr(teacher, "licence", None):
        raise WorkbenchError(f"The terms of teacher {teacher.name} are unknown: say them in its attribute licence.")

    exported = to_onnx(run.path, task.test["text"][:], task.test["label"][:], store=store)
    judged = judge(run, task, teacher, refused, store)
    example = _example(task.test["text"][:])
    wrote = _authors(run, task, teacher, store)
    told = {"temperature": judged.temperature, "refuse_below": judged.refuse_below, "example": example}
    told["authors"] = [author._asdict() for author in wrote]
    page = _page(run, task, judged, example)
    if verdicts is not None:
        verdicts = verdicts[[name for name in SHOWN if name in verdicts]]
    for_card = {"licence": licence, "verdicts": verdicts, "refused": refused, "page": page and ask.PAGE}
    card = _card(run, task, exported, teacher, judged, **told, **for_card)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary) / "made"
        shutil.copytree(run.path, made)
        for name in (*FILES.values(), "tokenizer.json"):  # the export's tokenizer also cuts and pads by itself
            shutil.copyfile(exported.path / name, made / name)
        config = json.loads((made / "config.json").read_text(encoding="utf-8")) | told
        (made / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        for name in SERVER:
            shutil.copyfile(Path(__file__).parent / name, made / name)
        if len(task.label_names) <= MOST_CLASSES:
            body, classes = hard_request(task, teacher)
            asked = json.dumps({"body": body, "classes": classes}, indent=2, ensure_ascii=False)
            (made / "escalate.json").write_text(asked, encoding="utf-8")
        if page:
            (made / ask.PAGE).write_text(page, encoding="utf-8")
        (made / "README.md").write_text(card, encoding="utf-8")
        made.rename(folder)
    return folder


def push_to_hub(folder: str | Path, name: str, *, private: bool = True, accept_terms: str | Sequence[str] = ()) -> str:
    """Upload a shipped folder as ``user/name`` with the credentials of ``hf auth login``; return its address.

    Args:
        folder: of `ship`.
        name: on the hub; some terms want it to begin with a word.
        private: whether only you see it; passing it on is judged all the same.
        accept_terms: the rows of terms that you have read and answer for, where they don't plainly allow to pass a
            classifier on.

    Raises:
        WorkbenchError: terms that forbid it, leave it open or aren't known, and are not accepted; a name that they
            don't allow; not logged in, no network, or no right to write there.
    """
    from huggingface_hub import HfApi

    accepted = [accept_terms] if isinstance(accept_terms, str) else strings("accept_terms", accept_terms)
    found = _terms(_shipped_authors(Path(folder)))
    for one in found:
        if not one.permitted and one.row not in accepted:
            raise WorkbenchError(
                f"{folder} is not pushed, its terms say (row {one.row}) {str(one).removesuffix('.')}: get a permission "
                f"and pass accept_terms={one.row!r}, or keep it inside."
            )
    for prefix in obligations(found).get("name_prefix", []):
        if not name.rpartition("/")[2].startswith(prefix):
            raise WorkbenchError(f"{shown(name)} has to begin with {prefix!r} by the terms of its teacher: rename it.")
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Ship a student"))
    except (OSError, ValueError) as error:  # what huggingface_hub raises is one of them
        why = reason(error)
        raise WorkbenchError(f"Can't push {folder} to {name} ({why}): run `hf auth login` and try again.") from None


def _authors(run: Run, task: Task, teacher: Teacher | None, store: Store | None) -> list[Author]:
    """Who wrote its labels, its texts and the weights that it starts from, each once."""
    start, wrote = run.config.student, []
    if teacher:
        wrote = authors(teacher, task)
        before = recorded_authors(soft_labels(teacher, task, texts=[], store=store), task, store=store)
        wrote += [author for author in before if author.name not in {one.name for one in wrote}]
    if students.MINILM.fullmatch(start):
        start, licence = "sentence-transformers/all-MiniLM-L6-v2", weights.WEIGHTS["all-MiniLM-L6-v2"].licence
        wrote.append(Author(start, licence=licence))
    elif not students.SMALL.fullmatch(start):
        wrote.append(Author(start))
    return list(dict.fromkeys(wrote))


def _shipped_authors(folder: Path) -> list[Author]:
    try:
        return [Author(**one) for one in json.loads((folder / "config.json").read_text(encoding="utf-8"))["authors"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{folder} doesn't say who wrote what it learnt from ({type(error).__name__})"
        raise WorkbenchError(f"{what}, so that no terms can be looked up: ship it again.") from None


def _terms(wrote: Sequence[Author]) -> list[Terms]:
    return [terms(author, use="published") for author in wrote]


def leave_to_teacher(flips: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """The classes that a student should not answer, worst first: rows of `metrics.flip_table` with their name.

    There the teacher is right and the student wrong on more than a share `SURELY` of the texts, even at the lower end
    of the interval that holds for all classes at once, and more often than the other way round. A class of fewer
    templates than `SMALLEST_STRATUM` is not judged.
    """
    enough = flips["n_templates"] >= SMALLEST_STRATUM
    chosen = flips[enough & (flips["low"] > SURELY) & (flips["negative"] > flips["positive"])]
    return [{"name": names[row["label"]], **row} for row in chosen.to_dict("records")]


def _page(run: Run, task: Task, judged: Judged, example: str) -> str:
    """The page that holds the student; "" where none can. Of data that is yours it quotes what the card quotes."""
    if ask.refusal(run.path):
        return ""
    only = example if task.licence == "yours" else None  # of a file: what is shipped may be passed on
    return ask.page(ask.pack(run.path, judged, ask.said(task, judged, only)), f"A student of {task.name}")


def _example(texts: Sequence[str]) -> str:
    """A text that reads the same in a shell, in JSON, in Markdown and in Python; any other word for it if none does."""
    plain = (text for text in texts if text and len(text) <= 60 and not {*text} & {*"'\"\\"} and markdown(text) == text)
    return next(plain, "a text")


def _card(run: Run, task: Task, exported: Entry, teacher: Teacher | None, judged: Judged, **told: Any) -> str:
    """The card's template, filled in: what it prints is escaped as Markdown, unless a filter made it `Markup`."""
    record, config = run.entry.record, run.config
    texts, labels, groups = task.test["text"][:], np.array(task.test["label"]), task.test["group"][:]
    own = judged.logits["test"]
    logits = {"this student": own} | ({"its teacher": judged.teacher} if teacher else {})
    results = Results.of(logits, labels, groups)
    scores = metrics.scores(own / judged.temperature, labels, groups, judged.teacher)  # as it is served
    kept = ("macro_f1", "ece", "nll", "agreement", "negative_flip_rate")
    found = _terms([Author(**one) for one in told["authors"]])
    owed = obligations(found)
    at_hand = [author["name"] for author in told["authors"] if not author["place"]]
    changed = {name: value for name, value in asdict(config).items() if value != getattr(TrainConfig(), name)}
    unit = "template" if len({*groups}) < len({*texts}) else "text"  # without groups each text is its own
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
    environment.finalize = lambda value: value if isinstance(value, Markup) else markdown(value)
    environment.filters |= {
        "table": lambda frame: Markup(markdown_table(content("", frame.rename(columns={"n_templates": f"n_{unit}s"})))),
        "yaml": lambda head: Markup(yaml(head)),
    }
    return environment.get_template("card.md").render(
        told,
        task=task,
        record=record,
        key=run.entry.key,
        teacher=teacher,
        terms=found,
        owed=owed,
        prefix="".join(f"{prefix}-" for prefix in owed.get("name_prefix", [])),
        base_models=[name for name in at_hand if HUB_NAME.fullmatch(name) and not Path(name).exists()],
        no_advice=NO_ADVICE,
        unit=unit,
        checks=pd.DataFrame.from_dict(exported.record["checks"], orient="index").rename(FILES).rename_axis("file"),
        estimates=arm_estimates(results),
        scores=scores,
        more=pd.DataFrame([(name, scores[name]) for name in kept if name in scores], columns=["metric", "value"]),
        worst=WORST,
        slices=_slices(results.only("this student"), own, texts, task.label_names),
        weak=teacher and leave_to_teacher(metrics.flip_table(own, judged.teacher, labels, groups), task.label_names),
        refusals=_refusals(judged, task, exported),
        auroc=metrics.auroc(judged.sure("test"), judged.sure("out_of_scope")) if len(task.out_of_scope) else None,
        settings=", ".join(f"{name}={value!r}" for name, value in changed.items()),
        built=", ".join(f"{name} {version}" for name, version in record["versions"].items() if name != "platform"),
    )


def _slices(results: Results, logits: np.ndarray, texts: list[str], names: tuple[str, ...]) -> pd.DataFrame:
    """Accuracy with its interval in the worst classes, and in the shorter and the longer half of the texts."""
    labels, several = results.labels, len({*results.groups}) > 2
    worst = metrics.flip_table(logits, labels, labels, results.groups).head(WORST)  # flips against the truth are errors
    classes = worst.assign(slice=[names[i] for i in worst["label"]], accuracy=1 - worst["negative"])
    classes = classes.assign(low=1 - worst["high"], high=1 - worst["low"])
    lengths = by_slice(results, metrics.slices([len(text.split()) for text in texts], 1 + several, " words"))
    kept = ["slice", "accuracy", "low", "high", "n_templates"]
    return pd.concat([classes[kept], lengths.rename(columns={"estimate": "accuracy"})[kept]])


def _refusals(judged: Judged, task: Task, exported: Entry) -> pd.DataFrame:
    """What share of the test and of the out-of-scope texts is refused, by the student and by the file that serves."""
    int8, tables = OnnxClassifier(exported.path / FILES["int8"]), []
    for split in [name for name in judged.logits if name != "calibration"]:
        rows = getattr(task, split)
        served = metrics.softmax(int8.logits(rows["text"][:]), judged.temperature).max(1)
        sure = {"this student": judged.sure(split), FILES["int8"]: served}
        if len(set(rows["group"])) > 1:  # means over templates of whatever class
            below = {arm: values < judged.refuse_below for arm, values in sure.items()}
            shares = arm_estimates(Results(below, np.zeros(len(rows), int), rows["group"][:]))
            tables.append(shares.assign(texts=split.replace("_", " ")).rename(columns={"estimate": "refused"}))
    return pd.concat(tables)[["texts", "arm", "refused", "low", "high", "n_templates"]]
