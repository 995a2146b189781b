"""Soft labels across tokenizers: what a teacher expects next, said in a student's tokens (arXiv:2607.22334).

A teacher's token says in bytes how the text goes on. A student goes on with the longest of its own tokens whose bytes
begin that token. So one map, made once, takes each token of the teacher to one of the student, and a distribution over
the one vocabulary becomes one over the other by adding up. All mass stays: what begins with no token of the student's,
and what is no text (a special token), is a class of its own, the residual, that the loss counts as "any other token".

The teacher says nothing of a place in the middle of its own tokens. There the text's next token is the label, as in
cross-entropy. Next to read: `workbench.language.labels`, which stores these labels as the kind ``"prefix"``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from workbench.errors import WorkbenchError, shown

NOTHING = -80.0  # log-probability of what can't come
PROBE = "Two  words, a_name: 10.\n"


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """The bytes that each id of a tokenizer stands for; none for special tokens.

    Raises:
        WorkbenchError: a tokenizer whose tokens don't spell the text, such as one that drops blanks.
    """
    special = {*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)}
    tokens = tokenizer.convert_ids_to_tokens([*range(len(tokenizer))])
    backend = getattr(tokenizer, "backend_tokenizer", None)
    byte_of = _byte_of() if backend and '"ByteLevel"' in backend.to_str() else {}

    def spelt(token: str) -> bytes:
        if byte_of and all(c in byte_of for c in token):
            return bytes(byte_of[c] for c in token)
        if re.fullmatch("<0x[0-9A-F]{2}>", token):  # so sentencepiece writes bytes, and a low line for a blank
            return bytes([int(token[3:5], 16)])
        return token.replace("\u2581", " ").encode()

    pieces = [b"" if token is None or i in special else spelt(token) for i, token in enumerate(tokens)]
    read = b"".join(pieces[i] for i in tokenizer(PROBE, add_special_tokens=False)["input_ids"])
    if read.removeprefix(b" ") != PROBE.encode():
        raise WorkbenchError(
            f"The tokens of {type(tokenizer).__name__} spell {PROBE!r} as {read.decode(errors='replace')!r}: give a "
            "tokenizer that keeps every character, blanks included."
        )
    return pieces


def _byte_of() -> dict[str, int]:
    """GPT-2's letters for bytes, those that print for themselves."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(others)}


class Prefixes:
    """A student's tokens, found by their bytes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.pieces = token_bytes(tokenizer)
        self._ids = {piece: i for i, piece in reversed([*enumerate(self.pieces)]) if piece}
        self._longest = max(map(len, self._ids), default=0)

    def __len__(self) -> int:
        """Tokens of the student; this number is the residual's."""
        return len(self.pieces)

    def find(self, token: bytes) -> int:
        """The longest token whose bytes begin `token`, or the residual."""
        ends = range(min(len(token), self._longest), 0, -1)
        return next((i for end in ends if (i := self._ids.get(token[:end])) is not None), len(self))

    def map(self, teacher: Sequence[bytes]) -> Tensor:
        """Where each of a teacher's tokens goes: ``[V of the teacher]`` int64, the residual among them."""
        return torch.tensor([self.find(token) for token in teacher])

    def marginal(self, p: Tensor, where: Tensor) -> Tensor:
        """A teacher's mass ``[N, V of it]`` as ``[N, V + 1]`` over the student's tokens and the residual.

        In fp64, because half a vocabulary may add up in one token: that which is a blank.
        """
        out = torch.zeros(len(p), len(self) + 1, dtype=torch.float64, device=p.device)
        return out.index_add_(1, where.to(p.device), p.double())

    def ends(self, ids: Sequence[int]) -> np.ndarray:
        """How many bytes of a text its first 1, 2, … tokens are, ``[L]``."""
        return np.cumsum([len(self.pieces[i]) for i in ids])

    def text(self, ids: Sequence[int]) -> bytes:
        """The bytes of some tokens."""
        return b"".join(self.pieces[i] for i in ids)


def shared_ends(ours: bytes, ends: np.ndarray, theirs: Sequence[bytes]) -> np.ndarray:
    """Which of a teacher's tokens ends where each of a student's does, ``[L]``; -1 where none does.

    Args:
        ours: the text that the student's tokens spell.
        ends: where they end in it, ``[L]``.
        theirs: the teacher's tokens; from where they spell another text, or a blank in front, nothing is shared.
    """
    spelt = b"".join(theirs)
    blank = spelt.startswith(b" ") and not ours.startswith(b" ")
    spelt = spelt[blank:]
    same = next((i for i, (a, b) in enumerate(zip(ours, spelt, strict=False)) if a != b), min(len(ours), len(spelt)))
    at = {end - blank: i for i, end in enumerate(np.cumsum([len(token) for token in theirs]).tolist())}
    return np.array([at.get(end, -1) if end <= same else -1 for end in ends.tolist()])


def keep_top(p: Tensor, k: int, size: int) -> dict[str, Tensor]:
    """Arrays of a `TopK` target of ``[N, size + 1]`` in fp64: the k likeliest tokens, and the mass of all else."""
    top, ids = p[:, :size].topk(min(k, size))
    tail = p.scatter(-1, ids, 0.0).sum(-1)
    return {
        "tokens": ids,
        "log_probs": top.log().clamp(min=NOTHING).float(),
        "log_tail": tail.log().clamp(min=NOTHING).float(),
    }


def of_reply(entries: Sequence[Mapping[str, Any]], student: Prefixes) -> tuple[list[int], Tensor]:
    """A hosted teacher's text in a student's tokens ``[L]``, and what it expected there, ``[L - 1, V + 1]`` in fp64.

    Needs no tokenizer of the teacher's: each entry says its bytes. What the entries of a place don't name is residual.

    Args:
        entries: ``logprobs.content`` of a chat completion: of each token `bytes`, and `top_logprobs`, a list of
            `logprob` and `bytes`.
        student: whose tokens are wanted.

    Raises:
        WorkbenchError: an entry without bytes or log-probabilities.
    """
    try:
        spelt = [bytes(entry["bytes"]) for entry in entries]
        told = [[(bytes(top["bytes"]), float(top["logprob"])) for top in entry["top_logprobs"]] for entry in entries]
    except (KeyError, TypeError, ValueError):
        wanted = "ask for top_logprobs with their bytes"
        raise WorkbenchError(f"The reply's logprobs are {shown(entries)}: {wanted}.") from None
    text = b"".join(spelt).decode("utf-8", "ignore")
    ids = student.tokenizer(text, add_special_tokens=False)["input_ids"]
    at = shared_ends(student.text(ids), student.ends(ids), spelt)[:-1] + 1  # the entry that says what comes next
    p = torch.zeros(max(0, len(ids) - 1), len(student) + 1, dtype=torch.float64)
    for row, entry in enumerate(at.tolist()):
        if not 0 < entry < len(told):
            p[row, ids[row + 1]] = 1.0
            continue
        for token, log_prob in told[entry]:
            p[row, student.find(token)] += np.exp(log_prob)
        p[row, -1] += max(0.0, 1.0 - float(p[row].sum()))
    return ids, p
