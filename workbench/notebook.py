"""Notebooks as data: what their cells promise, what of a run is kept, and how a page shows it."""

from __future__ import annotations  # nbformat takes 3 s to import: only what runs or publishes pays for it

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import escape
from workbench.errors import WorkbenchError
from workbench.store import fingerprint, write_atomic

if TYPE_CHECKING:
    from nbformat import NotebookNode

ANSWER = "application/vnd.workbench.answer+json"
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
    found = [o.data[ANSWER] for c in nb.cells for o in c.get("outputs", []) if ANSWER in o.get("data", {})]
    return found[-1] if found else None


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
                output.text = _last_state(output.text)
            data = output.get("data", {})
            if data.pop(_WIDGET, None) is not None and "image/png" not in data:
                continue
            kept.append(output)
        cell.outputs = kept
    return nb


def _last_state(text: str) -> str:
    """What a terminal would show of each line: the part after its last carriage return."""
    return re.sub(r"[^\n]*\r(?=[^\r\n])", "", text).replace("\r", "")


def figures(cells: list[NotebookNode], alt: str) -> str:
    """HTML of the pictures that some cells show."""
    outputs = [o for cell in cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    return "".join(_picture(output, alt) for output in outputs)


def to_html(nb: NotebookNode, hide_code: bool = False) -> str:
    """HTML of its cells, code folded away if asked. What outputs hold is as it came: see `escape.sanitise`."""
    parts, heading, injected = [], "", tagged(nb, "injected-parameters")
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            heading = ([heading] + re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE))[-1]
            parts.append(markdown(cell.source))
        elif cell.cell_type == "code" and cell.source.strip():
            note = '<p class="note">Set for this run:</p>' if cell in injected else ""
            outputs = "".join(_output(output, f"Figure: {heading}") for output in cell.outputs)
            code = note + _highlight(cell.source)
            if hide_code:
                code = f'<details class="code"><summary>Code</summary>{code}</details>'
            parts.append(f'<div class="cell">{code}{outputs}</div>')
    return "\n".join(parts)


def _output(output: NotebookNode, alt: str) -> str:
    if output.output_type == "stream":
        return _text(output.text, output.name)
    if output.output_type == "error":
        frames = "" if output.ename == "WorkbenchError" else _text("\n".join(output.traceback), "traceback")
        more = f"<details><summary>Traceback</summary>{frames}</details>" if frames else ""
        return f'<div class="band failed">{escape.html(f"{output.ename}: {output.evalue}")}</div>{more}'
    data = output.data
    if ANSWER in data:
        return answer_html(data[ANSWER])
    if "image/png" in data:
        return _picture(output, alt)
    if "text/html" in data:
        return f'<div class="wide">{data["text/html"]}</div>'
    if "text/markdown" in data:
        return markdown(data["text/markdown"])
    if "text/latex" in data:
        return markdown(data["text/latex"])
    return _text(data.get("text/plain", ""), "stdout")


def answer_html(found: Mapping[str, Any], between: str = "") -> str:
    """HTML of an answer: its text, then anything to show ``between``, then its table."""
    text, table = markdown(escape.prose(found["text"])), markdown(markdown_table(found))
    return f'<div class="answer">{text}</div>{between}{table}'


def _picture(output: NotebookNode, alt: str) -> str:
    width = output.get("metadata", {}).get("image/png", {}).get("width")
    size = f' width="{int(width)}"' if width else ""
    said = output.data.get("text/plain", "")  # a figure of ours says its title there, another one its type
    alt = alt if said.startswith("<") or not said else f"{alt}. {said}"
    png = output.data["image/png"].replace("\n", "")
    return f'<figure><img src="data:image/png;base64,{png}" alt="{escape.attribute(alt)}"{size}></figure>'


def _text(text: str, kind: str) -> str:
    from nbconvert.filters import ansi2html

    text = re.sub(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]", "", text).rstrip()  # cursor movements; colours stay
    return f'<pre class="{kind}">{ansi2html(text)}</pre>' if text else ""


def _highlight(source: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(source, PythonLexer(), HtmlFormatter())


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

    plugins = [nbmd.import_plugin(name) for name in ("table", "strikethrough", "task_lists", "def_list")]
    renderer = Renderer(escape=False, exclude_anchor_links=True)
    page = nbmd.Markdown(renderer, nbmd.MathBlockParser(), Inline(), plugins)(source)
    return page.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
