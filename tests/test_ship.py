"""A shipped student: a folder that answers by itself, with a card that says what it is."""

import re

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from tiny import make_task
from transformers import pipeline

from workbench import reading, students
from workbench.errors import WorkbenchError
from workbench.publish import ship
from workbench.teachers import BagOfWords

pytestmark = pytest.mark.slow
LONG = "the cat near a dog and apple " * 3000


def test_the_folder_holds_everything_and_nothing_else_and_a_plain_pipeline_loads_it(made, task):
    names = {file.name for file in made.folder.iterdir()}
    assert {"README.md", "serve.py", "model.onnx", "model_int8.onnx", "model.safetensors", "tokenizer.json"} <= names
    assert [path.name for path in made.folder.parent.iterdir()] == ["student"]
    assert not [name for name in names if name.endswith((".bin", ".pkl", ".pt"))]
    texts = [*task.test["text"][:10], LONG]
    wanted = torch.tensor(reading.predict(*students.load(made.run.path), texts)).softmax(-1).amax(-1)
    found = pipeline("text-classification", str(made.folder))(texts)
    np.testing.assert_allclose([answer["score"] for answer in found], wanted, atol=1e-5)


def test_the_card(made, task):
    run, teacher, card = made.run, made.teacher, ModelCard.load(made.folder / "README.md")
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
    assert "was not measured: the data has none" in card.text and str(made.folder.parent) not in card.text


def test_it_is_refused_with_another_task_or_teacher_or_without_terms(made, task, tmp_path):
    def sent(folder="new", **given):
        given = {"task": task, "licence": "mit", "teacher": made.teacher, "store": made.store} | given
        with pytest.raises(WorkbenchError) as error:
            ship.ship(made.run, tmp_path / folder, **given)
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


def test_nothing_is_sent_unless_asked(made, monkeypatch):
    calls = []

    class Api:
        def create_repo(self, name, **options):
            calls.append(("create", name, options))

        def upload_folder(self, **options):
            calls.append(("upload", options["repo_id"], options["folder_path"]))
            return "https://hub/me/student"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert ship.push_to_hub(made.folder, "me/student") == "https://hub/me/student"
    created = ("create", "me/student", {"private": True, "exist_ok": True})
    assert calls == [created, ("upload", "me/student", made.folder)]
    monkeypatch.setattr(Api, "create_repo", lambda *a, **k: (_ for _ in ()).throw(OSError("401\nlong")))
    with pytest.raises(WorkbenchError, match=r"\(401\): run `hf auth login`"):
        ship.push_to_hub(made.folder, "me/student")
