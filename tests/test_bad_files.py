"""Bad files, stores and arguments: one sentence each, nothing hangs, nothing runs, nothing in use is removed."""

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import refusal
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tiny import make_labels, make_task
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from workbench.__main__ import main
from workbench.errors import WorkbenchError
from workbench.language.blocks import load_text
from workbench.language.labels import HEAD, LabelOptions, TextLabels
from workbench.publish import report
from workbench.publish.onnx import OnnxClassifier
from workbench.soft_labels import SoftLabels
from workbench.store import Store, check_writable, sha256_file
from workbench.tasks import load_task

REPO = Path(__file__).resolve().parents[1]
GOOD = "text,label\n" + "".join(f"text {i} {c},{c}\n" for i in range(10) for c in "ab")
Try = Callable[[Path], object]

# How a row of the table below is tried. Each takes what differs and gives a function of an empty folder.


def table(content: bytes | str, name: str = "a.csv", **options: object) -> Try:
    """A CSV of this content."""

    def run(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        load_task(f"csv:{folder / name}", **options)

    return run


def task(name: object, **options: object) -> Try:
    """A task of this name, in which DIR stands for the folder."""
    return lambda folder: load_task(name.replace("DIR", str(folder)) if isinstance(name, str) else name, **options)


def pipe(name: str, task_name: str) -> Try:
    """A pipe that nobody writes to."""

    def run(folder: Path) -> None:
        os.mkfifo(folder / name)
        load_task(task_name.replace("DIR", str(folder)))

    return run


def hub(files: dict[str, bytes | str], **options: object) -> Try:
    """A folder of data files."""

    def run(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        load_task(f"hub:{folder}", **options)

    return run


def saved(harm: Callable[[Path], object]) -> Try:
    """A folder by `save_to_disk`, harmed."""

    def run(folder: Path) -> None:
        rows = Dataset.from_dict({"text": [f"text {i}" for i in range(40)], "label": [i % 2 for i in range(40)]})
        DatasetDict(train=rows).save_to_disk(folder)
        harm(folder)
        load_task(f"hub:{folder}")

    return run


def crowd(folder: Path) -> None:
    """A data file among thousands of others."""
    for i in range(5_001):
        (folder / str(i)).touch()
    (folder / "train.csv").write_text(GOOD)
    load_task(f"hub:{folder}")


def columns(**columns: list) -> Try:
    def run(folder: Path) -> None:
        Dataset.from_dict(columns).to_parquet(folder / "train.parquet")
        load_task(f"hub:{folder}", group="group")

    return run


def smaller(rows: object, **options: object) -> Try:
    return lambda folder: make_task(folder).smaller(rows, **options)


def text(name: str, files: dict[str, bytes] | None = None) -> Try:
    """A folder of text."""

    def run(folder: Path) -> None:
        for file, content in (files or {}).items():
            (folder / file).write_bytes(content)
        load_text(name.replace("DIR", str(folder)), None)

    return run


def text_pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.txt")
    load_text(f"folder:{folder}", None)


LABELS = '{"id2label": {"0": "a", "1": "b"}}'
PADDED = Tokenizer(WordLevel({"[PAD]": 0}, unk_token="[PAD]"))
PADDED.enable_padding()
TOKENS = PADDED.to_str()


def onnx(config: str = LABELS, tokens: str = TOKENS, model: bytes = b"junk", threads: object = 1) -> Try:
    """An exported student of these files."""

    def run(folder: Path) -> None:
        (folder / "config.json").write_text(config)
        (folder / "tokenizer.json").write_text(tokens)
        (folder / "model.onnx").write_bytes(model)
        OnnxClassifier(folder / "model.onnx", threads)

    return run


def graph(names: tuple[str, ...], classes: int) -> bytes:
    """An ONNX file of these inputs that gives so many logits."""
    from onnx import TensorProto, helper

    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", classes]) for name in names]
    output = helper.make_tensor_value_info("logits", TensorProto.INT64, ["rows", classes])
    node = helper.make_node("Identity", [names[0]], ["logits"])
    made = helper.make_model(helper.make_graph([node], "g", inputs, [output]), ir_version=10)
    made.opset_import[0].version = 20
    return made.SerializeToString()


def cell(source: object = "budget = 1", **more: object) -> str:
    """A notebook of one cell, its parameters."""
    made = {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "outputs": [], "source": source}
    cells = [made | {"execution_count": None} | more]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})


def notebook(content: bytes | str) -> Try:
    """A report of one notebook."""

    def run(folder: Path) -> None:
        (folder / "budgets.yaml").touch()
        (folder / "00_a.ipynb").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(report, "_execute", lambda *a: pytest.fail("it ran"))
            report.run(folder, data=folder)

    return run


def store(use: Callable[[Store], object]) -> Try:
    """A store with one entry of kind ``runs``."""

    def run(folder: Path) -> None:
        kept = Store(folder / "store")
        kept.make("runs", {}, lambda made: None)
        try:
            use(kept)
        finally:
            assert len(kept.list()) == 1  # a refusal removes nothing

    return run


def file_store(use: Callable[[Store], object]) -> Try:
    """A store whose root is a file."""

    def run(folder: Path) -> None:
        (folder / "file").touch()
        use(Store(folder / "file"))

    return run


def cli(*arguments: str, data: str = "DIR", cache: str | None = None) -> Try:
    """The command line; DIR stands for the folder and FILE for a file in it. Raises what it prints."""

    def run(folder: Path) -> None:
        (folder / "file").write_text(GOOD)

        def fill(value: str) -> str:
            return value.replace("DIR", str(folder)).replace("FILE", str(folder / "file"))

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setenv("WORKBENCH_DATA", fill(data))
            if cache is not None:
                patch.setenv("WORKBENCH_CACHE", fill(cache))
            patch.setattr(report, "_execute", lambda *a: pytest.fail("a notebook ran"))
            status = main([fill(argument) for argument in arguments])
        printed = err.getvalue()
        assert status == 2 and printed.startswith("workbench: ") and printed.endswith("\n"), printed
        assert printed.count("\n") == 1 and "Traceback" not in printed
        raise WorkbenchError(printed.removeprefix("workbench: ")[:-1])

    return run


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(*files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in files:
            info = tarfile.TarInfo(name)
            info.size = len(GOOD)
            archive.addfile(info, io.BytesIO(GOOD.encode()))
    return buffer.getvalue()


UNPACK = "can't be unpacked (.+): pack one whole CSV again"
NOT_TEXT = "is not UTF-8 text, it holds NUL bytes: save it again as UTF-8"
CONTROL = "holds a control character or bytes that are not UTF-8: rename the file"
NOWHERE = "is no folder and no dataset: write hub:owner/name"
BROKEN = "Can't load the dataset .+: check its files, or give a folder with"
DAYS = r"older_than_days is .+: give a number of days from 0 to 36,500"
KIND = "is not a folder name: use letters"
ROOT = "is not a folder: .+ is a file, set WORKBENCH_DATA to a folder"
WRITE = "Can't write to .+: set WORKBENCH_DATA to a folder that can be written to"
CACHE = "Can't write to .+: set WORKBENCH_CACHE to a folder that can be written to"
NOTEBOOK = r"00_a.ipynb is not a notebook \(\w+\): open it in Lab"
LABELS_OF = 'names no labels: it needs id2label with "0", "1"'
OPTION = "--help` lists what there is"

PACKED = {"gz": gzip.compress(GOOD.encode()), "bz2": bz2.compress(GOOD.encode()), "xz": lzma.compress(GOOD.encode())}
ZIPPED = {"cut short": zipped(a=GOOD)[:100], "of two files": zipped(a=GOOD, b=GOOD), "of nothing": zipped()}
FILES = [  # of a folder, each broken
    ("train.parquet", b"PAR1junkPAR1"), ("train.parquet", b""), ("train.json", "{"), ("train.json", "[1, 2"),
    ("train.jsonl", '{"text": "a", "label": "b"}\n{"text":'), ("train.json.gz", b"\x1f\x8b12"),
    ("train.jsonl", '{"text": "\\ud800", "label": "a"}\n' * 5), ("train.csv", GOOD + '"x\n'), ("train.csv", ""),
    ("train.csv", GOOD.encode() + b"\xff,a\n"), ("train.arrow", b"ARROW1junk"),
]  # fmt: skip

# What was tried, how, and what the sentence says. A row that hangs fails by the timeout of all tests.
ROWS: list[tuple[str, Try, str]] = [
    # archives
    *[(f"junk named {e}", table(b"junk", f"a.csv.{e}"), UNPACK) for e in "gz zip bz2 xz tar tar.gz tar.xz zst".split()],
    *[(f"empty {e}", table(b"", f"a.csv.{e}"), UNPACK) for e in "zip bz2 xz tar zst".split()],
    ("empty gz", table(b"", "a.csv.gz"), "has no rows: it needs a header"),
    *[(f"{e} cut short", table(content[:-12], f"a.csv.{e}"), UNPACK) for e, content in PACKED.items()],
    ("gz with a wrong byte", table(gzip.compress(GOOD.encode())[:-8] + bytes(8), "a.csv.gz"), UNPACK),
    *[(f"zip {n}", table(content, "a.zip"), UNPACK) for n, content in ZIPPED.items()],
    ("zip with wrong bytes", table(zipped(a=GOOD).replace(b"text 3", b"text 9"), "a.zip"), UNPACK),
    ("tar cut short", table(tarred("a.csv")[:300], "a.tar"), UNPACK),
    ("tar of two files", table(tarred("a.csv", "b.csv"), "a.tar"), UNPACK),
    ("gz in a zip", table(zipped(a=gzip.compress(GOOD.encode())), "a.zip"), "not UTF-8"),
    # what is no file
    ("a folder", task("csv:DIR"), "Is a directory; check the path after 'csv:'"),
    ("a pipe", pipe("a.csv", "csv:DIR/a.csv"), "Not a regular file; check the path"),
    *[(v, task(f"csv:{v}"), "Not a regular file; check the path") for v in ("/dev/zero", "/dev/null")],
    ("/proc/self/mem, which can't be read", task("csv:/proc/self/mem"), "Can't read /proc/self/mem: .+; check"),
    ("no file", task("csv:DIR/no.csv"), "/no.csv: No such file or directory; check the path"),
    ("a name of 5,000 characters", task("csv:/" + "a" * 5_000), "File name too long; check the path"),
    # content
    ("a NUL byte", table(GOOD + "a\0b,a\n"), NOT_TEXT),
    ("a NUL byte in a gz", table(gzip.compress(GOOD.encode() + b"a\0b,a\n"), "a.csv.gz"), NOT_TEXT),
    ("UTF-16", table(GOOD.encode("utf-16")), NOT_TEXT),
    ("an executable", table(Path(sys.executable).read_bytes()[:4096]), NOT_TEXT),
    ("a lone surrogate", table(GOOD.encode() + b"\xed\xa0\x80,a\n"), "is not UTF-8: save it again as UTF-8"),
    ("a BOM of UTF-16 alone", table(b"\xff\xfe" + GOOD.encode()), "is not UTF-8: save it again as UTF-8"),
    ("no text column", table(GOOD.replace("text,label", "sentence,label")), "a.csv .*column 'text'.*--text"),
    ("no label column", table(GOOD.replace("text,label", "text,intent")), "a.csv .*'intent'.*--label"),
    ("no group column", table(GOOD, group="family"), "a.csv .*'family'.*--group"),
    ("one column as both", table(GOOD, label="text"), "one column twice"),
    ("an empty text", table(GOOD + ",a\n"), "a.csv, row 22: .*fill it in or delete the row"),
    ("a blank text", table(GOOD + '"  ",a\n'), "row 22.*fill it in or delete the row"),
    ("a NaN text", table(GOOD + "NaN,a\n"), "row 22: column 'text'.*fill it in or delete the row"),
    ("NaN labels", table(GOOD + "hello,nan\nhello,NaN\n"), "row 22 and 1 more rows: column 'label'.*fill it in"),
    ("a cell missing", table(GOOD.replace("text,label", "label,text") + "a\n"), "row 22: column 'text'.*fill it in"),
    ("one class", table("text,label\n" + "".join(f"text {i},a\n" for i in range(9))), r"one class \('a'.*add rows"),
    ("lists of labels", table(GOOD.replace(",a", ",[a b]").replace(",b", ",[b]")), "several labels a row.*one class a"),
    ("a class of one row", table(GOOD + "hello,c\n"), "class 'c' has 1.*add rows or drop the class"),
    ("a class of copies of one row", table(GOOD + "hello,c\n" * 9), "class 'c' has 1.*add rows or drop the class"),
    ("latin-1", table(GOOD.encode() + "café,a\n".encode("latin-1")), "not UTF-8.*save it again as UTF-8"),
    ("a surplus comma", table(GOOD + "now, please,a\n"), "saw 3.*quote texts that hold a comma"),
    ("surplus commas", table(GOOD.replace("text ", "please, text ")), "more cells.*quote texts"),
    ("an open quote", table(GOOD + '"hello,a\n'), "not a well-formed CSV.*quote"),
    ("a header alone", table("text,label\n"), "no rows: it needs a header and one row per text"),
    ("two columns of the name", table(GOOD.replace("text,label", "text,text", 1)), "has 2 columns 'text': rename all"),
    ("two columns of the label", table("text,label,label\na,b,c\n"), "has 2 columns 'label': rename all but one"),
    ("one column", table("text\na\nb\n"), "has no column 'label'; it has 'text'"),
    ("semicolons", table(GOOD.replace(",", ";")), "has one column, 'text;label': separate columns by commas"),
    ("tabs", table(GOOD.replace(",", "\t")), r"has one column, 'text\\tlabel': separate columns by commas"),
    ("a line break in a column's name", table('"text\nx",label\na,b\n'), r"has no column 'text'; it has 'text\\nx'"),
    *[(f"no content but {v!r}", table(v), "has no rows: it needs a header") for v in ("", "\n\n\n", "\ufeff")],
    ("texts of white space", table(GOOD + "\u3000,a\n"), "row 22: column 'text' is empty or NaN"),
    ("no label at all", table("text,label\n" + "a b,\n" * 9), "column 'label' is empty in every row"),
    ("an unknown split", table("text,label,part\na,c,tset\n", split="part"), "names the split 'tset': write train,"),
    ("no such column of splits", table(GOOD, split="part"), "has no column 'part'.*with --split"),
    ("an unknown label of outsiders", table(GOOD, out_of_scope="oos"), "[Uu]nknown label .* 'oos': .*a, b"),
    ("all but one class outside", table(GOOD, out_of_scope="a"), r"one class \('b'.*add rows"),
    # arguments
    *[(f"text={v!r}", table(GOOD, text=v), "text .*: give") for v in (5, None, [], b"text", [1, 2], "a,b,c", True)],
    ("text=''", table(GOOD, text=""), "has no column ''; it has 'text', 'label'"),
    ("text=a surrogate", table(GOOD, text="\udc80"), r"has no column '\\udc80'"),
    *[(f"label={v!r}", table(GOOD, label=v), "label is .+: give the name") for v in (None, 5, ["label"], "", True)],
    ("label=a surrogate", table(GOOD, label="\udc80"), r"has no column '\\udc80'"),
    *[(f"group={v!r}", table(GOOD, group=v), "group is .+: give the name") for v in ("", 3, ["label"], False)],
    *[
        (f"labels_per_class={v!r}", table(GOOD, labels_per_class=v), "labels_per_class is .+: give a whole number")
        for v in (True, False, "5", 2.5, 0, -1, math.nan, math.inf)
    ],
    *[
        (f"label_draw={v!r}", table(GOOD, label_draw=v), "label_draw is .+: give a whole number")
        for v in (True, "1", 1.5, 2.0, None, math.nan)
    ],
    *[(f"smaller({v!r})", smaller(v), "A transfer set of") for v in (True, "9", 9.0, None, -1, 10**6)],
    ("smaller(draw=0.5)", smaller(20, draw=0.5), "in draw 0.5: give whole numbers"),
    *[(f"name={v!r}", task(v), "The name of a task is .+: give a string") for v in (None, 5, b"csv:a", Path("a"))],
    ("name=''", task(""), "Unknown task ''"),
    ("name='csv:'", task("csv:"), "The task 'csv:' names nothing: write csv:<path>"),
    ("name='hub:'", task("hub:"), "The task 'hub:' names nothing: write csv:<path>"),
    *[(repr(v), task(v), CONTROL) for v in ("csv:DIR/a\0", "csv:DIR/a\n.csv", "csv:DIR/\udcff.csv", "hub:a/\udcff")],
    # hub:
    *[
        (v, task(v), NOWHERE)
        for v in ("hub:../../nowhere", "hub:../nowhere/config", "hub:.owner/name", "hub:DIR/nowhere", "hub:/nowhere",
                  "hub:~nobody-of-this-name/data", "hub:https://example.com/data")
    ],
    ("the whole disk", task("hub:/"), "holds more than 5,000 files: give a folder that holds only the data"),
    ("a crowded folder", crowd, "holds more than 5,000 files: give a folder that holds only the data"),
    ("an empty folder", task("hub:DIR"), "doesn't contain any data files .+: check the path"),
    ("a folder of pickles", hub({"train.pkl": pickle.dumps(1)}), "doesn't contain any data files"),
    ("a pipe among the data", pipe("train.csv", "hub:DIR"), "train.csv is not a regular file: remove it"),
    ("a loading script", hub({"DIR.py": "raise SystemExit", "x.csv": ""}), BROKEN),
    *[(f"{name} {i}", hub({name: content}), BROKEN) for i, (name, content) in enumerate(FILES)],
    ("zip: junk", hub({"train.zip": b"PKjunk"}), "Can't load|no column"),
    *[(f"README: {v}", hub({"train.csv": GOOD, "README.md": f"---\nconfigs: {v}\n---\n"}), BROKEN) for v in ("[", 5)],
    *[
        (f"{file}: {content!r}", saved(lambda d, f=file, c=content: (d / f).write_text(c)), BROKEN)
        for file, contents in {"dataset_dict.json": ("{", "[]", '{"splits": 5}'), "train/state.json": ("{", "{}"),
                               "train/dataset_info.json": ("{",)}.items()
        for content in contents
    ],
    ("dataset_dict: no such split", saved(lambda d: (d / "train").rename(d / "other")), BROKEN),
    ("state: gone", saved(lambda d: (d / "train" / "state.json").unlink()), BROKEN),
    ("arrow file: junk", saved(lambda d: next(d.rglob("*.arrow")).write_bytes(b"junk")), BROKEN),
    ("arrow file: cut short", saved(lambda d: os.truncate(next(d.rglob("*.arrow")), 300)), "Can't load|can't be read"),
    ("arrow file: gone", saved(lambda d: next(d.rglob("*.arrow")).unlink()), "Can't load|contain any data files"),
    (
        "rows without a group",
        columns(text=[f"text {i}" for i in range(40)], label=[i % 2 for i in range(40)], group=[None, "a"] * 20),
        "column 'group' is empty in 20 rows: fill it in",
    ),
    # text
    *[
        (f"text: {v}", text(f"folder:{v}", {"a.txt": b"a"}), "is not a folder: give one with")
        for v in ("DIR/nowhere", "DIR/a.txt", "")
    ],
    ("text: a NUL in the path", text("folder:DIR/\0"), CONTROL),
    ("text: another name", text("python-doc"), "Unknown text 'python-doc': did you mean 'python-docs'"),
    ("text: nothing to read", text("folder:DIR", {"a.pdf": b"a"}), "holds no .txt or .md files"),
    ("text: latin-1", text("folder:DIR", {"a.txt": b"\xe9"}), "a.txt' is not UTF-8 .+: save it again"),
    ("text: a pipe", text_pipe, "a.txt': Not a regular file; remove it"),
    # an exported student
    *[
        (f"config.json: {c[:40]}", onnx(config=c), LABELS_OF)
        for c in ("{", "[]", "{}", '{"id2label": {}}', '{"id2label": {"1": "a", "2": "b"}}', '{"id2label": {"a": "0"}}',
                  '{"id2label": {"0": 1, "1": 2}}', "[" * 100_000)
    ],
    *[(f"tokenizer.json: {v!r}", onnx(tokens=v), "is not a tokenizer .+: export the") for v in ("{", "", "[]")],
    ("tokenizer.json: no padding", onnx(tokens=json.dumps(json.loads(TOKENS) | {"padding": None})), "has no padding"),
    ("model.onnx: junk", onnx(), "can't be run by ONNX Runtime"),
    ("model.onnx: other inputs", onnx(model=graph(("x",), 2)), "reads .'x'. and gives"),
    ("model.onnx: other labels", onnx(model=graph(("input_ids", "attention_mask"), 3)), "gives 3 logits but"),
    *[(f"threads={v!r}", onnx(threads=v), "threads is .+: give a whole number") for v in (0, -1, True, "2", 1.5, None)],
    # a notebook
    *[
        (f"notebook: {c[:30]}", notebook(c), NOTEBOOK)
        for c in ("", "[]", "3", "null", "{}", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "[" * 100_000)
    ],
    ("notebook: other bytes", notebook(b"\xff\xfe{}"), NOTEBOOK),
    ("notebook: of a later format", notebook(cell().replace('"nbformat": 4', '"nbformat": 99')), NOTEBOOK),
    ("notebook: an empty cell", notebook(cell().replace('"code"', '"any"')), NOTEBOOK),
    *[
        (f"notebook: {name} = {v!r}", notebook(cell(**{name: v})), NOTEBOOK)
        for name, v in [("source", 3), ("metadata", 3), ("metadata", {"tags": 3}), ("outputs", 3), ("outputs", [{}])]
    ],
    *[
        (f"notebook: {c[:12]!r}", notebook(cell(c)), "00_a: its parameters cell is not Python (.*): mend it")
        for c in ("a = (", "a = 1\0", "%load_ext evil", "a = " + "(" * 5000, "a = '\ud800'")
    ],
    *[
        (f"notebook: {c}", notebook(cell(c)), "in the parameters cell is not 'name = literal'")
        for c in ("a = __import__('os').system('touch ran')", "exec('open(\"ran\", \"w\")')", "a = open('ran', 'w')")
    ],
    # the store
    *[
        (f"prune({v!r})", store(lambda s, v=v: s.prune(older_than_days=v)), DAYS)
        for v in (-1, -0.001, math.nan, math.inf, -math.inf, 36_501, 1e30, True, "7", [1])
    ],
    *[(f"prune(kind={v!r})", store(lambda s, v=v: s.prune(v)), KIND) for v in ("..", "a/../b", "", "/etc", 5)],
    *[(f"list({v!r})", store(lambda s, v=v: s.list(v)), KIND) for v in ("../x", ".partial", "a//b", 5)],
    ("find of a kind above", store(lambda s: s.find("../runs", {})), KIND),
    ("hold of a kind above", store(lambda s: s.hold("../runs")), KIND),
    *[(f"{n} of a file", file_store(lambda s, n=n: getattr(s, n)()), ROOT) for n in ("list", "runs", "prune")],
    ("make where the root is a file", file_store(lambda s: s.make("a", {}, None)), "Cannot write to the store"),
    ("check_writable of a file", file_store(lambda s: check_writable(s.root)), WRITE),
    ("check_writable below a file", file_store(lambda s: check_writable(s.root / "a" / "b")), WRITE),
    # the command line
    *[
        (f"{command}, data at {data}", cli(command, data=data), f"{WRITE}|{ROOT}")
        for command in ("report", "runs", "prune")
        for data in ("FILE", "FILE/below", "/proc/below", "/sys", "/dev/null/x")
    ],
    *[
        (f"{command[0]}, cache at {cache}", cli(*command, cache=cache), CACHE)
        for command in (["report"], ["fetch"])
        for cache in ("FILE", "FILE/below", "/proc", "/sys/below")
    ],
    ("data of nobody", cli("runs", data="~nobody-of-this-name/x"), "begins with a user who has no home here"),
    ("cache of nobody", cli("fetch", cache="~nobody-of-this-name/x"), "begins with a user who has no home here"),
    *[(f"--from {v}", cli("fetch", "--from", v), "is not a folder: give --from") for v in ("FILE", "DIR/nowhere")],
    ("fetch of an unknown model", cli("fetch", "MiniLM"), "Unknown weights 'MiniLM': did you mean"),
    *[
        (f"prune --older-than-days={v}", cli("prune", f"--older-than-days={v}"), DAYS)
        for v in ("nan", "inf", "1e30", "-1", "36501")
    ],
    ("prune --older-than-days week", cli("prune", "--older-than-days", "week"), f"invalid float value.*{OPTION}"),
    ("an unknown command", cli("reprot"), f"invalid choice: 'reprot'.*{OPTION}"),
    ("no command", cli(), f"are required: COMMAND.*{OPTION}"),
    ("an unknown option", cli("runs", "--all"), f"unrecognized arguments: --all.*{OPTION}"),
    *[
        (f"report --{option} {v!r}", cli("report", f"--{option}", v), f"Unknown {what} {v!r}")
        for option, what, v in [
            ("only", "notebook", "99"), ("only", "notebook", ""), ("budget", "budget", "large"),
            ("budget", "budget", ""), ("task", "task", ""), ("teacher", "teacher", ""),
        ]
    ],
    *[(f"report --task {v}", cli("report", "--task", v), f"The task '{v}' names nothing") for v in ("csv:", "hub:")],
    ("report --task of a pipe", cli("report", "--task", "csv:/dev/zero"), "Not a regular file"),
    ("report --task of nobody", cli("report", "--task", "csv:~nobody-of-this-name/a"), "No such file or directory"),
    *[(f"report --task {v!r}", cli("report", "--task", v), CONTROL) for v in ("csv:a\0b", "csv:\udcff")],
    ("report --text of no column", cli("report", "--task", "csv:FILE", "--text", ""), "has no column ''"),
    ("report --group ''", cli("report", "--task", "csv:FILE", "--group", ""), "group is '': give the name"),
]


@pytest.mark.parametrize(("tried", "run", "sentence"), ROWS, ids=[row[0].encode("ascii", "replace") for row in ROWS])
@pytest.mark.filterwarnings("error")
def test_one_sentence(tried, run, sentence, tmp_path):
    if re.search("/proc|/sys", tried) and not Path("/proc/self/mem").exists():
        pytest.skip("a place that only Linux has")
    said = refusal.sentence(lambda: run(tmp_path))
    assert re.search(sentence, said), said


# The controls: what is good loads, so that no row above is refused for another reason


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "a.csv": GOOD.encode(),
        "b.csv": b"\xef\xbb\xbf" + GOOD.encode(),
        "c.csv": GOOD.replace("\n", "\r\n").encode(),
        "a.csv.gz": gzip.compress(GOOD.encode()),
        "a.csv.bz2": bz2.compress(GOOD.encode()),
        "a.csv.xz": lzma.compress(GOOD.encode()),
        "a.zip": zipped(a=GOOD),
        "a.tar": tarred("a.csv"),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",  # an archive's bytes hold the time
)
def test_good_files_load(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert load_task(f"csv:{tmp_path / name}").label_names == ("a", "b")
    (tmp_path / "link.csv").symlink_to(tmp_path / name)
    if name == "a.csv":
        assert load_task(f"csv:{tmp_path / 'link.csv'}").label_names == ("a", "b")


def test_a_good_onnx_file_of_these_helpers_loads(tmp_path):
    onnx(model=graph(("input_ids", "attention_mask"), 2))(tmp_path)


def test_a_folder_with_a_script_never_runs_it(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("mine.py", "train.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "train.csv").write_text(GOOD)
    with pytest.raises(WorkbenchError, match="scripts are no longer supported"):
        load_task(f"hub:{folder}")
    (folder / "mine.py").unlink()
    assert load_task(f"hub:{folder}").label_names == ("a", "b")
    assert not (tmp_path / "ran").exists()


# Labels that look alike

ALIKE = {
    "case": ("Refund", "refund"),
    "sharp s": ("STRASSE", "straße"),
    "composed": ("caf\u00e9", "cafe\u0301"),
    "compatible": ("ﬁle", "file"),
    "wide": ("ＡＢ", "AB"),
    "zero-width space": ("refund", "ref\u200bund"),
    "zero-width joiner": ("refund", "ref\u200dund"),
    "byte-order mark": ("refund", "\ufeffrefund"),
    "soft hyphen": ("refund", "re\u00adfund"),
    "bidi mark": ("refund", "refund\u200f"),
    "bidi override": ("refund", "\u202drefund\u202c"),
    "two spaces": ("a refund", "a  refund"),
    "no-break space": ("a refund", "a\u00a0refund"),
    "line break": ("a refund", "a\nrefund"),
    "variation selector": ("refund \u2764", "refund \u2764\ufe0f"),
}
APART = [("refund", "refunds"), ("a b", "ab"), ("cafe", "café"), ("1", "2")]


def labelled(folder: Path, names: tuple[str, ...], how: str) -> str:
    rows = [(f"text {i} {n}", name) for i in range(8) for n, name in enumerate(names)]
    if how == "csv":
        with open(folder / "train.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        return f"csv:{folder / 'train.csv'}"
    texts, labels = zip(*rows, strict=True)
    Dataset.from_dict({"text": list(texts), "label": list(labels)}).to_parquet(folder / "train.parquet")
    return f"hub:{folder}"


@pytest.mark.parametrize(("case", "how"), [*((case, "csv") for case in ALIKE), ("bidi override", "hub")])
def test_labels_that_look_alike_are_named_and_kept(case, how, tmp_path):
    names = (*ALIKE[case], "other")
    with pytest.warns(UserWarning) as warned:
        task = load_task(labelled(tmp_path, names, how))
    (said,) = [str(w.message) for w in warned]
    assert all(ascii(name) in said for name in ALIKE[case]) and "other" not in said
    assert "kept as separate classes" in said and said.isprintable()
    assert sorted(task.label_names) == sorted(names)


@pytest.mark.parametrize("names", APART)
@pytest.mark.filterwarnings("error")
def test_labels_that_look_different_are_not_named(names, tmp_path):
    load_task(labelled(tmp_path, names, "csv"))


def test_many_labels_that_look_alike_are_one_warning(tmp_path):
    names = tuple(f"{word} {i}" for i in range(9) for word in ("Refund", "refund"))
    with pytest.warns(UserWarning, match=r"'Refund 0' and 'refund 0'; .+ \(and 6 more\) differ only in") as warned:
        load_task(labelled(tmp_path, names, "csv"))
    assert len(warned) == 1


# Entries that can't be read


def as_record(entry, content: str) -> None:
    """A `run.json` of this content that its manifest agrees with."""
    (entry.path / "run.json").write_text(content)
    manifest = json.loads((entry.path / "manifest.json").read_text())
    manifest["files"]["run.json"] = {"bytes": len(content), "sha256": sha256_file(entry.path / "run.json")}
    (entry.path / "manifest.json").write_text(json.dumps(manifest))


def instead(name: str, make: Callable[[Path], object]) -> Callable[[object], object]:
    def harm(entry) -> None:
        (entry.path / name).unlink()
        make(entry.path / name)

    return harm


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


SPOIL = {"flipped": flip, "gone": Path.unlink, "cut short": lambda path: os.truncate(path, 3)}
RECORD = '{"inputs": {}, "seconds": 1, "created": "%s"}'
HARM = {
    **{
        f"{n} is {how}": lambda entry, n=n, spoil=spoil: spoil(entry.path / n)
        for n in ("a.txt", "sub/b.bin", "run.json", "manifest.json") for how, spoil in SPOIL.items()
    },
    **{f"{n} is a folder": instead(n, Path.mkdir) for n in ("manifest.json", "run.json", "a.txt")},
    **{f"{n} is a pipe": instead(n, os.mkfifo) for n in ("manifest.json", "run.json", "a.txt")},
    **{f"{n} links to itself": instead(n, lambda p: p.symlink_to(p)) for n in ("manifest.json", "run.json", "a.txt")},
    "a.txt is a device": instead("a.txt", lambda path: path.symlink_to("/dev/zero")),
    **{
        f"manifest.json holds {c[:9]}": instead("manifest.json", lambda p, c=c: p.write_text(c))
        for c in ("", "{", "[]", "5", '{"files": 5}', '{"files": {"a.txt": 5}}', "[" * 100_000)
    },
    "manifest.json is not UTF-8": instead("manifest.json", lambda path: path.write_bytes(b"\xff")),
    **{
        f"run.json holds {c[:20]}": lambda entry, c=c: as_record(entry, c)
        for c in ("{", "[]", "{}", '{"created": 5}', RECORD % "yesterday", "[" * 100_000)
    },
    "run.json has no time zone": lambda entry: as_record(entry, RECORD % "2026-01-01T00:00:00"),
}


@pytest.mark.parametrize("case", HARM)
def test_an_entry_that_cannot_be_read_is_moved_aside_and_made_again(case, tmp_path):
    kept = Store(tmp_path / "store")

    def build(folder: Path) -> None:
        (folder / "a.txt").write_text("hello")
        (folder / "sub").mkdir()
        (folder / "sub" / "b.bin").write_bytes(bytes(500))

    entry = kept.make("runs", {"a": 1}, build)
    other = kept.make("runs", {"a": 2}, build)
    HARM[case](entry)
    unread = case.endswith(("flipped", "device")) and "json" not in case  # `list` reads sizes and run.json only
    assert unread or other in kept.list()
    assert len(kept.runs()) == len(kept.list()) and entry.path not in kept.prune("runs", older_than_days=1)
    with pytest.warns(UserWarning, match="is damaged") as warned:
        assert kept.find("runs", {"a": 1}) is None
    assert len(warned) == 1 and "\n" not in str(warned[0].message)
    assert [path.name for path in (kept.root / ".damaged").iterdir()] == [f"{entry.key}-1"]
    assert kept.list() == [other]
    again = kept.make("runs", {"a": 1}, build)
    assert (again.path / "a.txt").read_text() == "hello" and again.record["inputs"] == {"a": 1}
    assert kept.list() == [other, again]
    kept.prune()
    assert not any((kept.root / ".damaged").iterdir())


@pytest.mark.parametrize("keep", [False, True])
def test_a_file_where_a_working_folder_goes_is_replaced(tmp_path, keep):
    kept = Store(tmp_path / "store")
    with kept.claim("runs", {}, keep=True) as claim:
        pass
    claim.folder.rmdir()
    claim.folder.write_text("x")
    with kept.claim("runs", {}, keep=keep) as claim:
        assert claim.folder.is_dir() and claim.commit()


def test_a_record_that_is_gone_is_one_sentence(tmp_path):
    entry = Store(tmp_path / "store").make("runs", {}, lambda folder: None)
    (entry.path / "run.json").write_text("{")
    with pytest.raises(WorkbenchError, match="run.json is missing or unreadable: make the entry again"):
        _ = entry.record


# What is in use stays

HOLDER = """
import pickle, sys, time
labels = pickle.load(open(sys.argv[1], "rb"))
print("open", flush=True)
sys.stdin.readline()
print(labels.logits(sys.argv[2:]).shape[0], flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_prune_spares_soft_labels_until_the_last_process_that_has_them_open_dies(tmp_path):
    kept = Store(tmp_path / "store")
    task = make_task(tmp_path)
    labels = make_labels(task, kept)
    kept.make("runs", {}, lambda folder: None)
    (tmp_path / "labels.pkl").write_bytes(pickle.dumps(labels))
    kind, texts = labels.kind, task.transfer_texts[:3]
    assert {path.parent.name for path in kept.prune(older_than_days=0, dry_run=True)} == {"authors", "runs"}

    environment = os.environ | {"PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "labels.pkl"), *texts]
    child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "open\n"
        del labels  # the worker's copy holds by itself
        assert kept.held(kind)
        assert sorted(path.parent.name for path in kept.prune(older_than_days=0)) == ["authors", "runs"]
        assert kept.prune(kind) == [] and len(kept.list(kind)) == 1
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "3\n"  # read only now, after the prune
    finally:
        child.kill()  # -9: no clean-up runs
        child.communicate()
    assert not kept.held(kind)
    assert [path.parent for path in kept.prune(older_than_days=0)] == [kept.root / kind] and kept.list() == []


def test_one_descriptor_an_object_and_none_after_it(tmp_path):
    kept = Store(tmp_path / "store")

    def build(folder: Path) -> None:
        np.save(folder / "ids.npy", np.array([os.urandom(16)], dtype="S16"))
        np.save(folder / "logits.npy", np.zeros((1, 2), np.float32))

    for shard in range(9):
        kept.make("soft_labels/x", {"shard": shard}, build)
    before = len(os.listdir("/dev/fd"))
    labels = [SoftLabels("soft_labels/x", "x", kept) for _ in range(3)]
    assert len(os.listdir("/dev/fd")) == before + 3 and len(kept.prune("soft_labels", 0)) == 0
    labels[0].refresh()
    copies = [pickle.loads(pickle.dumps(labels[0])) for _ in range(2)]
    assert len(os.listdir("/dev/fd")) == before + 5
    del labels
    assert kept.held("soft_labels/x")
    del copies
    assert not kept.held("soft_labels/x") and len(os.listdir("/dev/fd")) == before
    assert len(kept.prune("soft_labels", 0)) == 9


def test_a_kind_is_held_by_itself(tmp_path):
    kept = Store(tmp_path / "store")
    for kind in ("soft_labels/a", "soft_labels/ab", "soft_labels"):
        kept.make(kind, {"of": kind}, lambda folder: None)
    hold = kept.hold("soft_labels/a")
    assert [path.parent.name for path in kept.prune(older_than_days=0)] == ["soft_labels", "ab"]
    del hold
    assert [path.parent.name for path in kept.prune(older_than_days=0)] == ["a"]


def test_labels_of_text_hold_the_head_too(tmp_path):
    kept = Store(tmp_path / "store")
    head = kept.make(HEAD, {"teacher": "x"}, lambda folder: None)
    labels = TextLabels("text_labels/x", "x", LabelOptions(), head.path, kept)
    assert kept.held(HEAD) and kept.held("text_labels/x") and kept.prune(older_than_days=0) == []
    del labels
    assert kept.prune(older_than_days=0) == [head.path]


def test_a_store_that_cannot_be_written_to_can_still_be_read(tmp_path, monkeypatch):
    kept = Store(tmp_path / "store")
    labels = make_labels(make_task(tmp_path), kept)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("workbench.store.os.open", refuse)
    assert len(SoftLabels(labels.kind, "x", kept)) == len(labels)
    assert len(pickle.loads(pickle.dumps(labels))) == len(labels)


def test_the_command_line_says_what_is_in_use(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    Store().make("soft_labels/x", {}, lambda folder: None)
    hold = Store().hold("soft_labels/x")
    assert main(["prune", "--older-than-days", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "0 folders were removed.",
        "soft_labels/x is in use by an open notebook or a run, and was left alone.",
    ]
    del hold
    assert main(["prune", "--older-than-days", "0"]) == 0
    assert "1 folders were removed." in capsys.readouterr().out


# Places that can't be written to


@pytest.mark.parametrize(
    ("variable", "place"),
    [(v, p) for v in ("WORKBENCH_DATA", "WORKBENCH_CACHE") for p in ("FILE", "FILE/a/b", "/proc/a", "/sys")],
)
def test_doctor_says_what_to_mend_and_leaves_nothing(variable, place, tmp_path, monkeypatch, capsys):
    if place[1:] in ("proc/a", "sys") and not Path("/proc/self/mem").exists():
        pytest.skip("a place that only Linux has")
    (tmp_path / "file").touch()
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "new"))
    monkeypatch.setenv(variable, place.replace("FILE", str(tmp_path / "file")))
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    assert "Nothing is missing" not in said.out and "Traceback" not in said.err
    assert re.search(f"(?m)^  Can't write to .+: set {variable} to a folder", said.out.partition("To mend:")[2])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_check_writable_leaves_what_was_there(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert not any(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    check_writable(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


# Any bytes and any table


def check_loads_or_says_why(content: bytes, **options: object) -> set[str] | None:
    """Load a CSV: its texts, no text in two splits and labels in range; or None after one sentence."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (path := Path(folder, "a.csv")).write_bytes(content)
        try:
            task = load_task(f"csv:{path}", labels_per_class=2, **options)
        except WorkbenchError as error:
            assert type(error) is WorkbenchError and str(error).isprintable() and str(error).endswith("."), error
            return None
    splits = [task.labelled, task.unlabelled, task.validation, task.calibration, task.test]
    judges = [set(s["text"]) for s in splits[2:]] + [set(task.transfer_texts)]
    assert all(judges) and sum(map(len, judges)) == len(set().union(*judges))
    for split in splits:
        classes = range(-1, 0) if split is task.unlabelled else range(len(task.label_names))
        assert set(split["label"]) <= set(classes)
    assert len(task.label_names) >= 2 and len(task.out_of_scope) == 0
    return set().union(*judges)


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=SLOW)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLAIN = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12)


@pytest.mark.slow
@QUICK
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda b: GOOD.encode() + b), ANY.map(str.encode)))
def test_any_bytes_load_or_say_why(content):
    check_loads_or_says_why(content)


@pytest.mark.slow
@QUICK
@given(at=st.integers(0, len(GOOD)), wrong=st.binary(max_size=4), cut=st.integers(0, 4))
def test_a_good_file_with_wrong_bytes_loads_or_says_why(at, wrong, cut):
    check_loads_or_says_why(GOOD.encode()[:at] + wrong + GOOD.encode()[at + cut :])


@pytest.mark.slow
@QUICK
@given(st.data())
def test_any_table_loads_whole_or_says_why(data):
    cells = data.draw(st.sampled_from([ANY, PLAIN]))
    names = data.draw(st.lists(cells, min_size=1, max_size=3, unique=True))
    least = data.draw(st.sampled_from([0, 4, 4]))  # a class with fewer is refused
    rows = []
    for n, name in enumerate(names):
        texts = data.draw(st.lists(cells, min_size=least, max_size=9))
        rows += [(f"{text}{i}{n}", name, f"{n}-{i % 7}") for i, text in enumerate(texts)]
    rows += data.draw(st.lists(st.tuples(cells, st.sampled_from(names), cells), max_size=2))
    buffer = io.StringIO(newline="")
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    quoted = {"quoting": csv.QUOTE_ALL}  # or a lone carriage return ends a line
    csv.writer(buffer, lineterminator=end, **quoted).writerows([("text", "label", "family"), *rows])
    group = data.draw(st.sampled_from([None, "family"]))
    found = check_loads_or_says_why(buffer.getvalue().encode(), group=group)
    event("loaded" if found else "refused")
    if found is not None:  # nothing is made up, and without groups nothing is lost
        written = {" ".join(text.split()) for text, _, _ in rows}
        read = {" ".join(text.split()) for text in found}
        assert read <= written and (group or read == written)
