"""What a teacher's owner can do against students of it, and how one tells such a student: for one's own teacher only.

A defence changes the probabilities that leave the house. `Defended` puts one on any teacher, served or not, so that
its price can be measured on both sides: what a student loses, and what the honest user does. Nothing here gets around a
defence. `fingerprint_test` asks whether a model repeats a teacher's errors more than models do that never saw it.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit, softmax

from workbench.answers import FLOOR
from workbench.errors import SEED, Number, WorkbenchError, number, strings, unknown
from workbench.metrics import item_weights
from workbench.store import code_fingerprint, fingerprint
from workbench.teacher import Teacher

Change = Callable[..., np.ndarray]  # of probabilities [N, C] and draws in [0, 1) [N, 2], and a strength


def labels_only(p: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The top class, without its probability."""
    return np.eye(p.shape[1])[p.argmax(1)]


def rounded(p: np.ndarray, draws: np.ndarray, digits: int = 1) -> np.ndarray:
    """Probabilities of so many digits after the point; the top class stays, also where all round to 0."""
    return _keep_top(np.round(p, digits), p)


def top_k(p: np.ndarray, draws: np.ndarray, k: int = 5) -> np.ndarray:
    """The `k` largest; what is left over is spread evenly, as whoever doesn't see the others must."""
    order = np.argsort(-p, axis=1, kind="stable")
    seen = np.zeros_like(p, dtype=bool)
    np.put_along_axis(seen, order[:, :k], True, axis=1)
    rest = np.where(seen, 0.0, p).sum(1, keepdims=True) / max(p.shape[1] - k, 1)
    return np.where(seen, p, np.minimum(rest, np.where(seen, p, np.inf).min(1, keepdims=True)))


def flipped(p: np.ndarray, draws: np.ndarray, share: float = 0.1) -> np.ndarray:
    """In a share of the answers the top class changes places with another, drawn evenly."""
    out, hit = p.copy(), np.flatnonzero(draws[:, 0] < share)
    top = p.argmax(1)
    other = (top + 1 + np.floor(draws[:, 1] * (p.shape[1] - 1)).astype(int)) % p.shape[1]
    out[hit, top[hit]], out[hit, other[hit]] = p[hit, other[hit]], p[hit, top[hit]]
    return out


def reverse_sigmoid(p: np.ndarray, draws: np.ndarray, beta: float = 0.8, gamma: float = 0.2) -> np.ndarray:
    """Deceptive perturbation (arXiv:1806.00054): y − β (s(γ s⁻¹(y)) − ½), normalised; the top class is kept.

    It is not one-to-one: the probability that is told doesn't say which one it was made from.
    """
    y = np.clip(p, 1e-7, 1 - 1e-7)
    bent = y - beta * (expit(gamma * logit(y)) - 0.5)
    return _keep_top(np.maximum(bent, 0.0), p)


def _keep_top(changed: np.ndarray, p: np.ndarray) -> np.ndarray:
    """`changed` with the top class of `p` on top, just so where it was not."""
    out, rows = changed.copy(), np.arange(len(p))
    top = p.argmax(1)
    rivals = out.copy()
    rivals[rows, top] = -np.inf
    out[rows, top] = np.maximum(out[rows, top], rivals.max(1) * (1 + 1e-6) + 1e-9)
    return out


DEFENCES: dict[str, Change] = {
    "labels only": labels_only,
    "rounded": rounded,
    "top k": top_k,
    "flipped": flipped,
    "reverse sigmoid": reverse_sigmoid,
}
STRENGTHS = {  # of each defence, what its settings may be
    "labels only": {},
    "rounded": {"digits": Number(0, 6, whole=True)},
    "top k": {"k": Number(1, 1_000, whole=True)},
    "flipped": {"share": Number(0, 1)},
    "reverse sigmoid": {"beta": Number(0, 1), "gamma": Number(above=0, most=10)},
}


class Defended(Teacher):
    """A teacher that wears a defence: its `logits` are the logarithms of the probabilities that leave the house.

    What is drawn hangs on the text and the seed alone, so that the same question gets the same answer.
    """

    def __init__(self, teacher: Teacher, defence: str, seed: int = 0, **strength: float):
        """`defence`: a name in `DEFENCES`; `strength`: its settings, such as ``share=0.2``.

        Raises:
            WorkbenchError: no such defence or setting, or a value that it can't have.
        """
        if defence not in DEFENCES:
            raise unknown("defence", defence, DEFENCES)
        for name, value in strength.items():
            if name not in STRENGTHS[defence]:
                raise unknown(f"setting of {defence}", name, STRENGTHS[defence])
            strength[name] = STRENGTHS[defence][name].check(name, value)
        self.teacher, self.defence, self.strength = teacher, defence, strength
        self.seed = SEED.check("seed", seed)
        self.label_names, self.licence = teacher.label_names, teacher.licence
        self.name = f"{teacher.name}, {defence}"
        code = code_fingerprint("hosted.defences:DEFENCES", "hosted.defences:Defended")
        self.fingerprint = fingerprint([teacher.fingerprint, defence, strength, self.seed, code])

    def logits(self, texts: list[str]) -> np.ndarray:
        """``[N, C]`` log-probabilities, as they are told."""
        p = softmax(np.asarray(self.teacher.logits(texts), float), axis=1)
        told = np.maximum(DEFENCES[self.defence](p, self._draws(texts), **self.strength), FLOOR)
        return np.log(told / told.sum(1, keepdims=True)).astype(np.float32)

    def _draws(self, texts: Sequence[str]) -> np.ndarray:
        """Two numbers in [0, 1) a text, ``[N, 2]``."""
        seeds = [hashlib.sha256(f"{self.seed} {text}".encode()).digest() for text in strings("texts", texts)]
        return np.array([np.frombuffer(s[:8], "<u4") for s in seeds]).reshape(-1, 2) / 2**32


# --- does a model show that it learnt from a teacher?


def repeated_errors(
    teacher: ArrayLike, students: ArrayLike, labels: ArrayLike, groups: Sequence | None = None
) -> np.ndarray:
    """Of the teacher's errors, the share that each student repeats class for class, ``[S]`` in [0, 1].

    Error consistency (arXiv:2006.16736) narrowed to the same wrong answer: right answers are what all good models
    share, errors are a teacher's own.

    Args:
        teacher: its answers, ``[N]``, as class indices.
        students: theirs, ``[S, N]``, or ``[N]`` of one.
        labels: the truth, ``[N]``.
        groups: near copies, ``[N]``: each item weighs as in all accuracies here. None: all weigh alike.

    Raises:
        WorkbenchError: shapes that don't fit, or a teacher without an error.
    """
    teacher, students, labels = np.asarray(teacher), np.atleast_2d(students), np.asarray(labels)
    if teacher.shape != labels.shape or students.shape[1:] != labels.shape:
        told = f"teacher {teacher.shape}, students {students.shape}, labels {labels.shape}"
        raise WorkbenchError(f"Answers do not fit ({told}): give [items], [students, items] and [items].")
    wrong = teacher != labels
    if not wrong.any():
        raise WorkbenchError("The teacher has no error on these items, so that none can be repeated: take harder ones.")
    weight = np.where(wrong, 1.0 if groups is None else item_weights(labels, groups), 0.0)
    return (students == teacher) @ (weight / weight.sum())


class Suspicion(NamedTuple):
    """`p_value`: of a model that never saw the teacher; `flagged`: whether that is at most the level."""

    p_value: float
    flagged: bool


def fingerprint_test(suspect: float, innocent: ArrayLike, level: float = 0.05) -> Suspicion:
    """Whether a model repeats a teacher's errors more than innocent ones do.

    A conformal p-value (arXiv:2104.08279): as long as an innocent suspect is like the innocent models, it is flagged
    with a probability of at most `level`, whatever the distribution. They have to be like it: of the same task, data
    and size, with other teachers or none.

    Args:
        suspect: its `repeated_errors`.
        innocent: those of models that surely never saw the teacher, 1 / level or more (20 at 0.05).
        level: of false alarms, in (0, 1).

    Raises:
        WorkbenchError: too few innocent models for the level, or a share outside [0, 1].
    """
    level = number("level", level, above=0, below=1)
    suspect, found = number("suspect", suspect, 0, 1), [number("innocent", one, 0, 1) for one in np.ravel(innocent)]
    needed = int(np.ceil(1 / level))
    if len(found) < needed:
        raise WorkbenchError(f"{len(found)} innocent models can't show {level:g}: take {needed} or more.")
    p_value = (1 + sum(one >= suspect for one in found)) / (1 + len(found))
    return Suspicion(p_value, p_value <= level)
