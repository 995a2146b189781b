"""What a teacher is: anything that scores texts. The teachers there are stand in `workbench.teachers`.

Nothing here decides a number, so that it is no part of the keys under which a teacher's answers are stored.
"""

import math
import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from workbench.errors import WorkbenchError, shown
from workbench.tasks import SPLITS, Task

ANSWER = "answer"
JUDGED = ("labelled", "test")  # splits without which there is nothing to learn or to judge


class Teacher(ABC):
    """Anything that scores texts: subclass it with `logits`, `label_names` and `fingerprint`, and it works everywhere.

    An object with these three that is no subclass will do, too: `as_teacher` lends it the rest.

    Attributes:
        label_names: the classes, in the order of the task.
        fingerprint: changes whenever the scores could: what is stored is found by it.
        name: in tables and figures.
        licence: the terms its answers come under; "" where they are not known.
        timed: whether `logits` may be called for nothing but its time. False where a call costs money, or where there
            is no model to call.
    """

    label_names: tuple[str, ...]
    fingerprint: str
    name: str = "your teacher"
    licence: str = ""
    timed: bool = True

    @abstractmethod
    def logits(self, texts: list[str]) -> np.ndarray:
        """``[N, C]`` float32, columns in the order of `label_names`."""

    def describe(self, texts: list[str]) -> dict[str, float]:
        """Parameters, bytes of the weights, FLOPs of a text of median length; NaN is unknown."""
        return dict.fromkeys(("parameters", "bytes", "flops"), math.nan)

    def kinds(self, texts: Sequence[str]) -> list[str]:
        """What it has to say of each text: `ANSWER`, or in a word why it has none, such as "refused"."""
        return [ANSWER] * len(texts)

    def answered(self, task: Task, splits: Sequence[str] = SPLITS) -> Task:
        """`task` without the texts of these splits that it has no answer to; a warning counts them. See `narrowed`."""
        task, left_out = self.narrowed(task, splits)
        if left_out:
            warnings.warn(left_out, stacklevel=2)
        return task

    def narrowed(self, task: Task, splits: Sequence[str] = SPLITS) -> tuple[Task, str]:
        """(`task` without the texts of these splits that it has no answer to, a sentence that counts them or "").

        A model behind an API is asked for all of them here: whoever asks it again finds its replies.

        Raises:
            WorkbenchError: none of the labelled or of the test texts has an answer.
        """
        parts, left_out, why = {}, {}, Counter()
        for split in sorted(splits, key=lambda split: split not in JUDGED):  # before more is paid for
            rows = getattr(task, split)
            kinds = self.kinds(rows["text"][:])
            known, odd = [kind == ANSWER for kind in kinds], Counter(kind for kind in kinds if kind != ANSWER)
            if split in JUDGED and not any(known):
                raise WorkbenchError(
                    f"{self.name}: none of the {len(rows):,} {split} texts of {task.name} has an answer"
                    f"{f' ({in_words(odd)})' if odd else ''}, and it takes some to go on."
                )
            if odd:
                parts[split], left_out[split] = rows.select(np.flatnonzero(known)), f"{odd.total():,} of {len(rows):,}"
                why += odd
        if not parts:
            return task, ""
        counts = ", ".join(f"{count} {split}" for split, count in left_out.items())
        task = replace(
            task, **parts, source=f"{task.source}; without {why.total():,} texts that {self.name} did not answer"
        )
        return task, f"{self.name} has no answer to {counts} texts ({in_words(why)}): left out."


def in_words(kinds: Counter[str]) -> str:
    """How many texts of each kind but answers: ``"12 refused, 3 truncated"``."""
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if kind != ANSWER)


class _Lent(Teacher):
    """Another object's scores, with what it lacks of a `Teacher`."""

    def __init__(self, given: Any):
        self.given = given
        for name in ("label_names", "fingerprint", "name", "licence", "timed", "describe", "endpoint", "authors"):
            if hasattr(given, name):
                setattr(self, name, getattr(given, name))

    def logits(self, texts: list[str]) -> np.ndarray:
        return self.given.logits(texts)


def as_teacher(given: Any) -> Teacher:
    """`given`, or what has the three parts of a `Teacher` as one.

    Raises:
        WorkbenchError: it lacks one of them.
    """
    if isinstance(given, Teacher):
        return given
    if absent := [name for name in ("logits", "label_names", "fingerprint") if not hasattr(given, name)]:
        what = "a teacher's logits, label_names and fingerprint"
        raise WorkbenchError(f"{shown(given)} has no {absent[0]!r}: give {what}.")
    return _Lent(given)


class AtHand(Teacher):
    """A teacher with its answers at hand: what it has scored once it scores the same again, at once.

    To serve it, or to ask it of the same texts many times; not to take its time.
    """

    timed = False

    def __init__(self, teacher: Any, texts: Sequence[str] = (), logits: np.ndarray | None = None):
        """`texts`: scored now, together, unless their `logits` ``[N, C]`` are given."""
        self.teacher = as_teacher(teacher)
        self.label_names, self.fingerprint = self.teacher.label_names, self.teacher.fingerprint
        self.name, self.licence, self.authors = self.teacher.name, self.teacher.licence, authors(self.teacher)
        self._known = {} if logits is None else dict(zip(texts, logits, strict=True))
        self.logits(list(texts))

    def logits(self, texts: list[str]) -> np.ndarray:
        """See `Teacher`."""
        if absent := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known.update(zip(absent, self.teacher.logits(absent), strict=True))
        return np.array([self._known[text] for text in texts])

    def describe(self, texts: list[str]) -> dict[str, float]:
        """Of the teacher itself."""
        return self.teacher.describe(texts)

    def kinds(self, texts: Sequence[str]) -> list[str]:
        """See `Teacher`."""
        return self.teacher.kinds(texts)


class Author(NamedTuple):
    """Who wrote part of what a student learns from, and so has terms: `workbench.hosted.terms` looks them up.

    `place`: the URL of the API that was asked, "" for weights at hand; `licence`: of the weights, "" if not known.
    """

    name: str
    place: str = ""
    licence: str = ""


WRITTEN_BY = re.compile(r"transfer set: written by ([^;]+?)(?: at (https?://[^;\s]+))?(?:;|$)")  # a task's source


def authors(teacher: Teacher, task: Task | None = None) -> list[Author]:
    """Everyone who wrote part of the labels or, of a task's transfer set, the texts: the teacher, and who else.

    A teacher made of several models, or whose answers a judge sifts, has them all in an attribute ``authors``.
    """
    place = getattr(getattr(teacher, "endpoint", None), "base_url", "")
    own = [Author(teacher.name, place, teacher.licence)]
    texts = [Author(name, place) for name, place in WRITTEN_BY.findall(task.source if task else "")]
    return list(dict.fromkeys([*getattr(teacher, "authors", own), *texts]))
