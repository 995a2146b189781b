"""An n-gram model: the rival of any language model trained on little text, and taught by none.

Next to read: `workbench.language.causal`, whose `evaluate` gives the same number for a model of `transformers`.
"""

from collections import Counter, defaultdict

import numpy as np

from workbench.errors import WorkbenchError, whole


def ngram_nll(text: np.ndarray, blocks: np.ndarray, vocabulary: int, order: int = 5) -> np.ndarray:
    """How well n-grams of `text` foretell `blocks`: the nll of each block ``[B]``, a mean over its ``L - 1`` tokens.

    Interpolated: what follows a history of n tokens is mixed with what follows its last n - 1, down to a uniform guess;
    a history counts the more, the less often something new has followed it (Witten and Bell, 1991).

    Args:
        text: ``[N, L]`` ids to count; none crosses from a block into the next.
        blocks: ``[B, L]`` ids, L ≥ 2.
        vocabulary: how many ids there are.
        order: tokens in the longest n-gram, ≥ 1.

    Raises:
        WorkbenchError: an order below 1, or ids outside the vocabulary.
    """
    order, vocabulary = whole("order", order, 1, 100), whole("vocabulary", vocabulary, 1)
    text, blocks = np.asarray(text), np.asarray(blocks)
    if max(text.max(initial=0), blocks.max(initial=0)) >= vocabulary:
        raise WorkbenchError(f"There are ids above {vocabulary - 1}: give the size of the tokenizer as vocabulary.")
    after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for ids in map(tuple, text.tolist()):
        for i, token in enumerate(ids):
            for n in range(min(order, i + 1)):
                after[ids[i - n : i]][token] += 1
    seen = {history: (counts, counts.total()) for history, counts in after.items()}

    def probability(before: tuple[int, ...], token: int) -> float:
        p = 1 / vocabulary
        for n in range(len(before) + 1):
            if (found := seen.get(before[len(before) - n :])) is None:
                break  # nor has a longer one been seen
            counts, total = found
            p = (counts[token] + len(counts) * p) / (total + len(counts))
        return p

    rows = map(tuple, blocks.tolist())
    nll = [[-np.log(probability(b[max(0, i - order + 1) : i], b[i])) for i in range(1, len(b))] for b in rows]
    return np.mean(nll, axis=1)
