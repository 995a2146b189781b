"""A vendor's batch API: requests as a file, the answers within a day, at a part of the price.

What is under way is noted before it is sent, so that a killed call finds its batch again: by the id, or, if it was
killed before it learnt that, by the name among the vendor's own list.
"""

import json
import time
from typing import Any

from workbench.errors import WorkbenchError, reason
from workbench.hosted.prices import Price
from workbench.hosted.replies import Replies, Reply
from workbench.store import fingerprint

OVER = ("completed", "failed", "expired", "cancelled")


def run_batch(endpoint: Any, price: Price, replies: Replies, missing: dict[str, str]) -> dict[str, Reply]:
    """The replies to the requests (key -> what is asked) of an `Endpoint`, and of its batches that are under way.

    Raises:
        WorkbenchError: the cap does not cover the worst case of all, or the vendor refuses the batch.
    """
    client, account = endpoint.client("OpenAI"), endpoint.account
    import openai

    try:
        got: dict[str, Reply] = {}
        for name, known, asked in replies.batches(account):
            got |= _fetch(endpoint, client, price, replies, (name, known or _find(client, name), asked))
        if left := {key: text for key, text in missing.items() if key not in got}:
            worst, name = sum(endpoint.worst(text, batch=True) for text in left.values()), fingerprint(sorted(left))
            if not replies.reserve(account, worst, endpoint.cap):
                raise WorkbenchError(f"The batch may cost $ {worst:.4f}, more than the cap leaves: raise cap.")
            replies.note_batch(account, name, None, left)
            got |= _fetch(endpoint, client, price, replies, (name, None, left))
        return got
    except openai.OpenAIError as error:
        told = endpoint.without_key(reason(error))
    raise WorkbenchError(f"{endpoint.base_url} refuses the batch ({told}): ask without batch, or mend what it says.")


def batch_line(line: dict) -> tuple[bytes | None, str | None]:
    """(raw reply, or why there is none) of a line that a vendor's batch gives back."""
    response = line.get("response") or {}
    if response.get("status_code") == 200:
        return json.dumps(response["body"]).encode(), None
    return None, f"batch: {json.dumps(line.get('error') or response.get('body'))[:200]}"


def _find(client: Any, name: str) -> str | None:
    return next((b.id for b in client.batches.list() if (b.metadata or {}).get("workbench") == name), None)


def _send(client: Any, name: str, asked: dict[str, str]) -> str:
    lines = []
    for key, text in asked.items():
        told = json.loads(text)
        body = {"model": told["model"], **told["body"]}
        lines.append(json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}))
    file = client.files.create(file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch")
    about = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"workbench": name}}
    return client.batches.create(input_file_id=file.id, **about).id


def _fetch(
    endpoint: Any, client: Any, price: Price, replies: Replies, under_way: tuple[str, str | None, dict[str, str]]
) -> dict[str, Reply]:
    """Wait for one batch and keep what comes."""
    name, known, asked = under_way
    account = endpoint.account
    if known is None:
        known = _send(client, name, asked)
    replies.note_batch(account, name, known, asked)
    while (batch := client.batches.retrieve(known)).status not in OVER:
        time.sleep(endpoint.poll)
    lines = []
    for file in filter(None, (batch.output_file_id, batch.error_file_id)):
        lines += [json.loads(line) for line in client.files.content(file).text.splitlines() if line.strip()]
    told = {line["custom_id"]: batch_line(line) for line in lines}
    got, over = {}, 0.0
    for key, text in asked.items():
        raw, why = told.get(key, (None, f"batch: {batch.status}"))
        raw = raw and endpoint.without_key(raw.decode()).encode()
        reply = Reply(key, "", raw, why)
        replies.keep(account, text, reply, price=f"batch, {price}")
        got[key] = replies.settle(account, reply, price, None) if raw else reply
        if raw is None or got[key].dollars is not None:
            over += endpoint.worst(text, batch=True) - (got[key].dollars or 0)
    replies.end_batch(account, name, -over)
    return got
