"""Owners killed with SIGKILL at any moment: whatever the store shows afterwards is whole, and made once."""

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.store import Store

REPO = Path(__file__).resolve().parents[1]
SHARDS, SHARD_BYTES = 3, 64 << 10

# Makes entry after entry until killed. Even ones start over, odd ones keep their finished shards.
# Shards are written slowly, in chunks, so that most kills land inside one.
CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_store_kill import SHARDS, content
from workbench.store import Store

store, log, stop = Store(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def slowly(path, data):
    with open(path, "wb", buffering=0) as file:
        for start in range(0, len(data), 8192):
            file.write(data[start : start + 8192])
            time.sleep(0.001)

def write(i, folder):
    print("writing", flush=True)
    for shard in range(SHARDS):
        path = folder / f"shard{shard}"
        if not path.exists():
            slowly(folder / f".shard{shard}.tmp", content(i, shard))
            (folder / f".shard{shard}.tmp").rename(path)
        (folder / "checkpoint").mkdir(exist_ok=True)
        slowly(folder / "checkpoint" / "state", content(i, shard))

i = 0
while i < stop:
    if i % 2:
        with store.claim("odd/shards", {"i": i}, keep=True) as claim:
            if claim.entry is None:
                write(i, claim.folder)
                claim.commit()
                log.open("a").write(f"{i}\\n")
    else:
        def build(folder):
            assert not any(folder.iterdir()), "a stale folder was handed out"
            write(i, folder)
        store.make("even", {"i": i}, build)
    i += 1
print("done", flush=True)
"""


def content(i: int, shard: int) -> bytes:
    """The bytes a shard must have."""
    return hashlib.sha256(f"{i} {shard}".encode()).digest() * (SHARD_BYTES // 32)


def spawn(root: Path, log: Path, stop: int) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(root), str(log), str(stop), str(REPO / "tests")]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True)


def kind_of(i: int) -> str:
    return "odd/shards" if i % 2 else "even"


def check_whole(store: Store, i: int) -> None:
    entry = store.find(kind_of(i), {"i": i})
    assert entry is not None and entry.record["inputs"] == {"i": i}
    names = sorted(path.name for path in entry.path.iterdir())
    assert names == ["manifest.json", "run.json", *(f"shard{shard}" for shard in range(SHARDS))]
    for shard in range(SHARDS):
        assert (entry.path / f"shard{shard}").read_bytes() == content(i, shard)


def kill_and_resume(root: Path, kills: int, seed: int) -> None:
    store, log, moment = Store(root), root.parent / "log", random.Random(seed)
    created: dict[str, str] = {}  # key -> when it became visible; must never change
    torn = 0
    for _ in range(kills):
        child = spawn(root, log, stop=10**6)
        assert child.stdout.readline() == "writing\n"
        time.sleep(moment.uniform(0, 0.25))
        child.kill()
        child.communicate()

        for entry in store.list():
            if entry.key not in created:
                check_whole(store, entry.record["inputs"]["i"])
            assert created.setdefault(entry.key, entry.record["created"]) == entry.record["created"]
        assert len(store.list()) == len(created)
        left = [folder for folder in (root / ".partial").glob("*") if folder.is_dir()]
        assert len(left) <= 1
        torn += bool(left)
        if left:  # the dead owner's claim can be taken at once
            i = len(created)
            start = time.monotonic()
            with store.claim(kind_of(i), {"i": i}, keep=True) as claim:
                assert time.monotonic() - start < 1
                assert claim.folder == left[0] and (claim.entry is None) == claim.folder.exists()
                if claim.entry:  # the kill fell between the manifest and the rename
                    check_whole(store, i)
    assert torn > kills // 2, "most kills should land in the middle of an entry"

    stop = len(store.list()) + 2
    last = spawn(root, log, stop)
    assert last.communicate(timeout=60)[0].endswith("done\n") and last.returncode == 0
    fresh = Store(root)
    entries = fresh.list()
    assert sorted(entry.record["inputs"]["i"] for entry in entries) == list(range(stop))
    assert {key: entry.record["created"] for entry in entries if (key := entry.key) in created} == created
    for i in range(stop):
        check_whole(fresh, i)
    committed = log.read_text().split()
    assert len(set(committed)) == len(committed)
    assert fresh.prune() == [] and not (root / ".damaged").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("error")  # nothing visible may ever be found damaged
def test_kills(tmp_path):
    kill_and_resume(tmp_path / "store", kills=10, seed=0)


@pytest.mark.soak
@pytest.mark.filterwarnings("error")
def test_many_kills(tmp_path):
    kill_and_resume(tmp_path / "store", kills=200, seed=1)
