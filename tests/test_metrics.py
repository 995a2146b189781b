"""Metrics against golden values, scikit-learn, and each other."""

import socket
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as sk

from workbench import metrics
from workbench.errors import WorkbenchError

STUDENT, TEACHER = [[1.0, 0.5, -1.0, 0.0]], [[2.0, 0.0, -1.0, 0.5]]


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    truth = 2 * np.eye(6)[labels]  # a sixth class that never occurs
    teacher, student = (truth + rng.normal(size=truth.shape) * noise for noise in (1.0, 1.5))
    groups = labels * 10 + rng.integers(0, 7, 400)
    return {"labels": labels, "teacher": teacher, "student": student, "groups": groups}


def test_softmax_and_temperature_are_stable():
    assert metrics.softmax([[1e4, 0.0]])[0] == pytest.approx([1, 0])
    assert metrics.softmax([[2.0, 0.0]], 2.0)[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
    with pytest.raises(WorkbenchError, match="temperature=0"):
        metrics.softmax([[1.0, 2.0]], 0)


@pytest.mark.parametrize(("temperature", "golden"), [(1, 0.14548918), (2, 0.04340530), (4, 0.01068249)])
def test_mean_kl_is_teacher_to_student(temperature, golden):
    assert metrics.mean_kl(STUDENT, TEACHER, temperature) == pytest.approx(golden, abs=1e-8)
    assert metrics.mean_kl(TEACHER, TEACHER, temperature) == 0


def test_golden_nll():
    assert metrics.nll(STUDENT, [0]) == pytest.approx(0.74656727, abs=1e-8)


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
    with pytest.raises(WorkbenchError, match=r"groups\[1\] is missing"):
        metrics.item_weights([0, 1], ["a", None])
    with pytest.raises(WorkbenchError, match="1 groups for 2 labels"):
        metrics.item_weights([0, 1], ["a"])


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


def test_ece_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.45, 0.55]])
    labels = [0, 1, 0, 1]
    # ten bins: (.9, 1] holds .95 twice, half right; (.6, .7] .65, right; (.5, .6] .55, right
    assert metrics.ece(probabilities, labels, bins=10) == pytest.approx((2 * 0.45 + 0.35 + 0.45) / 4)
    # two bins of equal mass: {.55, .65} and {.95, .95}
    assert metrics.ece(probabilities, labels, bins=2, scheme="mass") == pytest.approx((0.8 + 0.9) / 4)
    assert metrics.ece(probabilities, labels, bins=1) == pytest.approx(0.775 - 0.75)
    with pytest.raises(WorkbenchError, match="did you mean 'mass'"):
        metrics.ece(probabilities, labels, scheme="masss")
    with pytest.raises(WorkbenchError, match="bins=0"):
        metrics.ece(probabilities, labels, bins=0)


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
    with pytest.raises(WorkbenchError, match="NaN"):
        metrics.auroc([1.0], [np.nan])


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
        (lambda: metrics.as_evaluate("acuracy"), "did you mean 'accuracy'"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(WorkbenchError, match=sentence) as raised:
        call()
    assert str(raised.value).rstrip(".").count(". ") == 0


def test_import_stays_light():
    code = "import sys, workbench.verdicts; print({'evaluate', 'datasets', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_evaluate_metrics_equal_the_functions_without_a_network(data, monkeypatch):
    def refuse(*_):
        raise AssertionError("a metric tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    labels, student, teacher = data["labels"], data["student"], data["teacher"]
    ids, probabilities = student.argmax(1), metrics.softmax(student)
    cases = {
        "accuracy": (ids, labels, metrics.accuracy(ids, labels)),
        "macro_f1": (ids, labels, metrics.macro_f1(ids, labels)),
        "agreement": (student, teacher, metrics.agreement(student, teacher)),
        "mean_kl": (student, teacher, metrics.mean_kl(student, teacher)),
        "ece": (probabilities, labels, metrics.ece(probabilities, labels)),
        "brier": (probabilities, labels, metrics.brier(probabilities, labels)),
        "nll": (student, labels, metrics.nll(student, labels)),
    }
    for name, (predictions, references, expected) in cases.items():
        metric = metrics.as_evaluate(name)
        at_once = metric.compute(predictions=predictions, references=references)
        assert at_once == {name: pytest.approx(expected)}
        metric.add_batch(predictions=predictions[:150], references=references[:150])  # the evaluator's way
        metric.add_batch(predictions=predictions[150:], references=references[150:])
        assert metric.compute() == {name: pytest.approx(expected)}
    flips = metrics.as_evaluate("negative_flip_rate").compute(
        predictions=ids, teacher_predictions=teacher.argmax(1), references=labels
    )
    assert flips == {"negative_flip_rate": pytest.approx(metrics.negative_flips(student, teacher, labels)[0])}
    warm = metrics.as_evaluate("mean_kl").compute(predictions=student, references=teacher, temperature=4.0)
    assert warm["mean_kl"] == pytest.approx(metrics.mean_kl(student, teacher, 4.0))
