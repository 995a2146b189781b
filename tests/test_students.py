"""Students: built the same everywhere, read the same text everywhere, and say what they weigh."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refused
from transformers import BertConfig, BertForSequenceClassification

from workbench import reading, students, weights
from workbench.tasks import Task, load_task

REPO = Path(__file__).resolve().parents[1]
LABELS = ("light", "lock", "music")
LONG = "turn on the light and " * 2000  # 10,000 words
HANGUL = "각 " * 3000  # three letters each once BERT has taken it apart
NOTES = "\U0001d160" * 1000  # normalisation writes each as three characters of four bytes
AWKWARD = ["", "?", "TURN ON THE LIGHT", "cafe\u0301 lights", "\U0001f600 港灯", "a\nb\r\n\tc", HANGUL, NOTES]

# What a fresh process that hashes otherwise samples, learns from texts in another order, and answers.
ELSEWHERE = """
import json, sys
from pathlib import Path
from transformers import pipeline
from workbench import students
from workbench.tasks import load_task

task, home, texts = load_task(), Path(sys.argv[1]), json.load(sys.stdin)
students.build("1x32", ("a", "b"), task.transfer_texts[::-1])[1].save_pretrained(home / "tokenizer")
answers = {name: pipeline("text-classification", str(home / name), top_k=None)(texts) for name in ("small", "cut")}
print(json.dumps([task.fingerprint, answers]))
"""


def seeded(spec: str, label_names=LABELS, texts=(), seed: int = 0, **options):
    torch.manual_seed(seed)
    return students.build(spec, label_names, list(texts), **options)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("voice-commands")


@pytest.fixture(scope="module")
def small(task):
    return seeded("2x64", task.label_names, task.transfer_texts)


@pytest.fixture(scope="module")
def cut(task):
    return seeded("minilm-2", task.label_names)


@pytest.fixture(params=["small", "cut"])
def student(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def saved_bert(tmp_path_factory, small):
    """A folder with a small BERT classifier of two classes, as anyone might have one."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(small[1]),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    small[1].save_pretrained(folder)
    return folder


# The same everywhere


@pytest.mark.slow
def test_another_process_samples_the_same_task_learns_the_same_tokenizer_and_its_pipeline_answers_the_same(
    task, small, cut, tmp_path
):
    texts = [*task.test["text"][:20], *AWKWARD, LONG]
    wanted = {}
    for name, (model, tokenizer) in {"small": small, "cut": cut}.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        wanted[name] = torch.tensor(reading.predict(model, tokenizer, texts, size=4)).softmax(-1).numpy()
    env = {"WORKBENCH_DATA": str(tmp_path / "data"), "PYTHONHASHSEED": "12345", "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    told = {"input": json.dumps(texts), "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=REPO, env=os.environ | env, **told)
    assert done.returncode == 0, done.stderr
    sampled, printed = json.loads(done.stdout)
    assert sampled == task.fingerprint
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "small" / name).read_bytes() == (tmp_path / "tokenizer" / name).read_bytes()
    for name, probabilities in wanted.items():
        found = [{answer["label"]: answer["score"] for answer in of_text} for of_text in printed[name]]
        assert set(found[0]) == set(task.label_names)
        scores = np.array([[of_text[name] for name in task.label_names] for of_text in found])
        np.testing.assert_allclose(scores, probabilities, atol=1e-5)
        assert (scores.argmax(-1) == probabilities.argmax(-1)).all()
        assert probabilities.std(0).max() > 1e-3  # texts differ, so equal answers mean something


def test_saved_and_loaded_it_answers_the_same(student, task, tmp_path):
    model, tokenizer = student
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, their_tokenizer = students.load(tmp_path)
    texts = [*task.test["text"][:20], *AWKWARD, LONG]
    assert reading.encode(their_tokenizer, texts) == reading.encode(tokenizer, texts)
    theirs, ours = (reading.predict(*pair, texts, size=4) for pair in ((loaded, their_tokenizer), student))
    np.testing.assert_allclose(theirs, ours, atol=1e-6)  # mapped files lie otherwise in memory, so sums may round
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert not loaded.training and not list(tmp_path.glob("*.bin"))


def test_the_seed_decides_the_weights(task):
    a, b, c = (seeded("1x32", LABELS, task.transfer_texts, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


# How a text is read


def test_ids_are_framed_and_nothing_is_unknown(small, task):
    tokenizer = small[1]
    rows = reading.encode(tokenizer, [*task.test["text"], *AWKWARD])
    assert all(row[0] == tokenizer.cls_token_id and row[-1] == tokenizer.sep_token_id for row in rows)
    assert not any(tokenizer.unk_token_id in row for row in rows)  # byte-level: every text can be spelt
    assert len(tokenizer) == students.VOCABULARY
    assert tokenizer.decode(rows[0], skip_special_tokens=True).strip() == task.test["text"][0]


@pytest.mark.parametrize("max_length", [16, 128])
def test_a_small_student_reads_the_first_characters(task, max_length):
    tokenizer = seeded("1x32", LABELS, task.transfer_texts, max_length=max_length)[1]
    limit = 4 * max_length
    for text in ("turn on the light and " * 200, "line\n" * 1000, "\U0001f600" * 1000):
        assert reading.encode(tokenizer, [text]) == reading.encode(tokenizer, [text[:limit]])
        assert reading.encode(tokenizer, [text]) != reading.encode(tokenizer, [text[: limit - 1]])
    for text in (LONG, HANGUL, NOTES):  # never cut a second time, which a pipeline would not do
        assert len(tokenizer(text)["input_ids"]) <= tokenizer.model_max_length


def test_a_cut_student_never_runs_out_of_positions(cut):
    model, tokenizer = cut
    assert len(tokenizer("a?" * 5000)["input_ids"]) == model.config.max_position_embeddings  # one token a character
    for text in ("a?" * 5000, HANGUL, NOTES, LONG):
        assert len(tokenizer(text)["input_ids"]) <= model.config.max_position_embeddings
        assert reading.predict(model, tokenizer, [text]).shape == (1, 19)


def test_pad():
    ids, mask = reading.pad([[5, 6, 7], [8]], pad_token_id=1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_batches_hold_every_row_once_and_little_padding():
    rows = [[1] * length for length in (9, 2, 5, 2, 7, 1, 3)]
    seen = []
    for chosen, ids, mask in reading.batches(rows, 0, size=3):
        assert len(chosen) <= 3 and mask.sum(1).tolist() == [len(rows[i]) for i in chosen]
        assert ids.shape[1] == max(len(rows[i]) for i in chosen)
        seen += chosen.tolist()
    assert sorted(seen) == list(range(7)) and [len(rows[i]) for i in seen] == sorted(map(len, rows))


# Predicting


def test_predictions_do_not_depend_on_company_or_order(student, task):
    model, tokenizer = student
    texts = task.test["text"][:60]
    wanted = reading.predict(model, tokenizer, texts)
    assert wanted.shape == (60, 19) and wanted.dtype == np.float32
    order = np.random.default_rng(0).permutation(60)
    shuffled = np.empty_like(wanted)
    shuffled[order] = reading.predict(model, tokenizer, [texts[i] for i in order])
    in_sevens = reading.predict(model, tokenizer, texts, size=7)
    for other in (shuffled, in_sevens, reading.predict(model, tokenizer, texts, size=1)):
        np.testing.assert_allclose(other, wanted, atol=1e-5)
        assert (other.argmax(-1) == wanted.argmax(-1)).all()
    assert np.abs(wanted - wanted[0]).max() > 1e-3  # rows do differ


@pytest.mark.parametrize("spec", ["1x32", "minilm-2"])
def test_predicting_turns_dropout_off_and_the_mode_back(spec, task):
    model, tokenizer = seeded(spec, LABELS, task.transfer_texts, dropout=0.5)
    texts = task.test["text"][:8]
    ids, mask = reading.pad(reading.encode(tokenizer, texts), tokenizer.pad_token_id)

    model.train()
    with torch.no_grad():
        assert not torch.equal(model(ids, mask).logits, model(ids, mask).logits)  # dropout is really there
    while_training = reading.predict(model, tokenizer, texts)
    assert model.training and all(module.training for module in model.modules())
    model.eval()
    np.testing.assert_array_equal(reading.predict(model, tokenizer, texts), while_training)
    assert not model.training


def test_no_texts_are_refused(small):
    with refused("There are no texts to read: give at least one."):
        reading.predict(*small, [])


def test_embeddings_have_length_one_and_ignore_padding(small, task):
    encoder, tokenizer = small[0].base_model, small[1]
    texts = [*task.test["text"][:10], LONG]
    together = reading.embed(encoder, tokenizer, texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, reading.embed(encoder, tokenizer, texts, size=1), atol=1e-5)


# What it weighs


def test_describe_counts(small):
    model, tokenizer = small
    texts = ["on", "turn on the kitchen light please", LONG]
    tokens = len(reading.encode(tokenizer, texts[1:2])[0])  # the median
    width, inner = 64, 128
    layer = width * 3 * width + width * width + width * 2 * inner + inner * width  # qkv, out, gated in, out
    head = width * width + width * 19
    attention = 2 * tokens * tokens * width  # scores and weighted sum
    norms = 7 * width - width  # embeddings, two a layer less the first layer's, final, head
    found = reading.describe(model, tokenizer, texts)
    assert found["parameters"] == 1000 * width + 2 * layer + head + norms + 19
    assert found["bytes"] == 4 * found["parameters"]
    assert found["flops"] == 2 * (2 * (tokens * layer + attention) + head)
    assert reading.describe(model, tokenizer, texts[::-1]) == found


def test_describe_counts_half_precision(task):
    model, tokenizer = seeded("1x32", LABELS, task.transfer_texts)
    whole = reading.describe(model, tokenizer, ["turn on the light"])
    half = reading.describe(model.to(torch.bfloat16), tokenizer, ["turn on the light"])
    assert half == whole | {"bytes": whole["bytes"] // 2}


# Cut from a larger model


def test_a_cut_keeps_the_first_and_last_layers(cut, task):
    whole = seeded("minilm", task.label_names)[0].state_dict()
    kept = {0: 0, 1: 5}
    for name, value in cut[0].state_dict().items():
        if "encoder.layer." in name:
            number = int(name.split("encoder.layer.")[1].split(".")[0])
            source = name.replace(f"encoder.layer.{number}.", f"encoder.layer.{kept.pop(number, number * 5)}.")
            assert torch.equal(value, whole[source]), name
        elif "classifier" not in name:
            assert torch.equal(value, whole[name]), name
    assert not kept and cut[0].config.num_hidden_layers == 2
    assert cut[0].config.id2label == dict(enumerate(task.label_names))


# By path and by name


def test_a_local_classifier_is_a_student(saved_bert, small):
    model, tokenizer = seeded(str(saved_bert), ("no", "yes"), max_length=20)
    original = students.load(saved_bert)[0]
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in model.state_dict().items())
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert tokenizer.model_max_length == 20 and len(reading.encode(tokenizer, [LONG])[0]) == 20


def test_a_local_classifier_gets_a_head_for_other_classes(saved_bert):
    model, tokenizer = seeded(str(saved_bert), LABELS)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert reading.predict(model, tokenizer, ["turn on"]).shape == (1, 3)
    body = students.load(saved_bert)[0].bert.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in model.bert.state_dict().items())


def test_source_fingerprint(saved_bert, tmp_path):
    assert students.source_fingerprint("2x64") == students.source_fingerprint("4x96") == "config"
    assert students.source_fingerprint("minilm-2") == weights.WEIGHTS["all-MiniLM-L6-v2"].sha256
    for file in saved_bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = students.source_fingerprint(str(tmp_path))
    assert before == students.source_fingerprint(str(saved_bert))  # the content counts, not the place
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    assert students.source_fingerprint(str(tmp_path)) != before
