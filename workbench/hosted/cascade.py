"""A student that answers what it is sure of, and its teacher for the rest: how little of the teacher is still needed.

The student's confidence is the largest probability of its softmax at T = 1; below a threshold the teacher answers. What
is lost by letting the student answer a text is 1 where the teacher would have been right and the student is wrong, else
0: it falls as the threshold rises, so that looking at every threshold needs no correction (arXiv 2101.02703). The bound
is Clopper and Pearson's with the template as the trial, since items of one are near copies: 95 of 100 calibration sets
give a threshold that keeps its word. Conformal risk control (arXiv 2208.02814) would promise no more than the mean over
calibration sets, and no library has the template as its unit. A template's share of losses varies less than a coin of
the same mean, so that the bound is on the safe side. No temperature is fitted: that would use the same labels twice.

S seeds, N items: hits of the student and its confidence are [S, N], those of the teacher [N].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from workbench.errors import SEED, WorkbenchError, number, sequence, whole
from workbench.metrics import item_weights, softmax, template_ids
from workbench.verdicts import MARGIN, Results, arm_estimates, compare

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.0)
GRID = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Pair:
    """A student of some seeds and its teacher on the same items.

    Attributes:
        student: whether it is right, ``[S, N]``, or ``[N]`` of one seed.
        teacher: the same of the teacher, ``[N]``.
        confidence: of the student, ``[S, N]`` or ``[N]``.
        labels: classes of the items, ``[N]``.
        groups: their templates, ``[N]``; None: each item is its own.

    Raises:
        WorkbenchError: no items, unequal shapes, or a confidence that is no number.
    """

    student: np.ndarray
    teacher: np.ndarray
    confidence: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        student, confidence = np.atleast_2d(self.student).astype(bool), np.atleast_2d(self.confidence)
        teacher, labels = np.asarray(self.teacher, bool), np.asarray(self.labels)
        if not len(labels):
            raise WorkbenchError("There are no rows: a threshold needs texts with labels, such as calibration's.")
        if student.shape != confidence.shape or {student.shape[1:], teacher.shape} != {labels.shape}:
            told = f"student {student.shape}, confidence {confidence.shape}, teacher {teacher.shape}"
            raise WorkbenchError(f"{told} do not fit {len(labels)} labels: give [seeds, items], twice, and [items].")
        if confidence.dtype.kind not in "iuf" or not np.isfinite(confidence).all():
            raise WorkbenchError("The confidence holds what is no finite number: find the run that made it.")
        values = {"student": student, "teacher": teacher, "confidence": confidence, "labels": labels}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, student: ArrayLike, teacher: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None) -> "Pair":
        """From logits, ``[S, N, C]`` of the student and ``[N, C]`` of the teacher."""
        student, labels = np.asarray(student), np.asarray(labels)
        if student.ndim != 3 or np.ndim(teacher) != 2:
            told = f"{list(np.shape(student))} and {list(np.shape(teacher))}"
            raise WorkbenchError(f"The logits are {told}: give [seeds, items, classes] and [items, classes].")
        right, sure = student.argmax(-1) == labels, np.stack([softmax(z).max(1) for z in student])
        return cls(right, np.argmax(teacher, -1) == labels, sure, labels, groups)

    @property
    def lost(self) -> np.ndarray:
        """Regressions ``[S, N]``: the teacher is right and the student wrong."""
        return self.teacher & ~self.student

    @property
    def weights(self) -> np.ndarray:
        """Weights ``[N]`` of the class-balanced mean of template means: the mix of texts that all shares are of."""
        return item_weights(self.labels, self.groups)

    def at(self, items: np.ndarray) -> "Pair":
        """On these items."""
        groups = None if self.groups is None else np.asarray(self.groups)[items]
        inside = self.student[:, items], self.teacher[items], self.confidence[:, items], self.labels[items]
        return Pair(*inside, groups)

    def deferred(self, thresholds: ArrayLike) -> np.ndarray:
        """Which items go to the teacher, ``[S, N]``, at thresholds ``[S]``."""
        return self.confidence < np.reshape(thresholds, (-1, 1))

    def results(self, thresholds: ArrayLike) -> Results:
        """Hits of ``pair``, ``student``, ``teacher`` and ``random deferral`` of as many calls, seed by seed."""
        deferred = self.deferred(thresholds)
        share = np.minimum(deferred @ self.weights, 1.0)[:, None]
        hits = {
            "pair": np.where(deferred, self.teacher, self.student),
            "student": self.student,
            "teacher": self.teacher,
            "random deferral": share * self.teacher + (1 - share) * self.student,
        }
        return Results(hits, self.labels, self.groups)


def least_promise(templates: int, level: float = 0.95) -> float:
    """The least loss that so many templates can vouch for, if none of them shows any: 1 − (1 − level)^(1/templates)."""
    level = number("level", level, above=0, below=1)
    return 1 - (1 - level) ** (1 / whole("templates", templates))


def threshold(
    confidence: ArrayLike, lost: ArrayLike, promised: float, groups: ArrayLike | None = None, level: float = 0.95
) -> float:
    """The smallest threshold on the confidence at which no more than `promised` is lost, to the level given.

    Args:
        confidence: of calibration items, ``[N]``.
        lost: what it costs to let the student answer each, ``[N]`` in [0, 1]: regressions, its errors or, where nothing
            is labelled, its disagreements with the teacher.
        promised: the share of texts, a mean over templates, that may be lost; in (0, 1).
        groups: templates ``[N]``; None: each item is its own.
        level: how sure; in (0, 1).

    Returns:
        A confidence; inf where the student is wrong too surely, so that the teacher has to answer everything.

    Raises:
        WorkbenchError: no items, or too few templates to vouch for so small a loss, whoever the student.
    """
    promised, level = (number(k, v, above=0, below=1) for k, v in (("promised", promised), ("level", level)))
    confidence, lost = np.asarray(confidence, float), np.asarray(lost, float)
    if not len(confidence) or confidence.shape != lost.shape:
        raise WorkbenchError(f"There are {confidence.size} confidences and {lost.size} losses: give one of each a row.")
    if not (np.isfinite(confidence).all() and (lost >= 0).all() and (lost <= 1).all()):
        raise WorkbenchError("Confidences must be finite and losses in [0, 1]: find the run that made others.")
    same = np.zeros(len(lost), int)
    n, weight = len(template_ids(same, groups)[1]), item_weights(same, groups)
    if (least := least_promise(n, level)) > promised:
        told = f"{100 * least:.1f} % is the least they can vouch for, and {100 * promised:g} % was asked"
        raise WorkbenchError(f"Of {n} calibration templates, {told}: add calibration texts or promise less.")
    order = np.argsort(-confidence, kind="stable")
    candidates, ends = np.unique(-confidence[order], return_index=True)  # the surest first
    share = np.cumsum((weight * lost)[order])[np.r_[ends[1:], len(order)] - 1]
    bound = np.nan_to_num(stats.beta.ppf(level, n * share + 1, n * np.maximum(1 - share, 0)), nan=1.0)
    safe = np.flatnonzero(bound <= promised)
    return float(-candidates[safe[-1]]) if len(safe) else np.inf


def thresholds(calibration: Pair, promised: float, level: float = 0.95) -> np.ndarray:
    """`threshold` of each seed ``[S]``, by its regressions on calibration items."""
    pairs = zip(calibration.confidence, calibration.lost, strict=True)
    return np.array([threshold(sure, lost, promised, calibration.groups, level) for sure, lost in pairs])


def kept(pair: Pair, promised: float, *, draws: int = 200, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """What was promised against what was kept: templates are halved at random, one half sets the threshold.

    A row a draw and seed: draw, seed, deferred (the share of the other half that went to the teacher) and lost there,
    means over templates. The other half is itself a sample, so that some rows exceed what was promised by its chance.
    """
    draws, rng = whole("draws", draws, 1, 100_000), np.random.default_rng(SEED.check("seed", seed))
    same = np.zeros(len(pair.labels), int)
    template, rows = template_ids(same, pair.groups)[0], []
    for draw in range(draws):
        first = rng.permutation(template.max() + 1)[template] < (template.max() + 1) / 2
        fitted, judged = pair.at(first), pair.at(~first)
        deferred = judged.deferred(thresholds(fitted, promised, level))
        weight = item_weights(same[~first], judged.groups)
        shares = zip(deferred @ weight, (judged.lost & ~deferred) @ weight, strict=True)
        rows += [{"draw": draw, "seed": s, "deferred": d, "lost": lost} for s, (d, lost) in enumerate(shares)]
    return pd.DataFrame(rows)


def curve(pair: Pair) -> pd.DataFrame:
    """Accuracy against the share of calls that the teacher answers, at 0, 1, … 100 %, means over seeds.

    Columns share, cascade (the least sure first), random (the straight line), oracle (who knows beforehand where only
    the teacher is right). All are class-balanced means of template means. Between two thresholds texts are deferred by
    lot, which joins their points by a line.
    """
    w, gain = pair.weights, pair.teacher.astype(float) - pair.student
    first, last = pair.student @ w, float(pair.teacher @ w)
    cascade, oracle = [], []
    for sure, of_seed, start in zip(pair.confidence, gain, first, strict=True):
        order = np.argsort(sure, kind="stable")
        ends = np.r_[np.flatnonzero(np.diff(sure[order])), len(order) - 1]
        share, accuracy = (np.r_[0, np.cumsum(value[order])[ends]] for value in (w, w * of_seed))
        cascade.append(start + np.interp(GRID, share, accuracy))
        better, worse = w[of_seed > 0].sum(), w[of_seed < 0].sum()
        oracle.append(start + np.minimum(GRID, better) - np.maximum(GRID - (1 - worse), 0))
    table = {"share": GRID, "cascade": np.mean(cascade, 0), "random": first.mean() + GRID * (last - first.mean())}
    return pd.DataFrame(table | {"oracle": np.mean(oracle, 0)})


def recovered(points: pd.DataFrame, of: str = "cascade") -> dict[str, float]:
    """How much of the teacher's lead a `curve` wins back, as RouteLLM counts it (arXiv 2406.18665).

    apgr: the mean over all shares of (accuracy − student's) ÷ (teacher's − student's), .5 for random deferral. cpt_50,
    cpt_80, cpt_95: the smallest share of calls to the teacher that wins back so many % of the lead.

    Raises:
        WorkbenchError: a teacher that doesn't lead.
    """
    start, end = points["cascade"].iloc[0], points["random"].iloc[-1]
    if end <= start:
        told = f"{100 * end:.1f} % against {100 * start:.1f} %"
        raise WorkbenchError(f"The teacher is no better than its student ({told}): there is no lead to win back.")
    share, gained = points["share"].to_numpy(), (points[of].to_numpy() - start) / (end - start)
    found = {"apgr": float(np.trapezoid(gained, share))}
    for percent in (50, 80, 95):
        reached = int(np.argmax(gained >= percent / 100 - 1e-9))
        low, high = gained[max(reached - 1, 0)], gained[reached]
        part = (percent / 100 - low) / (high - low) if high > low else 1.0
        found[f"cpt_{percent}"] = float(share[reached] - (1 - part) * (share[reached] - share[max(reached - 1, 0)]))
    return found


def smallest_share(
    calibration: Pair, test: Pair, *, margin: float = 0.01, shares: Sequence[float] = SHARES, budget: str = "laptop"
) -> pd.DataFrame:
    """How few calls keep the pair from being worse than its teacher by `margin`: a row a share, the most calls first.

    Thresholds are quantiles of the calibration's confidences, seed by seed, whatever the hits. On test the shares are
    tried in the order given, which is fixed beforehand, each at the full level, until the first that isn't shown: so
    the whole procedure errs in at most 5 % (fixed sequence). Columns share (asked for); deferred, deferred_low,
    deferred_high (on test); estimate, low, high (pair − teacher, fractions), verdict, holds. The last row that holds is
    the answer.
    """
    margin, rows = MARGIN.check("margin", margin), []
    shares = [number("share", share, 0, 1) for share in sequence("shares", shares, "shares")]
    if not shares or shares != sorted(shares, reverse=True):
        raise WorkbenchError(f"The shares are {shares}: give at least one, the largest first.")
    for share in shares:
        cut = [_quantile(sure, calibration.weights, share) for sure in calibration.confidence]
        results = test.results(cut)
        found = compare(results, [("pair", "teacher")], teacher="teacher", margin=margin, budget=budget).iloc[0]
        sent = Results({"sent": test.deferred(cut)}, test.labels, test.groups)
        deferred, least, most = arm_estimates(sent)[["estimate", "low", "high"]].iloc[0]
        row = {"share": share, "deferred": min(deferred, 1.0), "deferred_low": least, "deferred_high": most}
        row |= {name: found[name] for name in ("estimate", "low", "high", "verdict")}
        rows.append(row | {"holds": bool(found["low"] > -margin)})
        if not rows[-1]["holds"]:
            break
    return pd.DataFrame(rows)


def judged(test: Pair, cut: ArrayLike, *, margin: float = 0.01, budget: str = "laptop") -> pd.DataFrame:
    """`verdicts.compare` of the pair at thresholds ``[S]`` with its teacher, its student and random deferral.

    Where it doesn't beat random deferral, the confidence can't tell which texts to send on.
    """
    rivals = [("pair", rival) for rival in ("teacher", "student", "random deferral")]
    return compare(test.results(cut), rivals, teacher="teacher", margin=margin, budget=budget)


def best_thresholds(calibration: Pair) -> np.ndarray:
    """Thresholds ``[S]`` at which the pair is right most often on calibration: no promise, the likely best."""
    found = []
    for sure, gain in zip(calibration.confidence, calibration.teacher.astype(float) - calibration.student, strict=True):
        levels = np.r_[np.unique(sure), np.inf]
        order = np.argsort(sure, kind="stable")
        won = np.r_[0, np.cumsum((calibration.weights * gain)[order])][np.searchsorted(sure[order], levels)]
        found.append(levels[np.argmax(won)])
    return np.array(found)


def who_errs(pairs: Mapping[str, Pair]) -> pd.DataFrame:
    """Where two models err on different texts, each can correct the other: shares of the texts, means over seeds.

    A row a pair: pair, lost (only the teacher is right), won (only the student is), both_wrong.
    """
    rows = []
    for name, pair in pairs.items():
        parts = {"lost": pair.lost, "won": ~pair.teacher & pair.student, "both_wrong": ~(pair.teacher | pair.student)}
        rows.append({"pair": name} | {part: float((hits @ pair.weights).mean()) for part, hits in parts.items()})
    return pd.DataFrame(rows)


def _quantile(confidence: np.ndarray, weight: np.ndarray, share: float) -> float:
    """The threshold below which items of so much of the weight lie; inf for all of it, 0 for none."""
    if share in (0, 1):
        return np.inf if share else 0.0
    order = np.argsort(confidence, kind="stable")
    below = np.r_[0, np.cumsum(weight[order])[:-1]]  # of each item, what goes to the teacher if it is the threshold
    return float(confidence[order][np.searchsorted(below, share, "right") - 1])
