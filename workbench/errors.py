"""Errors a person reads: one sentence saying what is wrong, where, and what to do.

What a value must be is an object (`Number`, `Choice`, …) that checks it, words the refusal and tells a panel's control
its ends: said once, it can't differ between them. `training.TrainConfig` shows how settings carry these; how a sentence
quotes what came from elsewhere stands in `workbench.escape`.
"""

import difflib
import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from workbench.escape import visible


class WorkbenchError(ValueError):
    """Bad input or a broken artefact, explained in one sentence.

    The command line prints only the sentence and exits with status 2; a notebook shows it without the
    frames of the libraries underneath. What it quotes of files and names shows every character: see `escape.visible`.
    """

    def __init__(self, sentence: str) -> None:
        """Say it on one line."""
        super().__init__(visible(sentence))

    def _render_traceback_(self) -> list[str]:  # the hook IPython asks before it formats a traceback
        return [f"WorkbenchError: {self}"]


def unknown(what: str, name: object, options: Iterable[str]) -> WorkbenchError:
    """The error for a name that does not exist, naming the nearest one that does."""
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.4) if isinstance(name, str) else []
    hint = f"did you mean {near[0]!r}? " if near else ""
    return WorkbenchError(f"Unknown {what} {shown(name)}: {hint}Choose one of {', '.join(options)}.")


def reason(error: BaseException) -> str:
    """The first line of what a library says, to stand in brackets in a sentence; its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


# --- checks: what a value must be, said once; the sentence follows from it


def shown(value: object) -> str:
    """`value` as a message quotes it: on one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a repr may do anything; a number of more than 4,300 digits has none
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class Number:
    """The numbers that a value may be: `check` refuses all others, a control reads its ends.

    Attributes:
        least: the smallest.
        most: the largest.
        above: smaller than the smallest, where it is no part of the range itself.
        below: larger than the largest.
        whole: without a fraction.
        optional: None will do, too.
        unit: what is counted or measured, for the sentence.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    whole: bool = False
    optional: bool = False
    unit: str = ""

    def __str__(self) -> str:
        """In words, as in "give a number above 0 and at most 1"."""
        form = ",d" if self.whole else ",.10g"
        sides = (("of at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        ends = [f"{word} {end:{form}}" for word, end in sides if end is not None]
        kind = "whole" if self.whole else "finite" if len(ends) < 2 else ""
        said = f"a {kind} number {' and '.join(ends)}".replace("  ", " ").rstrip()
        if self.least is not None and self.most is not None:
            said = said.replace("of at least", "from").replace("and at most", "to")
        return said + (f" ({self.unit})" if self.unit else "") + (", or None" if self.optional else "")

    def holds(self, value: object) -> bool:
        """Whether `value` is such a number of Python's."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        try:
            return (
                math.isfinite(float(value))
                and (self.least is None or value >= self.least)
                and (self.most is None or value <= self.most)
                and (self.above is None or value > self.above)
                and (self.below is None or value < self.below)
            )
        except OverflowError:
            return False

    def check(self, name: str, value: Any) -> Any:
        """`value` as Python's int or float (None where that will do); numpy's scalars are numbers, strings are not.

        Raises:
            WorkbenchError: anything else, NaN and infinity included.
        """
        value = _plain(value)
        if not self.holds(value):
            raise WorkbenchError(f"{name} is {shown(value)}: give {self}.")
        return None if value is None else int(value) if self.whole else float(value)


@dataclass(frozen=True)
class Choice:
    """The strings that a value may be."""

    options: tuple[str, ...]

    def check(self, name: str, value: Any) -> str:
        """`value`, refused unless it is one of them."""
        value = _plain(value)
        if not isinstance(value, str) or value not in self.options:
            near = difflib.get_close_matches(str(value), self.options, n=1) if isinstance(value, str) else []
            hint = f"did you mean {near[0]!r}? Choose" if near else "choose"
            raise WorkbenchError(f"{name} is {shown(value)}: {hint} one of {', '.join(self.options)}.")
        return str(value)


@dataclass(frozen=True)
class Text:
    """Strings that are not empty."""

    def check(self, name: str, value: Any) -> str:
        """`value`, refused unless it is a string with something in it."""
        value = _plain(value)
        if not isinstance(value, str) or not value.strip() or not _is_text(value):
            raise WorkbenchError(f"{name} is {shown(value)}: give a string that is not empty.")
        return str(value)


@dataclass(frozen=True)
class Switch:
    """True or False."""

    def check(self, name: str, value: Any) -> bool:
        """`value`, refused unless it is one of the two."""
        value = _plain(value)
        if not isinstance(value, bool):
            raise WorkbenchError(f"{name} is {shown(value)}: give True or False.")
        return value


Check = Number | Choice | Switch | Text


def setting(default: object, check: Check) -> Any:
    """A field of a frozen dataclass that carries what its values may be: for `settle`, for sweeps, for controls."""
    return field(default=default, metadata={"check": check})


def checks(kind: type) -> dict[str, Check]:
    """Field -> what its values may be, of a dataclass with `setting`s."""
    return {f.name: f.metadata["check"] for f in fields(kind) if "check" in f.metadata}


def settle(settings: object) -> None:
    """Replace the `setting`s of a frozen dataclass by what their checks make of them, or raise."""
    for name, check in checks(type(settings)).items():
        object.__setattr__(settings, name, check.check(name, getattr(settings, name)))


MANY = 1_000_000_000  # where a count has no other end
SEED = Number(least=0, most=2**63 - 1, whole=True)
TEMPERATURE = Number(1e-6, 1e6)  # beyond, its square times a gradient leaves float32


def whole(name: str, value: Any, least: int = 1, most: int = MANY) -> int:
    """`value` as an int from `least` to `most`, or a WorkbenchError that names it."""
    return Number(least, most, whole=True).check(name, value)


def number(name: str, value: Any, least: float | None = None, most: float | None = None, **more: Any) -> float:
    """`value` as a finite float in the range (`more`: see `Number`), or a WorkbenchError that names it."""
    return Number(least, most, **more).check(name, value)


def sequence(name: str, values: Any, what: str = "values") -> list:
    """`values` as a list, or a WorkbenchError for a string, which would be taken apart, and for what is no sequence."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise WorkbenchError(f"{name} is {shown(values)}: give a list of {what}.")
    return list(values)


def strings(name: str, values: Any) -> list[str]:
    """`values` as a list of texts.

    Raises:
        WorkbenchError: no list, or the first entry that is no string or holds half of a surrogate pair, which no file
            and no tokenizer can take.
    """
    values = sequence(name, values, "texts")
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise WorkbenchError(f"{name}[{i}] is {shown(value)}: give a string.")
        if not _is_text(value):
            raise WorkbenchError(f"{name}[{i}] is {shown(value)}: it holds half of a surrogate pair; take that out.")
    return values


def check_name(what: str, name: object) -> None:
    """Raise WorkbenchError unless `name` is a string that a person can read and a file can have."""
    if not isinstance(name, str):
        raise WorkbenchError(f"The name of a {what} is {name!r}: give a string.")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise WorkbenchError(
            f"The {what} {ascii(name)} holds a control character or bytes that are not UTF-8: rename the file."
        )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """A scalar of numpy as Python's own; numpy itself, which takes a while to import, is not needed for that."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and value.dtype.kind in "biufU":
        return value.item()
    return value
