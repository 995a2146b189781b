"""Answers as a teacher: what a model elsewhere has already said of your texts, read from a file.

For whoever has a large model's replies and no access to the model. Only what the file says is used: an answer that
names no class is counted and never mapped to one, and a text without an answer is refused by name, not guessed.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.errors import WorkbenchError, reason, shown
from workbench.store import code_fingerprint, file_hash, fingerprint
from workbench.tasks import Task
from workbench.teacher import ANSWER, Teacher

SURE = 0.999  # the probability of an answer that comes without any: all but certain, so that no logit is infinite
FLOOR = 1e-6  # the least that a class gets
EVEN = 0.01  # by how much probabilities may miss a sum of 1


class Names:
    """Classes by their names, as others write them: in whatever case, where that leaves one class."""

    def __init__(self, names: Sequence[str]):
        self._exact, self._folded = {name: i for i, name in enumerate(names)}, defaultdict(list)
        for i, name in enumerate(names):
            self._folded[name.strip().casefold()].append(i)

    def alike(self, name: str) -> list[int]:
        """The one that is named exactly so; else all that differ from it in no more than case and outer spaces."""
        return [self._exact[name]] if name in self._exact else self._folded.get(name.strip().casefold(), [])

    def find(self, name: str) -> int | None:
        """Its number; None where it is no class, or might be several."""
        found = self.alike(name)
        return found[0] if len(found) == 1 else None


class Answers(Teacher):
    """The answers in a CSV (a header; UTF-8) or JSON lines: a row a text.

    Columns: ``text``; ``answer``, a class of the task, in whatever case; and, if known, ``probabilities``, a JSON
    object from classes to numbers that sum to 1, or ``logprobs``, one from answers to natural logarithms, such as the
    few likeliest: what it gives to no class is left out, what it leaves over the classes that it doesn't name share.

    Attributes:
        unknown: answer -> rows, of the answers that name no class. Their texts have no answer.
    """

    licence = "see the terms of the model that gave them"
    timed = False

    def __init__(self, path: Path, task: Task):
        """Read all of it.

        Raises:
            WorkbenchError: no such file, one text with two answers, or numbers that are no distribution.
        """
        self.path, self.label_names, self.name = path, task.label_names, f"answers of {path.stem}"
        self.unknown: Counter[str] = Counter()
        self._names = Names(task.label_names)
        self._logits: dict[str, np.ndarray] = {}
        self._odd_texts: set[str] = set()
        code = code_fingerprint("answers:Answers")
        self.fingerprint = fingerprint([file_hash(path, "answers:"), list(task.label_names), code])
        try:
            for where, row in _read(path):
                self._add(where, row)
        except UnicodeDecodeError:
            raise WorkbenchError(f"{path} is not UTF-8: save it again as UTF-8.") from None
        except OSError as error:
            raise WorkbenchError(f"Can't read {path} ({reason(error)}): give one whole CSV or JSONL.") from None

    def logits(self, texts: list[str]) -> np.ndarray:
        """Log-probabilities ``[N, C]``.

        Raises:
            WorkbenchError: texts that the file doesn't answer.
        """
        known = self.has(texts)
        if not known.all():
            raise WorkbenchError(
                f"{self.path} answers {known.sum():,} of {len(texts):,} texts, not {shown(texts[int(known.argmin())])}"
                f"{self._odd()}: add answers, or take the rows without one out of the task (`answered`)."
            )
        return np.stack([self._logits[text.strip()] for text in texts])

    def has(self, texts: Sequence[str]) -> np.ndarray:
        """Whether the file answers each text, ``[N]`` bool."""
        return np.array([text.strip() in self._logits for text in texts], bool)

    def kinds(self, texts: Sequence[str]) -> list[str]:
        """`ANSWER`, "not in the file", or "answered with no class"."""
        return [
            ANSWER if known else "answered with no class" if text.strip() in self._odd_texts else "not in the file"
            for text, known in zip(texts, self.has(texts), strict=True)
        ]

    def _odd(self) -> str:
        some = next(iter(self.unknown), None)
        return f"; {self.unknown.total()} of its answers name no class, such as {some!r}" if self.unknown else ""

    def _add(self, where: str, row: dict[str, object]) -> None:
        for column in ("text", "answer"):
            if not isinstance(row.get(column), str):
                raise WorkbenchError(f"{where}: {column!r} is {shown(row.get(column))}: give a text and its answer.")
        answer, text = row["answer"].strip(), row["text"].strip()
        label = self._names.find(answer)
        if label is None:
            self.unknown[answer] += 1
            self._odd_texts.add(text)
            return
        given = {kind: row[kind] for kind in ("probabilities", "logprobs") if row.get(kind) not in (None, "")}
        if len(given) > 1:
            raise WorkbenchError(f"{where} has probabilities and logprobs: give one of them.")
        share = np.zeros(len(self.label_names))
        if given:
            ((kind, numbers),) = given.items()
            share = self._distribution(f"{where}: {kind}", kind, numbers)
        else:
            share[label] = SURE
        share[share == 0] = max(1 - share.sum(), 0) / max((share == 0).sum(), 1)
        log_p = np.log(np.maximum(share, FLOOR) / np.maximum(share, FLOOR).sum()).astype(np.float32)
        if (before := self._logits.setdefault(text, log_p)) is not log_p and (before != log_p).any():
            raise WorkbenchError(f"{where} answers {shown(text)} unlike an earlier row: keep one of them.")

    def _distribution(self, where: str, kind: str, numbers: object) -> np.ndarray:
        try:
            table = json.loads(numbers) if isinstance(numbers, str) else numbers
            values = {name: float(value) for name, value in table.items() if not isinstance(value, bool)}
        except (AttributeError, TypeError, ValueError):
            raise WorkbenchError(f"{where} are {shown(numbers)}: give a JSON object from classes to numbers.") from None
        if kind == "logprobs":
            with np.errstate(over="ignore"):
                values = {name: float(np.exp(value)) for name, value in values.items()}
        total = sum(values.values())
        if not all(value >= 0 for value in values.values()) or not total <= 1 + EVEN:
            raise WorkbenchError(f"{where} are no distribution, their sum is {total:.4g}: give what the model gave.")
        known = [(self._names.find(name), value) for name, value in values.items()]
        share = np.zeros(len(self.label_names))
        for index, value in known:
            if index is not None:
                share[index] += value
        if kind == "probabilities" and (odd := [n for n, (i, _) in zip(values, known, strict=True) if i is None]):
            raise WorkbenchError(f"{where} name {shown(odd[0])}, which is no class of the task: name its classes.")
        if kind == "probabilities" and total < 1 - EVEN:
            raise WorkbenchError(f"{where} sum to {total:.4g}: give those of all classes, which sum to 1.")
        if not share.sum():
            raise WorkbenchError(f"{where} give nothing to any class: leave them out where only the answer is known.")
        return share / max(share.sum(), 1 - (total - share.sum()))  # of what is given to classes


def _read(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """(where it stands, the row) of each."""
    if path.suffix in (".jsonl", ".ndjson"):
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line) if line.strip() else {}
                except ValueError:
                    row = None
                if not isinstance(row, dict):
                    raise WorkbenchError(f"{path}, line {number} is no JSON object: write one a line.")
                if row:
                    yield f"{path}, line {number}", row
        return
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8", keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError):
        raise WorkbenchError(f"{path} is not a well-formed CSV: quote texts that hold a comma.") from None
    if absent := {"text", "answer"} - set(table.columns):
        there = ", ".join(map(repr, table.columns))
        raise WorkbenchError(f"{path} has no column {min(absent)!r}; it has {there}: it needs text and answer.")
    for number, row in enumerate(table.to_dict("records"), 2):
        yield f"{path}, row {number}", row
