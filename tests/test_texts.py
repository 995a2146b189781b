"""Made-up transfer texts: seeded, never a held-out text, and written once."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from refusal import refused

from workbench.language import causal, texts
from workbench.language.causal import Sampling
from workbench.language.texts import augmented, written
from workbench.tasks import SPLITS


def labelled(task, text: str):
    """The task with this one labelled text."""
    rows = {"text": [text], "label": [0], "group": ["one"]}
    return replace(task, labelled=Dataset.from_dict(rows, features=task.labelled.features))


def test_noise_hits_about_as_many_words_as_asked_and_full_noise_leaves_one(task):
    words = [f"word{i}" for i in range(2000)]
    (made,) = augmented(labelled(task, " ".join(words)), copies=1, rate=0.3).unlabelled["text"]
    left = Counter(made.split())
    gone = 1 - sum(word in left for word in words) / len(words)
    assert gone == pytest.approx(0.18, abs=0.03)  # dropped or mistyped: swapped words stay, and use up two
    made = augmented(labelled(task, "lamp on"), copies=20, rate=1.0).unlabelled["text"][:]
    assert "lamp" in made  # where both were dropped


def test_augmented_is_seeded_and_without_copies(task):
    made = augmented(task, seed=1)
    assert list(made.unlabelled["text"]) == list(augmented(task, seed=1).unlabelled["text"])
    assert list(made.unlabelled["text"]) != list(augmented(task, seed=2).unlabelled["text"])
    texts = [text for split in SPLITS for text in getattr(made, split)["text"]]
    assert len(made.unlabelled) > 5 * len(made.labelled) and len(texts) == len(set(texts))
    assert set(made.unlabelled["label"]) == {-1} and "made noisy" in made.source
    for split in set(SPLITS) - {"unlabelled"}:
        assert getattr(made, split) is getattr(task, split)
    assert made.fingerprint != task.fingerprint
    with refused("rate is 0: give a number above 0 and at most 1"):
        augmented(task, rate=0)


def test_held_out_texts_are_dropped_whatever_their_case_and_spaces(task):
    held_out = [getattr(task, s)["text"][0].upper() + "  " for s in ("validation", "calibration", "test")]
    made = texts.with_texts(task, [*held_out, "new", "NEW ", "", task.labelled["text"][0]], "how")
    assert list(made.unlabelled["text"]) == ["new"]


@pytest.fixture(scope="module")
def writer(tmp_path_factory) -> str:
    """A tiny causal model with random weights, so that it writes characters at random."""
    folder = tmp_path_factory.mktemp("writer")
    torch.manual_seed(0)
    for part in causal.build_causal("llama-1x32"):
        part.save_pretrained(folder)
    return str(folder)


def test_written_texts_are_seeded_stored_and_resumed(task, writer, store, monkeypatch):
    how = Sampling(max_new_tokens=40)
    options = {"per_class": 32, "how": how, "store": store}
    told = []
    made = written(task, writer, **options, progress=lambda done, of: told.append((done, of)))
    texts = list(made.unlabelled["text"])
    assert told == [(1, 3), (2, 3), (3, 3)] and len(store.list("written")) == 3
    assert texts and len(texts) == len(set(texts)) and not any("\n" in text for text in texts)
    assert set(made.unlabelled["label"]) == {-1} and f"written by {writer}" in made.source

    other = list(written(task, writer, **options | {"how": replace(how, seed=1)}).unlabelled["text"])
    assert other != texts
    monkeypatch.setattr("workbench.language.texts.load_causal", lambda source: pytest.fail("written again"))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert list(written(task, writer, **options).unlabelled["text"]) == texts
    assert (torch.get_rng_state() == before).all()


def test_no_such_writer_and_no_example(task, writer, store):
    with refused("Can't load 'nobody/nothing'"):
        written(task, "nobody/nothing", store=store)
    lacking = replace(task, labelled=task.labelled.filter(lambda row: row["label"] != 1))
    with refused("Class 'fruit' has no labelled text to show the language model"):
        written(lacking, writer, per_class=1, how=Sampling(max_new_tokens=2), store=store)
