"""The one style of all figures, and the few primitives that draw into given axes: dots, lines, bars and heat maps.

The idea: a figure is a frame (title, subtitle, room for axes), primitives in it, and a legend. It is 7 inches wide
(700 px in a notebook, stored at twice that), laid out once and then fixed. Colours are Okabe and Ito's (Tol's for arms
without a fixed style); marker and words repeat what colour says, so that figures survive grey print. What is drawn
here takes fractions and shows %. Sizes and greys stand in `workbench.mplstyle`; read `figures` next.

pyplot is never imported: its hidden current figure goes wrong as soon as two threads draw.
"""

import functools
import io
import textwrap
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike

from workbench.escape import shorten, visible

STYLE = matplotlib.rc_params_from_file(Path(__file__).with_name("workbench.mplstyle"), use_default_template=False)
WIDTH = 7.0  # inches
INK, GREY, PALE = (STYLE[of] for of in ("text.color", "axes.edgecolor", "grid.color"))
BLUE, LIGHT, ORANGE, PATH = "#0072B2", "#8CBEDD", "#D55E00", "#aaaaaa"

Look = tuple[str, str]  # colour, marker
ARM_STYLES: dict[str, Look] = {
    "distilled": (BLUE, "o"),
    "labels only": (ORANGE, "s"),
    "label smoothing": ("#E69F00", "^"),
    "hard pseudo-labels": ("#009E73", "D"),
    "all true labels": ("#CC79A7", "v"),
    "bag of words": ("#777777", "P"),  # not Okabe and Ito's yellow, which is lost on white
    "2-layer cut": ("#56B4E9", "X"),
    "teacher": ("#000000", "*"),
}
# Arms of one notebook each: what plays the part of one of those above looks like it.
NOTEBOOK_STYLES: dict[str, Look] = {
    "distilled bag of words": ("#6699CC", "h"), "frozen MiniLM": ("#117733", ">"), "teacher in int8": ("#555555", "d"),
    "fine-tuned MiniLM": ("#009E73", "D"), "SmolLM2 zero-shot": ("#332288", "h"),
    "cut minilm-2": ("#661100", "8"), "cut minilm-2, labels only": ("#AA4499", "p"),
    "permuted non-target": ("#332288", "H"), "class means": ("#AA4499", "p"), "one teacher label": ("#661100", "8"),
    "cross-entropy": (ORANGE, "s"), "cross-entropy, all text": ("#CC79A7", "v"), "forward KL": (BLUE, "o"),
    "teacher's text": ("#009E73", "D"), "teacher's text, 4 times": ("#117733", "d"), "top-8": ("#56B4E9", "X"),
    "sampled-8": ("#E69F00", "^"), "n-grams": ("#777777", "P"), "n-grams, teacher's text": ("#332288", "h"),
    "answers only": (ORANGE, "s"), "answers only, equal tokens": ("#CC79A7", "v"), "verified traces": (BLUE, "o"),
    "verified traces, early teacher": ("#56B4E9", "X"), "unfiltered traces": ("#E69F00", "^"),
    "unfiltered traces, early teacher": ("#999933", "<"), "several traces": ("#009E73", "D"),
    "soft labels": ("#332288", "h"), "early teacher": ("#777777", "P"), "llama-2x64": (BLUE, "o"),
    "llama-1x64": ("#661100", "8"), "hard label": ("#E69F00", "^"), "5 repeats": ("#999933", "<"),
    "5 repeats, same money": ("#661100", "8"), "top 5": ("#56B4E9", "X"), "top 20": ("#6699CC", "h"),
    "all logits": (BLUE, "o"), "hidden states": ("#332288", "H"), "weights": ("#009E73", "D"),
    "letters over HTTP": ("#AA4499", "p"), "random": ("#777777", "P"), "uncertain": (BLUE, "o"),
    "diverse": ("#009E73", "D"), "student": (BLUE, "o"),
}  # fmt: skip
_OTHER_COLOURS = "#332288 #999933 #882255 #44AA99 #661100 #6699CC #AA4499 #117733 #BB5566".split()
_OTHER_STYLES = [(_OTHER_COLOURS[i % 9], "<>hpd8H"[i % 7]) for i in range(63)]  # all differ

P = ParamSpec("P")
_LOCK = threading.RLock()  # rc_context changes settings of the whole process, and widgets draw from threads


def arm_styles(arms: Iterable[str]) -> dict[str, Look]:
    """(colour, marker) of each arm: fixed for the names in the two tables above, for others derived from the name.

    So an arm looks the same in every figure and notebook, whatever the order of rows. Only where two other
    names would share a colour in one figure does the alphabetically later one move on to the next free style.
    """
    styles, fixed = dict.fromkeys(arms, ("", "")), NOTEBOOK_STYLES | ARM_STYLES
    taken = [fixed[arm] for arm in styles if arm in fixed]
    for arm in sorted(set(styles) - set(fixed)):
        slot = zlib.crc32(arm.encode()) % 63
        turn = _OTHER_STYLES[slot:] + _OTHER_STYLES[:slot]
        near = {colour for colour, _ in taken[-8:]}  # of 9 colours one is always free
        taken.append(next((s for s in turn if s not in taken and s[0] not in near), turn[0]))
        styles[arm] = taken[-1]
    return styles | {arm: fixed[arm] for arm in styles if arm in fixed}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the workbench's style, one thread at a time: matplotlib's settings are the whole process's."""
    with _LOCK, matplotlib.rc_context(STYLE):
        yield


def styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under STYLE and fix the layout: ticks and their fonts are otherwise only made when it is shown."""

    @functools.wraps(plot)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with drawing():
            fig = plot(*args, **kwargs)
            fig.draw_without_rendering()
            fig.set_layout_engine("none")
        return fig

    return drawn


class _Figure(Figure):
    """A Figure that a notebook shows at 700 px without %matplotlib inline, which would import pyplot."""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, object], dict[str, object]]:
        png = io.BytesIO()
        self.savefig(png, format="png")
        width, height = (round(100 * inches) for inches in self.get_size_inches())
        said = " – ".join(" ".join(text.get_text().split()) for text in self.texts)  # title and subtitle
        data = {"image/png": png.getvalue(), "text/plain": said or repr(self)}
        return data, {"image/png": {"width": width, "height": height}}


def figure(height: float, title: str, *said: str) -> Figure:
    """An empty figure: a title and a subtitle of what is said, above height inches of room for axes."""
    title = textwrap.fill(visible(title), 68)
    subtitle = textwrap.fill(visible("; ".join(part for part in said if part)), 104)
    above = 0.12 + 0.2 * (title.count("\n") + 1)
    head = above + 0.165 * (subtitle.count("\n") + 1) * bool(subtitle) + 0.1
    fig = _Figure(figsize=(WIDTH, height + head), layout="constrained")
    fig.text(0.01, 1 - 0.08 / (height + head), title, size=11.5, weight="bold", va="top")
    fig.text(0.01, 1 - above / (height + head), subtitle, size=9, color=GREY, va="top")
    fig.get_layout_engine().set(rect=(0, 0, 1, height / (height + head)))
    return fig


def legend(fig: Figure, handles: Sequence[Artist], **options: object) -> Figure:
    """The figure, with a legend below its axes in as many columns as fit."""
    for columns in range(len(handles), 0, -1):
        made = fig.legend(handles=handles, loc="outside lower center", ncols=columns, **options)
        if columns == 1 or made.get_window_extent().width <= 0.98 * fig.bbox.width:
            break
        made.remove()
    return fig


def handles(styles: Mapping[str, Look], line: bool = True, size: float = 7) -> list[Line2D]:
    """The entries of arms in a legend."""
    ls = "-" if line else ""
    return [Line2D([], [], ls=ls, label=shorten(arm, 60), **marked(look, size)) for arm, look in styles.items()]


def patches(colours: Mapping[str, str], hatches: Sequence[str] = ("",) * 9) -> list[Patch]:
    """The entries in a legend of areas that differ by colour."""
    areas = zip(colours.items(), hatches, strict=False)
    return [Patch(fc=c, ec="white" if hatch else c, hatch=hatch, label=visible(label)) for (label, c), hatch in areas]


def marked(look: Look, size: float = 6) -> dict[str, Any]:
    """Keywords for a line and its markers, and a larger star: it fills less of its square than the others."""
    colour, marker = look
    return {"color": colour, "marker": marker, "ms": size * (1.5 if marker == "*" else 1)}


def dots(
    ax: Axes, table: Mapping[str, ArrayLike], at: ArrayLike, look: Look, *, size: float = 7, bar: float = 2.0,
    upright: bool = False, **line: object,
) -> None:  # fmt: skip
    """Estimates of a table with their intervals (estimate, low, high; NaN: none), at places along the other axis.

    Args:
        ax: where to draw.
        table: a frame, or a row of one.
        at: the places: along x if upright, else along y.
        look: colour and marker.
        size: the marker's, in points.
        bar: the width of the intervals, in points.
        upright: whether estimates go along y.
        line: what else to say of the line that joins the markers.
    """
    estimate, low, high = (100 * table[column] for column in ("estimate", "low", "high"))
    (ax.vlines if upright else ax.hlines)(at, low, high, color=look[0], lw=bar)
    ax.plot(*((at, estimate) if upright else (estimate, at)), **marked(look, size) | line)


def lines(
    ax: Axes, table: pd.DataFrame, at: pd.Series, styles: Mapping[str, Look], apart: float = 0.0, log: bool = False,
    **line: Any,
) -> None:  # fmt: skip
    """`dots` of each arm of a table, joined, at places along x; arms move `apart` lest their intervals hide each other.

    On a logarithmic axis `apart` is a difference of logarithms. The rest is told to `dots`.
    """
    for i, (arm, look) in enumerate(styles.items()):
        of_arm, shift = table["arm"] == arm, apart * (i - (len(styles) - 1) / 2)
        x = at[of_arm] * np.exp(shift) if log else at[of_arm] + shift
        dots(ax, table[of_arm], x, look, upright=True, **line)


def bars(ax: Axes, shares: ArrayLike, colour: str | Sequence[str], at: ArrayLike | None = None, height: float = 0.72,
         gap: float = 3) -> None:  # fmt: skip
    """Lying bars of fractions in %, each with its number behind it, `gap` percent apart."""
    percent = 100 * np.asarray(shares, float)
    at = np.arange(len(percent)) if at is None else at
    ax.barh(at, percent, height=height, color=colour)
    for value, y in zip(percent, at, strict=True):
        ax.text(value + gap, y, "<1" if value < 1 else f"{value:.0f}", va="center", fontsize=8)


def rows(ax: Axes, names: Sequence[str], at: ArrayLike | None = None, ends: tuple[float, float] | None = None) -> None:
    """Names along the y axis, the first on top: one a unit, or at places between the two ends, top and bottom."""
    ax.set_yticks(np.arange(len(names)) if at is None else at, names)
    top, bottom = ends or (-0.6, len(names) - 0.4)
    ax.set_ylim(bottom, top)
    ax.tick_params(axis="y", length=0)


def heat_map(ax: Axes, table: ArrayLike, label: str, *, bar: Mapping[str, Any], **image: Any) -> AxesImage:
    """A table ``[R, C]`` as coloured cells, NaN grey, with a bar of its colours; the caller names rows and columns."""
    cmap = matplotlib.colormaps[image.pop("cmap", "Blues")].with_extremes(bad="#e9e9e9")
    shown = ax.imshow(table, cmap=cmap, aspect="auto", interpolation="none", **image)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(shown, label=label, **bar).outline.set_visible(False)
    return shown


def log_axis(ax: Axes, ticks: Sequence[float] | None = None, axis: str = "x") -> None:
    """A log axis with plain numbers."""
    ax.set(**{f"{axis}scale": "log"})
    of = ax.xaxis if axis == "x" else ax.yaxis
    low, high = of.get_view_interval()
    of.set_major_locator(FixedLocator(ticks) if ticks else LogLocator(subs=(1,) if high > 5000 * low else (1, 2, 5)))
    of.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    of.set_minor_locator(NullLocator())


def say(ax: Axes, words: str, at: tuple[float, float], axes: str, offset: tuple[float, float], **text: Any) -> None:
    """Words some points off a place; `axes` names the coordinates ("x", "y" or "xy") that are fractions of the axes."""
    coordinates = tuple("axes fraction" if name in axes else "data" for name in "xy")
    ax.annotate(words, at, xycoords=coordinates, xytext=offset, textcoords="offset points", **text)


def place_names(ax: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], radius: np.ndarray) -> None:
    """Write each name at the nearest place around its point ``[N]`` that is free of markers, lines and names.

    radius ``[N]`` is the markers', in points. A name that had to move far off gets a line to its point.
    """
    point, at = ax.figure.dpi / 72, ax.transData.transform(np.c_[x, y])  # all that follows is in pixels
    corners = [line.get_transform().transform(line.get_path().vertices) for line in ax.lines]
    legs = np.concatenate([np.stack([path[:-1], path[1:]], 1) for path in corners])
    reach = radius[:, None] * point
    taken = np.r_[np.c_[at - reach, at + reach], np.c_[legs.min(1) - point, legs.max(1) + point]]  # x0, y0, x1, y1
    ways = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1), *((x, y / 2) for x in (1, -1)
                     for y in (1, -1)), *((x / 2, y) for x in (1, -1) for y in (1, -1))])  # fmt: skip
    steps = np.r_[1, 9:300:4][:, None, None]  # points from marker to name, the nearest first
    look = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 8.5, "zorder": 4,
            "bbox": {"fc": "white", "alpha": 0.85, "lw": 0, "pad": 0.5}}  # fmt: skip
    for i, name in enumerate(names):
        arrow = {"arrowstyle": "-", "color": PATH, "lw": 0.7, "shrinkA": 0, "shrinkB": radius[i]}
        label = ax.annotate(wrap(name, 22), (x[i], y[i]), (0, 0), **look, arrowprops=arrow)
        half = Text.get_window_extent(label).size / 2 + point
        centres = (at[i] + ways * (half + (radius[i] + steps) * point)).reshape(-1, 2)
        boxes = np.c_[centres - half, centres + half]
        hits = (boxes[:, None, :2] < taken[:, 2:]).all(2) & (boxes[:, None, 2:] > taken[:, :2]).all(2)
        outside = (boxes[:, :2] < ax.bbox.min).any(1) | (boxes[:, 2:] > ax.bbox.max).any(1)
        best = np.argmin(hits.sum(1) + 10 * outside)
        label.set_position((centres[best] - at[i]) / point)
        label.arrow_patch.set_visible(best >= len(ways))
        taken = np.r_[taken, boxes[[best]]]


def wrap(text: object, width: int, lines: int = 2) -> str:
    """Text on at most so many lines, cut at spaces where it has any."""
    text = visible(text)
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder="…")) or text
