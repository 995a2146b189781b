"""Work in processes of its own that SIGKILL ends at any moment, and what it must leave and come to."""

import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from workbench.store import Store

FORKS = multiprocessing.get_context("forkserver")  # forks from a process that has already imported everything
MODELS = [f"transformers.models.{kind}.modeling_{kind}" for kind in ("modernbert", "llama")]  # else by the first built
OURS = [f"workbench.{name}" for name in ("teachers", "sweeps", "hosted.endpoint", "publish.report")]
THEIRS = ["openai", "torch._dynamo", "nbformat", "rfc3987_syntax"]  # the last parses its grammar for seconds
FORKS.set_forkserver_preload([*OURS, *THEIRS, *MODELS])


def begin(started, target: Callable, arguments: tuple) -> None:
    os.fsync = lambda descriptor: None  # as in conftest: a kill doesn't cut the power
    os.setpgrp()  # with what it starts it is a group, to be killed as one
    started.set()
    target(*arguments)


def start(target: Callable, *arguments):
    """A process that is at work, in a group of its own."""
    started = FORKS.Event()
    process = FORKS.Process(target=begin, args=(started, target, arguments))
    process.start()
    assert started.wait(500)
    return process


def finish(process) -> int:
    process.join(300)
    return process.exitcode


def kill(
    target: Callable, arguments: tuple, moments: list[float], after: Callable = lambda: None,
    begun: Callable[[], bool] = lambda: True,
) -> int:  # fmt: skip
    """How many kills, at those seconds after each start and what `begun` waits for, came in time; then lets it end."""
    landed = 0
    for moment in moments:
        process = start(target, *arguments)
        while process.is_alive() and not begun():
            time.sleep(0.01)
        time.sleep(moment)
        process.kill()
        landed += finish(process) == -signal.SIGKILL
        after()
    assert finish(start(target, *arguments)) == 0
    return landed


def end_group(number: int | None) -> None:
    with suppress(ProcessLookupError):
        if number:
            os.killpg(number, signal.SIGKILL)


def check_whole(root: Path) -> None:
    """Whatever a store shows is whole: its warnings are errors in tests that say so."""
    entries = Store(root).list()
    assert all(Store(root).find(entry.kind, entry.record["inputs"]) for entry in entries)
    shown = [path for path in root.rglob("manifest.json") if ".partial" not in path.parts]
    assert len(shown) == len(entries)


def made(root: Path) -> dict[str, str]:
    """What a store's entries hold, but for what tells the time."""
    timed = ("run.json", "manifest.json", "history.json")
    files = [path for entry in Store(root).list() for path in sorted(entry.path.rglob("*")) if path.is_file()]
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name not in timed}
    return {path.relative_to(root).as_posix(): digest for path, digest in digests.items()}


def check_killed(
    work: Callable, home: Path, kills: int, *arguments: object, check: Callable[[Path], object] = check_whole,
    made: Callable[[Path], object] = made,
) -> None:  # fmt: skip
    """Killed so often at random moments, alone or with what it started, it makes what it makes undisturbed.

    `work` is called with an empty folder and the arguments, and after each kill with the same folder again, until it
    comes to its end; then with another one. What a folder holds has to pass `check` after each kill.
    """
    process, began = start(work, home / "undisturbed", *arguments), time.monotonic()  # imports are no work
    assert finish(process) == 0
    seconds, wanted = time.monotonic() - began, made(home / "undisturbed")
    assert wanted
    rng, landed, ended, code, before = random.Random(0), 0, 0, 0, None
    while landed < kills or not ended or code:
        process = start(work, home / f"{ended}", *arguments)
        process.join(rng.uniform(0, seconds))
        if landed < kills and process.is_alive():
            rng.choice((os.kill, os.killpg))(process.pid, signal.SIGKILL)
        code = finish(process)
        end_group(before)  # what a kill had left alive, which has worked beside this one
        before = process.pid
        if code == -signal.SIGKILL:
            landed += 1
            check(home / f"{ended}")
        else:
            assert code == 0 and made(home / f"{ended}") == wanted
            ended += 1
    end_group(before)
    print(f"{landed} kills of {work.__name__}, {seconds:.1f} s undisturbed: it came {ended} times to the same end")
