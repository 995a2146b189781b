"""Exported students: the same labels as through PyTorch, whatever the text, or no file at all."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refused

from workbench import reading, students
from workbench.publish import onnx
from workbench.publish.onnx import FILES, OnnxClassifier, to_onnx
from workbench.store import Store
from workbench.teachers import BagOfWords, Classifier

pytestmark = pytest.mark.slow  # PyTorch takes some ten seconds to load its exporter and use it once
AWKWARD = ["", "?", "THE CAT", "cafe\u0301 plum", "\U0001f600 港灯", "a\nb\r\n\tc", "각 " * 3000, "the saw " * 5000]


@pytest.fixture(scope="module")
def student(made) -> Path:
    """Trained enough to have opinions."""
    return made.run.path


@pytest.fixture(scope="module")
def exported(made):
    """What shipping it has made."""
    return to_onnx(made.run.path, made.task.test["text"][:], made.task.test["label"][:], store=made.store)


@pytest.fixture
def graph_is_there(exported, monkeypatch):
    """Exporting takes the graph that was written before."""
    monkeypatch.setattr(onnx, "write_graph", lambda *given: shutil.copy(exported.path / "model.onnx", given[-1]))


def test_fp32_gives_the_logits_of_the_student_for_any_text(exported, student, task):
    texts = [*task.test["text"], *AWKWARD]
    wanted = reading.predict(*students.load(student), texts, size=4)
    onnx = OnnxClassifier(exported.path / "model.onnx")
    assert onnx.label_names == task.label_names
    for size in (1, 4, 64):
        np.testing.assert_allclose(onnx.logits(texts, size), wanted, atol=1e-4)
    assert len(set(wanted.argmax(-1))) > 1


def test_a_teacher_in_int8_is_a_rival_with_its_own_size(student, task, tmp_path, graph_is_there):
    teacher, texts = Classifier("theirs", student, task, "none"), task.test["text"][:]
    rival = onnx.in_int8(teacher, texts, store=Store(tmp_path))
    assert rival.label_names == task.label_names and rival.fingerprint != teacher.fingerprint
    assert (rival.logits(texts).argmax(-1) == teacher.logits(texts).argmax(-1)).mean() > 0.9
    assert rival.describe(texts)["bytes"] == rival.path.stat().st_size
    assert rival.describe(texts)["bytes"] < rival.path.with_name(FILES["fp32"]).stat().st_size
    assert onnx.in_int8(BagOfWords(task), texts) is None


def test_the_record_says_what_int8_changed(exported, student, task):
    labels, texts = np.array(task.test["label"]), task.test["text"][:]
    wanted = reading.predict(*students.load(student), texts).argmax(-1)
    checks = exported.record["checks"]
    for name, file in FILES.items():
        found = OnnxClassifier(exported.path / file).logits(texts).argmax(-1)
        assert checks[name]["agreement"] == (found == wanted).mean()
        assert checks[name]["accuracy_change"] == pytest.approx((found == labels).mean() - (wanted == labels).mean())
        assert checks[name]["bytes"] == (exported.path / file).stat().st_size
    assert checks["fp32"]["agreement"] == 1 and checks["fp32"]["accuracy_change"] == 0
    assert 0 < checks["fp32"]["largest_difference"] < 1e-4 < checks["int8"]["largest_difference"]
    assert checks["int8"]["bytes"] < checks["fp32"]["bytes"]


def test_int8_spares_a_bit_so_that_no_cpu_clips_its_sums(exported):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(exported.path / "model_int8.onnx").graph
    multiplied = {node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
    weights = [numpy_helper.to_array(t) for t in graph.initializer if t.name in multiplied]
    assert weights and max(abs(int(w.min())) for w in weights) <= 64 and max(int(w.max()) for w in weights) <= 64


def test_a_file_has_its_own_fingerprint_and_tells_nothing_of_this_machine(exported):
    paths = [exported.path / file for file in FILES.values()]
    names = [OnnxClassifier(path).fingerprint for path in paths]
    assert len({*names}) == 2 and names[0] == OnnxClassifier(paths[0]).fingerprint
    made, manifest = paths[0].read_bytes(), json.loads((exported.path / "manifest.json").read_text())
    assert manifest["files"]["model.onnx"]["sha256"] == hashlib.sha256(made).hexdigest()
    assert b"stack_trace" not in made


def test_made_once_and_checked_anew_on_other_texts(made, exported, student, task, monkeypatch):
    store = made.store
    monkeypatch.setattr(onnx, "write_graph", lambda *_: pytest.fail("exported again"))
    assert to_onnx(student, task.test["text"][:], task.test["label"][:], store=store).path == exported.path
    with pytest.raises(pytest.fail.Exception, match="exported again"):
        to_onnx(student, task.test["text"][:2], store=store)


def test_an_export_with_another_label_is_refused_and_not_kept(student, task, store, tmp_path, graph_is_there):
    model, tokenizer = students.load(student)
    with torch.no_grad():
        model.classifier.weight.neg_()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    with refused("another label than the student", "it was not kept"):
        to_onnx(tmp_path, task.test["text"][:], store=store)
    assert store.list("onnx") == []


def test_serving_needs_no_pytorch(exported):
    program = f"""
import sys
from workbench.publish.onnx import OnnxClassifier
print(OnnxClassifier({str(exported.path / "model_int8.onnx")!r}).logits(["the cat"]).shape)
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "(1, 3)\n", done.stderr


def test_a_cut_of_a_larger_model_exports_too(task, store, tmp_path):
    torch.manual_seed(0)
    for part in students.build("minilm-1", task.label_names, []):
        part.save_pretrained(tmp_path)
    made = to_onnx(tmp_path, task.test["text"][:], store=store)
    wanted = reading.predict(*students.load(tmp_path), AWKWARD, size=4)
    np.testing.assert_allclose(OnnxClassifier(made.path / "model.onnx").logits(AWKWARD, 4), wanted, atol=1e-4)


def test_bad_input_is_one_sentence(student, task, store, tmp_path, exported):
    with refused("got 0 texts and no labels"):
        to_onnx(student, [], store=store)
    with refused("got 2 texts and 1 labels"):
        to_onnx(student, ["a", "b"], [0], store=store)
    with refused("no texts"):
        OnnxClassifier(exported.path / "model.onnx").logits([])
    (tmp_path / "model.onnx").write_bytes(b"")
    with refused("tokenizer.json is missing: give"):
        OnnxClassifier(tmp_path / "model.onnx")
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((exported.path / name).read_bytes())
    with refused("can't be run by ONNX Runtime (", "): export it again."):
        OnnxClassifier(tmp_path / "model.onnx")
    config = json.loads((exported.path / "config.json").read_text())
    for name, value in (("temperature", "warm"), ("refuse_below", 2)):
        (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
        with refused(f"{name} in {tmp_path}/config.json is {value!r}: give"):
            OnnxClassifier(tmp_path / "model.onnx")
