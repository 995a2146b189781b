"""What is stored depends on the code that made it, all of it and no other: one line changed, and which keys move."""

import ast
import shutil
from pathlib import Path

import pytest

from workbench import store

PACKAGE = Path(store.__file__).parent


def entry_points() -> dict[str, tuple[str, ...]]:
    """Every ``code_fingerprint(...)`` of the package: ``module.function`` that asks -> the names it asks for."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for top in ast.parse(path.read_text(encoding="utf-8")).body:
            for node in ast.walk(top):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "code_fingerprint":
                    assert f"{module}.{top.name}" not in found, "one key a definition"
                    found[f"{module}.{top.name}"] = tuple(ast.literal_eval(argument) for argument in node.args)
    return found


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """A function that changes one line of a module in a copy of the package and says whose keys are others then."""
    copy = shutil.copytree(PACKAGE, tmp_path / "workbench", ignore=shutil.ignore_patterns("__pycache__"))
    asked = entry_points()

    def keys() -> dict[str, str]:
        store._code.cache_clear()
        store.code_fingerprint.cache_clear()
        return {who: store.code_fingerprint(*names) for who, names in asked.items()}

    def change(module: str, before: str, after: str) -> set[str]:
        path = copy / f"{module.replace('.', '/')}.py"
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in {module}"
        path.write_text(text.replace(before, after), encoding="utf-8")
        monkeypatch.setattr(store, "_PACKAGE", copy)
        now = keys()
        path.write_text(text, encoding="utf-8")
        assert keys() == originals
        return {who for who in asked if now[who] != originals[who]}

    originals = keys()
    yield change
    store._code.cache_clear()
    store.code_fingerprint.cache_clear()
