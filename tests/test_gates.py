"""Gates: a page never leads with a gain that is a loss."""

import random
import warnings

import numpy as np
import pandas as pd
import pytest
from refusal import refused

from workbench import gates, teachers
from workbench.publish import notebook as nb_
from workbench.publish import report
from workbench.teacher import Teacher


def table(**scores: float) -> pd.DataFrame:
    rows = {"estimate": scores, "low": {a: s - 0.04 for a, s in scores.items()}}
    rows |= {"high": {a: s + 0.04 for a, s in scores.items()}}
    return pd.DataFrame(rows).rename_axis("arm").reset_index()


GUESS, SURE = np.zeros((10, 20)), 9 * np.eye(20)
TEACHER = table(teacher=0.42, bag=0.55, probe=0.5)
CASES = [
    (gates.weak_teacher(TEACHER, ["bag", "probe"]), r"scores 42\.0 % \(38\.0 to 46\.0\).* below bag .* 55\.0 %"),
    (gates.weak_teacher(table(teacher=0.6, bag=0.55), ["bag"]), None),
    (gates.lost(table(**{"distilled": 0.24, "labels only": 0.46})), r"24\.0 % .*below .* labels only, 46\.0 % .*don't"),
    (gates.lost(table(**{"distilled": 0.46, "labels only": 0.46})), None),
    (gates.short(150, 32, 8000), r"150 steps of 32 texts, 0\.60 of one pass over 8,000: .* 250 steps"),
    (gates.short(250, 32, 8000), None),
    (gates.flat(GUESS), r"first choice of 20 classes gets 5\.0 %, where 5\.0 %"),
    (gates.flat(SURE), None),
    (gates.spare_labels(7948, 385, table(bag=0.891), "bag"), r"7,948 labels, .* 385 .* 89\.1 % .* most 10\.9 points"),
    (gates.spare_labels(385, 385, table(bag=0.891), "bag"), None),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), CASES)
def test_a_gate_says_what_is_wrong_with_its_numbers_and_what_to_do_or_nothing(said, expected):
    assert len(said) == (expected is not None)
    for sentence in said:
        assert pd.Series([sentence]).str.contains(expected, regex=True).all(), sentence
        assert sentence.endswith(".") and ": " in sentence


@pytest.mark.parametrize(
    ("estimates", "low", "expected"),
    [
        ((0.1, 0.02), 0.01, "distilled student beats labels only and bag: it is the one"),
        ((0.1, 0.02), -0.01, "not told apart from labels only and bag, which costs less"),
        ((0.1, -0.02), 0.01, "Use bag instead"),
    ],
)
def test_advice_names_the_winner(estimates, low, expected):
    verdicts = pd.DataFrame({"arm": "distilled", "baseline": ["labels only", "bag"], "estimate": estimates, "low": low})
    assert expected in gates.advice(verdicts, ["labels only", "bag"])
    with refused("Unknown rival 'bags': did you mean 'bag'"):
        gates.advice(verdicts, ["bags"])


def test_an_arm_that_is_not_there_is_named():
    with refused("Unknown arm 'techer': did you mean 'teacher'"):
        gates.weak_teacher(TEACHER, ["bag"], "techer")


def test_gates_stand_before_the_answer_wherever_it_is_shown():
    shown = report.answer("The student wins.", gates=["The teacher loses."])
    assert "teacher loses" in shown.content["text"].split("The student wins.")[0]
    assert "Before you read on" not in report.answer("The student wins.").content["text"]


class Wrong(Teacher):
    """Says the next class of every text; counts how often it is asked, and what."""

    name, fingerprint = "wrong teacher", "wrong"

    def __init__(self, label_names: tuple[str, ...]):
        self.label_names, self.asked = label_names, []

    def logits(self, texts: list[str]) -> np.ndarray:
        self.asked.append(list(texts))
        said = [(int(text.split()[0].removeprefix("word")) // 10 + 1) % 3 for text in texts]
        return 5 * np.eye(3, dtype=np.float32)[said]


@pytest.mark.long
def test_the_overview_of_a_bad_teacher_says_so_first_and_asks_it_once(tmp_path, monkeypatch, capsys):
    rng = random.Random(0)
    lines = [f"word{10 * c + rng.randrange(9)} is said with number {i},c{c}" for i in range(40) for c in range(3)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *lines]))
    teacher = Wrong(("c0", "c1", "c2"))
    load = "workbench.teachers.load_teacher"
    real = teachers.load_teacher
    monkeypatch.setattr(load, lambda name, task: teacher if name == "mine" else real(name, task))
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    nb = nb_.load(report.NOTEBOOKS / "00_overview.ipynb")
    values = dict(budget="quick", task_name=f"csv:{tmp_path}/mine.csv", teacher_name="mine", labels_per_class=None)
    values |= dict(student="1x16", steps=60, seeds=2, repeats=2, threads=1)
    space, shown = {}, None
    for cell in [cell for cell in nb.cells if cell.cell_type == "code"]:
        code, _, last = cell.source.rpartition("\nanswer(")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(code + f"\nshown = answer({last}" if code else cell.source, space)  # noqa: S102
        if "parameters" in cell.metadata.get("tags", []):
            space |= values
        shown = space.get("shown") if code else shown
    text = shown.content["text"]
    before, _, after = text.partition("**Then:**")
    assert "The teacher scores 0.0 %" in before and "below bag of words" in before
    assert "below the same model trained on labels only" in before
    assert "120 labels" not in after and "all there are" in after and "Use labels only instead" in after
    asked = [texts for texts in teacher.asked if len(texts) > 1]
    once = sorted(text for texts in asked[:2] for text in texts)  # the transfer set, then test
    assert len(once) == len(set(once))
    told = capsys.readouterr().out
    timed = sum(map(len, teacher.asked)) - len(once)
    assert f"The teacher will be asked {len(once):,} texts, and {timed:,} more to take its time" in told
