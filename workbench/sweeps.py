"""Many runs: designs of configs, a pool of one-thread processes here or a cluster's, and what came out as a table.

The central idea: a design is nothing but a list of `Job`s, and `run_all` makes those that nobody made yet. Each run is
found if it was ever made, redone never, whoever makes it: the store's claims, not the pool, see to that, so a killed
worker, a second sweep and a cluster need no bookkeeping of their own. Soft labels are read from disk: whatever the
design, the teacher labelled each text once.

Start with `jobs`, `run_all` and `table`; what one run is stands in `workbench.training`, what its hits prove in
`workbench.verdicts`.
"""

import itertools
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
from joblib.externals.loky import get_reusable_executor

from workbench.errors import SEED, Number, Switch, WorkbenchError, sequence, setting, settle, shown, unknown, whole
from workbench.losses import LOSSES, find_loss
from workbench.soft_labels import SoftLabels
from workbench.store import Store, fingerprint
from workbench.tasks import Task
from workbench.training import CHECKS, Job, Run, TrainConfig, find_run, run_inputs, train
from workbench.turns import one_thread_workers
from workbench.verdicts import Results

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SCORE = "validation.balanced_accuracy"  # what a search climbs: never a score on test
NO_WORKER_SECONDS = 60.0  # how long a cluster may be without any worker
PROBE_STEPS = 6
_OPTIONS = sorted({f"loss_options.{option}" for loss in LOSSES.values() for option in loss.options})


# --- designs


def grid(space: Mapping[str, Sequence[Any]], base: TrainConfig | None = None) -> list[TrainConfig]:
    """Every combination of the values in `space`, the last field varying fastest.

    Cells that differ only where nothing depends on it (see `idle`) are one run: the first is listed, with `base`'s
    values there. So `hard_labels` appears once, not once a temperature.

    Args:
        space: a field of `TrainConfig`, or ``"loss_options.<name>"``, -> its values. A loss that lacks an option goes
            without; `jsd` takes beta in its normalised form.
        base: gives all other fields.

    Raises:
        WorkbenchError: an empty space, an unknown field, a value of the wrong type or one no run could mean.
    """
    base = _base(base)
    values = _checked(space)
    cells = itertools.product(*values.values())
    return _distinct(base, [dict(zip(values, cell, strict=True)) for cell in cells])


def one_factor(space: Mapping[str, Sequence[Any]], base: TrainConfig | None = None) -> list[TrainConfig]:
    """`base`, then each field of `space` varied alone: cheap, but blind to what two fields do together.

    Arguments and errors are those of `grid`.
    """
    base = _base(base)
    changes = [{name: value} for name, values in _checked(space).items() for value in values]
    return _distinct(base, [{}, *changes])


def controls(base: TrainConfig, count: int = 1) -> dict[str, list[TrainConfig]]:
    """The rivals every sweep needs, `count` configurations each: as many as the arm under test has.

    Labels only, label smoothing and hard pseudo-labels, at learning rates from a quarter to twice `base`'s, and two
    values of a second knob: weight decay, the smoothing, and the weight of the true labels. With `count` 1 it is
    `base`'s learning rate and the first of the two.
    """
    base, count = _base(base), whole("count", count, 1, 10_000)
    rates = base.learning_rate * 2 ** (np.linspace(-2, 1, -(-count // 2)) if count > 2 else np.array([0.0]))
    cells = [(float(f"{rate:.3g}"), knob) for rate in rates for knob in (0, 1)][:count]
    supervised = replace(base, kd_weight=0.0, ce_weight=1.0, labelled_fraction=None)
    hard = replace(base, loss="hard_labels", loss_options={}, kd_weight=1.0, labelled_fraction=None)
    rivals = {
        "labels only": [replace(supervised, learning_rate=r, weight_decay=(0.01, 0.1)[k]) for r, k in cells],
        "label smoothing": [replace(supervised, learning_rate=r, label_smoothing=(0.1, 0.3)[k]) for r, k in cells],
        "hard pseudo-labels": [replace(hard, learning_rate=r, ce_weight=(0.0, 1.0)[k]) for r, k in cells],
    }
    return {arm: [_without_idle(config, TrainConfig()) for config in configs] for arm, configs in rivals.items()}


def idle(config: TrainConfig) -> tuple[str, ...]:
    """Fields that play no part in a run of `config`, whatever their value: a cell that varies them means nothing."""
    names = () if config.ce_weight else ("label_smoothing",)
    if not config.kd_weight:
        return "loss", "loss_options", "temperature", "scale_by_temperature", *names
    if config.loss == "hard_labels":
        names = "temperature", *names
    return names if LOSSES[config.loss].power else ("scale_by_temperature", *names)


def _base(base: TrainConfig | None) -> TrainConfig:
    if not isinstance(base, TrainConfig | None):
        raise WorkbenchError(f"base is {shown(base)}: give a TrainConfig, or None for its own values.")
    return base or TrainConfig()


def _checked(space: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    if not isinstance(space, Mapping):
        raise WorkbenchError(f"The space is {shown(space)}: give a dict of fields of TrainConfig with their values.")
    if not space:
        raise WorkbenchError("The space is empty: give at least one field of TrainConfig with its values.")
    for name in space:
        if name not in CHECKS and name not in _OPTIONS:
            raise unknown("field of TrainConfig", name, [*CHECKS, *_OPTIONS])
    listed = {name: sequence(f"The list of {name}", values) for name, values in space.items()}
    if empty := [name for name, values in listed.items() if not values]:
        raise WorkbenchError(f"The space has no values for {empty[0]}: give at least one.")
    return listed


def _with(base: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """`base` with fields changed.

    Options that the loss doesn't have are dropped. A beta of `jsd` comes with normalise, unless something else is said.
    """
    fields = {name: value for name, value in changes.items() if name in CHECKS}
    options = {name.partition(".")[2]: value for name, value in changes.items() if name not in CHECKS}
    loss = fields.get("loss", base.loss)
    valid = find_loss(loss).options
    for option, value in options.items():
        if option not in valid and not isinstance(value, bool):  # dropped, but not whatever it is
            Number().check(f"loss_options.{option}", value)
    if loss == "jsd" and "beta" in options:  # the plain one vanishes at both ends: it would sweep the learning rate
        options = {"normalise": base.loss_options.get("normalise", True), **options}
    given = {k: v for k, v in (base.loss_options | options).items() if k in valid}
    return replace(base, **fields, loss_options=given)


def _without_idle(config: TrainConfig, base: TrainConfig) -> TrainConfig:
    return replace(config, **{name: getattr(base, name) for name in idle(config)})


def _distinct(base: TrainConfig, cells: Iterable[Mapping[str, Any]]) -> list[TrainConfig]:
    distinct: dict[str, TrainConfig] = {}
    for cell in cells:
        config = _without_idle(_with(base, cell), base)
        distinct.setdefault(fingerprint(config), config)
    return list(distinct.values())


# --- runs


def jobs(
    arms: Mapping[str, TrainConfig | Sequence[TrainConfig]], task: Task, labels: SoftLabels | None, seeds: Iterable[int]
) -> list[Job]:
    """Each config of each arm with each seed."""
    if not isinstance(arms, Mapping):
        raise WorkbenchError(f"arms is {shown(arms)}: give a dict of names with a config or a list of configs each.")
    seeds = sequence("seeds", seeds, "whole numbers, such as range(5)")
    listed = {
        arm: sequence(f"Arm {arm!r}", [c] if isinstance(c, TrainConfig) else c, "configs") for arm, c in arms.items()
    }
    if wrong := [(arm, c) for arm, configs in listed.items() for c in configs if not isinstance(c, TrainConfig)]:
        raise WorkbenchError(f"Arm {wrong[0][0]!r} has {shown(wrong[0][1])} for a config: give a TrainConfig.")
    return [
        Job(task, labels, replace(config, seed=seed), arm, number)
        for arm, configs in listed.items()
        for number, config in enumerate(configs)
        for seed in seeds
    ]


def run_all(
    jobs: Sequence[Job], *, workers: int | None = None, store: Store | None = None, cluster: str | None = None
) -> pd.DataFrame:
    """Make every run and return one row each, in the order given: see `table`.

    Stopping with Ctrl-C keeps what is finished; the same call goes on from there, also inside a run that was stopped.

    Args:
        jobs: see `training.Job`, and `jobs`, which makes them.
        workers: processes; as many as CPU cores if None, 1 on a GPU. A cluster has its own.
        store: where the runs are; with `cluster`, in a folder that all its machines share.
        cluster: address of a dask scheduler (``"tcp://host:8786"``) whose workers make the runs. They need the
            same package, libraries and kind of device as this process; a run whose worker died is resumed by another.

    Raises:
        WorkbenchError: a run failed (the others are finished and kept first; if the first few all fail, the rest is
            not tried), a worker process died here, or on a cluster every one that tried the same run (four, unless
            the scheduler says otherwise).
    """
    store, workers, jobs = store or Store(), one_thread_workers(workers), _jobs(jobs)
    if missing := _missing(jobs, store):
        _make(missing, store, workers, len(jobs) - len(missing), cluster)
    return table(jobs, store=store)


def table(jobs: Sequence[Job], *, store: Store | None = None) -> pd.DataFrame:
    """One row a job, finished or not, in the order given; also while another process or thread makes the runs.

    Columns: arm, config (its number in the arm), label_draw, the fields of `TrainConfig`, its loss_options (each a
    column), idle (fields that play no part, see `idle`), the scores (``validation.accuracy``, ``test.accuracy``…), ce,
    kd (unweighted terms, means over the last records), grad_ratio (see `training.train`), train_seconds, and run (a
    `Run`, with its logits and its student). An unfinished run has NaN scores, and None as its run.
    """
    store = store or Store()
    return pd.DataFrame([_row(j, find_run(j, store)) for j in _jobs(jobs)])


@dataclass(frozen=True)
class Estimate:
    """What `run_all` will take: print it before a long sweep.

    Attributes:
        runs: to make.
        found: already made.
        seconds: of wall clock.
        bytes: on disk.
        free: bytes free there now.
        workers: processes side by side.
    """

    runs: int
    found: int
    seconds: float
    bytes: int
    free: int
    workers: int

    def __str__(self) -> str:
        """In words."""
        found = f" ({self.found} found)" if self.found else ""
        if not self.runs:
            return f"0 runs to make{found}"
        minutes, rest = divmod(round(self.seconds), 60)
        took = f"{minutes} min {rest} s" if minutes else f"{rest} s"
        size = f"{self.bytes / 1e6:,.0f} MB of {self.free / 1e9:,.0f} GB free"
        return f"{self.runs} runs to make{found}: about {took} with {self.workers} workers, {size}"


def estimate(jobs: Sequence[Job], *, workers: int | None = None, store: Store | None = None) -> Estimate:
    """Time and disk of `run_all`, from a few steps of one run of each size, made here and thrown away (seconds).

    With a cluster, give the number of its workers; the time assumes that they are as fast as this process.

    Raises:
        WorkbenchError: the disk has less room than the runs need.
    """
    store, workers, jobs = store or Store(), one_thread_workers(workers), _jobs(jobs)
    missing = _missing(jobs, store)
    sizes = ("student", "batch_size", "accumulation", "max_length", "dropout", "precision", "threads")
    probes, seconds, size = {}, [], 0
    for job in missing:
        c = job.config
        kind = (bool(c.kd_weight), *(getattr(c, name) for name in sizes))
        fixed, a_step, a_look, bytes_ = probes[kind] = probes.get(kind) or _probe(job)
        seconds.append(fixed + a_step * c.steps + a_look * -(-c.steps // c.eval_every))
        size += bytes_
    existing = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise WorkbenchError(
            f"{len(missing)} runs need about {size / 1e6:,.0f} MB but {store.root} has {free / 1e6:,.0f} MB free: free "
            "some space, set WORKBENCH_DATA to a folder on another disk, or make fewer runs."
        )
    wall = max(sum(seconds) / workers, max(seconds, default=0.0))
    return Estimate(len(missing), len(jobs) - len(missing), wall, size, free, workers)


def _probe(job: Job) -> tuple[float, float, float, int]:
    """(seconds beside the steps, seconds a step, seconds a look at validation, bytes on disk) of a very short run."""
    short = replace(job, config=replace(job.config, steps=PROBE_STEPS, log_every=1, eval_every=PROBE_STEPS))
    with tempfile.TemporaryDirectory() as folder:
        began, store = time.monotonic(), Store(folder)
        history = pd.DataFrame(train(short, store=store))
        whole = time.monotonic() - began
        size = store.list("runs")[0].bytes
    steps = history["seconds"].diff().iloc[1:].to_numpy()  # the first step warms up, the last one also looks
    a_step = float(np.median(steps[:-1]))
    a_look = max(float(steps[-1]) - a_step, 0.0)
    return max(whole - a_step * PROBE_STEPS - a_look, 0.0), a_step, a_look, size


def _jobs(jobs: Sequence[Job]) -> list[Job]:
    jobs = sequence("jobs", jobs, "jobs")
    if wrong := [job for job in jobs if not isinstance(job, Job)]:
        raise WorkbenchError(f"jobs hold {shown(wrong[0])}: give what `jobs(arms, task, labels, seeds)` makes.")
    return jobs


def _missing(jobs: Iterable[Job], store: Store) -> list[Job]:
    """Those without a finished run; of several that are the same run, the first."""
    unique: dict[str, Job] = {}
    for job in jobs:
        unique.setdefault(_key(job), job)
    return [j for j in unique.values() if find_run(j, store) is None]


def results(runs: pd.DataFrame, task: Task, split: str = "test", *, by: str = "arm") -> Results:
    """What each arm got right on a split, for `workbench.verdicts`.

    Args:
        runs: rows of `table`; each arm with the same seeds, which are the rows of its hits in order of appearance.
        task: its split gives true labels and templates.
        split: ``"test"`` or ``"validation"``.
        by: another column to group by, such as ``"temperature"``: runs that share its value and the seed are averaged,
            so that comparing two values is a main effect.
    """
    if split not in ("test", "validation"):
        raise unknown("split", split, ("test", "validation"))
    if by not in runs:
        raise unknown("column of the runs", by, map(str, runs))
    if lacking := int(runs["run"].isna().sum()):
        raise WorkbenchError(f"{lacking} of {len(runs)} runs are not finished: make them or drop them.")
    rows = getattr(task, split)
    labels, groups = np.array(rows["label"][:]), np.array(rows["group"][:])
    correct = {
        name: np.stack([
            np.mean([run.logits(split).argmax(-1) == labels for run in of_seed["run"]], axis=0)
            for _, of_seed in of_arm.groupby("seed", sort=False)
        ])
        for name, of_arm in runs.groupby(by, sort=False)
    }  # fmt: skip
    return Results(correct, labels, groups)


def _row(job: Job, run: Run | None) -> dict:
    config = asdict(job.config)
    config |= config.pop("loss_options") | {"idle": ", ".join(idle(job.config))}
    row = {"arm": job.arm, "config": job.number, "label_draw": job.task.label_draw, **config}
    if run is None:
        return row | {SCORE: np.nan, "run": None}
    last = run.history[["ce", "kd", "grad_ratio"]].iloc[-1]  # the last record always has a look
    return row | run.metrics | dict(last) | {"train_seconds": run.entry.record["seconds"], "run": run}


# --- search


@dataclass(frozen=True, kw_only=True)
class Search:
    """How `search` looks.

    Attributes:
        space: a field -> a list of choices, or an `optuna.distributions` range, such as
            ``FloatDistribution(0.25, 16, log=True)``. Fields are those of `grid`.
        budget: configs to try.
        seeds: runs of each config; their mean score counts.
        batch: configs asked for at once; a larger one keeps more workers busy, but its configs know less.
        prune: stop a run that, at a look at validation, is below the median of finished runs at that step. Its
            checkpoint stays until `Store.prune`.
        seed: of the sampler, below 2**32.
    """

    space: "Mapping[str, Sequence[Any] | BaseDistribution]"
    budget: int = setting(20, Number(1, 1_000_000, whole=True))
    seeds: Sequence[int] = (0,)
    batch: int = setting(4, Number(1, 1_000_000, whole=True))
    prune: bool = setting(True, Switch())
    seed: int = setting(0, Number(0, 2**32 - 1, whole=True))

    def __post_init__(self) -> None:
        """Refuse what can't be searched."""
        settle(self)
        seeds = [SEED.check("seeds", s) for s in sequence("seeds", self.seeds, "whole numbers, such as range(3)")]
        if not seeds:
            raise WorkbenchError("There are no seeds: give at least one.")
        object.__setattr__(self, "seeds", tuple(seeds))

    def distributions(self) -> "dict[str, BaseDistribution]":
        """The space as Optuna takes it, each field and each value checked."""
        from optuna.distributions import BaseDistribution, CategoricalDistribution

        ranges = {}
        if isinstance(self.space, Mapping):
            ranges = {k: v for k, v in self.space.items() if isinstance(v, BaseDistribution)}
        ends = {k: [getattr(v, end) for end in ("low", "high") if hasattr(v, end)] or [v] for k, v in ranges.items()}
        listed = _checked({**self.space, **ends} if ranges else self.space)
        for name in (name for name, range_ in ranges.items() if name in CHECKS and hasattr(range_, "low")):
            for end in ends[name]:
                CHECKS[name].check(name, end)
        return {k: ranges.get(k) or CategoricalDistribution(values) for k, values in listed.items()}


def search(
    job: Job, how: Search, *, on_batch: Callable[[pd.DataFrame], None] | None = None,
    workers: int | None = None, store: Store | None = None, cluster: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Look for a good config by Optuna's TPE (arXiv:2304.11127), judged on validation only.

    Configs are asked for in batches of fixed size and told in order, so that the result depends on `seed` and on none
    of workers, cluster and speed. A repeated or resumed search finds its runs.

    Args:
        job: task, soft labels, and the config that gives all fields that are not searched.
        how: see `Search`.
        on_batch: called with the table so far after each batch.
        workers: see `run_all`.
        store: see `run_all`.
        cluster: see `run_all`.

    Returns:
        The table of `run_all`, config being the number of the trial, and pruned: the step a run was stopped at, or NaN.
        A config with a pruned run is out of the choice.

    Raises:
        WorkbenchError: as `grid` and `run_all`.
    """
    import optuna

    store, workers, distributions = store or Store(), one_thread_workers(workers), how.distributions()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    startup = min(10, max(how.batch, how.budget // 3))
    sampler = optuna.samplers.TPESampler(seed=how.seed, constant_liar=True, n_startup_trials=startup)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    rows, curves = [], []
    for start in range(0, how.budget, how.batch):
        trials = [study.ask(distributions) for _ in range(min(how.batch, how.budget - start))]
        configs = [_without_idle(_with(job.config, trial.params), job.config) for trial in trials]
        tried = {start + i: config for i, config in enumerate(configs)}
        todo = [
            replace(job, config=replace(config, seed=seed), arm=job.arm or "search", number=number)
            for number, config in tried.items()
            for seed in how.seeds
        ]
        missing = _missing(todo, store)
        floor = medians(curves) if how.prune else {}
        stopped = _make(missing, store, workers, len(todo) - len(missing), cluster, floor) if missing else {}
        done = table(todo, store=store)
        done["pruned"] = np.nan
        for i, (each, run) in enumerate(zip(todo, done["run"], strict=True)):
            # A run finished by another sweep counts as if it had been stopped here: the store must not change a search.
            fell = _fell(run.history.to_dict("records"), floor, each.config.steps) if run else stopped[_key(each)]
            if fell:
                done.loc[i, ["pruned", SCORE]] = fell
            else:
                curves.append(run.history.dropna(subset="validation").set_index("step")["validation"])
        for trial, (_, of_trial) in zip(trials, done.groupby("config", sort=True), strict=True):
            if of_trial["pruned"].notna().any():
                trial.report(of_trial[SCORE].mean(), step=int(of_trial["pruned"].max()))
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, of_trial[SCORE].mean())
        rows.append(done)
        if on_batch:
            on_batch(pd.concat(rows, ignore_index=True))
    return pd.concat(rows, ignore_index=True)


def medians(curves: list[pd.Series]) -> dict[int, float]:
    """Step -> the median over finished runs of the best validation up to it; nothing before four runs are finished."""
    if len(curves) < 4:
        return {}
    best = pd.concat([curve.cummax() for curve in curves], axis=1)
    return {int(step): float(value) for step, value in best.median(axis=1).items()}


def _fell(records: Iterable[dict[str, float]], floor: Mapping[int, float], steps: int) -> tuple[int, float] | None:
    """(step, best validation so far) at the first look before the end that is below `floor`; consumes up to there."""
    best = 0.0
    for record in records:
        if np.isfinite(record["validation"]):
            best = max(best, record["validation"])
            if record["step"] < steps and best < floor.get(record["step"], 0.0):
                return int(record["step"]), best
    return None


def _key(job: Job) -> str:
    return fingerprint(run_inputs(job))


# --- making them


def _make(
    jobs: list[Job], store: Store, workers: int, already: int, cluster: str | None = None,
    floor: Mapping[int, float] | None = None,
) -> dict[str, tuple[int, float]]:
    """Train what is missing; show progress; collect failures until every run had its turn, unless all fail.

    Returns key -> (step, best validation so far) of the runs that fell below `floor`.
    """
    errors, stopped, enough = [], {}, max(3, workers)
    progress = _Progress(len(jobs), already)
    calls = [(job, store, run_inputs(job), floor or {}) for job in jobs]
    made = _on_cluster(calls, cluster) if cluster else _in_processes(calls, min(workers, len(jobs)))
    try:
        for error, fell in made:
            errors += [error] if error else []
            stopped |= fell
            progress.step()
            if len(errors) == progress.done == enough < len(jobs):
                progress.end("stopped")
                raise WorkbenchError(
                    f"The first {enough} runs all failed, so the other {len(jobs) - enough} were not tried; the first: "
                    f"{errors[0]}"
                )
    except KeyboardInterrupt:
        progress.end("stopped; finished runs are kept")
        raise
    except joblib.externals.loky.process_executor.TerminatedWorkerError:
        raise WorkbenchError(
            f"A worker process died after {progress.done} of {len(jobs)} runs (out of memory?): finished runs are "
            "kept; run it again, with fewer workers if memory is short."
        ) from None
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib counts what it had to drop
            made.close()
    progress.end("done" if not errors else f"{len(errors)} failed")
    if errors:
        raise WorkbenchError(f"{len(errors)} of {len(jobs)} runs failed, the others are kept; the first: {errors[0]}")
    if lost := [job for job in _missing(jobs, store) if _key(job) not in stopped]:
        raise WorkbenchError(
            f"{len(lost)} runs were made but are not in {store.root} as seen from here: give the workers and this "
            "process a store in one shared folder, under the same path."
        )
    return stopped


# loky puts a new process in an idle one's place: nothing is lost, and a page need not speak of it.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")

Outcome = tuple[str | None, dict[str, tuple[int, float]]]  # what went wrong; what was pruned


def _in_processes(calls: list[tuple], workers: int) -> Iterator[Outcome]:
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    try:
        yield from parallel(joblib.delayed(make_one)(*call) for call in calls)
    except (GeneratorExit, KeyboardInterrupt):
        get_reusable_executor().shutdown(wait=False, kill_workers=True)
        raise


def _on_cluster(calls: list[tuple], address: str) -> Iterator[Outcome]:
    """Through dask itself: joblib's dask backend waits for ever for a run whose workers were killed."""
    try:
        import distributed
    except ImportError:
        raise WorkbenchError("A cluster needs dask: pip install distributed, here and on every worker.") from None
    try:
        client = distributed.Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise WorkbenchError(
            f"No dask scheduler answers at {address!r} ({type(error).__name__}): start `dask scheduler` there and give "
            "the address that it prints."
        ) from None
    with client:
        left, waiting = iter(calls), {}  # future -> its job
        try:
            while True:
                client.wait_for_workers(1, timeout=NO_WORKER_SECONDS)
                few = max(2, 2 * sum(client.nthreads().values()))  # at a time: each carries its task
                for call in itertools.islice(left, max(0, few - len(waiting))):
                    waiting[client.submit(make_one, *call, pure=False)] = call[0]
                if not waiting:
                    return
                with suppress(TimeoutError, distributed.CancelledError):  # what was cancelled is told below
                    distributed.wait([*waiting], timeout=1, return_when="FIRST_COMPLETED")
                for future in [future for future in waiting if future.done()]:
                    job = waiting.pop(future)
                    yield future.result() if future.status == "finished" else (_failure(job, future.exception()), {})
        except TimeoutError:
            raise WorkbenchError(
                f"{address} has had no worker for {NO_WORKER_SECONDS:.0f} s: start one on each machine with "
                f"`dask worker {address} --nthreads 1`; finished runs are kept."
            ) from None
        finally:
            client.cancel([*waiting])


def _failure(job: Job, error: BaseException | None) -> str:
    cause = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
    if type(error).__name__ == "KilledWorker":
        cause = "every worker that tried it died (out of memory? its log says more)."
    return f"{job.arm or job.config.loss} seed {job.config.seed}: {cause}"


def make_one(job: Job, store: Store, inputs: dict, floor: Mapping[int, float]) -> Outcome:
    """Train one run in a worker; return what went wrong, as text: an exception would stop the other runs."""
    try:
        mine = run_inputs(job)
        if other := [name for name, value in inputs.items() if fingerprint([mine[name]]) != fingerprint([value])]:
            raise WorkbenchError(
                f"the worker's {' and '.join(other)} differ from those of the process that asked: restart that process "
                "after a change of code, and give every machine the same package, libraries and kind of device."
            )
        records = train(job, store=store)
        if fell := _fell(records, floor, job.config.steps):
            records.close()
            return None, {fingerprint(inputs): fell}
    except Exception as error:
        return _failure(job, error), {}
    return None, {}


class _Progress:
    """One line that moves: in place on a terminal and in a notebook, where the last state stays in the page."""

    def __init__(self, total: int, already: int):
        self.total, self.found = total, f" ({already} found)" if already else ""
        self.done, self.began, self.seconds, self.handle = 0, time.monotonic(), 0.0, None
        self.text("starting workers")

    def step(self) -> None:
        self.done, self.seconds = self.done + 1, time.monotonic() - self.began
        left = self.seconds / self.done * (self.total - self.done)
        self.text(f"{self.seconds:.0f} s, about {left:.0f} s left")

    def end(self, how: str) -> None:
        self.text(f"{how}, {self.seconds:.0f} s", last=True)

    def text(self, tail: str, last: bool = False) -> None:
        line = f"{self.done}/{self.total} runs{self.found}: {tail}"
        if "ipykernel" in sys.modules:
            from IPython.display import display

            shown = {"text/plain": line}
            if self.handle is None:
                self.handle = display(shown, raw=True, display_id=True)
            else:
                self.handle.update(shown, raw=True)
        elif sys.stderr.isatty():
            print(f"\r{line:<70}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last:
            print(line, file=sys.stderr, flush=True)
