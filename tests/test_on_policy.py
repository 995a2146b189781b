"""Students that write and are corrected: what a step computes and counts, and that a killed run writes the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from refusal import refused
from test_causal import check_same
from test_training import die_after_every_step, kill, run, steps_kept

from workbench.language import causal
from workbench.language.on_policy import LiveTeacher, OnPolicyTask, continued
from workbench.language.problems import problems
from workbench.language.traces import trace_task
from workbench.losses import forward_kl, jsd, reverse_kl
from workbench.store import Store
from workbench.sweeps import jobs, run_all
from workbench.training import Job, TrainConfig, find_run, lesson, train

# Dropout and uneven micro-batches: whatever a resumed run could get wrong.
CONFIG = TrainConfig(
    student="llama-1x32", loss="reverse_kl", temperature=1.0, steps=6, batch_size=7, accumulation=3, dropout=0.2,
    eval_every=3, log_every=1, learning_rate=1e-2,
)  # fmt: skip
PLAIN = replace(CONFIG, accumulation=1, dropout=0.0)


@pytest.fixture(scope="module")
def task() -> OnPolicyTask:
    pairs = [(p.prompt, p.completion) for p in problems("sums", [2, 3], 12)]
    return OnPolicyTask.of(trace_task("tiny", pairs, pairs[:4]), max_new_tokens=16)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> LiveTeacher:
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(7)
    model, tokenizer = causal.build_causal("llama-2x32")
    with torch.no_grad():  # an untrained model hardly prefers any token
        model.get_output_embeddings().weight.mul_(3)
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return LiveTeacher(folder)


def written(task: OnPolicyTask, teacher: LiveTeacher, config: TrainConfig):
    """The lesson, and the rows of a step to which its student has just written."""
    torch.manual_seed(config.seed)
    made = lesson(task, teacher, config)
    rows = np.array([3, 20, 5, 11, 0])
    return made, rows, made.denominators(rows)


@pytest.mark.parametrize("loss", [reverse_kl, forward_kl, jsd])
def test_a_step_is_the_mean_over_the_tokens_that_the_student_wrote(task, teacher, loss):
    made, rows, (_, total) = written(task, teacher, replace(PLAIN, loss=loss.__name__, temperature=2.0))
    found = [made.forward(part, total, total) for part in np.array_split(rows, 2)]
    values = []
    for i in rows:
        ids = made.pairs[i][0]
        prompt = made.tokenizer(task.prompts[i])["input_ids"]
        assert ids[: len(prompt)] == prompt and 0 < len(ids) - len(prompt) <= task.max_new_tokens
        assert made.tokenizer.eos_token_id not in ids[:-1]
        both = (made.student, made.teacher.model)
        pair = [model(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1] for model in both]
        values.append(loss(*pair, 2.0))
    assert sum(map(len, values)) == total
    exact = torch.cat(values).mean()
    assert float(sum(kd for _, _, kd, _ in found)) == pytest.approx(exact.item(), rel=1e-4)
    (exact * 4).backward()
    wanted = {name: p.grad.clone() for name, p in made.student.named_parameters()}
    made.student.zero_grad()
    for value, *_ in found:
        value.backward()
    for name, p in made.student.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("loss", "beta"), [("forward_kl", 0.0), ("jsd", 0.5), ("reverse_kl", 1.0)])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_trl_computes_the_same_of_the_same_text(task, teacher, loss, beta, tmp_path, monkeypatch):
    trl = pytest.importorskip("trl", reason="TRL is not installed: our step is compared with its DistillationTrainer")
    monkeypatch.setattr(trl.DistillationTrainer, "_send_telemetry", lambda self: None)
    made, rows, (_, total) = written(task, teacher, replace(PLAIN, loss=loss))
    ours = made.forward(rows, total, total)[0]
    args = trl.DistillationConfig(str(tmp_path), beta=beta, bf16=False, use_cpu=True, report_to="none")
    models = made.student, made.teacher.model
    trainer = trl.DistillationTrainer(*models, args, processing_class=made.tokenizer)
    inputs = {}
    sides = {"prompt": ("left", [made.tokenizer(task.prompts[i])["input_ids"] for i in rows])}
    sides["completion"] = "right", [[t for t in made.pairs[i][1] if t >= 0] for i in rows]
    for name, (side, ids) in sides.items():
        padded = made.tokenizer.pad({"input_ids": ids}, padding_side=side, return_tensors="pt")
        inputs |= {f"{name}_ids": padded["input_ids"], f"{name}_mask": padded["attention_mask"]}
    theirs = trainer.compute_loss(made.student, inputs | {"num_items_in_batch": torch.tensor(float(total))})
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def test_it_learns_is_found_again_and_counts_what_was_written(task, teacher, store):
    config = replace(PLAIN, steps=30, eval_every=30)
    result = run(task, teacher, config, store)
    assert result.history["loss"][25:].mean() < 0.7 * result.history["loss"][:5].mean()
    assert pd.DataFrame(train(Job(task, teacher, config), store=store)).equals(result.history)  # found
    assert find_run(Job(replace(task, max_new_tokens=15), teacher, config), store) is None
    record = result.entry.record
    assert 210 <= record["written_tokens"] <= 210 * task.max_new_tokens
    prompts = record["train_tokens"] - record["written_tokens"]
    assert 210 * min(map(len, task.prompts)) <= prompts <= 210 * max(map(len, task.prompts))
    causal.load_causal(result.path)  # what is counted is no weight of the student's


@pytest.fixture(scope="module")
def whole(task, teacher, tmp_path_factory):
    return run(task, teacher, CONFIG, Store(tmp_path_factory.mktemp("whole")))


def test_a_run_that_dies_after_every_step_writes_and_ends_as_it_would_have(task, teacher, store, whole, monkeypatch):
    die_after_every_step(task, teacher, CONFIG, store, monkeypatch)
    again = run(task, teacher, CONFIG, store)
    check_same(again, whole)
    assert again.entry.record["written_tokens"] == whole.entry.record["written_tokens"] > 42


def train_in_child(task, teacher, root: Path, started=None) -> None:
    if started:
        started.set()
    list(train(Job(task, teacher, CONFIG), store=Store(root), checkpoint_seconds=0))


@pytest.mark.long
def test_a_killed_process_costs_nothing_but_time(task, teacher, whole, tmp_path):
    kept = []
    landed = kill(
        train_in_child, (task, teacher, tmp_path), [0.0, 0.0], lambda: kept.append(steps_kept(tmp_path)),
        lambda: steps_kept(tmp_path) > max(kept, default=0),
    )  # fmt: skip
    assert landed >= 1
    check_same(find_run(Job(task, teacher, CONFIG), Store(tmp_path)), whole)


def test_runs_in_a_pool_are_those_made_here(task, teacher, store, whole):
    table = run_all(jobs({"on-policy": CONFIG}, task, teacher, seeds=[0]), store=store, workers=1)
    check_same(table["run"][0], whole)


def test_runs_go_on_from_their_own_weights_with_their_own_seed(task, teacher, store, whole):
    more = continued([whole, whole], "more", task, teacher, replace(PLAIN, steps=1, seed=5, eval_every=9))
    assert [(job.arm, job.config.seed, job.config.student) for job in more] == [("more", 0, str(whole.path))] * 2
    still = run(task, teacher, replace(more[0].config, learning_rate=1e-12), store)
    for part in ("model.embed_tokens.weight", "model.norm.weight"):
        before, after = (causal.load_causal(r.path)[0].state_dict()[part] for r in (whole, still))
        torch.testing.assert_close(after, before)


def test_what_cannot_be_corrected_is_told(task, teacher, store, tmp_path):
    with refused("set ce_weight to 0"):
        run(task, teacher, replace(PLAIN, ce_weight=0.5), store)
    with refused("max_new_tokens is 0"):
        replace(task, max_new_tokens=0)
    model, tokenizer = causal.build_causal("llama-1x32")
    tokenizer.add_tokens(["<more>"])
    model.resize_token_embeddings(len(tokenizer))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "other")
    with refused("another tokenizer than the student"):
        run(task, LiveTeacher(tmp_path / "other"), PLAIN, store)
