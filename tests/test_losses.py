"""Losses: golden values, invariants, and the mistakes seen in public distillation code."""

import math

import pytest
import torch
import torch.nn.functional as F

from workbench.errors import WorkbenchError
from workbench.losses import LOSSES, combine, cross_entropy, divergence, forward_kl, hard_labels

STUDENT = torch.tensor([[1.0, 0.5, -1.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[2.0, 0.0, -1.0, 0.5]], dtype=torch.float64)
CE = 0.74656727
FORWARD_KL = {1: 0.14548918, 2: 0.04340530, 4: 0.01068249}  # computed by two independent programs
SCALED_KL = {1: 0.14548918, 2: 0.17362122, 4: 0.17091990}
SWAPPED_KL_AT_1 = 0.17835071

every_loss = pytest.mark.parametrize("name", sorted(LOSSES))


def logits(rows: int, classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(value: torch.Tensor, wanted: float) -> bool:
    return value.item() == pytest.approx(wanted, abs=5e-9)


def sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and ". " not in text and text.endswith("."), text
    return text


# Values


@pytest.mark.parametrize("temperature", FORWARD_KL)
def test_golden_forward_kl(temperature):
    values = forward_kl(STUDENT, TEACHER, temperature)
    assert values.shape == (1,) and close(values, FORWARD_KL[temperature])  # per row: no mean, no T², no 1/C


@pytest.mark.parametrize("temperature", SCALED_KL)
def test_golden_scaled_forward_kl(temperature):
    total, ce, kd = combine(STUDENT, TEACHER, torch.tensor([0]), temperature=temperature)
    assert close(total, SCALED_KL[temperature]) and close(kd, FORWARD_KL[temperature]) and ce == 0
    plain, _, _ = combine(STUDENT, TEACHER, torch.tensor([0]), temperature=temperature, scale_by_temperature=False)
    assert close(plain, FORWARD_KL[temperature])


def test_golden_cross_entropy():
    assert close(cross_entropy(STUDENT, torch.tensor([0])), CE)
    total, ce, kd = combine(STUDENT, None, torch.tensor([0]), kd_weight=0.0, ce_weight=1.0)
    assert close(total, CE) and close(ce, CE) and kd == 0


def test_terms_come_back_unweighted():
    total, ce, kd = combine(STUDENT, TEACHER, torch.tensor([0]), temperature=2, kd_weight=0.75, ce_weight=0.5)
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
        torch.testing.assert_close(hard_labels(student, teacher, temperature), wanted)
        total, _, _ = combine(student, teacher, torch.full((6,), -1), loss="hard_labels", temperature=temperature)
        torch.testing.assert_close(total, wanted.mean())  # no T² either: temperature plays no part


def test_student_and_teacher_are_not_interchangeable():
    assert close(forward_kl(TEACHER, STUDENT), SWAPPED_KL_AT_1)
    assert abs(SWAPPED_KL_AT_1 - FORWARD_KL[1]) > 0.03


# Invariants


@pytest.mark.parametrize("temperature", [0.25, 1.0, 16.0])
def test_zero_and_flat_when_student_equals_teacher(temperature):
    teacher = logits(9)
    student = teacher.clone().requires_grad_()
    values = forward_kl(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert values.abs().max() < 1e-12 and gradient.abs().max() < 1e-12


def test_positive_when_student_differs():
    assert (forward_kl(logits(50), logits(50, seed=1)) > 0).all()


@every_loss
def test_a_constant_added_to_a_row_changes_nothing(name):
    function, _ = divergence(name)
    student, teacher = logits(5), logits(5, seed=1)
    shift = torch.arange(5.0).unsqueeze(1)
    torch.testing.assert_close(function(student + shift, teacher - shift, 2.0), function(student, teacher, 2.0))


@every_loss
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gradient_is_the_derivative(name, temperature):
    function, _ = divergence(name)
    student, teacher = logits(3).requires_grad_(), logits(3, seed=1)
    assert torch.autograd.gradcheck(lambda z: function(z, teacher, temperature), student)


def test_gradient_of_the_whole_loss_is_the_derivative():
    student, teacher, labels = logits(4).requires_grad_(), logits(4, seed=1), torch.tensor([0, -1, 3, -1])

    def total(z):
        return combine(z, teacher, labels, temperature=2.0, kd_weight=0.5, ce_weight=0.5, label_smoothing=0.1)[0]

    assert torch.autograd.gradcheck(total, student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_scaled_gradient_is_temperature_times_the_difference(temperature):
    student = logits(4).requires_grad_()
    teacher = logits(4, seed=1)
    combine(student, teacher, torch.full((4,), -1), temperature=temperature)[0].backward()
    q, p = F.softmax(student / temperature, -1), F.softmax(teacher / temperature, -1)
    torch.testing.assert_close(student.grad, temperature * (q - p).detach() / 4)


@every_loss
def test_no_gradient_reaches_the_teacher(name):
    student, teacher = logits(3).requires_grad_(), logits(3, seed=1).requires_grad_()
    total, _, _ = combine(student, teacher, torch.tensor([0, 1, -1]), loss=name, kd_weight=1.0, ce_weight=1.0)
    total.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@every_loss
def test_rows_are_independent_and_permute(name):
    function, _ = divergence(name)
    student, teacher = logits(8), logits(8, seed=1)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    values = function(student, teacher, 2.0)
    torch.testing.assert_close(function(student[order], teacher[order], 2.0), values[order])
    torch.testing.assert_close(function(student[:3], teacher[:3], 2.0), values[:3])
    # a teacher in another order than the batch must not go unnoticed
    assert not torch.allclose(function(student, teacher[order], 2.0), values)


@every_loss
def test_the_scaled_gradient_keeps_its_size_at_high_temperature(name):
    def size(temperature, scale=True):
        student, teacher = logits(64).requires_grad_(), logits(64, seed=1)
        options = {"loss": name, "temperature": temperature, "scale_by_temperature": scale}
        combine(student, teacher, torch.full((64,), -1), **options)[0].backward()
        return student.grad.norm().item()

    assert size(64.0) == pytest.approx(size(16.0), rel=0.1)
    assert 0.3 < size(4.0) / size(16.0) < 3
    if divergence(name)[1]:
        assert size(64.0, scale=False) < size(16.0, scale=False) / 10  # what the factor is there for


# Denominators and micro-batches


def test_each_term_has_its_own_denominator():
    student, teacher = logits(6), logits(6, seed=1)
    labels = torch.tensor([2, -1, -1, 0, -1, -1])
    _, ce, kd = combine(student, teacher, labels, temperature=2.0, kd_weight=1.0, ce_weight=1.0)
    known = labels >= 0
    torch.testing.assert_close(ce, F.cross_entropy(student[known], labels[known]))  # over 2 rows
    torch.testing.assert_close(kd, forward_kl(student, teacher, 2.0).mean())  # over 6


def test_unlabelled_rows_get_no_cross_entropy():
    values = cross_entropy(logits(3), torch.tensor([-1, 1, -1]), 0.1)
    assert values[0] == values[2] == 0 and values[1] > 0


@every_loss
@pytest.mark.parametrize("split", [[12], [6, 6], [1, 11], [5, 4, 3], [1] * 12], ids=str)
def test_a_step_is_the_same_however_it_is_split(name, split):
    labels = torch.full((12,), -1)
    labels[:4] = torch.tensor([0, 3, 1, 4])  # so the later micro-batches have no labelled row at all
    teacher = logits(12, seed=1)

    def step(sizes):
        student = logits(12).requires_grad_()
        total = torch.zeros(3, dtype=torch.float64)
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            values = combine(
                student[part],
                teacher[part],
                labels[part],
                loss=name,
                temperature=2.0,
                kd_weight=0.7,
                ce_weight=0.3,
                label_smoothing=0.1,
                labelled_rows=4,
                rows=12,
            )
            values[0].backward()
            total += torch.stack(values).detach()
            start += size
        return total, student.grad

    value, gradient = step(split)
    whole_value, whole_gradient = step([12])
    torch.testing.assert_close(value, whole_value)
    torch.testing.assert_close(gradient, whole_gradient)


@pytest.mark.parametrize("kd_weight", [0.0, 1.0])
def test_a_step_without_a_labelled_row_is_finite(kd_weight):
    student = logits(3).requires_grad_()
    teacher = logits(3, seed=1) if kd_weight else None
    total, ce, _ = combine(student, teacher, torch.full((3,), -1), kd_weight=kd_weight, ce_weight=1.0)
    total.backward()  # must have a graph, also where nothing counts
    assert ce == 0 and total.isfinite() and student.grad.isfinite().all()
    assert bool(student.grad.any()) == bool(kd_weight)


# Precision


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name, dtype):
    function, _ = divergence(name)
    student, teacher = logits(20, dtype=torch.float32).to(dtype), logits(20, seed=1, dtype=torch.float32).to(dtype)
    values = function(student, teacher, 2.0)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), function(student.double(), teacher.double(), 2.0), rtol=1e-5, atol=1e-6)


def test_extreme_logits_stay_finite():
    student = torch.tensor([[0.0, 500.0, -500.0]], requires_grad=True)  # log(softmax) would be -inf here
    values = forward_kl(student, torch.tensor([[500.0, 0.0, -500.0]]), 0.25)
    values.sum().backward()
    assert values.item() == pytest.approx(2000) and student.grad.isfinite().all()


def test_a_small_divergence_keeps_its_digits():
    teacher = logits(1, 100, dtype=torch.float32)
    student = teacher + 1e-2 * logits(1, 100, seed=1, dtype=torch.float32)
    exact = forward_kl(student.double(), teacher.double()).item()
    assert 1e-5 < exact < 1e-3
    assert forward_kl(student, teacher).item() == pytest.approx(exact, rel=1e-3)


# Refusals


@every_loss
@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, -math.inf])
def test_bad_temperature_is_refused(name, temperature):
    with pytest.raises(WorkbenchError, match=f"temperature is {temperature}") as error:
        divergence(name)[0](STUDENT, TEACHER, temperature)
    assert "finite number above 0" in sentence(error)


@every_loss
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (1, 4), (3,)], ids=str)
def test_shapes_that_differ_are_refused(name, shape):
    with pytest.raises(WorkbenchError) as error:  # also those that torch would broadcast
        divergence(name)[0](torch.zeros(3, 4), torch.zeros(shape), 1.0)
    assert "(3, 4)" in sentence(error) and str(shape) in sentence(error)


def test_unknown_loss_names_the_nearest():
    with pytest.raises(WorkbenchError, match="Unknown loss 'foward_kl': did you mean 'forward_kl'"):
        divergence("foward_kl")
    with pytest.raises(WorkbenchError, match="Unknown loss"):
        combine(STUDENT, TEACHER, torch.tensor([0]), loss="mse")


def test_distilling_without_soft_labels_is_refused():
    with pytest.raises(WorkbenchError, match="kd_weight is 1.0 but there are no soft labels") as error:
        combine(STUDENT, None, torch.tensor([0]))
    sentence(error)
