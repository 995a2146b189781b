"""A shipped student: a folder that answers by itself, with a card that says what it is."""

import html
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from refusal import refused, sentence
from tiny import make_task
from transformers import pipeline

from workbench import metrics, reading, students
from workbench.errors import WorkbenchError
from workbench.publish import ship
from workbench.publish.onnx import OnnxClassifier
from workbench.teacher import Author
from workbench.teachers import BagOfWords

pytestmark = pytest.mark.slow
SPLITS = ("calibration", "test", "out_of_scope")
LLAMA, GPT = Author("meta-llama/Llama-3.3-70B-Instruct"), Author("gpt-6", "https://api.openai.com/v1")
LONG = "the cat near a dog and apple " * 3000


def test_the_folder_holds_everything_and_nothing_else_and_a_plain_pipeline_loads_it(made):
    names = {file.name for file in made.folder.iterdir()}
    assert {"README.md", "serve.py", "model.onnx", "model_int8.onnx", "model.safetensors", "tokenizer.json"} <= names
    assert [path.name for path in made.folder.parent.iterdir()] == ["student"]
    assert not [name for name in names if name.endswith((".bin", ".pkl", ".pt"))]
    texts = [*made.task.test["text"][:10], LONG]
    wanted = torch.tensor(reading.predict(*students.load(made.run.path), texts)).softmax(-1).amax(-1)
    found = pipeline("text-classification", str(made.folder))(texts)
    np.testing.assert_allclose([answer["score"] for answer in found], wanted, atol=1e-5)


def test_every_way_to_run_it_decides_like_what_was_judged(made, capsys):
    """The server's `classify`, `OnnxClassifier.classify` and the card's PyTorch: one temperature, one threshold."""
    task, config = made.task, json.loads((made.folder / "config.json").read_text())
    T, limit = config["temperature"], config["refuse_below"]
    logits = {split: reading.predict(*students.load(made.folder), getattr(task, split)["text"][:]) for split in SPLITS}
    assert T == pytest.approx(metrics.fit_temperature(logits["calibration"], task.calibration["label"]), rel=1e-4)
    sure = {split: metrics.softmax(z, T).max(1) for split, z in logits.items()}
    assert limit == pytest.approx(metrics.refusal_threshold(sure["calibration"], 0.8), rel=1e-4)

    texts = [*task.test["text"], *task.out_of_scope["text"], "", LONG]
    for file, atol in (("model.onnx", 1e-3), ("model_int8.onnx", 0.1)):
        found = OnnxClassifier(made.folder / file).classify(texts)
        np.testing.assert_allclose([a["score"] for a in found[:12]], sure["test"], atol=atol)
        assert [a.get("refused") for a in found] == [True if a["score"] < limit else None for a in found]
    assert {True, None} == {a.get("refused") for a in found} and {a["label"] for a in found} <= {*task.label_names}
    program = f"import json, sys\nsys.path.insert(0, {str(made.folder)!r})\nimport serve\n"
    program += "print(json.dumps([serve.classify(json.load(sys.stdin)), serve.classify([])]))"
    run = {"cwd": made.folder.parent, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-B", "-c", program], input=json.dumps(texts), **run)
    served, nothing = json.loads(done.stdout)
    assert nothing == [] and [a["label"] for a in served] == [a["label"] for a in found]
    np.testing.assert_allclose([a["score"] for a in served], [a["score"] for a in found], atol=0.02)  # other batches

    (shown,) = re.findall("```python\n(.+?)```", (made.folder / "README.md").read_text(), re.S)
    assert config["example"] in task.test["text"] and f'["{config["example"]}"]' in shown
    exec(shown.replace("FOLDER", str(made.folder)).replace(f'["{config["example"]}"]', repr(texts[:12])), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    wanted = [a for a in OnnxClassifier(made.folder / "model.onnx").classify(texts[:12])]
    assert [line[::2] for line in lines] == [[a["label"], *["refused"] * ("refused" in a)] for a in wanted]
    np.testing.assert_allclose([float(line[1]) for line in lines], [a["score"] for a in wanted], atol=1e-3)


def test_the_card(made):
    run, task, teacher, card = made.run, made.task, made.teacher, ModelCard.load(made.folder / "README.md")
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
    assert "template" not in card.text and str(made.folder.parent) not in card.text  # it has no groups

    config = json.loads((made.folder / "config.json").read_text())
    for name in ("temperature", "refuse_below"):
        assert f"{config[name]:.4g}" in card.text
    shares = dict(re.findall(r"\| (test|out of scope) \| model_int8.onnx \| (\S+) \|", card.text))
    served = OnnxClassifier(made.folder / "model_int8.onnx")
    for split, share in shares.items():
        answers = served.classify(getattr(task, split.replace(" ", "_"))["text"][:])
        assert float(share) == pytest.approx(np.mean(["refused" in a for a in answers]), abs=6e-4)
    assert len(shares) == 2 and "AUROC" in card.text


def test_classes_that_the_student_surely_breaks_are_left_to_the_teacher(made):
    labels = np.repeat(np.arange(3), 40)
    teacher, student = np.where(np.arange(120) % 40 < 4, (labels + 1) % 3, labels), labels.copy()
    student[:20] = 1  # wrong where the teacher is right, surely
    student[40:42] = 2  # two of forty: chance; and the teacher errs there itself
    found = ship.leave_to_teacher(metrics.flip_table(student, teacher, labels), ("a", "b", "c"))
    assert [row["name"] for row in found] == ["a"] and found[0]["negative"] == 0.4
    assert ship.leave_to_teacher(metrics.flip_table(student, teacher, labels, labels), ("a", "b", "c")) == []
    assert ship.leave_to_teacher(metrics.flip_table(teacher, teacher, labels), ("a", "b", "c")) == []


def test_the_teacher_is_not_asked_again(made, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(BagOfWords, "logits", lambda self, texts: asked.extend(texts))
    again = {"task": made.task, "licence": "mit", "teacher": made.teacher, "store": made.store}
    card = (ship.ship(made.run, tmp_path / "again", **again) / "README.md").read_text()
    assert asked == [] and "| its teacher |" in card and "No answer is refused: calibration has too few" in card


def test_it_is_refused_with_another_task_or_teacher_or_without_terms(made, tmp_path):
    def sent(folder="new", **given):
        given = {"task": made.task, "licence": "mit", "teacher": made.teacher, "store": made.store} | given
        said = sentence(lambda: ship.ship(made.run, tmp_path / folder, **given))
        assert list(tmp_path.glob("new")) == []
        return said

    assert "was not trained on tiny3 as given" in sent(task=make_task(tmp_path, label_draw=1))
    assert "learnt from another teacher (given: none)" in sent(teacher=None)
    assert "learnt from another teacher (given: bag of words)" in sent(teacher=BagOfWords(made.task, 1.0))
    assert "refused is 1.0: give" in sent(refused=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(BagOfWords, "licence")
        assert "terms of teacher bag of words are unknown" in sent()
    (tmp_path / "old").mkdir()
    assert "already there" in sent("old")


TERMS = """## Terms

Of all who wrote part of its labels, its texts or the weights that it starts from. NO ADVICE

- meta-llama/Llama-3.3-70B-Instruct, for a classifier that is passed on: allowed if (name prefix: Llama; notice: Built \
with Llama, and a copy of the licence, where the Llama Materials are part of what is passed on; use policy: Meta's \
Acceptable Use Policy; condition: a licence of one's own above 700 million monthly users at its release), by Licence \
§1.b.i: “If you use the Llama Materials or any outputs or results of the Llama Materials to create, train, fine tune, \
or otherwise improve an AI model, which is distributed or made available, you shall also include “Llama” at the \
beginning of any such AI model name” (https://github.com/meta-llama/llama-models/blob/a9c89c4/models/llama3_1/LICENSE, \
seen 2025-07-15, maker's file @a9c89c4).
- gpt-6, for a classifier that is passed on: forbidden (permission: of OpenAI), by Services Agreement §3.3(e) and the \
definition of a Permitted Exception: “except for a Permitted Exception, use Output to develop artificial intelligence \
models that compete with OpenAI's products and services” and “develop artificial intelligence models primarily \
intended to categorize, classify, or organize data (e.g., embeddings or classifiers), if these models are not \
distributed or made commercially available to third parties” \
(https://github.com/OpenTermsArchive/genai-eu-versions/blob/b0f901f/ChatGPT/Commercial%20Terms.md, text of \
2026-01-01, seen 2026-08-22, archive @b0f901f).
- bag of words, for a classifier that is passed on: allowed, by having no weights of others.

Whoever passes it on has to see to:

- name prefix: Llama
- notice: Built with Llama, and a copy of the licence, where the Llama Materials are part of what is passed on
- use policy: Meta's Acceptable Use Policy
- condition: a licence of one's own above 700 million monthly users at its release
- permission: of OpenAI

## Provenance
"""


def shipped_by(made, home, *wrote):
    """The student of a teacher that is said to be made of others."""
    teacher = BagOfWords(made.task)
    teacher.authors = list(wrote)
    return ship.ship(made.run, home, task=made.task, licence="mit", teacher=teacher, store=made.store)


def test_the_card_holds_the_terms_of_both_teachers_and_what_they_ask_for(made, tmp_path):
    folder = shipped_by(made, tmp_path / "two", LLAMA, GPT)
    card = ModelCard.load(folder / "README.md")
    plain = html.unescape((folder / "README.md").read_text()).replace(ship.NO_ADVICE, "NO ADVICE")
    plain = re.sub(r"; read it again \(old: \d+ days\)", "", plain)
    start = plain.index("## Terms")
    assert plain[start : start + len(TERMS)] == TERMS
    head = card.data.to_dict()
    assert head["base_model"] == [LLAMA.name] and head["base_model_relation"] == "finetune"
    assert "\n# Llama-tiny3: a student" in plain and head["model-index"][0]["name"] == "Llama-tiny3"
    told = json.loads((folder / "config.json").read_text())["authors"]
    assert [one["name"] for one in told] == [LLAMA.name, GPT.name, "bag of words"]
    assert "base_model" not in (made.folder / "README.md").read_text()


class Api:
    """In the place of the hub's."""

    calls: list = []

    def create_repo(self, name, **options):
        self.calls.append(("create", name, options))

    def upload_folder(self, **options):
        self.calls.append(("upload", options["repo_id"], options["folder_path"]))
        return "https://hub/me/student"


def test_nothing_is_pushed_against_terms_that_were_not_accepted(made, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr(Api, "calls", [])
    both = shipped_by(made, tmp_path / "both", LLAMA, GPT)
    with refused("both is not pushed", "(row openai-api)", "forbidden", "pass accept_terms='openai-api'"):
        ship.push_to_hub(both, "me/Llama-student")
    with refused("(row openai-api)"):
        ship.push_to_hub(both, "me/Llama-student", accept_terms=["gpt-6", "llama-3.1"])
    with refused("'me/student' has to begin with 'Llama'"):
        ship.push_to_hub(both, "me/student", accept_terms="openai-api")
    assert Api.calls == []
    assert ship.push_to_hub(both, "me/Llama-student", accept_terms="openai-api") == "https://hub/me/student"
    unknown = shipped_by(made, tmp_path / "unknown", Author("no/body"))
    with refused("(row no/body)", "not known", "pass accept_terms='no/body'"):
        ship.push_to_hub(unknown, "me/student")
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "authors"}))
    with refused("unknown doesn't say who wrote what it learnt from", "ship it again"):
        ship.push_to_hub(unknown, "me/student", accept_terms="no/body")
    assert len(Api.calls) == 2


def test_nothing_is_sent_unless_asked(made, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr(Api, "calls", [])
    assert ship.push_to_hub(made.folder, "me/student") == "https://hub/me/student"
    created = ("create", "me/student", {"private": True, "exist_ok": True})
    assert Api.calls == [created, ("upload", "me/student", made.folder)]
    monkeypatch.setattr(Api, "create_repo", lambda *a, **k: (_ for _ in ()).throw(OSError("401\nlong")))
    with pytest.raises(WorkbenchError, match=r"\(401\): run `hf auth login`"):
        ship.push_to_hub(made.folder, "me/student")
