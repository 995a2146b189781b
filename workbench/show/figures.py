"""Figures of what was trained and measured, one function each, all in the style of `workbench.show.style`.

The idea: a figure checks its table, makes a `style.figure` as high as its rows need, and lets the primitives of `style`
draw into its axes. Every function returns a matplotlib Figure. Accuracies and probabilities come in as fractions and
are drawn in %. A title is a finding made of the numbers (`findings`), unless one is given. The subtitle gives n and
seeds as far as the data tells; `note` adds what only the caller knows ("validation split, label draw 2"). Bad input
raises WorkbenchError. Read `panels` next, which has what moves.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike
from scipy import special
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from workbench import metrics
from workbench.errors import WorkbenchError, unknown
from workbench.escape import shorten, visible
from workbench.show import findings, style
from workbench.show.style import BLUE, GREY, INK, ORANGE, PALE, arm_styles, figure, handles, legend, marked, styled

VERDICT_COLOURS = {"BEATS": "#00704F", "WORSE": "#B04A00", "EQUIVALENT": "#005A8C", "INCONCLUSIVE": GREY}
SHARE_COLOURS = (BLUE, "#E69F00", ORANGE, "#999999")  # of parts of a whole, the best first
HATCHES = ("", "///", "...", "xxx")
INTERVAL = "bar: 95 % interval"
LEAST = 10  # items of a bin and templates of a class, below which a share says too little to be drawn
ACCURACY = "accuracy, class-balanced (%)"
_DASHED = {"color": GREY, "ls": "--", "lw": 1}
_BAND = {"color": "#ececec", "lw": 0, "zorder": 0}

Curve = tuple[ArrayLike, ArrayLike] | pd.DataFrame  # probabilities [N, C] and labels [N], or a finished curve
Draws = Mapping[str, tuple[pd.DataFrame, pd.DataFrame | None]]  # estimates of arms, verdicts


@styled
def training_curves(histories: pd.DataFrame, *, title: str | None = None, note: str = "") -> Figure:
    """Validation accuracy against the step: thin lines for seeds, a bold one for each arm's mean over its seeds.

    Histories have columns arm, seed, step and validation (accuracy in [0, 1]; NaN where it was not measured). Between
    its measurements a seed is interpolated; the mean spans the steps that all seeds of the arm reached.
    """
    need(histories, ["arm", "seed", "step", "validation"], "histories")
    measured = histories.dropna(subset="validation")
    _some(measured, "values of validation in histories: give runs that were validated")
    seeds = measured.groupby("arm", sort=False)["seed"].nunique()
    thin = "thin: one seed, bold: mean" if seeds.max() > 1 else ""
    styles, of_arm = arm_styles(seeds.index), {}
    for arm, runs in measured.groupby("arm", sort=False):
        values = 100 * runs.pivot_table(index="step", columns="seed", values="validation")
        of_arm[arm] = values.interpolate(method="index", limit_area="inside")
    reached = {arm: values.dropna().mean(axis=1) for arm, values in of_arm.items()}
    found = findings.of_curves({arm: mean.iloc[-1] for arm, mean in reached.items() if len(mean)})
    ax = figure(3.6, title or found, _seeds(seeds), thin, note).subplots()
    _curves(ax, of_arm, reached, styles)
    ends = {arm: (mean.index[-1], mean.iloc[-1]) for arm, mean in reached.items() if len(mean)}
    ax.set(xlabel="optimizer step", ylabel="validation accuracy (%)")
    ax.margins(x=0.02)
    ax.grid(axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
    ax.figure.draw_without_rendering()
    heights = np.sort([ax.transData.transform(end)[1] for end in ends.values()])
    apart = np.diff(heights).min(initial=np.inf) > 13 * ax.figure.dpi / 72
    if not apart or len({step for step, _ in ends.values()}) > 1 or max(map(len, ends)) > 24:
        return legend(ax.figure, handles(styles))
    for arm, (_, value) in ends.items():
        style.say(ax, visible(arm), (1, value), "x", (4, 0), va="center")
    return ax.figure


def _curves(
    ax: Axes, of_arm: Mapping[str, pd.DataFrame], means: Mapping[str, pd.Series], styles: Mapping[str, style.Look]
) -> None:
    """Thin lines of an arm's seeds, a column each, and a bold one of their mean with some marks, one at its end."""
    for arm, mean in means.items():
        if of_arm[arm].shape[1] > 1:
            ax.plot(of_arm[arm], color=styles[arm][0], lw=0.7, alpha=0.45)
        marks = list(range(len(mean) - 1, -1, -max(1, len(mean) // 7)))
        ax.plot(mean, lw=2.4, **marked(styles[arm]), markevery=marks)


@styled
def soft_labels(
    logits: ArrayLike, texts: Sequence[str], label_names: Sequence[str],
    temperatures: Sequence[float] = (0.5, 1, 2, 4), top: int = 6, *,
    title: str | None = None, note: str = "",
) -> Figure:  # fmt: skip
    """Probabilities of the top classes: a row for each text [K] of logits [K, C], a column a temperature."""
    first = _soft(logits, label_names)
    if len(texts) != len(first):
        raise WorkbenchError(f"{len(texts)} texts do not fit logits {list(first.shape)}: give one text per row.")
    top = min(top, first.shape[1])
    names = [style.wrap(name, 24) for name in label_names]
    bar = 0.31 if any("\n" in name for name in names) else 0.19  # inches
    headers = [style.wrap(f"“{text}”", 52, 3) for text in texts]
    height = 0.5 + sum(0.4 + bar * top + 0.16 * (header.count("\n") + 1) for header in headers)
    n = f"{len(texts)} text{'s' * (len(texts) > 1)}, top {top} of {first.shape[1]} classes"
    sure = {t: 100 * metrics.softmax(np.asarray(logits)[[0]], t).max() for t in temperatures}
    fig = figure(height, title or findings.of_temperature(sure), n, note)
    # A row of flat axes above each row of panels carries the text, so that long texts can span all columns.
    grid = fig.add_gridspec(2 * len(texts), len(temperatures), height_ratios=[0.01, bar * top] * len(texts))
    for row, text in enumerate(headers):
        header = fig.add_subplot(grid[2 * row, :])
        header.axis("off")
        header.set_title(text, loc="left", weight="bold", pad=1)
        order = np.argsort(-first[row], kind="stable")[:top]
        axes = [fig.add_subplot(grid[2 * row + 1, column]) for column in range(len(temperatures))]
        for ax, temperature in zip(axes, temperatures, strict=True):
            p = metrics.softmax(np.asarray(logits)[[row]], temperature)[0, order]
            style.bars(ax, p, [BLUE] + [style.LIGHT] * (top - 1))
            ax.set(xlim=(0, 130), xticks=[0, 50, 100])
            ax.set_title(f"T = {temperature:g}", fontsize=9, pad=3, color=GREY)
            style.rows(ax, [names[i] for i in order] if ax is axes[0] else [""] * top)
            ax.tick_params(axis="x", labelbottom=row == len(texts) - 1)
    fig.supxlabel("probability (%)", fontsize=9.5)
    return fig


@styled
def entropy_by_temperature(
    logits: ArrayLike | dict[str, ArrayLike], *, title: str | None = None, note: str = ""
) -> Figure:
    """Mean entropy in nats of softmax(logits / T) against T, logits [N, C] of one model or several by name.

    The band holds the middle 80 % of the texts; the dashed line, log C, is the entropy of a uniform label.
    """
    models = logits if isinstance(logits, dict) else {"teacher": logits}
    _some(models, "logits to draw: give an array [N, C] or a dict with at least one")
    grid, styles = np.geomspace(0.25, 16, 33), arm_styles(models)
    found = {name: entropies(values, grid) for name, values in models.items()}
    n = _count(entropy.shape[1] for entropy in found.values())
    ax = figure(3.7, title or findings.of_softness(found, grid), n, "band: 10–90 % of texts", note).subplots()
    for name, entropy in found.items():
        ax.fill_between(grid, *np.quantile(entropy, [0.1, 0.9], axis=1), color=styles[name][0], alpha=0.15, lw=0)
        ax.plot(grid, entropy.mean(1), **marked(styles[name]), markevery=4, clip_on=False)
    entropy_axes(ax, sorted({np.shape(values)[1] for values in models.values()}))
    ax.set_ylabel("mean entropy (nats)")
    return legend(ax.figure, handles(styles)) if len(models) > 1 else ax.figure


def entropies(logits: ArrayLike, temperatures: ArrayLike) -> np.ndarray:
    """Entropy in nats ``[T, N]`` of softmax(logits / T), logits ``[N, C]``, at each temperature ``[T]``."""
    return np.array([special.entr(metrics.softmax(logits, t)).sum(1) for t in np.asarray(temperatures)])


def entropy_axes(ax: Axes, classes: Sequence[int]) -> None:
    """Axes of entropy against temperatures, the entropy of a uniform label over so many classes dashed."""
    for size in classes:
        ax.axhline(np.log(size), **_DASHED)
    uniform = ", ".join(f"log {size} = {np.log(size):.2f}" for size in classes)
    style.say(ax, f"uniform: {uniform} nats", (0, np.log(classes[-1])), "x", (4, 3), color=GREY)
    style.log_axis(ax, [0.25, 0.5, 1, 2, 4, 8, 16])
    ax.set(xlim=(0.25, 16), ylim=(0, 1.13 * np.log(classes[-1])), xlabel="temperature T (log scale)")


@styled
def class_similarity(
    logits: ArrayLike, label_names: Sequence[str], temperature: float = 4.0, *, title: str | None = None, note: str = ""
) -> Figure:
    """Dark knowledge of logits [N, C]: mean probability given to other classes, a row a predicted class.

    Rows are averages over the texts predicted as that class; the diagonal, and rows of classes that are never
    predicted, stay blank. Hierarchical clustering (average linkage) puts similar classes side by side. Above 24
    classes the columns carry the numbers of the rows. Dark knowledge: arXiv 1503.02531.
    """
    n, classes = _soft(logits, label_names).shape
    table, numbered = likeness(metrics.softmax(logits, temperature)), classes > 24
    order = similarity_order(table)
    names = [shorten(label_names[i], 40 if numbered else 28) for i in order]
    size = 6.5 if numbered else 8.5
    room = 0.3 + max(map(len, names)) * size * 0.58 / 72  # inches the names take beside and below the map
    height = 0.6 + 0.125 * classes if numbered else min(style.WIDTH - room - 0.9, 5.2, 1 + 0.6 * classes) + room
    unused = np.isnan(table).all(1).sum()
    blank = f"{unused} never predicted (blank rows)" if unused else ""
    title = title or findings.of_similarity(table, [shorten(name, 28) for name in label_names])
    ax = figure(height, title, f"n = {n:,} texts, T = {temperature:g}", blank, note).subplots()
    likeness_map(ax, table[np.ix_(order, order)], names, numbered, size, bar={"ax": ax, "aspect": 30, "pad": 0.02})
    ax.set_ylabel("predicted class")
    return ax.figure


def likeness(probabilities: np.ndarray) -> np.ndarray:
    """Mean of ``[N, C]`` for other classes ``[C, C]``, a row a predicted class, NaN if never; the diagonal is NaN."""
    p = pd.DataFrame(probabilities)
    table = p.groupby(probabilities.argmax(1)).mean().reindex(p.columns).to_numpy(copy=True)
    np.fill_diagonal(table, np.nan)
    return table


def likeness_map(
    ax: Axes, table: np.ndarray, names: Sequence[str], numbered: bool, size: float, **options: object
) -> AxesImage:
    """`likeness` as a map. Numbered: the columns carry the numbers of the rows, of more than 24 some.

    `options` are those of `style.heat_map`.
    """
    image = style.heat_map(ax, 100 * table, "mean probability of the other class (%)", vmin=0, **options)
    at = np.arange(len(names))
    ax.set_yticks(at, [f"{name}  {i}" for i, name in enumerate(names, 1)] if numbered else names)
    ax.set_xticks(at, at + 1 if numbered else names, rotation=0 if numbered else 90)
    if len(names) > 24:
        every = 5 * int(np.ceil(len(names) / 80))
        ax.set_xticks(at[every - 1 :: every], at[every - 1 :: every] + 1)
    ax.tick_params(labelsize=size)
    ax.set_xlabel("other class (number of its row)" if numbered else "other class")
    return image


def similarity_order(table: np.ndarray) -> np.ndarray:
    """The rows of a table ``[C, C]`` of probabilities, NaN counting as 0, with similar ones side by side ``[C]``."""
    if len(table) < 3:
        return np.arange(len(table))
    similarity = np.nan_to_num(table)
    distance = similarity.max() - (similarity + similarity.T) / 2
    np.fill_diagonal(distance, 0)
    links = hierarchy.linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return hierarchy.leaves_list(links)


def comparison(
    estimates: pd.DataFrame, verdicts: pd.DataFrame | None = None, reference: str | None = None,
    title: str | None = None, *, note: str = "",
) -> Figure:  # fmt: skip
    """Accuracy of each arm with its interval, the best on top, and to the right what was decided about it.

    Estimates are those of `verdicts.arm_estimates` (columns arm, estimate, low, high; n_templates, n_items, n_seeds if
    known), verdicts those of `verdicts.compare` (arm, baseline, estimate, verdict). NaN for low or high: no
    interval is known. Reference, usually the teacher, is an arm whose estimate is drawn as a dashed line.
    """
    return comparison_by_draw({"": (estimates, verdicts)}, reference, title, note=note)


@styled
def comparison_by_draw(
    draws: Draws, reference: str | None = None, title: str | None = None, *, note: str = ""
) -> Figure:
    """`comparison`, a panel for each label draw: one x axis, one order of arms (the best of the first on top)."""
    together = _checked_draws(draws, reference)
    rank = together.drop_duplicates("arm").sort_values("estimate", ascending=False, kind="stable")["arm"]
    styles, line = arm_styles(rank), 0.19  # inches a line of verdict takes; y counts inches
    tables = []
    for estimates, verdicts in draws.values():
        table = estimates.set_index("arm").loc[[arm for arm in rank if arm in set(estimates["arm"])]]
        decided = dict(iter(verdicts.groupby("arm"))) if verdicts is not None else {}
        least = [0.32 if len(arm) > 24 else line for arm in table.index]
        tall = 0.12 + np.maximum(least, [line * len(decided.get(arm, ())) for arm in table.index])
        tables.append((table.assign(y=tall.cumsum() - tall / 2), decided, tall.sum()))
    dashed = f"dashed: {reference}" if reference is not None else ""
    bar = INTERVAL if together[["low", "high"]].notna().all(axis=1).any() else ""
    heights = [end for *_, end in tables]
    title = title or findings.of_arms(*next(iter(draws.values())))
    fig = figure(0.55 + sum(heights) + (0.1 + 0.3 * (len(draws) > 1)) * len(draws), title, _evidence(together), bar,
                 dashed, note)  # fmt: skip
    axes = fig.subplots(len(draws), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, name, (table, decided, end) in zip(axes, draws, tables, strict=True):
        for arm, row in table.iterrows():
            style.dots(ax, row, row["y"], styles[arm])
            if arm == reference:
                ax.axvline(100 * row["estimate"], color=styles[arm][0], ls="--", lw=1, zorder=0)
            found = decided[arm].to_dict("records") if arm in decided else []
            for i, verdict in enumerate(found):
                at, colour = row["y"] + line * (i - (len(found) - 1) / 2), _verdict_colour(verdict)
                text = {"va": "center_baseline", "fontsize": 8.5, "color": colour}
                style.say(ax, _verdict_text(verdict), (1, at), "x", (8, 0), **text)
        names = [f"{style.wrap(arm, 24)}  {100 * value:.1f}" for arm, value in table["estimate"].items()]
        style.rows(ax, names, table["y"], (0, end))
        ax.margins(x=0.06)
        ax.grid(axis="x")
        ax.set_title(shorten(name, 60), loc="left", weight="bold")
    axes[-1].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes[-1].set_xlabel(ACCURACY)
    return fig


def _checked_draws(draws: Draws, reference: str | None) -> pd.DataFrame:
    """The estimates of all draws in one table."""
    _some(draws, "draws to compare: give estimates for at least one")
    for name, (estimates, verdicts) in draws.items():
        need(estimates, ["arm", "estimate", "low", "high"], f"estimates {name}".strip())
        if verdicts is not None:
            need(verdicts, ["arm", "baseline", "estimate", "verdict"], f"verdicts {name}".strip())
        if reference is not None and reference not in set(estimates["arm"]):
            raise unknown("reference arm", reference, estimates["arm"])
    return pd.concat([estimates for estimates, _ in draws.values()])


@styled
def differences(
    verdict_tables: dict[str, pd.DataFrame], margin: float = 0.01, *, apart: pd.DataFrame | None = None,
    title: str | None = None, note: str = "",
) -> Figure:  # fmt: skip
    """Difference and interval of each declared pair in points, a marker for each table.

    Tables by name are those of `verdicts.compare` (arm, baseline, estimate, low, high, verdict). The band is
    ±margin (a fraction: 0.01 is one point), within which arms count as equivalent; colour is the verdict. Where the
    first table is of several draws together, `apart` has a row for each pair and draw, drawn as dots above it.
    """
    _some(verdict_tables, "verdicts to draw: give the table of at least one draw")
    for name, table in verdict_tables.items():
        need(table, ["arm", "baseline", "estimate", "low", "high", "verdict"], f"verdicts {name}")
    together = pd.concat(verdict_tables, names=["draw", None]).reset_index("draw")
    pairs = together[["arm", "baseline"]].drop_duplicates(ignore_index=True)
    step, draws = 0.2, list(verdict_tables)  # inches from draw to draw; y counts inches
    row = 0.2 + max(step * len(draws), 0.35)
    drawn = f"bar: interval, Holm-adjusted; band: equivalence, ±{100 * margin:g} pp"
    title = title or findings.of_differences(together)
    ax = figure(0.95 + row * len(pairs), title, _evidence(together), drawn, note).subplots()
    ax.axvspan(-100 * margin, 100 * margin, **_BAND)
    ax.axvline(0, color=INK, lw=1, zorder=1)
    markers = [marker for _, marker in style.ARM_STYLES.values()]
    shape = {name: markers[i % len(markers)] for i, name in enumerate(draws)}
    centres = row * (pairs.index + 0.5)
    for found in together.merge(pairs.assign(y=centres)).to_dict("records"):
        y = found["y"] + step * (draws.index(found["draw"]) - (len(draws) - 1) / 2)
        style.dots(ax, found, y, (_verdict_colour(found), shape[found["draw"]]))
    if apart is not None:
        need(apart, ["arm", "baseline", "estimate"], "the draws apart")
        dots = apart.merge(pairs.assign(y=centres - step * (len(draws) - 1) / 2))
        ax.plot(100 * dots["estimate"], dots["y"] - 0.1, "o", ms=4, mfc="white", mec=GREY, mew=1, zorder=3)
    names = [f"{shorten(a, 34)}\n− {shorten(b, 34)}" for a, b in pairs.to_numpy()]
    style.rows(ax, names, centres, (0, row * len(pairs)))
    ax.hlines(centres[1:] - row / 2, 0, 1, PALE, lw=0.8, zorder=0, transform=ax.get_yaxis_transform())
    ax.set_xlabel("difference in accuracy (percentage points, pp)")
    of_draws = handles({name: (GREY, marker) for name, marker in shape.items()}, line=False) if len(draws) > 1 else []
    colours = {findings.PLAIN.get(v, v): VERDICT_COLOURS.get(v, GREY) for v in together["verdict"]}
    return legend(ax.figure, of_draws + style.patches(colours))


@styled
def decision(table: pd.DataFrame, margin: float, *, title: str | None = None, note: str = "") -> Figure:
    """Student minus teacher against the loss that is allowed: a student whose bar stays right of it can take over.

    The index names the rows, of which the first is the title's; columns estimate, low, high of `verdicts.compare` and
    decided of `verdicts.decision`. The margin is a fraction: 0.02 is two points.
    """
    need(table, ["estimate", "low", "high", "decided"], "the decision")
    words = [findings.PLAIN.get(one, "no decision") for one in table["decided"]]
    lost = f"grey: a loss of more than {100 * margin:g} points"
    ax = _intervals(table, words, title or findings.of_decision(table.iloc[0], margin), lost, INTERVAL, note)
    ax.axvline(0, color=INK, lw=1, zorder=1)
    left = min(ax.get_xlim()[0], -200 * margin)
    ax.axvspan(left, -100 * margin, **_BAND)
    ax.set(xlim=(left, None), xlabel="student minus teacher (percentage points of accuracy)")
    return ax.figure


@styled
def gap_closed(table: pd.DataFrame, *, title: str | None = None, note: str = "") -> Figure:
    """Share of the way from labels only to the teacher that a student goes; above 100 % it has overtaken its teacher.

    The index names the rows, of which the first is the title's; columns estimate, low, high of
    `verdicts.share_of_gap`. Where the ends are infinite no share is drawn.
    """
    need(table, ["estimate", "low", "high"], "the shares")
    shares = table["estimate"].where(np.isfinite(table["low"]) & np.isfinite(table["high"]))
    words = ["no gap is shown" if np.isnan(share) else f"{100 * share:.0f} %" for share in shares]
    lines = f"left line: {findings.RIVAL}, right: teacher"
    ax = _intervals(table, words, title or findings.of_gap(table.iloc[0]), lines, INTERVAL, note)
    for arm, at in ((findings.RIVAL, 0), (findings.TEACHER, 100)):
        ax.axvline(at, color=style.ARM_STYLES[arm][0], ls="--", lw=1, zorder=0)
    ax.set_xlabel(f"share of the way from {findings.RIVAL} to the teacher (%)")
    return ax.figure


def _intervals(table: pd.DataFrame, words: Sequence[str], title: str, *said: str) -> Axes:
    """Estimates of the distilled student in rows, with words beside them; one without finite ends isn't drawn."""
    ax = figure(0.75 + 0.36 * len(table), title, *said).subplots()
    for y, (row, word) in enumerate(zip(table.to_dict("records"), words, strict=True)):
        if np.isfinite([row["low"], row["high"]]).all():
            style.dots(ax, row, y, style.ARM_STYLES[findings.MAIN])
        style.say(ax, word, (1, y), "x", (8, 0), va="center", fontsize=8.5)
    style.rows(ax, [style.wrap(name, 24) for name in table.index])
    ax.margins(x=0.1)
    ax.grid(axis="x")
    return ax


@styled
def savings(cost: pd.DataFrame, *, title: str | None = None, note: str = "") -> Figure:
    """How many times smaller, quicker and busier than its teacher each model is, with what it takes beside its bar.

    A row per model as of `contest.weigh`, the teacher among them: bytes, p50_ms, rows_per_second (NaN: not drawn).
    """
    need(cost, ["bytes", "p50_ms", "rows_per_second"], "the cost")
    ratios = cost.loc[findings.TEACHER] / cost.drop(index=findings.TEACHER)
    ratios["rows_per_second"] **= -1
    units = {"bytes": EngFormatter("B", 0), "p50_ms": "{:.3g} ms".format, "rows_per_second": "{:,.0f} texts/s".format}
    rows = [(what, arm) for what in units for arm in ratios.index if np.isfinite(ratios[what][arm])]
    title, said = title or findings.of_savings(ratios.iloc[0]), "better: smaller, quicker, more texts per second"
    if not rows:  # a teacher elsewhere
        return figure(0.1, title, note)
    ax = figure(0.75 + 0.27 * len(rows), title, said, note).subplots()
    styles = arm_styles(ratios.index)
    for y, (what, arm) in enumerate(rows):
        ax.barh(y, ratios[what][arm] - 1, left=1, height=0.7, color=styles[arm][0])
        values = (units[what](cost[what][name]) for name in (arm, findings.TEACHER))
        style.say(ax, ", teacher ".join(values), (1, y), "x", (8, 0), va="center", fontsize=8.5)
    style.rows(ax, [f"{findings.SAVED[what]}, {shorten(arm, 30)}" for what, arm in rows])
    ax.axvline(1, color=INK, lw=1)
    style.log_axis(ax)
    ax.grid(axis="x")
    ax.set_xlabel("times better than the teacher (log scale)")
    return ax.figure


@styled
def quality_against_cost(table: pd.DataFrame, *, title: str | None = None, note: str = "") -> Figure:
    """Accuracy against latency in ms (log scale); the marker's area grows with the cube root of the bytes.

    Columns name, accuracy, low, high (NaN: no interval), latency_ms, bytes; n_templates, n_items, n_seeds if known.
    The stepped line is the Pareto front: the best accuracy to be had within each latency.
    """
    need(table, ["name", "accuracy", "low", "high", "latency_ms", "bytes"], "the table")
    if not (table[["latency_ms", "bytes"]] > 0).all(axis=None):
        raise WorkbenchError("A latency_ms or bytes is missing or not above 0: measure every row before drawing.")
    table = table.sort_values("latency_ms", kind="stable", ignore_index=True)
    biggest = table["bytes"].max()
    scale = 420 / np.cbrt(biggest)  # in proportion to bytes, a student 100 times smaller could not be seen
    table["area"] = scale * np.cbrt(table["bytes"].astype(float))  # pt²
    bar = "" if table[["low", "high"]].isna().all(axis=None) else INTERVAL
    front = "line: Pareto front"
    ax = figure(4.6, title or findings.of_trade(table), _evidence(table), bar, front, note).subplots()
    for (colour, marker), (_, row) in zip(arm_styles(table["name"]).values(), table.iterrows(), strict=True):
        x = row["latency_ms"]
        ax.plot([x, x], [100 * row["low"], 100 * row["high"]], color=colour, lw=1.5)
        ax.scatter(x, 100 * row["accuracy"], row["area"], colour, marker=marker, ec="white", lw=0.5, zorder=3)
    style.log_axis(ax)
    x, y = table["latency_ms"].to_numpy(float), 100 * table["accuracy"].to_numpy(float)
    ax.set(xlim=(x.min() / 1.7, x.max() * 1.7), xlabel="latency (ms per text, log scale)", ylabel="accuracy (%)")
    front = pareto(x, y)
    ax.step([*x[front], x.max() * 1.7], [*y[front], y[front][-1]], where="post", color=style.PATH, lw=1.2, zorder=0)
    ax.margins(y=0.15)
    ax.grid(axis="y")
    smallest = np.ceil(np.log10(max(biggest / 1000, table["bytes"].min())))
    sizes = [*10.0 ** np.arange(smallest, np.log10(biggest) - 0.3), float(f"{biggest:.3g}")]
    shown = {EngFormatter("B")(size): np.sqrt(scale * np.cbrt(size)) for size in sizes}
    circles = [handles({size: (style.PATH, "o")}, False, points)[0] for size, points in shown.items()]
    legend(ax.figure, circles, title="model size", handleheight=2.4)
    ax.figure.draw_without_rendering()
    style.place_names(ax, x, y, table["name"], np.sqrt(table["area"].to_numpy()) / 2)
    return ax.figure


def pareto(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Of which points ``[N]`` no other is as good at less cost, or better at no more: a mask ``[N]``."""
    beaten = [((cost <= c) & (gain >= g) & ((cost < c) | (gain > g))).any() for c, g in zip(cost, gain, strict=True)]
    return ~np.array(beaten, bool)


@styled
def sweep_map(
    table: pd.DataFrame, x: str = "temperature", y: str = "loss", value: str = "validation.balanced_accuracy", *,
    title: str | None = None, note: str = "",
) -> Figure:  # fmt: skip
    """Mean score over seeds (in %) of each cell of a grid; the best is framed, a band without x is hatched.

    All cells 10 points or more below the best share the darkest colour.

    Table is one of `sweeps.run_all` with columns x, y, value, seed and idle. Where x plays no part in a row (idle
    names it), the row's one cell spans all of x. Cells that were not run, or not finished, stay empty.
    """
    need(table, [x, y, value, "seed", "idle"], "the table")
    if table[value].isna().all():
        raise WorkbenchError(f"No run of the table has a {value}: draw the map when some are finished.")
    without = table["idle"].str.split(", ").map(lambda names: x in names)
    spans = set(table.loc[without, y])
    columns = sorted(set(table.loc[~without, x])) or sorted(set(table[x]))[:1]
    cells = 100 * table[~without].pivot_table(value, y, x, dropna=False, sort=False)
    cells = cells.reindex(index=pd.unique(table[y]), columns=columns)
    for name, score in (100 * table[without].groupby(y)[value].mean()).items():
        cells.loc[name] = score
    shown = cells.to_numpy()
    hatched = f"hatched: {x} plays no part" if spans else ""
    seeds = f"mean of {_plural(table.dropna(subset=[value])['seed'].nunique())}"
    i, j = np.unravel_index(np.nanargmax(shown), shown.shape)
    title = title or findings.of_cell(cells.index[i], x, None if cells.index[i] in spans else columns[j], shown[i, j])
    fig = figure(0.9 + 0.36 * len(shown), title, seeds, hatched, "framed: the best", note)
    ax = fig.subplots()
    top, bottom = np.nanmax(shown), np.nanmin(shown)
    floor = max(bottom, top - 10)  # one failed cell must not hide the differences between the others
    label = "validation (%)" if value.startswith("validation") else f"{value} (%)"
    extend = "min" if floor > bottom else "neither"
    image = style.heat_map(ax, shown, label, cmap="cividis", vmin=floor, bar={"ax": ax, "extend": extend})
    across = cells.index.isin(spans)
    for row in np.flatnonzero(across):
        ax.add_patch(Rectangle((-0.5, row - 0.5), len(columns), 1, fill=False, hatch="///", ec=GREY, lw=0))
    for row, column in np.argwhere(~np.isnan(shown)):
        tint = image.norm(shown[row, column])
        text = {"ha": "center", "va": "center", "color": "white" if tint < 0.4 else INK}
        if not across[row]:
            ax.text(column, row, f"{shown[row, column]:.1f}", **text)
        elif not column:  # one cell for all of x
            text["bbox"] = {"fc": image.cmap(tint), "ec": "none", "pad": 1.5}
            ax.text((len(columns) - 1) / 2, row, f"{shown[row, column]:.1f}", **text)
    wide = len(columns) if across[i] else 1
    ax.add_patch(Rectangle((j - 0.5, i - 0.5), wide, 1, fill=False, ec=ORANGE, lw=2.2, clip_on=False))
    ax.set_xticks(range(len(columns)), [f"{v:g}" if np.isreal(v) else visible(v) for v in columns])
    ax.set_yticks(range(len(cells)), [shorten(name, 30) for name in cells.index])
    ax.set_xlabel(x.replace("_", " "))
    return fig


@styled
def main_effects(table: pd.DataFrame, *, title: str | None = None, note: str = "") -> Figure:
    """Difference of each level of each factor to that factor's reference, with its interval, in points.

    Columns factor, level, estimate, low, high (fractions); estimate 0 with NaN bounds marks the reference.
    """
    need(table, ["factor", "level", "estimate", "low", "high"], "the table")
    line, gap = 0.21, 0.16  # inches; y counts inches
    number = pd.factorize(table["factor"])[0]  # the levels of a factor may stand apart in the table
    table = table.iloc[np.argsort(number, kind="stable")]
    y = line * np.arange(len(table)) + gap * (1 + np.sort(number))
    bar = "bar: 95 % interval, Holm-adjusted; hollow: the reference"
    height = 0.75 + line * len(table) + gap * (1 + number.max())
    ax = figure(height, title or findings.of_costs(table), _evidence(table.assign(arm="all")), bar, note).subplots()
    ax.axvline(0, color=INK, lw=1, zorder=1)
    for at, row in zip(y, table.to_dict("records"), strict=True):
        verdict = "BEATS" if row["low"] > 0 else "WORSE" if row["high"] < 0 else "INCONCLUSIVE"
        colour = VERDICT_COLOURS[verdict]
        fill = "white" if np.isnan(row["low"]) else colour
        style.dots(ax, row, at, (colour, "o"), size=6.5, mfc=fill, mec=colour, mew=1)
    names = [f"{shorten(row.factor, 30)} = {shorten(row.level, 26)}" for row in table.itertuples()]
    style.rows(ax, names, y, (0, y[-1] + line))
    between = y[1:][np.diff(np.sort(number)) > 0] - (line + gap) / 2
    ax.hlines(between, 0, 1, PALE, lw=0.8, zorder=0, transform=ax.get_yaxis_transform())
    ax.grid(axis="x")
    ax.set_xlabel("difference in accuracy (percentage points)")
    return ax.figure


@styled
def lines_by(
    table: pd.DataFrame, x: str, *, xlabel: str, ylabel: str = "accuracy (%)", log: bool = False,
    beyond: float | None = None, title: str, note: str = "",
) -> Figure:  # fmt: skip
    """A fraction against a number, a line an arm, with its interval where low and high are known.

    Columns arm, x, estimate, low, high (fractions; NaN: no interval is known); n_seeds if known.

    Args:
        table: what is drawn.
        x: the column along the x axis.
        xlabel: its name and unit.
        ylabel: of the fraction, drawn in %.
        log: whether the x axis is logarithmic.
        beyond: the x from which on nothing was trained: shaded, and said in words.
        title: the figure's.
        note: what only the caller knows.
    """
    ax = _lines(table, x, log, title, note)
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(-3, 103))
    if beyond is not None:
        ax.set_xlim(ax.get_xlim())
        ax.axvspan(beyond, ax.get_xlim()[1], **_BAND)
        style.say(ax, "beyond training", (beyond, 1), "y", (3, 2), color=GREY, fontsize=8.5)
    return ax.figure


@styled
def accuracy_by(table: pd.DataFrame, label: str, *, title: str | None = None, note: str = "") -> Figure:
    """Class-balanced accuracy of each arm over a logarithmic axis, with intervals: a dose and its response.

    Columns arm, x (a number), estimate, low, high (fractions); n_templates, n_items, n_seeds if known. Label names x
    and its unit.
    """
    need(table, ["arm", "x", "estimate", "low", "high"], "the table")
    ax = _lines(table, "x", True, title or findings.of_dose(table, label), note)
    ax.set(xlabel=f"{label}, log scale", ylabel=ACCURACY)
    return ax.figure


def _lines(table: pd.DataFrame, x: str, log: bool, title: str, note: str) -> Axes:
    """The lines of `lines_by` and their legend."""
    need(table, ["arm", x, "estimate", "low", "high"], "the table")
    known = table[["low", "high"]].notna().all(axis=1)
    ax = figure(3.7, title, _evidence(table), INTERVAL if known.any() else "", note).subplots()
    styles, ticks = arm_styles(table["arm"]), sorted(set(table[x]))
    # All at the same few places: arms are moved apart, so that their bars don't cover each other.
    same = len(ticks) <= 8 and table.groupby("arm")[x].nunique().eq(len(ticks)).all()
    apart = 0.18 * min(np.diff(np.log(ticks) if log else ticks), default=1) / len(styles) if same else 0.0
    table = table.sort_values(x, kind="stable", ignore_index=True)
    style.lines(ax, table, table[x].astype(float), styles, apart, log, bar=1.6, lw=1.8)
    if log:
        style.log_axis(ax, ticks if len(ticks) <= 8 else None)
    elif same:
        ax.set_xticks(ticks)
    else:
        ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.grid(axis="y")
    legend(ax.figure, handles(styles))
    return ax


@styled
def reliability(
    models: dict[str, Curve], bins: int = 15, *, after: dict[str, Curve] | None = None,
    title: str | None = None, note: str = "",
) -> Figure:  # fmt: skip
    """Accuracy against confidence of each model by name, counts beneath: probabilities [N, C] and labels [N].

    Or instead of them a finished curve, in the columns of `metrics.reliability` and with as many bins.
    On the diagonal a model is right as often as it says; below it is over-confident. Bins have equal width; those of
    fewer than 10 items aren't drawn. ECE is the mean gap between the two (arXiv 1706.04599). With after, the same
    models after temperature scaling stand in a second column.
    """
    _some(models, "models to draw: give probabilities and labels of at least one")
    columns = [models] + ([after] if after else [])
    curves = [{k: v if isinstance(v, pd.DataFrame) else metrics.reliability(*v, bins) for k, v in column.items()}
              for column in columns]  # fmt: skip
    n = _count((int(curve["n"].sum()) for column in curves for curve in column.values()), "items")
    eces = [{name: 100 * np.average((c["accuracy"] - c["confidence"]).abs(), weights=c["n"])
             for name, c in column.items()} for column in curves]  # fmt: skip
    title = title or findings.of_confidence(eces[0], eces[1] if after else None)
    fig = figure(4.2 if after else 5.0, title, n, f"{bins} bins, those of fewer than {LEAST} not drawn", note)
    grid = fig.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1])
    styles, edges = arm_styles(models), np.linspace(0, 1, bins + 1)
    for (ax, counts), drawn in zip(grid.T, curves, strict=True):
        (diagonal,) = ax.plot([0, 100], [0, 100], **_DASHED, label="calibrated")
        for name, curve in drawn.items():
            told = curve[curve["n"] >= LEAST]
            ax.plot(100 * told["confidence"], 100 * told["accuracy"], **marked(styles[name]), clip_on=False)
            items, _ = np.histogram(curve["confidence"], edges, weights=curve["n"])
            counts.stairs(items, 100 * edges, color=styles[name][0], lw=1.5)
        ax.set(xlim=(0, 101.5), ylim=(0, 103))
        ax.grid()
        counts.set_xlabel("confidence: probability of the top class (%)")
    grid[1, 0].yaxis.set_major_locator(MaxNLocator(3, integer=True))
    grid[0, 0].set_ylabel("accuracy (%)")
    grid[1, 0].set_ylabel("items")
    for ax, when in zip(grid[0], ("before temperature scaling", "after") if after else ("",), strict=True):
        ax.set_title(when, loc="left", weight="bold")
    fig.align_ylabels()
    told = {name: " → ".join(f"{column[name]:.1f}" for column in eces) for name in models}
    named = {f"{shorten(name, 40)}: ECE {values} %": styles[name] for name, values in told.items()}
    return legend(fig, [*handles(named), diagonal])


@styled
def perplexity_by(
    table: pd.DataFrame, x: str, *, xlabel: str, log: bool = False, title: str | None = None, note: str = ""
) -> Figure:
    """Perplexity against a number: thin lines for seeds, a bold one for each arm's geometric mean; lower is better.

    Args:
        table: columns arm, seed, x and perplexity, a row a measurement; an arm with one x is drawn as a level.
        x: the column along the x axis.
        xlabel: its name and unit.
        log: whether the x axis is logarithmic, too.
        title: the figure's.
        note: what only the caller knows.
    """
    need(table, ["arm", "seed", x, "perplexity"], "the table")
    seeds = table.groupby("arm", sort=False)["seed"].nunique()
    thin = "thin: one seed, bold: geometric mean" if seeds.max() > 1 else ""
    of_arm = {arm: runs.pivot_table(index=x, columns="seed", values="perplexity")
              for arm, runs in table.groupby("arm", sort=False)}  # fmt: skip
    means = {arm: np.exp(np.log(values).mean(axis=1)) for arm, values in of_arm.items()}
    found = findings.of_perplexities({arm: mean.iloc[-1] for arm, mean in means.items()})
    ax = figure(3.6, title or found, _seeds(seeds), thin, "lower is better", note).subplots()
    styles = arm_styles(seeds.index)
    for level in [arm for arm, mean in means.items() if len(mean) == 1]:
        ax.axhline(means[level].iloc[0], color=styles[level][0], ls="--", lw=1.4)
    _curves(ax, of_arm, means, styles)
    if log:
        style.log_axis(ax, sorted({*table[x]}) if table[x].nunique() <= 8 else None)
    ax.set(xlabel=xlabel, ylabel="perplexity (log scale)", yscale="log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.yaxis.set_major_formatter("{x:,.3g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.grid(axis="y")
    return legend(ax.figure, handles(styles))


@styled
def perplexities(
    table: pd.DataFrame, *, reference: str | None = None, title: str | None = None, note: str = ""
) -> Figure:
    """A row an arm, a mark a seed, a thick stroke at the geometric mean; columns arm, perplexity.

    Args:
        table: one row a run, arms from top to bottom in the order of their first row.
        reference: an arm whose mean is drawn through all rows as a line.
        title: the figure's.
        note: what only the caller knows.
    """
    need(table, ["arm", "perplexity"], "the table")
    arms = table.groupby("arm", sort=False)["perplexity"]
    marks = "one mark per seed; stroke: geometric mean; left is better"
    found = findings.of_perplexities({arm: np.exp(np.log(v.astype(float)).mean()) for arm, v in arms}, reference)
    ax = figure(0.9 + 0.3 * len(arms), title or found, marks, note).subplots()
    for y, ((arm, values), look) in enumerate(zip(arms, arm_styles(arms.groups).values(), strict=True)):
        mean = np.exp(np.log(values.astype(float)).mean())
        ax.vlines(mean, y - 0.32, y + 0.32, look[0], lw=2.2, alpha=0.6)
        ax.plot(values, np.full(len(values), y), ls="", **marked(look, 7))
        style.say(ax, f"{mean:,.3g}" if mean < 100 else f"{mean:,.0f}", (1, y), "x", (4, 0), va="center")
        if arm == reference:
            ax.axvline(mean, **_DASHED, zorder=0)
    ax.set(xlim=(table["perplexity"].min() / 1.15, table["perplexity"].max() * 1.15), xlabel="perplexity (log scale)")
    style.log_axis(ax)
    style.rows(ax, [shorten(arm, 40) for arm, _ in arms])
    ax.grid(axis="x")
    return ax.figure


@styled
def next_tokens(table: pd.DataFrame, text: str, *, title: str = "What comes next", note: str = "") -> Figure:
    """Probabilities of the next token after `text`: a row a token (the index), a bar for each column's model."""
    models = len(table.columns)
    ax = figure(0.8 + (0.12 + 0.16 * models) * len(table), title, f"after “…{text[-70:]}”", note).subplots()
    styles, height = arm_styles(table.columns), 0.8 / models
    for i, name in enumerate(table):
        at = np.arange(len(table)) + (i - (models - 1) / 2) * height
        style.bars(ax, table[name], styles[name][0], at, height=0.9 * height, gap=0.6)
    names = [repr(str(token))[1:-1].replace(" ", "␣") for token in table.index]
    style.rows(ax, names, ends=(-0.55, len(table) - 0.45))
    ax.set(xlabel="probability (%)", xlim=(0, 1.12 * 100 * table.to_numpy().max()))
    return legend(ax.figure, style.patches({name: styles[name][0] for name in table}))


@styled
def fidelity(scores: pd.DataFrame, *, title: str | None = None, note: str = "") -> Figure:
    """Accuracy against agreement with the teacher, and against the mean KL from it; right is nearer to it.

    A row an arm and seed: arm, seed, accuracy, agreement (fractions), mean_kl (nats), the teacher among them.
    Large: mean of an arm, small: its seeds (arXiv 2106.05945).
    """
    need(scores, ["arm", "seed", "accuracy", "agreement", "mean_kl"], "scores")
    drawn = scores.assign(accuracy=100 * scores["accuracy"], agreement=100 * scores["agreement"])
    seeds, styles = scores.groupby("arm", sort=False)["seed"].nunique(), arm_styles(scores["arm"])
    found = findings.of_agreement(drawn.groupby("arm", sort=False)["agreement"].mean().to_dict())
    fig = figure(3.5, title or found, _seeds(seeds), "small: one seed, large: mean", note)
    axes = fig.subplots(1, 2, sharey=True)
    for ax, column in zip(axes, ("agreement", "mean_kl"), strict=True):
        for arm, of_arm in drawn.groupby("arm", sort=False):
            colour, marker = styles[arm]
            if len(of_arm) > 1:
                ax.scatter(of_arm[column], of_arm["accuracy"], 14, colour, marker=marker, alpha=0.45, lw=0)
            ax.plot(of_arm[column].mean(), of_arm["accuracy"].mean(), **marked(styles[arm], 10))
            if arm == "teacher":
                ax.axhline(of_arm["accuracy"].mean(), color=INK, ls="--", lw=1, zorder=0)
        ax.margins(0.08)
        ax.grid()
    axes[0].set(xlabel="agreement with the teacher (%)", ylabel=ACCURACY)
    axes[1].set(xlabel="mean KL from the teacher (nats)")
    axes[1].invert_xaxis()
    return legend(fig, handles(styles, line=False))


@styled
def flips(
    table: pd.DataFrame, label_names: Sequence[str], top: int = 20, *, title: str | None = None, note: str = ""
) -> Figure:
    """What gets worse and what gets better with the student, a row per class of `metrics.flip_table`, worst on top.

    Classes of fewer than 10 templates share one row, their mean by templates, of which no interval is known.
    """
    need(table, ["label", "negative", "positive", "low", "high", "n_templates"], "the table of flips")
    few = table["n_templates"] < LEAST
    few &= few.sum() > 1
    shown = table[~few].head(top)
    more = f"worst {len(shown)} of {(~few).sum()} classes" if len(shown) < (~few).sum() else ""
    rows = [(f"{shorten(label_names[row.label], 40)} ({row.n_templates})", row) for row in shown.itertuples()]
    if few.any():
        shares = np.average(table.loc[few, ["negative", "positive"]], axis=0, weights=table.loc[few, "n_templates"])
        pooled = pd.Series([*shares, np.nan, np.nan], ["negative", "positive", "low", "high"])
        small = f"{few.sum()} classes below {LEAST} together ({table.loc[few, 'n_templates'].sum()})"
        rows.append((small, pooled))
    n = f"n = {table['n_templates'].sum():,} {_unit(table)} (of a class in brackets)"
    said = title or findings.of_flips(table)
    ax = figure(1.0 + 0.24 * len(rows), said, n, more, "bar: joint 95 % interval of the losses", note).subplots()
    ax.axvline(0, color=INK, lw=1)
    for y, (_, row) in enumerate(rows):
        ax.plot([-100 * row.negative, 100 * row.positive], [y, y], color=PALE, lw=1.2, zorder=0)
        ax.hlines(y, -100 * min(row.high, 1), -100 * max(row.low, 0), color=ORANGE, lw=1.6, alpha=0.7)
        ax.plot(-100 * row.negative, y, **marked((ORANGE, "s")))
        ax.plot(100 * row.positive, y, **marked((BLUE, "o")))
    style.rows(ax, [name for name, _ in rows])
    ax.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.grid(axis="x")
    ax.set_xlabel("share of the class's texts (%)")
    looks = {"teacher right, student wrong": (ORANGE, "s"), "student right, teacher wrong": (BLUE, "o")}
    return legend(ax.figure, handles(looks, line=False))


@styled
def refusal(
    models: dict[str, tuple[ArrayLike, ArrayLike, float]], *,
    title: str | None = None, note: str = "",
) -> Figure:  # fmt: skip
    """Out-of-scope texts refused against in-scope texts refused, as the threshold on the confidence rises.

    By name: confidences [N] in scope, [M] out of scope, and the chosen threshold, whose point is marked. AUROC
    is the area under the curve, 50 % for guessing.
    """
    _some(models, "models to draw: give the confidences of at least one")
    n, m = (_count(len(pair[i]) for pair in models.values()) for i in (0, 1))
    chosen = {name: tuple(100 * np.mean(np.asarray(c) < threshold) for c in (inside, outside))
              for name, (inside, outside, threshold) in models.items()}  # fmt: skip
    said = title or findings.of_refusals(chosen)
    ax = figure(3.9, said, f"in scope: {n}", f"out of scope: {m}", "marker: chosen threshold", note).subplots()
    styles, named = arm_styles(models), {}
    (guessing,) = ax.plot([0, 100], [0, 100], **_DASHED, label="guessing")
    for name, (inside, outside, _) in models.items():
        levels = np.r_[np.unique(np.r_[inside, outside]), np.inf]
        share = [100 * np.searchsorted(np.sort(c), levels) / len(c) for c in (inside, outside)]
        ax.plot(*share, color=styles[name][0], lw=1.8)
        ax.plot(*chosen[name], clip_on=False, **marked(styles[name], 9))
        named[f"{shorten(name, 40)}: AUROC {100 * metrics.auroc(inside, outside):.1f} %"] = styles[name]
    ax.set(xlim=(0, 100), ylim=(0, 101), xlabel="in-scope texts refused (%)", ylabel="out-of-scope texts refused (%)")
    ax.grid()
    return legend(ax.figure, [*handles(named), guessing])


@styled
def difficulty(tables: dict[str, pd.DataFrame], *, title: str | None = None, note: str = "") -> Figure:
    """Accuracy of each arm in slices of the texts, easy to hard or few to many: a panel for each table by name.

    Tables are those of `verdicts.by_slice` (slice, arm, estimate, low, high, n_templates; n_items if known). One y
    axis.
    """
    _some(tables, "slices to draw: give the table of at least one")
    for name, table in tables.items():
        need(table, ["slice", "arm", "estimate", "low", "high", "n_templates"], f"slices {name}")
    together = pd.concat(tables.values())
    styles, unit = arm_styles(together["arm"]), _unit(together)
    crowded = max(table["slice"].nunique() for table in tables.values()) > 5
    columns = 1 if crowded else min(2, len(tables))
    count = -(-len(tables) // columns)
    fig = figure(0.3 + 2.5 * count, title or findings.of_slices(tables), f"{INTERVAL}; n: {unit}", note)
    axes = fig.subplots(count, columns, sharey=True, squeeze=False)
    for ax in axes.flat[len(tables) :]:
        ax.axis("off")
    for ax, (name, table) in zip(axes.flat, tables.items(), strict=False):
        counts = table.groupby("slice", sort=False, observed=True)["n_templates"].max()
        at = table["slice"].map({part: i for i, part in enumerate(counts.index)}).astype(float)
        style.lines(ax, table, at, styles, 0.5 / len(styles), size=6, bar=1.3, lw=1)
        ax.set_xticks(range(len(counts)), [f"{style.wrap(part, 10)}\nn = {n}" for part, n in counts.items()])
        ax.tick_params(axis="x", length=0, labelsize=8.5)
        ax.set_xlim(-0.5, len(counts) - 0.5)
        ax.set_title(shorten(name, 44), loc="left", weight="bold")
        ax.grid(axis="y")
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy (%)")
    return legend(fig, handles(styles))


@styled
def stacked_shares(table: pd.DataFrame, *, xlabel: str, title: str, note: str = "") -> Figure:
    """A bar a row of the table, cut into the shares that its columns give (fractions; a row sums to 1).

    The index names the bars; with two levels the first one groups them. Hatches and numbers repeat the colours.
    """
    if table.empty or len(table.columns) > len(SHARE_COLOURS):
        most = len(SHARE_COLOURS)
        raise WorkbenchError(f"stacked_shares draws 1 to {most} shares of at least one row: give as many.")
    group = pd.factorize(table.index.get_level_values(0))[0] if table.index.nlevels > 1 else np.zeros(len(table))
    y = 0.24 * np.arange(len(table)) + 0.3 * np.cumsum(np.diff(group, prepend=group[0]) != 0)  # inches
    ax = figure(0.99 + y[-1], title, note).subplots()
    left = np.zeros(len(table))
    for column, colour, hatch in zip(table, SHARE_COLOURS, HATCHES, strict=False):
        share = 100 * table[column].to_numpy(float)
        drawn = ax.barh(y, share, left=left, height=0.19, color=colour, hatch=hatch, ec="white", lw=0.5)
        numbers = [f"{width:.0f}" if width >= 6 else "" for width in share]
        ax.bar_label(drawn, numbers, label_type="center", fontsize=8,
                     bbox={"fc": "white", "alpha": 0.85, "lw": 0, "pad": 0.8})  # fmt: skip
        left += share
    inner = table.index.names[-1] or ""
    names = [visible(f"{key[0]}, {inner} {key[1]}" if table.index.nlevels > 1 else key) for key in table.index]
    style.rows(ax, names, y, (-0.19, y[-1] + 0.19))
    ax.set(xlim=(0, 100), xlabel=xlabel)
    return legend(ax.figure, style.patches(dict(zip(table, SHARE_COLOURS, strict=False)), HATCHES))


def _count(counts: Iterable[int], what: str = "texts") -> str:
    """As "n = 190 texts", or the range where models have different numbers."""
    counts = sorted(set(counts))
    return f"n = {'–'.join(f'{n:,}' for n in dict.fromkeys([counts[0], counts[-1]]))} {what}"


def _plural(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds > 1)}"


def _seeds(counts: pd.Series) -> str:
    """As "5 seeds (teacher 1)" of numbers of seeds by arm."""
    usual = int(counts.mode().max())
    others = counts[counts != usual]
    if len(others) > 2:
        return f"{counts.min()} to {_plural(int(counts.max()))} per arm"
    named = ", ".join(f"{arm} {n}" for arm, n in others.items())
    return _plural(usual) + (f" ({named})" if named else "")


def _unit(table: pd.DataFrame) -> str:
    """What n counts: templates, or texts where each is its own (as many items as templates)."""
    return "texts" if "n_items" in table and table["n_items"].eq(table["n_templates"]).all() else "templates"


def _evidence(table: pd.DataFrame) -> str:
    """As "n = 190 templates, 5 seeds", as far as columns n_templates (or n_problems), n_seeds and n_draws tell."""
    parts = []
    for name in {"n_templates", "n_problems"} & set(table):
        unit = _unit(table) if name == "n_templates" else "problems"
        parts.append(_count(table[name].astype(int), unit))
    together = table["n_draws"] > 1 if "n_draws" in table else pd.Series(False, table.index)
    if together.any():
        parts.append(f"{table['n_draws'].max():.0f} draws")
        table = table[~together]
    if "n_seeds" in table and len(table):
        key = "name" if "name" in table else "arm"
        parts.append(_seeds(table.groupby(key, sort=False)["n_seeds"].max().astype(int)))
    return ", ".join(parts)


def _verdict_colour(found: Mapping[str, object]) -> str:
    return VERDICT_COLOURS.get(found["verdict"], GREY)


def _verdict_text(found: Mapping[str, object]) -> str:
    """As "better than labels only (+3.2)", the difference in points."""
    joint = {"BEATS": "better than", "WORSE": "worse than", "EQUIVALENT": "equal to",
             "INCONCLUSIVE": "not settled against"}.get(found["verdict"], "no verdict against")  # fmt: skip
    replaces = ", can take over" if found.get("replaces") is True else ""
    return f"{joint} {shorten(found['baseline'], 32)} ({findings.signed(found)}){replaces}"


def _some(things: Sized, words: str) -> None:
    if not len(things):
        raise WorkbenchError(f"There are no {words}.")


def need(table: pd.DataFrame, columns: list[str], what: str) -> None:
    """Refuse a table that lacks some of the columns, or has no rows."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise WorkbenchError(f"No column {', '.join(missing)} in {what}: it needs {', '.join(columns)}.")
    _some(table, f"rows in {what}: give at least one")


def _soft(logits: ArrayLike, label_names: Sequence[str]) -> np.ndarray:
    """Probabilities at T = 1 of logits that have a column for each name."""
    p = metrics.softmax(logits)
    if len(label_names) != p.shape[1]:
        count = f"{len(label_names)} label names do not fit logits {list(p.shape)}"
        raise WorkbenchError(f"{count}: give one per class, in order.")
    return p
