"""Gates: what a reader has to know before an answer, because it makes the answer another one.

Each takes numbers that a page has anyway, tables of `verdicts.arm_estimates` and `verdicts.compare` among them, and
gives sentences with those numbers and what to do: none where all is well. `advice` says which arm to use.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from workbench.errors import unknown, whole
from workbench.training import TrainConfig
from workbench.verdicts import percent

UNIFORM = 0.9  # of the largest possible entropy


def before(
    estimates: pd.DataFrame, rivals: Sequence[str], teacher_logits: ArrayLike, student: TrainConfig
) -> list[str]:
    """What is to be said before an answer on arms "distilled", "labels only" and "teacher".

    Args:
        estimates: a row an arm, of `verdicts.arm_estimates`.
        rivals: of the teacher, such as a bag of words: arms that learnt from the same labels.
        teacher_logits: on the transfer set, ``[N, C]``.
        student: what the distilled one was trained with, its steps a number.
    """
    said = weak_teacher(estimates, rivals) + lost(estimates) + flat(teacher_logits)
    return said + short(student.steps, student.batch_size, len(np.asarray(teacher_logits)))


def weak_teacher(estimates: pd.DataFrame, rivals: Sequence[str], teacher: str = "teacher") -> list[str]:
    """The teacher scores below rivals that learnt from the same labels, such as a bag of words or a frozen probe."""
    own = _of(estimates, teacher)
    better = [(arm, row) for arm in rivals if (row := _of(estimates, arm))["estimate"] > own["estimate"]]
    if not better:
        return []
    arm, best = max(better, key=lambda pair: pair[1]["estimate"])
    return [
        f"The teacher scores {percent(own)}, below {arm} on the same labels, {percent(best)}: let {arm} teach, or give "
        "the teacher more labels or steps."
    ]


def lost(estimates: pd.DataFrame, student: str = "distilled", alone: str = "labels only") -> list[str]:
    """The student scores below the same model without a teacher."""
    own, other = _of(estimates, student), _of(estimates, alone)
    if own["estimate"] >= other["estimate"]:
        return []
    return [
        f"The {student} student scores {percent(own)}, below the same model trained on {alone}, {percent(other)}: "
        "distillation costs accuracy here, so don't distil from this teacher, or train longer."
    ]


def short(steps: int, batch_size: int, rows: int) -> list[str]:
    """Steps of batches that read fewer than the rows once."""
    steps, batch_size, rows = (whole(n, v) for n, v in dict(steps=steps, batch_size=batch_size, rows=rows).items())
    if steps * batch_size >= rows:
        return []
    return [
        f"The student takes {steps:,} steps of {batch_size} texts, {steps * batch_size / rows:.2f} of one pass over "
        f"{rows:,}: it is undertrained, so give it {-(-rows // batch_size):,} steps or more."
    ]


def flat(teacher_logits: ArrayLike) -> list[str]:
    """The teacher's probabilities, from logits [N, C], are near uniform: they say hardly more than nothing."""
    p = special.softmax(np.asarray(teacher_logits, dtype=float), axis=1)
    rows, classes = p.shape
    if special.entr(p).sum(1).mean() < UNIFORM * np.log(classes):
        return []
    return [
        f"The teacher is near guessing: on average its first choice of {classes} classes gets "
        f"{100 * p.max(1).mean():.1f} %, where {100 / classes:.1f} % says nothing: take another teacher, or sharpen "
        "its answers with a temperature well below 1."
    ]


def spare_labels(total: int, used: int, estimates: pd.DataFrame, rival: str) -> list[str]:
    """There are more labels than are used: what a rival makes of all of them, and what is left for a teacher."""
    total, used = whole("total", total), whole("used", used)
    if total <= used:
        return []
    row = _of(estimates, rival)
    return [
        f"You have {total:,} labels, of which {used:,} are used here: {rival} reaches {percent(row)}, and a teacher "
        f"can add at most {100 * (1 - row['estimate']):.1f} points to that: use all of them (labels per class: all)."
    ]


def advice(verdicts: pd.DataFrame, rivals: Sequence[str], student: str = "distilled") -> str:
    """Which arm to use: the student, unless one of the cheaper rivals that it was compared with does as well."""
    rows = verdicts[verdicts["arm"] == student].set_index("baseline")
    for rival in rivals:
        if rival not in rows.index:
            raise unknown("rival", rival, rows.index)
    rows = rows.loc[list(rivals)]
    if (rows["estimate"] < 0).any():
        return f"Use {rows['estimate'].idxmin()} instead: it costs less and scores more."
    level = [rival for rival, low in rows["low"].items() if low <= 0]
    if level:
        return f"The {student} student is not told apart from {' and '.join(level)}, which costs less: try that first."
    return f"The {student} student beats {' and '.join(rivals)}: it is the one to use."


def _of(estimates: pd.DataFrame, arm: str) -> pd.Series:
    rows = estimates.set_index("arm")
    if arm not in rows.index:
        raise unknown("arm", arm, rows.index)
    return rows.loc[arm]
