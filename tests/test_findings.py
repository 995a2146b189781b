"""Sentences made of a figure's numbers: they say what the numbers say, and no more."""

import numpy as np
import pandas as pd
import pytest
from test_figures import make_estimates, make_verdicts

from workbench.show import findings

GAIN = pd.DataFrame([("distilled", "labels only", 0.0512, 0.03, 0.07, "BEATS"),
                     ("distilled", "teacher", -0.0104, -0.03, 0.01, "INCONCLUSIVE")],
                    columns=["arm", "baseline", "estimate", "low", "high", "verdict"])  # fmt: skip
OPEN = "Distillation isn't shown to add to labels only (+5.1 points); −1.0 against its teacher"


@pytest.mark.parametrize(("verdict", "said"), [
    ("BEATS", "Distillation adds 5.1 points to labels only; −1.0 against its teacher"),
    ("WORSE", "Distillation loses 5.1 points against labels only; −1.0 against its teacher"),
    ("EQUIVALENT", "Distillation adds nothing to labels only; −1.0 against its teacher"),
    ("INCONCLUSIVE", OPEN),
    ("no verdict (smoke run)", OPEN),
])  # fmt: skip
def test_what_distillation_adds_is_said_as_it_was_decided(verdict, said):
    assert findings.of_arms(make_estimates(["distilled"]), GAIN.assign(verdict=[verdict, "INCONCLUSIVE"])) == said


def test_other_arms_are_ranked_and_a_difference_that_is_not_shown_is_said():
    estimates = make_estimates(["a", "b"])
    assert findings.of_arms(estimates, None) == "Highest: b 90.0 %; lowest: a 60.0 %"
    open_ = make_verdicts([("b", "a")]).assign(verdict="INCONCLUSIVE")
    assert findings.of_arms(estimates, open_) == "No difference is shown: b 90.0 %, a 60.0 %"
    assert findings.of_arms(estimates[:1], None) == "a 60.0 %"
    assert findings.of_differences(open_) == "None of 1 differences is shown"
    assert findings.of_differences(GAIN) == "1 of 2 differences are shown, the largest +5.1 points"


def test_costs_and_flips_and_trades():
    table = pd.DataFrame({"factor": "loss", "level": ["jsd", "tvd", "kl"], "estimate": [0, -0.02, -0.03],
                          "low": [np.nan, -0.03, -0.1], "high": [np.nan, -0.01, 0.1]})  # fmt: skip
    assert findings.of_costs(table) == "Told from zero: loss = tvd (−2.0 points)"
    assert findings.of_costs(table[:1]) == "No choice makes a difference that is told from zero"
    flips = pd.DataFrame({"negative": [0.0, 0.02], "positive": [0.1, 0.0]})
    assert findings.of_flips(flips) == "1.0 % get worse with the student, 5.0 % better (mean over classes)"
    offers = pd.DataFrame({"name": ["teacher", "distilled"], "accuracy": [0.8, 0.9], "latency_ms": [26.2, 5.1]})
    assert findings.of_trade(offers) == "Highest: distilled 90.0 % in 5.1 ms; teacher 80.0 % in 26 ms"


def test_a_decision_a_gap_and_savings_are_told_with_their_worst():
    row = {"estimate": 0.007, "low": -0.0274, "high": 0.042, "decided": "NOT SHOWN TO REPLACE"}
    lost = "At worst −2.7 points, 2 may be lost: "
    assert findings.of_decision(row, 0.02) == f"{lost}it isn't shown that it can take over"
    smoke = row | {"decided": "NO DECISION (smoke run)"}
    assert findings.of_decision(smoke, 0.02) == f"{lost}no decision"
    gap = {"estimate": 1.07, "low": 0.82, "high": 1.444}
    assert findings.of_gap(gap) == "distilled goes 107 % of the way from labels only to teacher (82 to 144)"
    assert "no gap to close" in findings.of_gap(gap | {"low": -np.inf, "high": np.inf})
    times = pd.Series({"bytes": 149.8, "p50_ms": 5.39, "rows_per_second": 23.2}, name="student")
    assert findings.of_savings(times) == "student: 1/150 of the size, 1/5.4 of the latency, 23 times the throughput"
    assert findings.of_savings(times.where(times > 23)) == "student: 1/150 of the size, 23 times the throughput"
    assert findings.of_savings(times * np.nan) == "What the teacher takes isn't known"


def test_money_says_from_when_on_it_pays_and_what_that_hangs_on():
    costs = pd.DataFrame({"arm": ["teacher"] * 3 + ["distilled"] * 3, "requests_per_month": [1e4, 1e6, 1e8] * 2,
                          "dollars": [1.0] * 3 + [10, 0.1, 0.01]})  # fmt: skip
    assert findings.of_break_even(costs) == "distilled costs less than the teacher from 100,000 requests per month on"
    dear, cheap = (costs.assign(dollars=costs["dollars"] * by) for by in ([1] * 3 + [1000] * 3, [1] * 3 + [0.01] * 3))
    assert findings.of_break_even(dear) == "distilled never costs less than the teacher"
    assert findings.of_break_even(cheap).endswith("from 10,000 requests per month on")
    assert findings.of_break_even(costs[3:]) == "distilled costs 0.01 to 10 dollars per 1,000 requests"
    swings = pd.DataFrame({"input": ["the price", "x"], "low": [0.1625, 1], "high": [0.65, 2],
                           "at_low": [np.inf, 3], "at_high": [6.94, 4]})  # fmt: skip
    assert findings.of_tornado(swings, "months") == "Most depends on the price: never at 0.163, 6.94 at 0.65 (months)"


def test_one_or_many_of_what_is_named():
    assert findings.of_perplexities({"teacher": 4.58, "a": 9.456, "b": 15}) == "Lowest: a 9.46; highest: b 15"
    assert findings.of_perplexities({"teacher": 4.58}) == "Lowest: teacher 4.58"
    assert findings.of_curves({}) == "No step that all seeds reached"
    assert findings.of_curves({"a": 50.0}) == "At the last step: a 50.0 %"
    assert findings.of_temperature({2.0: 40.0}) == "The first text's top class has 40 % at T = 2"
    both = findings.of_confidence({"a": 16.4, "b": 3.0}, None)
    assert both == "The confidence of a is off by 16.4 points, of b by 3.0"
    after = findings.of_confidence({"a": 16.4}, {"a": 4.1})
    assert after == "One temperature takes the calibration error of a from 16.4 to 4.1 %"
    assert findings.of_similarity(np.full((2, 2), np.nan), ["a", "b"]) == "No class is confused with another"
    assert findings.of_similarity(np.array([[np.nan, 0.25], [0.1, np.nan]]), ["a", "b"]) == "Of “a”, 25 % goes to “b”"
    slices = {"Length": pd.DataFrame({"arm": ["teacher", "distilled"] * 2, "slice": ["1–5", "1–5", "6", "6"],
                                      "estimate": [0.1, 0.9, 0.8, 0.56]})}  # fmt: skip
    assert findings.of_slices(slices) == "distilled is weakest, at 56 %, in the slice 6 of “Length”"
    assert findings.of_cell("jsd", "temperature", 4.0, 90.94) == "Best: jsd at temperature 4, 90.9 %"
    assert findings.of_cell("hard_labels", "temperature", None, 88.0) == "Best: hard_labels, 88.0 %"
