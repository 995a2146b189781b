"""A task of three classes, its soft labels and a student, all made in well under a second; the student shipped."""

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from workbench.soft_labels import SoftLabels, soft_labels
from workbench.store import Store
from workbench.tasks import Task, load_task
from workbench.teachers import BagOfWords
from workbench.training import Job, Run, TrainConfig, find_run, train
from workbench.verdicts import Results

WORDS = {
    "animal": "cat dog horse cow sheep goat".split(),
    "fruit": "apple banana cherry mango peach plum".split(),
    "tool": "hammer saw drill wrench pliers axe".split(),
}
# Both terms, dropout and uneven micro-batches: whatever a resumed run could get wrong.
CONFIG = TrainConfig(
    student="1x16", ce_weight=1.0, steps=12, batch_size=8, accumulation=3, dropout=0.2, eval_every=4, log_every=2,
    keep="best",
)  # fmt: skip
PLAIN = replace(CONFIG, accumulation=1, dropout=0.0)


def make_task(folder: Path, classes: int = 3, **options) -> Task:
    """20 texts a class; every third word is another class's, so that no teacher is certain."""
    rng = random.Random(0)
    lines = ["text,label"]
    for name in list(WORDS)[:classes]:
        for i in range(20):
            words = [rng.choice(WORDS[name]), rng.choice(WORDS[name]), rng.choice(WORDS[rng.choice(list(WORDS))])]
            lines.append(f"the {words[0]} near a {words[1]} and {words[2]} {i}{' again' * (i % 5)},{name}")
    path = folder / f"tiny{classes}.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_task(f"csv:{path}", **{"labels_per_class": 3, **options})


def shuffled(task: Task) -> Task:
    """The same texts with wrong labels in validation and calibration."""

    def wrong(rows):
        labels = [(label + 1 + i % 2) % 3 for i, label in enumerate(rows["label"])]
        return rows.remove_columns("label").add_column("label", labels)

    return replace(task, validation=wrong(task.validation), calibration=wrong(task.calibration))


def make_labels(task: Task, store: Store | None = None) -> SoftLabels:
    """By a bag of words."""
    return soft_labels(BagOfWords(task), task, store=store)


def each(configs: Iterable[TrainConfig], task: Task, labels: SoftLabels | None) -> list[Job]:
    """A job for each config."""
    return [Job(task, labels, config) for config in configs]


class Shipped(NamedTuple):
    """A student in its folder, and what it was made of."""

    folder: Path
    task: Task
    run: Run
    teacher: BagOfWords
    store: Store


def make_shipped(task: Task, home: Path) -> Shipped:
    """Train one with a bag of words as teacher and ship it with a verdict, all in an empty folder.

    Its task has out-of-scope texts, and most of what is in scope may be refused, so that some is.
    """
    from workbench.publish.ship import ship  # these two bring libraries that the other users of this module never need
    from workbench.verdicts import compare

    strange = [{"text": f"nothing of {i} that one knows", "label": -1, "group": f"strange {i}"} for i in range(8)]
    task = replace(task, out_of_scope=Dataset.from_list(strange))
    store, teacher = Store(home / "store"), BagOfWords(task)
    job = Job(task, soft_labels(teacher, task, store=store), replace(PLAIN, steps=60, learning_rate=1e-2))
    for _ in train(job, store=store):
        pass
    run = find_run(job, store)
    truth = np.array(task.test["label"])
    logits = {"distilled": run.logits(), "teacher": teacher.logits(task.test["text"][:])}
    table = compare(Results.of(logits, truth), [("distilled", "teacher")], teacher="teacher")
    made = {"task": task, "licence": "apache-2.0", "teacher": teacher, "verdicts": table, "store": store}
    return Shipped(ship(run, home / "shipped" / "student", **made, refused=0.8), task, run, teacher, store)
