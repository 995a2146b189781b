"""Tasks: the texts a teacher labels, the few labels a student gets, and the splits that judge both.

``load_task("voice-commands")`` is embedded; ``load_task("csv:path")`` reads a file of your own. Every split is a
`datasets.Dataset` with the columns ``text``, ``label`` (an index into ``label_names``; -1 = none of them) and
``group`` (what rows share when they are near copies, such as a template; a row of its own without groups).
"""

import json
import math
import random
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

from workbench.errors import WorkbenchError, unknown
from workbench.store import Store, code_fingerprint, fingerprint, sha256_file

SPLITS = ("labelled", "unlabelled", "validation", "calibration", "test", "out_of_scope")
HELD_OUT = {"test": 0.2, "validation": 0.1, "calibration": 0.1}  # of a CSV's groups, within each class
TASKS = ("voice-commands", "csv:<path>")


@dataclass(frozen=True)
class Task:
    """A classification task, split once.

    The **transfer set**, the texts a teacher labels, is ``labelled`` plus ``unlabelled``: it stays the same set
    whatever ``labels_per_class`` and ``label_draw``, which only decide whose labels may be seen. Validation picks
    checkpoints and settings, calibration fits temperatures and thresholds, test judges, once.
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

    @property
    def transfer_texts(self) -> list[str]:
        """The labelled texts, then the unlabelled ones."""
        return self.labelled["text"][:] + self.unlabelled["text"][:]

    @cached_property
    def fingerprint(self) -> str:
        """Depends on every text, label and group of every split, and on the label names."""
        splits = {s: getattr(self, s) for s in SPLITS}
        columns = {s: [d[c][:] for c in ("text", "label", "group")] for s, d in splits.items()}
        return fingerprint([list(self.label_names), columns])

    def smaller(self, rows: int, draw: int = 0) -> "Task":
        """This task with a transfer set of `rows` texts: all labelled ones and a random draw of the others.

        Raises:
            WorkbenchError: fewer rows than are labelled, or more than there are.
        """
        labelled, total = len(self.labelled), len(self.labelled) + len(self.unlabelled)
        if not labelled <= rows <= total:
            raise WorkbenchError(f"A transfer set of {rows} rows: choose from {labelled} (labelled) to {total} (all).")
        order = random.Random(f"transfer draw {draw}").sample(range(total - labelled), rows - labelled)
        return replace(self, unlabelled=self.unlabelled.select(sorted(order)))

    def describe(self) -> pd.DataFrame:
        """One row a split: rows, classes, groups, rows of the smallest class, median words."""
        table = {}
        for name in SPLITS:
            rows = getattr(self, name)[:]
            counts = Counter(rows["label"])
            table[name] = {
                "rows": len(rows["text"]),
                "classes": len([c for c in counts if c >= 0]),
                "groups": len(set(rows["group"])),
                "smallest class": min(counts.values(), default=0),
                "median words": float(np.median([len(t.split()) for t in rows["text"]])) if rows["text"] else 0.0,
            }
        return pd.DataFrame(table).T.astype({c: int for c in ("rows", "classes", "groups", "smallest class")})


def load_task(
    name: str = "voice-commands",
    *,
    labels_per_class: int | None = 5,
    label_draw: int = 0,
    text: str = "text",
    label: str = "label",
    group: str | None = None,
    store: Store | None = None,
) -> Task:
    """Load a task.

    Args:
        name: ``"voice-commands"`` or ``"csv:<path>"``.
        labels_per_class: how many training rows of each class keep their label (≥ 1); the others are the
            unlabelled rest of the transfer set. None keeps every label. A class with fewer rows gives them all.
        label_draw: seed of the draw of those rows.
        text: the CSV's text column.
        label: the CSV's label column.
        group: the CSV's column of near copies that must not be torn apart by a split.
        store: where the sampled task is kept.

    Raises:
        WorkbenchError: unknown task, unreadable file, missing column, empty or missing cells, too few classes or rows.
    """
    if labels_per_class is not None and not (isinstance(labels_per_class, int) and labels_per_class >= 1):
        raise WorkbenchError(
            f"labels_per_class is {labels_per_class!r}: give a whole number of at least 1, or None for every label."
        )
    if name == "voice-commands":
        title, source, licence, names, rows = "voice-commands", *_voice_commands(store or Store())
    elif name.startswith("csv:"):
        path = Path(name.removeprefix("csv:"))
        title, licence, source = path.stem, "yours", f"{path.name} (sha256 {_file_hash(path)[:12]})"
        names, rows = _read_csv(path, text, label, group)
    else:
        raise unknown("task", name, TASKS)

    # Copied sentences carry the label of their class only if drawn: the draw is the experiment's "label budget".
    seen: dict[int, list[int]] = defaultdict(list)
    for i in random.Random(f"label draw {label_draw}").sample(range(len(rows["train"])), len(rows["train"])):
        seen[rows["train"][i]["label"]].append(i)
    drawn = {i for of_class in seen.values() for i in of_class[:labels_per_class]}
    rows["labelled"] = [r for i, r in enumerate(rows["train"]) if i in drawn]
    rows["unlabelled"] = [r | {"label": -1} for i, r in enumerate(rows["train"]) if i not in drawn]
    splits = {s: _dataset(rows.get(s, [])) for s in SPLITS}
    return Task(
        title,
        tuple(names),
        **splits,
        source=source,
        licence=licence,
        labels_per_class=labels_per_class,
        label_draw=label_draw,
    )


def _dataset(rows: list[dict]) -> Dataset:
    columns = {c: [row[c] for row in rows] for c in ("text", "label", "group")}
    return Dataset.from_pandas(
        pd.DataFrame(columns).astype({"text": str, "label": int, "group": str}), preserve_index=False
    )


def _voice_commands(store: Store) -> tuple[str, str, list[str], dict[str, list[dict]]]:
    from workbench import voice_commands as grammar

    def build(folder: Path) -> None:
        names, rows = grammar.sample()
        (folder / "task.json").write_text(json.dumps({"names": names, "rows": rows}), encoding="utf-8")

    inputs = {"task": "voice-commands", "source": grammar.SOURCE, "code": code_fingerprint("voice_commands")}
    made = json.loads((store.make("tasks", inputs, build).path / "task.json").read_text(encoding="utf-8"))
    return grammar.SOURCE, grammar.LICENCE, made["names"], made["rows"]


def _file_hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise WorkbenchError(f"Can't read {path}: {error.strerror}; check the path after 'csv:'.") from None


def _read_csv(path: Path, text: str, label: str, group: str | None) -> tuple[list[str], dict[str, list[dict]]]:
    """Rows of a CSV, cleaned and split."""
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8", keep_default_na=False, na_values=[""])
    except UnicodeDecodeError:
        raise WorkbenchError(f"{path} is not UTF-8: save it again as UTF-8.") from None
    except pd.errors.EmptyDataError:
        raise WorkbenchError(f"{path} has no rows: it needs a header and one row a text.") from None
    except pd.errors.ParserError as error:
        reason = str(error).strip().rpartition("error: ")[2]
        raise WorkbenchError(f"{path} is not a well-formed CSV ({reason}): quote texts that hold a comma.") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the surplus cells for names of the rows
        raise WorkbenchError(f"{path} has rows with more cells than the header: quote texts that hold a comma.")
    wanted = [text, label] + ([group] if group else [])
    if len(set(wanted)) < len(wanted):
        raise WorkbenchError(f"{path}: {', '.join(map(repr, wanted))} name one column twice: name a column for each.")
    for column in wanted:
        if column not in table.columns:
            there = ", ".join(map(repr, table.columns))
            flag = {text: "--text", label: "--label"}.get(column, "--group")
            raise WorkbenchError(f"{path} has no column {column!r}; it has {there}: name yours with {flag}.")
    if table.empty:
        raise WorkbenchError(f"{path} has no rows: it needs a header and one row a text.")
    table = table[wanted].apply(lambda cells: cells.str.strip())
    for column in wanted:
        bad = table.index[table[column].isna() | table[column].isin(["", "NaN", "nan"])]
        if len(bad):
            more = f" and {len(bad) - 1} more rows" if len(bad) > 1 else ""
            raise WorkbenchError(
                f"{path}, row {bad[0] + 2}{more}: column {column!r} is empty or NaN; fill it in or delete the row."
            )
    names = sorted(table[label].unique())
    if len(names) < 2:
        raise WorkbenchError(f"{path} has one class ({names[0]!r} in column {label!r}): add rows of another.")
    # The same text in two splits would leak: identical texts are one group, or stay only in the first of their groups.
    frame = pd.DataFrame(
        {
            "text": table[text],
            "label": table[label].map({n: i for i, n in enumerate(names)}).astype(int),
            "group": table[group] if group else table[text],
        }
    )
    if not group:
        frame["group"] = "row " + frame.groupby("group", sort=False).ngroup().astype(str)
    copies = frame["group"] != frame.groupby("text")["group"].transform("first")
    if copies.any():
        warnings.warn(f"{path}: left out {copies.sum()} rows whose text stands in an earlier group.", stacklevel=3)
        frame = frame[~copies]
    return names, _split(path, frame, names)


def _split(path: Path, frame: pd.DataFrame, names: list[str]) -> dict[str, list[dict]]:
    """Held-out shares of each class's groups, drawn with a fixed seed; what is left trains."""
    first = frame.drop_duplicates("group").set_index("group")["label"]
    crossing = frame.groupby("text")["label"].nunique().gt(1).sum()
    if crossing:
        warnings.warn(f"{path}: {crossing} texts carry more than one label; they stay in one split.", stacklevel=4)
    split_of: dict[str, str] = {}
    for index, name in enumerate(names):
        groups = sorted(first.index[first == index])
        if len(groups) < len(HELD_OUT) + 1:
            raise WorkbenchError(
                f"{path}: class {name!r} has {len(groups)} distinct row(s) or group(s); it needs at least "
                f"{len(HELD_OUT) + 1}, one for each split: add rows or drop the class."
            )
        random.Random(f"split {name}").shuffle(groups)
        queue = [s for s, share in HELD_OUT.items() for _ in range(max(1, math.floor(share * len(groups))))]
        split_of.update({g: queue[i] if i < len(queue) else "train" for i, g in enumerate(groups)})
    placed = frame.assign(split=frame["group"].map(split_of))
    return {s: placed[placed["split"] == s].to_dict("records") for s in ("train", *HELD_OUT)}
