"""Reading: texts to token ids, to batches of one shape, to what a model says of them, and what that costs.

Rows of like length are read together and put back in their order, so that little is padding; `predict` gives logits,
`embed` sentence vectors, `describe` parameters and FLOPs. Whoever reads a model reads it here, so that its logits never
depend on who asks. The models come from `workbench.students`; `workbench.training` and the teachers read with them.
"""

from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerBase

from workbench.errors import WorkbenchError, strings

_FLOPS: dict[tuple, int] = {}  # of one text, by architecture and length
ATTENTION = 64 * 1024**2  # entries of a batch's attention mask: a quarter of a gigabyte as float32


class Tokens(Sequence):
    """Token ids of many texts in one flat array, a row a text: 4 bytes a token, where a list of lists takes 36."""

    def __init__(self) -> None:
        self.flat, self.ends = array("i"), array("q", [0])

    def append(self, row: list[int]) -> None:
        """Add the ids of a text."""
        self.flat.extend(row)
        self.ends.append(len(self.flat))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int) -> list[int]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.flat[self.ends[i] : self.ends[i + 1]].tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and (self.flat, self.ends) == (other.flat, other.ends)

    def lengths(self) -> np.ndarray:
        """Tokens of each text, ``[N]``."""
        return np.diff(np.frombuffer(self.ends, dtype=np.int64))


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], rows: int = 4096) -> Tokens:
    """Token ids of each text, cut at the tokenizer's own `model_max_length`; `rows` are in work at a time."""
    tokens = Tokens()
    for start in range(0, len(texts), rows):
        batch = list(texts[start : start + rows])
        try:
            rows_ = tokenizer(batch, truncation=True, return_attention_mask=False, return_token_type_ids=False)
        except (TypeError, ValueError, UnicodeError):
            strings("texts", texts)  # raises, if it is one of them
            raise
        for row in rows_["input_ids"]:
            tokens.append(row)
    return tokens


def pad(rows: list[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """(input_ids, attention_mask), each ``[rows, longest]``."""
    width = max(map(len, rows))
    # Through numpy, which reads nested lists in a fifth of the time.
    ids = torch.from_numpy(np.array([row + [pad_token_id] * (width - len(row)) for row in rows], dtype=np.int64))
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(width) < lengths[:, None]).long()


def batches(
    token_ids: Sequence[list[int]], pad_token_id: int, size: int = 64
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """(row numbers, input_ids, attention_mask) of like-sized rows: sorted by length, little is padding.

    At most `size` rows, and fewer where their tokens squared would pass `ATTENTION`.
    """
    lengths = token_ids.lengths() if isinstance(token_ids, Tokens) else np.array([len(row) for row in token_ids])
    order = np.argsort(lengths, kind="stable")
    while len(order):
        count = min(size, len(order))
        while count > 1 and count * int(lengths[order[count - 1]]) ** 2 > ATTENTION:
            count //= 2
        chosen, order = order[:count], order[count:]
        yield chosen, *pad([token_ids[i] for i in chosen], pad_token_id)


@torch.inference_mode()
def predict(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] | Tokens, size: int = 64
) -> np.ndarray:
    """Logits ``[N, C]`` in float32, in the order of `texts`, or of what `encode` made of them.

    The model is put in eval mode and back.
    """
    return _over_batches(model, tokenizer, texts, size, lambda out, mask: out.logits)


@torch.inference_mode()
def embed(model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: list[str], size: int = 64) -> np.ndarray:
    """Mean of the last hidden states over tokens, scaled to length 1: ``[N, H]`` (arXiv:1908.10084)."""

    def pool(out, mask: Tensor) -> Tensor:
        mask = mask.unsqueeze(-1).to(out.last_hidden_state.dtype)
        return nn.functional.normalize((out.last_hidden_state * mask).sum(1) / mask.sum(1), dim=-1)

    return _over_batches(model, tokenizer, texts, size, pool)


def describe(model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] | Tokens) -> dict[str, int]:
    """Parameters, bytes of the weights, and FLOPs of one text of median length among `texts`."""
    tokens = texts if isinstance(texts, Tokens) else encode(tokenizer, texts)
    median = np.argsort(tokens.lengths(), kind="stable")[len(tokens) // 2]
    ids, mask = pad([tokens[median]], tokenizer.pad_token_id)
    device = next(model.parameters()).device
    # Counted once: a sweep's students are of one architecture, and counting takes as long as several steps.
    key = type(model), model.config.to_json_string(use_diff=False), device.type, ids.shape[1]
    if key not in _FLOPS:
        # The fused attention of the CPU has no FLOP formula; the plain one is counted as matrix products.
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(input_ids=ids.to(device), attention_mask=mask.to(device))
        _FLOPS[key] = counter.get_total_flops()
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "flops": _FLOPS[key],
    }


def _over_batches(model, tokenizer, texts, size, read) -> np.ndarray:
    if not len(texts):
        raise WorkbenchError("There are no texts to read: give at least one.")
    training = model.training
    model.eval()  # a teacher with dropout on would label at random
    device = next(model.parameters()).device
    rows: list[np.ndarray | None] = [None] * len(texts)
    tokens = texts if isinstance(texts, Tokens) else encode(tokenizer, texts)
    for chosen, ids, mask in batches(tokens, tokenizer.pad_token_id, size):
        mask = mask.to(device)
        values = read(model(input_ids=ids.to(device), attention_mask=mask), mask).float().cpu().numpy()
        for i, value in zip(chosen, values, strict=True):
            rows[i] = value
    model.train(training)
    return np.stack(rows)
