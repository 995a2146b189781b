"""Which texts to ask first: every text once, the unsure in front, or the strange."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import concatenate_datasets
from refusal import refused

from workbench.hosted.queries import ORDERS, order
from workbench.metrics import softmax
from workbench.teachers import BagOfWords


@pytest.mark.parametrize("how", ORDERS)
def test_every_text_comes_once_also_what_is_said_twice_or_in_unknown_words(task, how):
    rows = task.unlabelled
    strange = rows.select([0, 1]).remove_columns("text").add_column("text", ["xyzzy qwfp", "xyzzy"]).cast(rows.features)
    twice = replace(task, unlabelled=concatenate_datasets([rows, rows, strange]))
    found = order(twice, how)
    assert sorted(found) == list(range(len(twice.unlabelled)))
    np.testing.assert_array_equal(found, order(twice, how))


def test_the_unsure_come_first(task):
    p = np.sort(softmax(BagOfWords(task).logits(task.unlabelled["text"][:])), axis=1)
    leads = (p[:, -1] - p[:, -2])[order(task, "uncertain")]
    assert (np.diff(leads) >= 0).all()


def test_the_strange_come_first_and_then_what_is_like_neither_them_nor_a_labelled_text(task):
    transform = BagOfWords(task).vectoriser.transform
    known, pool = (transform(rows["text"][:]).toarray() for rows in (task.labelled, task.unlabelled))
    found = order(task, "diverse")
    for i in range(5):
        seen = np.vstack([known, pool[found[:i]]])
        nearest = (pool @ seen.T).max(1)
        nearest[found[:i]] = np.inf
        assert nearest[found[i]] == pytest.approx(nearest.min())


def test_another_seed_is_another_order_and_an_unknown_one_is_refused(task):
    assert (order(task, "random") != order(task, "random", seed=1)).any()
    with refused("Unknown order 'unsure'"):
        order(task, "unsure")
    with refused("seed is -1"):
        order(task, "random", seed=-1)
