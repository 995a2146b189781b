"""The gpu budget of language models: what it names exists, as configs."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from workbench import students
from workbench.language import causal
from workbench.publish import report

HUB = Path(__file__).parent / "hub"  # config.json of each hub model
PARAMETERS = {  # as their pages say
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
}
BUDGET = yaml.safe_load((report.NOTEBOOKS / "budgets.yaml").read_text(encoding="utf-8"))["gpu"]
GPU = {notebook: values for notebook, values in BUDGET.items() if "task_name" not in values}


def named(value: object) -> list[str]:
    """Models among a notebook's values."""
    if isinstance(value, dict | list):
        return [name for item in (value.values() if isinstance(value, dict) else value) for name in named(item)]
    small = isinstance(value, str) and (students.SMALL.fullmatch(value) or students.LLAMA.fullmatch(value))
    return [value] if small or (isinstance(value, str) and "/" in value and ":" not in value) else []


@pytest.mark.parametrize("name", sorted({*PARAMETERS, *named(GPU)}))
def test_every_model_of_the_gpu_budget_instantiates(name):
    if small := students.SMALL.fullmatch(name):
        assert len(students.build(name, ("a", "b"), ["one text", "two texts"])[0].model.layers) == int(small[1])
        return
    if small := students.LLAMA.fullmatch(name):
        assert len(causal.build_causal(name)[0].model.layers) == int(small[1])
        return
    config = AutoConfig.from_pretrained(HUB / f"{name.replace('/', '--')}.json")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        assert model(input_ids=torch.zeros(2, 5, dtype=torch.long)).logits.shape == (2, 5, config.vocab_size)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_the_budget_names_a_reasoning_teacher_and_its_engine():
    values = GPU["07_reasoning_traces"]
    assert values["teacher"] in PARAMETERS and values["student"] in PARAMETERS
    assert values["family"].startswith("hub:") and values["engine"] == "vllm"
