"""Transfer texts where there are none: the labelled texts made noisy, or new ones that a language model writes.

Both return the task with another ``unlabelled`` split. The teacher labels what it finds there, so a written text needs
no right label; what counts is that it looks like the texts to come. `tests/benchmarks/transfer_set.py` measures it.
Next to read: `workbench.soft_labels`, where the teacher labels them.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench import weights
from workbench.errors import SEED, WorkbenchError, number, whole
from workbench.language.causal import Sampling, default_device, generate, load_causal
from workbench.losses import check_temperature
from workbench.store import Store, code_fingerprint
from workbench.students import source_fingerprint
from workbench.tasks import SPLITS, Task

LETTERS = "abcdefghijklmnopqrstuvwxyz"
AT_ONCE = 32  # texts that a language model writes side by side
WRITING = Sampling(max_new_tokens=24)


def _copy(text: str, rate: float, rng: random.Random) -> str:
    """`text` with each word, at `rate`, dropped, swapped with the next one or mistyped (a third each); one word stays.

    Not `workbench.noise.noisy`: that one hits the same words at every rate, for comparing rates; this one draws copy
    after copy, and what data/README.md says was measured on its draws.
    """
    words, out, i = text.split(), [], 0
    while i < len(words):
        kind = rng.choice(("drop", "swap", "typo")) if rng.random() < rate else "keep"
        if kind == "swap" and i + 1 < len(words):
            out += [words[i + 1], words[i]]
            i += 1
        elif kind in ("typo", "swap"):
            out.append(_mistyped(words[i], rng))
        elif kind == "keep":
            out.append(words[i])
        i += 1
    return " ".join(out or words[:1])


def _mistyped(word: str, rng: random.Random) -> str:
    """One letter dropped, doubled, replaced or swapped."""
    at = rng.randrange(len(word))
    here, rest = word[at], word[at + 1 :]
    made = {"drop": rest, "double": here + here + rest, "replace": rng.choice(LETTERS) + rest}
    made["swap"] = rest[:1] + here + rest[1:]
    return word[:at] + made[rng.choice(sorted(made))] or word


def augmented(task: Task, *, copies: int = 20, rate: float = 0.2, seed: int = 0) -> Task:
    """`task` with noisy copies of its labelled texts for unlabelled ones: words dropped, swapped and mistyped.

    Args:
        task: only its labelled texts are read; its unlabelled ones are replaced.
        copies: tries a text; what is equal to another text is dropped.
        rate: share of the words that are hit, above 0.
        seed: of the noise.
    """
    copies, rate = whole("copies", copies, 1, 10_000), number("rate", rate, above=0, most=1)
    seed = SEED.check("seed", seed)
    rng = random.Random(f"noise {seed}")
    made = [_copy(text, rate, rng) for text in task.labelled["text"] for _ in range(copies)]
    return with_texts(task, made, f"transfer set: its labelled texts made noisy ({copies} copies, rate {rate})")


def written(
    task: Task,
    model: str = "SmolLM2-135M-Instruct",
    *,
    per_class: int = 50,
    examples: int = 5,
    how: Sampling = WRITING,
    store: Store | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Task:
    """`task` with texts that a language model writes for unlabelled ones.

    The prompt is a list of `examples` labelled texts of a class under its name, and the model goes on with it: any
    causal model can, tuned for instructions or not. What is equal to another text or to a held-out one is dropped.
    Each class's texts are stored when they are written: a stopped call goes on there.

    Args:
        task: only its labelled texts and class names are shown; its unlabelled texts are replaced.
        model: a name in `workbench.weights.WEIGHTS`, a path or a hub name of a causal language model.
        per_class: texts sampled a class, rounded up to `AT_ONCE`; duplicates count, so fewer stay.
        examples: labelled texts in a prompt, drawn anew for each `AT_ONCE` texts.
        how: temperature above 0, the tokens by which a text must have ended, the seed of examples and draws; sampled
            from the 50 likeliest tokens (arXiv:1805.04833). A text ends with its line, or before one of `stop`.
        store: where the texts go.
        progress: called with (classes done, classes) after each class.

    Raises:
        WorkbenchError: no such model, temperature 0, or a class without a labelled text.
    """
    store, model = store or Store(), weights.named(model)
    per_class, examples = whole("per_class", per_class, 1, 1_000_000), whole("examples", examples, 1, 10_000)
    how = replace(how, stop=("\n", *how.stop))
    check_temperature(how.temperature)  # 0 would write the same text over and over
    source = weights.path(model) if model in weights.WEIGHTS else model
    inputs = {
        "model": source_fingerprint(source),
        "sampling": [per_class, examples, how],
        "code": code_fingerprint("language.texts:written"),
        "device": default_device(),
        "torch": torch.__version__,
    }
    texts = []

    @cache  # loaded only where a class is still to be written
    def loaded() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = load_causal(source)
        return model.to("cuda", torch.bfloat16) if default_device() == "cuda" else model, tokenizer

    for label, name in enumerate(task.label_names):
        shown = [t for t, of in zip(task.labelled["text"], task.labelled["label"], strict=True) if of == label]
        if not shown:
            raise WorkbenchError(f"Class {name!r} has no labelled text to show the language model: label one.")

        def build(folder: Path, name: str = name, shown: list[str] = shown, label: int = label) -> dict:
            rng, made = random.Random(f"written {how.seed} {label}"), []
            while len(made) < per_class:
                drawn = rng.sample(shown, min(examples, len(shown)))
                prompt = "\n".join([f'Different ways to say "{name}":', *(f"- {text}" for text in drawn), "-"])
                made += _continue(*loaded(), prompt, replace(how, seed=rng.randrange(2**31)))
            (folder / "texts.json").write_text(json.dumps(made), encoding="utf-8")
            return {"model": model, "rows": len(made)}

        entry = store.make("written", {**inputs, "class": name, "label": label, "shown": shown}, build)
        texts += json.loads((entry.path / "texts.json").read_text(encoding="utf-8"))
        if progress:
            progress(label + 1, len(task.label_names))
    return with_texts(task, texts, f"transfer set: written by {model}")


@torch.inference_mode()
def _continue(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, how: Sampling) -> list[str]:
    """The next item of a list, `AT_ONCE` times; "" where it did not end."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
    read = model(input_ids=ids[:, :-1], use_cache=True).past_key_values  # once: it is longer than what follows
    read.batch_repeat_interleave(AT_ONCE)
    ids = ids.repeat(AT_ONCE, 1)
    options = {"past_key_values": read, "top_k": 50, "top_p": model.generation_config.top_p}
    out = generate(model, tokenizer, ids, torch.ones_like(ids), how, **options)
    tails = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() if ended else "" for text, ended in map(how.cut, tails)]


def with_texts(task: Task, texts: list[str], how: str) -> Task:
    """`task` with `texts` for unlabelled ones: each once, and none that is labelled or held out."""
    others = {_plain(text) for split in SPLITS if split != "unlabelled" for text in getattr(task, split)["text"]}
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(_plain(text), text)
    kept = [text for plain, text in first.items() if plain and plain not in others]
    rows = {"text": kept, "label": [-1] * len(kept), "group": [f"made {i}" for i in range(len(kept))]}
    unlabelled = Dataset.from_dict(rows, features=task.labelled.features)
    return replace(task, unlabelled=unlabelled, source=f"{task.source}; {how}")


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
