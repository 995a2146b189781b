"""What a release must pass: `python tests/release.py`, or some of it with `--only links licences spelling sizes stale`.

`clone` is the long one (hours): a clean clone in a temporary folder runs both commands of the README, then all
notebooks at laptop, and the pages that it made are checked, too. The others read this checkout and take seconds. Each
check gives what it found as lines; exit status 1 where there are any.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

REPO = Path(__file__).resolve().parents[1]
PAGE, INDEX, FILE = 1.2e6, 2.5e6, 3e6  # bytes: of a notebook's page, of the one that holds a student, of any file here
FREE = re.compile(  # licences that let this be used and passed on beside Apache-2.0
    r"MIT|BSD|Apache|\bPSF|Python Software Foundation|ISC|MPL|Mozilla|Unlicense|Zlib|\bHPND|CNRI|0BSD|LGPL", re.I
)
TRUSTED = {"nvidia-": "CUDA's redistributable parts, which PyTorch brings", "triton": "MIT, says its repository"}
LINK = re.compile(r"(?:\]\(<?|<(?:a|img)\b[^>]* (?:href|src)=\")(?![a-z]+:)([^)\s>\"]+)")  # but those to the web
HEADING = re.compile(r"^#{1,6} +(.+)$", re.M)


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows, or would add."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(listed, cwd=REPO, capture_output=True, text=True, check=True).stdout.splitlines()
    return [REPO / name for name in names if (REPO / name).is_file()]


def prose(path: Path) -> str:
    """Its Markdown: of a notebook that of its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors(text: str) -> set[str]:
    """As GitHub and JupyterLab name headings."""
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text)]
    return {heading.replace(" ", "-") for heading in plain} | {h.replace(" ", "-") for h in HEADING.findall(text)}


def links() -> Iterator[str]:
    """Links of README, docs and notebooks that lead nowhere in this repository."""
    for path in tracked("*.md", "notebooks/*.ipynb"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", prose(path), flags=re.S)
        for link in LINK.findall(text):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists():
                yield f"{path.relative_to(REPO)}: {link} leads nowhere"
            elif anchor and target.suffix in (".md", ".ipynb") and anchor not in anchors(prose(target)):
                yield f"{path.relative_to(REPO)}: {link} names no heading"


def page_links(folder: Path) -> Iterator[str]:
    """The same of a report's pages, and their weights."""
    pages = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.html"))}
    for name, page in pages.items():
        for link in LINK.findall(page):
            file, _, anchor = link.partition("#")
            if file and file not in pages and not (folder / file).exists():
                yield f"{name}: {link} leads nowhere"
            elif anchor and f'id="{anchor}"' not in pages.get(file or name, ""):
                yield f"{name}: {link} names no place"
        if len(page.encode()) > (INDEX if name == "index.html" else PAGE):
            yield f"{name} has {len(page.encode()) / 1e6:.1f} MB"


def sizes() -> Iterator[str]:
    """Files that are too large to be here."""
    yield from (f"{path.relative_to(REPO)} is too large" for path in tracked() if path.stat().st_size > FILE)


def project() -> dict:
    """The package's own metadata."""
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def licences() -> Iterator[str]:
    """Installed dependencies, theirs too, and pretrained weights under no licence that lets them be used freely."""
    from workbench.weights import WEIGHTS

    todo, seen = [Requirement(text) for text in project()["dependencies"]], set()
    while todo:
        name = todo.pop().name.lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            yield f"{name} is not installed, so that its licence is not known"
            continue
        wanted = [Requirement(text) for text in about.get_all("Requires-Dist") or []]
        todo += [need for need in wanted if not need.marker or need.marker.evaluate({"extra": ""})]
        classified = [line for line in about.get_all("Classifier") or [] if line.startswith("License")]
        said = " ".join([about.get("License-Expression") or "", (about.get("License") or "")[:300], *classified])
        if not FREE.search(said) and not any(name.startswith(start) for start in TRUSTED):
            yield f"{name} says of its licence: {said.strip()[:80] or 'nothing'}"
    yield from (f"weights {name}: {w.licence}" for name, w in WEIGHTS.items() if not FREE.search(w.licence))


def spelling() -> Iterator[str]:
    """What codespell finds in prose, code and the notebooks' Markdown; tests misspell on purpose."""
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", "hass"]
    files = tracked("*.md", "*.py", "*.js", "*.html", "*.yml", "*.yaml", "*.cff", "Makefile", ":!tests/test_*.py")
    with tempfile.TemporaryDirectory() as folder:
        for path in tracked("notebooks/*.ipynb"):
            (Path(folder) / f"{path.stem}.md").write_text(prose(path), encoding="utf-8")
        found = subprocess.run([*command, *files, folder], cwd=REPO, capture_output=True, text=True)
    yield from (found.stdout + found.stderr).replace(f"{REPO}/", "").splitlines()


def stale() -> Iterator[str]:
    """Numbers that are not those of the code as it is, and versions that disagree."""
    tests = ["tests/test_notebooks.py", "tests/test_frame.py", "-k", "outputs_are_those or readme_holds or environment"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--no-header", "-rf", "--tb", "no", *tests]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    if done.returncode:
        yield from [line for line in done.stdout.splitlines() if line.startswith("FAILED")] or [done.stdout[-500:]]
    version = project()["version"]
    for name, pattern in (("CITATION.cff", rf"(?m)^version: {version}$"), ("CHANGELOG.md", rf"(?m)^## {version} - ")):
        if not re.search(pattern, (REPO / name).read_text(encoding="utf-8")):
            yield f"{name} doesn't name version {version}"


def clone() -> Iterator[str]:
    """Both commands of the README and all notebooks, in an environment and with data of their own."""
    dropped = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "WORKBENCH_DATA", "WORKBENCH_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(REPO), str(there)], check=True)
        for target in ("report", "test", "report-all"):
            print(f"make {target}, in a clean clone", flush=True)
            if status := subprocess.run(["make", "TORCH=cpu", target], cwd=there, env=environment).returncode:
                yield f"make {target} ended with {status}"
        yield from page_links(there / "data" / "reports" / "laptop")


CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    check.__name__: check for check in (links, licences, spelling, sizes, stale, clone)
}


def main() -> int:
    """Run the checks and tell what they found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=[*CHECKS], metavar="CHECK")
    found = 0
    for name in parser.parse_args().only:
        lines = list(CHECKS[name]())
        print(f"{name}: {len(lines) or 'nothing'} to mend", *lines, sep="\n  ", flush=True)
        found += len(lines)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
