"""Speed and footprint of classifiers: latency, throughput, cold start, memory, bytes.

How times are taken, here and in every table made from it:

- **Clock**: `time.perf_counter`, wall time of a call from a list of texts to its answer, tokenizer included. A GPU is
  synchronised before and after each call.
- **Turns**: arms are called one after the other on the same texts, turn after turn, so that a busy moment of the
  machine falls on all of them. `WARM_UP` turns come first and are not counted: allocators, caches, lazy imports.
- **Threads**: those that PyTorch has now (`torch.set_num_threads` before); an arm with a pool of its own, such as
  `OnnxClassifier`, has to be made with as many. With one thread, tokenizers are kept to one as well.
- **Ratio**: how many times as fast as the reference: the median over turns of reference's time / arm's time in the same
  turn, with a 95 % interval from 2,000 bootstraps of the turns. It is about this machine in this hour, nothing more.

Start with `measure`. Floating-point work and parameters don't need a clock: see `workbench.reading.describe`.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from workbench import students
from workbench.errors import WorkbenchError, shown, strings, unknown, whole

Classify = Callable[[list[str]], object]
WARM_UP = 2
BOOTSTRAPS = 2000


def measure(
    arms: Mapping[str, Classify], texts: Sequence[str], *,
    repeats: int = 30, batch_size: int = 64, reference: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Time every arm on single texts and on batches; the module's first lines say how.

    Args:
        arms: name -> a function of a list of texts, such as a teacher's `logits`. On a CPU it must return when the work
            is done.
        texts: taken in a random order, always the same (test sets are often sorted), from the start again when used up.
        repeats: timed calls of one text, and of one batch (≥ 1). Below 100, p99 is close to the slowest call.
        batch_size: texts in a batch.
        reference: the arm that the others are compared with.

    Returns:
        One row an arm: p50_ms, p95_ms and p99_ms of a call with one text, rows_per_second of a call with a batch (from
        the median call), batch_size, repeats and threads. With a reference also latency_ratio (of single texts) and
        throughput_ratio (of batches), above 1 where the arm is the faster one; their intervals are latency_ratio_low,
        latency_ratio_high and so on.

    Raises:
        WorkbenchError: no arms, no texts, counts below 1, or a reference that is no arm.
    """
    texts = strings("texts", texts)
    texts = random.Random(0).sample(texts, len(texts))
    one, many = _turns(arms, texts, (1, batch_size), repeats, reference)
    rows = {}
    for name in arms:
        rows[name] = {f"p{p}_ms": 1000 * float(np.percentile(one[name], p)) for p in (50, 95, 99)}
        rows[name] |= {"rows_per_second": batch_size / statistics.median(many[name]), "batch_size": batch_size}
        rows[name] |= {"repeats": repeats, "threads": torch.get_num_threads()}
        if reference is not None:
            for kind, times in (("latency", one), ("throughput", many)):
                rows[name] |= {f"{kind}_{k}": v for k, v in _ratio(times[reference], times[name]).items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def timed_texts(repeats: int = 30, batch_size: int = 64) -> int:
    """How many texts `measure` asks of each arm, to say so beforehand."""
    return (whole("repeats", repeats) + WARM_UP) * (1 + whole("batch_size", batch_size))


def footprint(arms: Mapping[str, Path | str], texts: Sequence[str], *, repeats: int = 3) -> pd.DataFrame:
    """What an arm costs a fresh process: time to the first answer, memory, bytes on disk.

    Files are in the page cache from the second start on: this is the cold start of a process, not of a machine.

    Args:
        arms: name -> the folder of a saved student (run by PyTorch), an .onnx file, or Python code (a str) that defines
            ``classify(texts)``.
        texts: the first one is asked first; then all in one call, before memory is read.
        repeats: processes of each arm, taking turns (≥ 1); medians are given.

    Returns:
        One row an arm: start_seconds (from starting Python to having imported and loaded all), first_answer_seconds
        (from starting Python to the first answer), peak_mb (largest resident memory, 10⁶ bytes, code and mapped files
        included), disk_mb (weights, config and tokenizer, 10⁶ bytes; NaN for code), repeats, threads.

    Raises:
        WorkbenchError: no arms or texts, a count below 1, or an arm that fails.
    """
    _check(arms, texts, repeats, 1)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            found[name].append(_fresh(name, _code(arm), list(texts)))
    rows = {}
    for name, arm in arms.items():
        rows[name] = {key: statistics.median(run[key] for run in found[name]) for key in found[name][0]}
        rows[name] |= {"disk_mb": _disk(arm) / 1e6, "repeats": repeats, "threads": torch.get_num_threads()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def _check(arms: Mapping, texts: Sequence[str], repeats: int, batch_size: int) -> None:
    if not isinstance(arms, Mapping):
        raise WorkbenchError(f"arms is {shown(arms)}: give a dict of names with what answers.")
    if not arms or not strings("texts", texts):
        raise WorkbenchError(f"There are {len(arms)} arms and {len(texts)} texts: give at least one of each.")
    whole("repeats", repeats, 1, 1_000_000)
    whole("batch_size", batch_size, 1, 1_000_000)


def _turns(
    arms: Mapping[str, Classify], texts: list[str], sizes: Sequence[int], repeats: int, reference: str | None
) -> list[dict[str, list[float]]]:
    """Seconds of each timed call, for each batch size and arm, in the order of the turns."""
    for size in sizes:
        _check(arms, texts, repeats, size)
    if reference is not None and not (isinstance(reference, str) and reference in arms):
        raise unknown("reference", reference, arms)
    seconds = [{name: [] for name in arms} for _ in sizes]
    with _one_tokenizer_thread(torch.get_num_threads() == 1):
        for turn in range(-WARM_UP, repeats):
            for size, times in zip(sizes, seconds, strict=True):
                start = max(turn, 0) * size
                chosen = [texts[i % len(texts)] for i in range(start, start + size)]
                for name, classify in arms.items():
                    _synchronise()
                    began = time.perf_counter()
                    classify(chosen)
                    _synchronise()
                    if turn >= 0:
                        times[name].append(time.perf_counter() - began)
    return seconds


def _synchronise() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def _one_tokenizer_thread(only: bool) -> Iterator[None]:
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    if only:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # read at each call
    try:
        yield
    finally:
        if only:
            del os.environ["TOKENIZERS_PARALLELISM"]
            if before is not None:
                os.environ["TOKENIZERS_PARALLELISM"] = before


def _ratio(reference: list[float], arm: list[float]) -> dict[str, float]:
    ratios = np.array(reference) / np.array(arm)
    drawn = np.random.default_rng(0).integers(len(ratios), size=(BOOTSTRAPS, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return {"ratio": float(np.median(ratios)), "ratio_low": float(low), "ratio_high": float(high)}


_EAGER = """
import torch
from workbench.reading import predict
from workbench.students import load
torch.set_num_threads({threads})
_pair = load({path!r})
classify = lambda texts: predict(*_pair, texts)
"""
_ONNX = """
from workbench.publish.onnx import OnnxClassifier
classify = OnnxClassifier({path!r}, threads={threads}).logits
"""
_REPORT = """
import json, sys
_texts = json.load(sys.stdin)
print("started", flush=True)
classify(_texts[:1])
print("answered", flush=True)
classify(_texts)
try:  # ru_maxrss would also count the parent that this process was forked from
    _peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:  # macOS, where ru_maxrss is in bytes
    import resource
    _peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(_peak)
"""


def _code(arm: Path | str) -> str:
    if isinstance(arm, str):
        return arm
    if not arm.exists():
        raise WorkbenchError(f"{arm} is missing: give a student's folder, an .onnx file, or code as a str.")
    return (_EAGER if arm.is_dir() else _ONNX).format(path=str(arm), threads=torch.get_num_threads())


def _disk(arm: Path | str) -> float:
    if isinstance(arm, str):
        return float("nan")
    if arm.is_dir():
        files = students.saved_files(arm)
    else:
        files = [arm, arm.with_name("config.json"), arm.with_name("tokenizer.json")]
    return sum(file.stat().st_size for file in files)


def _fresh(name: str, code: str, texts: list[str]) -> dict[str, float]:
    """Run `code` in a new process; the clock is the parent's, so that starting Python counts."""
    env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile("w+") as asked, tempfile.TemporaryFile("w+") as errors:
        json.dump(texts, asked)
        asked.seek(0)
        command, seconds, last = [sys.executable, "-c", code + _REPORT], {}, ""
        began = time.perf_counter()
        pipes = {"stdin": asked, "stdout": subprocess.PIPE, "stderr": errors}
        with subprocess.Popen(command, env=env, text=True, **pipes) as process:
            for line in process.stdout:
                last = line.strip()
                seconds.setdefault(last, time.perf_counter() - began)
        if process.returncode:
            errors.seek(0)
            reason = (errors.read().strip().splitlines() or ["it gave no reason"])[-1].rstrip(".")
            raise WorkbenchError(f"Arm {name!r} failed in a fresh process ({reason}): run its code by itself.")
    started, answered = seconds["started"], seconds["answered"]
    return {"start_seconds": started, "first_answer_seconds": answered, "peak_mb": int(last) / 1e6}
