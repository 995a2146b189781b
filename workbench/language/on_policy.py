"""On-policy distillation: a student writes, and its teacher says of each token what should have stood there.

So a student learns from its own mistakes, which no text of its teacher's contains (GKD, arXiv:2306.13649):
``train(Job(OnPolicyTask.of(traces), LiveTeacher(folder), config))``, with ``loss="reverse_kl"`` as a rule.

TRL's `DistillationTrainer` takes the same step, and tests hold this one to its loss. But it brings a loop, an optimizer
and checkpoints of its own beside those of `workbench.training`, from which no run ends bit for bit as it would have;
to wrap it takes twice the code of what stands here on `causal.generate` and the fused loss.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench import reading, students
from workbench.errors import MANY, Number, WorkbenchError, setting, settle
from workbench.language.blocks import tokenizer_fingerprint
from workbench.language.causal import LanguageModel, Sampling, default_device, generate, load_causal
from workbench.language.fused import Head, Hidden, fused_loss
from workbench.language.lessons import TraceLesson
from workbench.language.problems import TraceTask
from workbench.store import fingerprint
from workbench.training import Job, Run, TrainConfig, Trainer, lesson


@dataclass(frozen=True)
class OnPolicyTask(TraceTask):
    """Prompts to which the student writes the completions itself; the task's own are not read.

    Attributes:
        max_new_tokens: where a text is cut that has not ended.
        temperature: at which the student writes; 0 takes the likeliest token. The config's is that of the loss.
    """

    max_new_tokens: int = setting(128, Number(1, MANY, whole=True))
    temperature: float = setting(1.0, Number(0, 1e6))
    lessons = "workbench.language.on_policy"

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self)

    @classmethod
    def of(cls, task: TraceTask, **options: Any) -> "OnPolicyTask":
        """The prompts and the validation pairs of a task of traces."""
        return cls(*(getattr(task, f.name) for f in fields(TraceTask)), **options)

    @cached_property
    def fingerprint(self) -> str:
        """Depends on every prompt, on their order, and on how the student writes."""
        return fingerprint(["on policy", self.prompts, self.validation, self.max_new_tokens, self.temperature])


@dataclass(frozen=True)
class LiveTeacher:
    """A teacher that is asked of what its student has just written: no label can be stored beforehand.

    Attributes:
        model: a run's `path`, another folder, or a hub name; it reads with the student's tokenizer.
    """

    model: str | Path

    @cached_property
    def fingerprint(self) -> str:
        """Of its weights and its tokenizer."""
        return students.source_fingerprint(self.model)

    def open(self, task: OnPolicyTask) -> LanguageModel:
        """The model, loaded."""
        return LanguageModel("teacher", *load_causal(self.model, default_device()), self.fingerprint)


def continued(
    runs: Iterable[Run], arm: str, task: TraceTask, labels: LiveTeacher | None, config: TrainConfig
) -> list[Job]:
    """Jobs that go on from finished runs, each from its weights and with its seed, in an arm of their own."""
    return [Job(task, labels, replace(config, student=str(r.path), seed=r.config.seed), arm) for r in runs]


@lesson.register(OnPolicyTask)
class OnPolicyLesson(TraceLesson):
    """Each step the student writes to the step's prompts and is corrected: a mean over the tokens that it wrote.

    The run's record counts `train_tokens`, read with gradients, and `written_tokens` among them; the teacher has read
    as many. What the student writes follows from the run's random state, which is part of every checkpoint.
    """

    code = ("language.on_policy:OnPolicyLesson", "language.on_policy:LiveTeacher")

    def __init__(self, task: OnPolicyTask, labels: LiveTeacher, config: TrainConfig):
        if config.ce_weight or not config.kd_weight:
            raise WorkbenchError(
                f"ce_weight is {config.ce_weight} and kd_weight {config.kd_weight}: what a student wrote has no true "
                "tokens but the teacher's word, set ce_weight to 0 and kd_weight above it."
            )
        super().__init__(task, labels, config)
        self.teacher, self.student = self.soft, self.distiller.student
        if tokenizer_fingerprint(self.teacher.tokenizer) != tokenizer_fingerprint(self.tokenizer):
            raise WorkbenchError(
                f"The teacher {labels.model} reads with another tokenizer than the student {config.student}: use a "
                "student with its teacher's."
            )
        self.ends = np.atleast_1d(self.student.generation_config.eos_token_id or self.tokenizer.eos_token_id)
        # Read and written. Among the student's weights, as these alone are in a checkpoint, and not saved with it.
        self.student.register_buffer("token_counts", torch.zeros(2, dtype=torch.int64, device=self.device))
        self.student._keys_to_ignore_on_save = ["token_counts"]
        self.tokens = torch.zeros_like(self.student.token_counts)

    def denominators(self, rows: np.ndarray) -> tuple[int, int]:
        """Has the student write, and counts the tokens."""
        prompts = [self.tokenizer(self.task.prompts[i], add_special_tokens=False)["input_ids"] for i in rows]
        read = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(self.device)
        seed = int(torch.randint(2**31, ()))
        how = Sampling(self.task.temperature, self.task.max_new_tokens, seed=seed)
        self.student.eval()
        with torch.inference_mode(), self.autocast():
            out = generate(self.student, self.tokenizer, read["input_ids"], read["attention_mask"], how)
        self.student.train()
        for i, before, row in zip(rows, prompts, out[:, read["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((n for n, token in enumerate(row, 1) if token in self.ends), len(row))
            self.pairs[i] = before + row[:end], [-1] * (len(before) - 1) + row[:end] + [-1]
            self.counts[i] = end
            self.student.token_counts += torch.tensor([len(before) + end, end], device=self.device)
        self.tokens = self.student.token_counts.clone()
        return super().denominators(rows)

    def forward(self, rows: np.ndarray, labelled_rows: int, total: int) -> tuple[Tensor, Tensor, Tensor, None]:
        """See `Lesson`; no step holds the logits of all its tokens."""
        ids, mask = reading.pad([self.pairs[i][0] for i in rows], self.tokenizer.pad_token_id)
        written = (reading.pad([self.pairs[i][1] for i in rows], -1)[0] >= 0).to(self.device)
        read = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device), "use_cache": False}
        with self.autocast():
            hidden = self.student.base_model(**read).last_hidden_state[written]
            with torch.no_grad():
                expected = self.teacher.model.base_model(**read).last_hidden_state[written]
            weight = torch.full((len(hidden),), self.config.kd_weight * self.config.factor / total, device=self.device)
            target, head = Hidden(expected, self.teacher.head), Head.of(self.student, len(self.tokenizer))
            loss, _, kd = fused_loss(hidden, head, target=target, kd_weight=weight, objective=self.config)
        return loss, torch.zeros_like(loss), kd.sum() / total, None

    def finish(self, run: Trainer) -> tuple[dict[str, float], dict[str, Any], list[str]]:
        """Counts the tokens of every step, also where the weights that are kept are those of an earlier one."""
        scored, about, texts = super().finish(run)
        read, written = torch.maximum(self.tokens, self.student.token_counts).tolist()
        return scored, about | {"train_tokens": read, "written_tokens": written}, texts
