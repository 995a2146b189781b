"""Language models end to end on a tiny teacher: text, labels of every kind, training, meter, evaluation."""

import json
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk
from kills import check_killed
from refusal import refused
from test_training import run

from workbench.language import blocks, causal
from workbench.language import labels as label_store
from workbench.language.blocks import load_text
from workbench.language.causal import LanguageModel, evaluate, layer_importance, load_language_model, prune_depth
from workbench.language.labels import import_labels
from workbench.language.ngrams import ngram_nll
from workbench.losses import forward_kl
from workbench.store import Store
from workbench.training import Job, TrainConfig, train

LENGTH = 24
CONFIG = TrainConfig(
    student="llama-1x32", steps=6, batch_size=4, max_length=LENGTH, eval_every=3, log_every=2, learning_rate=1e-2
)
BY_TEXT = replace(CONFIG, kd_weight=0.0, ce_weight=1.0)


@pytest.fixture(scope="module")
def teacher() -> LanguageModel:
    torch.manual_seed(0)
    model, tokenizer = causal.build_causal("llama-4x32", max_length=LENGTH)
    with torch.no_grad():  # an untrained model hardly prefers any token
        model.get_output_embeddings().weight.mul_(2)
    return LanguageModel("tiny", model.eval(), tokenizer, "tiny teacher")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("texts")
    for i in range(12):
        lines = [
            f"Topic {i} says that {word} number {i * j} is a {word}." for j, word in enumerate("cat dog owl".split())
        ]
        shared = "This very paragraph stands in every single file of the folder."
        (path / f"{i}.txt").write_text("\n\n".join([*lines, shared]))
    return path


@pytest.fixture(scope="module")
def task(folder, teacher, tmp_path_factory):
    return load_text(
        f"folder:{folder}", teacher.tokenizer, length=LENGTH, store=Store(tmp_path_factory.mktemp("store"))
    )


def label(teacher, task, store, kind="hidden", **options):
    return label_store.text_labels(teacher, task, kind, store=store, **options)


@pytest.fixture(scope="module")
def student(teacher) -> LanguageModel:
    model, _ = causal.build_causal("llama-1x32", max_length=LENGTH)
    return LanguageModel("student", model.eval(), teacher.tokenizer, "s")


def told(labels, blocks):
    """What the labels say at the predicted tokens of blocks."""
    return labels.target(labels.find_blocks(blocks))


# Text


def test_topics_and_paragraphs_are_in_one_split_only(task, teacher):
    names = [set(task.topics[s]) for s in blocks.SPLITS]
    assert sum(map(len, names)) == len(set.union(*names)) == 12
    decoded = ["".join(teacher.tokenizer.batch_decode(getattr(task, s))) for s in blocks.SPLITS]
    assert [("very paragraph" in d) for d in decoded] == [False, False, True]  # the test split has it
    assert all(len(getattr(task, s)) == len(task.topics[s]) for s in blocks.SPLITS)


def test_text_is_found_again_and_drawn_by_a_fixed_seed(task, folder, teacher, store):
    again = [load_text(f"folder:{folder}", teacher.tokenizer, length=LENGTH, max_blocks=7, store=store) for _ in "ab"]
    assert again[0].fingerprint == again[1].fingerprint != task.fingerprint
    assert len(again[0].train) == len(again[0].topics["train"]) == 7
    assert replace(task, given=3).fingerprint != task.fingerprint
    docs = load_text("python-docs", teacher.tokenizer, length=64, max_blocks=20, max_held_out=9, store=store)
    assert docs.train.shape == (20, 64) and docs.test.shape == (9, 64) and "sha256" in docs.source
    assert not set(docs.topics["train"]) & set(docs.topics["test"])


def test_refusals_are_one_sentence(folder, teacher, tmp_path, store, task):
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin").mkdir()
    for i in range(4):
        (tmp_path / "latin" / f"{i}.txt").write_bytes(b"\xff\xfe")
    for words, call in {
        "did you mean 'python-docs'": lambda: load_text("python-doc", teacher.tokenizer),
        "no .txt or .md": lambda: load_text(f"folder:{tmp_path / 'empty'}", teacher.tokenizer),
        "not UTF-8": lambda: load_text(f"folder:{tmp_path / 'latin'}", teacher.tokenizer),
        "topic of": lambda: load_text(f"folder:{folder}", teacher.tokenizer, length=4000, store=store),
        "Unknown kind of soft labels 'top'": lambda: label(teacher, task, store, "top"),
        "k is 1000 but": lambda: label(teacher, task, store, "top_k", k=1000),
        "another tokenizer than": lambda: label(teacher, replace(task, tokenizer="other"), store),
        "keep is 5: give a whole number from 1 to 4": lambda: prune_depth(teacher, 5, task, store=store),
        "rule is 'middle'": lambda: prune_depth(teacher, 2, task, rule="middle", store=store),
        "label_smoothing": lambda: list(train(Job(task, None, replace(BY_TEXT, label_smoothing=0.1)), store=store)),
        "1 of 1 blocks have no hidden label": lambda: label(teacher, task, store).find_blocks(task.train[:1] * 0),
    }.items():
        with refused(words):
            call()


# Labels


def logits(teacher, blocks):
    return teacher.logits(np.asarray(blocks))[:, :-1].flatten(0, 1)


def test_hidden_labels_give_the_teachers_logits_back_without_the_teacher(teacher, task, store):
    labels = label(teacher, task, store)
    target = told(labels, task.train[[5, 1]])
    again = target.head.cast(torch.float32).logits(target.hidden)
    exact = logits(teacher, task.train[[5, 1]])
    assert forward_kl(again, exact).max() < 1e-5
    assert labels.bytes_per_token <= 1.02 * 2 * 32 + 16  # headers weigh on so few blocks
    assert labels.rows_labelled and label(teacher, task, store).rows_labelled == 0


def test_too_large_for_float16_is_kept_as_bfloat16(teacher, task, store):
    model, _ = causal.build_causal("llama-1x32", max_length=LENGTH)
    with torch.no_grad():
        model.base_model.norm.weight.mul_(1e5)
    model.config.logit_scale = 1e-5
    loud = LanguageModel("loud", model.eval(), teacher.tokenizer, "loud")
    target = told(label(loud, task, store), task.train[:2])
    assert target.hidden.dtype == torch.bfloat16 and target.hidden.abs().max() > 65504
    assert forward_kl(target.head.cast(torch.float32).logits(target.hidden), logits(loud, task.train[:2])).max() < 1e-3


def test_top_k_and_sampled_labels_tell_the_truth(teacher, task, store):
    log_p = (logits(teacher, task.train[:3]) / 1.5).log_softmax(-1)
    target = told(label(teacher, task, store, "top_k", k=5, temperature=1.5), task.train[:3])
    torch.testing.assert_close(target.log_probs, log_p.topk(5).values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(target.log_tail.exp() + target.log_probs.exp().sum(-1), torch.ones(3 * (LENGTH - 1)))
    target = told(label(teacher, task, store, "sampled", k=400, temperature=1.5), task.train[:3])
    torch.testing.assert_close(target.entropy, -(log_p.exp() * log_p).sum(-1), rtol=1e-3, atol=1e-4)
    seen = torch.zeros_like(log_p).scatter_add_(-1, target.ids, torch.ones(target.ids.shape)) / 400
    assert (seen - log_p.exp()).abs().max() < 0.15


def test_labels_follow_content_not_position(teacher, task, store):
    few = replace(task, train=np.asarray(task.train[4:9]))
    first = told(label(teacher, few, store, "sampled", k=3), task.train[4:6]).ids
    more = label(teacher, replace(task, train=np.asarray(task.train[::-1])), store, "sampled", k=3)
    assert more.rows_labelled == len(np.unique(task.train, axis=0)) - 5  # only the new ones
    assert torch.equal(told(more, task.train[4:6]).ids, first)


def test_text_labels_are_a_task_whose_second_halves_the_teacher_wrote(teacher, task, store):
    labels = label(teacher, task, store, "text", temperature=0.0)
    written = labels.as_task(task)
    half = LENGTH // 2
    assert written.given == half and (written.train[:, :half] == task.train[:, :half]).all()
    greedy = teacher.logits(written.train[:1])[0, half - 1 : -1].argmax(-1)
    assert greedy.tolist() == written.train[0, half:].tolist()
    with refused("tokens to imitate"):
        told(labels, task.train[:1])


def test_export_and_import_round_trip(teacher, task, store, tmp_path):
    labels = label(teacher, task, store, "top_k", k=6)
    rows = load_from_disk(str(labels.export(task, tmp_path / "out")))
    block, ids = np.array(rows[3]["input_ids"]), rows[3]["target_token_ids"]
    assert ids[0] == [] and ids[5][0] == int(teacher.logits(block[None])[0, 4].argmax())  # entry t is about token t
    again = import_labels(tmp_path / "out", task, "vLLM, some model", store=store)
    mine, theirs = (told(x, task.train) for x in (labels, again))
    assert torch.equal(mine.ids, theirs.ids) and torch.equal(mine.log_probs, theirs.log_probs)
    torch.testing.assert_close(mine.log_tail.exp(), theirs.log_tail.exp(), rtol=1e-3, atol=1e-6)
    wrong = rows.map(lambda row: {"target_logprobs": [[-x for x in entry] for entry in row["target_logprobs"]]})
    wrong.save_to_disk(str(tmp_path / "wrong"))
    rows.select(range(3)).save_to_disk(str(tmp_path / "few"))
    rows.rename_column("input_ids", "ids").save_to_disk(str(tmp_path / "named"))
    for name, words in {"wrong": "sum to", "few": "lacks", "named": "no column input_ids", "none": "no folder"}.items():
        with refused(words):
            import_labels(tmp_path / name, task, "x", store=store)


def test_what_the_docs_have_vllm_say_becomes_our_own_labels(teacher, task, store, tmp_path, monkeypatch):
    page = (Path(blocks.__file__).parents[2] / "docs" / "language-models.md").read_text(encoding="utf-8")
    code = page.partition("## A teacher under vLLM")[2].partition("```python\n")[2].partition("```")[0]

    class LLM:
        """Says of each token what vLLM does: the likeliest, and the one that stands there."""

        def __init__(self, model, max_logprobs):
            self.most = max_logprobs

        def generate(self, prompts, how):
            return [SimpleNamespace(prompt_logprobs=[None, *self.said(p["prompt_token_ids"], how)]) for p in prompts]

        def said(self, ids, how):
            assert how.prompt_logprobs <= self.most
            for row, token in zip(logits(teacher, [ids]).log_softmax(-1), ids[1:], strict=True):
                order = row.argsort(descending=True).tolist()
                chosen = dict.fromkeys([token, *order[: how.prompt_logprobs]])
                yield {i: SimpleNamespace(logprob=float(row[i]), rank=1 + order.index(i)) for i in chosen}

    fake = SimpleNamespace(LLM=LLM, SamplingParams=SimpleNamespace)
    monkeypatch.chdir(tmp_path)
    found = {"vllm": fake, "task": task, "Dataset": Dataset, "import_labels": partial(import_labels, store=store)}
    exec(code, found)
    mine, theirs = (told(x, task.train) for x in (label(teacher, task, store, "top_k", k=64), found["labels"]))
    assert torch.equal(mine.ids, theirs.ids)
    torch.testing.assert_close(mine.log_probs, theirs.log_probs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mine.log_tail.exp(), theirs.log_tail.exp(), atol=1e-5, rtol=0)


# Students and training


def test_prune_depth_keeps_the_layers_of_its_rule(teacher, task, store):
    importance = layer_importance(teacher, task.train[:9])
    assert importance.shape == (4,) and (importance > 0).all()
    wanted = {
        "first and last": [[0], [0, 3], [0, 1, 3], [0, 1, 2, 3]],
        "evenly": [[0], [0, 3], [0, 2, 3], [0, 1, 2, 3]],
        "importance": [sorted(np.argsort(-importance)[:n].tolist()) for n in (1, 2, 3, 4)],
    }
    assert wanted.keys() == set(causal.CUTS)
    for rule, chosen in wanted.items():
        assert [causal.kept_layers(teacher, n, rule, task.train[:9]) for n in (1, 2, 3, 4)] == chosen
    for rule in causal.CUTS:
        path = prune_depth(teacher, 2, task, rule=rule, blocks=9, store=store)
        assert json.loads((path.parent / "run.json").read_text())["layers"] == wanted[rule][1]
        student = load_language_model(path)
        assert len(causal.layers_of(student.model)) == 2 and len(causal.layers_of(teacher.model)) == 4
        kept = causal.layers_of(teacher.model)[wanted[rule][1][1]].state_dict()
        for name, value in causal.layers_of(student.model)[1].state_dict().items():
            assert torch.equal(value, kept[name])
    student.model.generate(torch.tensor([[5, 6]]), max_new_tokens=2)  # its cache numbers the layers anew


@pytest.mark.parametrize("kind", ["hidden", "top_k", "sampled", "ce", "text"])
def test_training_lowers_the_loss_and_resumes_to_the_same_student(kind, teacher, task, store):
    if kind == "text":
        task = label(teacher, task, store, kind).as_task(task)
    labels = None if kind in ("ce", "text") else label(teacher, task, store, kind)
    job = Job(task, labels, replace(CONFIG if labels else BY_TEXT, temperature=1.0))
    whole = run(task, labels, job.config, store)
    assert whole.history["loss"].iloc[-1] < whole.history["loss"][0] and whole.history["validation"].notna().any()
    other = Store(store.root / "resumed")
    steps = train(job, store=other)
    next(steps)
    steps.close()
    resumed = run(task, labels, job.config, other)
    assert resumed.history["loss"].equals(whole.history["loss"]) and resumed.metrics == whole.metrics
    a, b = ((r.path / "model.safetensors").read_bytes() for r in (whole, resumed))
    assert a == b


def label_and_train(home, path, task) -> None:
    label_store.SHARD_BLOCKS = 4
    store = Store(home)
    job = Job(task, label(load_language_model(path), task, store), replace(CONFIG, temperature=1.0, steps=20))
    list(train(job, store=store, checkpoint_seconds=0))


@pytest.mark.parametrize("kills", [pytest.param(2, marks=pytest.mark.long), pytest.param(30, marks=pytest.mark.soak)])
@pytest.mark.timeout(3600)
def test_labelling_and_training_killed_at_random_moments_end_as_uninterrupted(teacher, task, tmp_path, kills):
    teacher.model.save_pretrained(tmp_path / "teacher")
    teacher.tokenizer.save_pretrained(tmp_path / "teacher")
    check_killed(label_and_train, tmp_path, kills, tmp_path / "teacher", task)


def test_a_step_does_not_depend_on_its_split(teacher, task, store):
    labels = label(teacher, task, store)
    config = replace(CONFIG, ce_weight=0.5, steps=3)
    whole, parts = (list(train(Job(task, labels, replace(config, accumulation=n)), store=store)) for n in (1, 4))
    assert [r["loss"] for r in parts] == pytest.approx([r["loss"] for r in whole], rel=1e-5)


WORKER = """
import os, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from workbench.language import causal
from workbench.language.fused import Hidden, Head
from workbench.language.lessons import TextDistiller
from workbench.training import TrainConfig

rank, world, port, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.manual_seed(0)
student, tokenizer = causal.build_causal("llama-2x32")
teacher, _ = causal.build_causal("llama-1x32")
ids = torch.randint(3, len(tokenizer), (4, 10))
hidden = torch.randn(4, 9, 32)
config = TrainConfig(loss="jsd", ce_weight=0.3, temperature=2.0)
module = TextDistiller(student, config, len(tokenizer))
if world > 1:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=120))
    mesh = init_device_mesh("cpu", (world,))
    for layer in student.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
mine = slice(rank, rank + 1) if rank == 0 and world > 1 else slice(rank, 4)  # uneven: one block and three
target = Hidden(hidden[mine].flatten(0, 1), Head(teacher.get_output_embeddings().weight.detach()))
loss = module(ids[mine], target, tokens=4 * 9)[0]
loss.backward()
grads = {n: p.grad.full_tensor() if world > 1 else p.grad for n, p in module.named_parameters()}
if rank == 0:
    torch.save(grads, out)
if world > 1:
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.mark.long
def test_two_processes_that_share_the_weights_give_the_gradients_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def start(rank, world, name):
        command = [sys.executable, "-c", WORKER, str(rank), str(world), port, str(tmp_path / name)]
        return subprocess.Popen(command, stderr=subprocess.PIPE)

    processes = [start(0, 2, "two"), start(1, 2, "two"), start(0, 1, "one")]
    for process in processes:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors.decode()[-2000:]
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    assert one.keys() == two.keys() and len(one) > 10
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)


# Meter and evaluation


def test_evaluate_agrees_with_plain_formulas(teacher, student, task):
    table = evaluate(student, task.test[:3], teacher)
    ours, theirs = logits(student, task.test[:3]), logits(teacher, task.test[:3])
    labels = torch.from_numpy(np.asarray(task.test[:3, 1:]).astype(np.int64)).flatten()
    found = causal.summary(table)
    nll = torch.nn.functional.cross_entropy(ours, labels)
    assert found["perplexity"] == pytest.approx(float(nll.exp()), rel=1e-5)
    assert found["kl"] == pytest.approx(float(forward_kl(ours, theirs).mean()), rel=1e-4)
    assert found["agreement"] == pytest.approx(float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()))
    curve = causal.calibration(table)
    assert curve["n"].sum() == len(labels) and 0 <= found["ece"] <= 1
    assert np.average(curve["accuracy"], weights=curve["n"]) == pytest.approx(found["accuracy"])
    same = causal.summary(evaluate(teacher, task.test[:3], teacher))
    assert same["kl"] == pytest.approx(0, abs=1e-6) and same["agreement"] == 1


def test_speed_and_next_tokens(teacher, student, task):
    table = causal.speed([teacher, student], task.test[0], tokens=4, repeats=2)
    assert list(table.index) == ["tiny", "student"] and (table > 0).all().all()
    assert table["cache_bytes"]["tiny"] == 4 * table["cache_bytes"]["student"]
    view = causal.next_tokens([teacher, student], "Topic 1 ", temperature=0.7, top=5)
    assert view.shape == (5, 2) and view["tiny"].is_monotonic_decreasing and view["tiny"].sum() <= 1


def test_a_name_is_completed_where_greedy_writing_would_write_it(teacher, task):
    text = "the os.path.join and --no-color of SomeClass, not of plain words"
    block = np.array(teacher.tokenizer(text)["input_ids"])
    found = causal.complete(teacher, np.stack([block, block]), given=3)
    names = ["os.path.join", "--no-color", "SomeClass"]
    assert list(found["name"]) == 2 * names and list(found["block"]) == 3 * [0] + 3 * [1]
    for name, right in zip(names, found["right"], strict=False):
        start = text.index(name) + 3
        rest = text.index(name) + len(name) - start
        assert right == (causal.write(teacher, block[None, :start], rest)[0] == block[: start + rest]).all()

    class Echo:  # says of each token that what follows is what does
        tokenizer = teacher.tokenizer

        def logits(self, rows):
            ids = torch.from_numpy(np.asarray(rows))
            return torch.nn.functional.one_hot(ids.roll(-1, 1), len(teacher.head)).float()

    assert causal.complete(Echo(), block[None])["right"].all()
    assert causal.complete(teacher, task.test[:0]).empty
    assert causal.complete(Echo(), block[None], given=20).empty  # no name is that long


def test_n_grams_are_those_of_witten_and_bell():
    text, held_out = np.array([[0, 1, 0, 1, 2]]), np.array([[0, 1, 2]])
    # Of one token: 2 of 5 are 1, 1 is 2, and 3 kinds were seen: 3/8 of the mass is the uniform guess's.
    one, two = (2 + 3 / 4) / 8, (1 + 3 / 4) / 8
    assert ngram_nll(text, held_out, 4, order=1) == pytest.approx([-np.log([one, two]).mean()])
    # After 0 comes 1, twice; after 1 came 0 and 2, once each.
    pair = -np.log([(2 + 1 * one) / 3, (1 + 2 * two) / 4]).mean()
    assert ngram_nll(text, held_out, 4, order=2) == pytest.approx([pair])
    rng = np.random.default_rng(0)
    text = rng.integers(0, 5, (6, 20))
    for order in (1, 3):  # what may follow adds up to 1
        rows = np.array([[4, 2, 1, token] for token in range(5)])
        nll = 3 * ngram_nll(text, rows, 5, order) - 2 * ngram_nll(text, rows[:, :3], 5, order)
        assert np.exp(-nll).sum() == pytest.approx(1)
    with refused("ids above 3"):
        ngram_nll(text, held_out, 4)
