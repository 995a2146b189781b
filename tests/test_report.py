"""Reports of tiny notebooks: what is published, kept, refused and stored."""

import base64
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nbformat import v4
from refusal import refused
from tiny import make_task

from workbench.__main__ import main
from workbench.errors import WorkbenchError
from workbench.publish import ask, report
from workbench.publish import notebook as nb_

PARAMETERS = """budget = "laptop"
task_name = "voice-commands"
teacher_name = "minilm-finetuned"
steps = 300  # optimiser steps"""
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"picture").decode()
WIDGET = "application/vnd.jupyter.widget-view+json"
# Two widgets as a kernel sends them; only the first carries a picture.
PANEL = f"display({{'{WIDGET}': {{'model_id': 'x'}}, 'image/png': '{PNG}'}}, raw=True)"
SLIDER = f"display({{'{WIDGET}': {{}}, 'text/plain': 'interactive' + '(children=())'}}, raw=True)"


def code(source: str, *tags: str):
    cell = v4.new_code_cell(source)
    cell.metadata.update({"tags": list(tags)} if tags else {})
    return cell


def notebook(title: str, question: str, *cells):
    first = v4.new_markdown_cell(f"# {title}\n\n> {question}")
    return v4.new_notebook(cells=[first, code(PARAMETERS, "parameters"), *cells])


def check_standalone(page: str) -> None:
    """Nothing to load, nothing to run but scripts of ours, no widget shown as text, no link into nothing."""
    scripts = nb_.scripts(page) + [ask.SCRIPT] * ('<section class="ask"' in page)
    assert len(scripts) == page.count("<script>") == page.count("'sha256-")
    for script in scripts:
        assert f"<script>{script}</script>" in page and f"'{nb_.digest(script)}'" in page
        page = page.replace(f"<script>{script}</script>", "")
    page = re.sub(r'<script type="application/json">[^<]*</script>', "", page, count=1)
    for tag in re.findall(r"<(?:script|link|img|iframe|object|embed|source|video|audio)\b[^>]*>", page):
        assert re.match(r'<img src="data:image/png;base64,', tag), tag[:200]
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)", page)
    assert "default-src 'none'" in page
    assert "interactive(children=" not in page


@pytest.fixture
def folder(tmp_path) -> Path:
    """A repository of three notebooks, of which the second fails."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    told = f"{report.MARKS[0]}\n{report.MARKS[1]}\n\nThen [train](03_student_training.ipynb#start)."
    link = v4.new_markdown_cell(told)
    steps = code("for i in range(3):\n    print(f'\\rstep {i}', end='', flush=True)")
    refusal = code("import workbench.errors as e\nraise e.WorkbenchError('x.csv has no rows: add some.')")
    claimed = "report.answer('**Yes**, it pays.', claims={'faster': 'Twice.'})"
    found = code(f"from workbench.publish import report\n{claimed}")
    first, third = code("print('kept until here')"), code("print('never reached')")
    panels = code(PANEL, "headline"), code(SLIDER)
    made = {
        "00_overview": notebook("Overview", "What is it?", code("print(budget, steps)"), link, steps),
        "01_broken": notebook("Broken", "What fails?", first, refusal, third),
        "03_student_training": notebook("Student training", "Does it pay?", *panels, found),
    }
    for name, nb in made.items():
        nb_.save(nb, notebooks / f"{name}.ipynb")
    (notebooks / "budgets.yaml").write_text("quick:\n  00_overview: {steps: 3}\ngpu: {}\n")
    (tmp_path / "README.md").write_text(f"Before\n{report.MARKS[0]}\nold\n{report.MARKS[1]}\nAfter\n")
    return notebooks


def test_a_failed_notebook_stops_no_other_and_the_index_opens_on_the_answer(folder, tmp_path, capsys):
    failed = report.run(folder, budget="quick", data=tmp_path / "data")
    out = tmp_path / "data" / "reports" / "quick"
    pages = {path.stem: path.read_text(encoding="utf-8") for path in out.glob("*.html")}
    assert failed == ["01_broken"]
    assert set(pages) == {"index", "00_overview", "01_broken", "03_student_training", "glossary"}
    with zipfile.ZipFile(out / "quick.zip") as archive:
        assert {*archive.namelist()} == {f"quick/{name}.html" for name in pages}
    for page in pages.values():
        check_standalone(page)
        assert "Smoke run: numbers on these pages are not findings" in page
        assert all(f'href="{name}.html"' in page for name in pages)

    index = pages["index"]
    assert index.index("Does it pay?") < index.index("<strong>Yes</strong>") < index.index(PNG)
    assert index.index(PNG) < index.index("What is it?")
    assert "stopped at cell 5: x.csv has no rows: add some." in index
    assert "kept until here" in pages["01_broken"]
    assert "<pre" in pages["01_broken"] and "never reached</pre>" not in pages["01_broken"]
    assert "Traceback" not in pages["01_broken"]
    third = pages["03_student_training"]
    assert third.count("<img") == 1, "the picture stands at the top, and there alone"
    assert third.index("Does it pay?") < third.index('class="answer"') < third.index(PNG) < third.index('class="code"')
    assert third.count("The picture stands <a") == 1 and 'href="#finding"' in third
    assert '<meta property="og:description" content="Yes, it pays.">' in third
    assert 'href="03_student_training.html#start"' in pages["00_overview"]
    assert "quick 3" in pages["00_overview"]
    assert "step 2" in pages["00_overview"] and ">step 0" not in pages["00_overview"]

    kept = nb_.load(out / "00_overview.ipynb")
    assert kept.metadata.workbench.parameters["steps"] == 3
    assert kept.metadata.workbench.code == nb_.code_hash(nb_.load(folder / "00_overview.ipynb"))
    assert "01_broken: cell 5: x.csv has no rows: add some." in capsys.readouterr().out


def test_one_notebook_alone_and_then_edited(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "REDRAW", 0.01)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    report.run(folder, only=["00"], data=tmp_path)
    told = capsys.readouterr().out.strip("\n").split("\n")[-1].split("\r\x1b[K")  # redrawn
    assert re.fullmatch(r"1/1 00_overview: cell \d/5, \d+ s", told[1]) and "cell 5/5" in told[-2]
    assert re.fullmatch(r"00_overview: done \(\d+ s\)", told[-1])
    out = tmp_path / "reports" / "laptop"
    index, page = ((out / f"{name}.html").read_text(encoding="utf-8") for name in ("index", "00_overview"))
    assert "No answer yet" in index and index.count("not run yet") == 2 and "Smoke run" not in index
    assert page.count('<details class="code">') == page.count('<div class="highlight">') == 3
    assert '<details class="code" open' not in page and "Settings, 4 lines" in page and "Code, 1 line<" in page
    assert page.index("laptop 300") > page.index("print") and page.count("</details>") == 4  # one is of the pages
    with zipfile.ZipFile(out / "laptop.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"laptop/{name}.html" for name in ("index", "00_overview", "glossary")]
        assert archive.read("laptop/00_overview.html").decode() == page
    source = nb_.load(folder / "00_overview.ipynb")
    source.cells[2].source += "  # edited"
    nb_.save(source, folder / "00_overview.ipynb")
    report.publish(out, folder)
    assert "before its code was edited" in (out / "index.html").read_text(encoding="utf-8")


def test_each_page_leads_to_the_one_before_and_the_one_after(folder, tmp_path):
    report.run(folder, budget="quick", data=tmp_path / "data")
    order = ["index", "00_overview", "01_broken", "03_student_training", "glossary"]
    for before, name, after in zip([None, *order], order, [*order[1:], None], strict=False):
        page = (tmp_path / "data" / "reports" / "quick" / f"{name}.html").read_text(encoding="utf-8")
        for way, other in (("prev", before), ("next", after)):
            found = set(re.findall(f'<a rel="{way}" href="(.+?).html"', page))
            assert found == ({other} if other else set()), name


def test_update_stores_outputs_and_results(folder, tmp_path):
    (folder / "01_broken.ipynb").unlink()
    before = {path.name: nb_.load(path) for path in folder.glob("*.ipynb")}
    assert report.run(folder, update=True, data=tmp_path / "data") == []
    for name, old in before.items():
        new = nb_.load(folder / name)
        code = ([cell.source for cell in nb.cells if cell.cell_type == "code"] for nb in (new, old))
        assert next(code) == next(code)
        assert new.metadata.workbench.code == nb_.code_hash(old)
        assert new.metadata.workbench.budget == "laptop"
        assert new.metadata.keys() == {"kernelspec", "language_info", "workbench"}
        outputs = [output for cell in new.cells for output in cell.get("outputs", [])]
        assert not [output for output in outputs if WIDGET in output.get("data", {})]
    assert nb_.load(folder / "00_overview.ipynb").cells[2].outputs[0].text == "laptop 300\n"
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    results = report.readme_results(report.committed(folder))
    assert readme == f"Before\n{report.MARKS[0]}\n{results}\n{report.MARKS[1]}\nAfter\n"
    assert "**Yes**, it pays." in results and "Overview" not in results
    (told,) = [c.source for c in nb_.load(folder / "00_overview.ipynb").cells if report.MARKS[0] in c.source]
    news = "| It is faster | Twice. ([03](03_student_training.ipynb)) |"
    assert news in told and told.endswith(f"{report.MARKS[1]}\n\nThen [train](03_student_training.ipynb#start).")
    assert news.replace("(03", "(notebooks/03") in readme
    assert report.cited("03_student_training", "pays", folder) == "Yes, it pays."
    assert report.cited("03_student_training", "never", folder) == report.cited("07", "pays", folder) == ""


def test_a_table_is_cited_as_it_was_found(tmp_path):
    made = pd.DataFrame({"accuracy": [0.5, np.nan]}, index=pd.Index(["student", "teacher"], name="arm"))
    nb = v4.new_notebook(metadata={"workbench": {"answer": report.answer("Yes.", made).content}})
    nb_.save(nb, tmp_path / "03_a.ipynb")
    table = report.cited_table("03_a", ["price", "arm", "accuracy"], tmp_path)
    pd.testing.assert_frame_equal(table[["arm", "accuracy"]].set_index("arm"), made)
    assert table["price"].isna().all()
    assert report.cited_table("07_b", ["arm"], tmp_path).empty


def test_claims_in_the_news_are_told_with_what_measured_them():
    faster = report.answer("It is. And more.", claims={"faster": "17 times | a **lot**."}).content
    found = [("00_a", "00 A", faster), ("01_b", "01 B", None), ("03_c", "03 C", report.answer("No.").content)]
    table = report.news(found, "notebooks/").splitlines()
    assert len(table) == 2 + len(report.CLAIMS)
    assert "| It is faster | 17 times &#124; a **lot**. ([00](notebooks/00_a.ipynb)) |" in table
    assert "| Open models gain | not measured |" in table
    assert report.news(found[1:]) == ""
    with refused("Unknown claim 'fastest'"):
        report.answer("It is.", claims={"fastest": "By far."})


@pytest.mark.parametrize(
    ("arguments", "message", "budgets"),
    [
        ({"flags": {"step": 3}}, "Unknown parameter of 00_overview, 01_broken, .* 'step': did you mean 'steps'", ""),
        ({"budget": "quik"}, "Unknown budget 'quik': did you mean 'quick'", ""),
        ({"only": ["00", "07"]}, "Unknown notebook '07'", ""),
        ({"update": True, "budget": "quick"}, "--update stores the default run", ""),
        ({"update": True, "flags": {"task_name": "csv:x.csv"}}, "--update stores the default run", ""),
        ({"budget": "quick"}, "Unknown parameter of 00_overview 'stepz'", "quick: {00_overview: {stepz: 1}}"),
        ({"budget": "quick"}, "Unknown notebook in budgets.yaml.*'00_overview'", "quick: {00_overvew: {steps: 1}}"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(folder, tmp_path, arguments, message, budgets):
    if budgets:
        (folder / "budgets.yaml").write_text(budgets)
    with pytest.raises(WorkbenchError, match=message):
        report.run(folder, data=tmp_path / "data", **arguments)
    assert not (tmp_path / "data").exists()


def test_another_task_has_a_folder_of_its_own_and_leaves_out_notebooks_without_one(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(report, "SPARSE", 0.01)
    (folder / "03_student_training.ipynb").unlink()
    nb = nb_.load(folder / "01_broken.ipynb")
    nb.cells[1].source = 'budget = "laptop"\nsteps = 3'
    nb_.save(nb, folder / "01_broken.ipynb")
    flags = {"task_name": "csv:/data/My Mails.csv", "steps": 300}
    assert report.run(folder, flags=flags, data=tmp_path) == []
    lines = [line for line in capsys.readouterr().out.splitlines() if "cell" in line]
    assert lines and all(re.fullmatch(r"1/1 00_overview: cell \d/6, \d+ s", line) for line in lines)
    out = tmp_path / "reports" / "laptop-my-mails"
    assert {path.name for path in out.iterdir()} == {
        "00_overview.html", "00_overview.ipynb", "glossary.html", "index.html", "laptop-my-mails.zip"
    }  # fmt: skip
    assert "csv:/data/My Mails.csv" in (out / "index.html").read_text(encoding="utf-8")
    assert nb_.tagged(nb_.load(out / "00_overview.ipynb"), "injected-parameters")[0].source.count("=") == 1
    assert "01_broken" in report.plan(folder, "laptop", [], {})
    assert report.plan(folder, "laptop", ["00", "01"], {"teacher_name": "auto"})["01_broken"] == {}  # it has none
    with pytest.raises(WorkbenchError, match="Unknown parameter of 01_broken 'task_name'"):
        report.plan(folder, "laptop", ["01"], flags)


@pytest.mark.parametrize("source", ["steps = 2 * 3", "a, b = 1, 2", "import os", "f(x)", "a.b = 1"])
def test_only_literals_are_parameters(source):
    with pytest.raises(WorkbenchError, match="NN: .* is not 'name = literal'"):
        nb_.parameters(v4.new_notebook(cells=[code(source, "parameters")]), "NN")
    with pytest.raises(WorkbenchError, match="2 cells tagged 'parameters'"):
        nb_.parameters(v4.new_notebook(cells=[code("a = 1", "parameters"), code("b = 1", "parameters")]))


def test_the_answer_is_the_same_in_lab_and_in_the_report():
    table = pd.DataFrame(
        {"arm": ["a|b", "c"], "accuracy": [np.float32(0.5), np.nan], "runs": np.array([3, 5])}
    ).set_index("arm")
    bundle = report.answer("**Yes.**", table)._repr_mimebundle_()
    content = bundle[nb_.ANSWER]
    assert content == {
        "text": "**Yes.**",
        "columns": ["arm", "accuracy", "runs"],
        "rows": [["a|b", 0.5, 3], ["c", None, 5]],
    }
    assert type(content["rows"][0][2]) is int
    assert bundle["text/markdown"].splitlines()[2:] == [
        "| arm | accuracy | runs |",
        "| --- | --: | --: |",
        "| a&#124;b | 0.500 | 3 |",
        "| c | – | 5 |",
    ]
    shown = nb_.answer_html(content, "<hr>")
    assert shown.index("Yes.") < shown.index("<hr>") < shown.index("a|b")


def test_verdicts_are_plain_words_in_sentences_and_stay_as_they_are_in_tables_and_names():
    text = "**NOT FOR MONEY**, were it so. A over B: INCONCLUSIVE; **BEATS** C. Class WORSE of NOT FOR MONEY."
    table = pd.DataFrame({"verdict": ["BEATS"]})
    page = nb_.answer_html(report.answer(text, table).content)
    assert "<strong>Not for money</strong>, were it so." in page and "A over B: not settled;" in page
    assert "<strong>better</strong> C." in page and "Class WORSE of not for money." in page
    assert ">BEATS</td>" in page and nb_.worded("Class BEATS, a.") == "Class BEATS, a."
    assert nb_.worded("minilm over b: WORSE.") == "minilm over b: worse.", "a name stays as it is"
    assert report.answer(text).content["text"] == text


def test_an_answer_opens_on_its_first_sentence_and_lists_the_others():
    page = nb_.answer_html(report.answer("With 1.5 points. It is **so**. And more?").content)
    assert re.sub(r"\s*\n\s*", "", page) == (
        '<div class="answer"><p>With 1.5 points.</p><ul><li><p>It is <strong>so</strong>.</p></li>'
        "<li><p>And more?</p></li></ul></div>"
    )
    assert "<ul>" not in nb_.answer_html(report.answer("One, e.g. this.").content)


def test_a_picture_gets_few_colours_and_what_is_none_or_is_clear_stays():
    import io

    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = np.tile(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (20, 20, 1))

    def encoded(image) -> str:
        made = io.BytesIO()
        image.save(made, "PNG")
        return base64.b64encode(made.getvalue()).decode()

    full = encoded(Image.fromarray(pixels))
    made = nb_.lighter(full)
    shown = Image.open(io.BytesIO(base64.b64decode(made)))
    assert len(made) < len(full) and shown.mode == "P" and (np.asarray(shown.convert("RGB")) == pixels).all()
    assert nb_.lighter(made) == made and nb_.lighter(PNG) == PNG
    clear = encoded(Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])))
    assert nb_.lighter(clear) == clear


def test_math_becomes_mathml_and_money_and_code_stay():
    text = "For $5 to $10, or `$x$`, the loss is $T^2$.\n\n$$\\frac{a}{b}$$\n\n| n |\n|---|\n| $k$ |"
    page = nb_.markdown(text)
    assert page.count("<math") == 3 and page.count('display="block"') == 1
    assert "For $5 to $10" in page and "<code>$x$</code>" in page
    assert "<mfrac>" in page and "<msup>" in page
    assert "$5-$10 and $7" in nb_.markdown("$5-$10 and $7")


def test_a_page_tells_pictures_in_words_shows_a_progress_line_as_it_ended_and_folds_tracebacks():
    cell, data = code("1 < 2"), {"image/png": PNG, "text/plain": 'Accuracy of "arms". n = 4 items'}
    cell.outputs = [
        v4.new_output("stream", text="1/3\r2/3\r3/3\ndone\n10%\r20%\r"),
        v4.new_output("error", ename="ValueError", evalue="<b>", traceback=["\x1b[31mframes\x1b[0m"]),
        *(v4.new_output("display_data", bundle) for bundle in (data, data | {"text/plain": "<_F>"})),
    ]
    page = nb_.to_html(nb_.clean(v4.new_notebook(cells=[v4.new_markdown_cell("## Judge"), cell])))
    assert "3/3\ndone\n20%" in page and "1/3" not in page and "10%" not in page
    assert "ValueError: &lt;b&gt;" in page and "\x1b" not in page
    assert page.index("<summary>Traceback") < page.index("frames")
    said = ["Figure: Judge. Accuracy of &#34;arms&#34;. n = 4 items", "Figure: Judge"]
    assert re.findall('alt="(.+?)"', page) == said


REFUSED = {
    ("--task", "csv:/nowhere.csv"): "/nowhere.csv",
    ("--teacher", "minilm-finetund"): "did you mean 'minilm-finetuned'",
    ("--budget", "huge"): "Unknown budget",
    ("--labels-per-class", "0"): "'0' is no count: give a whole number of at least 1, or all",
    ("--labels-per-class", "some"): "'some' is no count",
    ("--split", "part"): "give it too, with --task",
    ("--task", "csv:TINY", "--split", "part"): "has no column 'part'",
    ("--task", "csv:TINY", "--split", "text"): "name one column twice",
    ("--task", "csv:TINY", "--out-of-scope", "frut"): "did you mean 'fruit'",
    ("--task", "csv:TINY", "--teacher", "answers:HERE/none.csv"): "none.csv",
    ("--task", "csv:TINY", "--teacher", "answers:HERE/some.csv"): "test texts of tiny3 has an answer",
    ("--teacher", "bag-of-words", "--base-url", "http://127.0.0.1:1/v1"): "--base-url is about a model behind an API",
    ("--cap", "2"): "no such teacher is given: name it, with --teacher hosted:MODEL, or leave --cap out",
    ("--teacher", "hosted:m", "--base-url", "http://127.0.0.1:1/v1", "--cap", "free"): "'free' is no amount of dollars",
    ("--teacher", "hosted:m", "--base-url", "http://127.0.0.1:1/v1", "--cap", "0"): "'0' is no amount of dollars",
    ("--teacher", "hosted:m"): "needs its place once: write hosted:MODEL and --base-url URL",
    ("--teacher", "hosted:http://127.0.0.1:1/v1#m", "--base-url", "http://127.0.0.1:1/v1"): "needs its place once",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_a_bad_flag_is_one_sentence_before_anything_runs(task, arguments, tmp_path, monkeypatch, capsys):
    make_task(tmp_path)
    (tmp_path / "some.csv").write_text(f"text,answer\n{task.transfer_texts[0]},fruit\n")
    monkeypatch.setattr(report, "_execute", lambda *_: pytest.fail("a notebook ran"))
    places = {"TINY": str(tmp_path / "tiny3.csv"), "HERE": str(tmp_path)}
    given = [re.sub("TINY|HERE", lambda found: places[found[0]], word) for word in arguments]
    assert main(["report", *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith("workbench: ") and said.count("\n") == 1 and REFUSED[arguments] in said


def test_the_command_line_exits_with_what_happened(monkeypatch, capsys):
    def run(only: list[str], **rest) -> list[str]:
        if "07" in only:
            raise KeyboardInterrupt
        return ["01_broken"] if "01" in only else []

    monkeypatch.setattr(report, "run", run)
    assert [main(["report", "--only", "03", "--only", name]) for name in ("00", "01", "07")] == [0, 1, 130]
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_runs_and_prune_on_an_empty_and_a_filled_store(capsys, monkeypatch, tmp_path):
    from workbench.store import Store

    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    assert main(["runs"]) == 0 and main(["prune"]) == 0
    assert capsys.readouterr().out.count("\n") == 2
    entry = Store().make("runs", {"seed": 7}, lambda folder: {"metrics": {"accuracy": 0.5}})
    assert main(["runs"]) == 0
    assert entry.key[:12] in capsys.readouterr().out
    assert main(["prune", "--older-than-days", "0", "--dry-run"]) == 0
    assert entry.path.exists() and str(entry.path) in capsys.readouterr().out
    assert main(["prune", "--older-than-days", "0"]) == 0
    assert not entry.path.exists()


def test_doctor_tells_what_is_missing_and_how_to_mend_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "Store: 0 entries" in shown and sys.prefix in shown
    assert "not fetched" in shown and "python -m workbench fetch" in shown
    assert not (tmp_path / "data").exists(), "a look changed something"


def test_names_from_the_hub_and_paths_reach_the_notebooks(tmp_path, monkeypatch):
    """Notebooks run in their own folder: a relative path would not be found there."""
    given = []
    monkeypatch.setattr(report, "run", lambda **options: given.append(options["flags"]) or [])
    monkeypatch.setattr("workbench.tasks.load_task", lambda **asked: given.append(asked))
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    assert main(["report", "--task", "hub:mine", "--text", "a,b", "--teacher", "finetune:mine"]) == 0
    assert given == [
        {"name": f"hub:{mine}", "text": "a,b"},
        {"task_name": f"hub:{mine}", "text_column": "a,b", "teacher_name": f"finetune:{mine}"},
    ]
    assert main(["report", "--task", "hub:nyu-mll/glue/mrpc", "--teacher", "finetune:owner/encoder"]) == 0
    assert given[-1] == {"task_name": "hub:nyu-mll/glue/mrpc", "teacher_name": "finetune:owner/encoder"}
    more = ["--split", "part", "--out-of-scope", "none of them", "--labels-per-class", "all", "--teacher", "auto"]
    assert main(["report", "--task", "hub:mine", *more]) == 0
    named = {"split_column": "part", "out_of_scope": "none of them", "labels_per_class": None}
    assert given[-2] == {"name": f"hub:{mine}"} | {key.removesuffix("_column"): v for key, v in named.items()}
    assert given[-1] == {"task_name": f"hub:{mine}", "teacher_name": "auto"} | named
    assert main(["report"]) == 0 and given[-1] == {}
    shown = {name: report.slug(name) for name in ("hub:nyu-mll/glue/mrpc", f"hub:{tmp_path}", "finetune:owner/En.c")}
    assert list(shown.values())[::2] == ["nyu-mll-glue-mrpc", "en"] and "/" not in shown[f"hub:{tmp_path}"]
