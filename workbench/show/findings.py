"""What a figure shows, in a sentence made of its own numbers: the title it gets where the caller has no better one.

The idea: a title that names a topic leaves the work to the reader, and one that is typed can lie when the numbers
change. Tables are those of `figures`; fractions come in, % and points come out.
"""

from __future__ import annotations  # pandas takes a second to import, and what publishes needs `PLAIN` alone

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MAIN, RIVAL, TEACHER = "distilled", "labels only", "teacher"
SAVED = {"bytes": "size", "p50_ms": "latency", "rows_per_second": "throughput"}
PLAIN = {  # verdicts in plain words
    "BEATS": "better", "WORSE": "worse", "EQUIVALENT": "equal within the margin", "INCONCLUSIVE": "not settled",
    "REPLACES": "it can take over", "DOES NOT REPLACE": "it can't take over",
    "NOT SHOWN TO REPLACE": "it isn't shown that it can take over", "DISTIL": "distil", "CASCADE": "cascade",
    "KEEP THE TEACHER": "keep the teacher", "NOT FOR MONEY": "not for money",
}  # fmt: skip


def of_arms(estimates: pd.DataFrame, verdicts: pd.DataFrame | None) -> str:
    """What distillation adds to the labels, or else which arm is highest, and whether any difference is shown."""
    decided = {} if verdicts is None else {(v["arm"], v["baseline"]): v for v in verdicts.to_dict("records")}
    gain, against = decided.get((MAIN, RIVAL)), decided.get((MAIN, TEACHER))
    if gain is not None:
        points = f"{abs(100 * gain['estimate']):.1f} points"
        said = {"BEATS": f"Distillation adds {points} to labels only",
                "WORSE": f"Distillation loses {points} against labels only",
                "EQUIVALENT": "Distillation adds nothing to labels only"}  # fmt: skip
        first = said.get(gain["verdict"], f"Distillation isn't shown to add to labels only ({signed(gain)} points)")
        return first + (f"; {signed(against)} against its teacher" if against is not None else "")
    ranked = estimates.sort_values("estimate", ascending=False, kind="stable")
    top, low = ranked.iloc[0], ranked.iloc[-1]
    highest = f"{top['arm']} {100 * top['estimate']:.1f} %"
    if len(ranked) == 1:
        return highest
    if decided and all(v["verdict"] in ("INCONCLUSIVE", "EQUIVALENT") for v in decided.values()):
        return f"No difference is shown: {highest}, {low['arm']} {100 * low['estimate']:.1f} %"
    return f"Highest: {highest}; lowest: {low['arm']} {100 * low['estimate']:.1f} %"


def of_differences(table: pd.DataFrame) -> str:
    """How many of the declared pairs differ."""
    shown = table[table["verdict"].isin(["BEATS", "WORSE"])]
    if not len(shown):
        return f"None of {len(table)} differences is shown"
    most = shown.iloc[int(shown["estimate"].abs().to_numpy().argmax())]  # an index may come twice
    return f"{len(shown)} of {len(table)} differences are shown, the largest {signed(most)} points"


def of_curves(ends: Mapping[str, float]) -> str:
    """Where the highest and the lowest curve end, in %."""
    return _extremes("At the last step:", ends) if ends else "No step that all seeds reached"


def of_agreement(shares: Mapping[str, float]) -> str:
    """Which arm follows the teacher most and which least, in %."""
    followers = {arm: share for arm, share in shares.items() if arm != TEACHER}
    return _extremes("Agreement with the teacher:", followers) if followers else "There is the teacher alone"


def of_dose(table: pd.DataFrame, label: str) -> str:
    """From where to where the main arm goes along the axis."""
    arms = list(dict.fromkeys(table["arm"]))
    arm = MAIN if MAIN in arms else arms[0]
    line = table[table["arm"] == arm].sort_values("x")
    ends = [f"{100 * row['estimate']:.1f} % at {row['x']:,g}" for row in (line.iloc[0], line.iloc[-1])]
    return f"{arm}: {' and '.join(ends if len(line) > 1 else ends[:1])} {label}"


def of_softness(found: Mapping[str, np.ndarray], grid: np.ndarray) -> str:
    """The mean entropy of the first model's labels at two temperatures of the grid."""
    name, entropy = next(iter(found.items()))
    low, high = (float(entropy[np.argmin(abs(grid - t))].mean()) for t in (1.0, 4.0))
    return f"Labels of {name} hold {low:.2f} nats at T = 1 and {high:.2f} at T = 4"


def of_similarity(table: np.ndarray, names: list[str]) -> str:
    """The two classes of which one gets most of the other's rest."""
    if np.isnan(table).all():
        return "No class is confused with another"
    row, column = np.unravel_index(np.nanargmax(table), table.shape)
    return f"Of “{names[row]}”, {100 * table[row, column]:.0f} % goes to “{names[column]}”"


def of_trade(table: pd.DataFrame, cost: str = "latency_ms", said: str = "in {:.2g} ms") -> str:
    """The accuracy of the best model and of the teacher, and a column of what they cost, as it is said."""
    rows = table.set_index("name")
    best = rows["accuracy"].idxmax()
    shown = [best, *([TEACHER] if TEACHER in rows.index and best != TEACHER else [])]
    told = (f"{name} {100 * rows.loc[name, 'accuracy']:.1f} % {said.format(rows.loc[name, cost])}" for name in shown)
    return "Highest: " + "; ".join(told)


def of_confidence(before: Mapping[str, float], after: Mapping[str, float] | None) -> str:
    """How far confidence and accuracy lie apart, in points, or what one temperature makes of it."""
    worst = max(before, key=lambda name: before[name])
    if after:
        ends = f"from {before[worst]:.1f} to {after[worst]:.1f} %"
        return f"One temperature takes the calibration error of {worst} {ends}"
    best = min(before, key=lambda name: before[name])
    least = f", of {best} by {before[best]:.1f}" if best != worst else ""
    return f"The confidence of {worst} is off by {before[worst]:.1f} points{least}"


def of_flips(table: pd.DataFrame) -> str:
    """The mean over classes of what gets worse and better."""
    worse, better = (100 * table[column].mean() for column in ("negative", "positive"))
    return f"{worse:.1f} % get worse with the student, {better:.1f} % better (mean over classes)"


def of_refusals(chosen: Mapping[str, tuple[float, float]]) -> str:
    """What the main model refuses at its threshold, in % in and out of scope."""
    name = MAIN if MAIN in chosen else next(iter(chosen))
    inside, outside = chosen[name]
    return f"{name} refuses {outside:.0f} % of out-of-scope texts and {inside:.0f} % of the others"


def of_slices(tables: Mapping[str, pd.DataFrame]) -> str:
    """The slice in which the main arm is weakest."""
    arms = {arm for table in tables.values() for arm in table["arm"]}
    arm = MAIN if MAIN in arms else next(iter(tables.values()))["arm"].iloc[0]
    own = ((cut, row) for cut, table in tables.items() for row in table.to_dict("records") if row["arm"] == arm)
    cut, worst = min(own, key=lambda part: part[1]["estimate"])
    return f"{arm} is weakest, at {100 * worst['estimate']:.0f} %, in the slice {worst['slice']} of “{cut}”"


def of_cell(name: object, x: str, value: object, score: float) -> str:
    """The best cell of a map, in %; `value` is None where x plays no part in it."""
    at = "" if value is None else f" at {x} {f'{value:g}' if np.isreal(value) else value}"
    return f"Best: {name}{at}, {score:.1f} %"


def of_costs(table: pd.DataFrame) -> str:
    """The levels whose difference to the reference is told from zero."""
    shown = table[(table["low"] > 0) | (table["high"] < 0)]
    told = [f"{row['factor']} = {row['level']} ({signed(row)} points)" for row in shown.to_dict("records")]
    return f"Told from zero: {', '.join(told)}" if told else "No choice makes a difference that is told from zero"


def of_decision(found: Mapping[str, object], margin: float) -> str:
    """What is lost at worst, and what that decides."""
    worst = signed({"estimate": found["low"]})
    return f"At worst {worst} points, {100 * margin:g} may be lost: {PLAIN.get(found['decided'], 'no decision')}"


def of_gap(found: Mapping[str, float]) -> str:
    """The share of the way to the teacher, if its lead is one."""
    if not np.isfinite([found["low"], found["high"]]).all():
        return "The teacher's lead isn't told from none: there is no gap to close"
    estimate, low, high = (100 * found[key] for key in ("estimate", "low", "high"))
    return f"{MAIN} goes {estimate:.0f} % of the way from {RIVAL} to {TEACHER} ({low:.0f} to {high:.0f})"


def of_savings(times: pd.Series) -> str:
    """How many times smaller and quicker than its teacher the model is that names the series, and how much busier."""
    told = {what: f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for what, value in times.items()}
    parts = [f"{told[column]} times the {what}" if column == "rows_per_second" else f"1/{told[column]} of the {what}"
             for column, what in SAVED.items() if np.isfinite(times[column])]  # fmt: skip
    return f"{times.name}: {', '.join(parts)}" if parts else "What the teacher takes isn't known"


def of_break_even(table: pd.DataFrame) -> str:
    """From how many requests per month on the first arm beside the teacher costs less."""
    wide = table.pivot(index="requests_per_month", columns="arm", values="dollars")
    arm = next((name for name in table["arm"] if name != TEACHER), TEACHER)
    if TEACHER not in wide or arm == TEACHER:
        return f"{arm} costs {wide[arm].iloc[-1]:.2g} to {wide[arm].iloc[0]:.2g} dollars per 1,000 requests"
    lead, at = np.log(wide[TEACHER] / wide[arm]).to_numpy(), np.log(wide.index.to_numpy(float))
    if not (lead > 0).any():
        return f"{arm} never costs less than the teacher"
    first = int((lead > 0).argmax())
    start = np.interp(0, lead[first - 1 : first + 1], at[first - 1 : first + 1]) if first else at[0]
    return f"{arm} costs less than the teacher from {float(f'{np.exp(start):.3g}'):,.0f} requests per month on"


def of_tornado(table: pd.DataFrame, unit: str) -> str:
    """The input on which most depends, and the outcome at its ends."""
    row = table.iloc[0]
    ends = (f"{f'{row[out]:.3g}' if np.isfinite(row[out]) else 'never'} at {row[end]:.3g}"
            for end, out in (("low", "at_low"), ("high", "at_high")))  # fmt: skip
    return f"Most depends on {row['input']}: {', '.join(ends)} ({unit})"


def of_perplexities(means: Mapping[str, float], apart: str | None = TEACHER) -> str:
    """Which arm is lowest and which highest, but for one."""
    arms = {arm: value for arm, value in means.items() if arm != apart} or dict(means)
    low, high = min(arms, key=lambda a: arms[a]), max(arms, key=lambda a: arms[a])
    return f"Lowest: {low} {arms[low]:.3g}" + (f"; highest: {high} {arms[high]:.3g}" if low != high else "")


def of_temperature(top: Mapping[float, float]) -> str:
    """How sure the label of the first text is, in %, at the first and the last temperature."""
    (first, sharp), (last, soft) = list(top.items())[0], list(top.items())[-1]
    said = f"The first text's top class has {sharp:.0f} % at T = {first:g}"
    return said if first == last else f"{said} and {soft:.0f} % at T = {last:g}"


def _extremes(words: str, values: Mapping[str, float]) -> str:
    high, low = max(values, key=lambda a: values[a]), min(values, key=lambda a: values[a])
    return f"{words} {high} {values[high]:.1f} %" + (f", {low} {values[low]:.1f} %" if high != low else "")


def signed(found: Mapping[str, object]) -> str:
    """Its estimate in points, with a sign: ``"−2.7"``."""
    return f"{round(100 * float(found['estimate']), 1) + 0:+.1f}".replace("-", "−")
