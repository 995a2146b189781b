"""Many runs: a pool of one-thread processes, each run found if it was ever made, redone never."""

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import joblib
import numpy as np
import pandas as pd
import torch
from joblib.externals.loky import get_reusable_executor

from workbench.data import Task
from workbench.errors import WorkbenchError
from workbench.soft_labels import SoftLabels
from workbench.store import Store
from workbench.training import Run, TrainConfig, find_run, train


@dataclass(frozen=True)
class Job:
    """One run to make: what `train` takes, its arm's name in tables and figures, and which of the arm's configs."""

    config: TrainConfig
    task: Task
    labels: SoftLabels | None = None
    arm: str = ""
    number: int = 0


def jobs(
    arms: Mapping[str, TrainConfig | Sequence[TrainConfig]],
    task: Task,
    labels: SoftLabels | None,
    seeds: Iterable[int],
) -> list[Job]:
    """Each config of each arm with each seed."""
    listed = {arm: [c] if isinstance(c, TrainConfig) else c for arm, c in arms.items()}
    return [
        Job(replace(config, seed=seed), task, labels, arm, number)
        for arm, configs in listed.items()
        for number, config in enumerate(configs)
        for seed in seeds
    ]


def run_all(
    jobs: Sequence[Job | TrainConfig],
    task: Task | None = None,
    labels: SoftLabels | None = None,
    *,
    workers: int | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    """Make every run and return one row each, in the order given.

    Columns: arm, config (its number in the arm), label_draw, the fields of `TrainConfig`, its loss_options (each
    a column), the scores (``validation.accuracy``, ``test.accuracy``…), train_seconds, and run (a `Run`, with its
    logits and its student).
    Stopping with Ctrl-C keeps what is finished.

    Args:
        jobs: `Job`s, or configs that share `task` and `labels`.
        task: of the configs.
        labels: of the configs.
        workers: processes; as many as CPU cores if None, 1 on a GPU.
        store: where the runs are.

    Raises:
        WorkbenchError: a run failed (the others are finished and kept first), or a worker process died.
    """
    store = store or Store()
    jobs = [j if isinstance(j, Job) else Job(j, task, labels) for j in jobs]
    if any(job.task is None for job in jobs):
        raise WorkbenchError("run_all got configs without a task: pass run_all(configs, task, labels).")
    workers = workers or (1 if torch.cuda.is_available() else len(os.sched_getaffinity(0)))
    found = {i: find_run(j.task, j.labels, j.config, store) for i, j in enumerate(jobs)}
    missing = [i for i, run in found.items() if run is None]
    if missing:
        _make([jobs[i] for i in missing], store, workers, len(jobs) - len(missing))
        found |= {i: find_run(jobs[i].task, jobs[i].labels, jobs[i].config, store) for i in missing}
        if None in found.values():
            raise WorkbenchError("The package's code changed since this process started: restart it and run again.")
    return pd.DataFrame([_row(job, found[i]) for i, job in enumerate(jobs)])


def hits(runs: pd.DataFrame, task: Task, split: str = "test") -> dict[str, np.ndarray]:
    """Which items each arm got right: arm -> ``[seeds, N]`` of bool, as `workbench.verdicts.compare` takes them."""
    labels = np.array(getattr(task, split)["label"])
    arms = runs.groupby("arm", sort=False)["run"]
    return {arm: np.stack([run.logits(split).argmax(-1) == labels for run in of_arm]) for arm, of_arm in arms}


def _row(job: Job, run: Run) -> dict:
    config = asdict(job.config)
    options = config.pop("loss_options")
    return {
        "arm": job.arm,
        "config": job.number,
        "label_draw": job.task.label_draw,
        **config,
        **options,
        **run.metrics,
        "train_seconds": run.entry.record["seconds"],
        "run": run,
    }


def _make(jobs: list[Job], store: Store, workers: int, already: int) -> None:
    """Train what is missing; show progress; collect failures until every run had its turn."""
    began, errors = time.monotonic(), []
    progress = _Progress(len(jobs), already)
    parallel = joblib.Parallel(n_jobs=min(workers, len(jobs)), return_as="generator_unordered", batch_size=1)
    try:
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            for error in parallel(joblib.delayed(_one)(job, store) for job in jobs):
                errors += [error] if error else []
                progress.step(time.monotonic() - began)
    except KeyboardInterrupt:
        get_reusable_executor().shutdown(wait=False, kill_workers=True)
        progress.end("stopped; finished runs are kept")
        raise
    except joblib.externals.loky.process_executor.TerminatedWorkerError:
        raise WorkbenchError(
            f"A worker process died after {progress.done} of {len(jobs)} runs (out of memory?): finished runs are "
            "kept; run it again, with fewer workers if memory is short."
        ) from None
    progress.end("done" if not errors else f"{len(errors)} failed")
    if errors:
        raise WorkbenchError(f"{len(errors)} of {len(jobs)} runs failed, the others are kept; the first: {errors[0]}")


def _one(job: Job, store: Store) -> str | None:
    """Train one run in a worker; return what went wrong, as text: an exception would stop the other runs."""
    try:
        for _ in train(job.task, job.labels, job.config, store=store):
            pass
    except Exception as error:
        name = f"{job.arm or job.config.loss} seed {job.config.seed}"
        return f"{name}: {error}" if isinstance(error, WorkbenchError) else f"{name}: {type(error).__name__}: {error}"
    return None


class _Progress:
    """One line that moves: in place on a terminal and in a notebook, where the last state stays in the page."""

    def __init__(self, total: int, already: int):
        self.total, self.already, self.done, self.handle = total, already, 0, None
        self.text("starting workers")

    def step(self, seconds: float) -> None:
        self.done += 1
        left = seconds / self.done * (self.total - self.done)
        self.seconds = seconds
        self.text(f"{seconds:.0f} s, about {left:.0f} s left")

    def end(self, how: str) -> None:
        self.text(f"{how}, {getattr(self, 'seconds', 0):.0f} s", last=True)

    def text(self, tail: str, last: bool = False) -> None:
        found = f" ({self.already} found)" if self.already else ""
        line = f"{self.done}/{self.total} runs{found}: {tail}"
        if "ipykernel" in sys.modules:
            from IPython.display import display

            shown = {"text/plain": line}
            if self.handle is None:
                self.handle = display(shown, raw=True, display_id=True)
            else:
                self.handle.update(shown, raw=True)
        elif sys.stderr.isatty():
            print(f"\r{line:<70}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last:
            print(line, file=sys.stderr, flush=True)
