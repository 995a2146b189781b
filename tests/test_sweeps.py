"""Many runs: worker processes, failures, and what is left when one of them or all are stopped."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import PLAIN

from workbench import sweeps
from workbench.data import Task
from workbench.errors import WorkbenchError
from workbench.soft_labels import SoftLabels
from workbench.store import Store
from workbench.sweeps import Job, hits, run_all
from workbench.training import find_run, train

CONFIGS = [replace(PLAIN, steps=4, temperature=temperature, seed=seed) for temperature in (1.0, 4.0) for seed in (1, 0)]


def jobs(task: Task, labels: SoftLabels) -> list[Job]:
    return [Job(config, task, labels, f"T = {config.temperature:g}") for config in CONFIGS]


class Deadly:
    """Soft labels whose first reader is killed, once another run is finished."""

    def __init__(self, labels: SoftLabels, store: Store):
        self.labels, self.store, self.fingerprint = labels, store, labels.fingerprint

    def find(self, texts) -> np.ndarray:
        marker = self.store.root.parent / "killed"
        if not marker.exists():
            while not self.store.list("runs"):
                time.sleep(0.01)
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.labels.find(texts)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.labels.take(rows)


def made(store: Store) -> dict[str, str]:
    """When each run was made: a run that is made again shows."""
    return {entry.key: entry.record["created"] for entry in store.list("runs")}


def check_sentence(message: str, *parts: str) -> None:
    assert "\n" not in message and "Traceback" not in message
    for part in parts:
        assert part in message


def test_two_workers_give_in_order_what_one_process_gives_and_a_second_call_makes_nothing(
    task, labels, store, tmp_path, monkeypatch
):
    table = run_all(jobs(task, labels), workers=2, store=store)
    assert list(table["arm"]) == ["T = 1", "T = 1", "T = 4", "T = 4"]
    assert list(table["seed"]) == [1, 0, 1, 0] and list(table["temperature"]) == [1, 1, 4, 4]
    assert (table["label_draw"] == 0).all() and table["test.accuracy"].between(0, 1).all()
    alone = Store(tmp_path / "alone")
    for config, run in zip(CONFIGS, table["run"], strict=True):
        assert run.config == config
        list(train(task, labels, config, store=alone))
        other = find_run(task, labels, config, alone)
        for name in ("student/model.safetensors", "logits.safetensors"):
            assert (run.entry.path / name).read_bytes() == (other.entry.path / name).read_bytes()

    correct = hits(table, task)
    assert {arm: values.shape for arm, values in correct.items()} == {arm: (2, len(task.test)) for arm in table["arm"]}
    truth = np.array(task.test["label"])
    assert (correct["T = 4"][1] == (table["run"][3].logits("test").argmax(-1) == truth)).all()

    before = made(store)
    monkeypatch.setattr(sweeps, "_make", None)
    again = run_all(CONFIGS, task, labels, store=store)
    assert list(again["test.accuracy"]) == list(table["test.accuracy"]) and made(store) == before


def test_the_options_of_a_loss_are_columns(task, labels, store):
    configs = [replace(PLAIN, steps=2, loss="jsd", loss_options={"beta": beta}) for beta in (0.1, 0.9)]
    table = run_all([*configs, replace(PLAIN, steps=2)], task, labels, workers=1, store=store)
    assert list(table["beta"][:2]) == [0.1, 0.9] and np.isnan(table["beta"][2]) and "loss_options" not in table


def test_a_run_that_fails_loses_no_other(task, labels, store, capfd):
    bad = Job(replace(CONFIGS[0], seed=7), task, None, "no teacher")
    with pytest.raises(WorkbenchError) as error:
        run_all([bad, *jobs(task, labels)], workers=2, store=store)
    check_sentence(
        str(error.value),
        "1 of 5 runs failed, the others are kept; the first: no teacher seed 7: kd_weight is 1.0 but labels is None",
    )
    assert len(made(store)) == 4
    shown = capfd.readouterr().err
    assert "5/5 runs: 1 failed" in shown and "Traceback" not in shown


def test_configs_without_a_task_are_refused():
    with pytest.raises(WorkbenchError) as error:
        run_all(CONFIGS)
    check_sentence(str(error.value), "run_all(configs, task, labels)")


@pytest.mark.slow  # starts two pools
def test_a_killed_worker_gives_one_sentence_and_loses_no_finished_run(task, labels, store):
    some = jobs(task, labels)
    some[1] = replace(some[1], labels=Deadly(labels, store))
    with pytest.raises(WorkbenchError) as error:
        run_all(some, workers=2, store=store)
    check_sentence(str(error.value), "A worker process died after ", " of 4 runs", "finished runs are kept")
    before = made(store)
    assert 1 <= len(before) < 4
    more = [*some, Job(replace(CONFIGS[0], seed=2), task, labels)]  # two or more to make: a new pool
    table = run_all(more, workers=2, store=store)
    assert [run.config for run in table["run"]] == [job.config for job in more]
    assert before.items() <= made(store).items() and len(made(store)) == 5


SWEEP = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_sweeps import many
from tiny import make_labels, make_task
from workbench.store import Store
from workbench.sweeps import run_all

task = make_task(Path(sys.argv[2]))
run_all(many(), task, make_labels(task), workers=2, store=Store(sys.argv[3]))
"""


def many() -> list:
    return [replace(PLAIN, steps=60, seed=seed) for seed in range(6)]


@pytest.mark.slow
def test_interrupting_a_sweep_keeps_what_is_finished(task, labels, store, tmp_path):
    command = [sys.executable, "-c", SWEEP, str(Path(__file__).parent), str(tmp_path), str(store.root)]
    # A group of its own: Ctrl-C in a terminal reaches the workers too.
    sweep = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not store.list("runs") and sweep.poll() is None:
        time.sleep(0.02)
    os.killpg(sweep.pid, signal.SIGINT)
    error = sweep.communicate(timeout=60)[1]
    assert sweep.returncode == -signal.SIGINT
    assert "/6 runs: stopped; finished runs are kept" in error and error.strip().endswith("KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):  # no worker goes on in the background
        for _ in range(100):
            os.killpg(sweep.pid, 0)
            time.sleep(0.1)
    before = made(store)
    assert 1 <= len(before) < 6
    run_all(many(), task, labels, workers=2, store=store)
    assert before.items() <= made(store).items() and len(made(store)) == 6
