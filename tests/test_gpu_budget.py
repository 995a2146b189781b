"""The gpu budget: what it names exists, as configs of the published size, and its encoders' family trains here."""

import re

import gpu_day
import pandas as pd
import pytest
import torch
import yaml
from gpu_day import HUB, PARAMETERS
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from workbench import students, teachers
from workbench.language import causal
from workbench.publish import report
from workbench.store import Store
from workbench.tasks import Task
from workbench.training import Job, TrainConfig, find_run, train

BUDGET = yaml.safe_load((report.NOTEBOOKS / "budgets.yaml").read_text(encoding="utf-8"))["gpu"]
CLASSIFIERS = [values for values in BUDGET.values() if "task_name" in values]
CLASSES = tuple(f"class {i}" for i in range(151))


def modernbert(width: int, inner: int, layers: int, heads: int) -> ModernBertConfig:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    return ModernBertConfig(**sizes, num_attention_heads=heads, num_labels=len(CLASSES))


# What the hub's config.json of each encoder says, and its published number of parameters: ModernBERT from table 4 of
# arXiv:2412.13663, Ettin from table 1 of arXiv:2507.11412. The rest are the class's defaults.
ENCODERS = {
    "answerdotai/ModernBERT-large": (modernbert(1024, 2624, 28, 16), 395e6),
    "jhu-clsp/ettin-encoder-17m": (modernbert(256, 384, 7, 4), 17e6),
}


def named(value: object) -> set[str]:
    """Models among a notebook's values."""
    if isinstance(value, dict | list):
        return {name for each in (value.values() if isinstance(value, dict) else value) for name in named(each)}
    name = value.removeprefix("finetune:") if isinstance(value, str) else ""
    made = any(size.fullmatch(name) for size in (students.SMALL, students.LLAMA, students.MINILM))
    return {name} if made or "/" in name and ":" not in name else set()


def test_it_names_hub_data_hub_teachers_and_students_and_an_engine():
    data = {values["task_name"] for values in CLASSIFIERS}
    assert data and all(re.fullmatch(r"hub:[\w-]+/[\w-]+(/[\w-]+)?", name) for name in data)
    assert set(ENCODERS) <= named(BUDGET) and any(values.get("cut") in ENCODERS for values in CLASSIFIERS)
    traces = BUDGET["07_reasoning_traces"]
    assert {traces["teacher"], traces["student"]} <= set(PARAMETERS)
    assert traces["family"].startswith("hub:") and traces["engine"] == "vllm"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(named(BUDGET) | set(PARAMETERS)))
def test_each_model_stands_on_the_meta_device(name, task: Task):
    published, width = None, len(CLASSES)
    with torch.device("meta"):
        if name in ENCODERS:
            config, published = ENCODERS[name]
            model = AutoModelForSequenceClassification.from_config(config)
        elif students.LLAMA.fullmatch(name):
            model, tokenizer = causal.build_causal(name)
            width = len(tokenizer)
        elif "/" in name:
            config, published = AutoConfig.from_pretrained(HUB / f"{name.replace('/', '--')}.json"), PARAMETERS[name]
            model, width = AutoModelForCausalLM.from_config(config), config.vocab_size
        else:
            model, _ = students.build(name, CLASSES, task.transfer_texts)
        logits = model(input_ids=torch.zeros(2, 64, dtype=torch.long)).logits
    assert logits.shape[:1] + logits.shape[-1:] == (2, width) and logits.device.type == "meta"
    if published:
        assert model.num_parameters() == pytest.approx(published, rel=0.02 if name in ENCODERS else 0)


# A GPU day on paper


def test_the_page_is_that_of_the_budget():
    assert gpu_day.PAGE.read_text(encoding="utf-8") == gpu_day.page()


def test_every_stage_fits_the_card():
    for stage in gpu_day.stages():
        assert sum(size for _, size in stage.memory) < gpu_day.FILLED * gpu_day.CARD, stage


@pytest.mark.parametrize("name", ["llama-8x512", *sorted(PARAMETERS)])
def test_the_page_counts_as_the_model_does(name):
    sizes = gpu_day.Model.of(name)
    with torch.device("meta"):
        model = causal.build_causal(name)[0] if name not in PARAMETERS else AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(HUB / f"{name.replace('/', '--')}.json")
        )  # fmt: skip
    assert model.num_parameters() == sizes.parameters
    del causal.layers_of(model)[6:]
    assert model.num_parameters() == pytest.approx(sizes.cut(6).parameters, rel=1e-3)


def test_a_layer_keeps_what_the_page_says():
    config = LlamaConfig(
        vocab_size=8, hidden_size=192, num_attention_heads=6, num_key_value_heads=2, head_dim=32, intermediate_size=512,
        num_hidden_layers=1,
    )  # fmt: skip
    model, kept = LlamaForCausalLM(config), {}
    ids = torch.zeros(1, 256, dtype=torch.long)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    sizes = [size for at, (size, tensor) in kept.items() if at not in weights and 256 in tensor.shape]
    counted = gpu_day.Model(0, 1, 192, 192, 64, 512, 8).activations()
    assert out.requires_grad and sum(sizes) / ids.numel() == pytest.approx(counted, rel=0.1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, task) -> str:
    """A tiny one of the same family as it lies on the hub: pretrained to fill masks, without a classifier's head."""
    folder = tmp_path_factory.mktemp("encoder")
    _, tokenizer = students.build("1x32", task.label_names, task.transfer_texts)
    ids = {f"{t}_token_id": getattr(tokenizer, f"{t}_token_id") for t in ("pad", "cls", "sep")}
    torch.manual_seed(0)
    config = modernbert(32, 48, 3, 2)
    config.update({"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": None, **ids})
    ModernBertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_its_family_takes_two_training_steps_as_a_student(task, labels, encoder, store):
    config = TrainConfig(student=encoder, steps=2, batch_size=8, eval_every=1, log_every=1, learning_rate=1e-3)
    history = pd.DataFrame(train(Job(task, labels, config), store=store))
    assert len(history) == 2 and history[["kd", "validation_nll"]].notna().all(axis=None)
    model, _ = students.load(find_run(Job(task, labels, config), store).path)
    assert model.config.model_type == "modernbert" and tuple(model.config.id2label.values()) == task.label_names


def test_its_family_takes_two_training_steps_as_a_teacher(task, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "FINETUNE_ANY", TrainConfig(kd_weight=0.0, ce_weight=1.0, steps=2, batch_size=8))
    store = Store(tmp_path)
    teacher = teachers.load_teacher(f"finetune:{encoder}", task, store=store)
    assert teacher.label_names == task.label_names and teacher.logits(["a cat"]).shape == (1, 3)
    assert teacher.licence == "see its model card"
    again = teachers.load_teacher(f"finetune:{encoder}", task, store=store)
    assert again.fingerprint == teacher.fingerprint and len(store.list("runs")) == 1
