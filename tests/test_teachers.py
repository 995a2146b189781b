"""Teachers: fingerprints that follow what decides their scores, columns in the task's order, exact zero-shot scores."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refused
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from tiny import WORDS, make_task, shuffled
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as token_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench import reading, students, teachers, weights
from workbench.language.zero_shot import SMOLLM, ZeroShot
from workbench.soft_labels import soft_labels
from workbench.store import Store
from workbench.tasks import Task, load_task
from workbench.teacher import AtHand, Teacher, authors
from workbench.teachers import load_teacher

TEXTS = ["the cat near a mango", "a saw"]


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory) -> Task:
    """The same rows, other labels seen."""
    return make_task(tmp_path_factory.mktemp("redrawn"), label_draw=1)


def accuracy(teacher, task: Task) -> float:
    return float((teacher.logits(list(task.test["text"])).argmax(-1) == np.array(task.test["label"])).mean())


# --- heads on fixed features


def test_a_bag_of_words_taught_certainties_is_the_one_that_reads_labels(tmp_path):
    task = make_task(tmp_path, labels_per_class=None)  # every text has a label, so both see the same rows
    plain = teachers.BagOfWords(task)
    known = zip(task.labelled["text"], task.labelled["label"], strict=True)
    hard = {text: 100.0 * np.eye(3)[label] for text, label in known}

    class Sure:
        name, label_names, fingerprint = "sure", task.label_names, "sure"

        def logits(self, texts: list[str]) -> np.ndarray:
            return np.stack([hard[text] for text in texts])

    taught = teachers.BagOfWords(task, labels=soft_labels(Sure(), task, store=Store(tmp_path / "store")))
    texts = list(task.test["text"])
    assert softmax(taught.logits(texts), -1) == pytest.approx(softmax(plain.logits(texts), -1), abs=2e-3)


def test_a_bag_of_words_follows_its_soft_labels(task, labels):
    taught = teachers.BagOfWords(task, labels=labels)
    said = labels.logits(task.transfer_texts)
    assert (taught.logits(task.transfer_texts).argmax(-1) == said.argmax(-1)).mean() > 0.9
    assert taught.name != teachers.BagOfWords(task).name
    warm = teachers.BagOfWords(task, labels=labels, temperature=4.0)
    prints = {taught.fingerprint, warm.fingerprint, teachers.BagOfWords(task).fingerprint}
    assert len(prints) == 3 and teachers.BagOfWords(task, labels=labels).fingerprint == taught.fingerprint
    spread = [softmax(t.logits(TEXTS), -1).max(-1).mean() for t in (taught, warm)]
    assert spread[1] < spread[0]
    with refused("temperature is 0: give"):
        teachers.BagOfWords(task, labels=labels, temperature=0)


@pytest.mark.parametrize("name", ["bag-of-words", "minilm-frozen"])
def test_a_head_follows_its_labelled_rows(name, task, redrawn, tmp_path):
    teacher = load_teacher(name, task)
    again = load_teacher(name, task)
    logits = teacher.logits(TEXTS)
    assert logits.shape == (2, 3) and logits.dtype == np.float32
    assert teacher.fingerprint == again.fingerprint and (again.logits(TEXTS) == logits).all()
    assert teacher.label_names == task.label_names

    other = load_teacher(name, redrawn)
    assert other.fingerprint != teacher.fingerprint and (other.logits(TEXTS) != logits).any()
    assert type(teacher)(task, inverse_regularisation=1.0).fingerprint != teacher.fingerprint
    assert accuracy(load_teacher(name, make_task(tmp_path, labels_per_class=None)), task) > 0.7

    size = teacher.describe(TEXTS)
    assert size.keys() == {"parameters", "bytes", "flops"} and min(size.values()) > 0


@pytest.mark.parametrize("name", ["bag-of-words", "minilm-frozen"])
def test_two_classes_have_two_columns(name, tmp_path):
    task = make_task(tmp_path, classes=2)
    teacher = load_teacher(name, task)
    logits = teacher.logits(list(task.test["text"]))
    assert logits.shape == (8, 2) and accuracy(teacher, task) > 0.7
    seen, asked = (_features(teacher, list(split["text"])) for split in (task.labelled, task.test))
    head = LogisticRegression(C=10.0, max_iter=2000).fit(seen, task.labelled["label"])
    np.testing.assert_allclose(softmax(logits, -1), head.predict_proba(asked), atol=1e-6)


def _features(teacher, texts: list[str]):
    if isinstance(teacher, teachers.BagOfWords):
        return teacher.vectoriser.transform(texts)
    return reading.embed(teacher.model, teacher.tokenizer, texts)


def test_a_class_without_a_labelled_row_is_refused(task):
    lacking = replace(task, labelled=task.labelled.filter(lambda row: row["label"] != 1))
    with refused("The labelled rows lack some of the 3 classes: bag of words needs each"):
        load_teacher("bag-of-words", lacking)


# --- several as one, and one with its answers at hand


class Told(Teacher):
    """Says the same of every text; counts what it was asked, and is silent on some."""

    def __init__(self, name: str, p: list[float], silent: Sequence[str] = ()):
        self.name, self.fingerprint, self.licence = name, name, f"licence of {name}"
        self.label_names, self.p, self.silent, self.asked = tuple("abc"), p, silent, []

    def logits(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return np.log(np.tile(self.p, (len(texts), 1))) + 7

    def describe(self, texts: list[str]) -> dict[str, float]:
        return {"parameters": 10, "bytes": 40, "flops": 20}

    def kinds(self, texts: Sequence[str]) -> list[str]:
        return ["refused" if text in self.silent else "answer" for text in texts]


def test_an_ensemble_says_the_mean_of_its_teachers_probabilities():
    one, other = Told("one", [0.8, 0.1, 0.1]), Told("other", [0.2, 0.7, 0.1], silent=TEXTS[:1])
    both = teachers.Ensemble([one, other])
    logits = both.logits(TEXTS)
    assert logits.dtype == np.float32 and logits.shape == (2, 3)
    np.testing.assert_allclose(np.exp(logits), np.tile([0.5, 0.4, 0.1], (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(softmax(teachers.Ensemble([one]).logits(TEXTS), -1)[0], one.p, rtol=1e-5)
    assert both.kinds(TEXTS) == ["refused", "answer"]
    assert both.describe(TEXTS) == {"parameters": 20, "bytes": 80, "flops": 40}
    assert both.name == "2 teachers" and teachers.Ensemble([one], "mine").name == "mine"


def test_an_ensemble_is_who_its_teachers_are_and_comes_under_the_terms_of_each():
    one, other = Told("one", [0.8, 0.1, 0.1]), Told("other", [0.2, 0.7, 0.1])
    made = [[one, other], [one], [other], [one, one, other]]
    prints = {teachers.Ensemble(members).fingerprint for members in made}
    assert len(prints) == 4 and teachers.Ensemble([other, one]).fingerprint in prints
    assert authors(teachers.Ensemble([one, other, one])) == [*authors(one), *authors(other)]
    assert teachers.Ensemble([one, other]).timed
    other.timed = False
    assert not teachers.Ensemble([one, other]).timed
    other.label_names = ("a", "b", "d")
    with refused("other has other classes than one"):
        teachers.Ensemble([one, other])
    with refused("An ensemble has no teachers"):
        teachers.Ensemble([])
    with refused("has no 'logits'"):
        teachers.Ensemble([3])


def test_a_teacher_with_its_answers_at_hand_is_asked_once_a_text():
    one = Told("one", [0.8, 0.1, 0.1], silent=TEXTS[:1])
    quick = AtHand(one, TEXTS)
    assert one.asked == TEXTS
    np.testing.assert_array_equal(quick.logits([*TEXTS[::-1], TEXTS[0]]), one.logits([*TEXTS, TEXTS[0]]))
    one.asked.clear()
    assert quick.logits(["more", TEXTS[0], "more"]).shape == (3, 3) and one.asked == ["more"]
    assert (quick.fingerprint, quick.name, quick.licence) == (one.fingerprint, one.name, one.licence)
    assert authors(quick) == authors(one) and quick.kinds(TEXTS) == one.kinds(TEXTS) and not quick.timed
    assert quick.describe(TEXTS) == one.describe(TEXTS)
    given = AtHand(one, TEXTS, np.eye(3)[:2])
    one.asked.clear()
    assert given.logits(TEXTS).tolist() == np.eye(3)[:2].tolist() and one.asked == []


# --- the best of them


class Guess(Teacher):
    """Right on a share of texts, whatever it was trained on; keeps what it was shown."""

    fingerprint, shown = "guess", []

    def __init__(self, name: str, task: Task, right: dict[str, float]):
        self.label_names, self.share, self.task = task.label_names, right[name], task
        self.truth = dict(zip(task.test["text"], task.test["label"], strict=True))
        Guess.shown.append((name, task))

    def logits(self, texts: list[str]) -> np.ndarray:
        order = np.arange(len(texts)) < self.share * len(texts)
        return np.eye(3)[[(self.truth[text] + 1 - good) % 3 for text, good in zip(texts, order, strict=True)]]


@pytest.fixture
def guesses(monkeypatch, task):
    """Teachers of a known share right in place of the real ones; given the shares, chooses."""

    def choose(right: dict[str, float], task: Task, store: Store):
        with monkeypatch.context() as patch:
            patch.setattr(teachers, "_fast", lambda name, part, store: Guess(name, part, right))
            table = teachers.candidates(task, store=store)
        monkeypatch.setattr(teachers, "_finetuned", lambda *given: "fine-tuned")
        return table, load_teacher("auto", task, store=store)

    Guess.shown = []
    return choose


RIGHT = {"bag-of-words": 0.5, "minilm-frozen": 1.0, "minilm-finetuned": 1.0}


def test_auto_is_the_cheapest_of_the_best_and_is_not_tried_again(task, guesses, tmp_path):
    table, chosen = guesses(RIGHT, task, Store(tmp_path))
    assert list(table) == ["teacher", "accuracy", "low", "high", "seconds"]
    assert table["accuracy"].tolist() == pytest.approx([2 / 3, 1, 1]) and chosen.name == "frozen MiniLM"
    assert table.set_index("teacher").loc["bag-of-words", ["low", "high"]].between(0, 1).all()
    assert guesses(RIGHT, task, Store(tmp_path / "other"))[0]["accuracy"].equals(table["accuracy"])
    tried = len(Guess.shown)
    again, _ = guesses({}, shuffled(task), Store(tmp_path))
    assert again.equals(table) and len(Guess.shown) == tried, "other labels than those of the labelled rows were read"
    assert guesses(RIGHT | {"minilm-frozen": 0.5}, task, Store(tmp_path / "third"))[1] == "fine-tuned"


def test_what_is_judged_was_not_trained_on_and_every_class_was(task, guesses, tmp_path):
    guesses(RIGHT, task, Store(tmp_path))
    judged = [text for name, part in Guess.shown if name == "bag-of-words" for text in part.test["text"]]
    assert sorted(judged) == sorted(task.labelled["text"])
    for _, part in Guess.shown:
        assert not set(part.labelled["text"]) & set(part.test["text"]) and set(part.labelled["label"]) == {0, 1, 2}
        assert part.validation is part.test and part.calibration is part.test and not len(part.unlabelled)


def test_classes_of_one_labelled_row_are_not_judged(task, guesses, tmp_path):
    labels = np.array(task.labelled["label"])
    lone = [*np.flatnonzero(labels != 1), np.flatnonzero(labels == 1)[0]]
    guesses(RIGHT, replace(task, labelled=task.labelled.select(lone)), Store(tmp_path))
    assert all(1 not in part.test["label"] and 1 in part.labelled["label"] for _, part in Guess.shown)
    one = replace(task, labelled=task.labelled.select(np.unique(labels, return_index=True)[1]))
    table, chosen = guesses({}, one, Store(tmp_path))
    assert table["accuracy"].isna().all() and chosen.name == "frozen MiniLM"


def test_long_work_is_cut_to_a_fold_and_then_left_out(task, guesses, tmp_path, monkeypatch):
    tokens = np.mean([len(text) for text in task.labelled["text"]]) / 4
    work = 100 * (teachers.FINETUNE.batch_size * tokens + teachers.A_STEP)
    monkeypatch.setattr(teachers, "WORK", 1.5 * work)
    guesses(RIGHT, task, Store(tmp_path / "one"))
    assert [name for name, _ in Guess.shown] == list(teachers.CANDIDATES)
    monkeypatch.setattr(teachers, "WORK", 0.5 * work)
    table, _ = guesses(RIGHT, task, Store(tmp_path / "none"))
    assert table["accuracy"].isna().tolist() == [False, False, True]


def test_a_teacher_of_ones_own(task, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "class Mine:\n    fingerprint = '1'\n    def __init__(self, task): self.label_names = task.label_names\n"
        "    def logits(self, texts): return [[len(t), 0, 1] for t in texts]\ndef teacher(task): return Mine(task)\n"
    )
    teacher = load_teacher(f"python:{file}", task)
    assert soft_labels(teacher, task, store=Store(tmp_path)).logits(task.transfer_texts).shape == (36, 3)
    assert (teacher.name, teacher.licence, teacher.timed) == ("your teacher", "", True)
    assert np.isnan([*teacher.describe(TEXTS).values()]).all() and teacher.answered(task) is task
    assert load_teacher(teacher, task) is teacher
    with refused("check the path after 'python:'"):
        load_teacher("python:nowhere.py", task)
    file.write_text("")
    with refused("mine.py defines no teacher: write a function teacher(task)"):
        load_teacher(f"python:{file}", task)
    with refused("has no 'label_names'"):
        load_teacher(type("Half", (), {"logits": None})(), task)


# --- classifiers


@pytest.mark.slow
def test_fine_tuning_is_a_run_found_again(task, redrawn, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "FINETUNE", replace(teachers.FINETUNE, student="minilm-1", steps=2))
    monkeypatch.setattr(teachers, "FINETUNE_STEPS", teachers.Epochs(1, 2, 2))
    store = Store(tmp_path)
    teacher = load_teacher("minilm-finetuned", task, store=store)
    assert teacher.logits(TEXTS).shape == (2, 3) and teacher.name == "fine-tuned MiniLM"
    again = load_teacher("minilm-finetuned", task, store=store)
    assert again.fingerprint == teacher.fingerprint and (again.logits(TEXTS) == teacher.logits(TEXTS)).all()
    assert len(store.list("runs")) == 1
    other = load_teacher("minilm-finetuned", redrawn, store=store)
    assert other.fingerprint != teacher.fingerprint and len(store.list("runs")) == 2
    blind = load_teacher("minilm-finetuned", shuffled(task), store=store)
    assert len(store.list("runs")) == 3, "its key covers the splits that its scores are of"
    assert (blind.logits(TEXTS) == teacher.logits(TEXTS)).all(), "a label of validation or calibration was read"


def test_steps_of_fine_tuning_follow_the_labelled_rows(task):
    base = teachers.FINETUNE
    rows = {n: replace(task, labelled=task.labelled.select(np.arange(n) % 9)) for n in (9, 95, 400, 5000)}
    assert [teachers.finetune(t).steps for t in rows.values()] == [100, 100, 400, 1500]
    assert teachers.finetune(rows[95]) == base
    assert teachers.finetune(rows[5000], replace(base, steps=3000)).steps == 3000


def save_classifier(folder: Path, label_names: tuple[str, ...]) -> str:
    torch.manual_seed(0)
    model, tokenizer = students.build("1x16", label_names, [word for words in WORDS.values() for word in words])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_local_classifier_is_put_in_the_tasks_order(task, tmp_path):
    """Classes are matched by name, whatever their case and order; one the task does not have is left out."""
    assert task.label_names == ("animal", "fruit", "tool")
    folder = save_classifier(tmp_path, ("Tool", "animal", "vehicle", "FRUIT"))
    teacher = load_teacher(folder, task)
    raw = reading.predict(*students.load(folder), TEXTS)
    assert (teacher.logits(TEXTS) == raw[:, [1, 3, 0]]).all()
    assert load_teacher(folder, task).fingerprint == teacher.fingerprint
    fewer = replace(task, label_names=("animal", "tool"))
    assert load_teacher(folder, fewer).fingerprint != teacher.fingerprint


def test_classes_that_differ_only_by_case_are_told_apart_or_refused(task, tmp_path):
    folder = save_classifier(tmp_path / "own", ("Tool", "tool", "animal", "FRUIT"))
    both = replace(task, label_names=("tool", "Tool", "fruit"))
    raw = reading.predict(*students.load(folder), TEXTS)
    assert (load_teacher(folder, both).logits(TEXTS) == raw[:, [1, 0, 3]]).all()
    with refused(folder, "has 'Tool', 'tool' for class 'TOOL'", "id2label"):
        load_teacher(folder, replace(task, label_names=("TOOL", "animal", "fruit")))
    with refused(folder, "has 'FRUIT' for class 'fruit'"):
        load_teacher(folder, replace(task, label_names=("fruit", "Fruit", "animal")))
    with refused(folder, "has 'animal' for class 'ANIMAL'"):
        load_teacher(folder, replace(task, label_names=("animal", "ANIMAL", "fruit")))


def test_classes_that_are_not_the_tasks_are_refused(task, tmp_path):
    folder = save_classifier(tmp_path, ("animal", "fruits", "tool"))
    with refused(folder, "has no class 'fruit'", "'animal', 'fruits', 'tool'", "id2label"):
        load_teacher(folder, task)


def test_unknown_teachers(task):
    with refused("Unknown teacher 'minilm-finetund': did you mean 'minilm-finetuned'?"):
        load_teacher("minilm-finetund", task)
    with refused("'nobody/no-such-model'"):
        load_teacher("nobody/no-such-model", task)


# --- a language model choosing among class names


def save_language_model(folder: Path) -> Path:
    """Random weights: without training no two positions or classes look alike by luck."""
    backend = Tokenizer(token_models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        ["animal fruit tool Classify the text as one of"],
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=300, num_key_value_heads=2, initializer_range=0.3, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@torch.inference_mode()
def one_by_one(teacher: ZeroShot, text: str) -> np.ndarray:
    """Mean log-probability a token of each class name after the prompt: the plain model, one sequence at a time."""
    tokenizer, scores = teacher.tokenizer, []
    for name in teacher.label_names:
        prompt = tokenizer(teacher.start)["input_ids"] + tokenizer(f"{text}\nLabel:")["input_ids"]
        answer = tokenizer(" " + name)["input_ids"]
        logits = teacher.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        scores.append(float(logits.log_softmax(-1)[range(len(answer)), answer].mean()))
    return np.array(scores)


def check_scores(teacher: ZeroShot, texts: list[str], atol: float) -> None:
    logits = teacher.logits(texts)
    wanted = np.stack([one_by_one(teacher, text) for text in texts]) - one_by_one(teacher, "N/A")
    assert np.ptp(wanted, axis=0).min() > 10 * atol, "the texts do not differ enough to tell a mistake"
    np.testing.assert_allclose(logits, wanted, atol=atol)
    np.testing.assert_allclose(teacher.logits(texts, size=1), logits, atol=atol)  # without padding
    np.testing.assert_allclose(teacher.logits(texts[::-1])[::-1], logits, atol=atol)


def test_one_pass_scores_as_the_plain_model_does_class_by_class(task, tmp_path):
    teacher = ZeroShot("random", save_language_model(tmp_path), task, "none")
    lengths = [len(branch) for branch in teacher._branches]
    assert len(set(lengths)) > 1, "class names of one length would hide a wrong mean"
    check_scores(teacher, ["the cat near a mango", "a saw", "x", "a much longer text " * 5], atol=1e-4)
    again = ZeroShot("random", tmp_path, replace(task, label_names=("animal", "fruit", "vehicle")), "none")
    assert again.fingerprint != teacher.fingerprint


@pytest.mark.long
def test_the_language_model_scores_voice_commands_exactly():
    task = load_task("voice-commands")
    teacher = load_teacher("smollm2-zero-shot", task)
    assert teacher.licence == weights.WEIGHTS[SMOLLM].licence
    check_scores(teacher, ["turn on the lights in the living room please", "pause"], atol=1e-3)
