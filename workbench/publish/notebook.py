"""Notebooks as data: what their cells promise, what of a run is kept, and how a page shows it.

A run's finding travels as JSON in an output of its own type (`ANSWER`), so that Lab, GitHub and the report each show
it in their way from the same numbers; so do a panel's frames, which a page turns by sliders. nbconvert's own exporters
aren't used: they know nothing of either, and leave TeX and widgets to scripts from elsewhere, where a page here runs
none but `SCRIPT`. `report` runs the notebooks; ``cells.html`` is what a page makes of them.
"""

from __future__ import annotations  # nbformat takes 3 s to import: only what runs or publishes pays for it

import ast
import base64
import copy
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import escape
from workbench.errors import WorkbenchError
from workbench.show import frames
from workbench.store import fingerprint, write_atomic

if TYPE_CHECKING:
    import pandas
    from jinja2 import Environment
    from nbformat import NotebookNode

ANSWER = "application/vnd.workbench.answer+json"
SCRIPT = Path(__file__).with_name("frames.js").read_text(encoding="utf-8")  # the one that a page may run
_WIDGET = "application/vnd.jupyter.widget-view+json"
# Opening $ before and closing $ after a non-space, no digit next, no code between: "$5 and $6" are amounts.
_INLINE_MATH = r"(?<![\\$\w])\$(?=\S)(?P<math_inline_tex>[^$`]+?)(?<=[^\s\\])\$(?![$\d])"


def load(path: Path) -> NotebookNode:
    """A notebook, in the newest format.

    Raises:
        WorkbenchError: not a readable notebook.
    """
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises its own, json's and jsonschema's
        raise WorkbenchError(f"{path} is not a notebook ({type(error).__name__}): open it in Lab.") from error


def save(nb: NotebookNode, path: Path) -> None:
    """Write a notebook, atomically."""
    import nbformat

    write_atomic(path, nbformat.writes(nb))


def tagged(nb: NotebookNode, tag: str) -> list[NotebookNode]:
    """Its cells that carry a tag, such as ``parameters``, ``injected-parameters`` or ``headline``."""
    return [cell for cell in nb.cells if tag in cell.metadata.get("tags", [])]


def parameters(nb: NotebookNode, name: str = "the notebook") -> dict[str, Any]:
    """The names and values that its one cell tagged ``parameters`` assigns.

    Raises:
        WorkbenchError: no such cell or several, or a statement that is not ``name = literal``.
    """
    cells = tagged(nb, "parameters")
    if len(cells) != 1:
        raise WorkbenchError(f"{name} has {len(cells)} cells tagged 'parameters': it needs exactly one.")
    found = {}
    for statement in ast.parse(cells[0].source).body:
        try:
            (target,) = statement.targets
            found[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            raise WorkbenchError(
                f"{name}: {ast.unparse(statement)!r} in the parameters cell is not 'name = literal'."
            ) from None
    return found


def code_hash(nb: NotebookNode) -> str:
    """32 hexadecimal characters naming its code cells; an injected parameters cell does not count."""
    injected = tagged(nb, "injected-parameters")
    return fingerprint([c.source for c in nb.cells if c.cell_type == "code" and c not in injected])


def title(nb: NotebookNode) -> str:
    """The text of its first heading."""
    return _first(nb, r"^# +(.+)$")


def question(nb: NotebookNode) -> str:
    """The one-line question, quoted under the title."""
    return _first(nb, r"^> *(.+)$")


def _first(nb: NotebookNode, pattern: str) -> str:
    texts = (cell.source for cell in nb.cells if cell.cell_type == "markdown")
    return next((m[1].strip() for text in texts if (m := re.search(pattern, text, re.MULTILINE))), "")


def answer(nb: NotebookNode) -> dict[str, Any] | None:
    """The last answer among its outputs: ``text`` (Markdown), ``columns`` and ``rows``; None without one."""
    return shown_last(nb, ANSWER)


def shown_last(nb: NotebookNode, kind: str) -> Any:
    """The last of its outputs of a MIME type; None without one."""
    found = [o.data[kind] for c in nb.cells for o in c.get("outputs", []) if kind in o.get("data", {})]
    return found[-1] if found else None


def without(nb: NotebookNode, kind: str) -> NotebookNode:
    """A copy without what its outputs hold of a MIME type."""
    nb = copy.deepcopy(nb)
    for output in (o for cell in nb.cells for o in cell.get("outputs", [])):
        output.get("data", {}).pop(kind, None)
    return nb


def content(text: str, table: pandas.DataFrame | None = None) -> dict[str, Any]:
    """An answer of a text and the numbers behind it, as JSON: a named index becomes the first columns, NaN is None."""
    if table is None:
        return {"text": text, "columns": [], "rows": []}
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    values = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    plain = [[v.item() if hasattr(v, "item") else v for v in row] for row in values]
    rows = [[v if isinstance(v, int | float | str | None) else str(v) for v in row] for row in plain]
    return {"text": text, "columns": [str(name) for name in table.columns], "rows": rows}


def markdown_table(found: Mapping[str, Any]) -> str:
    """An answer's table in Markdown: floats with three decimals, None as a dash, texts as such; "" without columns."""
    if not found["columns"]:
        return ""
    numeric = [
        bool(found["rows"]) and all(isinstance(row[i], int | float | None) for row in found["rows"])
        for i in range(len(found["columns"]))
    ]
    head, *rows = ([_cell(value) for value in line] for line in (found["columns"], *found["rows"]))
    lines = [head, ["--:" if right else "---" for right in numeric], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else escape.markdown(value)


def clean(nb: NotebookNode) -> NotebookNode:
    """A copy with nothing volatile in it: widget state, timings, tool metadata, overwritten progress lines.

    A widget's output keeps its picture; one without a picture is dropped, for nothing could draw it.
    """
    from nbformat import from_dict

    nb = from_dict(nb)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    ours = {key: value for key, value in nb.metadata.items() if key == "workbench"}
    nb.metadata = from_dict({"kernelspec": kernel, "language_info": {"name": "python"}, **ours})
    for cell in nb.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream":
                # What a terminal would show of each line: the part after its last carriage return.
                output.text = re.sub(r"[^\n]*\r(?=[^\r\n])", "", output.text).replace("\r", "")
            data = output.get("data", {})
            if data.pop(_WIDGET, None) is not None and "image/png" not in data:
                continue
            kept.append(output)
        cell.outputs = kept
    return nb


@cache
def templates() -> Environment:
    """The pages' templates: what they print is text, shown as by `escape.visible`, unless it is `Markup`."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup
    from nbconvert.filters import ansi2html
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    made = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    made.finalize = lambda value: escape.visible(value) if type(value) is str else value
    style = HtmlFormatter(style="xcode").get_style_defs(".highlight")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    made.globals |= {"answer_type": ANSWER, "frames_type": frames.FRAMES, "code_style": Markup(style)}
    made.globals |= {"script": Markup(SCRIPT), "script_hash": f"sha256-{digest}"}
    made.filters |= {
        "answer": lambda found: Markup(answer_html(found)),
        "first": frames.first,
        "json": lambda found: json.dumps(found, separators=(",", ":")),
        "code": lambda source: Markup(highlight(source, PythonLexer(), HtmlFormatter())),
        "headings": partial(re.findall, r"(?m)^#+ +(.+)$"),
        "markdown": lambda source: Markup(markdown(source)),
        # Cursor movements go, colours stay.
        "terminal": lambda text: Markup(ansi2html(re.sub(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]", "", text).rstrip())),
    }
    return made


def to_html(nb: NotebookNode, hide_code: bool = False) -> str:
    """HTML of its cells, code folded away if asked. What outputs hold is as it came: see `escape.sanitise`."""
    return templates().get_template("cells.html").module.cells(nb, tagged(nb, "injected-parameters"), hide_code)


def outputs(cells: list[NotebookNode], alt: str) -> str:
    """HTML of all that some cells show, without their code."""
    shown = templates().get_template("cells.html").module.shown
    return "\n".join(shown(output, alt) for cell in cells for output in cell.get("outputs", []))


def moves(page: str) -> bool:
    """Whether a sanitised page holds frames, so that `SCRIPT` has something to do."""
    return bool(re.search('<section[^<>]* data-frames="', page))


def figures(cells: list[NotebookNode], alt: str) -> str:
    """HTML of the pictures that some cells show."""
    picture = templates().get_template("cells.html").module.picture
    outputs = [o for cell in cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    return "".join(picture(output, alt) for output in outputs)


def answer_html(found: Mapping[str, Any], between: str = "") -> str:
    """HTML of an answer: its text, then anything to show ``between``, then its table."""
    text, table = markdown(escape.prose(found["text"])), markdown(markdown_table(found))
    return f'<div class="answer">{text}</div>{between}{table}'


def markdown(source: str) -> str:
    """HTML of Markdown: math as MathML, tables that scroll by themselves, links to notebooks as to pages."""
    from latex2mathml.converter import convert
    from nbconvert.filters import markdown_mistune as nbmd

    def mathml(tex: str, display: str) -> str:
        try:
            return convert(tex.strip(), display=display)
        except Exception:  # the converter raises many types; the source is better than no page
            return f"<code>{escape.html(tex)}</code>"

    class Renderer(nbmd.IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return mathml(body, "inline")

        def block_math(self, body: str) -> str:
            return mathml(body, "block")

        def latex_environment(self, name: str, body: str) -> str:
            return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

        def link(self, text: str, url: str, title: str | None = None) -> str:
            local = url if "://" in url else re.sub(r"\.ipynb(?=#|$)", ".html", url)
            return super().link(text, local, title)

    class Inline(nbmd.MathInlineParser):
        SPECIFICATION = {**nbmd.MathInlineParser.SPECIFICATION, "inline_math_tex": _INLINE_MATH}

    page = nbmd.MarkdownWithMath(Renderer(escape=False, exclude_anchor_links=True), inline=Inline())(source)
    return page.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
