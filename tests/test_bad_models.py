"""Whatever is wrong with a model or its name: `WorkbenchError`, one sentence on one line, and no memory taken."""

import json
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from refusal import refused, sentence
from safetensors.torch import load_file, save_file

from workbench import students, teachers, weights
from workbench.language import causal, texts, traces

CLASSES = ("light", "lock", "music")


def build(spec: object) -> object:
    return students.build(spec, CLASSES, ["a light", "a lock"])


def config(**changes: object) -> Callable[[Path], None]:
    """Change the config of a saved model; None removes."""

    def edit(folder: Path) -> None:
        found = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in found.items() if v is not None}))

    return edit


def write(file: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(data) and None


def remove(*files: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / file).unlink() for file in files] and None


def index(data: bytes) -> Callable[[Path], None]:
    return lambda folder: remove("model.safetensors")(folder) or write("model.safetensors.index.json", data)(folder)


def cut(share: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: int(share * len(data))])

    return edit


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors", {"format": "pt"})

    return edit


def lacks(name: str) -> Callable[[Path], None]:
    return tensors(lambda found: [found.pop(key) for key in list(found) if name in key])


def reshapes(name: str) -> Callable[[Path], None]:
    return tensors(lambda found: found.update({k: torch.zeros(3, 5) for k in found if name in k}))


# What was done to a saved model, how it is then loaded, and what the sentence says.
BROKEN = [
    ("no file left", lambda f: [p.unlink() for p in f.iterdir()], students.load, "config.json"),
    ("truncated weights", cut(0.5), students.load, "incomplete metadata|not fully covered"),
    ("truncated weights", cut(0.5), build, "incomplete metadata|not fully covered"),
    ("a few bytes of weights", cut(0.0001), students.load, "header"),
    ("empty weights", cut(0), students.load, "header too small"),
    ("garbage for weights", write("model.safetensors", b"\xff" * 999), build, "header"),
    ("JSON for weights", write("model.safetensors", b"{}"), students.load, "header"),
    ("no weights", remove("model.safetensors"), build, "model.safetensors"),
    ("a shard that is absent", index(b'{"weight_map":{"a":"b.safetensors"}}'), students.load, "b.safetensors"),
    ("an index that is no JSON", index(b"{"), students.load, "Expecting property name"),
    ("an index without a map", index(b"{}"), build, "weight_map"),
    ("an index without shards", index(b'{"weight_map":{}}'), build, "not in model.safetensors"),
    ("a layer of another shape", reshapes("layers.0.mlp"), students.load, "layers.0.mlp.* another shape"),
    ("a layer of another shape", reshapes("layers.0.mlp"), build, "layers.0.mlp.* another shape"),
    ("embeddings of another shape", reshapes("embeddings"), build, "embeddings.* another shape"),
    ("a layer that is absent", lacks("layers.0.attn"), students.load, "lack.*layers.0.attn"),
    ("a layer that is absent", lacks("layers.0.attn"), build, "lack.*layers.0.attn"),
    ("a head that is absent", lacks("classifier"), students.load, "lack classifier"),
    ("a head of another shape", reshapes("classifier.weight"), students.load, "classifier.weight.* another shape"),
    ("no tensors", tensors(dict.clear), build, "lack|hold 0"),
    ("junk for a tokenizer", write("tokenizer.json", b"\x00junk"), students.load, "line 1 column 1"),
    ("a list for a tokenizer", write("tokenizer.json", b"[]"), students.load_tokenizer, "Can't load"),
    ("an object for a tokenizer", write("tokenizer.json", b"{}"), students.load_tokenizer, "Can't load"),
    ("no tokenizer", remove("tokenizer.json"), students.load_tokenizer, "Can't load"),
    ("no tokenizer at all", remove("tokenizer.json", "tokenizer_config.json"), build, "Can't load"),
    ("a list for its settings", write("tokenizer_config.json", b"[]"), students.load_tokenizer, "Can't load"),
    ("settings that are no JSON", write("tokenizer_config.json", b"{"), students.load, "Can't load"),
    ("a config that is no JSON", write("config.json", b"{"), students.load, "not a JSON object"),
    ("an empty config", write("config.json", b""), students.load, "not a JSON object"),
    ("a list for a config", write("config.json", b"[]"), students.load, "not a JSON object"),
    ("a number for a config", write("config.json", b"3"), build, "not a JSON object"),
    ("bytes for a config", write("config.json", b"\xff\xfe\x00"), students.load, "not a JSON object"),
    ("no config", remove("config.json"), students.load, "config.json"),
    ("an unknown type", config(model_type="none-such"), students.load, "none-such"),
    ("no type", config(model_type=None), build, "model_type"),
    ("a number for a type", config(model_type=3), build, "Can't load"),
    ("another type", config(model_type="bert"), students.load, "another shape"),
    ("a type of no classifier", config(model_type="vit"), build, "AutoModelForSequenceClassification"),
    ("a type of no language model", lambda f: None, causal.load_causal, "AutoModelForCausalLM"),
    ("a width of a billion", config(hidden_size=10**9), build, "overflow"),
    ("a width of a million", config(hidden_size=10**6), students.load, "describes"),
    ("a billion classes", config(id2label=None, label2id=None, num_labels=10**9), students.load, "num_labels"),
    ("a billion layers", config(num_hidden_layers=10**9, layer_types=None), students.load_tokenizer, "num_hid"),
    ("a vocabulary of a trillion", config(vocab_size=10**12), build, "describes"),
    ("a vocabulary beyond words", config(vocab_size=10**30), build, "Can't load"),
    ("a billion layers", config(num_hidden_layers=10**9, layer_types=None), students.load, "num_hidden_layers 1"),
    ("a width below 0", config(hidden_size=-32), build, "Can't load"),
    ("no width", config(hidden_size=0), build, "Can't load"),
    ("a text for a width", config(hidden_size="wide"), build, "Can't load"),
    ("no layers", config(num_hidden_layers=0, layer_types=None), students.load, "Can't load"),
]  # fmt: skip

# A name, and what the sentence says.
STUDENTS = [
    ("0x64", "1 layer or more"),
    ("2x0", "divisible by 32"),
    ("2x65", "divisible by 32"),
    ("2x100", "Can't build student '2x100'.*divisible by 32"),
    ("999999x64", "at most 256 layers"),
    ("257x32", "at most 256 layers"),
    ("2x99999968", "parameters"),
    ("2x99999999", "divisible by 32"),
    ("9" * 5000 + "x64", "is no name"),
    ("minilm-0", "keep 0 of 6 layers: choose 1 to 6"),
    ("minilm-7", "keep 7 of 6 layers: choose 1 to 6"),
    ("no-such-owner/no-such-model", "give a folder with a saved model, or a hub name and a network"),
    ("minilm-99", "choose 1 to 6"),
    ("minilm-" + "9" * 20, "Can't load"),
]
CAUSAL = [
    ("llama-0x64", "1 layer or more"),
    ("llama-1x16", "divisible by 32"),
    ("llama-999999x64", "at most 256 layers"),
    ("llama-2x99999968", "parameters"),
]
SPECS = [(build, *row) for row in STUDENTS] + [(causal.build_causal, *row) for row in CAUSAL]
NAMES = [None, 7, 1.5, [], b"bytes", "", " ", "a name with spaces", "..", "/", "no/such/model", "\0", "~", "a" * 5000]
WAYS = {
    "build": build,
    "load": students.load,
    "build_causal": causal.build_causal,
    "load_causal": causal.load_causal,
    "load_tokenizer": students.load_tokenizer,
    "load_language_model": causal.load_language_model,
    "Local": lambda name: traces.Local(name).write(["Why?"], traces.Sampling(max_new_tokens=1)),
    "load_teacher": lambda name: teachers.load_teacher(name, make_task()),
    "written": lambda name: texts.written(make_task(), model=name, per_class=1),
}


def make_task() -> object:
    return SimpleNamespace(label_names=("a",), labelled={"text": ["a cat"], "label": [0]})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    for part in students.build("1x32", CLASSES, ["a light", "a lock"] * 20):
        part.save_pretrained(folder)
    return folder


def check(call: Callable[[], object], says: str) -> str:
    """What it says, and that it takes no memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = sentence(call)
    assert re.search(says, text), text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    return text


def test_the_whole_one_loads(whole):
    assert build(str(whole)) and students.load(whole)


@pytest.mark.parametrize(("what", "edit", "way", "says"), BROKEN, ids=[f"{i} {row[0]}" for i, row in enumerate(BROKEN)])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # by the one of no width
def test_a_broken_model(what, edit, way, says, whole, tmp_path):
    folder = tmp_path / "it"
    shutil.copytree(whole, folder)
    edit(folder)
    assert str(folder) in check(lambda: way(folder), says)


@pytest.mark.parametrize(
    ("way", "spec", "says"), SPECS, ids=[f"{spec[:20]} {i}" for i, (_, spec, _) in enumerate(SPECS)]
)
def test_a_student_or_a_language_model_that_cannot_be(way, spec, says):
    check(lambda: way(spec), says)


@pytest.mark.parametrize("name", NAMES, ids=[repr(name)[:20] for name in NAMES])
@pytest.mark.parametrize("way", WAYS)
def test_a_name_that_is_none(way, name):
    check(lambda: WAYS[way](name), "give|Choose one of")


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_folder(way, tmp_path):
    check(lambda: WAYS[way](str(tmp_path)), re.escape(str(tmp_path)))


@pytest.mark.parametrize("way", WAYS)
def test_a_file_instead_of_its_folder(way, whole):
    check(lambda: WAYS[way](str(whole / "config.json")), "is a file: give the folder")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_not_the_models_fault_passes(error, whole, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(students.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(error):
        students.load_tokenizer(whole)


def test_no_caller_can_allow_code(whole):
    with refused("code of its own"):
        weights.load(students.AutoTokenizer, whole, trust_remote_code=True)
