"""A contest: arms alike in all but what they are taught, everyone asked once, and what is read off their answers."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from refusal import refused
from tiny import PLAIN

from workbench import contest, metrics
from workbench.gates import before
from workbench.hosted.next_purchase import FACTORS, fit
from workbench.soft_labels import soft_labels
from workbench.speed import WARM_UP, measure, timed_texts
from workbench.sweeps import jobs, run_all
from workbench.teacher import Teacher
from workbench.teachers import BagOfWords
from workbench.training import AUTO, Job, auto_steps
from workbench.verdicts import Results, arm_estimates, by_slice


class Counting(Teacher):
    """A bag of words that says how many texts it was asked."""

    def __init__(self, task, timed=True):
        self.inside, self.asked, self.timed = BagOfWords(task), 0, timed
        self.label_names, self.fingerprint, self.name = task.label_names, "counting", "counting"

    def logits(self, texts):
        self.asked += len(texts)
        return self.inside.logits(texts)


def test_arms_differ_in_what_teaches_them_and_take_one_number_of_steps(task):
    arms = contest.arms(replace(PLAIN, steps=AUTO), task)
    assert [*arms] == ["distilled", "hard pseudo-labels", "labels only"]
    distilled, hard, alone = arms.values()
    assert distilled == replace(PLAIN, steps=auto_steps(task, replace(PLAIN, steps=AUTO)))
    assert replace(hard, loss=distilled.loss) == distilled and hard.loss == "hard_labels"
    assert replace(alone, kd_weight=distilled.kd_weight, ce_weight=distilled.ce_weight) == distilled
    assert (alone.kd_weight, alone.ce_weight) == (0, 1)


def test_contestants_answer_once_and_as_often_as_they_have_seeds(task, labels, store):
    runs = run_all(jobs({"distilled": PLAIN, "few": PLAIN}, task, labels, [0, 1]), workers=1, store=store)
    runs = runs.drop(index=3)  # a seed of "few"
    teacher = Counting(task)
    models = contest.contestants(runs, task, labels, teacher)
    assert {arm: len(of) for arm, of in models.items()} == {
        "distilled": 2, "few": 1, "bag of words": 1, "distilled bag of words": 2, "teacher": 1,
    }  # fmt: skip
    texts = list(task.test["text"])
    said = contest.ask(models, task, texts, store=store)
    assert {z.shape[1:] for z in said.values()} == {(len(texts), len(task.label_names))}
    np.testing.assert_allclose(said["distilled"][1], runs["run"][1].logits("test"), atol=1e-5)
    assert (said["distilled bag of words"][0] == said["distilled bag of words"][1]).all()
    assert [*contest.ask(models, task, texts, ["teacher"], store=store)] == ["teacher"]
    assert teacher.asked == len(texts)


def test_the_student_to_ship_is_the_closest_to_its_teacher_whatever_the_labels(task, labels, store):
    runs = run_all(jobs({"distilled": PLAIN}, task, labels, [0, 1, 2]), workers=1, store=store)["run"].to_list()
    for i, run in enumerate(runs):
        assert contest.closest(runs, run.logits("validation")) <= i  # itself, or an earlier one that says the same
        assert metrics.agreement(runs[contest.closest(runs, run.logits("validation"))].logits("validation"),
                                 run.logits("validation")) == 1  # fmt: skip


def test_refused_is_a_mean_over_templates_of_what_lies_below_each_threshold():
    sure = {"a": np.array([[0.1, 0.1, 0.9, 0.4], [0.9, 0.9, 0.9, 0.9]])}
    table = contest.refused(sure, {"a": np.array([0.5, 0.5])}, ["x", "x", "y", "z"])
    assert table.loc["a", "estimate"] == pytest.approx((2 / 3 + 0) / 2)  # seeds: two of three templates, none
    assert table.loc["a", "low"] <= table.loc["a", "estimate"] <= table.loc["a", "high"]


def test_beside_counts_what_two_models_say_of_the_same_texts():
    truth = [0, 0, 1, 1]
    student, teacher = np.eye(2)[[0, 1, 1, 0]], np.eye(2)[[0, 0, 0, 0]]
    table = contest.beside(student, teacher, truth)["estimate"]
    assert table.tolist() == [0.5, 0.25, 0.25]
    shares = metrics.negative_flips(student, teacher, truth)
    assert (table["used to work and now fail"], table["failed and now work"]) == shares
    assert metrics.agreement(student, teacher) == table["agreement with the teacher"]


def test_within_and_estimates_are_by_slice_taken_apart():
    rng = np.random.default_rng(0)
    results = Results({"a": rng.random((2, 60)) < 0.7}, np.arange(60) % 3)
    cut = metrics.slices(np.arange(60), 4)
    parts = contest.within(results, cut)
    assert [len(found.labels) for found in parts.values()] == [15] * 4
    pd.testing.assert_frame_equal(contest.estimates(parts)[by_slice(results, cut).columns], by_slice(results, cut))
    assert parts[cut.categories[0]].labels.tolist() == (np.arange(15) % 3).tolist()


def test_varied_runs_are_rows_that_a_law_can_be_fitted_to(task, store):
    few, teacher, wide = task.smaller(len(task.labelled) + 6), BagOfWords(task), replace(PLAIN, student="1x32")
    kinds = [(task, teacher, PLAIN), (few, teacher, PLAIN), (task, teacher, wide)]
    table = contest.varied(kinds, [0, 1], workers=1, store=store)
    assert {*FACTORS, "accuracy"} <= {*table} and set(table["by"]) == {"bag of words"}
    assert table["texts"].tolist() == [len(on.transfer_texts) for on, *_ in kinds for _ in (0, 1)]
    assert table["student"].tolist() == ["1x16"] * 4 + ["1x32"] * 2
    assert (table["labels"] == 9).all()
    assert table["parameters"].drop_duplicates().tolist() == [8675, 8499, 22979]  # fewer texts, fewer tokens
    truth, groups = (np.array(task.test[column][:]) for column in ("label", "group"))
    alone = store.list("runs")
    again = jobs({"distilled": PLAIN}, few, soft_labels(teacher, few, store=store), [0, 1])
    runs = run_all(again, workers=1, store=store)["run"]
    assert store.list("runs") == alone  # they are runs like any other
    said = {"teacher": teacher.logits(task.test["text"][:])} | {i: run.logits("test") for i, run in enumerate(runs)}
    right = arm_estimates(Results.of(said, truth, groups)).set_index("arm")["estimate"]
    assert table["accuracy"][2:4].tolist() == pytest.approx([right[0], right[1]])
    assert table["teacher"].tolist() == pytest.approx([right["teacher"]] * 6)
    with refused("3 kinds of runs vary 2"):
        fit(table)


def test_weigh_times_who_may_be_timed_and_says_beforehand_how_many_texts(task):
    texts, free, paid = list(task.test["text"]), Counting(task), Counting(task, timed=False)
    table = contest.weigh({"free": free, "paid": paid, "bag": BagOfWords(task)}, texts, repeats=2)
    assert free.asked == timed_texts(2) == (2 + WARM_UP) * 65
    assert paid.asked == 0 and math.isnan(table.loc["paid", "p50_ms"])
    assert (table.loc[["free", "bag"], ["p50_ms", "p95_ms", "rows_per_second"]] > 0).all(axis=None)
    assert table.loc["bag", "bytes"] > 0 and math.isnan(table.loc["free", "bytes"])
    assert contest.weigh({"paid": paid}, texts).loc["paid", ["p50_ms", "bytes"]].isna().all()
    measure({"free": free.logits}, texts, repeats=3, batch_size=8)
    assert free.asked == timed_texts(2) + timed_texts(3, 8)


def test_what_stands_before_an_answer_is_every_gate_in_order(task):
    rows = arm_estimates(Results({a: hits for a, hits in zip(
        ["distilled", "labels only", "teacher", "bag of words"],
        [[0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0]], strict=True)}, [0, 0, 1, 1]))  # fmt: skip
    config = replace(PLAIN, steps=2, batch_size=8)
    said = before(rows, ["bag of words"], np.zeros((100, 4)), config)
    starts = ["The teacher scores", "The distilled student scores", "The teacher is near", "The student takes 2"]
    assert [line.startswith(start) for line, start in zip(said, starts, strict=True)] == [True] * 4
    assert before(rows.assign(estimate=0.5), ["bag of words"], 9 * np.eye(16), config) == []
    assert Job(task, None, config).config.steps == 2
