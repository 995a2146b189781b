"""A student inside a page: in a browser it reads, answers and refuses as Python does, and asks nobody."""

import json
import random
import re
import unicodedata
from pathlib import Path

import hostile
import numpy as np
import pytest
from refusal import refused
from test_escape import Read
from test_sliders import open_page, published
from tiny import make_labels
from tokenizers.normalizers import NFC

from workbench import metrics, reading, students
from workbench.publish import ask
from workbench.publish import notebook as nb_
from workbench.publish.judged import judge
from workbench.tasks import load_task
from workbench.teachers import BagOfWords
from workbench.training import Job, TrainConfig, find_run, train

SMALL = TrainConfig(student="1x32", steps=40, batch_size=8, learning_rate=1e-2, keep="last")
# As JSON: lone surrogates get through, and playwright is slow at long lists.
ANSWERS = "texts => JSON.stringify(JSON.parse(texts).map(text => asked[0].answer(text)))"
IDS = "texts => JSON.stringify(JSON.parse(texts).map(text => asked[0].reader.encode(text)))"
STEMS = (
    "café naïve Zürich İstanbul ΣΊΣΥΦΟΣ straße ﬁne Ǆungla 東京都 한국어 ไทย हिन्दी العربية עברית 👩‍👩‍👧 👍🏽 🇩🇪 e\u0301 "
    "don't we'LL 3.14 ½ Ⅷ ٣ [CLS] [SEP] [MASK] [UNK [pad] __proto__ constructor"
).split()
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\u0085", "\ufeff", "\u200b", "\u180e", ""]


def in_order(mark: str) -> bool:
    beside = [f"e{mark}\u0301", f"e{mark}\u0323"]
    return all(NFC().normalize_str(text) == unicodedata.normalize("NFC", text) for text in beside)


def hard_texts(count: int) -> list[str]:
    """Accents, emoji, joiners, lines that turn around, controls, any script, surrogate pairs, a few of 10,000 words."""
    rng = random.Random(0)
    # All but some fifty combining marks, newer than the Unicode of `tokenizers`, which leaves them out of order.
    known = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co") and in_order(c)]
    simple = [chr(i) for i in range(0x250)]

    def word() -> str:
        some = rng.choice((known, simple))
        return rng.choice((rng.choice(STEMS), "".join(rng.choices(some, k=rng.randrange(6)))))

    texts = ["", " ", "a", *STEMS, *hostile.NAMES, hostile.NUL, "[SEP]" * 3000, "あ" * 3000, "a" * 100_000]
    texts += ["".join(word() + rng.choice(SPACES) for _ in range(10_000)) for _ in range(5)]
    texts += ["".join(word() + rng.choice(SPACES) for _ in range(rng.randrange(20))) for _ in range(count - len(texts))]
    return texts


def trained(task, **changes):
    """A run by a bag of words, and that."""
    job = Job(task, make_labels(task), TrainConfig(**{**vars(SMALL), **changes}))
    for _ in train(job):
        pass
    return find_run(job), BagOfWords(task)


@pytest.fixture(scope="module")
def small(task):
    """A tiny student, its teacher and what is known of both."""
    run, teacher = trained(task)
    return run, teacher, judge(run, task, teacher, 0.8, None)


def opened(browser, path: Path, packed: dict, **options):
    path.write_text(ask.page(packed, "a student"), encoding="utf-8")
    return open_page(browser, path, **options)


def compare(page, run, judged, texts) -> dict[str, float]:
    """Labels must be equal, probabilities within 1e-3; how close they are."""
    answers = json.loads(page.evaluate(ANSWERS, json.dumps(texts)))
    logits = reading.predict(*students.load(run.path), texts)
    shares = metrics.softmax(logits, judged.temperature)
    names = list(students.load(run.path)[0].config.id2label.values())
    assert [a["label"] for a in answers] == [names[i] for i in shares.argmax(1)]
    apart = np.abs(np.array([a["score"] for a in answers]) - shares.max(1))
    assert apart.max() < 1e-3
    sure = np.abs(shares.max(1) - judged.refuse_below) > apart.max()  # on the edge either is right
    below = shares.max(1) < judged.refuse_below
    assert np.array_equal(np.array([a["refused"] for a in answers])[sure], below[sure])
    return {"texts": len(texts), "largest_difference": float(apart.max()), "refused": float(below.mean())}


@pytest.mark.long
def test_it_answers_the_whole_test_split_as_python_does_and_asks_nobody(browser, tmp_path):
    task = load_task("voice-commands", labels_per_class=5)
    run, teacher = trained(task, student="2x64", steps=60, batch_size=64, learning_rate=4e-3)
    judged = judge(run, task, teacher, 0.1, None)
    packed = ask.pack(run.path, judged, ask.said(task, judged))
    page, asked, said = opened(browser, tmp_path / "ask.html", packed)
    size = (tmp_path / "ask.html").stat().st_size
    texts = task.test["text"][:]
    print(compare(page, run, judged, texts) | {"page_bytes": size})
    assert size < 2_500_000
    took = page.evaluate(
        """texts => JSON.parse(texts).map(text => { const began = performance.now(); asked[0].answer(text);
           return performance.now() - began; })""",
        json.dumps(texts),
    )
    print({"ms_an_answer": {"median": round(float(np.median(took)), 2), "most": round(max(took), 2)}})
    assert asked == [(tmp_path / "ask.html").as_uri()] and said == []
    page.context.close()


@pytest.mark.long
def test_it_reads_ten_thousand_hard_texts_as_python_does(browser, tmp_path, small):
    run, _, judged = small
    page, _, said = opened(browser, tmp_path / "ask.html", ask.pack(run.path, judged))
    texts = hard_texts(10_000)
    wanted = reading.encode(students.load(run.path)[1], texts)
    found = json.loads(page.evaluate(IDS, json.dumps(texts)))
    assert [text for i, text in enumerate(texts) if found[i] != wanted[i]] == []
    assert said == [] and max(map(len, found)) == 2051  # where both cut
    compare(page, run, judged, texts[:300])
    page.context.close()


@pytest.mark.long
def test_a_reader_asks_it_by_keyboard_on_a_narrow_dark_screen(browser, tmp_path, task, small):
    run, _, judged = small
    told = ask.said(task, judged)
    narrow = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    page, _, said = opened(browser, tmp_path / "ask.html", ask.pack(run.path, judged, told), **narrow)
    box = page.get_by_label("A text of yours")
    page.keyboard.press("Tab")
    assert box.evaluate("box => box === document.activeElement")
    page.keyboard.type("nothing of the kind that one knows")
    shown = page.get_by_role("status").locator("p")
    label, *_, time, teacher = shown.all_inner_texts()
    assert re.fullmatch(r"(animal|fruit|tool), \d\d\.\d %", label) and re.fullmatch(r"[\d.]+ ms in this page\.", time)
    assert teacher == "What its teacher says of this text is not stored here."
    texts = task.test["text"][:]
    sure = judged.sure("test")
    for i, refuses in ((int(sure.argmin()), True), (int(sure.argmax()), False)):
        name = dict(told)[texts[i]]
        page.get_by_label("or one that it was tested on").select_option(texts[i])
        lines = shown.all_inner_texts()
        assert box.input_value() == texts[i]
        assert lines[0] == f"{task.label_names[judged.logits['test'][i].argmax()]}, {100 * sure[i]:.1f} %"
        assert ["refused: not sure enough (below " in line for line in lines[1:-2]] == [True] * refuses
        assert lines[-1] == f"Its teacher had said: {name}."
    box.evaluate(r"box => { box.value = 'half \ud83d a character'; box.dispatchEvent(new Event('input')); }")
    assert shown.all_inner_texts() == ["There is half a character in it: type whole ones."]
    box.fill("")
    assert shown.all_inner_texts() == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    dark, light = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert max(map(int, re.findall(r"\d+", dark))) < 60 < 200 < min(map(int, re.findall(r"\d+", light)))
    assert said == []
    page.context.close()


@pytest.mark.long
def test_without_a_script_a_sentence_stands_there(browser, tmp_path, small):
    run, _, judged = small
    page, _, said = opened(browser, tmp_path / "ask.html", ask.pack(run.path, judged), java_script_enabled=False)
    assert page.get_by_text("Without JavaScript it can't answer.").is_visible() and said == []
    assert not page.locator("textarea").is_visible()
    page.context.close()


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """What a page would hold of a task whose every name and text would do harm."""
    path = hostile.write_csv(tmp_path_factory.mktemp("evil"))
    columns = {"text": "utterance", "label": "intent", "group": "group"}
    task = load_task(f"csv:{path}", **columns, labels_per_class=3)
    run, teacher = trained(task)
    judged = judge(run, task, teacher, 0.8, None)
    return task, ask.pack(run.path, judged, ask.said(task, judged))


def test_nothing_in_the_data_ends_its_element_or_reads_as_markup(evil):
    _, packed = evil
    html = ask.page(packed, hostile.TITLE)
    assert html.isascii()
    names = {tag for tag, _ in Read(html).tags}
    assert not names & {"img", "iframe", "form", "base", "object", "svg", "link"}
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)
    assert json.loads(data) == json.loads(json.dumps(packed)) and "<" not in data
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert script == ask.SCRIPT and re.findall("script-src (.+?);", html) == [f"'{ask.parts(packed)['script_hash']}'"]


@pytest.mark.long
def test_hostile_names_are_text(browser, tmp_path, evil):
    task, packed = evil
    page, asked, said = opened(browser, tmp_path / "ask.html", packed)
    for text in hostile.NAMES[:6]:
        page.get_by_label("A text of yours").fill(text)
        assert page.get_by_role("status").locator("p").count() >= 2
    for i in range(len(packed["said"])):
        page.get_by_label("or one that it was tested on").select_option(index=i + 1)
        assert f"had said: {packed['said'][i][1]}." in " ".join(page.get_by_role("status").inner_text().split())
    assert page.evaluate("window.hit === undefined") and not page.locator("main").locator("img, svg, form, h3").count()
    assert asked == [(tmp_path / "ask.html").as_uri()] and said == []
    page.context.close()


def test_other_students_get_a_sentence_and_no_page(task, small, tmp_path, monkeypatch):
    run, teacher, judged = small
    model, tokenizer = students.build("minilm-2", task.label_names, task.transfer_texts)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "cut")
    with refused("No page can run a bert of this shape", "train a small student"):
        ask.pack(tmp_path / "cut", judged)
    monkeypatch.setattr(ask, "MOST", 10_000)
    with refused("No page can hold a student of 0.", "up to 0.0 MB can answer"):
        ask.pack(run.path, judged)
    shown = ask.in_report(run, task, teacher)._repr_mimebundle_()
    assert shown == {"text/plain": ask.refusal(run.path)}


def test_the_report_holds_it_on_its_first_page_only_and_the_repository_does_not(tmp_path, task, small):
    run, teacher, judged = small
    bundle = ask.in_report(run, task, teacher, refused=0.8)._repr_mimebundle_()
    assert bundle[ask.ASK] == json.loads(json.dumps(ask.pack(run.path, judged, ask.said(task, judged))))
    pages = published(tmp_path, bundle, tag="any")
    assert pages["index"].count('<section class="ask"') == 1
    allowed = f"'{ask.parts(bundle[ask.ASK])['script_hash']}'"
    assert allowed in pages["index"] and allowed not in pages["00_money"]
    assert "first page of the report" in pages["00_money"] and 'class="ask"' not in pages["00_money"]
    kept = nb_.without(nb_.load(tmp_path / "out" / "00_money.ipynb"), ask.ASK)
    assert [output.data for output in kept.cells[-1].outputs] == [{"text/plain": bundle["text/plain"]}]


def test_a_shipped_folder_holds_a_page_that_quotes_one_text_of_a_csv(made):
    html, config = ((made.folder / name).read_text(encoding="utf-8") for name in (ask.PAGE, "config.json"))
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)
    packed, config = json.loads(data), json.loads(config)
    assert [text for text, _ in packed["said"]] == [config["example"]]
    assert packed["config"].items() >= {name: config[name] for name in ("temperature", "refuse_below")}.items()
    assert "Open `ask.html` in a browser" in (made.folder / "README.md").read_text(encoding="utf-8")
