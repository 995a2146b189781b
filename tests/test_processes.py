"""Many processes on one run: the numbers of one, kept by one, and a process that is killed costs the others nothing."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from refusal import refused
from safetensors.torch import load_file

from workbench import training
from workbench.language import processes
from workbench.language.blocks import load_text
from workbench.language.causal import build_causal, load_language_model
from workbench.language.labels import text_labels
from workbench.language.problems import TraceTask
from workbench.store import Store
from workbench.training import Job, TrainConfig, find_run

LENGTH = 24
CONFIG = TrainConfig(
    student="llama-2x32", loss="jsd", temperature=2.0, ce_weight=0.5, steps=5, batch_size=7, accumulation=2,
    max_length=LENGTH, eval_every=2, log_every=1, learning_rate=1e-2,
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a saved teacher and twelve texts."""
    home = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    for part in build_causal("llama-2x32", max_length=LENGTH):
        part.save_pretrained(home / "teacher")
    (home / "texts").mkdir()
    for i in range(12):
        (home / "texts" / f"{i}.txt").write_text(" ".join(f"Topic {i} says {i * j} of {j}." for j in range(1, 5)))
    return home


def job_in(home: Path, config: TrainConfig = CONFIG, store: Store | None = None) -> Job:
    store = store or Store(home / "store")
    teacher = load_language_model(home / "teacher")
    task = load_text(f"folder:{home / 'texts'}", teacher.tokenizer, length=LENGTH, store=store)
    return Job(task, text_labels(teacher, task, store=store), config)


def student(run: training.Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "model.safetensors")


# What a user's script does, after it has made sure that one process dies and that the labels read are told.
SCRIPT = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
from test_processes import CONFIG, job_in
from workbench.language.labels import TextLabels
from workbench.language.processes import train
from workbench.store import Store

os.fsync = lambda descriptor: None  # as in conftest
home, rank = Path(sys.argv[1]), os.environ["RANK"]
job, read, target = job_in(home), [], TextLabels.target
TextLabels.target = lambda self, rows, device="cpu": read.append(rows.tolist()) or target(self, rows, device)

def run(store, die=0, config=CONFIG, **options):
    for record in train(replace(job, config=config), store=Store(home / store), checkpoint_seconds=0, **options):
        if record["step"] == die and rank == "1":
            os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "first":
    run("two")
    (home / f"read {rank}.json").write_text(json.dumps(read))
    run("two", config=replace(CONFIG, precision="bfloat16"))
    run("killed", die=3)
run("killed", recompute=True)
"""


def torchrun(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = f"{Path(__file__).parent}:{Path(training.__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    (home / "distill.py").write_text(SCRIPT)
    return subprocess.run(
        [*command, str(home / "distill.py"), str(home), *arguments], env=environment, capture_output=True, timeout=500
    )


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_where_one_was_killed(home):
    job = job_in(home)
    first = torchrun(home, "first")
    assert first.returncode and "Signal 9 (SIGKILL)" in first.stderr.decode(), first.stderr.decode()[-3000:]
    assert find_run(job, Store(home / "killed")) is None
    for config, close in ((CONFIG, 1e-5), (replace(CONFIG, precision="bfloat16"), 2e-2)):
        alone = replace(job, config=config)
        list(training.train(alone, store=Store(home / "one")))
        one, two = (find_run(alone, Store(home / name)) for name in ("one", "two"))  # under the same key
        assert (two.entry.record["processes"], one.entry.record.get("processes")) == (2, None)
        for name in ("loss", "ce", "kd", "learning_rate", "validation_nll"):
            np.testing.assert_allclose(two.history[name], one.history[name], rtol=close, err_msg=name)
        if config is CONFIG:
            for name, weights in student(one).items():  # Adam makes much of rounding where a gradient is nearly 0
                torch.testing.assert_close(student(two)[name], weights, atol=2e-4, rtol=0)
    read = [json.loads((home / f"read {rank}.json").read_text()) for rank in (0, 1)]
    first_step = training.Batches(len(job.task.train), len(job.task.train), CONFIG).rows(0)
    rows = job.labels.find_blocks(job.task.train)[first_step]
    assert read[0][0] + read[0][1] + read[1][0] + read[1][1] == [*rows[:4:2], *rows[4::2], *rows[1:4:2], *rows[5::2]]
    assert [len(each) for each in read] == [10, 10]
    again = torchrun(home, "again")
    assert again.returncode == 0, again.stderr.decode()[-3000:]
    whole, killed = (find_run(job, Store(home / name)) for name in ("two", "killed"))
    assert killed.history["loss"].equals(whole.history["loss"]) and killed.metrics == whole.metrics
    for name, weights in student(whole).items():  # bit for bit, though layers were computed again
        assert torch.equal(student(killed)[name], weights)
    assert not list((home / "killed").glob(".partial/*+*/"))


def test_one_process_trains_as_ever_and_may_recompute(home, store, monkeypatch):
    job = job_in(home)
    list(training.train(job, store=store))
    calls = []
    part = type(build_causal("llama-1x32")[0].model.layers[0].mlp)
    forward = part.forward
    monkeypatch.setattr(part, "forward", lambda *args: calls.append(1) or forward(*args))
    found = {}
    for recompute in (False, True):
        calls.clear()
        steps = processes.train(job, store=Store(store.root / str(recompute)), recompute=recompute)
        next(steps)
        found[recompute] = len(calls)
        steps.close()  # and go on
        assert [record["step"] for record in processes.train(job, store=Store(store.root / str(recompute)))][-1] == 5
    assert found[True] == 2 * found[False]
    runs = [find_run(job, s) for s in (store, *(Store(store.root / name) for name in ("False", "True")))]
    assert all(run.metrics == runs[0].metrics for run in runs)
    one, *others = ((run.path / "model.safetensors").read_bytes() for run in runs)
    assert all(other == one for other in others)
    assert pd.DataFrame(processes.train(job, store=store)).equals(runs[0].history)  # found


def test_what_many_processes_cannot_share_is_told(home, store):
    with refused("give load_text"):
        list(processes.train(Job(TraceTask("t", ("a",), ("b",), (("a", "b"),)), None, CONFIG), store=store))
    with refused("raise batch_size or lower accumulation"):
        list(processes.train(job_in(home, replace(CONFIG, accumulation=8)), store=store))
