"""Students led by their teacher's hidden states beside its answers: what whoever has the weights can give, too.

A linear bridge maps the student's mean hidden state onto the teacher's, and how far it misses is added to the loss (a
hint, arXiv:1412.6550); the bridge is thrown away. All else is the loop of `workbench.training`: with a weight of 0 it
makes the student that a run makes. Nothing is stored, as only their answers are of use here.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from workbench.errors import WorkbenchError, number, sequence, shown
from workbench.soft_labels import SoftLabels
from workbench.tasks import Task
from workbench.training import ClassifierLesson, Job, TrainConfig, Trainer, lesson
from workbench.turns import Own, one_thread_workers


def led(jobs: Sequence[Job], states: np.ndarray, *, weight: float = 1.0, workers: int | None = None) -> np.ndarray:
    """Logits ``[S, N, C]`` on test of a student a job.

    Args:
        jobs: of one task, with soft labels.
        states: the teacher's of the task's transfer texts, ``[texts, H]``; each dimension is standardised.
        weight: of the bridge's mean squared error in the loss.
        workers: processes; as many as CPU cores if None, 1 on a GPU.

    Raises:
        WorkbenchError: jobs without soft labels, or states that are not finite ``[texts, H]``.
    """
    jobs, weight = sequence("jobs", jobs, "jobs"), number("weight", weight, 0)
    states = np.asarray(states, np.float32)
    if not jobs or any(job.labels is None or not job.config.kd_weight for job in jobs):
        raise WorkbenchError("A student is led beside soft labels: give jobs that have them, and a kd_weight above 0.")
    texts = len(jobs[0].task.transfer_texts)
    if states.ndim != 2 or len(states) != texts or not np.isfinite(states).all():
        raise WorkbenchError(f"The states are {shown(states)}: give finite ones, [{texts}, H], a row a transfer text.")
    states = torch.from_numpy((states - states.mean(0)) / (states.std(0) + 1e-6))
    workers = one_thread_workers(workers)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        made = joblib.Parallel(min(workers, len(jobs)), batch_size=1)(
            joblib.delayed(_answers)(job, states, weight) for job in jobs
        )
    return np.stack(made)


def _answers(job: Job, states: Tensor, weight: float) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder, Own(job.config.threads).turn():
        trainer = Led(job, Path(folder), states, weight)
        while not trainer.done:
            trainer.one_step()
        trainer.record()  # refuses a loss that is no longer finite
        trainer.student.load_state_dict(trainer.best)
        return trainer.lesson.predict("test")


class Led(Trainer):
    """A run whose steps train the bridge, too."""

    def __init__(self, job: Job, folder: Path, states: Tensor, weight: float):
        """`states`: ``[texts, H]``; `weight`: see `led`."""
        columns = {field.name: getattr(job.task, field.name) for field in fields(Task)}
        super().__init__(replace(job, task=_Led(**columns, states=states, weight=weight)), folder)
        self.optimizer.add_param_group({"params": self.lesson.bridge.parameters(), "weight_decay": 0.0})


@dataclass(frozen=True, kw_only=True)
class _Led(Task):
    """A task whose teacher shows its states ``[texts, H]``; by its fingerprint the same as the one it is made of."""

    states: Tensor
    weight: float


@lesson.register(_Led)
class LedLesson(ClassifierLesson):
    """Adds to the loss what the bridge misses, which stays outside the distiller: no gradient's norm counts it."""

    def __init__(self, task: _Led, labels: SoftLabels, config: TrainConfig):
        super().__init__(task, labels, config)
        student = self.distiller.student
        self.bridge = nn.Linear(student.config.hidden_size, task.states.shape[1]).to(self.device)
        self.states, self.weight = task.states.to(self.device), task.weight
        student.config.output_hidden_states = True
        student.register_forward_hook(self._remember, with_kwargs=True)

    def _remember(self, student: nn.Module, args: tuple, read: dict, out: object) -> None:
        mask = read["attention_mask"].unsqueeze(-1).to(out.logits.dtype)
        self.mean = (out.hidden_states[-1] * mask).sum(1) / mask.sum(1)

    def forward(self, rows: np.ndarray, labelled_rows: int, total: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Lesson`."""
        loss, *terms = super().forward(rows, labelled_rows, total)
        with self.autocast():
            missed = nn.functional.mse_loss(self.bridge(self.mean), self.states[rows])
        return loss + self.weight * missed * (len(rows) / total), *terms
