"""A model behind an API as a teacher: golden distributions, and sixty replies that are none and become no label."""

import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from refusal import refused
from scipy.special import log_softmax, softmax
from server import completion, saying, with_logprobs

from workbench.answers import SURE
from workbench.hosted.endpoint import Endpoint
from workbench.hosted.pilot import Access, estimate, probe
from workbench.hosted.prices import Price
from workbench.hosted.serve import running
from workbench.hosted.teacher import label, load_teacher
from workbench.soft_labels import soft_labels
from workbench.store import Store
from workbench.tasks import SPLITS, load_task
from workbench.teachers import BagOfWords
from workbench.teachers import load_teacher as teacher_named

PRICE = Price(0.5, 1.0, cached=0.1, batch=0.5)


@pytest.fixture
def words(task):
    return BagOfWords(task)


@pytest.fixture
def served(words):
    with running(words, "words") as server:
        yield server


def endpoint_of(server, folder, model: str = "words", **more) -> Endpoint:
    return Endpoint(server.base_url, model, price=PRICE, path=folder / "r.sqlite", attempts=2, **more)


# --- all of the letters' log-probabilities: nothing is lost


def test_letters_are_the_full_logits(task, words, served, tmp_path):
    teacher = load_teacher(endpoint_of(served, tmp_path), task)
    asked = task.transfer_texts
    assert teacher.found == Access(f"words-{words.fingerprint[:8]}", 20, True, True, True, (), ())
    assert teacher.logits(asked) == pytest.approx(log_softmax(words.logits(asked), 1), abs=1e-4)
    assert Counter(served.asked)[asked[0]] == 1 and teacher.access == "logprobs"
    same, labels, known = label(teacher, task, store=Store(tmp_path / "store"))
    assert same == task and labels.logits(asked).shape == (len(asked), 3)
    assert known["rows"] == {"answer": len(asked)} and known["repeatability"] == {"rows": 20, "equal": 20, "nats": 0}
    assert known["dollars"] == teacher.endpoint.charged() > 0 and known["probe logprobs"] == 20
    (entry,) = Store(tmp_path / "store").list("hosted_labels")
    assert entry.record["access"] == "logprobs" and entry.record["price"] == str(PRICE)
    before = len(served.asked)
    assert label(teacher, task, store=Store(tmp_path / "store"))[1].rows_labelled == 0 and len(served.asked) == before


def test_by_name_as_any_other_teacher(task, served, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    (tmp_path / "prices.yaml").write_text("- {model: words, input: 1, output: 2, date: 2026-11-24}")
    monkeypatch.setenv("WORKBENCH_CAP", "0.5")
    teacher = teacher_named(f"hosted:{served.base_url}#words", task)
    assert teacher.logits(task.test["text"][:]).shape == (len(task.test), 3) and teacher.endpoint.cap == 0.5
    monkeypatch.setenv("WORKBENCH_CAP", "much")
    with refused("WORKBENCH_CAP is 'much'"):
        teacher_named(f"hosted:{served.base_url}#words", task)
    with refused("names no endpoint"):
        teacher_named("hosted:words", task)


def test_another_prompt_another_model_another_teacher(task, served, tmp_path):
    endpoint = endpoint_of(served, tmp_path)
    plain = load_teacher(endpoint, task)
    others = [
        load_teacher(endpoint, task, examples=1),
        load_teacher(endpoint, task, descriptions={"tool": "what a hand holds"}),
        load_teacher(endpoint, task, access="hard"),
        load_teacher(endpoint, task, access="repeats", repeats=3),
        load_teacher(endpoint, task, access="repeats", repeats=4),
        load_teacher(replace(endpoint, extra={"user": "me"}), task),
    ]
    assert len({teacher.fingerprint for teacher in (plain, *others)}) == 7
    assert load_teacher(endpoint, task).fingerprint == plain.fingerprint
    told = json.dumps(others[0].turns)
    held_out = [t for split in ("validation", "calibration", "test") for t in getattr(task, split)["text"]]
    assert not [text for text in held_out + task.unlabelled["text"][:] if text in told]
    assert sum(turn["role"] == "assistant" for turn in others[0].turns) == 3  # one a class
    assert "C: tool (what a hand holds)" in others[1].turns[0]["content"]


# --- less than that


def answering(*replies: dict):
    """One good probe, then each text its own reply, by the number it ends in."""

    def answer(body):
        last = body["messages"][-1]["content"]
        if len(body["messages"]) == 1:
            reply = completion('{"n": 123456789012}')
        elif last == "a cat":
            reply = with_logprobs(completion(), {"A": -0.1, **{f"<{i}>": -9.0 - i for i in range(19)}})
        else:
            reply = replies[int(last.split()[-1])]
        return 200, {}, reply if isinstance(reply, bytes) else json.dumps(reply).encode()

    return answer


def read_by(task, folder, replies, **options):
    """What a teacher makes of these replies."""
    with saying(answering(*replies)) as server:
        teacher = load_teacher(endpoint_of(server, folder, "m"), task, **options)
        return teacher.read([f"text {i}" for i in range(len(replies))])


def test_what_the_alternatives_leave_over_is_spread_below_the_least_seen(task, tmp_path):
    p = {"A": 0.6, " B": 0.1, "B": 0.1, "The": 0.1}
    table = {token: math.log(value) for token, value in p.items()}
    labels = read_by(task, tmp_path, [with_logprobs(completion("A", end="length"), table)])
    share = np.array([0.6, 0.2, 0.1])  # a tenth is left over, no more than the least seen
    assert softmax(labels.logits[0]) == pytest.approx(share / share.sum(), abs=1e-5)
    assert labels.outside == labels.tail == pytest.approx(0.1, abs=1e-5)


def test_hard_labels_and_repeats(task, tmp_path):
    hard = read_by(task, tmp_path, [completion(" B."), completion("tool")], access="hard")
    assert softmax(hard.logits, 1)[0] == pytest.approx([(1 - SURE) / 2, SURE, (1 - SURE) / 2], abs=1e-6)
    assert hard.logits.argmax(1).tolist() == [1, 2] and hard.kinds == ["answer"] * 2
    said = iter("AABBBAB" + "X" * 7)

    def answer(body):
        if len(body["messages"]) == 1 or body["messages"][-1]["content"] == "a cat":
            return answering()(body)
        return 200, {}, json.dumps(completion(next(said))).encode()

    with saying(answer) as server:
        teacher = load_teacher(endpoint_of(server, tmp_path, "k", in_flight=1), task, access="repeats", repeats=7)
        labels = teacher.read(["once", "never"])
    assert softmax(labels.logits[0]) == pytest.approx(np.array([3.5, 4.5, 0.5]) / 8.5, abs=1e-5)
    assert np.isnan(labels.logits[1]).all() and labels.kinds == ["answer", "out of list"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A task of 30 classes."""
    lines = [f"word{c} number{i},class {c:02}" for c in range(30) for i in range(12)]
    path = tmp_path_factory.mktemp("many") / "many.csv"
    path.write_text("text,label\n" + "\n".join(lines))
    return load_task(f"csv:{path}", labels_per_class=3)


def test_more_classes_than_letters(many, tmp_path):
    words = BagOfWords(many)
    with running(words, "words") as server:
        teacher = load_teacher(endpoint_of(server, tmp_path), many)
        asked = many.transfer_texts[:40]
        got, true = softmax(teacher.logits(asked), 1), softmax(words.logits(asked), 1)
    assert (got.argmax(1) == true.argmax(1)).all()
    groups = np.arange(30) // 6
    for row in range(len(asked)):
        said = groups[true[row].argmax()]  # in the group that was said each class has its own probability
        assert got[row][groups == said] == pytest.approx(true[row][groups == said], abs=1e-3)
        for other in set(groups) - {said}:  # elsewhere the group's is right, and shared evenly
            assert got[row][groups == other].sum() == pytest.approx(true[row][groups == other].sum(), abs=1e-3)
            assert np.ptp(got[row][groups == other]) < 1e-6
    hard = load_teacher_hard(many, tmp_path, words)
    assert hard == true.argmax(1).tolist()


def load_teacher_hard(task, folder, words) -> list[int]:
    with running(words, "words") as server:
        teacher = load_teacher(endpoint_of(server, folder, place="again"), task, access="hard")
        return teacher.logits(task.transfer_texts[:40]).argmax(1).tolist()


# --- replies that are none

LOG = {"A": -0.1, "B": -3.0, "C": -4.0}


def spoilt(path: str, value: object = "delete") -> dict:
    """A good reply with one thing changed, by its dotted path."""
    body = with_logprobs(completion("A", end="length"), LOG)
    *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    place = body
    for step in way:
        place = place[step]
    if value == "delete":
        del place[last]
    else:
        place[last] = value
    return body


MESSAGE, LOGPROBS, SPOT = "choices.0.message", "choices.0.logprobs", "choices.0.logprobs.content.0"
BAD = [
    # what is no JSON, or another one
    (b"", "unreadable"), (b"{", "unreadable"), (b"null", "unreadable"), (b"[]", "unreadable"), (b"3", "unreadable"),
    (b'"A"', "unreadable"), (b"A", "unreadable"), (b"\xff\xfe", "unreadable"), (b"{}", "unreadable"),
    (b"data: {}\n\n", "unreadable"), (b"[" * 100_000, "unreadable"), (b'{"choices": "A"}', "unreadable"),
    (b'{"choices": {"0": 1}}', "unreadable"), (b'{"choices": [3]}', "unreadable"), (b'{"choices": [[]]}', "unreadable"),
    (json.dumps(completion()).encode()[:150], "unreadable"), (b'{"choices": null}', "empty"),
    (b'{"error": {"message": "overloaded"}}', "failed"), (b'{"error": "busy", "choices": []}', "failed"),
    (b'{"object": "text_completion", "choices": [{"text": "A"}]}', "unreadable"),
    # what lacks a part
    (spoilt("choices"), "unreadable"), (spoilt("choices", []), "empty"), (spoilt(MESSAGE), "unreadable"),
    (spoilt(MESSAGE, None), "unreadable"), (spoilt(MESSAGE, "A"), "unreadable"), (spoilt(MESSAGE, []), "unreadable"),
    (spoilt(f"{MESSAGE}.content"), "empty"), (spoilt(f"{MESSAGE}.content", None), "empty"),
    (spoilt(f"{MESSAGE}.content", ""), "empty"), (spoilt(f"{MESSAGE}.content", 3), "unreadable"),
    (spoilt(f"{MESSAGE}.content", ["A"]), "unreadable"), (spoilt(f"{MESSAGE}.content", {"text": "A"}), "unreadable"),
    (spoilt(f"{MESSAGE}.reasoning_content", 5), "unreadable"),
    # who refuses, or was stopped
    (spoilt(f"{MESSAGE}.refusal", "I can't help with that."), "refused"),
    (spoilt("choices.0.finish_reason", "content_filter"), "refused"),
    (spoilt("choices.0.finish_reason", "tool_calls"), "unreadable"),
    (spoilt("choices.0.finish_reason", "error"), "unreadable"), (spoilt("choices.0.finish_reason", 7), "unreadable"),
    # who names no class
    *[(spoilt(f"{MESSAGE}.content", text), "out of list") for text in
      ("D", "Z", "a", "AB", "A, B", "A or B", "The", " ", "1", "-", "\u0410", "animal or tool", "pet", "A" * 500,
       "<think>A", "I think it is A", "ANIMALS", "\x00", "🐈")],
    # another model
    (spoilt("model", "m-2"), "another model"), (spoilt("model"), "another model"),
    (spoilt("model", None), "another model"), (spoilt("model", 3), "another model"),
    # log-probabilities that are left out, or are none
    (spoilt(LOGPROBS), "no log-probabilities"), (spoilt(LOGPROBS, None), "no log-probabilities"),
    (spoilt(f"{LOGPROBS}.content", None), "no log-probabilities"), (spoilt(LOGPROBS, 5), "unreadable"),
    (spoilt(f"{LOGPROBS}.content", []), "no log-probabilities"), (spoilt(f"{LOGPROBS}.content", "A"), "unreadable"),
    (spoilt(f"{LOGPROBS}.content", [3]), "no log-probabilities"), (spoilt(SPOT, {}), "no log-probabilities"),
    (spoilt(f"{SPOT}.top_logprobs"), "no log-probabilities"), (spoilt(f"{SPOT}.token", 5), "no log-probabilities"),
    (spoilt(f"{SPOT}.top_logprobs", None), "no log-probabilities"),
    (spoilt(f"{SPOT}.top_logprobs", []), "no log-probabilities"),
    (spoilt(f"{SPOT}.token", "The"), "no log-probabilities"),
    (spoilt(f"{SPOT}.top_logprobs.0", {}), "no log-probabilities"),
    (spoilt(f"{SPOT}.top_logprobs.0.logprob", None), "no log-probabilities"),
    (spoilt(f"{SPOT}.top_logprobs.1.logprob", 3.0), "no log-probabilities"),
    (spoilt(f"{SPOT}.top_logprobs.1.logprob", float("nan")), "no log-probabilities"),
    (spoilt(f"{SPOT}.top_logprobs.1.logprob", float("-inf")), "no log-probabilities"),
    (spoilt(f"{SPOT}.top_logprobs.1.token", None), "no log-probabilities"),
]  # fmt: skip


def test_sixty_kinds_of_bad_reply_are_counted_and_none_is_a_label(task, tmp_path):
    assert len(BAD) >= 60
    fine = with_logprobs(completion("A", end="length"), LOG)
    labels = read_by(task, tmp_path, [*(reply for reply, _ in BAD), fine])
    assert labels.kinds == [*(kind for _, kind in BAD), "answer"]
    assert np.isnan(labels.logits[:-1]).all() and labels.logits[-1].argmax() == 0


def test_a_letter_of_a_longer_answer_that_was_cut_is_no_answer(task, tmp_path):
    replies = [completion("B", end="length"), completion("B")]
    assert read_by(task, tmp_path, replies, access="hard").kinds == ["truncated", "answer"]


def test_a_task_is_narrowed_to_what_is_answered(task, served, tmp_path):
    teacher = load_teacher(endpoint_of(served, tmp_path), task)
    served.faults = {"refusal": 0.3, "cut": 0.2}
    narrow, labels, known = label(teacher, task, store=Store(tmp_path / "store"))
    kinds = known["rows"]
    assert set(kinds) == {"answer", "refused", "unreadable"} and sum(kinds.values()) == len(task.transfer_texts)
    assert len(narrow.transfer_texts) == kinds["answer"] == len(labels) and narrow.test == task.test
    assert f"without {sum(kinds.values()) - kinds['answer']} texts that words did not answer" in narrow.source
    with refused("words answered", "refused", "narrows a task"):
        teacher.logits(task.transfer_texts)
    served.faults = {}
    again, _, known = label(teacher, task, store=Store(tmp_path / "store"), again=True)
    assert known["rows"] == {"answer": len(task.transfer_texts)} and again.transfer_texts == task.transfer_texts
    served.faults = {"refusal": 1.0}
    with refused("answers none of", "refused"):
        label(load_teacher(endpoint_of(served, tmp_path), task, examples=1), task, store=Store(tmp_path / "store"))


def test_the_answered_part_of_every_split_is_paid_for_once(task, served, tmp_path):
    teacher = load_teacher(endpoint_of(served, tmp_path), task)
    served.faults = {"refusal": 0.3, "cut": 0.2}
    task = replace(task, out_of_scope=task.test)
    with pytest.warns(UserWarning, match=r"words has no answer to \d+ of \d+ .*\d+ refused.*: left out"):
        narrow = teacher.answered(task)
    paid, rows = len(served.asked), {split: len(getattr(narrow, split)) for split in SPLITS}
    assert all(0 < rows[split] < len(getattr(task, split)) for split in ("unlabelled", "test")), rows
    store = Store(tmp_path / "store")
    soft_labels(teacher, narrow, store=store)
    for split in SPLITS:
        texts = getattr(narrow, split)["text"][:]
        assert soft_labels(teacher, narrow, texts=texts, store=store).logits(texts).shape == (rows[split], 3)
    assert len(served.asked) == paid
    missing = sum(len(getattr(task, split)) - rows[split] for split in SPLITS)
    assert rows["out_of_scope"] == rows["test"] and f"without {missing} texts that words did not" in narrow.source
    served.faults = {"refusal": 1.0}
    shown = load_teacher(endpoint_of(served, tmp_path), task, examples=1)
    asked = len(served.asked)
    with refused("words: none of the 9 labelled texts of tiny3 has an answer (9 refused)"):
        shown.answered(task)
    assert len(served.asked) == asked + len(task.labelled)


# --- the probe, and what all of it will cost


def test_the_probe_catches_what_is_ignored(served, tmp_path):
    served.faults = {"no-logprobs": 1.0}
    found = probe(endpoint_of(served, tmp_path))
    assert found.logprobs == 0 and found.ignored == ("logprobs",) and len(served.asked) == 3
    probe(endpoint_of(served, tmp_path))
    assert len(served.asked) == 3  # found


def strict(taken: set[str], widest: int = 20):
    """Refuses what it doesn't take; what it takes it ignores, log-probabilities excepted."""

    def answer(body):
        odd = {"logprobs", "top_logprobs", "seed", "response_format"} & set(body) - taken
        if odd or body.get("top_logprobs", 0) > widest:
            return 400, {}, json.dumps({"error": {"message": f"no {odd}"}}).encode()
        reply = completion()
        if body.get("logprobs"):
            with_logprobs(reply, {"A": -0.1, **{f"<{i}>": -9.0 - i for i in range(body["top_logprobs"] - 1)}})
        del reply["usage"]
        return 200, {}, json.dumps(reply).encode()

    return answer


PROBES = {
    "narrow": (strict({"logprobs", "top_logprobs", "seed", "response_format"}, 5), 5, ("response_format",), ()),
    "no log-probabilities": (strict({"seed", "response_format"}), 0, ("response_format",), ("logprobs",)),
    "no schema": (strict({"logprobs", "top_logprobs", "seed"}), 20, (), ("response_format",)),
    "nothing": (strict(set()), 0, (), ("logprobs", "seed", "response_format")),
}


@pytest.mark.parametrize("what", PROBES)
def test_the_probe_learns_what_is_refused(what, tmp_path):
    answer, width, ignored, refused_ = PROBES[what]
    with saying(answer) as server:
        found = probe(endpoint_of(server, tmp_path, "m"))
        assert (found.logprobs, found.ignored, found.refused, found.usage) == (width, ignored, refused_, False)
        before = len(server.asked)
        assert probe(endpoint_of(server, tmp_path, "m")) == found and len(server.asked) == before


def test_an_access_that_is_not_there(task, tmp_path):
    with saying(strict({"seed"})) as server:
        endpoint = endpoint_of(server, tmp_path, "m")
        assert load_teacher(endpoint, task).access == "hard"
        with refused("m refuses log-probabilities: choose access='repeats' or 'hard'"):
            load_teacher(endpoint, task, access="logprobs")
        for options, sentence in (({"access": "soft"}, "access is 'soft'"), ({"repeats": 0}, "repeats is 0"),
                                  ({"examples": -1}, "examples is -1"), ({"longest": 0}, "longest is 0"),
                                  ({"descriptions": {"tol": "x"}}, "did you mean 'tool'?")):  # fmt: skip
            with refused(sentence):
                load_teacher(endpoint, task, **options)


def test_the_estimate_holds_what_it_costs(task, served, tmp_path):
    teacher = load_teacher(endpoint_of(served, tmp_path), task)
    requests, before = teacher.requests(task.transfer_texts), teacher.endpoint.charged()
    table = estimate(teacher.endpoint, requests, pilot=20)
    assert len(served.asked) == 23 and list(table.index) == ["list", "batch", "cached"]
    teacher.logits(task.transfer_texts)
    paid = teacher.endpoint.charged() - before
    assert table.loc["list", "low"] <= paid <= table.loc["list", "high"]
    assert table.loc["batch", "dollars"] == pytest.approx(table.loc["list", "dollars"] / 2)
    assert table.loc["cached", "dollars"] < table.loc["list", "dollars"]
    assert estimate(teacher.endpoint, requests, pilot=36).loc["list", "high"] == pytest.approx(paid)
    with saying(strict(set())) as server, refused("told the usage of 0 of 20 only"):
        estimate(endpoint_of(server, tmp_path, "m"), [r._replace(body=r.body | {"logprobs": None, "top_logprobs": None})
                                                      for r in requests], pilot=20)  # fmt: skip
