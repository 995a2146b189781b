"""Errors a person reads: one sentence saying what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable

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
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return WorkbenchError(f"Unknown {what} {name!r}: {hint}Choose one of {', '.join(options)}.")
