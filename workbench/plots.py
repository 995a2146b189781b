"""Figures of what was trained and measured, one function each, all in one style.

Every function returns a matplotlib Figure, 7 inches wide (700 px in a notebook, stored at twice that), laid
out once and then fixed. Accuracies and probabilities come in as fractions and are drawn in %. Colours are
Okabe and Ito's (Tol's for arms without a fixed style); marker and words repeat what colour says, so that
figures survive grey print. The subtitle gives n and seeds as far as the data tells; `note` adds what only the
caller knows ("validation split, label draw 2"). Bad input raises WorkbenchError.

pyplot is never imported: its hidden current figure goes wrong as soon as two threads draw.
"""

import functools
import io
import textwrap
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike
from scipy import special
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from workbench import metrics
from workbench.errors import WorkbenchError, unknown
from workbench.escape import shorten, visible

WIDTH = 7.0  # inches
INK, GREY, PALE = "#222222", "#666666", "#e4e4e4"

STYLE: dict[str, object] = {
    "figure.dpi": 200, "savefig.dpi": "figure", "figure.facecolor": "white", "savefig.facecolor": "white",
    "axes.facecolor": "white", "font.family": "DejaVu Sans", "font.size": 9.5, "axes.labelsize": 9.5,
    "axes.titlesize": 9.5, "legend.fontsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "text.color": INK, "axes.labelcolor": INK, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "grid.color": PALE, "legend.frameon": False, "svg.hashsalt": "workbench",
    "text.parse_math": False,  # a class named "$5" is no formula
}  # fmt: skip

ARM_STYLES: dict[str, tuple[str, str]] = {  # colour, marker
    "distilled": ("#0072B2", "o"),
    "labels only": ("#D55E00", "s"),
    "label smoothing": ("#E69F00", "^"),
    "hard pseudo-labels": ("#009E73", "D"),
    "all true labels": ("#CC79A7", "v"),
    "bag of words": ("#777777", "P"),  # not Okabe and Ito's yellow, which is lost on white
    "2-layer cut": ("#56B4E9", "X"),
    "teacher": ("#000000", "*"),
}
_OTHER_COLOURS = "#332288 #999933 #882255 #44AA99 #661100 #6699CC #AA4499 #117733 #BB5566".split()
_OTHER_STYLES = [(_OTHER_COLOURS[i % 9], "<>hpd8H"[i % 7]) for i in range(63)]  # all differ
VERDICT_COLOURS = {"BEATS": "#00704F", "WORSE": "#B04A00", "EQUIVALENT": "#005A8C", "INCONCLUSIVE": GREY}
SHARE_COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#999999")  # of parts of a whole, the best first
HATCHES = ("", "///", "...", "xxx")
_METRIC_LABELS = {
    "validation": "validation accuracy (%)",
    "ce": "cross-entropy (nats)",
    "kd": "distillation loss (nats, for KL losses)",
}

P = ParamSpec("P")
_LOCK = threading.RLock()  # rc_context changes settings of the whole process, and widgets draw from threads


def arm_styles(arms: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(colour, marker) of each arm: fixed for the names in ARM_STYLES, for others derived from the name.

    So an arm looks the same in every figure and notebook, whatever the order of rows. Only where two other
    names would share a colour in one figure does the alphabetically later one move on to the next free style.
    """
    styles = dict.fromkeys(arms, ("", ""))
    taken: list[tuple[str, str]] = []
    for arm in sorted(set(styles) - set(ARM_STYLES)):
        slot = zlib.crc32(arm.encode()) % 63
        turn = _OTHER_STYLES[slot:] + _OTHER_STYLES[:slot]
        near = {colour for colour, _ in taken[-8:]}  # of 9 colours one is always free
        taken.append(next((s for s in turn if s not in taken and s[0] not in near), turn[0]))
        styles[arm] = taken[-1]
    return styles | {arm: ARM_STYLES[arm] for arm in styles if arm in ARM_STYLES}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the workbench's style, one thread at a time: matplotlib's settings are the whole process's."""
    with _LOCK, matplotlib.rc_context(STYLE):
        yield


def save(fig: Figure, path: str | Path) -> Path:
    """Write a figure as path's suffix says (png, svg, pdf), making the folder if need be; returns path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with style():
        fig.savefig(path)
    return path


class _Figure(Figure):
    """A Figure that a notebook shows at 700 px without %matplotlib inline, which would import pyplot."""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, object], dict[str, object]]:
        png = io.BytesIO()
        self.savefig(png, format="png")
        width, height = (round(100 * inches) for inches in self.get_size_inches())
        said = " – ".join(" ".join(text.get_text().split()) for text in self.texts)  # title and subtitle
        data = {"image/png": png.getvalue(), "text/plain": said or repr(self)}
        return data, {"image/png": {"width": width, "height": height}}


def _styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under STYLE and fix the layout: ticks and their fonts are otherwise only made when it is shown."""

    @functools.wraps(plot)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style():
            fig = plot(*args, **kwargs)
            fig.draw_without_rendering()
            fig.set_layout_engine("none")
        return fig

    return styled


@_styled
def training_curves(
    histories: pd.DataFrame, metric: str = "validation", title: str | None = None, *, note: str = ""
) -> Figure:
    """A metric against the step: thin lines for seeds, a bold one for each arm's mean over its seeds.

    Histories have columns arm, seed, step and the metric (validation: accuracy in [0, 1]; ce, kd: losses),
    NaN where it was not measured. Between its measurements a seed is interpolated; the mean spans the steps
    that all seeds of the arm reached.
    """
    _need(histories, ["arm", "seed", "step", metric], "histories")
    rows = histories.dropna(subset=[metric])
    if rows.empty:
        raise WorkbenchError(f"Histories hold no value of {metric!r}: choose a metric that was measured.")
    seeds = rows.groupby("arm", sort=False)["seed"].nunique()
    subtitle = _sentence(_seeds(seeds), "thin: one seed, bold: mean" if seeds.max() > 1 else "", note)
    fig = _figure(3.6, title or _METRIC_LABELS.get(metric, metric).split(" (")[0].capitalize(), subtitle)
    ax = fig.subplots()
    styles, ends = arm_styles(seeds.index), {}
    for arm, runs in rows.groupby("arm", sort=False):
        colour, marker = styles[arm]
        values = runs.pivot_table(index="step", columns="seed", values=metric)
        values *= 100 if metric == "validation" else 1
        values = values.interpolate(method="index", limit_area="inside")
        if seeds[arm] > 1:
            ax.plot(values.index, values, color=colour, lw=0.7, alpha=0.45)
        mean = values.dropna().mean(axis=1)
        marked = list(range(len(mean) - 1, -1, -max(1, len(mean) // 7)))  # the end has one, for its label
        ax.plot(mean.index, mean, color=colour, lw=2.4, **_marker(marker), markevery=marked)
        if len(mean):
            ends[arm] = mean.index[-1], mean.iloc[-1]
    ax.set(xlabel="optimiser step", ylabel=_METRIC_LABELS.get(metric, metric))
    ax.margins(x=0.02)
    ax.grid(axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    fig.draw_without_rendering()
    heights = np.sort([ax.transData.transform(end)[1] for end in ends.values()])
    apart = np.diff(heights).min(initial=np.inf) > 13 * fig.dpi / 72
    if apart and len({step for step, _ in ends.values()}) == 1 and max(map(len, ends)) <= 24:
        for arm, (_, value) in ends.items():
            ax.annotate(visible(arm), (1, value), xycoords=("axes fraction", "data"), xytext=(4, 0),
                        textcoords="offset points", va="center")  # fmt: skip
    else:
        _legend(fig, [_handle(arm, *styles[arm], line=True) for arm in styles])
    return fig


@_styled
def soft_labels(
    logits: ArrayLike,
    texts: Sequence[str],
    label_names: Sequence[str],
    temperatures: Sequence[float] = (0.5, 1, 2, 4),
    top: int = 6,
    *,
    title: str = "Soft labels at different temperatures",
    note: str = "",
) -> Figure:
    """Probabilities of the top classes: a row for each text [K] of logits [K, C], a column a temperature."""
    first = metrics.softmax(logits)
    _need_names(first, label_names)
    if len(texts) != len(first):
        raise WorkbenchError(
            f"{len(texts)} texts do not fit logits {list(first.shape)}: give one text a row."
        )
    top = min(top, first.shape[1])
    names = [_wrap(name, 24) for name in label_names]
    bar = 0.31 if any("\n" in name for name in names) else 0.19  # inches
    subtitle = _sentence(
        f"{len(texts)} text{'s' * (len(texts) > 1)}, top {top} of {first.shape[1]} classes", note
    )
    headers = [_wrap(f"“{text}”", 52, 3) for text in texts]
    height = 0.5 + sum(0.4 + bar * top + 0.16 * (header.count("\n") + 1) for header in headers)
    fig = _figure(height, title, subtitle)
    # A row of flat axes above each row of panels carries the text, so that long texts can span all columns.
    grid = fig.add_gridspec(2 * len(texts), len(temperatures), height_ratios=[0.01, bar * top] * len(texts))
    for row, text in enumerate(headers):
        header = fig.add_subplot(grid[2 * row, :])
        header.axis("off")
        header.set_title(text, loc="left", weight="bold", pad=1)
        order = np.argsort(-first[row], kind="stable")[:top]
        for column, temperature in enumerate(temperatures):
            ax = fig.add_subplot(grid[2 * row + 1, column])
            p = 100 * metrics.softmax(np.asarray(logits)[[row]], temperature)[0, order]
            ax.barh(np.arange(top), p, height=0.72, color=["#0072B2"] + ["#8CBEDD"] * (top - 1))
            for y, value in enumerate(p):
                ax.text(value + 3, y, "<1" if value < 1 else f"{value:.0f}", va="center", fontsize=8)
            ax.set(xlim=(0, 130), ylim=(top - 0.4, -0.6), xticks=[0, 50, 100])
            ax.set_title(f"T = {temperature:g}", fontsize=9, pad=3, color=GREY)
            ax.set_yticks(np.arange(top), [names[i] for i in order] if column == 0 else [])
            ax.tick_params(axis="y", length=0)
            ax.tick_params(axis="x", labelbottom=row == len(texts) - 1)
    fig.supxlabel("probability (%)", fontsize=9.5)
    return fig


@_styled
def entropy_by_temperature(
    logits: ArrayLike | dict[str, ArrayLike],
    temperatures: ArrayLike | None = None,
    *,
    title: str = "How soft the labels are at each temperature",
    note: str = "",
) -> Figure:
    """Mean entropy in nats of softmax(logits / T) against T, logits [N, C] of one model or several by name.

    The band holds the middle 80 % of the items; the dashed line, log C, is the entropy of a uniform label.
    Temperatures: 33 from 0.25 to 16 unless given.
    """
    models = logits if isinstance(logits, dict) else {"teacher": logits}
    if not models:
        raise WorkbenchError("There are no logits to draw: give an array [N, C] or a dict with at least one.")
    grid = np.geomspace(0.25, 16, 33) if temperatures is None else np.sort(np.asarray(temperatures, float))
    shapes = {name: metrics.softmax(values).shape for name, values in models.items()}
    n = _items(items for items, _ in shapes.values())
    fig = _figure(3.7, title, _sentence(n, "band: 10–90 % of items", note))
    ax = fig.subplots()
    styles = arm_styles(models)
    for name, values in models.items():
        colour, marker = styles[name]
        entropy = np.array([special.entr(metrics.softmax(values, t)).sum(1) for t in grid])
        ax.fill_between(grid, *np.quantile(entropy, [0.1, 0.9], axis=1), color=colour, alpha=0.15, lw=0)
        ax.plot(grid, entropy.mean(1), color=colour, **_marker(marker), markevery=4, clip_on=False)
    sizes = sorted({classes for _, classes in shapes.values()})
    for classes in sizes:
        ax.axhline(np.log(classes), color=GREY, ls="--", lw=1)
    uniform = "uniform: " + ", ".join(f"log {classes} = {np.log(classes):.2f}" for classes in sizes) + " nats"
    ax.annotate(uniform, (0, np.log(sizes[-1])), xycoords=("axes fraction", "data"), xytext=(4, 3),
                textcoords="offset points", color=GREY)  # fmt: skip
    ax.set(xscale="log", xlim=(grid[0], grid[-1]), ylim=(0, 1.13 * np.log(sizes[-1])))
    ax.set(xlabel="temperature T (log scale)", ylabel="mean entropy (nats)")
    _log_axis(ax, [t for t in (0.25, 0.5, 1, 2, 4, 8, 16) if grid[0] <= t <= grid[-1]])
    if len(models) > 1:
        _legend(fig, [_handle(name, *styles[name], line=True) for name in models])
    return fig


@_styled
def class_similarity(
    logits: ArrayLike,
    label_names: Sequence[str],
    temperature: float = 4.0,
    order: bool = True,
    *,
    title: str = "Dark knowledge: where the rest of the probability goes",
    note: str = "",
) -> Figure:
    """Dark knowledge of logits [N, C]: mean probability given to other classes, a row a predicted class.

    Rows are averages over the items predicted as that class; the diagonal, and rows of classes that are never
    predicted, stay blank. With order, hierarchical clustering (average linkage) puts similar classes side by
    side. Above 24 classes the columns carry the numbers of the rows. Dark knowledge: arXiv 1503.02531.
    """
    p = metrics.softmax(logits, temperature)
    _need_names(p, label_names)
    n, classes = p.shape
    predicted = p.argmax(1)
    table = np.full((classes, classes), np.nan)
    for label in np.unique(predicted):
        table[label] = p[predicted == label].mean(0)
    np.fill_diagonal(table, np.nan)
    ranks = similarity_order(table) if order else np.arange(classes)
    numbered = classes > 24
    size = 8.5 if not numbered else 6.5
    names = [shorten(label_names[i], 40 if numbered else 28) for i in ranks]
    room = 0.3 + max(map(len, names)) * size * 0.58 / 72  # inches the names take beside and below the map
    height = 0.6 + 0.125 * classes if numbered else min(WIDTH - room - 0.9, 5.2, 1 + 0.6 * classes) + room
    unused = classes - len(np.unique(predicted))
    fig = _figure(height, title, _sentence(f"n = {n:,} items, T = {temperature:g}",
                  f"{unused} never predicted (blank rows)" if unused else "", note))  # fmt: skip
    ax = fig.subplots()
    cmap = matplotlib.colormaps["Blues"].with_extremes(bad="#e9e9e9")
    image = ax.imshow(
        100 * table[np.ix_(ranks, ranks)], cmap=cmap, vmin=0, aspect="auto", interpolation="none"
    )
    if numbered:
        names = [f"{name}  {i}" for i, name in enumerate(names, 1)]
        ax.set_xticks(np.arange(4, classes, 5), np.arange(5, classes + 1, 5))
    else:
        ax.set_xticks(np.arange(classes), names, rotation=90)
    ax.set_yticks(np.arange(classes), names)
    ax.tick_params(length=0, labelsize=size)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="other class (number of its row)" if numbered else "other class", ylabel="predicted class")
    bar = fig.colorbar(image, ax=ax, label="mean probability of the other class (%)", aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    return fig


def similarity_order(table: np.ndarray) -> np.ndarray:
    """The rows of a table ``[C, C]`` of probabilities, NaN counting as 0, with similar ones side by side ``[C]``."""
    if len(table) < 3:
        return np.arange(len(table))
    similarity = np.nan_to_num(table)
    distance = similarity.max() - (similarity + similarity.T) / 2
    np.fill_diagonal(distance, 0)
    links = hierarchy.linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return hierarchy.leaves_list(links)


@_styled
def comparison(
    estimates: pd.DataFrame,
    verdicts: pd.DataFrame | None = None,
    reference: str | None = None,
    title: str | None = None,
    *,
    note: str = "",
) -> Figure:
    """Accuracy of each arm with its interval, the best on top, and to the right what was decided about it.

    Estimates are those of `verdicts.arm_estimates` (columns arm, estimate, low, high; n_templates, n_seeds if
    known), verdicts those of `verdicts.compare` (arm, baseline, estimate, verdict). NaN for low or high: no
    interval is known. Reference, usually the teacher, is an arm whose estimate is drawn as a dashed line.
    """
    return _comparison({"": (estimates, verdicts)}, reference, title or "Accuracy of each arm", note)


@_styled
def comparison_by_draw(
    draws: dict[str, tuple[pd.DataFrame, pd.DataFrame | None]],
    reference: str | None = None,
    title: str | None = None,
    *,
    note: str = "",
) -> Figure:
    """`comparison`, a panel for each label draw: one x axis, one order of arms (best mean on top)."""
    return _comparison(draws, reference, title or "Accuracy of each arm in each label draw", note)


def _comparison(
    draws: dict[str, tuple[pd.DataFrame, pd.DataFrame | None]], reference: str | None, title: str, note: str
) -> Figure:
    if not draws:
        raise WorkbenchError("There are no draws to compare: give estimates for at least one.")
    for name, (estimates, verdicts) in draws.items():
        _need(estimates, ["arm", "estimate", "low", "high"], f"estimates {name}".strip())
        if verdicts is not None:
            _need(verdicts, ["arm", "baseline", "estimate", "verdict"], f"verdicts {name}".strip())
        if reference is not None and reference not in set(estimates["arm"]):
            raise unknown("reference arm", reference, estimates["arm"])
    together = pd.concat([estimates for estimates, _ in draws.values()])
    rank = together.groupby("arm")["estimate"].mean().sort_values(ascending=False, kind="stable")
    styles, line = arm_styles(rank.index), 0.19  # inches a line of verdict takes; y counts inches
    panels = []
    for estimates, verdicts in draws.values():
        rows, y = [], 0.0
        estimates = estimates.set_index("arm")
        for arm in rank.index[rank.index.isin(estimates.index)]:
            decided = [] if verdicts is None else verdicts[verdicts["arm"] == arm].to_dict("records")
            height = 0.12 + max(line * len(decided), 0.32 if len(arm) > 24 else line)
            rows.append((arm, estimates.loc[arm], y + height / 2, decided))
            y += height
        panels.append((rows, y))
    dashed = f"dashed: {reference}" if reference is not None else ""
    bar = "bar: 95 % interval" if together[["low", "high"]].notna().all(axis=1).any() else ""
    height = 0.55 + sum(y + 0.1 + 0.3 * (len(draws) > 1) for _, y in panels)
    fig = _figure(height, title, _sentence(_evidence(together), bar, dashed, note))
    heights = [y for _, y in panels]
    axes = fig.subplots(len(draws), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, name, (rows, y_end) in zip(axes, draws, panels, strict=True):
        for arm, row, y, decided in rows:
            colour, marker = styles[arm]
            ax.plot(
                100 * row[["low", "high"]].astype(float), [y, y], color=colour, lw=2, solid_capstyle="butt"
            )
            ax.plot(100 * row["estimate"], y, color=colour, **_marker(marker, 7))
            if arm == reference:
                ax.axvline(100 * row["estimate"], color=colour, ls="--", lw=1, zorder=0)
            for i, verdict in enumerate(decided):
                ax.annotate(_verdict_text(verdict), (1, y + line * (i - (len(decided) - 1) / 2)),
                            xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
                            va="center_baseline", fontsize=8.5,
                            color=VERDICT_COLOURS.get(verdict["verdict"], GREY))  # fmt: skip
        names = [f"{_wrap(arm, 24)}  {100 * row['estimate']:.1f}" for arm, row, *_ in rows]
        ax.set_yticks([y for _, _, y, _ in rows], names)
        ax.set_ylim(y_end, 0)
        ax.tick_params(axis="y", length=0)
        ax.margins(x=0.06)
        ax.grid(axis="x")
        ax.set_title(shorten(name, 60), loc="left", weight="bold")
    axes[-1].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes[-1].set_xlabel("accuracy, class-balanced (%)")
    return fig


@_styled
def differences(
    verdict_tables: dict[str, pd.DataFrame],
    margin: float = 0.01,
    *,
    title: str = "Paired differences in accuracy",
    note: str = "",
) -> Figure:
    """Difference and interval of each declared pair in points, a marker for each label draw.

    Tables by draw are those of `verdicts.compare` (arm, baseline, estimate, low, high, verdict). The band is
    ±margin (a fraction: 0.01 is one point), within which arms count as equivalent; colour is the verdict.
    """
    if not verdict_tables:
        raise WorkbenchError("There are no verdicts to draw: give the table of at least one draw.")
    for name, table in verdict_tables.items():
        _need(table, ["arm", "baseline", "estimate", "low", "high", "verdict"], f"verdicts {name}")
    together = pd.concat(verdict_tables.values())
    pairs = list(dict.fromkeys(zip(together["arm"], together["baseline"], strict=True)))
    step, draws = 0.2, len(verdict_tables)  # inches from draw to draw; y counts inches
    row = 0.2 + max(step * draws, 0.35)
    drawn = f"bar: interval, Holm-adjusted; band: equivalence, ±{100 * margin:g} pp"
    subtitle = _sentence(_evidence(together), drawn, note)
    fig = _figure(0.95 + row * len(pairs), title, subtitle)
    ax = fig.subplots()
    ax.axvspan(-100 * margin, 100 * margin, color="#ececec", lw=0, zorder=0)
    ax.axvline(0, color=INK, lw=1, zorder=1)
    markers = [marker for _, marker in ARM_STYLES.values()]
    shape = {name: markers[i % len(markers)] for i, name in enumerate(verdict_tables)}
    for i, (name, table) in enumerate(verdict_tables.items()):
        for found in table.to_dict("records"):
            y = row * (pairs.index((found["arm"], found["baseline"])) + 0.5) + step * (i - (draws - 1) / 2)
            colour = VERDICT_COLOURS.get(found["verdict"], GREY)
            ax.plot(
                [100 * found["low"], 100 * found["high"]], [y, y], color=colour, lw=2, solid_capstyle="butt"
            )
            ax.plot(100 * found["estimate"], y, color=colour, **_marker(shape[name], 7))
    names = [f"{shorten(a, 26)}\n− {shorten(b, 26)}" for a, b in pairs]
    ax.set_yticks(row * (np.arange(len(pairs)) + 0.5), names)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(row * len(pairs), 0)
    for y in row * np.arange(1, len(pairs)):
        ax.axhline(y, color=PALE, lw=0.8, zorder=0)
    ax.set_xlabel("difference in accuracy (percentage points, pp)")
    verdicts = dict.fromkeys(together["verdict"])
    handles = [_handle(name, GREY, shape[name]) for name in verdict_tables]
    _legend(fig, handles + [Patch(color=VERDICT_COLOURS.get(v, GREY), label=v) for v in verdicts])
    return fig


@_styled
def quality_against_cost(
    table: pd.DataFrame, *, title: str = "Accuracy against latency and size", note: str = ""
) -> Figure:
    """Accuracy against latency in ms (log scale); the marker's area grows with the cube root of the bytes.

    Columns name, accuracy, low, high (NaN: no interval), latency_ms, bytes; n_templates, n_seeds if known.
    The stepped line is the Pareto front: the best accuracy to be had within each latency.
    """
    _need(table, ["name", "accuracy", "low", "high", "latency_ms", "bytes"], "the table")
    if not (table[["latency_ms", "bytes"]] > 0).all(axis=None):
        raise WorkbenchError(
            "A latency_ms or bytes is missing or not above 0: measure every row before drawing."
        )
    table = table.sort_values("latency_ms", kind="stable").reset_index(drop=True)
    x, y = table["latency_ms"].to_numpy(float), 100 * table["accuracy"].to_numpy(float)
    biggest = table["bytes"].max()
    scale = 420 / np.cbrt(biggest)  # in proportion to bytes, a student 100 times smaller could not be seen
    area = scale * np.cbrt(table["bytes"].to_numpy(float))  # pt²
    bars = "" if table[["low", "high"]].isna().all(axis=None) else "bar: 95 % interval"
    fig = _figure(4.6, title, _sentence(_evidence(table), bars, "line: Pareto front", note))
    ax = fig.subplots()
    styles = arm_styles(table["name"])
    for i, row in table.iterrows():
        colour, marker = styles[row["name"]]
        ax.plot([x[i], x[i]], [100 * row["low"], 100 * row["high"]], color=colour, lw=1.5)
        ax.scatter(x[i], y[i], s=area[i], color=colour, marker=marker, ec="white", lw=0.5, zorder=3)
    best = np.maximum.accumulate(y)
    front = np.flatnonzero(np.r_[True, best[1:] > best[:-1]])
    ax.set(xscale="log", xlim=(x.min() / 1.7, x.max() * 1.7))
    ends = np.r_[x[front], x.max() * 1.7], np.r_[y[front], y[front[-1]]]
    ax.step(*ends, where="post", color="#aaaaaa", lw=1.2, zorder=0)
    ax.margins(y=0.15)
    _log_axis(ax)
    ax.grid(axis="y")
    ax.set(xlabel="latency (ms a text, log scale)", ylabel="accuracy (%)")
    smallest = np.ceil(np.log10(max(biggest / 1000, table["bytes"].min())))
    sizes = [*10.0 ** np.arange(smallest, np.log10(biggest) - 0.3), biggest]
    handles = [_handle(_bytes(size), "#aaaaaa", "o", size=np.sqrt(scale * np.cbrt(size))) for size in sizes]
    _legend(fig, handles, title="model size", handleheight=2.4)
    fig.draw_without_rendering()
    _place_labels(ax, x, y, table, np.sqrt(area) / 2, front)
    return fig


@_styled
def sweep_map(
    table: pd.DataFrame,
    x: str = "temperature",
    y: str = "loss",
    value: str = "validation.balanced_accuracy",
    *,
    title: str | None = None,
    note: str = "",
) -> Figure:
    """Mean score over seeds (in %) of each cell of a grid; the best is framed, a band without x is hatched.

    All cells 10 points or more below the best share the darkest colour.

    Table is one of `sweeps.run_all` with columns x, y, value, seed and idle. Where x plays no part in a row (idle
    names it), the row's one cell spans all of x. Cells that were not run, or not finished, stay empty.
    """
    _need(table, [x, y, value, "seed", "idle"], "the table")
    if table[value].isna().all():
        raise WorkbenchError(f"No run of the table has a {value}: draw the map when some are finished.")
    without = table["idle"].str.split(", ").map(lambda names: x in names)
    spans = set(table.loc[without, y])
    columns = sorted(set(table.loc[~without, x])) or sorted(set(table[x]))[:1]
    means = 100 * table.groupby([y, x], sort=False)[value].mean()
    rows = {name: np.full(len(columns), of_row.mean()) if name in spans else of_row.droplevel(y).reindex(columns)
            for name, of_row in means.groupby(level=y, sort=False)}  # fmt: skip
    shown = pd.DataFrame([np.asarray(row) for row in rows.values()], index=list(rows), columns=columns)
    hatched = f"hatched: {x} plays no part" if spans else ""
    seeds = table.dropna(subset=[value])["seed"].nunique()
    subtitle = _sentence(f"mean of {seeds} seed{'s' * (seeds > 1)}", hatched, "framed: the best", note)
    fig = _figure(0.9 + 0.36 * len(shown), title or f"Score by {y} and {x}", subtitle)
    ax = fig.subplots()
    colours = matplotlib.colormaps["cividis"]
    top, bottom = np.nanmax(shown), np.nanmin(shown)
    floor = max(bottom, top - 10)  # one failed cell must not hide the differences between the others
    image = ax.imshow(shown, cmap=colours, aspect="auto", vmin=floor)
    for (i, j), score in np.ndenumerate(shown.to_numpy()):
        if np.isnan(score) or (shown.index[i] in spans and j):
            continue
        span = shown.index[i] in spans
        at = (len(shown.columns) - 1) / 2 if span else j
        dark = image.norm(score) < 0.4
        ax.text(at, i, f"{score:.1f}", ha="center", va="center", color="white" if dark else INK,
                bbox={"fc": colours(image.norm(score)), "ec": "none", "pad": 1.5} if span else None)  # fmt: skip
        if span:
            ax.add_patch(Rectangle((-0.5, i - 0.5), len(shown.columns), 1, fill=False, hatch="///", ec=GREY, lw=0))
    i, j = np.unravel_index(np.nanargmax(shown.to_numpy()), shown.shape)
    wide = len(shown.columns) if shown.index[i] in spans else 1
    left = -0.5 if wide > 1 else j - 0.5
    ax.add_patch(Rectangle((left, i - 0.5), wide, 1, fill=False, ec="#D55E00", lw=2.2, clip_on=False))
    ax.set_xticks(range(len(shown.columns)), [f"{v:g}" if np.isreal(v) else visible(v) for v in shown.columns])
    ax.set_yticks(range(len(shown)), [shorten(name, 30) for name in shown.index])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(x.replace("_", " "))
    extend = "min" if floor > bottom else "neither"
    label = "validation (%)" if value.startswith("validation") else f"{value} (%)"
    fig.colorbar(image, ax=ax, extend=extend, label=label)
    return fig


@_styled
def main_effects(table: pd.DataFrame, *, title: str = "What each choice costs", note: str = "") -> Figure:
    """Difference of each level of each factor to that factor's reference, with its interval, in points.

    Columns factor, level, estimate, low, high (fractions); estimate 0 with NaN bounds marks the reference.
    """
    _need(table, ["factor", "level", "estimate", "low", "high"], "the table")
    factors = list(dict.fromkeys(table["factor"]))
    line, gap = 0.21, 0.16  # inches; y counts inches
    bar = "bar: 95 % interval, Holm-adjusted; hollow: the reference"
    fig = _figure(
        0.75 + line * len(table) + gap * len(factors), title, _sentence(_evidence(table.assign(arm="all")), bar, note)
    )
    ax = fig.subplots()
    ax.axvline(0, color=INK, lw=1, zorder=1)
    y, ticks = gap, []
    for factor, rows in table.groupby("factor", sort=False):
        for row in rows.itertuples():
            reference = np.isnan(row.low)
            colour = GREY if reference or row.low <= 0 <= row.high else VERDICT_COLOURS["WORSE"]
            colour = VERDICT_COLOURS["BEATS"] if row.low > 0 else colour
            ax.plot([100 * row.low, 100 * row.high], [y, y], color=colour, lw=2, solid_capstyle="butt")
            ax.plot(100 * row.estimate, y, color="white" if reference else colour, marker="o", ms=6.5, mec=colour)
            ticks.append((y, f"{shorten(factor, 22)} = {shorten(row.level, 18)}"))
            y += line
        y += gap
        if factor != factors[-1]:
            ax.axhline(y - gap / 2 - line / 2, color=PALE, lw=0.8, zorder=0)
    ax.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(y - gap, 0)
    ax.grid(axis="x")
    ax.set_xlabel("difference in accuracy (percentage points)")
    return fig


@_styled
def lines_by(
    table: pd.DataFrame,
    x: str,
    *,
    xlabel: str,
    ylabel: str = "accuracy (%)",
    ylim: tuple[float, float] | None = (-3, 103),
    log: bool = False,
    beyond: float | None = None,
    title: str,
    note: str = "",
) -> Figure:
    """A fraction against a number, a line an arm, with its interval where low and high are known.

    Columns arm, x, estimate, low, high (fractions; NaN: no interval is known); n_seeds if known.

    Args:
        table: what is drawn.
        x: the column along the x axis.
        xlabel: its name and unit.
        ylabel: of the fraction, drawn in %.
        ylim: its range in %; None: what the data needs.
        log: whether the x axis is logarithmic.
        beyond: the x from which on nothing was trained: shaded, and said in words.
        title: the figure's.
        note: what only the caller knows.
    """
    _need(table, ["arm", x, "estimate", "low", "high"], "the table")
    known = table[["low", "high"]].notna().all(axis=1)
    subtitle = _sentence(_evidence(table), "bar: 95 % interval" if known.any() else "", note)
    fig = _figure(3.7, title, subtitle)
    ax = fig.subplots()
    styles = arm_styles(table["arm"])
    ticks = sorted(set(table[x]))
    # All at the same few places: arms are moved apart, so that their bars don't cover each other.
    same = len(ticks) <= 8 and table.groupby("arm")[x].nunique().eq(len(ticks)).all()
    places = np.log(ticks) if log else ticks
    apart = 0.25 * min(np.diff(places), default=1) / len(styles) if same else 0.0
    for i, (arm, rows) in enumerate(table.groupby("arm", sort=False)):
        colour, marker = styles[arm]
        rows = rows.sort_values(x)
        at, shift = rows[x].to_numpy(float), apart * (i - (len(styles) - 1) / 2)
        at = at * np.exp(shift) if log else at + shift
        ax.vlines(at, 100 * rows["low"], 100 * rows["high"], color=colour, lw=1.6, alpha=0.7)
        ax.plot(at, 100 * rows["estimate"], color=colour, lw=1.8, **_marker(marker, 7))
    if beyond is not None:
        ax.set_xlim(ax.get_xlim())
        ax.axvspan(beyond, ax.get_xlim()[1], color="#ececec", lw=0, zorder=0)
        ax.annotate("beyond training", (beyond, 1), xycoords=("data", "axes fraction"), xytext=(3, 2),
                    textcoords="offset points", color=GREY, fontsize=8.5)  # fmt: skip
    if log:
        ax.set_xscale("log")
        _log_axis(ax, ticks if len(ticks) <= 8 else None)
    elif same:
        ax.set_xticks(ticks)
    else:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if ylim:
        ax.set_ylim(ylim)
    ax.grid(axis="y")
    _legend(fig, [_handle(arm, *styles[arm], line=True) for arm in styles])
    return fig


def accuracy_by(
    table: pd.DataFrame, label: str, *, log: bool = True, title: str | None = None, note: str = ""
) -> Figure:
    """Class-balanced accuracy of each arm over an axis, with intervals: a dose and its response.

    Columns arm, x (a number), estimate, low, high (fractions); n_templates, n_seeds if known. Label names x and its
    unit.
    """
    return lines_by(
        table,
        "x",
        xlabel=label + (", log scale" if log else ""),
        ylabel="accuracy, class-balanced (%)",
        ylim=None,
        log=log,
        title=title or f"Accuracy by {label}",
        note=note,
    )


def _place_labels(
    ax: Axes, x: np.ndarray, y: np.ndarray, table: pd.DataFrame, radius: np.ndarray, front: np.ndarray
) -> None:
    """Write each name at the nearest place to its point that is free of markers, bars, lines and names."""
    point = ax.figure.dpi / 72
    at = ax.transData.transform(np.c_[x, y])
    intervals = zip(x, 100 * table["low"], 100 * table["high"], strict=True)
    bars = [ax.transData.transform([(x, low), (x, high)]) for x, low, high in intervals if low <= high]
    corners = np.r_[at[front], [[ax.bbox.x1, at[front[-1], 1]]]]
    steps = [leg for a, b in zip(corners, corners[1:], strict=False)
             for leg in ((a, (b[0], a[1])), ((b[0], a[1]), b))]  # fmt: skip
    lines = np.array([*bars, *steps]).reshape(-1, 4) + point * np.array([-1, -1, 1, 1])
    taken = np.r_[np.c_[at - radius[:, None] * point, at + radius[:, None] * point], lines]  # x0, y0, x1, y1
    ways = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)])
    axis_grids = [np.arange(low, high, 5 * point) for low, high in ax.bbox.get_points().T]
    everywhere = np.stack(np.meshgrid(*axis_grids), -1).reshape(-1, 2)
    for i, name in enumerate(table["name"]):
        label = ax.annotate(
            _wrap(name, 22), (x[i], y[i]), xytext=(0, 0), textcoords="offset points", fontsize=8.5, zorder=4,
            ha="center", va="center", bbox={"fc": "white", "alpha": 0.85, "lw": 0, "pad": 0.5},
        )  # fmt: skip
        half = label.get_window_extent().size / 2 + point
        centres = np.r_[at[i] + ways * (half + (radius[i] + 1) * point), everywhere]
        boxes = np.c_[centres - half, centres + half]
        gap = np.maximum(np.abs(centres - at[i]) - half, 0)  # from the point to the edge of the label
        cost = np.r_[np.arange(len(ways)), 20 * point + np.hypot(*gap[len(ways) :].T)]
        hits = (boxes[:, None, :2] < taken[:, 2:]).all(2) & (boxes[:, None, 2:] > taken[:, :2]).all(2)
        outside = (boxes[:, :2] < ax.bbox.min).any(1) | (boxes[:, 2:] > ax.bbox.max).any(1)
        best = np.argmin(cost + 1e5 * hits.sum(1) + 1e6 * outside)
        shift = centres[best] - at[i]
        label.set_position(shift / point)
        if np.hypot(*gap[best]) > (radius[i] + 8) * point:  # far off: a line says whose name it is
            ax.annotate(
                "", (x[i], y[i]), xytext=np.sign(shift) * gap[best] / point, textcoords="offset points",
                zorder=1,
                arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "lw": 0.7, "shrinkA": 0, "shrinkB": 0},
            )  # fmt: skip
        taken = np.r_[taken, boxes[[best]]]


@_styled
def reliability(
    models: dict[str, tuple[ArrayLike, ArrayLike] | pd.DataFrame],
    bins: int = 15,
    *,
    after: dict[str, tuple[ArrayLike, ArrayLike] | pd.DataFrame] | None = None,
    title: str = "Is the confidence justified?",
    note: str = "",
) -> Figure:
    """Accuracy against confidence of each model by name, counts beneath: probabilities [N, C] and labels [N].

    Or instead of them a finished curve, in the columns of `metrics.reliability` and with as many bins.
    On the diagonal a model is right as often as it says; below it is over-confident. Bins have equal width;
    ECE is the mean gap between the two (arXiv 1706.04599). With after, the same models after temperature
    scaling stand in a second column.
    """
    if not models:
        raise WorkbenchError("There are no models to draw: give probabilities and labels of at least one.")
    columns = [models] + ([after] if after else [])
    curves = [{k: v if isinstance(v, pd.DataFrame) else metrics.reliability(*v, bins) for k, v in column.items()}
              for column in columns]  # fmt: skip
    n = _items(int(curve["n"].sum()) for column in curves for curve in column.values())
    fig = _figure(5.0 if len(columns) == 1 else 4.2, title, _sentence(n, f"{bins} bins", note))
    shape = {"sharex": True, "sharey": "row", "squeeze": False, "height_ratios": [3, 1]}
    grid = fig.subplots(2, len(columns), **shape)
    styles, eces = arm_styles(models), {name: [] for name in models}
    edges = np.linspace(0, 1, bins + 1)
    for (ax, counts), drawn in zip(grid.T, curves, strict=True):
        ax.plot([0, 100], [0, 100], color=GREY, ls="--", lw=1)
        for name, curve in drawn.items():
            colour, marker = styles[name]
            ax.plot(100 * curve["confidence"], 100 * curve["accuracy"], color=colour, **_marker(marker),
                    clip_on=False)  # fmt: skip
            items = np.zeros(bins)
            items[np.searchsorted(edges[1:-1], curve["confidence"])] = curve["n"]
            counts.stairs(items, 100 * edges, color=colour, lw=1.5)
            gaps = (curve["accuracy"] - curve["confidence"]).abs()
            eces[name].append(f"{100 * np.average(gaps, weights=curve['n']):.1f}")
        ax.set(xlim=(0, 101.5), ylim=(0, 103))
        ax.grid()
    grid[1, 0].yaxis.set_major_locator(MaxNLocator(3, integer=True))
    grid[0, 0].set_ylabel("accuracy (%)")
    grid[1, 0].set_ylabel("items")
    for ax, when in zip(grid[0], ("before temperature scaling", "after") if after else ("",), strict=True):
        ax.set_title(when, loc="left", weight="bold")
    for ax in grid[1]:
        ax.set_xlabel("confidence: probability of the top class (%)")
    fig.align_ylabels()
    handles = [_handle(f"{shorten(name, 40)}: ECE {' → '.join(values)} %", *styles[name], line=True)
               for name, values in eces.items()]  # fmt: skip
    _legend(fig, [*handles, Line2D([], [], color=GREY, ls="--", lw=1, label="calibrated")])
    return fig


@_styled
def layer_importance(
    importance: ArrayLike, kept: Sequence[int], *, title: str = "What each layer does", note: str = ""
) -> Figure:
    """Importance of each layer ``[layers]`` as bars, those that a student keeps in full colour."""
    values = np.asarray(importance, float)
    fig = _figure(2.6, title, _sentence(f"{len(kept)} of {len(values)} layers kept", note))
    ax = fig.subplots()
    is_kept = np.isin(np.arange(len(values)), kept)
    for chosen, colour, hatch in ((True, "#0072B2", ""), (False, "#cccccc", "///")):
        where = np.flatnonzero(is_kept == chosen)
        ax.bar(where + 1, values[where], color=colour, hatch=hatch, ec="white", lw=0.5)
    ax.set(xlabel="layer", ylabel="1 − cosine(in, out)", xlim=(0.3, len(values) + 0.7))
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    ax.grid(axis="y")
    _legend(fig, [Patch(fc="#0072B2", label="kept"), Patch(fc="#cccccc", hatch="///", ec="white", label="cut")])
    return fig


@_styled
def perplexities(
    table: pd.DataFrame, *, reference: str | None = None, title: str = "Perplexity on held-out text", note: str = ""
) -> Figure:
    """A row an arm, a mark a seed, a thick stroke at the geometric mean; columns arm, perplexity.

    Args:
        table: one row a run, arms from top to bottom in the order of their first row.
        reference: an arm whose mean is drawn through all rows as a line.
        title: the figure's.
        note: what only the caller knows.
    """
    _need(table, ["arm", "perplexity"], "the table")
    arms = list(dict.fromkeys(table["arm"]))
    marks = "a mark a seed; stroke: geometric mean; left is better"
    fig = _figure(0.9 + 0.3 * len(arms), title, _sentence(marks, note))
    ax = fig.subplots()
    styles = arm_styles(arms)
    for y, arm in enumerate(arms):
        values = table.loc[table["arm"] == arm, "perplexity"].to_numpy(float)
        mean = np.exp(np.log(values).mean())
        colour, marker = styles[arm]
        ax.plot([mean, mean], [y - 0.32, y + 0.32], color=colour, lw=2.2, alpha=0.6)
        ax.plot(values, np.full(len(values), y), color=colour, ls="", **_marker(marker, 7))
        ax.annotate(f"{mean:,.3g}" if mean < 100 else f"{mean:,.0f}", (1, y), xycoords=("axes fraction", "data"),
                    xytext=(4, 0), textcoords="offset points", va="center")  # fmt: skip
        if arm == reference:
            ax.axvline(mean, color=GREY, ls="--", lw=1, zorder=0)
    low, high = table["perplexity"].min(), table["perplexity"].max()
    ax.set(xscale="log", xlim=(low / 1.15, high * 1.15), ylim=(len(arms) - 0.4, -0.6), xlabel="perplexity (log scale)")
    _log_axis(ax)
    ax.set_yticks(range(len(arms)), [shorten(arm, 40) for arm in arms])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    return fig


@_styled
def next_tokens(
    table: pd.DataFrame, text: str, *, title: str = "What comes next", note: str = ""
) -> Figure:
    """Probabilities of the next token after `text`: a row a token (the index), a bar for each column's model."""
    height = 0.8 + (0.12 + 0.16 * len(table.columns)) * len(table)
    fig = _figure(height, title, _sentence(f"after “…{text[-70:]}”", note))
    ax = fig.subplots()
    styles, height = arm_styles(table.columns), 0.8 / len(table.columns)
    for i, name in enumerate(table):
        y = np.arange(len(table)) + (i - (len(table.columns) - 1) / 2) * height
        ax.barh(y, 100 * table[name], height=0.9 * height, color=styles[name][0])
        for at, value in zip(y, 100 * table[name], strict=True):
            ax.text(value + 0.6, at, "<1" if value < 1 else f"{value:.0f}", va="center", fontsize=8)
    names = [repr(str(token))[1:-1].replace(" ", "␣") for token in table.index]
    ax.set_yticks(range(len(table)), names)
    ax.set(xlabel="probability (%)", ylim=(len(table) - 0.45, -0.55), xlim=(0, 1.12 * 100 * table.to_numpy().max()))
    ax.tick_params(axis="y", length=0)
    _legend(fig, [Patch(fc=styles[name][0], label=visible(name)) for name in table])
    return fig


@_styled
def fidelity(
    scores: pd.DataFrame, *, title: str = "Accuracy and fidelity are two things", note: str = ""
) -> Figure:
    """Accuracy against agreement with the teacher, and against the mean KL from it; right is nearer to it.

    A row an arm and seed: arm, seed, accuracy, agreement (fractions), mean_kl (nats), the teacher among them.
    Large: mean of an arm, small: its seeds (arXiv 2106.05945).
    """
    _need(scores, ["arm", "seed", "accuracy", "agreement", "mean_kl"], "scores")
    arms = scores.groupby("arm", sort=False)
    seeds, styles = arms["seed"].nunique(), arm_styles(scores["arm"])
    fig = _figure(3.5, title, _sentence(_seeds(seeds), "small: one seed, large: mean", note))
    axes = fig.subplots(1, 2, sharey=True)
    x_of = {"agreement": (100, "agreement with the teacher (%)"),
            "mean_kl": (1, "mean KL from the teacher (nats)")}  # fmt: skip
    for ax, (column, (unit, label)) in zip(axes, x_of.items(), strict=True):
        for arm, rows in arms:
            colour, marker = styles[arm]
            x, y = unit * rows[column], 100 * rows["accuracy"]
            if len(rows) > 1:
                ax.scatter(x, y, s=14, color=colour, marker=marker, alpha=0.45, lw=0)
            ax.plot(x.mean(), y.mean(), color=colour, **_marker(marker, 10))
        if "teacher" in seeds:
            ax.axhline(100 * arms["accuracy"].mean()["teacher"], color=INK, ls="--", lw=1, zorder=0)
        ax.margins(0.08)
        ax.grid()
        ax.set_xlabel(label)
    axes[1].invert_xaxis()
    axes[0].set_ylabel("accuracy, class-balanced (%)")
    _legend(fig, [_handle(arm, *styles[arm]) for arm in styles])
    return fig


@_styled
def flips(
    table: pd.DataFrame,
    label_names: Sequence[str],
    top: int = 20,
    *,
    title: str = "What changes for whom when the student takes over",
    note: str = "",
) -> Figure:
    """Negative flips to the left, positive to the right, a row a class of `metrics.flip_table`, worst on top."""
    _need(table, ["label", "negative", "positive", "low", "high", "n_templates"], "the table of flips")
    shown = table.head(top)
    more = f"worst {len(shown)} of {len(table)} classes" if len(shown) < len(table) else ""
    n, line = table["n_templates"].sum(), "line: joint 95 % interval of the losses"
    subtitle = _sentence(f"n = {n:,} templates (of a class in brackets)", more, line, note)
    fig = _figure(1.0 + 0.2 * len(shown), title, subtitle)
    ax = fig.subplots()
    y = np.arange(len(shown))
    kinds = {"negative": ("#D55E00", "teacher right, student wrong"),
             "positive": ("#0072B2", "student right, teacher wrong")}  # fmt: skip
    for sign, (kind, (colour, _)) in zip((-100, 100), kinds.items(), strict=True):
        ax.barh(y, sign * shown[kind], height=0.7, color=colour)
    ax.hlines(y, -100 * shown["high"], -100 * shown["low"], color=INK, lw=1)
    ax.axvline(0, color=INK, lw=1)
    names = [shorten(label_names[label], 40) for label in shown["label"]]
    ax.set_yticks(y, [f"{name} ({n})" for name, n in zip(names, shown["n_templates"], strict=True)])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
    ax.grid(axis="x")
    ax.set_xlabel("share of the class's texts (%)")
    _legend(fig, [Patch(color=colour, label=label) for colour, label in kinds.values()])
    return fig


@_styled
def refusal(
    models: dict[str, tuple[ArrayLike, ArrayLike, float]],
    *,
    title: str = "Does it know what it was not made for?",
    note: str = "",
) -> Figure:
    """Out-of-scope texts refused against in-scope texts refused, as the threshold on the confidence rises.

    By name: confidences [N] in scope, [M] out of scope, and the chosen threshold, whose point is marked. AUROC
    is the area under the curve, 50 % for guessing.
    """
    if not models:
        raise WorkbenchError("There are no models to draw: give the confidences of at least one.")
    n, m = (_items(len(pair[i]) for pair in models.values()) for i in (0, 1))
    fig = _figure(3.9, title, _sentence(f"in scope: {n}", f"out of scope: {m}", "marker: chosen threshold", note))
    ax = fig.subplots()
    styles, handles = arm_styles(models), []
    ax.plot([0, 100], [0, 100], color=GREY, ls="--", lw=1)
    for name, (inside, outside, threshold) in models.items():
        colour, marker = styles[name]
        levels = np.r_[np.unique(np.r_[inside, outside]), np.inf]
        share = [100 * np.searchsorted(np.sort(c), levels) / len(c) for c in (inside, outside)]
        ax.plot(*share, color=colour, lw=1.8)
        chosen = [100 * np.mean(np.asarray(c) < threshold) for c in (inside, outside)]
        ax.plot(*chosen, color=colour, clip_on=False, **_marker(marker, 9))
        label = f"{shorten(name, 40)}: AUROC {100 * metrics.auroc(inside, outside):.1f} %"
        handles.append(_handle(label, colour, marker, line=True))
    ax.set(xlim=(0, 100), ylim=(0, 101))
    ax.set(xlabel="in-scope texts refused (%)", ylabel="out-of-scope texts refused (%)")
    ax.grid()
    _legend(fig, [*handles, Line2D([], [], color=GREY, ls="--", lw=1, label="guessing")])
    return fig


@_styled
def difficulty(
    tables: dict[str, pd.DataFrame], *, title: str = "Where it gets hard", note: str = ""
) -> Figure:
    """Accuracy of each arm in slices of the items, easy to hard or few to many: a panel for each table by name.

    Tables are those of `verdicts.by_slice` (slice, arm, estimate, low, high, n_templates). One y axis.
    """
    if not tables:
        raise WorkbenchError("There are no slices to draw: give the table of at least one.")
    for name, table in tables.items():
        _need(table, ["slice", "arm", "estimate", "low", "high", "n_templates"], f"slices {name}")
    styles = arm_styles(pd.concat(tables.values())["arm"])
    crowded = max(table["slice"].nunique() for table in tables.values()) > 5
    columns = 1 if crowded else min(2, len(tables))
    rows = -(-len(tables) // columns)
    fig = _figure(0.3 + 2.5 * rows, title, _sentence("bar: 95 % interval; n: templates", note))
    axes = fig.subplots(rows, columns, sharey=True, squeeze=False)
    for ax in axes.flat[len(tables) :]:
        ax.axis("off")
    for ax, (name, table) in zip(axes.flat, tables.items(), strict=False):
        counts = table.groupby("slice", sort=False, observed=True)["n_templates"].max()
        place = pd.Series(np.arange(len(counts)), counts.index)
        for i, (arm, (colour, marker)) in enumerate(styles.items()):
            of_arm = table[table["arm"] == arm]
            x = place[of_arm["slice"]] + 0.5 * ((i + 0.5) / len(styles) - 0.5)
            ax.vlines(x, 100 * of_arm["low"], 100 * of_arm["high"], color=colour, lw=1.3)
            ax.plot(x, 100 * of_arm["estimate"], color=colour, lw=1, **_marker(marker))
        ax.set_xticks(place, [f"{_wrap(str(slice), 10)}\nn = {n}" for slice, n in counts.items()])
        ax.tick_params(axis="x", length=0, labelsize=8.5)
        ax.set_xlim(-0.5, len(counts) - 0.5)
        ax.set_title(shorten(name, 44), loc="left", weight="bold")
        ax.grid(axis="y")
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy (%)")
    _legend(fig, [_handle(arm, *styles[arm], line=True) for arm in styles])
    return fig


@_styled
def stacked_shares(
    table: pd.DataFrame, *, xlabel: str, title: str, colours: Sequence[str] = SHARE_COLOURS, note: str = ""
) -> Figure:
    """A bar a row of the table, cut into the shares that its columns give (fractions; a row sums to 1).

    The index names the bars; with two levels the first one groups them. Hatches and numbers repeat the colours.
    """
    if table.empty or len(table.columns) > len(colours):
        raise WorkbenchError(f"stacked_shares draws 1 to {len(colours)} shares of at least one row: give as many.")
    grouped = table.index.nlevels > 1
    places, y, last = [], 0.0, None
    for key in table.index:
        group = key[0] if grouped else None
        y += 0.3 if places and group != last else 0.0
        places.append(y)
        y, last = y + 0.24, group
    fig = _figure(0.75 + y, title, note)
    ax = fig.subplots()
    left = np.zeros(len(table))
    for column, colour, hatch in zip(table, colours, HATCHES, strict=False):
        share = 100 * table[column].to_numpy(float)
        ax.barh(places, share, left=left, height=0.19, color=colour, hatch=hatch, ec="white", lw=0.5, label=column)
        for at, start, width in zip(places, left, share, strict=True):
            if width >= 6:
                ax.text(start + width / 2, at, f"{width:.0f}", ha="center", va="center", fontsize=8,
                        bbox={"fc": "white", "alpha": 0.85, "lw": 0, "pad": 0.8})  # fmt: skip
        left += share
    inner = table.index.names[-1] or ""
    names = [visible(f"{key[0]}, {inner} {key[1]}" if grouped else key) for key in table.index]
    ax.set_yticks(places, names)
    ax.set(xlim=(0, 100), ylim=(y - 0.05, -0.19), xlabel=xlabel)
    ax.tick_params(axis="y", length=0)
    pairs = zip(colours, HATCHES, strict=False)
    shown = zip(table, pairs, strict=False)
    _legend(fig, [Patch(fc=c, hatch=h, ec="white", label=column) for column, (c, h) in shown])
    return fig


def _figure(height: float, title: str, subtitle: str) -> _Figure:
    """An empty figure with a title and a subtitle above height inches of room for axes."""
    title, subtitle = textwrap.fill(visible(title), 64), textwrap.fill(visible(subtitle), 104)
    above = 0.12 + 0.2 * (title.count("\n") + 1)
    head = above + 0.165 * (subtitle.count("\n") + 1) * bool(subtitle) + 0.1
    fig = _Figure(figsize=(WIDTH, height + head))
    fig.text(0.01, 1 - 0.08 / (height + head), title, size=11.5, weight="bold", va="top")
    fig.text(0.01, 1 - above / (height + head), subtitle, size=9, color=GREY, va="top")
    fig.set_layout_engine("constrained", rect=(0, 0, 1, height / (height + head)), h_pad=0.06, w_pad=0.06)
    return fig


def _log_axis(ax: Axes, ticks: list[float] | None = None) -> None:
    """Plain numbers on a log x axis."""
    ax.xaxis.set_major_locator(FixedLocator(ticks) if ticks else LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def _marker(marker: str, size: float = 6) -> dict[str, object]:
    """Keywords for a marker, and a larger star: it fills less of its square than the others."""
    return {"marker": marker, "ms": size * (1.5 if marker == "*" else 1), "mec": "white", "mew": 0.6}


def _handle(label: str, colour: str, marker: str, line: bool = False, size: float = 7) -> Line2D:
    return Line2D(
        [], [], color=colour, ls="-" if line else "", label=shorten(label, 60), **_marker(marker, size)
    )


def _legend(fig: Figure, handles: list[Line2D | Patch], **options: object) -> None:
    """A legend below the axes, in as many columns as fit."""
    for columns in range(len(handles), 0, -1):
        legend = fig.legend(
            handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.6, **options
        )
        if columns == 1 or legend.get_window_extent().width <= 0.98 * fig.bbox.width:
            return
        legend.remove()


def _wrap(text: str, width: int, lines: int = 2) -> str:
    """Text on at most so many lines, cut at spaces where it has any."""
    text = visible(text)
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder="…")) or text


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"


def _sentence(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _items(counts: Iterable[int]) -> str:
    """As "n = 190 items", or the range where models have different numbers."""
    counts = sorted(set(counts))
    return f"n = {'–'.join(f'{n:,}' for n in dict.fromkeys([counts[0], counts[-1]]))} items"


def _seeds(counts: pd.Series) -> str:
    """As "5 seeds (teacher 1)" of numbers of seeds by arm."""
    usual = int(counts.mode().max())
    others = ", ".join(f"{arm} {n}" for arm, n in counts[counts != usual].items())
    return f"{usual} seed{'s' * (usual > 1)}" + (f" ({others})" if others else "")


def _evidence(table: pd.DataFrame) -> str:
    """As "n = 190 templates, 5 seeds", as far as the table's columns n_templates (or n_problems) and n_seeds tell."""
    parts = []
    for name in {"n_templates", "n_problems"} & set(table):
        parts.append(_items(table[name].astype(int)).replace("items", name.removeprefix("n_")))
    if "n_seeds" in table:
        key = "name" if "name" in table else "arm"
        parts.append(_seeds(table.groupby(key, sort=False)["n_seeds"].max().astype(int)))
    return ", ".join(parts)


def _verdict_text(found: dict[str, object]) -> str:
    """As "BEATS labels only (+3.2)", the difference in points."""
    verdict = found["verdict"] if found["verdict"] in VERDICT_COLOURS else "no verdict"
    joint = {"BEATS": "", "WORSE": "than ", "EQUIVALENT": "to "}.get(verdict, "vs ")
    replaces = ", replaces it" if found.get("replaces") is True else ""
    difference = f"{round(100 * found['estimate'], 1) + 0:+.1f}".replace("-", "−")
    return f"{verdict} {joint}{shorten(found['baseline'], 22)} ({difference}){replaces}"


def _need(table: pd.DataFrame, columns: list[str], what: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise WorkbenchError(f"No column {', '.join(missing)} in {what}: it needs {', '.join(columns)}.")
    if table.empty:
        raise WorkbenchError(f"There are no rows in {what}: give at least one.")


def _need_names(p: np.ndarray, label_names: Sequence[str]) -> None:
    if len(label_names) != p.shape[1]:
        raise WorkbenchError(
            f"{len(label_names)} label names do not fit logits {list(p.shape)}: give one a class, in order."
        )
