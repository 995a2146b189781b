"""What to buy next: labels, texts, a better teacher or a larger student, by a law that a few runs were fitted to.

The law is a plane in logs, error = A · labels^-a · texts^-b · parameters^-c · (the teacher's error)^d, with no exponent
below 0: more of anything never harms. Error falls as powers of rows and parameters (arXiv 1712.00409), and of what the
teacher loses (arXiv 2502.08606). Its one idea: a law has to earn belief. `held_out` hides the corner of the runs that
has the most of everything; where the nearest run or the best teacher's own accuracy foretells it better, `advice` says
so and leaves the runs to speak. Bands say how sure the fit is, not whether a law of this form is true.

`runs` are tables of a row a run: the columns of `FACTORS`, and accuracy, a fraction of test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import nnls

from workbench.errors import SEED, Number, Text, WorkbenchError, number, setting, settle, shown, unknown, whole

COUNT = Number(least=1, most=1e15)
FACTORS = {"labels": COUNT, "texts": COUNT, "parameters": COUNT, "teacher": Number(least=0, most=1)}
DOLLARS = Number(above=0, most=1e12, unit="dollars")
LEAST_ERROR = 1e-3  # of a student or a teacher: below it is chance, and 0 has no logarithm
FAR = 2.0  # times the range of the runs, in logs, beyond which nothing is foretold


@dataclass(frozen=True)
class Offer:
    """Something to buy.

    Attributes:
        name: of it.
        dollars: what it costs, all that it makes necessary included.
        to: factors -> what they are afterwards; `teacher` is its accuracy, a fraction.
    """

    name: str = setting(None, Text())
    dollars: float = setting(None, DOLLARS)
    to: Mapping[str, float] = None

    def __post_init__(self) -> None:
        settle(self)
        if not isinstance(self.to, Mapping) or not self.to:
            raise WorkbenchError(f"{self.name} changes {shown(self.to)}: give factors with what they are afterwards.")


@dataclass(frozen=True, eq=False)
class Law:
    """A fitted one; `fit` makes it.

    Attributes:
        exponents: factor -> its exponent (≥ 0), of the factors that vary in the runs.
        offset: log of the error where all sizes are 0.
        draws: the same refitted, ``[B, 1 + K]``: offset, then exponents.
        ends: factor -> its least and largest size in the runs; see `size`.
        level: of the tail of `draws` on each side that leaves a band of 95 %.
    """

    exponents: dict[str, float]
    offset: float
    draws: np.ndarray
    ends: dict[str, tuple[float, float]]
    level: float

    def errors(self, at: Mapping[str, float]) -> tuple[float, np.ndarray]:
        """The expected error at these values, and as each refit has it ``[B]``; fractions, at most 1."""
        x = np.array([size(name, at.get(name)) for name in self.exponents])
        found = np.exp(self.offset - x @ np.array([*self.exponents.values()]))
        return min(float(found), 1.0), np.minimum(np.exp(self.draws[:, 0] - self.draws[:, 1:] @ x), 1.0)

    def accuracy(self, at: Mapping[str, float]) -> tuple[float, float, float]:
        """The expected accuracy at these values, with the ends of its band; fractions."""
        error, drawn = self.errors(at)
        return 1 - error, *self.band(1 - drawn)

    def band(self, drawn: np.ndarray) -> tuple[float, float]:
        """The ends that hold 95 % of what was refitted, wider the fewer the runs (arXiv 1411.5279)."""
        low, high = np.quantile(drawn, [self.level, 1 - self.level])
        return float(low), float(high)

    def beyond(self, at: Mapping[str, float]) -> bool:
        """Whether these values lie so far outside the runs that the law says nothing of them."""
        for name, (low, high) in self.ends.items():
            reach = FAR * max(high - low, 1e-9)
            if not high - reach <= size(name, at.get(name)) <= low + reach:
                return True
        return False


def size(name: str, value: float) -> float:
    """A factor as the law counts it: the log of a number, and minus the log of a teacher's error."""
    if name not in FACTORS:
        raise unknown("factor", name, FACTORS)
    value = FACTORS[name].check(name, value)
    return float(-np.log(max(1 - value, LEAST_ERROR)) if name == "teacher" else np.log(value))


def fit(runs: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> Law:
    """The law of these runs, by least squares of log errors.

    It is refitted `draws` times with the residuals of each cell (runs alike but for their seeds) kept or turned around
    together (wild cluster bootstrap), so that what the law doesn't fit widens its bands like noise does. Residuals are
    first made as large as they would be, had the cell been left out.

    Raises:
        WorkbenchError: too few cells for the factors that vary, or values that are none.
    """
    x, y, cell = _design(runs)
    names = [name for name, column in zip(FACTORS, x.T, strict=True) if np.ptp(column) > 1e-9]
    x, m = x[:, [[*FACTORS].index(name) for name in names]], int(cell.max()) + 1
    spare = m - len(names) - 1
    if not names or spare < 1:
        told = f"{m} kinds of runs vary {len(names)} of {', '.join(FACTORS)}"
        raise WorkbenchError(f"{told}: a law needs at least two kinds more than it has factors.")
    offset, slopes = _solve(x, y)
    fitted = offset - x @ slopes
    residual = (y - fitted) / (1 - _leverage(x, cell))
    signs = np.random.default_rng(SEED.check("seed", seed)).choice([-1, 1], (whole("draws", draws, 100, 100_000), m))
    drawn = np.array([np.r_[_solve(x, fitted + residual * sign[cell])] for sign in signs])
    ends = {name: (float(column.min()), float(column.max())) for name, column in zip(names, x.T, strict=True)}
    level = float(stats.norm.cdf(stats.t.ppf(0.025, spare)))
    return Law(dict(zip(names, slopes.tolist(), strict=True)), offset, drawn, ends, level)


def held_out(runs: pd.DataFrame) -> pd.DataFrame:
    """What foretells the corner that has the most of everything, from all other runs: a row a way.

    Ways are the law, the nearest run, and the best teacher (its student is as good as it is). Columns foretold and
    found (accuracies, fractions) and off (their distance).
    """
    x, y, cell = _design(runs)
    spread = x.std(0)
    z = (x - x.mean(0))[:, spread > 1e-9] / spread[spread > 1e-9]
    corner = cell == cell[np.argmax(z.sum(1))]
    rest = np.flatnonzero(~corner)
    if not len(rest):
        raise WorkbenchError("All runs are of one kind: there is no corner to hold out.")
    near = rest[np.argmin(((z[rest] - z[corner][0]) ** 2).sum(1))]
    accuracy, at = runs["accuracy"].to_numpy(float), runs.iloc[int(np.argmax(corner))]
    ways = {
        "the law": fit(runs[~corner], draws=100).accuracy(at)[0],
        "the nearest run": accuracy[cell == cell[near]].mean(),
        "the best teacher": runs["teacher"].max(),
    }
    table = pd.DataFrame({"foretold": ways, "found": accuracy[corner].mean()}).rename_axis("by")
    return table.assign(off=(table["foretold"] - table["found"]).abs())


def earned(table: pd.DataFrame, least: float = 0.5) -> bool:
    """Whether the law of a `held_out` foretells the corner better than both rivals, or within half of `least` points.

    `least` is what counts as a gain; at the ceiling everything foretells alike.
    """
    off = table["off"]
    return bool(off["the law"] < off.drop("the law").min() or off["the law"] <= number("least", least, 0, 100) / 200)


def purchases(law: Law, here: Mapping[str, float], offers: Sequence[Offer]) -> pd.DataFrame:
    """What each offer gains over what one has, the most points for a dollar first.

    Columns offer, dollars, points (of accuracy), low, high, points_per_dollar, with _low and _high, and beyond: too far
    from the runs to be foretold, with NaN for numbers. A factor that didn't vary in the runs is beyond as well.
    """
    before, drawn = law.errors(here)
    rows = []
    for offer in offers:
        after = {**here, **offer.to}
        for name, value in offer.to.items():
            size(name, value)
        row = {"offer": offer.name, "dollars": offer.dollars}
        if offer.to.keys() - law.exponents or law.beyond(after):
            rows.append(row | dict.fromkeys(("points", "low", "high"), np.nan) | {"beyond": True})
            continue
        error, refitted = law.errors(after)
        low, high = law.band(100 * (drawn - refitted))
        rows.append(row | {"points": 100 * (before - error), "low": low, "high": high, "beyond": False})
    table = pd.DataFrame(rows)
    for name, column in {"": "points", "_low": "low", "_high": "high"}.items():
        table[f"points_per_dollar{name}"] = table[column] / table["dollars"]
    return table.sort_values("points_per_dollar", ascending=False, ignore_index=True)


def advice(table: pd.DataFrame, corner: pd.DataFrame, least: float = 0.5) -> str:
    """In a sentence: what to buy, that nothing gains `least` points, or that the runs can't tell.

    Args:
        table: of `purchases`.
        corner: of `held_out`.
        least: points of accuracy below which a gain is none.
    """
    off = 100 * corner["off"]
    if not earned(corner, least):
        better = off.drop("the law").idxmin()
        told = f"it missed the held-out corner by {off['the law']:.1f} points, {better} by {off[better]:.1f}"
        return f"The law is not to be believed ({told}): look at the runs alone."
    known = table[~table["beyond"]]
    if known.empty:
        return "The runs say nothing of these offers: make some that vary what is to be bought."
    if (known["high"] < least).all():
        told = f"no offer gains {least:g} points, {known['high'].max():.1f} at most"
        return f"Nothing: the task is at its ceiling ({told})."
    sure = known[known["low"].round(1) > 0]
    if sure.empty or sure["points"].max() < least:
        return (
            f"The runs can't tell: no offer surely gains anything, and {known['high'].max():.1f} points are possible."
        )
    row = sure[sure["points"] >= least].iloc[0]
    gain = f"{row['points']:+.1f} points ({row['low']:+.1f} to {row['high']:+.1f})"
    return f"Buy {row['offer']}: {gain} for $ {row['dollars']:,.0f}, the most for a dollar."


def _solve(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Offset and exponents (≥ 0) of log errors."""
    slopes, _ = nnls(x.mean(0) - x, y - y.mean())
    return float(y.mean() + x.mean(0) @ slopes), slopes


def _leverage(x: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """How far each run's cell draws the fit to itself ``[N]``, in [0, 0.95]."""
    full = np.c_[np.ones(len(x)), x - x.mean(0)]
    own = np.einsum("nk,kl,nl->n", full, np.linalg.pinv(full.T @ full), full)
    return np.minimum(own * np.bincount(cell)[cell], 0.95)


def _design(runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes ``[N, F]``, log errors ``[N]`` and the cell of each run ``[N]``."""
    if lost := [name for name in (*FACTORS, "accuracy") if name not in runs]:
        raise WorkbenchError(f"The runs have no column {lost[0]}: give {', '.join(FACTORS)} and accuracy.")
    if not len(runs):
        raise WorkbenchError("There are no runs: make some that vary what is to be bought.")
    x = np.array([[size(name, value) for value in runs[name]] for name in FACTORS]).T
    right = [number("accuracy", value, 0, 1) for value in runs["accuracy"]]
    _, cell = np.unique(x.round(9), axis=0, return_inverse=True)
    return x, np.log(np.maximum(1 - np.array(right), LEAST_ERROR)), cell.ravel()
