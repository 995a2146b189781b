"""How good one model's answers are: accuracy, fidelity to the teacher, calibration, each a number.

Plain functions of arrays. C classes, N items: logits [N, C] any finite reals, probabilities [N, C] rows that
sum to 1, labels [N] integers in 0..C-1, groups [N] template ids (any hashable; None: each item is its own
template). "Predictions" may be given as logits, whose argmax is taken, or as [N] class ids. Rates and
accuracies are fractions in [0, 1], logarithms natural. Every function raises WorkbenchError for wrong shapes,
NaN or infinity, and labels out of range. Accuracy and fidelity are different axes (arXiv 2106.05945), so
`scores` reports both.

Items of one template are near copies: means are of template means (`item_weights`). This much a training run needs;
tables of errors, refusal and many arms at once are in `workbench.metrics`, intervals in `workbench.verdicts`.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from workbench.errors import TEMPERATURE, WorkbenchError, sequence, unknown, whole


def softmax(logits: ArrayLike, temperature: float = 1.0) -> np.ndarray:
    """Probabilities [N, C] of logits [N, C] divided by temperature > 0."""
    return special.softmax(_tempered(logits, temperature), axis=1)


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of the N items that are right, every item the same weight. Predictions [N, C] or [N]."""
    predicted = to_predictions(predictions)
    return float(np.mean(predicted == to_labels(labels, predictions)))


def macro_f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Mean F1 over the classes that occur in labels. Predictions [N, C] or [N].

    A class absent from labels has no F1 of its own, so that all students are averaged over the same classes;
    predicting it still costs the true class recall. scikit-learn's default averages over predicted ones too.
    """
    predicted, labels = to_predictions(predictions), to_labels(labels, predictions)
    size = max(predicted.max(), labels.max()) + 1
    support = np.bincount(labels, minlength=size)
    hits = np.bincount(labels[predicted == labels], minlength=size)
    f1 = 2 * hits / np.maximum(support + np.bincount(predicted, minlength=size), 1)
    return float(f1[support > 0].mean())


def template_ids(labels: ArrayLike, groups: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Template of each item [N], numbered from 0, and class of each template [G], numbered as labels sort.

    A template is a group within a class; a group that spans two classes makes two templates.
    """
    try:
        classes = np.unique(to_vector(labels, "labels"), return_inverse=True)[1]
    except TypeError:
        raise WorkbenchError("labels are of several types, which have no order: give all of one.") from None
    if groups is None:
        return np.arange(len(classes)), classes
    try:
        group = pd.factorize(pd.Series(sequence("groups", groups), dtype=object))[0]
    except TypeError:
        raise WorkbenchError("groups hold what has no hash, such as lists: give a name or a number an item.") from None
    if group.shape != classes.shape:
        raise WorkbenchError(f"There are {len(group)} groups for {len(classes)} labels: give one an item.")
    if group.min(initial=0) < 0:
        raise WorkbenchError(f"groups[{np.argmin(group)}] is missing: every item needs a template id.")
    pairs, template = np.unique(classes * (group.max(initial=0) + 1) + group, return_inverse=True)
    return template, pairs // (group.max(initial=0) + 1)


def item_weights(labels: ArrayLike, groups: ArrayLike | None = None) -> np.ndarray:
    """Weights [N], summing to 1, under which a weighted mean is the class-balanced mean of template means.

    Every class that occurs has the same weight, within it every template, within that every item. Labels may
    be of any sortable type.
    """
    template, template_class = template_ids(labels, groups)
    templates_of_class, items_of_template = np.bincount(template_class), np.bincount(template)
    return 1 / (len(templates_of_class) * templates_of_class[template_class] * items_of_template)[template]


def balanced_accuracy(predictions: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None) -> float:
    """Class-balanced mean of template accuracies, which comparisons use. Predictions [N, C] or [N]."""
    right = to_predictions(predictions) == to_labels(labels, predictions)
    return float(right @ item_weights(labels, groups))


def agreement(student: ArrayLike, teacher: ArrayLike) -> float:
    """Fraction of items for which student and teacher, each [N, C] or [N], choose the same class."""
    student, teacher = _two(student, teacher)
    return float(np.mean(student == teacher))


def copied_errors(student: ArrayLike, teacher: ArrayLike, labels: ArrayLike) -> float:
    """Agreement on the items the teacher gets wrong: errors handed down. NaN if the teacher makes none."""
    labels = to_labels(labels, teacher)
    student, teacher = _two(student, teacher)
    wrong = teacher != labels
    return float(np.mean(student[wrong] == teacher[wrong])) if wrong.any() else float("nan")


def negative_flips(student: ArrayLike, teacher: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Rates (negative, positive) among all N items: teacher right and student wrong, and the reverse.

    Student's accuracy − teacher's accuracy = positive − negative. Negative flip rate: arXiv 2011.09161.
    """
    labels = to_labels(labels, teacher)
    student, teacher = _two(student, teacher)
    student_right, teacher_right = student == labels, teacher == labels
    return float(np.mean(teacher_right & ~student_right)), float(np.mean(student_right & ~teacher_right))


def mean_kl(student_logits: ArrayLike, teacher_logits: ArrayLike, temperature: float = 1.0) -> float:
    """Mean over items of KL(teacher ‖ student) in nats, both at the temperature, whose square is left out."""
    student = special.log_softmax(_tempered(student_logits, temperature), axis=1)
    teacher = special.log_softmax(_tempered(teacher_logits, temperature), axis=1)
    check_same_shape(student, teacher)
    return float((np.exp(teacher) * (teacher - student)).sum(1).mean())


Scheme = Literal["width", "mass"]


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, scheme: Scheme = "width"
) -> pd.DataFrame:
    """Reliability curve: confidence, accuracy and n of each bin that holds items, by rising confidence.

    Confidence is the largest probability of a row. Bins have equal width on [0, 1], or equal mass: edges at
    quantiles, equal confidences always in one bin, so that the order of the rows does not matter.
    """
    probabilities, labels = _probabilities(probabilities), to_labels(labels, probabilities)
    confidence = probabilities.max(1)
    bins = whole("bins", bins, 1, 1_000_000)
    if scheme == "width":
        edges = np.linspace(0, 1, bins + 1)[1:-1]
    elif scheme == "mass":
        edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    else:
        raise unknown("binning scheme", scheme, ["width", "mass"])
    bin_of = np.searchsorted(edges, confidence)  # bins are (low, high]
    items = pd.DataFrame({"confidence": confidence, "accuracy": probabilities.argmax(1) == labels, "bin": bin_of})
    of_bin = items.groupby("bin")  # a column's name: pandas prints an array before it groups by it
    return of_bin.mean().assign(n=of_bin.size()).reset_index(drop=True)


def ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, scheme: Scheme = "width") -> float:
    """Expected calibration error of the top class: mean |accuracy − confidence| (arXiv 1706.04599)."""
    curve = reliability(probabilities, labels, bins, scheme)
    return float(np.average(np.abs(curve["accuracy"] - curve["confidence"]), weights=curve["n"]))


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Multi-class Brier score in [0, 2]: squared distance to the one-hot label, mean over items."""
    probabilities, labels = _probabilities(probabilities), to_labels(labels, probabilities)
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities**2).sum(1) - 2 * of_label + 1).mean())


def nll(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood of the labels in nats, from logits [N, C]."""
    logits, labels = to_logits(logits), to_labels(labels, logits)
    return float(-special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def entropy(probabilities: ArrayLike) -> float:
    """Mean entropy of the rows in nats, in [0, log C]."""
    return float(special.entr(_probabilities(probabilities)).sum(1).mean())


# Every metric of one model by its logits [N, C]: functions of (logits, labels, groups, teacher_logits).
SCORES: dict[str, Callable[..., float]] = {
    "accuracy": lambda z, labels, *_: accuracy(z, labels),
    "balanced_accuracy": lambda z, labels, groups, _: balanced_accuracy(z, labels, groups),
    "macro_f1": lambda z, labels, *_: macro_f1(z, labels),
    "nll": lambda z, labels, *_: nll(z, labels),
    "brier": lambda z, labels, *_: brier(softmax(z), labels),
    "ece": lambda z, labels, *_: ece(softmax(z), labels),
    "ece_mass": lambda z, labels, *_: ece(softmax(z), labels, scheme="mass"),
    "entropy": lambda z, *_: entropy(softmax(z)),
}
FIDELITY: dict[str, Callable[..., float]] = {  # those that need the teacher
    "agreement": lambda z, labels, groups, teacher: agreement(z, teacher),
    "copied_errors": lambda z, labels, groups, teacher: copied_errors(z, teacher, labels),
    "mean_kl": lambda z, labels, groups, teacher: mean_kl(z, teacher),
    "negative_flip_rate": lambda z, labels, groups, teacher: negative_flips(z, teacher, labels)[0],
    "positive_flip_rate": lambda z, labels, groups, teacher: negative_flips(z, teacher, labels)[1],
}


def scores(
    logits: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, teacher_logits: ArrayLike | None = None
) -> dict[str, float]:
    """Every metric of one model, by name; those of fidelity only where teacher_logits [N, C] are given."""
    wanted = SCORES if teacher_logits is None else SCORES | FIDELITY
    return {name: metric(logits, labels, groups, teacher_logits) for name, metric in wanted.items()}


def to_array(values: ArrayLike, name: str) -> np.ndarray:
    """An array, or a sentence about rows of different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        raise WorkbenchError(f"{name} is ragged: its rows need the same length.") from None


def to_vector(values: ArrayLike, name: str) -> np.ndarray:
    """One value an item, [N], N ≥ 1."""
    values = to_array(values, name)
    if values.ndim != 1 or not len(values):
        raise WorkbenchError(f"{name} has shape {list(values.shape)}: give one value an item, [N], N ≥ 1.")
    return values


def to_logits(values: ArrayLike, name: str = "logits") -> np.ndarray:
    """Finite logits [N, C] as float64."""
    values = to_array(values, name)
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "iuf":
        got = f"shape {list(values.shape)}, type {values.dtype}"
        raise WorkbenchError(f"{name} has {got}: give numbers [N, C], N ≥ 1.")
    values = values.astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(1)))
        raise WorkbenchError(f"{name} holds NaN or infinity, first in row {row}: find the run that made it.")
    return values


def _tempered(logits: ArrayLike, temperature: float) -> np.ndarray:
    return to_logits(logits) / TEMPERATURE.check("temperature", temperature)


def _probabilities(values: ArrayLike) -> np.ndarray:
    values = to_logits(values, "probabilities")
    if values.min() < -1e-6 or np.abs(values.sum(1) - 1).max() > 1e-3:
        raise WorkbenchError("Some rows of probabilities do not sum to 1: apply softmax if these are logits.")
    return values


def _ids(values: ArrayLike, name: str) -> np.ndarray:
    values = to_vector(values, name)
    if values.dtype.kind not in "iu":
        raise WorkbenchError(f"{name} are of type {values.dtype}: give class ids, integers from 0.")
    if values.min() < 0:
        raise WorkbenchError(f"{name} hold {values.min()}: class ids count from 0, drop the unlabelled.")
    return values.astype(np.int64, copy=False)


def to_predictions(values: ArrayLike) -> np.ndarray:
    """Class ids [N] of logits [N, C] or of class ids."""
    values = to_array(values, "predictions")
    return to_logits(values).argmax(1) if values.ndim == 2 else _ids(values, "predictions")


def to_labels(values: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    """Labels [N] that fit predictions, [N, C] or [N]."""
    labels, shape = _ids(values, "labels"), to_array(predictions, "predictions").shape
    if shape[:1] != labels.shape:
        raise WorkbenchError(f"{len(labels)} labels do not fit predictions {list(shape)}: give one an item.")
    if len(shape) == 2 and labels.max() >= shape[1]:
        raise WorkbenchError(f"labels hold class {labels.max()} of {shape[1]} classes: ids count from 0.")
    return labels


def check_same_shape(student: np.ndarray, teacher: np.ndarray) -> None:
    """Raise unless student and teacher have the same items and classes."""
    if np.shape(student) != np.shape(teacher):
        raise WorkbenchError(
            f"Student {list(np.shape(student))} and teacher {list(np.shape(teacher))} do not match: "
            "both need the same items and classes."
        )


def _two(student: ArrayLike, teacher: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of student and teacher over the same items, and the same classes where both give logits."""
    if np.ndim(student) == np.ndim(teacher) == 2:
        check_same_shape(student, teacher)
    student, teacher = to_predictions(student), to_predictions(teacher)
    check_same_shape(student, teacher)
    return student, teacher
