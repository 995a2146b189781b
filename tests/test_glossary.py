"""Terms explained at their first use on a page: which, where not, and that no name gets anything in by that."""

import hostile
import pytest
from test_escape import Read

from workbench import escape
from workbench.publish import glossary
from workbench.publish import notebook as nb_


def explained(page: str, seen: set[str] | None = None) -> str:
    return glossary.explain(escape.sanitise(page), set() if seen is None else seen)


def links(page: str) -> list[str]:
    return [found["href"] for tag, found in Read(page).tags if tag == "a" and found.get("class") == "term"]


def test_the_first_use_is_a_link_with_its_explanation_and_no_later_one():
    seen = set()
    page = explained("<p>Soft labels at a temperature; Temperatures of soft labels.</p>", seen)
    assert links(page) == ["glossary.html#soft-label", "glossary.html#temperature"]
    assert seen == {"soft label", "temperature"} and ">Soft labels</a> at a " in page
    assert {found["title"] for tag, found in Read(page).tags if tag == "a"} == {
        glossary.terms()[term]["says"] for term in seen
    }
    assert links(explained("<p>A temperature.</p>", seen)) == []


@pytest.mark.parametrize("tag", ["code", "pre", "h2", "summary", "label", "a"])
def test_code_headings_and_links_stay_as_they_are(tag):
    page = f"<{tag}>temperature</{tag}><p>room-temperature, temperatured</p>"
    assert explained(page) == escape.sanitise(page)


def test_in_tables_verdicts_alone_are_explained_and_only_in_capitals():
    page = explained("<table><tbody><tr><td>temperature</td><td>BEATS</td></tr></tbody></table><p>it beats all</p>")
    assert links(page) == ["glossary.html#verdict-beats"]


@pytest.mark.parametrize("name", [*hostile.NAMES, hostile.TITLE, 'a" onclick="x" temperature', "<temperature>"])
def test_no_name_gets_in_by_an_explanation(name):
    page = f"<p>teacher {escape.html(name)} temperature</p>{nb_.markdown(escape.markdown(name))}"
    plain, made = Read(escape.sanitise(page)), Read(explained(page))
    assert "".join(made.text.split()) == "".join(plain.text.split())
    ours = [(tag, found) for tag, found in made.tags if found.get("class") == "term"]
    assert [tag for tag, _ in made.tags if tag != "a"] == [tag for tag, _ in plain.tags if tag != "a"]
    assert all(found.keys() == {"class", "href", "title", "rel"} for _, found in ours)
    assert {found["href"].split("#")[0] for _, found in ours} == {"glossary.html"}


def test_raw_markup_around_a_term_is_sanitised_as_before():
    page = explained('<p title="a > temperature">x</p><img src=x onerror=alert(1)> student<script>teacher</script>')
    assert "onerror" not in page and "<script" not in page and links(page) == ["glossary.html#student"]


def test_every_form_finds_its_term_and_every_place_is_one():
    places = [glossary.slug(term) for term in glossary.terms()]
    assert len(places) == len(set(places))
    for term, entry in glossary.terms().items():
        assert entry["says"].endswith(".") and len(entry["says"]) < 260
        for form in (term, *entry.get("as", ())):
            assert links(explained(f"<p>{form}</p>")) == [f"glossary.html#{glossary.slug(term)}"], form
