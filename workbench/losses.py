"""Distillation losses as pure functions of logits.

Every divergence takes student and teacher logits ``[N, C]`` and returns one value a row, ``[N]``, in nats: no mean,
no mask, no T². What rows count, what they are divided by and the T² convention are decided in `combine` alone.
The gradient flows to the student only.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import WorkbenchError, unknown

Divergence = Callable[[Tensor, Tensor, float], Tensor]


def check_temperature(temperature: float) -> None:
    """Raise unless `temperature` is finite and > 0."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise WorkbenchError(f"temperature is {temperature}: give a finite number above 0 (1 changes nothing).")


def _check(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> None:
    check_temperature(temperature)
    if student_logits.shape != teacher_logits.shape:
        raise WorkbenchError(
            f"Student logits are {tuple(student_logits.shape)}, teacher logits {tuple(teacher_logits.shape)}: "
            "both must be [rows, classes] over the same rows and classes."
        )


def _log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    # fp32 at least, and log_softmax, never log(softmax): small probabilities carry the dark knowledge.
    return F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature, dim=-1)


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) of the tempered distributions, ``[N]``, ≥ 0 (Hinton et al., arXiv:1503.02531).

    Args:
        student_logits: ``[N, C]``.
        teacher_logits: ``[N, C]``; treated as constant.
        temperature: > 0; above 1 softens both distributions.

    Raises:
        WorkbenchError: temperature ≤ 0, or shapes that differ.
    """
    _check(student_logits, teacher_logits, temperature)
    log_p = _log_probabilities(teacher_logits.detach(), temperature)
    log_q = _log_probabilities(student_logits, temperature)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def hard_labels(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy to the teacher's most likely class, ``[N]``: pseudo-labels, the rival of soft labels.

    `temperature` is accepted, so that it can stand wherever a divergence does, and plays no part.
    """
    _check(student_logits, teacher_logits, temperature)
    return cross_entropy(student_logits, teacher_logits.argmax(-1))


def cross_entropy(student_logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy to integer labels, ``[N]``; rows with a label below 0 get 0.

    Args:
        student_logits: ``[N, C]``.
        labels: ``[N]``, a class index, or -1 where the label is unknown.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1) (arXiv:1512.00567).
    """
    log_q = _log_probabilities(student_logits, 1.0)
    target = -log_q.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    values = (1 - label_smoothing) * target - label_smoothing * log_q.mean(-1)
    return values * (labels >= 0)


# loss name -> (function, power of T that keeps its gradient's size when T changes)
LOSSES: dict[str, tuple[Divergence, int]] = {
    "forward_kl": (forward_kl, 2),
    "hard_labels": (hard_labels, 0),
}


def divergence(name: str) -> tuple[Divergence, int]:
    """The function of that name and its temperature power; raises naming the nearest one."""
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return LOSSES[name]


def combine(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    *,
    loss: str = "forward_kl",
    temperature: float = 1.0,
    kd_weight: float = 1.0,
    ce_weight: float = 0.0,
    label_smoothing: float = 0.0,
    scale_by_temperature: bool = True,
    labelled_rows: int | None = None,
    rows: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``ce_weight · CE + kd_weight · T² · KD``, with each term's own denominator.

    CE is a mean over labelled rows, KD over all rows. Where a step is split into micro-batches, give the counts of the
    **whole step**: the sum over micro-batches is then the loss of the step, however it was split.

    Args:
        student_logits: ``[N, C]``.
        teacher_logits: ``[N, C]``, or None when kd_weight is 0.
        labels: ``[N]``, -1 where unknown.
        loss: a name in `LOSSES`.
        temperature: > 0.
        kd_weight: ≥ 0.
        ce_weight: ≥ 0.
        label_smoothing: in [0, 1); applies to CE.
        scale_by_temperature: multiply KD by T² (each loss by the power that keeps its gradient's size), so that a
            sweep over T is not a sweep over the learning rate. torchdistill, DistillKit and sentence-transformers do
            this; TRL, ms-swift and TextBrewer don't.
        labelled_rows: denominator of CE; counted from `labels` if None.
        rows: denominator of KD; N if None.

    Returns:
        (total, ce, kd): scalars; ce and kd are unweighted and without T².
    """
    function, power = divergence(loss)
    rows = len(labels) if rows is None else rows
    labelled_rows = int((labels >= 0).sum()) if labelled_rows is None else labelled_rows
    zero = student_logits.sum() * 0.0  # keeps a graph where a micro-batch has no row that counts
    ce = kd = zero
    if ce_weight and labelled_rows:
        ce = cross_entropy(student_logits, labels, label_smoothing).sum() / labelled_rows
    if kd_weight:
        if teacher_logits is None:
            raise WorkbenchError(f"kd_weight is {kd_weight} but there are no soft labels: give some or set it to 0.")
        kd = function(student_logits, teacher_logits, temperature).sum() / rows
    scale = temperature**power if scale_by_temperature else 1.0
    return ce_weight * ce + kd_weight * scale * kd, ce, kd
