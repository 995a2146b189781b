"""What is stored depends on the code that made it, all of it and no other: one line changed, and which keys move."""

import ast
import functools
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from workbench import store
from workbench.teachers import FrozenProbe

PACKAGE = Path(store.__file__).parent


LESSONS = {
    lesson: import_module(f"workbench.{module}").__dict__[lesson].code
    for lesson, module in [("ClassifierLesson", "training"), ("TraceLesson", "language.lessons"),
                           ("TextLesson", "language.lessons"), ("OnPolicyLesson", "language.on_policy")]
}  # fmt: skip


def dotted(path: Path) -> str:
    """A module's, with its wing's before it."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def entry_points() -> dict[str, tuple[str, ...]]:
    """Every ``code_fingerprint(...)`` of the package: ``module.definition`` that asks -> the names it asks for."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = dotted(path)
        for top in ast.parse(path.read_text(encoding="utf-8")).body:
            for node in ast.walk(top):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "code_fingerprint":
                    who = f"{module.rpartition('.')[2]}.{top.name}"
                    assert who not in found, "one key a definition"
                    names = [a.value for a in node.args if isinstance(a, ast.Constant)]
                    found[who] = tuple(names)
    loop = found.pop("training.run_inputs")
    return found | {f"run of a {lesson}": loop + code for lesson, code in LESSONS.items()}


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A function that changes a module in a copy of the package and says whose keys are others then."""
    copy = tmp_path_factory.mktemp("copy") / "workbench"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    asked, parse = entry_points(), store._code.__wrapped__
    as_it_is = functools.cache(parse)  # read once, not again for every module that is changed

    def keys(code: Callable[[str], object]) -> dict[str, object]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "_code", code)
            patch.setattr(store, "fingerprint", lambda parts: tuple(map(tuple, parts)))  # told apart without a digest
            store.code_fingerprint.cache_clear()
            return {who: store.code_fingerprint(*names) for who, names in asked.items()}

    originals = keys(as_it_is)

    def change(module: str, edit: Callable[[str], str]) -> set[str]:
        path = copy / f"{module.replace('.', '/')}.py"
        text = path.read_text(encoding="utf-8")
        path.write_text(edit(text), encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "_PACKAGE", copy)
            changed = parse(module)
        path.write_text(text, encoding="utf-8")
        now = keys(lambda name: changed if name == module else as_it_is(name))
        return {who for who in asked if now[who] != originals[who]}

    yield change
    store.code_fingerprint.cache_clear()


CLASSIFIER, TRACES, TEXT, OWN_TEXT = (f"run of a {lesson}" for lesson in LESSONS)
SCORES = "teachers._held_out"  # found by cross-validation, in which the classifier's runs are some
RUNS = {CLASSIFIER, TRACES, TEXT, OWN_TEXT}
TEACHERS = {"teachers.BagOfWords", "teachers.Classifier", "teachers.FrozenProbe"}
WRITERS = {"texts.written", "traces.Local"}
LOADED = {  # what begins with a model or a tokenizer that is loaded
    "teachers.FrozenProbe", "teachers.Classifier", "zero_shot.ZeroShot", "onnx.to_onnx", "traces.trace_labels",
    "students._learn_tokenizer", *WRITERS, *RUNS,
}  # fmt: skip
# Whose keys move when every definition of a module is another one. Modules that are not listed: none.
MODULES = {
    "answers": {"answers.Answers", "teacher.Hosted", "teachers.Classifier", "defences.Defended", SCORES},
    "hosted.defences": {"defences.Defended"},
    "hosted.replies": {"teacher.Hosted"},
    "hosted.teacher": {"teacher.Hosted"},
    "hosted.writer": {"writer.Writer"},
    "language.texts": {"texts.written"},
    "own_data": {"blocks.load_text"},
    "tasks": {"texts.written", *RUNS},
    "publish.onnx": {"onnx.to_onnx"},
    "language.fused": {"labels._fill", TEXT, OWN_TEXT},
    "language.traces": {"traces.Local", "traces.sample", "traces.trace_labels"},
    "language.causal": {"traces.trace_labels", "traces.sample", "causal.prune_depth", "zero_shot.ZeroShot"}
    | WRITERS | {"labels._fill", TRACES, TEXT, OWN_TEXT},
    "language.lessons": {TRACES, TEXT, OWN_TEXT},
    "language.on_policy": {OWN_TEXT},
    "losses": {"texts.written", "traces.sample", "labels._fill", *RUNS},
    "quality": {CLASSIFIER},
    "reading": LOADED - {"students._learn_tokenizer", *WRITERS} | {"labels._fill"},
    "students": LOADED - {"teachers.FrozenProbe"},
    "language.problems": {"traces.sample", TRACES, OWN_TEXT},
    "soft_labels": {"soft_labels.derive", "labels._fill"},
    "teachers": {SCORES, "teachers.Ensemble", *TEACHERS},
    "language.zero_shot": {"zero_shot.ZeroShot"},
    "language.blocks": {"blocks.load_text", "labels._fill", TEXT, OWN_TEXT},
    "language.labels": {"labels._fill"},
    "language.prefixes": {"labels._fill"},
    "training": RUNS,
    "turns": {"labels._fill", *WRITERS, *RUNS},
    "splits": {"tasks._voice_commands"},
    "voice_commands": {"tasks._voice_commands"},
    "weights": {"labels._fill", *LOADED},
}  # fmt: skip


def with_scores(keys: set[str]) -> set[str]:
    return keys | {SCORES} if keys & {CLASSIFIER, "teachers.FrozenProbe"} else keys


def other_definitions(text: str) -> str:
    """A module in which every function does one thing more and every constant is made in another way."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body.insert(0, ast.parse("changed = 1").body[0])
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            node.value = ast.Tuple([node.value, ast.Constant(1)], ast.Load())
    return ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.parametrize("module", sorted(dotted(p) for p in PACKAGE.rglob("*.py") if dotted(p) not in store._GROUND))
def test_a_module_moves_the_keys_of_what_it_makes_and_no_other(moved, module):
    assert moved(module, other_definitions) == with_scores(MODULES.get(module, set()))


EDITS = [
    ("quality", "def nll(", "def nll(more, ", {CLASSIFIER}, "it picks checkpoints and stands in what is stored"),
    ("reading", "def embed(", "def embed(more, ", {"teachers.FrozenProbe"}, "only the probe embeds"),
    ("language.causal", "3 * width", "4 * width",
     {*WRITERS, "traces.trace_labels", "zero_shot.ZeroShot", *RUNS} - {CLASSIFIER}, "a Llama's width"),
    ("students", "VOCABULARY = 1000", "VOCABULARY = 900", {"students._learn_tokenizer", CLASSIFIER},
     "a small student's"),
    ("losses", "return _kl(log_q, log_p)", "return _kl(log_p, log_q)", RUNS, "a loss"),
    ("language.problems", '"reduce": _Family(1', '"reduce": _Family(2', {"traces.sample"}, "a family of problems"),
    ("show.style", "WIDTH = 7.0", "WIDTH = 8.0", set(), "a figure makes no number"),
    ("training", "The loss is {loss}", "The loss became {loss}", set(), "what is said of an error"),
    ("training", '"""One optimizer step,', '"""One step,', set(), "a docstring"),
    ("weights", "isinstance(error, KeyError):", "isinstance(error, KeyError):  # and so on", set(), "a comment"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "before", "after", "expected", "why"), EDITS, ids=[edit[-1] for edit in EDITS])
def test_one_line_moves_what_depends_on_it(moved, module, before, after, expected, why):
    def edit(text: str) -> str:
        assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in {module}"
        return text.replace(before, after)

    assert moved(module, edit) == with_scores(expected)


def test_a_key_follows_names_through_modules_and_stops_at_the_ground(moved):
    assert store._code("teachers").uses["FrozenProbe"].count(("reading", "embed")) == 1
    assert ("reading", "_over_batches") in store._code("reading").uses["embed"]
    assert all(moved(ground, other_definitions) == set() for ground in store._GROUND - {"store"})


@pytest.mark.slow
def test_soft_traces_and_a_frozen_probe_carry_their_code(task, monkeypatch):
    probe = FrozenProbe(task).fingerprint
    monkeypatch.setattr("workbench.teachers.code_fingerprint", lambda *names: "other code")
    assert FrozenProbe(task).fingerprint != probe
