"""Answers as a teacher: golden distributions, what is counted and not mapped, and one sentence for each bad file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from refusal import refused
from scipy.special import softmax
from tiny import make_task

from workbench.answers import SURE, Answers
from workbench.errors import WorkbenchError
from workbench.soft_labels import soft_labels
from workbench.teachers import BagOfWords, load_teacher

NAMES = ("animal", "fruit", "tool")


def write(folder, rows: list[dict], name: str = "replies.jsonl"):
    path = folder / name
    if name.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        import pandas as pd

        pd.DataFrame(rows).to_csv(path, index=False)
    return path


def said(folder, task, **row) -> np.ndarray:
    """The probabilities that one row gives."""
    path = write(folder, [{"text": "a saw", "answer": "tool", **row}])
    return softmax(Answers(path, task).logits(["a saw"])[0].astype(float))


@pytest.mark.parametrize("name", ["replies.jsonl", "replies.csv"])
def test_answers_are_a_teacher_asked_once(name, task, tmp_path):
    words = BagOfWords(task)
    asked = task.transfer_texts
    right = words.logits(asked).argmax(-1)
    path = write(tmp_path, [{"text": t, "answer": NAMES[c].upper()} for t, c in zip(asked, right, strict=True)], name)
    teacher = load_teacher(f"answers:{path}", task)
    labels = soft_labels(teacher, task)
    assert (labels.logits(asked).argmax(-1) == right).all() and labels.rows_labelled == len(set(asked))
    assert soft_labels(load_teacher(f"answers:{path}", task), task).rows_labelled == 0
    with path.open("a") as more:
        more.write('{"text": "new", "answer": "tool"}\n' if name.endswith("jsonl") else "new,tool\n")
    assert load_teacher(f"answers:{path}", task).fingerprint != teacher.fingerprint


def test_golden_distributions(task, tmp_path):
    log = {name: float(np.log(p)) for name, p in {"tool": 0.6, "fruit": 0.2, " The": 0.1}.items()}
    cases = [
        ({}, [(1 - SURE) / 2, (1 - SURE) / 2, SURE]),
        ({"probabilities": {"tool": 0.7, "Fruit": 0.2, "animal": 0.1}}, [0.1, 0.2, 0.7]),
        ({"probabilities": json.dumps({"tool": 1.0})}, [0, 0, 1]),
        ({"logprobs": log}, [0.1 / 0.9, 0.2 / 0.9, 0.6 / 0.9]),  # a tenth is no class's, a tenth is left over
        ({"logprobs": {"tool": np.log(0.5), "fruit": np.log(0.3), "animal": np.log(0.1)}}, [1 / 9, 3 / 9, 5 / 9]),
    ]
    for row, wanted in cases:
        assert said(tmp_path, task, **row) == pytest.approx(wanted, abs=1e-5), row


def test_unknown_answers_are_counted_and_no_answer(task, tmp_path):
    rows = [{"text": "a saw", "answer": "tool"}, {"text": "a cat", "answer": "pet"}, {"text": "an ox", "answer": "pet"}]
    teacher = Answers(write(tmp_path, rows), task)
    assert teacher.unknown == {"pet": 2}
    with pytest.raises(WorkbenchError, match="answers 1 of 3 texts, not 'a cat'; 2 of its answers .* such as 'pet'"):
        teacher.logits([row["text"] for row in rows])


def test_a_task_is_cut_to_what_is_answered_and_says_so(task, tmp_path):
    texts = [*task.labelled["text"], *task.unlabelled["text"][:10], *task.test["text"][1:]]
    teacher = Answers(write(tmp_path, [{"text": text, "answer": "tool"} for text in texts]), task)
    assert teacher.has([texts[0], "a cat"]).tolist() == [True, False] and not teacher.timed
    counts = f"to 1 of {len(task.test)} test, 17 of 27 unlabelled, .* texts \\(\\d+ not in the file\\): left out"
    with pytest.warns(UserWarning, match=counts):
        cut = teacher.answered(task)
    assert teacher.answered(task, ["labelled"]) is task
    assert cut.transfer_texts == texts[:19] and cut.test["text"][:] == task.test["text"][1:]
    assert soft_labels(teacher, cut).logits(cut.transfer_texts).shape == (19, 3)
    with refused("none of the 9 labelled texts of tiny3 has an answer (1 answered with no class, 8 not in the file)"):
        Answers(write(tmp_path, [{"text": texts[0], "answer": "pet"}]), task).answered(task)


GOOD = {"text": "a saw", "answer": "tool"}
BAD = {
    "half the texts": ([GOOD], "answers 0 of 1 texts, not 'a cat': add answers"),
    "one text twice": ([GOOD, {**GOOD, "answer": "fruit"}], "line 2 answers 'a saw' unlike an earlier row"),
    "no answer": ([{"text": "a saw"}], "line 1: 'answer' is None: give a text and its answer"),
    "a number for a text": ([{"text": 5, "answer": "tool"}], "line 1: 'text' is 5"),
    "a sum below 1": ([{**GOOD, "probabilities": {"tool": 0.5, "fruit": 0.2}}], "sum to 0.7: give those of all"),
    "a sum above 1": ([{**GOOD, "probabilities": {"tool": 0.9, "fruit": 0.2}}], "no distribution, their sum is 1.1"),
    "logprobs above 0": ([{**GOOD, "logprobs": {"tool": 3}}], "logprobs are no distribution"),
    "a negative share": ([{**GOOD, "probabilities": {"tool": 1.2, "fruit": -0.2}}], "are no distribution"),
    "not a number": ([{**GOOD, "probabilities": {"tool": float("nan")}}], "are no distribution"),
    "another class": ([{**GOOD, "probabilities": {"tool": 0.9, "pet": 0.1}}], "'pet', which is no class of the task"),
    "only other tokens": ([{**GOOD, "logprobs": {" The": -0.1}}], "give nothing to any class"),
    "a list": ([{**GOOD, "probabilities": [0.1, 0.9]}], "give a JSON object"),
    "words": ([{**GOOD, "probabilities": "high"}], "give a JSON object"),
    "both": ([{**GOOD, "probabilities": {"tool": 1}, "logprobs": {"tool": 0}}], "give one of them"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_rows(what, task, tmp_path):
    rows, sentence = BAD[what]
    with refused(sentence):
        Answers(write(tmp_path, rows), task).logits(["a cat"])


FILES = {
    "no file": (None, "a.csv", "check the path after 'answers:'"),
    "no column": (b"text,label\na,b\n", "a.csv", "has no column 'answer'; it has 'text', 'label'"),
    "nothing": (b"", "a.csv", "is not a well-formed CSV"),
    "not UTF-8": (b"text,answer\n\xff\xfe,tool\n", "a.csv", "is not UTF-8"),
    "not packed": (b"text,answer\na,b\n", "a.csv.gz", "give one whole CSV or JSONL"),
    "no JSON": (b"text,answer\n", "a.jsonl", "line 1 is no JSON object"),
    "a JSON list": (b"[1]\n", "a.jsonl", "line 1 is no JSON object"),
}


@pytest.mark.parametrize("what", FILES)
def test_bad_files(what, task, tmp_path):
    content, name, sentence = FILES[what]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with refused(sentence):
        load_teacher(f"answers:{tmp_path / name}", task)


def test_classes_that_differ_only_by_case_are_told_apart(task, tmp_path):
    cased = replace(task, label_names=("Tool", "tool", "fruit"))
    rows = [{"text": str(i), "answer": answer} for i, answer in enumerate(("tool", "Tool ", "FRUIT", "TOOL"))]
    teacher = Answers(write(tmp_path, rows), cased)
    assert teacher.logits(["0", "1", "2"]).argmax(-1).tolist() == [1, 0, 2]
    assert teacher.unknown == {"TOOL": 1} and teacher.kinds(["3", "4"]) == ["answered with no class", "not in the file"]


def test_another_task_reads_it_by_its_own_classes(task, tmp_path):
    path = write(tmp_path, [GOOD])
    two = make_task(tmp_path, classes=2)
    assert Answers(path, two).unknown == {"tool": 1}
    assert Answers(path, two).fingerprint != Answers(path, task).fingerprint
