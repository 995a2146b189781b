"""Students as ONNX files: the same answers without PyTorch, in fp32 and in int8, each export checked.

`to_onnx` writes both files; `OnnxClassifier` runs one and is a teacher like any other: it has ``logits(texts)``. This
module imports PyTorch only where it exports: what a server needs is onnxruntime, tokenizers and a few megabytes.
"""

import json
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from workbench.errors import WorkbenchError, reason, whole
from workbench.store import Entry, Store, code_fingerprint, fingerprint, sha256_file

FILES = {"fp32": "model.onnx", "int8": "model_int8.onnx"}


class OnnxClassifier:
    """An ONNX file with ``tokenizer.json`` and ``config.json`` beside it, run by ONNX Runtime on the CPU.

    Attributes:
        name: the names of the file's folder and of the file.
        label_names: from the config.
    """

    def __init__(self, path: str | Path, threads: int = 1):
        """Load it.

        Args:
            path: the file.
            threads: of the computation (≥ 1), for the life of the object: `torch.set_num_threads` does not reach it.

        Raises:
            WorkbenchError: a file is missing or is not what it should be, or threads is no count.
        """
        self.path = Path(path)
        files = [self.path, self.path.with_name("tokenizer.json"), self.path.with_name("config.json")]
        for file in files:
            if not file.is_file():
                raise WorkbenchError(f"{file} is missing: give a file that to_onnx made, in its folder.")
        self.name = f"{self.path.parent.name}/{self.path.name}"
        self.label_names = _label_names(files[2])
        self.tokenizer = _tokenizer(files[1])
        self.pad_token_id = self.tokenizer.padding["pad_id"]
        self.tokenizer.no_padding()  # `logits` sorts by length first
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = whole("threads", threads)
        try:
            self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each way a file can be broken
            why = reason(error)
            raise WorkbenchError(f"{self.path} can't be run by ONNX Runtime ({why}): export it again.") from None
        names = sorted(node.name for node in self.session.get_inputs())
        shape = self.session.get_outputs()[0].shape
        if names != ["attention_mask", "input_ids"] or len(shape) != 2:
            raise WorkbenchError(f"{self.path} reads {names} and gives {shape}: give a file that to_onnx made.")
        if isinstance(shape[1], int) and shape[1] != len(self.label_names):
            raise WorkbenchError(
                f"{self.path} gives {shape[1]} logits but config.json names {len(self.label_names)} labels: export the "
                "student again."
            )

    @cached_property
    def fingerprint(self) -> str:
        """Of the file and its tokenizer."""
        return fingerprint([sha256_file(self.path), sha256_file(self.path.with_name("tokenizer.json"))])

    def describe(self, texts: Sequence[str]) -> dict[str, float]:
        """Bytes of the file; its parameters and FLOPs are the model's that it was made of."""
        return {"parameters": math.nan, "bytes": self.path.stat().st_size, "flops": math.nan}

    def logits(self, texts: Sequence[str], size: int = 32) -> np.ndarray:
        """``[N, C]`` float32, in the order of `texts`, `size` texts of like length at a time."""
        if not len(texts):
            raise WorkbenchError("There are no texts to read: give at least one.")
        rows = self.tokenizer.encode_batch_fast(list(texts))
        order = np.argsort([len(row) for row in rows], kind="stable")
        out = np.empty((len(rows), len(self.label_names)), np.float32)
        for start in range(0, len(rows), size):
            chosen = order[start : start + size]
            batch = [rows[i] for i in chosen]
            for row in batch:
                row.pad(len(batch[-1]), pad_id=self.pad_token_id)
            fed = {"input_ids": [row.ids for row in batch], "attention_mask": [row.attention_mask for row in batch]}
            out[chosen] = self.session.run(None, {name: np.array(ids, np.int64) for name, ids in fed.items()})[0]
        return out


def _label_names(path: Path) -> tuple[str, ...]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))["id2label"]
        names = tuple(table[str(i)] for i in range(len(table)))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        names = ()
    if not names or not all(isinstance(name, str) for name in names):
        needs = 'it needs id2label with "0", "1" and so on, as to_onnx writes it'
        raise WorkbenchError(f"{path} names no labels: {needs}.")
    return names


def _tokenizer(path: Path) -> Tokenizer:
    """With padding."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises the class itself
        raise WorkbenchError(f"{path} is not a tokenizer ({reason(error)}): export the student again.") from None
    if tokenizer.padding is None:
        raise WorkbenchError(f"{path} has no padding: give the file that to_onnx made, not the student's own.")
    return tokenizer


def to_onnx(
    folder: str | Path, texts: Sequence[str], labels: Sequence[int] | None = None, *, store: Store | None = None
) -> Entry:
    """Export a saved student, once, to fp32 and int8 and check both on `texts`.

    The int8 file is quantised dynamically: weights to 7 of 8 bits ahead, activations at each call. The spared bit keeps
    sums exact on CPUs without VNNI instructions, which would otherwise clip them and give labels of their own.

    Args:
        folder: the student in hub format, such as `Run.path`.
        texts: to check with (≥ 1), such as the test texts.
        labels: their classes ``[N]`` as indices; without them there is no accuracy to compare.
        store: where the files go, as kind ``onnx``; the run itself is never touched.

    Returns:
        An entry with ``model.onnx``, ``model_int8.onnx``, ``tokenizer.json`` and ``config.json``. Its
        ``record["checks"]`` has for ``fp32`` and ``int8``: agreement with the student (in [0, 1]; 1 for fp32),
        largest difference of a logit, bytes, and with labels accuracy and accuracy_change (in [−1, 1]).

    Raises:
        WorkbenchError: the fp32 file gives one of the texts another label, the model can't be exported, or the counts
            of texts and labels differ.
    """
    from onnxruntime.quantization import quantize_dynamic

    from workbench import reading, students

    if not len(texts) or (labels is not None and len(labels) != len(texts)):
        given = "no" if labels is None else len(labels)
        raise WorkbenchError(f"to_onnx got {len(texts)} texts and {given} labels: give texts, and a label for each.")
    student, tokenizer = students.load(folder)
    inputs = {
        "student": students.folder_fingerprint(Path(folder)),
        "checked_on": fingerprint([[*texts], None if labels is None else [*map(int, labels)]]),
        "code": code_fingerprint("publish.onnx:to_onnx"),
        "libraries": {name: metadata.version(name) for name in ("torch", "transformers", "onnx", "onnxruntime")},
    }

    def build(made: Path) -> dict:
        example = reading.encode(tokenizer, ["two texts", "of two lengths"])
        write_graph(student, reading.pad(example, 0), made / FILES["fp32"])
        with _quiet():
            quantize_dynamic(made / FILES["fp32"], made / FILES["int8"], reduce_range=True)
        student.config.save_pretrained(made)
        _save_tokenizer(tokenizer, made / "tokenizer.json")
        wanted = reading.predict(student, tokenizer, list(texts))
        found = {name: OnnxClassifier(made / file).logits(texts) for name, file in FILES.items()}
        changed = wanted.argmax(-1) != found["fp32"].argmax(-1)
        if changed.any():
            raise WorkbenchError(
                f"The ONNX file gives {changed.sum()} of {len(texts)} texts another label than the student (the first "
                f"is {texts[int(changed.argmax())][:60]!r}): it was not kept; use the student through PyTorch."
            )
        return {"checks": {name: _check(wanted, found[name], made / file, labels) for name, file in FILES.items()}}

    return (store or Store()).make("onnx", inputs, build)


def in_int8(
    teacher: Any, texts: Sequence[str], *, threads: int = 1, store: Store | None = None
) -> OnnxClassifier | None:
    """A teacher's own network in int8: the rival that needs no student. None where it is no network with its own head.

    Args:
        teacher: such as a `workbench.teachers.Classifier`.
        texts: to check with; see `to_onnx`.
        threads: see `OnnxClassifier`.
        store: where the files go.
    """
    classes = getattr(getattr(getattr(teacher, "model", None), "config", None), "id2label", {})
    if tuple(classes[i] for i in sorted(classes)) != tuple(teacher.label_names):
        return None
    with tempfile.TemporaryDirectory() as folder:
        teacher.model.save_pretrained(folder)
        teacher.tokenizer.save_pretrained(folder)
        made = OnnxClassifier(to_onnx(folder, texts, store=store).path / FILES["int8"], threads)
    made.name, made.licence = f"{teacher.name} in int8", teacher.licence
    return made


def _check(wanted: np.ndarray, found: np.ndarray, file: Path, labels: Sequence[int] | None) -> dict:
    check = {
        "agreement": float((found.argmax(-1) == wanted.argmax(-1)).mean()),
        "largest_difference": float(np.abs(found - wanted).max()),
        "bytes": file.stat().st_size,
    }
    if labels is not None:
        accuracy = float((found.argmax(-1) == labels).mean())
        check |= {"accuracy": accuracy, "accuracy_change": accuracy - float((wanted.argmax(-1) == labels).mean())}
    return check


def write_graph(student, example: tuple, path: Path) -> None:
    """Write the graph of ``(input_ids, attention_mask) -> logits``, any number of rows of any length."""
    import onnx
    import torch

    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    names = {"input_names": ("input_ids", "attention_mask"), "output_names": ["logits"]}
    one_file = {"dynamo": True, "external_data": False, "verbose": False}

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.student = student

        def forward(self, input_ids, attention_mask):
            return self.student(input_ids=input_ids, attention_mask=attention_mask).logits

    try:
        with _quiet():
            torch.onnx.export(Logits().eval(), example, path, dynamic_shapes=(free, free), **names, **one_file)
    except torch.onnx.OnnxExporterError as error:
        kind = type(student).__name__
        raise WorkbenchError(f"{kind} can't be exported to ONNX ({reason(error)}): use it through PyTorch.") from error
    graph = onnx.load(path)
    for part in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]  # where in whose Python files each node came from: a third of a small student's
    onnx.save(graph, path)


def _save_tokenizer(tokenizer, path: Path) -> None:
    """With padding and the cut at `model_max_length` in the file, which transformers decides anew at each call."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    if tokenizer.model_max_length < 1_000_000:  # transformers' way of saying that there is none is 1e30
        backend.enable_truncation(tokenizer.model_max_length)
    backend.save(str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """No advice from the exporters: none of it is the reader's to follow."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
