"""Panels for JupyterLab: controls above one picture. Sliders redraw from what is stored; only Train starts work.

Every panel shows itself as the last value of a cell; its picture stays in static pages and on GitHub, where no
kernel runs. Callbacks arrive on several threads and training draws from one of its own, so a panel draws under a
lock, from the values its controls have by then, into figures that pyplot doesn't know.
"""

import io
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

import ipywidgets as ipw
import matplotlib
import numpy as np
import pandas as pd
from matplotlib import image as mpl_image
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike
from scipy import special

from workbench import metrics, plots, style, training
from workbench.errors import WorkbenchError
from workbench.escape import html, shorten, visible
from workbench.losses import LOSSES
from workbench.store import Store

DPI = 144  # pixels an inch: sharp at 700 CSS pixels, and quick
_LABEL = {"description_width": "13em"}
_LAYOUT = {"width": "31em", "max_width": "100%"}


class Panel(ipw.VBox):
    """Controls above one picture; `note` says in words what the picture can't, or what is wrong."""

    def __init__(self, about: str, controls: Sequence[ipw.Widget], below: Sequence[ipw.Widget] = ()) -> None:
        """Lay out; a subclass then observes its controls and calls `redraw`.

        Args:
            about: what the picture shows: its text alternative in static pages.
            controls: in the order in which Tab reaches them.
            below: what stands under the picture.
        """
        self.about, self.controls = about, list(controls)
        self.lock = threading.RLock()
        # No tooltip: in ipywidgets 8.1 an Image with one fails to show itself in the browser.
        self.image = ipw.Image(format="png", layout={"width": "700px", "max_width": "100%"})
        self.note = ipw.HTML()
        rows = ipw.Box(self.controls, layout={"flex_flow": "row wrap", "grid_gap": "2px 12px", "margin": "0 0 6px"})
        super().__init__([rows, self.note, self.image, *below])

    def _repr_mimebundle_(self, **options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**options) | {"text/plain": self.about}
        if not self.image.value:
            return bundle, {}
        return bundle | {"image/png": bytes(self.image.value)}, {"image/png": {"width": 700}}

    def watch(self, *controls: ipw.Widget) -> None:
        """Redraw whenever the value of one of them changes."""
        for control in controls:
            control.observe(lambda change: self.redraw(), names="value")

    def redraw(self) -> None:
        """Draw what the controls say by now; what the user should mend is said in `note`."""
        with self.lock, style.drawing():
            try:
                picture = self.draw()
            except WorkbenchError as error:
                self.note.value = _alert(str(error))
                return
            self.image.value = picture

    def draw(self) -> bytes:
        """The picture, as PNG. Called with the lock held."""
        raise NotImplementedError

    def lack(self, what: str) -> None:
        """Show, in place of the controls, what is missing and which notebook makes it."""
        with style.drawing():
            fig = _figure(0.6)
            fig.text(0.01, 0.5, what, va="center")
            self.image.value = _png(fig)
        self.note.value = _alert(what)
        self.controls = []
        self.children = [self.note]


def _control(kind: type[ipw.Widget], name: str, unit: str, tooltip: str, **options: Any) -> ipw.Widget:
    """A control with its unit behind its name; the browser reaches it by Tab and moves it by arrows."""
    options.setdefault("layout", _LAYOUT)
    description = f"{name} ({unit})"
    return kind(description=description, tooltip=tooltip, style=_LABEL, **options)


_SOFTER = "What logits are divided by before the softmax: below 1 sharpens, above 1 softens (.25 to 16)"


def _scale(name: str, unit: str, tooltip: str, values: Sequence[float], start: float) -> ipw.SelectionSlider:
    """A slider over a logarithmic scale of round values: a FloatLogSlider would turn 0.004 into 0.003981…"""
    options = [(f"{value:g}", value) for value in sorted({*values, start})]
    return _control(ipw.SelectionSlider, name, unit, tooltip, options=options, value=start)


def _alert(text: str) -> str:
    return f'<p role="alert" style="color:#b3261e;line-height:1.4;margin:0.3em 0">{html(text)}</p>'


def _figure(height: float) -> Figure:
    fig = Figure(figsize=(style.WIDTH, height), dpi=DPI)
    FigureCanvasAgg(fig)
    return fig


def _png(fig: Figure) -> bytes:
    """What the canvas holds, after drawing all of it."""
    fig.canvas.draw()
    return _encode(fig)


def _encode(fig: Figure) -> bytes:
    out = io.BytesIO()
    pixels = np.asarray(fig.canvas.buffer_rgba())
    mpl_image.imsave(out, pixels, format="png", pil_kwargs={"compress_level": 2})
    return out.getvalue()


class TemperaturePanel(Panel):
    """Turn the temperature: one text's soft label, its entropy, its neighbours, and the map of similar classes.

    Everything is drawn from logits that are given; the axes stay where they are while the slider moves.
    """

    BARS, NEIGHBOURS, CHOICES = 6, 4, 50
    _ORDERS = ("as given", "most certain first", "least certain first", "teacher wrong")

    def __init__(
        self,
        logits: ArrayLike,
        texts: Sequence[str],
        label_names: Sequence[str],
        *,
        truth: ArrayLike | None = None,
        temperature: float = 2.0,
    ) -> None:
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
        self.top = self.logits.argmax(1)
        self.truth = np.full(len(self.texts), -1) if truth is None else np.asarray(truth)
        self.search = _control(
            ipw.Text, "text contains", "words", "Only texts that contain this; empty for all", placeholder="any"
        )
        self.order = _control(
            ipw.Dropdown, "order", "certainty at T = 1", "Which texts to offer first", options=self._ORDERS
        )
        self.example = _control(ipw.Dropdown, "example", "a text", "The text whose soft label is drawn", options=[])
        span = {"base": 2, "min": -2, "max": 4, "step": 0.125, "readout_format": ".2f", "value": temperature}
        self.temperature = _control(ipw.FloatLogSlider, "temperature T", "no unit", _SOFTER, **span)
        controls = [self.search, self.order, self.example, self.temperature]
        super().__init__("One text's soft label at a temperature T, its neighbours and the classes' likeness", controls)
        self._build_map()
        self._background: Any = None
        self._find()
        for control in (self.search, self.order):
            control.observe(lambda change: self._find(), names="value")
        self.watch(self.example, self.temperature)
        self.redraw()

    def _find(self) -> None:
        """Offer the texts that the search and the order ask for; keep the chosen one if it is among them."""
        with self.lock:
            wanted = self.search.value.strip().lower()
            found = np.array([i for i, text in enumerate(self.texts) if wanted in text.lower()], dtype=int)
            certain = metrics.softmax(self.logits).max(1)
            if self.order.value == "teacher wrong":
                found = found[(self.truth[found] >= 0) & (self.truth[found] != self.top[found])]
            if self.order.value != "as given":
                sign = 1 if self.order.value == "least certain first" else -1
                found = found[np.argsort(sign * certain[found], kind="stable")]
            if not len(found):
                self.note.value = _alert("No such text: the one below stays.")
                return
            self.note.value = _line(f"{len(found):,} of {len(self.texts):,} texts")
            offered = found[: self.CHOICES]
            kept = self.example.value if self.example.value in offered and wanted else int(offered[0])
            self.example.options = [(shorten(self.texts[i], 60), int(i)) for i in offered]
            self.example.value = kept

    def _build_map(self) -> None:
        """What never moves: axes, names, the order of the classes and the scale of the map."""
        classes = len(self.label_names)
        self._of_class = np.zeros((classes, len(self.top)))
        self._of_class[self.top, np.arange(len(self.top))] = 1
        self._of_class /= np.maximum(self._of_class.sum(1, keepdims=True), 1)
        self._rank = plots.similarity_order(self._likeness(2.0))
        self._peak = max(np.nanmax(self._likeness(t), initial=0.01) for t in (1.0, 2.0, 4.0, 8.0))

    def _likeness(self, temperature: float) -> np.ndarray:
        """Mean probability of each other class ``[C, C]``, a row a predicted class; the diagonal is NaN."""
        table = self._of_class @ metrics.softmax(self.logits, temperature)
        table[self._of_class.sum(1) == 0] = np.nan
        np.fill_diagonal(table, np.nan)
        return table

    def _compose(self) -> None:
        classes = len(self.label_names)
        below = max(2.0, 0.15 * classes)
        height = 2.75 + 1.25 + below + 0.75
        self._fig = _figure(height)

        def place(left: float, top: float, width: float, tall: float) -> Axes:
            return self._fig.add_axes((left, 1 - (top + tall) / height, width, tall / height))

        bars = place(0.27, 0.62, 0.28, 1.55)
        self._bars = bars.barh(np.arange(self.BARS), np.zeros(self.BARS), height=0.72, color="#8CBEDD")
        self._bars[0].set_color("#0072B2")
        self._names = [bars.text(-3, y, "", ha="right", va="center") for y in range(self.BARS)]
        self._values = [bars.text(0, y, "", va="center", fontsize=8.5) for y in range(self.BARS)]
        bars.set(xlim=(0, 115), ylim=(self.BARS - 0.4, -0.6), yticks=[], xticks=[0, 25, 50, 75, 100])
        bars.set_xlabel("probability (%)")
        curve = place(0.67, 0.62, 0.31, 1.55)
        self._grid = np.geomspace(0.25, 16, 49)
        (self._line,) = curve.plot(self._grid, np.zeros(49), color="#0072B2")
        (self._dot,) = curve.plot([1], [0], "o", color="#D55E00", ms=8, mec="white")
        curve.axhline(np.log(classes), color=style.GREY, ls="--", lw=1)
        curve.text(0.27, np.log(classes) * 1.03, f"even: log {classes} = {np.log(classes):.2f}", color=style.GREY)
        curve.set(xscale="log", xlim=(0.25, 16), ylim=(0, 1.16 * np.log(classes)))
        curve.set_xticks([0.25, 1, 4, 16], ["0.25", "1", "4", "16"])
        curve.minorticks_off()
        curve.set(xlabel="temperature T (log scale)", ylabel="entropy (nats)")
        self._head = self._fig.text(0.01, 1 - 0.08 / height, "", weight="bold", va="top")
        self._sub = self._fig.text(0.01, 1 - 0.3 / height, "", color=style.GREY, va="top")
        line = 2.78
        self._fig.text(0.01, 1 - line / height, "Neighbours: texts whose soft labels at T are closest (KL)",
                       weight="bold", va="top")  # fmt: skip
        self._near = [
            self._fig.text(0.02, 1 - (line + 0.24 + 0.2 * i) / height, "", va="top") for i in range(self.NEIGHBOURS)
        ]
        top = 2.75 + 1.25
        self._fig.text(0.01, 1 - top / height, f"Where the rest of the probability goes: mean over {len(self.texts):,} "
                       "texts, a row a predicted class", weight="bold", va="top")  # fmt: skip
        ax = place(0.36, top + 0.27, 0.5, below)
        cmap = matplotlib.colormaps["Blues"].with_extremes(bad="#e9e9e9")
        blank = np.full((classes, classes), np.nan)
        self._image = ax.imshow(blank, cmap=cmap, vmin=0, vmax=100 * self._peak, aspect="auto", interpolation="none")
        names = [f"{shorten(self.label_names[i], 34)}  {row}" for row, i in enumerate(self._rank, 1)]
        ax.set_yticks(np.arange(classes), names, fontsize=8 if classes <= 24 else 6.5)
        step = 1 if classes <= 24 else 5
        columns = np.arange(step - 1, classes, step)
        ax.set_xticks(columns, columns + 1, fontsize=8)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("other class (number of its row)")
        bar = self._fig.colorbar(self._image, cax=place(0.88, top + 0.27, 0.018, below), label="mean probability (%)")
        bar.outline.set_visible(False)
        self._moving: list[Artist] = [*self._bars, *self._names, *self._values, self._line, self._dot, self._head]
        self._moving += [self._sub, *self._near, self._image]
        for artist in self._moving:
            artist.set_animated(True)
        self._fig.canvas.draw()
        self._background = self._fig.canvas.copy_from_bbox(self._fig.bbox)

    def draw(self) -> bytes:
        """Move what depends on the controls over a background that is drawn once."""
        if self._background is None:
            self._compose()
        i, t = self.example.value, self.temperature.value
        z = self.logits[i]
        soft = metrics.softmax(self.logits, t)
        shown = np.argsort(-z, kind="stable")[: self.BARS]
        for row in range(self.BARS):
            there = row < len(shown)
            p = 100 * soft[i, shown[row]] if there else 0
            self._bars[row].set_width(p)
            self._names[row].set_text(shorten(self.label_names[shown[row]], 26) if there else "")
            self._values[row].set(x=p + 2, text="" if not there else "<1" if p < 1 else f"{p:.0f}")
        curve = [special.entr(metrics.softmax(z[None], g)).sum() for g in self._grid]
        entropy = special.entr(soft[i]).sum()
        self._line.set_ydata(curve)
        self._dot.set_data([t], [entropy])
        known = self.truth[i] >= 0
        says = f"teacher: {visible(self.label_names[self.top[i]])}"
        if known:
            wrong = self.truth[i] != self.top[i]
            says += f", which is {f'wrong: {visible(self.label_names[self.truth[i]])}' if wrong else 'right'}"
        self._head.set_text(f"“{shorten(self.texts[i], 80)}”")
        self._sub.set_text(f"T = {t:.3g}; entropy {entropy:.2f} nats; {says}")
        log_soft = special.log_softmax(self.logits / t, axis=1)
        distance = soft[i] @ log_soft[i] - log_soft @ soft[i]
        distance[[text == self.texts[i] for text in self.texts]] = np.inf
        nearest = np.argsort(distance, kind="stable")[: self.NEIGHBOURS]
        for line, j in zip(self._near, nearest, strict=False):
            found = f"{abs(distance[j]):.3f}  “{shorten(self.texts[j], 58)}”  {visible(self.label_names[self.top[j]])}"
            line.set_text(found if np.isfinite(distance[j]) else "")
        self._image.set_data(100 * self._likeness(t)[np.ix_(self._rank, self._rank)])
        self._fig.canvas.restore_region(self._background)
        for artist in self._moving:
            self._fig.draw_artist(artist)
        return _encode(self._fig)


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
        self.models, self.label_names = dict(models), list(label_names)
        tooltip = "A sentence for the models; press Enter to ask them"
        layout = {"width": "63em", "max_width": "100%"}
        self.text = _control(
            ipw.Text, "sentence", "press Enter", tooltip, value=text, continuous_update=False, layout=layout
        )
        super().__init__("Probabilities and milliseconds of each model for one sentence", [self.text])
        if not self.models:
            self.lack("No models to try: run notebook 03, which trains a student.")
            return
        self.watch(self.text)
        self.redraw()

    def ask(self, text: str) -> pd.DataFrame:
        """Probabilities, a row a model; the index also has the median milliseconds of a call with this one text."""
        rows, index = [], []
        for name, logits in self.models.items():
            logits([text])  # warm
            seconds = []
            for _ in range(self.REPEATS):
                began = time.perf_counter()
                found = logits([text])
                seconds.append(time.perf_counter() - began)
            rows.append(metrics.softmax(found)[0])
            index.append((name, 1000 * float(np.median(seconds))))
        return pd.DataFrame(rows, pd.MultiIndex.from_tuples(index, names=["model", "ms"]), self.label_names)

    def draw(self) -> bytes:
        """One column of bars a model, the same classes in each."""
        text = self.text.value.strip()
        if not text:
            raise WorkbenchError("There is no sentence: type one and press Enter.")
        self.note.value = ""
        table = self.ask(text)
        shown = table.columns[np.argsort(-table.mean().to_numpy(), kind="stable")[: self.BARS]]
        fig = _figure(2.5)
        fig.text(0.01, 0.97, f"“{shorten(text, 80)}”", weight="bold", va="top")
        axes = fig.subplots(1, len(table), squeeze=False)[0]
        fig.subplots_adjust(left=0.27, right=0.985, top=0.75, bottom=0.2, wspace=0.12)
        styles = style.arm_styles([name for name, _ in table.index])
        for ax, ((name, ms), row) in zip(axes, table.iterrows(), strict=True):
            p = 100 * row[shown].to_numpy()
            ax.barh(np.arange(len(shown)), p, height=0.72, color=styles[name][0], alpha=0.85)
            for y, value in enumerate(p):
                ax.text(value + 3, y, "<1" if value < 1 else f"{value:.0f}", va="center", fontsize=8.5)
            ax.set(xlim=(0, 125), ylim=(self.BARS - 0.4, -0.6), xticks=[0, 50, 100], xlabel="probability (%)")
            ax.set_title(f"{shorten(name, 24)}\n{ms:.1f} ms", fontsize=9, loc="left")
            ax.set_yticks([])
        axes[0].set_yticks(np.arange(len(shown)), [shorten(label, 26) for label in shown])
        axes[0].tick_params(axis="y", length=0)
        return _png(fig)


Train = Callable[[Any, Any, Any], Iterator[dict[str, float]]]


class TrainingPanel(Panel):
    """Train students by hand: set, train, stop, go on, and lay finished runs over each other.

    What it makes are ordinary runs in the store, those that `train` makes of the same config. Training goes on in a
    thread of its own while other cells run. *Interrupt* of the kernel doesn't reach that thread: Stop does, and
    keeps a checkpoint, from which Train goes on.
    """

    STEP_SECONDS = 0.25  # between redraws, or four times what the last one took

    def __init__(
        self,
        data: Mapping[str, tuple[Any, Any]],
        base: Any = None,
        *,
        students: Sequence[str] = ("1x32", "2x64", "4x128"),
        train: Train | None = None,
    ) -> None:
        """Nothing is trained before Train is clicked or `run` called.

        Args:
            data: name -> (task, its soft labels), such as ``{"5 labels a class": (task, labels)}``.
            base: a `TrainConfig` with the values to start from and of all that has no control.
            students: sizes to choose from, beside the base's.
            train: makes the generator of records of (task, labels, config); default `training.train`. A config of
                another type than `TrainConfig` gets controls for the fields it shares with it.
        """
        self.data, self.base = dict(data), base if base is not None else training.TrainConfig()
        self.train_function = train or self._train
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._number = 0
        self.live, self._live_name = pd.DataFrame(), ""
        self.finished: dict[str, tuple[Any, pd.DataFrame]] = {}
        names = {field.name for field in fields(self.base)}
        limits = {  # of a box to type in; browsers' whole numbers end at 2**53
            name: {"min": int(training.CHECKS[name].least), "max": min(int(training.CHECKS[name].most), 2**53)}
            for name in ("steps", "seed")
        }
        rates = [float(f"{digit}e{power}") for power in range(-5, -1) for digit in (1, 1.5, 2, 3, 4, 5, 7)]
        temperatures = [0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.7, 8.0, 11.0, 16.0]
        weight = {"min": 0, "max": 4, "step": 0.1}
        b = self.base
        offered = {
            "loss": lambda: _control(
                ipw.Dropdown, "loss", "distillation", "How student and teacher are compared", options=list(LOSSES)
            ),
            "temperature": lambda: _scale("temperature T", "no unit", _SOFTER, temperatures, b.temperature),
            "kd_weight": lambda: _control(
                ipw.FloatSlider, "teacher weight", "factor", "kd_weight: of the distillation term", **weight
            ),
            "ce_weight": lambda: _control(
                ipw.FloatSlider, "label weight", "factor", "ce_weight: of the true labels' cross-entropy", **weight
            ),
            "learning_rate": lambda: _scale("learning rate", "a step", "AdamW's peak rate", rates, b.learning_rate),
            "steps": lambda: _control(
                ipw.BoundedIntText, "steps", "batches", "How many optimizer steps", **limits["steps"]
            ),
            "seed": lambda: _control(
                ipw.BoundedIntText, "seed", "number", "Of new weights and the order of the batches", **limits["seed"]
            ),
            "student": lambda: _control(
                ipw.Dropdown, "student", "layers x width", "Its size", options=[*dict.fromkeys([b.student, *students])]
            ),
        }
        self.settings = {name: make() for name, make in offered.items() if name in names}
        self.case = _control(
            ipw.Dropdown, "task", "with its labels", "What the student is taught with", options=list(self.data)
        )
        button = {"layout": {"width": "7em"}}
        tip = "Finish this step, keep a checkpoint and stop. The kernel's Interrupt doesn't reach this training"
        self.train = ipw.Button(description="Train", tooltip="Train with these settings", **button)
        self.stop = ipw.Button(description="Stop", tooltip=tip, disabled=True, **button)
        tip = "First settings again, no runs shown; the store keeps them"
        self.reset = ipw.Button(description="Reset", tooltip=tip, **button)
        self.bar = ipw.IntProgress(layout={"width": "16em"}, tooltip="Steps done")
        self.overlay = ipw.SelectMultiple(
            description="overlay (runs)", tooltip="Finished runs to draw too: arrows and Ctrl choose", style=_LABEL,
            layout=_LAYOUT | {"height": "5.5em"},
        )  # fmt: skip
        self.status, self.code, self.table = ipw.HTML(), ipw.HTML(), ipw.HTML()
        row = ipw.HBox([self.train, self.stop, self.reset, self.bar], layout={"flex_flow": "row wrap"})
        self._controls = [self.case, *self.settings.values()]
        super().__init__(
            "Loss terms and validation accuracy of a run, and of finished runs to compare it with",
            [*self._controls, self.overlay],
            [self.code, self.table],
        )
        if not self.data:
            self.lack("No task with soft labels to train on: run notebook 02, which makes them.")
            return
        self.children = [self.children[0], row, self.status, *self.children[1:]]
        self.controls += [self.train, self.stop, self.reset]
        self._set_base()
        for control in self._controls:
            control.observe(lambda change: self._describe(), names="value")
        self.watch(self.overlay)
        self.train.on_click(lambda _: self._start())
        self.stop.on_click(lambda _: self._halt())
        self.reset.on_click(lambda _: self._reset())
        self._describe()
        self.redraw()

    def _set_base(self) -> None:
        for name, control in self.settings.items():
            control.value = getattr(self.base, name)
        self.case.value = next(iter(self.data))

    @property
    def config(self) -> Any:
        """What the controls say, as a config.

        Raises:
            WorkbenchError: values that no run could mean.
        """
        values = {name: control.value for name, control in self.settings.items()}
        values = {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}
        # A record a step, so that Stop acts at the next one; ten looks at validation, so that the curve has a shape.
        often = {"log_every": 1, "eval_every": max(1, values.get("steps", 10) // 10)}
        often = {name: value for name, value in often.items() if hasattr(self.base, name)}
        return replace(self.base, **values, **often)

    def _describe(self) -> None:
        """Show the code that equals the controls, and whether such a run was begun."""
        try:
            config, said = self.config, ""
        except WorkbenchError as error:
            self.status.value = _alert(str(error))
            return
        self.code.value = _code(config_code(config))
        if self.running:
            return
        task, labels = self.data[self.case.value]
        if isinstance(config, training.TrainConfig) and isinstance(task, training.AnyTask):
            inputs = training.run_inputs(task, labels, config)
            if training.find_run(task, labels, config):
                said = "These settings have been trained: Train shows that run again."
            elif Store().unfinished("runs", inputs):
                said = "A run of these settings was interrupted: Train goes on from its last checkpoint."
        self.status.value = _line(said or "Ready.")

    @property
    def running(self) -> bool:
        """Whether a run goes on in the background."""
        return self._thread is not None and self._thread.is_alive()

    def run(self) -> pd.DataFrame:
        """Train with the controls' values and wait for it, as Train does without waiting; its records.

        Raises:
            WorkbenchError: the run failed, or another one of this panel is going on.
        """
        config, stop = self._begin()
        text = self._work(config, self.case.value, stop)
        if text:
            raise WorkbenchError(text)
        return self.live

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the run in the background; whether it has ended by then."""
        if thread := self._thread:
            thread.join(seconds)
        return not self.running

    def _start(self) -> None:
        """Train in the background. A click while a run goes on does nothing."""
        with self.lock:
            try:
                config, stop = self._begin()
            except WorkbenchError as error:
                if not self.stop.disabled:  # a second click: the first one's run goes on
                    return
                self.status.value = _alert(str(error))
                return
            arguments = (config, self.case.value, stop)
            self._thread = threading.Thread(target=self._work, args=arguments, daemon=True, name="workbench-train")
            self._thread.start()

    def _halt(self) -> None:
        self._stop.set()  # before the lock, which a picture being drawn may hold
        with self.lock:
            if not self.stop.disabled:
                self.status.value = _line("Stopping…")

    def _begin(self) -> tuple[Any, threading.Event]:
        with self.lock:
            if not self.stop.disabled:
                raise WorkbenchError("This panel is training already: stop that run or wait for it.")
            config = self.config
            self._stop = threading.Event()
            self.train.disabled = self.reset.disabled = True
            self.stop.disabled = False
            self.status.value = _line("Starting…")
            self.bar.value, self.bar.max, self.bar.bar_style = 0, config.steps, "info"
            return config, self._stop

    def _train(self, task: Any, labels: Any, config: Any) -> Iterator[dict[str, float]]:
        return training.train(task, labels, config, checkpoint_seconds=10.0)

    def _work(self, config: Any, case: str, stop: threading.Event) -> str:
        """Consume one run's records; the text of what went wrong: an exception would hold its frames in memory."""
        history: list[dict[str, float]] = []
        self._live_name = f"{case}, {_changes(config, self.base) or 'as given'}"
        drawn, pause, text, ended = 0.0, self.STEP_SECONDS, "", False
        try:
            records = self.train_function(*self.data[case], config)
            try:
                for record in records:
                    history.append(record)
                    if stop.is_set():
                        break
                    if time.monotonic() - drawn >= pause:
                        began = time.monotonic()
                        self._progress(config, history)
                        drawn = time.monotonic()
                        pause = max(self.STEP_SECONDS, 4 * (drawn - began))
                else:
                    ended = True
            finally:
                if hasattr(records, "close"):
                    records.close()
        except Exception as error:
            text = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
        finally:
            self._end(config, case, history, ended, text)
        return text

    def _progress(self, config: Any, history: list[dict[str, float]]) -> None:
        last = history[-1]
        rate = last["step"] / max(last.get("seconds", 0), 1e-6)
        left = (config.steps - last["step"]) / max(rate, 1e-6)
        said = f"Step {last['step']:,} of {config.steps:,}; {rate:.3g} steps/s; about {left:.0f} s left"
        self.bar.value = int(last["step"])
        self.status.value = _line(f"{said}. {_scores(history)}")
        with self.lock:
            self.live = pd.DataFrame(history)
        self.redraw()

    def _end(self, config: Any, case: str, history: list[dict[str, float]], ended: bool, text: str) -> None:
        with self.lock:
            self.live = pd.DataFrame(history)
            step = int(history[-1]["step"]) if history else 0
            self.bar.value = step
            self.bar.bar_style = "danger" if text else "success" if ended else "warning"
            if text:
                self.status.value = _alert(text)
            elif ended:
                self._number += 1
                name = f"{self._number}: {self._live_name}"
                self.finished[name] = config, self.live
                self.overlay.options = list(self.finished)
                self._tabulate()
                self.status.value = _line(f"Done: {step:,} steps. {_scores(history)} The run is in the store.")
            else:
                self.status.value = _line(f"Stopped at step {step:,} of {config.steps:,}: Train goes on from there.")
            self.redraw()
            self.train.disabled = self.reset.disabled = False
            self.stop.disabled = True

    def _tabulate(self) -> None:
        rows = {}
        for name, (config, history) in self.finished.items():
            seen = history["validation"].dropna() if "validation" in history else pd.Series(dtype=float)
            best = f"{100 * seen.max():.1f}" if len(seen) else "–"
            seconds = f"{history['seconds'].iloc[-1]:.1f}" if "seconds" in history else "–"
            rows[name] = {"best validation accuracy (%)": best, "steps": config.steps, "training (s)": seconds}
        self.table.value = _table(pd.DataFrame(rows).T.rename_axis("run").reset_index())

    def _reset(self) -> None:
        with self.lock:
            if not self.stop.disabled:
                return
            self.finished, self.live, self._number = {}, pd.DataFrame(), 0
            self.overlay.options, self.table.value, self.bar.value = [], "", 0
            self._set_base()
            self._describe()
            self.redraw()

    def draw(self) -> bytes:
        """Loss terms on the left, validation accuracy on the right; dashed what is laid over."""
        fig = _figure(3.0)
        left, right = fig.subplots(1, 2)
        fig.subplots_adjust(left=0.085, right=0.965, top=0.9, bottom=0.3, wspace=0.24)
        runs = {name: self.finished[name][1] for name in self.overlay.value if name in self.finished}
        if len(self.live) and not any(history is self.live for history in runs.values()):
            runs[self._live_name] = self.live
        names = {"kd": "distillation", "ce": "cross-entropy", "loss": "loss"}
        palette = [colour for colour, _ in style.ARM_STYLES.values()]
        for i, (name, history) in enumerate(reversed(runs.items())):
            look = {"color": palette[i % len(palette)], "lw": 2.2 if i == 0 else 1.3}
            terms = [term for term in ("kd", "ce") if term in history and history[term].notna().any()] or ["loss"]
            for term, dashes in zip(terms, ("-", ":"), strict=False):
                smooth = history[term].ewm(halflife=max(1, len(history) / 60)).mean()
                left.plot(history["step"], smooth, dashes, label=names[term] if i == 0 else None, **look)
            if "validation" in history:
                seen = history.dropna(subset="validation")
                look |= {"ms": 4, "clip_on": False, "label": shorten(name, 90)}
                right.plot(seen["step"], 100 * seen["validation"], "-o", **look)
        steps = max([history["step"].max() for history in runs.values()] + [self.bar.max if runs else 1])
        for ax in (left, right):
            ax.set(xlim=(0, steps), xlabel="optimizer step")
            ax.grid(axis="y")
        left.set(ylim=(0, None), ylabel="nats")
        left.set_title("loss terms, smoothed", loc="left")
        right.set(ylim=(0, 100))
        right.set_title("validation accuracy (%)", loc="left")
        if runs:
            left.legend(loc="upper right")
            fig.legend(*right.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0.01, 0), fontsize=8.5)
        else:
            left.text(0.5, 0.5, "Train draws here", transform=left.transAxes, ha="center", color=style.GREY)
        return _png(fig)


def config_code(config: Any) -> str:
    """Python that makes an equal config; fields at their default are left out."""
    plain = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(config)}
    said = [f"{name}={getattr(config, name)!r}" for name, default in plain.items() if getattr(config, name) != default]
    return f"{type(config).__name__}({', '.join(said)})"


def _changes(config: Any, base: Any) -> str:
    """What differs from the base, for a run's name."""
    left_out = ("log_every", "eval_every")
    names = [f.name for f in fields(config) if f.name not in left_out]
    return ", ".join(f"{n} {getattr(config, n)}" for n in names if getattr(config, n) != getattr(base, n))


def _scores(history: list[dict[str, float]]) -> str:
    seen = [100 * r["validation"] for r in history if r.get("validation", np.nan) == r.get("validation", np.nan)]
    loss = f"Loss {history[-1]['loss']:.3g}" if "loss" in history[-1] else ""
    return f"{loss}; validation {seen[-1]:.1f} % (best {max(seen):.1f} %)." if seen else f"{loss}."


def _code(text: str) -> str:
    return f'<pre style="white-space:pre-wrap;user-select:all">{html(text)}</pre>'


def _table(rows: pd.DataFrame) -> str:
    with pd.option_context("display.max_colwidth", None):
        page = rows.to_html(index=False, border=0, justify="left")
    return page.replace("<td>", '<td style="padding:0 1.5em 0.3em 0">')


def _line(text: str) -> str:
    return f'<p style="line-height:1.4;margin:0.3em 0">{html(text)}</p>'


_LESS_IS_BETTER = set("ms seconds bytes parameters flops nll brier ece kl errors loss negative".split())


def _lower_is_better(measure: str) -> bool:
    return bool(set(measure.lower().replace(".", "_").split("_")) & _LESS_IS_BETTER)


class SweepPanel(Panel):
    """Finished runs of a sweep: choose axes, metric and slice, then look into a single run."""

    def __init__(self, runs: pd.DataFrame | None) -> None:
        """Show the table of `sweeps.run_all`.

        Args:
            runs: a row a run: the fields of its config, its scores (names with a dot) and, for its curve, ``run``.
        """
        about = "A score of finished runs against a setting, and one run's curve"
        if runs is None or not len(runs):
            super().__init__(about, [])
            self.lack("No finished runs to explore: run notebook 04, which makes a sweep.")
            return
        self.runs = runs.reset_index(drop=True)
        scores = [name for name in self.runs if "." in str(name) and pd.api.types.is_numeric_dtype(self.runs[name])]
        scores += [name for name in ("score", "train_seconds", "ce", "kd", "grad_ratio") if name in self.runs]
        plain = [name for name in self.runs if name not in (*scores, "run", "config")]
        varied = [name for name in plain if 1 < self.runs[name].astype(str).nunique()]
        if not scores:
            raise WorkbenchError("The runs have no scores: give the table that sweeps.run_all returns.")
        axes = [name for name in varied if name not in ("arm", "seed")] or varied or plain
        slices = ["(none)", *[name for name in varied if name != "seed"]]
        self.x = _control(ipw.Dropdown, "x axis", "a setting", "What varies from left to right", options=axes)
        self.metric = _control(ipw.Dropdown, "y axis", "a score", "What is compared", options=scores)
        first = "arm" if "arm" in slices else slices[0]
        self.slice = _control(
            ipw.Dropdown, "colour", "a setting", "One line for each of its values", options=slices, value=first
        )
        self.chosen = _control(ipw.Dropdown, "run", "its settings", "The run whose curve is drawn", options=[])
        self.code = ipw.HTML()
        super().__init__(about, [self.x, self.metric, self.slice, self.chosen], [self.code])
        self._list()
        self.metric.observe(lambda change: self._list(), names="value")
        self.watch(self.x, self.metric, self.slice, self.chosen)
        self.redraw()

    def _list(self) -> None:
        """Offer the runs, the best first; keep the chosen one."""
        with self.lock:
            kept, metric = self.chosen.value, self.metric.value
            ranked = self.runs[metric].sort_values(ascending=_lower_is_better(metric), kind="stable")
            names = [name for name in ("arm", "loss", "temperature", "ce_weight", "learning_rate", "seed")
                     if name in self.runs]  # fmt: skip
            told = self.runs[names].astype(str).agg(", ".join, axis=1)
            self.chosen.options = [(f"{value:.4g}: {told[i]}", int(i)) for i, value in ranked.items()]
            self.chosen.value = kept if kept is not None else int(ranked.index[0])

    def draw(self) -> bytes:
        """Means over what is not told apart, with a dot a run; to the right the chosen run."""
        x, metric, by, chosen = self.x.value, self.metric.value, self.slice.value, self.chosen.value
        fig = _figure(3.5)
        left, right = fig.subplots(1, 2, width_ratios=[3, 2])
        fig.subplots_adjust(left=0.1, right=0.965, top=0.9, bottom=0.3, wspace=0.25)
        numeric = pd.api.types.is_numeric_dtype(self.runs[x])
        values = self.runs[x] if numeric else self.runs[x].astype(str)
        levels = sorted(values.dropna().unique())
        spread = numeric and levels and levels[0] > 0 and levels[-1] / levels[0] >= 8
        at = values.astype(float) if numeric else values.map({level: i for i, level in enumerate(levels)})
        groups = self.runs[by].astype(str) if by != "(none)" else pd.Series("all runs", self.runs.index)
        styles = style.arm_styles(sorted(groups.unique()))
        for group, rows in self.runs.groupby(groups, sort=True):
            colour, marker = styles[group]
            mean = rows[metric].groupby(at[rows.index]).mean()
            left.plot(at[rows.index], rows[metric], marker, color=colour, ms=4, alpha=0.4, mew=0)
            left.plot(mean.index, mean, color=colour, marker=marker, lw=1.8, label=shorten(group, 26))
        row = self.runs.loc[chosen]
        left.plot(at[chosen], row[metric], "o", ms=12, mfc="none", mec=style.INK, mew=1.4)
        if spread:
            left.set_xscale("log")
            ticks = levels[:: max(1, len(levels) // 8)]
            left.set_xticks(ticks, [f"{level:g}" for level in ticks])
            left.minorticks_off()
        elif not numeric:
            left.set_xticks(range(len(levels)), [shorten(level, 12) for level in levels])
        left.set(xlabel=f"{x}{' (log scale)' if spread else ''}")
        left.set_title(f"{shorten(metric, 28)}, {len(self.runs)} runs; ring: one run", loc="left")
        left.grid(axis="y")
        fig.legend(*left.get_legend_handles_labels(), loc="lower left", ncols=3, bbox_to_anchor=(0.01, 0), fontsize=8.5)
        right.set_title("the one run: validation (%)", loc="left")
        right.set(xlabel="optimizer step", ylim=(0, 100))
        right.grid(axis="y")
        run = row.get("run")
        if run is not None:
            seen = run.history.dropna(subset="validation")
            look = {"ms": 4, "clip_on": False, "color": styles[groups[chosen]][0]}
            right.plot(seen["step"], 100 * seen["validation"], "-o", **look)
            right.set_xlim(0, run.config.steps)
            self.code.value = _code(config_code(run.config))
        return _png(fig)


class ComparePanel(Panel):
    """Two measures of every arm with their Pareto front, accuracy by difficulty, and where two arms disagree."""

    SLICES = 4

    def __init__(
        self,
        measures: pd.DataFrame | None,
        logits: Mapping[str, ArrayLike],
        texts: Sequence[str],
        truth: ArrayLike,
        label_names: Sequence[str],
        *,
        difficulty: ArrayLike | None = None,
    ) -> None:
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
            super().__init__(about, [])
            self.lack("No measured arms to compare: run notebook 05, which measures them.")
            return
        self.measures = measures.select_dtypes("number")
        if len(self.measures.columns) < 2 or len(logits) < 2:
            count = f"{len(self.measures.columns)} measures and {len(logits)} arms"
            raise WorkbenchError(f"There are {count}: a comparison needs two of each.")
        self.probabilities = {name: metrics.softmax(values) for name, values in logits.items()}
        self.predicted = {name: p.argmax(1) for name, p in self.probabilities.items()}
        self.texts, self.truth = list(texts), np.asarray(truth)
        self.label_names = list(label_names)
        first = next(iter(self.probabilities.values()))
        hard = 1 - first.max(1) if difficulty is None else np.asarray(difficulty, float)
        ranks = np.argsort(np.argsort(hard, kind="stable"), kind="stable")
        self.part = ranks * self.SLICES // len(ranks)
        columns, arms = list(self.measures.columns), list(logits)
        cheap = next((name for name in columns if _lower_is_better(name)), columns[1])
        self.x = _control(ipw.Dropdown, "x axis", "a measure", "From left to right", options=columns, value=cheap)
        best = next(name for name in columns if name != cheap)
        self.y = _control(ipw.Dropdown, "y axis", "a measure", "From bottom to top", options=columns, value=best)
        self.one = _control(ipw.Dropdown, "one", "an arm", "Disagrees with the other", options=arms)
        self.other = _control(ipw.Dropdown, "other", "an arm", "Disagrees with the one", options=arms, value=arms[1])
        classes = [("all classes", -1), *((visible(name), i) for i, name in enumerate(self.label_names))]
        self.only = _control(ipw.Dropdown, "true class", "of the texts", "Disagreements to list", options=classes)
        self.table = ipw.HTML()
        super().__init__(about, [self.x, self.y, self.one, self.other, self.only], [self.table])
        self.watch(self.x, self.y, self.one, self.other, self.only)
        self.redraw()

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
        table = pd.DataFrame({0: self.measures[self.x.value], 1: self.measures[self.y.value]}).dropna()
        signs = [-1 if _lower_is_better(name) else 1 for name in (self.x.value, self.y.value)]
        points = table.to_numpy() * signs
        beaten = [((points >= p).all(1) & (points > p).any(1)).any() for p in points]
        return list(table.index[~np.array(beaten)])

    def draw(self) -> bytes:
        """The plane of two measures, and the accuracy in each slice of difficulty."""
        table, front = self.disagreements(), self.front()
        self.note.value = _line(f"{len(table):,} of {len(self.texts):,} texts in the table below")
        self.table.value = _table(table.head(30))
        fig = _figure(3.8)
        left, right = fig.subplots(1, 2)
        fig.subplots_adjust(left=0.09, right=0.955, top=0.91, bottom=0.3, wspace=0.22)
        styles = style.arm_styles(self.measures.index.union(list(self.predicted), sort=False))
        x, y = self.measures[self.x.value], self.measures[self.y.value]
        for name in self.measures.index:
            colour, marker = styles[name]
            left.plot(x[name], y[name], marker, color=colour, ms=9 if name in front else 6, label=shorten(name, 28))
        order = x[front].sort_values().index
        left.plot(x[order], y[order], color="#aaaaaa", lw=1.2, zorder=0)
        if (x > 0).all() and x.max() / x.min() >= 8:
            left.set_xscale("log")
            left.xaxis.set_major_formatter("{x:g}")
            left.xaxis.set_minor_formatter(NullFormatter())
        left.set(xlabel=f"{self.x.value}{' (log scale)' if left.get_xscale() == 'log' else ''}")
        left.set_title(f"{self.y.value}; line: Pareto front", loc="left")
        left.margins(0.1)
        left.grid()
        for name, predicted in self.predicted.items():
            right_of = [100 * (predicted == self.truth)[self.part == part].mean() for part in range(self.SLICES)]
            colour, marker = styles[name]
            right.plot(range(self.SLICES), right_of, color=colour, marker=marker)
        right.set_xticks(range(self.SLICES), ["easiest\nquarter", "2nd", "3rd", "hardest\nquarter"])
        right.set(ylim=(0, 103))
        right.set_title("accuracy by difficulty (%)", loc="left")
        right.grid(axis="y")
        fig.legend(*left.get_legend_handles_labels(), loc="lower left", ncols=3, bbox_to_anchor=(0.01, 0), fontsize=8.5)
        return _png(fig)


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
            super().__init__(about, [])
            self.lack("No traces to read: run notebook 07, which makes them.")
            return
        if absent := [name for name in (question, *models) if name not in problems]:
            raise WorkbenchError(f"The problems have no column {absent[0]!r}: they have {', '.join(problems.columns)}.")
        self.problems, self.models, self.question = problems.reset_index(drop=True), list(models), question
        last = len(problems) - 1
        self.number = _control(ipw.IntSlider, "problem", "number", "Left and right step through", min=0, max=last)
        kinds = ["all", "one is wrong", "all are right"]
        self.only = _control(ipw.Dropdown, "show", "problems", "Which to step through", options=kinds)
        super().__init__(about, [self.number, self.only])
        self._shown = list(range(len(problems)))
        longest = max(sum(map(len, self._steps(row, model))) for row in self._shown for model in self.models)
        self._lines = min(longest + 1, self.LINES)
        self.only.observe(lambda change: self._filter(), names="value")
        self.watch(self.number)
        self.redraw()

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
                self.note.value = _alert("There are no such problems: the one below stays.")
                return
            self.note.value = _line(f"{len(shown):,} of {len(self.problems):,} problems")
            self._shown = shown
            self.number.value, self.number.max = 0, len(shown) - 1
            self.redraw()

    def draw(self) -> bytes:
        """Columns of numbered steps; red and bold is the first wrong one, grey what follows from it."""
        row = self._shown[min(self.number.value, len(self._shown) - 1)]
        problem = self.problems.loc[row]
        height = 1.4 + 0.155 * self._lines  # inches: the same for every problem
        fig = _figure(height)
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
        return _png(fig)

    def _steps(self, row: int, model: str) -> list[list[str]]:
        """The lines of each step of a model."""
        steps, width = self.problems.loc[row, model], self.COLUMNS // len(self.models)
        steps = [line for line in steps.splitlines() if line.strip()] if isinstance(steps, str) else steps
        numbered = (f"{i}. {visible(step)}" for i, step in enumerate(steps, 1))
        return [textwrap.wrap(step, width, subsequent_indent="    ") for step in numbered]
