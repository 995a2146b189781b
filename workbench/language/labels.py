"""Soft labels of text: what a language model expects after each token, computed in one pass and kept.

All logits of a text would fill disks (49,152 floats a token of SmolLM2); its hidden states are 85 times fewer numbers
and give them back. Notebook 06 measures which of the kinds keep what is gained.

| kind    | holds of each predicted token                        | for                                               |
|---------|------------------------------------------------------|---------------------------------------------------|
| hidden  | the last hidden state, 16 bits; once, the head       | every loss at every temperature, to rounding      |
| top_k   | k ids, their log-probabilities, that of all others   | forward KL at the temperature of the labelling    |
| sampled | n ids drawn from the teacher, its entropy            | the same, unbiased                                |
| prefix  | as top_k, in the tokens of a student with its own    | the same, whatever the tokenizers                 |
| text    | of each block, the teacher's own second half         | cross-entropy: closed teachers                    |

Rows are blocks of token ids, keyed by their content and fetched by it; shards are memory-mapped. They are filled by the
one loop of `workbench.soft_labels`; what they become in a step is in `workbench.language.fused`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from workbench import reading
from workbench.errors import SEED, Choice, Number, WorkbenchError, setting, settle, shown, unknown
from workbench.language.blocks import TextTask, tokenizer_fingerprint
from workbench.language.causal import BATCH, LanguageModel, write
from workbench.language.fused import Head, Hidden, Sampled, Target, TopK
from workbench.language.prefixes import Prefixes, keep_top, of_reply, shared_ends, token_bytes
from workbench.losses import check_temperature
from workbench.soft_labels import SoftLabels
from workbench.store import Store, code_fingerprint, fingerprint

SHARD_BLOCKS = 64
HEAD = "heads"  # kind in the store


class _Kind(NamedTuple):
    arrays: tuple[str, ...]  # of a shard
    options: tuple[str, ...]  # that it depends on


KINDS = {
    "hidden": _Kind(("hidden",), ("dtype",)),
    "top_k": _Kind(("tokens", "log_probs", "log_tail"), ("k", "temperature")),
    "sampled": _Kind(("tokens", "entropy"), ("k", "temperature", "seed")),
    "prefix": _Kind(("tokens", "log_probs", "log_tail"), ("k", "temperature")),
    "text": _Kind(("tokens",), ("temperature", "seed")),
}


@dataclass(frozen=True)
class LabelOptions:
    """What is stored of each position.

    Attributes:
        kind: ``"hidden"``, ``"top_k"``, ``"sampled"``, ``"prefix"`` or ``"text"``.
        k: how many tokens `top_k` and `prefix` keep, or `sampled` draws; ≥ 1.
        temperature: > 0; of the teacher's distribution in all but `hidden` (in `text`, 0 means greedy).
        seed: of the draws.
        dtype: of `hidden`: ``"float16"``, or ``"bfloat16"`` where values are too large for that.
    """

    kind: str = "hidden"
    k: int = setting(64, Number(1, 10_000_000, whole=True))
    temperature: float = 1.0
    seed: int = setting(0, SEED)
    dtype: str = setting("float16", Choice(("float16", "bfloat16")))

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise unknown("kind of soft labels", self.kind, KINDS)
        object.__setattr__(self, "temperature", check_temperature(self.temperature, or_zero=self.kind == "text"))
        settle(self)

    @property
    def key(self) -> dict[str, Any]:
        """The options that this kind depends on."""
        return {name: getattr(self, name) for name in ("kind", *KINDS[self.kind].options)}


class TextLabels(SoftLabels):
    """The stored labels of one teacher and kind."""

    def __init__(self, folder_kind: str, teacher: str, options: LabelOptions, head: Path | None, store: Store):
        """Open every intact shard under `folder_kind`."""
        self.options, self.arrays, self._head = options, KINDS[options.kind].arrays, head
        self._hold_of_head = store.hold(HEAD) if head else None
        super().__init__(folder_kind, teacher, store)

    @cached_property
    def head(self) -> Head | None:
        """The teacher's head, for `hidden` labels."""
        if self._head is None:
            return None
        tensors = load_file(self._head / "head.safetensors")
        return Head(tensors["weight"], tensors.get("bias"), **json.loads((self._head / "head.json").read_text()))

    def __getstate__(self) -> dict:
        """Send paths, not rows, to a worker process."""
        return {k: v for k, v in super().__getstate__().items() if k != "head"}

    @property
    def bytes_per_token(self) -> float:
        """Size on disk of a predicted token's label, without the head, which is stored once a teacher."""
        return self.bytes / (len(self) * self._shards[0][0].shape[1])

    @property
    def seconds(self) -> float:
        """What labelling took, in the process that did it."""
        return sum(entry.record["labelling_seconds"] for entry in self._store.list(self.kind))

    def find_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """The stored row of each block ``[N, L]``; raises if one has none."""
        rows = self._find(block_ids(blocks))
        if (rows < 0).any():
            raise WorkbenchError(
                f"{int((rows < 0).sum())} of {len(rows)} blocks have no {self.options.kind} label by "
                f"{self.teacher_name}: label them with text_labels(teacher, task, ...)."
            )
        return rows

    def target(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Target:
        """What the teacher says at each of the ``len(rows) * (L - 1)`` predicted tokens of those rows."""
        return _target(self.options, self._arrays(rows), self.head, device)

    def as_task(self, task: TextTask) -> TextTask:
        """For kind `text`: the task whose training blocks' second halves the teacher wrote, for cross-entropy alone."""
        if self.options.kind != "text":
            raise WorkbenchError(f"Labels of kind {self.options.kind!r} are no text: use them as they are, or 'text'.")
        tokens = self._arrays(self.find_blocks(task.train))["tokens"]
        return replace(task, name=f"{task.name} by {self.teacher_name}", train=tokens, given=task.length // 2)

    def _arrays(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.arrays, self._take(np.asarray(rows)), strict=True))

    def export(self, task: TextTask, folder: str | Path) -> Path:
        """Write the training blocks' `top_k` labels as a `datasets` folder for other toolkits.

        Columns: input_ids ``[L]``, target_token_ids and target_logprobs ``[L][k]`` (natural logarithms, likeliest
        first), aligned as vLLM's ``prompt_logprobs``: entry t is what the teacher expected *at* token t, and [] at 0.
        """
        if self.options.kind != "top_k":
            raise WorkbenchError(f"Labels of kind {self.options.kind!r} have no such form: export 'top_k' labels.")
        arrays = self._arrays(self.find_blocks(task.train))
        columns = {
            "input_ids": [b.tolist() for b in np.asarray(task.train)],
            "target_token_ids": [[[], *row.tolist()] for row in arrays["tokens"]],
            "target_logprobs": [[[], *row.tolist()] for row in arrays["log_probs"]],
        }
        Dataset.from_dict(columns).save_to_disk(str(folder))
        return Path(folder)


def block_ids(blocks: np.ndarray) -> np.ndarray:
    """The content key of each block: ``[N]`` of 16 bytes."""
    blocks = np.ascontiguousarray(blocks, dtype=np.int32)
    return np.array([hashlib.blake2b(b.tobytes(), digest_size=16).digest() for b in blocks], dtype="S16")


def text_labels(
    teacher: LanguageModel,
    task: TextTask,
    kind: str = "hidden",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    store: Store | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> TextLabels:
    """Label the training blocks once; blocks stored for this teacher and kind are not asked again.

    Shards of `SHARD_BLOCKS` blocks are written one by one, so that a killed pass loses at most one.

    Args:
        teacher: see `workbench.language.causal.load_language_model`.
        task: text in the teacher's tokens; for `prefix`, in the student's.
        kind: see the module's first lines.
        tokenizer: the student's, for `prefix`; see `workbench.language.prefixes`.
        store: where the shards go.
        progress: called with (blocks done, blocks to do) after each shard.
        options: k, temperature, seed and dtype, see `LabelOptions`.

    Raises:
        WorkbenchError: another tokenizer's text, unknown kind, or values that are not finite.
    """
    options = LabelOptions(kind, **options)
    if not (isinstance(teacher, LanguageModel) and isinstance(task, TextTask)):
        raise WorkbenchError(
            f"text_labels got {shown(teacher)} and {shown(task)}: give load_language_model(...) and load_text(...)."
        )
    across = _Across(teacher, tokenizer, task, options) if kind == "prefix" else None
    if not across:
        teacher.check(task)
    if kind == "top_k" and options.k > len(teacher.head):
        raise WorkbenchError(f"k is {options.k} but the teacher has {len(teacher.head)} tokens: choose a smaller k.")
    store = store or Store()
    held = store.hold(HEAD)  # until the labels do
    head = _keep_head(teacher, store) if kind == "hidden" else None
    size = SHARD_BLOCKS if kind == "text" else BATCH  # writing pays by the batch, reading doesn't

    def fill(options: LabelOptions) -> TextLabels:
        def label(blocks: np.ndarray) -> dict[str, np.ndarray]:
            batches = [blocks[i : i + size] for i in range(0, len(blocks), size)]
            parts = [across(batch) if across else _label(teacher, batch, options) for batch in batches]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

        return _fill((teacher.fingerprint, teacher.name), options, head, task, store, label, progress)

    try:
        return fill(options)
    except _TooLarge:  # one type for all shards
        return fill(replace(options, dtype="bfloat16"))
    finally:
        del held


def import_labels(folder: str | Path, task: TextTask, teacher: str, *, store: Store | None = None) -> TextLabels:
    """`top_k` labels of the training blocks from a `datasets` folder in the form `TextLabels.export` writes.

    So a teacher served by vLLM can label: its ``prompt_logprobs`` for each block of ``task.train``.

    Args:
        folder: with the columns input_ids, target_token_ids and target_logprobs.
        task: every training block must be among the rows.
        teacher: a name that says who made them, with its version.
        store: where they are kept.

    Raises:
        WorkbenchError: a missing column or block, another k at some position, or log-probabilities that sum to over 1.
    """
    if not (Path(folder) / "dataset_info.json").exists():
        raise WorkbenchError(f"{folder} is no folder written by datasets' save_to_disk: check the path.")
    rows = load_from_disk(str(folder))
    if missing := {"input_ids", "target_token_ids", "target_logprobs"} - set(rows.column_names):
        raise WorkbenchError(f"{folder} has no column {sorted(missing)[0]}: rename yours to what export writes.")
    try:
        ids = np.array([row[1:] for row in rows["target_token_ids"]], dtype=np.int64)
        log_probs = np.array([row[1:] for row in rows["target_logprobs"]], dtype=np.float32)
        keys = block_ids(np.array(rows["input_ids"][:], dtype=np.int32))
    except ValueError:
        raise WorkbenchError(f"{folder} has rows of different length or k: give one k and one length.") from None
    if ids.shape != log_probs.shape or ids.ndim != 3 or ids.shape[1] != task.length - 1:
        raise WorkbenchError(
            f"{folder} holds ids {ids.shape} and log-probabilities {log_probs.shape} for blocks of {task.length}: give "
            "k of both for every token but the first."
        )
    mass = np.exp(log_probs.astype(np.float64)).sum(-1)
    if not np.isfinite(log_probs).all() or mass.max() > 1 + 1e-3:
        raise WorkbenchError(f"{folder} holds log-probabilities that sum to {mass.max():.3g}: give natural logarithms.")
    tail = np.log(np.clip(1 - mass, 1e-12, None)).astype(np.float32)
    row_of = {key: i for i, key in enumerate(keys)}

    def label(blocks: np.ndarray) -> dict[str, np.ndarray]:
        chosen = [row_of.get(key, -1) for key in block_ids(blocks)]
        if -1 in chosen:
            raise WorkbenchError(f"{folder} lacks {chosen.count(-1)} training blocks of {task.name}: label them all.")
        tokens = _narrow(ids[chosen], int(ids.max()) + 1)
        return {"tokens": tokens, "log_probs": log_probs[chosen], "log_tail": tail[chosen]}

    source = hashlib.sha256(ids.tobytes() + log_probs.tobytes()).hexdigest()
    options = LabelOptions("top_k", ids.shape[-1])
    return _fill((f"imported {teacher} {source}", teacher), options, None, task, store or Store(), label)


def reply_labels(
    replies: Sequence[Sequence[Mapping[str, Any]]],
    task: TextTask,
    tokenizer: PreTrainedTokenizerBase,
    teacher: str,
    *,
    k: int = 20,
    store: Store | None = None,
) -> tuple[TextTask, TextLabels]:
    """What a hosted teacher wrote, and what it expected at each token of it, in a student's own tokens.

    Args:
        replies: of each, ``logprobs.content`` of a chat completion asked with `top_logprobs`, see `prefixes.of_reply`.
        task: gives length, validation and test; its training blocks are replaced by the replies.
        tokenizer: the student's, with which `task` was loaded.
        teacher: a name that says who wrote them, with its version.
        k: tokens kept a place; as many as `top_logprobs` are enough.
        store: where the labels go.

    Raises:
        WorkbenchError: entries without bytes, another tokenizer, or no reply as long as a block.
    """
    student, length, options = Prefixes(tokenizer), task.length, LabelOptions("prefix", k)
    blocks, told = [], []
    for entries in replies:
        ids, p = of_reply(entries, student)
        for start in range(0, len(ids) - length + 1, length):
            blocks.append(ids[start : start + length])
            told.append(_arrays(p[start : start + length - 1], k, len(student)))
    if not blocks or tokenizer_fingerprint(tokenizer) != task.tokenizer:
        raise WorkbenchError(
            f"None of {len(replies)} replies has {length} tokens of the tokenizer that made {task.name}: ask for "
            "longer ones, or load the text with this tokenizer and a smaller length."
        )
    written = replace(task, name=f"{task.name} by {teacher}", train=np.array(blocks, dtype=np.int32))
    row_of = {key: row for row, key in enumerate(block_ids(written.train))}

    def label(some: np.ndarray) -> dict[str, np.ndarray]:
        rows = [told[row_of[key]] for key in block_ids(some)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    source = hashlib.sha256(json.dumps(replies).encode()).hexdigest()
    return written, _fill((f"replies {teacher} {source}", teacher), options, None, written, store or Store(), label)


def _fill(
    teacher: tuple[str, str],
    options: LabelOptions,
    head: Path | None,
    task: TextTask,
    store: Store,
    label: Callable[[np.ndarray], dict[str, np.ndarray]],
    progress: Callable[[int, int], None] | None = None,
) -> TextLabels:
    """The labels of a task's training blocks by a teacher (fingerprint, name), with what `label` gives of blocks."""
    code = code_fingerprint("language.labels:text_labels", "language.causal:LanguageModel")
    kind = f"text_labels/{fingerprint([teacher[0], options.key, task.tokenizer, task.length, code])}"
    labels = TextLabels(kind, teacher[1], options, head, store)
    inputs = {"teacher": teacher[0], **options.key}
    keys = block_ids(task.train)
    labels.fill(keys, lambda rows: label(task.train[rows]), inputs, size=SHARD_BLOCKS, progress=progress)
    return labels


def _label(teacher: LanguageModel, blocks: np.ndarray, options: LabelOptions) -> dict[str, np.ndarray]:
    """The arrays of a few blocks."""
    if options.kind == "text":
        half = blocks.shape[1] // 2
        seed = int.from_bytes(block_ids(blocks)[0][:4], "little") + options.seed
        ids = write(teacher, blocks[:, :half], blocks.shape[1] - half, temperature=options.temperature, seed=seed)
        return {"tokens": ids}
    hidden = teacher.hidden(blocks)[:, :-1]
    if not hidden.isfinite().all():
        raise WorkbenchError(f"Teacher {teacher.name} gave hidden states that are not finite: load it in another type.")
    if options.kind == "hidden":
        return {"hidden": _sixteen_bits(hidden, options.dtype)}
    head = teacher.head.cast(hidden.dtype)
    # Each block has a seed of its own, so that neither order nor company changes what is drawn.
    seeds = [int.from_bytes(key[:4], "little") + options.seed for key in block_ids(blocks)]
    parts = [_describe(rows, head, options, seed) for rows, seed in zip(hidden, seeds, strict=True)]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def _describe(hidden: Tensor, head: Head, options: LabelOptions, seed: int) -> dict[str, np.ndarray]:
    """`top_k` or `sampled` arrays of positions ``[N, H]``."""
    log_p = (head.logits(hidden).float() / options.temperature).log_softmax(-1)
    p = log_p.exp()
    if options.kind == "top_k":
        top, ids = log_p.topk(options.k)
        tail = p.scatter_(-1, ids, 0.0).sum(-1).log().clamp(min=-80)  # added up: 1 - the rest would be noise
        arrays = {"log_probs": top, "log_tail": tail}
    else:
        generator = torch.Generator(p.device).manual_seed(seed)
        ids = torch.multinomial(p, options.k, replacement=True, generator=generator)
        arrays = {"entropy": -(p * log_p).sum(-1)}
    return {"tokens": _narrow(ids.cpu().numpy(), len(head)), **{k: v.cpu().numpy() for k, v in arrays.items()}}


class _Across:
    """A teacher that labels blocks of a student's tokens, which are not its own."""

    def __init__(
        self, teacher: LanguageModel, tokenizer: PreTrainedTokenizerBase | None, task: TextTask, options: LabelOptions
    ):
        if not isinstance(tokenizer, PreTrainedTokenizerBase) or tokenizer_fingerprint(tokenizer) != task.tokenizer:
            raise WorkbenchError(
                f"tokenizer is {shown(tokenizer)}, which did not make the tokens of {task.name}: give the student's, "
                "with which the text was loaded."
            )
        self.teacher, self.options, self.student = teacher, options, Prefixes(tokenizer)
        self.theirs = token_bytes(teacher.tokenizer)
        self.where = self.student.map(self.theirs)

    @torch.no_grad()
    def __call__(self, blocks: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of a few blocks."""
        texts = [self.student.text(block) for block in blocks.tolist()]
        read = [self.teacher.tokenizer(t.decode("utf-8", "ignore"), add_special_tokens=False).input_ids for t in texts]
        hidden = self.teacher.hidden(reading.pad(read, 0)[0].numpy())  # what pads stands behind and is not looked at
        head = self.teacher.head.cast(hidden.dtype)
        parts = []
        for block, text, ids, states in zip(blocks.tolist(), texts, read, hidden, strict=True):
            p = torch.nn.functional.one_hot(torch.tensor(block[1:]), len(self.student) + 1).double()
            at = shared_ends(text, self.student.ends(block), [self.theirs[i] for i in ids])[:-1]
            known = torch.from_numpy(at[at >= 0])
            z = head.logits(states[known.to(states.device)]).float() / self.options.temperature
            mass = self.student.marginal((z - z.amax(-1, keepdim=True)).exp(), self.where)
            p[torch.from_numpy(at >= 0)] = (mass / mass.sum(-1, keepdim=True)).cpu()
            parts.append(_arrays(p, self.options.k, len(self.student)))
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _arrays(p: Tensor, k: int, vocabulary: int) -> dict[str, np.ndarray]:
    kept = {name: values.numpy() for name, values in keep_top(p, k, vocabulary).items()}
    return kept | {"tokens": _narrow(kept["tokens"], vocabulary)}


def _narrow(ids: np.ndarray, vocabulary: int) -> np.ndarray:
    return ids.astype(np.uint16 if vocabulary <= 1 << 16 else np.int32)


class _TooLarge(ArithmeticError):
    """A value that float16 can't hold."""


def _sixteen_bits(hidden: Tensor, dtype: str) -> np.ndarray:
    """Rounded; bfloat16, which numpy lacks, as its bits in int16."""
    rounded = hidden.to(getattr(torch, dtype)).cpu()
    if not rounded.isfinite().all():
        raise _TooLarge
    return (rounded.view(torch.int16) if dtype == "bfloat16" else rounded).numpy()


def _target(
    options: LabelOptions, arrays: Mapping[str, np.ndarray], head: Head | None, device: torch.device | str
) -> Target:
    """Of the arrays ``[B, L - 1, ...]`` of some blocks: a row a position."""
    if options.kind == "text":
        raise WorkbenchError("Labels of kind 'text' are tokens to imitate by cross-entropy: set kd_weight to 0.")
    arrays = {k: v.reshape(-1, *v.shape[2:]) for k, v in arrays.items()}
    if options.kind == "hidden":
        hidden = torch.from_numpy(arrays["hidden"]).view(getattr(torch, options.dtype))
        return Hidden(hidden.to(device), head.to(device))
    tensors = {k: torch.from_numpy(v).to(device) for k, v in arrays.items() if k != "tokens"}
    tensors["ids"] = torch.from_numpy(arrays["tokens"].astype(np.int64)).to(device)
    return (Sampled if options.kind == "sampled" else TopK)(**tensors, temperature=options.temperature)


def _keep_head(teacher: LanguageModel, store: Store) -> Path:
    """The teacher's head in the store: with it, hidden states are labels without the teacher."""
    head = teacher.head.cast(teacher.head.weight.dtype)

    def build(folder: Path) -> None:
        tensors = {"weight": head.weight, "bias": head.bias}
        kept = {k: v.cpu().clone().contiguous() for k, v in tensors.items() if v is not None}
        save_file(kept, folder / "head.safetensors")
        form = {"scale": head.scale, "softcap": head.softcap}
        (folder / "head.json").write_text(json.dumps(form), encoding="utf-8")

    return store.make(HEAD, {"teacher": teacher.fingerprint}, build).path
