"""A shipped student that serves, and clients of it."""

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", 600))


class Server(NamedTuple):
    """One that runs."""

    port: int
    process: subprocess.Popen

    def status(self, field: str) -> int:
        """A number of /proc/PID/status: memory in kB, or threads."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+)", text, re.M)[1])

    def files(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A client that has sent something."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        client.sendall(sent)
        return client

    def ask(self, sent: bytes) -> tuple[int, dict[str, str], object]:
        """Status, headers and JSON of the reply to a whole request."""
        with self.connect(sent) as client:
            return reply(client)

    def post(self, body: object) -> tuple[int, dict[str, str], object]:
        """The same for a body: bytes, or what is sent as JSON."""
        return self.ask(request(body))


def request(body: object, *headers: str) -> bytes:
    """As curl sends it; with headers, only those."""
    body = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    headers = headers or (f"Content-Length: {len(body)}",)
    return "\r\n".join(["POST / HTTP/1.1", "Host: localhost", *headers, "", ""]).encode() + body


def reply(client: socket.socket) -> tuple[int, dict[str, str], object]:
    """What arrives until the server hangs up; it must be one whole reply, in JSON or plain text."""
    with client.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    if not head:
        raise ConnectionResetError("hung up without a reply")
    start, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert start.startswith("HTTP/1.1 ") and int(headers["Content-Length"]) == len(body)
    assert headers["Connection"] == "close"
    if headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8":
        return int(start.split()[1]), headers, body.decode()
    assert headers["Content-Type"] == "application/json"
    return int(start.split()[1]), headers, json.loads(body)


@contextmanager
def started(
    folder: Path,
    home: Path,
    patch: str = "",
    end: signal.Signals = signal.SIGTERM,
    options: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
):
    """A server, started in `home` as its first line says, or after a patch of `serve`; it must end without a word."""
    command = [sys.executable, str(folder / "serve.py"), "0", *options]
    if patch:
        program = f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport serve\n{patch}\nserve.run({command[2:]})"
        command = [sys.executable, "-B", "-c", program]
    hidden = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"HOME": str(home)}
    environment |= variables or {}
    with (home / "stderr").open("w") as stderr:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        line = process.stdout.readline()
        assert re.fullmatch(r"Serving on http://127\.0\.0\.1:\d+/\n", line), (home / "stderr").read_text()
        yield Server(int(line.rstrip("/\n").rpartition(":")[2]), process)
        assert process.poll() is None
        process.send_signal(end)
        assert process.wait(60) == 0 and process.stdout.read() == (home / "stderr").read_text() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


async def persist(port: int, texts: Sequence[str]) -> tuple[list[dict], int]:
    """The answers, and how often a client was dropped or told to come back until it had them."""
    for tries in range(1000):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(texts))
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            if head.startswith(b"HTTP/1.1 200 "):
                return json.loads(body), tries
            assert not head or head.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 408 ")), head
        except ConnectionError:
            pass
        await asyncio.sleep(0.05 + 0.2 * random.random())
    raise AssertionError("never answered")


def crowd(port: int, requests: Sequence[Sequence[str]]) -> list[tuple[list[dict], int]]:
    """What `persist` gives to each of these clients, all at once."""

    async def everyone() -> list:
        return await asyncio.gather(*(persist(port, texts) for texts in requests))

    return asyncio.run(everyone())
