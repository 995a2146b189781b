"""Replies as JSON lines: ours out and in again, and in from what a vendor keeps.

`python -m workbench replies`, with `export FILE` or `import FILE…`, comes here.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from workbench.errors import WorkbenchError, reason
from workbench.hosted.batch import batch_line
from workbench.hosted.replies import Replies, Reply, read, request_key, request_text, usage
from workbench.store import write_atomic

SAMPLING = ("temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs")


def command(options: argparse.Namespace) -> int:
    """`python -m workbench replies`."""
    if options.what != "list" and not options.files:
        raise WorkbenchError(f"`replies {options.what}` names no file: add one.")
    with Replies() as replies:
        if options.what == "export":
            print(f"{export_replies(replies, options.files[0]):,} replies written to {options.files[0]}")
        elif options.what == "import":
            print(f"{import_replies(replies, options.files, options.base_url):,} replies taken in")
        else:
            table, odd = listed(replies)
            with pd.option_context("display.max_rows", None, "display.max_columns", None, "display.width", None):
                print(table.to_string(index=False) if len(table) else f"No replies in {replies.path} yet.")
                print(f"\n{odd.to_string(index=False)}" if len(odd) else "")
    return 0


def listed(replies: Replies) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What was asked: (a row an account and model that answered, a row a reply that is no answer, with its reason)."""
    counts: dict[tuple[str, str], Counter] = {}
    odd = []
    for account, asked, created, reply in replies.rows():
        body = json.loads(asked)["body"]
        said = read(reply, short=1 in (body.get("max_tokens"), body.get("max_completion_tokens")))
        count = counts.setdefault((account, reply.model or "–"), Counter(rows=0, dollars=0.0))
        count.update(rows=1, dollars=reply.dollars or 0, **{said.kind: 1})
        if said.kind != "answer":
            text = body["messages"][-1]["content"]
            odd.append({"request": reply.request[:12], "kind": said.kind, "why": said.why, "asked": str(text)[:60],
                        "created": created[:16], "account": account})  # fmt: skip
    table = pd.DataFrame([{"account": a, "model": m, **count} for (a, m), count in counts.items()])
    if len(table):
        table.insert(2, "charged", [replies.charged(account) for account in table["account"]])
    return table.fillna(0), pd.DataFrame(odd)


def export_replies(replies: Replies, path: Path) -> int:
    """Write all of them, one JSON object a line; return how many."""
    lines = []
    for account, asked, created, reply in replies.rows():
        raw = None if reply.raw is None else reply.raw.decode("utf-8", "surrogateescape")
        told = {"account": account, "asked": json.loads(asked), **reply._asdict(), "raw": raw, "created": created}
        lines.append(json.dumps(told) + "\n")
    write_atomic(path, "".join(lines))
    return len(lines)


def import_replies(replies: Replies, paths: Sequence[Path], base_url: str = "https://api.openai.com/v1") -> int:
    """Take in replies that were paid for elsewhere; what is stored already stays. Nothing is charged.

    Args:
        replies: where they go.
        paths: JSON lines: ours; a vendor's batch files, the one that was sent beside the one that came back; or
            chat completions as OpenAI stores them, each with its ``messages``.
        base_url: where those of a vendor came from.

    Raises:
        WorkbenchError: a line that is none of these, or the result of a batch without what was asked.
    """
    lines = [(where, line) for path in paths for where, line in _lines(path)]
    sent = {line["custom_id"]: line["body"] for _, line in lines if "custom_id" in line and "body" in line}
    written = 0
    for where, line in lines:
        try:
            if "asked" in line:
                asked, raw = request_text(**line["asked"]), line["raw"]
                raw = None if raw is None else raw.encode("utf-8", "surrogateescape")
                known = {name: line[name] for name in Reply._fields if name not in ("request", "raw")}
            elif "custom_id" in line:
                if "response" not in line:
                    continue  # what was sent
                body = dict(sent[line["custom_id"]])
                asked, (raw, error) = request_text(base_url, body.pop("model"), body, 0), batch_line(line)
                known = {"model": usage(raw or b"")[0], "error": error}
            else:
                body = {name: line[name] for name in SAMPLING if line.get(name) is not None}
                body["messages"] = [{k: m[k] for k in ("role", "content")} for m in line["messages"]]
                asked, raw = request_text(base_url, line["model"], body, 0), json.dumps(line).encode()
                known = {"model": line["model"], "error": None}
            reply = Reply(request_key(asked), raw=raw, **known)
        except (KeyError, TypeError, AttributeError) as error:
            raise WorkbenchError(
                f"{where} is no reply that can be read ({type(error).__name__} {reason(error)}): give lines of "
                "`replies export`, batch files (what was sent and what came), or completions with their messages."
            ) from None
        written += replies.keep("{place} {model}".format(**json.loads(asked)), asked, reply, once=True)
    return written


def _lines(path: Path) -> Iterator[tuple[str, dict]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                line = json.loads(text) if text.strip() else None
                if line is not None and not isinstance(line, dict):
                    raise ValueError("no JSON object")
                if line:
                    yield f"{path}, line {number}", line
    except OSError as error:
        raise WorkbenchError(f"Can't read {path} ({error.strerror}): check the path.") from None
    except ValueError as error:
        raise WorkbenchError(f"{path} holds a line that is no JSON object ({reason(error)}): remove it.") from None
