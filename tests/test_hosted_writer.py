"""An endpoint as a writer: traces that `sample` verifies and keeps, and texts for a task without enough."""

import json
import random
from dataclasses import replace

import pytest
from refusal import refused
from server import completion, saying

from workbench.hosted.endpoint import Endpoint
from workbench.hosted.prices import Price
from workbench.hosted.writer import Writer, write_texts
from workbench.language.causal import Sampling
from workbench.language.problems import problems
from workbench.language.texts import with_texts
from workbench.language.traces import Local, by_engine, sample
from workbench.store import Store


def endpoint_of(server, folder) -> Endpoint:
    return Endpoint(server.base_url, "m", price=Price(1.0, 1.0), path=folder / "r.sqlite")


def test_traces_are_verified_and_kept(tmp_path):
    asked = problems("sums", [2], 6)
    right = {p.prompt: p.completion for p in asked}

    def answer(body):
        prompt = body["messages"][-1]["content"]
        end = "length" if prompt == asked[0].prompt else "stop"
        if prompt == asked[1].prompt:
            return 200, {}, json.dumps(completion(None, refusal="no")).encode()
        return 200, {}, json.dumps(completion(right[prompt], end=end)).encode()

    with saying(answer) as server:
        made, store = Writer(endpoint_of(server, tmp_path)), Store(tmp_path / "store")
        table = sample(made, asked, Sampling(temperature=0), store=store)
        assert table["finished"].tolist() == [False, False] + [True] * 4
        assert table["verified"].tolist() == [False, False] + [True] * 4
        sample(Writer(endpoint_of(server, tmp_path)), asked, Sampling(temperature=0), store=store)
        assert len(server.asked) == 6
        sample(made, asked, Sampling(temperature=1.0), per_problem=2, store=store)
        assert len(server.asked) == 18  # each draw is a request of its own
        assert server.asked[-1]["max_tokens"] == 128 and "stop" not in server.asked[-1]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_that_comes_apart_is_kept(field, tmp_path):
    reply = json.dumps(completion("The answer is 4.", **{field: "2 + 2 = 4\n"})).encode()
    with saying(lambda body: (200, {}, reply)) as server:
        (written,) = Writer(endpoint_of(server, tmp_path)).write(["2 + 2?"], Sampling(stop=("\n\n",)))
        assert written == ("<think>\n2 + 2 = 4\n</think>\nThe answer is 4.", 1, True)
        assert server.asked[0]["stop"] == ["\n\n"]


def test_a_notebook_names_an_engine_and_its_options(tmp_path):
    with saying() as server:
        options = {"base_url": server.base_url, "price": [1.0, 2.0], "path": tmp_path / "r.sqlite", "cap": 0.5}
        made = by_engine("endpoint", "m", **options)
        assert made.endpoint == replace(endpoint_of(server, tmp_path), price=Price(1.0, 2.0), cap=0.5)
        assert made.fingerprint == Writer(endpoint_of(server, tmp_path)).fingerprint
    assert by_engine("local", "a model", threads=2) == Local("a model", 2)
    bad = {
        "Unknown engine 'endpont': did you mean 'endpoint'": ("endpont", {}),
        "The engine endpoint can't take these options (missing a required argument: 'base_url')": ("endpoint", {}),
        "The engine local can't take these options": ("local", {"base_url": "http://127.0.0.1:1/v1"}),
        "price is [1.0]: give dollars": ("endpoint", {"base_url": "http://127.0.0.1:1/v1", "price": [1.0]}),
        "did you mean 'cap'": ("endpoint", {"base_url": "http://127.0.0.1:1/v1", "capp": 2}),
    }
    for sentence, (engine, options) in bad.items():
        with refused(sentence):
            by_engine(engine, "m", **options)


def test_texts_for_a_task(task, tmp_path):
    rng = random.Random(0)

    def answer(body):
        lines = [f"{mark}a new {rng.random()} thing" for mark in ("- ", "1. ", "* ", "", "2) ")]
        return 200, {}, json.dumps(completion("\n".join(lines), end="length")).encode()

    with saying(answer) as server:
        texts = write_texts(endpoint_of(server, tmp_path), task, per_class=15)
        assert len(server.asked) == 6 and len(texts) == 6 * 4  # the last line of a cut answer is cut, too
        assert all(text.startswith("a new ") for text in texts)
        assert write_texts(endpoint_of(server, tmp_path), task, per_class=15) == texts and len(server.asked) == 6
    shown = json.dumps(server.asked)
    for split in ("unlabelled", "validation", "test"):
        assert not [text for text in getattr(task, split)["text"] if text in shown]
    assert with_texts(task, texts, "written by m").unlabelled["text"][:] == texts
