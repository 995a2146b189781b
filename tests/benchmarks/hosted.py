"""What asking through `workbench.hosted` costs beside the bare client, and how fast stored replies are found.

`python tests/benchmarks/hosted.py [--requests 2000] [--stored 1000000] [--seeds 5]`: against a stub that answers after
50 ms, 64 in flight: the bare async `openai` client, then ours with store, cap and parsing, taking turns; the same
again, all found; a file of so many replies, opened, and 1,000 of them found, in a process of its own; and a student of
the letters' log-probabilities (top 5) against one of the full logits. The last line is JSON.
"""

import argparse
import asyncio
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUB = """
import asyncio, json, sys
said = {"id": "c", "object": "chat.completion", "created": 1, "model": "m-1", "choices": [{"index": 0, "finish_reason":
        "stop", "message": {"role": "assistant", "content": "A"}}], "usage": {"prompt_tokens": 100,
        "completion_tokens": 1, "total_tokens": 101}}
raw = json.dumps(said).encode()
head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(raw)
async def answer(reader, writer):
    try:
        while header := await reader.readuntil(b"\\r\\n\\r\\n"):
            lines = header.lower().split(b"\\r\\n")
            size = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            await reader.readexactly(size)
            await asyncio.sleep(0.05)
            writer.write(head + raw)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
FIND = """
import resource, sys, time
from pathlib import Path
from workbench.hosted.replies import Replies
keys = [f"{i * (int(sys.argv[2]) // 1000):032x}" for i in range(1000)]
began = time.perf_counter()
with Replies(Path(sys.argv[1])) as replies:
    found = replies.find(keys)
seconds = time.perf_counter() - began
assert len(found) == 1000
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
"""
WORDS = "turn on the kitchen light and set it to forty percent please " * 12  # about a prompt with 19 classes


def bare(base_url: str, bodies: list[dict]) -> float:
    """Seconds that the client alone needs, as its documentation would have it."""
    from openai import AsyncOpenAI

    async def everything() -> float:
        async with AsyncOpenAI(api_key="none", base_url=base_url, max_retries=0) as client:
            queue = iter(bodies)

            async def worker() -> None:
                for body in queue:
                    await client.chat.completions.create(model="m", **body)

            began = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(64)))
            return time.perf_counter() - began

    return asyncio.run(everything())


def stored(folder: Path, rows: int) -> tuple[float, float]:
    """(seconds, megabytes) to open a file of so many replies and find 1,000."""
    from workbench.hosted.replies import Replies

    path = folder / "million.sqlite"
    Replies(path).__exit__()
    with sqlite3.connect(path) as db:
        row = ("m-1", "x m", "{}", b" " * 800, None, 1, 0, 1, 0.1, "", 1.0, 1, "2026")
        sql = f"INSERT INTO replies VALUES ({','.join('?' * 14)})"
        db.executemany(sql, ((f"{i:032x}", *row) for i in range(rows)))
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FIND, str(path), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return tuple(map(float, done.stdout.split()))


def students(folder: Path, seeds: int) -> dict[str, object]:
    """Test accuracy of the student of letters' log-probabilities, minus that of the full logits' student."""
    import numpy as np

    from workbench.hosted.endpoint import Endpoint
    from workbench.hosted.prices import Price
    from workbench.hosted.serve import running
    from workbench.hosted.teacher import label, load_teacher
    from workbench.soft_labels import soft_labels
    from workbench.sweeps import jobs, run_all
    from workbench.tasks import load_task
    from workbench.teachers import load_teacher as teacher_named
    from workbench.training import TrainConfig
    from workbench.verdicts import Results, compare

    task = load_task().smaller(600)
    teacher = teacher_named("minilm-frozen", task)
    with running(teacher, "minilm-frozen", widest=5) as server:
        endpoint = Endpoint(server.base_url, "minilm-frozen", price=Price(0.4, 1.6), path=folder / "student.sqlite")
        task, letters, known = label(load_teacher(endpoint, task), task)
    arms = {"letters": letters, "full logits": soft_labels(teacher, task)}
    runs = {}
    for name, labels in arms.items():
        made = run_all(jobs({name: TrainConfig(steps=150, eval_every=150)}, task, labels, range(seeds)))
        runs[name] = np.stack([run.logits() for run in made["run"]])
    results = Results.of(runs, np.array(task.test["label"]), np.array(task.test["group"]))
    (row,) = compare(results, [("letters", "full logits")]).to_dict("records")
    return {k: round(row[k], 4) for k in ("estimate", "low", "high")} | {"outside": round(known["outside"], 5)}


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--requests", type=int, default=2_000)
    options.add_argument("--stored", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seeds", type=int, default=5)
    options = options.parse_args()

    from workbench.hosted.endpoint import Endpoint, Request
    from workbench.hosted.prices import Price

    bodies = [
        {"messages": [{"role": "system", "content": WORDS}, {"role": "user", "content": f"text {i}"}], "max_tokens": 1}
        for i in range(options.requests)
    ]
    requests = [Request(body) for body in bodies]
    stub = subprocess.Popen([sys.executable, "-c", STUB], stdout=subprocess.PIPE, text=True)
    try:
        base_url = f"http://127.0.0.1:{stub.stdout.readline().strip()}/v1"
        with tempfile.TemporaryDirectory() as folder:
            alone, ours, again, work = [], [], [], []  # seconds; work: of this process, whatever else runs
            bare(base_url, bodies[:64])
            for round_ in range(options.rounds):
                path = Path(folder, f"{round_}.sqlite")
                endpoint = Endpoint(base_url, "m", price=Price(0.4, 1.6), cap=1_000.0, path=path)
                alone.append(bare(base_url, bodies))
                began = time.perf_counter()
                endpoint.ask(requests)
                ours.append(time.perf_counter() - began)
                began = time.perf_counter()
                worked = time.process_time()
                endpoint.ask(requests)
                again.append(time.perf_counter() - began)
                work.append(time.process_time() - worked)
                print(f"bare {alone[-1]:.2f} s, ours {ours[-1]:.2f} s, found again in {again[-1]:.3f} s", flush=True)
            seconds, megabytes = stored(Path(folder), options.stored)
            told = students(Path(folder), options.seeds) if options.seeds else None
    finally:
        stub.kill()
    print(json.dumps({
        "requests": options.requests,
        "over_bare_client": round(statistics.median(o / a for o, a in zip(ours, alone, strict=True)), 3),
        "requests_per_second": round(options.requests / statistics.median(ours), 1),
        "replay_per_second": round(options.requests / statistics.median(again)),
        "replay_per_cpu_second": round(options.requests / statistics.median(work)),
        "stored": options.stored, "open_and_find_1000_s": round(seconds, 3), "megabytes": round(megabytes, 1),
        "from_logprobs_minus_full": told,
        "own_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }))  # fmt: skip
