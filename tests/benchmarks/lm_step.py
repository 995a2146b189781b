"""Time of a step of SmolLM2 cut to 8 layers: by cross-entropy, from stored labels, with the teacher in the loop.

`python tests/benchmarks/lm_step.py` (needs `pip install trl` for one arm; SmolLM2 is fetched the first time). A step
reads 8 blocks of 128 tokens, forward, backward and AdamW, fp32; labels are read from disk. Labelling is timed on 32
blocks. Arms take turns; a ratio is the median over the rounds of the ratio within a round. The last line is JSON.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lm_turns import Turns, options

from workbench.language.blocks import load_text
from workbench.language.causal import BATCH, load_language_model, prune_depth
from workbench.language.fused import Head
from workbench.language.labels import text_labels
from workbench.language.lessons import TextDistiller
from workbench.store import Store
from workbench.training import TrainConfig

BLOCKS, LENGTH, LAYERS, LABELLED = 8, 128, 8, 32


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    chosen = parser.parse_args()
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        teacher = load_language_model("smollm2")
        limits = {"length": LENGTH, "max_blocks": LABELLED, "max_held_out": 1}
        more = load_text("python-docs", teacher.tokenizer, **limits, store=store)
        task = replace(more, train=more.train[:BLOCKS])
        ids = torch.from_numpy(np.asarray(task.train, dtype=np.int64))
        student = load_language_model(prune_depth(teacher, chosen.layers, task, blocks=2, store=store)).model.train()
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
        turns = Turns(arms, chosen)
        turns.report(
            hidden_over_ce=turns.ratio("hidden", "ce"),
            hidden_over_online=turns.ratio("hidden", "online"),
            topk_over_ce=turns.ratio("top_k", "ce"),
            label_pass_over_forward=turns.ratio("label_pass", "forward"),
            bytes_over_2h=round(labels["hidden"].bytes_per_token / (2 * teacher.model.config.hidden_size), 4),
            layers=chosen.layers,
        )


if __name__ == "__main__":
    main()
