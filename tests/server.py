"""A real HTTP server that answers as a test says, and that speaks the batch API; requests are counted as they come."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from workbench.hosted.prices import Price
from workbench.hosted.serve import answering

Answer = tuple[int, dict[str, str], bytes]
PRICE = Price(100.0, 400.0, batch=0.5)  # dear, so that a cap is soon reached


def completion(text: str | None = "A", *, end: str = "stop", model: str = "m-1", **message: Any) -> dict:
    """A good reply, as a dict to be spoilt."""
    return {
        "id": "c", "object": "chat.completion", "model": model,
        "choices": [{"index": 0, "finish_reason": end, "message": {"role": "assistant", "content": text, **message}}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21},
    }  # fmt: skip


def with_logprobs(body: dict, table: dict[str, float], token: str | None = None) -> dict:
    """`body` with one place's log-probabilities."""
    token = token or max(table, key=table.get)
    entries = [{"token": t, "logprob": v, "bytes": list(t.encode())} for t, v in table.items()]
    body["choices"][0]["logprobs"] = {"content": [{"token": token, "logprob": table[token], "top_logprobs": entries}]}
    return body


def good(body: dict) -> Answer:
    """The letter A."""
    return 200, {}, json.dumps(completion()).encode()


class Server(ThreadingHTTPServer):
    """`answer` may be replaced at any time; `asked` holds the body of each request, `keys` the keys that came."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answer: Callable[[dict], Answer]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked, self.keys = answer, [], set()
        self.lock, self.files, self.batches, self.looks = threading.Lock(), {}, {}, 0
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no news."""

    def counted(self) -> Counter:
        """Last message -> requests."""
        with self.lock:
            return Counter(body["messages"][-1]["content"] for body in self.asked)

    def batch(self, name: str) -> dict:
        """Done at the third look: the answers stand in two files then."""
        batch = self.batches[name]
        self.looks += 1
        if batch["status"] == "in_progress" and self.looks > 2:
            files: dict[str, list] = {"output": [], "error": []}
            for line in map(json.loads, self.files[batch["input_file_id"]].splitlines()):
                self.asked.append(line["body"])
                status, _, raw = self.answer(line["body"])
                told = {"custom_id": line["custom_id"], "response": {"status_code": status, "body": json.loads(raw)}}
                files["output" if status == 200 else "error"].append(json.dumps(told))
            for kind, lines in files.items():
                self.files[f"{name}-{kind}"] = "\n".join(lines).encode()
                batch[f"{kind}_file_id"] = f"{name}-{kind}" if lines else None
            batch["status"] = "completed"
        return batch


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        self.server.keys.add(self.headers.get("authorization"))
        if not self.path.startswith("/v1/"):
            return self.say(404, {}, b"{}")
        if self.path.endswith("/files"):
            content = re.search(rb'name="file".*?\r\n\r\n(.*?)\r\n--', raw, re.DOTALL)[1]
            name = f"file-{len(self.server.files)}"
            self.server.files[name] = content
            return self.say(200, {}, json.dumps({"id": name, "object": "file", "purpose": "batch"}).encode())
        body = json.loads(raw)
        if self.path.endswith("/batches"):
            name = f"batch-{len(self.server.batches)}"
            self.server.batches[name] = {"id": name, "object": "batch", "status": "in_progress", **body}
            return self.say(200, {}, json.dumps(self.server.batches[name]).encode())
        with self.server.lock:
            self.server.asked.append(body)
        self.say(*self.server.answer(body))

    def do_GET(self) -> None:
        if self.path.endswith("/content"):
            return self.say(200, {}, self.server.files[self.path.split("/")[-2]])
        if self.path.split("?")[0].endswith("/batches"):
            found = {"object": "list", "data": [*self.server.batches.values()], "has_more": False}
            return self.say(200, {}, json.dumps(found).encode())
        self.say(200, {}, json.dumps(self.server.batch(self.path.split("/")[-1])).encode())

    def say(self, status: int, headers: dict[str, str], raw: bytes) -> None:
        self.send_response(status)
        told = {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def saying(answer: Callable[[dict], Answer] = good) -> AbstractContextManager[Server]:
    """Such a server, until the context ends."""
    return answering(Server(answer))
