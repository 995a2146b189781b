"""Names as data: whatever stands in one, it reads as it was written, and does nothing."""

import re
from html.parser import HTMLParser

import hostile
import matplotlib
import mistune
import numpy as np
import pandas as pd
import pytest
from huggingface_hub import RepoCard
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat import v4

from workbench import escape
from workbench.errors import WorkbenchError
from workbench.publish import notebook as nb_
from workbench.publish.report import answer
from workbench.show import figures

each = pytest.mark.parametrize("name", [*hostile.NAMES, hostile.NUL], ids=range(len(hostile.NAMES) + 1))
texts = settings(max_examples=150, deadline=None)
anything = st.text(st.one_of(st.characters(), st.sampled_from("<>&$\\`*_[]()!#|~@:/.-+= \"'\n\x00\x1b\u202e")))


class Read(HTMLParser):
    """What a browser would see: the elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def plain_markdown(source: str) -> str:
    """Markdown as a stranger would show it: no sanitiser, HTML passes, every extension."""
    plugins = ["table", "strikethrough", "url", "task_lists", "def_list", "math", "footnotes"]
    return mistune.create_markdown(escape=False, plugins=plugins)(source)


def check_text(page: str, name: str) -> None:
    read = Read(page)
    assert {tag for tag, _ in read.tags} <= {"p", "span"}, page
    assert not [attributes for _, attributes in read.tags if attributes], page
    assert " ".join(read.text.split()) == escape.visible(name)


@each
def test_a_name_is_text_in_html_in_markdown_and_in_an_attribute(name):
    check_text(escape.html(name), name)
    for render in (nb_.markdown, plain_markdown):
        check_text(render(escape.markdown(name)), name)
    picture = v4.new_code_cell(outputs=[v4.new_output("display_data", {"image/png": "AAAA"})])
    (_, (tag, attributes)) = Read(nb_.figures([picture], name)).tags
    assert (tag, attributes) == ("img", {"alt": escape.visible(name), "src": "data:image/png;base64,AAAA"})


@texts
@given(anything)
def test_any_text_is_text_and_no_formula_reaches_across_a_tag(text):
    check_text(escape.html(text), text)
    check_text(plain_markdown(escape.markdown(text)), text)
    check_text(plain_markdown(f"before {escape.markdown(text)}"), f"before {text}".strip())
    for page in (escape.html(text), plain_markdown(escape.markdown(text))):
        between = re.split(r"<[^>]*>", page)  # what JupyterLab's MathJax looks through for delimiters
        assert not [part for part in between if re.search(r"\$.*\$|\\[(\[]|\\begin", part)]


@each
def test_a_name_stays_in_its_cell_and_its_line(name):
    page = nb_.markdown(nb_.markdown_table({"columns": [name, "n"], "rows": [[name, 1.0], ["b", None]]}))
    read = Read(page)
    assert [tag for tag, _ in read.tags if tag in ("td", "th")] == ["th"] * 2 + ["td"] * 4
    assert {tag for tag, _ in read.tags} <= set("div table thead tbody tr th td span".split())
    assert escape.visible(name) in " ".join(read.text.split())


@texts
@given(st.dictionaries(anything, st.one_of(anything, st.floats(allow_nan=False), st.lists(anything))))
def test_nothing_ends_the_head_of_a_card(data):
    head = {escape.visible(key): value for key, value in data.items()}
    card = RepoCard(f"---\n{escape.yaml({'language': 'en', 'x': head})}---\n\nbody\n", ignore_metadata_errors=False)
    assert card.text.strip() == "body"
    plain = {k: [escape.visible(v) for v in x] if isinstance(x, list) else x if isinstance(x, float) else
             escape.visible(x) for k, x in head.items()}  # fmt: skip
    assert card.data.to_dict()["x"] == plain


def test_bold_is_the_only_markup_of_an_answer():
    bundle = answer("**Better** “<b>” [x](y) and **not closed")._repr_mimebundle_()
    assert bundle["text/plain"] == "**Better** “<b>” [x](y) and **not closed"
    read = Read(plain_markdown(bundle["text/markdown"]))
    assert [tag for tag, _ in read.tags] == ["p", "strong"]
    assert read.text.strip() == "Better “<b>” [x](y) and **not closed"


@each
def test_an_answer_says_the_name(name):
    bundle = answer(f"The worst class is {name}.", pd.DataFrame({"class": [name]}))._repr_mimebundle_()
    page = escape.sanitise(nb_.answer_html(bundle[nb_.ANSWER]))
    read = Read(page)
    assert {tag for tag, _ in read.tags} <= set("div p strong span table thead tbody tr th td".split())
    assert escape.visible(name) in " ".join(read.text.split())


def test_an_error_shows_every_character_on_one_line():
    error = WorkbenchError("a\x1b[31m\nb\u202e")
    assert str(error) == "a\\x1b[31m b\\u202e"
    assert error._render_traceback_() == ["WorkbenchError: a\\x1b[31m b\\u202e"]


PAGE = """<h2 id="x">A</h2><p style="color: red; position: fixed">b</p><table border="1" class="dataframe"><tbody><tr>
<td style="text-align: right">1</td></tr></tbody></table><a href="01.html#x">on</a><a href="https://a.b/">out</a>
<img src="data:image/png;base64,AAAA" alt="&quot;c&quot;" width="700"><details class="code"><summary>Code</summary>
</details><math display="block"><mfrac><mi>x</mi><mn>2</mn></mfrac></math><span class="ansi-red-fg">r</span>"""


def test_the_sanitiser_keeps_what_a_report_is_made_of():
    kept = escape.sanitise(PAGE)
    parts = ['id="x"', "color:red", 'class="dataframe"', "text-align:right", 'href="01.html#x"', 'href="https://a.b/"',
             'alt="&quot;c&quot;"', "data:image/png;base64,AAAA", 'class="code"', "<mfrac><mi>x</mi>"]  # fmt: skip
    assert [part for part in parts if part not in kept] == []
    assert "position" not in kept
    assert "<td>a\\u202eb</td>" in escape.sanitise("<table><tbody><tr><td>a\u202eb</td></tr></tbody></table>")


HARMFUL = [
    '<form action="//evil.invalid/"><input></form>', '<base href="//evil.invalid/">', "<script>hit()</script>",
    '<meta http-equiv="refresh" content="0;url=//evil.invalid/">', '<iframe src="//evil.invalid/"></iframe>',
    '<img src="//evil.invalid/x.png">', '<img src="data:image/svg+xml;base64,AAAA">', '<p onclick="hit()">',
    "<style>p{}</style>",
    '<a href="javascript:hit()">', '<a href=" data:text/html,hit">', '<link href="//evil.invalid/x.css">',
    '<p style="background:url(//evil.invalid/x)">', '<math><mtext href="javascript:hit()">x</mtext></math>',
    '<svg><use href="//evil.invalid/x"></use></svg>', "<object data=//evil.invalid/></object>", "<button formaction=x>",
    '<math><mi//xlink:href="data:x,hit()">', '<table background="//evil.invalid/">', "<embed src=//evil.invalid/>",
]  # fmt: skip


@pytest.mark.parametrize("harm", HARMFUL)
def test_the_sanitiser_drops_what_runs_loads_or_sends(harm):
    kept = escape.sanitise(f"<p>before</p>{harm}<p>after</p>")
    assert not re.search(r"evil|hit|javascript|data:|<(?:form|input|button|style|svg|script|base|meta|iframe)", kept)
    assert "before" in kept and "after" in kept


def drawn_texts(figure) -> str:
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return " ".join(" ".join(texts).split())


def flips_of(names: list[str]):
    rates = {"label": range(len(names)), "negative": 0.1, "positive": 0.1, "low": 0.05, "high": 0.2}
    return figures.flips(pd.DataFrame(rates | {"n_templates": 12}), names)


@pytest.mark.slow
def test_figures_draw_names_as_text():
    """Each kind of figure the names that a formula could be made of, in every place; one of them all names."""
    names = [name for name in hostile.NAMES if re.search(r"[$\\{`]", name)][::-1] + hostile.NAMES[:5]
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(10, 10)) + 3 * np.eye(10)
    arms = pd.DataFrame({"arm": names, "estimate": 0.5, "low": 0.4, "high": 0.6})
    slices = arms.assign(slice=names, n_templates=5)
    for figure in [
        figures.soft_labels(logits[:3], names[:3], names, title=names[0], note=names[1]),
        figures.class_similarity(logits, names),
        figures.comparison(arms, title=names[2]),
        figures.difficulty({names[0]: slices[:3], names[1]: slices[3:6]}),
        figures.lines_by(arms.assign(x=[1, 2] * 5), "x", xlabel="x", title=names[3]),
        figures.stacked_shares(pd.DataFrame({"a": 1.0}, index=names), xlabel="x", title=names[4]),
    ]:
        figure._repr_mimebundle_()  # draws: a formula that is none would fail here
    for batch in (hostile.NAMES[i : i + 10] for i in range(0, len(hostile.NAMES), 10)):
        figure = flips_of(batch)
        figure._repr_mimebundle_()
        shown = drawn_texts(figure)
        assert [n for n in batch if escape.shorten(n, 24).rstrip("…").strip()[:20] not in shown] == []
