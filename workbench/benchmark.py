"""Speed of classifiers: latency of one text, throughput of many."""

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from workbench.errors import WorkbenchError


def measure(
    arms: dict[str, Callable[[list[str]], object]],
    texts: Sequence[str],
    *,
    repeats: int = 30,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Time every arm on the same texts, in turns, so that a busy moment of the machine falls on all of them.

    Threads are those that PyTorch has now: call `torch.set_num_threads` first to measure others.

    Args:
        arms: name -> a function of a list of texts, such as a teacher's `logits`. It must return when the work is
            done; one that gives numpy arrays does, on a GPU too.
        texts: taken in the order given, from the start again when used up. Give a random sample, with its lengths.
        repeats: timed calls of one text, and of one batch (≥ 1).
        batch_size: texts in a batch.

    Returns:
        One row an arm: p50_ms and p95_ms of a call with one text, rows_per_second of a call with a batch (from the
        median call), batch_size, repeats and threads.

    Raises:
        WorkbenchError: no arms, no texts, or counts below 1.
    """
    if not arms or not len(texts):
        raise WorkbenchError(f"measure got {len(arms)} arms and {len(texts)} texts: it needs at least one of each.")
    if repeats < 1 or batch_size < 1:
        raise WorkbenchError(f"repeats is {repeats} and batch_size is {batch_size}: both must be at least 1.")
    one = {name: [] for name in arms}
    many = {name: [] for name in arms}
    for turn in range(-2, repeats):  # two turns to warm up: allocators, caches, lazy imports
        for times, size in ((one, 1), (many, batch_size)):
            start = max(turn, 0) * size
            chosen = [texts[i % len(texts)] for i in range(start, start + size)]
            for name, classify in arms.items():
                began = time.perf_counter()
                classify(chosen)
                seconds = time.perf_counter() - began
                if turn >= 0:
                    times[name].append(seconds)
    rows = [
        {
            "p50_ms": 1000 * statistics.median(one[name]),
            "p95_ms": 1000 * float(np.quantile(one[name], 0.95)),
            "rows_per_second": batch_size / statistics.median(many[name]),
            "batch_size": batch_size,
            "repeats": repeats,
            "threads": torch.get_num_threads(),
        }
        for name in arms
    ]
    return pd.DataFrame(rows, index=pd.Index(list(arms), name="arm"))
