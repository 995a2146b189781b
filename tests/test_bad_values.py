"""Values that mean nothing: each is refused in one sentence that names it, before anything is made.

`ROWS` is a table to scan: what was tried, the call, and what the sentence says. Where one argument is tried with many
values, `wrong` makes the rows.
"""

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from refusal import sentence
from tiny import PLAIN

from workbench import errors, metrics, soft_labels, speed, sweeps, verdicts
from workbench.errors import WorkbenchError
from workbench.language import causal, problems, texts
from workbench.language.blocks import load_text, pack
from workbench.language.fused import Dense, Head, fused_loss
from workbench.language.labels import LabelOptions
from workbench.language.ngrams import ngram_nll
from workbench.language.traces import Local, Sampling, sample, sample_all
from workbench.losses import LOSSES, Objective, combine, cross_entropy, find_loss, forward_kl, skew_kl
from workbench.noise import noisy
from workbench.soft_labels import row_ids
from workbench.store import Store
from workbench.tasks import Task
from workbench.training import CHECKS, Job, Run, TrainConfig, find_run, train
from workbench.verdicts import Results, compare

NAN, INF, HALF = math.nan, math.inf, "lamp \ud800 on"
SEEDS = "give a whole number from 0 to 9,223,372,036,854,775,807."
TEMPERATURES = "give a number from 1e-06 to 1,000,000."
SHARE = "give a number of at least 0 and below 1."
Z = torch.zeros(3, 4)
LABELS = torch.tensor([0, 1, 2])
KL = Objective()
SUMS = problems.problems("sums", [2], 2)
HITS = {"a": np.ones((2, 8)), "b": np.zeros((2, 8))}
TRUTH = [0, 0, 0, 0, 1, 1, 1, 1]
ARMS = {"a": lambda texts: None}
P = np.full((2, 2), 0.5)


class Nobody:
    """A writer that must not be asked."""

    fingerprint = "nobody"

    def write(self, questions, how):
        raise AssertionError("a bad value got through")


def a_task() -> Task:
    """For calls that must fail before they read it."""
    return SimpleNamespace(labelled={"text": [], "label": []}, label_names=())


def searched(name: str) -> Callable:
    """A search that has a value of its own for one setting."""
    plan = {"space": {"steps": [1]}, "budget": 1}
    return lambda value: sweeps.search(Job(a_task(), None, PLAIN), sweeps.Search(**plan | {name: value}))


def config(**values) -> Callable[[], TrainConfig]:
    return lambda: TrainConfig(**values)


def wrong(name: str, call: Callable, values: list, sentence: str) -> list[tuple[str, Callable, str]]:
    """A row a value; the sentence starts with the name and the value, unless it says something else."""
    return [
        (f"{name} = {errors.shown(v)}", lambda v=v: call(v), re.escape(f"{name} is {errors.shown(v)}: {sentence}"))
        for v in values
    ]


def field(name: str, values: list, sentence: str) -> list[tuple[str, Callable, str]]:
    return wrong(name, lambda v: TrainConfig(**{name: v}), values, sentence)


ROWS = [
    # --- TrainConfig
    *field("seed", [-1, 1.5, "x", 2**64, None, True, [0], NAN, 10**5000], SEEDS),
    *field("temperature", ["2", None, 0, -1, NAN, INF, 1e308, 1e-7, True, [1], 2 + 0j, Decimal(2), Fraction(1, 2)],
           TEMPERATURES),
    *field("steps", [0, -1, 1.5, 2.0, "9", None, True, 10**8, NAN],
           "give a whole number from 1 to 10,000,000, or 'auto'."),
    *field("batch_size", [0, 10**6, "32", 3.5], "give a whole number from 1 to 65,536 (rows)."),
    *field("accumulation", [0, 10**6, None], "give a whole number from 1 to 65,536 (micro-batches)."),
    *field("max_length", [0, 2**30, "128"], "give a whole number from 1 to 1,048,576 (tokens)."),
    *field("threads", [0, 5000, 1.0], "give a whole number from 1 to 1,024."),
    *field("eval_every", [0, "x"], "give a whole number from 1 to 1,000,000,000 (steps), or 'auto'."),
    *field("log_every", [0, INF], "give a whole number from 1 to 1,000,000,000 (steps)."),
    *field("learning_rate", [0, -1e-3, INF, NAN, "4e-3", None, 10**400], "give a finite number above 0."),
    *field("max_grad_norm", [0, INF, "1"], "give a finite number above 0."),
    *field("kd_weight", [-0.1, NAN, "1", None, 1e9, {}], "give a number from 0 to 1,000,000."),
    *field("ce_weight", [-0.1, INF, [1.0]], "give a number from 0 to 1,000,000."),
    *field("weight_decay", [-1, NAN, "0", 1e9], "give a number from 0 to 1,000."),
    *field("label_smoothing", [1.0, -0.1, "0.1", None], SHARE),
    *field("warmup", [1, NAN, "a"], SHARE),
    *field("dropout", [1.0, -1, None], SHARE),
    *field("labelled_fraction", [1.1, -0.1, "all", NAN], "give a number from 0 to 1, or None."),
    *field("stop_above", [0, 1.5, "x", NAN], "give a number above 0 and at most 1, or None."),
    *field("scale_by_temperature", [1, "yes", None], "give True or False."),
    *field("student", ["", "  ", None, 3, ["2x64"], HALF], "give a string that is not empty."),
    *field("precision", ["float16"], "did you mean 'bfloat16'? Choose one of auto, float32, bfloat16."),
    *field("precision", [None, 16], "choose one of auto, float32, bfloat16."),
    ("a width beyond", config(student="2x999999"), "student is '2x999999': no model is that large, and .*"),
    ("a name beyond", config(student="a" * 300), "student is 'aaaa.*: no model is that large, and no name that long."),
    ("a text beyond", config(max_length=25_001), "max_length is 25001: student '2x64' reads at most 25,000 tokens."),
    ("loss = None", config(loss=None), r"Unknown loss None: Choose one of dist, dkd, .*\."),
    ("loss = a list", config(loss=["jsd"]), r"Unknown loss \['jsd'\]: Choose one of .*\."),
    ("loss with a slip", config(loss="jds"), r"Unknown loss 'jds': did you mean 'jsd'\? Choose one of .*\."),
    ("loss_options = a list", config(loss_options=[1]), r"loss_options is \[1\]: give a dict, such as .*\."),
    ("an option that the loss lacks", config(loss_options={"beta": 1}),
     "Loss 'forward_kl' has no option 'beta': it takes standardise."),
    ("an option that is no string", config(loss_options={3: 1}), "Loss 'forward_kl' has no option 3: it takes .*"),
    ("an option beyond float", config(loss="dkd", loss_options={"beta": 10**400}), "beta of loss 'dkd' is 1000.*"),
    ("nothing to learn from", config(kd_weight=0, ce_weight=1, labelled_fraction=0),
     "labelled_fraction is 0 and kd_weight 0.*"),
    ("both weights 0", config(kd_weight=0), "kd_weight and ce_weight are both 0: .*"),
    ("a field that is none", lambda: sweeps.grid({"temprature": [1]}),
     "Unknown field of TrainConfig 'temprature': did you mean 'temperature'.*"),
    # --- losses
    *wrong("temperature", lambda v: forward_kl(Z, Z, v), ["2", None, 0, NAN, 1e308], TEMPERATURES),
    *wrong("temperature", lambda v: Objective(temperature=v), [None, INF], TEMPERATURES),
    *wrong("kd_weight", lambda v: Objective(kd_weight=v), ["1", None, NAN, -1],
           "give a number from 0 to 1,000,000."),
    *wrong("ce_weight", lambda v: Objective(ce_weight=v), ["1", None, NAN],
           "give a number from 0 to 1,000,000."),
    *wrong("label_smoothing", lambda v: Objective(label_smoothing=v), ["x", 1.0, None], SHARE),
    *wrong("rows", lambda v: combine(Z, Z, LABELS, KL, rows=v), [0, "3", 1.5],
           "give a whole number from 1 to 1,000,000,000."),
    *wrong("labelled_rows", lambda v: combine(Z, Z, LABELS, KL, labelled_rows=v), [-1, "x"],
           "give a whole number from 0 to 1,000,000,000."),
    ("labels of fractions", lambda: combine(Z, Z, LABELS.float(), KL),
     "labels are torch.float32: give a tensor of whole .*"),
    ("labels of another length", lambda: combine(Z, Z, LABELS[:2], KL),
     r"labels have shape \[2\], logits \[3, 4\]: .*"),
    ("labels that are a list", lambda: combine(Z, Z, [0, 1, 2], KL),
     r"labels are \[0, 1, 2\]: give a tensor .*"),
    ("a label beyond the classes", lambda: cross_entropy(Z, LABELS + 9), "labels hold class 11 of 4 classes: .*"),
    ("logits of one row", lambda: combine(Z[0], Z[0], LABELS, KL),
     r"Student logits are \[4\]: give a tensor .*"),
    ("logits that are none", lambda: combine(None, Z, LABELS, KL),
     "Student logits are None: give a tensor .*"),
    ("teacher logits of numpy", lambda: forward_kl(Z, Z.numpy()), r"Teacher logits are array\(.*: give a tensor .*"),
    ("logits of two shapes", lambda: forward_kl(Z, Z[:2]), r"Student logits are \(3, 4\), teacher logits \(2, 4\): .*"),
    ("alpha of skew_kl", lambda: skew_kl(Z, Z, alpha="a"),
     "alpha of loss 'skew_kl' is 'a': give a number of at least.*"),
    ("a loss that is a number", lambda: find_loss(3), "Unknown loss 3: Choose one of .*"),
    ("options that are a string", lambda: Objective(loss_options="beta"), "loss_options is 'beta': .*"),
    *wrong("chunk", lambda v: fused_loss(Z, Head(Z), target=Dense(Z[:, :3]), kd_weight=Z[:, 0], chunk=v), [0, "x", 1.5],
           "give a whole number from 1 to 1,000,000,000."),
    ("a target that is none", lambda: fused_loss(Z, Head(Z), target=Z, kd_weight=Z[:, 0]),
     "target is tensor.*: give .*"),
    # --- noise and transfer texts
    *wrong("rate", lambda v: noisy(["a"], v), [1.1, -0.1, NAN, "0.1", None], "give a number from 0 to 1."),
    *wrong("seed", lambda v: noisy(["a"], 0.1, v), [-1, 0.5, "x", None], SEEDS),
    ("one text for many", lambda: noisy("abc", 0.1), "texts is 'abc': give a list of texts."),
    ("a text that is none", lambda: noisy(["a", 3], 0.1), r"texts\[1\] is 3: give a string."),
    ("no kind", lambda: noisy(["a"], 0.1, kinds=[]), "There is no kind of noise: .*"),
    ("a kind with a slip", lambda: noisy(["a"], 0.1, kinds=["type"]), ".*did you mean 'typing'.*"),
    ("kinds in one string", lambda: noisy(["a"], 0.1, kinds="drop"), "kinds is 'drop': give a list of .*"),
    *wrong("copies", lambda v: texts.augmented(a_task(), copies=v), [0, -1, 2.5, "3", 10**9],
           "give a whole number from 1 to 10,000."),
    *wrong("rate", lambda v: texts.augmented(a_task(), rate=v), [0, 2, "x"], "give a number above 0 and at most 1."),
    *wrong("seed", lambda v: texts.augmented(a_task(), seed=v), [-1, None], SEEDS),
    *wrong("per_class", lambda v: texts.written(a_task(), per_class=v), [0, 1.5, "5", 10**9],
           "give a whole number from 1 to 1,000,000."),
    *wrong("examples", lambda v: texts.written(a_task(), examples=v), [0, None],
           "give a whole number from 1 to 10,000."),
    *wrong("temperature", lambda v: texts.written(a_task(), how=Sampling(v)), [0.0], TEMPERATURES),
    *wrong("The model", lambda v: texts.written(a_task(), v), ["", None, 3],
           "give a folder with a saved model, or a hub name."),
    # --- sampled text
    *wrong("temperature", lambda v: Sampling(temperature=v), [-1, NAN, "1", None],
           "give a number from 0 to 1,000,000."),
    *wrong("max_new_tokens", lambda v: Sampling(max_new_tokens=v), [0, 1.5, "9"],
           "give a whole number from 1 to 1,048,576."),
    *wrong("seed", lambda v: Sampling(seed=v), [-1, 2**63, "0"], SEEDS),
    ("stop in one string", lambda: Sampling(stop="\n"), r"stop is '\\n': give a list of texts."),
    ("an empty stop", lambda: Sampling(stop=("",)), r"stop is \(''?,\): give strings that are not empty."),
    ("a stop that is none", lambda: Sampling(stop=(3,)), r"stop\[0\] is 3: give a string."),
    *wrong("threads", lambda v: Local("llama-1x32", v), [0, "2", None], "give a whole number from 1 to 1,024."),
    *wrong("per_problem", lambda v: sample(Nobody(), SUMS, per_problem=v), [0, 1.5, "2"],
           "give a whole number from 1 to 1,000,000."),
    ("no problems", lambda: sample(Nobody(), []), "There is nothing to write: give problems."),
    ("problems that are texts", lambda: sample(Nobody(), ["1+1"]), "problems hold '1[+]1': give what .*"),
    ("sampling that is a dict", lambda: sample(Nobody(), SUMS, {"seed": 1}), "how is {'seed': 1}: give a Sampling, .*"),
    *wrong("workers", lambda v: sample_all({"a": Nobody()}, SUMS, workers=v), [0, "2", 1.5],
           "give a whole number from 1 to 4,096."),
    ("no writers", lambda: sample_all({}, SUMS), "writers is {}: give a dict of names with at least one writer."),
    # --- labels of text, language models, problems
    *wrong("k", lambda v: LabelOptions("top_k", k=v), [0, 2.5, "64", None],
           "give a whole number from 1 to 10,000,000."),
    *wrong("temperature", lambda v: LabelOptions("top_k", temperature=v), [0, "1"], TEMPERATURES),
    *wrong("seed", lambda v: LabelOptions(seed=v), [-1, 0.5], SEEDS),
    *wrong("dtype", lambda v: LabelOptions(dtype=v), [None, torch.float16], "choose one of float16, bfloat16."),
    ("a kind that is none", lambda: LabelOptions(["hidden"]), r"Unknown kind of soft labels \['hidden'\]: Choose .*"),
    *wrong("given", lambda v: causal.complete(None, [], given=v), [0, "3"], "give a whole number from 1 to 1,000."),
    *wrong("order", lambda v: ngram_nll([], [], 2, v), [0, "3"], "give a whole number from 1 to 100."),
    *wrong("length", lambda v: load_text("python-docs", None, length=v), [1, "128", 2.5],
           "give a whole number from 2 to 1,048,576."),
    *wrong("max_blocks", lambda v: load_text("python-docs", None, max_blocks=v), [0, "9"],
           "give a whole number from 1 to 1,000,000,000, or None."),
    ("text that is a number", lambda: load_text(3, None), "Unknown text 3: Choose one of .*"),
    *wrong("length", lambda v: pack("text", None, v), [0, None], "give a whole number from 1 to 1,048,576."),
    *wrong("temperature", lambda v: causal.next_tokens([], "a", temperature=v), [0, "1"], TEMPERATURES),
    ("no models to ask", lambda: causal.next_tokens([], "a"), "There are no models to ask: give at least one."),
    *wrong("tokens", lambda v: causal.speed([], [1], tokens=v), [1, "x"], "give a whole number from 2 to 1,048,576."),
    *wrong("seed", lambda v: causal.write(None, [[1]], 2, seed=v), [-1, "x"], SEEDS),
    *wrong("name", causal.load_language_model, ["", None, 5], "give a string that is not empty."),
    *wrong("count", lambda v: problems.problems("sums", [2], v), [0, "5", 2.5],
           "give a whole number from 1 to 10,000,000."),
    *wrong("seed", lambda v: problems.problems("sums", [2], 1, seed=v), [-1, None, "a"], SEEDS),
    *wrong("difficulty", lambda v: problems.problems("sums", [v], 1), ["2", 2.5, 10**6],
           "give a whole number from 0 to 1,000."),
    ("difficulties that are one", lambda: problems.problems("sums", 2, 1), "difficulties is 2: give a list of .*"),
    ("a family that is none", lambda: problems.problems(None, [2], 1), "family is None: give a string .*"),
    ("too easy", lambda: problems.problems("sums", [1], 1), "A difficulty of 1 makes no sums problem: start at 2."),
    # --- soft labels
    ("half a surrogate pair", lambda: row_ids(["a", HALF]),
     r"texts\[1\] is 'lamp \\ud800 on': it holds half of a surrogate pair; take that out."),
    ("a text that is a number", lambda: row_ids(["a", None]), r"texts\[1\] is None: give a string."),
    ("bytes for a text", lambda: row_ids([b"a"]), r"texts\[0\] is b'a': give a string."),
    ("one text for many", lambda: row_ids("abc"), "texts is 'abc': give a list of texts."),
    *wrong("seed", lambda v: soft_labels.permute_non_target(P, v), [-1, "x", 1.5], SEEDS),
    ("logits of words", lambda: soft_labels.permute_non_target([["a"]]),
     r"logits are \[\['a'\]\]: give finite numbers .*"),
    ("logits without rows", lambda: soft_labels.class_means(np.empty((0, 3))), "logits are array.*: give finite .*"),
    ("ragged logits", lambda: soft_labels.class_means([[1], [1, 2]]),
     r"logits are \[\[1\], \[1, 2\]\]: give finite .*"),
    # --- metrics, verdicts, benchmarks
    *wrong("temperature", lambda v: metrics.softmax(P, v), ["1", None, 0, NAN], TEMPERATURES),
    *wrong("bins", lambda v: metrics.ece(P, [0, 1], v), [0, "15", 2.5], "give a whole number from 1 to 1,000,000."),
    *wrong("count", lambda v: metrics.slices([1, 2], v), [0, "4", None], "give a whole number from 1 to 10,000."),
    *wrong("refused", lambda v: metrics.refusal_threshold([0.5], v), [0, 10, "x", None],
           "give a number above 0 and below 1."),
    *wrong("level", lambda v: metrics.refusal_threshold([0.5], 0.1, level=v), [1, "x"],
           "give a number above 0 and below 1."),
    ("confidences in words", lambda: metrics.refusal_threshold(["a"], 0.1),
     "confidence hold what is no finite number.*"),
    ("scores in words", lambda: metrics.auroc(["a"], [1.0]), "in_scores hold what is no finite number, .*"),
    ("labels of two types", lambda: metrics.item_weights([0, None]), "labels are of several types, .*"),
    ("groups without a hash", lambda: metrics.item_weights([0, 1], [[1], [2]]), "groups hold what has no hash.*"),
    ("a metric that is none", lambda: metrics.as_evaluate(None), "Unknown metric None: Choose one of .*"),
    *wrong("margin", lambda v: compare(Results(HITS, TRUTH), [("a", "b")], margin=v), [0, 1, "1", NAN],
           "give a number above 0 and below 1 (one point is 0.01)."),
    ("a pair that is a name", lambda: compare(Results(HITS, TRUTH), ["a"]), "declared holds 'a': give .* pairs."),
    ("pairs that are a name", lambda: compare(Results(HITS, TRUTH), "ab"),
     "declared is 'ab': give a list of .* pairs."),
    ("hits that are a list", lambda: verdicts.arm_estimates(Results([1], TRUTH)),
     r"The hits are \[1\]: give a dict of arms .*"),
    ("hits in words", lambda: verdicts.arm_estimates(Results({"a": ["x"] * 8}, TRUTH)),
     "Arm 'a' has hits .*: give numbers .*"),
    *wrong("repeats", lambda v: speed.measure(ARMS, ["a"], repeats=v), [0, "3", 1.5],
           "give a whole number from 1 to 1,000,000."),
    *wrong("batch_size", lambda v: speed.measure(ARMS, ["a"], batch_size=v), [0, None],
           "give a whole number from 1 to 1,000,000."),
    ("no arms", lambda: speed.measure({}, ["a"]), "There are 0 arms and 1 texts: give at least one of each."),
    ("no texts", lambda: speed.measure(ARMS, []), "There are 1 arms and 0 texts: give at least one of each."),
    ("another arm", lambda: speed.measure({"arm": len}, ["a"], reference="amr"), ".*did you mean 'arm'.*"),
    ("one text to time", lambda: speed.measure(ARMS, "abc"), "texts is 'abc': give a list of texts."),
    ("arms that are a list", lambda: speed.measure([print], ["a"]), r"arms is \[<built-in.*>\]: give a dict of .*"),
    # --- sweeps
    *wrong("count", lambda v: sweeps.controls(PLAIN, v), [0, 1.5, "2", None, 10**9],
           "give a whole number from 1 to 10,000."),
    *wrong("workers", lambda v: sweeps.run_all([], workers=v), [0, -1, "2", 1.5],
           "give a whole number from 1 to 4,096."),
    *wrong("budget", searched("budget"), [0, "9", 1.5], "give a whole number from 1 to 1,000,000."),
    *wrong("batch", searched("batch"), [0, None], "give a whole number from 1 to 1,000,000."),
    *wrong("seed", searched("seed"), [-1, 2**32, "x"], "give a whole number from 0 to 4,294,967,295."),
    *wrong("seeds", lambda v: searched("seeds")([v]), [-1, "x"], SEEDS),
    ("no seeds", lambda: searched("seeds")([]), "There are no seeds: .*"),
    ("a range beyond", lambda: searched("space")({"temperature": FloatDistribution(0, 2)}),
     f"temperature is 0.0: {TEMPERATURES}"),
    ("jobs that are configs", lambda: sweeps.run_all([PLAIN]), "jobs hold TrainConfig.*: give what .* makes."),
    ("an empty space", lambda: sweeps.grid({}), "The space is empty: give at least one field .*"),
    ("no values", lambda: sweeps.one_factor({"temperature": []}), "The space has no values for temperature: give .*"),
    ("an option with a slip", lambda: sweeps.grid({"loss_options.bta": [1]}), ".*did you mean 'loss_options.beta'.*"),
    ("all options", lambda: sweeps.grid({"loss_options": [{}]}), "Unknown field of TrainConfig 'loss_options': .*"),
    ("another loss", lambda: sweeps.grid({"loss": ["kl"]}), "Unknown loss 'kl': .*"),
    ("half a step", lambda: sweeps.one_factor({"steps": [1.5]}), "steps is 1.5: give a whole number from 1 to .*"),
    ("an empty search", lambda: searched("space")({}), "The space is empty: give at least one field .*"),
    ("a range of no field", lambda: searched("space")({"T": FloatDistribution(1, 2)}), "Unknown field of Train.*"),
    ("a range of steps", lambda: searched("space")({"steps": FloatDistribution(1, 2)}), "steps is 1.0: give a whole.*"),
    ("a space that is a list", lambda: sweeps.grid([1]), r"The space is \[1\]: give a dict of fields .*"),
    ("a field that is a number", lambda: sweeps.grid({3: [1]}), "Unknown field of TrainConfig 3: Choose one of .*"),
    ("values that are one", lambda: sweeps.grid({"temperature": 2.0}),
     "The list of temperature is 2.0: give a list .*"),
    ("a value in words", lambda: sweeps.grid({"temperature": ["2"]}), f"temperature is '2': {TEMPERATURES}"),
    ("an option in words", lambda: sweeps.grid({"loss_options.beta": ["x"]}),
     "loss_options.beta is 'x': give a finite.*"),
    ("a base that is a dict", lambda: sweeps.grid({"steps": [1]}, {"loss": "jsd"}),
     "base is {'loss': 'jsd'}: give a .*"),
    ("seeds that are one", lambda: sweeps.jobs({"a": PLAIN}, None, None, 3),
     "seeds is 3: give a list of whole numbers.*"),
    ("a seed below 0", lambda: sweeps.jobs({"a": PLAIN}, None, None, [-1]), f"seed is -1: {SEEDS}"),
    ("an arm of words", lambda: sweeps.jobs({"a": "jsd"}, None, None, [0]),
     "Arm 'a' is 'jsd': give a list of configs."),
    ("arms that are a config", lambda: sweeps.jobs(PLAIN, None, None, [0]), "arms is TrainConfig.*: give a dict of .*"),
    ("one config for many", lambda: sweeps.run_all(PLAIN), "jobs is TrainConfig.*: give a list of jobs."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "said"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_bad_value_is_one_sentence(call, said):
    text = sentence(call)
    assert re.fullmatch(said, text), text


# --- any value for any field

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.text(),
    st.characters(categories=["Cs"]),
    st.binary(),
    st.sampled_from([np.float32(0.5), np.int8(3), np.True_, np.str_("jsd"), np.longdouble(1), np.array(2.0)]),
    st.sampled_from([np.arange(3), np.datetime64(1, "s"), torch.tensor(1.0), object(), int, len, range(2), pd.NA]),
    st.sampled_from([*LOSSES, "1x16", "float32"]),
    st.recursive(st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
)
PLAIN_TYPES = (str, int, float, bool, dict, type(None))


def check_config(values: dict) -> None:
    """It makes a config of Python's own finite values that names a run, or raises one sentence."""
    try:
        made = TrainConfig(**values)
    except WorkbenchError as error:
        assert "\n" not in str(error) and str(error).endswith(".") and len(str(error)) < 500
        return
    for f in fields(made):
        assert type(getattr(made, f.name)) in PLAIN_TYPES
    hash(made)
    assert replace(made) == made
    Store("/nowhere").find("runs", {"config": made})


@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("name", [f.name for f in fields(TrainConfig)])
@given(value=ODD)
def test_any_value_of_a_field_makes_a_config_or_one_sentence(name, value):
    check_config({name: value})


@settings(max_examples=150, deadline=None)
@given(values=st.dictionaries(st.sampled_from([f.name for f in fields(TrainConfig)]), ODD))
def test_any_values_make_a_config_or_one_sentence(values):
    check_config(values)


@settings(max_examples=100, deadline=None)
@given(loss=st.sampled_from([*LOSSES]), options=st.dictionaries(st.sampled_from(["alpha", "beta", "normalise"]), ODD))
def test_any_options_make_a_config_or_one_sentence(loss, options):
    check_config({"loss": loss, "loss_options": options})


def test_every_field_says_what_it_may_be():
    assert set(CHECKS) == {f.name for f in fields(TrainConfig)} - {"loss_options"}


def test_scalars_of_numpy_are_kept_as_pythons():
    made = TrainConfig(steps=np.int64(7), temperature=np.float32(0.5), scale_by_temperature=np.False_, kd_weight=2)
    assert made == TrainConfig(steps=7, temperature=0.5, scale_by_temperature=False, kd_weight=2.0)
    assert [type(v) for v in (made.steps, made.temperature, made.scale_by_temperature, made.kd_weight)] == [
        int, float, bool, float
    ]  # fmt: skip


# --- train: refused before anything is made, and nothing left of what fails at once


def left(store: Store) -> list[str]:
    """What lies in the store, lock files aside."""
    return [str(path) for path in store.root.rglob("*") if path.name != ".partial" and path.suffix != ".lock"]


def bare(task: Task) -> Task:
    """`task` without a labelled row."""
    return replace(task, labelled=task.labelled.select([]))


BEFORE = [
    ("no labelled row", lambda t, s: train(Job(bare(t), s, PLAIN)),
     "ce_weight is 1.0 but .* has no labelled row: set .*"),
    ("a share of no rows", lambda t, s: train(Job(bare(t), s, replace(PLAIN, ce_weight=0, labelled_fraction=0.5))),
     "labelled_fraction is 0.5 but .* has no labelled row: set .*"),
    ("no soft labels", lambda t, s: train(Job(t, None, PLAIN)),
     r"kd_weight is 1.0 but labels is None: pass soft_labels\(teacher, task\)."),
    ("soft labels that are an array", lambda t, s: train(Job(t, P, PLAIN)),
     r"labels is array\(.*: give the soft labels .*"),
    ("a config that is a dict", lambda t, s: train(Job(t, s, {})), "A job has Task.* and {}: give a task, .*"),
    ("a task that is a path", lambda t, s: train(Job("tickets.csv", s, PLAIN)),
     "A job has 'tickets.csv' and TrainConfig.*"),
    ("a student that is nowhere", lambda t, s: train(Job(t, s, replace(PLAIN, student="no/where"))), "Can't load .*"),
    ("seconds in words", lambda t, s: train(Job(t, s, PLAIN), checkpoint_seconds="60"),
     "checkpoint_seconds is '60': .*"),
    ("seconds below 0", lambda t, s: train(Job(t, s, PLAIN), checkpoint_seconds=-1), "checkpoint_seconds is -1: .*"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "said"), [row[1:] for row in BEFORE], ids=[row[0] for row in BEFORE])
def test_a_run_that_means_nothing_is_refused_before_anything_is_made(task, labels, tmp_path, monkeypatch, call, said):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    text = sentence(lambda: next(call(task, labels)))
    assert re.fullmatch(said, text), text
    assert not list(tmp_path.rglob("*"))


class Failing:
    """Soft labels that can't be read."""

    fingerprint = "failing"

    def find(self, texts):
        raise OSError("no such disk")


@pytest.mark.parametrize(
    ("labels_of", "values"),
    [
        (lambda labels: Failing(), {}),
        (lambda labels: labels, {"student": "1x17"}),  # no such width
        (lambda labels: labels, {"learning_rate": 1e30, "max_grad_norm": 1e30, "log_every": 1}),  # not finite
    ],
    ids=["labels", "student", "loss"],
)
def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(task, labels, store, labels_of, values):
    config = replace(PLAIN, **values)
    with pytest.raises((WorkbenchError, OSError)):
        list(train(Job(task, labels_of(labels), config), store=store))
    assert left(store) == []
    assert store.unfinished("runs", {"anything": 1}) is None


def test_a_run_that_fails_after_a_checkpoint_keeps_it(task, labels, store):
    config = replace(PLAIN, learning_rate=1e30, max_grad_norm=1e30, log_every=1)
    with pytest.raises(WorkbenchError):
        list(train(Job(task, labels, replace(config, log_every=2)), store=store, checkpoint_seconds=0))
    assert any(path.endswith("state.safetensors") for path in left(store))


def test_predicted_texts_with_half_a_surrogate_pair_are_named(task):
    from workbench import reading, students

    torch.manual_seed(0)
    student, tokenizer = students.build("1x32", task.label_names, task.transfer_texts)
    for asked, at in ((["a", HALF], 1), ([None], 0)):
        assert sentence(lambda asked=asked: reading.predict(student, tokenizer, asked)).startswith(f"texts[{at}] is ")


def test_a_pruned_run_says_so(task, labels, store):
    config = replace(PLAIN, steps=1)
    list(train(Job(task, labels, config), store=store))
    run = find_run(Job(task, labels, config), store)
    kept = Run(replace(run.entry))
    assert "did you mean 'test'" in sentence(lambda: run.logits("tests"))
    shutil.rmtree(run.entry.path)
    gone = f"The run {run.entry.path} is no longer in the store: train it again."
    for name in ("history", "logits", "path", "metrics", "config"):
        assert sentence(lambda name=name: getattr(kept, name)()) == gone
