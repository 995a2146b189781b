"""The panel that trains: its settings, its thread, and the runs it has made.

The idea: one thread at a time consumes the records of a run and draws from them; Train and `run` take the same path,
and all that they share with the controls changes under the panel's lock. What a panel is: `widgets`; what a run is, to
read next: `workbench.training`.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

import ipywidgets as ipw
import pandas as pd
from matplotlib.figure import Figure

from workbench import training
from workbench.errors import WorkbenchError
from workbench.escape import shorten
from workbench.losses import LOSSES
from workbench.show import style, widgets
from workbench.store import Store

Train = Callable[[training.Job], Iterator[dict[str, float]]]
DASHES = {"kd": "-", "ce": ":"}  # of the loss terms


class TrainingPanel(widgets.Panel):
    """Train students by hand: set, train, stop, go on, and lay finished runs over each other.

    What it makes are ordinary runs in the store, those that `train` makes of the same config. Training goes on in a
    thread of its own while other cells run. *Interrupt* of the kernel doesn't reach that thread: Stop does, and
    keeps a checkpoint, from which Train goes on.
    """

    STEP_SECONDS = 0.25  # between redraws, or four times what the last one took

    def __init__(
        self, data: Mapping[str, tuple[Any, Any]], base: Any = None, *,
        students: Sequence[str] = ("1x32", "2x64", "4x128"), train: Train | None = None,
    ) -> None:  # fmt: skip
        """Nothing is trained before Train is clicked or `run` called.

        Args:
            data: name -> (task, its soft labels), such as ``{"5 labels per class": (task, labels)}``.
            base: a `TrainConfig` with the values to start from and of all that has no control.
            students: sizes to choose from, beside the base's.
            train: makes the generator of records of a `Job`; default `training.train`. A config of
                another type than `TrainConfig` gets controls for the fields it shares with it.
        """
        about = "Loss terms and validation accuracy of a run, and of finished runs to compare it with"
        self.data = dict(data)
        if not self.data:
            return self.lack(about, "No task with soft labels to train on: run notebook 02, which makes them.")
        first = next(iter(self.data.values()))
        self.base = training.Job(*first, base or training.TrainConfig()).config  # in which every setting is a value
        self.train_function = train or functools.partial(training.train, checkpoint_seconds=10.0)
        self._thread: threading.Thread | None = None
        self._along: tuple[str, ...] = ()  # what was laid over the run without being asked for
        self._stop = threading.Event()
        self.settings = _settings(self.base, students)
        self.case = widgets.choice("task", "", "What the student is taught with", list(self.data))
        self.overlay = widgets.control(
            ipw.SelectMultiple, "compare with", "", "Finished runs to draw too: arrows and Ctrl choose",
            layout=widgets.LAYOUT | {"height": "5.5em"},
        )  # fmt: skip
        tip = "Finish this step, keep a checkpoint and stop. The kernel's Interrupt doesn't reach this training"
        self.train = _button("Train", "Train with these settings", self._start)
        self.stop = _button("Stop", tip, self._halt, disabled=True)
        self.reset = _button("Reset", "First settings again, no runs shown; the store keeps them", self._reset)
        self.bar = ipw.IntProgress(layout={"width": "16em"}, tooltip="Steps done")
        self.status, self.code, self.table = ipw.HTML(), ipw.HTML(), ipw.HTML()
        row = ipw.HBox([self.train, self.stop, self.reset, self.bar], layout={"flex_flow": "row wrap"})
        inputs = [self.case, *self.settings.values()]
        super().__init__(about, [*inputs, self.overlay], [self.code, self.table])
        self.children = [self.children[0], row, self.status, *self.children[1:]]
        self.controls += [self.train, self.stop, self.reset]
        self._reset()
        for setting in inputs:
            setting.observe(lambda _: self._describe(), names="value")
        self.overlay.observe(lambda _: self.redraw(), names="value")

    def _reset(self) -> None:
        """The first settings, and no runs; the store keeps them."""
        with self.lock:
            if not self.stop.disabled:
                return
            self.live, self._live_name = pd.DataFrame(), ""
            self.finished: dict[str, tuple[Any, pd.DataFrame]] = {}
            self.overlay.options, self.table.value, self.bar.value = [], "", 0
            self._along = ()
            for name, control in self.settings.items():
                control.value = getattr(self.base, name)
            self.case.value = next(iter(self.data))
            self._describe()
            self.redraw()

    @property
    def config(self) -> Any:
        """What the controls say, as a config.

        Raises:
            WorkbenchError: values that no run could mean.
        """
        values = {name: control.value for name, control in self.settings.items()}
        values = {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}
        # A record per step, so that Stop acts at the next one; ten evaluations, so that the curve has a shape.
        often = {"log_every": 1, "eval_every": max(1, values.get("steps", 10) // 10)}
        often = {name: value for name, value in often.items() if hasattr(self.base, name)}
        return replace(self.base, **values, **often)

    def _describe(self) -> None:
        """Show the code that equals the controls, and whether such a run was begun."""
        try:
            config = self.config
        except WorkbenchError as error:
            self.status.value = widgets.said(str(error), alert=True)
            return
        self.code.value = widgets.code(config_code(config))
        if self.running:
            return
        (task, labels), text = self.data[self.case.value], "Ready."
        if isinstance(config, training.TrainConfig) and isinstance(task, training.AnyTask):
            if training.find_run(job := training.Job(task, labels, config)):
                text = "These settings have been trained: Train shows that run again."
            elif Store().unfinished("runs", training.run_inputs(job)):
                text = "A run of these settings was interrupted: Train goes on from its last checkpoint."
        self.status.value = widgets.said(text)

    @property
    def running(self) -> bool:
        """Whether a run goes on in the background."""
        return self._thread is not None and self._thread.is_alive()

    def run(self) -> pd.DataFrame:
        """Train with the controls' values and wait for it, as Train does without waiting; its records.

        Raises:
            WorkbenchError: the run failed, or another one of this panel is going on.
        """
        if text := self._work(*self._begin()):
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
            if not self.stop.disabled:
                return
            try:
                arguments = self._begin()
            except WorkbenchError as error:
                self.status.value = widgets.said(str(error), alert=True)
                return
            self._thread = threading.Thread(target=self._work, args=arguments, daemon=True, name="workbench-train")
            self._thread.start()

    def _halt(self) -> None:
        self._stop.set()  # before the lock, which a picture being drawn may hold
        with self.lock:
            if not self.stop.disabled:
                self.status.value = widgets.said("Stopping…")

    def _begin(self) -> tuple[Any, str, threading.Event]:
        """The config, the name of the task, and what stops the run."""
        with self.lock:
            if not self.stop.disabled:
                raise WorkbenchError("This panel is training already: stop that run or wait for it.")
            config = self.config
            self._stop = threading.Event()
            self._enable(False)
            if self.overlay.value == self._along:  # nothing else was chosen
                self.overlay.value = self._along = tuple(self.finished)[-1:]
            self.status.value = widgets.said("Starting…")
            self.bar.value, self.bar.max, self.bar.bar_style = 0, config.steps, "info"
            return config, self.case.value, self._stop

    def _enable(self, idle: bool) -> None:
        self.train.disabled = self.reset.disabled = not idle
        self.stop.disabled = idle

    def _work(self, config: Any, case: str, stop: threading.Event) -> str:
        """Consume one run's records; the text of what went wrong: an exception would hold its frames in memory."""
        history: list[dict[str, float]] = []
        self._live_name = f"{case}, {_changes(config, self.base) or 'as given'}"
        next_look, text, ended = 0.0, "", False
        try:
            records = self.train_function(training.Job(*self.data[case], config))
            try:
                for record in records:
                    history.append(record)
                    if stop.is_set():
                        break
                    if (began := time.monotonic()) >= next_look:
                        self._progress(config, history)
                        took = time.monotonic() - began
                        next_look = began + took + max(self.STEP_SECONDS, 4 * took)
                else:
                    ended = True
            finally:
                if hasattr(records, "close"):
                    records.close()
        except Exception as error:
            text = str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
        finally:
            self._end(config, history, ended, text)
        return text

    def _progress(self, config: Any, history: list[dict[str, float]]) -> None:
        last = history[-1]
        rate = last["step"] / max(last.get("seconds", 0), 1e-6)
        left = (config.steps - last["step"]) / max(rate, 1e-6)
        told = f"Step {last['step']:,} of {config.steps:,}; {rate:.3g} steps/s; about {left:.0f} s left"
        self.bar.value = int(last["step"])
        with self.lock:
            self.live = pd.DataFrame(history)
            self.status.value = widgets.said(f"{told}. {_scores(self.live)}")
        self.redraw()

    def _end(self, config: Any, history: list[dict[str, float]], ended: bool, text: str) -> None:
        with self.lock:
            self.live = pd.DataFrame(history)
            step = int(history[-1]["step"]) if history else 0
            self.bar.value = step
            self.bar.bar_style = "danger" if text else "success" if ended else "warning"
            if ended and not text:
                self.finished[f"{len(self.finished) + 1}: {self._live_name}"] = config, self.live
                kept = self.overlay.value
                self.overlay.options, self.overlay.value = list(self.finished), kept  # new options choose none
                self._tabulate()
                told = f"Done: {step:,} steps. {_scores(self.live)} The run is in the store."
            else:
                told = text or f"Stopped at step {step:,} of {config.steps:,}: Train goes on from there."
            self.status.value = widgets.said(told, alert=bool(text))
            self.redraw()
            self._enable(True)

    def _tabulate(self) -> None:
        rows = []
        for name, (config, history) in self.finished.items():
            best = widgets.measured(history).max()
            seconds = f"{history['seconds'].iloc[-1]:.1f}" if "seconds" in history else "–"
            rows.append({"run": name, "best validation accuracy (%)": "–" if pd.isna(best) else f"{best:.1f}",
                         "steps": config.steps, "training (s)": seconds})  # fmt: skip
        self.table.value = widgets.table(pd.DataFrame(rows))

    def draw(self) -> Figure:
        """Loss terms on the left, validation accuracy on the right, of the run and of what is laid over it."""
        told = "loss terms, smoothed; solid: distillation, dotted: cross-entropy"
        fig, left, right = widgets.pair("Loss and validation accuracy", told)
        runs = {name: self.finished[name][1] for name in self.overlay.value if name in self.finished}
        if len(self.live) and not any(history is self.live for history in runs.values()):
            runs[self._live_name] = self.live
        palette = [colour for colour, _ in style.ARM_STYLES.values()]
        for i, (name, history) in enumerate(reversed(runs.items())):
            look = {"color": palette[i % len(palette)], "lw": 2.2 if i == 0 else 1.3}
            terms = [term for term in DASHES if term in history and history[term].notna().any()] or ["loss"]
            for term in terms:
                smooth = history[term].ewm(halflife=max(1, len(history) / 60)).mean()
                left.plot(history["step"], smooth, DASHES.get(term, "-"), **look)
            right.plot(widgets.measured(history), "-o", ms=4, mew=0, clip_on=False, label=shorten(name, 90), **look)
        steps = max([history["step"].max() for history in runs.values()] + [self.bar.max if runs else 1])
        left.set(xlim=(0, steps), ylim=(0, None), xlabel="optimizer step", ylabel="loss (nats)")
        right.set(xlim=(0, steps), ylim=(0, 100), xlabel="optimizer step", ylabel="validation accuracy (%)")
        if not runs:
            left.text(0.5, 0.5, "Train draws here", transform=left.transAxes, ha="center", color=style.GREY)
        return style.legend(fig, right.lines)


def _settings(base: Any, students: Sequence[str]) -> dict[str, ipw.Widget]:
    """A control for each setting that the config has and a person may turn."""
    rates = [float(f"{digit}e{power}") for power in range(-5, -1) for digit in (1, 1.5, 2, 3, 4, 5, 7)]
    temperatures = [0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.7, 8.0, 11.0, 16.0]
    weight = {"min": 0, "max": 4, "step": 0.1}

    def whole(name: str) -> dict[str, int]:  # ends of a box to type in; browsers' whole numbers end at 2**53
        return {"min": int(training.CHECKS[name].least), "max": min(int(training.CHECKS[name].most), 2**53)}

    def scale(name: str, values: list[float]) -> dict[str, object]:
        # Round values: a FloatLogSlider would turn 0.004 into 0.003981…
        return {"options": [(f"{value:g}", value) for value in sorted({*values, getattr(base, name, values[0])})]}

    sizes = [*dict.fromkeys([getattr(base, "student", students[0]), *students])]
    offered = {
        "loss": (ipw.Dropdown, "distillation loss", "", "How student and teacher are compared", {"options": [*LOSSES]}),
        "temperature": (ipw.SelectionSlider, "temperature T", "", widgets.SOFTER,
                        scale("temperature", temperatures)),
        "kd_weight": (ipw.FloatSlider, "teacher weight", "kd_weight", "Factor of the distillation term", weight),
        "ce_weight": (ipw.FloatSlider, "label weight", "ce_weight", "Factor of the true labels' cross-entropy",
                      weight),
        "learning_rate": (ipw.SelectionSlider, "learning rate", "", "AdamW's peak rate",
                          scale("learning_rate", rates)),
        "steps": (ipw.BoundedIntText, "steps", "batches", "How many optimizer steps", whole("steps")),
        "seed": (ipw.BoundedIntText, "seed", "", "Of new weights and the order of the batches", whole("seed")),
        "student": (ipw.Dropdown, "student", "layers x width", "Its size", {"options": sizes}),
    }  # fmt: skip
    had = {field.name for field in fields(base)}
    return {name: widgets.control(*words, **more) for name, (*words, more) in offered.items() if name in had}


def _button(name: str, tooltip: str, act: Callable[[], None], **options: Any) -> ipw.Button:
    button = ipw.Button(description=name, tooltip=tooltip, layout={"width": "7em"}, **options)
    button.on_click(lambda _: act())
    return button


def config_code(config: Any) -> str:
    """Python that makes an equal config; fields at their default are left out."""
    plain = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(config)}
    given = [f"{name}={getattr(config, name)!r}" for name, default in plain.items() if getattr(config, name) != default]
    return f"{type(config).__name__}({', '.join(given)})"


def _changes(config: Any, base: Any) -> str:
    """What differs from the base, for a run's name."""
    names = [f.name for f in fields(config) if f.name not in ("log_every", "eval_every")]
    return ", ".join(f"{n} {getattr(config, n)}" for n in names if getattr(config, n) != getattr(base, n))


def _scores(history: pd.DataFrame) -> str:
    """As "Loss 0.3; validation 81.0 % (best 82.1 %).", as far as it was measured."""
    loss = f"Loss {history['loss'].iloc[-1]:.3g}" if "loss" in history else ""
    seen = widgets.measured(history)
    return f"{loss}; validation {seen.iloc[-1]:.1f} % (best {seen.max():.1f} %)." if len(seen) else f"{loss}."
