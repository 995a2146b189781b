"""One training loop for every model here: students, their rivals, and the teacher's own fine-tuning.

`train` is a generator of records: headless, ``pd.DataFrame(train(...))`` runs it; in a widget, each record draws a
point; closing it stops the run and keeps its checkpoint. A finished run is stored and found again, never redone.
"""

import json
import math
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, singledispatch
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from workbench import quality, reading, students
from workbench.errors import (
    MANY,
    SEED,
    TEMPERATURE,
    Choice,
    Number,
    Text,
    WorkbenchError,
    checks,
    setting,
    shown,
    strings,
    unknown,
)
from workbench.losses import LOSSES, SHARE, Objective, combine
from workbench.soft_labels import SoftLabels
from workbench.store import Entry, Store, code_fingerprint, versions
from workbench.tasks import Task
from workbench.turns import Own

KEPT = 50_000  # texts whose token ids outlive a run
LONGEST_SMALL = 25_000  # tokens: its tokenizer counts to 100,000 characters
AUTO = "auto"
_COUNT = Number(1, MANY, whole=True, unit="steps")


@dataclass(frozen=True)
class _OrAuto(Number):
    """Such a number, or ``"auto"``, which a `Job` turns into one."""

    def __str__(self) -> str:
        return f"{super().__str__()}, or {AUTO!r}"

    def check(self, name: str, value: Any) -> Any:
        return AUTO if isinstance(value, str) and value == AUTO else super().check(name, value)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Objective):
    """All that decides a run, beside its task and soft labels: the objective, and how it is climbed down.

    What each value may be stands with the fields.

    Attributes:
        student: see `workbench.students`: ``"2x64"``, ``"minilm-2"``, a hub name or a path.
        labelled_fraction: share of each batch drawn from the labelled rows. None: rows as they come in the transfer
            set, whatever the weights of the terms; without a distillation term, labelled rows alone.
        steps: optimizer steps; ``"auto"`` is what `auto_steps` says of the task.
        batch_size: rows in a step.
        accumulation: micro-batches a step is split into; the loss doesn't depend on it.
        learning_rate: peak, reached after `warmup` and falling linearly to 0.
        warmup: share of the steps.
        weight_decay: AdamW's, on matrices only.
        max_grad_norm: gradients are scaled down to this norm.
        dropout: share of what passes through a layer that is left out at random.
        max_length: tokens read of a text.
        eval_every: steps between looks at validation; ``"auto"`` is a fifth of all.
        keep: the weights that become the student: those of the last step, which reads none of validation's labels, or
            of the best look, which chooses by them. A language model's validation has no labels to count.
        stop_above: a score: the run ends at the first look that reaches it, whatever its learning rate is by then.
            A teacher stopped half-way is a teacher that errs. None takes all steps.
        log_every: steps between records.
        precision: autocast to bfloat16 or not; weights stay float32.
        threads: CPU threads; part of the identity because sums in another order differ in the last bits. Many
            one-thread runs side by side beat one run on many threads for models of this size.
        seed: of the student's new weights, the batches and the dropout.
    """

    student: str = setting("2x64", Text())
    temperature: float = setting(2.0, TEMPERATURE)
    labelled_fraction: float | None = setting(None, Number(0, 1, optional=True))
    steps: int | str = setting(AUTO, _OrAuto(1, 10_000_000, whole=True))
    batch_size: int = setting(32, Number(1, 65_536, whole=True, unit="rows"))
    accumulation: int = setting(1, Number(1, 65_536, whole=True, unit="micro-batches"))
    learning_rate: float = setting(4e-3, Number(above=0))
    warmup: float = setting(0.1, SHARE)
    weight_decay: float = setting(0.01, Number(0, 1000))
    max_grad_norm: float = setting(1.0, Number(above=0))
    dropout: float = setting(0.0, SHARE)
    max_length: int = setting(128, Number(1, 1_048_576, whole=True, unit="tokens"))
    eval_every: int | str = setting(AUTO, _OrAuto(1, MANY, whole=True, unit="steps"))
    keep: str = setting("last", Choice(("best", "last")))
    stop_above: float | None = setting(None, Number(above=0, most=1, optional=True))
    log_every: int = setting(10, _COUNT)
    precision: str = setting("auto", Choice(("auto", "float32", "bfloat16")))
    threads: int = setting(1, Number(1, 1024, whole=True))
    seed: int = setting(0, SEED)

    def __post_init__(self) -> None:
        """Refuse values no run could mean; keep numpy's scalars as Python's."""
        super().__post_init__()
        spec = LOSSES[self.loss]
        self._check_student()
        if self.kd_weight == 0 and self.ce_weight == 0:
            raise WorkbenchError("kd_weight and ce_weight are both 0: there is nothing to learn from; raise one.")
        if spec.whole_batch and self.kd_weight and (self.accumulation > 1 or self.batch_size < 3):
            raise WorkbenchError(
                f"accumulation is {self.accumulation} and batch_size {self.batch_size}, but loss {self.loss!r} compares"
                " the rows of a step: set accumulation to 1 and batch_size to 3 or more."
            )
        if self.labelled_fraction == 0 and not self.kd_weight:
            raise WorkbenchError("labelled_fraction is 0 and kd_weight 0: there is nothing to learn from; raise one.")

    def _check_student(self) -> None:
        sizes = (students.SMALL, students.LLAMA, students.MINILM)
        numbers = [n for size in sizes if (found := size.fullmatch(self.student)) for n in found.groups() if n]
        if any(len(n) > 5 for n in numbers) or any(len(part.encode()) > 255 for part in self.student.split("/")):
            raise WorkbenchError(f"student is {shown(self.student)}: no model is that large, and no name that long.")
        if students.SMALL.fullmatch(self.student) and self.max_length > LONGEST_SMALL:
            raise WorkbenchError(
                f"max_length is {self.max_length}: student {self.student!r} reads at most {LONGEST_SMALL:,} tokens."
            )


CHECKS = checks(TrainConfig)


@runtime_checkable
class AnyTask(Protocol):
    """What a run can be of: a `Task`, or anything else that has a `lesson`."""

    name: str
    fingerprint: str
    label_draw: int


class AnyLabels(Protocol):
    """Soft labels of such a task; what else they can do is up to its lesson."""

    fingerprint: str


@dataclass(frozen=True)
class Job:
    """One run to make.

    Attributes:
        task: gives the rows, and the validation split that chooses the checkpoint.
        labels: soft labels of the transfer set; None where kd_weight is 0.
        config: see `TrainConfig`; here its steps and looks are numbers.
        arm: its arm's name in tables and figures.
        number: which of the arm's configs this is.
    """

    task: AnyTask
    labels: AnyLabels | None
    config: TrainConfig
    arm: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        """Turn ``"auto"`` into a number, so that what is stored, timed or drawn holds one."""
        config = self.config
        if isinstance(config, TrainConfig) and AUTO in (config.steps, config.eval_every):
            steps = auto_steps(self.task, config)
            looks = max(1, steps // 5) if config.eval_every == AUTO else config.eval_every
            object.__setattr__(self, "config", replace(config, steps=steps, eval_every=looks))

    @property
    def lesson(self) -> "type[Lesson]":
        """The class that knows how to teach the task.

        Raises:
            WorkbenchError: no task, no config.
        """
        kind = lesson_of(self.task)
        if kind is None or not isinstance(self.config, TrainConfig):
            raise WorkbenchError(
                f"A job has {shown(self.task)} and {shown(self.config)}: give a task, its soft labels or None, and a "
                "TrainConfig."
            )
        return kind


class Epochs(NamedTuple):
    """A rule for optimizer steps: so many epochs over the rows, to the nearest `to`, from `fewest` to `most` steps."""

    count: int
    fewest: int
    most: int
    to: int = 1

    def steps(self, rows: int, batch_size: int) -> int:
        """Of so many rows, so many at a time."""
        steps = round(self.count * rows / batch_size / self.to) * self.to
        return min(max(steps, self.fewest), self.most)


STUDENT_STEPS = Epochs(6, 300, 3000, to=100)  # over the transfer set


def auto_steps(task: AnyTask, config: TrainConfig) -> int:
    """Optimizer steps of a student of `task`: the config's if they are a number, else by one rule.

    `STUDENT_STEPS` of the transfer set: with few texts a student needs steps rather than epochs, with many less than
    an epoch brings it near its teacher. Students of labels only take as many as those they are compared with.
    tests/benchmarks/steps.py says what it was measured on.

    Raises:
        WorkbenchError: a task that is no `Task` has no such rule.
    """
    if config.steps != AUTO:
        return config.steps
    if not isinstance(task, Task):
        raise WorkbenchError(f"steps is {AUTO!r}, but {shown(task)} has no rule for it: give a number of steps.")
    return STUDENT_STEPS.steps(len(task.labelled) + len(task.unlabelled), config.batch_size)


class Distiller(nn.Module):
    """Student and loss in one module whose forward gives the loss of a micro-batch."""

    def __init__(self, student: nn.Module, config: TrainConfig):
        super().__init__()
        self.student, self.config = student, config

    def forward(
        self, read: dict[str, Tensor], labels: Tensor, teacher_logits: Tensor | None, labelled_rows: int, rows: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(loss, ce, kd, logits) of what the student reads; the counts are those of the whole step.

        Labels are ``[N]``, or of a causal language model ``[N, L]``: the token that follows each position, -1 where
        none counts. Of that model the logits, here and of the teacher, are those of the positions that count.
        """
        logits = self.student(**read).logits
        if labels.ndim == 2:
            logits, labels = logits[labels >= 0], labels[labels >= 0]
        return *combine(logits, teacher_logits, labels, self.config, labelled_rows=labelled_rows, rows=rows), logits


@dataclass(frozen=True)
class Run:
    """A finished run, read from the store."""

    entry: Entry

    @property
    def config(self) -> TrainConfig:
        """What it was trained with."""
        return TrainConfig(**self._read("record")["inputs"]["config"])

    @property
    def metrics(self) -> dict[str, float]:
        """Scores on validation and test, as ``validation.accuracy``."""
        return self._read("record")["metrics"]

    @property
    def path(self) -> Path:
        """The student in hub format: load it with `transformers.pipeline`."""
        return self._read("path") / "student"

    @cached_property
    def history(self) -> pd.DataFrame:
        """The records `train` gave."""
        return pd.DataFrame(json.loads((self._read("path") / "history.json").read_text(encoding="utf-8")))

    def logits(self, split: str = "test") -> np.ndarray:
        """The student's logits ``[N, C]`` on ``"validation"`` or ``"test"``, as they were when it was scored.

        Raises:
            WorkbenchError: another split, a language model's run, or, as from all that reads it, a run that was pruned.
        """
        path = self._read("path") / "logits.safetensors"
        if not path.exists():
            raise WorkbenchError(f"{self.entry.path} is the run of a language model, which keeps no logits.")
        if split not in ("validation", "test"):
            raise unknown("split of a run's logits", split, ("validation", "test"))
        with safe_open(path, framework="np") as file:
            return file.get_tensor(split)

    def _read(self, what: str) -> Any:
        """The entry's path or record, which is read once: a table made before still has it."""
        try:
            if what == "record" or self.entry.path.exists():
                return getattr(self.entry, what)
        except WorkbenchError:
            pass
        raise WorkbenchError(f"The run {self.entry.path} is no longer in the store: train it again.")


def choose_device(precision: str = "auto") -> tuple[torch.device, torch.dtype, str]:
    """(device, dtype, the reason to print)."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    why = torch.cuda.get_device_name() if cuda else "no CUDA device found"
    if precision == "auto":
        bf16 = cuda and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if bf16 else "float32"
        why += "; bfloat16 is native there" if bf16 else "; small students gain nothing from bfloat16 here"
    else:
        why += f"; {precision} as asked"
    dtype = getattr(torch, precision)
    return device, dtype, f"device={device} dtype={str(dtype).removeprefix('torch.')} ({why})"


def run_inputs(job: Job) -> dict:
    """Everything a run's numbers depend on: the key it is stored under."""
    task, labels, config = job.task, job.labels, job.config
    device, dtype, _ = choose_device(config.precision)
    library = versions()
    return {
        "task": task.fingerprint,
        "labels": labels.fingerprint if labels and config.kd_weight else None,
        "config": asdict(config),
        "source": students.source_fingerprint(config.student),
        "code": code_fingerprint("training:train", *job.lesson.code),
        "device": device.type,
        "dtype": str(dtype),
        "libraries": {name: library[name] for name in ("torch", "transformers")},
    }


def find_run(job: Job, store: Store | None = None) -> Run | None:
    """The finished run of a job, if there is one."""
    entry = (store or Store()).find("runs", run_inputs(job))
    return Run(entry) if entry else None


def train(job: Job, *, store: Store | None = None, checkpoint_seconds: float = 60.0) -> Iterator[dict[str, float]]:
    """Train one student; yield a record every `log_every` steps and at every look.

    A record has: step; loss, ce, kd (means since the last record; terms unweighted, kd without T²);
    learning_rate; seconds; and at evaluation steps validation (class-balanced mean of template means), its nll, and
    grad_ratio: the norm of the weighted distillation term's gradient on the student's logits over that of the
    weighted cross-entropy's (NaN where one of them is absent). A ratio far from 1 means that one weight is idle.

    Given a `TraceTask`, it trains a causal language model: ce and kd are means over the step's completion tokens,
    validation is the share of validation completions that the model would write token for token, nll a mean over
    their tokens, and the run's record counts `train_tokens`, prompts included and padding left out.

    Given a `TextTask`, it trains one on blocks with fused losses: validation is 1 / perplexity on validation, and there
    is no grad_ratio, because no step holds the logits of all its tokens.

    A killed run resumes from its last checkpoint and ends bit for bit where it would have ended (on a CPU).

    Args:
        job: task, soft labels and config.
        store: where the run goes.
        checkpoint_seconds: how much work a kill may cost; 0 keeps a checkpoint of every step.

    Raises:
        WorkbenchError: a term without a row that it counts, no soft labels for a row, or a loss that is no longer
            finite. A run that fails before its first checkpoint leaves nothing in the store.
    """
    checkpoint_seconds = Number(0).check("checkpoint_seconds", checkpoint_seconds)
    _check_rows(job)
    config, store = job.config, store or Store()
    with store.claim("runs", run_inputs(job), keep=True) as claim:
        if claim.entry:
            yield from Run(claim.entry).history.to_dict("records")
            return
        own = Own(config.threads)
        try:
            with own.turn():
                trainer = Trainer(job, claim.folder)
            given, saved = 0, time.monotonic()
            while True:
                for record in trainer.history[given:]:  # a resumed run gives its earlier records again
                    yield dict(record)
                given = len(trainer.history)
                if trainer.done:
                    break
                with own.turn():
                    trainer.one_step()
                    if trainer.step % config.log_every == 0 or trainer.looked or trainer.done:
                        trainer.record()  # before the checkpoint: a run resumed from it is past this step
                    if time.monotonic() - saved >= checkpoint_seconds:
                        trainer.save_checkpoint()
                        saved = time.monotonic()
            with own.turn():
                made = trainer.finish()
            claim.commit(made)
        except GeneratorExit:  # closed between two steps, where the state is whole
            with own.turn():
                trainer.save_checkpoint()
            raise
        finally:
            if claim.entry is None and not _checkpoint(claim.folder).exists():
                shutil.rmtree(claim.folder, ignore_errors=True)  # nothing to go on from


def _check_rows(job: Job) -> None:
    """Refuse, before anything is made, what has nothing to learn from."""
    kind, task, labels, config = job.lesson, job.task, job.labels, job.config
    if config.kd_weight and labels is None:
        raise WorkbenchError(f"kd_weight is {config.kd_weight} but labels is None: pass soft_labels(teacher, task).")
    if config.kd_weight and not (hasattr(labels, kind.reads) and hasattr(labels, "fingerprint")):
        raise WorkbenchError(f"labels is {shown(labels)}: give the soft labels that were made of {task.name}, or None.")
    if isinstance(task, Task) and not len(task.labelled):
        for name in ("ce_weight", "labelled_fraction"):
            if value := getattr(config, name):
                raise WorkbenchError(f"{name} is {value} but {task.name} has no labelled row: set it to 0.")


def _checkpoint(folder: Path) -> Path:
    return folder / "checkpoint" / "state.safetensors"


class Lesson(ABC):
    """What a kind of task asks of a run: the rows of a step, the look at validation, what is kept.

    Attributes:
        task: gives the rows.
        config: the run's.
        tokenizer: the student's.
        distiller: student and loss.
        rows: how many have a true label, which come first, and how many there are.
    """

    betas = (0.9, 0.999)
    reads = "find"  # what soft labels of such a task can do
    code: tuple[str, ...] = ()  # what a run depends on beside the loop itself: see `store.code_fingerprint`
    tokenizer: PreTrainedTokenizerBase
    distiller: nn.Module
    rows: tuple[int, int]

    def __init__(self, task: AnyTask, labels: AnyLabels | None, config: TrainConfig):
        """Build the student and read the data; new weights come from torch's global generator."""
        self.task, self.config = task, config
        self.device, self.dtype, _ = choose_device(config.precision)

    def autocast(self) -> torch.autocast:
        """To the run's own precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @abstractmethod
    def denominators(self, rows: np.ndarray) -> tuple[int, int]:
        """What the cross-entropy and the distillation term of a step are divided by."""

    @abstractmethod
    def forward(self, rows: np.ndarray, labelled_rows: int, total: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """(loss, ce, kd, logits) of some rows of a step, whose denominators are given."""

    @abstractmethod
    def look(self) -> tuple[float, float, np.ndarray]:
        """(score, nll, logits) on validation."""

    @abstractmethod
    def finish(self, run: "Trainer") -> tuple[dict[str, float], dict[str, Any], Sequence[str] | reading.Tokens]:
        """Scores of the best student, what else its record says, and texts, to weigh one of median length."""


@singledispatch
def lesson(task: AnyTask, labels: AnyLabels | None, config: TrainConfig) -> Lesson:
    """The lesson of a task: each kind of task registers a class of its own.

    A task says in `lessons` which module does: so a process that was sent a task, and nothing else, finds it.
    """
    raise NotImplementedError


def lesson_of(task: AnyTask) -> type[Lesson] | None:
    """The class that its kind has registered; None if that is no task."""
    if module := getattr(type(task), "lessons", None):
        import_module(module)
    kind = lesson.dispatch(type(task))
    return kind if isinstance(kind, type) else None


@lesson.register(Task)
class ClassifierLesson(Lesson):
    """Texts with a class each, labelled ones first."""

    code = ("training:ClassifierLesson",)

    def __init__(self, task: Task, labels: SoftLabels | None, config: TrainConfig):
        super().__init__(task, labels, config)
        texts = strings("texts", task.transfer_texts)
        student, self.tokenizer = students.build(
            config.student, task.label_names, texts, dropout=config.dropout, max_length=config.max_length
        )
        self.distiller = Distiller(student, config).to(self.device).train()
        self.token_ids = _encoded(self.tokenizer, tuple(texts))
        known = np.concatenate([rows.with_format("numpy")["label"][:] for rows in (task.labelled, task.unlabelled)])
        self.labels, self.known = torch.from_numpy(known.astype(np.int64)), known >= 0
        self.soft, self.soft_rows = None, None
        if config.kd_weight:
            self.soft, self.soft_rows = labels, labels.find(texts)
            if (self.soft_rows < 0).any():
                labels.logits(texts)  # raises, naming the first text without a label
        self.rows = len(task.labelled), len(texts)
        self.truth = {name: self.columns(name) for name in ("validation", "test")}
        self.validation_weights = quality.item_weights(*self.truth["validation"])

    def columns(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels and templates ``[N]`` of a split."""
        rows = getattr(self.task, split)
        return np.array(rows["label"][:]), np.array(rows["group"][:])

    def denominators(self, rows: np.ndarray) -> tuple[int, int]:
        """Labelled rows, and all."""
        return int(self.known[rows].sum()), len(rows)

    def forward(self, rows: np.ndarray, labelled_rows: int, total: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Lesson`."""
        ids, mask = reading.pad([self.token_ids[i] for i in rows], self.tokenizer.pad_token_id)
        soft = None
        if self.soft is not None:
            soft = torch.from_numpy(self.soft.take(self.soft_rows[rows])).to(self.device)
        read = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        with self.autocast():
            return self.distiller(read, self.labels[rows].to(self.device), soft, labelled_rows, total)

    def look(self) -> tuple[float, float, np.ndarray]:
        """The score is the class-balanced mean of template means."""
        logits = self.predict("validation")
        labels, _ = self.truth["validation"]
        return float(self.validation_weights @ (logits.argmax(-1) == labels)), quality.nll(logits, labels), logits

    def predict(self, split: str) -> np.ndarray:
        """The student's logits ``[N, C]`` on a split."""
        return reading.predict(self.distiller.student, self.tokenizer, self.read(split))

    def read(self, split: str) -> reading.Tokens:
        """The texts of a split as token ids."""
        return _encoded(self.tokenizer, tuple(getattr(self.task, split)["text"][:]))

    def finish(self, run: "Trainer") -> tuple[dict[str, float], dict[str, Any], reading.Tokens]:
        """Keeps the logits on validation and test."""
        logits = {"validation": run.best_logits.numpy(), "test": self.predict("test")}
        save_numpy(logits, run.folder / "logits.safetensors")
        scored = {}
        for split, values in logits.items():
            found = quality.scores(values, *self.truth[split])
            scored |= {f"{split}.{name}": value for name, value in found.items()}
        about = {"label_draw": self.task.label_draw, "rows": len(self.token_ids)}
        return scored, about, self.read("test")


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: tuple[str, ...]) -> reading.Tokens:
    """Token ids of `texts`: read once by all the students of a sweep, unless they are so many that they fill memory."""
    return (_keep_encoded if len(texts) <= KEPT else reading.encode)(tokenizer, texts)


_keep_encoded = lru_cache(maxsize=3)(reading.encode)  # transfer set, validation, test


class Trainer:
    """The state of one run; `train` drives it."""

    def __init__(self, job: Job, folder: Path):
        """Begin, or go on from the folder's checkpoint."""
        self.task, self.config, self.folder = job.task, job.config, folder
        config = job.config
        torch.manual_seed(config.seed)
        self.lesson = lesson(job.task, job.labels, config)
        self.student = self.lesson.distiller.student
        self.batches = Batches(*self.lesson.rows, config)
        parameters = list(self.lesson.distiller.parameters())
        matrices, others = ([p for p in parameters if (p.ndim >= 2) == two] for two in (True, False))
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=self.lesson.betas, fused=True)
        self.step, self.seconds, self.steps_since_record = 0, 0.0, 0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_logits = torch.empty(0)  # on validation
        self.best_score = (-1.0, 0.0)
        self.sums = torch.zeros(3, device=self.lesson.device)
        self.evaluation = _NO_LOOK
        if _checkpoint(folder).exists():
            self.load_checkpoint()

    @property
    def done(self) -> bool:
        """Whether all steps were taken, or the score was reached that was to be reached."""
        enough = self.config.stop_above
        return self.step == self.config.steps or enough is not None and self.best_score[0] >= enough

    @property
    def looked(self) -> bool:
        """Whether the last step ended in a look: it is recorded at once, under its own step."""
        return self.evaluation is not _NO_LOOK

    def learning_rate(self) -> float:
        """Of the next step: rising over the warm-up, then falling linearly to 0."""
        c = self.config
        warm = max(1, round(c.warmup * c.steps))
        falling = (c.steps - self.step) / max(1, c.steps - warm)
        return c.learning_rate * min((self.step + 1) / warm, falling)

    def one_step(self) -> None:
        """One optimizer step, in micro-batches whose gradients add up to those of the whole."""
        began = time.perf_counter()
        c = self.config
        rows = self.batches.rows(self.step)
        labelled_rows, total = self.lesson.denominators(rows)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        evaluate = (self.step + 1) % c.eval_every == 0 or self.step + 1 == c.steps
        squares = [0.0, 0.0]
        for micro in np.array_split(rows, min(c.accumulation, len(rows))):
            loss, ce, kd, logits = self.lesson.forward(micro, labelled_rows, total)
            if evaluate and c.ce_weight and c.kd_weight and logits is not None:
                for i, term in enumerate((ce, kd)):
                    (gradient,) = torch.autograd.grad(term, logits, retain_graph=True)
                    squares[i] += float(gradient.float().square().sum())
            loss.backward()
            self.sums += torch.stack([loss.detach(), ce.detach(), kd.detach()]).float()
        nn.utils.clip_grad_norm_(self.lesson.distiller.parameters(), c.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.steps_since_record += 1
        if evaluate:
            self.evaluate(squares)
        self.seconds += time.perf_counter() - began

    def evaluate(self, squares: list[float]) -> None:
        """Look at validation and keep the weights if they are the best so far, or the last are wanted."""
        score, nll, logits = self.lesson.look()
        if (score, -nll) > self.best_score or self.config.keep == "last":
            self.best_score = (score, -nll)
            self.best = {k: v.detach().cpu().clone() for k, v in self.student.state_dict().items()}
            self.best_logits = torch.from_numpy(logits)
        ce, kd = (square**0.5 for square in squares)
        c = self.config
        ratio = c.kd_weight * c.factor * kd / (c.ce_weight * ce) if ce else math.nan
        self.evaluation = {"validation": score, "validation_nll": nll, "grad_ratio": ratio}

    def record(self) -> None:
        """Add the means since the last record to the history; the only place where a step waits for the device."""
        loss, ce, kd = (self.sums / self.steps_since_record).tolist()
        if not math.isfinite(loss):
            raise WorkbenchError(
                f"The loss is {loss} at step {self.step}: lower learning_rate ({self.config.learning_rate}) or "
                f"the weights, or raise temperature ({self.config.temperature})."
            )
        self.history.append({
            "step": self.step,
            "loss": loss,
            "ce": ce if self.config.ce_weight else math.nan,
            "kd": kd if self.config.kd_weight else math.nan,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(self.seconds, 3),
            **self.evaluation,
        })  # fmt: skip
        self.sums.zero_()
        self.steps_since_record, self.evaluation = 0, _NO_LOOK

    def save_checkpoint(self) -> None:
        """One file, renamed into place: a kill leaves the old one or the new one, never half of one."""
        optimizer = self.optimizer.state_dict()["state"]
        parts = {
            "model": self.student.state_dict(),
            "best": self.best,
            "optimizer": {f"{i}.{k}": v for i, state in optimizer.items() for k, v in state.items()},
            "other": {"random": torch.get_rng_state(), "sums": self.sums, "best_logits": self.best_logits},
        }
        # Tied weights share storage, which safetensors refuses: each tensor gets its own.
        tensors = {f"{p}.{k}": v.detach().cpu().contiguous().clone() for p in parts for k, v in parts[p].items()}
        path = _checkpoint(self.folder)
        path.parent.mkdir(exist_ok=True)
        scalars = json.dumps({name: getattr(self, name) for name in _SCALARS})
        save_file(tensors, path.with_name("next"), metadata={"state": scalars})
        os.replace(path.with_name("next"), path)

    def load_checkpoint(self) -> None:
        """Go on from it."""
        path = _checkpoint(self.folder)
        with safe_open(path, framework="pt") as file:
            scalars = json.loads(file.metadata()["state"])
        parts: dict[str, dict[str, Tensor]] = {"best": {}, "optimizer": {}}  # which may be empty
        for key, tensor in load_file(path).items():
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = tensor
        self.student.load_state_dict(parts["model"])
        self.best, other = parts["best"], parts["other"]
        torch.set_rng_state(other["random"])
        self.sums, self.best_logits = other["sums"].to(self.sums.device), other["best_logits"]
        state = self.optimizer.state_dict()
        for key, tensor in parts["optimizer"].items():
            index, _, name = key.partition(".")
            state["state"].setdefault(int(index), {})[name] = tensor
        self.optimizer.load_state_dict(state)
        for name in _SCALARS:
            setattr(self, name, scalars[name])
        self.best_score = tuple(self.best_score)

    def finish(self) -> dict:
        """Go back to the weights to keep, write that student and the history; what its record says beside."""
        self.student.load_state_dict(self.best)
        (self.folder / "history.json").write_text(json.dumps(self.history), encoding="utf-8")
        self.student.save_pretrained(self.folder / "student")
        self.lesson.tokenizer.save_pretrained(self.folder / "student")
        scored, about, texts = self.lesson.finish(self)
        sizes = reading.describe(self.student, self.lesson.tokenizer, texts)
        return {"metrics": scored, "seconds": round(self.seconds, 3), **sizes, "task_name": self.task.name, **about}


_SCALARS = ("step", "seconds", "history", "best_score", "steps_since_record")
_NO_LOOK = dict.fromkeys(("validation", "validation_nll", "grad_ratio"), math.nan)


class Batches:
    """The rows of each step, a function of the step alone: resuming needs no iterator to be wound forward.

    Labelled rows come first in the transfer set. Each stream is walked in random order, all of it before any row
    comes again. Arms that share a seed and a fraction see the same rows in the same order.
    """

    def __init__(self, labelled: int, total: int, config: TrainConfig):
        fraction = config.labelled_fraction if config.kd_weight or config.labelled_fraction else 1.0
        size, self.seed = config.batch_size, config.seed
        streams = [(0, total, size)]
        if fraction is not None and labelled < total:  # without unlabelled rows there is but one stream
            first = min(size, math.ceil(fraction * size))
            streams = [(0, labelled, first), (labelled, total, size - first)]
        self.streams = [stream for stream in streams if stream[2]]

    def rows(self, step: int) -> np.ndarray:
        """Row numbers ``[batch_size]`` in the transfer set."""
        return np.concatenate([self._draw(i, step, *stream) for i, stream in enumerate(self.streams)])

    def _draw(self, stream: int, step: int, start: int, stop: int, count: int) -> np.ndarray:
        size, first, parts = stop - start, step * count, []
        for epoch in range(first // size, (first + count - 1) // size + 1):
            at = first - epoch * size  # of the batch's first row in this epoch
            parts.append(self._order(stream, epoch, start, stop)[max(at, 0) : at + count])
        return np.concatenate(parts)

    @lru_cache(maxsize=4)  # noqa: B019 - one trainer owns this object and both end together
    def _order(self, stream: int, epoch: int, start: int, stop: int) -> np.ndarray:
        return np.random.default_rng([self.seed, stream, epoch]).permutation(np.arange(start, stop))
