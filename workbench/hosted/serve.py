"""Any teacher of ours as an OpenAI-compatible endpoint on this machine: a paid teacher to rehearse with, with faults.

`python -m workbench serve minilm-finetuned` starts one; `python -m workbench serve smollm2` serves a language model by
llama.cpp (`xllamacpp`, extra ``local``). Both listen on the loopback address only.
"""

import argparse
import json
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import numpy as np
from scipy.special import log_softmax

from workbench import weights
from workbench.errors import Number, WorkbenchError, unknown, whole
from workbench.tasks import load_task
from workbench.teacher import Teacher
from workbench.teachers import load_teacher

FAULTS = {
    "429": "too many requests, without a word on when to come back",
    "429-after": "too many requests, with Retry-After",
    "500": "an error of the server",
    "slow": "an answer after `slow` seconds",
    "cut": "half a JSON object",
    "schema": "JSON of another form",
    "refusal": "the model refuses",
    "no-logprobs": "log-probabilities asked for and left out without a word",
    "renamed": "another model answers",
}
SHARE = Number(0, 1)
OTHERS = {f"<{i}>": -40.0 - i for i in range(20)}  # the rest of a language model's vocabulary

S = TypeVar("S", bound=ThreadingHTTPServer)


class Served(ThreadingHTTPServer):
    """A teacher behind HTTP, in threads of this process; `running` starts one.

    Attributes:
        faults: fault -> share of the requests that it hits; may be changed while it runs.
        asked: the last message of each request that was answered or failed, in order.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, teacher: Teacher, name: str, port: int = 0, *, faults: Mapping[str, float] | None = None,
                 widest: int = 20, slow: float = 5.0, seed: int = 0):  # fmt: skip
        """`widest`: log-probabilities it gives at most; `seed`: of which requests are hit."""
        for fault, share in (faults or {}).items():
            if fault not in FAULTS:
                raise unknown("fault", fault, FAULTS)
            SHARE.check(f"the share of {fault}", share)
        self.teacher, self.name, self.faults = teacher, name, dict(faults or {})
        self.widest, self.slow, self.asked = whole("widest", widest, 0, 20), slow, []
        self._turn, self._rng = threading.Lock(), random.Random(seed)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise WorkbenchError(f"Can't listen on port {port} ({error}): choose another, or 0 for any.") from None

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no news."""

    def fault(self, text: str) -> str | None:
        """What is to go wrong with this request, if anything."""
        with self._turn:
            self.asked.append(text)
            draw = self._rng.random()
        for name, share in self.faults.items():
            if draw < share:
                return name
            draw -= share
        return None

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat completion: the class of the last message by its letter, or a number where one is asked for."""
        messages = body["messages"]
        text, rng = messages[-1]["content"], random.Random(body.get("seed"))
        codes = dict(re.findall(r"^([A-Z](?:-[A-Z])?): (.+)$", messages[0]["content"], re.MULTILINE))
        if len(messages) == 1 or not codes:
            digits = str(rng.randrange(10**11, 10**12))
            places = [{f'{{"n": {digits}}}' if "response_format" in body else digits: 0.0}]
        else:
            places = self._letters(text, codes)
        heat, content, words = body.get("temperature", 1), [], []
        for place, table in enumerate(places):
            if place == 2:  # of the group that was chosen
                table = self._members(text, codes, words[0])
            told = table | OTHERS
            tokens, values = list(told), np.array(list(told.values()))
            p = np.exp(log_softmax(values / heat)) if heat else values == values.max()
            word = rng.choices(tokens, p)[0] if heat else tokens[int(np.argmax(p))]
            words.append(word)
            width = min(body.get("top_logprobs", 0), self.widest)
            best = sorted(told.items(), key=lambda entry: -entry[1])[:width]
            content.append({**_entry(word, told[word]), "top_logprobs": [_entry(*entry) for entry in best]})
        longest = body.get("max_tokens") or body.get("max_completion_tokens") or 1_000
        end = "length" if longest <= len(words) and longest < 8 else "stop"
        message = {"role": "assistant", "content": "".join(words[:longest])}
        choice = {"index": 0, "finish_reason": end, "message": message}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": content[:longest]}
        read = sum(len(message["content"]) for message in messages) // 4 + 4 * len(messages)
        count = {"prompt_tokens": read, "completion_tokens": len(words), "total_tokens": read + len(words)}
        model = f"{self.name}-{self.teacher.fingerprint[:8]}"
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()), "model": model,
                "choices": [choice], "usage": count}  # fmt: skip

    def _log_p(self, text: str, codes: Mapping[str, str]) -> dict[str, float]:
        """Code -> log-probability; a code whose class is none of the teacher's gets next to nothing."""
        with self._turn:
            log_p = log_softmax(self.teacher.logits([text])[0].astype(float))
        known = dict(zip(self.teacher.label_names, log_p.tolist(), strict=True))
        return {code: known.get(name, known.get(name.rpartition(" (")[0], -30.0)) for code, name in codes.items()}

    def _letters(self, text: str, codes: Mapping[str, str]) -> list[dict[str, float]]:
        """Token -> log-probability, of each place in the answer."""
        told = self._log_p(text, codes)
        if not any("-" in code for code in codes):
            return [told]
        groups: dict[str, float] = {}
        for code, value in told.items():
            groups[code[0]] = float(np.logaddexp(groups.get(code[0], -np.inf), value))
        return [groups, {"-": 0.0}, {}]

    def _members(self, text: str, codes: Mapping[str, str], group: str) -> dict[str, float]:
        told = {code[2]: value for code, value in self._log_p(text, codes).items() if code[0] == group}
        return dict(zip(told, log_softmax(list(told.values())).tolist(), strict=True))


def command(options: argparse.Namespace) -> int:
    """`python -m workbench serve`: until Ctrl-C."""
    if options.name == "smollm2":
        with llama(options.port) as base_url:
            return _until_stopped("smollm2", base_url)
    shares = [fault.partition("=") for fault in options.fault]
    try:
        faults = {name: float(share or 1) for name, _, share in shares}
    except ValueError:
        raise WorkbenchError(f"--fault {' '.join(options.fault)}: write fault and share, such as 500=0.1.") from None
    teacher = load_teacher(options.name, load_task(options.task))
    with running(teacher, options.name, port=options.port, faults=faults, widest=options.widest) as server:
        return _until_stopped(options.name, server.base_url)


def _until_stopped(name: str, base_url: str) -> int:
    print(f"{name} answers at {base_url}; Ctrl-C stops it.", flush=True)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
    return 0


def _entry(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": min(value, 0.0), "bytes": list(token.encode())}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave together: sent apart, each body waits 40 ms for an acknowledgement
    server: Served

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            body = json.loads(raw)
            messages = body["messages"]
            fault = self.server.fault(messages[-1]["content"])
        except (ValueError, TypeError, KeyError, IndexError):
            return self.say(400, _wrong("give JSON with messages"))
        if not self.path.endswith("/chat/completions"):
            return self.say(404, _wrong("no such address"))
        if body.get("model") != self.server.name:
            return self.say(404, _wrong(f"the model {body.get('model')} does not exist", "model_not_found"))
        if body.get("top_logprobs", 0) > self.server.widest and self.server.widest:
            return self.say(400, _wrong(f"top_logprobs is at most {self.server.widest}"))
        if fault in ("429", "429-after"):
            return self.say(429, _wrong("slow down"), {"Retry-After": "0.2"} if fault == "429-after" else {})
        if fault == "500":
            return self.say(500, _wrong("the server had an error"))
        if fault == "slow":
            time.sleep(self.server.slow)
        self.say(200, _spoilt(fault, self.server.complete(body)), cut=fault == "cut")

    def say(self, status: int, body: dict, headers: Mapping[str, str] | None = None, *, cut: bool = False) -> None:
        raw = json.dumps(body).encode()
        raw = raw[: len(raw) // 2] if cut else raw
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _wrong(message: str, code: str | None = None) -> dict:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


def _spoilt(fault: str | None, body: dict) -> dict:
    choice = body["choices"][0]
    match fault:
        case "schema":
            return {"object": "chat.completion", "model": body["model"], "answers": ["B"], "usage": body["usage"]}
        case "refusal":
            choice["message"] |= {"content": None, "refusal": "I can't help with that."}
            choice.pop("logprobs", None)
        case "no-logprobs":
            choice.pop("logprobs", None)
        case "renamed":
            body["model"] += "-new"
    return body


@contextmanager
def answering(server: S) -> Iterator[S]:
    """The server, answering in a thread of its own until the context ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def running(teacher: Teacher, name: str, **options: Any) -> AbstractContextManager[Served]:
    """A `Served` that answers until the context ends; options as there."""
    return answering(Served(teacher, name, **options))


@contextmanager
def llama(port: int = 0, *, context: int = 4096, threads: int = 1) -> Iterator[str]:
    """SmolLM2-135M-Instruct behind llama.cpp's own server: yields its base URL.

    Raises:
        WorkbenchError: `xllamacpp` is not installed.
    """
    try:
        import xllamacpp
    except ImportError:
        raise WorkbenchError("Serving a GGUF needs llama.cpp: pip install -e '.[local]'.") from None
    params = xllamacpp.CommonParams()
    params.model.path = str(weights.original("SmolLM2-135M-Instruct"))
    params.hostnames, params.port, params.n_ctx = ["127.0.0.1"], port, context
    params.cpuparams.n_threads, params.model_alias, params.verbosity = threads, {"smollm2"}, -1
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server
