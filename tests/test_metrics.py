"""Metrics against golden values, scikit-learn, and each other."""

import re
import socket

import numpy as np
import pytest
import refusal
from refusal import refused
from sklearn import metrics as sk

from workbench import metrics

STUDENT, TEACHER = [[1.0, 0.5, -1.0, 0.0]], [[2.0, 0.0, -1.0, 0.5]]


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    truth = 2 * np.eye(6)[labels]  # a sixth class that never occurs
    teacher, student = (truth + rng.normal(size=truth.shape) * noise for noise in (1.0, 1.5))
    groups = labels * 10 + rng.integers(0, 7, 400)
    return {"labels": labels, "teacher": teacher, "student": student, "groups": groups}


def test_golden_softmax_nll_and_mean_kl_of_teacher_to_student():
    assert metrics.softmax([[1e4, 0.0]])[0] == pytest.approx([1, 0])
    assert metrics.softmax([[2.0, 0.0]], 2.0)[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert metrics.nll(STUDENT, [0]) == pytest.approx(0.74656727, abs=1e-8)
    for temperature, golden in ((1, 0.14548918), (2, 0.04340530), (4, 0.01068249)):
        assert metrics.mean_kl(STUDENT, TEACHER, temperature) == pytest.approx(golden, abs=1e-8)
        assert metrics.mean_kl(TEACHER, TEACHER, temperature) == 0


def test_against_scikit_learn(data):
    labels, probabilities = data["labels"], metrics.softmax(data["student"])
    predicted = probabilities.argmax(1)
    assert (predicted == 5).any(), "the class absent from labels must be predicted somewhere"
    assert metrics.accuracy(data["student"], labels) == pytest.approx(sk.accuracy_score(labels, predicted))
    present = sk.f1_score(labels, predicted, average="macro", labels=np.unique(labels))
    assert metrics.macro_f1(data["student"], labels) == pytest.approx(present)
    log_loss = sk.log_loss(labels, probabilities, labels=range(6))
    assert metrics.nll(data["student"], labels) == pytest.approx(log_loss)
    squares = (probabilities - np.eye(6)[labels]) ** 2
    assert metrics.brier(probabilities, labels) == pytest.approx(squares.sum(1).mean())
    single = np.arange(400)
    assert metrics.balanced_accuracy(data["student"], labels, single) == pytest.approx(
        sk.recall_score(labels, predicted, average="macro", labels=np.unique(labels))
    )


def test_item_weights_make_the_balanced_mean():
    labels = np.array([0, 0, 0, 0, 1, 7])
    groups = ["a", "a", "a", ("b", 1), "c", "c2"]
    weights = metrics.item_weights(labels, groups)
    assert weights.sum() == pytest.approx(1)
    assert weights == pytest.approx([1 / 18] * 3 + [1 / 6] + [1 / 3] * 2)
    # class 0: templates 2/3 and 0; class 1: 1; class 7: 0
    assert metrics.balanced_accuracy([0, 0, 1, 1, 1, 0], labels, groups) == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert metrics.item_weights(labels) == pytest.approx([1 / 12] * 4 + [1 / 3] * 2)


def test_flips_and_copied_errors():
    labels, teacher, student = [0, 1, 2, 2, 1], [0, 1, 0, 0, 0], [0, 2, 0, 1, 1]
    assert metrics.negative_flips(student, teacher, labels) == pytest.approx((1 / 5, 1 / 5))
    assert metrics.copied_errors(student, teacher, labels) == pytest.approx(1 / 3)
    assert np.isnan(metrics.copied_errors(student, labels, labels))
    table = metrics.flip_table(student, teacher, labels)
    assert table["label"].tolist() == [1, 0, 2]
    assert table["negative"].tolist() == [0.5, 0, 0] and table["positive"].tolist() == [0.5, 0, 0]
    assert ((table["low"] <= table["negative"]) & (table["negative"] < table["high"])).all()


def test_flips_add_up_to_the_difference_in_accuracy(data):
    student, teacher, labels = data["student"], data["teacher"], data["labels"]
    negative, positive = metrics.negative_flips(student, teacher, labels)
    gap = metrics.accuracy(student, labels) - metrics.accuracy(teacher, labels)
    assert negative > 0 and positive - negative == pytest.approx(gap)
    # items as their own templates and classes of one size: the table's mean is the rate
    labels = np.repeat([0, 1, 2, 3], 100)
    table = metrics.flip_table(student, teacher, labels)
    assert table["negative"].mean() == pytest.approx(metrics.negative_flips(student, teacher, labels)[0])


def test_flip_interval_is_wilson_with_templates_as_unit():
    labels, groups = np.zeros(40, int), np.repeat(np.arange(10), 4)
    student = np.where(groups < 3, 1, 0)
    row = metrics.flip_table(student, labels, labels, groups).iloc[0]
    assert (row["negative"], row["n_templates"], row["n_items"]) == (pytest.approx(0.3), 10, 40)
    assert (row["low"], row["high"]) == (pytest.approx(0.1078, abs=1e-4), pytest.approx(0.6032, abs=1e-4))


def test_flips_of_several_seeds_are_means(data):
    seeds = np.stack([data["student"], data["teacher"]])  # the second never flips
    one, both = (metrics.flip_table(z, data["teacher"], data["labels"], data["groups"]).set_index("label")
                 for z in (data["student"], seeds))  # fmt: skip
    assert both["negative"].sort_index().tolist() == pytest.approx((one["negative"] / 2).sort_index().tolist())
    assert metrics.flip_table(seeds[:1], data["teacher"], data["labels"], data["groups"]).set_index("label").equals(one)


def test_confusions_by_hand():
    labels = [0, 0, 0, 0, 1, 1]
    table = metrics.confusions([1, 1, 2, 0, 0, 1], labels)
    assert table.to_dict("list") == {
        "label": [0, 1, 0], "predicted": [1, 0, 2], "share": [0.5, 0.5, 0.25], "example": [0, 4, 2]
    }  # fmt: skip
    # Two seeds: the first errs on items 0 and 1, the second on 1 alone, which is the better example.
    seeds = np.eye(3)[[[1, 1, 0, 0, 1, 1], [0, 1, 0, 0, 1, 1]]]
    assert metrics.confusions(seeds, labels).to_dict("records") == [
        {"label": 0, "predicted": 1, "share": 3 / 8, "example": 1}
    ]
    assert metrics.confusions(labels, labels).empty
    beside = metrics.confusions([1, 1, 2, 0, 0, 1], labels, teacher=[1, 0, 0, 0, 1, 2])
    assert beside["teacher_share"].tolist() == [0.25, 0, 0]  # of 0 as 1, 1 as 0, 0 as 2
    assert beside.drop(columns="teacher_share").equals(table)


def test_confusions_are_those_of_scikit_learn(data):
    matrix = sk.confusion_matrix(data["labels"], data["student"].argmax(1))
    table = metrics.confusions(data["student"], data["labels"])
    ours = np.zeros_like(matrix, float)
    ours[table["label"], table["predicted"]] = table["share"]
    assert ours == pytest.approx(matrix * ~np.eye(6, dtype=bool) / np.maximum(matrix.sum(1, keepdims=True), 1))
    wrong = data["student"].argmax(1)[table["example"]]
    assert (data["labels"][table["example"]] == table["label"]).all() and (wrong == table["predicted"]).all()


def test_disagreements_name_the_flips(data):
    labels, teacher = [0, 0, 1, 2, 1], [0, 1, 1, 2, 0]
    seeds = np.eye(3)[[[0, 0, 2, 2, 2], [1, 0, 2, 2, 0]]]
    table = metrics.disagreements(seeds, teacher, labels)
    assert table[["item", "teacher", "student", "share"]].to_numpy().tolist() == [
        [1, 1, 0, 1], [2, 1, 2, 1], [0, 0, 1, 0.5], [4, 0, 2, 0.5]
    ]  # fmt: skip
    assert table["kind"].tolist() == ["positive flip", "negative flip", "negative flip", "both wrong"]
    table = metrics.disagreements(data["student"], data["teacher"], data["labels"])
    assert 1 - len(table) / 400 == pytest.approx(metrics.agreement(data["student"], data["teacher"]))
    rates = [(table["kind"] == f"{sign} flip").sum() / 400 for sign in ("negative", "positive")]
    assert rates == pytest.approx(metrics.negative_flips(data["student"], data["teacher"], data["labels"]))
    assert metrics.disagreements(labels, labels, labels).empty


def test_disagreements_show_one_item_of_a_template_and_kind():
    labels, teacher, student = [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0]
    table = metrics.disagreements(student, teacher, labels, groups=["a", "a", "b", "a"])
    assert table[["item", "kind"]].to_numpy().tolist() == [
        [0, "negative flip"], [2, "negative flip"], [3, "positive flip"]
    ]  # fmt: skip
    assert metrics.disagreements(labels, labels, labels, groups=[1, 1, 1, 1]).empty


def test_tables_in_words():
    names, texts = ("on", "off"), ["zero", "one", "two"]
    table = metrics.in_words(metrics.confusions([0, 0, 1], [0, 1, 1]), names, texts)
    assert table.to_dict("records") == [{"label": "off", "predicted": "on", "share": 0.5, "text": "one"}]
    table = metrics.in_words(metrics.disagreements([0, 1, 1], [0, 0, 1], [0, 0, 1]), names, texts)
    assert table[["text", "label", "teacher", "student"]].to_numpy().tolist() == [["one", "on", "on", "off"]]
    assert metrics.in_words(metrics.confusions([0], [0]), names, texts).empty
    with refused("example holds 1 and there are 1 words"):
        metrics.in_words(metrics.confusions([0, 0, 1], [0, 1, 1]), names, texts[:1])


def test_slices_hold_equal_shares_and_never_tear_equal_values():
    cut = metrics.slices(np.random.default_rng(0).random(400))
    assert len(cut.categories) == 4 and (np.bincount(cut.codes) == 100).all()
    assert list(metrics.slices([1, 2, 3, 4, 5, 6, 7, 8]).categories) == ["1–2", "3–4", "5–6", "7–8"]
    assert metrics.slices([5, 5, 5, 5, 9], unit=" words").tolist() == ["5 words"] * 4 + ["9 words"]
    assert list(metrics.slices([3] * 7).categories) == ["3"]
    close = metrics.slices([0.991, 0.992, 0.993, 0.994], 2)
    assert list(close.categories) == ["0.991–0.992", "0.993–0.994"]


def test_refusal_threshold_bounds_the_share_refused():
    confidence = np.arange(1, 101) / 100
    threshold = metrics.refusal_threshold(confidence, 0.1)
    k = (confidence < threshold).sum()  # exact one-sided bounds: 4 of 100 are at most 8.9 %, 5 10.2 %
    assert k == 4
    # With four copies of each text the evidence is the same, but only if it is told so.
    copies, groups = np.repeat(confidence, 4), np.repeat(np.arange(100), 4)
    assert metrics.refusal_threshold(copies, 0.1, groups) == threshold
    assert metrics.refusal_threshold(copies, 0.1) > threshold
    assert metrics.refusal_threshold(confidence[:20], 0.1) == 0  # 20 texts can't vouch for 10 %
    assert metrics.refusal_threshold(np.full(100, 0.7), 0.1) == 0.7  # refuses nothing: none is below
    with refused("refused is 10"):
        metrics.refusal_threshold(confidence, 10)


def test_calibration_of_many_arms(data):
    seeds = np.stack([data["student"], 2 * data["student"]])
    logits, labels = {"student": seeds, "teacher": data["teacher"][None]}, data["labels"]
    found = metrics.temperatures(logits, labels)
    assert found["student"].shape == (2,) and found["student"][0] == metrics.fit_temperature(seeds[0], labels)
    assert found["student"][1] == pytest.approx(2 * found["student"][0], rel=1e-3)
    table = metrics.calibration(logits, labels, found)
    assert table.loc["student", "T"] == found["student"].mean()
    for name, of in {"nll": metrics.nll, "brier": metrics.brier, "ece": metrics.ece}.items():
        before, after = [
            [of(z if name == "nll" else metrics.softmax(z), labels) for z in some]
            for some in (seeds, [z / t for z, t in zip(seeds, found["student"], strict=True)])
        ]
        row = table.loc["student"]
        assert (row[name], row[f"{name}_after"]) == pytest.approx((np.mean(before), np.mean(after)))
    sure = metrics.confidences(logits, found)
    assert sure["student"].shape == (2, 400) and sure["student"][0] == pytest.approx(sure["student"][1], rel=1e-3)
    assert sure["teacher"][0] == pytest.approx(metrics.softmax(data["teacher"], found["teacher"][0]).max(1))
    limits = metrics.refusal_thresholds(sure, 0.1, data["groups"])
    assert {arm: of.shape for arm, of in limits.items()} == {"student": (2,), "teacher": (1,)}
    assert limits["teacher"][0] == metrics.refusal_threshold(sure["teacher"][0], 0.1, data["groups"])


@pytest.mark.parametrize(
    ("logits", "temperature", "sentence"),
    [
        ([[1.0, 2.0]], [1.0], "give \\[seeds, items, classes\\]"),
        ([[[1.0, 2.0]]], None, "Unknown arm 'arm'"),
        ([[[1.0, 2.0]]], [1.0, 2.0], "1 seeds and 2 temperatures"),
        ([[[1.0, 2.0]]], [0.0], "temperature is 0"),
    ],
)
def test_arms_need_a_temperature_a_seed(logits, temperature, sentence):
    given = {"teacher": [1.0]} if temperature is None else {"arm": temperature}
    for call in (lambda: metrics.calibration({"arm": logits}, [1], given),
                 lambda: metrics.confidences({"arm": logits}, given)):  # fmt: skip
        assert re.search(sentence, refusal.sentence(call))


def test_refusal_threshold_keeps_its_promise():
    rng = np.random.default_rng(4)
    costs = [metrics.refusal_threshold(rng.random(150), 0.1) for _ in range(400)]  # uniform: cost = threshold
    assert np.mean(np.array(costs) > 0.1) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(costs) > 0.04, "a threshold that refuses nothing keeps every promise"


def test_ece_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.45, 0.55]])
    labels = [0, 1, 0, 1]
    # ten bins: (.9, 1] holds .95 twice, half right; (.6, .7] .65, right; (.5, .6] .55, right
    assert metrics.ece(probabilities, labels, bins=10) == pytest.approx((2 * 0.45 + 0.35 + 0.45) / 4)
    # two bins of equal mass: {.55, .65} and {.95, .95}
    assert metrics.ece(probabilities, labels, bins=2, scheme="mass") == pytest.approx((0.8 + 0.9) / 4)
    assert metrics.ece(probabilities, labels, bins=1) == pytest.approx(0.775 - 0.75)


@pytest.mark.parametrize("scheme", ["width", "mass"])
def test_ece_of_calibrated_and_of_tied_probabilities(scheme):
    rng = np.random.default_rng(1)
    probabilities = metrics.softmax(rng.normal(size=(100_000, 3)))
    labels = (rng.random((100_000, 1)) > probabilities.cumsum(1)).sum(1)
    assert metrics.ece(probabilities, labels, scheme=scheme) < 0.01
    tied = np.tile([[0.8, 0.2], [0.4, 0.6]], (50, 1))
    labels, order = rng.integers(0, 2, 100), rng.permutation(100)
    value = metrics.ece(tied, labels, scheme=scheme)
    assert metrics.ece(tied[order], labels[order], scheme=scheme) == pytest.approx(value)


def test_temperature_is_recovered_and_does_not_move_the_argmax():
    rng = np.random.default_rng(2)
    logits = 2 * rng.normal(size=(20_000, 4))
    labels = (rng.random((20_000, 1)) > metrics.softmax(logits).cumsum(1)).sum(1)
    for true in (0.25, 1.0, 3.0):
        assert metrics.fit_temperature(true * logits, labels) == pytest.approx(true, rel=0.05)
    assert 0.05 <= metrics.fit_temperature(logits, logits.argmax(1)) < 0.06  # always right: the sharpest


def test_entropy_and_auroc():
    assert metrics.entropy([[0.25] * 4, [1, 0, 0, 0]]) == pytest.approx(np.log(4) / 2)
    rng = np.random.default_rng(3)
    inside, outside = np.round(rng.normal(1, 1, 300), 1), np.round(rng.normal(0, 1, 200), 1)  # with ties
    truth = np.r_[np.ones(300), np.zeros(200)]
    assert metrics.auroc(inside, outside) == pytest.approx(sk.roc_auc_score(truth, np.r_[inside, outside]))
    assert metrics.auroc([1.0], [1.0]) == 0.5
    with refused("NaN"):
        metrics.auroc([1.0], [np.nan])
    seeds = np.stack([inside, -inside]), np.stack([outside, -outside])
    assert metrics.auroc(*seeds) == pytest.approx(0.5)  # a mean of a and 1 - a
    with refused("2 seeds and 1 out-of-scope rows"):
        metrics.auroc(seeds[0], seeds[1][:1])


def test_scores_has_them_all_and_does_not_depend_on_row_order(data):
    arguments = data["student"], data["labels"], data["groups"], data["teacher"]
    result = metrics.scores(*arguments)
    order = np.random.default_rng(0).permutation(400)
    assert metrics.scores(*(a[order] for a in arguments)) == pytest.approx(result)
    assert result["agreement"] == metrics.agreement(data["student"].argmax(1), data["teacher"].argmax(1))
    assert set(result) - set(metrics.scores(*arguments[:3])) == {
        "agreement", "copied_errors", "mean_kl", "negative_flip_rate", "positive_flip_rate"
    }  # fmt: skip
    perfect = metrics.scores(data["teacher"], data["labels"], data["groups"], data["teacher"])
    assert (perfect["agreement"], perfect["mean_kl"], perfect["negative_flip_rate"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.nll([[1.0, np.nan]], [0]), "NaN or infinity, first in row 0"),
        (lambda: metrics.nll([1.0, 2.0], [0, 1]), r"logits has shape \[2\]"),
        (lambda: metrics.nll([[1.0, 2.0], [1.0]], [0, 1]), "ragged"),
        (lambda: metrics.nll([[1.0, 2.0]], [2]), "class 2 of 2 classes"),
        (lambda: metrics.accuracy([[1.0, 2.0]], [-1]), "hold -1"),
        (lambda: metrics.accuracy([0, 1], [0]), "1 labels do not fit"),
        (lambda: metrics.accuracy([0, 1], [0.0, 1.0]), "float64"),
        (lambda: metrics.accuracy([], []), "N ≥ 1"),
        (lambda: metrics.agreement([[1.0, 2.0]], [[1.0, 2.0, 3.0]]), "do not match"),
        (lambda: metrics.negative_flips([0], [[1.0, 2.0]], [2]), "class 2 of 2"),
        (lambda: metrics.mean_kl([[1.0, 2.0]], [[1.0, 2.0, 3.0]]), "do not match"),
        (lambda: metrics.ece([[3.0, 1.0]], [0]), "do not sum to 1"),
        (lambda: metrics.ece([[1.0]], [0], scheme="masss"), "did you mean 'mass'"),
        (lambda: metrics.auroc([1.0], [np.nan]), "NaN"),
        (lambda: metrics.item_weights([0, 1], ["a", None]), r"groups\[1\] is missing"),
        (lambda: metrics.item_weights([0, 1], ["a"]), "1 groups for 2 labels"),
        (lambda: metrics.as_evaluate("acuracy"), "did you mean 'accuracy'"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    assert re.search(sentence, refusal.sentence(call))


def test_evaluate_combines_all_metrics_without_a_network(data, monkeypatch):
    import evaluate

    def refuse(*_):
        raise AssertionError("a metric tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    given = {"references": data["labels"], "groups": data["groups"], "teacher_logits": data["teacher"]}
    expected = metrics.scores(data["student"], data["labels"], data["groups"], data["teacher"])
    every = [metrics.as_evaluate(name) for name in expected]
    assert evaluate.combine(every).compute(predictions=data["student"], **given) == pytest.approx(expected)
    plain = metrics.as_evaluate("nll")
    for rows in (slice(150), slice(150, None)):  # the evaluator's way
        plain.add_batch(predictions=data["student"][rows], references=data["labels"][rows])
    assert plain.compute() == {"nll": pytest.approx(expected["nll"])}
    with refused("agreement compares with the teacher"):
        metrics.as_evaluate("agreement").compute(predictions=data["student"], references=data["labels"])
