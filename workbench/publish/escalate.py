"""Beside `serve.py`: a teacher behind any OpenAI-compatible API, asked for the texts that the student is unsure of.

What is asked and how an answer is read stands in escalate.json: the body of a request, to which the model and the text
are added, and the class that each code names. Standard library only; no proxy, no redirect, nothing is sent twice.

Its one idea: the student's answer is there already, so whatever goes wrong, it stands, with the reason. So many texts
may be under way, so long may a request wait, so much may an hour cost, and a teacher that is down is left alone.
"""

import asyncio
import http.client
import io
import json
import os
import re
import ssl
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from email.message import Message
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

MAX_ASKED = 32  # texts with the teacher at once, and so requests that wait for it
MAX_REPLY = 2**20  # bytes
MAX_FAILURES = 3  # in a row; then the teacher is down
PAUSE = 10.0  # seconds that a teacher that is down is left alone; then one text tries
MAX_PAUSE = 120  # seconds that a teacher may ask for
HOUR = 60  # minutes that the cap holds for, beside the one that has begun
TEMPLATE = 256  # tokens that a chat template may put around the messages
FAILED = ("no connection", "unreadable")  # kinds of reply that, like most statuses, tell of a teacher that is down
OF_THE_TEXT = ("status 400", "status 413", "status 422")  # these don't: the next text may be another matter
LOCAL = ("127.0.0.1", "localhost", "::1")
KEY = "OPENAI_API_KEY"


class Said(NamedTuple):
    """A reply: "answer" or what it is instead, its text, tokens read and written if told, a pause that is asked for."""

    kind: str
    text: str = ""
    tokens: tuple[int, int] | None = None
    pause: str = ""


class Teacher:
    """Who is asked, and on which terms. All of it runs on the server's one loop.

    Attributes:
        threshold: texts are asked for whose score is below it.
        free: texts that may be sent at once with those that are under way.
        counts: what was asked and what came, by its name in Prometheus' format.
    """

    def __init__(self, options: Mapping[str, str], threshold: float, names: Collection[str]) -> None:
        """From the command line, the student's own threshold and its classes; ends the program if that won't do."""
        self.address, self.model = _address(options["escalate"]), options["model"]
        self.tls = ssl.create_default_context() if self.address.scheme == "https" else None
        self.key = os.environ.get(KEY, "")
        if not re.fullmatch("[!-~]*", self.key) or (self.tls and not self.key):
            sys.exit(f"The environment variable {KEY} holds no key: set it to the one for {self.address.hostname}.")
        if not threshold and "threshold" not in options:
            sys.exit("config.json has no threshold (refuse_below is 0): give --threshold, above 0 and up to 1.")
        self.threshold = _number("threshold", options.get("threshold", threshold), 1)
        self.cap = _number("cap", options["cap"], 1e6)
        self.timeout = _number("timeout", options.get("timeout", 10), 600)
        prices = options["price"].split("/")
        if len(prices) != 2:
            sys.exit(f"--price is {options['price']!r}: give dollars a million tokens, IN/OUT, such as 0.15/0.6.")
        self.prices = [_number("price", price, 1e6) for price in prices]
        self.body, self.codes, self.longest = _escalation(Path(__file__).with_name("escalate.json"), names)
        self.names = {name.strip().casefold(): name for name in self.codes.values()}
        self.counts = Counter(teacher_asked_total=0, teacher_answered_total=0)
        self.free, self.failures = MAX_ASKED, 0
        self.failed, self.next_try, self.heard = 0.0, 0.0, 0.0  # when, in seconds of the clock
        self.minutes: dict[int, float] = {}  # minute -> dollars, those of the last hour
        if (least := self.worst(self.request(""))) > self.cap:
            sys.exit(f"--cap is {self.cap:g} dollars an hour, and one text may cost {least:.2g}: give more.")

    async def ask(self, texts: Mapping[int, str]) -> dict[int, dict]:
        """What the answer to each text takes from the teacher: a label, or why there is none; in `timeout` seconds."""
        told: dict[int, dict] = {}
        started, todo = time.monotonic(), iter(texts.items())
        places = min(len(texts), (self.free + 1) // 2)  # a long list leaves half of what is free to others
        self.free -= places
        try:
            async with asyncio.timeout(self.timeout):
                await asyncio.gather(*(self.work(todo, told) for _ in range(places)))
        except TimeoutError:
            if self.heard < started:  # nobody was answered meanwhile: it isn't for the length of this list
                self.fail()
        finally:
            self.free += places
        for i in texts.keys() - told.keys():
            told[i] = _unanswered("time-out" if places else "busy")
        for answer in told.values():
            why = answer.get("reason")
            self.counts[f'teacher_unanswered_total{{reason="{why}"}}' if why else "teacher_answered_total"] += 1
        return told

    async def work(self, todo: Iterator[tuple[int, str]], told: dict[int, dict]) -> None:
        """Ask for one text after another."""
        for i, text in todo:
            label, why = await self.label(text)
            told[i] = _unanswered(why) if label is None else {"label": label, "score": None, "escalated": True}

    async def label(self, text: str) -> tuple[str | None, str]:
        """The class that the teacher names; or None, and why."""
        now, down = time.monotonic(), self.failures >= MAX_FAILURES
        if down and now < self.next_try:
            return None, "down"
        body, minute = self.request(text), int(now // 60)
        if self.spent(minute) + self.worst(body) > self.cap:
            return None, "over the cap"
        if down:
            self.next_try = now + PAUSE  # the others wait for what this one finds
        try:
            said = await self.post(body, minute)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, http.client.HTTPException):
            said = Said("no connection")
        if said.kind in FAILED or (said.kind.startswith("status") and said.kind not in OF_THE_TEXT):
            self.fail(said.pause)
        else:
            self.heard = time.monotonic()
            self.counts["teacher_seconds_total"] += self.heard - now
            if now > self.failed:  # what was sent before tells nothing of how it is since
                self.failures = 0
        return (self.named(said.text), "out of list") if said.kind == "answer" else (None, said.kind)

    async def post(self, body: bytes, minute: int) -> Said:
        """The reply to a request, which is charged at its worst case until it is known what it cost."""
        worst, cost = self.worst(body), 0.0
        self.charge(worst, minute)
        try:
            port = self.address.port or (443 if self.tls else 80)
            reader, writer = await asyncio.open_connection(self.address.hostname, port, ssl=self.tls)
            cost = worst  # from here on it may be paid
            self.counts["teacher_asked_total"] += 1
            try:
                writer.write(self.head(len(body)) + body)
                status, headers, raw = await _read_reply(reader)
            finally:
                writer.transport.abort()
            if status != 200:
                cost = 0.0
                return Said(f"status {status}", pause=headers.get("retry-after", ""))
            said = read(raw, short=self.longest == 1)
            cost = self.dollars(*said.tokens) if said.tokens else worst
            return said
        finally:
            self.charge(cost - worst, minute)
            self.counts["teacher_dollars_total"] += cost

    def named(self, said: str) -> str | None:
        """The class of an answer, by its code or its name."""
        told = said.strip().rstrip(".").strip()
        return self.codes.get(told.replace("-", ""), self.names.get(told.casefold()))

    def request(self, text: str) -> bytes:
        """The body that asks for the class of a text."""
        messages = [*self.body["messages"], {"role": "user", "content": text}]
        return json.dumps({**self.body, "model": self.model, "messages": messages}, ensure_ascii=False).encode()

    def head(self, length: int) -> bytes:
        """What stands before a body of so many bytes."""
        lines = [
            f"POST {self.address.path.rstrip('/')}/chat/completions HTTP/1.1",
            f"Host: {self.address.netloc}",
            *([f"Authorization: Bearer {self.key}"] if self.key else []),
            "Content-Type: application/json",
            f"Content-Length: {length}",
            "User-Agent: serve.py",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def fail(self, pause: str = "") -> None:
        """Count a failure; from a pause that the teacher asks for it is down at once."""
        asked = min(int(pause), MAX_PAUSE) if re.fullmatch("[0-9]{1,9}", pause) else 0
        self.failures, self.failed = MAX_FAILURES if asked else self.failures + 1, time.monotonic()
        self.next_try = self.failed + (asked or PAUSE)

    def dollars(self, read: int, written: int) -> float:
        """What so many tokens cost."""
        return (read * self.prices[0] + written * self.prices[1]) / 1e6

    def worst(self, body: bytes) -> float:
        """Dollars that a request can cost: a token is at least a byte, and the answer as long as it may be."""
        return self.dollars(len(body) + TEMPLATE, self.longest)

    def spent(self, minute: int) -> float:
        """Dollars of the hour that ends with this minute; what is older is forgotten."""
        self.minutes = {m: dollars for m, dollars in self.minutes.items() if m >= minute - HOUR}
        return sum(self.minutes.values())

    def charge(self, dollars: float, minute: int) -> None:
        """Add to what a minute cost, or take from it."""
        self.minutes[minute] = self.minutes.get(minute, 0.0) + dollars

    def measured(self) -> dict[str, float]:
        """`counts`, and what is true now."""
        spent = self.spent(int(time.monotonic() // 60))
        now = {"teacher_dollars_an_hour": spent, "teacher_cap_dollars_an_hour": self.cap, "teacher_free": self.free}
        return {**self.counts, **now, "teacher_up": int(self.failures < MAX_FAILURES)}


def read(raw: bytes, *, short: bool) -> Said:
    """What a reply is, as `workbench.hosted.replies` reads it; `short`: one token was asked for, no length cuts it."""
    tokens = None
    try:
        body = json.loads(raw)
        told = body.get("usage") or {}
        counts = (told.get("prompt_tokens"), told.get("completion_tokens"))
        tokens = counts if all(type(n) is int and n >= 0 for n in counts) else None
        choice = body["choices"][0]
        message, end = choice["message"], choice.get("finish_reason")
        text = message.get("content") or ""
        if message.get("refusal") or end == "content_filter":
            return Said("refused", "", tokens)
        if end not in ("stop", "length", "eos", None) or not isinstance(text, str):
            return Said("unreadable", "", tokens)
        if end == "length" and not short:
            return Said("truncated", "", tokens)
        return Said("answer" if text else "empty", text, tokens)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return Said("unreadable", "", tokens)


async def _read_reply(reader: asyncio.StreamReader) -> tuple[int, Message, bytes]:
    """Status, headers and body; a ValueError or EOFError if it is none, or over MAX_REPLY."""
    start, _, lines = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
    if not (found := re.fullmatch(rb"HTTP/1\.[01] ([1-5][0-9]{2})( .*)?", start)):
        raise ValueError("no reply of HTTP/1.1")
    headers, raw = http.client.parse_headers(io.BytesIO(lines)), b""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while size := _size(int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16), MAX_REPLY - len(raw)):
            raw += (await reader.readexactly(size + 2))[:size]
    elif length := headers.get("content-length"):
        raw = await reader.readexactly(_size(int(length), MAX_REPLY))
    else:
        while more := await reader.read(2**16):
            raw += more
            _size(len(raw), MAX_REPLY)
    return int(found[1]), headers, raw


def _size(size: int, most: int) -> int:
    if not 0 <= size <= most:
        raise ValueError("no length, or too long")
    return size


def _unanswered(why: str) -> dict:
    return {"escalated": False, "reason": why}


def _address(url: str) -> SplitResult:
    """The parts of an address to which a key may be sent; it is never quoted, as it may hold a password."""
    with suppress(ValueError):
        parts = urlsplit(url)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL)
        odd = parts.query or parts.fragment or "@" in parts.netloc or not re.fullmatch("[!-~]+", url)
        if secure and parts.hostname and not odd and parts.port != 0:
            return parts
    sys.exit("--escalate is no address to send to: give https://…/v1, or http://… on this machine, with no key in it.")


def _number(name: str, told: str | float, most: float) -> float:
    """Above 0 and up to `most`."""
    with suppress(ValueError):
        if 0 < (value := float(told)) <= most:
            return value
    sys.exit(f"--{name} is {told}: give a number above 0, up to {most:g}.")


def _escalation(path: Path, names: Collection[str]) -> tuple[dict, dict[str, str], int]:
    """The body of a request, code of an answer -> class, and the tokens of an answer."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        body, codes = told["body"], told["classes"]
        longest = body.get("max_tokens") or body["max_completion_tokens"]
        if not codes or {*codes.values()} - {*names} or not isinstance(body["messages"], list) or longest < 1:
            raise ValueError("it is of another student")
        return body, codes, longest
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        sys.exit(f"{path.name} can't be used ({type(error).__name__}: {error}): put the shipped one back.")
