"""Soft labels: what the teacher says about the transfer set, computed once and kept.

Rows are keyed by the content of their text and fetched by that key, never by position, so that another order of the
texts, another draw of labels or an appended file can't pair a text with a stranger's label.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from workbench.errors import SEED, WorkbenchError, sequence, shown, strings, unknown
from workbench.store import Store, code_fingerprint, fingerprint
from workbench.tasks import Task
from workbench.teacher import Author, Teacher, as_teacher, authors

SHARD_ROWS = 2048
KINDS = ("logits",)


def recorded_authors(labels: "SoftLabels", task: Task, *, store: Store | None = None) -> list[Author]:
    """The `authors` of stored labels of a task's transfer set, as recorded when it was labelled; none if it wasn't."""
    entry = (store or Store()).find("authors", {"labels": labels.fingerprint, "task": task.fingerprint})
    return [Author(**one) for one in entry.record["authors"]] if entry else []


def row_ids(texts: Sequence[str]) -> np.ndarray:
    """The content key of each text: ``[N]`` of 16 bytes; see `errors.strings` for what is refused."""
    texts = sequence("texts", texts, "texts")
    try:
        return np.array([hashlib.blake2b(t.encode(), digest_size=16).digest() for t in texts], dtype="S16")
    except (AttributeError, UnicodeEncodeError):
        strings("texts", texts)  # raises, naming the first
        raise


class SoftLabels:
    """The stored logits of one teacher, memory-mapped: `take` reads only the rows asked for.

    While this or a copy in a worker process lives, `Store.prune` leaves the shards alone.
    """

    arrays: tuple[str, ...] = ("logits",)  # files of a shard, beside the rows' ids

    def __init__(self, folder_kind: str, teacher_name: str, store: Store):
        """Open every intact shard under ``folder_kind``."""
        self.kind = folder_kind
        self.teacher_name = teacher_name
        self.rows_labelled = 0  # by the call that made this object: 0 when every row was found
        self._store = store
        self._hold = store.hold(folder_kind)  # before looking: what is found must still be there when it is read
        self.refresh()

    def refresh(self) -> None:
        """Look again for shards, also those another process has made."""
        entries = [e for e in self._store.list(self.kind) if self._store.find(self.kind, e.record["inputs"])]
        ids = [np.load(e.path / "ids.npy", allow_pickle=False) for e in entries]
        self._paths = [[e.path / f"{name}.npy" for name in self.arrays] for e in entries]
        self._starts = np.cumsum([0, *map(len, ids)])
        everything = np.concatenate(ids) if ids else np.empty(0, "S16")
        self._order = np.argsort(everything, kind="stable")
        self._sorted = everything[self._order]
        self.__dict__.pop("_shards", None)

    def fill(
        self,
        keys: np.ndarray,
        label: Callable[[np.ndarray], Mapping[str, np.ndarray]],
        inputs: Mapping[str, object],
        *,
        size: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Have the rows labelled that no shard holds, and write them shard by shard: a kill costs at most one.

        Args:
            keys: ``[N]``, of the rows that are wanted; what comes twice is labelled once.
            label: gives the arrays ``[n, ...]`` of the rows ``[n]`` of `keys`.
            inputs: what the labels depend on, beside the rows.
            size: rows in a shard.
            progress: called with (rows done, rows to do) after each shard.
        """
        first = np.sort(np.unique(keys, return_index=True)[1])
        missing = first[self._find(keys[first]) < 0]
        for start in range(0, len(missing), size):
            chosen = missing[start : start + size]

            def build(folder: Path, chosen: np.ndarray = chosen) -> dict:
                began = time.perf_counter()
                for name, values in {**label(chosen), "ids": keys[chosen]}.items():
                    np.save(folder / f"{name}.npy", values, allow_pickle=False)
                seconds = time.perf_counter() - began
                return {"teacher": self.teacher_name, "rows": len(chosen), "labelling_seconds": seconds}

            rows = hashlib.sha256(keys[chosen].tobytes()).hexdigest()
            self._store.make(self.kind, {**inputs, "rows": rows}, build)
            self.rows_labelled += len(chosen)
            if progress:
                progress(start + len(chosen), len(missing))
        if len(missing):
            self.refresh()

    def __len__(self) -> int:
        """Rows stored for this teacher."""
        return len(self._sorted)

    @property
    def fingerprint(self) -> str:
        """Of the teacher and the kind of label; the rows are part of the task's fingerprint."""
        return fingerprint(["soft labels", self.kind])

    @property
    def bytes(self) -> int:
        """Size on disk of what the shards hold of their rows."""
        return sum(p.stat().st_size for paths in self._paths for p in paths)

    @cached_property
    def _shards(self) -> list[list[np.ndarray]]:
        # As plain arrays over the mapped files: np.memmap takes ten times as long to give a row.
        return [[np.asarray(np.load(p, mmap_mode="r", allow_pickle=False)) for p in paths] for paths in self._paths]

    def __getstate__(self) -> dict:
        """Send paths, not rows, to a worker process."""
        return {k: v for k, v in self.__dict__.items() if k != "_shards"}

    def find(self, texts: Sequence[str]) -> np.ndarray:
        """The stored row of each text, ``[N]`` int64; -1 where it has no label yet."""
        return self._find(row_ids(texts))

    def _find(self, ids: np.ndarray) -> np.ndarray:
        if not len(self._sorted):
            return np.full(len(ids), -1)
        at = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
        return np.where(self._sorted[at] == ids, self._order[at], -1)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Logits ``[N, C]`` of rows that `find` gave."""
        return self._take(rows)[0]

    def _take(self, rows: np.ndarray) -> list[np.ndarray]:
        """Those rows of each array, in the order of `rows`."""
        shards = self._shards
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        out = [np.empty((len(rows), *array.shape[1:]), dtype=array.dtype) for array in shards[0]]
        # One by one: the rows of a batch lie in almost as many shards.
        for i, (shard, row) in enumerate(zip(shard_of.tolist(), (rows - self._starts[shard_of]).tolist(), strict=True)):
            for values, array in zip(out, shards[shard], strict=True):
                values[i] = array[row]
        return out

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits ``[N, C]`` of `texts`.

        Raises:
            WorkbenchError: a text the teacher never labelled.
        """
        rows = self.find(texts)
        if (rows < 0).any():
            first = texts[int(np.argmax(rows < 0))]
            raise WorkbenchError(
                f"{int((rows < 0).sum())} of {len(rows)} texts have no soft label by {self.teacher_name} (the first is "
                f"{first[:60]!r}): label them with soft_labels(teacher, task)."
            )
        return self.take(rows)


def soft_labels(
    teacher: Teacher,
    task: Task,
    kind: str = "logits",
    *,
    texts: Sequence[str] | None = None,
    store: Store | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SoftLabels:
    """Label the transfer set, or `texts`, once: rows already stored for this teacher are not asked again.

    Shards of `SHARD_ROWS` rows are written one by one, so that a killed run loses at most one shard. Beside those of a
    transfer set stands who wrote it (`recorded_authors`).

    Args:
        teacher: see `workbench.teacher`.
        task: whose transfer set is labelled.
        kind: only ``"logits"``: float32, from which every temperature and loss is exact.
        texts: label these instead.
        store: where the shards go.
        progress: called with (rows done, rows to do) after each shard.

    Raises:
        WorkbenchError: another kind, classes that are not the task's, or logits that are not finite ``[N, C]``.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise WorkbenchError(f"Soft labels of kind {shown(kind)} don't exist: choose one of {', '.join(KINDS)}.")
    teacher = as_teacher(teacher)
    if tuple(teacher.label_names) != tuple(task.label_names):
        raise WorkbenchError(
            f"Teacher {teacher.name} scores {len(teacher.label_names)} classes ({', '.join(teacher.label_names[:3])}…) "
            f"but task {task.name} has {len(task.label_names)} ({', '.join(task.label_names[:3])}…): they must agree."
        )
    labels = _stored(teacher, task, kind, store)
    wanted = task.transfer_texts if texts is None else strings("texts", texts)

    def label(rows: np.ndarray) -> dict[str, np.ndarray]:
        logits = np.asarray(teacher.logits([wanted[i] for i in rows]), dtype=np.float32)
        if logits.shape != (len(rows), len(task.label_names)) or not np.isfinite(logits).all():
            raise WorkbenchError(
                f"Teacher {teacher.name} gave logits of shape {logits.shape} for {len(rows)} texts and "
                f"{len(task.label_names)} classes, or values that are not finite."
            )
        return {"logits": logits}

    inputs = {"teacher": teacher.fingerprint, "kind": kind}
    labels.fill(row_ids(wanted), label, inputs, size=SHARD_ROWS, progress=progress)
    if texts is None:
        about = {"labels": labels.fingerprint, "task": task.fingerprint}
        wrote = [author._asdict() for author in authors(teacher, task)]
        (store or Store()).make("authors", about, lambda folder: {"authors": wrote})
    return labels


def unasked(teacher: Teacher, task: Task, texts: Sequence[str], *, store: Store | None = None) -> int:
    """How many of the texts `soft_labels` would have to ask the teacher: those that no shard holds, each once."""
    ids = np.unique(row_ids(texts))
    return int((_stored(teacher, task, "logits", store)._find(ids) < 0).sum())


def _stored(teacher: Teacher, task: Task, kind: str, store: Store | None) -> SoftLabels:
    folder_kind = f"soft_labels/{fingerprint([teacher.fingerprint, kind, list(task.label_names)])}"
    return SoftLabels(folder_kind, teacher.name, store or Store())


# --- what do soft labels carry? Controls that take one thing away


def permute_non_target(logits: np.ndarray, seed: int = 0) -> np.ndarray:
    """Logits ``[N, C]`` whose entries beside each row's largest are shuffled within the row.

    The top class, its probability and the entropy stay, at every temperature; which other class is near is lost: the
    dark knowledge of Hinton et al. (arXiv:1503.02531).
    """
    seed, out = SEED.check("seed", seed), _rows(logits)
    rows, classes = out.shape
    top = out.argmax(1)
    others = np.arange(classes) != top[:, None]
    rest = out[others].reshape(rows, classes - 1)
    out[others] = np.random.default_rng(seed).permuted(rest, axis=1).ravel()
    return out


def class_means(logits: np.ndarray) -> np.ndarray:
    """Logits ``[N, C]``, each row replaced by the mean log-probability of all rows with the same top class.

    Which classes are alike stays; what sets one text apart from others of its class is lost. A mean of logarithms, so
    that it is the same control at every temperature.
    """
    logits = _rows(logits)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    top = logits.argmax(1)
    means = np.zeros_like(log_p)
    for target in np.unique(top):
        means[top == target] = log_p[top == target].mean(0)
    return means


def _rows(logits: np.ndarray) -> np.ndarray:
    """A copy, refused unless it is ``[N, C]``, finite."""
    try:
        out = np.array(logits)
        if out.ndim == 2 and out.size and out.dtype.kind in "iuf" and np.isfinite(out).all():
            return out
    except ValueError:  # rows of different lengths
        pass
    raise WorkbenchError(f"logits are {shown(logits)}: give finite numbers [N, C].")


CONTROLS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "permuted non-target": permute_non_target,
    "class means": class_means,
}


def derive(labels: SoftLabels, task: Task, control: str, *, store: Store | None = None) -> SoftLabels:
    """Soft labels of `task`'s transfer set with something taken away, stored under a fingerprint of their own.

    Args:
        labels: of the transfer set; the teacher is not asked again.
        task: its transfer set is what means and shuffles are taken over.
        control: a name in `CONTROLS`.
        store: where they go.

    Raises:
        WorkbenchError: an unknown control, or a text that `labels` lacks.
    """
    if not isinstance(control, str) or control not in CONTROLS:
        raise unknown("control", control, CONTROLS)
    texts = task.transfer_texts
    changed = CONTROLS[control](labels.logits(texts))
    rows = hashlib.sha256(row_ids(texts).tobytes()).hexdigest()
    key = fingerprint([labels.fingerprint, control, rows, code_fingerprint("soft_labels:CONTROLS")])
    name = f"{labels.teacher_name}, {control}"
    wrote = recorded_authors(labels, task, store=store) or [Author(labels.teacher_name)]
    table = dict(zip(texts, changed, strict=True))
    return soft_labels(_Given(name, task.label_names, key, table, wrote), task, store=store)


@dataclass(frozen=True)
class _Given:
    """A `Teacher` that reads its answers from a table."""

    name: str
    label_names: tuple[str, ...]
    fingerprint: str
    table: dict[str, np.ndarray]
    authors: list[Author]

    def logits(self, texts: list[str]) -> np.ndarray:
        return np.stack([self.table[text] for text in texts])
