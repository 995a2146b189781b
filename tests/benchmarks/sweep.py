"""What labelling once saves a sweep, what a second worker adds, and whether a run stays as cheap in a longer sweep.

Run it on an idle machine: `python tests/benchmarks/sweep.py` (`--runs 4 --steps 20` for a quick look). Both sides
train the same configs with the same two workers; one reads stored logits, the other asks the teacher for every batch.
The most that can be saved is (teacher step + student step) / student step, timed here too: `share_of_ceiling` is the
measured `speedup` over it. `two_workers`: runs an hour with two workers over one. `growth`: seconds a run in a sweep
of 48 runs over those in one of 6 (with the default 12). The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace

import numpy as np

from workbench.soft_labels import SoftLabels, soft_labels
from workbench.store import Store
from workbench.sweeps import run_all
from workbench.tasks import Task, load_task
from workbench.teachers import load_teacher
from workbench.training import Job, TrainConfig, train

TEACHER = "minilm-finetuned"


class InTheLoop:
    """Soft labels that run the teacher on every batch, as most training scripts do."""

    def __init__(self, task: Task, labels: SoftLabels):
        self.task, self.texts = task, task.transfer_texts
        self.fingerprint = "in the loop: " + labels.fingerprint
        self.teacher = None

    def __getstate__(self) -> dict:
        return self.__dict__ | {"teacher": None}  # each worker loads its own

    def find(self, texts: list[str]) -> np.ndarray:
        return np.arange(len(texts))

    def take(self, rows: np.ndarray) -> np.ndarray:
        if self.teacher is None:
            self.teacher = load_teacher(TEACHER, self.task)
        return self.teacher.logits([self.texts[row] for row in rows])


def sweep(configs: list[TrainConfig], task: Task, labels: SoftLabels | InTheLoop, workers: int) -> float:
    """Seconds to make all of them in an empty store, with workers that have already imported everything."""
    with tempfile.TemporaryDirectory() as folder:
        warm = [replace(configs[0], steps=1, seed=1000 + i) for i in range(workers)]
        run_all([Job(task, labels, config) for config in warm], workers=workers, store=Store(folder))
        began = time.perf_counter()
        run_all([Job(task, labels, config) for config in configs], workers=workers, store=Store(folder))
        return time.perf_counter() - began


def step(config: TrainConfig, task: Task, labels: SoftLabels | InTheLoop) -> float:
    """Median seconds of a training step, looks at validation left out."""
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, steps=31, log_every=1, eval_every=31)
        seconds = [record["seconds"] for record in train(Job(task, labels, config), store=Store(folder))]
    return float(np.median(np.diff(seconds)[:-1]))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--runs", type=int, default=12)
parser.add_argument("--steps", type=int, default=150)
options = parser.parse_args()

task = load_task("voice-commands")
labels = soft_labels(load_teacher(TEACHER, task), task)
loop = InTheLoop(task, labels)
base = TrainConfig(steps=options.steps, eval_every=options.steps)
configs = [replace(base, temperature=2.0 ** (i % 4), seed=i // 4) for i in range(options.runs)]

student_step = step(base, task, labels)
both_step = step(base, task, loop)
ceiling = both_step / student_step
print(f"a step takes {1000 * student_step:.1f} ms, {1000 * both_step:.1f} ms with the teacher in it")
stored, asked = sweep(configs, task, labels, 2), sweep(configs, task, loop, 2)
print(f"{len(configs)} runs with two workers: {stored:.1f} s here, {asked:.1f} s with the teacher in the loop")
short, rest = configs[: len(configs) // 2], range(options.runs * 4)
alone = sweep(configs, task, labels, 1)
seconds = [sweep(short, task, labels, 2), sweep([replace(base, seed=i) for i in rest], task, labels, 2)]
result = {
    "share_of_ceiling": asked / stored / ceiling,
    "speedup": asked / stored,
    "ceiling": ceiling,
    "two_workers": alone / stored,
    "growth": seconds[1] / len(rest) / (seconds[0] / len(short)),
    "runs": [len(short), len(rest)],
    "seconds_a_run": stored / len(configs),
}
print(json.dumps(result))
