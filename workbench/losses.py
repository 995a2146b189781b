"""Distillation losses as pure functions of logits.

Every loss takes student and teacher logits ``[N, C]`` and returns one value a row, ``[N]``, in nats: no mean, no mask,
no T². What rows count, what they are divided by and the power of T are decided in `combine` alone. The gradient flows
to the student only. With p the teacher's and q the student's tempered probabilities:

| loss            | options                  | T power | zero | swaps | splits | at most          |
|-----------------|--------------------------|---------|------|-------|--------|------------------|
| forward_kl      |                          | 2       | yes  | no    | yes    |                  |
| reverse_kl      |                          | 2       | yes  | no    | yes    |                  |
| jsd             | beta, normalise          | 2       | yes  | yes   | yes    | log 2            |
| tvd             |                          | 1       | yes  | yes   | yes    | 1                |
| skew_kl         | alpha                    | 2       | yes  | no    | yes    | -log alpha       |
| skew_reverse_kl | alpha                    | 2       | yes  | no    | yes    | -log alpha       |
| dkd             | alpha, beta              | 2       | yes  | no    | yes    |                  |
| dist            | beta, gamma, tau_squared | 0       | yes  | yes   | no     | 2 beta + 2 gamma |
| hard_labels     |                          | 0       | no   | no    | yes    |                  |

T power: the factor T^power keeps the gradient's size when T changes. zero: 0 and flat where student = teacher. swaps:
unchanged when student and teacher change places (jsd: at its default beta = 0.5). splits: a row's value depends on no
other row, so micro-batches add up to the step. at most: the largest value. All of them: the gradient is the derivative
(tvd has a kink at p = q); rows permute; a constant added to a row's logits changes nothing; no gradient reaches the
teacher; half precision is computed in float32. All but hard_labels also take ``standardise``. tests/test_losses.py
checks every cell. Then read `combine`; `describe` says the same in the terms of other tools.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import TEMPERATURE, Choice, Number, Switch, WorkbenchError, setting, settle, shown, unknown, whole

Options = Mapping[str, float | bool]
WEIGHT = Number(0, 1e6)  # of a term
SHARE = Number(least=0, below=1)


def check_temperature(temperature: float, or_zero: bool = False) -> float:
    """`temperature` as a float in `errors.TEMPERATURE`, or 0 where that stands for the likeliest; else raises."""
    if or_zero and not (temperature := Number(0, TEMPERATURE.most).check("temperature", temperature)):
        return temperature
    return TEMPERATURE.check("temperature", temperature)


def _in_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))  # or better


def _log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    # log_softmax, never log(softmax): small probabilities carry the dark knowledge.
    return F.log_softmax(_in_float32(logits) / temperature, dim=-1)


def _check(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> None:
    check_temperature(temperature)
    for name, logits in (("Student", student_logits), ("Teacher", teacher_logits)):
        if not isinstance(logits, Tensor) or logits.ndim < 1:
            raise WorkbenchError(f"{name} logits are {shown(logits)}: give a tensor [rows, classes].")
    if student_logits.shape != teacher_logits.shape:
        raise WorkbenchError(
            f"Student logits are {tuple(student_logits.shape)}, teacher logits {tuple(teacher_logits.shape)}: "
            "both must be [rows, classes] over the same rows and classes."
        )


def _log_pair(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(log p of the teacher, without gradient; log q of the student)."""
    _check(student_logits, teacher_logits, temperature)
    return _log_probabilities(teacher_logits.detach(), temperature), _log_probabilities(student_logits, temperature)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def _mix(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """log(share · a + (1 - share) · b)."""
    return torch.logaddexp(log_a + math.log(share), log_b + math.log1p(-share)) if share else log_b


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p ‖ q), ``[N]``: the student covers all the teacher's modes (Hinton et al., arXiv:1503.02531).

    Args:
        student_logits: ``[N, C]``.
        teacher_logits: ``[N, C]``; treated as constant.
        temperature: > 0; above 1 softens both distributions.

    Raises:
        WorkbenchError: temperature ≤ 0, or shapes that differ. So do all losses below.
    """
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    return _kl(log_p, log_q)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(q ‖ p), ``[N]``: the student seeks one mode; arguments as `forward_kl` (arXiv:2306.08543)."""
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    return _kl(log_q, log_p)


def jsd(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *,
    beta: float = 0.5, normalise: bool = False,
) -> Tensor:  # fmt: skip
    """Generalized Jensen-Shannon divergence, ``[N]`` (GKD, arXiv:2306.13649); logits as `forward_kl`.

    beta · KL(p ‖ m) + (1 - beta) · KL(q ‖ m), with m = beta · p + (1 - beta) · q.

    Args:
        student_logits: ``[N, C]``.
        teacher_logits: ``[N, C]``.
        temperature: > 0.
        beta: in (0, 1). Towards 0 the gradient is that of beta · `forward_kl`, towards 1 of (1 - beta) · `reverse_kl`.
        normalise: divide by beta · (1 - beta). The plain value vanishes at both ends; this one goes to the two KLs
            there, so that a sweep over beta is not a sweep over the learning rate.
    """
    find_loss("jsd", {"beta": beta, "normalise": normalise})
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    log_m = _mix(log_p, log_q, beta)
    values = beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)
    return values / (beta * (1 - beta)) if normalise else values


def tvd(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Total variation distance ½ Σ |p - q|, ``[N]``, in [0, 1]; arguments as `forward_kl` (arXiv:2307.15190)."""
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def skew_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *, alpha: float = 0.1
) -> Tensor:
    """KL(p ‖ alpha · p + (1 - alpha) · q), ``[N]`` (DistiLLM, arXiv:2402.03898); logits as `forward_kl`.

    `alpha`, in [0, 1), bounds the loss of a student that excludes what the teacher says; 0 is `forward_kl`.
    """
    find_loss("skew_kl", {"alpha": alpha})
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    return _kl(log_p, _mix(log_p, log_q, alpha))


def skew_reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *, alpha: float = 0.1
) -> Tensor:
    """KL(q ‖ alpha · q + (1 - alpha) · p), ``[N]``; see `skew_kl`. alpha = 0 is `reverse_kl`."""
    find_loss("skew_reverse_kl", {"alpha": alpha})
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    return _kl(log_q, _mix(log_q, log_p, alpha))


def dkd(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *,
    labels: Tensor | None = None, alpha: float = 1.0, beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """Decoupled distillation alpha · TCKD + beta · NCKD, ``[N]`` (arXiv:2203.08679); logits as `forward_kl`.

    TCKD is the KL of (p_y, 1 - p_y), NCKD that of the other classes, renormalised; KL(p ‖ q) = TCKD + (1 - p_y) · NCKD.
    So a confident teacher's word on the other classes counts fully here and hardly in `forward_kl`.

    Args:
        student_logits: ``[N, C]``.
        teacher_logits: ``[N, C]``.
        temperature: > 0.
        labels: ``[N]``, the target y of each row; where it is below 0, or without `labels`, the teacher's top class.
        alpha: ≥ 0.
        beta: ≥ 0; the paper tunes it from 1 to 8 and warms the loss up, which is left to the learning rate here.
    """
    find_loss("dkd", {"alpha": alpha, "beta": beta})
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    target = teacher_logits.argmax(-1)
    if labels is not None:
        target = torch.where(labels >= 0, labels, target)
    classes = torch.arange(log_p.shape[-1], device=log_p.device)
    order = (target.unsqueeze(-1) + classes) % log_p.shape[-1]  # the target first, then the others
    binary, others = [], []
    for log_values in (log_p, log_q):
        log_target, log_rest = log_values.gather(-1, order).split([1, log_values.shape[-1] - 1], dim=-1)
        log_sum = log_rest.logsumexp(-1, keepdim=True)
        binary.append(torch.cat([log_target, log_sum], dim=-1))
        others.append(log_rest - log_sum)
    return alpha * _kl(*binary) + beta * _kl(*others)


def dist(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *,
    beta: float = 1.0, gamma: float = 1.0, tau_squared: bool = False,
) -> Tensor:  # fmt: skip
    """1 - Pearson correlation of p and q, per row and per class column, ``[N]`` (DIST, arXiv:2205.10536).

    The column term is a statistic of the batch: it is added to every row, so that the mean is the paper's loss. Give 8
    rows or more; with two rows every correlation is 1 or -1 and has no gradient, so fewer than 3 are refused.

    Args:
        student_logits: ``[N, C]``.
        teacher_logits: ``[N, C]``.
        temperature: > 0; the paper's tau.
        beta: ≥ 0; weight of the correlation over the classes of a row (inter).
        gamma: ≥ 0; weight of the correlation over the rows of a class (intra).
        tau_squared: multiply by temperature², as the authors' code does but the paper doesn't. A correlation does not
            shrink with T, so this makes a sweep over T a sweep over the weight.
    """
    find_loss("dist", {"beta": beta, "gamma": gamma, "tau_squared": tau_squared})
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    if len(log_p) < 3:
        raise WorkbenchError(f"dist got {len(log_p)} rows, which have no correlation to learn from: give 3 or more.")
    p, q = log_p.exp(), log_q.exp()
    inter, intra = (
        1 - F.cosine_similarity(p - p.mean(dim, keepdim=True), q - q.mean(dim, keepdim=True), dim=dim) for dim in (1, 0)
    )
    values = beta * inter + gamma * intra.mean()
    return temperature**2 * values if tau_squared else values


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

    Raises:
        WorkbenchError: labels that are no such tensor, or on a CPU a label that is no class; a GPU is not asked.
    """
    SHARE.check("label_smoothing", label_smoothing)
    _check_labels(labels, student_logits)
    log_q = _log_probabilities(student_logits, 1.0)
    try:
        target = -log_q.gather(-1, labels.long().clamp(min=0).unsqueeze(-1)).squeeze(-1)
    except RuntimeError:
        if labels.device.type == "cpu" and (top := int(labels.max())) >= log_q.shape[-1]:
            raise WorkbenchError(f"labels hold class {top} of {log_q.shape[-1]} classes: they count from 0.") from None
        raise
    if label_smoothing:
        target = (1 - label_smoothing) * target - label_smoothing * log_q.mean(-1)
    return target * (labels >= 0)


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    """Type and shape alone: what they hold is on a device that need not be asked."""
    whole_numbers = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
    if not whole_numbers or labels.dtype == torch.bool:
        got = labels.dtype if isinstance(labels, Tensor) else shown(labels)
        raise WorkbenchError(f"labels are {got}: give a tensor of whole numbers, a class each, -1 where unknown.")
    if labels.shape != logits.shape[:-1]:
        raise WorkbenchError(
            f"labels have shape {list(labels.shape)}, logits {list(logits.shape)}: give one label per row of logits."
        )


def standardise(logits: Tensor) -> Tensor:
    """(z - mean) / standard deviation of each row, ``[N, C]``, for use before any loss (arXiv:2403.01427).

    The student then learns the teacher's ranking and relations, not the size of its logits; the temperature is on the
    scale of standard deviations. The deviation is the population's, as in the paper.
    """
    return F.layer_norm(_in_float32(logits), logits.shape[-1:], eps=1e-8)


@dataclass(frozen=True)
class Loss:
    """What `combine` needs to know of a loss.

    Attributes:
        function: ``(student_logits, teacher_logits, temperature, **options) -> [N]``.
        power: of T, keeps the gradient's size when T changes.
        options: name -> the values that it may have.
        takes_labels: the function has an argument ``labels``.
        whole_batch: a row's value depends on the others, so a step can't be split.
    """

    function: Callable[..., Tensor]
    power: int
    options: Mapping[str, Number | Switch]
    takes_labels: bool = False
    whole_batch: bool = False


_INSIDE = Number(above=0, below=1)
_SWITCH = Switch()
_ANY = {"standardise": _SWITCH}

LOSSES: dict[str, Loss] = {
    "forward_kl": Loss(forward_kl, 2, _ANY),
    "reverse_kl": Loss(reverse_kl, 2, _ANY),
    "jsd": Loss(jsd, 2, {"beta": _INSIDE, "normalise": _SWITCH, **_ANY}),
    "tvd": Loss(tvd, 1, _ANY),
    "skew_kl": Loss(skew_kl, 2, {"alpha": SHARE, **_ANY}),
    "skew_reverse_kl": Loss(skew_reverse_kl, 2, {"alpha": SHARE, **_ANY}),
    "dkd": Loss(dkd, 2, {"alpha": WEIGHT, "beta": WEIGHT, **_ANY}, takes_labels=True),
    "dist": Loss(dist, 0, {"beta": WEIGHT, "gamma": WEIGHT, "tau_squared": _SWITCH, **_ANY}, whole_batch=True),
    "hard_labels": Loss(hard_labels, 0, {}),
}


def find_loss(name: str, options: Options | None = None) -> Loss:
    """The loss of that name.

    Raises:
        WorkbenchError: no such loss (naming the nearest), no such option (naming the valid ones), a value out of range.
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    valid = LOSSES[name].options
    if not isinstance(options, Mapping | None):
        raise WorkbenchError(f"loss_options is {shown(options)}: give a dict, such as {{'standardise': True}}.")
    for option, value in (options or {}).items():
        if option not in valid:
            raise WorkbenchError(
                f"Loss {name!r} has no option {shown(option)}: it takes {' and '.join(valid) or 'none, so remove it'}."
            )
        valid[option].check(f"{option} of loss {name!r}", value)
    return LOSSES[name]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised: ``ce_weight · CE + kd_weight · T² · KD``.

    Attributes:
        loss: the distillation term KD, a name in `LOSSES`.
        loss_options: its own options, such as ``{"beta": 0.3}`` of ``"jsd"``, and ``standardise`` (see `standardise`),
            applied before it.
        temperature: softens teacher and student in that term.
        kd_weight: weight of the distillation term, a mean over all rows.
        ce_weight: weight of the cross-entropy to true labels, a mean over labelled rows.
        label_smoothing: of the cross-entropy.
        scale_by_temperature: multiply KD by T² (each loss by the power that keeps its gradient's size), so that a sweep
            over T is not a sweep over the learning rate. `describe` says which tools do.
    """

    loss: str = setting("forward_kl", Choice(tuple(LOSSES)))
    loss_options: dict[str, float | bool] = field(default_factory=dict, hash=False)
    temperature: float = setting(1.0, TEMPERATURE)
    kd_weight: float = setting(1.0, WEIGHT)
    ce_weight: float = setting(0.0, WEIGHT)
    label_smoothing: float = setting(0.0, SHARE)
    scale_by_temperature: bool = setting(True, Switch())

    def __post_init__(self) -> None:
        """Refuse values no run could mean; keep numpy's scalars as Python's."""
        spec = find_loss(self.loss, self.loss_options)
        options = {name: spec.options[name].check(name, value) for name, value in (self.loss_options or {}).items()}
        object.__setattr__(self, "loss_options", options)  # a copy: `replace` would share the dict
        settle(self)

    @property
    def factor(self) -> float:
        """What the distillation term is multiplied by beside its weight: T to the loss's power, or 1."""
        return self.temperature ** LOSSES[self.loss].power if self.scale_by_temperature else 1.0


def combine(
    student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, objective: Objective, *,
    labelled_rows: int | None = None, rows: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The objective, with each term's own denominator.

    CE is a mean over labelled rows, KD over all rows. Where a step is split into micro-batches, give the counts of the
    **whole step**: the sum over micro-batches is then the loss of the step, however it was split.

    Args:
        student_logits: ``[N, C]``.
        teacher_logits: ``[N, C]``, or None when kd_weight is 0.
        labels: ``[N]``, -1 where unknown.
        objective: the terms; a `TrainConfig` is one.
        labelled_rows: denominator of CE; counted from `labels` if None.
        rows: denominator of KD; N if None.

    Returns:
        (total, ce, kd): scalars; ce and kd are unweighted and without T².

    Raises:
        WorkbenchError: what the loss refuses, or a part of a step for a loss that needs all its rows.
    """
    o, spec, options = objective, LOSSES[objective.loss], dict(objective.loss_options)
    if not isinstance(student_logits, Tensor) or student_logits.ndim != 2:
        got = list(student_logits.shape) if isinstance(student_logits, Tensor) else shown(student_logits)
        raise WorkbenchError(f"Student logits are {got}: give a tensor [rows, classes].")
    _check_labels(labels, student_logits)
    rows = len(labels) if rows is None else whole("rows", rows)
    labelled_rows = int((labels >= 0).sum()) if labelled_rows is None else whole("labelled_rows", labelled_rows, 0)
    ce = kd = student_logits.new_zeros(())
    if o.ce_weight:  # 0 where none counts
        ce = cross_entropy(student_logits, labels, o.label_smoothing).sum() / max(labelled_rows, 1)
    if o.kd_weight:
        if teacher_logits is None:
            raise WorkbenchError(f"kd_weight is {o.kd_weight} but there are no soft labels: give some or set it to 0.")
        if spec.whole_batch and rows != len(labels):
            raise WorkbenchError(
                f"Loss {o.loss!r} compares the rows of a step, but got {len(labels)} of {rows}: don't split the step."
            )
        if options.pop("standardise", False):
            student_logits, teacher_logits = standardise(student_logits), standardise(teacher_logits)
        if spec.takes_labels:
            options["labels"] = labels
        kd = spec.function(student_logits, teacher_logits, o.temperature, **options).sum() / rows
    return o.ce_weight * ce + o.kd_weight * o.factor * kd, ce, kd


def describe(objective: Objective) -> str:
    """What is minimised, and the same in the terms of other tools: print it.

    A tool without a line has no counterpart among what was read in its source (commits on GitHub): TRL's experimental
    `GKDTrainer` (7310b81) and `DistillationConfig` (24bcdd1), torchtune's `ForwardKLLoss` (104b38f) and single-device
    recipe (00d09d0), DistillKit's `distil_logits.py` (09fbb0c), `KLDLoss` (361c7ac) and trainer (b8ed189),
    torchdistill's `KDLoss` and `DISTLoss` (01038e7).
    """
    loss, temperature, ce_weight = objective.loss, objective.temperature, objective.ce_weight
    options = dict(objective.loss_options)
    t, ce = f"{temperature:g}", f"{ce_weight:g}"
    name = loss + (f"({', '.join(f'{name}={value}' for name, value in options.items())})" if options else "")
    power = LOSSES[loss].power if objective.scale_by_temperature else 0
    scale = {0: "", 1: "T · "}.get(power, f"T^{power} · ")
    lines = [f"loss = {ce} · CE + {objective.kd_weight:g} · {scale}{name} at T = {t}"]
    factor = objective.kd_weight * objective.factor
    if not factor or options.pop("standardise", False):
        return lines[0]

    after_t2 = factor / temperature**2  # the weight where the tool itself multiplies by T²
    beta = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": options.get("beta", 0.5)}.get(loss)
    if beta is not None:
        size = factor / (beta * (1 - beta)) if options.get("normalise") else factor
        lines += [
            f"TRL: beta={beta:g}, temperature={t}, lmbda=0 (no text by the student); it has neither CE nor T²: our KD "
            f"term is {size:g} times its loss",
            "  GKDTrainer's unfused loss stays at T = 1 at any temperature; DistillationTrainer needs loss_top_k=0",
        ]
    if loss == "forward_kl" and temperature == 1:
        total = factor + ce_weight
        lines.append(
            f"torchtune: kd_ratio={factor / total:g}, the KD's share; ours is {total:g} times its loss, but for the "
            "teacher's entropy, which it leaves out"
        )
    if loss == "forward_kl":
        lines += [
            f"DistillKit: cross_entropy weight={ce}, kl weight={after_t2:g} temperature={t}; it multiplies by T² and "
            "divides by the sum of the weights",
            f"  distil_logits.py: alpha={after_t2 / (after_t2 + ce_weight):g}, the KD's share, temperature={t}",
            f"torchdistill: KDLoss(temperature={t}, alpha={ce}, beta={after_t2:g}); alpha weighs the CE, beta T² · KL"
            + ("" if ce_weight else "; at alpha=0 it leaves out beta and T²"),
        ]
    if loss == "dist":
        weight = factor if options.get("tau_squared") else after_t2
        inter, intra = options.get("beta", 1.0), options.get("gamma", 1.0)
        lines.append(
            f"torchdistill: {weight:g} · DISTLoss(tau={t}, beta={inter:g}, gamma={intra:g}), which multiplies by tau²"
        )
    if ce_weight and len(lines) > 1:
        lines.append("Their CE is a mean over all rows, ours over labelled ones: the same where every row has a label.")
    return "\n".join(lines)
