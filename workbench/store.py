"""Content-addressed folders: everything ever made is found again by the inputs that made it.

An entry is the folder `<root>/<kind>/<key>`; the key is the `fingerprint` of its inputs, code among them
(`code_fingerprint`). It is built under `<root>/.partial/`, listed with sizes and SHA-256 sums in `manifest.json`,
described in `run.json`, flushed to disk and only then renamed: what carries an entry's name is complete. Resume,
sharing and exactly-once live here.

Claims are `flock` locks (through `filelock`). The kernel drops the lock of a killed process, so its claim is
free at once and no lease has to time out. A store shared over NFS needs NFS v4 locking on every client.
Whoever reads entries later than they were found, such as soft labels, holds a shared lock on their kind: `Store.hold`.

Start with `Store.make`; `training.train` shows a claim that keeps checkpoints, `soft_labels` a hold.
"""

from __future__ import annotations  # `Store.list` would shadow the built-in in annotations

import ast
import errno
import functools
import hashlib
import itertools
import json
import math
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
import threading
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from .errors import Number, WorkbenchError

try:
    import fcntl
except ImportError:  # Windows: there `Store.hold` holds nothing
    fcntl = None

if TYPE_CHECKING:
    import pandas

Build = Callable[[Path], Mapping[str, Any] | None]
_REPO = Path(__file__).resolve().parents[1]
_KIND = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)
OLDEST = 36_500  # days: a century
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of a folder whose files can't be locked
_RESERVED = {"inputs", "created", "versions", "commit"}
_verified: dict[Path, object] = {}  # folder -> its manifest and the (size, mtime_ns) of its files when hashed


def data_dir() -> Path:
    """The folder of all data: `$WORKBENCH_DATA`, else `data` in a writable checkout, else `./data`."""
    if chosen := os.environ.get("WORKBENCH_DATA"):
        return _absolute(chosen)
    home = _REPO / "data"
    checkout = (_REPO / ".git").exists() or (_REPO / "pyproject.toml").exists()
    if checkout and os.access(home if home.exists() else _REPO, os.W_OK):
        return home
    return Path.cwd() / "data"


def _absolute(path: Path | str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise WorkbenchError(f"The folder {path} begins with a user who has no home here: write it out.") from None


def fingerprint(inputs: object) -> str:
    """32 hexadecimal characters naming `inputs`: the start of the SHA-256 of their canonical JSON.

    Keys are sorted, tuples equal lists, dataclasses equal dicts of their fields. A float without a fraction
    equals the integer (`4.0` and `4` share a key, as a temperature should); `True` and `1` differ.

    Raises:
        WorkbenchError: naming the place of a NaN, an infinity, a key that is not a string, or any other type.
    """
    text = json.dumps(_canonical(inputs, "inputs"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _canonical(value: object, name: str) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise WorkbenchError(f"{name} is {value}, which cannot name a result: give a finite number.")
        return int(value) if value.is_integer() else float(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise WorkbenchError(f"{name} has the key {key!r}, which is not a string: use strings.")
        return {key: _canonical(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item, f"{name}[{index}]") for index, item in enumerate(value)]
    raise WorkbenchError(
        f"{name} is a {type(value).__name__}, which has no canonical form: convert it to a str, int, float, "
        "bool, None, list, dict or dataclass."
    )


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal characters."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hash(path: Path, after: str) -> str:
    """SHA-256 of a file that was named after such a prefix; WorkbenchError where there is none to be read."""
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise OSError(0, "Not a regular file")  # a pipe or a device may never end
        return sha256_file(path)
    except OSError as error:
        raise WorkbenchError(f"Can't read {path}: {error.strerror}; check the path after {after!r}.") from None


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Write a file (text as UTF-8) so that readers and crashes see the old one or the new one, never half."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def check_writable(folder: Path, variable: str = "WORKBENCH_DATA") -> None:
    """Make the folder and a file in it, and remove what was made.

    Raises:
        WorkbenchError: it can't be; the sentence names the environment variable to change.
    """
    made = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        sentence = f"Can't write to {folder} ({error.strerror}): set {variable} to a folder that can be written to."
        raise WorkbenchError(sentence) from None
    finally:
        for place in made:
            with suppress(OSError):  # never made, or somebody else's by now
                place.rmdir()


@functools.cache  # reading them takes as long as a training step
def versions() -> dict[str, str]:
    """Versions of Python, the platform and the libraries that decide results; imports none of them."""
    from importlib import metadata

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "transformers", "numpy", "scikit-learn"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@functools.cache  # the code that runs is the code that was imported
def commit() -> str | None:
    """The checkout's commit, with ``-dirty`` if files changed since; None outside a checkout."""
    if not (_REPO / ".git").exists():
        return None
    command = ["git", "-C", str(_REPO), "describe", "--always", "--dirty", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damage(folder: Path, deep: bool = True) -> str | None:
    """What is wrong with an entry's files, or None; hashes all of them, or only `run.json` if not `deep`."""
    try:
        text = _read(folder / "manifest.json")
        files = json.loads(text)["files"]
        stats = [(folder / name).stat() for name in ("run.json", *files)][1:]
        state = (text, [(found.st_size, found.st_mtime_ns) for found in stats])
        if _verified.get(folder) == state:
            return None
        for (name, wanted), found in zip(files.items(), stats, strict=True):
            if not stat.S_ISREG(found.st_mode):
                return f"{name} is not a file"
            if found.st_size != wanted["bytes"]:
                return f"{name} has {found.st_size} bytes instead of {wanted['bytes']}"
            if (deep or name == "run.json") and sha256_file(folder / name) != wanted["sha256"]:
                return f"{name} does not match its checksum"
        if not _is_record(_read(folder / "run.json")):
            return "run.json is unreadable"
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename or folder).name} can't be read ({error.strerror})"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "manifest.json is unreadable"
    if deep:
        _verified[folder] = state
    return None


def _read(path: Path) -> str:
    if path.exists() and not path.is_file():  # reading a pipe may never end
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.read_text(encoding="utf-8")


def _is_record(text: str) -> bool:
    """Whether this is a `run.json` with what `Store.list`, `Store.runs` and `Store.prune` read."""
    try:
        record = json.loads(text)
        return {"inputs", "seconds"} <= record.keys() and datetime.fromisoformat(record["created"]).tzinfo is not None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


class Hold:
    """Keeps the entries of a kind from `Store.prune`, until it is no longer referred to or its process ends.

    One file descriptor with a shared `flock`. A copy, such as a worker process unpickles, holds by itself. Nothing is
    held where files can't be locked, or where a store that can't be written to has no such file yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
            weakref.finalize(self, os.close, descriptor)
            if fcntl:
                fcntl.flock(descriptor, fcntl.LOCK_SH)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return Hold, (self._path,)  # by the name of its file: descriptors don't travel


@dataclass(frozen=True)
class Entry:
    """A complete folder in the store."""

    kind: str
    key: str
    path: Path

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """`run.json`: inputs, created (ISO, UTC), seconds, versions, commit and what the maker added."""
        try:
            return json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise WorkbenchError(f"{self.path / 'run.json'} is missing or unreadable: make the entry again.") from None

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())


class Claim:
    """The right to make one entry, held until its context ends.

    Attributes:
        folder: where to write; the same folder for every claim of the key. It exists while `entry` is None.
        entry: the finished entry: found after waiting for another owner, or committed by this one.
    """

    def __init__(self, store: Store, kind: str, inputs: object, folder: Path, entry: Entry | None) -> None:
        self.folder, self.entry = folder, entry
        self._store, self._kind, self._inputs, self._started = store, kind, inputs, time.monotonic()

    def commit(self, extra: Mapping[str, Any] | None = None) -> Entry:
        """Publish everything in `folder`, except its sub-folder `checkpoint`, which is removed.

        `run.json` and `manifest.json` are written here. `extra` (JSON values, numpy or torch scalars) is
        added to the record; `seconds` counts from the claim unless it is given, as a resumed job should.

        Raises:
            WorkbenchError: already committed, or `extra` is not JSON or names a field of the store's own.
        """
        extra = dict(extra or {})
        if self.entry is not None:
            raise WorkbenchError(f"{self.entry.path} is already there: check claim.entry before making it.")
        if clash := sorted(_RESERVED & extra.keys()):
            raise WorkbenchError(f"The record field {clash[0]!r} belongs to the store: use another name.")
        record = {
            "inputs": self._inputs,
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "seconds": round(time.monotonic() - self._started, 3),
            "versions": versions(),
            "commit": commit(),
            **extra,
        }
        try:
            text = json.dumps(record, indent=1, default=lambda scalar: scalar.item())
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise WorkbenchError(f"The record of {self._kind} is not JSON ({error}): use plain values.") from error
        for torn in list(self.folder.rglob(".*.tmp")):  # writes that a killed owner did not finish
            torn.unlink()
        write_atomic(self.folder / "run.json", text)
        files = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if name.split("/")[0] in ("checkpoint", "manifest.json"):
                continue
            _fsync(path)
            if path.is_file():
                files[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        write_atomic(self.folder / "manifest.json", json.dumps({"files": files}, indent=1))
        self.entry = self._store._publish(self._kind, fingerprint(self._inputs))
        return self.entry


class Store:
    """All entries under `root` (default `data_dir() / "store"`), safe to share between processes and threads.

    A `kind` is a name such as `runs` or `soft_labels/minilm`; "/" makes sub-folders. An entry's own folder
    cannot serve as a kind.

    An entry whose files are missing, truncated or altered is never returned: `find`, `claim` and `make`
    move it to `<root>/.damaged/` with one warning and go on as if it did not exist. Sums are computed once
    per process and again when a file's size or time changes.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        """Nothing is created before the first claim or hold."""
        self.root = _absolute(root) if root is not None else data_dir() / "store"

    def find(self, kind: str, inputs: object) -> Entry | None:
        """The complete and verified entry made from `inputs`, or None."""
        key = fingerprint(inputs)
        path = self._path(kind, key)
        if not os.path.exists(path):
            return None
        if _damage(path) is None:
            return Entry(kind, key, path)
        with suppress(Timeout), self._claimed(kind, key, wait=False):  # busy: its owner is already replacing it
            return self._sound(kind, key)
        return None

    def unfinished(self, kind: str, inputs: object) -> Path | None:
        """The working folder of an entry that somebody began to make: running now, or interrupted."""
        folder = self._folder(kind, fingerprint(inputs))
        return folder if folder.exists() else None

    def make(self, kind: str, inputs: object, build: Build) -> Entry:
        """Find the entry, or build it exactly once however many processes ask.

        `build(folder)` writes files into the empty `folder` and may return fields for the record. Others
        wait and then find. If it raises, the folder is removed and the error passes.

        Raises:
            WorkbenchError: full disk or unwritable root.
        """
        if entry := self.find(kind, inputs):
            return entry
        with self.claim(kind, inputs) as claim:
            return claim.entry or claim.commit(build(claim.folder))

    @contextmanager
    def claim(self, kind: str, inputs: object, *, keep: bool = False) -> Iterator[Claim]:
        """Wait for and hold the only right to make an entry; publish it with `Claim.commit`.

        Leaving without a commit removes the working folder. With `keep=True` it stays, and the next claim
        with `keep=True` finds the files that were in it, after a kill too: put checkpoints under
        `checkpoint/` and write with `write_atomic`.

        Raises:
            WorkbenchError: full disk or unwritable root.
        """
        inputs = _canonical(inputs, "inputs")  # a copy: the caller may change its own before the commit
        key = fingerprint(inputs)
        path, folder = self._path(kind, key), self._folder(kind, key)
        with self._claimed(kind, key):
            entry = self._sound(kind, key)
            claim = None
            try:
                if entry is None and folder.exists():
                    if _damage(folder) is None:  # its owner was killed between the manifest and the rename
                        entry = self._publish(kind, key)
                    elif not keep or not folder.is_dir():
                        self._delete(folder)
                if entry is None:
                    folder.mkdir(exist_ok=True)
                claim = Claim(self, kind, inputs, folder, entry)
                yield claim
            except Exception as error:
                full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
                if full or "No space left on device" in str(error):  # safetensors raises a type of its own
                    free = shutil.disk_usage(self.root).free
                    raise WorkbenchError(
                        f"The disk is full ({free} bytes free) while making {path}: free some space (`python "
                        "-m workbench prune` helps) or set WORKBENCH_DATA to a folder on another disk."
                    ) from error
                raise
            finally:
                if not keep and (claim is None or claim.entry is None):
                    shutil.rmtree(folder, ignore_errors=True)

    def hold(self, kind: str) -> Hold:
        """Keep the entries of this very kind from `prune`, in every process, as long as the result lives."""
        self._path(kind)
        return Hold(self._in_use(kind))

    def held(self, kind: str) -> bool:
        """Whether somebody, here or in another process, has a `hold` on this very kind."""
        with self._unheld(kind) as free:
            return not free

    def prune(
        self, kind: str | None = None, older_than_days: float | None = None, dry_run: bool = False
    ) -> list[Path]:
        """Remove what is left over, and entries if asked; return the folders removed (or that would be).

        Always: working folders without a live owner, checkpoints of interrupted runs included, and damaged
        entries that were moved aside. With `kind` or `older_than_days` also the entries that match both.
        Whatever a live owner has claimed stays, and every entry of a kind that somebody has a `hold` on.

        Raises:
            WorkbenchError: before anything is removed: a kind that is no name, days that are no number from 0 to
                `OLDEST`, or a root that is no folder; a folder that can't be removed.
        """
        days = 0 if older_than_days is None else older_than_days
        if not Number(0, OLDEST).holds(days):
            raise WorkbenchError(f"older_than_days is {days!r}: give a number of days from 0 to {OLDEST:,}.")
        if kind is not None:
            self._path(kind)
        self._check_root()
        removed = []
        for folder in sorted(self.root.glob(".partial/*/")):
            name, _, key = folder.name.rpartition("+")
            removed += self._remove(folder, name.replace("+", "/"), key, dry_run)
        if kind is not None or older_than_days is not None:
            newest = datetime.now(UTC) - timedelta(days=days)
            old = [e for e in self.list(kind) if datetime.fromisoformat(e.record["created"]) <= newest]
            for name, entries in itertools.groupby(sorted(old, key=lambda e: e.kind), key=lambda e: e.kind):
                with self._unheld(name) as free:
                    for entry in entries if free else ():
                        removed += self._remove(entry.path, entry.kind, entry.key, dry_run)
        for folder in sorted(self.root.glob(".damaged/*")):
            removed.append(folder)
            if not dry_run:
                self._delete(folder)
        return removed

    def list(self, kind: str | None = None) -> list[Entry]:
        """Entries of a kind and the kinds below it (default all), oldest first.

        Checks names, sizes and `run.json`; `find` also checks the sums of large files.

        Raises:
            WorkbenchError: a kind that is no name, or a root that is no folder.
        """
        self._check_root()
        entries = []
        for folder, below, names in os.walk(self._path(kind) if kind is not None else self.root):
            below[:] = [name for name in below if not name.startswith(".")]
            if "manifest.json" in names:
                below.clear()
                path = Path(folder)
                if _damage(path, deep=False) is None:
                    entries.append(Entry(path.parent.relative_to(self.root).as_posix(), path.name, path))
        return sorted(entries, key=lambda entry: (entry.record["created"], entry.key))

    def runs(self, kind: str | None = None) -> pandas.DataFrame:
        """One row an entry: kind, key, created, seconds, bytes, path, then its inputs and what its maker recorded.

        Columns carry the shortest name that is unambiguous: `inputs.config.seed` becomes `seed`, or
        `config.seed` if there is another `seed`.
        """
        import pandas

        entries = self.list(kind)
        base = pandas.DataFrame(
            [(e.kind, e.key, e.record["created"], e.record["seconds"], e.bytes, str(e.path)) for e in entries],
            columns=["kind", "key", "created", "seconds", "bytes", "path"],
        )
        base["created"] = pandas.to_datetime(base["created"], utc=True)
        apart = ("created", "seconds", "versions", "commit", "bytes")  # or columns of their own already
        details = pandas.json_normalize([{k: v for k, v in e.record.items() if k not in apart} for e in entries])
        return base.join(details.rename(columns=_short_names([*details], taken=[*base])))

    def _path(self, kind: str, key: str = "") -> Path:
        if not isinstance(kind, str) or not _KIND.fullmatch(kind):
            raise WorkbenchError(f"The kind {kind!r} is not a folder name: use letters, digits and any of '_-./'.")
        return self.root / kind / key

    def _check_root(self) -> None:
        first = next(place for place in (self.root, *self.root.parents) if os.path.exists(place))
        if not os.path.isdir(first):
            raise WorkbenchError(
                f"The store {self.root} is not a folder: {first} is a file, set WORKBENCH_DATA to a folder."
            )

    def _in_use(self, kind: str) -> Path:
        return self.root / ".partial" / f"{kind.replace('/', '+')}.in_use"

    @contextmanager
    def _unheld(self, kind: str) -> Iterator[bool]:
        """Whether nobody holds the kind; if so, nobody gets to hold it before the context ends."""
        try:
            lock = self._lock(self._in_use(kind), wait=False)
        except Timeout:
            yield False
            return
        with lock:
            yield True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the disk refuses inside is one sentence; a lock that another owner has passes as it is."""
        try:
            yield
        except Timeout:
            raise
        except OSError as error:
            raise WorkbenchError(
                f"Cannot write to the store at {self.root} ({error.strerror}): make it writable or set WORKBENCH_DATA "
                "(for weights WORKBENCH_CACHE) to a folder that is."
            ) from error

    def _folder(self, kind: str, key: str) -> Path:
        return self.root / ".partial" / f"{kind.replace('/', '+')}+{key}"

    def _claimed(self, kind: str, key: str, wait: bool = True) -> AbstractContextManager:
        return self._lock(Path(f"{self._folder(kind, key)}.lock"), wait)

    def _lock(self, path: Path, wait: bool) -> AbstractContextManager:
        """Acquire; the result is a context manager that releases. Raises Timeout if busy and not `wait`."""
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            # No fallback to lock files that outlive their owner. Not thread-local: a generator that holds a
            # claim may be closed by another thread. Lock files stay: unlinking one would split its waiters.
            lock = FileLock(path, thread_local=False, fallback_to_soft=False)
            try:
                return lock.acquire(timeout=-1 if wait else 0)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                raise WorkbenchError(
                    f"Files in the store at {self.root} can't be locked ({error.strerror}): mount that folder with "
                    "locks, as NFS v4 has them, or set WORKBENCH_DATA to one on a disk of this machine."
                ) from None

    def _sound(self, kind: str, key: str) -> Entry | None:
        """The entry, or None after moving a damaged one aside. Call with the lock held."""
        path = self._path(kind, key)
        if path.exists() and (damage := _damage(path)):
            aside = self._move_aside(path)
            warnings.warn(f"{path} is damaged ({damage}): moved to {aside}, make it again.", stacklevel=3)
        return Entry(kind, key, path) if path.exists() else None

    def _move_aside(self, path: Path) -> Path:
        names = (f"{path.name.rpartition('+')[2]}-{number}" for number in itertools.count(1))
        aside = next(aside for name in names if not (aside := self.root / ".damaged" / name).exists())
        with self._writing():
            aside.parent.mkdir(exist_ok=True)
            return path.rename(aside)

    def _delete(self, folder: Path) -> None:
        with self._writing():
            folder.unlink() if folder.is_symlink() or not folder.is_dir() else shutil.rmtree(folder)

    def _remove(self, path: Path, kind: str, key: str, dry_run: bool) -> list[Path]:
        with suppress(Timeout), self._claimed(kind, key, wait=False):
            if path.exists():
                if not dry_run:  # renamed first, so that nothing half removed keeps its name
                    self._delete(self._move_aside(path))
                return [path]
        return []

    def _publish(self, kind: str, key: str) -> Entry:
        """Rename a working folder with a manifest to its entry. Call with the lock held."""
        folder, path = self._folder(kind, key), self._path(kind, key)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(path)
            _fsync(path.parent)
        return Entry(kind, key, path)


def _short_names(names: list[str], taken: list[str]) -> dict[str, str]:
    """The shortest dotted end of each name that no other name has."""
    ends = {name: [name.split(".", n)[-1] for n in range(name.count("."), -1, -1)] for name in names}
    uses = Counter([*taken, *itertools.chain(*ends.values())])
    return {name: next((end for end in ends[name] if uses[end] == 1), name) for name in names}


_PACKAGE = Path(__file__).parent
_GROUND = {"store", "errors", "escape", "teacher"}  # where results are kept, words made, teachers asked: no results


@functools.cache
def code_fingerprint(*names: str) -> str:
    """Fingerprint of code of this package, part of the key of what it computes: a changed formula finds no old result.

    ``"losses"`` is all of a module, ``"teachers:FrozenProbe"`` one definition of it; either way with every function,
    class and constant of the package that it names, those that these name, and so on, so that no key can lack some.
    What decides no number doesn't count: comments, docstrings, annotations, what is raised, and this module's like.
    Methods of objects that are handed in aren't followed: their objects have fingerprints of their own.
    """
    found: dict[tuple[str, str], str] = {}
    todo = []
    for name in names:
        module, _, definition = name.partition(":")
        todo += [(module, definition)] if definition else [(module, each) for each in _code(module).parts]
    while todo:
        module, name = todo.pop()
        if (module, name) in found or module in _GROUND:
            continue
        code = _code(module)
        found[module, name] = code.parts.get(name, "")  # "": something that the module itself imports
        todo += code.uses.get(name, [])
    return fingerprint(sorted([*key, text] for key, text in found.items()))


@dataclass(frozen=True)
class _Code:
    """A module's top-level definitions: what each does, as text, and the (module, name) of what each names."""

    parts: dict[str, str]
    uses: dict[str, list[tuple[str, str]]]


@functools.cache
def _code(module: str) -> _Code:
    tree = _Bare().visit(ast.parse((_PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")))
    nodes: dict[str, list[ast.AST]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined = [node.name]
        else:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            defined = [n.id for target in targets if target for n in ast.walk(target) if isinstance(n, ast.Name)]
        for name in defined:
            nodes.setdefault(name, []).append(node)
    modules, names = {}, {}  # what imports anywhere in the file call: our modules, and names of them
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "workbench":
            base = ".".join(node.module.split(".")[1:])
            for alias in node.names:
                dotted = f"{base}.{alias.name}".lstrip(".")
                if (_PACKAGE / f"{dotted.replace('.', '/')}.py").exists():
                    modules[alias.asname or alias.name] = dotted
                else:
                    names[alias.asname or alias.name] = (base, alias.name)
    known = {name: (module, name) for name in nodes} | names
    uses = {}
    for name, own in nodes.items():
        used = {}
        for node in (inner for part in own for inner in ast.walk(part)):
            if isinstance(node, ast.Name) and node.id in known:
                used[known[node.id]] = None
            elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in modules:
                used[modules[node.value.id], node.attr] = None
        uses[name] = [*used]
    return _Code({name: "\n".join(map(ast.dump, own)) for name, own in nodes.items()}, uses)


class _Bare(ast.NodeTransformer):
    """Leaves out what decides no number."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name in ("annotation", "returns"):
            if hasattr(node, name):
                setattr(node, name, None)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
                body[0] = ast.Pass()
        return super().generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.Pass:
        return ast.Pass()
