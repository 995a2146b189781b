"""Fused losses: equal to the plain ones in value and gradient, whatever the target, type, mask and split."""

import pytest
import torch
import torch.nn.functional as F
from refusal import refused

from workbench.language.fused import Dense, Head, Hidden, Sampled, TopK, fused_loss
from workbench.losses import LOSSES, Objective, cross_entropy, find_loss, forward_kl

N, V, H, REAL = 37, 50, 8, 47
OPTIONS = {"jsd": {"beta": 0.3, "normalise": True}, "skew_kl": {"alpha": 0.2}, "dkd": {"beta": 3.0}}
FUSED = sorted(name for name, loss in LOSSES.items() if not loss.whole_batch)
# of values of order 1; 16-bit logits are rounded alike on both sides, their gradients at different places
TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-6, torch.bfloat16: 2e-2}


class Problem:
    """A student's and a teacher's hidden states and heads, labels and row weights with zeros among them."""

    def __init__(self, dtype=torch.float64, bias=True, scale=1.0, softcap=None, vocabulary=REAL, near=None):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.hidden, self.weight, self.bias = draw(N, H), draw(V, H), draw(V) if bias else None
        self.teacher_hidden, self.teacher_weight = draw(N, H), draw(V + 4, H)
        if near is not None:
            self.teacher_hidden = self.hidden + near * draw(N, H)
            self.teacher_weight[:V] = self.weight
            self.bias = None
        self.labels = torch.randint(REAL, (N,), generator=generator)
        self.ce_weight = torch.rand(N, generator=generator, dtype=torch.float64)
        self.kd_weight = torch.rand(N, generator=generator, dtype=torch.float64)
        self.ce_weight[::3], self.kd_weight[::2] = 0, 0
        self.labels[::3] = -100
        for name in ("hidden", "weight", "bias", "teacher_hidden", "teacher_weight"):
            value = getattr(self, name)
            if value is not None:
                leaf = name in ("hidden", "weight", "bias")
                setattr(self, name, value.to(dtype).requires_grad_(leaf))
        self.head = Head(self.weight, self.bias, scale, softcap, vocabulary)
        self.teacher_head = Head(self.teacher_weight, vocabulary=vocabulary)
        self.leaves = [x for x in (self.hidden, self.weight, self.bias) if x is not None]
        self.hard = {"labels": self.labels, "ce_weight": self.ce_weight}

    def fused(self, target=None, **options):
        """`fused_loss` of this student, with distillation where there is a target."""
        taught = {} if target is None else {"target": target, "kd_weight": self.kd_weight}
        return fused_loss(self.hidden, self.head, **taught | options)

    def logits(self):
        logits = F.linear(self.hidden, self.weight, self.bias)[:, : len(self.head)] * self.head.scale
        return self.head.softcap * torch.tanh(logits / self.head.softcap) if self.head.softcap else logits

    def teacher_logits(self):
        return F.linear(self.teacher_hidden, self.teacher_weight)[:, : len(self.teacher_head)]

    def targets(self):
        return {"hidden": Hidden(self.teacher_hidden, self.teacher_head), "dense": Dense(self.teacher_logits())}

    def top_k(self, k, temperature=1.0):
        log_p = torch.log_softmax(self.teacher_logits() / temperature, -1)
        log_probs, ids = log_p.topk(k)
        tail = log_p.exp().scatter(-1, ids, 0.0).sum(-1).log()
        return TopK(ids, log_probs, tail, temperature)

    def compare(self, total, plain, tolerance, scale=1.0):
        """Value and gradients of a fused total against a plain one."""
        torch.testing.assert_close(total.double(), plain.double(), rtol=tolerance, atol=tolerance)
        ours = torch.autograd.grad(total * scale, self.leaves)
        theirs = torch.autograd.grad(plain * scale, self.leaves)
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max().clamp(min=1)))


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request):
    return request.param


@pytest.mark.parametrize("kind", ["hidden", "dense"])
@pytest.mark.parametrize("name", FUSED)
def test_equals_the_plain_loss(name, kind, dtype):
    problem, options = Problem(dtype), OPTIONS.get(name, {})
    labels = {"labels": problem.labels} if LOSSES[name].takes_labels else {}
    for temperature in (1.0, 2.5):
        values = find_loss(name, options).function(
            problem.logits(), problem.teacher_logits(), temperature, **options, **labels
        )
        hard = cross_entropy(problem.logits(), problem.labels)
        plain = (values * problem.kd_weight).sum() + (hard * problem.ce_weight).sum()
        objective = Objective(loss=name, loss_options=options, temperature=temperature)
        total, ce, kd = problem.fused(problem.targets()[kind], **problem.hard, objective=objective, chunk=9)
        problem.compare(total, plain, TOLERANCE[dtype])
        rough = {"rtol": max(1e-4, TOLERANCE[dtype]), "atol": max(1e-5, TOLERANCE[dtype])}
        torch.testing.assert_close(kd, values.detach() * (problem.kd_weight > 0), check_dtype=False, **rough)
        assert ce.requires_grad is False and (ce[::3] == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("kind", ["ce", "forward_kl", "top_k", "sampled"])
def test_one_term_equals_the_plain_loss(kind, temperature, dtype):
    problem = Problem(dtype)
    logits, teacher = problem.logits().to(torch.promote_types(dtype, torch.float32)), problem.teacher_logits().double()
    log_q, log_p = torch.log_softmax(logits / temperature, -1), torch.log_softmax(teacher / temperature, -1)
    if kind == "ce":
        total, _, _ = problem.fused(**problem.hard, chunk=10)
        plain = (cross_entropy(logits, problem.labels) * problem.ce_weight).sum()
    else:
        if kind == "forward_kl":
            target, values = Dense(problem.teacher_logits()), forward_kl(logits, teacher, temperature)
        elif kind == "top_k":
            target = problem.top_k(5, temperature)
            q_tail = log_q.exp().scatter(-1, target.ids, 0.0).sum(-1)
            log_q = log_q.gather(-1, target.ids)
            values = (target.log_probs.exp() * (target.log_probs - log_q)).sum(-1)
            values = values + target.log_tail.exp() * (target.log_tail - q_tail.log())
        else:
            ids = torch.multinomial(log_p.exp(), 6, replacement=True, generator=torch.Generator().manual_seed(1))
            entropy = -(log_p.exp() * log_p).sum(-1)
            target = Sampled(ids, entropy, temperature)
            values = -log_q.gather(-1, ids).mean(-1) - entropy
        total, _, _ = problem.fused(target, chunk=10, objective=Objective(temperature=temperature))
        plain = (values * problem.kd_weight).sum()
    problem.compare(total, plain, TOLERANCE[dtype], scale=0.3)


@pytest.mark.parametrize("form", [{"bias": False}, {"scale": 0.25}, {"softcap": 3.0}, {"vocabulary": None}])
def test_every_form_of_head(form):
    problem = Problem(**form)
    if form == {"vocabulary": None}:
        problem.teacher_head = Head(problem.teacher_weight, vocabulary=V)
    total, _, _ = problem.fused(problem.targets()["hidden"])
    plain = (forward_kl(problem.logits(), problem.teacher_logits()) * problem.kd_weight).sum()
    problem.compare(total, plain, 1e-11)


def test_padded_rows_of_a_vocabulary_get_no_gradient():
    problem = Problem()
    problem.fused(**problem.hard)[0].backward()
    assert (problem.weight.grad[REAL:] == 0).all() and (problem.weight.grad[:REAL] != 0).any(1).all()


def test_a_tied_head_gets_both_gradients():
    problem, ids = Problem(bias=False, vocabulary=None), torch.arange(N) % V
    hidden = F.embedding(ids, problem.weight).tanh()
    total = fused_loss(hidden, problem.head, **problem.hard)[0]
    logits = F.linear(F.embedding(ids, problem.weight).tanh(), problem.weight)
    plain = (cross_entropy(logits, problem.labels) * problem.ce_weight).sum()
    torch.testing.assert_close(total, plain)
    torch.testing.assert_close(*(torch.autograd.grad(x, problem.weight)[0] for x in (total, plain)))


@pytest.mark.parametrize("near", [0.02, 1e-3])
def test_a_small_kl_keeps_its_digits(near):
    exact, single = Problem(torch.float64, near=near), Problem(torch.float32, near=near)
    wanted = forward_kl(exact.logits(), exact.teacher_logits()).detach()
    for problem, near_enough in ((exact, {"rtol": 1e-8, "atol": 1e-14}), (single, {"rtol": 1e-3, "atol": 3e-7})):
        _, _, kd = problem.fused(problem.targets()["hidden"], kd_weight=torch.ones(N))
        torch.testing.assert_close(kd.double(), wanted, **near_enough)
    if near == 0.02:
        assert 3e-5 < wanted.median() < 3e-3


@pytest.mark.parametrize("scale", [0.01, 8.0])  # flat and peaked distributions
def test_a_large_vocabulary_keeps_a_small_kls_digits(scale):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(3, 49152, generator=generator, dtype=torch.float64)
    near = (logits + 0.014 * torch.randn(3, 49152, generator=generator, dtype=torch.float64)).float()
    logits, one = logits.float(), torch.eye(3)
    wanted = forward_kl(logits.double(), near.double())
    assert ((3e-5 < wanted) & (wanted < 3e-4)).all()
    _, _, kd = fused_loss(one, Head(logits.t().contiguous()), target=Dense(near), kd_weight=torch.ones(3))
    torch.testing.assert_close(kd.double(), wanted, rtol=5e-3, atol=0)
    kind = {"hidden": one, "head": Head(logits.t().contiguous())}
    _, ce, _ = fused_loss(**kind, labels=torch.tensor([5, 6, 7]), ce_weight=torch.ones(3))
    torch.testing.assert_close(ce.double(), cross_entropy(logits.double(), torch.tensor([5, 6, 7])), rtol=1e-6, atol=0)


def test_top_k_rises_to_the_kl_and_is_never_negative():
    problem, last = Problem(), torch.zeros(N, dtype=torch.float64)
    for k in (1, 2, 5, 20, REAL):
        _, _, kd = problem.fused(problem.top_k(k), kd_weight=torch.ones(N))
        assert (kd >= last - 1e-12).all()
        last = kd
    torch.testing.assert_close(last, forward_kl(problem.logits(), problem.teacher_logits()).detach())


def test_samples_are_unbiased():
    problem, ones = Problem(), torch.ones(N, dtype=torch.float64)
    p = problem.teacher_logits().softmax(-1).detach()
    ids = torch.multinomial(p, 20000, replacement=True, generator=torch.Generator().manual_seed(0))
    entropy = -(p * p.log()).sum(-1)
    total, _, kd = problem.fused(Sampled(ids, entropy), kd_weight=ones)
    exact = forward_kl(problem.logits(), problem.teacher_logits())
    torch.testing.assert_close(kd, exact.detach(), rtol=0.05, atol=0.05)
    ours, wanted = (torch.autograd.grad(x, problem.hidden)[0].flatten() for x in (total, exact.sum()))
    assert F.cosine_similarity(ours, wanted, dim=0) > 0.999


def test_any_split_of_the_rows_and_any_chunk_give_the_same():
    problem = Problem()
    arguments, target = {**problem.hard, "kd_weight": problem.kd_weight}, problem.targets()["hidden"]
    whole = torch.autograd.grad(problem.fused(target, **problem.hard)[0], problem.leaves)
    for chunk in (1, 7, 64):
        parts = torch.randperm(N, generator=torch.Generator().manual_seed(1)).split(11)  # micro-batches in any order
        total = sum(
            fused_loss(
                problem.hidden[rows], problem.head, target=target[rows], chunk=chunk,
                **{k: v[rows] for k, v in arguments.items()},
            )[0]
            for rows in parts
        )  # fmt: skip
        torch.testing.assert_close(torch.autograd.grad(total, problem.leaves), whole)


def test_rows_that_do_not_count_may_hold_anything():
    problem = Problem(torch.float32)
    mask = torch.arange(N) % 3 == 0
    hidden = problem.hidden.detach().masked_fill(mask.unsqueeze(-1), float("nan")).requires_grad_()
    labels = problem.labels.masked_fill(mask, -100)
    weight = (~mask).float()
    fused_loss(hidden, problem.head, labels=labels, ce_weight=weight)[0].backward()
    assert (hidden.grad[mask] == 0).all() and hidden.grad.isfinite().all()
    total, ce, _ = fused_loss(hidden, problem.head, labels=labels, ce_weight=torch.zeros(N))  # nothing counts
    total.backward()
    assert total == 0 and (ce == 0).all() and (hidden.grad.isfinite()).all()


def test_autocast_computes_in_16_bits_and_gives_gradients_in_the_parameters_type():
    problem = Problem(torch.float32, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        total, _, _ = problem.fused(problem.targets()["hidden"])
        plain = (forward_kl(problem.logits(), problem.teacher_logits()) * problem.kd_weight).sum()
    problem.compare(total, plain, TOLERANCE[torch.bfloat16])


def test_without_gradients_only_values():
    problem = Problem()
    with torch.no_grad():
        total, ce, _ = problem.fused(**problem.hard)
    wanted = cross_entropy(problem.logits(), problem.labels).detach()
    torch.testing.assert_close(ce, wanted * (problem.ce_weight > 0))
    assert not total.requires_grad


def test_nothing_given_is_changed():
    problem = Problem()
    target = problem.targets()["dense"]
    before = [x.detach().clone() for x in (*problem.leaves, target.logits, problem.teacher_weight)]
    problem.fused(target, objective=Objective(temperature=2.0))[0].backward()
    for x, was in zip((*problem.leaves, target.logits, problem.teacher_weight), before, strict=True):
        assert torch.equal(x, was)
    assert problem.teacher_weight.grad is None


def test_refusals_are_one_sentence():
    problem = Problem()
    dense, top_k, warm = problem.targets()["dense"], problem.top_k(3), Objective(temperature=2.0)
    for words, arguments in {
        "neither ce_weight nor kd_weight": {},
        "no labels or target": {"kd_weight": problem.kd_weight},
        "kd_weight 36": {"kd_weight": problem.kd_weight[1:], "target": dense},
        "logits 36": {"target": dense[1:]},
        "compares the rows": {"target": dense, "objective": Objective(loss="dist")},
        "not 'jsd'": {"target": top_k, "objective": Objective(loss="jsd")},
        "made at temperature 1 can't be used at 2": {"target": top_k, "objective": warm},
        "teacher has 46 tokens": {"target": Dense(dense.logits[:, 1:])},
    }.items():
        with refused(words):
            problem.fused(**arguments)
    total, _, _ = problem.fused(dense)
    total.backward(retain_graph=True)
    with refused("goes backward once"):
        total.backward()
