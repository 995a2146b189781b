"""What a distillation step costs: against plain fine-tuning, a bare loop, a naive step and a teacher in the loop.

Run it on an idle machine: `python tests/benchmarks/kd_step.py`. All arms train the default student on the texts of
voice-commands, with one thread, taking turns of ten steps; a ratio is the median over rounds of two neighbours' times
(seconds of CPU, which are the wall's on an idle machine and leave others' work out on a busy one).

- kd: `train` from stored soft labels, each batch read at random from a store of a million rows (random logits).
- plain: `train` on the labels of the same rows.
- bare: what kd does, in plain PyTorch with the labels in memory.
- naive: bare with dropout 0.1, AdamW as it comes, and every batch padded to the longest text.
- in_loop: bare with MiniLM asked in every step.

The last line is JSON. `label_memory_mb` is by how much opening the store and reading every row of it raised the
resident memory: `anonymous` is the index, `mapped` are pages of the shards, which the system takes back when it needs
them.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from workbench import reading, students
from workbench.soft_labels import SoftLabels, soft_labels
from workbench.store import Store
from workbench.tasks import load_task
from workbench.training import Job, TrainConfig, train

ROWS = 1_000_000
ROUNDS = 30
TURN = 10  # steps
CONFIG = TrainConfig(steps=10**6, eval_every=10**6, log_every=TURN)

torch.set_num_threads(1)
task = load_task("voice-commands")
texts = list(task.transfer_texts)
classes = len(task.label_names)
random = np.random.default_rng(0)


class RandomTeacher:
    """Scores at random, so that a million rows take no time."""

    name = fingerprint = "random"
    label_names = task.label_names

    def logits(self, texts: list[str]) -> np.ndarray:
        return 3 * random.standard_normal((len(texts), classes), dtype=np.float32)


class Scattered:
    """The stored labels, with a batch's rows drawn afresh from all of them."""

    def __init__(self, labels: SoftLabels):
        self.labels, self.fingerprint = labels, labels.fingerprint

    def find(self, texts: list[str]) -> np.ndarray:
        return np.zeros(len(texts), dtype=np.int64)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.labels.take(random.integers(len(self.labels), size=len(rows)))


def build(store: Store) -> None:
    """Label a million texts."""
    soft_labels(RandomTeacher(), task, texts=[f"text {i}" for i in range(ROWS)], store=store)


def memory() -> dict[str, float]:
    """Resident MB of this process, by kind."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[key].split()[0]) / 1024 for name, key in (("anonymous", "RssAnon"), ("mapped", "RssFile"))}


def bare(dropout: float = 0.0, fused: bool = True, width: int = 0, teacher: tuple | None = None) -> Iterator[float]:
    """A loop as one writes it; gives the mean loss every `TURN` steps.

    `width`: tokens that every batch is padded to; `teacher`: a model and its tokenizer, asked in every step.
    """
    torch.manual_seed(0)
    student, tokenizer = students.build(CONFIG.student, task.label_names, texts, dropout=dropout)
    tokens = [torch.tensor(row) for row in reading.encode(tokenizer, texts)]
    soft = torch.from_numpy(RandomTeacher().logits(texts))
    if teacher:
        teacher_tokens = reading.encode(teacher[1], texts)
    if fused:
        groups = [
            {"params": [p for p in student.parameters() if p.ndim >= 2], "weight_decay": CONFIG.weight_decay},
            {"params": [p for p in student.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=CONFIG.learning_rate, fused=True)
    else:
        optimizer = torch.optim.AdamW(student.parameters(), lr=CONFIG.learning_rate)
    student.train()
    total = torch.zeros(())
    t = CONFIG.temperature
    for step in count(1):
        rows = torch.randint(len(texts), (CONFIG.batch_size,)).tolist()
        ids = pad_sequence([tokens[i] for i in rows], batch_first=True, padding_value=tokenizer.pad_token_id)
        ids = F.pad(ids, (0, max(0, width - ids.shape[1])), value=tokenizer.pad_token_id)
        target = soft[rows]
        if teacher:
            padded, mask = reading.pad([teacher_tokens[i] for i in rows], teacher[1].pad_token_id)
            with torch.no_grad():
                target = teacher[0](input_ids=padded, attention_mask=mask).logits
        logits = student(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits
        log_q, log_p = F.log_softmax(logits / t, -1), F.log_softmax(target / t, -1)
        loss = t**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), CONFIG.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.detach()
        if step % TURN == 0:
            yield total.item() / TURN
            total.zero_()


with tempfile.TemporaryDirectory() as folder:
    store = Store(folder)
    began = time.perf_counter()
    child = get_context("fork").Process(target=build, args=(store,))  # what it takes is not this process's memory
    child.start()
    child.join()
    building = time.perf_counter() - began

    before, began = memory(), time.perf_counter()
    stored = SoftLabels(next(iter(store.list("soft_labels"))).kind, "random", store)
    opening = time.perf_counter() - began
    for start in range(0, ROWS, 1000):
        stored.take(random.permutation(np.arange(start, min(start + 1000, ROWS))))
    label_memory = {name: round(value - before[name], 1) for name, value in memory().items()}
    began = time.perf_counter()
    stored.find([f"text {i}" for i in range(100_000)])
    finding = 10 * (time.perf_counter() - began)
    batches = random.integers(ROWS, size=(1000, CONFIG.batch_size))
    began = time.perf_counter()
    for rows in batches:
        stored.take(rows)
    taking = time.perf_counter() - began

    teacher = students.build("minilm", task.label_names, texts)
    teacher[0].eval()
    _, tokenizer = students.build(CONFIG.student, task.label_names, texts)
    longest = max(map(len, reading.encode(tokenizer, texts)))
    arms = {
        "kd": train(Job(task, Scattered(stored), CONFIG), store=store),
        "plain": train(Job(task, None, replace(CONFIG, kd_weight=0.0, ce_weight=1.0)), store=store),
        "bare": bare(),
        "naive": bare(dropout=0.1, fused=False, width=longest),
        "in_loop": bare(teacher=teacher),
    }
    seconds = {name: [] for name in arms}
    for turn in range(-2, ROUNDS):  # two to warm up
        for name in np.roll(list(arms), turn):
            if name == "in_loop" and turn % 5:
                continue  # it takes long
            began = time.process_time()
            next(arms[name])
            if turn >= 0:
                seconds[name].append((time.process_time() - began) / TURN)
    for arm in arms.values():
        arm.close()

ms = 1000 * pd.DataFrame({name: pd.Series(values) for name, values in seconds.items() if name != "in_loop"})
in_loop = 1000 * float(np.median(seconds["in_loop"]))


def ratio(one: str, other: str) -> float:
    return round(float((ms[one] / ms[other]).median()), 3)


print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {CONFIG.student}, {ROWS:,} labels")
print(f"store built in {building:.0f} s, opened in {opening:.1f} s, a million texts found in {finding:.1f} s")
print(ms.quantile([0.25, 0.5, 0.75]).round(2))
result = {
    "kd_over_plain": ratio("kd", "plain"),
    "loop_over_bare": ratio("kd", "bare"),
    "step_over_naive": ratio("kd", "naive"),
    "in_loop_over_kd": round(in_loop / float(ms["kd"].median()), 2),
    "step_ms": {**ms.median().round(2).to_dict(), "in_loop": round(in_loop, 1)},
    "read_ms_a_batch": round(taking, 3),
    "label_memory_mb": label_memory,
    "rows": ROWS,
    "longest_tokens": longest,
}
print(json.dumps(result))
