"""Fused linear projection and loss: large vocabularies without a ``[tokens, vocabulary]`` array.

`fused_loss` walks over chunks of rows. For each it projects the student's hidden states to logits, takes the
cross-entropy and the distillation term, and at once adds up their gradients, so that one chunk of logits exists at a
time and nothing is computed twice. What the teacher says comes as one of four targets:

| target    | holds of each position                                  | losses            |
|-----------|---------------------------------------------------------|-------------------|
| `Hidden`  | the teacher's last hidden state, and the teacher's head | all, at any T     |
| `Dense`   | all logits                                              | all, at any T     |
| `TopK`    | k ids, their log-probabilities, the rest's              | forward KL, own T |
| `Sampled` | n ids drawn from the teacher, its entropy               | forward KL, own T |

Next to read: `workbench.language.lessons`, which trains with it, and `workbench.language.labels`, which stores targets.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from workbench.errors import WorkbenchError, shown, whole
from workbench.losses import LOSSES, Objective, standardise

CHUNK = 512  # rows whose logits exist at once
PLAIN = Objective()  # forward KL at temperature 1
BLOCK = 8  # of them are worked on together on a CPU: what fits into its caches


@dataclass(frozen=True)
class Head:
    """A model's last layer: hidden states ``[N, H]`` to logits ``[N, V]``.

    Attributes:
        weight: ``[rows, H]``; may have more rows than there are tokens (padded vocabularies).
        bias: ``[rows]`` or None.
        scale: factor on the logits.
        softcap: logits become ``softcap * tanh(logits / softcap)``, after `scale`.
        vocabulary: V, how many rows stand for tokens; all of them if None.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    vocabulary: int | None = None

    @classmethod
    def of(cls, model: nn.Module, vocabulary: int | None = None) -> "Head":
        """The head of a causal language model of `transformers`."""
        layer, config = model.get_output_embeddings(), model.config.get_text_config()
        if layer is None or not isinstance(layer, nn.Linear):
            raise WorkbenchError(
                f"{type(model).__name__} has no linear output layer: give a causal language model of transformers."
            )
        if vocabulary is not None and not 0 < vocabulary <= len(layer.weight):
            raise WorkbenchError(
                f"The tokenizer has {vocabulary} ids but the model's output layer {len(layer.weight)} rows: use the "
                "tokenizer that belongs to the model."
            )
        scale = getattr(config, "logit_scale", None) or 1.0  # Cohere multiplies, Granite divides
        scale /= getattr(config, "logits_scaling", None) or 1.0
        return cls(layer.weight, layer.bias, scale, getattr(config, "final_logit_softcapping", None), vocabulary)

    def __len__(self) -> int:
        """V."""
        return len(self.weight) if self.vocabulary is None else self.vocabulary

    def cast(self, dtype: torch.dtype) -> "Head":
        """Weights of real tokens only, detached, in `dtype`."""
        return replace(self._map(lambda x: x.detach()[: len(self)].to(dtype)), vocabulary=None)

    def to(self, device: torch.device | str) -> "Head":
        """On that device."""
        return self._map(lambda x: x.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Head":
        return replace(self, weight=change(self.weight), bias=None if self.bias is None else change(self.bias))

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """``[N, V]`` in the weight's type, written to `out` if given. For a head that `cast` gave."""
        logits = torch.mm(hidden.to(self.weight.dtype), self.weight.t(), out=out)
        if self.bias is not None:
            logits += self.bias
        if self.scale != 1:
            logits *= self.scale
        if self.softcap:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits


class Target:
    """What the teacher says of some positions; ``target[rows]`` of fewer of them."""

    def arrays(self) -> dict[str, Tensor]:
        """Those with a row a position, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def __getitem__(self, rows: Tensor | slice) -> Self:
        return replace(self, **{name: array[rows] for name, array in self.arrays().items()})


# The losses below write over the logits that they are given. They take exponentials and sums apart: torch.softmax adds
# up 49,152 float32 in a row and is off by up to 2e-4 on a CPU, torch.sum adds in a tree. The passes over a block are
# hardly more than a softmax and its maxima need.


@dataclass(frozen=True)
class Hidden(Target):
    """The teacher's last hidden states ``[N, H]``, after the final norm, and its head."""

    hidden: Tensor
    head: Head


@dataclass(frozen=True)
class Dense(Target):
    """The teacher's logits ``[N, V]``."""

    logits: Tensor


@dataclass(frozen=True)
class TopK(Target):
    """The teacher's k likeliest tokens: ids ``[N, k]``, log-probabilities ``[N, k]`` and the rest's ``[N]``.

    The loss is the exact forward KL of the distributions over k tokens and "any other": 0 ≤ loss ≤ KL, rising with k.
    "Any other" is a class because the k alone, scaled to 1, would not punish a student that moves mass to the rest.
    """

    ids: Tensor
    log_probs: Tensor
    log_tail: Tensor
    temperature: float = 1.0

    def kl(self, s: Tensor, gradients: bool) -> tuple[Tensor, Tensor | None]:
        """Values ``[N]`` of a student's logits over T, ``[N, V]``; their gradient on these."""
        ids, log_p, log_tail = self.ids.long(), self.log_probs.to(s.dtype), self.log_tail.to(s.dtype)
        top = s.amax(-1, keepdim=True)
        s_top = s.gather(-1, ids) - top
        q = s.sub_(top).exp_()
        q_top = q.gather(-1, ids)
        q.scatter_(-1, ids, 0.0)
        # The rest is added up: 1 - the top, which may be nearly 1, would be noise.
        q_rest = q.sum(-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
        q_sum = q_top.sum(-1, keepdim=True) + q_rest
        p, tail, log_sum = log_p.exp(), log_tail.exp(), q_sum.log()
        log_q, log_rest = s_top - log_sum, (q_rest.log() - log_sum).squeeze(-1)
        values = (p * (log_p - log_q)).sum(-1) + (tail * (log_tail - log_rest)).where(tail > 0, 0)
        if gradients:
            q.mul_(1 / q_sum - tail.unsqueeze(-1) / q_rest).scatter_(-1, ids, q_top / q_sum - p)
        return values, q if gradients else None


@dataclass(frozen=True)
class Sampled(Target):
    """Tokens ``[N, n]`` drawn from the teacher, and the teacher's entropy ``[N]`` in nats (arXiv:2503.16870).

    The loss is CE(drawn, student) - entropy: an unbiased estimate of the forward KL, with an unbiased gradient; one
    position may come out negative.
    """

    ids: Tensor
    entropy: Tensor
    temperature: float = 1.0

    def kl(self, s: Tensor, gradients: bool) -> tuple[Tensor, Tensor | None]:
        """Values ``[N]`` of a student's logits over T, ``[N, V]``; their gradient on these."""
        ids = self.ids.long()
        top = s.amax(-1, keepdim=True)
        drawn = (s.gather(-1, ids) - top).mean(-1)
        q = s.sub_(top).exp_()
        q_sum = q.sum(-1, keepdim=True)
        values = q_sum.log().squeeze(-1) - drawn - self.entropy.to(s.dtype)
        if gradients:
            share = torch.full((), -1 / ids.shape[-1], dtype=q.dtype, device=q.device).expand(ids.shape)
            q.div_(q_sum).scatter_add_(-1, ids, share)
        return values, q if gradients else None


def fused_loss(
    hidden: Tensor,
    head: Head,
    *,
    labels: Tensor | None = None,
    ce_weight: Tensor | None = None,
    target: Target | None = None,
    kd_weight: Tensor | None = None,
    objective: Objective = PLAIN,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor, Tensor]:
    """``sum(ce_weight · CE + kd_weight · KD)`` over rows; its gradients reach `hidden` and the head's parameters.

    Row weights carry all reductions: masks (rows of weight 0 are skipped, whatever they hold), denominators of the
    whole step and the power of T. Backward works once: the gradients are made in the forward pass and handed over.

    Args:
        hidden: ``[N, H]``, the student's last hidden states, one a predicted token.
        head: the student's.
        labels: ``[N]``, the token that follows; needed where ce_weight is above 0.
        ce_weight: ``[N]`` ≥ 0, or None without cross-entropy.
        target: what the teacher says of the same positions; needed where kd_weight is above 0.
        kd_weight: ``[N]`` ≥ 0, or None without distillation.
        objective: gives loss, options and temperature; its weights are those of the rows here. A loss whose rows are
            independent; `TopK` and `Sampled` take forward_kl.
        chunk: rows whose logits exist at once: memory grows by 2 · chunk · V numbers.

    Returns:
        (total, ce, kd): a scalar in fp32 or better, and values of each row ``[N]`` without weights or gradient, 0
        where a term was not computed.

    Raises:
        WorkbenchError: shapes or vocabularies that differ, a loss the target can't give, or a second backward.
    """
    chunk = whole("chunk", chunk)
    walk = _Walk(head, labels, ce_weight, target, kd_weight, objective, chunk, torch.is_grad_enabled())
    walk.check(hidden)
    return _Fused.apply(hidden, head.weight, head.bias, walk)


@dataclass
class _Walk:
    """The walk over the rows and all that it needs beside the tensors that take gradients."""

    head: Head
    labels: Tensor | None
    ce_weight: Tensor | None
    target: Target | None
    kd_weight: Tensor | None
    objective: Objective
    chunk: int
    gradients: bool

    def check(self, hidden: Tensor) -> None:
        """Refuse shapes or vocabularies that differ, and a loss that the target can't give."""
        labels, ce_weight, target, kd_weight = self.labels, self.ce_weight, self.target, self.kd_weight
        loss, options, temperature = self.objective.loss, self.objective.loss_options, self.objective.temperature
        if kd_weight is None and ce_weight is None:
            raise WorkbenchError("There are neither ce_weight nor kd_weight: give rows' weights of at least one term.")
        if (ce_weight is not None and labels is None) or (kd_weight is not None and target is None):
            raise WorkbenchError("A term has row weights but no labels or target: give both, or neither.")
        if not isinstance(target, Target | None):
            raise WorkbenchError(f"target is {shown(target)}: give one of Hidden, Dense, TopK and Sampled.")
        arrays = {"hidden": hidden, "labels": labels, "ce_weight": ce_weight, "kd_weight": kd_weight}
        for name, array in (arrays | (target.arrays() if target else {})).items():
            if array is not None and not (isinstance(array, Tensor) and array.ndim):
                raise WorkbenchError(f"{name} is {shown(array)}: give a tensor with a row a position.")
            if array is not None and len(array) != len(hidden):
                raise WorkbenchError(f"hidden has {len(hidden)} rows but {name} {len(array)}: give one a position.")
        if kd_weight is None:
            return
        if LOSSES[loss].whole_batch:
            raise WorkbenchError(f"Loss {loss!r} compares the rows of a batch, never together here: use another.")
        if isinstance(target, TopK | Sampled):
            if loss != "forward_kl" or options:
                raise WorkbenchError(
                    f"{type(target).__name__} labels give the forward KL without options, not {loss!r} with "
                    f"{options}: use hidden labels for that."
                )
            if target.temperature != temperature:
                raise WorkbenchError(
                    f"{type(target).__name__} labels made at temperature {target.temperature:g} can't be used at "
                    f"{temperature:g}: the tokens left out are unknown there; label again, or use hidden labels."
                )
        else:
            width = len(target.head) if isinstance(target, Hidden) else target.logits.shape[-1]
            if width != len(self.head):
                raise WorkbenchError(
                    f"The teacher has {width} tokens and the student {len(self.head)}: give both heads the number of "
                    "real ids of their common tokenizer as `vocabulary`, or without one, labels of kind 'prefix'."
                )

    def run(
        self, hidden: Tensor, dtype: torch.dtype, needs: Sequence[bool]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor | None]]:
        """(total, ce, kd, gradients of hidden, weight and bias: None where `needs` says so); products in `dtype`."""
        device, rows = hidden.device, len(hidden)
        wide = torch.promote_types(dtype, torch.float32)  # sums and elementwise work are never in 16 bits
        head = self.head.cast(dtype)
        ce, kd = (torch.zeros(rows, dtype=wide, device=device) for _ in range(2))
        a, b = (None if w is None else w.detach().to(device, wide) for w in (self.ce_weight, self.kd_weight))
        counted = sum(w.abs() for w in (a, b) if w is not None).nonzero().squeeze(-1)
        gradients = self._empty_gradients(hidden, wide, needs, len(counted))
        size = min(self.chunk, len(counted))
        z_all, t_all = _room("student", (size, len(head)), dtype, device), None
        teacher = self.target.head.cast(dtype) if b is not None and isinstance(self.target, Hidden) else None
        if teacher:
            t_all = _room("teacher", (size, len(head)), dtype, device)
        block = BLOCK if device.type == "cpu" else self.chunk
        for start in range(0, len(counted), self.chunk):
            at = counted[start : start + self.chunk]
            if len(counted) == rows:
                at = slice(start, start + len(at))  # a view instead of a copy
            h = hidden[at].to(dtype)
            z = head.logits(h, z_all[: len(h)])
            target = None if b is None else self.target[at]
            if teacher:
                target = Dense(teacher.logits(target.hidden, t_all[: len(h)]))
            parts = (None if a is None else self.labels[at], target, *(None if w is None else w[at] for w in (a, b)))
            values = [
                self._block(z[i : i + block], wide, *(x if x is None else x[i : i + block] for x in parts))
                for i in range(0, len(h), block)
            ]
            ce[at], kd[at] = (torch.cat(column) for column in zip(*values, strict=True))
            if self.gradients:  # rows are scaled in the narrow matrix if there is one term, else it is done
                weight = None if a is not None and b is not None else b[at] if a is None else a[at]
                _add_gradients(gradients, h, z, head, at, weight, first=start == 0)
        total = sum((w * v).sum() for w, v in ((a, ce), (b, kd)) if w is not None)
        return total, ce, kd, gradients

    def _empty_gradients(self, hidden: Tensor, wide: torch.dtype, needs, rows: int) -> list[Tensor | None]:
        like = (hidden, self.head.weight, self.head.bias)
        types = (hidden.dtype, wide, wide)  # chunks of a 16-bit weight's gradient are added up in float32
        made = [
            torch.empty(x.shape, dtype=t, device=x.device) if n and self.gradients else None
            for x, t, n in zip(like, types, needs, strict=True)
        ]
        # The first chunk writes the weight's gradient, the largest array here; only what it doesn't reach is zeroed.
        for g, start in zip(made, (0, len(self.head) if rows else 0, 0), strict=True):
            if g is not None:
                g[start:] = 0
        return made

    def _block(self, z: Tensor, wide: torch.dtype, labels, target, a, b) -> tuple[Tensor, Tensor]:
        """(ce, kd) of a few rows; their logits `z` become the gradient, weighted if there are both terms."""
        s = z.to(wide)  # z itself, unless that has 16 bits; either may be written over
        slope = 1 - (s / self.head.softcap) ** 2 if self.head.softcap and self.gradients else None
        ce = kd = s.new_zeros(len(s))
        g = None
        if a is not None:
            own = s if b is None else s.clone()
            # A label is one draw; that of a row that doesn't count may be anything, -100 included.
            ce, g = Sampled(labels.clamp(min=0).unsqueeze(-1), ce).kl(own, self.gradients)
        if b is not None:
            kd, of_kd = self._distil(s, target, labels)
            if a is not None:
                ce, kd = ce.where(a != 0, 0), kd.where(b != 0, 0)
            if self.gradients:
                g = of_kd if a is None else g.mul_(a.unsqueeze(-1)).add_(of_kd.mul_(b.unsqueeze(-1)))
        if self.gradients:
            if slope is not None:
                g.mul_(slope)
            if g.data_ptr() != z.data_ptr():
                z.copy_(g)
        return ce, kd

    def _distil(self, s: Tensor, target: Target, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Values ``[N]`` of the distillation term and their gradient on the logits `s`, which are written over."""
        t = self.objective.temperature
        if isinstance(target, Dense) and (self.objective.loss != "forward_kl" or self.objective.loss_options):
            return self._any_divergence(s, target.logits.to(s.dtype), labels)
        s = s if t == 1 else s.div_(t)
        if isinstance(target, Dense):
            given = isinstance(self.target, Dense)  # the caller's logits stay as they are, our own needn't
            teacher = target.logits.to(s.dtype, copy=given)
            values, g = _forward_kl(s, teacher if t == 1 else teacher.div_(t), self.gradients)
        else:
            values, g = target.kl(s, self.gradients)
        return values, g.div_(t) if self.gradients and t != 1 else g

    def _any_divergence(self, s: Tensor, teacher: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """By autograd, on the few rows of a block: every loss that has no form of its own here."""
        spec, options = LOSSES[self.objective.loss], dict(self.objective.loss_options)
        with torch.set_grad_enabled(self.gradients):
            leaf = s.detach().requires_grad_(self.gradients)
            pair = (leaf, teacher)
            if options.pop("standardise", False):
                pair = tuple(map(standardise, pair))
            if spec.takes_labels:
                options["labels"] = labels
            values = spec.function(*pair, self.objective.temperature, **options)
            g = torch.autograd.grad(values.sum(), leaf)[0] if self.gradients else None
        return values.detach(), g


_kept = threading.local()


def _room(name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An array to work in. On a CPU it is kept: the system takes longer to give fresh pages than a pass over them."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    flat, needed = getattr(_kept, name, None), math.prod(shape)
    if flat is None or flat.dtype != dtype or len(flat) < needed:
        flat = torch.empty(needed, dtype=dtype)
        setattr(_kept, name, flat)
    return flat[:needed].view(*shape)


def _forward_kl(s: Tensor, t: Tensor, gradients: bool) -> tuple[Tensor, Tensor | None]:
    q, p = s.sub_(s.amax(-1, keepdim=True)), t.sub_(t.amax(-1, keepdim=True))
    # Entry by entry: a difference of two dot products would lose a small KL's digits.
    ratio = torch.sub(p, q, out=_room("block", p.shape, p.dtype, p.device))
    q.exp_()
    p.exp_()
    less = q.sub_(p)  # kept apart from p to the end: where the two are near, so are their sums
    p_sum, less_sum = p.sum(-1, keepdim=True), less.sum(-1, keepdim=True)
    q_sum = p_sum + less_sum
    values = (ratio.mul_(p).sum(-1, keepdim=True) / p_sum + torch.log1p(less_sum / p_sum)).squeeze(-1)
    return values, less.div_(q_sum).addcmul_(p, less_sum / (q_sum * p_sum), value=-1) if gradients else None


def _add_gradients(
    gradients, h: Tensor, g: Tensor, head: Head, at: Tensor | slice, weight: Tensor | None, first: bool
) -> None:
    """Add what the gradient `g` on a chunk's logits means for hidden, weight and bias."""
    of_hidden, of_weight, of_bias = gradients
    factor = head.scale if weight is None else head.scale * weight.unsqueeze(-1)
    if of_hidden is not None:
        of_hidden[at] = (torch.mm(g, head.weight) * factor).to(of_hidden.dtype)
    if of_weight is not None:
        scaled, part = (h * factor).to(g.dtype), of_weight[: len(head)]
        if part.dtype == g.dtype:
            part.addmm_(g.t(), scaled, beta=0 if first else 1)
        elif first:
            part.copy_(torch.mm(g.t(), scaled))
        else:
            part += torch.mm(g.t(), scaled)
    if of_bias is not None:
        of_bias[: len(head)] += (g.to(of_bias.dtype) * factor).sum(0)


class _Fused(torch.autograd.Function):
    """Gradients are made with the value; backward only scales them, in place, and lets go of them."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, walk: _Walk):
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with torch.autocast(device, enabled=False):  # the walk says itself what is computed in which type
            total, ce, kd, ctx.made = walk.run(hidden, dtype, ctx.needs_input_grad[:3])
        ctx.types = [None if x is None else x.dtype for x in (hidden, weight, bias)]
        ctx.mark_non_differentiable(ce, kd)
        return total, ce, kd

    @staticmethod
    def backward(ctx, scale: Tensor, *_: Tensor):
        if ctx.made is None:
            raise WorkbenchError("A fused loss goes backward once: call fused_loss again for another backward.")
        # No other reference is kept, so that autograd takes the weight's gradient over and doesn't copy it.
        made, ctx.made = ctx.made, None
        one = scale.device.type == "cpu" and scale == 1  # on a GPU, asking would wait for it
        out = []
        while made:
            g = made.pop(0)
            out.append(g if g is None else (g if one else g.mul_(scale)).to(ctx.types[len(out)]))
        return *out, None
