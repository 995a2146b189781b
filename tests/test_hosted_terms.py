"""What may be done with a teacher's answers: each verdict with its reasons, and nothing that was not read."""

import re
from datetime import date
from types import SimpleNamespace

import pytest
import yaml
from refusal import refused

from workbench.hosted import tables
from workbench.hosted.endpoint import Endpoint
from workbench.hosted.terms import (
    COLUMNS,
    FILE,
    NO_ADVICE,
    SECOND_HAND,
    STUDENTS,
    USES,
    card_licence,
    load_rows,
    obligations,
    overview,
    terms,
)
from workbench.language.texts import with_texts
from workbench.soft_labels import derive, recorded_authors, soft_labels
from workbench.teacher import Author, authors
from workbench.teachers import BagOfWords, Classifier

READ = date(2026, 11, 24)
ROWS = {row.name: row for row in load_rows()}
LLAMA = "meta-llama/Llama-3.3-70B-Instruct"


def ask(teacher, use="inside", student="classifier", today=READ):
    found = terms(teacher, use=use, student=student, today=today)
    assert str(found).endswith(".") and "\n" not in str(found) and found.verdict in str(found)
    return found


def test_every_row_is_whole():
    assert len(ROWS) >= 43
    for row in ROWS.values():
        assert sum(len(quote.split()) for quote in row.quotes) <= 60, row.name
        assert "allowed" not in row.verdicts.values() or row.quotes or row.licence, row.name
        assert "allowed if" not in row.verdicts.values() or row.obligations, row.name
        assert "forbidden" not in row.verdicts.values() or row.obligations["permission"], row.name
        assert row.url.startswith("https://") or row.how in ("not found", "second hand"), row.name
        assert row.how != "not found" or set(row.verdicts.values()) == {"not known"}, row.name
        assert not re.search(r"archive|maker's", row.how) or row.quotes or row.licence, row.name
        for day in filter(None, (row.seen, row.text_date, row.retires)):
            date.fromisoformat(day)


def test_second_hand_never_plainly_allows(monkeypatch):
    monkeypatch.setattr("workbench.hosted.terms.load_rows", lambda: [*ROWS.values()])  # not read again for each
    second_hand = [row for row in ROWS.values() if row.second_hand]
    assert len(second_hand) > 10
    for row in second_hand:
        for use in USES:
            for student in STUDENTS:
                found = ask(row.name, use, student)
                assert found.verdict != "allowed"
                assert found.verdict != "allowed if" or SECOND_HAND in found.obligations["condition"]


ANSWERS = [
    ("openai-api", "inside", "classifier", "allowed", "if these models are not distributed"),
    ("openai-api", "published", "classifier", "forbidden", "permission: of OpenAI"),
    ("hosted:https://api.openai.com/v1#gpt-6", "inside", "language model", "forbidden", "gpt-6, for a commercial"),
    ("chatgpt", "inside", "classifier", "ask", "develop models that compete with OpenAI”"),
    ("anthropic/claude-9", "inside", "classifier", "forbidden", "without prior authorization from Anthropic"),
    (LLAMA, "inside", "classifier", "allowed", "Licence §1.b.i"),
    (LLAMA, "published", "classifier", "allowed if", "name prefix: Llama"),
    (f"hosted:http://127.0.0.1:8000/v1#{LLAMA}", "published", "classifier", "allowed if", "name prefix: Llama"),
    (f"hosted:https://bedrock-runtime.us-east-1.amazonaws.com#{LLAMA}", "inside", "classifier", "forbidden", "§50.5"),
    (f"hosted:https://api.together.xyz/v1#{LLAMA}", "published", "classifier", "allowed if", "no published benchmark"),
    (f"hosted:https://openrouter.ai/api/v1#{LLAMA}", "inside", "classifier", "allowed", "Licence §1.b.i"),
    ("hosted:https://openrouter.ai/api/v1#anthropic/claude-9", "inside", "classifier", "forbidden", "Usage Policy"),
    ("hosted:https://openrouter.ai/api/v1#no/body", "inside", "classifier", "not known", "no licence of its weights"),
    (f"hosted:https://api.fireworks.ai/v1#{LLAMA}", "inside", "classifier", "ask", "for any lawful purpose"),
    (f"hosted:https://vendor.com/v1#{LLAMA}", "inside", "classifier", "not known", "of vendor.com were not read"),
    ("openrouter", "inside", "classifier", "not known", "hangs on the model"),
    ("moonshot-api", "published", "classifier", "not known", "its text was not found"),
    ("no/body", "inside", "classifier", "not known", "no licence of its weights is known"),
    ("minilm-finetuned", "published", "classifier", "allowed", "the licence Apache-2.0"),
    ("bag-of-words", "published", "classifier", "allowed", "no weights of others"),
    (Author("mine", licence="openai-api"), "published", "classifier", "forbidden", "mine, for a classifier"),
    (Author("mine", licence="llama3.2"), "published", "classifier", "allowed if", "name prefix: Llama"),
    (Author("mine", licence="cc-by-nc-4.0"), "inside", "classifier", "ask", "cc-by-nc-4.0, which was not read"),
    (Author("mine", licence="see its model card"), "inside", "classifier", "not known", "no licence"),
]


@pytest.mark.parametrize(("teacher", "use", "student", "verdict", "why"), ANSWERS)
def test_the_answer_is_a_sentence_with_its_reason(teacher, use, student, verdict, why):
    found = ask(teacher, use, student)
    assert found.verdict == verdict and why in str(found)
    assert found.permitted == verdict.startswith("allowed")


def test_the_same_weights_change_verdict_with_the_route_and_owe_both():
    both = ask(f"hosted:https://api.together.xyz/v1#{LLAMA}", "published").obligations
    assert both["name_prefix"] == "Llama" and "Together" in both["condition"] and "700 million" in both["condition"]
    assert ask("qwen").row == "qwen" and ask("hosted:https://vendor.com/v1#qwen").verdict == "not known"


def test_a_reading_grows_old():
    seen = date.fromisoformat(ROWS["openai-api"].seen)
    assert ask("openai-api", today=date.fromordinal(seen.toordinal() + 120)).old == ""
    told = ask("openai-api", today=date.fromordinal(seen.toordinal() + 121))
    assert str(told).endswith("; read it again (old: 121 days).") and told.verdict == "allowed"
    assert "read it again (of unknown date)" in str(ask("gemini-api"))


def test_the_strictest_of_several_authors_counts():
    wrote = [Author("mine", licence="mit"), Author("gpt-6", "https://api.openai.com/v1")]
    two = SimpleNamespace(logits=None, label_names=("a",), fingerprint="f", authors=wrote)
    assert ask(two).verdict == "allowed"
    assert ask(two, "published").teacher == "gpt-6"
    owed = obligations([ask(LLAMA, "published"), ask("qwen2.5-72b", "published"), ask(LLAMA, "published")])
    assert owed["name_prefix"] == ["Llama"] and len(owed["notice"]) == 2


def test_a_model_card_says_its_licence(tmp_path):
    for head, licence in {
        "license: mit": "mit",
        "license: other\nlicense_name: qwen-research": "qwen-research",
        "license: other": "",
        "tags: []": "",
        "license: [": "",
        "": "",
    }.items():
        (tmp_path / "README.md").write_text(f"---\n{head}\n---\n# A model\n" if head else "# A model\n")
        assert card_licence(str(tmp_path)) == licence, head
    (tmp_path / "README.md").write_text("---\nlicense: qwen-research\n---\n")
    assert ask(str(tmp_path), "published").row == "qwen2.5-3b"
    assert card_licence("no:name/at/all") == card_licence("a" * 5000) == ""


def test_overview_says_what_is_old():
    table = overview(READ)
    assert list(table.columns) == ["teacher", "route", *COLUMNS, "seen", "old"] and len(table) == len(ROWS)
    assert table.loc["chatgpt", "old"] == "old: 121 days" and table.loc["xai-api", "old"] == ""
    assert NO_ADVICE.count("no legal advice") == 1


def test_what_is_asked_for_must_exist():
    with refused("use is 'sold': choose one of inside, published"):
        terms("openai-api", use="sold")
    with refused("student is 'parrot'", "classifier, language model"):
        terms("openai-api", use="inside", student="parrot")
    with refused("teacher is ''"):
        terms("", use="inside")
    with refused("has no 'logits'"):
        terms(object(), use="inside")


GOOD = {"name": "mine", "teacher": "Mine", "route": "api", "how": "maker's file", "seen": "2026-11-01",
        "verdicts": dict.fromkeys(COLUMNS, "allowed"), "licence": "a contract"}  # fmt: skip
BAD = {
    "a verdict that is none": ({"verdicts": dict.fromkeys(COLUMNS, "maybe")}, "verdicts are"),
    "a column too few": ({"verdicts": {"internal_classifier": "ask"}}, "give internal_classifier, published"),
    "another route": ({"route": "post"}, "route is 'post'"),
    "another field": ({"price": 3}, "use the fields of Row"),
    "an obligation that is none": ({"obligations": {"dance": "daily"}}, "the obligation 'dance' is unknown"),
    "quotes in no list": ({"quotes": "all of it"}, "quotes is 'all of it'"),
    "an obligation in no words": ({"obligations": {"condition": True}}, "obligations[0] is True"),
    "a year for a day": ({"seen": 2026}, "seen is 2026: give a text"),
    "no teacher": ({"teacher": None}, "teacher is None"),
    "verdicts in a list": ({"verdicts": ["allowed"]}, "verdicts is ['allowed']: give a mapping"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_rows(what, tmp_path, monkeypatch):
    changes, sentence = BAD[what]
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    (tmp_path / FILE).write_text(yaml.safe_dump([GOOD | changes]))
    with refused(f"{tmp_path / FILE}, mine", sentence):
        load_rows()


def test_a_row_of_ones_own_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    ours = GOOD | {"name": "openai-api", "teacher": "OpenAI, by our contract", "places": ["api.openai.com"]}
    (tmp_path / FILE).write_text(yaml.safe_dump([ours]))
    assert ask("hosted:https://api.openai.com/v1#gpt-6", "published").verdict == "allowed"
    (tmp_path / FILE).write_text("a: 1")
    with refused("is no list of terms"):
        load_rows()
    assert tables.files(FILE)[0] == tmp_path / FILE


def test_labels_carry_the_terms_of_everyone_who_wrote_part_of_them(task, store, tmp_path):
    helped = with_texts(task, ["the cat sat"], "transfer set: written by SmolLM2-135M-Instruct")
    hosted = with_texts(task, ["the dog sat"], f"transfer set: written by {LLAMA} at https://api.together.xyz/v1")
    noisy = with_texts(task, ["the cow sat"], "transfer set: its labelled texts made noisy (20 copies, rate 0.2)")
    teacher = BagOfWords(task)
    own = Author("bag of words", licence="no weights")
    assert authors(teacher, noisy) == [own]
    assert authors(teacher, hosted) == [own, Author(LLAMA, "https://api.together.xyz/v1")]
    labels = soft_labels(teacher, helped, store=store)
    assert recorded_authors(labels, helped, store=store) == [own, Author("SmolLM2-135M-Instruct")]
    assert recorded_authors(labels, task, store=store) == []
    controls = derive(labels, helped, "class means", store=store)
    assert recorded_authors(controls, helped, store=store) == [own, Author("SmolLM2-135M-Instruct")]
    assert [ask(one).verdict for one in authors(teacher, helped)] == ["allowed", "allowed"]
    assert soft_labels(teacher, helped, store=store).rows_labelled == 0

    class Behind(BagOfWords):
        endpoint = Endpoint("https://api.openai.com/v1", "gpt-6")
        name, licence = "gpt-6", "see the terms of the model that answers"

    (author,) = authors(Behind(task))
    assert author.place == "https://api.openai.com/v1" and ask(author, "published").row == "openai-api"


def test_texts_say_who_wrote_them():
    """What `language.texts.written` says of its texts is what `authors` reads."""
    from inspect import getsource

    from workbench.language import texts

    assert 'f"transfer set: written by {model}"' in getsource(texts.written)


def test_a_classifier_is_judged_by_the_card_in_its_folder(made, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(made.folder, folder)
    teacher = Classifier(str(folder), folder, made.task)
    assert ask(teacher, "published").row == "apache-2.0"
    (folder / "README.md").unlink()
    assert ask(teacher, "published").verdict == "not known"
