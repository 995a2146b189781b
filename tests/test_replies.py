"""The file of replies: committed before it is read, whole after anything, in and out again."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from refusal import refused
from server import completion, saying

from workbench.errors import WorkbenchError
from workbench.hosted.endpoint import Endpoint, Request
from workbench.hosted.exchange import export_replies, import_replies, listed
from workbench.hosted.prices import Price
from workbench.hosted.replies import OURS, Replies, Reply, read, request_key, request_text, usage

PRICE = Price(1.0, 2.0)
RAW = json.dumps(completion("B")).encode()


def body(text: str = "a") -> dict:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 4}


def keep(replies: Replies, text: str = "a", raw: bytes | None = RAW, why: str | None = None) -> Reply:
    asked = request_text("https://x/v1", "m", body(text), 0)
    reply = Reply(request_key(asked), "", raw, why)
    replies.keep("https://x/v1 m", asked, reply, price=str(PRICE))
    return replies.settle("https://x/v1 m", reply, PRICE, 1.0) if raw else reply


def test_a_reply_is_found_with_what_it_cost(tmp_path):
    with Replies(tmp_path / "r.sqlite") as replies:
        assert replies.reserve("https://x/v1 m", 1.0, 1.0) and not replies.reserve("https://x/v1 m", 0.01, 1.0)
        kept = keep(replies)
        assert kept[1:8] == ("m-1", RAW, None, 20, 0, 1, PRICE.dollars(20, 1))
        assert replies.charged("https://x/v1 m") == pytest.approx(PRICE.dollars(20, 1))
    with Replies(tmp_path / "r.sqlite") as replies:
        assert replies.find([kept.request, "no such"]) == {kept.request: kept}


def test_the_raw_reply_is_committed_before_it_is_read(tmp_path, monkeypatch):
    def dies(*_, **__):
        raise WorkbenchError("Killed.")

    with saying(lambda body: (200, {}, RAW)) as server:
        endpoint = Endpoint(server.base_url, "m", price=PRICE, path=tmp_path / "r.sqlite")
        with monkeypatch.context() as patch:
            patch.setattr(Replies, "settle", dies)
            with pytest.raises(WorkbenchError, match="Killed"):
                endpoint.ask([Request(body())])
        (reply,) = endpoint.ask([Request(body())])
        assert reply.raw == RAW and read(reply).text == "B" and len(server.asked) == 1
        assert reply.model == "m-1" and endpoint.charged() == pytest.approx(PRICE.dollars(20, 1))  # made good


def test_what_two_settle_is_settled_once(tmp_path):
    with Replies(tmp_path / "r.sqlite") as replies, Replies(tmp_path / "r.sqlite") as other:
        replies.reserve("https://x/v1 m", 1.0, None)
        raw = keep(replies)._replace(model="")
        before = replies.charged("https://x/v1 m")
        told = other.settle("https://x/v1 m", raw, PRICE, 1.0)
        assert other.find([raw.request]) == {raw.request: told} and other.charged("https://x/v1 m") == before


def test_two_models_under_one_name_are_two_replies(tmp_path):
    with Replies(tmp_path / "r.sqlite") as replies:
        first = keep(replies)
        second = keep(replies, raw=json.dumps(completion("C", model="m-2")).encode())
        assert replies.find([first.request], "m-1") == {first.request: first}
        assert replies.find([first.request], "m-2") == replies.find([first.request]) == {first.request: second}


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (RAW, ("m-1", (20, 0, 1))),
        (b"", ("", None)),
        (b"[1]", ("", None)),
        (b'{"model": 3}', ("", None)),
        (b'{"model": "m"}', ("m", None)),
        (b'{"model": "m", "usage": {"prompt_tokens": -5, "completion_tokens": 1}}', ("m", None)),
        (b'{"model": "m", "usage": {"prompt_tokens": true, "completion_tokens": 1}}', ("m", None)),
        (b'{"model": "m", "usage": {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": '
         b'{"cached_tokens": 7}}}', ("m", (9, 7, 1))),
    ],
)  # fmt: skip
def test_usage(raw, found):
    assert usage(raw) == found


# --- in and out


def test_export_and_import(tmp_path):
    with Replies(tmp_path / "r.sqlite") as replies, Replies(tmp_path / "other.sqlite") as other:
        keep(replies), keep(replies, "b", None, "HTTP 500"), keep(replies, "c", b"\xff{cut")
        assert export_replies(replies, tmp_path / "out.jsonl") == 3
        assert import_replies(other, [tmp_path / "out.jsonl"]) == 3
        assert import_replies(other, [tmp_path / "out.jsonl"]) == 0
        strip = [(account, asked, reply) for account, asked, _, reply in replies.rows()]
        assert strip == [(account, asked, reply) for account, asked, _, reply in other.rows()]
        assert other.charged("https://x/v1 m") == 0  # paid by somebody else
        table, odd = listed(other)
        assert table["rows"].sum() == 3 and Counter(odd["kind"]) == {"failed": 1, "unreadable": 1}
        assert "HTTP 500" in set(odd["why"])


def test_import_of_a_vendors_files(tmp_path):
    sent = {"custom_id": "7", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", **body()}}
    came = {"id": "x", "custom_id": "7", "response": {"status_code": 200, "body": completion("B")}, "error": None}
    lost = {**came, "custom_id": "8", "response": None, "error": {"code": "batch_expired"}}
    lines = [sent, {**sent, "custom_id": "8", "body": {"model": "m", **body("b")}}]
    (tmp_path / "sent.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "came.jsonl").write_text("\n".join(map(json.dumps, [came, lost])))
    turn = {"role": "user", "content": "c", "id": "1"}
    stored = completion("C") | {"messages": [turn], "temperature": 0, "seed": None}
    (tmp_path / "stored.jsonl").write_text(json.dumps(stored))
    endpoint = Endpoint("https://api.openai.com/v1", "m", price=PRICE, path=tmp_path / "r.sqlite")
    with Replies(endpoint.path) as replies:
        assert import_replies(replies, [tmp_path / "sent.jsonl", tmp_path / "came.jsonl"]) == 2
        assert import_replies(replies, [tmp_path / "stored.jsonl"]) == 1
    asked = endpoint.ask([Request(body()), Request(body("b"))])
    assert [read(reply).kind for reply in asked] == ["answer", "failed"] and "batch_expired" in read(asked[1]).why
    with Replies(endpoint.path) as replies:
        key = request_key(request_text(endpoint.base_url, "m-1", {"messages": [{"role": "user", "content": "c"}],
                                                                  "temperature": 0}, 0))  # fmt: skip
        assert read(replies.find([key])[key]).text == "C"


BAD = {
    "no file": (None, "Can't read"),
    "no JSON": (b"{", "holds a line that is no JSON object"),
    "a list": (b"[1]", "holds a line that is no JSON object"),
    "something else": (b'{"a": 1}', "line 1 is no reply that can be read"),
    "a result without what was asked": (b'{"custom_id": "1", "response": {}}', "line 1 is no reply"),
    "ours, cut": (b'{"asked": {"place": "p"}, "raw": null}', "line 1 is no reply"),
}


@pytest.mark.parametrize("what", BAD)
def test_import_of_what_is_none(what, tmp_path):
    content, sentence = BAD[what]
    if content is not None:
        (tmp_path / "in.jsonl").write_bytes(content)
    with Replies(tmp_path / "r.sqlite") as replies, refused(sentence):
        import_replies(replies, [tmp_path / "in.jsonl"])


def test_the_command(tmp_path, capsys, monkeypatch):
    from workbench.__main__ import main

    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    assert main(["replies"]) == 0 and "No replies" in capsys.readouterr().out
    with Replies() as replies:
        keep(replies), keep(replies, "b", None, "HTTP 500")
    assert main(["replies"]) == 0
    out = capsys.readouterr().out
    assert "https://x/v1 m" in out and "HTTP 500" in out
    assert main(["replies", "export", str(tmp_path / "out.jsonl")]) == 0
    (tmp_path / "replies.sqlite").unlink()
    assert main(["replies", "import", str(tmp_path / "out.jsonl")]) == 0
    assert "2 replies taken in" in capsys.readouterr().out
    assert main(["replies", "export"]) == 2 and "names no file" in capsys.readouterr().err


# --- files that are none of ours, that are busy, that are full


def test_foreign_files_are_left_alone(tmp_path):
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE songs (name)")
    text = tmp_path / "text.sqlite"
    text.write_text("a letter to my aunt\n" * 100)
    for path in (other, text, tmp_path):
        before = path.read_bytes() if path.is_file() else None
        with refused(f"Can't use the replies in {path}"):
            Replies(path)
        assert before is None or path.read_bytes() == before
    with sqlite3.connect(tmp_path / "fine.sqlite") as db:
        db.execute(f"PRAGMA application_id={OURS}")
    Replies(tmp_path / "fine.sqlite")


def test_a_locked_file(tmp_path):
    path = tmp_path / "r.sqlite"
    Replies(path)
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    with refused("is locked", "end the program that has it locked"):
        Replies(path, patience=0.2)
    held.execute("ROLLBACK")
    Replies(path)


def test_a_full_disk_sends_nothing_more_and_loses_nothing(tmp_path):
    with saying(lambda body: (200, {}, json.dumps(completion("B" * 2_000)).encode())) as server:
        endpoint = Endpoint(server.base_url, "m", price=PRICE, path=tmp_path / "r.sqlite", in_flight=4)
        requests = [Request(body(str(i))) for i in range(300)]
        full = Replies.__init__

        def small(self, *args, **more):
            full(self, *args, **more)
            self._db.execute("PRAGMA max_page_count=60")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Replies, "__init__", small)
            with refused("disk is full", "free some space"):
                endpoint.ask(requests)
        sent = len(server.asked)
        with Replies(endpoint.path) as replies:
            stored = sum(1 for _ in replies.rows())
        assert sent - 4 <= stored <= sent < 300
        assert len(endpoint.ask(requests)) == 300 and len(server.asked) <= 300 + 4


MILLION = """
import sys, time
from pathlib import Path
from workbench.hosted.replies import Replies
keys = [f"{i * 997:032x}" for i in range(1000)]
began = time.perf_counter()
with Replies(sys.argv[1]) as replies:
    found = replies.find(keys)
seconds = time.perf_counter() - began
# not ru_maxrss: that begins at the size of the process that started this one
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(len(found), seconds, int(peak.split()[1]) / 1e3)
"""


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its size from /proc")
def test_a_million_replies(tmp_path):
    path = tmp_path / "r.sqlite"
    Replies(path)
    db = sqlite3.connect(path)
    raw = RAW + b" " * 600
    rows = ((f"{i:032x}", "m-1", "x m", "{}", raw, None, 1, 0, 1, 0.1, "", 1.0, 1, "2026") for i in range(1_000_000))
    db.executemany("INSERT INTO replies VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", rows)
    db.commit(), db.close()
    done = subprocess.run([sys.executable, "-c", MILLION, str(path)], capture_output=True, text=True, check=True)
    found, _seconds, megabytes = map(float, done.stdout.split())
    assert found == 1000 and megabytes < 200


def test_replies_of_long_ago_are_read_by_a_new_reader(tmp_path):
    with Replies(tmp_path / "r.sqlite") as replies:
        kept = keep(replies, raw=json.dumps(completion("B", end="length")).encode())
    assert read(kept).kind == "truncated" and read(kept, short=True).kind == "answer"
