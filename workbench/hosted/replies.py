"""Every reply that was ever paid for: one SQLite file, a row a request, the raw reply before it is read.

A request is found by all it depends on, the model as the reply names it included; what a key is made of says
`Endpoint`. A failure, a refusal or a cut reply is a row too, so that it isn't paid again by accident, and `read` says
of each what it is: reading is free, and a better reader reads what is stored. Keys and headers are never stored.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from workbench.errors import WorkbenchError, reason
from workbench.hosted.prices import Price
from workbench.store import data_dir, fingerprint

OURS = 0x57424E52  # SQLite's `application_id` of our files
AT_ONCE = 500  # rows asked for in one statement
CHARGE = "UPDATE accounts SET charged = max(round(charged + ?, 12), 0) WHERE account = ?"
TABLES = """
CREATE TABLE IF NOT EXISTS replies (
 request TEXT NOT NULL, model TEXT NOT NULL, account TEXT NOT NULL, asked TEXT NOT NULL, reply BLOB, error TEXT,
 tokens_in INTEGER, tokens_cached INTEGER, tokens_out INTEGER, dollars REAL, price TEXT, milliseconds REAL,
 attempts INTEGER, created TEXT NOT NULL, PRIMARY KEY (request, model));
CREATE TABLE IF NOT EXISTS accounts (account TEXT PRIMARY KEY, charged REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, account TEXT NOT NULL, id TEXT, asked TEXT NOT NULL);
"""


class Reply(NamedTuple):
    """A row: what came, or why nothing did (`error`), and what it cost.

    `model` is the name that the reply gives; `raw` its bytes; `dollars` None where no usage came with it, which is
    charged at its worst case.
    """

    request: str
    model: str
    raw: bytes | None
    error: str | None
    tokens_in: int | None = None
    tokens_cached: int | None = None
    tokens_out: int | None = None
    dollars: float | None = None
    milliseconds: float | None = None
    attempts: int = 1


COLUMNS = ", ".join("reply" if name == "raw" else name for name in Reply._fields)


class Said(NamedTuple):
    """A reply as read.

    `kind` is "answer", or what it is instead: "truncated", "refused", "empty", "unreadable", "failed".
    `tokens` are the entries of its log-probabilities, ``{"token", "logprob", "top_logprobs"}``, none if it has none.
    """

    kind: str
    text: str = ""
    reasoning: str = ""
    tokens: Sequence[dict] = ()
    why: str = ""


def request_text(place: str, model: str, body: dict, repeat: int) -> str:
    """All that a request depends on, as canonical JSON."""
    return _canonical({"body": body, "model": model, "place": place, "repeat": repeat})


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def request_key(asked: str) -> str:
    """32 hexadecimal characters naming a `request_text`."""
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


def read(reply: Reply, *, short: bool = False) -> Said:
    """What a reply is; never raises. `short`: one token was asked for, so that its length cuts nothing off."""
    if reply.raw is None:
        return Said("failed", why=reply.error or "")
    try:
        body = json.loads(reply.raw)
        if "error" in body and not body.get("choices"):
            return Said("failed", why=json.dumps(body["error"])[:200])
        choices = body["choices"]
        if not choices:
            return Said("empty", why="no choices")
        choice = choices[0]
        message, end = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        if refusal or end == "content_filter":
            return Said("refused", why=str(refusal or end)[:200])
        tokens = (choice.get("logprobs") or {}).get("content") or ()
        if not isinstance(text or "", str) or not isinstance(reasoning, str) or not isinstance(tokens, list | tuple):
            raise TypeError("its fields are of other types")
        if end == "length" and not short:
            return Said("truncated", text or "", reasoning, tokens, "its length")
        if end not in ("stop", "length", "eos", None):
            return Said("unreadable", why=f"it ended with {end!r}")
        return Said("answer", text, reasoning, tokens) if text else Said("empty", reasoning=reasoning, why="no text")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return Said("unreadable", why=f"{type(error).__name__} {reason(error)}"[:200])


def usage(raw: bytes) -> tuple[str, tuple[int, int, int] | None]:
    """The model's name and the tokens (read, of these cached, written) as a reply says them; "" and None if not."""
    name = ""
    try:
        body = json.loads(raw)
        name = body["model"] if isinstance(body["model"], str) else ""
        told = body["usage"]
        cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        counts = (told["prompt_tokens"], min(cached, told["prompt_tokens"]), told["completion_tokens"])
        return name, counts if all(type(n) is int and n >= 0 for n in counts) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return name, None


class Replies:
    """The file, default ``replies.sqlite`` in the data folder. A context manager; one object a thread at a time."""

    def __init__(self, path: Path | None = None, *, patience: float = 30.0):
        """Open it, and make it if need be; `patience`: seconds that another's transaction may take.

        Raises:
            WorkbenchError: a file of something else, one that somebody has locked, or no place to write.
        """
        self.path = Path(path or data_dir() / "replies.sqlite")
        self._locks = self.path.with_name(f"{self.path.name}.locks")  # files that stay: who waits for one must find it
        with self._plain():
            self._locks.mkdir(parents=True, exist_ok=True)
            with FileLock(self._locks / "open.lock"):  # or two that make it would each find it half made
                self._db = sqlite3.connect(self.path, timeout=patience, isolation_level=None, check_same_thread=False)
                try:
                    self._prepare()
                except BaseException:
                    self._db.close()
                    raise

    def _prepare(self) -> None:
        ((kind,),) = self._db.execute("PRAGMA application_id")
        ((tables,),) = self._db.execute("SELECT count(*) FROM sqlite_master")
        if kind != OURS and (tables or kind):
            raise sqlite3.DatabaseError("it holds something else")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")  # survives any kill; a power cut may cost the last rows
        self._db.executescript(f"BEGIN IMMEDIATE; PRAGMA application_id={OURS}; {TABLES} COMMIT;")

    def __enter__(self) -> "Replies":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @contextmanager
    def _plain(self) -> Iterator[None]:
        """Say in one sentence what SQLite or the disk refuses."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            told = reason(error)
            todo = "make it writable, or set WORKBENCH_DATA to another folder"
            if "locked" in told:
                todo = "end the program that has it locked"
            elif "full" in told:
                todo = "free some space; what is stored is whole, and nothing more was sent"
            elif "database" in told or "holds" in told:
                todo = "it is no file of replies, so move it away"
            raise WorkbenchError(f"Can't use the replies in {self.path} ({told}): {todo}.") from None

    @contextmanager
    def alone(self, account: str) -> Iterator[None]:
        """Be the one who asks there: others, in every process, wait and then find what was asked."""
        with self._plain():
            place = self._locks / f"{fingerprint(account)[:12]}.lock"
            lock = FileLock(place, thread_local=False, fallback_to_soft=False)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._plain():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has ended it
                    self._db.execute("ROLLBACK")
                raise

    def find(self, requests: Sequence[str], model: str | None = None) -> dict[str, Reply]:
        """Those of `requests` that are stored; where several models have answered, `model`, else the latest."""
        found = {}
        with self._plain():
            for start in range(0, len(requests), AT_ONCE):
                keys = requests[start : start + AT_ONCE]
                where = f"request IN ({','.join('?' * len(keys))}) ORDER BY model = ?, created"
                rows = self._db.execute(f"SELECT {COLUMNS} FROM replies WHERE {where}", [*keys, model])
                found.update((row[0], Reply._make(row)) for row in rows)
        return found

    def rows(self) -> Iterator[tuple[str, str, str, Reply]]:
        """(account, what was asked, when, its reply) of each, in the order of asking."""
        with self._plain():
            for row in self._db.execute(f"SELECT account, asked, created, {COLUMNS} FROM replies ORDER BY created"):
                yield (*row[:3], Reply._make(row[3:]))

    def reserve(self, account: str, dollars: float, cap: float | None) -> bool:
        """Charge an account with a worst case, unless that would pass the cap."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO accounts VALUES (?, 0)", (account,))
            change = f"{CHARGE} AND (? IS NULL OR charged + ? <= ?)"
            return db.execute(change, (dollars, account, cap, dollars, cap)).rowcount == 1

    def release(self, account: str, dollars: float) -> None:
        """Take back what was reserved and not paid."""
        with self._writing() as db:
            db.execute(CHARGE, (-dollars, account))

    def batches(self, account: str) -> list[tuple[str, str | None, dict[str, str]]]:
        """(name, the vendor's id, request -> what was asked) of the batches that are under way."""
        with self._plain():
            rows = self._db.execute("SELECT name, id, asked FROM batches WHERE account = ?", (account,)).fetchall()
        return [(name, known, json.loads(asked)) for name, known, asked in rows]

    def note_batch(self, account: str, name: str, known: str | None, asked: dict[str, str]) -> None:
        """Say that a batch is under way, and once it is known under which id."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", (name, account, known, json.dumps(asked)))

    def end_batch(self, account: str, name: str, dollars: float) -> None:
        """It is kept: charge the difference between what it cost and its worst case."""
        with self._writing() as db:
            db.execute("DELETE FROM batches WHERE name = ?", (name,))
            db.execute(CHARGE, (dollars, account))

    def charged(self, account: str) -> float:
        """Dollars paid there so far; of requests whose fate is unknown, such as after a kill, the worst case."""
        with self._plain():
            row = self._db.execute("SELECT charged FROM accounts WHERE account = ?", (account,)).fetchone()
        return row[0] if row else 0.0

    def keep(self, account: str, asked: str, reply: Reply, *, price: str = "", once: bool = False) -> bool:
        """Commit one reply as it came, in the place of a failure and of the same model's earlier one.

        `once` leaves what is there; the result says whether it was written.
        """
        row = (*reply[:2], account, asked, *reply[2:8], price, *reply[8:], datetime.now(UTC).isoformat())
        with self._writing() as db:
            if not once:
                db.execute("DELETE FROM replies WHERE request = ? AND model = ''", reply[:1])
            how = "IGNORE" if once else "REPLACE"
            return db.execute(f"INSERT OR {how} INTO replies VALUES ({','.join('?' * len(row))})", row).rowcount == 1

    def settle(self, account: str, reply: Reply, price: Price, worst: float | None) -> Reply:
        """Read the model's name and the usage of a kept reply, and charge what it cost instead of the worst case.

        Without a worst case it is one of a batch, which is cheaper and charged when all of it is kept.
        """
        name, counts = usage(reply.raw or b"")
        dollars = None if counts is None else price.dollars(counts[0], counts[2], counts[1], batch=worst is None)
        told = reply._replace(model=name, dollars=dollars)._replace(
            **dict(zip(("tokens_in", "tokens_cached", "tokens_out"), counts or (None, None, None), strict=True))
        )
        with self._writing() as db:
            fields = "model = ?, tokens_in = ?, tokens_cached = ?, tokens_out = ?, dollars = ?"
            change = f"UPDATE OR REPLACE replies SET {fields} WHERE request = ? AND model = ''"
            first = db.execute(change, (name, *told[4:8], told.request)).rowcount  # or another process has done it
            if first and dollars is not None and worst is not None:
                db.execute(CHARGE, (dollars - worst, account))
        return told
