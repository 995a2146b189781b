"""Money: golden values worked by hand, what must hold of every case, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusal import refused

from workbench.hosted import economics
from workbench.hosted.economics import Case, amount, break_even_months, break_even_requests, mistake_dollars

CHEAP, DEAR = (0.05, 0.40), (1.0, 5.0)  # dollars a million tokens, read and written
HOUR = 0.0816


class Price:
    """Of a model's tokens, as `workbench.hosted.prices.Price` has it."""

    def __init__(self, read: float, written: float, cached: float = 0.0) -> None:
        self.read, self.written, self.cached = read, written, cached

    def dollars(self, read: float, written: float, cached: float = 0, *, batch: bool = False) -> float:
        total = (read - cached) * self.read + cached * self.cached + written * self.written
        return total * (0.5 if batch else 1) / 1e6


def case(**changes: float) -> Case:
    given = {"teacher_dollars_per_1k": 0.325, "requests_per_month": 1e6, "dollars_per_hour": HOUR}
    given |= {"requests_per_second": 4500.0, "people_days": 1.0, "dollars_per_day": 600.0}
    return Case(**given | changes)


@pytest.mark.parametrize(("price", "per_1k", "requests"), [(CHEAP, 0.017, 35.294e6), (DEAR, 0.325, 1.846e6)])
def test_three_hundred_and_five_tokens_and_one_engineers_day(price, per_1k, requests):
    # 300 · 0.05 + 5 · 0.40 = 17 and 300 · 1 + 5 · 5 = 325 dollars a million requests; 600 ÷ that
    cost = economics.api_dollars_per_1k(Price(*price), 300, 5)
    assert cost == pytest.approx(per_1k)
    assert break_even_requests(600, cost) == pytest.approx(requests, rel=1e-3)


def test_the_batch_and_the_cache_are_cheaper():
    price = Price(1.0, 5.0, cached=0.1)
    listed, batch, cached = (
        economics.api_dollars_per_1k(price, 300, 5, **more) for more in ({}, {"batch": True}, {"tokens_cached": 200})
    )
    # 325; half of it; 100 · 1 + 200 · 0.1 + 25 = 145
    assert (listed, batch, cached) == pytest.approx((0.325, 0.1625, 0.145))


def test_a_machine_at_its_utilisation():
    # 1,000 · 0.36 ÷ (3,600 · 10 · 0.5) = 0.02
    assert economics.machine_dollars_per_1k(0.36, 10, 0.5) == pytest.approx(0.02)
    assert economics.electricity_dollars_per_hour(30, 0.25) == pytest.approx(0.0075)


def test_the_price_of_a_mistake():
    # (0.325 − 0.005) ÷ 1,000 ÷ 0.02 = 1.6 cents
    assert mistake_dollars(0.325, 0.005, 0.02) == pytest.approx(0.016)
    assert mistake_dollars(0.325, 0.005, 0.0) == mistake_dollars(0.325, 0.005, -0.01) == np.inf, "cheaper and better"
    assert mistake_dollars(0.005, 0.325, 0.01) == np.inf, "dearer and worse"


@pytest.mark.parametrize(
    ("teacher", "student", "gap", "words"),
    [
        (0.325, 0.005, 0.02, "above $ 0.016"), (0.005, 0.325, -0.02, "below $ 0.016"), (0.325, 0.005, 0.0, "at none"),
        (0.325, 0.005, -0.1, "at none"), (0.017, 0.06, 0.02, "at any"), (0.06, 0.06, 0.0, "at any"),
    ],
)  # fmt: skip
def test_when_the_teacher_stays_in_words(teacher, student, gap, words):
    assert economics.teacher_stays(teacher, student, gap) == words


def test_months_with_retraining():
    # 1,000 spent, 300 a month saved, a retraining of 600 every 4 months. Balances right after each of them:
    # −400, 200: so for good in the second life, when 1,000 + 600 are saved: 5.33 months.
    assert break_even_months(1000, 300, 600, 4) == pytest.approx(1600 / 300)
    assert break_even_months(1000, 300) == pytest.approx(1000 / 300)
    assert break_even_months(1000, 300, 1200, 4) == np.inf, "each life saves just what the next one costs"


def test_a_case_worked_by_hand():
    # One machine stands: 0.0816 · 730 = 59.568 a month, and 325 − 59.568 = 265.432 are saved of a million requests.
    found = case()
    assert found.student_dollars_per_month == pytest.approx(59.568)
    assert found.saved_dollars_per_month == pytest.approx(265.432)
    assert found.break_even_months == pytest.approx(600 / 265.432)
    # within 12 months: (600 ÷ 12 + 59.568) ÷ 0.325 thousand requests a month
    assert found.break_even_requests_per_month(12) == pytest.approx(337_132, rel=1e-4)
    # 10 % escalated: 0.325 · 0.9 = 0.2925 less 0.059568
    assert replace(found, escalated=0.1).saved_dollars_per_1k == pytest.approx(0.232932)
    # a mistake of a cent, two points more of them: 0.2 dollars per 1,000
    assert replace(found, mistake_dollars=0.01, accuracy_gap=0.02).saved_dollars_per_1k == pytest.approx(0.065432)


def test_a_machine_shared_with_other_work_costs_what_it_works():
    shared = case(standing=False, utilisation=0.5)
    assert shared.student_dollars_per_1k == pytest.approx(economics.machine_dollars_per_1k(HOUR, 4500, 0.5))


def test_one_billion_requests_on_paper():
    found = economics.on_paper(1e9, 730, 180, HOUR, 0.5)
    assert found["machines"] == 5  # 1e9 ÷ (3,600 · 180 · 0.5 · 730) = 4.23
    assert found["dollars"] == pytest.approx(5 * 730 * HOUR)
    assert found["machines_by"] == "⌈1,000,000,000 ÷ (3,600 · 180/s · 0.5 · 730 h)⌉"


tried = settings(max_examples=50, deadline=None)
positive = st.floats(1e-4, 1e4)
cases = st.builds(
    Case, teacher_dollars_per_1k=positive, requests_per_month=st.floats(1, 1e10), dollars_per_hour=positive,
    requests_per_second=positive, utilisation=st.floats(0.01, 1), standing=st.booleans(), escalated=st.floats(0, 1),
    gold_dollars=st.floats(0, 1e5), people_days=st.floats(0, 100), dollars_per_day=st.floats(0, 1000),
    upkeep_days_per_month=st.floats(0, 5), retrain_months=st.floats(0.5, 100), retraining_share=st.floats(0, 1),
    accuracy_gap=st.floats(-0.1, 0.1), mistake_dollars=st.floats(0, 10),
)  # fmt: skip


@tried
@given(cases, st.floats(1, 100), st.floats(1, 36))
def test_more_volume_never_raises_the_cost_of_a_request(one, more, months):
    bigger = replace(one, requests_per_month=one.requests_per_month * more)
    assert bigger.over(months) <= one.over(months) + 1e-9 * (1 + abs(one.over(months)))


@tried
@given(cases)
def test_a_teacher_that_is_asked_every_time_never_pays(one):
    asked = replace(one, escalated=1.0, mistake_dollars=0.0, people_days=1.0, dollars_per_day=100.0)
    assert asked.break_even_requests == asked.break_even_months == asked.break_even_requests_per_month(12) == np.inf


@tried
@given(positive, positive, st.floats(-1, 1))
def test_the_price_of_a_mistake_is_symmetric(one, other, gap):
    assert mistake_dollars(one, other, gap) == mistake_dollars(other, one, -gap)


@tried
@given(cases)
def test_at_its_price_of_a_mistake_nothing_is_saved(one):
    one = replace(one, upkeep_days_per_month=0.0)
    price = mistake_dollars(one.teacher_dollars_per_1k, one.dollars_per_1k, one.accuracy_gap)
    if price < 1e9:
        saved = replace(one, mistake_dollars=price).saved_dollars_per_1k
        assert abs(saved) <= 1e-6 * max(one.teacher_dollars_per_1k, one.dollars_per_1k)


@tried
@given(cases, st.floats(1, 36))
def test_at_the_break_even_volume_both_cost_the_same(one, months):
    volume = one.break_even_requests_per_month(months)
    if 0 < volume < 1e12:
        assert replace(one, requests_per_month=volume).over(months) == pytest.approx(one.teacher_dollars_per_1k)


@tried
@given(cases)
def test_from_its_month_on_a_case_stays_in_the_black(one):
    month = one.break_even_months
    saved, life = one.saved_dollars_per_month, one.retrain_months
    if month > 1e6:
        return

    def balance(at: float, rounds: int) -> float:
        return at * saved - one.spent_dollars * (1 + rounds * one.retraining_share)

    slack = 1e-6 * (1 + abs(balance(month, 0)) + one.spent_dollars)
    assert balance(month, int(month / life - 1e-9)) >= -slack
    first = int(np.ceil(month / life - 1e-9))
    assert all(balance(m * life, m) >= -slack - 1e-9 * m * life * saved for m in range(first, first + 5) if m)


@tried
@given(cases, st.lists(st.floats(0.5, 2), min_size=2, max_size=5))
def test_an_array_gives_what_its_numbers_give(one, factors):
    several = np.array(factors) * one.teacher_dollars_per_1k
    together = replace(one, teacher_dollars_per_1k=several)
    apart = [replace(one, teacher_dollars_per_1k=float(value)) for value in several]
    for name in ("over", "break_even_requests_per_month"):
        assert getattr(together, name)(12) == pytest.approx([getattr(each, name)(12) for each in apart])
    for name in ("break_even_months", "break_even_requests"):
        assert getattr(together, name) == pytest.approx([getattr(each, name) for each in apart])


def test_an_interval_holds_its_estimate_and_is_that_of_its_input():
    found = economics.spread(case(), {"teacher_dollars_per_1k": (0.3, 0.36)}, "saved_dollars_per_month")
    low, high = (1000 * value - 59.568 for value in (0.3, 0.36))  # of a property that is linear in it
    assert (found["low"], found["estimate"], found["high"]) == pytest.approx((low, 265.432, high), rel=0.01)
    assert found["never"] == 0


def test_an_interval_that_reaches_never_says_so():
    found = economics.spread(case(), {"teacher_dollars_per_1k": (0.01, 0.36)}, "break_even_months")
    assert found["high"] == np.inf and 0 < found["never"] < 0.5
    assert not np.isnan(list(found.values())).any()


def test_a_tornado_has_the_widest_swing_on_top():
    ranges = {"requests_per_second": (4000, 5000), "people_days": (0.5, 20), "teacher_dollars_per_1k": (0.05, 0.5)}
    found = economics.tornado(case(), ranges, "break_even_months")
    assert list(found["input"]) == ["teacher_dollars_per_1k", "people_days", "requests_per_second"]
    assert found["at_low"][0] == np.inf, "at five cents it never pays"
    assert found["at_low"][2] == found["at_high"][2], "one machine is enough"


def test_the_decision():
    dear, cheap = case(), case(teacher_dollars_per_1k=0.017)
    pairs = {"student": dear, "cascade": replace(dear, escalated=0.2)}
    assert economics.decide({"student": True, "cascade": True}, pairs, 12) == "DISTIL"
    assert economics.decide({"student": False, "cascade": True}, pairs, 12) == "CASCADE"
    assert economics.decide({"student": False, "cascade": False}, pairs, 12) == "KEEP THE TEACHER"
    assert economics.decide({"student": True, "cascade": True}, dict.fromkeys(pairs, cheap), 12) == "NOT FOR MONEY"


def test_amounts_to_read():
    told = [amount(35.294e6, "requests"), amount(np.inf, "months"), amount(2.26, "months"), amount(0.0), amount(123456)]
    assert told == ["35.3 million requests", "never", "2.26 months", "0", "123,456"]
    assert [economics.dollars(value) for value in (0.017, 9.89e-5)] == ["$ 0.017", "$ 0.0000989"]
    with refused("NaN"):
        amount(np.nan, "months")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("teacher_dollars_per_1k", 0), ("teacher_dollars_per_1k", -1.0), ("dollars_per_hour", 0.0),
        ("requests_per_second", 0), ("requests_per_second", np.nan), ("utilisation", 0.0), ("utilisation", 1.01),
        ("escalated", 1.5), ("escalated", np.array([0.1, np.nan])), ("requests_per_month", 0), ("people_days", -1),
        ("retrain_months", 0), ("retrain_months", np.inf), ("accuracy_gap", 2.0), ("mistake_dollars", "a cent"),
        ("standing", "yes"), ("dollars_per_day", [600]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(field, value):
    with refused(field):
        case(**{field: value})


@pytest.mark.parametrize(
    "call",
    [
        lambda: economics.machine_dollars_per_1k(0.1, 0, 0.5),
        lambda: economics.machine_dollars_per_1k(0.1, 10, 1.5),
        lambda: economics.api_dollars_per_1k(Price(1, 5), -1, 5),
        lambda: economics.api_dollars_per_1k(Price(1, 5), 100, 5, tokens_cached=200),
        lambda: break_even_requests(-1, 0.3),
        lambda: break_even_requests(600, float("nan")),
        lambda: break_even_months(600, np.array([1.0, np.nan])),
        lambda: mistake_dollars(0.3, 0.1, 1.5),
        lambda: economics.electricity_dollars_per_hour(0, 0.2),
        lambda: economics.on_paper(1e9, 0, 180, HOUR),
        lambda: case().over(0),
        lambda: economics.spread(case(), {"wage": (1, 2)}, "break_even_months"),
        lambda: economics.spread(case(), {"people_days": (2, 3)}, "break_even_months"),
        lambda: economics.tornado(case(), {"people_days": (1, 3)}, "profit"),
    ],
)
def test_bad_arguments_come_to_one_sentence(call):
    with refused():
        call()
