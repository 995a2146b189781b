"""The server shipped beside a student: right answers, and neither memory nor places for those who abuse it."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from served import SOAK_SECONDS, Server, reply, request, started, wait_until

from workbench import metrics, reading, students

pytestmark = pytest.mark.slow
LONG = "the cat near a dog and apple " * 3000
ATTACK = ["w00 " * 300, *(f"w{i:02d} off" for i in range(5000))]  # padded to the longest, it took 7 GB
FULL = ["the cat and a saw near an apple and it is " + "cat " * 14] * 10_000  # all that may be sent
MEMORY = 300  # MB above idle
GATED = """
from pathlib import Path
import time
class Gated:
    def run(self, *given):
        Path("running").touch()
        while not Path("open").exists(): time.sleep(0.01)
        return session.run(*given)
session, serve.session = serve.session, Gated()
"""


@pytest.fixture(scope="module")
def server(made, tmp_path_factory):
    with started(made.folder, tmp_path_factory.mktemp("server")) as server:
        yield server


def example(made) -> str:
    """The text of its task that help and refusals quote."""
    return json.loads((made.folder / "config.json").read_text())["example"]


def test_it_answers_like_the_student_at_its_temperature_and_refuses_below_its_threshold(server, made):
    texts = [*made.task.test["text"][:10], "", LONG, "é\u0000\U0001f600", *made.task.out_of_scope["text"]]
    config = json.loads((made.folder / "config.json").read_text())
    wanted = metrics.softmax(reading.predict(*students.load(made.folder), texts), config["temperature"])
    status, _, answers = server.post(texts)
    assert status == 200
    np.testing.assert_allclose([a["score"] for a in answers], wanted.max(-1), atol=0.1)  # int8
    sure = np.diff(np.sort(wanted)[:, -2:])[:, 0] > 0.2
    assert sure.sum() > 5
    for answer, row, told in zip(answers, wanted, sure, strict=True):
        assert not told or answer["label"] == made.task.label_names[row.argmax()]
        assert answer.get("refused", False) is (answer["score"] < config["refuse_below"])
    assert {True, None} == {a.get("refused") for a in answers}


def test_other_clients(server):
    wanted = server.post(["the cat"])
    assert server.ask(request(["the cat"]).replace(b"HTTP/1.1", b"HTTP/1.0")) == wanted
    assert server.ask(b"POST /any?x=1 HTTP/1.1\r\ncONTENT-length:11\r\n\r\n" + b'["the cat"]') == wanted
    assert server.post(b'\xef\xbb\xbf["the cat"]') == wanted
    with server.connect(request(["the cat"])) as client:  # a client that says that it has sent all
        client.shutdown(socket.SHUT_WR)
        assert reply(client) == wanted
    with server.connect(request(b"", "Content-Length: 11", "Expect: 100-continue")) as client:
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b'["the cat"]')
        assert reply(client) == wanted


LIST = "send a JSON list"
BODIES = {
    "empty list": (b"[]", 400, "empty: " + LIST),
    "object": (b'{"a": 1}', 400, "not a list: " + LIST),
    "nothing": (b"", 400, "not JSON after 0 characters: " + LIST),
    "not JSON": (b'["a"', 400, "not JSON after 4 characters: " + LIST),
    "huge number": (b"[" + b"1" * 9999 + b"]", 400, "not JSON: " + LIST),
    "not UTF-8": (b'["\xff"]', 400, "Byte 2 is not UTF-8: " + LIST),
    "surrogates in UTF-8": (b'["\xed\xa0\x80"]', 400, "Byte 2 is not UTF-8: " + LIST),
    "an item": (b'["a", "b", 3]', 400, "Item 2, counted from 0, is not a string: " + LIST),
    "lone surrogate": (b'["a", "\\ud800"]', 400, "Text 1, counted from 0, has half of a surrogate pair: send whole"),
    "deep nesting": (b"[" * 500_000 + b"]" * 500_000, 400, "nested too deep: " + LIST),
    "many texts": (b"[" + b'"",' * 10_000 + b'""]', 413, "The list has 10001 texts: send up to 10000"),
    "long text": (b'["", "' + b"a" * 100_001 + b'"]', 413, "Text 1, counted from 0, has 100001 characters: send up to"),
    "long body": (b" " * (2**20 + 1), 413, "The body has 1048577 bytes: send up to 1048576"),
    "much too long body": (b" " * (5 * 2**20), 413, "The body has 5242880 bytes: send up to 1048576"),
}
HEADS = {
    "no length": (request(b"", "A: b"), 411, "send the body in one piece, its bytes as Content-Length"),
    "chunked": (request(b'5\r\n["a"]\r\n0\r\n\r\n', "Transfer-Encoding: chunked"), 411, "send the body in one piece"),
    "both": (request(b"5\r\n", "Transfer-Encoding: chunked", "Content-Length: 3"), 411, "send the body in one piece"),
    **{
        f"length {value}": (request(b'["a"]', f"Content-Length: {value}"), 400, "not a number of bytes: send")
        for value in ("-1", "five", "", "+5", "5.0", "1e1", "0x5", "5, 5", "5_0", "9" * 16, "9" * 9999)
    },
    "length ²": (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400, "not a number of bytes: send the length"),
    "two lengths": (request(b'["a"]', "Content-Length: 5", "Content-Length: 4"), 400, "not a number of bytes"),
    "a length over all": (request(b"[", "Content-Length: 999999999999999"), 413, "send up to 1048576"),
    "cut short": (None, 400, "ended early: send all the bytes that Content-Length counts"),
    "GET": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "POST a JSON list"),
    "PUT": (request(b'["a"]').replace(b"POST", b"PUT"), 405, "POST a JSON list"),
    "not HTTP": (b"\x16\x03\x01 hello\r\n\r\n", 400, "not a request of HTTP/1.1: POST a JSON list"),
    "long head": (request(b"[]", "A: " + "b" * 20_000), 400, "headers have over 16384 bytes: send fewer"),
    "endless head": (b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000, 400, "headers have over 16384 bytes: send fewer"),
}


@pytest.mark.parametrize("name", [*BODIES, *HEADS])
def test_what_is_refused_reads_why(server, made, name):
    sent, status, words = (BODIES | HEADS)[name]
    with server.connect(request(sent) if name in BODIES else sent or request(b"[", "Content-Length: 5")) as client:
        if sent is None:
            client.shutdown(socket.SHUT_WR)
        found, headers, answer = reply(client)
    assert found == status and list(answer) == ["error"]
    assert words in answer["error"] and "\n" not in answer["error"]
    assert "such as" not in answer["error"] or f"such as {json.dumps([example(made)])}." in answer["error"]
    assert headers.get("Allow") == ("POST" if status == 405 else None)
    assert server.post(["the cat"])[0] == 200


def test_the_limits_are_allowed(server):
    assert len(server.post([""] * 10_000)[2]) == 10_000
    assert len(server.post(["a" * 100_000])[2]) == 1
    body = json.dumps(["the cat"]).encode()
    assert server.post(body + b" " * (2**20 - len(body))) == server.post(body)


def test_texts_of_any_length_come_back_in_order(server):
    words = ["cat horse dog", "apple plum mango", "saw drill hammer"] * 40
    texts = [f"{word} " * random.Random(i).randint(1, 60) for i, word in enumerate(words)]
    one_by_one = [server.post([text])[2][0] for text in texts]
    together = server.post(texts)[2]
    assert len({a["label"] for a in one_by_one}) == 3
    np.testing.assert_allclose([a["score"] for a in together], [a["score"] for a in one_by_one], atol=0.05)
    assert [a["label"] for a in together] == [a["label"] for a in one_by_one]


@pytest.mark.parametrize(
    "bodies",
    [
        pytest.param((ATTACK, ["각" * 90_000] * 3), id="some"),
        pytest.param((FULL, ["w00 " * 300] * 850, ["\U0001f600" * 2000] * 40), id="more", marks=pytest.mark.soak),
    ],
)
def test_memory_is_bounded(made, tmp_path, bodies):
    with started(made.folder, tmp_path) as server:
        idle = server.status("VmRSS")
        for texts in bodies:
            status, _, answers = server.post(texts)
            assert status == 200 and len(answers) == len(texts)
            assert server.status("VmHWM") - idle <= MEMORY * 1000, texts[0][:9]
            for i in (0, 1, len(texts) - 1):
                assert answers[i]["score"] == pytest.approx(server.post([texts[i]])[2][0]["score"], abs=0.05)


def test_half_requests_take_no_threads_no_places_and_little_memory(made, tmp_path):
    halves = [b"", b"POST", request(["a"])[:-1], request(b"", "Content-Length: 1000000") + b"["]
    with started(made.folder, tmp_path, "serve.REQUEST_SECONDS = 9999") as server:
        wanted, threads, files = server.post(["the cat"]), server.status("Threads"), server.files()
        clients = [server.connect(halves[i % 4]) for i in range(400)]
        assert server.post(["the cat"]) == wanted
        assert server.status("Threads") == threads and server.files() <= files + 101
        for client in clients[:250]:  # the oldest are dropped
            with pytest.raises(ConnectionResetError):
                reply(client)
        clients[-2].sendall(b"]")  # the newest are not
        assert reply(clients[-2])[0] == 200
        idle = server.status("VmRSS")
        clients += [server.connect(request(b"", "Content-Length: 1048576") + b" " * 1_048_575) for _ in range(130)]
        assert server.post(["the cat"]) == wanted
        assert server.status("VmHWM") - idle <= MEMORY * 1000
        for client in clients:
            client.close()


def test_slow_requests_are_refused_at_one_deadline(made, tmp_path):
    with started(made.folder, tmp_path, "serve.REQUEST_SECONDS = 1") as server:
        silent = server.connect()
        for slow in (b"POST / HTTP/1.1\r\n", request(b"", "Content-Length: 1000000")):
            with server.connect(slow) as client:
                client.settimeout(0.1)
                for _ in range(600):  # a byte now and then buys no time
                    client.sendall(b"a")
                    try:
                        client.recv(1, socket.MSG_PEEK)
                        break
                    except TimeoutError:
                        pass
                client.shutdown(socket.SHUT_WR)
                client.settimeout(60)
                status, _, answer = reply(client)
            assert status == 408 and answer["error"] == "The request took over 1 seconds: send it faster."
            assert server.post(["the cat"])[0] == 200
        assert silent.recv(12) == b"HTTP/1.1 408"
        silent.close()


def test_who_does_not_read_or_hang_up_is_dropped(made, tmp_path):
    with started(made.folder, tmp_path, "serve.REPLY_SECONDS = 0.5") as server:
        files = server.files()
        clients = [server.connect(request(body)) for body in (["the cat"], 3)]
        wait_until(lambda: server.files() == files)
        assert [reply(client)[0] for client in clients] == [200, 400]  # what was sent is theirs
        for client in clients:
            client.close()


def test_it_is_busy_when_full(made, tmp_path):
    with started(made.folder, tmp_path, GATED + "serve.MAX_REQUESTS = 1") as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post, ["the cat"])
        wait_until((tmp_path / "running").exists)
        status, headers, answer = server.post(["the dog"])
        assert (status, headers["Retry-After"]) == (503, "1")
        assert answer == {"error": "Too many requests are being answered: send it again in a second."}
        (tmp_path / "open").touch()
        assert first.result()[0] == 200 and server.post(["the dog"])[0] == 200


def test_a_big_request_lets_a_small_one_pass(made, tmp_path):
    with started(made.folder, tmp_path, GATED) as server, ThreadPoolExecutor(1) as pool:
        big = pool.submit(server.post, FULL)
        wait_until((tmp_path / "running").exists)
        with server.connect(request(["the cat"])) as small:
            (tmp_path / "open").touch()
            assert reply(small)[0] == 200 and not big.done()
        assert len(big.result()[2]) == len(FULL)


def test_the_work_of_who_hung_up_is_left(made, tmp_path):
    count = GATED.replace('"running").touch()', '"running").open("a").write("x")')
    with started(made.folder, tmp_path, count) as server:
        files = server.files()
        server.connect(request(FULL)).close()
        wait_until((tmp_path / "running").exists)
        (tmp_path / "open").touch()
        assert server.post(["the cat"])[0] == 200
        wait_until(lambda: server.files() == files)
        assert len((tmp_path / "running").read_text()) < len(FULL) // 64


def test_nothing_is_sent_or_kept(made, tmp_path):
    with started(made.folder, tmp_path) as server:
        server.post(["the cat"])
        files = []
        for file in Path(f"/proc/{server.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                files.append(os.readlink(file))
        assert not [file for file in files if file.endswith((".db", ".db-wal"))], files
        assert server.status("Threads") <= 2 + (os.cpu_count() or 1)  # one waits, one computes, and its helpers
    assert [file.name for file in tmp_path.iterdir()] == ["stderr"]


def test_a_failing_model_is_said(made, tmp_path):
    broken = "serve.session = None\nserve.sys.stderr = open('log', 'w', buffering=1)"
    with started(made.folder, tmp_path, broken) as server:
        for _ in range(2):
            status, _, answer = server.post(["the cat"])
            assert (status, answer["error"]) == (500, "The model fails on these texts (AttributeError): send others.")
        assert (tmp_path / "log").read_text().count("AttributeError: ") == 2


@pytest.fixture
def interrupt(request):
    """What the server inherits for SIGINT; a script's `python serve.py &` has it ignored."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


ENDS = [
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_IGN),
]


@pytest.mark.parametrize(("end", "interrupt"), ENDS, indirect=["interrupt"])
def test_it_ends_quietly_in_the_middle(made, tmp_path, end, interrupt):
    with started(made.folder, tmp_path, "pass", end=end) as server:
        clients = [server.connect(sent) for sent in (b"", b"POST", request(FULL), request(3), request(["the cat"]))]
        assert server.post(["the cat"])[0] == 200
    for client in clients:
        client.close()


@pytest.mark.parametrize("arguments", ["x", "-1", "99999", "", "1 2", "taken", "--help", "lost"])
def test_help_is_of_its_task_and_what_is_wrong_is_one_sentence(server, made, tmp_path, arguments):
    given, folder = [str(server.port)] if arguments == "taken" else arguments.split(" "), made.folder
    if arguments == "lost":
        for name in ("serve.py", "tokenizer.json"):
            shutil.copy(made.folder / name, tmp_path)
        (tmp_path / "config.json").write_text('{"id2label": {"0": "a"}, "example": "b"}')
        folder = tmp_path
    done = subprocess.run([sys.executable, folder / "serve.py", *given], cwd=tmp_path, capture_output=True, text=True)
    if arguments == "--help":
        assert done.returncode == 0 and f"curl -d '[\"{example(made)}\"]'" in done.stdout
        return
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    wanted = "lacks refuse_below, temperature" if arguments == "lost" else "python serve.py PORT"
    assert wanted in done.stderr and "Traceback" not in done.stderr


def bad_bytes(server: Server, rng: random.Random) -> None:
    sent, *_ = rng.choice([*BODIES.values(), *((head, 0, "") for head, *_ in HEADS.values() if head)])
    with server.connect(sent if sent[:1].isalpha() else request(sent)) as client:
        assert reply(client)[0] in (400, 405, 408, 411, 413, 503)


def half(server: Server, rng: random.Random) -> None:
    clients = [server.connect(request(["a"])[: rng.randint(0, 60)]) for _ in range(rng.randint(1, 8))]
    time.sleep(rng.random())
    for client in clients:
        client.close()


def slow(server: Server, rng: random.Random) -> None:
    with server.connect() as client:
        for byte in request(["a"])[:30]:
            client.sendall(bytes([byte]))
            time.sleep(0.1 * rng.random())


def huge(server: Server, rng: random.Random) -> None:
    with server.connect(request(b"", f"Content-Length: {10 ** rng.randint(7, 14)}")) as client:
        for _ in range(rng.randint(1, 40)):
            client.sendall(b" " * 2**18)
        assert reply(client)[0] == 413


def full(server: Server, rng: random.Random) -> None:
    texts = rng.choice([FULL, ATTACK, ["w00 " * 300] * 850, ["a" * 100_000] * 10, ["a"] * 10_000])
    status, _, answers = server.post(texts)
    assert status == 503 or (status == 200 and len(answers) == len(texts))


def gone(server: Server, rng: random.Random) -> None:
    with server.connect(request(rng.choice([FULL, ATTACK, ["a"], 3]))) as client:
        if rng.random() < 0.5:  # with a reset
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        time.sleep(0.2 * rng.random())


def abuse(server: Server, seconds: float) -> None:
    """50 clients do all of that for so long while four honest ones ask; what was measured is asserted and printed."""
    asked = [["the cat"], ["a saw", "the plum near a dog"], ["", LONG[:500], "drill"], ["apple mango"] * 20]
    wanted = [server.post(texts)[2] for texts in asked]
    counts, wrong, end = Counter(), [], time.monotonic() + seconds

    def honest(server: Server, rng: random.Random) -> None:
        i, tries = rng.randrange(len(asked)), 0
        while (found := server.post(asked[i]))[0] == 503 and tries < 600:
            tries += 1
            time.sleep(0.1)
        assert found[0] == 200 and found[2] == wanted[i], found
        time.sleep(0.02)

    def client(seed: int) -> None:
        rng = random.Random(seed)
        kinds = (full, gone) if seed < 6 else (bad_bytes, half, slow, huge) if seed < 50 else (honest,)
        while time.monotonic() < end:
            kind = rng.choice(kinds)
            try:
                kind(server, rng)
                counts[kind.__name__] += 1
            except Exception as error:
                if isinstance(error, OSError) and kind is not honest:  # dropped in favour of another
                    counts[f"{kind.__name__}, dropped"] += 1
                else:
                    wrong.append(f"{kind.__name__}: {error!r}")

    def measure() -> tuple[float, int, int]:
        return server.status("VmRSS") / 1000, server.status("Threads"), server.files()

    samples = [measure()]
    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(54)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end and server.process.poll() is None:
        samples.append(measure())
        time.sleep(min(1.0, seconds / 50))
    for thread in threads:
        thread.join(300)
    wait_until(lambda: server.files() <= samples[0][2])  # the last ones are dropped, none leaks
    rss, busy, files = zip(*samples, strict=True)
    n, peak = len(rss), server.status("VmHWM") / 1000
    middle, late = median(rss[2 * n // 5 : 3 * n // 5]), median(rss[4 * n // 5 :])
    found = {"seconds": seconds, "counts": counts, "wrong": len(wrong), "threads": max(busy), "files": max(files)}
    found |= {"rss_mb": {"start": rss[0], "middle": middle, "end": late, "peak": peak}}
    print(json.dumps(found))
    assert not wrong, (Counter(wrong).most_common(5), found)
    assert counts["honest"] > seconds, found  # they were not locked out
    assert peak - rss[0] <= MEMORY and late - middle <= 60, found
    assert max(busy) == busy[0], found


def test_honest_clients_are_answered_among_abuse(made, tmp_path):
    with started(made.folder, tmp_path) as server:
        abuse(server, 3)


@pytest.mark.soak
@pytest.mark.timeout(SOAK_SECONDS + 900)
def test_soak(made, tmp_path):
    with started(made.folder, tmp_path) as server:
        abuse(server, SOAK_SECONDS)
