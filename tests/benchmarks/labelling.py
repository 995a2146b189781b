"""What sorting texts by length saves a teacher: `reading.predict` against padded batches in arrival order.

Run it on an idle machine: `python tests/benchmarks/labelling.py`. It labels a part of voice-commands' transfer set with
MiniLM (untrained head: speed does not depend on it), both ways in turns on one thread. The last line is JSON.
"""

import json
import os
import platform
import random

import numpy as np
import torch

from workbench import reading, students
from workbench.speed import measure
from workbench.tasks import load_task

ROWS, SIZE = 512, 64

torch.set_num_threads(1)
torch.manual_seed(0)
task = load_task("voice-commands")
model, tokenizer = students.build("minilm", task.label_names, [])
texts = random.Random(0).sample(task.transfer_texts, ROWS)


@torch.inference_mode()
def padded(texts: list[str]) -> np.ndarray:
    """As it is often written: batches as texts arrive, each padded to its longest."""
    model.eval()
    logits = []
    for start in range(0, len(texts), SIZE):
        ids, mask = reading.pad(reading.encode(tokenizer, texts[start : start + SIZE]), tokenizer.pad_token_id)
        logits.append(model(input_ids=ids, attention_mask=mask).logits.float().numpy())
    return np.concatenate(logits)


def bucketed(texts: list[str]) -> np.ndarray:
    return reading.predict(model, tokenizer, texts, SIZE)


np.testing.assert_allclose(bucketed(texts), padded(texts), atol=1e-4)
lengths = np.array([len(row) for row in reading.encode(tokenizer, texts)])
arrival = sum(len(part) * part.max() for part in np.split(lengths, range(SIZE, ROWS, SIZE)))
by_length = sum(len(part) * part.max() for part in np.split(np.sort(lengths), range(SIZE, ROWS, SIZE)))
table = measure({"padded": padded, "bucketed": bucketed}, texts, repeats=5, batch_size=ROWS, reference="padded")
print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread, {ROWS} texts")
print(f"tokens: {lengths.sum()} of text, {arrival} padded as they arrive, {by_length} padded by length")
print(table.round(3))
row = table.loc["bucketed"]
result = {
    "bucketed_over_padded": 1 / row["throughput_ratio"],
    "interval": [1 / row["throughput_ratio_high"], 1 / row["throughput_ratio_low"]],
    "tokens_over_padded": float(by_length / arrival),
    "rows_per_second": dict(table["rows_per_second"]),
}
print(json.dumps(result))
