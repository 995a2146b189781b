"""The gpu budget of classification: its models exist as configurations, and their family trains here."""

import re

import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, ModernBertConfig, ModernBertForMaskedLM, PreTrainedConfig

from workbench import students, teachers
from workbench.publish import report
from workbench.store import Store
from workbench.tasks import Task
from workbench.training import Job, TrainConfig, find_run, train

BUDGET = yaml.safe_load((report.NOTEBOOKS / "budgets.yaml").read_text(encoding="utf-8"))["gpu"]
GPU = {notebook: values for notebook, values in BUDGET.items() if "task_name" in values}
CLASSES = tuple(f"class {i}" for i in range(151))


def modernbert(width: int, inner: int, layers: int, heads: int) -> ModernBertConfig:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    return ModernBertConfig(**sizes, num_attention_heads=heads, num_labels=len(CLASSES))


# What the hub's config.json of each model says, and its published number of parameters: ModernBERT from table 4 of
# arXiv:2412.13663, Ettin from table 1 of arXiv:2507.11412. The rest are the class's defaults.
HUB: dict[str, tuple[PreTrainedConfig, float]] = {
    "answerdotai/ModernBERT-large": (modernbert(1024, 2624, 28, 16), 395e6),
    "jhu-clsp/ettin-encoder-17m": (modernbert(256, 384, 7, 4), 17e6),
}


def named() -> list[str]:
    """Every model that the gpu budget names."""
    values = [v for of_notebook in GPU.values() for k, v in of_notebook.items() if k in ("student", "cut")]
    values += [of_notebook["teacher_name"] for of_notebook in GPU.values() if "teacher_name" in of_notebook]
    return sorted({value.removeprefix("finetune:") for value in values})


def test_it_names_hub_data_a_hub_teacher_and_a_hub_student():
    data = {of_notebook["task_name"] for of_notebook in GPU.values()}
    assert data and all(re.fullmatch(r"hub:[\w-]+/[\w-]+(/[\w-]+)?", name) for name in data)
    assert set(HUB) <= set(named()) and any(of.get("cut") in HUB for of in GPU.values())


@pytest.mark.parametrize("name", named())
def test_each_model_stands_on_the_meta_device(name, task: Task):
    with torch.device("meta"):
        if name in HUB:
            config, published = HUB[name]
            model = AutoModelForSequenceClassification.from_config(config)
        else:  # made from a config of our own
            model, _ = students.build(name, CLASSES, task.transfer_texts)
            published = None
        logits = model(input_ids=torch.zeros(2, 64, dtype=torch.long)).logits
    assert logits.shape == (2, len(CLASSES)) and logits.device.type == "meta"
    if published:
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(published, rel=0.02)


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
