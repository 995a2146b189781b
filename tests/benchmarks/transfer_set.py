"""What a student learns from made-up transfer texts, on voice-commands with 5 labels a class.

`python tests/benchmarks/transfer_set.py`: one teacher (fine-tuned MiniLM), one student and its setting; only the
unlabelled texts differ: none, noisy copies of the labelled ones, texts that SmolLM2 writes, and the real ones. Held-out
texts are never among them. Everything is stored; a stopped run goes on. The last line is JSON.
"""

import json
import time
from dataclasses import replace

from workbench.language.texts import augmented, written
from workbench.soft_labels import soft_labels
from workbench.sweeps import jobs, results, run_all
from workbench.tasks import load_task
from workbench.teachers import load_teacher
from workbench.training import TrainConfig
from workbench.verdicts import arm_estimates, compare

SEEDS = range(5)
real = load_task("voice-commands", labels_per_class=5)
none = replace(real, unlabelled=real.unlabelled.select([]))
began = time.perf_counter()
by_model = written(none, per_class=32)
writing = time.perf_counter() - began
print(f"writing: {writing:.0f} s;", *by_model.unlabelled["text"][:5], sep="\n  ")
tasks = {"labelled texts only": none, "noisy copies": augmented(none), "written by SmolLM2": by_model, "real": real}

teacher = load_teacher("minilm-finetuned", real)
distilled = TrainConfig(steps=150, eval_every=75)
labels_only = replace(distilled, kd_weight=0.0, ce_weight=1.0)
todo = jobs({"labels only": labels_only}, none, None, SEEDS)
for arm, task in tasks.items():
    todo += jobs({arm: distilled}, task, soft_labels(teacher, task), SEEDS)
texts = list(real.test["text"])
found = results(run_all(todo, workers=1), real)
found = found.add({"teacher": soft_labels(teacher, real, texts=texts).logits(texts)})

declared = [("noisy copies", "labelled texts only"), ("written by SmolLM2", "labelled texts only")]
declared += [("written by SmolLM2", "noisy copies"), ("real", "written by SmolLM2")]
estimates = arm_estimates(found).set_index("arm")
verdicts = compare(found, declared)
print(estimates[["estimate", "low", "high"]].round(3))
print(verdicts[["arm", "baseline", "estimate", "low", "high", "verdict"]].round(3))
shares = {f"{v.arm} - {v.baseline}": [v.estimate, v.low, v.high, v.verdict] for v in verdicts.itertuples()}
result = {"accuracy": estimates["estimate"].round(4).to_dict(), "difference": shares, "writing_seconds": writing}
result["rows"] = {arm: len(task.unlabelled) for arm, task in tasks.items()}
print(json.dumps(result))
