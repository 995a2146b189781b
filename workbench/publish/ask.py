"""A student that answers inside a page, opened from its file: no server, no network, nothing installed.

Its one idea: the page holds the student's own files and reads them as Python does, so that it gives the same labels.
``ask.js`` is the forward pass and the tokenizer of what `workbench.students.build` makes, ``ask.html`` the box around
it; `pack` collects what both need. A notebook hands it to the report's index with `in_report`, `workbench.publish.ship`
writes it into a folder of its own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import WorkbenchError
from workbench.escape import visible
from workbench.publish import notebook as nb_

if TYPE_CHECKING:
    from workbench.publish.judged import Judged
    from workbench.store import Store
    from workbench.tasks import Task
    from workbench.teacher import Teacher
    from workbench.training import Run

PAGE = "ask.html"  # in a shipped folder
ASK = "application/vnd.workbench.ask+json"
SCRIPT = Path(__file__).with_name("ask.js").read_text(encoding="utf-8")
MOST = 1_700_000  # bytes of weights: a third more in base64, so that a page stays below 2.5 MB
STORED = 200  # texts whose answer by the teacher is told
# What `ask.js` counts on; a small student of `students.build` has it.
_NEEDED = {
    "model_type": "modernbert", "dtype": "float32", "classifier_pooling": "mean", "classifier_activation": "gelu",
    "hidden_activation": "gelu", "attention_bias": False, "mlp_bias": False, "norm_bias": False,
    "classifier_bias": False, "global_attn_every_n_layers": 1,
}  # fmt: skip
_STEPS = ["NFC", "Lowercase", "Replace", "BPE"]  # of its tokenizer
_TOLD = "hidden_size num_hidden_layers num_attention_heads intermediate_size norm_eps rope_parameters".split()


@dataclass(frozen=True)
class Asked:
    """What a notebook shows in a line, and the report's index as a box; `content` is None where no page can run it."""

    content: dict[str, Any] | None
    told: str

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {"text/plain": self.told} | ({ASK: self.content} if self.content else {})


def in_report(
    run: Run, task: Task, teacher: Teacher | None = None, *, refused: float = 0.1, store: Store | None = None
) -> Asked:
    """A student for the report's index, to be shown by a notebook's cell; the last that was shown stands there.

    Args:
        run: the student; where a page can't run it (see `pack`), what is shown says why.
        task: what it was trained on; temperature and threshold are set on its calibration split.
        teacher: what it had said is told for some test texts.
        refused: share of texts that do belong to a class which may be refused, in (0, 1).
        store: where the teacher's answers are kept.
    """
    from workbench.publish.judged import judge  # torch takes a second to import, and the report needs none

    if why := refusal(run.path):
        return Asked(None, why)
    judged = judge(run, task, teacher, refused, store)
    return Asked(pack(run.path, judged, said(task, judged)), "This student answers on the first page of the report.")


def said(task: Task, judged: Judged, only: str | None = None) -> list[tuple[str, str]]:
    """Up to `STORED` test texts, evenly chosen, or `only` one, with the class that the teacher gave each.

    [] without a teacher. Only texts that read as they are written: a page would show another one than it asks about.
    """
    if judged.teacher is None:
        return []
    names = [visible(task.label_names[label]) for label in judged.teacher.argmax(1)]
    pairs = zip(task.test["text"], names, strict=True)
    kept = [(text, name) for text, name in pairs if visible(text) == text and only in (None, text)]
    return [kept[i] for i in np.linspace(0, len(kept) - 1, min(STORED, len(kept))).astype(int)]


def refusal(folder: str | Path) -> str:
    """Why no page can run the student in `folder`, in a sentence; "" where one can."""
    config = _read(folder, "config.json")
    fits = all(config.get(name) == value for name, value in _NEEDED.items())
    if not fits or _steps(_read(folder, "tokenizer.json")) != _STEPS:
        kind = visible(config.get("model_type"))
        return f"No page can run a {kind} of this shape: to ask one inside a page, train a small student, like '2x64'."
    if (size := _weights(folder).stat().st_size) > MOST:
        return f"No page can hold a student of {size / 1e6:.1f} MB: up to {MOST / 1e6:.1f} MB can answer inside one."
    return ""


def pack(folder: str | Path, judged: Judged, said: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """What a page needs to answer like the student in `folder`: its weights in base64, its tokenizer, its numbers.

    Args:
        folder: in hub format, such as `Run.path`.
        judged: its temperature and threshold.
        said: texts and what its teacher had said of each.

    Raises:
        WorkbenchError: not a small student of `students.build`, or one that makes a page too heavy.
    """
    if why := refusal(folder):
        raise WorkbenchError(why)
    config, tokenizer = _read(folder, "config.json"), _read(folder, "tokenizer.json")
    kept = {name: config[name] for name in _TOLD}
    kept["id2label"] = {i: visible(name) for i, name in config["id2label"].items()}
    return {
        "model": base64.b64encode(_weights(folder).read_bytes()).decode(),
        "tokenizer": {name: tokenizer[name] for name in ("added_tokens", "normalizer", "model")},
        "config": kept | {"temperature": judged.temperature, "refuse_below": judged.refuse_below},
        "most": _read(folder, "tokenizer_config.json")["model_max_length"],
        "said": [*map(list, said)],
    }


def _read(folder: str | Path, name: str) -> dict[str, Any]:
    return json.loads((Path(folder) / name).read_text(encoding="utf-8"))


def _steps(tokenizer: dict[str, Any]) -> list[str]:
    normalizer = tokenizer["normalizer"] or {}
    return [step["type"] for step in (*normalizer.get("normalizers", []), tokenizer["model"])]


def _weights(folder: str | Path) -> Path:
    return Path(folder) / "model.safetensors"


def parts(packed: dict[str, Any]) -> dict[str, Any]:
    """The values of ``ask.html``; the page that includes it must let the script of this hash run."""
    from markupsafe import Markup

    data = json.dumps(packed, separators=(",", ":")).replace("<", "\\u003c")  # nothing in it ends the element
    return {
        "data": Markup(data),
        "script": Markup(SCRIPT),
        "script_hash": nb_.digest(SCRIPT),
        "classes": len(packed["config"]["id2label"]),
        "megabytes": f"{3 * len(packed['model']) / 4e6:.1f}",
        "stored": len(packed["said"]),
    }


def page(packed: dict[str, Any], title: str) -> str:
    """A page of its own, in HTML."""
    return nb_.templates().get_template("ask_page.html").render(asked=parts(packed), title=title)
