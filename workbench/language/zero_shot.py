"""A language model as a classifier that was shown no label: it scores each class name as the text's continuation.

`workbench.teachers.load_teacher` offers it as ``"smollm2-zero-shot"``; next to read: `workbench.language.causal`, which
loads the model.
"""

import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from workbench import reading, students, weights
from workbench.language.causal import load_causal
from workbench.store import code_fingerprint, fingerprint
from workbench.tasks import Task
from workbench.teacher import Teacher

SMOLLM = "SmolLM2-135M-Instruct"


def teacher(task: Task) -> "ZeroShot":
    """The embedded SmolLM2-135M-Instruct, choosing among the task's class names."""
    return ZeroShot("SmolLM2 zero-shot", weights.path(SMOLLM), task, weights.WEIGHTS[SMOLLM].licence)


class ZeroShot(Teacher):
    """A causal language model that scores each class name as a continuation of a prompt; it sees no label.

    One pass scores every class: the classes' tokens follow the text side by side, and a mask lets each see the prompt
    and itself only. The prompt's constant beginning is run once. A class's score is its mean log-probability a token,
    less the same for an empty text: otherwise frequent words win (contextual calibration, arXiv:2102.09690).
    """

    def __init__(self, name: str, source: Path, task: Task, licence: str):
        self.name, self.licence, self.label_names = name, licence, task.label_names
        self.model, self.tokenizer = load_causal(source)
        self.start = f"Classify the text as one of: {'; '.join(task.label_names)}.\n\nText: "
        self.fingerprint = fingerprint(
            [students.folder_fingerprint(Path(source)), self.start, code_fingerprint("language.zero_shot:ZeroShot")]
        )

    @cached_property
    def _branches(self) -> list[list[int]]:
        return [self.tokenizer(" " + name)["input_ids"] for name in self.label_names]

    @torch.inference_mode()
    def logits(self, texts: list[str], size: int = 16) -> np.ndarray:
        """``[N, C]`` calibrated mean log-probabilities."""
        return self._score(texts, size) - self._score(["N/A"], size)

    def describe(self, texts: list[str]) -> dict[str, int]:
        """FLOPs count the prompt's varying part and every class name."""
        parameters = sum(p.numel() for p in self.model.parameters())
        tokens = int(np.median([len(row) for row in self._prompts(texts)])) + sum(map(len, self._branches))
        inner = parameters - self.model.get_input_embeddings().weight.numel()
        return {"parameters": parameters, "bytes": 4 * parameters, "flops": 2 * tokens * inner}

    def _prompts(self, texts: list[str]) -> list[list[int]]:
        return [self.tokenizer(f"{text}\nLabel:", truncation=True, max_length=512)["input_ids"] for text in texts]

    def _score(self, texts: list[str], size: int) -> np.ndarray:
        start = torch.tensor([self.tokenizer(self.start)["input_ids"]])
        begun = start.shape[1]
        cache = self.model.model(input_ids=start, use_cache=True).past_key_values
        branches = self._branches
        flat = torch.tensor([token for branch in branches for token in branch])
        owner = torch.tensor([i for i, branch in enumerate(branches) for _ in branch])
        depth = torch.tensor([d for branch in branches for d in range(len(branch))])
        same = (owner[:, None] == owner) & (depth[:, None] >= depth)  # a class sees itself, not its neighbours
        out: list[np.ndarray | None] = [None] * len(texts)
        for chosen, ids, mask in reading.batches(self._prompts(texts), 0, size):
            rows, width = ids.shape
            seen = torch.cat([torch.ones(rows, begun, dtype=torch.bool), mask.bool()], 1)
            length = begun + width
            allowed = torch.zeros(rows, width + len(flat), length + len(flat), dtype=torch.bool)
            allowed[:, :width, :length] = torch.ones(width, length, dtype=torch.bool).tril(begun) & seen[:, None]
            allowed[:, width:, :length] = seen[:, None]
            allowed[:, width:, length:] = same
            last = seen.sum(1)
            positions = torch.cat([torch.arange(begun, length).expand(rows, -1), last[:, None] + depth], 1)
            past = copy.deepcopy(cache)
            past.batch_repeat_interleave(rows)
            hidden = self.model.model(
                input_ids=torch.cat([ids, flat.expand(rows, -1)], 1),
                attention_mask=torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)[:, None],
                position_ids=positions,
                past_key_values=past,
            ).last_hidden_state
            # A class's first token is predicted by the prompt's last, the others by the token before them.
            before = torch.where(depth > 0, torch.arange(length - 1, length + len(flat) - 1), last[:, None] - 1) - begun
            states = hidden.gather(1, before.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
            scores = torch.stack([self._log_probability(row, flat) for row in states])
            means = torch.zeros(rows, len(branches)).index_add_(1, owner, scores) / torch.bincount(owner)
            for i, value in zip(chosen, means.numpy(), strict=True):
                out[i] = value
        return np.stack(out)

    def _log_probability(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.model.lm_head(states)
        return logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(-1)
