"""Damaged texts: typing errors, dropped words and swapped words, at a rate one can turn up.

The accidents of a text are drawn from it and the seed, once for all rates: so the curve over rates that 05 shows is
of the same accidents, one after the other. `workbench.language.texts` makes noisy copies to learn from.
"""

import random
from collections.abc import Sequence

from workbench.errors import SEED, WorkbenchError, number, sequence, strings, unknown

KINDS = ("typing", "drop", "swap")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {key: row[max(i - 1, 0) : i] + row[i + 1 : i + 2] for row in _ROWS for i, key in enumerate(row)}


def noisy(texts: Sequence[str], rate: float, seed: int = 0, kinds: Sequence[str] = KINDS) -> list[str]:
    """Each text with every word hit with probability `rate`, by one of the kinds, all equally likely.

    A hit word has one typing error (a letter doubled, left out, exchanged with the next, or replaced by its neighbour
    on the keyboard), is dropped, or is swapped with the word after it. No text ends up empty: the last word that is
    left is never dropped. What happens to a text depends on it and on the seed, not on its row; and a higher rate hits
    the words that a lower one hits, and more, so that rates are compared on the same accidents.

    Args:
        texts: words are what whitespace separates.
        rate: in [0, 1]; 0 leaves every text as it is.
        seed: another seed, other accidents.
        kinds: which of ``"typing"``, ``"drop"`` and ``"swap"``, at least one.

    Raises:
        WorkbenchError: what is no text, a rate outside [0, 1], no kind, or an unknown one.
    """
    texts, rate, seed = strings("texts", texts), number("rate", rate, 0, 1), SEED.check("seed", seed)
    kinds = sequence("kinds", kinds, f"one or more of {', '.join(KINDS)}")
    if not kinds:
        raise WorkbenchError(f"There is no kind of noise: give one or more of {', '.join(KINDS)}.")
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("kind of noise", kind, KINDS)
    return [_damaged(text, rate, random.Random(f"{seed}|{text}"), kinds) for text in texts]


def _damaged(text: str, rate: float, rng: random.Random, kinds: Sequence[str]) -> str:
    words, hit = text.split(), {}
    for i in range(len(words)):
        level, kind, where, how = rng.random(), rng.choice(kinds), rng.random(), rng.random()  # same at every rate
        if level < rate:
            hit[i] = (kind, where, how)
    if not hit:
        return text  # with its own spaces
    kind_of = {i: kind for i, (kind, *_) in hit.items()}
    kept = [i for i in range(len(words)) if kind_of.get(i) != "drop"] or [len(words) - 1]
    shifts = {i: 1.5 if i < kept[-1] else -1.5 for i in kept if kind_of.get(i) == "swap"}
    kept.sort(key=lambda i: i + shifts.get(i, 0))
    return " ".join(_mistyped(words[i], *hit[i][1:]) if kind_of.get(i) == "typing" else words[i] for i in kept)


def _mistyped(word: str, where: float, how: float) -> str:
    """One slip at a place and of a sort, both given in [0, 1)."""
    i = int(where * len(word))
    before, letter, after = word[:i], word[i], word[i + 1 :]
    slips = [letter * 2 + after]
    if len(word) > 1:
        slips.append(after)
    if after and after[0] != letter:
        slips.append(after[0] + letter + after[1:])
    slips += [beside + after for beside in _NEIGHBOURS.get(letter.lower(), "")]
    return before + slips[int(how * len(slips))]
