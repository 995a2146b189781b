"""Notebooks as data: what their cells promise, what of a run is kept, and how a page shows it.

A run's finding travels as JSON in an output of its own type (`ANSWER`), so that Lab, GitHub and the report each show
it in their way from the same numbers; so do a panel's frames, which a page turns by sliders. nbconvert's own exporters
aren't used: they know nothing of either, and leave TeX and widgets to scripts from elsewhere, where a page here runs
none but `SCRIPT` and, where there are frames, `MOVER`. `report` runs the notebooks; ``cells.html`` is what a page makes
of them.
"""

from __future__ import annotations  # nbformat takes 3 s to import: only what runs or publishes pays for it

import ast
import base64
import copy
import hashlib
import io
import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import errors, escape
from workbench.errors import WorkbenchError
from workbench.show import frames
from workbench.show.findings import PLAIN
from workbench.store import fingerprint, write_atomic

if TYPE_CHECKING:
    import pandas
    from jinja2 import Environment
    from nbformat import NotebookNode

ANSWER = "application/vnd.workbench.answer+json"
SCRIPT, MOVER = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.js", "frames.js"))
# Where our own sentences give a verdict: in bold, after a colon, or of several words. A class may be called "WORSE".
_VERDICT = re.compile(
    rf"(?:(?<=\*\*)|(?<=: ))(?:{'|'.join(sorted(PLAIN, key=len, reverse=True))})(?![\w-])|"
    rf"\b(?:{'|'.join(code for code in PLAIN if ' ' in code)})\b"
)
_SENTENCE = re.compile(r".+?[.?!](?=\s+[^a-z\d\s]|\s*$)|.+", re.S)  # of an answer
_OPENING = re.compile(r"\A\s*# +.+\n*(?:> *.+\n*)*")  # title and question
_WIDGET = "application/vnd.jupyter.widget-view+json"
# Opening $ before and closing $ after a non-space, no digit next, no code between: "$5 and $6" are amounts.
_INLINE_MATH = r"(?<![\\$\w])\$(?=\S)(?P<math_inline_tex>[^$`]+?)(?<=[^\s\\])\$(?![$\d])"


def load(path: Path) -> NotebookNode:
    """A notebook, in the newest format.

    Raises:
        WorkbenchError: not a readable notebook.
    """
    import nbformat

    wrong: dict[str, Exception] = {}  # by what it has to be; nbformat itself goes on with it
    try:
        found = nbformat.read(path, as_version=4, capture_validation_error=wrong)
        for error in wrong.values():
            raise error
        return found
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
        WorkbenchError: no such cell or several, no Python, or a statement that is not ``name = literal``.
    """
    cells = tagged(nb, "parameters")
    if len(cells) != 1:
        raise WorkbenchError(f"{name} has {len(cells)} cells tagged 'parameters': it needs exactly one.")
    try:
        statements = ast.parse(cells[0].source).body
    except (SyntaxError, ValueError) as error:
        raise WorkbenchError(f"{name}: its parameters cell is not Python ({errors.reason(error)}): mend it.") from None
    found = {}
    for statement in statements:
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


def worded(text: str) -> str:
    """An answer's text with its verdicts in plain words: its table keeps the capitals by which they are defined."""

    def said(found: re.Match[str]) -> str:
        words = PLAIN[found[0]]
        return words if text[: found.start()].strip("* ") else words[0].upper() + words[1:]

    return _VERDICT.sub(said, text)


def sentences(text: str) -> list[str]:
    """An answer's text cut into its sentences, of which the first stands alone."""
    return [found.strip() for found in _SENTENCE.findall(worded(text))] or [""]


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
    looks = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("xcode", "github-dark"))
    light, dark = (re.sub(r" */\*.*?\*/", "", look) for look in looks)
    made.globals |= {"answer_type": ANSWER, "frames_type": frames.FRAMES, "light_code": Markup(light)}
    made.globals |= {"dark_code": Markup(dark), "lighter": lighter}
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


def to_html(nb: NotebookNode) -> str:
    """HTML of a notebook: title, question, its answer, the one picture, then its cells with their code folded.

    What outputs hold is as it came: see `escape.sanitise`.
    """
    from nbformat import from_dict

    nb, opening, above = from_dict(nb), "", []
    first = next((cell for cell in nb.cells[:1] if cell.cell_type == "markdown"), None)
    if first and (begun := _OPENING.match(first.source)):
        opening, first.source = begun[0], first.source[begun.end() :]
    if found := answer(nb):
        above.append(answer_text(found))
    for cell in [*tagged(nb, "headline"), *tagged(nb, "decision")]:
        drawn = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        if drawn:
            above.append(picture(drawn[0], f"The finding of {title(nb)}"))
            drawn[0].data = from_dict({"text/markdown": "The picture stands [at the top of this page](#finding)."})
            break
    finding = f'<div id="finding">{"".join(above)}</div>' if above else ""
    cells = templates().get_template("cells.html").module.cells(nb, tagged(nb, "injected-parameters"))
    return f"{markdown(opening)}{finding}{cells}"


def outputs(cells: list[NotebookNode], alt: str) -> str:
    """HTML of all that some cells show, without their code."""
    shown = templates().get_template("cells.html").module.shown
    return "\n".join(shown(output, alt) for cell in cells for output in cell.get("outputs", []))


def moves(page: str) -> bool:
    """Whether a sanitised page holds frames, so that `MOVER` has something to do."""
    return bool(re.search('<section[^<>]* data-frames="', page))


def scripts(page: str) -> list[str]:
    """What a sanitised page may run."""
    return [SCRIPT, MOVER] if moves(page) else [SCRIPT]


def digest(script: str) -> str:
    """By what a page's policy knows a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def picture(output: NotebookNode, alt: str) -> str:
    """HTML of the picture that an output shows."""
    return templates().get_template("cells.html").module.picture(output, alt)


def figures(cells: list[NotebookNode], alt: str) -> str:
    """HTML of the pictures that some cells show."""
    drawn = [o for cell in cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    return "".join(picture(output, alt) for output in drawn)


@lru_cache(maxsize=512)  # pages are written again after each notebook of a run
def lighter(png: str) -> str:
    """A picture in base64 with at most 256 colours, which is all that a figure needs: a third of the bytes."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(png))) as full:
            clear = full.mode == "RGBA" and full.getchannel("A").getextrema() != (255, 255)
            if full.mode not in ("RGB", "RGBA") or clear:
                return png
            made = io.BytesIO()
            full.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    except Exception:  # Pillow raises many types; what is no picture a browser tells in its own way
        return png
    return min(base64.b64encode(made.getvalue()).decode(), png, key=len)


def answer_text(found: Mapping[str, Any]) -> str:
    """HTML of an answer's text: the first sentence large, the others as a list."""
    first, *rest = (markdown(escape.prose(sentence)) for sentence in sentences(found["text"]))
    listed = "\n".join(f"<li>{sentence}</li>" for sentence in rest)
    return f'<div class="answer">{first}\n{f"<ul>{listed}</ul>" if rest else ""}</div>'


def answer_html(found: Mapping[str, Any], between: str = "") -> str:
    """HTML of an answer: its text, then anything to show ``between``, then its table."""
    return f"{answer_text(found)}{between}{markdown(markdown_table(found))}"


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
