"""Ask a model behind an OpenAI-compatible API: each request once, within a rate, and never past a cap in dollars.

A request is looked up in `workbench.hosted.replies` first; what is sent is charged at its worst case before it leaves.
Retries are done here rather than by the client: each may be paid, so each is reserved for itself, and a server that
asks for a pause is given one by all that are in flight. Next to read: `workbench.hosted.teacher`.
"""

import asyncio
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from workbench.errors import Choice, Number, Text, WorkbenchError, reason, setting, settle, shown
from workbench.hosted.batch import run_batch
from workbench.hosted.prices import Price, find_price
from workbench.hosted.replies import Replies, Reply, Said, read, request_key, request_text, usage

LONGEST_WAIT = 120  # seconds that a server may ask for
TEMPLATE = 256  # tokens that a chat template may put around the messages
OFTEN = Number(above=0, most=1e9, optional=True, unit="a minute")
LENGTHS = ("max_tokens", "max_completion_tokens")


class Refused(WorkbenchError):
    """The server takes no request like this one; nothing was paid, and the refusal is kept."""


class Request(NamedTuple):
    """What is asked: `body` as the API takes it, with ``max_tokens``; `repeat` tells equal requests apart."""

    body: dict
    repeat: int = 0


class Progress(NamedTuple):
    """How far a call of `Endpoint.ask` is: requests, and dollars of its account (`left`: None without a cap)."""

    done: int
    total: int
    spent: float
    left: float | None

    def __str__(self) -> str:
        left = "" if self.left is None else f", $ {self.left:.4f} left"
        return f"{self.done:,} of {self.total:,} asked, $ {self.spent:.4f} spent{left}"


class DryRun(NamedTuple):
    """What `Endpoint.ask` would send, and its cost in dollars in the worst case."""

    requests: int
    found: int
    to_send: int
    worst: float
    price: Price

    def __str__(self) -> str:
        what = f"{self.requests:,} requests, {self.found:,} of them answered: {self.to_send:,} to send"
        return f"{what} for at most $ {self.worst:.4f}, at {self.price}; nothing was sent"


@dataclass(frozen=True)
class Endpoint:
    """A model behind a URL, and the terms on which it is asked.

    A request's key: `place`, `model`, the body (messages, sampling, schema, log-probabilities) and the repeat; a stored
    reply's also the model as it names itself.

    Attributes:
        base_url: such as ``https://api.openai.com/v1``.
        model: as the server knows it.
        price: None: looked up by `find_price`; nothing is sent without one.
        cap: dollars that this model at this place may cost in all, earlier calls and killed ones included.
        in_flight: requests at a time.
        requests_per_minute: None: learnt from the server's headers.
        tokens_per_minute: likewise, tokens read and written.
        timeout: seconds for one answer.
        attempts: requests sent before one is given up.
        key_variable: the environment variable that holds the key, which is kept nowhere else.
        length: what the server calls the longest answer.
        extra: more of the body, such as ``{"cache_prompt": False}``; None takes a parameter out.
        place: what stands for `base_url` in keys: where one server's port changes from day to day, name it.
        poll: seconds between two looks at a batch.
        path: the file of replies, default ``replies.sqlite`` in the data folder.
        progress: called at most twice a second.
    """

    base_url: str = setting(None, Text())
    model: str = setting(None, Text())
    price: Price | None = None
    cap: float | None = setting(None, Number(above=0, optional=True, unit="dollars"))
    in_flight: int = setting(64, Number(1, 1024, whole=True))
    requests_per_minute: float | None = setting(None, OFTEN)
    tokens_per_minute: float | None = setting(None, OFTEN)
    timeout: float = setting(60.0, Number(above=0, most=86_400, unit="seconds"))
    attempts: int = setting(5, Number(1, 100, whole=True))
    key_variable: str = setting("OPENAI_API_KEY", Text())
    length: str = setting("max_tokens", Choice(LENGTHS))
    extra: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = None
    poll: float = setting(30.0, Number(above=0, most=86_400, unit="seconds"))
    path: Path | None = None
    progress: Callable[[Progress], None] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        settle(self)
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            what = f"{parts.scheme}://…" if parts.username else shown(self.base_url)  # may hold a password
            raise WorkbenchError(f"base_url is {what}: give an address such as https://api.openai.com/v1, with no key.")
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        if not isinstance(self.price, Price | None):
            raise WorkbenchError(f"price is {shown(self.price)}: give a Price(input, output), or None.")
        object.__setattr__(self, "place", self.place or self.base_url)

    @property
    def account(self) -> str:
        """What a cap counts."""
        return f"{self.place} {self.model}"

    @cached_property
    def known_price(self) -> Price:
        """The one that was given, or the one that is known; a WorkbenchError where none is."""
        return self.price or find_price(self.base_url, self.model)

    def body(self, request: Request) -> dict:
        """What is sent, less the model."""
        body = {self.length if name in LENGTHS else name: value for name, value in request.body.items()} | self.extra
        return {name: value for name, value in body.items() if value is not None}

    def asked(self, request: Request) -> str:
        """All that a request depends on, as it is stored."""
        return request_text(self.place, self.model, self.body(request), request.repeat)

    def read(self, request: Request, reply: Reply) -> Said:
        """What the reply to a request is."""
        return read(reply, short=self.body(request).get(self.length) == 1)

    def worst(self, asked: str, *, batch: bool = False) -> float:
        """Dollars that a request can cost: a byte is at least a token's, and the answer as long as it may be."""
        longest = json.loads(asked)["body"].get(self.length)
        if not isinstance(longest, int):
            raise WorkbenchError(f"A request has no {self.length}: without it there is no telling what it may cost.")
        return self.known_price.dollars(len(asked) + TEMPLATE, longest, batch=batch)

    def charged(self) -> float:
        """Dollars spent so far, requests of unknown fate at their worst case."""
        with Replies(self.path) as replies:
            return replies.charged(self.account)

    def dry_run(self, requests: Sequence[Request]) -> DryRun:
        """What would be sent, and what it would cost at worst. Sends nothing."""
        asked = {request_key(text): text for text in map(self.asked, requests)}
        with Replies(self.path) as replies:
            found = replies.find([*asked])
        left = [text for key, text in asked.items() if key not in found]
        return DryRun(len(asked), len(found), len(left), sum(map(self.worst, left)), self.known_price)

    def ask(
        self, requests: Sequence[Request], *, again: bool = False, batch: bool = False, model: str | None = None
    ) -> list[Reply]:
        """The reply to each request: found, or asked for and kept.

        Ctrl-C lets those in flight arrive and be kept; the same call goes on from there.

        Args:
            requests: equal ones are asked once.
            again: ask also those whose reply is no answer.
            batch: by the vendor's batch API, within a day and cheaper; a killed call goes on with the same batch.
            model: where several models have answered under one name, whose reply is preferred.

        Raises:
            WorkbenchError: no price, no key, the cap reached, or a server that answers nobody; what came is kept.
        """
        asked = [self.asked(request) for request in requests]
        keys = [request_key(text) for text in asked]
        with Replies(self.path) as replies:

            def look() -> tuple[dict[str, Reply], dict[str, tuple[str, dict]]]:
                found = replies.find(keys, model)
                for key, text in zip(keys, asked, strict=True):
                    if (reply := found.get(key)) and reply.raw and not reply.model and usage(reply.raw)[0]:
                        found[key] = replies.settle(self.account, reply, self.known_price, self.worst(text))
                missing = {
                    key: (text, self.body(request))
                    for key, text, request in zip(keys, asked, requests, strict=True)
                    if key not in found or (again and self.read(request, found[key]).kind != "answer")
                }
                return found, missing

            found, missing = look()
            if missing:
                price = self.known_price
                with replies.alone(self.account):
                    found, missing = look()  # somebody else may have asked meanwhile
                    if missing and batch:
                        found |= run_batch(self, price, replies, {key: text for key, (text, _) in missing.items()})
                    elif missing:
                        found |= _Asking(self, price, replies, missing).run()
        return [found[key] for key in keys]

    def client(self, kind: str = "AsyncOpenAI") -> Any:
        """A client of the library `openai`, which is imported only now."""
        try:
            import openai
        except ImportError:
            raise WorkbenchError("Asking needs the client openai: pip install -e '.[hosted]'.") from None
        key = os.environ.get(self.key_variable)
        if not key and urlsplit(self.base_url).hostname not in ("127.0.0.1", "localhost", "::1"):
            raise WorkbenchError(f"No key for {self.base_url}: set the environment variable {self.key_variable}.")
        return getattr(openai, kind)(api_key=key or "none", base_url=self.base_url, timeout=self.timeout, max_retries=0)

    def without_key(self, text: str) -> str:
        """A text from outside, should it quote the key; a word such as "none", for servers without, is no key."""
        key = os.environ.get(self.key_variable, "")
        return text.replace(key, "(the key)") if len(key) > 10 else text


class _Pace:
    """Turns that keep to requests and tokens a minute, and to the pauses that a server asks for."""

    def __init__(self, requests: float | None, tokens: float | None):
        self.requests, self.tokens, self.free = requests, tokens, 0.0
        self._given = (requests, tokens)

    def turn(self, tokens: int) -> float:
        """Seconds to wait for the next turn, which is then taken."""
        at = max(self.free, time.monotonic())
        self.free = at + max(60 / (self.requests or float("inf")), 60 * tokens / (self.tokens or float("inf")))
        return at - time.monotonic()

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take limits from a reply's headers, unless they were given."""
        for name, given in zip(("requests", "tokens"), self._given, strict=True):
            told = headers.get(f"x-ratelimit-limit-{name}", "")
            if given is None and told.isdecimal() and int(told):
                setattr(self, name, float(told))

    def pause(self, seconds: float) -> None:
        """Nobody's turn comes sooner."""
        self.free = max(self.free, time.monotonic() + seconds)


class _Asking:
    """One call's missing requests, on their way."""

    def __init__(self, endpoint: Endpoint, price: Price, replies: Replies, missing: dict[str, tuple[str, dict]]):
        self.endpoint, self.price, self.replies, self.missing = endpoint, price, replies, missing
        self.pace = _Pace(endpoint.requests_per_minute, endpoint.tokens_per_minute)
        self.got: dict[str, Reply] = {}
        self.stop: WorkbenchError | None = None
        self.halted = False  # by Ctrl-C
        self.flying, self.failed_in_a_row, self.told = 0, 0, 0.0
        self.worst = {key: endpoint.worst(text) for key, (text, _) in missing.items()}

    def run(self) -> dict[str, Reply]:
        """In a thread of its own: a notebook's thread has a loop already, and Ctrl-C must find it."""
        client = self.endpoint.client()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(asyncio.run, self._all(client))
            try:
                future.result()
            except KeyboardInterrupt:
                self.halted = True
                raise
        if self.stop:
            raise self.stop
        return self.got

    async def _all(self, client: Any) -> None:
        async with client:
            queue = iter(self.missing)
            workers = min(self.endpoint.in_flight, len(self.missing))
            await asyncio.gather(*(self._worker(client, queue) for _ in range(workers)))
        self._tell(last=True)

    async def _worker(self, client: Any, queue: Iterator[str]) -> None:
        for key in queue:
            if self.stop or self.halted:
                return
            try:
                if reply := await self._one(client, key):
                    self.got[key] = reply
            except WorkbenchError as error:
                self.stop = self.stop or error
            self._tell()

    def _tell(self, last: bool = False) -> None:
        progress, now = self.endpoint.progress, time.monotonic()
        if progress and (last or now - self.told > 0.5):
            self.told, spent = now, self.replies.charged(self.endpoint.account)
            left = None if self.endpoint.cap is None else self.endpoint.cap - spent
            progress(Progress(len(self.got), len(self.missing), spent, left))

    async def _one(self, client: Any, key: str) -> Reply | None:
        """Its reply, kept; None where the call has to stop before there is one."""
        asked, body = self.missing[key]
        why = ""
        for attempt in range(1, self.endpoint.attempts + 1):
            await self._sleep(self.pace.turn(len(asked) // 4 + body[self.endpoint.length]))
            if not await self._reserved(self.worst[key]):
                return None
            began = time.perf_counter()
            self.flying += 1
            try:
                raw, why, paid, wait = await self._send(client, body, attempt)
            except WorkbenchError:  # nobody is answered, and nothing was paid
                self.replies.release(self.endpoint.account, self.worst[key])
                raise
            finally:
                self.flying -= 1
            if not paid:
                self.replies.release(self.endpoint.account, self.worst[key])
            if raw is not None or wait is None:
                spent = 1000 * (time.perf_counter() - began)
                return self._keep(key, Reply(key, "", raw, why or None, milliseconds=spent, attempts=attempt))
            if attempt < self.endpoint.attempts:
                self.pace.pause(wait) if paid is False else await self._sleep(wait)
        self.failed_in_a_row += 1
        if self.failed_in_a_row >= max(8, self.endpoint.in_flight):
            raise WorkbenchError(f"{self.endpoint.base_url} fails all the time ({why}): try later; what came is kept.")
        return self._keep(key, Reply(key, "", None, f"{why}, {attempt} times", attempts=attempt))

    def _keep(self, key: str, reply: Reply) -> Reply:
        account = self.endpoint.account
        self.replies.keep(account, self.missing[key][0], reply, price=str(self.price))
        if reply.raw is None:
            return reply
        self.failed_in_a_row = 0
        return self.replies.settle(account, reply, self.price, self.worst[key])

    async def _reserved(self, dollars: float) -> bool:
        """Whether the worst case could be charged; near the cap it waits for what others don't need after all."""
        while not self.stop and not self.halted:
            if self.replies.reserve(self.endpoint.account, dollars, self.endpoint.cap):
                return True
            if not self.flying:
                left = self.endpoint.cap - self.replies.charged(self.endpoint.account)
                raise WorkbenchError(
                    f"The cap of $ {self.endpoint.cap:g} leaves $ {left:.6f}, and one more request may cost $ "
                    f"{dollars:.6f}: {len(self.got):,} of {len(self.missing):,} came and are kept; raise cap to go on."
                )
            await asyncio.sleep(0.01)
        return False

    async def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stop and not self.halted and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.5))

    async def _send(self, client: Any, body: dict, attempt: int) -> tuple[bytes | None, str, bool, float | None]:
        """(the raw reply, or why there is none, whether it may have been paid, seconds to wait; None: not again)."""
        import httpx2
        import openai

        wait = min(0.5 * 2 ** (attempt - 1), 8) * (1 - random.random() / 4)
        try:
            body = {"model": self.endpoint.model, **body}
            response = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            response = error.response
        except openai.APIConnectionError as error:
            cause = error.__cause__
            lost = not isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout)
            why = self.endpoint.without_key(f"{type(cause or error).__name__} {reason(cause or error)}".strip())
            if not lost and attempt == self.endpoint.attempts:
                raise self._refuses(f"can't be reached ({why})", "check base_url") from None
            return None, why, lost, wait
        self.pace.learn(response.headers)
        if response.status_code == 200:
            quoted = self.endpoint.without_key(response.content.decode("utf-8", "surrogateescape"))
            raw = quoted.encode("utf-8", "surrogateescape")
            if raw.lstrip()[:1] == b"<":
                raise self._refuses("answers with a web page, not JSON", "a proxy may stand before it; check base_url")
            return raw, "", True, None
        return None, *self._status(response, wait)

    def _status(self, response: Any, wait: float) -> tuple[str, bool, float | None]:
        """(why, whether it may have been paid, seconds to wait) of a status that is no success."""
        told = self.endpoint.without_key(_message(response))
        why, status = f"HTTP {response.status_code} {told}".strip(), response.status_code
        if status in (401, 403):
            raise self._refuses(f"refuses the key in {self.endpoint.key_variable}", f"give another ({why})")
        if status in (402, 429) and ("quota" in told or status == 402):
            raise self._refuses("says that the account is empty", f"top it up ({why})")
        if status == 404:
            raise self._refuses(f"has no model {shown(self.endpoint.model)} there", f"check model and base_url ({why})")
        if status in (408, 409, 429) or status >= 500:
            asked = _seconds(response.headers)
            if asked is not None and asked > LONGEST_WAIT:
                raise self._refuses(f"asks for a pause of {asked:.0f} seconds", "go on then; what came is kept")
            return why, False, wait if asked is None else asked
        own = any(word in told.lower() for word in ("context", "too long", "content_filter", "maximum"))
        if not own and not self.got:  # what is wrong with the first is wrong with all
            other = next(name for name in LENGTHS if name != self.endpoint.length)
            hint = f"set length={other!r}" if self.endpoint.length in told and other in told else "see extra="
            self.stop = self.stop or Refused(str(self._refuses("refuses the request", f"{hint} ({why})")))
        return why, False, None

    def _refuses(self, what: str, todo: str) -> WorkbenchError:
        return WorkbenchError(f"{self.endpoint.base_url} {what}: {todo}.")


def _message(response: Any) -> str:
    """What an error's body says, in short."""
    try:
        body = response.json()
        error = body.get("error", body)
        told = f"{error.get('code') or ''} {error['message']}" if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, AttributeError):
        told = "" if "<" in response.text[:20] else response.text
    return " ".join(told.split())[:300]


def _seconds(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds, whether it is a number or a date."""
    from email.utils import parsedate_to_datetime

    told = headers.get("retry-after", "")
    try:
        return None if math.isnan(told := float(told)) else max(told, 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(told).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
