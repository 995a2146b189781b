"""The default student through ONNX Runtime, fp32 and int8, against its PyTorch self: speed, accuracy, footprint.

Run it on an idle machine: `python tests/benchmarks/onnx_student.py`. The student learns from all labels of
voice-commands (seconds). The ratio at 64 texts is taken twice, to show that the harness repeats itself. The last line
is JSON. What keeps int8 near twice eager at 64 texts: the tokenizer, which it can't speed up, and a CPU without VNNI
instructions, on which 8-bit products are little faster than fp32 ones; on single texts eager's overhead is what counts.
"""

import json
import os
import platform
import random
from pathlib import Path

import pandas as pd
import torch

from workbench.publish.onnx import FILES, OnnxClassifier, to_onnx
from workbench.reading import predict
from workbench.speed import footprint, measure
from workbench.students import load
from workbench.tasks import load_task
from workbench.training import Job, TrainConfig, find_run, train

task = load_task("voice-commands", labels_per_class=None)
config = TrainConfig(kd_weight=0.0, ce_weight=1.0)
for _ in train(Job(task, None, config)):
    pass
folder = find_run(Job(task, None, config)).path
exported = to_onnx(folder, task.test["text"][:], task.test["label"][:])
student = load(folder)
texts = random.Random(0).sample(task.test["text"][:], len(task.test))
flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
vnni = "vnni" in flags
print(f"{platform.machine()}, {os.cpu_count()} cores, VNNI: {vnni}, torch {torch.__version__}, {config.student}")
for name, check in exported.record["checks"].items():
    print(name, check)

result = {"vnni": vnni, "checks": exported.record["checks"]}
for threads in (1, 2):
    torch.set_num_threads(threads)
    arms = {"eager": lambda texts: predict(*student, texts)}
    arms |= {name: OnnxClassifier(exported.path / file, threads).logits for name, file in FILES.items()}
    arms["tokenizer only"] = OnnxClassifier(exported.path / FILES["fp32"]).tokenizer.encode_batch_fast
    tables = [measure(arms, texts, repeats=100, reference="eager") for _ in range(2)]
    print(f"\n{threads} thread(s)\n{tables[0].T.round(2)}")
    for name in (*FILES, "tokenizer only"):
        rows = [table.loc[name] for table in tables]
        result[f"{name}_{threads}_threads"] = {
            "throughput_over_eager": [row["throughput_ratio"] for row in rows],
            "interval": [[row["throughput_ratio_low"], row["throughput_ratio_high"]] for row in rows],
            "latency_over_eager": [row["latency_ratio"] for row in rows],
            "rows_per_second": rows[0]["rows_per_second"],
            "p50_ms": rows[0]["p50_ms"],
        }

torch.set_num_threads(1)
arms = {"eager": lambda texts: predict(*student, texts)}
arms |= {name: OnnxClassifier(exported.path / file).logits for name, file in FILES.items()}
faster = {}
for words in (4, 16, 64):
    cut = [" ".join((text.split() * words)[:words]) for text in texts]
    for size in (1, 8, 64, 256):
        timed = measure(arms, cut, batch_size=size, repeats=15, reference="eager")
        faster[words, size] = timed.loc[list(FILES), "throughput_ratio"]
print("\ntimes as fast as eager, one thread, by words and texts in a call")
print(pd.DataFrame(faster).T.round(2))
paths = {"eager": folder} | {name: exported.path / file for name, file in FILES.items()}
print("\n", cost := footprint(paths, texts[:64]))
print(json.dumps(result | {"footprint": cost.to_dict("index")}))
