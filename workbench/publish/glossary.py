"""Terms explained where a page first uses them: on hover, and by a plain link to the page of all terms.

The idea: ``glossary.yaml`` is the one table. `explain` goes over the text of a page that is sanitised already, never
over code, links, headings, quotes or formulas, and links the first use of each term; what it returns is sanitised once
more, so that nothing it does could let anything in. In tables, where names of classes stand, only verdicts are linked.
"""

import re
from functools import cache
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from workbench.escape import sanitise

PAGE = "glossary"
_LEFT_ALONE = set("a abbr blockquote button code dfn h1 h2 h3 h4 h5 h6 label math output pre section summary".split())
_TABLE = {"td", "th"}


@cache
def terms() -> dict[str, dict]:
    """Each term with what it ``says``, its other forms (``as``) and whether it is a ``code``, in alphabetical order."""
    import yaml

    found = yaml.safe_load(Path(__file__).with_name("glossary.yaml").read_text(encoding="utf-8"))
    return dict(sorted(found.items(), key=lambda item: (item[0].lower(), item[0])))


def slug(term: str) -> str:
    """Its place on the page of terms; a verdict's own, lest the word in small letters have the same."""
    return ("verdict-" if terms()[term].get("code") else "") + re.sub(r"[^a-z0-9]+", "-", term.lower())


def explain(page: str, seen: set[str]) -> str:
    """Sanitised HTML in which the first use of each term not yet `seen` is a link with its explanation as a title."""
    marker = _Marker(seen)
    marker.feed(page)
    marker.close()
    return sanitise("".join(marker.out))


@cache
def _forms() -> tuple[re.Pattern[str], dict[str, str]]:
    """What finds any form of any term, and the term of each form: codes as they are, other words in small letters."""
    term_of = {}
    for term, entry in terms().items():
        for form in (term, *entry.get("as", ())):
            term_of[form if entry.get("code") else form.lower()] = term
    longest = sorted(term_of, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest))})(?![\w-])", re.IGNORECASE), term_of


class _Marker(HTMLParser):
    """A page as it came, but for first uses."""

    def __init__(self, seen: set[str]) -> None:
        super().__init__(convert_charrefs=False)
        self.seen, self.out = seen, []
        self.within = {"left alone": 0, "table": 0}

    def _open(self, tag: str, by: int) -> None:
        for kind, tags in (("left alone", _LEFT_ALONE), ("table", _TABLE)):
            self.within[kind] = max(0, self.within[kind] + by * (tag in tags))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._open(tag, 1)
        self.out.append(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        self._open(tag, -1)
        self.out.append(f"</{tag}>")

    def handle_entityref(self, name: str) -> None:
        self.out.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.out.append(f"&#{name};")

    def handle_data(self, data: str) -> None:
        finder, _ = _forms()
        self.out.append(data if self.within["left alone"] else finder.sub(self._link, data))

    def _link(self, found: re.Match[str]) -> str:
        word, (_, term_of) = found[0], _forms()
        term = term_of.get(word) or term_of.get(word.lower())
        entry = terms()[term] if term else {}
        if not term or term in self.seen or self.within["table"] and not entry.get("code"):
            return word
        self.seen.add(term)
        return f'<a class="term" href="{PAGE}.html#{slug(term)}" title="{escape(entry["says"])}">{word}</a>'
