"""Figures of money: when a student pays, what that hangs on, accuracy for dollars, what to buy next; a panel of prices.

Like `figures`, with the tables of `workbench.hosted`'s `economics`, `cascade` and `next_purchase`: every function
returns a Figure, accuracies are fractions and drawn in %, dollars are on logarithmic axes.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workbench.show import figures, findings, style, widgets
from workbench.show.figures import ACCURACY, need
from workbench.show.frames import Bar, Dial, pack
from workbench.show.style import BLUE, GREY, INK, LIGHT, arm_styles, figure, handles, legend, marked, styled

SHARES = (0.0, 0.1, 0.2, 0.5, 1.0)  # that are marked on a cascade's curve


@styled
def break_even(table: pd.DataFrame, volume: float, *, title: str | None = None, note: str = "") -> Figure:
    """Dollars per 1,000 requests against requests per month, a line per arm, with its band if low and high are known.

    Columns arm, requests_per_month, dollars, low, high (NaN: no band). The volume of the case is dashed; where a line
    crosses the teacher's, it has paid.
    """
    need(table, ["arm", "requests_per_month", "dollars", "low", "high"], "the costs")
    band = "band: 95 % interval" if table["low"].notna().any() else ""
    said = "both axes logarithmic", band, "dashed: this case's volume", note
    ax = figure(3.5, title or findings.of_break_even(table), *said).subplots()
    styles = arm_styles(table["arm"])
    for arm, of_arm in table.groupby("arm", sort=False):
        x = of_arm["requests_per_month"]
        ax.fill_between(x, of_arm["low"].clip(lower=1e-9), of_arm["high"], color=styles[arm][0], alpha=0.15, lw=0)
        every = max(1, len(of_arm) // 8)
        ax.plot(x, of_arm["dollars"], lw=2, markevery=every, **marked(styles[arm]))
    ax.axvline(volume, color=GREY, ls="--", lw=1, zorder=0)
    ax.set(xlabel="requests per month", ylabel="dollars per 1,000 requests, all in")
    ax.set_xlim(table["requests_per_month"].min(), table["requests_per_month"].max())
    style.log_axis(ax), style.log_axis(ax, axis="y")
    ax.grid()
    return legend(ax.figure, handles(styles))


@styled
def tornado(table: pd.DataFrame, estimate: float, unit: str, *, title: str | None = None, note: str = "") -> Figure:
    """An outcome with one input at a time at its low and its high end, the widest swing on top.

    Columns input, low, high, at_low, at_high of `economics.tornado`; infinite is drawn to the edge and called never.
    """
    need(table, ["input", "low", "high", "at_low", "at_high"], "the tornado")
    ends = table[["at_low", "at_high"]].to_numpy(float)
    finite = np.r_[ends[np.isfinite(ends)], estimate if np.isfinite(estimate) else []]
    finite = finite[finite > 0]
    left, right = (finite.min() / 2, finite.max() * 4) if len(finite) else (0.1, 10)
    said = "one input at a time", f"line: the estimate ({unit})", note
    ax = figure(0.9 + 0.4 * len(table), title or findings.of_tornado(table, unit), *said).subplots()
    for y, row in enumerate(table.to_dict("records")):
        for end, colour in (("low", LIGHT), ("high", BLUE)):
            start, stop = (np.clip(value, left, right) for value in (estimate, row[f"at_{end}"]))
            ax.plot([start, stop], [y, y], color=colour, lw=11, solid_capstyle="butt")
            if np.isinf(row[f"at_{end}"]):
                said, ink = f"never, at {_number(row[end])}", INK if end == "low" else "white"
                style.say(ax, said, (1, y), "x", (-4, 0), ha="right", va="center", fontsize=8, color=ink)
    ax.axvline(np.clip(estimate, left, right), color=INK, lw=1)
    spans = [f"{_number(row.low)} – {_number(row.high)}" for row in table.itertuples()]
    style.rows(ax, [f"{name.replace('_', ' ')}\n{span}" for name, span in zip(table["input"], spans, strict=True)])
    ax.set(xlabel=f"{unit} (log scale)", xlim=(left, right))
    style.log_axis(ax)
    ax.grid(axis="x")
    return legend(ax.figure, style.patches({"at its low end": LIGHT, "at its high end": BLUE}))


@styled
def accuracy_for_dollars(
    points: pd.DataFrame, curves: Mapping[str, pd.DataFrame], chosen: Mapping[str, float] | None = None, *,
    title: str | None = None, note: str = "",
) -> Figure:  # fmt: skip
    """Accuracy against dollars per 1,000 requests (log scale): points with their Pareto front, cascades as curves.

    Args:
        points: columns name, dollars, accuracy, low, high (fractions; NaN: no interval).
        curves: student -> its `cascade.curve` with a column dollars. Marks stand at 0, 10, 20, 50 and 100 % of calls to
            the teacher; dashed is random deferral, dotted the oracle.
        chosen: student -> share of calls that is ringed.
        title: the figure's.
        note: what only the caller knows.
    """
    need(points, ["name", "dollars", "accuracy", "low", "high"], "the points")
    at = ", ".join(f"{100 * share:g}" for share in SHARES)
    said = f"dots: {at} % of calls to the teacher" if curves else ""
    title = title or findings.of_trade(points, "dollars", "for $ {:.3g} per 1,000")
    ax = figure(4.1, title, said, figures.INTERVAL, "grey step: Pareto front", note).subplots()
    best = points[figures.pareto(points["dollars"], points["accuracy"])].sort_values("dollars")
    steps = np.r_[best["accuracy"], best["accuracy"].iloc[-1:]]
    ax.step([*best["dollars"], 1.5 * points["dollars"].max()], 100 * steps, where="post", color=style.PATH, zorder=0)
    styles = arm_styles(points["name"])
    for row in points.to_dict("records"):
        ax.vlines(row["dollars"], 100 * row["low"], 100 * row["high"], color=styles[row["name"]][0], lw=1.6)
        ax.plot(row["dollars"], 100 * row["accuracy"], zorder=4, **marked(styles[row["name"]], 9))
    for name, table in curves.items():
        colour, x = styles[name][0], table["dollars"]
        for way, dashes, width in (("cascade", "-", 2.2), ("random", "--", 1.0), ("oracle", ":", 1.2)):
            ax.plot(x, 100 * table[way], color=colour, ls=dashes, lw=width)
        some = [int(np.argmin(abs(table["share"] - share))) for share in SHARES]
        ax.plot(x.iloc[some], 100 * table["cascade"].iloc[some], "o", color=colour, ms=4.5, mec="white", mew=0.6)
        if chosen and name in chosen:
            here = int(np.argmin(abs(table["share"] - chosen[name])))
            ax.plot(x[here], 100 * table["cascade"][here], "o", ms=12, mfc="none", mec=INK, mew=1.4, zorder=5)
    ax.set(xlabel="dollars per 1,000 requests (log scale)", ylabel=ACCURACY)
    ax.margins(x=0.08, y=0.1)
    style.log_axis(ax)
    ax.grid()
    ways = {"cascade": "-", "random deferral": "--", "oracle": ":"} if curves else {}
    lines = [Line2D([], [], color=GREY, ls=dashes, label=way) for way, dashes in ways.items()]
    ring = Line2D([], [], ls="", marker="o", ms=10, mfc="none", mec=INK, label="chosen")
    return legend(ax.figure, [*handles(styles, line=False), *lines, *([ring] if chosen else [])])


@styled
def purchases(
    table: pd.DataFrame, corner: pd.DataFrame, *, title: str = "What to buy next", note: str = ""
) -> Figure:  # fmt: skip
    """What each offer gains, with its band, its price and points for it; beside it, who foretold the held-out corner.

    Args:
        table: of `next_purchase.purchases`, columns offer, dollars, points, low, high; NaN: not foretold.
        corner: of `next_purchase.held_out`, a row a way, columns foretold and found (fractions).
        title: the figure's.
        note: what only the caller knows.
    """
    need(table, ["offer", "dollars", "points", "low", "high"], "the purchases")
    need(corner, ["foretold", "found"], "the corner")
    said = "diamond: foretold, line: found", "bar: 95 % band of the law"
    fig = figure(0.8 + 0.4 * max(len(table), len(corner)), title, *said, note)
    left, right = fig.subplots(1, 2, width_ratios=[2, 3])
    left.axvline(100 * corner["found"].iloc[0], color=INK, lw=1, zorder=0)
    left.plot(100 * corner["foretold"], range(len(corner)), "D", color=BLUE, ms=7)
    style.rows(left, corner.index)
    left.set(title="the held-out corner", xlabel="accuracy (%)")
    for y, row in enumerate(table.to_dict("records")):
        each = f"{_number(1000 * row['points'] / row['dollars'])} per $ 1,000"
        each = each if round(row["low"], 1) > 0 else "gain not shown"
        said = f"$ {_number(row['dollars'])}\n{'not foretold' if np.isnan(row['points']) else each}"
        style.say(right, said, (1, y), "x", (6, 0), va="center", fontsize=8.5)
    right.hlines(range(len(table)), table["low"], table["high"], color=BLUE, lw=2)
    right.plot(table["points"], range(len(table)), "o", color=BLUE, ms=7)
    right.axvline(0, color=INK, lw=1, zorder=0)
    style.rows(right, [style.wrap(name, 24) for name in table["offer"]])
    right.set(title="what an offer gains", xlabel="points of accuracy")
    for ax in (left, right):
        ax.grid(axis="x")
        ax.margins(x=0.12)
    return fig


Slider = tuple[str, str, float, float, float]  # unit, tooltip, lowest, highest, value; logarithmic
Way = tuple[str, float, str]  # its name, dollars per 1,000 requests, what is said of it


class WhatIfPanel(widgets.Panel):
    """Turn prices, volume, wage and the price of a mistake, and see what is decided and each way of answering costs."""

    STOPS = 11  # of a slider in a published page, at most

    def __init__(self, costs: Callable[..., tuple[str, list[Way]]], sliders: Mapping[str, Slider]) -> None:
        """Show the costs at the sliders' values.

        Args:
            costs: from the values by name to what is decided, a verdict, and each way: its name, dollars per 1,000
                requests, and what is said beside its bar.
            sliders: name -> unit, tooltip, lowest, highest and first value; above 0.
        """

        def worded(**values: float) -> tuple[str, list[Way]]:
            decided, ways = costs(**values)
            return f"Decision: {findings.PLAIN.get(decided, decided)}", ways

        self.costs, self.sliders = worded, dict(sliders)
        moved = [
            widgets.control(
                ipw.FloatLogSlider, name.replace("_", " "), unit, tooltip, value=value, readout_format=",.4g",
                min=np.log10(low), max=np.log10(high), step=np.log10(high / low) / 100,
            )
            for name, (unit, tooltip, low, high, value) in sliders.items()
        ]  # fmt: skip
        super().__init__("What each way of answering costs at a price, volume, wage and price of a mistake", moved)
        self.watch(*moved)

    def draw(self) -> Figure:
        """One bar per way, on a logarithmic axis that stays where it is as long as the bars fit."""
        values = zip(self.sliders, self.controls, strict=True)
        decided, ways = self.costs(**{name: control.value for name, control in values})
        names, dollars, words = zip(*ways, strict=True)
        fig = style.figure(0.8 + 0.36 * len(ways), decided, "what each way of answering costs")
        ax = fig.subplots()
        colours = [look[0] for look in arm_styles(names).values()]
        low, high = 10.0 ** np.floor(np.log10(min(dollars))), 10.0 ** np.ceil(np.log10(max(dollars)))
        ax.barh(np.arange(len(ways)), np.subtract(dollars, low / 3), left=low / 3, color=colours, height=0.7)
        style.rows(ax, names)
        for y, said in enumerate(words):
            style.say(ax, said, (1, y), "x", (6, 0), va="center", fontsize=8.5)
        ax.set(xlim=(low / 3, high), xlabel="dollars per 1,000 requests, all in (log scale)")
        style.log_axis(ax)
        return fig

    def frames(self) -> dict[str, Any]:
        """The same at round values of each slider and at its first one; bars share one logarithmic scale."""
        at = {name: stops(low, high, value, self.STOPS) for name, (_, _, low, high, value) in self.sliders.items()}
        found = [self.costs(**dict(zip(at, values, strict=True))) for values in itertools.product(*at.values())]
        logs = [math.log10(dollars) for _, ways in found for _, dollars, _ in ways]
        low, high = math.floor(min(logs)), math.ceil(max(logs))

        def bar(way: str, dollars: float, said: str) -> Bar:
            told = f"$ {_number(dollars)}" + f", {said}" * bool(said)
            return way, (math.log10(dollars) - low) / (high - low), told

        rows = [[decided, *(bar(*way) for way in ways)] for decided, ways in found]
        dials = [
            Dial(f"{name.replace('_', ' ')} ({unit})", tooltip, [_number(v) for v in at[name]], at[name].index(value))
            for name, (unit, tooltip, _, _, value) in self.sliders.items()
        ]
        about = f"Dollars per 1,000 requests, all in; bars from $ {10.0**low:,g} to {10.0**high:,g} on a log scale"
        return pack(about, dials, rows, [look[0] for look in arm_styles(way for way, *_ in found[0][1]).values()])


def stops(low: float, high: float, value: float, most: int) -> list[float]:
    """At most so many round values from low to high, and the one given in place of its nearest."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        found = [v for v in found if low <= v <= high]
        if len(found) <= most:
            break
    found.remove(min(found, key=lambda v: abs(np.log(v / value))))
    return sorted([*found, value])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
