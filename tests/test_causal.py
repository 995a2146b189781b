"""Training a causal language model: what a step computes, and that a run which dies ends where it would have ended."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from refusal import refused
from safetensors.torch import load_file
from test_training import die_after_every_step, run, untimed

from workbench import training
from workbench.language import causal
from workbench.language.problems import problems
from workbench.language.traces import Local, Sampling, trace_labels, trace_task
from workbench.store import Store
from workbench.sweeps import jobs, run_all
from workbench.training import Job, Run, TrainConfig, train

# Both terms, dropout and uneven micro-batches: whatever a resumed run could get wrong.
CONFIG = TrainConfig(
    student="llama-1x32", ce_weight=0.5, temperature=2.0, steps=12, batch_size=7, accumulation=3, dropout=0.2,
    eval_every=4, log_every=2,
)  # fmt: skip
PLAIN = replace(CONFIG, kd_weight=0.0, ce_weight=1.0, accumulation=1, dropout=0.0)


@pytest.fixture(scope="module")
def pairs():
    return [(p.prompt, p.completion) for p in problems("sums", [2, 3], 20)]


@pytest.fixture(scope="module")
def traces(pairs):
    return trace_task("tiny", pairs, pairs[:6])


@pytest.fixture(scope="module")
def teacher(traces, tmp_path_factory) -> Run:
    return run(traces, None, replace(PLAIN, seed=9), Store(tmp_path_factory.mktemp("teacher")))


@pytest.fixture(scope="module")
def soft(teacher, traces):
    return trace_labels(teacher.path, traces, store=Store(teacher.entry.path.parents[1]))


@pytest.fixture(scope="module")
def whole(traces, soft, tmp_path_factory) -> Run:
    return run(traces, soft, CONFIG, Store(tmp_path_factory.mktemp("whole")))


def check_same(a: Run, b: Run) -> None:
    pd.testing.assert_frame_equal(untimed(a.history), untimed(b.history), check_exact=True)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (a.path / name).read_bytes() == (b.path / name).read_bytes(), name
    assert a.metrics == b.metrics
    assert a.entry.record["train_tokens"] == b.entry.record["train_tokens"]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_step_is_the_mean_over_completion_tokens_row_by_row_without_packing(traces, soft, store, accumulation):
    """By torch's own losses, a row at a time: checks the mask, the shift, packing, both means and the pairing."""
    config = replace(CONFIG, dropout=0.0, log_every=1, accumulation=accumulation)
    record = next(train(Job(traces, soft, config), store=store))

    torch.manual_seed(config.seed)
    student, tokenizer = causal.build_causal(config.student)
    teacher = soft.open(traces)
    ce, kd, tokens = 0.0, 0.0, 0
    for i in training.Batches(40, 40, config).rows(0):
        prompt = tokenizer(traces.prompts[i])["input_ids"]
        ids = prompt + tokenizer(traces.completions[i])["input_ids"] + [tokenizer.eos_token_id]
        logits = student(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
        ce += F.cross_entropy(logits, torch.tensor(ids[len(prompt) :]), reduction="sum").item()
        p, q = (torch.log_softmax(z / 2, -1) for z in (torch.from_numpy(teacher(np.array([i]))), logits))
        kd += F.kl_div(q, p, log_target=True, reduction="sum").item()
        tokens += len(logits)
    assert record["ce"] == pytest.approx(ce / tokens, rel=1e-4)
    assert record["kd"] == pytest.approx(kd / tokens, rel=1e-3)
    assert record["loss"] == pytest.approx((0.5 * ce + 4 * kd) / tokens, rel=1e-4)


def test_micro_batches_add_up_to_the_step(traces, soft, tmp_path):
    config = replace(CONFIG, dropout=0.0, steps=3)
    one, other = (
        load_file(run(traces, soft, replace(config, accumulation=n), Store(tmp_path / str(n))).path
                  / "model.safetensors") for n in (1, 7)
    )  # fmt: skip
    for name, tensor in one.items():
        # Adam makes much of rounding where a gradient is nearly 0.
        torch.testing.assert_close(tensor, other[name], atol=2e-4, rtol=0)


def test_soft_labels_are_the_teacher_s_logits_at_the_completion_and_are_spared_by_prune(teacher, traces, soft):
    model, tokenizer = causal.load_causal(teacher.path)
    before, after = causal.encode_pair(tokenizer, traces.prompts[25], traces.completions[25])
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    np.testing.assert_allclose(soft.open(traces)(np.array([25])), logits, atol=1e-5)
    store = Store(soft.entry.path.parents[1])
    assert store.held("soft_traces") and store.prune("soft_traces", older_than_days=0) == []
    assert pickle.loads(pickle.dumps(soft)) == soft


def test_tokens_are_counted_without_padding(traces, store):
    result = run(traces, None, replace(PLAIN, steps=40, batch_size=2, eval_every=40), store)  # two epochs
    rows = sum(len(p) + len(c) + 1 for p, c in zip(traces.prompts, traces.completions, strict=True))
    assert result.entry.record["train_tokens"] == 2 * rows


def test_it_learns_and_the_look_agrees_with_greedy_writing(pairs, store):
    task = trace_task("four", pairs[:4], pairs[:6])
    config = replace(PLAIN, student="llama-1x64", steps=120, batch_size=4, learning_rate=1e-2, eval_every=120)
    result = run(task, None, config, store)
    written = Local(result.path).write([p for p, _ in pairs[:6]], Sampling(temperature=0, max_new_tokens=40))
    right = [w.text == c and w.finished for w, (_, c) in zip(written, pairs, strict=False)]
    assert result.metrics["validation.exact"] == pytest.approx(np.mean(right))
    assert np.mean(right) >= 4 / 6


def test_what_cannot_be_trained_is_told(traces, soft, pairs, store):
    with refused("tokens, max_length is 20: raise it"):
        run(trace_task("long", pairs[20:], pairs[:2]), None, replace(PLAIN, max_length=20), store)
    with refused("not of other: make them with trace_labels"):
        run(trace_task("other", pairs[:3], pairs[:2]), soft, CONFIG, store)
    with refused("width divisible by 32"):
        run(traces, None, replace(PLAIN, student="llama-2x40"), store)


def test_runs_sent_as_to_a_worker_are_those_made_here(traces, soft, store, whole):
    sent = pickle.loads(pickle.dumps(jobs({"soft": CONFIG}, traces, soft, seeds=[0])))
    table = run_all(sent, store=store, workers=1)
    assert list(table["label_draw"]) == [0] and table["validation.exact"].between(0, 1).all()
    check_same(table["run"][0], whole)


def test_a_run_that_dies_after_every_step_ends_where_it_would_have_ended(traces, soft, store, whole, monkeypatch):
    die_after_every_step(traces, soft, CONFIG, store, monkeypatch)
    check_same(run(traces, soft, CONFIG, store), whole)
