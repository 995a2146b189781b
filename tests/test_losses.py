"""Losses: golden values, invariants, and the mistakes seen in public distillation code."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from refusal import refused

from workbench import losses
from workbench.losses import LOSSES, Objective, combine, cross_entropy, describe, dist, dkd, find_loss, forward_kl, jsd

STUDENT = torch.tensor([[1.0, 0.5, -1.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[2.0, 0.0, -1.0, 0.5]], dtype=torch.float64)
CE = 0.74656727
FORWARD_KL = {1: 0.14548918, 2: 0.04340530, 4: 0.01068249}  # these and the next computed by two independent programs
SCALED_KL = {1: 0.14548918, 2: 0.17362122, 4: 0.17091990}
SWAPPED_KL_AT_1 = 0.17835071
GOLDEN = [  # at T = 1, 2, 4
    ("forward_kl", {}, *FORWARD_KL.values()),
    ("reverse_kl", {}, 0.17835071, 0.04561224, 0.01080715),
    ("tvd", {}, 0.23610908, 0.13005990, 0.06563218),
    ("jsd", {}, 0.03913064, 0.01105782, 0.00268243),
    ("jsd", {"beta": 0.1}, 0.01324579, 0.00391788, 0.00096207),
    ("jsd", {"beta": 0.9}, 0.01552541, 0.00407551, 0.00097102),
    ("dkd", {"beta": 0.0}, 0.11431761, 0.03074558, 0.00703313),
    ("dkd", {"alpha": 0.0}, 0.10752521, 0.02456495, 0.00571561),
    ("skew_kl", {}, 0.12066785, 0.03537105, 0.00866482),
    ("skew_reverse_kl", {}, 0.13539983, 0.03642490, 0.00872515),
]


def table() -> dict[str, dict[str, str]]:
    """The table of losses and invariants in the module's docstring: loss -> column -> cell."""
    rows = [line.split("|")[1:-1] for line in losses.__doc__.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in row] for row in rows]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


TABLE = table()
every_loss = pytest.mark.parametrize("name", sorted(LOSSES))
every_divergence = pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name]["zero"] == "yes"])


def logits(rows: int, classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(value: torch.Tensor, wanted: float) -> bool:
    return value.item() == pytest.approx(wanted, abs=5e-9)


# Values


@pytest.mark.parametrize(("name", "options", "one", "two", "four"), GOLDEN)
def test_golden_values(name, options, one, two, four):
    for temperature, wanted in ((1, one), (2, two), (4, four)):
        values = LOSSES[name].function(STUDENT, TEACHER, temperature, **options)
        assert values.shape == (1,) and close(values, wanted)  # per row: no mean, no T², no 1/C


def test_every_loss_has_a_row_in_the_table_with_its_options_and_its_power():
    assert list(TABLE) == list(LOSSES)
    for name, row in TABLE.items():
        options = [option for option in row["options"].split(", ") if option]
        options += ["standardise"] * (name != "hard_labels")
        assert options == list(LOSSES[name].options)
        assert int(row["T power"]) == LOSSES[name].power
        assert (row["splits"] == "no") == LOSSES[name].whole_batch


@pytest.mark.parametrize("temperature", SCALED_KL)
def test_golden_scaled_forward_kl(temperature):
    total, ce, kd = combine(STUDENT, TEACHER, torch.tensor([0]), Objective(temperature=temperature))
    assert close(total, SCALED_KL[temperature]) and close(kd, FORWARD_KL[temperature]) and ce == 0
    bare = Objective(temperature=temperature, scale_by_temperature=False)
    plain, _, _ = combine(STUDENT, TEACHER, torch.tensor([0]), bare)
    assert close(plain, FORWARD_KL[temperature])


def test_golden_cross_entropy_and_terms_come_back_unweighted():
    assert close(cross_entropy(STUDENT, torch.tensor([0])), CE)
    total, ce, kd = combine(STUDENT, None, torch.tensor([0]), Objective(kd_weight=0.0, ce_weight=1.0))
    assert close(total, CE) and close(ce, CE) and kd == 0
    both = Objective(temperature=2, kd_weight=0.75, ce_weight=0.5)
    total, ce, kd = combine(STUDENT, TEACHER, torch.tensor([0]), both)
    assert close(ce, CE) and close(kd, FORWARD_KL[2])
    assert close(total, 0.5 * CE + 0.75 * SCALED_KL[2])


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_forward_kl_equals_torch_where_torch_divides_by_rows_only():
    student, teacher = logits(7, 3), logits(7, 3, seed=1)
    log_q, log_p = F.log_softmax(student / 3, -1), F.log_softmax(teacher / 3, -1)
    ours = forward_kl(student, teacher, 3.0)
    torch.testing.assert_close(ours.mean(), F.kl_div(log_q, log_p, reduction="batchmean", log_target=True))
    # reduction="mean" divides by the number of classes as well
    torch.testing.assert_close(ours.mean(), 3 * F.kl_div(log_q, log_p, reduction="mean", log_target=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing_equals_torch(smoothing):
    student, labels = logits(6), torch.tensor([0, 4, 2, 2, 1, 3])
    ours = cross_entropy(student, labels, smoothing)
    torch.testing.assert_close(ours, F.cross_entropy(student, labels, label_smoothing=smoothing, reduction="none"))


def test_hard_labels_are_cross_entropy_to_the_teachers_choice():
    student, teacher = logits(6), logits(6, seed=1)
    wanted = F.cross_entropy(student, teacher.argmax(-1), reduction="none")
    for temperature in (0.5, 1.0, 4.0):
        torch.testing.assert_close(losses.hard_labels(student, teacher, temperature), wanted)
        objective = Objective(loss="hard_labels", temperature=temperature)
        total, _, _ = combine(student, teacher, torch.full((6,), -1), objective)
        torch.testing.assert_close(total, wanted.mean())  # no T² either: temperature plays no part


@every_loss
def test_student_and_teacher_change_places_only_where_the_table_says_so(name):
    student, teacher = logits(6), logits(6, seed=1)
    values, swapped = (LOSSES[name].function(*pair, 2.0) for pair in ((student, teacher), (teacher, student)))
    assert torch.allclose(values, swapped) == (TABLE[name]["swaps"] == "yes")


def test_the_direction_of_the_divergence():
    assert close(forward_kl(TEACHER, STUDENT), SWAPPED_KL_AT_1)
    student, teacher = logits(9), logits(9, seed=1)
    for forward, reverse in (("forward_kl", "reverse_kl"), ("skew_kl", "skew_reverse_kl")):
        forward, reverse = LOSSES[forward].function, LOSSES[reverse].function
        torch.testing.assert_close(forward(student, teacher, 2.0), reverse(teacher, student, 2.0))
    torch.testing.assert_close(jsd(student, teacher, beta=0.2), jsd(teacher, student, beta=0.8))
    assert not torch.allclose(jsd(student, teacher, beta=0.2), jsd(student, teacher, beta=0.8))


def test_normalised_jsd_goes_to_both_divergences():
    assert close(jsd(STUDENT, TEACHER, beta=0.01, normalise=True), 0.14564810)
    assert close(jsd(STUDENT, TEACHER, beta=0.99, normalise=True), 0.17771673)
    student, teacher = logits(9), logits(9, seed=1)
    for beta, limit in ((1e-6, forward_kl), (1 - 1e-6, losses.reverse_kl)):
        limit = limit(student, teacher, 2.0)
        torch.testing.assert_close(jsd(student, teacher, 2.0, beta=beta, normalise=True), limit, rtol=1e-3, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_dkd_splits_the_forward_kl(temperature):
    student, teacher, labels = logits(5), logits(5, seed=1), torch.tensor([3, 0, -1, 4, -1])
    target = torch.where(labels >= 0, labels, teacher.argmax(-1))
    assert (target != teacher.argmax(-1)).any(), "no label differs from the teacher's choice: this proves nothing"
    tckd = dkd(student, teacher, temperature, labels=labels, beta=0.0)
    nckd = dkd(student, teacher, temperature, labels=labels, alpha=0.0)
    p_y = F.softmax(teacher / temperature, -1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(tckd + (1 - p_y) * nckd, forward_kl(student, teacher, temperature))
    both = dkd(student, teacher, temperature, labels=labels, alpha=0.5, beta=8.0)
    torch.testing.assert_close(both, 0.5 * tckd + 8 * nckd)
    options = {"loss": "dkd", "temperature": temperature, "loss_options": {"alpha": 0.5, "beta": 8}}
    kd = combine(student, teacher, labels, Objective(**options))[2]
    torch.testing.assert_close(kd, both.mean())  # the labels arrive


def test_dkd_of_two_classes_has_no_other_classes():
    student, teacher = logits(5, 2), logits(5, 2, seed=1)
    torch.testing.assert_close(dkd(student, teacher, beta=8.0), forward_kl(student, teacher))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist_is_one_minus_pearson_over_classes_and_over_rows(temperature):
    student, teacher = logits(9), logits(9, seed=1)
    p, q = (F.softmax(z / temperature, -1).numpy() for z in (teacher, student))
    inter, intra = (
        1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*pair, strict=True)]) for pair in ((p, q), (p.T, q.T))
    )
    value = dist(student, teacher, temperature, beta=2.0, gamma=3.0)
    assert value.mean().item() == pytest.approx(2 * inter + 3 * intra)
    authors = dist(student, teacher, temperature, beta=2.0, gamma=3.0, tau_squared=True)
    torch.testing.assert_close(authors, temperature**2 * value)


@every_divergence
def test_standardised_logits_leave_their_size_and_place_behind(name):
    student, teacher = logits(6), logits(6, seed=1)

    def kd(student, teacher, **options):
        labels = torch.full((6,), -1)
        return combine(student, teacher, labels, Objective(loss=name, temperature=2.0, loss_options=options))[2]

    plain = kd(student, teacher)
    standard = kd(student, teacher, standardise=True)
    torch.testing.assert_close(kd(3 * student - 1, 0.2 * teacher + 5, standardise=True), standard)
    assert kd(3 * teacher - 1, teacher, standardise=True).abs() < 1e-8  # affine, so all is learnt
    z = [(z - z.mean(-1, keepdim=True)) / z.std(-1, correction=0, keepdim=True) for z in (student, teacher)]
    torch.testing.assert_close(kd(*z), standard)
    assert (plain - standard).abs() > 1e-3


def test_a_row_of_equal_logits_has_no_deviation_and_a_finite_gradient():
    student = torch.zeros(3, 5, requires_grad=True)
    combine(student, logits(3), torch.full((3,), -1), Objective(loss_options={"standardise": True}))[0].backward()
    assert student.grad.isfinite().all()


# Invariants


@every_loss
@pytest.mark.parametrize("temperature", [0.25, 1.0, 16.0])
def test_zero_and_flat_when_student_equals_teacher_where_the_table_says_so(name, temperature):
    teacher = logits(9)
    student = teacher.clone().requires_grad_()
    values = LOSSES[name].function(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(values.sum(), student)
    flat = values.abs().max() < 1e-12 and gradient.abs().max() < 1e-12
    assert flat == (TABLE[name]["zero"] == "yes")


@every_loss
def test_positive_when_student_differs_and_at_most_what_the_table_says(name):
    values = LOSSES[name].function(logits(50), logits(50, seed=1), 1.0)
    assert (values > 0).all()
    extreme = 1000 * torch.eye(4, dtype=torch.float64)  # student and teacher are sure of different classes
    values = LOSSES[name].function(extreme, extreme.roll(1, 0), 1.0)
    bounds = {"log 2": math.log(2), "1": 1.0, "-log alpha": -math.log(0.1), "2 beta + 2 gamma": 4.0}
    if most := TABLE[name]["at most"]:
        assert bounds[most] / 2 < values.max() <= bounds[most] + 1e-12
    else:
        assert values.max() > 100


@every_loss
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gradient_is_the_derivative(name, temperature):
    function = LOSSES[name].function
    student, teacher = logits(3).requires_grad_(), logits(3, seed=1)
    assert torch.autograd.gradcheck(lambda z: function(z, teacher, temperature), student)


def test_gradient_of_the_whole_loss_is_the_derivative():
    student, teacher, labels = logits(4).requires_grad_(), logits(4, seed=1), torch.tensor([0, -1, 3, -1])

    objective = Objective(temperature=2.0, kd_weight=0.5, ce_weight=0.5, label_smoothing=0.1)
    assert torch.autograd.gradcheck(lambda z: combine(z, teacher, labels, objective)[0], student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_scaled_gradient_is_temperature_times_the_difference(temperature):
    student = logits(4).requires_grad_()
    teacher = logits(4, seed=1)
    combine(student, teacher, torch.full((4,), -1), Objective(temperature=temperature))[0].backward()
    q, p = F.softmax(student / temperature, -1), F.softmax(teacher / temperature, -1)
    torch.testing.assert_close(student.grad, temperature * (q - p).detach() / 4)


@every_loss
def test_no_gradient_reaches_the_teacher(name):
    student, teacher = logits(3).requires_grad_(), logits(3, seed=1).requires_grad_()
    objective = Objective(loss=name, kd_weight=1.0, ce_weight=1.0)
    combine(student, teacher, torch.tensor([0, 1, -1]), objective)[0].backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@every_loss
def test_rows_permute_have_no_level_and_are_independent_where_the_table_says_so(name):
    function = LOSSES[name].function
    student, teacher = logits(8), logits(8, seed=1)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    values = function(student, teacher, 2.0)
    torch.testing.assert_close(function(student[order], teacher[order], 2.0), values[order])
    shift = torch.arange(8.0).unsqueeze(1)  # a constant added to a row changes nothing
    torch.testing.assert_close(function(student + shift, teacher - shift, 2.0), values)
    alone = torch.allclose(function(student[:3], teacher[:3], 2.0), values[:3])
    assert alone == (TABLE[name]["splits"] == "yes")
    # a teacher in another order than the batch must not go unnoticed
    assert not torch.allclose(function(student, teacher[order], 2.0), values)


@every_loss
def test_the_scaled_gradient_keeps_its_size_at_high_temperature(name):
    def size(temperature, scale=True):
        student, teacher = logits(64).requires_grad_(), logits(64, seed=1)
        options = {"loss": name, "temperature": temperature, "scale_by_temperature": scale}
        combine(student, teacher, torch.full((64,), -1), Objective(**options))[0].backward()
        return student.grad.norm().item()

    assert size(64.0) == pytest.approx(size(16.0), rel=0.1)
    assert 0.3 < size(4.0) / size(16.0) < 3
    # what the factor is there for
    assert size(16.0, scale=False) / size(64.0, scale=False) == pytest.approx(4 ** LOSSES[name].power, rel=0.1)


# Denominators and micro-batches


def test_each_term_has_its_own_denominator():
    student, teacher = logits(6), logits(6, seed=1)
    labels = torch.tensor([2, -1, -1, 0, -1, -1])
    _, ce, kd = combine(student, teacher, labels, Objective(temperature=2.0, kd_weight=1.0, ce_weight=1.0))
    known = labels >= 0
    torch.testing.assert_close(ce, F.cross_entropy(student[known], labels[known]))  # over 2 rows
    torch.testing.assert_close(kd, forward_kl(student, teacher, 2.0).mean())  # over 6
    assert ((cross_entropy(student, labels, 0.1) > 0) == known).all()


@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name]["splits"] == "yes"])
@pytest.mark.parametrize("split", [[12], [6, 6], [1, 11], [5, 4, 3], [1] * 12], ids=str)
def test_a_step_is_the_same_however_it_is_split(name, split):
    labels = torch.full((12,), -1)
    labels[:4] = torch.tensor([0, 3, 1, 4])  # so the later micro-batches have no labelled row at all
    teacher = logits(12, seed=1)

    objective = Objective(loss=name, temperature=2.0, kd_weight=0.7, ce_weight=0.3, label_smoothing=0.1)

    def step(sizes):
        student = logits(12).requires_grad_()
        total = torch.zeros(3, dtype=torch.float64)
        for part in torch.arange(12).split(sizes):
            values = combine(student[part], teacher[part], labels[part], objective, labelled_rows=4, rows=12)
            values[0].backward()
            total += torch.stack(values).detach()
        return total, student.grad

    torch.testing.assert_close(step(split), step([12]))


def test_a_part_of_a_step_is_refused_where_rows_depend_on_each_other():
    student, teacher, labels = logits(6), logits(6, seed=1), torch.full((6,), -1)
    with refused("Loss 'dist' compares the rows of a step, but got 6 of 12"):
        combine(student, teacher, labels, Objective(loss="dist"), rows=12)
    with refused("dist got 2 rows"):
        dist(student[:2], teacher[:2])


@pytest.mark.parametrize("kd_weight", [0.0, 1.0])
def test_a_step_without_a_labelled_row_is_finite(kd_weight):
    student = logits(3).requires_grad_()
    teacher = logits(3, seed=1) if kd_weight else None
    total, ce, _ = combine(student, teacher, torch.full((3,), -1), Objective(kd_weight=kd_weight, ce_weight=1.0))
    total.backward()  # must have a graph, also where nothing counts
    assert ce == 0 and total.isfinite() and student.grad.isfinite().all()
    assert bool(student.grad.any()) == bool(kd_weight)


# Precision


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name, dtype):
    function = LOSSES[name].function
    student, teacher = logits(20, dtype=torch.float32).to(dtype), logits(20, seed=1, dtype=torch.float32).to(dtype)
    values = function(student, teacher, 2.0)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), function(student.double(), teacher.double(), 2.0), rtol=1e-5, atol=1e-6)


@every_loss
def test_extreme_logits_stay_finite(name):
    student = torch.tensor([[0.0, 500.0, -500.0]] * 3, requires_grad=True)  # log(softmax) would be -inf here
    values = LOSSES[name].function(student, torch.tensor([[500.0, 0.0, -500.0]] * 3), 0.25)
    values.sum().backward()
    assert values.isfinite().all() and student.grad.isfinite().all()
    if name == "forward_kl":
        assert values[0].item() == pytest.approx(2000)


@every_divergence
def test_a_small_divergence_keeps_its_digits(name):
    teacher = logits(4, 100, dtype=torch.float32)
    student = teacher + 1e-2 * logits(4, 100, seed=1, dtype=torch.float32)
    exact = LOSSES[name].function(student.double(), teacher.double(), 1.0)
    assert (exact < 2e-2).all()
    ours = LOSSES[name].function(student, teacher, 1.0).double()
    torch.testing.assert_close(ours, exact, rtol=1e-2 if name == "jsd" else 5e-3, atol=0)


# Refusals


@every_loss
@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, -math.inf])
def test_bad_temperature_is_refused(name, temperature):
    with refused(f"temperature is {temperature}", "give a number from 1e-06 to 1,000,000"):
        LOSSES[name].function(STUDENT, TEACHER, temperature)


@every_loss
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1, 4), (3,)], ids=str)
def test_shapes_that_differ_are_refused(name, shape):
    with refused("(3, 4)", str(shape)):  # also those that torch would broadcast
        LOSSES[name].function(torch.zeros(3, 4), torch.zeros(shape), 1.0)


def test_an_unknown_loss_and_distilling_without_soft_labels_are_refused():
    with refused("Unknown loss 'foward_kl': did you mean 'forward_kl'"):
        find_loss("foward_kl")
    with refused("Unknown loss"):
        Objective(loss="mse")
    with refused("kd_weight is 1.0 but there are no soft labels"):
        combine(STUDENT, None, torch.tensor([0]), Objective())


@pytest.mark.parametrize(
    ("loss", "options", "parts"),
    [
        ("jsd", {"alpha": 0.5}, ("Loss 'jsd' has no option 'alpha'", "beta and normalise and standardise")),
        ("hard_labels", {"standardise": True}, ("Loss 'hard_labels' has no option 'standardise'", "none")),
        ("jsd", {"beta": 0.0}, ("beta of loss 'jsd' is 0.0", "above 0 and below 1")),
        ("jsd", {"beta": 1}, ("beta of loss 'jsd' is 1", "above 0 and below 1")),
        ("jsd", {"beta": True}, ("beta of loss 'jsd' is True", "above 0 and below 1")),
        ("jsd", {"normalise": 1}, ("normalise of loss 'jsd' is 1", "True or False")),
        ("skew_kl", {"alpha": 1.0}, ("alpha of loss 'skew_kl' is 1.0", "at least 0 and below 1")),
        ("skew_reverse_kl", {"alpha": math.nan}, ("alpha of loss 'skew_reverse_kl' is nan",)),
        ("dkd", {"beta": -1}, ("beta of loss 'dkd' is -1", "from 0 to 1,000,000")),
        ("dkd", {"alpha": math.inf}, ("alpha of loss 'dkd' is inf", "from 0 to 1,000,000")),
        ("dist", {"gamma": "1"}, ("gamma of loss 'dist' is '1'", "from 0 to 1,000,000")),
    ],
)
def test_options_that_mean_nothing_are_refused(loss, options, parts):
    with refused(*parts):
        find_loss(loss, options)
    with refused(*parts):
        Objective(loss=loss, loss_options=options)
    if "no option" not in parts[0]:  # the function asks, too
        with refused(*parts):
            LOSSES[loss].function(logits(4), logits(4), **options)


# In other tools' terms: their formulas as their sources have them, against ours


def numbers(text: str, pattern: str) -> list[float]:
    return [float(value) for value in re.search(pattern, text).groups()]


def test_described_weights_give_the_same_loss_in_other_tools():
    student, teacher, labels = logits(6), logits(6, seed=1), torch.tensor([0, 4, 2, 2, 1, 3])
    ce = F.cross_entropy(student, labels)
    number = r"([\d.]+)"

    def ours(**options):
        return combine(student, teacher, labels, Objective(**options))[0], describe(Objective(**options))

    def kl(temperature):
        log_q, p = F.log_softmax(student / temperature, -1), F.softmax(teacher / temperature, -1)
        return F.kl_div(log_q, p, reduction="batchmean")

    for scaled in (True, False):
        total, text = ours(temperature=2.0, kd_weight=0.75, ce_weight=0.5, scale_by_temperature=scaled)
        t, alpha, beta = numbers(text, rf"KDLoss\(temperature={number}, alpha={number}, beta={number}\)")
        torch.testing.assert_close(alpha * ce + beta * t**2 * kl(t), total)
        a, b, t = numbers(text, rf"cross_entropy weight={number}, kl weight={number} temperature={number}")
        torch.testing.assert_close((a * ce + b * t**2 * kl(t)) / (a + b) * (a + b), total)
        (alpha,) = numbers(text, rf"distil_logits.py: alpha={number}")
        torch.testing.assert_close((alpha * t**2 * kl(t) + (1 - alpha) * ce) * (a + b), total)
        assert "torchtune" not in text  # it has no temperature

    total, text = ours(kd_weight=0.75, ce_weight=0.25)
    (ratio,) = numbers(text, rf"kd_ratio={number}")
    torch.testing.assert_close((1 - ratio) * ce + ratio * kl(1.0), total)

    for loss, options in (("forward_kl", {}), ("reverse_kl", {}), ("jsd", {"beta": 0.3, "normalise": True})):
        total, text = ours(loss=loss, loss_options=options, temperature=2.0)
        beta, t, size = numbers(text, rf"TRL: beta={number}, temperature={number}, .* term is {number} times")
        log_q, log_p = (F.log_softmax(z / t, -1) for z in (student, teacher))
        if beta in (0, 1):  # F.kl_div(a, b) is KL(b ‖ a)
            pair = (log_q, log_p) if beta == 0 else (log_p, log_q)
            value = F.kl_div(*pair, reduction="batchmean", log_target=True)
        else:
            log_m = torch.logaddexp(log_q + math.log(1 - beta), log_p + math.log(beta))
            of_p, of_q = (F.kl_div(log_m, x, reduction="batchmean", log_target=True) for x in (log_p, log_q))
            value = beta * of_p + (1 - beta) * of_q
        torch.testing.assert_close(size * value, total, rtol=1e-4, atol=0)

    total, text = ours(loss="dist", temperature=2.0, loss_options={"beta": 2.0})
    weight, tau = numbers(text, rf"{number} · DISTLoss\(tau={number}, beta=2, gamma=1\)")
    torch.testing.assert_close(weight * tau**2 * dist(student, teacher, tau, beta=2.0).mean(), total)


def test_what_has_no_counterpart_is_only_named():
    for loss in ("tvd", "dkd", "skew_kl", "hard_labels"):
        said = describe(Objective(loss=loss, temperature=4.0))
        assert said.count("\n") == 0 and loss in said
    assert "TRL" not in describe(Objective(loss_options={"standardise": True}))
    assert "T · tvd" in describe(Objective(loss="tvd"))
