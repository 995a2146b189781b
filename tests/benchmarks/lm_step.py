"""Time of a step of SmolLM2 cut to 8 layers: by cross-entropy, from stored labels, with the teacher in the loop.

`python tests/benchmarks/lm_step.py` (needs `pip install trl` for one arm; SmolLM2 is fetched the first time). A step
reads 8 blocks of 128 tokens, forward, backward and AdamW, fp32; labels are read from disk. Labelling is timed on 32
blocks. Arms take turns; a ratio is the median over the rounds of the ratio within a round. The last line is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from workbench.language.blocks import load_text
from workbench.language.causal import BATCH, load_language_model, prune_depth
from workbench.language.fused import Head
from workbench.language.labels import text_labels
from workbench.language.lessons import TextDistiller
from workbench.store import Store
from workbench.training import TrainConfig

BLOCKS, LENGTH, LAYERS, LABELLED = 8, 128, 8, 32


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--cpu-time", action="store_true", help="of this process: for one thread on a busy machine")
    options.add_argument("--layers", type=int, default=LAYERS)
    options = options.parse_args()
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        teacher = load_language_model("smollm2")
        limits = {"length": LENGTH, "max_blocks": LABELLED, "max_held_out": 1}
        more = load_text("python-docs", teacher.tokenizer, **limits, store=store)
        task = replace(more, train=more.train[:BLOCKS])
        ids = torch.from_numpy(np.asarray(task.train, dtype=np.int64))
        student = load_language_model(prune_depth(teacher, options.layers, task, blocks=2, store=store)).model.train()
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6, fused=True)
        labels = {kind: text_labels(teacher, task, kind, store=store) for kind in ("hidden", "top_k")}
        tokens = BLOCKS * (LENGTH - 1)

        def step(config: TrainConfig, kind: str | None = None) -> None:
            found = labels.get(kind)
            target = found.target(found.find_blocks(task.train)) if found else None
            TextDistiller(student, config)(ids, target, tokens)[0].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        def online() -> None:
            states = teacher.hidden(task.train)[:, :-1]
            hidden = student.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            heads = (Head.of(student).weight, teacher.head.weight)
            mask = torch.ones(hidden.shape[:2], dtype=torch.long)
            _chunked_divergence_loss(hidden, states, *heads, mask, beta=0.0)[0].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        turn = [0]

        def label_pass() -> None:
            turn[0] += 1
            ends = np.full((LABELLED, 1), turn[0], dtype=np.int32)  # never labelled before
            text_labels(teacher, replace(more, train=np.hstack([more.train[:, :-1], ends])), store=store)

        def forward() -> None:
            for start in range(0, LABELLED, BATCH):
                teacher.hidden(more.train[start : start + BATCH])

        kd = TrainConfig(temperature=1.0)
        arms = {
            "ce": lambda: step(replace(kd, kd_weight=0.0, ce_weight=1.0)),
            "hidden": lambda: step(kd, "hidden"),
            "top_k": lambda: step(kd, "top_k"),
            "online": online,
            "forward": forward,
            "label_pass": label_pass,
        }
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        clock = time.process_time if options.cpu_time else time.perf_counter
        for round_ in range(-1, options.rounds):
            for arm, run in arms.items():
                began = clock()
                run()
                if round_ >= 0:
                    seconds[arm].append(clock() - began)

        def ratio(arm: str, over: str) -> float:
            return round(statistics.median(a / b for a, b in zip(seconds[arm], seconds[over], strict=True)), 3)

        width = teacher.model.config.hidden_size
        result = {
            "hidden_over_ce": ratio("hidden", "ce"),
            "hidden_over_online": ratio("hidden", "online"),
            "topk_over_ce": ratio("top_k", "ce"),
            "label_pass_over_forward": ratio("label_pass", "forward"),
            "bytes_over_2h": round(labels["hidden"].bytes_per_token / (2 * width), 4),
            "seconds": {arm: round(statistics.median(values), 3) for arm, values in seconds.items()},
            "layers": options.layers,
            "threads": torch.get_num_threads(),
            "clock": "cpu" if options.cpu_time else "wall",
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
