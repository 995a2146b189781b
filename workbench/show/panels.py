"""Panels for JupyterLab: controls above one picture. Sliders redraw from what is stored; only Train starts work.

Every panel shows itself as the last value of a cell; its picture stays in static pages and on GitHub, where no
kernel runs. How they draw and lock: `widgets`; the one that trains: `training_panel`.
"""

import functools
import textwrap
import timeit
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.text import Text
from numpy.typing import ArrayLike
from scipy import special

from workbench import metrics
from workbench.errors import WorkbenchError
from workbench.escape import shorten, visible
from workbench.show import figures, style, widgets
from workbench.show.training_panel import TrainingPanel, config_code
from workbench.show.widgets import Panel, choice, said

__all__ = ["ComparePanel", "Panel", "SweepPanel", "TemperaturePanel", "TracesPanel", "TrainingPanel", "TryItPanel"]


class TemperaturePanel(Panel):
    """Turn the temperature: one text's soft label, its entropy, its neighbours, and the map of similar classes.

    Everything is drawn from logits that are given; the axes stay where they are while the slider moves.
    """

    NEIGHBOURS, CHOICES = 4, 50
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
                "label names: give a row a text, a column a class."
            )
        self.top, self.certainty = self.logits.argmax(1), metrics.softmax(self.logits).max(1)
        self.truth = np.full(len(self.texts), -1) if truth is None else np.asarray(truth)
        only = "Only texts that contain this; empty for all"
        self.search = widgets.control(ipw.Text, "text contains", "words", only, placeholder="any")
        self.order = choice("order", "certainty at T = 1", "Which texts to offer first", self._ORDERS)
        self.example = choice("example", "a text", "The text whose soft label is drawn", [])
        span = {"base": 2, "min": -2, "max": 4, "step": 0.125, "readout_format": ".2f", "value": temperature}
        self.temperature = widgets.control(ipw.FloatLogSlider, "temperature T", "no unit", widgets.SOFTER, **span)
        controls = [self.search, self.order, self.example, self.temperature]
        super().__init__("One text's soft label at a temperature T, its neighbours and the classes' likeness", controls)
        self.rank = figures.similarity_order(figures.likeness(self.logits, 2.0))
        with style.drawing():
            self._compose()
        self._find()
        widgets.on_value(self._find, self.search, self.order)
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
        """Draw what never moves and keep its pixels; make the artists that `draw` moves over them."""
        classes = len(self.label_names)
        below, shown = max(2.0, 0.15 * classes), min(6, classes)
        height = 4.75 + below  # inches
        self._fig = widgets.figure(height)

        def place(left: float, top: float, width: float, tall: float) -> Axes:
            return self._fig.add_axes((left, 1 - (top + tall) / height, width, tall / height))

        def line(inches: float, text: str = "", x: float = 0.01, **look: Any) -> Text:
            return self._fig.text(x, 1 - inches / height, text, va="top", **look)

        ax = place(0.27, 0.62, 0.28, 1.55)
        self._bars, self._numbers = style.bars(ax, np.zeros(shown), [style.BLUE] + [style.LIGHT] * (shown - 1), gap=2)
        self._names = [ax.text(-3, y, "", ha="right", va="center") for y in range(shown)]
        ax.set(xlim=(0, 115), ylim=(5.6, -0.6), yticks=[], xticks=[0, 25, 50, 75, 100], xlabel="probability (%)")
        ax = place(0.67, 0.62, 0.31, 1.55)
        self._grid = np.geomspace(0.25, 16, 49)
        (self._line,) = ax.plot(self._grid, np.zeros(49), color=style.BLUE)
        (self._dot,) = ax.plot([1], [0], "o", color=style.ORANGE, ms=8, mec="white")
        figures.entropy_axes(ax, self._grid, [classes])
        ax.set_ylabel("entropy (nats)")
        self._head, self._sub = line(0.08, weight="bold"), line(0.3, color=style.GREY)
        line(2.78, "Neighbours: texts whose soft labels at T are closest (KL)", weight="bold")
        self._near = [line(3.02 + 0.2 * i, x=0.02) for i in range(self.NEIGHBOURS)]
        line(4, f"Where the rest of the probability goes: mean over {len(self.texts):,} texts, a row a predicted class",
             weight="bold")  # fmt: skip
        names = [shorten(self.label_names[i], 34) for i in self.rank]
        peak = 100 * max(np.nanmax(figures.likeness(self.logits, t), initial=0.01) for t in (1.0, 2.0, 4.0, 8.0))
        blank, bar = np.full((classes, classes), np.nan), {"cax": place(0.88, 4.27, 0.018, below)}
        size = 8 if classes <= 24 else 6.5
        self._map = figures.likeness_map(place(0.36, 4.27, 0.5, below), blank, names, True, size, vmax=peak, bar=bar)
        self._moving: list[Artist] = [*self._bars, *self._names, *self._numbers, self._line, self._dot, self._head]
        self._moving += [self._sub, *self._near, self._map]
        for artist in self._moving:
            artist.set_animated(True)
        self._fig.canvas.draw()
        self._background = self._fig.canvas.copy_from_bbox(self._fig.bbox)

    def draw(self) -> bytes:
        """Move what depends on the controls over a background that is drawn once."""
        i, t = self.example.value, self.temperature.value
        soft = metrics.softmax(self.logits, t)
        shown = np.argsort(-self.logits[i], kind="stable")[: len(self._names)]
        for label, bar, name, number in zip(shown, self._bars, self._names, self._numbers, strict=True):
            percent = 100 * soft[i, label]
            bar.set_width(percent)
            name.set_text(shorten(self.label_names[label], 26))
            number.set(x=percent + 2, text=style.whole(percent))
        entropy = special.entr(soft[i]).sum()
        self._line.set_ydata(figures.entropies(self.logits[[i]], self._grid)[:, 0])
        self._dot.set_data([t], [entropy])
        says = f"teacher: {visible(self.label_names[self.top[i]])}"
        if self.truth[i] >= 0:
            wrong = self.truth[i] != self.top[i]
            says += f", which is {f'wrong: {visible(self.label_names[self.truth[i]])}' if wrong else 'right'}"
        self._head.set_text(f"“{shorten(self.texts[i], 80)}”")
        self._sub.set_text(f"T = {t:.3g}; entropy {entropy:.2f} nats; {says}")
        log_soft = special.log_softmax(self.logits / t, axis=1)
        distance = soft[i] @ log_soft[i] - log_soft @ soft[i]
        distance[[text == self.texts[i] for text in self.texts]] = np.inf
        nearest = np.argsort(distance, kind="stable")[: self.NEIGHBOURS]
        for line, j in zip(self._near, nearest, strict=False):
            answer = visible(self.label_names[self.top[j]])
            found = f"{abs(distance[j]):.3f}  “{shorten(self.texts[j], 58)}”  {answer}"
            line.set_text(found if np.isfinite(distance[j]) else "")
        self._map.set_data(100 * figures.likeness(self.logits, t)[np.ix_(self.rank, self.rank)])
        self._fig.canvas.restore_region(self._background)
        for artist in self._moving:
            self._fig.draw_artist(artist)
        return widgets.encode(self._fig)


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
        self.text = widgets.control(ipw.Text, "sentence", "press Enter", tooltip, **wide)
        super().__init__(about, [self.text])
        self.watch(self.text)

    def ask(self, text: str) -> pd.DataFrame:
        """Probabilities, a row a model; the index also has the median milliseconds of a call with this one text."""
        rows = {}
        for name, logits in self.models.items():
            found = logits([text])  # and with that it is warm
            seconds = timeit.repeat(functools.partial(logits, [text]), number=1, repeat=self.REPEATS)
            rows[name, 1000 * float(np.median(seconds))] = metrics.softmax(found)[0]
        index = pd.MultiIndex.from_tuples(rows, names=["model", "ms"])
        return pd.DataFrame(rows.values(), index, self.label_names)

    def draw(self) -> bytes:
        """One column of bars a model, the same classes in each."""
        text = self.text.value.strip()
        if not text:
            raise WorkbenchError("There is no sentence: type one and press Enter.")
        self.note.value = ""
        table = self.ask(text)
        order = np.argsort(-table.mean().to_numpy(), kind="stable")[: self.BARS]
        fig = widgets.figure(2.5)
        fig.text(0.01, 0.97, f"“{shorten(text, 80)}”", weight="bold", va="top")
        axes = fig.subplots(1, len(table), sharey=True, squeeze=False)[0]
        fig.subplots_adjust(left=0.27, right=0.985, top=0.75, bottom=0.2, wspace=0.12)
        looks = style.arm_styles(self.models).values()
        for ax, look, ((name, ms), row) in zip(axes, looks, table.iterrows(), strict=True):
            style.bars(ax, row.iloc[order], look[0])
            ax.set(xlim=(0, 125), xticks=[0, 50, 100], xlabel="probability (%)")
            ax.set_title(f"{shorten(name, 24)}\n{ms:.1f} ms", fontsize=9, loc="left")
            ax.tick_params(axis="y", length=0)
        names = [shorten(self.label_names[i], 26) for i in order]
        style.rows(axes[0], names, ends=(-0.6, self.BARS - 0.4))
        return widgets.png(fig)


class SweepPanel(Panel):
    """Finished runs of a sweep: choose axes, metric and slice, then look into a single run."""

    def __init__(self, runs: pd.DataFrame | None) -> None:
        """Show the table of `sweeps.run_all`.

        Args:
            runs: a row a run: the fields of its config, its scores (names with a dot) and, for its curve, ``run``.
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
        self.x = choice("x axis", "a setting", "What varies from left to right", axes)
        self.metric = choice("y axis", "a score", "What is compared", scores)
        self.slice = choice("colour", "a setting", "One line for each of its values", slices, value=first)
        self.chosen = choice("run", "its settings", "The run whose curve is drawn", [])
        self.code = ipw.HTML()
        super().__init__(about, [self.x, self.metric, self.slice, self.chosen], [self.code])
        self._list()
        widgets.on_value(self._list, self.metric)
        self.watch(*self.controls)

    def _list(self) -> None:
        """Offer the runs, the best first; keep the chosen one."""
        with self.lock:
            kept, metric = self.chosen.value, self.metric.value
            ranked = self.runs[metric].sort_values(ascending=widgets.lower_is_better(metric), kind="stable")
            names = [name for name in ("arm", "loss", "temperature", "ce_weight", "learning_rate", "seed")
                     if name in self.runs]  # fmt: skip
            told = self.runs[names].astype(str).agg(", ".join, axis=1)
            self.chosen.options = [(f"{value:.4g}: {told[i]}", int(i)) for i, value in ranked.items()]
            self.chosen.value = kept if kept is not None else int(ranked.index[0])

    def draw(self) -> bytes:
        """Means over what is not told apart, with a dot a run; to the right the chosen run."""
        x, metric, by, chosen = self.x.value, self.metric.value, self.slice.value, self.chosen.value
        title = f"{shorten(metric, 28)}, {len(self.runs)} runs; ring: one run"
        fig, left, right = widgets.pair(title, "the one run: validation (%)", widths=[3, 2])
        numeric = pd.api.types.is_numeric_dtype(self.runs[x])
        values = self.runs[x] if numeric else self.runs[x].astype(str)
        levels = sorted(values.dropna().unique())
        at = values.astype(float) if numeric else values.map({level: i for i, level in enumerate(levels)})
        groups = self.runs[by].astype(str) if by != "(none)" else pd.Series("all runs", self.runs.index)
        styles = style.arm_styles(sorted(groups.unique()))
        for group, rows in self.runs.groupby(groups, sort=True):
            colour, marker = styles[group]
            mean = rows[metric].groupby(at[rows.index]).mean()
            left.plot(at[rows.index], rows[metric], marker, color=colour, ms=4, alpha=0.4, mew=0)
            left.plot(mean.index, mean, lw=1.8, **style.marked(styles[group]))
        row = self.runs.loc[chosen]
        left.plot(at[chosen], row[metric], "o", ms=12, mfc="none", mec=style.INK, mew=1.4)
        if numeric:
            widgets.x_axis(left, x, values, levels[:: max(1, len(levels) // 8)])
        else:
            left.set_xticks(range(len(levels)), [shorten(level, 12) for level in levels])
            left.set_xlabel(x)
        widgets.legend(fig, [style.handle(shorten(group, 26), look) for group, look in styles.items()])
        right.set(ylim=(0, 100), xlabel="optimizer step")
        if (run := row.get("run")) is not None:
            widgets.validation(right, run.history, color=styles[groups[chosen]][0])
            right.set_xlim(0, run.config.steps)
            self.code.value = widgets.code(config_code(run.config))
        return widgets.png(fig)


class ComparePanel(Panel):
    """Two measures of every arm with their Pareto front, accuracy by difficulty, and where two arms disagree."""

    QUARTERS = ("easiest\nquarter", "2nd", "3rd", "hardest\nquarter")

    def __init__(
        self, measures: pd.DataFrame | None, logits: Mapping[str, ArrayLike], texts: Sequence[str], truth: ArrayLike,
        label_names: Sequence[str], *, difficulty: ArrayLike | None = None,
    ) -> None:  # fmt: skip
        """Compare arms on the same N texts.

        Args:
            measures: a row an arm, numeric columns such as ``accuracy`` and ``p50_ms``. Less is better for times,
                sizes, losses and errors, by their names.
            logits: arm -> ``[N, C]``, for at least two of the arms.
            texts: N of them.
            truth: ``[N]`` true classes.
            label_names: C of them.
            difficulty: ``[N]``, greater is harder; default: how unsure the first of `logits` is, such as the teacher.

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
        unsure = 1 - next(iter(probabilities.values())).max(1)
        hard = unsure if difficulty is None else np.asarray(difficulty, float)
        ranks = np.argsort(np.argsort(hard, kind="stable"), kind="stable")
        self.quarter = ranks * len(self.QUARTERS) // len(ranks)
        columns, arms = list(self.measures.columns), list(logits)
        cheap = next((name for name in columns if widgets.lower_is_better(name)), columns[1])
        best = next(name for name in columns if name != cheap)
        classes = [("all classes", -1), *((visible(name), i) for i, name in enumerate(self.label_names))]
        self.x = choice("x axis", "a measure", "From left to right", columns, value=cheap)
        self.y = choice("y axis", "a measure", "From bottom to top", columns, value=best)
        self.one = choice("one", "an arm", "Disagrees with the other", arms)
        self.other = choice("other", "an arm", "Disagrees with the one", arms, value=arms[1])
        self.only = choice("true class", "of the texts", "Disagreements to list", classes)
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
        x, y = self.x.value, self.y.value
        table = self.measures[self.measures[[x, y]].notna().all(axis=1)]
        cost, loss = ((table[name] if widgets.lower_is_better(name) else -table[name]).to_numpy() for name in (x, y))
        return list(table.index[figures.pareto(cost, -loss)])

    def draw(self) -> bytes:
        """The plane of two measures, and the accuracy in each quarter of the texts."""
        table, front = self.disagreements(), self.front()
        self.note.value = said(f"{len(table):,} of {len(self.texts):,} texts in the table below")
        self.table.value = widgets.table(table.head(30))
        fig, left, right = widgets.pair(f"{self.y.value}; line: Pareto front", "accuracy by difficulty (%)")
        styles = style.arm_styles(self.measures.index.union(list(self.predicted), sort=False))
        x, y = self.measures[self.x.value], self.measures[self.y.value]
        for name in self.measures.index:
            left.plot(x[name], y[name], **style.marked(styles[name], 9 if name in front else 6))
        order = x[front].sort_values().index
        left.plot(x[order], y[order], color=style.PATH, lw=1.2, zorder=0)
        widgets.x_axis(left, self.x.value, x)
        left.margins(0.1)
        left.grid()
        for name, predicted in self.predicted.items():
            accuracy = pd.Series(predicted == self.truth).groupby(self.quarter).mean()
            right.plot(100 * accuracy, **style.marked(styles[name]))
        right.set_xticks(range(len(self.QUARTERS)), self.QUARTERS)
        right.set(ylim=(0, 103))
        widgets.legend(fig, [style.handle(shorten(name, 28), styles[name]) for name in self.measures.index])
        return widgets.png(fig)


class TracesPanel(Panel):
    """Step through problems: what each model writes side by side, the first wrong step marked."""

    COLUMNS, LINES = 92, 40  # characters across the picture, and lines a model gets at most

    def __init__(self, problems: pd.DataFrame | None, models: Sequence[str], question: str = "question") -> None:
        """Show a table of problems.

        Args:
            problems: a row a problem: the question; for each model a column with its steps, a list or text with a line
                a step; optionally ``answer``, and for each model ``<model> first wrong``: the number of the first wrong
                step from 0, missing or -1 where all are right.
            models: the columns of steps, at most three.
            question: the column of the question.

        Raises:
            WorkbenchError: a column that is missing.
        """
        about = "A problem and what each model writes about it, the first wrong step marked"
        if problems is None or not len(problems):
            return self.lack(about, "No traces to read: run notebook 07, which makes them.")
        if absent := [name for name in (question, *models) if name not in problems]:
            raise WorkbenchError(f"The problems have no column {absent[0]!r}: they have {', '.join(problems.columns)}.")
        self.problems, self.models, self.question = problems.reset_index(drop=True), list(models), question
        last, tooltip = len(problems) - 1, "Left and right step through"
        self.number = widgets.control(ipw.IntSlider, "problem", "number", tooltip, min=0, max=last)
        self.only = choice("show", "problems", "Which to step through", ["all", "one is wrong", "all are right"])
        super().__init__(about, [self.number, self.only])
        self._shown = list(range(len(problems)))
        longest = max(sum(map(len, self._steps(row, model))) for row in self._shown for model in self.models)
        self._lines = min(longest + 1, self.LINES)
        widgets.on_value(self._filter, self.only)
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

    def draw(self) -> bytes:
        """Columns of numbered steps; red and bold is the first wrong one, grey what follows from it."""
        row = self._shown[min(self.number.value, len(self._shown) - 1)]
        problem = self.problems.loc[row]
        height = 1.4 + 0.155 * self._lines  # inches: the same for every problem
        fig = widgets.figure(height)
        head = textwrap.wrap(visible(problem[self.question]), self.COLUMNS, max_lines=3, placeholder=" …")
        answer = f"\nanswer: {visible(problem['answer'])}" if "answer" in problem else ""
        fig.text(0.01, 1 - 0.08 / height, "\n".join(head) + answer, weight="bold", va="top")
        for column, model in enumerate(self.models):
            x, first = 0.01 + column / len(self.models), self.wrong(row, model)
            verdict = "no wrong step" if first is None else f"step {first + 1} is wrong"
            told = {"x": x, "va": "top", "fontsize": 8, "linespacing": 1.25}
            fig.text(y=1 - 0.9 / height, s=f"{shorten(model, 28)}\n{verdict}", weight="bold", color=style.GREY, **told)
            line = 0
            steps = self._steps(row, model)
            for i, lines in enumerate(steps):
                y = 1 - (1.3 + 0.155 * line) / height
                if line + len(lines) >= self._lines and i < len(steps) - 1 or line + len(lines) > self._lines:
                    fig.text(y=y, s=f"… {len(steps) - i} more steps", color=style.GREY, **told)
                    break
                look = {} if first is None or i < first else {"color": style.GREY}
                if i == first:
                    look = {"color": "#B3261E", "weight": "bold"}
                fig.text(y=y, s="✗ " * (i == first) + "\n".join(lines), **told, **look)
                line += len(lines)
        return widgets.png(fig)

    def _steps(self, row: int, model: str) -> list[list[str]]:
        """The lines of each step of a model."""
        steps, width = self.problems.loc[row, model], self.COLUMNS // len(self.models)
        steps = [line for line in steps.splitlines() if line.strip()] if isinstance(steps, str) else steps
        numbered = (f"{i}. {visible(step)}" for i, step in enumerate(steps, 1))
        return [textwrap.wrap(step, width, subsequent_indent="    ") for step in numbered]
