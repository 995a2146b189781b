"""Which texts to ask a teacher about first, where each call costs: three orders of a task's unlabelled texts."""

from collections.abc import Callable

import numpy as np
from scipy.special import softmax

from workbench.errors import SEED, unknown
from workbench.tasks import Task
from workbench.teachers import BagOfWords


def order(task: Task, how: str, seed: int = 0) -> np.ndarray:
    """Row numbers of all unlabelled texts, ``[N]``, those to ask first in front; no teacher is asked for it.

    Args:
        task: whose labelled rows train the bag of words that is unsure, and whose words it looks at.
        how: a name in `ORDERS`.
        seed: of the random one.

    Raises:
        WorkbenchError: no such order.
    """
    if how not in ORDERS:
        raise unknown("order", how, ORDERS)
    return ORDERS[how](task, SEED.check("seed", seed))


def _random(task: Task, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(task.unlabelled))


def _uncertain(task: Task, seed: int) -> np.ndarray:
    """By the lead of the first class over the second, the smallest first."""
    p = np.sort(softmax(BagOfWords(task).logits(task.unlabelled["text"][:]), axis=1))
    return np.argsort(p[:, -1] - p[:, -2], kind="stable")


def _diverse(task: Task, seed: int) -> np.ndarray:
    """Each as far as can be, by cosine, from the labelled texts and those before it (arXiv:1708.00489)."""
    transform = BagOfWords(task).vectoriser.transform
    known, pool = (transform(rows["text"][:]).tocsr() for rows in (task.labelled, task.unlabelled))
    nearest, found = (pool @ known.T).max(axis=1).toarray().ravel(), []
    for _ in range(pool.shape[0]):
        found.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, (pool @ pool[found[-1]].T).toarray().ravel())
        nearest[found[-1]] = np.inf
    return np.array(found, dtype=int)


ORDERS: dict[str, Callable[[Task, int], np.ndarray]] = {
    "random": _random,
    "uncertain": _uncertain,
    "diverse": _diverse,
}
