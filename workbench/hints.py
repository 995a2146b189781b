"""Students led by their teacher's hidden states beside its answers: what whoever has the weights can give, too.

A linear bridge maps the student's mean hidden state onto the teacher's, and how far it misses is added to the loss (a
hint, arXiv:1412.6550); the bridge is thrown away. All else is the loop of `workbench.training`: with a weight of 0 it
makes the student that a run makes. Nothing is stored, as only their answers are of use here.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from workbench import reading
from workbench.errors import WorkbenchError, number, sequence, shown
from workbench.losses import combine
from workbench.training import Job, Trainer
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
        return trainer.lesson.predict("test")


class Led(Trainer):
    """A run whose steps add the hint; nobody looks at validation, and the last weights count."""

    def __init__(self, job: Job, folder: Path, states: Tensor, weight: float):
        """`states`: ``[texts, H]``; `weight`: see `led`."""
        super().__init__(job, folder)
        self.bridge = nn.Linear(self.student.config.hidden_size, states.shape[1]).to(self.lesson.device)
        self.optimizer.add_param_group({"params": list(self.bridge.parameters()), "weight_decay": 0.0})
        self.states, self.weight = states.to(self.lesson.device), weight

    def one_step(self) -> None:
        """One optimizer step."""
        rows = self.batches.rows(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.loss(rows).backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def loss(self, rows: np.ndarray) -> Tensor:
        """Of some rows of the transfer set: that of a run, and what the bridge misses."""
        lesson = self.lesson
        ids, mask = reading.pad([lesson.token_ids[i] for i in rows], lesson.tokenizer.pad_token_id)
        ids, mask = ids.to(lesson.device), mask.to(lesson.device)
        soft = torch.from_numpy(lesson.soft.take(lesson.soft_rows[rows])).to(lesson.device)
        with lesson.autocast():
            out = self.student(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            loss, *_ = combine(out.logits, soft, lesson.labels[rows].to(lesson.device), self.config)
            kept = mask.unsqueeze(-1).to(out.logits.dtype)
            mean = (out.hidden_states[-1] * kept).sum(1) / kept.sum(1)
            return loss + self.weight * nn.functional.mse_loss(self.bridge(mean), self.states[rows])
