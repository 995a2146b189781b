"""A contest: the arms that are trained, everyone who then answers the same texts, what each says and what it costs.

What the benchmarks among the notebooks share: `arms` are trained, `contestants` made of them and their rivals, `ask`
gives their logits; `closest` is the student to ship; `varied` makes the runs that `workbench.hosted.next_purchase`
reads. Who is better by how much is for `workbench.verdicts` to say.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from workbench.errors import strings
from workbench.quality import agreement, balanced_accuracy
from workbench.soft_labels import SoftLabels, soft_labels
from workbench.speed import measure
from workbench.store import Store
from workbench.sweeps import jobs, run_all
from workbench.tasks import Task
from workbench.teacher import Teacher
from workbench.teachers import BagOfWords, from_run
from workbench.training import Run, TrainConfig, auto_steps
from workbench.verdicts import Results, arm_estimates, by_slice

INTERVAL = ["estimate", "low", "high"]


def arms(base: TrainConfig, task: Task) -> dict[str, TrainConfig]:
    """The student and the two it must beat, alike in all else: every label read, and the teacher's first choice.

    Steps are a number, the same for all: "labels only" takes as many as those it is compared with.
    """
    base = replace(base, steps=auto_steps(task, base))
    return {
        "distilled": base,
        "hard pseudo-labels": replace(base, loss="hard_labels"),
        "labels only": replace(base, kd_weight=0.0, ce_weight=1.0),
    }


def contestants(runs: pd.DataFrame, task: Task, labels: SoftLabels, teacher: Teacher) -> dict[str, list[Teacher]]:
    """Everyone who answers, one model a seed: students by arm, bags of words, the teacher.

    Args:
        runs: rows of `sweeps.table`, finished.
        task: what they were trained on.
        labels: the soft labels that they learnt from; they also teach one of the bags of words. It knows no chance:
            it stands there as often as an arm has seeds, so that it can be compared with students seed by seed.
        teacher: named "teacher" here.
    """
    models = {arm: [from_run(run, task, arm) for run in of] for arm, of in runs.groupby("arm", sort=False)["run"]}
    plain, taught = BagOfWords(task), BagOfWords(task, labels=labels)
    repeated = [taught] * max(map(len, models.values()))
    return models | {plain.name: [plain], taught.name: repeated, "teacher": [teacher]}


def ask(
    models: Mapping[str, Sequence[Teacher]],
    task: Task,
    texts: Sequence[str],
    arms: Iterable[str] | None = None,
    *,
    store: Store | None = None,
) -> dict[str, np.ndarray]:
    """Arm -> logits ``[S, N, C]`` of its S models, of all arms or of some; a model is asked once for a text."""
    return {
        arm: np.stack([soft_labels(model, task, texts=texts, store=store).logits(texts) for model in models[arm]])
        for arm in (models if arms is None else arms)
    }


def closest(runs: Sequence[Run], teacher_logits: ArrayLike) -> int:
    """Which student to ship: the one that agrees most with its teacher ``[N, C]`` on validation. No label is read."""
    return int(np.argmax([agreement(run.logits("validation"), teacher_logits) for run in runs]))


def refused(
    confidence: Mapping[str, ArrayLike], thresholds: Mapping[str, ArrayLike], groups: ArrayLike | None = None
) -> pd.DataFrame:
    """Share of the texts that each arm refuses, in [0, 1]: a row an arm; estimate, low, high (95 %).

    A mean over templates of whatever class: what is out of scope has none.

    Args:
        confidence: arm -> ``[S, N]``, as `metrics.confidences` gives them.
        thresholds: arm -> ``[S]``: less is refused, see `metrics.refusal_thresholds`.
        groups: templates ``[N]``.
    """
    below = {arm: np.asarray(sure) < np.asarray(thresholds[arm])[:, None] for arm, sure in confidence.items()}
    one_class = np.zeros(next(iter(below.values())).shape[1], int)
    return arm_estimates(Results(below, one_class, groups)).set_index("arm")[INTERVAL]


def beside(student: ArrayLike, teacher: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None) -> pd.DataFrame:
    """How often one student answers like its teacher, and how often only one of the two is right: a row an aspect.

    Logits ``[N, C]``; estimate, low, high (95 %), weighed as accuracy is.
    """
    student, teacher, labels = np.argmax(student, -1), np.argmax(teacher, -1), np.asarray(labels)
    aspects = {
        "agreement with the teacher": student == teacher,
        "used to work and now fail": (teacher == labels) & (student != labels),
        "failed and now work": (teacher != labels) & (student == labels),
    }
    return arm_estimates(Results(aspects, labels, groups)).set_index("arm")[INTERVAL].rename_axis("aspect")


def within(results: Results, slices: pd.Categorical) -> dict[str, Results]:
    """The results in each slice ``[N]`` that is large enough for `verdicts.by_slice`, in its order."""
    return {part: results.at(np.asarray(slices == part)) for part in by_slice(results, slices)["slice"].unique()}


def estimates(parts: Mapping[str, Results]) -> pd.DataFrame:
    """`verdicts.arm_estimates` of each part, one below the other: slice, arm, …, as `figures.difficulty` draws it."""
    tables = [arm_estimates(found).assign(slice=part) for part, found in parts.items()]
    return pd.concat(tables, ignore_index=True)


def varied(
    kinds: Iterable[tuple[Task, Teacher, TrainConfig]], seeds: Sequence[int], *,
    workers: int | None = None, store: Store | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Runs that vary what can be bought, for `hosted.next_purchase` to fit a law to: a row a kind and seed, in order.

    Columns labels, texts (of the transfer set), parameters (of the student), teacher and accuracy (the teacher's and
    the student's class-balanced accuracy on test, fractions); by and student, which name them.

    Args:
        kinds: what a student is trained on, who teaches it, and how; each is trained with every seed.
        seeds: of the students.
        workers: see `sweeps.run_all`.
        store: where runs and soft labels are; a run is made once.
    """
    todo, told = [], []
    for task, teacher, config in kinds:
        task = teacher.answered(task)
        known, texts = (task.test["label"][:], task.test["group"][:]), task.test["text"][:]
        said = soft_labels(teacher, task, texts=texts, store=store).logits(texts)
        row = {"labels": len(task.labelled), "texts": len(task.transfer_texts), "by": teacher.name}
        row |= {"teacher": balanced_accuracy(said, *known)}
        todo += jobs({"distilled": config}, task, soft_labels(teacher, task, store=store), seeds)
        told += [row] * len(seeds)
    runs = run_all(todo, workers=workers, store=store)["run"]
    return pd.DataFrame([
        row | {"student": run.config.student, "parameters": run.entry.record["parameters"],
               "accuracy": run.metrics["test.balanced_accuracy"]}
        for run, row in zip(runs, told, strict=True)
    ])  # fmt: skip


def weigh(models: Mapping[str, Teacher], texts: Sequence[str], *, repeats: int = 30, threads: int = 1) -> pd.DataFrame:
    """What each model costs: parameters, bytes, flops; p50_ms and p95_ms of one text, rows_per_second of many.

    NaN where it is not known, and times where calls cost money. Timed as `speed.measure` says, with so many threads of
    PyTorch's, taking turns.
    """
    size = pd.DataFrame({name: model.describe(strings("texts", texts)) for name, model in models.items()}).T
    timed = {name: model.logits for name, model in models.items() if getattr(model, "timed", True)}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        speed = measure(timed, texts, repeats=repeats) if timed else pd.DataFrame(index=[])
    finally:
        torch.set_num_threads(before)
    return size.join(speed.reindex(columns=["p50_ms", "p95_ms", "rows_per_second"])).astype(float).rename_axis("arm")
