"""No path that loads a model runs the model's own code, asks whether it may, or unpickles anything."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from lab import smoke_report

from workbench.errors import WorkbenchError
from workbench.language.traces import VLLM

REPO = Path(__file__).resolve().parents[1]

# Run as a program: makes the folders below argv[1], each of which writes `MARKER` if anything in it is run, tries every
# way of loading each, with "y" on standard input, and prints [folder, way, what came of it] as JSON lines.
ATTACK = r'''
import json, os, pickle, shutil, sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from workbench import students, teachers
from workbench.language import causal, texts, traces, zero_shot
from workbench.publish import onnx
from workbench.errors import WorkbenchError
from workbench.language.traces import Sampling
from workbench.store import Store
from workbench.training import Job, TrainConfig, train

root, marker = Path(sys.argv[1]), Path(sys.argv[1]) / "MARKER"
os.environ["WORKBENCH_DATA"] = str(root / "data")
sys.path.insert(0, str(Path("tests").resolve()))
from tiny import make_task

task = make_task(root)
store = Store(root / "store")
EVIL = f"open({str(marker)!r}, 'a').write('x')\n"
CLASSES = "\n".join(
    f"class {name}(transformers.{base}): model_type = 'evil'\n"
    for name, base in [("C", "PreTrainedConfig"), ("M", "PreTrainedModel"), ("T", "PreTrainedTokenizerFast")]
)


class Payload:
    def __reduce__(self):
        return exec, (EVIL,)


def plain(kind):
    """A model without any trick: a classifier of the task, or a causal model with a chat template."""
    folder = root / kind / "plain"
    torch.manual_seed(0)
    if kind == "classifier":
        model, tokenizer = students.build("1x32", task.label_names, task.transfer_texts)
    else:
        model, tokenizer = causal.build_causal("llama-1x32")
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for module in ("evil.py", "modeling_x.py", "custom_generate/generate.py"):
        (folder / module).parent.mkdir(exist_ok=True)
        (folder / module).write_text(f"import transformers\n{EVIL}{CLASSES}\ndef generate(*a, **k): {EVIL}")
    for file in ("training_args.bin", "optimizer.pt", "scheduler.pt", "vocab.pkl"):
        pickle.dump(Payload(), open(folder / file, "wb"))
    return folder


def edit(folder, file, **changes):
    path = folder / file
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({k: v for k, v in (found | changes).items() if v is not None}))


MAP = {a: "evil.C" if a == "AutoConfig" else "evil.M" for a in (
    "AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")}
TOKENS = {"AutoTokenizer": ["evil.T", "evil.T"]}


C, T = "config.json", "tokenizer_config.json"
EVIL_T = {"auto_map": TOKENS, "tokenizer_class": "EvilTokenizer"}
EDITS = {  # a trick that is nothing but other settings: file -> what it says
    "own_code": {C: {"auto_map": MAP | TOKENS}},
    "own_code_unknown_type": {C: {"auto_map": MAP, "model_type": "evil", "tokenizer_class": None}},
    "own_code_no_type": {C: {"auto_map": MAP, "model_type": None}},
    "own_model_of_an_image_type": {C: {"auto_map": MAP, "model_type": "vit"}},  # one without these classes
    "own_tokenizer": {T: EVIL_T},
    "own_tokenizer_listed": {T: EVIL_T | {"auto_map": ["evil.T", "evil.T"]}},
    "own_tokenizer_unknown_type": {C: {"model_type": "vit"}, T: EVIL_T},
    "own_code_elsewhere": {
        C: {"auto_map": {k: f"{root}/elsewhere--{v}" for k, v in MAP.items()}, "model_type": "evil"}},
    "kernel": {C: {"attn_implementation": "evil/kernel", "experts_implementation": "evil/kernel"}},
    "kernel_paged": {
        C: {"attn_implementation": "paged|evil/kernel@main:run", "_attn_implementation": "evil/kernel"}},
    "quantised": {C: {"quantization_config": {"quant_method": "evil", "modules": "evil.M"}}},
    "quantised_known": {C: {"quantization_config": {
        "quant_method": "torchao", "quant_type": {"default": {"_type": "evil.M", "_data": {}}}}}},
    "custom_generation": {"generation_config.json": {
        "custom_generate": "custom_generate", "trust_remote_code": True, "penalty_alpha": 0.6, "top_k": 4,
        "num_beams": 2, "num_beam_groups": 2, "diversity_penalty": 0.1}},
    "trusting": dict.fromkeys((C, T, "generation_config.json"), {  # would be read if anything took them from a file
        "trust_remote_code": True, "auto_map": MAP | TOKENS, "code_revision": "main", "use_safetensors": False}),
    "processor": dict.fromkeys(("processor_config.json", "preprocessor_config.json"), {
        "auto_map": {"AutoProcessor": "evil.T"}, "processor_class": "Evil"}),
}

def rag_tokenizer(folder):  # loads its parts by calls of its own
    edit(folder, "tokenizer_config.json", tokenizer_class="RagTokenizer")
    part = {"model_type": "vit"}
    edit(folder, "config.json", question_encoder=part, generator=part, model_type="rag")
    for part in ("question_encoder_tokenizer", "generator_tokenizer"):
        shutil.copytree(folder, folder / part, ignore=shutil.ignore_patterns("*_tokenizer"))
        shutil.copy(folder / "evil.py", folder / part)
        edit(folder / part, "tokenizer_config.json", auto_map=TOKENS, tokenizer_class="EvilTokenizer")

def adapter(folder):
    edit(folder, "adapter_config.json", base_model_name_or_path=str(root / "own_code_unknown_type"), peft_type="LORA",
         auto_mapping={"parent_library": "evil", "base_model_class": "M"})
    pickle.dump(Payload(), open(folder / "adapter_model.bin", "wb"))

def pickled(folder):
    torch.save(Payload(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

def pickled_beside(folder):
    torch.save(Payload(), folder / "pytorch_model.bin")

def pickled_named(folder):
    edit(folder, "config.json", transformers_weights="adapter_model.bin")
    torch.save(Payload(), folder / "adapter_model.bin")

def pickled_shard(folder):
    (folder / "model.safetensors").unlink()
    torch.save(Payload(), folder / "shard.bin")
    edit(folder, "model.safetensors.index.json", metadata={}, weight_map={"lm_head.weight": "shard.bin"})

def pickled_as_safetensors(folder):
    pickle.dump(Payload(), open(folder / "model.safetensors", "wb"))

def pickled_index(folder):
    (folder / "model.safetensors").unlink()
    torch.save(Payload(), folder / "shard.bin")
    edit(folder, "pytorch_model.bin.index.json", metadata={}, weight_map={"lm_head.weight": "shard.bin"})

def template(folder):
    system = "cycler.__init__.__globals__.os.system('touch %s')" % marker
    escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ " + system + " }}"
    edit(folder, "tokenizer_config.json", chat_template=escape)
    (folder / "chat_template.jinja").write_text(escape)


TRICKS = [rag_tokenizer, adapter, pickled, pickled_beside, pickled_named, pickled_shard, pickled_as_safetensors,
    pickled_index, template]


def folders(kind):
    """The plain one, then a copy of it for each trick."""
    yield plain(kind)
    for name, trick in [*EDITS.items(), *((trick.__name__, trick) for trick in TRICKS)]:
        folder = shutil.copytree(root / kind / "plain", root / kind / name)
        if callable(trick):
            trick(folder)
        else:
            for file, changes in trick.items():
                edit(folder, file, **changes)
        yield folder


def run(model):
    config = TrainConfig(student=str(model), kd_weight=0.0, ce_weight=1.0, steps=1, batch_size=2)
    for _ in train(Job(task, None, config), store=store):
        pass


def engine(model):  # as if vllm were installed
    sys.modules.setdefault("vllm", type(sys)("vllm")).__version__ = "0"
    traces.chat_prompt(traces.VLLM(model).tokenizer, "Why?")


WAYS = {
    "classifier": {
        "models.build": lambda m: students.build(m, task.label_names, task.transfer_texts),
        "models.load": students.load,
        "models.load_tokenizer": students.load_tokenizer,
        "models.source_fingerprint": students.source_fingerprint,
        "load_teacher": lambda m: teachers.load_teacher(m, task, store=store),
        "Classifier": lambda m: teachers.Classifier("x", m, task),
        "to_onnx": lambda m: onnx.to_onnx(m, ["a cat"], store=store),
        "train": run,
        "load_teacher finetune": lambda m: teachers.load_teacher(f"finetune:{m}", task, store=store),
    },
    "causal": {
        "language.build_causal": causal.build_causal,
        "language.load_causal": causal.load_causal,
        "ZeroShot": lambda m: zero_shot.ZeroShot("x", Path(m), task, ""),
        "load_language_model": causal.load_language_model,
        "augment.written": lambda m: texts.written(task, m, per_class=1, how=Sampling(1.0, 2), store=store),
        "Local.write": lambda m: traces.Local(m).write(["Why?"], Sampling(max_new_tokens=2)),
        "VLLM": engine,
    },
}
import dataclasses
teachers.FINETUNE_ANY = dataclasses.replace(teachers.FINETUNE_ANY, steps=1, batch_size=2, eval_every=1)
for kind, ways in WAYS.items():
    for folder in folders(kind):
        for way, call in ways.items():
            try:
                call(str(folder))
                found = "loaded"
            except WorkbenchError as error:
                found = str(error)
            except BaseException as error:
                found = f"RAW {type(error).__name__}: {error}"
            if marker.exists():
                found = f"RAN CODE, {found}"
                marker.unlink()
            print("ROW " + json.dumps([f"{kind}/{folder.name}", way, found]), flush=True)
'''


# What a test may not find in the package or in a notebook: calls that load, and where they are allowed.
LOADS = {"from_pretrained", "from_config", "pipeline"}
PICKLES = {"torch.load", "joblib.load", "pickle.load", "pickle.loads", "dill.load", "cloudpickle.load"}


def sources() -> dict[str, str]:
    package = REPO / "workbench"
    paths = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    found = {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
    for path in (REPO / "notebooks").glob("*.ipynb"):
        cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        found[path.name] = "\n".join(line for cell in cells for line in cell.splitlines() if line[:1] not in "%!")
    return found


def loading(text: str) -> list[str]:
    """Calls that load a model, or could unpickle or run what a file says."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [f"import {name}" for name in names if name.split(".")[0] in {"pickle", "dill", "cloudpickle"}]
        if isinstance(node, ast.keyword) and node.arg in {"trust_remote_code", "allow_pickle"}:
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                found.append(f"{node.arg}={ast.unparse(node.value)}")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.split(".")[-1] in LOADS or name in PICKLES:
                found.append(name.split(".")[-1] if name not in PICKLES else name)
    return found


@pytest.mark.parametrize("name", sorted(sources()))
def test_only_the_loader_loads(name):
    found = loading(sources()[name])
    assert set(found) <= ({"from_pretrained", "from_config"} if name == "weights.py" else set())


def test_the_loader_never_allows_code():
    tree = ast.parse(sources()["weights.py"])
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func).split(".")[-1] in LOADS]
    assert len(calls) == 4
    for call in calls:
        assert "trust_remote_code=False" in [ast.unparse(k) for k in call.keywords]


@pytest.mark.parametrize(
    "text",
    [
        "AutoModel.from_pretrained('x')",
        "transformers.pipeline('x')",
        "torch.load('x')",
        "import pickle",
        "from pickle import loads",
        "joblib.load('x')",
        "np.load('x', allow_pickle=True)",
        "load('x', trust_remote_code=maybe)",
    ],
)
def test_that_test_finds(text):
    assert loading(text)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[tuple[str, str], str]:
    """What came of each folder in each way, from one process that is answered y whatever it asks."""
    root = tmp_path_factory.mktemp("attack")
    command = [sys.executable, "-c", ATTACK, str(root)]
    env = os.environ | {"PYTHONPATH": str(REPO), "HF_MODULES_CACHE": str(root / "modules")}
    done = subprocess.run(command, cwd=REPO, env=env, input="y\n" * 10_000, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("ROW ")] == []  # a question would stand here
    assert not (root / "MARKER").exists() and not list(root.glob("modules/**/evil.py"))
    return {(folder, way): found for folder, way, found in (json.loads(line[4:]) for line in lines)}


@pytest.mark.long
def test_no_way_of_loading_runs_what_a_folder_brings(rows):
    tricks = {folder.split("/")[1] for folder, _ in rows}
    assert len(tricks) == 25 and len(rows) == 25 * 16
    bad = {key: found for key, found in rows.items() if found != "loaded" and not one_sentence(found)}
    assert not bad


def one_sentence(found: str) -> bool:
    return found.endswith(".") and "\n" not in found and found.startswith(("Can't load", "The chat template", "/"))


@pytest.mark.long
def test_what_needs_no_code_loads_and_what_needs_it_is_refused(rows):
    for folder in ("plain", "own_code", "kernel", "pickled_beside", "pickled_named", "processor"):
        assert {found for (at, _), found in rows.items() if at.split("/")[1] == folder} == {"loaded"}, folder
    for folder in ("own_code_unknown_type", "own_code_no_type", "own_model_of_an_image_type"):
        for way in ("models.build", "models.load", "language.build_causal", "Local.write", "train", "to_onnx"):
            found = [v for (at, by), v in rows.items() if at.split("/")[1] == folder and by == way]
            assert found and all("needs code of its own, which is never run here" in v for v in found), (folder, way)
    assert "needs code of its own" in rows["classifier/rag_tokenizer", "models.load_tokenizer"]
    assert "unsafe" in rows["causal/template", "Local.write"]
    for folder in ("pickled", "pickled_shard", "pickled_index"):
        assert "its weights are not in model.safetensors" in rows[f"classifier/{folder}", "models.load"]


def test_vllm_is_never_told_to_trust(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", type(sys)("vllm"))
    with pytest.raises(WorkbenchError, match="a model's own code is never run"):
        VLLM("a/b", trust_remote_code=True)


@pytest.mark.long
def test_a_report_with_such_a_teacher_ends_without_running_it(tmp_path, capfd):
    code = f"open({str(tmp_path / 'MARKER')!r}, 'w')"
    (tmp_path / "evil").mkdir()
    for file in ("modeling_x.py", "evil.py"):
        (tmp_path / "evil" / file).write_text(code)
    auto = {name: "evil.M" for name in ("AutoConfig", "AutoModelForSequenceClassification")}
    (tmp_path / "evil" / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    done = smoke_report(tmp_path / "data", "--only", "02", "--teacher", "evil", cwd=tmp_path)
    assert done.returncode == 1 and not (tmp_path / "MARKER").exists()
    assert "needs code of its own, which is never run here" in done.stdout + done.stderr
    assert "Do you wish" not in done.stdout + done.stderr
