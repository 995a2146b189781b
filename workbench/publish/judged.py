"""What a student that leaves the house says, and from which probability on it is believed.

Fitted once, on calibration, for every way to run it: the shipped folder's files, its server, a page that holds it.
"""

from dataclasses import dataclass, replace

import numpy as np

from workbench import metrics, students
from workbench.soft_labels import soft_labels
from workbench.store import Store
from workbench.tasks import Task
from workbench.teacher import Teacher
from workbench.training import Run


@dataclass(frozen=True)
class Judged:
    """A student's answers and how they are read.

    Attributes:
        logits: ``[N, C]`` on calibration, test and, if the task has such texts, out_of_scope.
        temperature: fitted on calibration, with its labels.
        refuse_below: the top probability at that temperature below which an answer is refused, set on calibration.
        teacher: its logits on test; None without one.
    """

    logits: dict[str, np.ndarray]
    temperature: float
    refuse_below: float
    teacher: np.ndarray | None

    def sure(self, split: str) -> np.ndarray:
        """The top probability of each text ``[N]``, as it is served."""
        return metrics.softmax(self.logits[split], self.temperature).max(1)


def judge(run: Run, task: Task, teacher: Teacher | None, refused: float, store: Store | None) -> Judged:
    """As notebook 05 does it; the teacher's answers are those in the store."""
    logits, texts = {"test": run.logits("test")}, task.test["text"][:]
    student = students.load(run.path)
    for split in ("calibration", "out_of_scope"):
        if len(rows := getattr(task, split)):
            logits[split] = students.predict(*student, rows["text"][:])
    temperature = metrics.fit_temperature(logits["calibration"], task.calibration["label"][:])
    said = soft_labels(teacher, task, texts=texts, store=store).logits(texts) if teacher else None
    judged = Judged(logits, temperature, 0.0, said)
    threshold = metrics.refusal_threshold(judged.sure("calibration"), refused, task.calibration["group"][:])
    return replace(judged, refuse_below=threshold)
