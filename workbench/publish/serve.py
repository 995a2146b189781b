"""Serve this student: `python serve.py [PORT]`, then `curl -d '["a text"]' localhost:8000`.

POST a JSON list of texts; the reply is a JSON list of {"label", "score"} in their order, with "refused": true beside
them where the score, a probability, is below refuse_below of config.json; or {"error": what to do} with status 400,
405, 408, 411, 413, 500, or 503 (busy: try again). GET /metrics counts, for Prometheus. One request a connection, no
TLS, for this machine only: put a proxy in front of it for others. Needs Python 3.11, onnxruntime, tokenizers and numpy.

`python serve.py --escalate https://…/v1 --model NAME --cap DOLLARS --price IN/OUT` sends texts that score below
--threshold T (else refuse_below) to a teacher, any OpenAI-compatible API whose key is in OPENAI_API_KEY: its answer is
{"label", "score": null, "escalated": true}. If none comes within --timeout SECONDS (10), the student's stands, with
"escalated": false and the "reason". The cap is for any hour of this process, the price for a million tokens.

Its one idea: whoever asks, memory and places are bounded. The limits stand first, `Server` keeps them, and `steps`
cuts the work into pieces that let others pass. `README.md` says what the student is good for; escalate.py, needed for
nothing else, asks the teacher.
"""

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from getopt import GetoptError, gnu_getopt
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it would send Microsoft how it is used; read once, while it is imported
import onnxruntime  # noqa: E402

if TYPE_CHECKING:
    from escalate import Teacher

MAX_HEAD = 16 * 1024  # bytes of request line and headers, as in common servers
MAX_BODY = 1024**2  # bytes; every open connection may hold as many
MAX_TEXTS = 10_000  # a request: each costs some time and memory, however short
MAX_CHARACTERS = 100_000  # a text, and texts tokenised at once: a tokenizer takes hundreds of bytes for each
MAX_ROWS = 64  # texts a batch: more are hardly faster
MAX_AREA = 2**19  # of a batch: texts times squared tokens of the longest, at 30 bytes a head; one text may have more
MAX_CONNECTIONS = 100  # open and not being answered; for one more the oldest is dropped
MAX_REQUESTS = 16  # being answered, in turns; one more is told to come back
REQUEST_SECONDS = 10.0  # for the whole of a request to arrive
REPLY_SECONDS = 10.0  # for the whole of a reply to leave, and the client to hang up
MAX_REST = 8 * MAX_BODY  # bytes that a refused client still sends: cut off at once, it would never read why
TEACHER = {"escalate", "model", "cap", "price"}  # options that escalation needs
OPTIONS = [f"{name}=" for name in (*TEACHER, "threshold", "timeout")]
JSON, TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"

here = Path(__file__).parent
config = json.loads((here / "config.json").read_text(encoding="utf-8"))
if lost := {"temperature", "refuse_below", "example"} - config.keys():
    sys.exit(
        f"config.json lacks {', '.join(sorted(lost))}, as where transformers saved it anew: put the shipped one back."
    )
names, temperature, refuse_below = config["id2label"], config["temperature"], config["refuse_below"]
example = json.dumps([config["example"]], ensure_ascii=False)  # a text of the student's own kind
tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))
pad_id = tokenizer.padding["pad_id"]
tokenizer.no_padding()  # a batch is padded when its texts are known
options = onnxruntime.SessionOptions()
options.enable_cpu_mem_arena = False  # it would keep the most that any batch took
options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would wait at full speed
session = onnxruntime.InferenceSession(here / "model_int8.onnx", options)


class Refusal(Exception):
    """A status other than 200, and one sentence that says what to do."""


def classify(texts: list[str]) -> list[dict]:
    """The label of each text and its probability; refused where that is too low."""
    *_, answers = steps(texts)
    return answers


def steps(texts: list[str]) -> Iterator[list[dict] | None]:
    """`classify` a batch at a time: None after every batch but the last, then the answers."""
    answers: dict[int, dict] = {}
    for piece in pieces(range(len(texts)), lambda i: len(texts[i]), MAX_CHARACTERS):
        rows = dict(zip(piece, (row.ids for row in tokenizer.encode_batch([texts[i] for i in piece])), strict=True))
        for batch in pieces(piece, lambda i, rows=rows: len(rows[i]) ** 2, MAX_AREA):
            if answers:
                yield None
            ids = np.full((len(batch), len(rows[batch[-1]])), pad_id)
            mask = np.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : len(rows[i])], mask[row, : len(rows[i])] = rows[i], 1
            logits = session.run(None, {"input_ids": ids, "attention_mask": mask})[0] / temperature
            for i, s in zip(batch, np.exp(logits - logits.max(1, keepdims=True)), strict=True):
                answers[i] = {"label": names[str(s.argmax())], "score": float(s.max() / s.sum())}
                if answers[i]["score"] < refuse_below:
                    answers[i]["refused"] = True
    yield [answers[i] for i in range(len(texts))]


def pieces(items: Iterable[int], size: Callable[[int], int], most: int) -> Iterator[list[int]]:
    """Items by size, up to MAX_ROWS together whose count times largest size is `most` or less; at least one."""
    piece: list[int] = []
    for i in sorted(items, key=size):
        if piece and (len(piece) == MAX_ROWS or (len(piece) + 1) * size(i) > most):
            yield piece
            piece = []
        piece.append(i)
    if piece:
        yield piece


def read_texts(body: bytes) -> list[str]:
    """What was sent, if it is a list of texts within the limits."""
    try:
        texts = json.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Refusal(400, f"Byte {error.start} is not UTF-8: send a JSON list of texts in UTF-8.") from None
    except RecursionError:
        raise Refusal(400, "The lists are nested too deep: send a JSON list of texts.") from None
    except ValueError as error:
        where = f" after {error.pos} characters" if isinstance(error, json.JSONDecodeError) else ""
        raise Refusal(400, f"This is not JSON{where}: send a JSON list of texts, such as {example}.") from None
    if not isinstance(texts, list) or not texts:
        given = "The list is empty" if texts == [] else "This is not a list"
        raise Refusal(400, f"{given}: send a JSON list of one text or more, such as {example}.")
    if len(texts) > MAX_TEXTS:
        raise Refusal(413, f"The list has {len(texts)} texts: send up to {MAX_TEXTS} at once.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise Refusal(400, f"Item {i}, counted from 0, is not a string: send a JSON list of texts.")
        if len(text) > MAX_CHARACTERS:
            raise Refusal(413, f"Text {i}, counted from 0, has {len(text)} characters: send up to {MAX_CHARACTERS}.")
        if re.search("[\ud800-\udfff]", text):
            raise Refusal(400, f"Text {i}, counted from 0, has half of a surrogate pair: send whole characters.")
    return texts


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    """The body of a request that is one; None if it asks for the metrics."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.split("\r\n")
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if not (asked := re.fullmatch(r"([!-~]+) ([!-~]+) HTTP/1\.[01]", start)):
            raise Refusal(400, "This is not a request of HTTP/1.1: POST a JSON list of texts.")
        if asked.groups() == ("GET", "/metrics"):
            return None
        if asked[1] != "POST":
            raise Refusal(405, "Only POST is answered: POST a JSON list of texts.")
        lengths = {value for name, value in fields if name == "content-length"}
        if not lengths or "transfer-encoding" in dict(fields):
            raise Refusal(411, "The length is missing: send the body in one piece, its bytes as Content-Length.")
        if len(lengths) > 1 or not re.fullmatch("[0-9]{1,15}", length := lengths.pop()):
            raise Refusal(400, "Content-Length is not a number of bytes: send the length of the body.")
        if int(length) > MAX_BODY:
            raise Refusal(413, f"The body has {int(length)} bytes: send up to {MAX_BODY} at once.")
        if dict(fields).get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await reader.readexactly(int(length))
    except asyncio.LimitOverrunError:
        raise Refusal(400, f"The headers have over {MAX_HEAD} bytes: send fewer.") from None
    except asyncio.IncompleteReadError:
        raise Refusal(400, "The request ended early: send all the bytes that Content-Length counts.") from None


class Server:
    """The connections, and the one thread that computes for them."""

    def __init__(self, teacher: "Teacher | None" = None) -> None:
        """Without connections; with a teacher of escalate.py, if there is one."""
        self.teacher, self.counts = teacher, Counter(student_texts_total=0, student_refused_total=0)
        self.idle: dict[asyncio.Task, None] = {}  # reading or sending, the oldest first
        self.busy: set[asyncio.Task] = set()  # being answered
        self.thread = ThreadPoolExecutor(1)  # steps in the order they were asked for: requests take turns

    def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one more client; if they are too many, drop the one that has kept us waiting longest."""
        if len(self.idle) >= MAX_CONNECTIONS:
            oldest = next(iter(self.idle))
            del self.idle[oldest]
            oldest.cancel()
        task = asyncio.create_task(self.talk(reader, writer))
        self.idle[task] = None
        task.add_done_callback(lambda task: (self.idle.pop(task, None), writer.transport.abort()))

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read a request, answer or refuse it, and see that the client could read that."""
        with suppress(OSError):  # it hung up, or is too slow
            try:
                status, (kind, reply) = 200, await self.answer(reader, writer)
            except Refusal as refusal:
                status, kind, reply = refusal.args[0], JSON, json.dumps({"error": refusal.args[1]}).encode()
            self.counts[f'student_requests_total{{code="{status}"}}'] += 1
            head = [
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
                f"Content-Type: {kind}",
                f"Content-Length: {len(reply)}",
                "Connection: close",
                *{405: ["Allow: POST"], 503: ["Retry-After: 1"]}.get(status, []),
            ]
            async with asyncio.timeout(REPLY_SECONDS):
                writer.transport.set_write_buffer_limits(0)  # drain() waits until all has left
                writer.write("\r\n".join([*head, "", ""]).encode() + reply)
                await writer.drain()
                writer.write_eof()
                rest = MAX_REST
                while rest > 0 and (more := await reader.read(MAX_HEAD)):
                    rest -= len(more)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, bytes]:
        """The reply to what the client sends, and its type."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                body = await read_request(reader, writer)
        except TimeoutError:
            raise Refusal(408, f"The request took over {REQUEST_SECONDS:g} seconds: send it faster.") from None
        if body is None:
            return TEXT, self.metrics()
        if len(self.busy) >= MAX_REQUESTS:
            raise Refusal(503, "Too many requests are being answered: send it again in a second.")
        task, work = asyncio.current_task(), work_on(body, self.teacher.threshold if self.teacher else 0, self.counts)
        del self.idle[task], body  # which may be long
        self.busy.add(task)
        compute, told = partial(asyncio.get_running_loop().run_in_executor, self.thread, work.send), None
        try:
            while not isinstance(reply := await compute(told), bytes):
                if reply:
                    self.busy.remove(task)  # others may be answered meanwhile
                    told = await self.teacher.ask(reply)
                elif reader.at_eof() or writer.is_closing():
                    raise ConnectionResetError  # nobody reads the answer
            return JSON, reply
        except (Refusal, ConnectionResetError):
            raise
        except Exception as error:  # a server goes on
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            raise Refusal(500, f"The model fails on these texts ({type(error).__name__}): send others.") from None
        finally:
            self.busy.discard(task)
            self.idle[task] = None

    def metrics(self) -> bytes:
        """What was counted, in the text format of Prometheus."""
        lines, last = [], ""
        for name, value in sorted({**self.counts, **(self.teacher.measured() if self.teacher else {})}.items()):
            if (family := name.partition("{")[0]) != last:
                last = family
                lines.append(f"# TYPE {family} {'counter' if family.endswith('_total') else 'gauge'}")
            lines.append(f"{name} {value}")
        return "\n".join([*lines, ""]).encode()


def work_on(body: bytes, threshold: float, counts: Counter) -> Generator[bytes | dict[int, str] | None, dict | None]:
    """The reply to a body, in `steps`; before it come texts that score below the threshold, for `Teacher.ask`."""
    texts = read_texts(body)
    del body
    for answers in steps(texts):
        if answers is None:
            yield None
    counts["student_texts_total"] += len(texts)
    counts["student_refused_total"] += sum("refused" in answer for answer in answers)
    if unsure := {i: texts[i] for i, answer in enumerate(answers) if answer["score"] < threshold}:
        for i, told in (yield unsure).items():
            answers[i] = told if told["escalated"] else answers[i] | told
    yield json.dumps(answers).encode()


async def main(port: int, teacher: "Teacher | None" = None) -> None:
    """Serve until Ctrl-C cancels it, or SIGTERM."""
    ended = asyncio.Event()
    with suppress(NotImplementedError):  # Windows has no SIGTERM
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    try:
        listening = await asyncio.start_server(Server(teacher).connect, "127.0.0.1", port, limit=MAX_HEAD)
    except (OSError, OverflowError) as error:
        sys.exit(f"Can't listen on port {port} ({error}): give a free one, python serve.py PORT.")
    print("Serving on http://{}:{}/".format(*listening.sockets[0].getsockname()), flush=True)
    await ended.wait()


def run(arguments: list[str]) -> None:
    """Serve on the port given, with the teacher if there is one, until Ctrl-C or SIGTERM; or say how."""
    if {"-h", "--help"} & {*arguments}:
        return print(__doc__.replace('["a text"]', example))
    try:
        given, ports = gnu_getopt(arguments, "", OPTIONS)
    except GetoptError as error:
        sys.exit(f"Can't start ({error.msg}): python serve.py PORT, or see python serve.py --help.")
    if len(ports) > 1 or not re.fullmatch("[0-9]{1,5}", (port := [*ports, "8000"][0])):
        sys.exit(f"The port is {' '.join(ports)!r}: give one number, python serve.py PORT.")
    teacher = None
    if options := {name.removeprefix("--"): value for name, value in given}:
        if lost := sorted(TEACHER - options.keys()):
            sys.exit(f"To escalate, --{', --'.join(lost)} must be given: see python serve.py --help.")
        from escalate import Teacher

        teacher = Teacher(options, refuse_below, names.values())
    with suppress(KeyboardInterrupt):
        asyncio.run(main(int(port), teacher))


if __name__ == "__main__":
    run(sys.argv[1:])
