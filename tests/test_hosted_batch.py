"""A vendor's batch API: half the price, within the cap, and found again after a kill."""

import json
from dataclasses import replace

import pytest
from refusal import refused
from server import PRICE, completion, good

from workbench.hosted import batch
from workbench.hosted.endpoint import Request
from workbench.hosted.replies import Replies, read

REQUESTS = [Request({"messages": [{"role": "user", "content": str(i)}], "max_tokens": 4}) for i in range(12)]


def test_a_batch_is_the_same_replies_at_half_the_price(server, endpoint):
    replies = endpoint.ask(REQUESTS, batch=True)
    assert [read(reply).text for reply in replies] == ["A"] * 12 and len(server.batches) == 1
    assert endpoint.charged() == pytest.approx(12 * PRICE.dollars(20, 1) / 2)
    assert endpoint.ask(REQUESTS) == endpoint.ask(REQUESTS, batch=True) == replies and len(server.asked) == 12


def test_what_fails_in_a_batch_is_no_answer_and_costs_nothing(server, endpoint):
    def answer(body):
        text = body["messages"][-1]["content"]
        if text == "3":
            return 400, {}, b'{"error": {"message": "context length"}}'
        return good(body) if text != "4" else (200, {}, json.dumps(completion(None, refusal="no")).encode())

    server.answer = answer
    kinds = [read(reply).kind for reply in endpoint.ask(REQUESTS, batch=True)]
    assert kinds == ["answer"] * 3 + ["failed", "refused"] + ["answer"] * 7
    assert endpoint.charged() == pytest.approx(11 * PRICE.dollars(20, 1) / 2)
    server.answer = good
    assert all(read(r).kind == "answer" for r in endpoint.ask(REQUESTS, batch=True, again=True))
    assert len(server.asked) == 14


@pytest.mark.parametrize("when", ["before it knows the id", "while it waits", "while it reads the results"])
def test_a_killed_call_finds_its_batch_again(when, server, endpoint, monkeypatch):
    class Killed(BaseException):
        pass

    def dies(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        if when == "before it knows the id":
            send = batch._send
            patch.setattr(batch, "_send", lambda *args: send(*args) and dies())
        elif when == "while it waits":
            patch.setattr(batch.time, "sleep", dies)
        else:
            keep, seen = Replies.keep, []
            patch.setattr(Replies, "keep", lambda *a, **m: dies() if len(seen) > 5 else seen.append(keep(*a, **m)))
        with pytest.raises(Killed):
            endpoint.ask(REQUESTS, batch=True)
    replies = endpoint.ask([*REQUESTS, Request({**REQUESTS[0].body, "temperature": 0})], batch=True)
    assert all(read(reply).kind == "answer" for reply in replies)
    assert len(server.asked) == 13 and len(server.batches) == 2  # the new request is a second one
    assert endpoint.charged() == pytest.approx(13 * PRICE.dollars(20, 1) / 2)


def test_the_cap_and_a_server_without_batches(server, endpoint):
    with refused("The batch may cost $", "raise cap"):
        replace(endpoint, cap=1e-3).ask(REQUESTS, batch=True)
    assert not server.batches and endpoint.charged() == 0
    with refused("refuses the batch", "ask without batch"):
        replace(endpoint, base_url=endpoint.base_url.replace("/v1", "/v2")).ask(REQUESTS, batch=True)
