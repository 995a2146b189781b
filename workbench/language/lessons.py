"""Lessons of causal language models: completions of a `TraceTask`, blocks of a `TextTask`; see `training.Lesson`.

Both predict each token from those before it, and neither spends much on padding: completions are packed into lines,
blocks are all of one length. A completion's loss goes through `training.Distiller`, a block's through the fused loss,
because its vocabulary is a large model's. Next to read: `workbench.training`, whose loop takes them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench import reading
from workbench.errors import WorkbenchError
from workbench.language.blocks import TextTask
from workbench.language.causal import LanguageModel, build_causal, encode_pair, evaluate
from workbench.language.fused import Head, Target, fused_loss
from workbench.language.labels import TextLabels
from workbench.language.problems import TraceTask
from workbench.language.traces import SoftTraces
from workbench.training import Distiller, Lesson, TrainConfig, Trainer, lesson


class TextDistiller(nn.Module):
    """A causal language model and the fused loss in one module, to be wrapped by DDP or FSDP as a whole."""

    def __init__(self, student: nn.Module, config: TrainConfig, vocabulary: int | None = None):
        """Wrap `student`; `vocabulary` is the number of its tokenizer's ids where the model has more rows."""
        super().__init__()
        self.student, self.config, self.vocabulary = student, config, vocabulary

    def forward(
        self, ids: Tensor, target: Target | None, tokens: int, given: int = 1
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """(loss, ce, kd, None) of some of a step's blocks: what they add to the means of the whole step.

        Args:
            ids: ``[B, L]``; each token after the first `given` is predicted from those before it.
            target: what the teacher says at the ``B * (L - 1)`` predicted positions; None where kd_weight is 0.
            tokens: predicted tokens in the whole step: all micro-batches, all processes.
            given: tokens at the start of each block that do not count.
        """
        c = self.config
        hidden = self.student.base_model(input_ids=ids, use_cache=False).last_hidden_state
        hidden, labels = hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()  # the one place where they are shifted
        counted = (torch.arange(1, ids.shape[1], device=ids.device) >= given).repeat(len(ids)) / tokens
        total, ce, kd = fused_loss(
            hidden,
            Head.of(self.student, self.vocabulary),
            labels=labels,
            ce_weight=c.ce_weight * counted if c.ce_weight else None,
            target=target,
            kd_weight=c.kd_weight * c.factor * counted if c.kd_weight else None,
            objective=c,
        )
        if torch.distributed.is_initialized():  # wrappers average over processes; the loss is a sum over them
            total = total * torch.distributed.get_world_size()
        return total, ce.sum() / tokens, kd.sum() / tokens, None


def pack(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers that share a line no longer than the longest row: rows end to end instead of padding.

    Longest first, each into the first line with room (first fit decreasing): at most 11/9 of the fewest lines, and one.
    """
    width, lines, room = max(lengths), [], []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        at = next((i for i, free in enumerate(room) if free >= lengths[row]), len(lines))
        if at == len(lines):
            lines.append([])
            room.append(width)
        lines[at].append(row)
        room[at] -= lengths[row]
    return lines


@lesson.register(TraceTask)
class TraceLesson(Lesson):
    """Completions, packed into lines; prompts are read and not learnt."""

    betas = (0.9, 0.95)  # usual for language models: a short run can't wait for 0.999
    reads = "open"
    code = ("language.lessons:TraceLesson",)

    def __init__(self, task: TraceTask, labels: SoftTraces | None, config: TrainConfig):
        super().__init__(task, labels, config)
        student, self.tokenizer = build_causal(config.student, dropout=config.dropout, max_length=config.max_length)
        self.distiller = Distiller(student, config).to(self.device).train()
        self.pairs = [self.encode(*pair) for pair in zip(task.prompts, task.completions, strict=True)]
        self.counts = np.array([sum(t >= 0 for t in targets) for _, targets in self.pairs])
        self.validation = [self.encode(*pair) for pair in task.validation]
        self.soft = labels.open(task) if config.kd_weight else None
        self.rows = (len(self.pairs),) * 2

    def encode(self, prompt: str, completion: str) -> tuple[list[int], list[int]]:
        """(ids, the token that follows each of them or -1 where it is no part of the completion)."""
        before, after = encode_pair(self.tokenizer, prompt, completion)
        ids = before + after
        if len(ids) > self.config.max_length:
            raise WorkbenchError(
                f"A row of {self.task.name} has {len(ids)} tokens, max_length is {self.config.max_length}: raise it or "
                f"leave the row out (it starts with {prompt[:40]!r})."
            )
        return ids, [-1] * (len(before) - 1) + after + [-1]

    def denominators(self, rows: np.ndarray) -> tuple[int, int]:
        """Tokens of completions, with their ends."""
        return (int(self.counts[rows].sum()),) * 2

    def forward(self, rows: np.ndarray, labelled_rows: int, total: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Lesson`; the logits are those of the positions that count."""
        lines = [rows[line] for line in pack([len(self.pairs[i][0]) for i in rows])]

        def lay(row_of: Callable[[int], Iterable[int]], filler: int) -> Tensor:
            return reading.pad([[x for i in line for x in row_of(i)] for line in lines], filler)[0].to(self.device)

        read = {
            "input_ids": lay(lambda i: self.pairs[i][0], self.tokenizer.pad_token_id),
            # Positions that start again at 0 tell attention where a row begins: none sees another, as without packing.
            "position_ids": lay(lambda i: range(len(self.pairs[i][0])), 0),
            "use_cache": False,
        }
        targets = lay(lambda i: self.pairs[i][1], -1)
        soft = None if self.soft is None else torch.from_numpy(self.soft(np.concatenate(lines))).to(self.device)
        with self.autocast():
            return self.distiller(read, targets, soft, labelled_rows, total)

    @torch.no_grad()
    def look(self) -> tuple[float, float, np.ndarray]:
        """(share of completions whose every token is the top choice, nll a token, nothing to keep)."""
        student, hits, nll, tokens = self.distiller.student.eval(), 0, 0.0, 0
        for chosen, ids, mask in reading.batches([ids for ids, _ in self.validation], self.tokenizer.pad_token_id):
            targets = reading.pad([self.validation[i][1] for i in chosen], -1)[0].to(self.device)
            with self.autocast():
                logits = student(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).logits.float()
            counts = targets >= 0
            hits += int(((logits.argmax(-1) == targets) | ~counts).all(-1).sum())
            nll += float(nn.functional.cross_entropy(logits[counts], targets[counts], reduction="sum"))
            tokens += int(counts.sum())
        student.train()
        return hits / len(self.validation), nll / tokens, np.zeros(0, np.float32)

    def finish(self, run: Trainer) -> tuple[dict[str, float], dict[str, Any], list[str]]:
        """Counts the tokens read, prompts included and padding left out."""
        tokens = sum(len(self.pairs[i][0]) for step in range(run.step) for i in run.batches.rows(step))
        exact, nll = run.best_score
        texts = [p + c for p, c in zip(self.task.prompts, self.task.completions, strict=True)]
        about = {"rows": len(self.pairs), "train_tokens": tokens}
        return {"validation.exact": exact, "validation.nll": -nll}, about, texts


@lesson.register(TextTask)
class TextLesson(Lesson):
    """Blocks of text, by the fused loss, and perplexity."""

    reads = "find_blocks"
    code = ("language.lessons:TextLesson",)

    def __init__(self, task: TextTask, labels: TextLabels | None, config: TrainConfig):
        super().__init__(task, labels, config)
        if config.label_smoothing:
            raise WorkbenchError(f"label_smoothing is {config.label_smoothing}: set it to 0 for text, it is not fused.")
        student, self.tokenizer = build_causal(config.student, dropout=config.dropout, max_length=config.max_length)
        self.model = LanguageModel("the student", student, self.tokenizer, "in training")
        self.model.check(task)
        self.distiller = TextDistiller(student, config, len(self.tokenizer)).to(self.device).train()
        self.soft = labels if config.kd_weight else None
        self.soft_rows = labels.find_blocks(task.train) if config.kd_weight else None
        self.rows = (len(task.train),) * 2

    def denominators(self, rows: np.ndarray) -> tuple[int, int]:
        """Tokens of blocks, without what is given."""
        return (len(rows) * (self.task.length - self.task.given),) * 2

    def forward(self, rows: np.ndarray, labelled_rows: int, total: int) -> tuple[Tensor, Tensor, Tensor, None]:
        """See `Lesson`; no step holds the logits of all its tokens."""
        ids = torch.from_numpy(self.task.train[rows].astype(np.int64)).to(self.device)
        target = None if self.soft is None else self.soft.target(self.soft_rows[rows], self.device)
        with self.autocast():
            return self.distiller(ids, target, total, self.task.given)

    def look(self) -> tuple[float, float, np.ndarray]:
        """(1 / perplexity, nll a token, nothing to keep)."""
        nll = self.nll("validation")
        return math.exp(-nll), nll, np.zeros(0, np.float32)

    def nll(self, split: str) -> float:
        """Mean over the predicted tokens of a split."""
        return float(evaluate(self.model, getattr(self.task, split))["nll"].mean())

    def finish(self, run: Trainer) -> tuple[dict[str, float], dict[str, Any], list[str]]:
        """Judges on test, too."""
        scored = {"validation.nll": -run.best_score[1], "test.nll": self.nll("test")}
        scored |= {name.replace("nll", "perplexity"): math.exp(value) for name, value in scored.items()}
        about = {"rows": len(self.task.train), "train_tokens": run.step * self.denominators(run.batches.rows(0))[0]}
        return scored, about, self.tokenizer.batch_decode(self.task.test[:1])
