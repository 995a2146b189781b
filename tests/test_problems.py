"""Problems, their traces, and a verifier that rejects whatever is not true."""

import random
import sys

import pytest
from refusal import refused

from workbench.language.problems import (
    MARK,
    SPLITS,
    Problem,
    TraceTask,
    final_answer,
    novel,
    problems,
    summarised,
    trace_view,
    verify,
)

FAMILIES = ("sums", "reduce")
SUM = Problem("sums", 3, "21+43+65:", "102", "210+43=640;640+65=201")  # 12 + 34 + 56 = 102
NESTED = Problem("reduce", 3, "((3+4)-(2+9)):", "6", "(7-(2+9));(7-1);6")


def corruptions(rng: random.Random, text: str) -> set[str]:
    """A true completion with one damage each: to a sign, to a step, or cut short."""
    at, sign = rng.randrange(len(text)), rng.choice("0123456789+-=;#() ")
    head, _, answer = text.partition(MARK)
    steps = head.split(";")
    i = rng.randrange(len(steps))
    damaged = (steps[:i] + steps[i + 1 :], steps[: i + 1] + steps[i:], steps[::-1])  # a step lost, twice, out of place
    made = {text[:at] + text[at + n :] for n in (1, len(text))} | {text[:at] + sign + text[at + n :] for n in (0, 1)}
    return (made | {";".join(each) + MARK + answer for each in damaged}) - {text}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_true_trace_is_accepted_and_every_corruption_rejected(family):
    rng = random.Random(0)
    found = problems(family, [2, 3, 4, 5], 250)
    assert len(found) == 1000
    for p in found:
        question = p.prompt.rstrip(":")  # read by Python's own arithmetic
        true = sum(int(t[::-1]) for t in question.split("+")) if family == "sums" else eval(question) % 10
        assert int(p.answer) == true and len(p.trace.split(";")) == p.difficulty - (family == "sums")
        assert verify(p, p.completion).verified
        assert [text for text in corruptions(rng, p.completion) if verify(p, text).verified] == []


@pytest.mark.parametrize(
    ("problem", "text", "verdict", "first_wrong"),
    [
        (SUM, "210+43=640;640+65=201#102", "verified", None),
        (SUM, "210+43=640;640+65=211#102", "right answer, wrong step", 1),
        (SUM, "210+43=740;740+65=211#102", "right answer, wrong step", 0),
        (SUM, "#102", "right answer, wrong step", 0),
        (SUM, "210+43=640#102", "right answer, wrong step", 1),  # one step missing
        (SUM, "430+21=640;640+65=201#102", "right answer, wrong step", 0),  # true, but not the steps asked for
        (SUM, "210+43=640;640+65=201;#102", "right answer, wrong step", 2),
        (SUM, "210+43=640;640+65=201#1020", "wrong answer", None),  # no zero may hang on
        (SUM, "210+43=640;640+65=201#102 ", "wrong answer", None),
        (SUM, "210+43=640;640+65=201#102#102", "wrong answer", None),
        (SUM, "210+43=640;640+65=201", "no answer", None),
        (SUM, "", "no answer", 0),
        (NESTED, "(7-(2+9));(7-1);6#6", "verified", None),
        (NESTED, "((3+4)-1);(7-1);6#6", "verified", None),  # any innermost bracket may come first
        (NESTED, "(7-1);6#6", "right answer, wrong step", 0),  # two at once
        (NESTED, "(7-(2+9));(7-1)#6", "right answer, wrong step", 2),
        (NESTED, "(7-(2+9));(7-1);6;6#6", "right answer, wrong step", 3),
        (NESTED, "(7-(2+9));(7-2);5#5", "wrong answer", 1),
    ],
)
def test_what_a_completion_is_worth(problem, text, verdict, first_wrong):
    found = verify(problem, text)
    assert (found.verdict, found.first_wrong) == (verdict, first_wrong)
    assert found.answer_right == (verdict in ("verified", "right answer, wrong step"))


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_share_no_prompt_and_a_seed_repeats(family):
    splits = {s: {p.prompt for p in problems(family, [2, 3], 60, split=s, seed=int(s == "test"))} for s in SPLITS}
    assert len(set().union(*splits.values())) == 360
    assert problems(family, [3], 20) == problems(family, [3], 20)
    assert problems(family, [3], 20) != problems(family, [3], 20, seed=1)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: problems("sum", [2], 5), "Unknown family 'sum': did you mean 'sums'?"),
        (lambda: problems("gym:chain_sums", [2], 5), "did you mean 'chain_sum'?"),
        (lambda: problems("web:gsm8k", [2], 5), "Unknown family 'web:gsm8k'"),
        (lambda: problems("sums", [2], 5, split="tests"), "Unknown split 'tests': did you mean 'test'?"),
        (lambda: problems("reduce", [1], 500, split="test"), "ask for fewer"),
        (lambda: trace_view([SUM], {"teacher": []}), "teacher wrote 0 completions of 1 problems"),
        (lambda: TraceTask("t", ("a",), (), (("a", "b"),)), "t has 1 prompts and 0 completions"),
        (lambda: TraceTask("t", ("a",), ("b",), ()), "t has no rows"),
        (lambda: TraceTask("t", ("a",), ("",), (("a", "b"),)), "t has an empty prompt or completion"),
    ],
)
def test_bad_input_is_one_sentence(call, told):
    with refused(told):
        call()


WORDED = Problem("hub:openai/gsm8k", 2, "How much?", "1200", "6*200 = 1200\n###")


@pytest.mark.parametrize(
    ("text", "answer", "verdict"),
    [
        (WORDED.completion, "1200", "verified"),
        ("<think>hm</think>\\boxed{\\$1,200.00}", "\\$1,200.00", "verified"),  # compared as numbers
        ("600 + 600 = <<600+600=1200>>1200\n#### 1200", "1200", "verified"),
        ("<think>\nperhaps \\boxed{3}\n</think>\nIt is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}", "wrong answer"),
        ("### Step 1\nall of it: \\boxed{120}", "120", "wrong answer"),
        ("#42", "42", "wrong answer"),
        ("<think>\nperhaps \\boxed{1200}", None, "no answer"),
        ("1200", None, "no answer"),
    ],
)
def test_the_final_answer_of_a_worded_completion(text, answer, verdict):
    assert final_answer(text) == answer and verify(WORDED, text).verdict == verdict


THOUGHT = "<think>\n600 and 600.\n</think>\n\nTwo of 600 make \\boxed{1200}."


@pytest.mark.parametrize(
    ("family", "text", "short"),
    [
        ("sums", "210+15=360;360+02=380#83", "360;380#83"),
        ("sums", "210+15=360#63", "360#63"),
        ("reduce", "((3+4)-(2+9));(7-(2+9));(7-1);6#6", "(7-(2+9));6#6"),
        ("reduce", "6#6", "6#6"),
        ("hub:openai/gsm8k", THOUGHT, "Two of 600 make \\boxed{1200}."),
        ("gym:chain_sum", "one\ntwo\nthree\nso 4\n", "two\nso 4"),
    ],
)
def test_a_summary_leaves_out_the_work_and_keeps_the_answer(family, text, short):
    assert summarised(text, family) == short


def test_a_lesson_s_terms_in_another_order_are_no_new_problem():
    taught, asked = ([Problem("sums", 3, prompt, "1") for prompt in prompts] for prompts in (
        ["21+15+02:", "11+11+12:"], ["15+02+21:", "11+12+12:", "21+15+02+02:"]
    ))  # fmt: skip
    assert novel(asked, taught) == [False, True, True]
    assert novel([NESTED], [NESTED]) == [True]


def test_reasoning_gym_stands_behind_the_same_interface():
    pytest.importorskip("reasoning_gym", reason="an extra: pip install -e '.[reasoning]'")
    found = [p for k in (2, 3) for p in problems("gym:chain_sum", [k], 5)]
    assert [p.difficulty for p in found] == [2] * 5 + [3] * 5
    assert all(p.prompt.count("+") + p.prompt.count(" - ") >= p.difficulty - 1 for p in found)
    for p in found:
        assert verify(p, p.completion).verified and p.trace is None
        assert verify(p, f"{p.answer} or so").verdict == "no answer"
        assert verify(p, f"#{p.answer} or so").verdict == "wrong answer"  # a score of 0.2 is not 1
    assert not {p.prompt for p in found} & {p.prompt for p in problems("gym:chain_sum", [2, 3], 5, split="test")}


def test_without_reasoning_gym_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with refused("pip install -e '.[reasoning]'"):
        problems("gym:chain_sum", [2], 1)


def test_the_trace_view_marks_the_first_wrong_step_in_words():
    view = trace_view([SUM], {"teacher": [SUM.completion], "<student>": ["210+43=740;740+65=211#211"]})
    page = view._repr_html_()
    assert page.count("✗ <s><code>210+43=740</code></s> wrong step 1") == 1
    assert "&lt;student&gt;" in page and "<student>" not in page
    assert page.count("✓") == 2  # the teacher's answer, and the caption
    assert "[wrong answer, step 1]" in repr(view) and "[verified]" in repr(view)
    missing = trace_view([SUM], {"student": ["#102"]})._repr_html_()
    assert "✗ missing step 1" in missing and "right answer, wrong step" in missing
    assert "no answer" in trace_view([SUM], {"student": [""]})._repr_html_()
    worded = trace_view([WORDED], {"student": ["two\nand two\n#5"]})._repr_html_()
    assert "<code>two</code><br><code>and two</code>" in worded and "answer <code>5</code> ✗" in worded


def test_the_panel_s_table_marks_the_first_wrong_line():
    texts = ["210+43=640;640+65=201#102", "210+43=640;640+65=301#102", "210+43=640;640+65=201#101", "#102", ""]
    table = trace_view([SUM] * 5, {"a": texts}).frame()
    assert list(table["a first wrong"].fillna(-1)) == [-1, 1, 2, 0, 0]
    assert table["a"][1] == ["210+43=640", "640+65=301", "answer: 102"]
    assert table["a"][4] == ["(missing)", "answer: none"]
    (row,) = trace_view([WORDED], {"a": ["two\nand two\n#5"]}).frame().to_dict("records")
    assert row["a"] == ["two", "and two", "#5", "answer: 5"] and row["a first wrong"] == 3
