"""One run by many processes: each reads its share of a step's blocks, and all hold the student of the whole step.

`train` stands where `workbench.training.train` does in a script that ``torchrun`` starts, and in one without it. Loop,
store, key and checkpoints are those of a single process: `DistributedDataParallel` adds the gradients up, so that the
numbers differ by rounding alone, and what one process began, eight may end. For a student that no device can hold with
its gradients and moments (16 bytes a parameter), wrap `workbench.language.lessons.TextDistiller` by ``fully_shard``.
"""

import atexit
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from workbench import training
from workbench.errors import WorkbenchError, shown
from workbench.language.blocks import TextTask
from workbench.language.causal import evaluate
from workbench.language.labels import TextLabels
from workbench.language.lessons import TextLesson
from workbench.store import Entry, Store
from workbench.training import Job, TrainConfig, Trainer, lesson

NEVER = 1e9  # seconds


def train(
    job: Job, *, store: Store | None = None, checkpoint_seconds: float = 60.0, recompute: bool = False
) -> Iterator[dict[str, float]]:
    """As `workbench.training.train`, of a `TextTask`, by every process that ``torchrun`` has started.

    Each takes an equal share of a step's blocks, reads their labels only, and yields the records of the whole step. The
    first alone writes to the store; if one dies, ``torchrun`` ends the others, and the same command goes on from the
    last checkpoint. On a CPU and without dropout, a run by as many processes then ends bit for bit where it would have.

    The run is found under the same key as one process's: how many there were stands in its record, as `processes`.
    Neither that nor `recompute` changes what is computed, beyond the order of sums, so neither is a matter of the
    config; its `accumulation`, `precision` and all else hold as ever. Only dropout leaves out other parts than in one.

    Args:
        job: see `Job`; a step has a block for each process in each of its micro-batches.
        store: on a disk that all processes see.
        checkpoint_seconds: how much work a kill may cost; 0 keeps a checkpoint of every step.
        recompute: compute each layer's activations again in the backward pass instead of keeping them (activation
            checkpointing, arXiv:1604.06174): a third more arithmetic, and a layer keeps no more than its input.

    Raises:
        WorkbenchError: another kind of task, too few blocks in a micro-batch, or what `training.train` refuses.
    """
    if not isinstance(job.task, TextTask):
        raise WorkbenchError(f"Many processes share blocks of text, not {shown(job.task)}: give load_text(...).")
    rank, count = _join()
    task = _Shared(**{f.name: getattr(job.task, f.name) for f in fields(TextTask)}, recompute=recompute)
    job = replace(job, task=task)
    with ExitStack() as held:
        claim = None
        if rank == 0:
            claim = held.enter_context((store or Store()).claim("runs", training.run_inputs(job), keep=True))
        told = [(claim.entry, claim.folder) if claim else None]
        if count > 1:
            dist.broadcast_object_list(told)
        claim = claim or _follow(*told[0], Path(held.enter_context(TemporaryDirectory())))
        claimed = SimpleNamespace(claim=lambda *_, **__: nullcontext(claim))  # all that the loop asks of its store
        seconds = NEVER if rank else checkpoint_seconds
        yield from training.train(job, store=claimed, checkpoint_seconds=seconds)
        if count > 1:
            dist.barrier()  # for the first to have published the run


def _join() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(dist.get_node_local_rank())
        dist.init_process_group()
        atexit.register(dist.destroy_process_group)
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _follow(entry: Entry | None, folder: Path, own: Path) -> SimpleNamespace:
    """The claim of a process that isn't the first: it reads the first's checkpoint, and what it writes is dropped."""
    (own / "checkpoint").mkdir()
    for saved in folder.glob("checkpoint/*.safetensors"):
        (own / "checkpoint" / saved.name).symlink_to(saved.absolute())
    return SimpleNamespace(entry=entry, folder=own, commit=lambda made: None)


@dataclass(frozen=True, kw_only=True)
class _Shared(TextTask):
    """A task that many processes learn; by its fingerprint the same as the one it is made of."""

    recompute: bool = False
    lessons = "workbench.language.processes"


class _Wrapped(DistributedDataParallel):
    student = property(lambda self: self.module.student)


@lesson.register(_Shared)
class SharedLesson(TextLesson):
    """Of each micro-batch, a process reads the blocks that are its own; what it says of them is the sum over all."""

    def __init__(self, task: _Shared, labels: TextLabels | None, config: TrainConfig):
        super().__init__(task, labels, config)
        (self.rank, self.count), self.micro_batches = _join(), 0
        if (fewest := config.batch_size // config.accumulation) < self.count:
            raise WorkbenchError(
                f"A micro-batch has {fewest} blocks (batch_size {config.batch_size}, accumulation "
                f"{config.accumulation}) for {self.count} processes: raise batch_size or lower accumulation."
            )
        if task.recompute:
            self.distiller.student.activation_checkpointing_enable()
            self.distiller.student.disable_input_require_grads()  # only its older, reentrant kind needs them
        if self.count > 1:
            self.distiller = _Wrapped(self.distiller)

    def forward(self, rows: np.ndarray, labelled_rows: int, total: int) -> tuple[Tensor, Tensor, Tensor, None]:
        """See `Lesson`; the loss has the value of all processes' and the gradient of one's own part."""
        self.micro_batches += 1
        if self.count > 1:  # gradients are added up once a step
            self.distiller.require_backward_grad_sync = self.micro_batches % self.config.accumulation == 0
        loss, ce, kd, _ = super().forward(rows[self.rank :: self.count], labelled_rows, total)
        everywhere = self.sum(torch.stack([loss.detach() / self.count, ce, kd]))  # each is scaled by their number
        return loss + (everywhere[0] - loss.detach()), everywhere[1], everywhere[2], None

    def nll(self, split: str) -> float:
        """Mean over the predicted tokens of a split, of which each process reads its share."""
        blocks = getattr(self.task, split)
        own = blocks[self.rank :: self.count]
        nats = evaluate(self.model, own)["nll"].sum() if len(own) else 0.0
        return float(self.sum(torch.tensor(nats, dtype=torch.float64, device=self.device))) / len(blocks)

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def finish(self, run: Trainer) -> tuple[dict[str, float], dict[str, Any], list[str]]:
        """Says how many took part."""
        scored, about, texts = super().finish(run)
        return scored, about | {"processes": self.count}, texts
