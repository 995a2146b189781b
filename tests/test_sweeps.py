"""Many runs: worker processes, failures, and what is left when one of them or all are stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution
from refusal import check_sentence, refused
from tiny import PLAIN, each

from workbench import sweeps
from workbench.soft_labels import SoftLabels, soft_labels
from workbench.store import Store
from workbench.sweeps import Search, controls, estimate, grid, idle, one_factor, results, run_all, search, table
from workbench.tasks import Task
from workbench.teachers import BagOfWords
from workbench.training import Job, TrainConfig

CONFIGS = [replace(PLAIN, steps=4, temperature=temperature, seed=seed) for temperature in (1.0, 4.0) for seed in (1, 0)]


def jobs(task: Task, labels: SoftLabels) -> list[Job]:
    return [Job(task, labels, config, f"T = {config.temperature:g}") for config in CONFIGS]


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


# --- designs


def test_a_grid_is_every_combination_and_one_factor_varies_each_alone():
    configs = grid({"temperature": [1, 4.0], "ce_weight": np.array([0.5, 1.0])}, PLAIN)
    assert [(c.temperature, c.ce_weight) for c in configs] == [(1, 0.5), (1, 1.0), (4, 0.5), (4, 1.0)]
    assert all(replace(c, temperature=PLAIN.temperature, ce_weight=PLAIN.ce_weight) == PLAIN for c in configs)
    alone = one_factor({"temperature": [1.0, 2.0, 4.0], "ce_weight": [0.5, 1.0]}, PLAIN)
    told = [(c.temperature, c.ce_weight) for c in alone]
    assert told == [(2.0, 1.0), (1.0, 1.0), (4.0, 1.0), (2.0, 0.5)], "base comes first and once"


def test_cells_that_differ_only_where_nothing_depends_on_it_are_one_run():
    assert idle(TrainConfig(ce_weight=1.0)) == ()
    assert idle(TrainConfig()) == ("label_smoothing",)
    assert "temperature" in idle(TrainConfig(loss="hard_labels"))
    assert "temperature" not in idle(TrainConfig(loss="dist")), "power 0, but T is in it"
    assert {"loss", "temperature"} <= set(idle(TrainConfig(kd_weight=0.0, ce_weight=1.0)))
    cells = grid({"loss": ["forward_kl", "hard_labels"], "temperature": [1.0, 4.0]}, TrainConfig())
    assert [(c.loss, c.temperature) for c in cells] == [("forward_kl", 1), ("forward_kl", 4), ("hard_labels", 2)]
    without = grid({"kd_weight": [0.0, 1.0], "temperature": [1.0, 4.0]}, TrainConfig(ce_weight=1.0))
    assert [(c.kd_weight, c.temperature) for c in without] == [(0, 2), (1, 1), (1, 4)]


def test_an_option_goes_only_to_losses_that_have_it_and_beta_to_the_normalised_jsd():
    space = {"loss": ["jsd", "forward_kl"], "loss_options.beta": [0.1, 0.9]}
    assert [(c.loss, c.loss_options) for c in grid(space)] == [
        ("jsd", {"normalise": True, "beta": 0.1}), ("jsd", {"normalise": True, "beta": 0.9}), ("forward_kl", {})
    ]  # fmt: skip
    plain = TrainConfig(loss="jsd", loss_options={"beta": 0.2, "normalise": False})
    assert grid({"loss_options.beta": [0.1]}, plain)[0].loss_options == {"beta": 0.1, "normalise": False}
    assert grid({"loss": ["tvd"]}, plain)[0].loss_options == {}


def test_rivals_have_as_many_settings_as_asked_all_different():
    base = TrainConfig(loss="jsd", loss_options={"beta": 0.2}, learning_rate=4e-3)
    for count in (1, 2, 5, 16):
        rivals = controls(base, count)
        assert [len({str(c) for c in configs}) for configs in rivals.values()] == [count] * 3
    first = {arm: configs[0] for arm, configs in controls(base).items()}
    assert first["labels only"] == replace(TrainConfig(), kd_weight=0.0, ce_weight=1.0)
    assert first["hard pseudo-labels"].loss == "hard_labels" and first["label smoothing"].label_smoothing > 0
    with refused("count is 0"):
        controls(base, 0)


# --- runs


@pytest.fixture(scope="module")
def alone(task, labels, tmp_path_factory) -> pd.DataFrame:
    """The runs of CONFIGS, made one after the other in this process."""
    return run_all(jobs(task, labels), workers=1, store=Store(tmp_path_factory.mktemp("alone")))


def check_equal(runs: pd.DataFrame, others: pd.DataFrame) -> None:
    """The same numbers, students and logits, to the last bit."""
    apart = ["train_seconds", "run"]
    pd.testing.assert_frame_equal(runs.drop(columns=apart), others.drop(columns=apart), check_exact=True)
    for run, other in zip(runs["run"], others["run"], strict=True):
        for name in ("student/model.safetensors", "logits.safetensors"):
            assert (run.entry.path / name).read_bytes() == (other.entry.path / name).read_bytes()


def test_the_table_and_the_hits_are_of_the_runs_in_their_order(task, alone):
    assert list(alone["arm"]) == ["T = 1", "T = 1", "T = 4", "T = 4"]
    assert list(alone["seed"]) == [1, 0, 1, 0] and list(alone["temperature"]) == [1, 1, 4, 4]
    assert (alone["label_draw"] == 0).all() and alone["test.accuracy"].between(0, 1).all()
    assert [run.config for run in alone["run"]] == CONFIGS
    correct = results(alone, task).correct
    assert {arm: values.shape for arm, values in correct.items()} == {arm: (2, len(task.test)) for arm in alone["arm"]}
    truth = np.array(task.test["label"])
    assert (correct["T = 4"][1] == (alone["run"][3].logits("test").argmax(-1) == truth)).all()


@pytest.mark.slow
def test_neither_workers_nor_order_change_a_number_and_a_second_call_makes_nothing(task, labels, store, alone):
    table = run_all(jobs(task, labels)[::-1], workers=2, store=store)
    check_equal(table[::-1].reset_index(drop=True), alone)
    before = made(store)
    again = run_all(each(CONFIGS, task, labels), store=store)
    assert list(again["test.accuracy"]) == list(alone["test.accuracy"]) and made(store) == before


def test_a_grid_costs_one_teacher_pass(task, store):
    class Counting(BagOfWords):
        asked = 0

        def logits(self, texts):
            self.asked += len(texts)
            return super().logits(texts)

    teacher = Counting(task)
    labels = soft_labels(teacher, task, store=store)
    configs = grid({"temperature": [1.0, 4.0], "loss": ["forward_kl", "tvd", "hard_labels"]}, replace(PLAIN, steps=2))
    assert len(run_all(each(configs, task, soft_labels(teacher, task, store=store)), workers=1, store=store)) == 5
    rows = [entry.record["rows"] for entry in store.list("soft_labels")]
    assert teacher.asked == sum(rows) == labels.rows_labelled == len(set(task.transfer_texts))


def test_a_table_is_there_before_and_while_the_runs_are_made(task, labels, store):
    jsd = [replace(PLAIN, loss="jsd", loss_options={"beta": beta}) for beta in (0.1, 0.9)]
    before = table(each([*jsd, *CONFIGS], task, labels), store=store)
    assert before["run"].isna().all() and before[sweeps.SCORE].isna().all()
    assert list(before["beta"][:2]) == [0.1, 0.9] and np.isnan(before["beta"][2]) and "loss_options" not in before
    run_all(each(CONFIGS[:2], task, labels), workers=1, store=store)
    some = table(each(CONFIGS, task, labels), store=store)
    assert list(some["run"].isna()) == [False, False, True, True]
    assert list(some["temperature"]) == [1, 1, 4, 4] and (some["idle"] == "").all()
    assert some[["ce", "kd", "grad_ratio"]].notna().all(axis=1).tolist() == [True, True, False, False]
    last = some["run"][0].history.iloc[-1]
    assert dict(some.loc[0, ["ce", "kd", "grad_ratio"]]) == dict(last[["ce", "kd", "grad_ratio"]])


def test_an_estimate_counts_what_is_missing_and_leaves_nothing(task, labels, store, monkeypatch):
    run_all(each(CONFIGS[:1], task, labels), workers=1, store=store)
    found = estimate(each([*CONFIGS, CONFIGS[0]], task, labels), workers=2, store=store)
    assert (found.runs, found.found, found.workers) == (3, 2, 2) and len(store.list()) == 1
    size = sum(path.stat().st_size for path in store.list("runs")[0].path.rglob("*") if path.is_file())
    assert found.bytes == pytest.approx(3 * size, rel=0.1) and found.seconds > 0
    assert "3 runs to make (2 found): about " in str(found) and " MB of " in str(found)
    assert estimate(each(CONFIGS[:1], task, labels), store=store).seconds == 0
    monkeypatch.setattr(sweeps.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 10_000})())
    with refused("3 runs need about ", "free some space"):
        estimate(each(CONFIGS, task, labels), store=store)


def test_hits_by_a_factor_average_the_cells_of_a_seed(task, labels, store):
    configs = [replace(c, seed=seed) for c in grid({"loss": ["tvd", "forward_kl"], "temperature": [1.0, 4.0]},
               replace(PLAIN, steps=4)) for seed in (0, 1)]  # fmt: skip
    runs = run_all(each(configs, task, labels), workers=1, store=store)
    by = results(runs, task, "validation", by="loss").correct
    assert list(by) == ["tvd", "forward_kl"]
    truth = np.array(task.validation["label"])
    cells = [runs["run"][i].logits("validation").argmax(-1) == truth for i in (0, 2)]  # tvd, seed 0
    np.testing.assert_array_equal(by["tvd"][0], np.mean(cells, axis=0))


@pytest.mark.slow
def test_a_run_that_fails_loses_no_other(task, labels, store, capfd):
    bad = Job(task, None, replace(CONFIGS[0], seed=7), "no teacher")
    with refused(
        "1 of 5 runs failed, the others are kept; the first: no teacher seed 7: kd_weight is 1.0 but labels is None"
    ):
        run_all([bad, *jobs(task, labels)], workers=2, store=store)
    assert len(made(store)) == 4
    shown = capfd.readouterr().err
    assert "5/5 runs: 1 failed" in shown and "Traceback" not in shown


class Elsewhere(Store):
    """Another folder in every worker, as on a machine that does not share it."""

    def __reduce__(self):
        return Store, (self.root / "elsewhere",)


@pytest.mark.slow
def test_a_store_that_is_not_shared_is_noticed(task, labels, tmp_path):
    with refused("2 runs were made but are not in ", "one shared folder"):
        run_all(each(CONFIGS[:2], task, labels), workers=2, store=Elsewhere(tmp_path))


def test_a_worker_that_would_make_another_run_says_so(task, labels, store, monkeypatch):
    job = Job(task, labels, CONFIGS[0])
    inputs = sweeps.run_inputs(job) | {"code": "other", "device": "cuda"}
    error, _ = sweeps.make_one(job, store, inputs, {})
    check_sentence(error, "the worker's code and device differ", "the same package")
    assert not store.list()


@pytest.mark.slow
def test_a_killed_worker_gives_one_sentence_and_loses_no_finished_run(task, labels, store):
    some = jobs(task, labels)
    some[1] = replace(some[1], labels=Deadly(labels, store))
    with refused("A worker process died after ", " of 4 runs", "finished runs are kept"):
        run_all(some, workers=2, store=store)
    before = made(store)
    assert 1 <= len(before) < 4
    more = [*some, Job(task, labels, replace(CONFIGS[0], seed=2))]  # two or more to make: a new pool
    table = run_all(more, workers=2, store=store)
    assert [run.config for run in table["run"]] == [job.config for job in more]
    assert before.items() <= made(store).items() and len(made(store)) == 5


SWEEP = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_sweeps import many
from tiny import each, make_labels, make_task
from workbench.store import Store
from workbench.sweeps import run_all

task = make_task(Path(sys.argv[2]))
run_all(each(many(steps=100)[:8], task, make_labels(task)), workers=2, store=Store(sys.argv[3]))
"""


def many(steps: int = 200) -> list:
    return [replace(PLAIN, steps=steps, seed=seed) for seed in range(12)]  # seconds: the signal must come in time


@pytest.mark.slow
def test_interrupting_a_sweep_keeps_what_is_finished(task, labels, store, tmp_path):
    command = [sys.executable, "-c", SWEEP, str(Path(__file__).parent), str(tmp_path), str(store.root)]
    # A group of its own: Ctrl-C in a terminal reaches the workers too.
    sweep = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not store.list("runs") and sweep.poll() is None:
        time.sleep(0.02)
    os.killpg(sweep.pid, signal.SIGINT)
    error = sweep.communicate(timeout=300)[1]
    assert sweep.returncode in (1, -signal.SIGINT), error  # 1 if something is imported at exit
    assert "/8 runs: stopped; finished runs are kept" in error and "KeyboardInterrupt" in error
    with pytest.raises(ProcessLookupError):  # no worker goes on in the background
        for _ in range(600):
            os.killpg(sweep.pid, 0)
            time.sleep(0.1)
    before = made(store)
    assert 1 <= len(before) < 8
    run_all(each(many(steps=100)[:8], task, labels), workers=1, store=store)
    assert before.items() <= made(store).items() and len(made(store)) == 8


# --- search

SPACE = {"temperature": FloatDistribution(0.25, 16, log=True), "loss": ["forward_kl", "hard_labels"]}


def found_by(task, labels, store, **options) -> pd.DataFrame:
    base = replace(PLAIN, steps=8, learning_rate=1e-2)
    how = {"seeds": (0, 1), "batch": 3} | {k: options.pop(k) for k in ("prune", "seed") if k in options}
    options = {"workers": 1, "store": store} | options
    return search(Job(task, labels, base), Search(space=SPACE, budget=7, **how), **options)


@pytest.mark.slow
def test_a_search_depends_on_its_seed_and_on_nothing_else(task, labels, tmp_path):
    told = []
    first = found_by(task, labels, Store(tmp_path / "a"), on_batch=told.append)
    assert [len(batch) for batch in told] == [6, 12, 14] and list(first["config"].unique()) == list(range(7))
    kept = Store(tmp_path / "b")
    found_by(task, labels, kept, prune=False)  # runs that the search finds finished, where it would have stopped them
    again = [
        found_by(task, labels, Store(tmp_path / "a")),
        found_by(task, labels, kept),
        found_by(task, labels, Store(tmp_path / "c"), workers=2),
    ]
    same = ["config", "seed", "temperature", "loss", sweeps.SCORE, "pruned"]
    for other in again:
        pd.testing.assert_frame_equal(first[same], other[same], check_exact=True)
    assert (found_by(task, labels, kept, seed=1)["temperature"] != first["temperature"]).any()
    hard = first[first["loss"] == "hard_labels"]
    assert (hard["temperature"] == PLAIN.temperature).all(), "a temperature that plays no part is not varied"


def test_runs_below_the_median_are_stopped_early(task, labels, store, monkeypatch):
    monkeypatch.setattr(sweeps, "medians", lambda curves: {4: 2.0} if curves else {})  # nothing reaches 200 %
    runs = found_by(task, labels, store)
    first = runs["config"] < 3
    assert runs["pruned"].isna().tolist() == first.tolist() and (runs["pruned"].dropna() == 4).all()
    assert runs["run"][first].notna().all() and runs["run"].isna().any()
    assert runs[sweeps.SCORE].between(0, 1).all()


def test_medians_are_of_the_best_so_far_and_wait_for_four():
    curves = [pd.Series([0.1 * i, 0.05, 0.2 * i], index=[2, 4, 6]) for i in range(1, 6)]
    assert sweeps.medians(curves[:3]) == {}
    assert sweeps.medians(curves) == pytest.approx({2: 0.3, 4: 0.3, 6: 0.6})


# --- a pool that ends


@pytest.mark.slow
def test_a_sweep_whose_first_runs_all_fail_stops_and_shows_the_error(task, labels, tmp_path):
    """Its pool is killed; so it stands here, where no other test goes on with the same one."""
    (tmp_path / "file").touch()
    with refused("The first 3 runs all failed, so the other 9 were not tried", "Cannot write to the store"):
        run_all(each(many(), task, labels), workers=2, store=Store(tmp_path / "file" / "store"))


# --- a cluster


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a scheduler, its workers, none yet, and a function that starts one as on another machine."""
    home = tmp_path_factory.mktemp("cluster")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])}
    env["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "1"  # deaths over one run before it is given up
    port = home / "scheduler.json"
    common = ["--scheduler-file", str(port)]
    quiet = {"env": env, "cwd": home, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    main = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *common, "--host", "127.0.0.1",
                             "--port", "0", "--no-dashboard"], **quiet)  # fmt: skip
    while not port.exists() or not port.read_text().strip().endswith("}"):  # it is there before it is written
        assert main.poll() is None
        time.sleep(0.05)

    def worker() -> subprocess.Popen:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", *common, "--nthreads", "1", "--no-nanny",
                   "--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(home)]  # fmt: skip
        return subprocess.Popen(command, **quiet)

    workers: list[subprocess.Popen] = []
    yield json.loads(port.read_text())["address"], workers, worker
    for process in (*workers, main):
        process.kill()
        process.wait()


@pytest.fixture
def cluster(scheduler):
    """The same with two workers at work, which nobody restarts."""
    _, workers, worker = scheduler
    workers[:] = [process for process in workers if process.poll() is None]
    workers += [worker() for _ in range(2 - len(workers))]
    return scheduler


@pytest.mark.slow
def test_a_cluster_without_workers_is_not_waited_for(task, labels, store, scheduler, monkeypatch):
    monkeypatch.setattr(sweeps, "NO_WORKER_SECONDS", 2.0)
    address, workers, _ = scheduler
    for process in workers:
        process.kill()
        process.wait()
    with refused("has had no worker for 2 s", "dask worker"):
        run_all(each(CONFIGS, task, labels), store=store, cluster=address)


class Killing:
    """Soft labels that kill whoever reads them."""

    def __init__(self, labels: SoftLabels):
        self.fingerprint = labels.fingerprint

    def find(self, texts) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.long
def test_a_run_that_kills_every_worker_ends_with_one_sentence(task, labels, store, cluster, monkeypatch):
    monkeypatch.setattr(sweeps, "NO_WORKER_SECONDS", 300.0)
    stop = threading.Event()

    def revive() -> None:
        while not stop.wait(0.2):
            cluster[1][:] = [process if process.poll() is None else cluster[2]() for process in cluster[1]]

    thread = threading.Thread(target=revive)
    thread.start()
    try:
        with refused("1 of 1 runs failed", "deadly seed 1: every worker that tried it died"):
            run_all([Job(task, Killing(labels), CONFIGS[0], "deadly")], store=store, cluster=cluster[0])
    finally:
        stop.set()
        thread.join()
    assert not store.list("runs")


def test_a_cluster_that_is_not_there_is_one_sentence(task, labels, store, monkeypatch):
    with refused("No dask scheduler answers at 'nonsense://here'", "dask scheduler"):
        run_all(each(CONFIGS, task, labels), store=store, cluster="nonsense://here")


FEW = many()[:6]


@pytest.fixture(scope="module")
def undisturbed(task, labels, tmp_path_factory) -> pd.DataFrame:
    return run_all(each(FEW, task, labels), workers=2, store=Store(tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize(
    "attempt", [pytest.param(n, marks=pytest.mark.soak if n else pytest.mark.long) for n in range(6)]
)
def test_a_worker_killed_in_the_middle_costs_nothing(task, labels, store, undisturbed, cluster, attempt):
    """On a cluster, at a random moment, by SIGKILL: every run exists once, whole, and equal to one made here."""
    address, workers, _ = cluster
    victim = random.Random(attempt).choice(workers)
    moment = random.Random(attempt + 100).uniform(0.0, 1.0)
    killed = []

    def kill() -> None:
        while not store.list("runs"):
            time.sleep(0.01)
        time.sleep(moment)
        killed.append(len(store.list("runs")))
        victim.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    runs = run_all(each(FEW, task, labels), store=store, cluster=address)
    thread.join()
    assert 1 <= killed[0] < len(FEW), "the kill came after the end: it proves nothing"
    entries = store.list("runs")
    assert len(entries) == len({entry.key for entry in entries}) == len(FEW)
    assert sorted(entry.path for entry in entries) == sorted(run.entry.path for run in runs["run"])
    assert not [*store.root.glob(".partial/*/")] and not [*store.root.glob(".damaged/*")]
    check_equal(runs, undisturbed)
