"""A student with a tokenizer of its own: what byte prefixes give it, against ULD, the teacher's text and cross-entropy.

`python tests/benchmarks/any_tokenizer.py` (minutes on one core; SmolLM2 is fetched for the labelling speed); `--seeds 1
--steps 60` for a look whether it runs. A teacher
of 1,024 byte pairs reads all of Python's documentation; students of 512 byte pairs, and one of the teacher's own, read
the same few blocks of it. Judged in nats a byte on held-out topics, which flatters no tokenizer; every arm takes the
same steps and the weights of its best look at the validation topics. `halfway` is the share of the way from ULD's
student to the one with the teacher's tokenizer. The last line is JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from workbench import language
from workbench.language.blocks import TextTask, load_text, pack
from workbench.language.causal import LanguageModel, build_causal, evaluate, load_language_model
from workbench.language.labels import text_labels
from workbench.language.prefixes import token_bytes
from workbench.store import Store
from workbench.sweeps import jobs
from workbench.training import Batches, Job, TrainConfig, find_run, train

LENGTH, BLOCKS, HELD_OUT = 64, 96, 100
BASE = TrainConfig(
    student="llama-2x64", temperature=1.0, steps=300, batch_size=16, learning_rate=4e-3, max_length=LENGTH,
    eval_every=20, log_every=20, keep="best",
)  # fmt: skip


def per_byte(model: LanguageModel, task: TextTask) -> float:
    """Nats a byte of the test topics."""
    sizes = np.array([len(piece) for piece in token_bytes(model.tokenizer)])
    nats = evaluate(model, task.test)["nll"].to_numpy() * (task.length - 1)
    return float(nats.sum() / sizes[np.asarray(task.test)[:, 1:]].sum())


def uld(student: Tensor, teacher: Tensor) -> Tensor:
    """Of logits ``[N, V]`` and ``[N, W]``: how sorted probabilities differ, a mean over N (arXiv:2402.12030)."""
    p, q = (z.softmax(-1).sort(descending=True).values for z in (teacher, student))
    width = max(p.shape[1], q.shape[1])
    p, q = (nn.functional.pad(x, (0, width - x.shape[1])) for x in (p, q))
    return (p - q).abs().sum(-1).mean()


def by_uld(start: Path, teacher: LanguageModel, texts: Sequence[str], task: TextTask, config: TrainConfig) -> float:
    """Cross-entropy + 1.5 ULD, place by place as in the paper; nats a byte of the best look."""
    torch.manual_seed(config.seed)
    model = load_language_model(start)
    student, batches = model.model.train(), Batches(len(task.train), len(task.train), config)
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    warm = config.warmup * config.steps
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / warm, (config.steps - n) / (config.steps - warm))
    )
    told = [teacher.logits(np.array([teacher.tokenizer(text)["input_ids"]]))[0] for text in texts]
    best, score = None, np.inf
    for step in range(config.steps):
        loss = torch.zeros(())
        for row in batches.rows(step):
            ids = torch.from_numpy(task.train[row].astype(np.int64))
            logits, expected = student(input_ids=ids[None]).logits[0, :-1], told[row]
            n = min(len(logits), len(expected))
            ce = nn.functional.cross_entropy(logits, ids[1:])
            loss = loss + (ce + 1.5 * uld(logits[:n], expected[:n])) / config.batch_size
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), config.max_grad_norm)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        if (step + 1) % config.eval_every == 0:
            student.eval()
            if (found := evaluate(model, task.validation)["nll"].mean()) < score:
                best, score = {k: v.clone() for k, v in student.state_dict().items()}, found
            student.train()
    student.load_state_dict(best)
    student.eval()
    return per_byte(model, task)


def made(job: Job, store: Store) -> LanguageModel:
    """The student of a job."""
    for _ in train(job, store=store):
        pass
    return load_language_model(find_run(job, store).path)


def blank(spec: str, tokenizer, folder: Path, seed: int = 0) -> Path:
    """A new model of a tokenizer's, saved."""
    torch.manual_seed(seed)
    model, _ = build_causal(spec, max_length=LENGTH)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    nn.init.normal_(model.get_input_embeddings().weight, std=model.config.initializer_range)
    model.config.update({"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def speed(own, store: Store, blocks: int = 8) -> float:
    """Labelling by byte prefixes over labelling in SmolLM2's own tokens, the same bytes: the ratio of their speeds."""
    teacher = load_language_model("smollm2")
    seconds = {}
    for kind, tokenizer in {"top_k": teacher.tokenizer, "prefix": own}.items():
        task = load_text("python-docs", tokenizer, length=128, max_blocks=blocks, max_held_out=1, store=store)
        size = sum(len(token_bytes(tokenizer)[i]) for i in np.asarray(task.train).flatten())
        options = {"tokenizer": own} if kind == "prefix" else {}
        text_labels(teacher, replace(task, train=task.train[:1]), kind, store=store, **options)
        began = time.process_time()
        text_labels(teacher, replace(task, train=task.train[1:]), kind, store=store, **options)
        seconds[kind] = (time.process_time() - began) / size
    return seconds["top_k"] / seconds["prefix"]


def main() -> None:
    sys.path.append(str(Path(language.__file__).parents[2] / "tests"))
    from test_prefixes import learnt  # a tokenizer of bytes

    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=BASE.steps)
    options = parser.parse_args()
    base = replace(BASE, steps=options.steps, eval_every=max(1, options.steps // 15))
    by_text = replace(base, kd_weight=0.0, ce_weight=1.0)
    torch.set_num_threads(1)
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        folder, store = Path(folder), Store(Path(folder) / "store")
        characters = build_causal("llama-1x32")[1]
        text = "".join(characters.batch_decode(load_text("python-docs", characters, length=128, store=store).train))
        theirs, own = learnt([text], 1024), learnt([text], 512)
        limits = {"length": LENGTH, "max_held_out": HELD_OUT, "store": store}
        all_text, task = (load_text("python-docs", t, **limits) for t in (theirs, own))
        task = replace(task, train=task.train[:: len(task.train) // BLOCKS][:BLOCKS])
        texts = own.batch_decode(task.train)
        same = replace(all_text, train=pack("\n\n".join(texts), theirs, LENGTH))
        reads = replace(by_text, student=str(blank("llama-3x128", theirs, folder / "teacher")), batch_size=32)
        teacher = replace(made(Job(all_text, None, reads), store), name="teacher")
        found = {"teacher": [per_byte(teacher, all_text)]}
        wrote = [text_labels(teacher, same, "text", seed=s, store=store).as_task(same).train for s in (0, 1)]
        by_it = "\n\n".join(theirs.batch_decode(np.concatenate(wrote)[:, LENGTH // 2 :]))
        arms = {
            "cross-entropy": (by_text, task, None),
            "teacher's text": (by_text, replace(task, train=pack(by_it, own, LENGTH)), None),
            "byte prefixes": (base, task, text_labels(teacher, task, "prefix", tokenizer=own, store=store)),
            "same tokenizer": (
                replace(base, batch_size=round(16 * len(same.train) / len(task.train))),
                same,
                text_labels(teacher, same, store=store),
            ),
        }
        for seed in range(options.seeds):
            for arm, (config, rows, labels) in arms.items():
                tokenizer = theirs if arm == "same tokenizer" else own
                start = blank("llama-2x64", tokenizer, folder / f"{arm} {seed}", seed)
                (job,) = jobs({arm: replace(config, student=str(start))}, rows, labels, [seed])
                found.setdefault(arm, []).append(per_byte(made(job, store), rows))
            start = folder / f"cross-entropy {seed}"
            of_uld = by_uld(start, teacher, texts, task, replace(base, seed=seed))
            found.setdefault("ULD", []).append(of_uld)
            print({arm: [round(x, 4) for x in values] for arm, values in found.items()}, flush=True)
        means = {arm: float(np.mean(values)) for arm, values in found.items()}
        halfway = (means["ULD"] - means["byte prefixes"]) / (means["ULD"] - means["same tokenizer"])
        seconds = round(time.perf_counter() - began)
        ratio = speed(own, store)
        print(json.dumps({"nats_a_byte": means, "halfway": halfway, "labelling_speed": ratio, "seconds": seconds}))


if __name__ == "__main__":
    main()
