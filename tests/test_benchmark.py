"""The stopwatch: what is timed, in which order, and what is not counted."""

import time

import pytest
import torch

from workbench.benchmark import measure
from workbench.errors import WorkbenchError

TEXTS = [str(i) for i in range(10)]


def test_arms_take_turns_on_the_same_texts():
    calls = []
    arms = {name: (lambda texts, name=name: calls.append((name, tuple(texts)))) for name in ("teacher", "student")}
    table = measure(arms, TEXTS, repeats=3, batch_size=4)
    assert [name for name, _ in calls] == ["teacher", "student"] * (len(calls) // 2)
    assert [texts for _, texts in calls[::2]] == [texts for _, texts in calls[1::2]]
    timed = [texts for _, texts in calls[-12::2]]
    assert timed == [("0",), tuple("0123"), ("1",), tuple("4567"), ("2",), tuple("8901")]
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


@pytest.mark.parametrize(
    ("arms", "texts", "options", "message"),
    [
        ({}, TEXTS, {}, "0 arms and 10 texts"),
        ({"arm": len}, [], {}, "1 arms and 0 texts"),
        ({"arm": len}, TEXTS, {"repeats": 0}, "repeats is 0"),
        ({"arm": len}, TEXTS, {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_nothing_to_measure_is_refused(arms, texts, options, message):
    with pytest.raises(WorkbenchError, match=message):
        measure(arms, texts, **options)
