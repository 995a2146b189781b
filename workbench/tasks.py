"""Tasks: the texts a teacher labels, the few labels a student gets, and the splits that judge both.

``load_task("voice-commands")`` is embedded; ``load_task("csv:path")`` reads a file of your own, and
``load_task("hub:owner/name/config")`` whatever `datasets.load_dataset` knows. Every split is a `datasets.Dataset`
with the columns ``text``, ``label`` (an index into ``label_names``; -1 = none of them) and ``group`` (what rows share
when they are near copies, such as a template; a row of its own without groups).
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from workbench.columns import Columns
from workbench.errors import Number, WorkbenchError, check_name, shown, unknown
from workbench.splits import FOLDS
from workbench.store import Store, code_fingerprint, file_hash

SPLITS = ("labelled", "unlabelled", "validation", "calibration", "test", "out_of_scope")
TASKS = ("voice-commands", "csv:<path>", "hub:<dataset>[/<config>]")
ROWS = 10_000  # read at a time
WHOLE = Number(whole=True)
PER_CLASS = Number(1, whole=True, optional=True)
FOLD = Number(0, FOLDS - 1, whole=True)
pd.set_option("display.html.use_mathjax", False)  # a text in a table is no formula, whatever JupyterLab reads into it


@dataclass(frozen=True)
class Task:
    """A classification task, split once.

    The **transfer set**, the texts a teacher labels, is ``labelled`` plus ``unlabelled``: it stays the same set
    whatever ``labels_per_class`` and ``label_draw``, which only decide whose labels may be seen. Validation picks
    checkpoints and settings, calibration fits temperatures and thresholds, test judges, once.

    Another **fold** is another split of the same rows: over the folds there are (`folds`; one where the data brought a
    test split of its own) every group is tested once.
    """

    name: str
    label_names: tuple[str, ...]
    labelled: Dataset
    unlabelled: Dataset
    validation: Dataset
    calibration: Dataset
    test: Dataset
    out_of_scope: Dataset
    source: str
    licence: str
    labels_per_class: int | None = None
    label_draw: int = 0
    fold: int = 0
    folds: int = 1

    @property
    def transfer_texts(self) -> list[str]:
        """The labelled texts, then the unlabelled ones."""
        return self.labelled["text"][:] + self.unlabelled["text"][:]

    @property
    def label_budget(self) -> str:
        """How many labels training may read, in words: ``"95 labels, 5 per class"``."""
        each = "all there are" if self.labels_per_class is None else f"{self.labels_per_class} per class"
        return f"{len(self.labelled):,} labels, {each}"

    @cached_property
    def fingerprint(self) -> str:
        """Depends on every text, label and group of every split, and on the label names."""
        # `store.fingerprint` of [label names, {split: [texts, labels, groups]}], without all of it in memory at once
        digest = hashlib.sha256(f"[{_json(list(self.label_names))},{{".encode())
        for i, split in enumerate(sorted(SPLITS)):
            digest.update(f'{"," if i else ""}"{split}":['.encode())
            for j, column in enumerate(("text", "label", "group")):
                digest.update(b",[" if j else b"[")
                for k, batch in enumerate(_column(getattr(self, split), column)):
                    digest.update(f"{',' if k else ''}{_json(batch)[1:-1]}".encode())
                digest.update(b"]")
            digest.update(b"]")
        digest.update(b"}]")
        return digest.hexdigest()[:32]

    def smaller(self, rows: int, draw: int = 0) -> "Task":
        """This task with a transfer set of `rows` texts: all labelled ones and a random draw of the others.

        Raises:
            WorkbenchError: fewer rows than are labelled, more than there are, or a number that is not whole.
        """
        if not WHOLE.holds(rows) or not WHOLE.holds(draw):
            raise WorkbenchError(f"A transfer set of {shown(rows)} rows in draw {shown(draw)}: give whole numbers.")
        labelled, total = len(self.labelled), len(self.labelled) + len(self.unlabelled)
        if not labelled <= rows <= total:
            raise WorkbenchError(f"A transfer set of {rows} rows: choose from {labelled} (labelled) to {total} (all).")
        order = random.Random(f"transfer draw {draw}").sample(range(total - labelled), rows - labelled)
        return replace(self, unlabelled=self.unlabelled.select(sorted(order)))

    def describe(self) -> pd.DataFrame:
        """One row a split: rows, classes, groups, rows of the smallest class, median words."""
        table = {}
        for name in SPLITS:
            rows = getattr(self, name)
            counts = Counter(rows["label"])
            words = [len(text.split()) for batch in _column(rows, "text") for text in batch]
            table[name] = {
                "rows": len(rows),
                "classes": len([c for c in counts if c >= 0]),
                "groups": len(set(rows["group"])),
                "smallest class": min(counts.values(), default=0),
                "median words": float(np.median(words)) if words else 0.0,
            }
        return pd.DataFrame(table).T.astype({c: int for c in ("rows", "classes", "groups", "smallest class")})


def load_task(
    name: str = "voice-commands",
    columns: Columns | None = None,
    *,
    labels_per_class: int | None = 5,
    label_draw: int = 0,
    fold: int = 0,
    store: Store | None = None,
    **named: Any,
) -> Task:
    """Load a task.

    Args:
        name: ``"voice-commands"``, ``"csv:<path>"``, or ``"hub:<dataset>[/<config>]"``: one part is a dataset without
            an owner, two are ``owner/name``, three ``owner/name/config``. A path of a folder (with data files, or made
            by ``save_to_disk``) works as a dataset's name does. Its own test and validation splits are kept;
            what it lacks is held out of its training rows, as from a CSV. Its rows without a label are unlabelled.
        columns: of a file or data set; ``text``, ``label`` and no groups unless they are named.
        labels_per_class: how many training rows of each class keep their label (≥ 1); the others are the
            unlabelled rest of the transfer set. None keeps every label. A class with fewer rows gives them all.
        label_draw: seed of the draw of those rows.
        fold: 0, 1 or 2: which third of the groups is tested (see `Task`). Data with a test split of its own, or with a
            class too small to be tested in turn, has fold 0 only.
        store: where the sampled task is kept.
        named: fields of `Columns`, which go before those of `columns`, such as ``text="question"``.

    Raises:
        WorkbenchError: unknown task, unreadable file or dataset, missing column, empty or missing cells, several
            labels a row, too few classes or rows, no such fold, or an argument of another type.

    Warns:
        UserWarning: labels that look alike (case, spaces, Unicode form, invisible characters); they stay apart.
    """
    labels_per_class = PER_CLASS.check("labels_per_class", labels_per_class)
    label_draw, fold = WHOLE.check("label_draw", label_draw), FOLD.check("fold", fold)
    if not isinstance(columns, Columns | None):
        raise WorkbenchError(f"columns is {shown(columns)}: give Columns, or name them: text, label, group, split.")
    columns = replace(columns or Columns(), **named)
    check_name("task", name)
    if name in ("csv:", "hub:"):
        raise WorkbenchError(f"The task {name!r} names nothing: write {TASKS[1]} or {TASKS[2]}.")
    if name == "voice-commands":
        title, source, licence, names, rows = "voice-commands", *_voice_commands(store or Store(), fold)
        available = FOLDS
    elif name.startswith("csv:"):
        from workbench import own_data

        path = Path(name.removeprefix("csv:"))
        digest = file_hash(path, "csv:")[:12]
        title, licence, source = path.stem, "yours", f"{path.name} (sha256 {digest})"
        names, rows, available = own_data.divide(path, *own_data.read_csv(path, columns), columns, fold)
    elif name.startswith("hub:"):
        from workbench import own_data

        title, source, licence, *read = own_data.read_hub(name.removeprefix("hub:"), columns)
        names, rows, available = own_data.divide(title, *read, columns, fold)
    else:
        raise unknown("task", name, TASKS)

    # Copied sentences carry the label of their class only if drawn: the draw is the experiment's "label budget".
    train = rows["train"]
    order = random.Random(f"label draw {label_draw}").sample(range(len(train)), len(train))
    rank = train.iloc[order].groupby("label").cumcount().sort_index().to_numpy()
    drawn = (train["label"] >= 0).to_numpy() & (rank < (labels_per_class or len(train)))
    rows["labelled"], rows["unlabelled"] = train[drawn], train[~drawn].assign(label=-1)
    splits = {s: _dataset(rows.get(s)) for s in SPLITS}
    drawn_as = {"labels_per_class": labels_per_class, "label_draw": label_draw, "fold": fold, "folds": available}
    return Task(title, tuple(names), **splits, source=source, licence=licence, **drawn_as)


def _json(value: list) -> str:
    return json.dumps(value, separators=(",", ":"))


def _column(rows: Dataset, name: str) -> Iterator[list]:
    return (rows[start : start + ROWS][name] for start in range(0, len(rows), ROWS))


def _dataset(rows: pd.DataFrame | None) -> Dataset:
    rows = pd.DataFrame(columns=["text", "label", "group"]) if rows is None else rows[["text", "label", "group"]]
    return Dataset.from_pandas(rows.astype({"text": str, "label": int, "group": str}), preserve_index=False)


def _voice_commands(store: Store, fold: int) -> tuple[str, str, list[str], dict[str, pd.DataFrame]]:
    from workbench import voice_commands as grammar

    def build(folder: Path) -> None:
        names, rows = grammar.sample(fold)
        (folder / "task.json").write_text(json.dumps({"names": names, "rows": rows}), encoding="utf-8")

    inputs = {"task": "voice-commands", "source": grammar.SOURCE, "code": code_fingerprint("voice_commands:sample")}
    inputs |= {"fold": fold}
    made = json.loads((store.make("tasks", inputs, build).path / "task.json").read_text(encoding="utf-8"))
    return grammar.SOURCE, grammar.LICENCE, made["names"], {s: pd.DataFrame(r) for s, r in made["rows"].items()}
