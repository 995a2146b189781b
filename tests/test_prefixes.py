"""Labels across tokenizers: no mass is lost, places are shared where they should be, and a student learns from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusal import refused
from test_training import run
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from workbench import students, weights
from workbench.hosted.endpoint import Endpoint, Request
from workbench.hosted.prices import Price
from workbench.hosted.replies import read
from workbench.hosted.serve import llama
from workbench.language import causal
from workbench.language.blocks import load_text
from workbench.language.causal import LanguageModel
from workbench.language.fused import TopK
from workbench.language.labels import reply_labels, text_labels
from workbench.language.prefixes import Prefixes, keep_top, of_reply, shared_ends, token_bytes
from workbench.training import Job, TrainConfig, train

TEXT = "the cat sat on the mat, and the dog that sat there saw naïve cafés – 12 of them.\n" * 3


def learnt(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, as a student of its own would learn it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["[PAD]", "[EOS]"], initial_alphabet=alphabet)
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", eos_token="[EOS]")


@pytest.fixture(scope="module")
def small() -> PreTrainedTokenizerFast:
    return learnt([TEXT], 300)


@pytest.fixture(scope="module")
def characters():
    return causal.build_causal("llama-1x32")[1]


def test_tokens_spell_the_text(small, characters):
    for tokenizer in (small, learnt([TEXT, "def f(x): return x"], 400)):
        assert Prefixes(tokenizer).text(tokenizer(TEXT)["input_ids"]) == TEXT.encode()
    pieces = token_bytes(characters)
    assert pieces[:3] == [b"", b"", b""] and sorted(pieces[3:]) == sorted(c.encode() for c in causal.CHARACTERS)


def test_one_that_drops_blanks_is_refused():
    with refused("keeps every character"):
        token_bytes(students.build("1x16", ("a", "b"), [TEXT])[1])


def test_a_token_goes_to_the_longest_that_begins_it(small):
    student = Prefixes(small)
    student.pieces = [b"", b"a", b" the", b" t", b" ", b"the"]
    student._ids, student._longest = {piece: i for i, piece in enumerate(student.pieces) if piece}, 4
    assert [student.find(t) for t in (b" there", b" the", b" ta", b" x", b"the", b"th", b"z", b"")] == [
        2, 2, 3, 4, 5, 6, 6, 6,
    ]  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.01, 1.0, 30.0]))
def test_no_mass_is_lost(small, characters, seed, spread):
    ours, others = Prefixes(small), Prefixes(characters)
    for teacher, student in ((small, others), (characters, ours)):
        where = student.map(token_bytes(teacher))
        p = (spread * torch.randn(3, len(teacher), generator=torch.Generator().manual_seed(seed))).softmax(-1)
        out = student.marginal(p, where)
        assert (out.sum(-1) - p.double().sum(-1)).abs().max() <= 1e-6
        one = int(where.unique()[0])
        torch.testing.assert_close(out[:, one], p[:, where == one].double().sum(-1))
        kept = keep_top(out, 5, len(student))
        assert (kept["log_probs"].exp().sum(-1) + kept["log_tail"].exp() - 1).abs().max() <= 2e-6


@pytest.mark.slow  # fetches SmolLM2's tokenizer the first time
def test_no_mass_is_lost_between_real_vocabularies(small):
    smollm2 = weights.load(AutoTokenizer, str(weights.path("SmolLM2-135M-Instruct")))
    own = learnt([open(causal.__file__, encoding="utf-8").read()], 2000)
    assert len(smollm2) == 49152
    for teacher, student in ((smollm2, own), (own, smollm2)):
        to, theirs = Prefixes(student), token_bytes(teacher)
        assert to.text(student(TEXT)["input_ids"]) == TEXT.encode()
        where, known = to.map(theirs), {*to.pieces} - {b""}
        for at, token in zip(where.tolist(), theirs, strict=True):
            begun = [token[:end] for end in range(1, len(token) + 1) if token[:end] in known]
            assert to.pieces[at] == begun[-1] if begun else at == len(to)
        for seed in range(5):
            p = (5 * torch.randn(4, len(teacher), generator=torch.Generator().manual_seed(seed))).softmax(-1)
            assert (to.marginal(p, where).sum(-1) - p.double().sum(-1)).abs().max() <= 1e-6


def test_places_are_shared_where_both_tokens_end():
    ends = np.array([1, 3, 4, 7, 9])
    assert shared_ends(b"abcdefghi", ends, [b"abc", b"defg", b"hi"]).tolist() == [-1, 0, -1, 1, 2]
    assert shared_ends(b"abcdefghi", ends, [b" abc", b"defg", b"hi"]).tolist() == [-1, 0, -1, 1, 2]  # a blank in front
    assert shared_ends(b"abcdefghi", ends, [b"abc", b"DEFG", b"hi"]).tolist() == [-1, 0, -1, -1, -1]  # another text


LENGTH = 24
CONFIG = TrainConfig(student="llama-1x32", temperature=1.0, steps=30, batch_size=8, max_length=LENGTH, eval_every=30,
                     learning_rate=1e-2)  # fmt: skip


@pytest.fixture(scope="module")
def teacher(small) -> LanguageModel:
    torch.manual_seed(0)
    model, _ = causal.build_causal("llama-1x32", max_length=LENGTH)
    model.resize_token_embeddings(len(small))
    return LanguageModel("bytes", model.eval(), small, "a teacher of bytes")


@pytest.fixture(scope="module")
def task(characters, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i in range(8):
        (folder / f"{i}.txt").write_text(TEXT.replace("ï", "i").replace("é", "e").replace("–", "-") + f"Topic {i}.\n")
    return load_text(f"folder:{folder}", characters, length=LENGTH)


def test_labels_are_the_teacher_s_where_it_speaks_and_the_text_elsewhere(teacher, characters, task, store):
    labels = text_labels(teacher, task, "prefix", tokenizer=characters, k=len(characters), store=store)
    block = task.train[2]
    target = labels.target(labels.find_blocks(block[None]))
    student = Prefixes(characters)
    theirs = token_bytes(teacher.tokenizer)
    ids = teacher.tokenizer(student.text(block).decode())["input_ids"]
    p = teacher.logits(np.array([ids]))[0].softmax(-1)
    spoken = {end: i for i, end in enumerate(np.cumsum([len(theirs[i]) for i in ids]).tolist())}
    assert 3 < len(spoken) < LENGTH
    for place in range(LENGTH - 1):
        given = torch.zeros(len(characters)).scatter_(0, target.ids[place], target.log_probs[place].exp())
        wanted = torch.zeros(len(characters))
        if (i := spoken.get(place + 1)) is None:
            wanted[int(block[place + 1])] = 1
        else:
            for token, mass in zip(theirs, p[i], strict=True):
                if (at := student.find(token)) < len(characters):
                    wanted[at] += mass
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)
        assert float(given.sum() + target.log_tail[place].exp()) == pytest.approx(1, abs=1e-5)
    again = text_labels(teacher, task, "prefix", tokenizer=characters, k=len(characters), store=store)
    assert labels.rows_labelled and again.rows_labelled == 0
    result = run(task, labels, CONFIG, store)
    assert result.history["kd"].iloc[-1] < result.history["kd"][0]


def test_a_wrong_tokenizer_is_one_sentence_that_names_the_way_out(teacher, small, task, store):
    with refused(r"'prefix', tokenizer="):
        text_labels(teacher, task, "top_k", store=store)
    for wrong in (None, small):
        with refused("did not make the tokens"):
            text_labels(teacher, task, "prefix", tokenizer=wrong, store=store)


def reply(pieces: list[bytes]) -> list[dict]:
    """As a server sends it: of each token its bytes, and the two that were likeliest."""
    tops = [[{"token": "?", "bytes": list(b), "logprob": float(np.log(p))} for b, p in ((piece, 0.7), (b" no", 0.2))]
            for piece in pieces]  # fmt: skip
    return [{"token": "?", "bytes": list(b), "top_logprobs": t} for b, t in zip(pieces, tops, strict=True)]


def test_replies_teach_without_the_teacher_s_tokenizer(characters, task, store):
    pieces = [b"the", b" cat", b" sat", b" on", b" the", b" mat,", b" and", b" it", b" slept", b".\n"] * 3
    text = b"".join(pieces)
    student = Prefixes(characters)
    ids, p = of_reply(reply(pieces), student)
    assert ids == characters(text.decode())["input_ids"]
    assert p.shape == (len(text) - 1, len(characters) + 1) and (p.sum(-1) - 1).abs().max() <= 1e-6
    assert p[0, ids[1]] == 1  # within "the"
    blank = student.find(b" ")
    assert p[2, blank] == pytest.approx(0.9) and p[2, -1] == pytest.approx(0.1)  # " cat" and " no" begin alike
    written, labels = reply_labels([reply(pieces), reply(pieces[1:])], task, characters, "hosted", k=5, store=store)
    assert written.train.shape == (len(text) // LENGTH + (len(text) - 3) // LENGTH, LENGTH)
    target = labels.target(labels.find_blocks(written.train[:1]))
    assert isinstance(target, TopK) and target.ids[2, 0] == blank
    assert target.log_tail[2].exp() == pytest.approx(0.1, abs=1e-5)
    records = list(train(Job(written, labels, CONFIG), store=store))
    assert records[-1]["kd"] < records[0]["kd"]
    for broken in ([{"token": "a", "logprob": -1.0}], [{"bytes": [97], "top_logprobs": None}], [None]):
        with refused("top_logprobs with their bytes"):
            reply_labels([broken], task, characters, "hosted", store=store)
    with refused("ask for longer"):
        reply_labels([reply(pieces[:2])], task, characters, "hosted", store=store)
    with refused("ask for longer"):
        reply_labels([reply(pieces)], replace(task, tokenizer="other"), characters, "hosted", store=store)


@pytest.mark.slow
def test_a_served_language_model_teaches_characters(characters, task, store, tmp_path):
    pytest.importorskip("xllamacpp")
    asked = {"messages": [{"role": "user", "content": "Tell me about cats."}], "max_tokens": 60, "temperature": 0}
    with llama() as base_url:
        endpoint = Endpoint(base_url, "smollm2", price=Price(0.1, 0.4), path=tmp_path / "r.sqlite", in_flight=1)
        (reply,) = endpoint.ask([Request(asked | {"logprobs": True, "top_logprobs": 20})])
    said = read(reply)
    ids, p = of_reply(said.tokens, Prefixes(characters))
    text = characters.decode(ids)
    assert said.text.startswith(text[:40]) and (p.sum(-1) - 1).abs().max() <= 1e-6
    soft = (p.max(-1).values < 1).double().mean()  # a place in some four or five is where a token begins
    assert 0.1 < soft < 0.5
    written, labels = reply_labels([said.tokens], task, characters, "SmolLM2 by llama.cpp", store=store)
    assert written.train.shape == (len(ids) // LENGTH, LENGTH)
    records = list(train(Job(written, labels, CONFIG), store=store))
    assert records[-1]["kd"] < records[0]["kd"]
