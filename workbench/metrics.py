"""What a student is measured by: accuracy, fidelity to the teacher, calibration, behaviour out of scope.

Plain functions of arrays. C classes, N items: logits [N, C] any finite reals, probabilities [N, C] rows that
sum to 1, labels [N] integers in 0..C-1, groups [N] template ids (any hashable; None: each item is its own
template). "Predictions" may be given as logits, whose argmax is taken, or as [N] class ids. Rates and
accuracies are fractions in [0, 1], logarithms natural. Every function raises WorkbenchError for wrong shapes,
NaN or infinity, and labels out of range. Accuracy and fidelity are different axes (arXiv 2106.05945), so
`scores` reports both.

Items of one template are near copies: means are of template means, and bounds count templates, not items
(`item_weights`). Intervals, and what follows from them, are in `workbench.verdicts`.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from workbench.errors import TEMPERATURE, WorkbenchError, number, sequence, unknown, whole

if TYPE_CHECKING:
    import evaluate


def softmax(logits: ArrayLike, temperature: float = 1.0) -> np.ndarray:
    """Probabilities [N, C] of logits [N, C] divided by temperature > 0."""
    return special.softmax(_tempered(logits, temperature), axis=1)


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of the N items that are right, every item the same weight. Predictions [N, C] or [N]."""
    predicted = _predicted(predictions)
    return float(np.mean(predicted == _labels(labels, predictions)))


def macro_f1(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Mean F1 over the classes that occur in labels. Predictions [N, C] or [N].

    A class absent from labels has no F1 of its own, so that all students are averaged over the same classes;
    predicting it still costs the true class recall. scikit-learn's default averages over predicted ones too.
    """
    predicted, labels = _predicted(predictions), _labels(labels, predictions)
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
        classes = np.unique(_vector(labels, "labels"), return_inverse=True)[1]
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
    right = _predicted(predictions) == _labels(labels, predictions)
    return float(right @ item_weights(labels, groups))


def agreement(student: ArrayLike, teacher: ArrayLike) -> float:
    """Fraction of items for which student and teacher, each [N, C] or [N], choose the same class."""
    student, teacher = _two(student, teacher)
    return float(np.mean(student == teacher))


def copied_errors(student: ArrayLike, teacher: ArrayLike, labels: ArrayLike) -> float:
    """Agreement on the items the teacher gets wrong: errors handed down. NaN if the teacher makes none."""
    labels = _labels(labels, teacher)
    student, teacher = _two(student, teacher)
    wrong = teacher != labels
    return float(np.mean(student[wrong] == teacher[wrong])) if wrong.any() else float("nan")


def negative_flips(student: ArrayLike, teacher: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Rates (negative, positive) among all N items: teacher right and student wrong, and the reverse.

    Student's accuracy − teacher's accuracy = positive − negative. Negative flip rate: arXiv 2011.09161.
    """
    labels = _labels(labels, teacher)
    student, teacher = _two(student, teacher)
    student_right, teacher_right = student == labels, teacher == labels
    return float(np.mean(teacher_right & ~student_right)), float(np.mean(student_right & ~teacher_right))


def flip_table(
    student: ArrayLike, teacher: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None
) -> pd.DataFrame:
    """One row a class, worst first: label, negative, positive, low, high, n_templates, n_items.

    negative and positive are means over templates of the flip rates, and over seeds where student gives logits
    [S, N, C] of S seeds. low and high bound the negative one by Wilson's interval with the template as the
    unit, 95 % for all classes at once (Bonferroni), because the reader looks at the worst of them.
    """
    labels = _labels(labels, teacher)
    student, teacher = _by_seed(student), _predicted(teacher)
    _same_shape(student[0], teacher)
    template, template_class = template_ids(labels, groups)
    items = pd.DataFrame({"negative": ((teacher == labels) & (student != labels)).mean(0),
                          "positive": ((student == labels) & (teacher != labels)).mean(0)})  # fmt: skip
    table = items.groupby(template).mean().groupby(template_class).mean()
    table.insert(0, "label", np.unique(labels))
    n, rate = np.bincount(template_class), table["negative"].to_numpy()
    z2 = stats.norm.isf(0.025 / len(n)) ** 2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * rate * (1 - rate) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    table["low"], table["high"] = np.clip(centre - half, 0, rate), np.clip(centre + half, rate, 1)
    table["n_templates"], table["n_items"] = n, np.bincount(labels)[table["label"]]
    return table.sort_values("negative", ascending=False, kind="stable", ignore_index=True)


def confusions(predictions: ArrayLike, labels: ArrayLike, teacher: ArrayLike | None = None) -> pd.DataFrame:
    """Errors by kind, the commonest first: label, predicted, share, example; a row for each kind that occurs.

    share is the fraction of the label's items that are answered so, averaged over seeds where predictions are
    logits [S, N, C] of S seeds, else [N, C] or [N]; example is the row of the item that most seeds answer so.
    With a teacher, [N, C] or [N], there is also teacher_share, its share of the same error.
    """
    predicted = _by_seed(predictions)
    labels = _labels(labels, predicted[0])
    seed, item = np.nonzero(predicted != labels)
    errors = pd.DataFrame({"label": labels[item], "predicted": predicted[seed, item], "example": item})
    table = errors.value_counts(sort=False).rename("share").reset_index()
    table = table.sort_values("share", ascending=False, kind="stable")  # the first of a kind is its example
    of_kind = table.groupby(["label", "predicted"], sort=False)
    share = of_kind["share"].sum().to_numpy()
    table = of_kind.first().reset_index()[["label", "predicted", "share", "example"]]
    table["share"] = share / len(predicted) / np.bincount(labels)[table["label"]]
    table = table.sort_values("share", ascending=False, kind="stable", ignore_index=True)
    if teacher is not None:
        own = confusions(teacher, labels).set_index(["label", "predicted"])["share"]
        kinds = pd.MultiIndex.from_frame(table[["label", "predicted"]])
        table.insert(3, "teacher_share", own.reindex(kinds, fill_value=0.0).to_numpy())
    return table


def disagreements(
    student: ArrayLike, teacher: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None
) -> pd.DataFrame:
    """Items that the student answers otherwise than its teacher: item, label, teacher, student, share, kind.

    share is the fraction of the seeds (student may be logits [S, N, C]) that differ from the teacher, most
    first; student is the answer that most of these give. kind: "negative flip" (the teacher is right),
    "positive flip" (that answer is right) or "both wrong". With groups [N], only the first item of each template and
    kind.
    """
    labels = _labels(labels, teacher)
    student, teacher = _by_seed(student), _predicted(teacher)
    _same_shape(student[0], teacher)
    differs = student != teacher
    items = np.flatnonzero(differs.any(0))
    answer = np.array([np.bincount(student[differs[:, i], i]).argmax() for i in items], dtype=int)
    right = [teacher[items] == labels[items], answer == labels[items]]
    table = pd.DataFrame({
        "item": items, "label": labels[items], "teacher": teacher[items], "student": answer,
        "share": differs.mean(0)[items],
        "kind": np.select(right, ["negative flip", "positive flip"], "both wrong"),
    })  # fmt: skip
    table = table.sort_values("share", ascending=False, kind="stable", ignore_index=True)
    template = template_ids(labels, groups)[0][table["item"]]
    return table[~table.assign(template=template).duplicated(["kind", "template"])].reset_index(drop=True)


def in_words(table: pd.DataFrame, label_names: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """A table of `confusions` or `disagreements` to read: names [C] for class ids, texts [N] for item numbers.

    The columns label, predicted, teacher and student are put in words; item or example becomes text. Raises
    WorkbenchError where the names or texts are too few.
    """
    numbered = {"label": label_names, "predicted": label_names, "teacher": label_names, "student": label_names,
                "item": texts, "example": texts}  # fmt: skip
    words = {}
    for column in table.columns.intersection(list(numbered)):
        names, numbers = numbered[column], table[column]
        if len(numbers) and numbers.max() >= len(names):
            raise WorkbenchError(f"{column} holds {numbers.max()} and there are {len(names)} words: give one for each.")
        words[column] = [names[number] for number in numbers]
    return table.assign(**words).rename(columns={"item": "text", "example": "text"})


def slices(values: ArrayLike, count: int = 4, unit: str = "") -> pd.Categorical:
    """Items [N] cut by a value into at most `count` slices of equal mass, named "2–5" by what they hold.

    Equal values always share a slice, so that there may be fewer slices, even one. Names have three
    digits, or as many as tell the slices apart, and the unit behind them.
    """
    values, count = _numbers(values, "values"), whole("count", count, 1, 10_000)
    edges = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1])
    number = np.unique(np.searchsorted(edges, values), return_inverse=True)[1]
    ends = [(values[number == i].min(), values[number == i].max()) for i in range(number.max() + 1)]
    for digits in range(3, 18):
        shown = [[np.format_float_positional(end, digits, fractional=False, trim="-") for end in pair]
                 for pair in ends]  # fmt: skip
        names = ["–".join(dict.fromkeys(pair)) + unit for pair in shown]
        if len(set(names)) == len(names):
            break
    return pd.Categorical.from_codes(number, names, ordered=True)


def mean_kl(student_logits: ArrayLike, teacher_logits: ArrayLike, temperature: float = 1.0) -> float:
    """Mean over items of KL(teacher ‖ student) in nats, both at the temperature, whose square is left out."""
    student = special.log_softmax(_tempered(student_logits, temperature), axis=1)
    teacher = special.log_softmax(_tempered(teacher_logits, temperature), axis=1)
    _same_shape(student, teacher)
    return float((np.exp(teacher) * (teacher - student)).sum(1).mean())


Scheme = Literal["width", "mass"]


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, scheme: Scheme = "width"
) -> pd.DataFrame:
    """Reliability curve: confidence, accuracy and n of each bin that holds items, by rising confidence.

    Confidence is the largest probability of a row. Bins have equal width on [0, 1], or equal mass: edges at
    quantiles, equal confidences always in one bin, so that the order of the rows does not matter.
    """
    probabilities, labels = _probabilities(probabilities), _labels(labels, probabilities)
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
    probabilities, labels = _probabilities(probabilities), _labels(labels, probabilities)
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities**2).sum(1) - 2 * of_label + 1).mean())


def nll(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood of the labels in nats, from logits [N, C]."""
    logits, labels = _logits(logits), _labels(labels, logits)
    return float(-special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def entropy(probabilities: ArrayLike) -> float:
    """Mean entropy of the rows in nats, in [0, log C]."""
    return float(special.entr(_probabilities(probabilities)).sum(1).mean())


def auroc(in_scores: ArrayLike, out_scores: ArrayLike) -> float:
    """Probability that an in-scope item's score (say, confidence) tops an out-of-scope one's, ties half.

    Scores are [N] and [M], or [S, N] and [S, M] of S seeds, of which it is the mean.
    """
    if np.ndim(in_scores) == np.ndim(out_scores) == 2:
        _one_a_seed("out-of-scope rows", len(in_scores), len(out_scores))
        return float(np.mean([auroc(*pair) for pair in zip(in_scores, out_scores, strict=True)]))
    inside, outside = _numbers(in_scores, "in_scores"), _numbers(out_scores, "out_scores")
    n = len(inside)
    wins = stats.rankdata(np.r_[inside, outside])[:n].sum() - n * (n + 1) / 2  # Mann and Whitney's U
    return float(wins / (n * len(outside)))


def refusal_threshold(
    confidence: ArrayLike, refused: float, groups: ArrayLike | None = None, level: float = 0.95
) -> float:
    """The largest threshold at which refusing items of lower confidence spares the in-scope ones.

    Confidences [N] are those of in-scope items of a split of its own (calibration). Spared means: the upper
    bound of the share refused, at the level given, is at most `refused`, a fraction. The share is a mean of
    template means, and its bound Clopper and Pearson's with the template as the trial, as items of one are
    near copies. It grows with the threshold, so that looking at all of them needs no correction (arXiv
    2101.02703). Where even refusing nothing cannot be shown to spare them, the threshold is 0.
    """
    refused, level = (number(k, v, above=0, below=1) for k, v in (("refused", refused), ("level", level)))
    confidence = _numbers(confidence, "confidence")
    template = template_ids(np.zeros(len(confidence), int), groups)[0]
    per_template = np.bincount(template)
    weight, n = 1 / (len(per_template) * per_template[template]), len(per_template)
    order = np.argsort(confidence, kind="stable")
    candidates = np.unique(confidence)
    below = np.searchsorted(confidence[order], candidates)
    share = np.r_[0, np.cumsum(weight[order])][below]
    safe = stats.beta.ppf(level, n * share + 1, n - n * share) <= refused  # NaN, where all are refused, is not
    return float(candidates[safe].max(initial=0.0))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Temperature in [0.05, 20] at which `nll` of logits / temperature is smallest (arXiv 1706.04599).

    Fit it on a split of its own, neither trained on nor reported. Above 1: the model was over-confident.
    """
    logits, labels = _logits(logits), _labels(labels, logits)
    # The NLL is convex in 1/T, so it has one minimum in log T too and a bounded search cannot miss it.
    found = optimize.minimize_scalar(
        lambda log_t: nll(logits / np.exp(log_t), labels), bounds=np.log([0.05, 20.0]), method="bounded"
    )
    return float(np.exp(found.x))


# Of many arms, by name: logits [S, N, C] of S seeds each.


def temperatures(logits: Mapping[str, ArrayLike], labels: ArrayLike) -> dict[str, np.ndarray]:
    """`fit_temperature` of every arm and seed: arm -> temperatures [S]. Labels [N] of a split of its own."""
    return {arm: np.array([fit_temperature(z, labels) for z in _seeds(arm, of_arm)]) for arm, of_arm in logits.items()}


def calibration(
    logits: Mapping[str, ArrayLike], labels: ArrayLike, temperature: Mapping[str, ArrayLike]
) -> pd.DataFrame:
    """How far each arm's probabilities can be believed before and after temperature scaling, means over seeds.

    A row an arm: T, nll, brier, ece, and nll_after, brier_after, ece_after of logits / T. Labels [N]; temperatures [S]
    of each arm as `temperatures` fits them on another split. Raises WorkbenchError where they miss an arm or a seed.
    """
    before = {"nll": lambda z: nll(z, labels), "brier": lambda z: brier(softmax(z), labels)}
    before["ece"] = lambda z: ece(softmax(z), labels)
    rows = {}
    for arm, of_arm in logits.items():
        of_arm, t = _seeds(arm, of_arm), _of_arm(arm, of_arm, temperature)
        rows[arm] = {"T": t.mean()} | {name: np.mean([f(z) for z in of_arm]) for name, f in before.items()}
        scaled = of_arm / t[:, None, None]
        rows[arm] |= {f"{name}_after": np.mean([f(z) for z in scaled]) for name, f in before.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def confidences(logits: Mapping[str, ArrayLike], temperature: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Largest probability of each item at the temperatures [S] of each arm: arm -> [S, N]."""
    return {
        arm: np.stack([softmax(z, t).max(1) for z, t in zip(of, _of_arm(arm, of, temperature), strict=True)])
        for arm, of in ((arm, _seeds(arm, z)) for arm, z in logits.items())
    }


def refusal_thresholds(
    confidence: Mapping[str, ArrayLike], refused: float, groups: ArrayLike | None = None, level: float = 0.95
) -> dict[str, np.ndarray]:
    """`refusal_threshold` of every arm and seed: arm -> thresholds [S] of its confidences [S, N]."""
    return {
        arm: np.array([refusal_threshold(one, refused, groups, level) for one in np.atleast_2d(of_arm)])
        for arm, of_arm in confidence.items()
    }


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


def as_evaluate(name: str) -> "evaluate.Metric":
    """One of `SCORES` or `FIDELITY` as an `evaluate.Metric` that needs no Hub; `evaluate.combine` takes several.

    ``compute(predictions=…, references=…, groups=…, teacher_logits=…)`` gives ``{name: float}``: logits [N, C], labels
    [N], and where the metric reads them template ids [N] and the teacher's logits [N, C]. It costs milliseconds of
    bookkeeping a call: inside a loop use `scores`.
    """
    if not isinstance(name, str) or name not in SCORES | FIDELITY:
        raise unknown("metric", name, SCORES | FIDELITY)
    import datasets  # here, not above: these two take seconds to import
    import evaluate

    metric = (SCORES | FIDELITY)[name]

    class Local(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=f"{name}, see workbench.metrics",
                citation="",
                inputs_description=as_evaluate.__doc__,
                features=datasets.Features(
                    {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
                ),
            )

        def _compute(self, predictions, references, groups=None, teacher_logits=None) -> dict[str, float]:
            if name in FIDELITY and teacher_logits is None:
                raise WorkbenchError(f"{name} compares with the teacher: give teacher_logits [N, C].")
            return {name: metric(predictions, references, groups, teacher_logits)}

    Local.__name__ = name
    # In memory; evaluate still insists on making a folder, which should not be in the user's cache.
    return Local(keep_in_memory=True, cache_dir=tempfile.gettempdir() + "/workbench-evaluate")


def _array(values: ArrayLike, name: str) -> np.ndarray:
    """An array, or a sentence about rows of different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        raise WorkbenchError(f"{name} is ragged: its rows need the same length.") from None


def _vector(values: ArrayLike, name: str) -> np.ndarray:
    values = _array(values, name)
    if values.ndim != 1 or not len(values):
        raise WorkbenchError(f"{name} has shape {list(values.shape)}: give one value an item, [N], N ≥ 1.")
    return values


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    """A vector of finite floats."""
    values = _vector(values, name)
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise WorkbenchError(f"{name} hold what is no finite number, such as NaN: find the run that made them.")
    return values.astype(float)


def _logits(values: ArrayLike, name: str = "logits") -> np.ndarray:
    values = _array(values, name)
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "iuf":
        got = f"shape {list(values.shape)}, type {values.dtype}"
        raise WorkbenchError(f"{name} has {got}: give numbers [N, C], N ≥ 1.")
    values = values.astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(1)))
        raise WorkbenchError(f"{name} holds NaN or infinity, first in row {row}: find the run that made it.")
    return values


def _tempered(logits: ArrayLike, temperature: float) -> np.ndarray:
    return _logits(logits) / TEMPERATURE.check("temperature", temperature)


def _probabilities(values: ArrayLike) -> np.ndarray:
    values = _logits(values, "probabilities")
    if values.min() < -1e-6 or np.abs(values.sum(1) - 1).max() > 1e-3:
        raise WorkbenchError("Some rows of probabilities do not sum to 1: apply softmax if these are logits.")
    return values


def _ids(values: ArrayLike, name: str) -> np.ndarray:
    values = _vector(values, name)
    if values.dtype.kind not in "iu":
        raise WorkbenchError(f"{name} are of type {values.dtype}: give class ids, integers from 0.")
    if values.min() < 0:
        raise WorkbenchError(f"{name} hold {values.min()}: class ids count from 0, drop the unlabelled.")
    return values.astype(np.int64, copy=False)


def _predicted(values: ArrayLike) -> np.ndarray:
    """Class ids [N] of logits [N, C] or of class ids."""
    values = _array(values, "predictions")
    return _logits(values).argmax(1) if values.ndim == 2 else _ids(values, "predictions")


def _by_seed(predictions: ArrayLike) -> np.ndarray:
    """Class ids [S, N] of logits [S, N, C], or [1, N] of logits [N, C] or class ids [N]."""
    several = np.ndim(predictions) == 3
    return np.stack([_predicted(one) for one in (predictions if several else [predictions])])


def _seeds(arm: str, logits: ArrayLike) -> np.ndarray:
    """Logits [S, N, C] of an arm."""
    logits = _array(logits, f"Arm {arm!r}")
    if logits.ndim != 3 or not len(logits):
        raise WorkbenchError(f"Arm {arm!r} has logits of shape {list(logits.shape)}: give [seeds, items, classes].")
    return logits


def _of_arm(arm: str, logits: np.ndarray, temperature: Mapping[str, ArrayLike]) -> np.ndarray:
    """Temperatures [S] of an arm with logits [S, N, C]."""
    if arm not in temperature:
        raise unknown("arm", arm, temperature)
    found = np.atleast_1d(temperature[arm])
    _one_a_seed("temperatures", len(logits), len(found))
    return np.array([TEMPERATURE.check("temperature", float(t)) for t in found])


def _one_a_seed(what: str, wanted: int, given: int) -> None:
    if wanted != given:
        raise WorkbenchError(f"There are {wanted} seeds and {given} {what}: give one for each.")


def _labels(values: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    """Labels [N] that fit predictions, [N, C] or [N]."""
    labels, shape = _ids(values, "labels"), _array(predictions, "predictions").shape
    if shape[:1] != labels.shape:
        raise WorkbenchError(f"{len(labels)} labels do not fit predictions {list(shape)}: give one an item.")
    if len(shape) == 2 and labels.max() >= shape[1]:
        raise WorkbenchError(f"labels hold class {labels.max()} of {shape[1]} classes: ids count from 0.")
    return labels


def _same_shape(student: np.ndarray, teacher: np.ndarray) -> None:
    if np.shape(student) != np.shape(teacher):
        raise WorkbenchError(
            f"Student {list(np.shape(student))} and teacher {list(np.shape(teacher))} do not match: "
            "both need the same items and classes."
        )


def _two(student: ArrayLike, teacher: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of student and teacher over the same items, and the same classes where both give logits."""
    if np.ndim(student) == np.ndim(teacher) == 2:
        _same_shape(student, teacher)
    student, teacher = _predicted(student), _predicted(teacher)
    _same_shape(student, teacher)
    return student, teacher
