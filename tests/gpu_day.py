"""What 06 and 07 take at `gpu` on one card of 80 GB, on paper: `python tests/gpu_day.py` writes docs/gpu-day.md.

Each figure stands beside its formula; tests/test_gpu_budget.py holds the page to the budget, the activations to a layer
that really runs, and every stage to the card.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import yaml

from workbench.language import causal
from workbench.publish import report
from workbench.students import LLAMA

PAGE = report.NOTEBOOKS.parent / "docs" / "gpu-day.md"
HUB = Path(__file__).parent / "hub"  # config.json of each causal model
PARAMETERS = {  # as their pages say
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
}
CARD, FILLED = 80e9, 0.9  # bytes; how much of them may be planned with
# An H100 SXM's sheet: bf16 and float32 operations a second, bytes a second. The shares that are reached are assumed.
BF16, FLOAT32, BANDWIDTH = 989e12, 67e12, 3.35e12
REACHED, READ = 0.4, 0.6
LAUNCH, KERNELS = 10e-6, 100  # seconds a kernel; kernels a layer, forward and backward
TRACE, PROMPT = 800, 150  # tokens of a teacher's text and of a problem: assumed
AT_ONCE = 256  # texts that `traces.sample` has written together


class Model(NamedTuple):
    """The sizes that memory and time follow from."""

    parameters: int
    layers: int
    hidden: int
    queries: int  # width of all heads
    keys: int  # of keys, and of values
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, name: str) -> "Model":
        """By hub name, or ``"llama-4x256"``."""
        if small := LLAMA.fullmatch(name):
            layers, width = map(int, small.groups())
            vocabulary, inner = 3 + len(causal.CHARACTERS), 3 * width
            parameters = vocabulary * width + layers * (4 * width**2 + 3 * width * inner + 2 * width) + width
            return cls(parameters, layers, width, width, width, inner, vocabulary)
        c = json.loads((HUB / f"{name.replace('/', '--')}.json").read_text())
        head = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        widths = c["hidden_size"], head * c["num_attention_heads"], head * c["num_key_value_heads"]
        return cls(PARAMETERS[name], c["num_hidden_layers"], *widths, c["intermediate_size"], c["vocab_size"])

    def cut(self, layers: int) -> "Model":
        """With so many of its layers (without biases)."""
        each = self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.inner + 2)
        return self._replace(parameters=self.parameters - (self.layers - layers) * each, layers=layers)

    def activations(self) -> int:
        """Bytes a token that a training step keeps in the layers, under autocast to bfloat16, with fused attention."""
        return self.layers * (26 * self.hidden + 8 * (self.queries + self.keys + self.inner))

    def cache(self, size: int) -> int:
        """Bytes a token of keys and values of so many bytes."""
        return 2 * self.layers * self.keys * size


class Stage(NamedTuple):
    """A line of the page."""

    notebook: str
    what: str
    memory: list[tuple[str, float]]  # formula, bytes
    time: tuple[str, float]  # formula, seconds


def training(m: Model, runs: int, steps: int, tokens: int, parts: int = 1, wide: bool = False) -> tuple[list, tuple]:
    """(memory, time) of runs of so many steps of so many tokens in so many micro-batches; `wide` keeps all logits."""
    n, here = m.parameters, tokens // parts
    memory = [(f"18 B × {n / 1e6:,.0f} M parameters", 18 * n)]
    memory += [(f"{here:,} tokens × {m.activations() / 1e3:,.0f} kB", here * m.activations())]
    memory += [(f"{here:,} tokens × {m.vocabulary:,} logits × 18 B", 18 * here * m.vocabulary)] * wide
    work, wait = 6 * n * tokens / (REACHED * BF16), LAUNCH * KERNELS * m.layers * parts
    each = f"6 × {n / 1e6:,.0f} M × {tokens:,} tokens / (0.4 × 989 T/s)"
    if wait > work:
        each = f"{parts} × {m.layers} layers × {KERNELS} kernels × 10 µs"
    many = "run" if runs == 1 else "runs"
    return memory, (f"{runs} {many} × {steps:,} steps × {each}", runs * steps * max(work, wait))


def values(name: str) -> dict[str, Any]:
    """A notebook's parameters at `gpu`."""
    budget = yaml.safe_load((report.NOTEBOOKS / "budgets.yaml").read_text(encoding="utf-8"))["gpu"][name]
    cells = nbformat.read(report.NOTEBOOKS / f"{name}.ipynb", 4).cells
    found: dict[str, Any] = {}
    exec(next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), found)
    return found | budget


def language_models(v: dict[str, Any]) -> Iterator[Stage]:
    """The stages of 06."""
    teacher, student = Model.of(v["teacher_size"]), Model.of(v["student_size"])
    tokens, seeds = v["batch"] * v["length"], len(v["seeds"])
    yield Stage("06", v["teacher_size"], *training(teacher, 1, v["teacher_steps"], 4 * tokens))
    tuned = len(v["rates"]) * (len(v["decays"]) + len(v["temperatures"]))
    runs = tuned + seeds * (6 + 2 * len(v["amounts"]) + 1)
    yield Stage("06", v["student_size"], *training(student, runs, v["steps"], tokens))
    lm, read = Model.of(v["language_model"]), v["lm_blocks"] * v["length"]
    held = (f"4 B × {lm.parameters / 1e6:,.0f} M parameters, to the end", 4 * lm.parameters)
    formula = f"2 × {lm.parameters / 1e6:,.0f} M × {read:,} tokens / (0.4 × 67 T/s)"
    label = formula, 2 * lm.parameters * read / (REACHED * FLOAT32)
    yield Stage("06", f"{v['language_model']} labels", [held], label)
    passes = -(-v["lm_blocks"] // v["lm_batch"]) * v["lm_passes"]
    cut = lm.cut(v["layers"])
    memory, time = training(cut, 2 * len(v["lm_seeds"]), passes, v["lm_batch"] * v["length"])
    yield Stage("06", f"{v['language_model']} cut to {v['layers']} layers", [held, *memory], time)


def reasoning(v: dict[str, Any]) -> Iterator[Stage]:
    """The stages of 07."""
    teacher, share = Model.of(v["teacher"]), v["engine_options"]["gpu_memory_utilization"]
    engine = (f"{share:.0%} of 80 GB for vLLM, to the end", share * CARD)
    count = len(v["trained"]) * (v["questions"] * v["draws"] + v["tests"] + v["looks"]) + v["tests"]
    room = share * CARD - 2 * teacher.parameters - 1e9
    here = int(room / (teacher.cache(2) * (PROMPT + TRACE)))
    a_token = (2 * teacher.parameters + room) / (READ * BANDWIDTH)
    formula = f"{count:,} texts × {TRACE} tokens / {here} at once × {a_token * 1e3:.1f} ms"
    yield Stage("07", f"{v['teacher']} writes", [engine], (formula, count * TRACE / here * a_token))
    seeds, tests = len(v["seeds"]), (len(v["trained"]) + 1) * v["tests"]
    for name in (v["student"], *v["sizes"]):
        m, arms = Model.of(name), 6 if name == v["student"] else 1
        step, longest = v["batch_size"] * (PROMPT + TRACE), v["batch_size"] // v["accumulation"] * v["max_tokens"]
        memory, time = training(m, seeds * arms, v["steps"], step, v["accumulation"], wide=True)
        worst = training(m, 1, 1, longest, wide=True)[0]  # rows as long as they may be
        yield Stage("07", name, [engine, memory[0], *worst[1:]], time)
        length = PROMPT + v["max_new_tokens"]
        kept = f"{AT_ONCE} texts × {length:,} tokens × {m.cache(4) / 1e3:,.0f} kB"
        weights = f"4 B × {m.parameters / 1e6:,.0f} M parameters", 4 * m.parameters
        memory = [engine, weights, (kept, AT_ONCE * length * m.cache(4))]
        batches = seeds * arms * -(-tests // AT_ONCE)
        forward = KERNELS // 2
        formula = f"{batches} batches × {v['max_new_tokens']:,} tokens × {m.layers} layers × {forward} kernels × 10 µs"
        seconds = batches * v["max_new_tokens"] * m.layers * forward * LAUNCH
        yield Stage("07", f"{name} is examined", memory, (formula, seconds))


def stages() -> list[Stage]:
    """All of them, in order."""
    return [*language_models(values("06_language_models")), *reasoning(values("07_reasoning_traces"))]


def page() -> str:
    """docs/gpu-day.md."""
    found = stages()
    rows = []
    for stage in found:
        total = sum(size for _, size in stage.memory) / 1e9
        parts = " + ".join(formula for formula, _ in stage.memory)
        formula, seconds = stage.time
        rows.append(f"| {stage.notebook} | {stage.what} | {total:.0f} | {parts} | {seconds / 60:.0f} | {formula} |")
    hours = [sum(s.time[1] for s in found if s.notebook == n) / 3600 for n in ("06", "07")]
    assumed = {"trace": TRACE, "prompt": PROMPT, "language_models": hours[0], "reasoning": hours[1]}
    return TEXT.format(rows="\n".join(rows), **assumed)


TEXT = """\
# A GPU day on paper

What the language notebooks take at `gpu` on one card of 80 GB, computed and not measured:
`python -m workbench report --budget gpu --only 06 07`. `python tests/gpu_day.py` makes this page of
`notebooks/budgets.yaml`.

| | stage | GB | of which | minutes | computed as |
|---|---|--:|---|--:|---|
{rows}

Together {language_models:.1f} hours for 06, {reasoning:.1f} for 07.

- 18 B per parameter in training: weights, gradients and two moments of AdamW in float32, and autocast's bfloat16 copy.
  A model that labels or is examined stands in float32.
- A layer keeps 26 h + 8 (q + k + i) bytes per token: h wide, q of all query heads, k of keys, i inside.
- 06 never holds a step's logits; 07 does, at 18 B each with their gradients.
- An H100's sheet says 989 T/s in bfloat16, 67 in float32, 3.35 TB/s. Assumed: 40% of these operations, 60% of these
  bytes, 10 µs per kernel where models are small, {trace} tokens per text after a problem of {prompt}.
- Evaluations on validation are left out.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
