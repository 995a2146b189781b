"""The one place where what comes as data is made fit to be shown: names, texts and whole pages.

A class name, a text, the name of a task, a group or a file is somebody else's. It may hold markup, a formula, terminal
codes or characters that turn a line around. It shall read as it was written, and do nothing: `visible` for a terminal
or a figure, `html` for a page, `markdown` for a notebook or a model card, `yaml` for a card's head.
`sanitise` is the second lock on a page, for what other libraries wrote into it. Pages are made in
`workbench.publish.report`; SECURITY.md has the promises.
"""

import html as html_
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_JOINERS = "\u200c\u200d"  # part of many a word and emoji
# Characters that mean something in Markdown, in math or in a table's row; a reference to one never does.
_MARKS = re.compile(
    r"[&<>`*\[\]|~@$\\]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|"
    r"^#|^[-+](?=\s|$)|^[-=](?=[-=\s]*$)|(?<=^\d)[.)](?=\s|$)|(?<=^\d\d)[.)](?=\s|$)"  # these at the start of a line
)
_BOLD = re.compile(r"\*\*(\S|\S.*?\S)\*\*")
_MATH = re.compile(r"[$\\]")
_MATHML = set(
    "math mrow mi mn mo mtext mspace ms mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup msubsup munder "
    "mover munderover mtable mtr mtd".split()
)
_MATHML_ATTRIBUTES = set(
    "display displaystyle mathvariant stretchy fence form accent accentunder columnalign rowspacing columnspacing "
    "linethickness lspace rspace minsize maxsize width height depth largeop movablelimits separator".split()
)
_MORE = {"figure", "figcaption", "section", "label", "output"}
_STYLES = {"color", "background-color", "text-align", "font-weight", "font-style", "text-decoration", "width"}


def visible(text: object) -> str:
    """One line in which every character shows: white space as one space, controls and the like as ``\\x1b``.

    Also what hides or turns the characters around it (zero-width, soft hyphen, direction marks), and lone surrogates,
    which no file can hold.
    """
    line = " ".join(str(text).split())
    return line if line.isprintable() else _shown(line)


def _shown(text: str, kept: str = _JOINERS) -> str:
    hidden = {c for c in set(text) - set(kept) if unicodedata.category(c) in ("Cc", "Cf", "Cs")}
    return "".join(c.encode("unicode_escape").decode() if c in hidden else c for c in text)


def shorten(text: object, width: int) -> str:
    """`visible` text of at most `width` characters; an ellipsis stands for what was cut."""
    line = visible(text)
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def html(text: object) -> str:
    """A name or text between tags. JupyterLab reads formulas across a page's text, but never across a tag."""
    return _MATH.sub(r"<span>\g<0></span>", html_.escape(visible(text)))


def markdown(text: object) -> str:
    """A name or text in Markdown, in a table's cell too: no markup, link, formula, mention or second line."""
    return _MARKS.sub(_reference, visible(text))


def prose(text: str) -> str:
    """Sentences in Markdown in which ``**bold**`` is the only markup."""
    parts = [_MARKS.sub(_reference, part) for part in _BOLD.split(visible(text))]
    return "".join(f"**{part}**" if i % 2 else part for i, part in enumerate(parts))


def _reference(found: re.Match[str]) -> str:
    reference = f"&#{ord(found[0])};"
    return f"<span>{reference}</span>" if found[0] in "$\\" else reference  # see `html`


def yaml(head: Mapping[str, Any]) -> str:
    """A mapping as YAML, each text in it on one line: nothing in it can end the head of a model card."""
    from yaml import safe_dump

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {visible(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return visible(value) if isinstance(value, str) else value

    return safe_dump(plain(head), sort_keys=False, allow_unicode=True, width=10**6)


def sanitise(page: str) -> str:
    """HTML with only what a report needs: no script, style sheet, form, frame, base, redirect or event handler.

    A section may carry data for sliders; what moves them, outside of what is sanitised, takes it as text.

    Pictures are PNGs in the page itself; links lead to pages, addresses of the web and mail, never into a script.
    Characters that hide or turn others are shown as `visible` shows them.
    """
    import nh3

    def keep(tag: str, name: str, value: str) -> str | None:
        if (tag, name) == ("img", "src"):
            return value if value.startswith("data:image/png;base64,") else None
        return None if name == "href" and value.strip().lower().startswith("data:") else value

    shared = {"class", "id", "title"}
    own = {
        "a": {"href"}, "img": {"src", "alt", "width", "height"}, "details": {"open"}, "ol": {"start"},
        "td": {"colspan", "rowspan", "style"}, "th": {"colspan", "rowspan", "scope", "style"}, "table": {"border"},
        "tr": {"style"}, "span": {"style"}, "p": {"style"}, "div": {"style"}, "section": {"data-frames"},
    }  # fmt: skip
    return nh3.clean(
        _shown(page, _JOINERS + "\n\t"),
        tags=(nh3.ALLOWED_TAGS | _MATHML | _MORE) - {"area", "map", "center"},
        attributes={"*": shared} | own | {tag: _MATHML_ATTRIBUTES for tag in _MATHML},
        attribute_filter=keep,
        url_schemes={"http", "https", "mailto", "data"},
        filter_style_properties=_STYLES,
        link_rel="noopener noreferrer",
    )
