"""Noise: how much, which words, and that nothing but the text, the rate and the seed decides."""

import pytest

from workbench.noise import KINDS, noisy

TEXTS = [f"turn on the lights in room number {number} please" for number in range(400)]


def test_zero_leaves_texts_alone_and_one_hits_every_word():
    assert noisy(["  two  spaces "], 0) == ["  two  spaces "]
    damaged = noisy(TEXTS, 1, kinds=["typing"])
    for text, other in zip(TEXTS, damaged, strict=True):
        assert all(a != b for a, b in zip(text.split(), other.split(), strict=True))


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_the_rate_is_the_share_of_words_hit(rate):
    pairs = zip(TEXTS, noisy(TEXTS, rate, kinds=["typing"]), strict=True)
    hits = [a != b for text, other in pairs for a, b in zip(text.split(), other.split(), strict=True)]
    assert sum(hits) / len(hits) == pytest.approx(rate, abs=0.02)
    left = sum(len(text.split()) for text in noisy(TEXTS, rate, kinds=["drop"])) / len(hits)
    assert left == pytest.approx(1 - rate, abs=0.02)


def test_every_kind_does_what_it_says():
    for text, typed, dropped, swapped in zip(TEXTS, *(noisy(TEXTS, 0.3, kinds=[k]) for k in KINDS), strict=True):
        assert len(typed.split()) == len(text.split()) and abs(len(typed) - len(text)) <= len(text.split())
        rest = iter(text.split())
        assert all(word in rest for word in dropped.split()), "dropping keeps the order"
        assert sorted(swapped.split()) == sorted(text.split())
    assert noisy(["one two"], 1, kinds=["swap"]) == ["two one"]


def test_a_higher_rate_hits_the_same_words_and_more():
    low, high = (noisy(TEXTS, rate, kinds=["typing"]) for rate in (0.1, 0.4))
    words = [zip(*(t.split() for t in row), strict=True) for row in zip(TEXTS, low, high, strict=True)]
    assert all(before == little or little == much for row in words for before, little, much in row)


def test_only_text_and_seed_decide():
    assert noisy(TEXTS[::-1], 0.4)[::-1] == noisy(TEXTS, 0.4) == noisy(TEXTS, 0.4)
    assert noisy(TEXTS, 0.4, seed=1) != noisy(TEXTS, 0.4)
    assert noisy(["turn on the lights"], 0.5) == ["om the lights"]  # golden: stable over versions


def test_no_text_ends_up_empty():
    texts = [*TEXTS, "a", "東京", "9 9"]
    assert all(text.strip() for seed in range(5) for text in noisy(texts, 1, seed))
    assert noisy(["stop it"], 1, kinds=["drop"]) == ["it"]
    assert noisy(["", " "], 1) == ["", " "]
