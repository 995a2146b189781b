"""Classification tasks of other shapes than the embedded one, made of what a Python on Debian has at hand.

`write(folder)` gives CSV files with ``text`` and ``label``: two classes of 500 docstrings; error messages by exception;
docstrings by module, a hundred and more classes, long texts; one-line descriptions of 50,000 packages by section.
Which rows there are depends on the installed versions: they serve to see how a default scales, not as a standard.
"""

import ast
import random
import subprocess
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

LONGEST = 500  # characters of a text
TWO = ("numpy", "pandas")
READ = (*TWO, "scipy", "sklearn")  # beside the standard library: all that is installed would take minutes


def write(folder: Path) -> dict[str, Path]:
    """Name -> path; a task whose source isn't here is left out."""
    docs, errors = defaultdict(list), defaultdict(list)
    for module, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                docs[module].append(text)
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                texts = [part.value for part in ast.walk(node.exc) if isinstance(part, ast.Constant)]
                errors[node.exc.func.id].append(" ".join(text for text in texts if isinstance(text, str)))
    two = {name: [text for module in docs if module.split(".")[0] == name for text in docs[module]] for name in TWO}
    largest = sorted(docs, key=lambda module: -len(docs[module]))[:150]
    tasks = {
        "two-docs-500": _cut(two, 250),
        "errors-by-type": _cut(errors, 3000),
        "docs-by-module": _cut({module: docs[module] for module in largest}, 130),
        "debian-by-section": _cut(_sections(), 5000, 50_000),
    }
    paths = {}
    for name, table in tasks.items():
        if len(table):
            paths[name] = folder / f"{name}.csv"
            table.to_csv(paths[name], index=False)
    return paths


def _trees() -> Iterator[tuple[str, ast.Module]]:
    """(package and what is two levels below it, its tree) of the standard library and a few packages."""
    library, installed = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))
    for home, places in ((library, [library]), (installed, [installed / name for name in READ])):
        for path in sorted(path for place in places for path in place.rglob("*.py")):
            parts = path.relative_to(home).parts
            if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(parts):
                continue
            try:
                yield ".".join(parts[:3]).removesuffix(".py"), ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, ValueError, RecursionError):
                continue


def _sections() -> dict[str, list[str]]:
    try:
        text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    found = defaultdict(list)
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
        if {"Section", "Description"} <= fields.keys():
            found[fields["Section"]].append(fields["Description"])
    return found


def _cut(texts: dict[str, list[str]], most: int, rows: int = 20_000, least: int = 40) -> pd.DataFrame:
    """At most `most` distinct texts a class, of the classes that have `least`, and at most `rows` in all."""
    table, seen = [], set()
    for label in sorted(texts):
        mine = sorted({" ".join(text.split())[:LONGEST] for text in texts[label] if len(text.split()) > 2} - seen)
        seen |= set(mine)
        random.Random(label).shuffle(mine)
        if len(mine) >= least:
            table += [(text, label) for text in mine[:most]]
    random.Random(0).shuffle(table)
    frame = pd.DataFrame(table[:rows], columns=["text", "label"])
    return frame[frame.groupby("label")["text"].transform("size") >= 20]
