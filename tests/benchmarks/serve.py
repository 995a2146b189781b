"""What escalation costs a shipped student that doesn't use it, and what a crowd takes of its memory when it does.

`python tests/benchmarks/serve.py [--before REVISION] [--requests 100] [--rounds 25] [--crowd 1000]`: the same shipped
folder, served by `serve.py` of that revision (the last without escalation), by today's without `--escalate`, and by
today's with it and a threshold that nothing is below. They take turns: one client after the other for the latency,
eight at once for the throughput, and the processor's time that a server spends on a request, which other work on the
machine moves least. Then a crowd, all at once, whose texts all are unsure, before a teacher that takes 0.3 s. The last
line is JSON; ratios are today's to before's, medians over many short rounds, so that what else runs hits all alike.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from served import Server, crowd, request, started
from server import completion, saying
from tiny import make_shipped, make_task

TEXT = ["the cat near a dog and apple"]


def cpu_seconds(server: Server) -> float:
    """Of all threads of the server so far."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one_after_the_other(server: Server, requests: int) -> float:
    """Median milliseconds of a request."""
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        assert server.post(TEXT)[0] == 200
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def at_once(server: Server, requests: int, clients: int = 8) -> float:
    """Requests a second."""

    async def everything() -> float:
        queue = iter(range(requests))

        async def client() -> None:
            for _ in queue:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(request(TEXT))
                assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                writer.close()

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return requests / (time.perf_counter() - began)

    return asyncio.run(everything())


def shipped_before(folder: Path, revision: str) -> Path | None:
    """A copy of a shipped folder with the `serve.py` of a revision; None where git doesn't have it."""
    command = ["git", "show", f"{revision}:workbench/publish/serve.py"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True)
    if done.returncode:
        return print(f"{' '.join(command)}: {done.stderr.decode().strip()}")
    before = Path(shutil.copytree(folder, folder.with_name("before")))
    (before / "serve.py").write_bytes(done.stdout)
    return before


def options(base_url: str, threshold: float) -> list[str]:
    """Of a server that escalates."""
    told = {"escalate": base_url, "model": "m", "threshold": threshold, "cap": 1000, "price": "0.1/0.4", "timeout": 60}
    return [part for name, value in told.items() for part in (f"--{name}", str(value))]


def timed(folder: Path, home: Path, before: Path | None, base_url: str, given: argparse.Namespace) -> dict[str, dict]:
    """Way of serving -> what was measured of it, a value a round."""
    ways = {"before": (before, ()), "off": (folder, ()), "unused": (folder, options(base_url, 1e-9))}
    found = {way: {"p50_ms": [], "a_second": [], "cpu_ms": []} for way, (place, _) in ways.items() if place}
    with ExitStack() as stack:
        servers = {}
        for way in found:
            (home / way).mkdir()
            server = stack.enter_context(started(ways[way][0], home / way, options=ways[way][1]))
            servers[way] = server
            one_after_the_other(server, 50)
        for round_ in range(given.rounds):
            for way in list(found)[:: 1 if round_ % 2 else -1]:
                server, worked = servers[way], cpu_seconds(servers[way])
                found[way]["p50_ms"].append(one_after_the_other(server, given.requests))
                found[way]["a_second"].append(at_once(server, given.requests))
                found[way]["cpu_ms"].append(1000 * (cpu_seconds(server) - worked) / (2 * given.requests))
    return found


def crowded(folder: Path, home: Path, clients: int) -> dict[str, object]:
    """Megabytes of a server before, at most during and after a crowd, and what became of its texts."""

    def answer(body: dict) -> tuple[int, dict, bytes]:
        time.sleep(0.3)
        return 200, {}, json.dumps(completion()).encode()

    with saying(answer) as teacher, started(folder, home, options=options(teacher.base_url, 1)) as server:
        server.post(TEXT)
        idle, began = server.status("VmRSS"), time.perf_counter()
        answers = crowd(server.port, [TEXT] * clients)
        seconds, peak, after = time.perf_counter() - began, server.status("VmHWM"), server.status("VmRSS")
    became = Counter(answer.get("reason", "by the teacher") for told, _ in answers for answer in told)
    return {"clients": clients, "answered": len(answers), "seconds": round(seconds, 1), "became": became,
            "megabytes": {"idle": idle // 1000, "peak": peak // 1000, "after": after // 1000}}  # fmt: skip


if __name__ == "__main__":
    given = argparse.ArgumentParser()
    given.add_argument("--before", default="27c3356^")
    given.add_argument("--requests", type=int, default=100)
    given.add_argument("--rounds", type=int, default=25)
    given.add_argument("--crowd", type=int, default=1000)
    given = given.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["WORKBENCH_DATA"] = folder
        made = make_shipped(make_task(home), home / "made").folder
        with saying() as teacher:
            found = timed(made, home, shipped_before(made, given.before), teacher.base_url, given)
            asked = len(teacher.asked)
        (home / "crowd").mkdir()
        crowd_told = crowded(made, home / "crowd", given.crowd) if given.crowd else None
    for way, of in found.items():
        print(way, {name: [round(value, 3) for value in values] for name, values in of.items()})
    ratios = {
        way: {
            name: round(statistics.median(a / b for a, b in zip(of[name], found["before"][name], strict=True)), 3)
            for name in of
        }
        for way, of in found.items() if "before" in found and way != "before"
    }  # fmt: skip
    medians = {way: {name: round(statistics.median(of[name]), 3) for name in of} for way, of in found.items()}
    print(json.dumps({"requests": given.requests, "rounds": given.rounds, **medians, "over_before": ratios,
                      "asked_though_unused": asked, "crowd": crowd_told}))  # fmt: skip
