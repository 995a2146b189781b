"""What a student is measured by: the numbers of `quality`, where it errs, how far it can be believed, what it refuses.

The same plain functions of arrays, with the same shapes and errors as in `workbench.quality`, whose names are here too;
S seeds come first: logits [S, N, C]. Whatever bounds a rate counts templates, not items, which are near copies of each
other. Intervals of accuracies, and what follows from them, are in `workbench.verdicts`.
"""

# ruff: noqa: F405 - names of `quality`

import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, stats

from workbench.errors import TEMPERATURE, WorkbenchError, number, unknown, whole
from workbench.quality import *  # noqa: F403 - one place to ask for a metric; what makes keys imports `quality`

if TYPE_CHECKING:
    import evaluate


def flip_table(
    student: ArrayLike, teacher: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None
) -> pd.DataFrame:
    """One row a class, worst first: label, negative, positive, low, high, n_templates, n_items.

    negative and positive are means over templates of the flip rates, and over seeds where student gives logits
    [S, N, C] of S seeds. low and high bound the negative one by Wilson's interval with the template as the
    unit, 95 % for all classes at once (Bonferroni), because the reader looks at the worst of them.
    """
    labels = to_labels(labels, teacher)
    student, teacher = _by_seed(student), to_predictions(teacher)
    check_same_shape(student[0], teacher)
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
    labels = to_labels(labels, predicted[0])
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
    labels = to_labels(labels, teacher)
    student, teacher = _by_seed(student), to_predictions(teacher)
    check_same_shape(student[0], teacher)
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
    logits, labels = to_logits(logits), to_labels(labels, logits)
    # The NLL is convex in 1/T, so it has one minimum in log T too and a bounded search cannot miss it.
    found = optimize.minimize_scalar(
        lambda log_t: nll(logits / np.exp(log_t), labels), bounds=np.log([0.05, 20.0]), method="bounded"
    )
    return float(np.exp(found.x))


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


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    """A vector of finite floats."""
    values = to_vector(values, name)
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise WorkbenchError(f"{name} hold what is no finite number, such as NaN: find the run that made them.")
    return values.astype(float)


def _by_seed(predictions: ArrayLike) -> np.ndarray:
    """Class ids [S, N] of logits [S, N, C], or [1, N] of logits [N, C] or class ids [N]."""
    several = np.ndim(predictions) == 3
    return np.stack([to_predictions(one) for one in (predictions if several else [predictions])])


def _seeds(arm: str, logits: ArrayLike) -> np.ndarray:
    """Logits [S, N, C] of an arm."""
    logits = to_array(logits, f"Arm {arm!r}")
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
