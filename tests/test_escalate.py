"""A shipped student that asks a teacher where it is unsure: no answer is lost, no cap passed, no key told."""

import asyncio
import importlib.util
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler
from types import SimpleNamespace

import numpy as np
import pytest
from refusal import check_sentence
from served import SOAK_SECONDS, crowd, started, wait_until
from server import completion, saying
from test_hosted_teacher import BAD

from workbench.hosted.endpoint import Endpoint
from workbench.hosted.prices import Price
from workbench.hosted.serve import answering, llama, running
from workbench.hosted.teacher import hard_request, load_teacher
from workbench.publish import ship
from workbench.teachers import BagOfWords

CANARY = "sk-canary-5d20c3"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
PRICE = Price(0.1, 0.4)
REASONS = {
    "429": "status 429", "429-after": "status 429", "500": "status 500", "slow": "time-out", "cut": "unreadable",
    "schema": "unreadable", "refusal": "refused", "no-logprobs": None, "renamed": None,
}  # fmt: skip


def options(base_url: str, **given) -> list[str]:
    """The command line: every text is unsure, unless a threshold is given."""
    told = {"escalate": base_url, "model": "words", "threshold": 1, "cap": 10, "price": "0.1/0.4", "timeout": 60}
    return [part for name, value in (told | given).items() for part in (f"--{name}", str(value))]


@contextmanager
def escalating(made, home: Path, base_url: str, patch: str = "", variables: dict | None = None, **given):
    """The shipped server with a teacher; a patch is of `escalate`."""
    patch = patch and f"import escalate\n{patch}"
    variables = {"OPENAI_API_KEY": CANARY} | (variables or {})
    with started(made.folder, home, patch, options=options(base_url, **given), variables=variables) as server:
        yield server


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory):
    """The same server without a teacher."""
    with started(made.folder, tmp_path_factory.mktemp("alone")) as server:
        yield server


def measured(server) -> dict[str, float]:
    """What /metrics says."""
    status, _, text = server.ask(METRICS)
    assert status == 200
    kinds = dict(re.findall(r"^# TYPE (\w+) (counter|gauge)$", text, re.M))
    values = dict(re.findall(r'^(\w+(?:\{\w+="[^"\n]+"\})?) (\S+)$', text, re.M))
    assert len(kinds) + len(values) == len(text.splitlines()) and text.endswith("\n")
    assert {name.partition("{")[0] for name in values} == set(kinds)
    return {name: float(value) for name, value in values.items()}


def unhurried(reply: dict | bytes) -> dict | bytes:
    """The same reply where more than one token was asked for: what ended by its length stops."""
    return json.loads(json.dumps(reply).replace('"length"', '"stop"')) if isinstance(reply, dict) else reply


def says(name: str, **body) -> bytes:
    return json.dumps(completion(name) | body).encode()


# --- whole servers


@pytest.mark.slow
def test_what_is_unsure_goes_to_the_teacher_and_nothing_else_leaves(made, alone, tmp_path):
    texts, names = made.task.test["text"][:], made.task.label_names
    own = alone.post(texts)[2]
    threshold = sorted(answer["score"] for answer in own)[len(own) // 2]
    unsure = [i for i, answer in enumerate(own) if answer["score"] < threshold]
    told = made.teacher.logits(texts).argmax(1)
    with (
        running(made.teacher, "words") as teacher,
        escalating(made, tmp_path, teacher.base_url, threshold=threshold) as server,
    ):
        answers = server.post(texts)[2]
        assert Counter(teacher.asked) == Counter(texts[i] for i in unsure) and 0 < len(unsure) < len(texts)
        for i, answer in enumerate(answers):
            by_teacher = {"label": names[told[i]], "score": None, "escalated": True}
            assert answer == (by_teacher if i in unsure else own[i])
        counts = measured(server)
    assert counts["student_texts_total"] == len(texts) and counts["teacher_up"] == 1
    assert counts["student_refused_total"] == sum("refused" in answer for answer in own)
    assert counts["teacher_asked_total"] == counts["teacher_answered_total"] == len(unsure)
    assert 0 < counts["teacher_dollars_an_hour"] == pytest.approx(counts["teacher_dollars_total"])
    assert counts['student_requests_total{code="200"}'] == 1 and counts["teacher_cap_dollars_an_hour"] == 10


@pytest.mark.slow
def test_the_threshold_is_the_shipped_one_unless_another_is_given(made, alone, tmp_path):
    texts = [*made.task.test["text"], *made.task.out_of_scope["text"]]
    wanted = ["refused" in answer for answer in alone.post(texts)[2]]
    given = options("http://127.0.0.1:9/v1")
    del given[4:6]
    with started(made.folder, tmp_path, options=given) as server:
        answers = server.post(texts)[2]
        assert ["escalated" in answer for answer in answers] == ["refused" in answer for answer in answers] == wanted
    assert {True, False} == {*wanted}
    assert "student_texts_total" in measured(alone) and not [name for name in measured(alone) if "teacher" in name]


@pytest.mark.slow
def test_whatever_a_teacher_does_the_answer_stands_and_a_sound_one_is_asked_again(made, alone, tmp_path):
    texts = ["the cat", "a saw", *made.task.test["text"][:3]]
    own = {text: alone.post([text])[2][0] for text in texts}
    patch = "escalate.PAUSE = 0.2"
    with (
        running(made.teacher, "words", slow=1.0) as teacher,
        escalating(made, tmp_path, teacher.base_url, patch, timeout=0.5) as server,
    ):
        for fault, reason in REASONS.items():
            teacher.faults = {fault: 1.0}
            answers = [server.post([text])[2][0] for text in texts]
            for text, answer in zip(texts, answers, strict=True):
                if reason:
                    assert answer == {**own[text], "escalated": False, "reason": answer["reason"]}
                    assert answer["reason"] in (reason, "down")
                else:
                    assert answer["escalated"] is True
            assert not reason or answers[0]["reason"] == reason
            teacher.faults = {}
            wait_until(lambda: server.post(["the cat"])[2][0]["escalated"])
        counts = measured(server)
    answered = counts["teacher_answered_total"] + sum(n for name, n in counts.items() if "unanswered" in name)
    assert answered == counts["student_texts_total"]


@pytest.mark.slow
def test_it_asks_and_reads_like_the_hosted_teacher(made, tmp_path):
    replies = {f"text {i}": unhurried(reply) for i, (reply, _) in enumerate(BAD)}
    good = ["A", " B.", "C\n", "animal", "TOOL.", " Fruit "]
    replies |= {f"text {name!r}": completion(name) for name in good}

    def answer(body):
        reply = replies.get(body["messages"][-1]["content"], completion())
        return 200, {}, reply if isinstance(reply, bytes) else json.dumps(reply).encode()

    with saying(answer) as source:
        endpoint = Endpoint(source.base_url, "words", price=PRICE, path=tmp_path / "r.sqlite")
        hosted = load_teacher(endpoint, made.task, access="hard")
        read = hosted.read([*replies])
        source.asked.clear()
        with escalating(made, tmp_path, source.base_url, "escalate.MAX_FAILURES = 10**9") as server:
            answers = server.post([*replies])[2]
        asked = {body["messages"][-1]["content"]: body for body in source.asked}
    for (text, reply), answer, kind, row in zip(replies.items(), answers, read.kinds, read.logits, strict=True):
        (sent,) = hosted.requests([text])
        assert asked[text] == {"model": "words", **endpoint.body(sent)}
        if kind == "answer":
            assert answer == {"label": made.task.label_names[row.argmax()], "score": None, "escalated": True}, reply
        elif answer["escalated"]:  # a sound answer of another model, or with something odd beside it
            assert reply["choices"][0]["message"]["content"] == "A" and answer["label"] == made.task.label_names[0]
            assert kind == "another model" or "logprobs" in str(reply) or "reasoning" in str(reply)
        else:
            assert answer["reason"] in (kind, "unreadable"), reply
    assert [row["escalated"] for row in answers[-len(good) :]] == [True] * len(good)
    why = {row["reason"] for row in answers if not row["escalated"]}
    assert why >= {"out of list", "refused", "empty", "unreadable"}


class Wire(StreamRequestHandler):
    """Reads a request and says `server.said`, byte for byte, then whatever `server.more` does."""

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.rfile.read(1)
        self.rfile.read(int(re.search(rb"Content-Length: (\d+)", head)[1]))
        self.server.heads.append(head)
        self.wfile.write(self.server.said)
        self.server.more(self.wfile)


@contextmanager
def wire():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Wire)
    server.daemon_threads, server.handle_error = True, lambda *_: None
    server.heads, server.more = [], lambda file: None
    server.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1/"
    with answering(server):
        yield server


OK, BODY = b"HTTP/1.1 200 OK\r\n", says("B")
WIRES = {
    "to the end": (OK + b"\r\n" + BODY, "escalated"),
    "of a length": (OK + b"Content-Length: %d\r\n\r\n%s and more" % (len(BODY), BODY), "escalated"),
    "in chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n%x;a=b\r\n%s\r\n0\r\n\r\n"
                  % (BODY[:5], len(BODY) - 5, BODY[5:]), "escalated"),
    "nothing": (b"", "no connection"),
    "no HTTP": (b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n", "no connection"),
    "half a head": (OK + b"Content-Type: a", "no connection"),
    "an endless head": (OK + b"a: b\r\n" * 20_000 + b"\r\n" + BODY, "no connection"),
    "a wrong length": (OK + b"Content-Length: 5000\r\n\r\n" + BODY, "no connection"),
    "no length": (OK + b"Content-Length: five\r\n\r\n" + BODY, "no connection"),
    "a length below 0": (OK + b"Content-Length: -5\r\n\r\n" + BODY, "no connection"),
    "a length over all": (OK + b"Content-Length: 999999999999\r\n\r\n" + BODY, "no connection"),
    "no chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n" + BODY, "no connection"),
    "too much": (OK + b"\r\n" + b" " * 2**21 + BODY, "no connection"),
    "another place": (b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", "status 307"),
    "a wrong status": (b"HTTP/1.1 9999 OK\r\n\r\n" + BODY, "no connection"),
    "a web page": (OK + b"\r\n<html>", "unreadable"),
    "other bytes": (OK + b"\r\n\x1f\x8b\x08\xff", "unreadable"),
}  # fmt: skip


@pytest.mark.slow
def test_whatever_comes_over_the_wire(made, alone, tmp_path):
    own = alone.post(["the cat"])[2][0]
    with (
        wire() as teacher,
        escalating(made, tmp_path, teacher.base_url, "escalate.MAX_FAILURES = 10**9", timeout=2) as server,
    ):
        idle, files = server.status("VmRSS"), server.files()
        for name, (teacher.said, what) in WIRES.items():
            (answer,) = server.post(["the cat"])[2]
            if what == "escalated":
                assert answer == {"label": made.task.label_names[1], "score": None, "escalated": True}, name
            else:
                assert answer == {**own, "escalated": False, "reason": what}, name

        def drip(file):
            for _ in range(600):  # a byte now and then buys no time
                file.write(b" ")
                time.sleep(0.02)

        def flood(file):
            while True:
                file.write(b" " * 2**16)

        for teacher.said, teacher.more, what in (
            (OK + b"\r\n", drip, "time-out"),
            (OK + b"\r\n", flood, "no connection"),
        ):
            assert server.post(["the cat"])[2][0]["reason"] == what
        assert server.status("VmHWM") - idle < 50_000
        wait_until(lambda: server.files() <= files)
    assert {re.search(rb"Authorization: (.*)\r", head)[1] for head in teacher.heads} == {b"Bearer " + CANARY.encode()}
    assert {head.partition(b"\r\n")[0] for head in teacher.heads} == {b"POST /v1/chat/completions HTTP/1.1"}


@pytest.mark.slow
def test_a_teacher_that_is_down_costs_no_answer_and_is_left_alone(made, alone, tmp_path):
    texts = [f"the cat {i}" for i in range(60)]
    own = [alone.post([text])[2][0] for text in texts]
    listening = socket.create_server(("127.0.0.1", 0))  # it takes connections and says nothing
    address = listening.getsockname()
    base_url, patch = f"http://127.0.0.1:{address[1]}/v1", "escalate.PAUSE = 0.5"
    with listening, escalating(made, tmp_path, base_url, patch, timeout=0.3) as server:
        start = time.monotonic()
        answers = [server.post([text])[2][0] for text in texts]
        outage = time.monotonic() - start
        for answer, mine in zip(answers, own, strict=True):
            assert answer == {**mine, "escalated": False, "reason": answer["reason"]}
        reasons = Counter(answer["reason"] for answer in answers)
        assert {*reasons} == {"time-out", "down"} and reasons["time-out"] <= 3 + outage / 0.5
        assert measured(server)["teacher_up"] == 0
        listening.close()
        with running(made.teacher, "words", port=address[1]) as teacher:
            wait_until(lambda: server.post(["the cat"])[2][0]["escalated"])
            assert measured(server)["teacher_up"] == 1 and teacher.asked


@pytest.mark.soak
@pytest.mark.timeout(SOAK_SECONDS + 300)
def test_an_outage_loses_no_answer(made, alone, tmp_path):
    """Eight clients ask all the while: a teacher answers, is gone, takes connections and hangs, fails, and is back."""
    texts = made.task.test["text"][:]
    own, back = {text: alone.post([text])[2][0] for text in texts}, threading.Event()
    names = [made.task.label_names[i] for i in made.teacher.logits(texts).argmax(1)]
    taught = {t: {"label": name, "score": None, "escalated": True} for t, name in zip(texts, names, strict=True)}
    with socket.create_server(("127.0.0.1", 0)) as found:  # a port that is free
        port = found.getsockname()[1]

    def ask(seed: int) -> list[tuple[float, float, bool, str | None]]:
        """When it was asked and answered, whether by the teacher, and why not."""
        rng, asked = random.Random(seed), []
        while not back.is_set():
            text, sent = rng.choice(texts), time.monotonic()
            status, _, (answer,) = server.post([text])
            why = answer.get("reason")
            wanted = own[text] | {"escalated": False, "reason": why} if why else taught[text]
            assert status == 200 and answer == wanted
            asked.append((sent, time.monotonic(), not why, why))
            time.sleep(0.2 * rng.random())
        return asked

    teacher = partial(running, made.teacher, "words", port=port)
    outages = [nullcontext, lambda: socket.create_server(("127.0.0.1", port)), lambda: teacher(faults={"500": 1.0})]
    patience = {"timeout": 5, "cap": 1000}
    with escalating(made, tmp_path, f"http://127.0.0.1:{port}/v1", **patience) as server, ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(ask, seed) for seed in range(8)]
        try:
            with teacher():
                time.sleep(SOAK_SECONDS / 20)
                memory, files = server.status("VmRSS"), server.files()
            gone, before = time.monotonic(), measured(server)["teacher_asked_total"]
            for outage in outages:
                with outage():
                    time.sleep(SOAK_SECONDS / len(outages))
            came, tries = time.monotonic(), measured(server)["teacher_asked_total"] - before
            with teacher():
                wait_until(lambda: measured(server)["teacher_up"] or any(client.done() for client in clients))
                resumed = time.monotonic()
                time.sleep(SOAK_SECONDS / 20)
                back.set()
                asked = [one for client in clients for one in client.result()]
        finally:
            back.set()
        counts, grown = measured(server), server.status("VmRSS") - memory
        assert server.files() <= files + 8
    during = [one for one in asked if gone < one[0] and one[1] < came]
    after = [one for one in asked if one[0] > resumed]
    told = {"answers": len(asked), "in the outage": len(during), "why": Counter(why for *_, why in during)}
    print(json.dumps(told | {"asked in vain": tries, "back after s": resumed - came, "grown by kB": grown}))
    assert during and not any(by_teacher for *_, by_teacher, _ in during)
    assert {why for *_, why in during} <= {"no connection", "time-out", "status 500", "down"}
    assert tries <= 8 + SOAK_SECONDS / 10  # those under way, then one in ten seconds
    assert after and all(by_teacher for *_, by_teacher, _ in after) and resumed - came < 30
    assert counts["student_texts_total"] == len(asked) and grown < 30_000


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False])
def test_the_cap_is_not_passed(made, tmp_path, told):
    def answer(body):
        reply = completion("A")
        if not told:
            del reply["usage"]
        return 200, {}, json.dumps(reply).encode()

    with saying(answer) as teacher, escalating(made, tmp_path, teacher.base_url, cap=2, price="1000/1000") as server:
        answers = [server.post([f"the cat {i}"])[2][0] for i in range(90)]
        counts = measured(server)
        bodies = [json.dumps(body, ensure_ascii=False) for body in teacher.asked]
    sent = [answer for answer in answers if answer["escalated"]]
    assert {answer["reason"] for answer in answers if not answer["escalated"]} == {"over the cap"}
    assert len(sent) == len(bodies) == counts["teacher_asked_total"]
    worst = [(len(body) + 256 + 8) / 1000 for body in bodies]
    spent = 0.021 * len(sent) if told else sum(worst)  # 20 tokens read, 1 written
    assert [counts[f"teacher_dollars_{name}"] for name in ("total", "an_hour")] == pytest.approx([spent, spent])
    assert 2 - max(worst) - 0.01 < spent <= 2


@pytest.mark.slow
@pytest.mark.parametrize("clients", [300, pytest.param(1000, marks=pytest.mark.soak)])
def test_a_crowd_at_once_is_answered_in_bounded_memory(made, tmp_path, clients):
    """Who is dropped or told to come back does; the rest is answered, by the student where the teacher is full."""
    most, now = 0, []

    def answer(body):
        nonlocal most
        now.append(1)
        most = max(most, len(now))
        time.sleep(0.3)
        now.pop()
        return 200, {}, says("A")

    with saying(answer) as teacher, escalating(made, tmp_path, teacher.base_url) as server:
        server.post(["the cat"])
        idle, threads = server.status("VmRSS"), server.status("Threads")
        found = crowd(server.port, [["the cat"] * 20 if i % 10 == 0 else [f"the cat {i}"] for i in range(clients)])
        answers = [answer for body, _ in found for answer in body]
        reasons = Counter(answer.get("reason") for answer in answers)
        print(json.dumps({"reasons": reasons, "tries": sum(tries for _, tries in found), "at the teacher": most}))
        assert len(found) == clients and reasons[None] > clients / 10 and set(reasons) <= {None, "busy", "time-out"}
        assert most <= 32 and server.status("Threads") == threads
        assert server.status("VmHWM") - idle < 100_000


@pytest.mark.slow
def test_the_key_is_nowhere(made, tmp_path):
    quoting = iter(range(1000))

    def answer(body):
        told = {"error": {"message": f"Incorrect API key provided: {CANARY}"}}
        kind = next(quoting) % 4
        if kind == 0:
            return 401, {"WWW-Authenticate": CANARY}, json.dumps(told).encode()
        return 200, {}, [b"", says(CANARY), json.dumps(told).encode(), CANARY.encode()][kind]

    with (
        saying(answer) as teacher,
        escalating(made, tmp_path, teacher.base_url, "escalate.MAX_FAILURES = 99") as server,
    ):
        said = [server.post(["the cat"]) for _ in range(8)]
        said.append(server.ask(METRICS))
        assert teacher.keys == {f"Bearer {CANARY}"}
        assert CANARY in Path(f"/proc/{server.process.pid}/environ").read_text()  # the one place
        assert CANARY not in Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert CANARY not in str(said) and [file.name for file in tmp_path.iterdir()] == ["stderr"]  # which is empty


@pytest.mark.slow
def test_over_tls_and_only_to_who_can_prove_its_name(made, tmp_path):
    openssl = shutil.which("openssl") or pytest.skip("no openssl here")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    how = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    told = [*how.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert]
    subprocess.run([openssl, *told], check=True, capture_output=True)
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with saying(lambda body: (200, {}, says("B"))) as teacher:
        teacher.socket = context.wrap_socket(teacher.socket, server_side=True)
        port = teacher.server_address[1]
        for host, trusted, what in (("localhost", cert, True), ("localhost", "", False), ("127.0.0.1", cert, False)):
            home = tmp_path / f"{host} {bool(trusted)}"
            home.mkdir()
            variables = {"SSL_CERT_FILE": str(trusted)} if trusted else {}
            with escalating(made, home, f"https://{host}:{port}/v1", variables=variables) as server:
                (answer,) = server.post(["the cat"])[2]
                assert answer["escalated"] is what and answer.get("reason") == (None if what else "no connection")
                assert measured(server)["teacher_asked_total"] == what
    assert len(teacher.asked) == 1


@pytest.mark.slow
def test_a_real_language_model_answers_or_leaves_it(made, alone, tmp_path):
    pytest.importorskip("xllamacpp")
    texts = made.task.test["text"][:4]
    own = alone.post(texts)[2]
    with llama() as base_url, escalating(made, tmp_path, base_url, model="smollm2", timeout=60) as server:
        answers = server.post(texts)[2]
        assert measured(server)["teacher_asked_total"] == len(texts) and measured(server)["teacher_up"] == 1
    for answer, mine in zip(answers, own, strict=True):
        assert answer["escalated"] or answer == {**mine, "escalated": False, "reason": answer["reason"]}
        assert answer["label"] in made.task.label_names
        assert answer.get("reason") in (None, "out of list", "truncated", "empty")


WRONG = [
    (["--modle", "x"], "option --modle not recognized"),
    (["--cap"], "option --cap requires argument"),
    (["--threshold", "0.5"], "To escalate, --cap, --escalate, --model, --price must be given"),
    (options("http://127.0.0.1:9/v1", cap=0), "--cap is 0: give a number above 0"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_what_is_wrong_on_the_command_line_is_one_sentence(made, arguments, words):
    done = subprocess.run([sys.executable, made.folder / "serve.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    check_sentence(done.stderr.strip(), words)


# --- one teacher, in this process, on a clock of ours


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 1e6

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def module(task, tmp_path, monkeypatch):
    """escalate.py as it is shipped, with a clock; what it sends goes to `module.reply`, which gives what comes."""
    body, classes = hard_request(task)
    (tmp_path / "escalate.json").write_text(json.dumps({"body": body, "classes": classes}))
    spec = importlib.util.spec_from_file_location("escalate", ship.__file__.replace("ship.py", "escalate.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.__file__ = str(tmp_path / "escalate.py")
    module.time = module.clock = Clock()
    module.sent = []

    async def open_connection(host, port, **_):
        reader = asyncio.StreamReader()

        def write(raw):
            module.sent.append(raw)
            reader.feed_data(module.reply(raw))
            reader.feed_eof()

        if module.reply is None:
            raise ConnectionRefusedError
        return reader, SimpleNamespace(write=write, transport=SimpleNamespace(abort=lambda: None))

    monkeypatch.setattr(module.asyncio, "open_connection", open_connection)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with asyncio.Runner() as runner:
        module.run = runner.run
        yield module


def teacher_of(module, **given):
    told = options("http://localhost/v1", **given)
    return module.Teacher(
        {k[2:]: v for k, v in zip(told[::2], told[1::2], strict=True)}, 0.5, ["animal", "fruit", "tool"]
    )


def test_ten_minutes_of_outage(module):
    teacher, clock, tries = teacher_of(module), module.clock, []
    module.reply = None
    for i in range(1200):
        clock.now += 0.5
        before = teacher.failures
        told = module.run(teacher.ask({i: "the cat", i + 1: "a saw"}))
        assert {*told} == {i, i + 1} and {row["escalated"] for row in told.values()} == {False}
        tries.append(teacher.failures - before)
    assert sum(tries) <= 3 + 600 / module.PAUSE + 1 and teacher.free == module.MAX_ASKED
    assert sum(teacher.minutes.values()) == teacher.counts["teacher_dollars_total"] == 0
    module.reply = lambda raw: OK + b"\r\n" + BODY
    clock.now += module.PAUSE
    assert module.run(teacher.ask({0: "the cat"}))[0]["label"] == "fruit" and teacher.failures == 0


def test_no_hour_costs_more_than_the_cap(module):
    rng, clock, paid = random.Random(0), module.clock, []

    def reply(raw):
        if (kind := rng.random()) < 0.1:
            return b"HTTP/1.1 500 No\r\n\r\n"
        tokens = {"prompt_tokens": rng.randint(1, 300), "completion_tokens": rng.randint(0, 8)}
        body = completion("A") | ({"usage": tokens} if kind < 0.8 else {"usage": {"prompt_tokens": -1}})
        worst = len(raw.partition(b"\r\n\r\n")[2]) + 256 + 8
        cost = (sum(tokens.values()) if kind < 0.8 else worst) / 1000
        paid.append((clock.now, cost))
        return OK + b"\r\n" + json.dumps(body).encode()

    module.reply, module.PAUSE = reply, 0
    teacher = teacher_of(module, cap=5, price="1000/1000")
    refused = 0
    for i in range(1500):
        clock.now += rng.expovariate(1 / 60)
        told = module.run(teacher.ask({j: f"the cat {i} {j}" for j in range(rng.randint(1, 5))}))
        refused += sum(row.get("reason") == "over the cap" for row in told.values())
        assert len(teacher.minutes) <= module.HOUR + 1
    when, cost = np.array(paid).T
    summed = np.r_[0, np.cumsum(cost)]
    hours = summed[np.searchsorted(when, when + 3600)] - summed[np.searchsorted(when, when)]
    total = cost.sum()
    assert hours.max() <= 5 + 1e-9 and len(paid) > 400
    assert refused > 100 and 5 * 10 < total == pytest.approx(teacher.counts["teacher_dollars_total"])
    assert teacher.measured()["teacher_dollars_an_hour"] <= 5


def test_a_long_list_leaves_places_to_others_and_is_no_outage(module):
    ended = asyncio.Event()

    async def hanging(host, port, **_):
        await ended.wait()
        raise ConnectionResetError

    module.asyncio.open_connection = hanging  # the fixture puts the true one back

    async def crowd():
        teacher = teacher_of(module, timeout=30)
        long = asyncio.create_task(teacher.ask(dict.fromkeys(range(1000), "the cat")))
        await asyncio.sleep(0)
        assert teacher.free == 16
        others = [asyncio.create_task(teacher.ask({0: "a saw"})) for _ in range(16)]
        await asyncio.sleep(0)
        assert teacher.free == 0
        assert await teacher.ask({7: "a saw"}) == {7: {"escalated": False, "reason": "busy"}}
        ended.set()
        assert Counter(row["reason"] for row in (await long).values()).keys() == {"no connection", "down"}
        await asyncio.gather(*others)
        assert teacher.free == 32

    module.run(crowd())


def test_time_runs_out_on_a_list_of_a_sound_teacher(module):
    async def slow(host, port, **_):
        await asyncio.sleep(0.02)
        reader = asyncio.StreamReader()
        reader.feed_data(OK + b"\r\n" + BODY)
        reader.feed_eof()
        return reader, SimpleNamespace(write=lambda raw: None, transport=SimpleNamespace(abort=lambda: None))

    module.asyncio.open_connection, module.time = slow, time
    teacher = teacher_of(module, timeout=0.3, cap=1000)
    told = module.run(teacher.ask(dict.fromkeys(range(5000), "the cat")))
    assert len(told) == 5000 and {row.get("reason") for row in told.values()} == {None, "time-out"}
    assert teacher.failures == 0 and teacher.free == 32


def test_a_pause_that_is_asked_for_is_kept(module):
    teacher, clock = teacher_of(module), module.clock
    for asked, pause in (("30", 30), ("99999", module.MAX_PAUSE), ("Fri, 31 Dec 2027 23:59:59 GMT", 0), ("0", 0)):
        clock.now += 1
        module.reply = lambda raw, asked=asked: f"HTTP/1.1 429 No\r\nRetry-After: {asked}\r\n\r\n".encode()
        assert module.run(teacher.label("the cat")) == (None, "status 429")
        module.reply = lambda raw: OK + b"\r\n" + BODY
        clock.now += max(pause - 0.1, 0.1)
        assert module.run(teacher.label("the cat")) == ((None, "down") if pause else ("fruit", "out of list")), asked
        clock.now += 0.2
        assert module.run(teacher.label("the cat"))[0] == "fruit"


def test_a_text_that_is_refused_says_nothing_of_the_next(module):
    teacher = teacher_of(module)
    module.reply = lambda raw: b"HTTP/1.1 400 Too long\r\n\r\n"
    assert {module.run(teacher.label("the cat"))[1] for _ in range(20)} == {"status 400"} and teacher.failures == 0


ODD = [
    ({"escalate": "ftp://a/v1"}, "--escalate is no address"),
    ({"escalate": "http://example.com/v1"}, "--escalate is no address"),
    ({"escalate": f"https://me:{CANARY}@example.com/v1"}, "--escalate is no address"),
    ({"escalate": f"https://example.com/v1?key={CANARY}"}, "--escalate is no address"),
    ({"escalate": "https://example.com:port/v1"}, "--escalate is no address"),
    ({"escalate": "http://localhost/v1\r\nA: b"}, "--escalate is no address"),
    ({"escalate": "http://[::1/v1"}, "--escalate is no address"),
    ({"escalate": ""}, "--escalate is no address"),
    ({"escalate": "https://example.com/v1"}, "OPENAI_API_KEY holds no key: set it to the one for example.com"),
    ({"threshold": "0"}, "--threshold is 0: give a number above 0, up to 1"),
    ({"threshold": "1.5"}, "--threshold is 1.5"),
    ({"threshold": "nan"}, "--threshold is nan"),
    ({"threshold": "high"}, "--threshold is high"),
    ({"cap": "-1"}, "--cap is -1"),
    ({"cap": "inf"}, "--cap is inf"),
    ({"cap": "0.00001"}, "--cap is 1e-05 dollars an hour, and one text may cost"),
    ({"price": "0.1"}, "--price is '0.1': give dollars a million tokens, IN/OUT"),
    ({"price": "0/0"}, "--price is 0: give a number above 0"),
    ({"price": "0.1/free"}, "--price is free"),
    ({"timeout": "0"}, "--timeout is 0"),
    ({"timeout": "601"}, "--timeout is 601: give a number above 0, up to 600"),
]


@pytest.mark.parametrize(("given", "words"), ODD)
def test_options_that_will_not_do_are_refused_in_one_sentence(module, given, words):
    with pytest.raises(SystemExit) as error:
        teacher_of(module, **given)
    check_sentence(str(error.value), words)
    assert CANARY not in str(error.value)


def test_a_key_that_is_none_and_a_student_without_a_threshold(module, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{CANARY}\r\nHost: b")
    with pytest.raises(SystemExit) as error:
        teacher_of(module)
    check_sentence(str(error.value), "holds no key")
    assert CANARY not in str(error.value)
    given = {"escalate": "http://localhost/v1", "model": "m", "cap": "1", "price": "1/1"}
    with pytest.raises(SystemExit, match="config.json has no threshold"):
        monkeypatch.delenv("OPENAI_API_KEY")
        module.Teacher(given, 0.0, ["animal", "fruit", "tool"])


BODIES = {
    "gone": None,
    "no JSON": "{",
    "a list": "[]",
    "no body": {"classes": {"A": "animal"}},
    "no length": {"body": {"messages": []}, "classes": {"A": "animal"}},
    "no messages": {"body": {"max_tokens": 8}, "classes": {"A": "animal"}},
    "of another student": {"body": {"messages": [], "max_tokens": 8}, "classes": {"A": "planet"}},
}


@pytest.mark.parametrize("name", BODIES)
def test_a_broken_escalate_json_is_said(module, tmp_path, name):
    (tmp_path / "escalate.json").unlink()
    if (told := BODIES[name]) is not None:
        (tmp_path / "escalate.json").write_text(told if isinstance(told, str) else json.dumps(told))
    with pytest.raises(SystemExit) as error:
        teacher_of(module)
    check_sentence(str(error.value), "escalate.json can't be used", "put the shipped one back")


# --- what is shipped


def test_a_hosted_teacher_is_asked_in_production_as_it_was_when_it_taught(task, tmp_path):
    with running(BagOfWords(task), "words") as server:
        more = {"length": "max_completion_tokens", "extra": {"seed": 1}}
        endpoint = Endpoint(server.base_url, "words", price=PRICE, path=tmp_path / "r.sqlite", **more)
        about = {"descriptions": {"tool": "what a hand holds"}, "examples": 1}
        for access in ("logprobs", "repeats", "hard"):
            hosted = load_teacher(endpoint, task, access=access, **about)
            body, classes = hard_request(task, hosted)
            assert body["messages"] == [*hosted.turns] and body["max_completion_tokens"] == hosted.longest
            assert (
                body.keys() == {"messages", "max_completion_tokens", "temperature", "seed"} and not body["temperature"]
            )
            assert classes == {"A": "animal", "B": "fruit", "C": "tool"}
        plain = load_teacher(
            Endpoint(server.base_url, "words", price=PRICE, path=tmp_path / "r.sqlite"), task, access="hard"
        )
    told = [hard_request(task, teacher) for teacher in (None, BagOfWords(task), plain)]
    assert told[0] == told[1] == told[2]


@pytest.mark.slow
def test_the_folder_holds_what_is_asked(made):
    told = json.loads((made.folder / "escalate.json").read_text(encoding="utf-8"))
    assert (told["body"], told["classes"]) == hard_request(made.task)
