"""Before much is spent: what access there really is, and what all of it will cost."""

import json
import os.path
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from workbench.errors import WorkbenchError, whole
from workbench.hosted.endpoint import Endpoint, Refused, Request
from workbench.hosted.replies import Said, read

WIDTHS = (20, 5)  # how many log-probabilities are asked for: what vendors give at most
LETTER = [
    {"role": "system", "content": "Answer with the letter of the text's class and nothing else.\n\nA: animal\nB: tool"},
    {"role": "user", "content": "a cat"},
]
DIGITS = [{"role": "user", "content": 'Write a random number of twelve digits, as JSON: {"n": 123456789012}'}]
SHAPE = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "number", "strict": True, "schema": SHAPE}}


@dataclass(frozen=True)
class Access:
    """What an endpoint really gives.

    Attributes:
        model: its name as the replies have it, often with a date.
        logprobs: how many alternatives of a token come with their log-probability; 0: none.
        seed: whether the same seed gave the same text twice at temperature 1.
        schema: whether a JSON schema was obeyed.
        usage: whether replies tell their tokens.
        ignored: parameters that were accepted without a word and not followed.
        refused: parameters that were refused.
    """

    model: str
    logprobs: int
    seed: bool
    schema: bool
    usage: bool
    ignored: tuple[str, ...]
    refused: tuple[str, ...]


def probe(endpoint: Endpoint) -> Access:
    """Ask up to three requests (what is refused isn't paid) and see what comes; asked once, like any other.

    Raises:
        WorkbenchError: an endpoint that answers nothing.
    """
    refused = []
    for width in (*WIDTHS, 0):
        more = {"logprobs": True, "top_logprobs": width} if width else {}
        reply, first = _ask(endpoint, {"messages": LETTER, "max_tokens": 1, "temperature": 0, **more})
        if first.kind != "failed":
            break
    else:
        raise WorkbenchError(f"{endpoint.base_url} does not answer the simplest question ({first.why}): see extra=.")
    if not width:
        refused.append("logprobs")
    base = {"messages": DIGITS, "max_tokens": 32, "temperature": 1}
    for more in ({"seed": 7, "response_format": SCHEMA}, {"seed": 7}, {}):
        texts = [_ask(endpoint, {**base, **more}, repeat)[1] for repeat in range(2)] if more else []
        if not texts or texts[0].kind != "failed":
            break
    refused += [name for name in ("seed", "response_format") if name not in more]
    got = {
        "logprobs": _width(first),
        "seed": "seed" in more and texts[0].kind != "failed" and texts[0].text == texts[1].text != "",
        "response_format": "response_format" in more and _in_shape(texts[0].text),
    }
    ignored = [name for name, found in got.items() if not found and name not in refused]
    found = (reply.model, got["logprobs"], got["seed"], got["response_format"], reply.tokens_in is not None)
    return Access(*found, tuple(ignored), tuple(refused))


def _ask(endpoint: Endpoint, body: dict, repeat: int = 0) -> tuple:
    request = [Request(body, repeat)]
    try:
        (reply,) = endpoint.ask(request)
    except Refused:
        (reply,) = endpoint.ask(request)  # the refusal is kept
    return reply, read(reply, short=body["max_tokens"] == 1)


def _width(said: Said) -> int:
    try:
        return len(said.tokens[0]["top_logprobs"])
    except (IndexError, KeyError, TypeError):
        return 0


def _in_shape(text: str) -> bool:
    try:
        return isinstance(json.loads(text)["n"], int)
    except (ValueError, KeyError, TypeError):
        return False


def estimate(endpoint: Endpoint, requests: Sequence[Request], *, pilot: int = 30, seed: int = 0) -> pd.DataFrame:
    """Dollars that `requests` will cost, from the usage of a few of them, with 95 % intervals.

    Rows: list price; batch, the vendor's batch price; cached, where what all prompts begin with is read from the
    vendor's cache. Columns: dollars, low, high, price. The pilot is paid and kept: asking all later asks the rest.

    Raises:
        WorkbenchError: fewer than two replies tell their usage.
    """
    pilot = whole("pilot", pilot, 2, 1_000)
    chosen = random.Random(f"pilot {seed}").sample(range(len(requests)), min(pilot, len(requests)))
    replies = endpoint.ask([requests[i] for i in chosen])
    counts = np.array([[r.tokens_in, r.tokens_out] for r in replies if r.tokens_in is not None])
    if len(counts) < 2:
        raise WorkbenchError(f"{endpoint.base_url} told the usage of {len(counts)} of {len(replies)} only.")
    asked = [json.dumps(request.body["messages"]) for request in requests]
    shared = len(os.path.commonprefix(asked)) / np.mean([len(text) for text in asked])
    price, rows = endpoint.known_price, {}
    for name, cached, batch in (("list", 0, False), ("batch", 0, True), ("cached", shared, False)):
        each = [price.dollars(read, written, cached * read, batch=batch) for read, written in counts]
        rest = np.sqrt(1 - len(counts) / len(requests)) if len(requests) > len(counts) else 0.0
        half = stats.t.ppf(0.975, len(each) - 1) * np.std(each, ddof=1) / np.sqrt(len(each)) * rest
        total = np.array([np.mean(each), np.mean(each) - half, np.mean(each) + half]) * len(requests)
        rows[name] = [*total, str(price)]
    return pd.DataFrame(rows, index=["dollars", "low", "high", "price"]).T
