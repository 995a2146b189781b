"""Panels for JupyterLab: controls above one picture. Sliders redraw from what is stored; only Train starts work.

The idea: a panel is its controls and a `draw` that makes one picture of their values with the primitives of all figures
(`style`, `figures`). Every panel shows itself as the last value of a cell; its picture stays in static pages and on
GitHub, where no kernel runs. How they draw and lock: `widgets`; the one that trains, to read next: `training_panel`.
"""

import functools
import textwrap
import timeit
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy import special

from workbench import metrics
from workbench.errors import WorkbenchError
from workbench.escape import shorten, visible
from workbench.show import figures, style, widgets
from workbench.show.frames import Dial, pack
from workbench.show.training_panel import TrainingPanel, config_code
from workbench.show.widgets import Panel, choice, control, said
from workbench.turns import Own

__all__ = ["ComparePanel", "Panel", "SweepPanel", "TemperaturePanel", "TracesPanel", "TrainingPanel", "TryItPanel"]


class TemperaturePanel(Panel):
    """Turn the temperature: one text's soft label, its entropy, its neighbours, and the map of similar classes.

    Everything is drawn from logits that are given; the axes stay where they are while the slider moves.
    """

    NEIGHBOURS, CHOICES, BARS = 4, 50, 6
    PAGE_TEXTS, PAGE_STEPS = 8, 25  # that a published page offers
    _ORDERS = ("as given", "most certain first", "least certain first", "teacher wrong")

    def __init__(
        self, logits: ArrayLike, texts: Sequence[str], label_names: Sequence[str], *,
        truth: ArrayLike | None = None, temperature: float = 2.0,
    ) -> None:  # fmt: skip
        """Show `texts`.

        Args:
            logits: the teacher's, ``[N, C]``.
            texts: N of them.
            label_names: C of them.
            truth: ``[N]`` true classes, -1 where unknown; needed to find texts the teacher gets wrong.
            temperature: to start with, in [.25, 16].

        Raises:
            WorkbenchError: shapes that don't fit.
        """
        self.logits = np.asarray(logits, dtype=np.float64)
        self.texts, self.label_names = list(texts), list(label_names)
        if self.logits.shape != (len(self.texts), len(self.label_names)):
            raise WorkbenchError(
                f"Logits {list(self.logits.shape)} do not fit {len(self.texts)} texts and {len(self.label_names)} "
                "label names: give one row per text and one column per class."
            )
        self.top, self.certainty = self.logits.argmax(1), metrics.softmax(self.logits).max(1)
        self.truth = np.full(len(self.texts), -1) if truth is None else np.asarray(truth)
        only = "Only texts that contain this; empty for all"
        self.search = control(ipw.Text, "text contains", "", only, placeholder="any")
        self.order = choice("order", "", "Which texts to offer first", self._ORDERS)
        self.example = choice("example", "", "The text whose soft label is drawn", [])
        span = {"base": 2, "min": -2, "max": 4, "step": 0.125, "readout_format": ".2f", "value": temperature}
        self.temperature = control(ipw.FloatLogSlider, "temperature T", "", widgets.SOFTER, **span)
        controls = [self.search, self.order, self.example, self.temperature]
        super().__init__("One text's soft label at a temperature T, its neighbours and the classes' likeness", controls)
        self.rank = figures.similarity_order(figures.likeness(metrics.softmax(self.logits, 2.0)))
        with style.drawing():
            self._compose()
        self._find()
        for steering in (self.search, self.order):
            steering.observe(lambda _: self._find(), names="value")
        self.watch(self.example, self.temperature)

    def _find(self) -> None:
        """Offer the texts that the search and the order ask for; keep the chosen one if it is among them."""
        with self.lock:
            wanted, order = self.search.value.strip().lower(), self.order.value
            found = np.array([i for i, text in enumerate(self.texts) if wanted in text.lower()], dtype=int)
            if order == "teacher wrong":
                found = found[(self.truth[found] >= 0) & (self.truth[found] != self.top[found])]
            if order != "as given":
                sign = 1 if order == "least certain first" else -1
                found = found[np.argsort(sign * self.certainty[found], kind="stable")]
            if not len(found):
                self.note.value = said("No such text: the one below stays.", alert=True)
                return
            self.note.value = said(f"{len(found):,} of {len(self.texts):,} texts")
            offered = found[: self.CHOICES]
            kept = self.example.value if self.example.value in offered and wanted else int(offered[0])
            self.example.options = [(shorten(self.texts[i], 60), int(i)) for i in offered]
            self.example.value = kept

    def _compose(self) -> None:
        """Draw what never moves and keep its pixels; make the artists that `draw` moves over them.

        Most of a picture's time goes into its words: with 19 classes a whole one takes three times as long.
        """
        classes = len(self.label_names)
        below = max(2.0, 0.15 * classes)
        height = 4.75 + below  # inches
        fig = self._fig = Figure(figsize=(style.WIDTH, height), dpi=widgets.DPI)
        canvas = FigureCanvasAgg(fig)

        def place(left: float, top: float, width: float, tall: float) -> Axes:
            return fig.add_axes((left, 1 - (top + tall) / height, width, tall / height))

        say = functools.partial(fig.text, 0.01, va="top", s="")
        self._bars, entropy = place(0.28, 0.62, 0.27, 1.55), place(0.67, 0.62, 0.31, 1.55)
        self._bars.set(xlim=(0, 115), xticks=[0, 25, 50, 75, 100], xlabel="probability (%)")
        self._bars.set(ylim=(5.6, -0.6), yticks=[])
        self._grid = np.geomspace(0.25, 16, 49)
        (self._line,) = entropy.plot(self._grid, np.zeros(49), color=style.BLUE)
        (self._dot,) = entropy.plot([1], [0], "o", color=style.ORANGE, ms=8)
        figures.entropy_axes(entropy, [classes])
        entropy.set_ylabel("entropy (nats)")
        self._head, self._sub = say(y=1 - 0.08 / height, weight="bold"), say(y=1 - 0.3 / height, color=style.GREY)
        say(y=1 - 2.78 / height, s="Neighbours: texts whose soft labels at T are closest (KL in nats)", weight="bold")
        self._near = say(y=1 - 3.02 / height, linespacing=1.5)
        rest = f"Where the rest of the probability goes: mean of {len(self.texts):,} texts, one row per predicted class"
        say(y=1 - 4 / height, s=rest, weight="bold")
        names = [shorten(self.label_names[i], 34) for i in self.rank]
        some = [figures.likeness(metrics.softmax(self.logits, t)) for t in (1.0, 2.0, 4.0, 8.0)]
        peak = 100 * np.nanmax(some, initial=0.01)
        blank, bar = np.full((classes, classes), np.nan), {"cax": place(0.88, 4.27, 0.018, below)}
        size = 8 if classes <= 24 else 6.5
        self._map = figures.likeness_map(place(0.36, 4.27, 0.5, below), blank, names, True, size, vmax=peak, bar=bar)
        self._moving = [self._line, self._dot, self._head, self._sub, self._near, self._map]
        for artist in self._moving:
            artist.set_animated(True)
        canvas.draw()
        self._background = canvas.copy_from_bbox(fig.bbox)

    def draw(self) -> Figure:
        """Move what depends on the controls over a background that is drawn once."""
        i, t = self.example.value, self.temperature.value
        log_soft = special.log_softmax(self.logits / t, axis=1)
        shown, p, entropy, says, near = self._told(i, t, log_soft)
        for old in (*self._bars.patches, *self._bars.texts):
            old.remove()
        style.bars(self._bars, p, [style.BLUE] + [style.LIGHT] * (len(shown) - 1), gap=2)
        for y, label in enumerate(shown):
            self._bars.text(-3, y, shorten(self.label_names[label], 24), ha="right", va="center")
        self._line.set_ydata(figures.entropies(self.logits[[i]], self._grid)[:, 0])
        self._dot.set_data([t], [entropy])
        self._head.set_text(f"“{shorten(self.texts[i], 70)}”")
        self._sub.set_text(says)
        self._near.set_text("\n".join(near))
        self._map.set_data(100 * figures.likeness(np.exp(log_soft))[np.ix_(self.rank, self.rank)])
        self._fig.canvas.restore_region(self._background)
        for artist in (*self._bars.patches, *self._bars.texts, *self._moving):
            self._fig.draw_artist(artist)
        return self._fig

    def frames(self) -> dict[str, Any]:
        """Some texts, from the surest to the least sure and the chosen one among them, at some temperatures."""
        chosen, ranked = self.example.value, np.argsort(-self.certainty, kind="stable")
        spread = ranked[np.linspace(0, len(ranked) - 1, min(self.PAGE_TEXTS, len(ranked))).astype(int)]
        texts = [int(i) for i in ranked if i in spread or i == chosen]
        levels = np.geomspace(0.25, 16, self.PAGE_STEPS)
        rows = {}
        for t in levels:
            log_soft = special.log_softmax(self.logits / t, axis=1)
            for i in texts:
                shown, p, _, says, near = self._told(i, t, log_soft)
                names = [shorten(self.label_names[c], 34) for c in shown]
                bars = zip(names, p, (f"{100 * share:.1f} %" for share in p), strict=True)
                near = [f"near: {line}" for line in near] + [""] * (self.NEIGHBOURS - len(near))  # in few texts
                rows[i, t] = [says, *bars, *near]
        dials = [
            Dial("text", "From the surest to the least sure", [shorten(self.texts[i], 70) for i in texts],
                 texts.index(chosen)),
            Dial("temperature T", widgets.SOFTER, [f"{t:.3g}" for t in levels],
                 int(np.argmin(abs(np.log(levels / self.temperature.value))))),
        ]  # fmt: skip
        about = "A text's soft label, and the texts whose soft labels at T are closest (KL)"
        frames = (rows[i, t] for i in texts for t in levels)
        return pack(about, dials, frames, [style.BLUE] + [style.LIGHT] * (len(shown) - 1))

    def _told(self, i: int, t: float, log_soft: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, str, list[str]]:
        """Of text i, from all at T ``[N, C]``: its likeliest classes, their p, its entropy, a sentence, neighbours."""
        p = np.exp(log_soft[i])
        shown = np.argsort(-self.logits[i], kind="stable")[: self.BARS]
        entropy = float(special.entr(p).sum())
        says = f"T = {t:.3g}; entropy {entropy:.2f} nats; teacher: {shorten(self.label_names[self.top[i]], 22)}"
        if self.truth[i] >= 0:
            wrong = self.truth[i] != self.top[i]
            says += f", {f'wrong: {shorten(self.label_names[self.truth[i]], 22)}' if wrong else 'right'}"
        return shown, p[shown], entropy, says, self._neighbours(i, log_soft)

    def _neighbours(self, i: int, log_soft: np.ndarray) -> list[str]:
        """A line for each of the other texts whose soft labels ``[N, C]`` are nearest to that of text i."""
        distance = (log_soft[i] - log_soft) @ np.exp(log_soft[i])
        other = np.flatnonzero([text != self.texts[i] for text in self.texts])
        nearest = other[np.argsort(distance[other], kind="stable")[: self.NEIGHBOURS]]
        return [f"{abs(distance[j]):.2g}  “{shorten(self.texts[j], 48)}”  {shorten(self.label_names[self.top[j]], 26)}"
                for j in nearest]  # fmt: skip


Models = Mapping[str, Callable[[list[str]], ArrayLike]]


class TryItPanel(Panel):
    """Type a sentence; see what teacher and students make of it, and how long each takes."""

    BARS, REPEATS = 6, 3

    def __init__(self, models: Models, label_names: Sequence[str], text: str) -> None:
        """Ask `models` about `text` at once.

        Args:
            models: name -> a function from texts to logits ``[N, C]``, such as a teacher's `logits`; at most four.
            label_names: C of them.
            text: to start with.
        """
        about = "Probabilities and milliseconds of each model for one sentence"
        self.models, self.label_names = dict(models), list(label_names)
        if not self.models:
            return self.lack(about, "No models to try: run notebook 03, which trains a student.")
        wide = {"value": text, "continuous_update": False, "layout": widgets.LAYOUT | {"width": "63em"}}
        tooltip = "A sentence for the models; press Enter to ask them"
        self.text = control(ipw.Text, "sentence", "press Enter", tooltip, **wide)
        super().__init__(about, [self.text])
        self.watch(self.text)

    def ask(self, text: str) -> pd.DataFrame:
        """Probabilities, a row per model; the index also has the median milliseconds of a call with this one text.

        On one thread, as on a small device, and between the steps of a run that goes on.
        """
        rows = {}
        with Own(threads=1).turn():
            for name, logits in self.models.items():
                found = logits([text])  # and with that it is warm
                seconds = timeit.repeat(functools.partial(logits, [text]), number=1, repeat=self.REPEATS)
                rows[name, 1000 * float(np.median(seconds))] = metrics.softmax(found)[0]
        index = pd.MultiIndex.from_tuples(rows, names=["model", "ms"])
        return pd.DataFrame(rows.values(), index, self.label_names)

    def draw(self) -> Figure:
        """One column of bars per model, the same classes in each."""
        text = self.text.value.strip()
        if not text:
            raise WorkbenchError("There is no sentence: type one and press Enter.")
        self.note.value = ""
        table = self.ask(text)
        order = np.argsort(-table.mean().to_numpy(), kind="stable")[: self.BARS]
        fig = style.figure(2, f"“{shorten(text, 110)}”")
        axes = fig.subplots(1, len(table), sharey=True, squeeze=False)[0]
        looks = style.arm_styles(self.models).values()
        for ax, look, ((name, ms), row) in zip(axes, looks, table.iterrows(), strict=True):
            style.bars(ax, row.iloc[order], look[0])
            ax.set(xlim=(0, 125), xticks=[0, 50, 100], xlabel="probability (%)")
            ax.set_title(f"{style.wrap(name, 20)}\n{ms:.1f} ms", fontsize=9, loc="left")
            style.rows(ax, [shorten(self.label_names[i], 26) for i in order], ends=(-0.6, self.BARS - 0.4))
        return fig


class SweepPanel(Panel):
    """Finished runs of a sweep: choose axes, metric and slice, then look into a single run."""

    def __init__(self, runs: pd.DataFrame | None) -> None:
        """Show the table of `sweeps.run_all`.

        Args:
            runs: a row per run: the fields of its config, its scores (names with a dot) and, for its curve, ``run``.
        """
        about = "A score of finished runs against a setting, and one run's curve"
        if runs is None or not len(runs):
            return self.lack(about, "No finished runs to explore: run notebook 04, which makes a sweep.")
        self.runs = runs.reset_index(drop=True)
        scores = [name for name in self.runs if "." in str(name) and pd.api.types.is_numeric_dtype(self.runs[name])]
        scores += [name for name in ("score", "train_seconds", "ce", "kd", "grad_ratio") if name in self.runs]
        plain = [name for name in self.runs if name not in (*scores, "run", "config")]
        varied = [name for name in plain if 1 < self.runs[name].astype(str).nunique()]
        if not scores:
            raise WorkbenchError("The runs have no scores: give the table that sweeps.run_all returns.")
        axes = [name for name in varied if name not in ("arm", "seed")] or varied or plain
        slices = ["(none)", *[name for name in varied if name != "seed"]]
        first = "arm" if "arm" in slices else slices[0]
        self.x = choice("x axis", "", "What varies from left to right", axes)
        self.metric = choice("y axis", "", "What is compared", scores)
        self.slice = choice("colour", "", "One line for each of its values", slices, value=first)
        self.chosen = choice("run", "", "The run whose curve is drawn", [])
        self.code = ipw.HTML()
        super().__init__(about, [self.x, self.metric, self.slice, self.chosen], [self.code])
        self._list()
        self.metric.observe(lambda _: self._list(), names="value")
        self.watch(*self.controls)

    def _list(self) -> None:
        """Offer the runs, the best first; keep the chosen one."""
        with self.lock:
            kept, metric = self.chosen.value, self.metric.value
            ranked = self.runs[metric].sort_values(ascending=widgets.lower_is_better(metric), kind="stable")
            settings = ["arm", "loss", "temperature", "ce_weight", "learning_rate", "seed"]
            told = self.runs[self.runs.columns.intersection(settings)].astype(str).agg(", ".join, axis=1)
            self.chosen.options = [(f"{value:.4g}: {told[i]}", int(i)) for i, value in ranked.items()]
            self.chosen.value = kept if kept is not None else int(ranked.index[0])

    def draw(self) -> Figure:
        """Means over what is not told apart, with a dot per run; to the right the chosen run."""
        x, metric, by, chosen = self.x.value, self.metric.value, self.slice.value, self.chosen.value
        ylabel, by_y = widgets.unit(metric)
        best = self.runs[metric].min() if widgets.lower_is_better(metric) else self.runs[metric].max()
        title = f"Best of {len(self.runs)} finished runs: {ylabel} {by_y * best:.3g}"
        told = "one dot per run; line: their mean; ring: the run whose curve is on the right"
        fig, left, right = widgets.pair(title, told, widths=[3, 2])
        numeric = pd.api.types.is_numeric_dtype(self.runs[x])
        values = self.runs[x].astype(float if numeric else str)
        levels = sorted(values.dropna().unique())
        at = values if numeric else values.map({level: i for i, level in enumerate(levels)})
        groups = self.runs[by].astype(str) if by != "(none)" else pd.Series("all runs", self.runs.index)
        styles = style.arm_styles(sorted(groups.unique()))
        for group, look in styles.items():
            scores, places = by_y * self.runs.loc[groups == group, metric], at[groups == group]
            left.plot(places, scores, look[1], color=look[0], ms=4, alpha=0.4, mew=0)
            left.plot(scores.groupby(places).mean(), lw=1.8, **style.marked(look))
        row = self.runs.loc[chosen]
        left.plot(at[chosen], by_y * row[metric], "o", ms=12, mfc="none", mec=style.INK, mew=1.4)
        if numeric:
            _x_axis(left, x, at, levels[:: max(1, len(levels) // 8)])
        else:
            left.set_xticks(range(len(levels)), [style.wrap(level, 12) for level in levels])
            left.set_xlabel(x)
        left.set_ylabel(shorten(ylabel, 36))
        style.legend(fig, style.handles({shorten(group, 26): look for group, look in styles.items()}))
        right.set(ylim=(0, 100), xlabel="optimizer step", ylabel="validation accuracy (%)")
        if (run := row.get("run")) is not None:
            right.plot(widgets.measured(run.history), "-o", ms=4, mew=0, clip_on=False, color=styles[groups[chosen]][0])
            right.set_xlim(0, run.config.steps)
            self.code.value = widgets.code(config_code(run.config))
        return fig


def _x_axis(ax: Axes, name: str, values: pd.Series, ticks: Sequence[float] | None = None) -> None:
    """Name the x axis: a logarithmic one where positive values spread over a factor of 8."""
    wide = values.min() > 0 and values.max() / values.min() >= 8
    if wide:
        style.log_axis(ax, ticks)
    ax.set_xlabel(f"{name}, log scale" if wide else name)


class ComparePanel(Panel):
    """Two measures of every arm with their Pareto front, accuracy by difficulty, and where two arms disagree."""

    QUARTERS = ("easiest\nquarter", "2nd", "3rd", "hardest\nquarter")

    def __init__(
        self, measures: pd.DataFrame | None, logits: Mapping[str, ArrayLike], texts: Sequence[str], truth: ArrayLike,
        label_names: Sequence[str],
    ) -> None:  # fmt: skip
        """Compare arms on the same N texts.

        Args:
            measures: a row per arm, numeric columns such as ``accuracy`` and ``p50_ms``. Less is better for times,
                sizes, losses and errors, by their names; shares are drawn in %.
            logits: arm -> ``[N, C]``, for at least two of the arms; the less sure the first of them, such as the
                teacher, is of a text, the harder that is.
            texts: N of them.
            truth: ``[N]`` true classes.
            label_names: C of them.

        Raises:
            WorkbenchError: fewer than two measures or arms.
        """
        about = "Two measures of each arm, accuracy by difficulty, and the texts on which two arms disagree"
        if measures is None or not len(measures):
            return self.lack(about, "No measured arms to compare: run notebook 05, which measures them.")
        self.measures = measures.select_dtypes("number")
        if len(self.measures.columns) < 2 or len(logits) < 2:
            count = f"{len(self.measures.columns)} measures and {len(logits)} arms"
            raise WorkbenchError(f"There are {count}: a comparison needs two of each.")
        probabilities = {name: metrics.softmax(values) for name, values in logits.items()}
        self.predicted = {name: p.argmax(1) for name, p in probabilities.items()}
        self.texts, self.truth, self.label_names = list(texts), np.asarray(truth), list(label_names)
        unsure = pd.Series(-next(iter(probabilities.values())).max(1))
        self.quarter = (unsure.rank(method="first").astype(int) - 1) * len(self.QUARTERS) // len(unsure)
        columns, arms = list(self.measures.columns), list(logits)
        cheap = next((name for name in columns if widgets.lower_is_better(name)), columns[1])
        best = next(name for name in columns if name != cheap)
        offered = [(widgets.unit(name)[0], name) for name in columns]
        classes = [("all classes", -1), *((visible(name), i) for i, name in enumerate(self.label_names))]
        self.x = choice("x axis", "", "From left to right", offered, value=cheap)
        self.y = choice("y axis", "", "From bottom to top", offered, value=best)
        self.one = choice("first arm", "", "Disagrees with the second", arms)
        self.other = choice("second arm", "", "Disagrees with the first", arms, value=arms[1])
        self.only = choice("true class", "", "Disagreements to list", classes)
        self.table = ipw.HTML()
        super().__init__(about, [self.x, self.y, self.one, self.other, self.only], [self.table])
        self.watch(*self.controls)

    def disagreements(self) -> pd.DataFrame:
        """The texts of the chosen class on which the two arms differ: text, truth and both answers."""
        a, b = self.one.value, self.other.value
        rows = np.flatnonzero(self.predicted[a] != self.predicted[b])
        if self.only.value >= 0:
            rows = rows[self.truth[rows] == self.only.value]
        names = np.array([*self.label_names, "none of them"])
        told = {"text": [self.texts[i] for i in rows], "truth": names[self.truth[rows]]}
        return pd.DataFrame(told | {arm: names[self.predicted[arm][rows]] for arm in (a, b)})

    def front(self) -> list[str]:
        """The arms that no other arm beats in both measures."""
        axes = [self.x.value, self.y.value]
        table = self.measures.dropna(subset=axes)
        cost, loss = ((table[name] if widgets.lower_is_better(name) else -table[name]).to_numpy() for name in axes)
        return list(table.index[figures.pareto(cost, -loss)])

    def draw(self) -> Figure:
        """The plane of two measures, and the accuracy in each quarter of the texts."""
        table, front = self.disagreements(), self.front()
        self.note.value = said(f"{len(table):,} of {len(self.texts):,} texts in the table below")
        self.table.value = widgets.table(table.head(30))
        hard = f"right: from the texts that {next(iter(self.predicted))} is surest of to the others"
        best = f"Best of these two measures: {', '.join(front)}"
        fig, left, right = widgets.pair(best, f"large, line: Pareto front; {hard}")
        styles = style.arm_styles(self.measures.index.union(list(self.predicted), sort=False))
        (xlabel, by_x), (ylabel, by_y) = (widgets.unit(axis.value) for axis in (self.x, self.y))
        x, y = by_x * self.measures[self.x.value], by_y * self.measures[self.y.value]
        for name in self.measures.index:
            left.plot(x[name], y[name], **style.marked(styles[name], 9 if name in front else 6))
        order = x[front].sort_values().index
        where = "post" if widgets.lower_is_better(self.x.value) else "pre"
        left.step(x[order], y[order], where=where, color=style.PATH, lw=1.2, zorder=0)
        _x_axis(left, xlabel, x)
        left.set_ylabel(ylabel)
        left.margins(0.1)
        for name, predicted in self.predicted.items():
            accuracy = pd.Series(predicted == self.truth).groupby(self.quarter).mean()
            right.plot(100 * accuracy, **style.marked(styles[name]))
        right.set_xticks(range(len(self.QUARTERS)), self.QUARTERS)
        right.set(ylim=(0, 103), ylabel="accuracy (%)")
        return style.legend(fig, style.handles({name: styles[name] for name in self.measures.index}))


class TracesPanel(Panel):
    """Step through problems: what each model writes side by side, the first wrong step marked."""

    COLUMNS, LINES = 92, 40  # characters across the picture, and lines that a model gets at most

    def __init__(self, problems: pd.DataFrame | None, models: Sequence[str]) -> None:
        """Show a table of problems.

        Args:
            problems: a row per problem: ``question``; for each model a column with its steps, a list or text with a
                line per step; optionally ``answer``, and for each model ``<model> first wrong``: the number of the
                first wrong step from 0, missing or -1 where all are right.
            models: the columns of steps, at most three.

        Raises:
            WorkbenchError: a column that is missing.
        """
        about = "A problem and what each model writes about it, the first wrong step marked"
        if problems is None or not len(problems):
            return self.lack(about, "No traces to read: run notebook 07, which makes them.")
        if absent := [name for name in ("question", *models) if name not in problems]:
            raise WorkbenchError(f"The problems have no column {absent[0]!r}: they have {', '.join(problems.columns)}.")
        self.problems, self.models = problems.reset_index(drop=True), list(models)
        last, tooltip = len(problems) - 1, "Left and right step through"
        self.number = control(ipw.IntSlider, "problem", "", tooltip, min=0, max=last)
        self.only = choice("show", "", "Which to step through", ["all", "one is wrong", "all are right"])
        super().__init__(about, [self.number, self.only])
        self._shown = list(range(len(problems)))
        longest = max(len(self._lines(row, model)) for row in self._shown for model in self.models)
        self._height = 1.1 + 0.155 * min(longest, self.LINES)  # inches: the same for every problem
        self.only.observe(lambda _: self._filter(), names="value")
        self.watch(self.number)

    def wrong(self, row: int, model: str) -> int | None:
        """The first wrong step of a model, None where there is none or it is not known."""
        value = self.problems.get(f"{model} first wrong", pd.Series(dtype=float)).get(row)
        return None if value is None or pd.isna(value) or value < 0 else int(value)

    def _filter(self) -> None:
        with self.lock:
            bad = [any(self.wrong(i, m) is not None for m in self.models) for i in range(len(self.problems))]
            wanted = {"all": (True, False), "one is wrong": (True,), "all are right": (False,)}[self.only.value]
            shown = [i for i, is_bad in enumerate(bad) if is_bad in wanted]
            if not shown:
                self.note.value = said("There are no such problems: the one below stays.", alert=True)
                return
            self.note.value = said(f"{len(shown):,} of {len(self.problems):,} problems")
            self._shown = shown
            self.number.value, self.number.max = 0, len(shown) - 1
            self.redraw()

    def draw(self) -> Figure:
        """Columns of numbered steps; red and bold is the first wrong one, grey what follows from it."""
        row = self._shown[min(self.number.value, len(self._shown) - 1)]
        problem = self.problems.loc[row]
        answer = f"answer: {shorten(problem['answer'], 90)}" if "answer" in problem else ""
        fig = style.figure(self._height, f"Problem {row + 1} of {len(self.problems)}", answer)
        whole, height = fig.get_figheight(), self._height
        fig.text(0.01, height / whole, style.wrap(problem["question"], self.COLUMNS, 3), va="top")
        for column, model in enumerate(self.models):
            first, lines = self.wrong(row, model), self._lines(row, model)
            verdict = "no wrong step" if first is None else f"step {first + 1} is wrong"
            say = functools.partial(fig.text, 0.01 + column / len(self.models), va="top", fontsize=8)
            say((height - 0.6) / whole, f"{shorten(model, 28)}\n{verdict}", weight="bold", color=style.GREY)
            if len(lines) > self.LINES:
                lines[self.LINES - 1 :] = [(None, f"… {len(lines) - self.LINES + 1} more lines")]
            for i, (step, line) in enumerate(lines):
                after = step is None or (first is not None and step > first)
                look = {"color": "#B3261E", "weight": "bold"} if step == first else {}
                say((height - 1 - 0.155 * i) / whole, line, **({"color": style.GREY} if after else look))
        return fig

    def _lines(self, row: int, model: str) -> list[tuple[int | None, str]]:
        """The lines of a model, each with the number of its step."""
        steps, width = self.problems.loc[row, model], self.COLUMNS // len(self.models)
        steps = [line for line in steps.splitlines() if line.strip()] if isinstance(steps, str) else steps
        wrong = self.wrong(row, model)
        numbered = [f"{'✗ ' * (i == wrong)}{i + 1}. {visible(step)}" for i, step in enumerate(steps)]
        return [(i, line) for i, step in enumerate(numbered)
                for line in textwrap.wrap(step, width, subsequent_indent="    ")]  # fmt: skip
