"""Soft labels: fetched by content, asked for once, and never half there."""

import hashlib
import pickle
import signal
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kills import finish, start
from refusal import refused

from workbench import soft_labels as module
from workbench.errors import WorkbenchError
from workbench.soft_labels import CONTROLS, SoftLabels, class_means, derive, permute_non_target, soft_labels
from workbench.store import Store
from workbench.tasks import Task, load_task

CLASSES = ("light", "lock", "music")
TEXTS = [f"command number {i}" for i in range(100)]


def score(text: str, classes: int) -> np.ndarray:
    """What the fake teacher thinks of a text: a function of the text alone."""
    digest = hashlib.shake_256(text.encode()).digest(2 * classes)
    return (np.frombuffer(digest, dtype="<u2") / 6553.6 - 5).astype(np.float32)


class FakeTeacher:
    """Counts what it is asked."""

    def __init__(self, label_names: tuple[str, ...] = CLASSES, fingerprint: str = "fake 1") -> None:
        self.name, self.label_names, self.fingerprint = "fake", label_names, fingerprint
        self.asked: list[str] = []

    def logits(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return np.stack([score(text, len(self.label_names)) for text in texts])


class BrokenTeacher(FakeTeacher):
    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def logits(self, texts: list[str]) -> np.ndarray:
        return self.answer(super().logits(texts))


def right(texts: list[str], classes: int = 3) -> np.ndarray:
    return np.stack([score(text, classes) for text in texts])


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """60 texts of three classes."""
    path = tmp_path_factory.mktemp("csv") / "mine.csv"
    path.write_text("text,label\n" + "".join(f"{c} {i},{c}\n" for i in range(20) for c in CLASSES))
    return load_task(f"csv:{path}", labels_per_class=3)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", 30)


# Rows by content


def test_the_transfer_set_is_labelled(task, store):
    teacher = FakeTeacher()
    labels = soft_labels(teacher, task, store=store)
    assert teacher.asked == task.transfer_texts and labels.rows_labelled == len(labels) == len(task.transfer_texts)
    got = labels.logits(task.transfer_texts)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, right(task.transfer_texts))  # float32 to the last bit


def test_rows_are_found_by_content_not_by_position(task, store, small_shards):
    labels = soft_labels(FakeTeacher(), task, texts=TEXTS, store=store)
    order = np.random.default_rng(0).permutation(100)
    shuffled = [TEXTS[i] for i in order]
    np.testing.assert_array_equal(labels.logits(shuffled), right(shuffled))
    np.testing.assert_array_equal(labels.logits(TEXTS[41:44]), right(TEXTS[41:44]))
    np.testing.assert_array_equal(labels.logits([TEXTS[99]] * 3), right([TEXTS[99]] * 3))
    np.testing.assert_array_equal(labels.take(labels.find(shuffled)), right(shuffled))


def test_nothing_is_asked_twice(task, store, small_shards):
    teacher = FakeTeacher()
    labels = soft_labels(teacher, task, texts=[*TEXTS, *TEXTS[:5]], store=store)
    assert teacher.asked == TEXTS and labels.rows_labelled == len(labels) == 100  # copies once
    assert labels.bytes == 100 * 3 * 4 + 4 * 128  # float32, a header a shard
    again = FakeTeacher()
    labels = soft_labels(again, task, texts=TEXTS[::-1], store=store)  # another order is no new row
    assert again.asked == [] and labels.rows_labelled == 0 and len(labels) == 100


def test_only_new_rows_are_asked(task, store, small_shards):
    soft_labels(FakeTeacher(), task, texts=TEXTS[:70], store=store)
    teacher, progress, texts = FakeTeacher(), [], ["a new first row", *TEXTS]
    labels = soft_labels(teacher, task, texts=texts, store=store, progress=lambda *told: progress.append(told))
    assert teacher.asked == ["a new first row", *TEXTS[70:]] and labels.rows_labelled == 31
    assert progress == [(30, 31), (31, 31)]
    np.testing.assert_array_equal(labels.logits(TEXTS), right(TEXTS))


def test_another_draw_of_labels_asks_nothing_new():
    shared = Store()
    first, second = (load_task("voice-commands", label_draw=draw) for draw in (0, 1))
    soft_labels(FakeTeacher(first.label_names), first, store=shared)
    again = FakeTeacher(second.label_names)
    labels = soft_labels(again, second, store=shared)
    assert again.asked == []
    np.testing.assert_array_equal(labels.logits(second.transfer_texts), right(second.transfer_texts, 19))


def test_another_teacher_has_labels_of_its_own(task, store):
    first = soft_labels(FakeTeacher(), task, store=store)
    other = FakeTeacher(fingerprint="fake 2")
    second = soft_labels(other, task, store=store)
    assert len(other.asked) == len(task.transfer_texts) and len(first) == len(second)
    assert first.fingerprint != second.fingerprint
    assert soft_labels(FakeTeacher(), task, store=store).fingerprint == first.fingerprint


def test_text_of_any_kind(task, store):
    texts = ["", " ", "\u6e2f\u706f \U0001f600", "a\nb", "x" * 10_000, "caf\u00e9", "cafe\u0301"]
    # numpy drops the trailing zero bytes of a byte string: a key that ends in one must be found all the same
    zero = next(t for t in map(str, range(10_000)) if hashlib.blake2b(t.encode(), digest_size=16).digest()[-1] == 0)
    for some in (texts, [zero]):
        labels = soft_labels(FakeTeacher(), task, texts=some, store=store)
        np.testing.assert_array_equal(labels.logits(some), right(some))


# Damage


def shards(store: Store, labels: SoftLabels) -> list[Path]:
    return [entry.path for entry in store.list(labels.kind)]


@pytest.mark.parametrize("file", ["logits.npy", "ids.npy"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_shard_is_put_aside_and_made_again(task, store, small_shards, file, damage):
    labels = soft_labels(FakeTeacher(), task, texts=TEXTS, store=store)
    victim = shards(store, labels)[1] / file
    content = victim.read_bytes()
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(content[:-7] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))

    teacher = FakeTeacher()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        labels = soft_labels(teacher, task, texts=TEXTS, store=store)
    assert teacher.asked == TEXTS[30:60] and len(labels) == 100
    assert sum("is damaged" in str(w.message) and file in str(w.message) for w in caught) == 1
    assert len(list((store.root / ".damaged").iterdir())) == 1
    np.testing.assert_array_equal(labels.logits(TEXTS), right(TEXTS))


@pytest.mark.parametrize(
    "answer",
    [
        lambda logits: logits[:, :2],
        lambda logits: logits[:-1],
        lambda logits: logits[:, 0],
        lambda logits: np.where(np.arange(3) == 1, np.nan, logits),
        lambda logits: np.where(np.arange(3) == 1, -np.inf, logits),
    ],
    ids=["a class short", "a row short", "one number a text", "NaN", "infinite"],
)
def test_bad_logits_are_refused_and_not_kept(task, store, answer):
    with refused("Teacher fake gave logits of shape", "100 texts and 3 classes"):
        soft_labels(BrokenTeacher(answer), task, texts=TEXTS, store=store)
    assert store.list() == [] and not [p for p in store.root.rglob("*.npy")]
    good = soft_labels(FakeTeacher(), task, texts=TEXTS, store=store)
    np.testing.assert_array_equal(good.logits(TEXTS), right(TEXTS))


def test_shards_before_a_failure_are_kept(task, store, small_shards):
    calls = Counter()

    def fail_late(logits):
        calls["asked"] += 1
        return logits if calls["asked"] < 3 else logits[:, :1]

    with pytest.raises(WorkbenchError):
        soft_labels(BrokenTeacher(fail_late), task, texts=TEXTS, store=store)
    teacher = FakeTeacher()
    soft_labels(teacher, task, texts=TEXTS, store=store)
    assert teacher.asked == TEXTS[60:]


# Refusals


def test_classes_in_another_order_are_refused(task, store):
    teacher = FakeTeacher(("lock", "light", "music"))
    with refused("Teacher fake scores 3 classes (lock, light, music", "task mine has 3 (light, lock, music"):
        soft_labels(teacher, task, store=store)
    assert teacher.asked == []
    with refused("scores 2 classes"):
        soft_labels(FakeTeacher(CLASSES[:2]), task, store=store)


def test_a_text_without_a_label_is_an_error(task, store):
    labels = soft_labels(FakeTeacher(), task, texts=TEXTS, store=store)
    assert labels.find(["never seen", TEXTS[4]]).tolist() == [-1, 4]
    with refused("1 of 2 texts have no soft label by fake", "'never seen'", "soft_labels(teacher, task)"):
        labels.logits([TEXTS[0], "never seen"])


def test_no_label_at_all(store):
    labels = SoftLabels("soft_labels/none", "fake", store)
    assert len(labels) == labels.bytes == 0 and labels.find(["a", "b"]).tolist() == [-1, -1]
    with refused("1 of 1 texts"):
        labels.logits(["a"])


def test_an_unknown_kind_is_refused(task, store):
    with refused("kind 'hidden' don't exist: choose one of logits"):
        soft_labels(FakeTeacher(), task, "hidden", store=store)


# Other processes


def test_a_worker_gets_paths_not_rows(tmp_path, store):
    names = tuple(f"class {i:03}" for i in range(200))
    path = tmp_path / "wide.csv"
    path.write_text("text,label\n" + "".join(f"{c} {i},{c}\n" for i in range(4) for c in names))
    labels = soft_labels(FakeTeacher(names), load_task(f"csv:{path}"), texts=TEXTS, store=store)
    labels.logits(TEXTS)  # the rows are open now
    sent = pickle.dumps(labels)
    assert len(sent) < labels.bytes / 10
    np.testing.assert_array_equal(pickle.loads(sent).logits(TEXTS[::-1]), right(TEXTS[::-1], 200))


def test_what_another_process_labelled_is_found_after_a_refresh(task, store):
    labels = soft_labels(FakeTeacher(), task, texts=TEXTS[:10], store=store)
    soft_labels(FakeTeacher(), task, texts=TEXTS, store=store)
    assert len(labels) == 10
    labels.refresh()
    np.testing.assert_array_equal(labels.logits(TEXTS), right(TEXTS))


class Slow(FakeTeacher):
    """Takes its time, and writes down each text that it is asked."""

    def logits(self, texts):
        for text in texts:
            time.sleep(0.002)
            with open(self.log, "a") as log:
                log.write(f"{text}\n")
        return super().logits(texts)


def label_slowly(root: Path, task: Task, log: Path) -> None:
    module.SHARD_ROWS, teacher = 10, Slow()
    teacher.log = log
    soft_labels(teacher, task, texts=TEXTS, store=Store(root))


@pytest.mark.slow
def test_killed_while_labelling(task, store, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", 10)
    log = tmp_path / "asked"
    log.touch()

    def asked() -> list[str]:
        return log.read_text().rpartition("\n")[0].splitlines()  # a kill may tear the last line

    before: set[str] = set()
    for _ in range(2):
        size = len(asked())
        child = start(label_slowly, store.root, task, log)
        while len(asked()) < size + 25 and child.is_alive():
            time.sleep(0.005)
        child.kill()  # SIGKILL, in the middle of a shard or of writing one
        assert finish(child) == -signal.SIGKILL
        rows = asked()
        found = soft_labels(FakeTeacher(), task, texts=[], store=store).find(TEXTS)
        kept = {text for text, row in zip(TEXTS, found, strict=True) if row >= 0}
        assert len(kept) % 10 == 0 and before < kept and kept < set(TEXTS)
        assert len(set(rows[size:]) - kept) <= 10, "more than one shard was lost"
        assert not set(rows[size:]) & before, "a kept row was asked again"
        before = kept

    teacher = FakeTeacher()
    labels = soft_labels(teacher, task, texts=TEXTS, store=store)
    # all the others are asked now, but for a shard that was whole when its maker was killed before naming it
    assert before.isdisjoint(teacher.asked) and len(set(TEXTS) - before - set(teacher.asked)) in (0, 10)
    assert len(labels) == len(TEXTS)  # each row once
    np.testing.assert_array_equal(labels.logits(TEXTS), right(TEXTS))


# --- controls


def test_a_permuted_row_keeps_its_top_class_and_its_probabilities():
    logits = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    changed = permute_non_target(logits)
    assert (changed.argmax(1) == logits.argmax(1)).all() and (changed.max(1) == logits.max(1)).all()
    np.testing.assert_array_equal(np.sort(changed, axis=1), np.sort(logits, axis=1))
    assert (permute_non_target(logits) == changed).all() and (permute_non_target(logits, seed=1) != changed).any()
    second = np.argsort(logits, axis=1)[:, -2]
    stayed = np.mean(second == np.argsort(changed, axis=1)[:, -2])
    assert 0.1 < stayed < 0.3, "each of five places is as likely"


def test_class_means_are_the_mean_log_probabilities_of_rows_with_the_same_top_class():
    logits = np.array([[3.0, 1.0, 0.0], [5.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(class_means(logits), [log_p[:2].mean(0), log_p[:2].mean(0), log_p[2]])
    np.testing.assert_allclose(class_means(logits + 7.0), class_means(logits), atol=1e-12)
    again = class_means(np.random.default_rng(0).normal(size=(200, 4)))
    assert len(np.unique(again.round(9), axis=0)) == 4


@pytest.mark.parametrize("control", CONTROLS)
def test_derived_labels_are_stored_under_a_name_of_their_own_and_ask_nobody(task, store, control):
    teacher, texts = FakeTeacher(), task.transfer_texts
    labels = soft_labels(teacher, task, store=store)
    derived = derive(labels, task, control, store=store)
    np.testing.assert_allclose(derived.logits(texts), CONTROLS[control](labels.logits(texts)), rtol=1e-6)
    assert derived.fingerprint != labels.fingerprint and control in derived.teacher_name
    again = derive(labels, task, control, store=store)
    assert again.fingerprint == derived.fingerprint and again.rows_labelled == 0
    assert teacher.asked == texts
    others = {derive(labels, task, name, store=store).fingerprint for name in CONTROLS}
    assert len(others) == len(CONTROLS)
    assert derive(labels, task.smaller(20), control, store=store).fingerprint not in others


def test_an_unknown_control_names_the_nearest(task, store):
    labels = soft_labels(FakeTeacher(), task, store=store)
    with refused("Unknown control 'class mean': did you mean 'class means'?"):
        derive(labels, task, "class mean", store=store)
