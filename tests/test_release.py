"""The gate of a release finds what it is for, and what CONTRIBUTING.md says works as it stands."""

import os
import re
import shutil
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest
import release
from lab import lacking

from workbench.publish import report
from workbench.soft_labels import soft_labels
from workbench.tasks import load_task
from workbench.teachers import load_teacher

CHEAP = ["links", "licences", "spelling", "sizes"]


@pytest.mark.parametrize("check", CHEAP)
def test_this_checkout_passes(check):
    if check == "spelling":
        needs_codespell()
    assert list(release.CHECKS[check]()) == []


def needs_codespell() -> None:
    try:
        import codespell_lib  # noqa: F401
    except ImportError:
        lacking("no codespell (pip install codespell)")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty one in the place of this."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(release, "REPO", tmp_path)
    return tmp_path


def test_a_broken_link_is_found(repository):
    (repository / "docs").mkdir()
    (repository / "docs" / "a.md").write_text("# One more, please\n\n[up](../README.md#top), [here](#one-more-please)")
    links = ["[a](docs/a.md#one-more-please)", "[b](docs/a.md#two)", "[c](docs/b.md)", '<img src="d.png">', "`[e](f)`"]
    (repository / "README.md").write_text("# Top\n\n" + "\n".join([*links, "[web](https://example.org/x)"]))
    assert list(release.links()) == [
        "README.md: docs/a.md#two names no heading",
        "README.md: docs/b.md leads nowhere",
        "README.md: d.png leads nowhere",
    ]


def test_a_broken_or_heavy_page_is_found(tmp_path):
    (tmp_path / "index.html").write_text('<a href="00.html#x">a</a> <a href="01.html">b</a> <a href="mailto:a@b">c</a>')
    (tmp_path / "00.html").write_text('<p id="y">' + " " * int(release.PAGE))
    assert list(release.page_links(tmp_path)) == [
        "00.html has 1.2 MB",
        "index.html: 00.html#x names no place",
        "index.html: 01.html leads nowhere",
    ]


def test_a_large_file_and_a_misspelt_word_are_found(repository):
    needs_codespell()
    (repository / "a.bin").write_bytes(bytes(int(release.FILE) + 1))
    (repository / "a.md").write_text("This is teh end.")
    assert list(release.sizes()) == ["a.bin is too large"]
    assert list(release.spelling()) == ["a.md:1: teh ==> the"]


def test_a_licence_that_binds_is_found_wherever_it_comes_in(monkeypatch):
    def about(name: str) -> Message:
        found = Message()
        found["License"] = {"numpy": "GPL-3.0", "nameless": ""}.get(name, "MIT")
        if name == "torch":
            found["Requires-Dist"] = "nameless>1"
            found["Requires-Dist"] = 'never; extra == "x"'
        return found

    monkeypatch.setattr(release.metadata, "metadata", about)
    assert sorted(release.licences()) == ["nameless says of its licence: nothing", "numpy says of its licence: GPL-3.0"]


def test_only_what_was_asked_for_runs_and_its_findings_are_the_exit_status(repository):
    def run(*checks: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(copy), "--only", *checks]
        return subprocess.run(command, capture_output=True, text=True)

    copy = repository / "tests" / "release.py"
    copy.parent.mkdir()
    shutil.copy(release.__file__, copy)
    done = run("links", "sizes")
    assert done.stdout == "links: nothing to mend\nsizes: nothing to mend\n" and done.returncode == 0
    (repository / "README.md").write_text("[a](b.md)")
    done = run("links")
    assert done.stdout == "links: 1 to mend\n  README.md: b.md leads nowhere\n" and done.returncode == 1


# CONTRIBUTING.md, done


def recipe(title: str) -> list[str]:
    """The code of a section, which is no longer than it promises."""
    text = (report.REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    blocks = re.findall(r"```\w*\n(.*?)```", section, re.S)
    assert sum(len([line for line in block.splitlines() if line.strip()]) for block in blocks) <= 15
    return blocks


@pytest.mark.slow
def test_a_loss_added_as_told_passes_what_every_loss_has_to(tmp_path):
    for name in ("workbench", "tests", "data"):
        ignored = shutil.ignore_patterns("__pycache__", "store", "cache", "reports", "quick")
        shutil.copytree(report.REPO / name, tmp_path / name, ignore=ignored)
    shutil.copy(report.REPO / "pyproject.toml", tmp_path)
    function, lines = recipe("A loss")
    row, entry = lines.splitlines()
    path = tmp_path / "workbench" / "losses.py"
    source = path.read_text(encoding="utf-8")
    for before, added in (("| hard_labels ", f"{row}\n"), ("def hard_labels(", f"{function}\n\n"),
                          ('    "hard_labels": Loss', f"{entry}\n")):  # fmt: skip
        assert source.count(f"\n{before}") == 1
        source = source.replace(f"\n{before}", f"\n{added}{before}")
    path.write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-v", "-n", "0", "tests/test_losses.py", "-k", "hellinger or table"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("[hellinger] PASSED") > 5  # and so of that copy


def test_a_teacher_made_as_told_labels_and_a_task_made_as_told_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = recipe("A task")
    made: dict = {}
    exec(code, made)
    assert made["task"].label_names == ("fruit", "tool") and len(made["task"].labelled) == 10
    assert "labelled" in capsys.readouterr().out
    (code,) = recipe("A teacher")
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    rows = [f"{name} {i},{name}" for name in ("saw", "plum") for i in range(30)]
    (tmp_path / "named.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    task = load_task("csv:named.csv", labels_per_class=3)
    texts = task.test["text"][:]
    said = soft_labels(load_teacher("python:mine.py", task), task, texts=texts).logits(texts)
    assert said.argmax(1).tolist() == task.test["label"][:]


@pytest.mark.slow
def test_a_notebook_made_as_told_runs_and_is_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notebooks").mkdir()
    Path("notebooks/budgets.yaml").write_text("quick: {11_my_finding: {seeds: 1}}\ngpu: {}\n")
    (code,) = recipe("A notebook")
    exec(code, {})
    assert report.run(tmp_path / "notebooks", budget="quick", only=["11"], data=tmp_path / "data") == []
    page = (tmp_path / "data" / "reports" / "quick" / "11_my_finding.html").read_text(encoding="utf-8")
    assert "My finding" in page and "It holds in 1 seeds." in page
