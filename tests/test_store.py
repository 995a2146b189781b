"""The store: names, exactly-once, trust, housekeeping."""

import errno
import fcntl
import json
import math
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from refusal import refused

from workbench import store as module
from workbench.store import Store, data_dir, fingerprint, sha256_file, write_atomic

REPO = Path(__file__).resolve().parents[1]


@dataclass
class Config:
    temperature: float
    sizes: tuple[int, ...] = (2, 3)


def write(text: str = "hello", **extra):
    """A build that writes two files, one in a sub-folder."""

    def build(folder: Path):
        (folder / "a.txt").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.bin").write_bytes(text.encode() * 100)
        return extra

    return build


def never(folder: Path):
    raise AssertionError("built again")


def python(code: str, *arguments: object) -> subprocess.Popen:
    """Another process that starts with `store` open on its first argument."""
    head = "import sys, time; from pathlib import Path; from workbench.store import Store\n"
    head += "store = Store(sys.argv[1])\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True)


def folders(root: Path) -> list[Path]:
    return [path for path in (root / ".partial").glob("*") if path.is_dir()]


# Names ------------------------------------------------------------------------------------------------------


def test_fingerprint_is_a_stable_name():
    inputs = {"teacher": "minilm", "temperature": 2.5, "labels": ["a", "é"], "seed": 0, "half": True, "none": None}
    assert fingerprint(inputs) == "a20acda7985c81169e58b37011c68ea2"
    assert fingerprint(dict(reversed(inputs.items()))) == fingerprint(inputs)


def test_equal_inputs_share_a_key_and_different_ones_do_not():
    assert fingerprint({"c": Config(4.0)}) == fingerprint({"c": {"sizes": [2, 3], "temperature": 4}})
    assert fingerprint(-0.0) == fingerprint(0)
    assert fingerprint(np.float64(0.5)) == fingerprint(0.5)
    different = [1, True, "1", 1.5, None, "", [], {}, [[]], 2**53 + 1, float(2**53), {"a": 1}, {"a": [1]}]
    assert len({fingerprint(value) for value in different}) == len(different)


@pytest.mark.parametrize(
    ("inputs", "place"),
    [
        ({"config": {"path": Path("x")}}, "inputs.config.path is a "),
        ({"config": [1, math.nan]}, "inputs.config[1] is nan"),
        ({"rate": math.inf}, "inputs.rate is inf"),
        ({"classes": {1: "a"}}, "inputs.classes has the key 1"),
        ({"set": {1}}, "inputs.set is a set"),
        ({"seed": np.int64(1)}, "inputs.seed is a int64"),
    ],
)
def test_fingerprint_names_what_it_refuses(inputs, place):
    with refused(place):
        fingerprint(inputs)


@pytest.mark.parametrize("kind", ["", "/x", "../x", "a/../b", ".partial", "a//b", "a+b", "csv:x", "a/"])
def test_a_kind_cannot_leave_the_store(store, kind):
    with refused("is not a folder name"):
        store.make(kind, {}, write())


def test_data_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "here"))
    assert data_dir() == tmp_path / "here" and Store().root == tmp_path / "here" / "store"
    monkeypatch.delenv("WORKBENCH_DATA")
    monkeypatch.setattr(module, "_REPO", tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    assert data_dir() == tmp_path.parent / "data"  # installed, not a checkout
    (tmp_path / "pyproject.toml").touch()
    assert data_dir() == tmp_path / "data"


# Making and finding -----------------------------------------------------------------------------------------


def test_round_trip(store):
    inputs = {"config": Config(4.0), "seed": 1}
    assert store.find("runs", inputs) is None
    entry = store.make("runs", inputs, write("hi", metrics={"accuracy": np.float32(0.5)}, note="x"))
    assert entry.path == store.root / "runs" / fingerprint(inputs) == store.find("runs", inputs).path
    assert (entry.path / "a.txt").read_text() == "hi"
    assert (entry.path / "sub" / "b.bin").read_bytes() == b"hi" * 100
    record = Store(store.root).make("runs", inputs, never).record
    assert fingerprint(record["inputs"]) == entry.key and record["inputs"]["config"]["sizes"] == [2, 3]
    assert record["metrics"] == {"accuracy": 0.5} and record["note"] == "x"
    assert record["created"].endswith("+00:00") and 0 <= record["seconds"] < 60
    assert record["versions"]["python"] == sys.version.split()[0] and "numpy" in record["versions"]
    assert "commit" in record
    files = json.loads((entry.path / "manifest.json").read_text())["files"]
    assert sorted(files) == ["a.txt", "run.json", "sub/b.bin"]
    assert files["sub/b.bin"] == {"bytes": 200, "sha256": sha256_file(entry.path / "sub" / "b.bin")}
    assert folders(store.root) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_failed_build_leaves_nothing(store, error):
    def build(folder):
        (folder / "half").write_text("x")
        raise error("stop")

    with pytest.raises(error):
        store.make("runs", {"a": 1}, build)
    assert store.find("runs", {"a": 1}) is None and store.list() == [] and folders(store.root) == []
    assert store.make("runs", {"a": 1}, write())  # the claim is free as well


@pytest.mark.parametrize("extra", [{"created": "now"}, {"metrics": {"x": object()}}, {"metrics": np.zeros(2)}])
def test_a_record_the_store_cannot_write_is_refused(store, extra):
    with refused("record"):
        store.make("runs", {}, lambda folder: extra)
    assert folders(store.root) == []


def test_an_interrupted_job_finds_its_checkpoint(store):
    def train(stop_at: int) -> module.Entry:
        """Counts to 5, a checkpoint a step; stopped half-way as a training generator that is closed."""
        with store.claim("runs", {"seed": 0}, keep=True) as claim:
            state = claim.folder / "checkpoint" / "step"
            state.parent.mkdir(exist_ok=True)
            for step in range(int(state.read_text()) if state.exists() else 0, 5):
                steps.append(step)
                write_atomic(state, str(step + 1))
                if step == stop_at:
                    (claim.folder / ".model.1-2.tmp").write_text("torn")
                    raise GeneratorExit
            write_atomic(claim.folder / "model", "done")
            return claim.commit({"seconds": 12.5})

    steps: list[int] = []
    with pytest.raises(GeneratorExit):
        train(stop_at=2)
    assert store.find("runs", {"seed": 0}) is None
    entry = train(stop_at=9)
    assert steps == [0, 1, 2, 3, 4] and entry.record["seconds"] == 12.5
    assert sorted(path.name for path in entry.path.iterdir()) == ["manifest.json", "model", "run.json"]
    with store.claim("runs", {"seed": 0}) as claim:
        assert claim.entry == entry
        with refused("already there"):
            claim.commit()


def test_a_claim_without_keep_starts_from_nothing(store):
    with store.claim("runs", {}, keep=True) as claim:
        (claim.folder / "old").write_text("x")
    with store.claim("runs", {}) as claim:
        assert list(claim.folder.iterdir()) == []
    assert folders(store.root) == []


def test_inputs_changed_after_the_claim_do_not_move_the_entry(store):
    inputs = {"seed": 0}
    with store.claim("runs", inputs) as claim:
        inputs["seed"] = 1
        claim.commit()
    assert store.find("runs", {"seed": 0}).record["inputs"] == {"seed": 0} and store.find("runs", inputs) is None


def test_a_claim_may_be_closed_by_another_thread(store):
    def job():
        with store.claim("runs", {}) as claim:
            yield claim.folder

    running = job()
    next(running)
    closer = threading.Thread(target=running.close)
    closer.start()
    closer.join()
    assert store.make("runs", {}, write())


def test_write_atomic(tmp_path):
    path = tmp_path / "x.json"
    write_atomic(path, "é")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["x.json"]
    with pytest.raises(TypeError):
        write_atomic(path, 3)
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["x.json"]


# Several owners ---------------------------------------------------------------------------------------------


def test_racing_processes_and_threads_build_once(store, tmp_path):
    code = """
def build(folder):
    with open(sys.argv[2], "a") as log: log.write("built\\n")
    time.sleep(0.3)
    (folder / "x").write_text("1")
print("ready", flush=True)
while not Path(sys.argv[3]).exists(): time.sleep(0.001)
print(store.make("race/key", {"a": 1}, build).record["created"])
"""
    log, start = tmp_path / "log", tmp_path / "start"
    children = [python(code, store.root, log, start) for _ in range(3)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    start.touch()
    created = {child.communicate(timeout=20)[0] for child in children}
    assert log.read_text() == "built\n" and len(created) == 1 and "" not in created

    built = []

    def build(folder):
        built.append(folder)
        time.sleep(0.1)

    threads = [threading.Thread(target=store.make, args=("race", {"a": 2}, build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and store.find("race", {"a": 2})


def test_a_live_claim_is_respected_and_a_killed_one_is_free_at_once(store):
    store.make("runs", {"a": 2}, write())
    child = python(
        """
with store.claim("runs", {"a": 1}) as claim, store.claim("runs", {"a": 2}):
    (claim.folder / "half").write_text("x")
    print("held", flush=True)
    time.sleep(60)
""",
        store.root,
    )
    try:
        assert child.stdout.readline() == "held\n"
        assert store.prune(kind="runs") == []
        assert len(folders(store.root)) == 1 and store.find("runs", {"a": 2})
        taken: list[float] = []

        def take() -> None:
            store.make("runs", {"a": 1}, write())
            taken.append(time.monotonic())

        waiting = threading.Thread(target=take)
        waiting.start()
        time.sleep(0.2)
        assert taken == []
    finally:
        child.kill()
        killed = time.monotonic()
        child.wait()
    waiting.join(timeout=5)
    assert taken[0] - killed < 1
    assert not (store.find("runs", {"a": 1}).path / "half").exists()


# Trust ------------------------------------------------------------------------------------------------------


def damage_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_make_replaces_a_damaged_entry_and_another_process_sees_damage_too(store):
    entry = store.make("runs", {"a": 1}, write("one"))
    damage_byte(entry.path / "a.txt")
    child = python('print(store.find("runs", {"a": 1}))', store.root)
    assert child.communicate(timeout=20)[0] == "None\n"
    os.rename(store.root / ".damaged" / f"{entry.key}-1", entry.path)
    with pytest.warns(UserWarning, match="a.txt does not match its checksum"):
        store.make("runs", {"a": 1}, write("two"))
    assert (entry.path / "a.txt").read_text() == "two"


def test_sums_are_computed_once(store, monkeypatch):
    store.make("runs", {"a": 1}, write())
    hashed = []
    monkeypatch.setattr(module, "sha256_file", lambda path: hashed.append(path) or sha256_file(path))
    for _ in range(3):
        assert store.find("runs", {"a": 1})
    assert len(hashed) == 3  # a.txt, b.bin, run.json


def test_a_finished_folder_whose_rename_was_cut_off_is_published(store):
    entry = store.make("runs", {"a": 1}, write())
    entry.path.rename(store._folder("runs", entry.key))
    (store._folder("runs", entry.key) / "checkpoint").mkdir()
    assert store.make("runs", {"a": 1}, never) == entry and not (entry.path / "checkpoint").exists()


# Trouble ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no `mount` here")
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill_with_bytes(folder: Path) -> None:
    (folder / "big").write_bytes(bytes(4 << 20))


def fill_with_safetensors(folder: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file({"logits": np.zeros(1 << 20, np.float32)}, folder / "big.safetensors")


def fill_to_the_last_page(folder: Path) -> None:
    """The build ends well and run.json does not fit."""
    with suppress(OSError), open(folder / "big", "wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass


@pytest.mark.parametrize(
    ("fill", "free"), [(fill_with_bytes, " bytes free"), (fill_with_safetensors, " bytes free"),
                       (fill_to_the_last_page, "(0 bytes free")]
)  # fmt: skip
def test_a_full_disk_is_one_sentence_and_leaves_nothing(small_disk, fill, free):
    store = Store(small_disk / "store")
    with refused("The disk is full (", f"{free})", str(store.root)):
        store.make("soft_labels", {"a": 1}, fill)
    assert folders(store.root) == [] and store.list() == []
    assert store.make("soft_labels", {"a": 1}, write())


# Housekeeping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_folder_whose_files_cannot_be_locked_is_one_sentence_and_nothing_is_removed(store, monkeypatch, number):
    entry = store.make("kind", {"a": 1}, write())

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    held = store.hold("kind")  # as it can
    for ask in (lambda: store.make("kind", {"a": 2}, never), lambda: store.prune("kind"), lambda: store.held("kind")):
        with refused(f"{store.root} can't be locked ({os.strerror(number)})", "set WORKBENCH_DATA"):
            ask()
    assert store.find("kind", {"a": 1}).path == entry.path and held
    assert folders(store.root) == []


def test_list_is_by_kind_and_oldest_first(store):
    made = [store.make(kind, {"n": n}, write()) for n, kind in enumerate(["b", "soft/t1", "soft/t2", "software"])]
    assert store.list() == made
    assert store.list("soft") == made[1:3] and store.list("soft/t2") == made[2:3] and store.list("none") == []
    os.truncate(made[0].path / "a.txt", 1)
    assert store.list() == made[1:]
    assert Store(store.root / "nowhere").list() == []


def test_prune(store):
    runs = [store.make("runs", {"n": n}, write()) for n in range(2)]
    other = store.make("soft/t1", {"n": 0}, write())
    with store.claim("runs", {"n": 9}, keep=True) as claim:
        assert store.prune() == []  # this process is a live owner
    assert store.prune(dry_run=True) == [claim.folder] and claim.folder.exists()
    assert store.prune() == [claim.folder] and not claim.folder.exists()
    assert store.list() == [*runs, other]
    assert store.prune(older_than_days=1) == []
    assert store.prune("runs", dry_run=True) == [entry.path for entry in runs] and store.list() == [*runs, other]
    assert store.prune("runs", older_than_days=0) == [entry.path for entry in runs]
    assert store.list() == [other] and store.find("runs", {"n": 0}) is None
    assert not any((store.root / ".damaged").iterdir())
    assert Store(store.root / "nowhere").prune() == []


def test_runs(store):
    store.make("runs", {"config": {"seed": 3, "t": 2.5}, "task": {"seed": 7}}, write(metrics={"accuracy": 0.5}))
    store.make("runs", {"kind": "x", "sizes": [1, 2]}, write(metrics={"test": {"accuracy": 0.25}}))
    frame = store.runs("runs")
    columns = "kind key created seconds bytes path config.seed t task.seed metrics.accuracy"
    assert list(frame.columns) == [*columns.split(), "inputs.kind", "sizes", "test.accuracy"]
    first, second = frame.to_dict("records")
    assert (first["config.seed"], first["task.seed"], first["t"], first["metrics.accuracy"]) == (3, 7, 2.5, 0.5)
    assert second["inputs.kind"] == "x" and second["kind"] == "runs" and second["sizes"] == [1, 2]
    assert second["test.accuracy"] == 0.25 and math.isnan(second["config.seed"])
    assert str(frame["created"].dtype).endswith("UTC]") and first["bytes"] > 505
    assert list(Store(store.root / "nowhere").runs().columns) == columns.split()[:6]
