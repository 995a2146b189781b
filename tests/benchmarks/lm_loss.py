"""Time and memory of the fused losses, head only, against the matrix products alone, dense losses and TRL's own.

`python tests/benchmarks/lm_loss.py` (needs `pip install trl` for one arm). 1,016 tokens, V = 49,152, H = 576, fp32,
forward and backward. Memory is the peak of a fresh process for each arm; times are taken in turns in one process, and
a ratio is the median over the rounds of the ratio within a round. The last line is JSON.
"""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from lm_turns import Turns, options

from workbench.language.fused import Head, Hidden, TopK, fused_loss
from workbench.losses import cross_entropy, forward_kl

N, V, H, K = 1016, 49152, 576, 64


def make(vocabulary: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    data = {"hidden": draw(N, H), "weight": draw(vocabulary, H) * 0.1, "teacher_hidden": draw(N, H)}
    data["teacher_weight"] = data["weight"] + draw(vocabulary, H) * 0.01
    data["labels"] = torch.randint(vocabulary, (N,), generator=generator)
    data["ids"] = torch.rand(N, vocabulary // 512, generator=generator).argsort(-1)[:, :K] * 512
    data["log_probs"] = torch.log_softmax(draw(N, K + 1), -1)
    data["rows"] = torch.full((N,), 1 / N)
    data["hidden"].requires_grad_()
    data["weight"].requires_grad_()
    data["logits"], data["of_hidden"], data["of_weight"] = None, None, None
    return data


def products(d: dict) -> None:
    """The four that full-vocabulary KD can't do without, into arrays that are there already."""
    if d["logits"] is None:
        d["logits"] = torch.empty(2, N, len(d["weight"]))
        d["of_hidden"], d["of_weight"] = torch.empty(N, H), torch.empty(d["weight"].shape)
    h, w = d["hidden"].detach(), d["weight"].detach()
    torch.mm(h, w.t(), out=d["logits"][0])
    torch.mm(d["teacher_hidden"], d["teacher_weight"].t(), out=d["logits"][1])
    torch.mm(d["logits"][0], w, out=d["of_hidden"])
    torch.mm(d["logits"][0].t(), h, out=d["of_weight"])


def dense_kd(d: dict) -> None:
    teacher = d["teacher_hidden"] @ d["teacher_weight"].t()
    forward_kl(d["hidden"] @ d["weight"].t(), teacher).mean().backward()


def dense_ce(d: dict) -> None:
    cross_entropy(d["hidden"] @ d["weight"].t(), d["labels"]).mean().backward()


def fused_ce(d: dict) -> None:
    fused_loss(d["hidden"], Head(d["weight"]), labels=d["labels"], ce_weight=d["rows"])[0].backward()


def fused_kd(d: dict) -> None:
    target = Hidden(d["teacher_hidden"], Head(d["teacher_weight"]))
    fused_loss(d["hidden"], Head(d["weight"]), target=target, kd_weight=d["rows"])[0].backward()


def top_k(d: dict) -> None:
    target = TopK(d["ids"], d["log_probs"][:, :-1], d["log_probs"][:, -1])
    fused_loss(d["hidden"], Head(d["weight"]), target=target, kd_weight=d["rows"])[0].backward()


def trl(d: dict) -> None:
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    pair = (d["hidden"].unsqueeze(0), d["teacher_hidden"].unsqueeze(0), d["weight"], d["teacher_weight"])
    _chunked_divergence_loss(*pair, torch.ones(1, N, dtype=torch.long), beta=0.0)[0].backward()


def nothing(d: dict) -> None:
    """Weights and their gradients, which every arm holds."""
    d["weight"].grad, d["hidden"].grad = torch.ones_like(d["weight"]), torch.ones_like(d["hidden"])


ARMS = {f.__name__: f for f in (products, dense_ce, fused_ce, top_k, dense_kd, fused_kd, trl)}


def run(arm: str, d: dict) -> None:
    d["hidden"].grad = d["weight"].grad = None
    (ARMS | {"nothing": nothing})[arm](d)


def peak_kilobytes() -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def peak_megabytes(arm: str, vocabulary: int = V) -> float:
    command = [sys.executable, __file__, "--arm", arm, "--vocabulary", str(vocabulary)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--arm", help="used by the benchmark itself")
    parser.add_argument("--vocabulary", type=int, default=V)
    chosen = parser.parse_args()
    data = make(chosen.vocabulary)
    if chosen.arm:
        data.pop("logits")
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far, that of making the data, is forgotten
        before = peak_kilobytes()
        run(chosen.arm, data)
        print((peak_kilobytes() - before) / 1024)
        return
    memory = {arm: peak_megabytes(arm) for arm in ("nothing", *ARMS) if arm != "products"}
    double = {arm: peak_megabytes(arm, 2 * V) for arm in ("nothing", "fused_kd")}
    turns = Turns({arm: partial(run, arm, data) for arm in ARMS}, chosen)
    print({arm: [round(s, 2) for s in values] for arm, values in turns.seconds.items()})
    turns.report(
        fused_over_gemm=turns.ratio("fused_kd", "products"),
        fused_over_trl=turns.ratio("fused_kd", "trl"),
        memory_over_dense=round(memory["fused_kd"] / memory["dense_kd"], 3),
        topk_over_ce=turns.ratio("top_k", "dense_ce", "fused_ce"),
        peak_mb={arm: round(value) for arm, value in memory.items()},
        beyond_gradients_mb=round(memory["fused_kd"] - memory["nothing"]),
        beyond_gradients_mb_at_2v=round(double["fused_kd"] - double["nothing"]),
    )


if __name__ == "__main__":
    main()
