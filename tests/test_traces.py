"""What a model writes: sampled by seed, verified, kept, resumed; chat templates that would lose the reasoning."""

import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from refusal import refused
from transformers import PreTrainedTokenizerFast

from workbench import students
from workbench.language import causal, traces
from workbench.language.causal import Sampling
from workbench.language.problems import Problem, problems, verify
from workbench.language.traces import (
    VLLM,
    Local,
    Written,
    by_difficulty,
    chat_pair,
    chat_prompt,
    graded,
    kept_by_filter,
    marks,
    matched_steps,
    price,
    sample,
    sample_all,
    steeper,
    tokens_read,
)
from workbench.store import Store
from workbench.verdicts import Results

TEMPLATES = Path(__file__).parent / "templates"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model with random weights, saved as a run saves its student."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    for part in causal.build_causal("llama-1x32"):
        part.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def some() -> list[Problem]:
    return problems("sums", [2, 3], 5)


class Scripted:
    """Writes what it is told, and remembers how often it was asked."""

    fingerprint = "scripted"

    def __init__(self, answers: dict[str, Written]):
        self.answers, self.asked = answers, 0

    def write(self, questions, how):
        self.asked += len(questions)
        return [self.answers[q] for q in questions]


HOW = Sampling(temperature=1.0, max_new_tokens=12, seed=3)


def test_the_same_seed_writes_the_same_whatever_stands_beside_and_another_writes_another(folder, some):
    questions = [p.prompt for p in some]
    first = Local(folder).write(questions, HOW)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert Local(folder).write(questions, HOW) == first
    assert (torch.get_rng_state() == state).all(), "sampling moved the caller's random state"
    assert Local(folder).write(questions, Sampling(1.0, 12, seed=4)) != first
    greedy = Local(folder).write(questions, Sampling(0.0, 12))
    assert greedy == Local(folder).write(questions, Sampling(0.0, 12, seed=9))
    assert greedy == [Local(folder).write([q], Sampling(0.0, 12))[0] for q in questions], "padding changed a text"


def test_samples_follow_the_model_s_distribution(folder):
    model, tokenizer = causal.load_causal(folder)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokenizer("21+43:")["input_ids"]])).logits[0, -1] / 0.05
    top = tokenizer.decode(int(logits.argmax()))
    written = Local(folder).write(["21+43:"] * 1000, Sampling(0.05, 1, seed=1))
    share = np.mean([w.text == top for w in written])
    expected = float(torch.softmax(logits, -1).max())
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 1000) ** 0.5 + 1e-9


def test_stop_strings_end_a_text_and_are_no_part_of_it(folder):
    free = Local(folder).write(["21+43:"], Sampling(0.0, 12))[0]
    assert len(free.text) == 12 and not free.finished and free.tokens == 12
    stop = free.text[4]
    cut = Local(folder).write(["21+43:"], Sampling(0.0, 12, stop=(stop,)))[0]
    assert cut.finished and cut.text == free.text.partition(stop)[0]


def test_what_is_kept_of_a_text(store):
    a, b, c, d = problems("sums", [2], 4)
    writer = Scripted(
        {
            a.prompt: Written(a.completion, 20, True),
            b.prompt: Written(b.answer_only, 5, True),
            c.prompt: Written(c.completion + "0", 21, True),
            d.prompt: Written(d.completion, 12, False),  # right so far, but it had not ended
        }
    )
    table = sample(writer, [a, b, c, d], store=store)
    assert list(table["verdict"]) == ["verified", "right answer, wrong step", "wrong answer", "no answer"]
    assert list(table["verified"]) == [True, False, False, False]
    assert list(table["answer_right"]) == [True, True, False, False]
    assert list(table["first_wrong"].fillna(-1)) == [-1, 0, -1, -1]
    assert list(table["tokens"]) == [20, 5, 21, 12] and list(table["prompt"]) == [p.prompt for p in (a, b, c, d)]
    pd.testing.assert_frame_equal(sample(writer, [a, b, c, d], store=store), table)
    assert writer.asked == 4, "what was written was asked again"


def test_draws_of_a_problem_differ_and_shards_do_not_depend_on_each_other(folder, some, store, monkeypatch):
    monkeypatch.setattr(traces, "SHARD", 4)
    table = sample(Local(folder), some, HOW, per_problem=4, store=store)
    assert table.groupby("problem")["text"].nunique().min() > 1
    assert list(table["draw"][:5]) == [0, 1, 2, 3, 0]
    last = sample(Local(folder), some[-1:], HOW, per_problem=4, store=Store(store.root / "other"))
    assert list(last["text"]) == list(table["text"][-4:])


@pytest.mark.slow
def test_writers_in_a_pool_write_what_they_write_here(folder, some, store, tmp_path):
    both = sample_all({"a": Local(folder), "b": Local(folder)}, some, HOW, store=store, workers=2)
    assert list(both["writer"].unique()) == ["a", "b"]
    here = sample(Local(folder), some, HOW, store=Store(tmp_path / "here"))
    for _, rows in both.groupby("writer"):
        pd.testing.assert_frame_equal(rows.drop(columns="writer").reset_index(drop=True), here)


def test_a_stopped_call_keeps_its_shards_and_goes_on_to_the_same_texts(folder, some, store, tmp_path, monkeypatch):
    monkeypatch.setattr(traces, "SHARD", 3)
    whole = sample(Local(folder), some, HOW, store=Store(tmp_path / "whole"))

    def stop(done: int, to_do: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(Local(folder), some, HOW, store=store, progress=stop)
    kept = {entry.key: entry.path.stat().st_mtime_ns for entry in store.list("traces")}
    pd.testing.assert_frame_equal(sample(Local(folder), some, HOW, store=store), whole)
    made = {entry.key: entry.path.stat().st_mtime_ns for entry in store.list("traces")}
    assert len(kept) == 2 and len(made) == 4 and kept.items() <= made.items()


def test_several_greedy_texts_of_a_problem_are_refused():
    with refused("2 texts at temperature 0 are all the same"):
        sample(Scripted({}), problems("sums", [2], 1), Sampling(0.0), per_problem=2)


# --- chat templates

TEXT = "<think>\n2 and 2 make 4.\n</think>\n\nIt is \\boxed{4}."
ENDS = {"qwen3": "<|im_end|>", "deepseek_r1": "<|end_of_sentence|>", "llama3": "<|eot_id|>"}


def chat_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer with a template file and the special tokens it writes."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=causal.build_causal("llama-1x32")[1].backend_tokenizer,
        pad_token="[PAD]", unk_token="[UNK]", eos_token=ENDS[name], model_max_length=512,
    )  # fmt: skip
    made.add_tokens(["<think>", "</think>"])  # ordinary tokens there too: decoding keeps them
    made.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    return made


@pytest.mark.parametrize("name", ENDS)
def test_the_reasoning_block_survives_the_template_and_comes_back_from_a_writer(name):
    """Where the prompt has opened the block, the text comes back with its opening, and so is verified."""
    tokenizer, question = chat_tokenizer(name), "What is 2 + 2?"
    prompt, completion = chat_pair(tokenizer, question, TEXT)
    assert prompt == chat_prompt(tokenizer, question) and question in prompt
    whole = prompt + completion
    assert whole.count("<think>") == 1 and whole.count("</think>") == 1
    assert "2 and 2 make 4." in whole.partition("<think>")[2].partition("</think>")[0]
    assert whole.endswith("It is \\boxed{4}." + ENDS[name])
    ids = causal.encode_pair(tokenizer, prompt, completion)[1]
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    problem, ends = Problem("hub:x", 1, question, "4"), [tokenizer.eos_token_id]
    written, cut = (traces.read_back(tokenizer, prompt, row, Sampling(), ends) for row in (ids, ids[:12]))
    assert written == Written(TEXT, len(ids), True) and verify(problem, written.text).verified
    assert not cut.finished and verify(problem, cut.text).verdict == "no answer"


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1"])
def test_rendering_the_whole_conversation_would_have_lost_it(name):
    """What `chat_pair` is there for: these templates drop the block of an assistant's turn."""
    turns = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": TEXT}]
    turns += [{"role": "user", "content": "Sure?"}] if name == "qwen3" else []
    whole = chat_tokenizer(name).apply_chat_template(turns, tokenize=False)
    assert "2 and 2 make 4." not in whole and "It is \\boxed{4}." in whole


def test_a_template_that_loses_the_answer_is_refused():
    tokenizer = chat_tokenizer("llama3")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with refused("does not keep an assistant's answer"):
        chat_pair(tokenizer, "What is 2 + 2?", TEXT)


def test_vllm_is_told_what_to_read_and_asked_for_a_seed_a_text(monkeypatch, folder, store):
    """Against a stand-in: the engine itself needs a GPU."""
    calls = {}

    class LLM:
        def __init__(self, **options):
            calls["options"] = options

        def generate(self, prompts, asked):
            calls["prompts"], calls["asked"] = prompts, asked
            out = types.SimpleNamespace(text="#42", token_ids=[1, 2, 3, 4], finish_reason="stop")
            return [types.SimpleNamespace(outputs=[out]) for _ in prompts]

    fake = types.SimpleNamespace(LLM=LLM, SamplingParams=lambda **o: o, __version__="0")
    monkeypatch.setitem(sys.modules, "vllm", fake)
    a, b = problems("sums", [2], 2)
    table = sample(VLLM(str(folder), max_model_len=64), [a, b], Sampling(0.6, 50, ("\n\n",), seed=7), store=store)
    safe = {"trust_remote_code": False, "load_format": "safetensors"}  # no code of the model's, nothing unpickled
    assert calls["options"] == {"model": str(folder), "max_model_len": 64} | safe
    tokenizer = students.load_tokenizer(folder)
    assert [tokenizer.decode(p["prompt_token_ids"]) for p in calls["prompts"]] == [a.prompt, b.prompt]
    assert calls["asked"][0]["temperature"] == 0.6 and calls["asked"][0]["stop"] == ["\n\n"]
    assert calls["asked"][0]["max_tokens"] == 50 and calls["asked"][0]["seed"] != calls["asked"][1]["seed"]
    assert list(table["text"]) == ["#42", "#42"] and list(table["tokens"]) == [4, 4]


def test_without_vllm_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with refused("pip install -e '.[vllm]'"):
        VLLM("some/model")


def test_an_unknown_character_is_no_crash():
    tokenizer = causal.build_causal("llama-1x32")[1]
    assert tokenizer.decode(tokenizer("1é2")["input_ids"]) == "1[UNK]2"


def table_of_traces(verified: bool = True) -> pd.DataFrame:
    """Two traces of each of three problems: cut, then right; right twice; wrong, then empty."""
    rows = [(0, 0, "p0", "a", False, False), (0, 1, "p0", "b", True, True), (1, 0, "p1", "c", True, True),
            (1, 1, "p1", "d", True, True), (2, 0, "p2", "e", True, False), (2, 1, "p2", "", True, False)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["problem", "draw", "prompt", "text", "finished", "verified"])
    return table.assign(verified=table["verified"] & verified)


def test_traces_are_kept_by_filter():
    assert kept_by_filter(table_of_traces()) == {
        "unfiltered": [("p1", "c"), ("p2", "e")],
        "verified": [("p0", "b"), ("p1", "c")],
        "several": [("p0", "b"), ("p1", "c"), ("p1", "d")],
    }
    with refused("None of 6 traces is verified"):
        kept_by_filter(table_of_traces(verified=False))
    assert len(kept_by_filter(table_of_traces(verified=False), or_all=True)["several"]) == 4  # ended, and not empty


def test_papers_are_graded_by_arm_and_difficulty():
    rows = [("b #1", "b", 0, 3, True), ("b #1", "b", 1, 4, False), ("b #0", "b", 1, 4, True), ("b #0", "b", 0, 3, True)]
    found = graded(pd.DataFrame(rows, columns=["writer", "arm", "problem", "difficulty", "answer_right"]))
    assert found.labels.tolist() == [3, 4] and found.correct["b"].tolist() == [[True, True], [True, False]]


def test_the_price_of_a_student_is_what_it_had_read_by_then():
    history = pd.DataFrame({"step": [5, 10, 20], "validation": [0.2, np.nan, 0.9]})
    run = types.SimpleNamespace(
        history=history, config=types.SimpleNamespace(steps=20),
        entry=types.SimpleNamespace(record={"train_tokens": 1000, "parameters": 3}),
    )  # fmt: skip
    runs = pd.DataFrame({"arm": ["a", "a"], "run": [run, run]})
    assert price(runs, 0.2).loc["a"].tolist() == [250, 6 * 3 * 250, 2, 2]
    assert price(runs, 0.5).loc["a", "tokens"] == 1000 and np.isnan(price(runs, 0.95).loc["a", "tokens"])
    assert traces.flops(run, written=10) == 3 * (6 * 1000 + 2 * 10)


def some_run(train_tokens: int, parameters: int, steps: int = 10):
    record = {"train_tokens": train_tokens, "parameters": parameters}
    return types.SimpleNamespace(entry=types.SimpleNamespace(record=record), config=types.SimpleNamespace(steps=steps))


def test_tokens_read_are_a_mean_by_arm():
    runs = pd.DataFrame({"arm": ["b", "a", "b"], "run": [some_run(n, 1) for n in (10, 5, 30)]}, index=[0, 0, 1])
    assert tokens_read(runs).to_dict() == {"b": 20, "a": 5}


def test_a_corrected_run_is_worth_what_its_student_and_its_teacher_did():
    corrected = [some_run(n, parameters=50) for n in (300, 500)]
    steps = matched_steps(corrected, some_run(1000, 50), some_run(1, parameters=200))
    # 40 tokens for each of the 10 that a step reads; learnt from, written, and read by a teacher four times as large
    assert steps == {"more traces, equal tokens": 4, "more traces, equal FLOPs": round(4 * (6 + 2 + 2 * 4) / 6)}


def hits(*rows: str) -> np.ndarray:
    return np.array([[mark == "x" for mark in row] for row in rows])


def test_marks_count_what_lay_on_a_plateau_and_what_had_every_step_right():
    right, strict = {"a": hits("xx.x", "x..."), "b": hits("xxxx")}, {"a": hits("x...", "...."), "b": hits("xxx.")}
    found = marks(*(Results(each, np.array([3, 3, 4, 4])) for each in (right, strict)))
    assert found["stuck"].to_dict() == {"a": 1, "b": 0} and found["verified"].to_dict() == {"a": 0.125, "b": 0.75}
    assert found["estimate"].to_dict() == {"a": 0.5, "b": 1.0} and found["n_problems"].tolist() == [4, 4]


def test_accuracy_by_difficulty():
    found = by_difficulty(Results({"a": hits("xx.x", "x...")}, np.array([3, 3, 4, 4])))
    assert found["difficulty"].tolist() == [3, 4] and found["estimate"].tolist() == [0.75, 0.25]
    assert found["n_problems"].tolist() == [2, 2] and found["n_seeds"].tolist() == [2, 2]


def test_who_falls_further_behind_from_the_easiest_to_the_hardest():
    rng, labels = np.random.default_rng(0), np.repeat([3, 4, 6], 200)
    small, large = (rng.random((6, 600)) < np.repeat(p, 200) for p in ([0.8, 0.5, 0.2], [0.9, 0.0, 0.7]))
    results = Results({"small": small, "large": large}, labels)
    fall = {arm: h[:, 400:].mean() - h[:, :200].mean() for arm, h in results.correct.items()}
    found = steeper(results, "small", "large", budget="laptop")
    assert found["estimate"] == pytest.approx(fall["small"] - fall["large"]) and found["verdict"] == "WORSE"
    exact = (sum(p * (1 - p) for p in (0.8, 0.2, 0.9, 0.7)) / 200 / 6) ** 0.5  # SE says up to √2 of it, ± its own noise
    assert exact < found["se"] < 2 * exact and found["low"] < found["estimate"] < found["high"] < 0
    alike = steeper(Results({"a": small, "b": small}, labels), "a", "b", budget="laptop", margin=0.02)
    assert alike["estimate"] == 0 and alike["verdict"] == "EQUIVALENT"
