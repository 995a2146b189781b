"""Asking over real HTTP: once, within a cap, through faults and kills, and the key is never seen again."""

import json
import logging
import os
import random
import signal
import threading
import time
import traceback
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from kills import FORKS
from refusal import check_sentence, refused
from server import PRICE, completion, good

from workbench.errors import WorkbenchError
from workbench.hosted.endpoint import Endpoint, Request
from workbench.hosted.prices import Price
from workbench.hosted.replies import Replies, read

CANARY = "sk-canary-7f3a9c"


def ask_for(texts, max_tokens: int = 4) -> list[Request]:
    return [Request({"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens}) for text in texts]


def test_each_request_is_asked_once(server, endpoint):
    told = []
    watched = replace(endpoint, progress=told.append)
    replies = watched.ask(ask_for(["a", "b", "a"]))
    assert [read(reply).text for reply in replies] == ["A"] * 3 and replies[0] == replies[2]
    assert watched.ask(ask_for(["b", "a", "c"]))[0] == replies[1]
    assert server.counted() == {"a": 1, "b": 1, "c": 1}
    assert told[-1].done == told[-1].total == 1 and told[-1].spent == pytest.approx(endpoint.charged())
    assert endpoint.charged() == pytest.approx(3 * PRICE.dollars(20, 1))


def test_only_what_changed_is_asked(server, endpoint):
    endpoint.ask(ask_for(["a"]))
    for other in (ask_for(["a"], 5), [r._replace(repeat=1) for r in ask_for(["a"])]):
        endpoint.ask(other)
    replace(endpoint, model="other").ask(ask_for(["a"]))
    replace(endpoint, extra={"seed": 1}).ask(ask_for(["a"]))
    replace(endpoint, place="elsewhere").ask(ask_for(["a"]))
    assert len(server.asked) == 6
    replace(endpoint, price=Price(1.0, 1.0), timeout=7, in_flight=1).ask(ask_for(["a"]))
    assert len(server.asked) == 6  # how it is asked is no part of what


def test_a_dry_run_sends_nothing(server, endpoint):
    endpoint.ask(ask_for(["a"]))
    plan = endpoint.dry_run(ask_for(["a", "b", "b"]))
    assert plan[:3] == (2, 1, 1) and len(server.asked) == 1
    assert plan.worst > PRICE.dollars(20, 4) and "nothing was sent" in str(plan) and "$ 100/400" in str(plan)


# --- faults: what is tried again, what is kept as no answer, what ends the call


def failing(times: int, status: int, headers: dict | None = None):
    """Fails so often for each text, then answers."""
    left, lock = {}, threading.Lock()

    def answer(body):
        text = body["messages"][-1]["content"]
        with lock:
            left[text] = left.get(text, times) - 1
        if left[text] >= 0:
            return status, headers or {}, b'{"error": {"message": "slow down", "code": null}}'
        return good(body)

    return answer


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_passing_failures_are_tried_again_and_cost_nothing(status, server, endpoint):
    server.answer = failing(2, status, {"Retry-After": "0.01"})
    (reply,) = endpoint.ask(ask_for(["a"]))
    assert read(reply).kind == "answer" and reply.attempts == 3
    assert endpoint.charged() == pytest.approx(PRICE.dollars(20, 1))


def test_a_pause_that_the_server_asks_for_is_kept_by_all(server, endpoint):
    times = []
    first = failing(1, 429, {"Retry-After": "0.6"})

    def answer(body):
        times.append((time.monotonic(), body["messages"][-1]["content"]))
        return first(body) if body["messages"][-1]["content"] == "a" else good(body)

    server.answer = answer
    replace(endpoint, in_flight=1).ask(ask_for(["a", "b"]))
    assert times[1][0] - times[0][0] >= 0.55
    server.answer = lambda body: (429, {"Retry-After": formatdate(time.time() + 900)}, b"{}")
    with refused("asks for a pause of", "what came is kept"):
        endpoint.ask(ask_for(["c"]))


def test_a_rate_is_kept_and_learnt(server, endpoint):
    def spread(asked: Endpoint, texts: str) -> float:
        began = time.monotonic()
        asked.ask(ask_for(texts))
        return time.monotonic() - began

    assert spread(replace(endpoint, requests_per_minute=600), "abcdef") >= 0.5
    assert spread(replace(endpoint, tokens_per_minute=60 * 400), "ghijkl") >= 0.2  # each some 35 of 400 a second
    server.answer = lambda body: (200, {"x-ratelimit-limit-requests": "600"}, good(body)[2])
    assert spread(replace(endpoint, in_flight=1), "mnopqr") >= 0.4


def test_what_fails_to_the_end_is_kept_as_no_answer_and_asked_again_only_if_told(server, endpoint):
    server.answer = lambda body: (500, {"Retry-After": "0.01"}, b"oops")
    (reply,) = endpoint.ask(ask_for(["a"]))
    assert read(reply) == ("failed", "", "", (), "HTTP 500 oops, 3 times") and endpoint.charged() == 0
    server.answer = good
    assert endpoint.ask(ask_for(["a"])) == [reply] and len(server.asked) == 3
    (reply,) = endpoint.ask(ask_for(["a"]), again=True)
    assert read(reply).kind == "answer" and endpoint.ask(ask_for(["a"])) == [reply] and len(server.asked) == 4
    endpoint.ask(ask_for(["a"]), again=True)
    assert len(server.asked) == 4  # an answer is an answer


def test_a_reply_whose_fate_is_unknown_is_charged_at_its_worst(server, endpoint):
    server.answer = lambda body: time.sleep(1) or good(body)
    slow = replace(endpoint, timeout=0.2, attempts=2)
    (reply,) = slow.ask(ask_for(["a"]))
    assert read(reply).kind == "failed" and "ReadTimeout" in read(reply).why
    assert slow.charged() == pytest.approx(2 * slow.worst(slow.asked(ask_for(["a"])[0])))


def test_one_text_too_long_fails_alone(server, endpoint):
    long = b'{"error": {"message": "maximum context length is 8192 tokens", "code": "context_length_exceeded"}}'
    server.answer = lambda body: (400, {}, long) if body["messages"][-1]["content"] == "long" else good(body)
    replies = endpoint.ask(ask_for(["long", "a"]))
    assert [read(reply).kind for reply in replies] == ["failed", "answer"] and "context" in read(replies[0]).why
    assert endpoint.charged() == pytest.approx(PRICE.dollars(20, 1))


PARAMETER = {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}}
ENDS = {
    "a wrong key": ((401, {}, b'{"error": {"message": "Incorrect API key"}}'), "refuses the key in OPENAI_API_KEY"),
    "no right": ((403, {}, b"{}"), "refuses the key"),
    "no such model": ((404, {}, b'{"error": {"message": "no model m", "code": "x"}}'), "has no model 'm' there"),
    "no money": ((429, {}, b'{"error": {"message": "m", "code": "insufficient_quota"}}'), "the account is empty"),
    "payment required": ((402, {}, b"{}"), "the account is empty"),
    "another parameter": ((400, {}, json.dumps(PARAMETER).encode()), "set length='max_completion_tokens'"),
    "some parameter": ((400, {}, b'{"error": {"message": "temperature is fixed"}}'), "see extra= (HTTP 400 temper"),
    "a proxy's page": ((200, {"Content-Type": "text/html"}, b"<html>Log in</html>"), "answers with a web page"),
    "a proxy's refusal": ((403, {"Content-Type": "text/html"}, b"<html>No</html>"), "refuses the key"),
}


@pytest.mark.parametrize("what", ENDS)
def test_what_answers_nobody_ends_the_call_in_a_sentence_and_costs_nothing(what, server, endpoint):
    answer, sentence = ENDS[what]
    server.answer = lambda body: answer
    with refused(sentence):
        endpoint.ask(ask_for(map(str, range(30))))
    assert endpoint.charged() == 0
    server.answer = good
    again = replace(endpoint, length="max_completion_tokens")
    assert all(read(reply).kind == "answer" for reply in again.ask(ask_for(map(str, range(30)))))


SETTINGS = {
    "no URL": ({"base_url": "localhost:8000"}, "base_url is 'localhost:8000'"),
    "a key in the URL": ({"base_url": f"https://me:{CANARY}@host/v1"}, "base_url is https://…"),
    "a cap of nothing": ({"cap": 0}, "cap is 0: give"),
    "a cap of words": ({"cap": "5"}, "cap is '5': give"),
    "a price of words": ({"price": 5}, "price is 5: give a Price"),
    "no requests": ({"in_flight": 0}, "in_flight is 0"),
    "another length": ({"length": "max_length"}, "length is 'max_length': did you mean 'max_"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_bad_settings(what, endpoint):
    settings, sentence = SETTINGS[what]
    with refused(sentence):
        replace(endpoint, **settings)


def test_nobody_there_no_price_no_limit_no_key(endpoint, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    gone = replace(endpoint, base_url="http://127.0.0.1:9/v1", attempts=1)
    with refused("http://127.0.0.1:9/v1 can't be reached", "check base_url"):
        gone.ask(ask_for(["a"]))
    assert gone.charged() == 0
    with refused("No price is known for 'm'", "unpriced is not free"):
        replace(endpoint, price=None).ask(ask_for(["a"]))
    with refused("A request has no max_tokens"):
        endpoint.ask([Request({"messages": []})])
    with refused("No key for https://api.example.org/v1: set the environment variable OPENAI_API_KEY"):
        replace(endpoint, base_url="https://api.example.org/v1").ask(ask_for(["a"]))


# --- money: the worst case is charged first


def test_the_cap_is_never_passed_with_64_in_flight(server, endpoint):
    rng, paid, lock = random.Random(0), [], threading.Lock()

    def answer(body):
        usage = {"prompt_tokens": rng.randrange(1, 200), "completion_tokens": rng.randrange(1, 33), "total_tokens": 0}
        with lock:
            paid.append(PRICE.dollars(usage["prompt_tokens"], usage["completion_tokens"]))
        time.sleep(rng.random() / 50)
        return 200, {}, json.dumps(completion() | {"usage": usage}).encode()

    server.answer = answer
    worst = endpoint.worst(endpoint.asked(ask_for(["000"], 32)[0]))
    capped = replace(endpoint, cap=40 * worst)
    with refused("The cap of $", "came and are kept; raise cap to go on"):
        capped.ask(ask_for([f"{i:03}" for i in range(900)], 32))
    assert capped.cap - worst < sum(paid) <= capped.cap  # all of it was used, and not a request more
    assert capped.charged() == pytest.approx(sum(paid))
    before = len(server.asked)
    with refused("leaves $"):
        capped.ask(ask_for([f"{i:03}" for i in range(900)], 32))
    assert len(server.asked) == before  # the cap counts what earlier calls have spent
    with refused("The cap of $ 1e-06", "0 of 1 came"):
        replace(endpoint, model="n", cap=1e-6).ask(ask_for(["a"]))


# --- several processes, kills

# Children are given a method of the package: for a function of this file each would import it, and torch with it.


@pytest.mark.slow
def test_two_processes_never_pay_twice(server, endpoint):
    server.answer = lambda body: time.sleep(0.01) or good(body)
    texts = [str(i) for i in range(300)]
    children = [FORKS.Process(target=endpoint.ask, args=(ask_for(part),)) for part in (texts, texts[::-1], texts)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert server.counted() == dict.fromkeys(texts, 1)
    assert endpoint.charged() == pytest.approx(300 * PRICE.dollars(20, 1))


def killed(server, endpoint: Endpoint, kills: int, seed: int) -> None:
    """Ask for more and more texts, killed again and again while they are on their way."""
    rng, stored = random.Random(seed), {}
    server.answer = lambda body: time.sleep(0.004 * rng.random()) or good(body)
    texts = [str(i) for i in range(30 * kills)]
    for turn in range(kills):
        aim = len(server.asked) + rng.randint(2, 28)  # of what is asked, however fast the machine is
        child = FORKS.Process(target=endpoint.ask, args=(ask_for(texts[: 30 * (turn + 1)]),))
        child.start()
        while len(server.asked) < aim and child.is_alive():
            time.sleep(0.002)
        child.kill()
        child.join()
        with Replies(endpoint.path) as replies:
            now = {reply.request: reply.raw for *_, reply in replies.rows()}
        assert stored.items() <= now.items(), "a stored reply was lost"
        stored = now
    asked = server.counted()
    assert len(stored) > kills and len(stored) < len(texts), "kills that hit nothing prove nothing"
    assert sum(count - 1 for count in asked.values()) <= kills * endpoint.in_flight
    assert max(asked.values()) <= kills and sum(asked.values()) - len(stored) <= kills * endpoint.in_flight
    assert endpoint.charged() >= len(server.asked) * PRICE.dollars(20, 1) - 1e-6  # what was lost is charged, too
    assert all(read(reply).kind == "answer" for reply in endpoint.ask(ask_for(texts)))


@pytest.mark.slow
def test_a_kill_loses_nothing_that_is_stored(server, endpoint):
    killed(server, replace(endpoint, in_flight=8), kills=5, seed=0)


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_two_hundred_kills(server, endpoint):
    killed(server, replace(endpoint, in_flight=8), kills=200, seed=1)


def test_ctrl_c_keeps_what_is_in_flight_and_goes_on(server, endpoint):
    server.answer = lambda body: time.sleep(0.05) or good(body)
    texts = [str(i) for i in range(160)]

    def stop() -> None:
        while len(server.asked) < 20:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        replace(endpoint, in_flight=8).ask(ask_for(texts))
    asked = len(server.asked)
    assert 20 <= asked < 160
    replace(endpoint, in_flight=8).ask(ask_for(texts))
    assert server.counted() == dict.fromkeys(texts, 1)


# --- the key


def test_the_key_is_nowhere(server, endpoint, tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    caplog.set_level(logging.DEBUG)
    quoted = json.dumps(completion(f"your key is {CANARY}")).encode()
    wrong = json.dumps({"error": {"message": f"Incorrect API key provided: {CANARY}"}}).encode()
    said = []
    answers = [(200, {}, quoted), (401, {}, wrong), (500, {"Retry-After": "0"}, wrong), (400, {}, wrong),
               (404, {}, wrong), (429, {"Retry-After": "900"}, wrong), (200, {}, b"<html>" + wrong)]  # fmt: skip
    for i, answer in enumerate(answers):
        server.answer = lambda body, answer=answer: answer
        try:
            said.append(repr(endpoint.ask(ask_for([f"{i}"]))))
        except WorkbenchError as error:
            check_sentence(str(error))
            said += [str(error), repr(error), "".join(traceback.format_exception(error))]
            frames = traceback.TracebackException.from_exception(error, capture_locals=True)
            said += [str(frame.locals) for frame in frames.stack if "workbench" in frame.filename]
    assert f"Bearer {CANARY}" in server.keys, "it was used"
    files = [path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert files and len(said) > 10
    assert not [content for content in files if CANARY.encode() in content]
    shown = [*said, caplog.text, *capfd.readouterr(), repr(endpoint), json.dumps(vars(endpoint), default=str)]
    assert not [text for text in shown if CANARY in text]
