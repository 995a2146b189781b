"""What the panels share: controls above one picture, which is drawn under a lock; their words; their axes.

The idea: callbacks arrive on several threads and training draws from one of its own, so a panel draws under a lock,
from the values its controls have by then, into figures that pyplot doesn't know. The frame, colours and primitives
are those of all figures (`style`); `panels`, to read next, has a panel for each question.
"""

import io
import threading
from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
from matplotlib import image as mpl_image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from workbench.errors import WorkbenchError
from workbench.escape import html
from workbench.show import style
from workbench.show.frames import FRAMES

DPI = 144  # pixels per inch: sharp at 700 CSS pixels, and quick
LABEL = {"description_width": "13em"}
LAYOUT = {"width": "31em", "max_width": "100%"}
SOFTER = "What logits are divided by before the softmax: below 1 sharpens, above 1 softens (.25 to 16)"


class Panel(ipw.VBox):
    """Controls above one picture; `note` says in words what the picture can't, or what is wrong."""

    def __init__(self, about: str, controls: Sequence[ipw.Widget], below: Sequence[ipw.Widget] = ()) -> None:
        """Lay out; a subclass then `watch`es its controls.

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
        picture = {"image/png": stamped(bytes(self.image.value))} if self.image.value else {}
        try:
            packed = {FRAMES: found} if (found := self.frames()) else {}
        except WorkbenchError as error:  # at a stop that nobody has turned to yet
            packed, self.note.value = {}, said(f"A published page will show a picture without sliders: {error}", True)
        return bundle | picture | packed, {name: {"width": 700} for name in picture}

    def frames(self) -> dict[str, Any] | None:
        """What a published page can turn by sliders, as of `frames.pack`; None: the picture alone."""
        return None

    def watch(self, *controls: ipw.Widget) -> None:
        """Draw, and again whenever the value of one of the controls changes."""
        for control in controls:
            control.observe(lambda _: self.redraw(), names="value")
        self.redraw()

    def redraw(self) -> None:
        """Draw what the controls say by now; what the user should mend is said in `note`."""
        with self.lock, style.drawing():
            try:
                self.image.value = png(self.draw())
            except WorkbenchError as error:
                self.note.value = said(str(error), alert=True)

    def draw(self) -> Figure:
        """The picture. Called with the lock held; a figure with an Agg canvas holds its pixels already."""
        raise NotImplementedError

    def lack(self, about: str, what: str) -> None:
        """Be laid out with no controls: show what is missing and which notebook makes it."""
        Panel.__init__(self, about, [])
        self.draw = lambda: style.figure(0.1, "Nothing to show yet", what)
        self.redraw()
        self.note.value = said(what, alert=True)
        self.children = [self.note]


def control(kind: type[ipw.Widget], name: str, unit: str, tooltip: str, **options: Any) -> ipw.Widget:
    """A control with its unit, if it has one, behind its name; Tab reaches it in the browser, arrows move it."""
    words = f"{name} ({unit})" if unit else name
    return kind(description=words, tooltip=tooltip, style=LABEL, **{"layout": LAYOUT} | options)


def choice(name: str, unit: str, tooltip: str, options: Sequence[Any], **more: Any) -> ipw.Widget:
    """A control to choose one of some options."""
    return control(ipw.Dropdown, name, unit, tooltip, options=options, **more)


def said(text: str, alert: bool = False) -> str:
    """A line of words; an alert is red, and a screen reader speaks it at once."""
    look, role = ("color:#b3261e;", ' role="alert"') if alert else ("", "")
    return f'<p{role} style="{look}line-height:1.4;margin:0.3em 0">{html(text)}</p>'


def code(text: str) -> str:
    """Code to copy."""
    return f'<pre style="white-space:pre-wrap;user-select:all">{html(text)}</pre>'


def table(rows: pd.DataFrame) -> str:
    """A table as HTML, whole texts in its cells."""
    with pd.option_context("display.max_colwidth", None):
        page = rows.to_html(index=False, border=0, justify="left")
    return page.replace("<td>", '<td style="padding:0 1.5em 0.3em 0">')


def pair(title: str, subtitle: str, widths: Sequence[float] = (1, 1)) -> tuple[Figure, Axes, Axes]:
    """A figure with two axes side by side."""
    fig = style.figure(2.8, title, subtitle)
    left, right = fig.subplots(1, 2, width_ratios=widths)
    left.grid(axis="y")
    right.grid(axis="y")
    return fig, left, right


def measured(history: pd.DataFrame) -> pd.Series:
    """The validation accuracies of a run in % by step, as far as they were measured."""
    seen = history.reindex(columns=["step", "validation"]).dropna()
    return 100 * seen.set_index("step")["validation"].astype(float)


def stamped(picture: bytes) -> bytes:
    """A panel's picture as it stands where nothing answers to its controls, and with a line below that says so."""
    pixels = mpl_image.imread(io.BytesIO(picture))
    with style.drawing():
        line = Figure(figsize=(pixels.shape[1] / DPI, 0.28), dpi=DPI, facecolor="#eeeeee")
        say = {"va": "center", "fontsize": 8.5, "color": style.INK}
        line.text(0.01, 0.5, "Static: run this cell in JupyterLab, and its controls move.", **say)
        FigureCanvasAgg(line).draw()
    below = np.asarray(line.canvas.buffer_rgba()) / 255
    return _encoded(np.concatenate([pixels, below[:, : pixels.shape[1], : pixels.shape[2]]]))


def png(fig: Figure) -> bytes:
    """A figure as PNG."""
    if not isinstance(fig.canvas, FigureCanvasAgg):
        fig.set_dpi(DPI)
        FigureCanvasAgg(fig).draw()
    return _encoded(np.asarray(fig.canvas.buffer_rgba()))


def _encoded(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    mpl_image.imsave(out, pixels, format="png", pil_kwargs={"compress_level": 2})
    return out.getvalue()


def lower_is_better(measure: str) -> bool:
    """Whether less of a measure is better, by the words in its name."""
    return bool(set(measure.lower().replace(".", "_").split("_")) & _LESS_IS_BETTER)


def unit(measure: str) -> tuple[str, float]:
    """A measure in words with its unit, by its last word, and by how much its values are multiplied for it."""
    *first, last = measure.replace(".", "_").split("_")
    if last in ("ms", "seconds"):
        return f"{' '.join(first)} ({last})", 1.0
    return f"{' '.join([*first, last])}{' (%)' * (last in _SHARES)}", 100.0 if last in _SHARES else 1.0


_SHARES = set("accuracy f1 ece agreement errors rate".split())
_LESS_IS_BETTER = set("ms seconds bytes parameters flops nll brier ece kl errors loss negative".split())
