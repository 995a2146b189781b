"""Training: what a run records, keeps, finds again and resumes."""

import json
import math
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from kills import finish, kill, start
from refusal import refused
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import CONFIG, PLAIN, shuffled

from workbench import metrics, reading, students, training
from workbench.losses import LOSSES, Objective, combine
from workbench.soft_labels import SoftLabels, soft_labels
from workbench.store import Store
from workbench.tasks import Task
from workbench.teachers import BagOfWords
from workbench.training import Job, Run, TrainConfig, find_run, train
from workbench.turns import TURN


@pytest.fixture(scope="module")
def whole(task, labels, tmp_path_factory) -> Run:
    """An uninterrupted run of CONFIG."""
    return run(task, labels, CONFIG, Store(tmp_path_factory.mktemp("whole")))


def run(task: Task, labels: SoftLabels | None, config: TrainConfig, store: Store) -> Run:
    for _ in train(Job(task, labels, config), store=store):
        pass
    return find_run(Job(task, labels, config), store)


def untimed(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns="seconds")


def check_same(a: Run, b: Run) -> None:
    """Bit for bit, except for the time it took."""
    pd.testing.assert_frame_equal(untimed(a.history), untimed(b.history), check_exact=True)
    for name in ("student/model.safetensors", "student/tokenizer.json", "logits.safetensors"):
        assert (a.entry.path / name).read_bytes() == (b.entry.path / name).read_bytes(), name
    assert a.metrics == b.metrics


# --- TrainConfig


def test_options_of_the_loss_are_checked_and_belong_to_one_config():
    options = {"beta": 1, "alpha": 0.5}
    config = TrainConfig(loss="dkd", loss_options=options)
    other = replace(config, seed=1)
    options["beta"] = other.loss_options["alpha"] = 9.0
    assert config.loss_options == {"beta": 1.0, "alpha": 0.5}
    assert hash(config) == hash(replace(config)) and config != replace(config, loss_options={})


@pytest.mark.parametrize("options", [{"accumulation": 2}, {"batch_size": 2}])
def test_a_loss_over_the_rows_of_a_step_needs_them_together(options):
    with refused(f"{next(iter(options))} is 2" if "accumulation" in options else "batch_size 2"):
        TrainConfig(loss="dist", **options)
    TrainConfig(loss="dist", kd_weight=0.0, ce_weight=1.0, **options)  # where it plays no part


def test_steps_follow_the_transfer_set_unless_a_number_is_given(task):
    assert TrainConfig().steps == TrainConfig().eval_every == "auto"
    for rows, steps in ((36, 300), (3239, 600), (10_000, 1900), (60_000, 3000)):
        larger = replace(task, unlabelled=task.unlabelled.select(np.arange(rows - 9) % 27))
        made = Job(larger, None, TrainConfig(kd_weight=0.0, ce_weight=1.0)).config
        assert (made.steps, made.eval_every) == (steps, steps // 5)
        assert Job(larger, None, made).config is made, "a number is kept"
        assert training.auto_steps(larger, TrainConfig(batch_size=64)) <= steps
    assert Job(task, None, TrainConfig(steps=3)).config.eval_every == 1
    with refused("steps is 'auto', but ", "has no rule for it: give a number of steps"):
        Job(SimpleNamespace(name="texts"), None, TrainConfig())


def test_the_weight_of_the_labels_changes_no_batch():
    mixes = [draw(TrainConfig(batch_size=8, ce_weight=weight), 9) for weight in (0.0, 0.5, 2.0)]
    assert (mixes[0] == mixes[1]).all() and (mixes[0] == mixes[2]).all()


# --- batches


def draw(config: TrainConfig, steps: int, labelled: int = 9, total: int = 36) -> np.ndarray:
    """Rows ``[steps, batch_size]``."""
    batches = training.Batches(labelled, total, config)
    return np.stack([batches.rows(step) for step in range(steps)])


def test_batches_are_a_function_of_the_step_alone():
    config = TrainConfig(batch_size=8, ce_weight=1.0)
    wanted = draw(config, 40)
    batches = training.Batches(9, 36, config)
    for step in random.Random(0).sample(range(40), 40):
        assert (batches.rows(step) == wanted[step]).all()


def test_every_epoch_visits_every_row_once_in_a_new_order():
    epochs = draw(TrainConfig(batch_size=8), 9).reshape(2, 36)  # two epochs, the first ends inside a batch
    assert (np.sort(epochs) == np.arange(36)).all()
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize(
    ("options", "labelled_rows"),
    [
        ({"kd_weight": 0.0, "ce_weight": 1.0}, 8),
        ({"ce_weight": 1.0, "labelled_fraction": 0.25}, 2),
        ({"ce_weight": 1.0, "labelled_fraction": 0.5}, 4),
        ({"ce_weight": 1.0, "labelled_fraction": 0.3}, 3),  # rounded up: a small fraction is never none
        ({"labelled_fraction": 0.0}, 0),
        ({"labelled_fraction": 1.0}, 8),
    ],
)
def test_the_labelled_fraction_is_kept_and_each_stream_has_its_own_epochs(options, labelled_rows):
    rows = draw(TrainConfig(batch_size=8, **options), 27)
    assert ((rows < 9).sum(1) == labelled_rows).all()
    for stream, size in ((rows[rows < 9], 9), (rows[rows >= 9], 27)):
        whole = stream[: len(stream) // size * size].reshape(-1, size)
        assert all(len(set(epoch)) == size for epoch in whole)


def test_a_batch_larger_than_the_labelled_rows_repeats_them_evenly():
    (rows,) = draw(TrainConfig(batch_size=8, kd_weight=0.0, ce_weight=1.0), 1, labelled=2)
    assert Counter(rows.tolist()) == {0: 4, 1: 4}


def test_arms_share_their_rows_when_they_share_the_seed():
    config = TrainConfig(batch_size=8, labelled_fraction=0.25)
    arm = replace(config, student="minilm", loss="hard_labels", temperature=9.0, ce_weight=2.0, learning_rate=1.0)
    assert (draw(config, 9) == draw(arm, 9)).all()
    assert (draw(config, 9) != draw(replace(config, seed=1), 9)).any()


# --- what a step computes


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_first_record_is_the_loss_of_the_new_student_on_the_first_batch(task, labels, store, smoothing):
    """By torch's own losses: checks weights, T², smoothing, both denominators, gradients and the pairing of rows."""
    config = replace(
        PLAIN,
        temperature=3.0,
        kd_weight=0.5,
        ce_weight=2.0,
        label_smoothing=smoothing,
        labelled_fraction=0.25,
        batch_size=12,
        log_every=1,
        eval_every=1,
    )
    record = next(train(Job(task, labels, config), store=store))

    torch.manual_seed(config.seed)
    texts = task.transfer_texts
    student, tokenizer = students.build(config.student, task.label_names, texts)
    rows = training.Batches(9, 36, config).rows(0)
    chosen = [texts[i] for i in rows]
    logits = torch.from_numpy(reading.predict(student, tokenizer, chosen)).requires_grad_()
    known = dict(zip(task.labelled["text"], task.labelled["label"], strict=True))
    target = torch.tensor([known.get(text, -100) for text in chosen])  # torch ignores -100
    teacher = torch.from_numpy(BagOfWords(task).logits(chosen))
    ce = F.cross_entropy(logits, target, label_smoothing=smoothing)
    kd = F.kl_div((logits / 3).log_softmax(-1), (teacher / 3).softmax(-1), reduction="batchmean")
    assert (target >= 0).sum() == 3
    assert record["ce"] == pytest.approx(ce.item(), abs=1e-5)
    assert record["kd"] == pytest.approx(kd.item(), abs=1e-5)
    assert record["loss"] == pytest.approx((2.0 * ce + 0.5 * 9 * kd).item(), abs=1e-5)
    (kd_gradient,), (ce_gradient,) = (torch.autograd.grad(term, logits) for term in (0.5 * 9 * kd, 2.0 * ce))
    assert record["grad_ratio"] == pytest.approx(float(kd_gradient.norm() / ce_gradient.norm()), rel=1e-4)


OPTIONS = {"jsd": {"beta": 0.3, "normalise": True}, "dkd": {"beta": 4.0}, "dist": {"gamma": 2.0, "standardise": True}}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_with_its_options_and_the_labels(task, labels, store, loss):
    config = replace(PLAIN, loss=loss, loss_options=OPTIONS.get(loss, {}), log_every=1, steps=2)
    record = next(train(Job(task, labels, config), store=store))
    torch.manual_seed(config.seed)
    texts = task.transfer_texts
    student, tokenizer = students.build(config.student, task.label_names, texts)
    chosen = [texts[i] for i in training.Batches(9, 36, config).rows(0)]
    known = dict(zip(task.labelled["text"], task.labelled["label"], strict=True))
    target = torch.tensor([known.get(text, -1) for text in chosen])
    logits = torch.from_numpy(reading.predict(student, tokenizer, chosen))
    teacher = torch.from_numpy(labels.logits(chosen))
    options = {"loss": loss, "loss_options": config.loss_options, "temperature": config.temperature}
    _, _, kd = combine(logits, teacher, target, Objective(**options))
    assert record["kd"] == pytest.approx(kd.item(), abs=1e-5)


def test_options_of_the_loss_are_part_of_the_run(task, labels, store):
    config = replace(PLAIN, loss="jsd", loss_options={"beta": 0.3, "normalise": True}, steps=2)
    done = run(task, labels, config, store)
    assert done.config == config  # through JSON
    assert find_run(Job(task, labels, replace(config, loss_options={"beta": 0.3})), store) is None
    assert {"beta": 0.3, "normalise": True}.items() <= store.runs("runs").iloc[0].to_dict().items()


@pytest.mark.parametrize("accumulation", [4, 8])
def test_micro_batches_add_up_to_the_step(task, labels, tmp_path, accumulation):
    """Also where some have no labelled row, and where they are single rows."""
    config = replace(PLAIN, steps=4)
    a = run(task, labels, config, Store(tmp_path / "a"))
    b = run(task, labels, replace(config, accumulation=accumulation), Store(tmp_path / "b"))
    pd.testing.assert_frame_equal(untimed(a.history), untimed(b.history), atol=1e-5, rtol=1e-5)
    one, other = (load_file(r.path / "model.safetensors") for r in (a, b))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=0)


def test_a_loss_that_is_no_longer_finite_ends_the_run_with_one_sentence(task, labels, store):
    config = replace(PLAIN, learning_rate=1e30, max_grad_norm=1e30, log_every=1)
    with refused("The loss is ", "at step ", "lower learning_rate (1e+30)"):
        run(task, labels, config, store)
    assert find_run(Job(task, labels, config), store) is None


def test_a_row_without_a_soft_label_is_named(task, store):
    texts = task.transfer_texts
    some = soft_labels(BagOfWords(task), task, texts=texts[2:], store=store)
    with refused("2 of 36 texts have no soft label by bag of words", repr(texts[0][:60])):
        run(task, some, CONFIG, store)


# --- records and results


def test_records(task, labels, store):
    config = replace(PLAIN, steps=7, log_every=3, eval_every=2, warmup=0.5)
    history = pd.DataFrame(train(Job(task, labels, config), store=store))
    assert list(history) == ("step loss ce kd learning_rate seconds validation validation_nll grad_ratio".split())
    assert list(history["step"]) == [2, 3, 4, 6, 7]
    rates = [2 / 4, 3 / 4, 1, 2 / 3, 1 / 3]
    np.testing.assert_allclose(history["learning_rate"], [rate * 4e-3 for rate in rates])
    looked = history["validation"].notna()
    assert list(history["step"][looked]) == [2, 4, 6, 7]  # each under its own step
    np.testing.assert_allclose(history["loss"], history["ce"] + 4 * history["kd"], rtol=1e-5)
    assert history["seconds"].is_monotonic_increasing and (history["seconds"] > 0).all()
    assert history["validation"][looked].between(0, 1).all() and (history["grad_ratio"][looked] > 0).all()

    sparse = pd.DataFrame(train(Job(task, labels, replace(config, log_every=1, eval_every=3)), store=store))
    assert list(sparse["step"][sparse["validation"].notna()]) == [3, 6, 7]


def test_a_run_ends_at_the_first_look_that_reaches_the_score_on_the_schedule_of_the_whole(task, labels, store):
    config = replace(PLAIN, steps=60, eval_every=4, log_every=4)
    whole = untimed(run(task, labels, config, store).history)
    enough = whole["validation"].max()
    first = whole["validation"].ge(enough).idxmax()
    stopped = run(task, labels, replace(config, stop_above=enough), store)
    assert 0 < first < len(whole) - 1
    pd.testing.assert_frame_equal(untimed(stopped.history), whole[: first + 1], check_exact=True)


@pytest.mark.parametrize(("kd_weight", "ce_weight"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_an_absent_term_has_no_value_and_the_gradients_no_ratio(task, labels, store, kd_weight, ce_weight):
    config = replace(PLAIN, steps=2, kd_weight=kd_weight, ce_weight=ce_weight)
    (record,) = train(Job(task, labels if kd_weight else None, config), store=store)
    assert math.isfinite(record["kd"]) == bool(kd_weight)
    assert math.isfinite(record["ce"]) == bool(ce_weight)
    assert math.isfinite(record["grad_ratio"]) == bool(kd_weight and ce_weight)


def test_the_ratio_of_gradients_follows_the_weights(task, labels, store):
    config = replace(PLAIN, steps=1, log_every=1, learning_rate=1e-30)
    (base,) = train(Job(task, labels, config), store=store)
    (more,) = train(Job(task, labels, replace(config, kd_weight=3.0, ce_weight=0.5)), store=store)
    (bare,) = train(Job(task, labels, replace(config, scale_by_temperature=False)), store=store)
    assert more["grad_ratio"] == pytest.approx(6 * base["grad_ratio"])
    assert bare["grad_ratio"] == pytest.approx(base["grad_ratio"] / 4)


def test_the_student_learns_and_the_teacher_stays(task, labels, store):
    config = replace(PLAIN, ce_weight=0.0, steps=60, log_every=20)
    shards = [path for paths in labels._paths for path in paths]
    before = {path: path.read_bytes() for path in shards}
    result = run(task, labels, config, store)
    assert {path: path.read_bytes() for path in shards} == before
    assert result.history["kd"].iloc[-1] < result.history["kd"].iloc[0] / 2

    torch.manual_seed(config.seed)
    new, _ = students.build(config.student, task.label_names, task.transfer_texts)
    trained = load_file(result.path / "model.safetensors")
    assert all((value != trained[name]).any() for name, value in new.state_dict().items())


def test_the_best_look_at_validation_is_kept_not_the_last(task, labels, store):
    config = replace(PLAIN, learning_rate=0.1, steps=20, eval_every=1, log_every=1)
    result = run(task, labels, config, store)
    looks = list(zip(result.history["validation"], -result.history["validation_nll"], strict=True))
    assert max(looks) > looks[-1], "the last look was the best: this run proves nothing"

    student, tokenizer = students.load(result.path)
    logits = reading.predict(student, tokenizer, task.validation["text"])
    np.testing.assert_allclose(logits, result.logits("validation"), atol=1e-5)
    truth, group = np.array(task.validation["label"]), np.array(task.validation["group"])
    assert metrics.item_weights(truth, group) @ (logits.argmax(-1) == truth) == pytest.approx(max(looks)[0])
    assert metrics.nll(logits, truth) == pytest.approx(-max(looks)[1], abs=1e-5)


def test_a_student_of_the_last_step_depends_on_no_label_of_validation_or_calibration(task, labels, store):
    other = shuffled(task)
    assert other.fingerprint != task.fingerprint
    config = replace(PLAIN, learning_rate=0.1, steps=20, eval_every=1, keep="last")
    ends = [run(each, labels, config, store) for each in (task, other)]
    first, second = (load_file(end.path / "model.safetensors") for end in ends)
    assert all((value == second[name]).all() for name, value in first.items())
    assert ends[0].history["validation"].iloc[-1] != ends[1].history["validation"].iloc[-1]
    best = [run(each, labels, replace(config, keep="best"), store) for each in (task, other)]
    first, second = (load_file(end.path / "model.safetensors") for end in best)
    assert any((value != second[name]).any() for name, value in first.items()), "this task would prove nothing"


def test_a_run_tells_what_it_is(task, labels, whole):
    assert whole.config == CONFIG
    assert whole.logits("test").shape == (len(task.test), 3)
    truth, group = np.array(task.test["label"]), np.array(task.test["group"])
    scores = metrics.scores(whole.logits("test"), truth, group)
    assert {name: whole.metrics[f"test.{name}"] for name in scores} == scores
    assert whole.entry.record["parameters"] == sum(
        tensor.numel() for tensor in load_file(whole.path / "model.safetensors").values()
    )


# --- found, never redone


def test_a_finished_run_is_found_and_gives_the_same_records(task, labels, store, monkeypatch):
    first = pd.DataFrame(train(Job(task, labels, CONFIG), store=store))
    (entry,) = store.list("runs")
    monkeypatch.setattr(training, "Trainer", None)  # any step would now fail
    pd.testing.assert_frame_equal(pd.DataFrame(train(Job(task, labels, CONFIG), store=store)), first, check_exact=True)
    assert [e.path for e in store.list("runs")] == [entry.path]
    assert find_run(Job(task, labels, replace(CONFIG, seed=1)), store) is None


def test_labels_only_runs_do_not_depend_on_a_teacher(task, labels, store):
    config = replace(PLAIN, kd_weight=0.0, steps=2)
    run(task, labels, config, store)
    assert find_run(Job(task, None, config), store)


# --- stopped and resumed


def test_a_closed_run_resumes_where_it_was_closed(task, labels, store, whole, monkeypatch):
    steps = []
    one_step = training.Trainer.one_step
    monkeypatch.setattr(training.Trainer, "one_step", lambda self: (steps.append(self.step), one_step(self)))
    for stops in ((2,), (2, 4, 6)):  # a resumed run gives its earlier records again
        records = train(Job(task, labels, CONFIG), store=store)
        assert [next(records)["step"] for _ in stops] == list(stops)
        torch.manual_seed(1)
        records.close()
        assert find_run(Job(task, labels, CONFIG), store) is None
    resumed = pd.DataFrame(train(Job(task, labels, CONFIG), store=store))
    assert steps == list(range(12)), "a step was lost or done twice"
    pd.testing.assert_frame_equal(untimed(resumed), untimed(whole.history), check_exact=True)
    check_same(find_run(Job(task, labels, CONFIG), store), whole)
    assert not list(store.root.rglob("checkpoint"))


def die_after_every_step(task, labels, config, store, monkeypatch) -> None:
    """Leave a run with its last step to go, which alone may be taken."""
    one_step = training.Trainer.one_step
    left = iter(())

    def step_or_die(self) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        one_step(self)

    monkeypatch.setattr(training.Trainer, "one_step", step_or_die)
    for _ in range(config.steps - 1):
        left = iter([1])
        with pytest.raises(KeyboardInterrupt):
            list(train(Job(task, labels, config), store=store, checkpoint_seconds=0))
    left = iter([1])


def test_a_run_that_dies_after_every_step_ends_where_it_would_have_ended(task, labels, store, whole, monkeypatch):
    die_after_every_step(task, labels, CONFIG, store, monkeypatch)
    check_same(run(task, labels, CONFIG, store), whole)


def test_what_the_consumer_does_between_records_does_not_reach_the_run(task, labels, store, whole):
    outer = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for record in train(Job(task, labels, CONFIG), store=store, checkpoint_seconds=0):
            assert torch.get_num_threads() == 2, "the consumer works with the run's threads"
            record.clear()
            torch.manual_seed(9)
            torch.rand(5)
            np.random.seed(9)
            random.seed(9)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(outer)
    check_same(find_run(Job(task, labels, CONFIG), store), whole)


# --- several at once


def check_interleaved(task, labels, tmp_path, seeds, wanted) -> None:
    """Runs in threads of their own, one store each, that take turns record by record, end as each alone."""
    barrier = threading.Barrier(len(seeds))
    failed: list[BaseException] = []
    mixed: list[int] = []

    def work(seed: int) -> None:
        try:
            torch.set_num_threads(1)
            barrier.wait(60)
            for record in train(Job(task, labels, replace(CONFIG, seed=seed)), store=Store(tmp_path / f"{seed}")):
                mixed.append(seed)
                with TURN:
                    torch.rand(record["step"])  # the consumer draws too
                if record["step"] < CONFIG.steps:
                    barrier.wait(60)  # both are between two steps here
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed
    assert mixed != sorted(mixed), "they ran one after the other: this proves nothing"
    for seed in seeds:
        check_same(find_run(Job(task, labels, replace(CONFIG, seed=seed)), Store(tmp_path / f"{seed}")), wanted[seed])


def test_two_runs_at_once_in_one_process_end_as_each_alone(task, labels, tmp_path, whole):
    other = run(task, labels, replace(CONFIG, seed=1), Store(tmp_path / "alone"))
    check_interleaved(task, labels, tmp_path, (0, 1), {0: whole, 1: other})


def test_a_run_whose_records_are_taken_by_several_threads_and_closed_by_another_resumes(task, labels, store, whole):
    records = train(Job(task, labels, CONFIG), store=store)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        assert one.submit(next, records).result()["step"] == 2
        torch.rand(3)
        assert two.submit(next, records).result()["step"] == 4
        one.submit(records.close).result()
    check_same(run(task, labels, CONFIG, store), whole)


def test_a_run_gives_back_the_random_state_of_its_consumer(task, labels, store):
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    list(train(Job(task, labels, replace(CONFIG, steps=2)), store=store))
    assert (torch.rand(4) == wanted).all()


# --- killed and resumed

LONGER = replace(CONFIG, steps=60)


def train_in_child(task: Task, labels: SoftLabels, root: Path) -> None:
    for _ in train(Job(task, labels, LONGER), store=Store(root), checkpoint_seconds=0):
        pass


def steps_kept(root: Path) -> int:
    """Steps that the checkpoint holds."""
    for path in root.rglob("state.safetensors"):
        with safe_open(path, framework="np") as file:
            return json.loads(file.metadata()["state"])["step"]
    return 0


@pytest.fixture(scope="module")
def longer(task, labels, tmp_path_factory) -> Run:
    """An uninterrupted run of LONGER."""
    return run(task, labels, LONGER, Store(tmp_path_factory.mktemp("longer")))


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_where_it_would_have_ended(task, labels, tmp_path, longer):
    """Each kill comes after a checkpoint beyond the last kill's; thirty at any moment: `test_kills`."""
    rng, kept = random.Random(0), []
    moments = [rng.uniform(0, 0.2) * longer.entry.record["seconds"] for _ in range(3)]
    landed = kill(
        train_in_child, (task, labels, tmp_path), moments, lambda: kept.append(steps_kept(tmp_path)),
        lambda: steps_kept(tmp_path) > max(kept, default=0),
    )  # fmt: skip
    assert landed == 3 and kept == sorted(kept) and 0 < kept[0] and kept[-1] < LONGER.steps
    check_same(find_run(Job(task, labels, LONGER), Store(tmp_path)), longer)


def test_two_kernels_on_one_run_make_it_once(task, labels, tmp_path, longer):
    both = [start(train_in_child, task, labels, tmp_path) for _ in range(2)]
    assert [finish(process) for process in both] == [0, 0]
    (entry,) = Store(tmp_path).list("runs")
    found = find_run(Job(task, labels, LONGER), Store(tmp_path))
    assert found.entry == entry and not list(tmp_path.glob(".partial/*/"))
    check_same(found, longer)
