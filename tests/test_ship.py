"""A shipped student: a folder that answers by itself, over HTTP too, with a card that says what it is."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from tiny import PLAIN, make_task
from transformers import pipeline

from workbench import models, ship
from workbench.errors import WorkbenchError
from workbench.soft_labels import soft_labels
from workbench.store import Store
from workbench.teachers import BagOfWords
from workbench.training import find_run, train
from workbench.verdicts import compare

pytestmark = pytest.mark.slow
LONG = "the cat near a dog and apple " * 3000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def teacher(task):
    return BagOfWords(task)


@pytest.fixture(scope="module")
def run(task, teacher, store):
    config, labels = replace(PLAIN, steps=60, learning_rate=1e-2), soft_labels(teacher, task, store=store)
    for _ in train(task, labels, config, store=store):
        pass
    return find_run(task, labels, config, store)


@pytest.fixture(scope="module")
def shipped(run, task, teacher, store, tmp_path_factory):
    labels = np.array(task.test["label"])
    logits = {"distilled": run.logits(), "teacher": teacher.logits(task.test["text"][:])}
    hits = {name: values.argmax(-1) == labels for name, values in logits.items()}
    table = compare(hits, labels, declared=[("distilled", "teacher")], teacher="teacher")
    folder = tmp_path_factory.mktemp("shipped") / "student"
    return ship.ship(run, folder, task=task, licence="apache-2.0", teacher=teacher, verdicts=table, store=store)


@pytest.fixture
def server(shipped, tmp_path):
    """The example, started as its first line says, from elsewhere."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, shipped / "serve.py", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                break
        assert process.poll() is None
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    process.wait()


def post(address: str, body: bytes):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.loads(opener.open(urllib.request.Request(address, body), timeout=60).read())


def test_the_example_answers_over_http_like_the_student(server, run, task):
    texts = [*task.test["text"][:10], "", LONG]
    wanted = torch.tensor(models.predict(*models.load(run.path), texts)).softmax(-1)
    answers = post(server, json.dumps(texts).encode())
    assert [a["label"] for a in answers] == [task.label_names[i] for i in wanted.argmax(-1)]
    np.testing.assert_allclose([a["score"] for a in answers], wanted.amax(-1), atol=0.05)  # int8
    for body in (b"[]", b"3", b"not JSON"):
        with pytest.raises(urllib.error.HTTPError) as error:
            post(server, body)
        assert error.value.code == 400 and "send a JSON list" in json.loads(error.value.read())["error"]
    assert len(post(server, b'["the cat"]')) == 1


def test_a_plain_pipeline_loads_the_folder(shipped, run, task):
    texts = [*task.test["text"][:10], LONG]
    wanted = torch.tensor(models.predict(*models.load(run.path), texts)).softmax(-1).amax(-1)
    found = pipeline("text-classification", str(shipped))(texts)
    np.testing.assert_allclose([answer["score"] for answer in found], wanted, atol=1e-5)


def test_the_folder_holds_everything_and_nothing_else(shipped):
    names = {file.name for file in shipped.iterdir()}
    assert {"README.md", "serve.py", "model.onnx", "model_int8.onnx", "model.safetensors", "tokenizer.json"} <= names
    assert [path.name for path in shipped.parent.iterdir()] == ["student"]
    assert not [name for name in names if name.endswith((".bin", ".pkl", ".pt"))]


def test_the_card(shipped, run, task, teacher):
    card = ModelCard.load(shipped / "README.md")
    assert card.data.license == "apache-2.0" and card.data.pipeline_tag == "text-classification"
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["accuracy"] == pytest.approx(run.metrics["test.accuracy"], abs=1e-4)
    for fact in (teacher.name, teacher.licence, task.source, run.entry.key, "replaces", *task.label_names):
        assert fact in card.text, fact
    row = re.search(r"\| this student \| (\S+) \| (\S+) \| (\S+) \|", card.text)
    estimate, low, high = map(float, row.groups())
    assert estimate == pytest.approx(run.metrics["test.balanced_accuracy"], abs=6e-4) and low < estimate < high
    logits, labels = run.logits(), np.array(task.test["label"])
    for i, name in enumerate(task.label_names):
        right = (logits.argmax(-1) == labels)[labels == i].mean()
        assert re.search(rf"\| {name} \| {right:.3f} \| [\d.]+ \| [\d.]+ \| {(labels == i).sum()} \|", card.text), name
    assert "was not measured: the data has none" in card.text and str(shipped.parent) not in card.text


def test_it_is_refused_with_another_task_or_teacher_or_without_terms(run, task, teacher, store, tmp_path, shipped):
    def sent(folder="new", **given):
        given = {"task": task, "licence": "mit", "teacher": teacher, "store": store} | given
        with pytest.raises(WorkbenchError) as error:
            ship.ship(run, tmp_path / folder, **given)
        assert list(tmp_path.glob("new")) == [] and "\n" not in str(error.value)
        return str(error.value)

    assert "was not trained on tiny3 as given" in sent(task=make_task(tmp_path, label_draw=1))
    assert "learnt from another teacher (given: none)" in sent(teacher=None)
    assert "learnt from another teacher (given: bag of words)" in sent(teacher=BagOfWords(task, 1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(BagOfWords, "licence")
        assert "terms of teacher bag of words are unknown" in sent()
    (tmp_path / "old").mkdir()
    assert "already there" in sent("old")


def test_nothing_is_sent_unless_asked(shipped, monkeypatch):
    import huggingface_hub

    calls = []

    class Api:
        def create_repo(self, name, **options):
            calls.append(("create", name, options))

        def upload_folder(self, **options):
            calls.append(("upload", options["repo_id"], options["folder_path"]))
            return "https://hub/me/student"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert ship.push_to_hub(shipped, "me/student") == "https://hub/me/student"
    assert calls == [("create", "me/student", {"private": True, "exist_ok": True}), ("upload", "me/student", shipped)]
    monkeypatch.setattr(Api, "create_repo", lambda *a, **k: (_ for _ in ()).throw(OSError("401\nlong")))
    with pytest.raises(WorkbenchError, match=r"\(401\): run `hf auth login`"):
        ship.push_to_hub(shipped, "me/student")
