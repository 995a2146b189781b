"""The stopwatch: what is timed, in which order, and what is not counted."""

import itertools
import os
import time

import numpy as np
import pytest
import torch
from refusal import refused

from workbench import speed, students
from workbench.speed import footprint, measure

TEXTS = [str(i) for i in range(10)]


def test_arms_take_turns_on_the_same_texts():
    calls = []
    arms = {name: (lambda texts, name=name: calls.append((name, tuple(texts)))) for name in ("teacher", "student")}
    table = measure(arms, TEXTS, repeats=3, batch_size=4)
    assert [name for name, _ in calls] == ["teacher", "student"] * (len(calls) // 2)
    assert [texts for _, texts in calls[::2]] == [texts for _, texts in calls[1::2]]
    timed = [texts for _, texts in calls[-12::2]]
    a, b, c, *rest = order = [text for texts in timed[1::2] for text in texts][:10]
    assert sorted(order) == TEXTS != order, "in a random order, for test sets are often sorted"
    assert timed == [(a,), (a, b, c, rest[0]), (b,), tuple(rest[1:5]), (c,), (*rest[5:], a, b)]
    assert len(calls) > 12, "nothing warmed up"
    assert table.index.tolist() == ["teacher", "student"] and table.index.name == "arm"
    assert (table["threads"] == torch.get_num_threads()).all() and (table["batch_size"] == 4).all()


def test_latency_is_of_one_text_and_throughput_of_a_batch_without_the_warm_up():
    calls = []

    def classify(texts: list[str]) -> None:
        calls.append(texts)
        time.sleep(0.2 if len(calls) <= 2 else 0.01 if len(texts) == 1 else 0.03)

    row = measure({"arm": classify}, TEXTS, repeats=9, batch_size=6).loc["arm"]
    assert 10 <= row["p50_ms"] < 25 and row["p50_ms"] <= row["p95_ms"] < 100
    assert 60 < row["rows_per_second"] <= 200


class Clock:
    """Time that only the arms make pass."""

    def __init__(self):
        self.now = 0.0

    def arm(self, *seconds: float):
        """An arm that takes each of these in turn, for each text."""
        calls = itertools.count()

        def classify(texts: list[str]) -> None:
            self.now += seconds[next(calls) % len(seconds)] * len(texts)

        return classify


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock.now)
    return clock


def test_the_ratio_is_of_the_same_turn_and_has_an_interval(clock):
    slow = [1.0, 1.0, 5.0, 5.0, 2.0, 2.0]  # a busy machine slows both arms alike; each call comes in two sizes
    arms = {"teacher": clock.arm(*slow), "student": clock.arm(*(s / 4 for s in slow)), "same": clock.arm(*slow)}
    table = measure(arms, TEXTS, repeats=9, batch_size=4, reference="teacher")
    for kind in ("latency", "throughput"):
        found = table[[f"{kind}_ratio", f"{kind}_ratio_low", f"{kind}_ratio_high"]]
        assert found.loc["student"].tolist() == pytest.approx([4, 4, 4])
        assert found.loc["same"].tolist() == found.loc["teacher"].tolist() == pytest.approx([1, 1, 1])
    noisy = {"teacher": clock.arm(1.0), "student": clock.arm(*np.random.default_rng(0).uniform(0.2, 0.3, 60))}
    row = measure(noisy, TEXTS, repeats=29, batch_size=4, reference="teacher").loc["student"]
    assert 1 / 0.3 < row["latency_ratio_low"] < row["latency_ratio"] < row["latency_ratio_high"] < 1 / 0.2
    again = measure(noisy, TEXTS, repeats=29, batch_size=4, reference="teacher").loc["student"]
    assert again["throughput_ratio"] == pytest.approx(row["throughput_ratio"], rel=0.1)


def test_percentiles_are_of_the_timed_calls(clock):
    row = measure({"arm": clock.arm(*range(1000))}, TEXTS, repeats=101, batch_size=1).loc["arm"]
    calls = np.arange(4, 206, 2)  # four calls warm up; single texts and batches alternate
    assert row[["p50_ms", "p95_ms", "p99_ms"]].tolist() == [1000 * np.percentile(calls, p) for p in (50, 95, 99)]
    assert row["rows_per_second"] == 1 / 105


@pytest.mark.parametrize("before", [None, "true"])
def test_one_thread_is_one_for_the_tokenizer_too(monkeypatch, before):
    seen = []
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    measure({"arm": lambda texts: seen.append(os.environ.get("TOKENIZERS_PARALLELISM"))}, TEXTS, repeats=1)
    assert set(seen) == {"false"} and os.environ.get("TOKENIZERS_PARALLELISM") == before


def test_footprint_is_of_a_process_of_its_own():
    held = np.ones(50_000_000)  # 400 MB that a forked child would seem to have
    small = "def classify(texts): return len(texts)"
    large = "a = bytearray(200_000_000)\ndef classify(texts): return len(texts)"
    table = footprint({"small": small, "large": large}, TEXTS, repeats=1)
    assert held.nbytes / 1e6 > table["peak_mb"]["small"] and table["peak_mb"]["small"] > 3
    assert 190 < table["peak_mb"]["large"] - table["peak_mb"]["small"] < 210
    assert (0 < table["start_seconds"]).all() and (table["start_seconds"] <= table["first_answer_seconds"]).all()


@pytest.mark.slow
def test_footprint_of_a_saved_student_counts_its_files(task, tmp_path):
    for part in students.build("1x32", task.label_names, task.transfer_texts):
        part.save_pretrained(tmp_path)
    files = sum(file.stat().st_size for file in tmp_path.iterdir())
    (tmp_path / "model.onnx").write_bytes(b"another arm")
    row = footprint({"student": tmp_path}, TEXTS, repeats=1).loc["student"]
    assert row["disk_mb"] == files / 1e6 and row["peak_mb"] > 100


def test_an_arm_that_fails_is_named_with_its_reason(tmp_path):
    with refused("Arm 'a' failed in a fresh process (ValueError: no): run"):
        footprint({"a": "def classify(texts): raise ValueError('no')"}, TEXTS)
    with refused("absent is missing"):
        footprint({"a": tmp_path / "absent"}, TEXTS)
