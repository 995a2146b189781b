"""What a student saves, when it pays, and what a mistake may cost: the formulas of money.

Units stand in the names: dollars are US dollars, `per_1k` is per 1,000 requests, rates are requests per second of one
machine or requests a month, shares lie in [0, 1]. The formulas take numbers or arrays of numbers, so that the same one
serves an estimate, its interval and a tornado. Whatever never pays is infinite; `amount` says "never". What can't be (a
price of 0, a utilisation above 1, NaN) raises WorkbenchError.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.errors import Number, Switch, WorkbenchError, checks, number, setting, unknown, whole

HOURS_PER_MONTH = 730.0
SECONDS_PER_HOUR = 3600.0
PRICE = Number(above=0, most=1e9, unit="dollars")
DOLLARS = Number(least=0, most=1e12, unit="dollars")
RATE = Number(above=0, most=1e12, unit="requests per second")
SHARE = Number(least=0, most=1)
UTILISATION = Number(above=0, most=1, unit="the share of its hours that a machine works")
REQUESTS = Number(above=0, most=1e15, unit="requests")
DAYS = Number(least=0, most=1e6, unit="days")
FOREVER = 1200.0  # months: a hundred years
MONTHS = Number(above=0, most=FOREVER, unit="months")
SAVED = Number(unit="dollars, below 0 where it costs more")
GAP = Number(least=-1, most=1, unit="a difference of accuracies")
DRAWS = 10_000


class Tokens(Protocol):
    """A model's price: `workbench.hosted.prices.Price`."""

    def dollars(self, read: float, written: float, cached: float = 0, *, batch: bool = False) -> float:
        """Of so many tokens."""


def api_dollars_per_1k(
    price: Tokens, tokens_read: float, tokens_written: float, tokens_cached: float = 0.0, *, batch: bool = False
) -> float:
    """Dollars per 1,000 requests of so many tokens each; those cached are among those read.

    By hand: 300 tokens read at $ 0.05 a million and 5 written at $ 0.40 are 15 + 2 dollars a million requests: 0.017.
    """
    tokens = Number(least=0, most=1e9, unit="tokens a request")
    read, written = tokens.check("tokens_read", tokens_read), tokens.check("tokens_written", tokens_written)
    cached = Number(least=0, most=read, unit="tokens, part of those read").check("tokens_cached", tokens_cached)
    return 1000 * price.dollars(read, written, cached, batch=batch)


def machine_dollars_per_1k(
    dollars_per_hour: ArrayLike, requests_per_second: ArrayLike, utilisation: ArrayLike = 1.0
) -> ArrayLike:
    """Dollars per 1,000 requests of a machine: 1,000 · $/h ÷ (3,600 · requests/s · utilisation).

    By hand: $ 0.36 per hour and 10 requests per second, busy half of the time, are 18,000 requests an hour: 0.02.
    """
    _check("dollars_per_hour", dollars_per_hour, PRICE)
    _check("requests_per_second", requests_per_second, RATE)
    _check("utilisation", utilisation, UTILISATION)
    return 1000 * dollars_per_hour / (SECONDS_PER_HOUR * requests_per_second * utilisation)


def machine_dollars_per_month(
    dollars_per_hour: ArrayLike, requests_per_month: ArrayLike, requests_per_second: ArrayLike,
    utilisation: ArrayLike = 1.0, standing: bool = True,
) -> ArrayLike:  # fmt: skip
    """Dollars a month of as many machines as the requests take, in parts; where one stands, at least of that one."""
    _check("requests_per_month", requests_per_month, REQUESTS)
    per_1k = machine_dollars_per_1k(dollars_per_hour, requests_per_second, utilisation)
    one = dollars_per_hour * HOURS_PER_MONTH if Switch().check("standing", standing) else 0.0
    return np.maximum(per_1k * requests_per_month / 1000, one)


def electricity_dollars_per_hour(watts: float, dollars_per_kwh: float) -> float:
    """What an hour of a device costs that is owned and would stand there anyway: its electricity."""
    watts = number("watts", watts, above=0, most=1e6)
    return watts / 1000 * PRICE.check("dollars_per_kwh", dollars_per_kwh)


def break_even_requests(spent_dollars: ArrayLike, saved_dollars_per_1k: ArrayLike) -> ArrayLike:
    """Requests after which what was spent is saved: 1,000 · spent ÷ saved; inf where nothing is saved.

    saved_dollars_per_1k is c_T − c_S − e·c_T, with e the share of requests that the teacher still answers. By hand: one
    engineer's day of $ 600 at $ 0.017 saved is paid after 35.3 million requests, at $ 0.325 after 1.85 million.
    """
    _check("spent_dollars", spent_dollars, DOLLARS)
    _check("saved_dollars_per_1k", saved_dollars_per_1k, SAVED)
    return _divided(1000 * np.asarray(spent_dollars, float), saved_dollars_per_1k)


def break_even_months(
    spent_dollars: ArrayLike, saved_dollars_per_month: ArrayLike,
    retraining_dollars: ArrayLike = 0.0, retrain_months: ArrayLike = FOREVER,
) -> ArrayLike:  # fmt: skip
    """Months from which on more has been saved than spent, for good: with retraining at R, 2R, … months.

    Right after the m-th retraining the balance is m·(R·saved − F) − spent, F what one costs, so that none later than
    m = ⌈spent ÷ (R·saved − F)⌉ takes it below 0 again: (spent + (m − 1)·F) ÷ saved months. inf where R·saved ≤ F, and
    beyond a hundred years.
    """
    _check("spent_dollars", spent_dollars, DOLLARS)
    _check("retraining_dollars", retraining_dollars, DOLLARS)
    _check("retrain_months", retrain_months, MONTHS)
    _check("saved_dollars_per_month", saved_dollars_per_month, SAVED)
    spent, saved = np.asarray(spent_dollars, float), np.asarray(saved_dollars_per_month, float)
    left = retrain_months * saved - retraining_dollars  # of what one model saves in its life, less the next one
    rounds = np.maximum(np.ceil(_divided(spent, left)), 1)
    with np.errstate(invalid="ignore"):  # inf · 0
        paid = spent + (rounds - 1) * retraining_dollars
    found = _divided(paid, saved)
    return _plain(np.where((left > 0) & (np.asarray(found) <= FOREVER), found, np.inf))


def mistake_dollars(
    teacher_dollars_per_1k: ArrayLike, student_dollars_per_1k: ArrayLike, accuracy_gap: ArrayLike
) -> ArrayLike:
    """Price of a mistake at which both cost the same, in dollars: k* = (c_T − c_S) ÷ 1,000 ÷ (acc_T − acc_S).

    Above it the more accurate of the two is the cheaper. inf where there is no such price, since one is both no dearer
    and no less accurate. Swapping the two, and with them the sign of the gap, changes nothing. By hand: $ 0.325 against
    $ 0.005 and two points of accuracy are 0.00032 ÷ 0.02: 1.6 cents.
    """
    _check("accuracy_gap", accuracy_gap, GAP)
    _check("teacher_dollars_per_1k", teacher_dollars_per_1k, DOLLARS)
    _check("student_dollars_per_1k", student_dollars_per_1k, DOLLARS)
    dearer = (np.asarray(teacher_dollars_per_1k, float) - student_dollars_per_1k) / 1000
    return _divided(dearer * np.sign(accuracy_gap), np.abs(accuracy_gap), positive=True)


def teacher_stays(teacher_dollars_per_1k: float, student_dollars_per_1k: float, accuracy_gap: float) -> str:
    """At which prices of a mistake the teacher is the cheaper, in words: "above $ 0.016", "at any", "at none"."""
    price = mistake_dollars(teacher_dollars_per_1k, student_dollars_per_1k, accuracy_gap)
    if np.isfinite(price):
        return f"{'above' if accuracy_gap > 0 else 'below'} {dollars(price)}"
    return "at any" if accuracy_gap >= 0 and teacher_dollars_per_1k <= student_dollars_per_1k else "at none"


@dataclass(frozen=True)
class Case:
    """A student, or a student with its teacher behind it, in the place of a teacher alone: a business case.

    Attributes:
        teacher_dollars_per_1k: what 1,000 requests of the teacher cost in production.
        requests_per_month: the volume.
        dollars_per_hour: of the machine that the student runs on.
        requests_per_second: of the student on that machine, measured.
        utilisation: the most that a machine is loaded, in (0, 1]: traffic comes in waves.
        standing: whether at least one machine is paid day and night. If not, other work fills it, or the time used is
            all that is paid.
        escalated: share of requests that the teacher still answers.
        labelling_dollars: the teacher's, for the transfer set.
        gold_dollars: for labels by people.
        training_dollars: for machines.
        people_days: of work until the student is in place.
        dollars_per_day: of a person.
        upkeep_days_per_month: of work to watch over it.
        retrain_months: months that a student lasts.
        retraining_share: what a retraining costs, as a share of the first effort.
        accuracy_gap: the teacher's accuracy less that of what replaces it.
        mistake_dollars: what a wrong answer costs.
    """

    teacher_dollars_per_1k: ArrayLike = field(metadata={"check": PRICE})
    requests_per_month: ArrayLike = field(metadata={"check": REQUESTS})
    dollars_per_hour: ArrayLike = field(metadata={"check": PRICE})
    requests_per_second: ArrayLike = field(metadata={"check": RATE})
    utilisation: ArrayLike = setting(0.5, UTILISATION)
    standing: bool = True
    escalated: ArrayLike = setting(0.0, SHARE)
    labelling_dollars: ArrayLike = setting(0.0, DOLLARS)
    gold_dollars: ArrayLike = setting(0.0, DOLLARS)
    training_dollars: ArrayLike = setting(0.0, DOLLARS)
    people_days: ArrayLike = setting(0.0, DAYS)
    dollars_per_day: ArrayLike = setting(0.0, DOLLARS)
    upkeep_days_per_month: ArrayLike = setting(0.0, DAYS)
    retrain_months: ArrayLike = setting(FOREVER, MONTHS)
    retraining_share: ArrayLike = setting(0.0, SHARE)
    accuracy_gap: ArrayLike = setting(0.0, GAP)
    mistake_dollars: ArrayLike = setting(0.0, DOLLARS)

    def __post_init__(self) -> None:
        """Refuse what can't be, at either end of an array."""
        for name, limits in checks(Case).items():
            _check(name, getattr(self, name), limits)
        Switch().check("standing", self.standing)

    @property
    def student_dollars_per_month(self) -> ArrayLike:
        """Of machines: as many as it takes, and at least one where it stands."""
        machine = self.dollars_per_hour, self.requests_per_month, self.requests_per_second
        return machine_dollars_per_month(*machine, self.utilisation, self.standing)

    @property
    def student_dollars_per_1k(self) -> ArrayLike:
        """The same, per 1,000 requests, whoever answers them: in a cascade the student is always asked."""
        return 1000 * self.student_dollars_per_month / self.requests_per_month

    @property
    def dollars_per_1k(self) -> ArrayLike:
        """c_S + e·c_T: what 1,000 requests cost once all is in place, mistakes and people left out."""
        return self.student_dollars_per_1k + self.escalated * np.asarray(self.teacher_dollars_per_1k, float)

    @property
    def spent_dollars(self) -> ArrayLike:
        """Before the first request."""
        people = self.people_days * np.asarray(self.dollars_per_day, float)
        return self.labelling_dollars + self.gold_dollars + self.training_dollars + people

    @property
    def saved_dollars_per_1k(self) -> ArrayLike:
        """c_T − c_S − e·c_T, less what more mistakes and upkeep cost."""
        worse = 1000 * self.accuracy_gap * np.asarray(self.mistake_dollars, float)
        upkeep = self.upkeep_days_per_month * np.asarray(self.dollars_per_day, float)
        return self.teacher_dollars_per_1k - self.dollars_per_1k - worse - 1000 * upkeep / self.requests_per_month

    @property
    def saved_dollars_per_month(self) -> ArrayLike:
        """At the stated volume, retraining left out."""
        return self.saved_dollars_per_1k * self.requests_per_month / 1000

    @property
    def break_even_requests(self) -> ArrayLike:
        """Requests until it has paid, without retraining; inf: never."""
        return break_even_requests(self.spent_dollars, self.saved_dollars_per_1k)

    @property
    def break_even_months(self) -> ArrayLike:
        """Months until it has paid for good, retraining included; inf: never."""
        again = self.retraining_share * np.asarray(self.spent_dollars, float)
        return break_even_months(self.spent_dollars, self.saved_dollars_per_month, again, self.retrain_months)

    def over(self, months: float) -> ArrayLike:
        """Dollars per 1,000 requests over so many months, with all that is spent; more volume never raises it."""
        months = MONTHS.check("months", months)
        due = 1000 * self.due_dollars(months) / (months * np.asarray(self.requests_per_month, float))
        return self.teacher_dollars_per_1k - self.saved_dollars_per_1k + due

    def due_dollars(self, months: float) -> ArrayLike:
        """What is spent within so many months: at the start, and on each retraining that falls before their end."""
        again = np.ceil(months / np.asarray(self.retrain_months, float)) - 1
        return self.spent_dollars * (1 + again * self.retraining_share)

    def break_even_requests_per_month(self, months: float) -> ArrayLike:
        """The volume at which it has paid after so many months; inf: never, however many requests there are."""
        months = MONTHS.check("months", months)
        due = self.due_dollars(months) / months + self.upkeep_days_per_month * np.asarray(self.dollars_per_day, float)
        one = self.dollars_per_hour * HOURS_PER_MONTH if self.standing else 0.0
        loaded = machine_dollars_per_1k(self.dollars_per_hour, self.requests_per_second, self.utilisation)
        gross = (1 - np.asarray(self.escalated, float)) * self.teacher_dollars_per_1k
        gross = gross - 1000 * self.accuracy_gap * np.asarray(self.mistake_dollars, float)
        # Machines cost the larger of one that stands and those that are loaded: both have to be earned.
        return np.maximum(break_even_requests(due + one, gross), break_even_requests(due, gross - loaded))


Ranges = Mapping[str, tuple[float, float]]


def spread(case: Case, ranges: Ranges, what: str, *, seed: int = 0) -> dict[str, float]:
    """Estimate and 95 % interval of a property of the case, from those of its inputs: estimate, low, high, never.

    Each input in `ranges` (name -> its 95 % interval, which holds the case's own value) is drawn 10,000 times from a
    normal as wide to either side as its interval, apart from the others; never: the share in which it never pays.

    Raises:
        WorkbenchError: an input or a property that isn't there, or an interval that doesn't hold the case's value.
    """
    _known(case, ranges, what)
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, (low, high) in ranges.items():
        z, centre = rng.standard_normal(DRAWS) / 1.96, getattr(case, name)
        value = centre + z * np.where(z > 0, high - centre, centre - low)
        limits = checks(Case)[name]
        drawn[name] = np.clip(value, centre / 1000 if limits.least is None else limits.least, limits.most)
    values = np.broadcast_to(getattr(replace(case, **drawn), what), DRAWS)
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")  # between two infinities there is no number
    never = float(np.isinf(values).mean())
    return {"estimate": float(getattr(case, what)), "low": float(low), "high": float(high), "never": never}


def tornado(case: Case, ranges: Ranges, what: str) -> pd.DataFrame:
    """What an answer hangs on: a property of the case with one input at a time at either end of its range.

    Columns input, low, high (the ends), at_low, at_high (the property there); the widest swing comes first. Raises
    WorkbenchError like `spread`.
    """
    _known(case, ranges, what)
    rows = []
    for name, ends in ranges.items():
        at = [float(getattr(replace(case, **{name: float(end)}), what)) for end in ends]
        rows.append({"input": name, "low": ends[0], "high": ends[1], "at_low": at[0], "at_high": at[1]})
    table = pd.DataFrame(rows)
    with np.errstate(invalid="ignore"):
        swing = (table["at_high"] - table["at_low"]).abs().fillna(0.0)  # from never to never
    return table.loc[swing.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def on_paper(
    requests: float, hours: float, requests_per_second: float, dollars_per_hour: float, utilisation: float = 1.0
) -> dict[str, float | str]:
    """Machines and dollars for so many requests within so many hours: machines, machines_by, dollars, dollars_by.

    The two `_by` are the formulas with their numbers. Machines are whole and paid for all of the hours.
    """
    REQUESTS.check("requests", requests), RATE.check("requests_per_second", requests_per_second)
    PRICE.check("dollars_per_hour", dollars_per_hour), UTILISATION.check("utilisation", utilisation)
    hours = number("hours", hours, above=0, most=1e6, unit="hours")
    machines = int(np.ceil(requests / (SECONDS_PER_HOUR * requests_per_second * utilisation * hours)))
    one = f"{SECONDS_PER_HOUR:,.0f} · {requests_per_second:,.0f}/s · {utilisation:g} · {hours:,.0f} h"
    return {
        "machines": machines,
        "machines_by": f"⌈{requests:,.0f} ÷ ({one})⌉",
        "dollars": machines * hours * dollars_per_hour,
        "dollars_by": f"{machines:,} · {hours:,.0f} h · $ {dollars_per_hour:.3g}",
    }


def decide(holds: Mapping[str, bool], cases: Mapping[str, Case], months: int) -> str:
    """DISTIL, CASCADE, NOT FOR MONEY or KEEP THE TEACHER, for ways called "student" and "cascade".

    A way must hold the quality (`holds`) and pay within so many months; of two the one that saves more a month.
    NOT FOR MONEY where the quality holds and nothing pays: reasons other than money may still speak for it.
    """
    months = whole("months", months, 1, 1200)
    able = [way for way in cases if holds[way]]
    if not able:
        return "KEEP THE TEACHER"
    paying = [way for way in able if cases[way].break_even_months <= months]
    if not paying:
        return "NOT FOR MONEY"
    best = max(paying, key=lambda way: float(cases[way].saved_dollars_per_month))
    return {"student": "DISTIL", "cascade": "CASCADE"}[best]


def amount(value: float, unit: str = "") -> str:
    """A number to read: "35.3 million requests"; "never" where it is infinite."""
    if np.isnan(value):
        raise WorkbenchError(f"There is no number of {unit or 'them'}: it came out as NaN.")
    if np.isinf(value):
        return "never"
    size, name = next((pair for pair in ((1e9, " billion"), (1e6, " million")) if abs(value) >= pair[0]), (1, ""))
    few = abs(value / size) < 1000
    told = np.format_float_positional(value / size, 3, fractional=False, trim="-") if few else f"{value / size:,.0f}"
    return f"{told}{name} {unit}".rstrip()


def dollars(value: float) -> str:
    """Dollars to read: "$ 0.017", "$ 1.9 million"."""
    return f"$ {amount(value)}"


def _check(name: str, value: ArrayLike, limits: Number) -> None:
    """A number, or both ends of an array of them."""
    several = isinstance(value, np.ndarray) and value.size
    for end in (np.min(value), np.max(value)) if several else (value,):
        limits.check(name, end)


def _plain(value: np.ndarray) -> ArrayLike:
    return value.item() if np.ndim(value) == 0 else value


def _divided(amount: ArrayLike, by: ArrayLike, positive: bool = False) -> ArrayLike:
    """A quotient; inf where the divisor (or, if wanted, the quotient) isn't above 0."""
    amount, by = np.broadcast_arrays(np.asarray(amount, float), np.asarray(by, float))
    good = (by > 0) & ((amount > 0) | (not positive))
    with np.errstate(over="ignore"):
        return _plain(np.divide(amount, by, out=np.full(by.shape, np.inf), where=good))


def _known(case: Case, ranges: Ranges, what: str) -> None:
    for name, ends in ranges.items():
        if name not in checks(Case):
            raise unknown("input", name, checks(Case))
        if not ends[0] <= getattr(case, name) <= ends[1]:
            told = f"{ends[0]:g} to {ends[1]:g}"
            raise WorkbenchError(f"{name} is {getattr(case, name):g}, outside {told}: give an interval around it.")
    outcomes = {name for name, value in vars(type(case)).items() if isinstance(value, property)}
    if what not in outcomes:
        raise unknown("outcome", what, outcomes)
