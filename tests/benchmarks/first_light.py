"""How much smaller and faster the default student is than its fine-tuned teacher, on voice-commands.

Run it on an idle machine: `python tests/benchmarks/first_light.py`. The teacher comes from the store or is made
(minutes). The student is trained for 20 steps only: speed does not depend on training. The last line is JSON.
"""

import json
import os
import platform
import random

import pandas as pd
import torch

from workbench.reading import describe, predict
from workbench.soft_labels import soft_labels
from workbench.speed import measure
from workbench.students import load
from workbench.tasks import load_task
from workbench.teachers import load_teacher
from workbench.training import Job, TrainConfig, find_run, train

task = load_task("voice-commands")
teacher = load_teacher("minilm-finetuned", task)
labels = soft_labels(teacher, task)
config = TrainConfig(steps=20)
for _ in train(Job(task, labels, config)):
    pass
student, tokenizer = load(find_run(Job(task, labels, config)).path)

models = {"teacher": (teacher.model, teacher.tokenizer), "student": (student, tokenizer)}
arms = {name: lambda texts, pair=pair: predict(*pair, texts) for name, pair in models.items()}
texts = random.Random(0).sample(list(task.test["text"]), len(task.test))
sizes = pd.DataFrame({name: describe(*pair, texts) for name, pair in models.items()}).T
print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {config.student}")
print(sizes)

speeds = {}
for threads in (1, 2):
    torch.set_num_threads(threads)
    table = measure(arms, texts)
    print(f"\n{threads} thread(s)\n{table.round(2)}")
    speeds[f"{threads}_threads"] = {
        "throughput_ratio": table["rows_per_second"]["student"] / table["rows_per_second"]["teacher"],
        "latency_p50_ratio": table["p50_ms"]["teacher"] / table["p50_ms"]["student"],
        "latency_p50_ms": dict(table["p50_ms"]),
        "rows_per_second": dict(table["rows_per_second"]),
    }
result = {"bytes_ratio": float(sizes["bytes"]["teacher"] / sizes["bytes"]["student"]), **speeds}
print(json.dumps(result))
