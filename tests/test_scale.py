"""Scale: a million rows in bounded memory, many classes, long texts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_tasks import write

from workbench import reading
from workbench.tasks import SPLITS, load_task
from workbench.training import Job, TrainConfig, train

PROGRAM = """
import hashlib, json, resource, sys
import numpy as np
from workbench.tasks import load_task
from workbench.soft_labels import soft_labels
from workbench.training import Job, TrainConfig, train

def peak():  # MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

class Teacher:
    name, fingerprint = "last digit", "0" * 32
    label_names = tuple(f"class{i}" for i in range(10))
    def logits(self, texts):
        return np.eye(10, dtype=np.float32)[[int(text[-1]) for text in texts]] * 5

before = peak()
task = load_task(f"csv:{sys.argv[1]}", labels_per_class=50)
labels = soft_labels(Teacher(), task)
config = TrainConfig(student="1x16", steps=4, log_every=4, eval_every=4, max_length=16, ce_weight=1.0)
(last,) = train(Job(task, labels, config))
print(json.dumps({"added": peak() - before, "rows": len(task.transfer_texts), "loss": last["loss"]}))
"""


def make_csv(path: Path, rows: int) -> Path:
    rng = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write("text,label\n")
        for start in range(0, rows, 10_000):
            words = rng.integers(0, 2000, (10_000, 10))
            for i, row in enumerate(words, start):
                file.write(f"w{' w'.join(map(str, row))} {i},class{i % 10}\n")
    return path


@pytest.mark.parametrize(
    "rows, megabytes",
    [pytest.param(100_000, 900, marks=pytest.mark.long), pytest.param(1_000_000, 2_500, marks=pytest.mark.soak)],
)
@pytest.mark.timeout(3600)
def test_a_large_csv_trains_in_bounded_memory(tmp_path, rows, megabytes):
    """The bound holds PyTorch itself; Python's lists of tokens alone would take more at a million rows."""
    path = make_csv(tmp_path / "large.csv", rows)
    env = os.environ | {"WORKBENCH_DATA": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, path], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 0.6 * rows and np.isfinite(found["loss"])
    assert found["added"] < megabytes, found


def test_long_texts_are_read_few_at_a_time():
    """A padded batch of 64 texts of 8,000 tokens has attention masks of 16 gigabytes."""
    lengths = np.random.default_rng(0).permutation([10] * 100 + [700] * 40 + [2000] * 9 + [8000] * 3)
    rows = [[1] * length for length in lengths]
    batches = list(reading.batches(rows, 0, size=64))
    assert sorted(np.concatenate([chosen for chosen, _, _ in batches])) == list(range(len(rows)))
    shapes = [tuple(ids.shape) for _, ids, _ in batches]
    assert shapes[0] == (64, 10) and (1, 8000) in shapes  # short ones as ever
    assert max(count * width**2 for count, width in shapes) <= reading.ATTENTION
    for chosen, ids, mask in batches:
        assert mask.sum(1).tolist() == lengths[chosen].tolist() and ids.shape == mask.shape


@pytest.mark.slow
def test_hundred_and_fifty_classes_and_texts_of_8000_tokens(tmp_path, store):
    long = " word" * 8000
    table = [(f"topic{c} text {i}{long * (c == 0 and i < 2)}", f"topic{c}") for c in range(150) for i in range(5)]
    task = load_task(write(tmp_path / "a.csv", table), labels_per_class=None)
    assert len(task.label_names) == 150 and len(task.test) == 150
    assert sum(len(text) > 40_000 for s in SPLITS for text in getattr(task, s)["text"]) == 2
    config = TrainConfig(
        student="1x16", kd_weight=0.0, ce_weight=1.0, steps=2, batch_size=4, eval_every=2, log_every=1, max_length=8192
    )
    assert all(np.isfinite(record["loss"]) for record in train(Job(task, None, config), store=store))
