"""What the columns of a file or data set are: which holds texts, labels, near copies, splits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class Columns:
    """What the columns of a file or data set are; `load_task` takes each by name.

    Attributes:
        text: the column of texts. For pairs two columns, as ``"premise,hypothesis"`` or a tuple: each pair becomes
            one text, ``premise || hypothesis`` (`PAIR` between them), for teachers, students and whoever uses them.
        label: the column of labels; rows where it is empty are unlabelled.
        group: the column of near copies that must not be torn apart by a split.
        split: the column that says of each row ``train``, ``validation``, ``calibration`` or ``test``; what is not
            there is held out of the training rows. Not for a data set of the hub that has splits of its own.
        out_of_scope: the label of rows that belong to no class: they become the split of that name.
    """

    text: str | Sequence[str] = "text"
    label: str = "label"
    group: str | None = None
    split: str | None = None
    out_of_scope: str | None = None

    def __post_init__(self) -> None:
        for name in ("label", "group", "split", "out_of_scope"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and not (name != "label" and value is None):
                what = "of a label" if name == "out_of_scope" else "of a column"
                raise WorkbenchError(f"{name} is {value!r}: give the name {what}.")

    def texts(self, there: Sequence[str]) -> list[str]:
        """One column, or the two of a pair."""
        text = self.text
        if not (isinstance(text, str) or (isinstance(text, Sequence) and all(isinstance(t, str) for t in text))):
            raise WorkbenchError(f"text is {text!r}: give the name of a column, or two for pairs of texts.")
        columns = [text] if text in there else text.split(",") if isinstance(text, str) else list(text)
        if not 1 <= len(columns) <= 2:
            raise WorkbenchError(f"text names {len(columns)} columns ({text!r}): give one, or two for pairs of texts.")
        return columns

    def among(self, where: object, there: Sequence[str]) -> list[str]:
        """All of them, refused unless each is once among the columns that are there."""
        texts = self.texts(there)
        wanted = [*texts, self.label, *(name for name in (self.group, self.split) if name)]
        if len(set(wanted)) < len(wanted):
            named = ", ".join(map(repr, wanted))
            raise WorkbenchError(f"{where}: {named} name one column twice: name a column for each.")
        flags = {**dict.fromkeys(texts, "--text"), self.label: "--label", self.group: "--group"}
        for column in wanted:
            if there.count(column) > 1:
                raise WorkbenchError(f"{where} has {there.count(column)} columns {column!r}: rename all but one.")
            if len(there) == 1 and re.search(r"[;\t|]", there[0]):
                raise WorkbenchError(f"{where} has one column, {there[0]!r}: separate columns by commas.")
            if column not in there:
                names, flag = ", ".join(map(repr, there)), flags.get(column, "--split")
                raise WorkbenchError(f"{where} has no column {column!r}; it has {names}: name yours with {flag}.")
        return wanted
