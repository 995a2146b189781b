"""How far the defaults are from the best that more work or tuning gives, on tasks of other sizes: students, teachers.

`python tests/benchmarks/steps.py [--seeds 1] [--only errors-by-type …] [--students --shares 1 3 10 --rates 4e-3 …]`, on
voice-commands and the tasks of `made_tasks`. Students: one teacher's soft labels, a quarter to ten times the steps of
`training.auto_steps`; agreement with it and accuracy are on validation, which chooses nothing else. Teachers, of 5
labelled rows per class: each built-in one with three regularisations or one to four times its steps, and what
`teachers.candidates` thinks of them. One-thread processes, one a core; what was made is found. Hours on two cores, most
of them in the two large tasks and in fine-tuning. The last line is JSON.

Measured so far, one seed, on validation where nothing else is said. Students, accuracy (their teacher's):
- voice-commands, 19 classes, 3,239 texts: 150 steps (1.5 epochs) 87.6, 600 (6) 90.2, 2,400 (24) 89.5 (86.9), on test;
- errors-by-type, 13 classes, 3,238 texts: 700 steps (7 epochs) 40.0 (38.5);
- docs-by-module, 112 classes, 4,975 texts, of which the student read 24 tokens: 900 steps (6 epochs) 54.8 (66.8 on all
  of the text); whether more steps help is not measured;
- debian-by-section, 53 classes, 30,070 texts: 600 steps (0.6 epochs) 50.6 (51.9).
Teachers of 5 labels per class, class-balanced accuracy:
- debian-by-section, 265 rows: fine-tuned 38.0 in 100 steps (3 epochs), 49.4 in 265 (8); frozen 41.6 (at most 44.4 by
  another regularisation); bag of words 36.5 (40.1);
- voice-commands, 95 rows: fine-tuned 86.9 on test in 100 steps (8 epochs); frozen 83.4 (83.4); bag of words 81.9
  (83.8);
- errors-by-type, 65 rows: frozen 35.3 (36.3); bag of words 32.6 (33.1);
- two-docs-500, 10 rows: frozen 56.0 (56.0); bag of words 62.0 (62.0).
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import made_tasks
import numpy as np

from workbench import metrics
from workbench.errors import MANY
from workbench.soft_labels import soft_labels
from workbench.sweeps import jobs, run_all
from workbench.tasks import Task, load_task
from workbench.teachers import BagOfWords, FrozenProbe, candidates, finetune, load_teacher
from workbench.training import TrainConfig, auto_steps

SHARES, RATES = (0.25, 0.5, 1, 2, 10), (4e-3,)  # of the rule's steps
REGULARISATIONS = (1.0, 10.0, 100.0)
LONGER = (1, 2, 4)


def students(task: Task, seeds: range, shares: list[float], rates: list[float], workers: int | None) -> list[dict]:
    """A row a number of steps, learning rate and seed."""
    # A bag of words where asking a network for each text would take longer than training.
    large = sum(map(len, task.transfer_texts)) > 1_000_000
    teacher = BagOfWords(task) if large else load_teacher("minilm-frozen", task)
    labels, texts = soft_labels(teacher, task), list(task.validation["text"])
    said = soft_labels(teacher, task, texts=texts).logits(texts).argmax(-1)
    truth = [task.validation[column][:] for column in ("label", "group")]
    rule = auto_steps(task, TrainConfig())
    arms = {
        f"{share:g}": [TrainConfig(steps=round(share * rule), learning_rate=rate, eval_every=MANY)
                       for rate in rates] for share in shares
    }  # fmt: skip
    return [
        {
            "arm": f"student, {made.arm} of the rule's steps", "steps": made.steps, "seconds": made.train_seconds,
            "learning_rate": made.learning_rate, "teacher": metrics.balanced_accuracy(said, *truth),
            "accuracy": made.run.metrics["validation.balanced_accuracy"],
            "agreement": np.mean(made.run.logits("validation").argmax(-1) == said),
        }
        for made in run_all(jobs(arms, task, labels, seeds), workers=workers).itertuples()
    ]  # fmt: skip


def teachers(task: Task) -> list[dict]:
    """A row a teacher and setting, and one for the choice."""
    config = finetune(task)
    arms = {f"{n:g}": replace(config, steps=n * config.steps) for n in LONGER}
    truth = [task.validation[column][:] for column in ("label", "group")]
    rows = [
        {"arm": f"fine-tuned, {made.arm} of the rule's steps", "steps": made.steps, "seconds": made.train_seconds,
         "accuracy": made.run.metrics["validation.balanced_accuracy"]}
        for made in run_all(jobs(arms, task, None, [config.seed])).itertuples()
    ]  # fmt: skip
    for kind in (BagOfWords, FrozenProbe):
        for c in REGULARISATIONS:
            said = kind(task, c).logits(list(task.validation["text"])).argmax(-1)
            rows.append({"arm": f"{kind.__name__}, {c:g}", "accuracy": metrics.balanced_accuracy(said, *truth)})
    print(candidates(task).round(3).to_string(index=False))
    said = load_teacher("auto", task).logits(list(task.validation["text"])).argmax(-1)
    return [*rows, {"arm": "auto", "accuracy": metrics.balanced_accuracy(said, *truth)}]


options = argparse.ArgumentParser()
options.add_argument("--seeds", type=int, default=1)
options.add_argument("--only", nargs="+", default=[])
options.add_argument("--shares", nargs="+", type=float, default=SHARES)
options.add_argument("--rates", nargs="+", type=float, default=RATES)
options.add_argument("--workers", type=int)
options.add_argument("--students", action="store_true", help="no teachers")
given = options.parse_args()
everything = []
with tempfile.TemporaryDirectory() as folder:
    named = {"voice-commands": "voice-commands"}
    named |= {name: f"csv:{path}" for name, path in made_tasks.write(Path(folder)).items()}
    for name in given.only or named:
        few, more = (load_task(named[name], labels_per_class=n) for n in (5, 20))
        size = {"task": name, "classes": len(more.label_names), "rows": len(more.transfer_texts)}
        made = students(more, range(given.seeds), given.shares, given.rates, given.workers)
        for row in [*made, *([] if given.students else teachers(few))]:
            everything.append({**size, **row})
            print(everything[-1], flush=True)
print(json.dumps(everything))
