"""How far a student is from what it could be after so many steps, on tasks of other sizes: the rule for `steps`.

`python tests/benchmarks/steps.py [--seeds 1]`: for voice-commands and the tasks of `made_tasks`, the default student
learns from one teacher's soft labels for 150, 300, … steps; score and agreement are on validation, which chooses
nothing else. One-thread processes, one a core; what was made is found. The last line is JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path

import made_tasks
import numpy as np
import pandas as pd

from workbench.soft_labels import soft_labels
from workbench.sweeps import jobs, run_all
from workbench.tasks import load_task
from workbench.teachers import BagOfWords, load_teacher
from workbench.training import TrainConfig

STEPS = (150, 300, 600, 1200, 2400, 4800)
RATES = (4e-3, 2e-3)

options = argparse.ArgumentParser()
options.add_argument("--seeds", type=int, default=1)
options.add_argument("--only", nargs="+", default=[])
seeds = range(options.parse_args().seeds)
chosen = options.parse_args().only
rows = []
with tempfile.TemporaryDirectory() as folder:
    named = {"voice-commands": "voice-commands"}
    named |= {name: f"csv:{path}" for name, path in made_tasks.write(Path(folder)).items()}
    for name, source in named.items():
        if chosen and name not in chosen:
            continue
        task = load_task(source, labels_per_class=20)
        # A bag of words where asking a network for each text would take longer than training.
        large = sum(map(len, task.transfer_texts)) > 1_000_000
        teacher = BagOfWords(task) if large else load_teacher("minilm-frozen", task)
        labels = soft_labels(teacher, task)
        texts = list(task.validation["text"])
        said = soft_labels(teacher, task, texts=texts).logits(texts).argmax(-1)
        arms = {
            f"{rate:g}": [TrainConfig(steps=n, eval_every=n, learning_rate=rate, keep="last") for n in STEPS]
            for rate in RATES
        }
        for made in run_all(jobs(arms, task, labels, seeds)).itertuples():
            rows.append({
                "task": name, "classes": len(task.label_names), "rows": len(task.transfer_texts),
                "rate": made.learning_rate, "steps": made.steps, "seconds": made.train_seconds,
                "accuracy": made.run.metrics["validation.balanced_accuracy"],
                "agreement": np.mean(made.run.logits("validation").argmax(-1) == said),
            })  # fmt: skip
        cells = pd.DataFrame(rows).groupby(["task", "classes", "rows", "rate", "steps"]).mean()
        print(cells.loc[[name]].unstack("steps").round(3).T.to_string(), flush=True)
print(json.dumps(cells.round(4).reset_index().to_dict("records")))
