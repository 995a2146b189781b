"""How a verdict is reached: which arm is better, by how much, and how sure that is.

An arm is one way to train (labels only, hard pseudo-labels, distilled, …); `Results` hold what every arm got right on
the same items with the same seeds.

Estimated is the class-balanced mean of template means. Arms are paired by seed and item, so that all that is
inferred concerns a difference d [S, G] over seeds and templates:

    SE² = variance over templates (within class, of the seed average) + variance over seeds / S

with a t-interval on Satterthwaite's degrees of freedom. Template-by-seed noise is in both terms, so SE is a
little too large (5 % where arms differ by template; at most √2 where there is no other noise). Subtracting
its estimate would win little: in simulation, between −2 and 3 points of power, for lost degrees of freedom.
Items within a template are not independent, hence no McNemar test; five seeds are too few for a percentile
bootstrap. The variance over templates is that of a bootstrap of templates within their class, in closed form.

Several draws of the labelled rows, each with its own teacher and tested on one fold of the templates, are one
experiment (`Results.pooled`). The model is d(draw k, template t) = difference + draw k + template t, a mean over seeds:

    SE² = variance over the templates of all folds (within class) + variance over the K draws' estimates / K

What seeds add is part of what draws differ by, and so is a fold's share of the templates' spread, which thereby counts
1 + folds / K times. That errs on the safe side: with three draws, whose variance has two degrees of freedom, anything
less finds false differences too often. Many draws of one seed each say more than few of many seeds.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from workbench.errors import Number, Switch, WorkbenchError, sequence, shown, unknown, whole
from workbench.metrics import template_ids

ALPHA = 0.05
MARGIN = Number(above=0, below=1, unit="one point is 0.01")
BUDGETS = ("laptop", "gpu")  # the only ones whose runs are long enough to judge
SMOKE = "no verdict (smoke run)"
SMALLEST_STRATUM = 5  # templates; fewer say too little about the spread within their class


@dataclass(frozen=True)
class Results:
    """Which items each arm got right.

    Attributes:
        correct: arm -> hits ``[S, N]`` on the same N items with the same S seeds, or ``[N]`` of one: bool, or floats in
            [0, 1].
        labels: classes of the items, ``[N]``.
        groups: their templates, ``[N]``, any hashable; None: each item is its own.
        tested: of pooled ones, which items each of K draws was tested on, bool ``[K, N]``; None: all.

    Raises:
        WorkbenchError: when it is used: no arms, unequal items, hits outside [0, 1], groups that span classes.
    """

    correct: Mapping[str, ArrayLike]
    labels: ArrayLike
    groups: ArrayLike | None = None
    tested: np.ndarray | None = None

    @classmethod
    def of(cls, logits: Mapping[str, ArrayLike], labels: ArrayLike, groups: ArrayLike | None = None) -> "Results":
        """From arm -> logits ``[S, N, C]`` or ``[N, C]``, whose largest is the answer."""
        return cls({arm: np.asarray(z).argmax(-1) == labels for arm, z in logits.items()}, labels, groups)

    def add(self, logits: Mapping[str, ArrayLike]) -> "Results":
        """With more arms: their logits ``[S, N, C]`` or ``[N, C]``."""
        return replace(self, correct={**self.correct, **Results.of(logits, self.labels).correct})

    def __or__(self, other: "Results") -> "Results":
        return replace(self, correct={**self.correct, **other.correct})

    @classmethod
    def pooled(cls, draws: Sequence["Results"]) -> "Results":
        """All draws of the labelled rows as one experiment; the module's first lines have the model.

        A draw takes the place of a seed: an arm's hits in it are the mean over its seeds. Any two draws are of the same
        test items (without groups, of the same labels), or of folds that share no group. Raises WorkbenchError for
        others, and for draws of other arms.
        """
        draws = sequence("draws", draws, "Results, one a draw")
        if not draws or not all(isinstance(d, Results) and d.correct.keys() == draws[0].correct.keys() for d in draws):
            raise WorkbenchError(f"These {len(draws)} draws can't be pooled: give Results of the same arms.")
        means = {arm: [np.mean(np.atleast_2d(d.correct[arm]), 0) for d in draws] for arm in draws[0].correct}
        folds: list[Results] = []
        fold_of = []
        for d in draws:
            fold_of.append(next((i for i, fold in enumerate(folds) if _same_items(fold, d)), len(folds)))
            folds += [d] if fold_of[-1] == len(folds) else []
        if len(folds) == 1:
            everywhere = np.ones((len(draws), len(folds[0].labels)), dtype=bool)
            return replace(folds[0], correct={arm: np.stack(h) for arm, h in means.items()}, tested=everywhere)
        number = np.repeat(np.arange(len(folds)), [len(fold.labels) for fold in folds])
        groups = [group for fold in folds for group in ([None] if fold.groups is None else fold.groups)]
        if None in groups or len({*zip(number, groups, strict=True)}) > len({*groups}):
            raise WorkbenchError("The draws share some of their groups: pool draws of the same items, or of folds.")
        tested = np.array(fold_of)[:, None] == number
        correct = {arm: np.zeros(tested.shape) for arm in means}
        for arm, hits in means.items():
            correct[arm][tested] = np.concatenate(hits)
        return Results(correct, np.concatenate([fold.labels for fold in folds]), groups, tested)

    def only(self, *arms: str) -> "Results":
        """Of these arms, in this order."""
        for arm in arms:
            self.check_arm(arm)
        return replace(self, correct={arm: self.correct[arm] for arm in arms})

    def at(self, items: ArrayLike) -> "Results":
        """On these items: numbers, or a mask ``[N]``. Of pooled draws, those that test one of them."""
        items = np.asarray(items)
        inside = {arm: np.asarray(hits)[..., items] for arm, hits in self.correct.items()}
        groups, tested = (None if of is None else np.asarray(of)[..., items] for of in (self.groups, self.tested))
        if tested is not None:
            held = tested.any(-1)
            inside, tested = {arm: hits[held] for arm, hits in inside.items()}, tested[held]
        return Results(inside, np.asarray(self.labels)[items], groups, tested)

    def check_arm(self, name: object) -> None:
        """Refuse a name that is no arm."""
        if not isinstance(self.correct, Mapping) or not self.correct:
            wanted = "a dict of arms with their hits [seeds, items] each"
            raise WorkbenchError(f"The hits are {shown(self.correct)}: give {wanted}.")
        if not isinstance(name, Hashable) or name not in self.correct:
            raise unknown("arm", name, map(str, self.correct))


def compare(
    results: Results,
    declared: list[tuple[str, str]],
    *,
    teacher: str | None = None,
    margin: float = 0.01,
    replace_margin: float = 0.02,
    budget: str = "laptop",
    pool_seeds: bool = False,
) -> pd.DataFrame:
    """Judge the declared (arm, baseline) pairs, chosen before the test set was looked at: one row a pair.

    Columns: arm, baseline; estimate, se, low, high, detectable (fractions: 0.01 is one point); dof; p,
    p_holm; verdict; replaces; items_needed; n_templates, n_items (as many where no item has a group); n_effective;
    n_seeds.

    - low, high: t-interval at the level at which Holm's procedure tested this pair, α/m for the smallest p,
      α/(m−1) for the next, … and, from the first pair that is not rejected on, that pair's level. So the
      interval excludes 0 exactly when p_holm < α = 0.05, and it always holds the ordinary 95 % interval.
    - verdict: BEATS if low > 0; WORSE if high < 0; EQUIVALENT if the interval is inside ±margin; else
      INCONCLUSIVE. With a budget other than laptop or gpu there is none.
    - detectable: 2.8·SE, the effect found four times in five (less often when dof is under about 10).
    - replaces: for a (student, teacher) pair whether low > −replace_margin, for others None.
    - items_needed: test templates, in the present mix of classes, that would settle the pair four times in
      five at the present estimate and seeds: "replaces or not" for a (student, teacher) pair, an INCONCLUSIVE
      verdict for others. inf: only more seeds (or draws) would do, or the estimate sits on the margin; NaN: settled.
    - n_effective: templates of equal weight that would say as much, 1 / Σ weight²: fewer than n_templates, as a class
      of few templates weighs as much as one of many.
    - low, high are cut to [−1, 1], the range of a difference.
    - n_seeds: with 1, nothing is known about the variance between seeds, and the interval takes it as 0.
    - n_draws: of pooled ones their number, which takes the place of seeds (n_seeds is then 1); else 1.

    Only the teacher may have one seed where others have more; it is then compared with each.

    pool_seeds, for sweeps of many settings with two or three seeds: the variance between seeds is taken to be the
    same in all arms and estimated from all of them (the residual of arm × seed, K·(S − 1) degrees of freedom for K
    pairs that share their baseline). One setting that fails in some seeds then widens all intervals.
    Raises WorkbenchError for unknown arms, unequal seeds, and for what `Results` refuse.
    """
    declared = sequence("declared", declared, "(arm, baseline) pairs")
    if not declared:
        raise WorkbenchError("No pairs are declared: name the (arm, baseline) pairs to be tested.")
    if wrong := [pair for pair in declared if not (isinstance(pair, tuple | list) and len(pair) == 2)]:
        raise WorkbenchError(f"declared holds {shown(wrong[0])}: give (arm, baseline) pairs.")
    for name in [*(arm for pair in declared for arm in pair), *([teacher] if teacher is not None else [])]:
        results.check_arm(name)
    margin, replace_margin = MARGIN.check("margin", margin), MARGIN.check("replace_margin", replace_margin)
    pool_seeds = Switch().check("pool_seeds", pool_seeds)
    hits, template_class = _template_means(results)
    differences = [_difference(hits, arm, baseline, teacher) for arm, baseline in declared]
    if pool_seeds and len({baseline for _, baseline in declared}) > 1:
        raise WorkbenchError("pool_seeds needs pairs with one baseline: compare each group of them apart.")
    found = _estimate(differences, template_class, pool_seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(found.value) / found.se, found.dof)
    p = np.where(found.se > 0, p, np.where(found.value == 0, 1.0, 0.0))  # the same hits everywhere: p = 1
    level, p_holm = holm(p)
    quantile = stats.t.isf(level / 2, found.dof)
    rows = []
    for i, (arm, baseline) in enumerate(declared):
        estimate, se = found.value[i], found.se[i]
        low, high = np.clip([estimate - quantile[i] * se, estimate + quantile[i] * se], -1, 1)
        verdict, replaces = judge(low, high, margin), None
        if baseline == teacher != arm:
            replaces = bool(low > -replace_margin)
            settled = replaces or high < -replace_margin
            goals = [(abs(estimate + replace_margin), 0.84)]  # z for four times in five
        else:  # either 0 has to be cleared, or both margins, nine times in ten each
            settled = verdict != "INCONCLUSIVE"
            goals = [(abs(estimate), 0.84), (max(margin - abs(estimate), 0), 1.28)]
        variance = max((gap / (quantile[i] + z)) ** 2 for gap, z in goals)  # the largest that would settle it
        needed = np.nan
        if not settled:
            room = variance - found.floor[i]
            needed = np.ceil(len(template_class) * (se**2 - found.floor[i]) / room) if room > 0 else np.inf
        if budget not in BUDGETS:
            verdict, replaces, needed = SMOKE, None, np.nan
        rows.append({
            "arm": arm, "baseline": baseline, "estimate": estimate, "se": se, "dof": found.dof[i],
            "low": low, "high": high, "p": p[i], "p_holm": p_holm[i], "verdict": verdict,
            "detectable": 2.8 * se, "replaces": replaces, "items_needed": needed,
            "n_templates": len(template_class), "n_items": len(results.labels),
            "n_effective": _effective(template_class), **_rows(results, differences[i]),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    table["replaces"] = table["replaces"].astype(object)  # True, False or None, also where no row has None
    return table


def decision(found: pd.Series, n_items: int, replace_margin: float = 0.02) -> tuple[str, str]:
    """A (student, teacher) row of `compare` in words: what is decided, and what would settle what is open.

    REPLACES; DOES NOT REPLACE where the whole interval lies below −replace_margin; NOT SHOWN TO REPLACE
    between the two; of a smoke run NO DECISION. The second is a sentence: how many of the task's n_items test
    items and their templates it would take. Raises WorkbenchError for a row without an answer to "replaces".
    """
    n_items, replace_margin = whole("n_items", n_items), MARGIN.check("replace_margin", replace_margin)
    if found["verdict"] == SMOKE:
        return "NO DECISION (smoke run)", "A real run would tell how many test texts it takes."
    if found["replaces"] is None:
        raise WorkbenchError(f"The baseline {found['baseline']!r} is not the teacher: give the row against it.")
    if found["replaces"]:
        return "REPLACES", "These test texts settle it."
    if found["high"] < -replace_margin:
        return "DOES NOT REPLACE", "These test texts settle it."
    needed, have = found["items_needed"], found["n_templates"]
    settle = "More test texts alone would not settle it: it takes more seeds, or another margin."
    if np.isfinite(needed):
        more, now = f"{needed:,.0f} test texts", f"{n_items:,}"
        if have < n_items:
            more = f"{needed:,.0f} test templates ({needed * n_items / have:,.0f} texts)"
            now = f"{have:,} ({n_items:,})"
        settle = f"About {more} in place of {now} would settle it four times in five, if it is what it seems."
    return "NOT SHOWN TO REPLACE", settle


def percent(row: Mapping[str, float]) -> str:
    """A row of `arm_estimates` in words: ``"90.2 % (87.5 to 92.9)"``."""
    estimate, low, high = (100 * row[key] for key in ("estimate", "low", "high"))
    return f"{estimate:.1f} % ({low:.1f} to {high:.1f})"


def points(row: Mapping[str, float]) -> str:
    """A row of `compare` in words: ``"+3.3 points (+1.1 to +5.4)"``."""
    estimate, low, high = (100 * row[key] for key in ("estimate", "low", "high"))
    return f"{estimate:+.1f} points ({low:+.1f} to {high:+.1f})"


def distance(row: Mapping[str, float], other: str) -> str:
    """The same as a phrase: ``"3.3 points above its teacher (+1.1 to +5.4)"``, or "…, not settled)"."""
    estimate, low, high = (100 * row[key] for key in ("estimate", "low", "high"))
    where = "above" if estimate >= 0 else "below"
    so = "" if row["verdict"] in ("BEATS", "WORSE", "EQUIVALENT") else ", not settled"
    return f"{abs(estimate):.1f} points {where} {other} ({low:+.1f} to {high:+.1f}{so})"


def arm_estimates(results: Results) -> pd.DataFrame:
    """One row an arm: arm, estimate, low, high (95 %, cut to [0, 1]), item_accuracy; n_templates, n_items, n_effective
    and n_seeds as those of `compare`.

    Description, not a test: overlapping intervals of two arms say nothing about their paired difference.
    """
    hits, template_class = _template_means(results)
    found = _estimate(list(hits.values()), template_class)
    half = stats.t.isf(ALPHA / 2, found.dof) * found.se
    return pd.DataFrame({
        "arm": list(hits),
        "estimate": found.value,
        "low": np.clip(found.value - half, 0, 1),
        "high": np.clip(found.value + half, 0, 1),
        "item_accuracy": [_item_accuracy(results, arm) for arm in hits],
        "n_templates": len(template_class),
        "n_items": len(results.labels),
        "n_effective": _effective(template_class),
    }).join(pd.DataFrame([_rows(results, of) for of in hits.values()]))  # fmt: skip


def by_slice(results: Results, slices: pd.Categorical) -> pd.DataFrame:
    """`arm_estimates` within each slice [N] of the items, in the order of its categories: slice, arm, ….

    Each slice balances the classes it holds, so slices differ in their mix of classes. A slice of fewer than
    two templates has no interval and is left out.
    """
    tables = []
    for name in slices.categories:
        inside = results.at(np.flatnonzero(slices == name))
        if len(inside.labels) and len(template_ids(inside.labels, inside.groups)[1]) > 1:
            tables.append(arm_estimates(inside).assign(slice=name))
    if not tables:
        raise WorkbenchError("No slice holds two templates: cut the items into fewer slices.")
    table = pd.concat(tables, ignore_index=True)
    return table[["slice", *table.columns.drop("slice")]]


def share_of_gap(results: Results, student: str, baseline: str, teacher: str) -> dict[str, float]:
    """Share of the way from baseline to teacher that the student covers: estimate, low, high (95 %).

    (student − baseline) / (teacher − baseline); 0: no better than the baseline, 1: as good as the teacher.
    The interval is Fieller's: all shares r for which student − baseline − r·(teacher − baseline) does not
    differ from 0 by the t-test of `compare`, with dof at the estimate. It stays right where the quotient's
    own standard error breaks down: when the teacher's lead cannot be told from 0 it is (−inf, inf), and no
    share should be quoted. The estimate is NaN when the teacher does not lead at all.
    """
    for name in (student, baseline, teacher):
        results.check_arm(name)
    hits, template_class = _template_means(results)
    gain = _difference(hits, student, baseline, teacher)
    lead = _difference(hits, teacher, baseline, teacher)
    a, b = (_estimate([d], template_class).value[0] for d in (gain, lead))
    if b <= 0:
        return {"estimate": float("nan"), "low": -np.inf, "high": np.inf}
    found = _estimate([gain, lead, gain - lead, gain - a / b * lead], template_class)
    variance_a, variance_b, variance_difference = found.se[:3] ** 2
    covariance = (variance_a + variance_b - variance_difference) / 2
    t2 = stats.t.isf(ALPHA / 2, found.dof[3]) ** 2
    # (a − r·b)² ≤ t²·Var(a − r·b) is A·r² − 2·B·r + C ≤ 0
    A, B, C = b**2 - t2 * variance_b, a * b - t2 * covariance, a**2 - t2 * variance_a
    if A <= 0:
        return {"estimate": float(a / b), "low": -np.inf, "high": np.inf}
    root = np.sqrt(max(B**2 - A * C, 0.0))
    return {"estimate": float(a / b), "low": float((B - root) / A), "high": float((B + root) / A)}


def choose(validation_scores: pd.DataFrame) -> pd.DataFrame:
    """The configuration of each arm with the best mean score on validation; among equals the first given.

    Takes columns arm, config, seed, score; returns arm, config, score (mean), n_configs, n_seeds. Raises
    WorkbenchError unless every arm, controls included, has the same number of configurations and each of them
    the same seeds: an arm that was tuned more would look better for that alone.
    """
    columns = ["arm", "config", "seed", "score"]
    missing = [name for name in columns if name not in validation_scores]
    if missing or validation_scores.empty or validation_scores[columns].isna().any(axis=None):
        raise WorkbenchError(f"Validation scores need columns {', '.join(columns)} with rows and no gaps: "
                             "finish or drop failed runs for all arms alike.")  # fmt: skip
    by_config = validation_scores.groupby(["arm", "config"], sort=False)
    seeds = by_config["seed"].agg(lambda s: tuple(sorted(s)))
    first = seeds.iloc[0]
    for (arm, config), s in seeds.items():
        if s != first or len(set(s)) < len(s):
            raise WorkbenchError(f"Configuration {config!r} of arm {arm!r} ran with seeds {list(s)}, the first "
                                 f"{list(first)}: run every configuration once with each seed.")  # fmt: skip
    n_configs = seeds.groupby("arm", sort=False).size()
    if n_configs.nunique() > 1:
        counts = ", ".join(f"{arm} {n}" for arm, n in n_configs.items())
        raise WorkbenchError(f"Arms have unequal numbers of configurations ({counts}): tune all alike.")
    mean = by_config["score"].mean()
    best = mean.loc[mean.groupby("arm", sort=False).idxmax()].reset_index()
    return best.assign(n_configs=int(n_configs.iloc[0]), n_seeds=len(first))


class _Estimate(NamedTuple):
    """P quantities, each field [P]; floor: the part of se² that no number of templates would remove."""

    value: np.ndarray
    se: np.ndarray
    dof: np.ndarray
    floor: np.ndarray


def _estimate(values: list[np.ndarray], template_class: np.ndarray, pool_seeds: bool = False) -> _Estimate:
    """Estimates from P arrays [S, G] of values over seeds and templates; S may differ between them.

    Rows may be draws instead of seeds, NaN at the templates that a draw doesn't test.
    """
    weight = _weights(template_class)
    tested = [~np.isnan(v) for v in values]
    shares = [there @ weight for there in tested]  # of all the weight, in each row: 1 but for folds
    by_seed = [np.nansum(v * weight, 1) / share for v, share in zip(values, shares, strict=True)]
    part = np.array([((there / there.sum(0) @ weight) ** 2).sum() for there in tested])  # 1 / S where rows weigh alike
    seeds = part * [v.var(ddof=1) if len(v) > 1 else 0.0 for v in by_seed]
    rest = np.array([max(len(v) - 1, 1) for v in by_seed])
    rest_of_seeds = rest
    if pool_seeds:
        arms = np.stack([np.zeros_like(by_seed[0]), *by_seed])  # the baseline's difference to itself, then the others'
        residual = arms - arms.mean(1, keepdims=True) - arms.mean(0) + arms.mean()
        rest_of_seeds = np.full(len(values), rest.sum())
        seeds = np.full(len(values), 2 * (residual**2).sum() / rest.sum() / arms.shape[1])
    mean = np.stack([np.nanmean(v, 0) for v in values])  # [P, G]
    templates, noise, spread = np.zeros(len(values)), np.zeros(len(values)), seeds**2 / rest_of_seeds
    for stratum in strata(template_class):
        n, w, x = len(stratum), weight[stratum], mean[:, stratum]
        parts = w * (x - (x @ w / w.sum())[:, None])  # [P, n]: what each template adds to the error
        # A bootstrap, whose variance of the sum is Σ parts², divides by n where n - 1 is due.
        variance = (parts**2).sum(1) * n / (n - 1)
        templates += variance
        spread += variance**2 / (n - 1)
        for i, v in enumerate(values):  # template-by-seed noise, the part of seeds that templates average out
            residual = np.nan_to_num(v[:, stratum] - x[i])
            residual = w * (residual - (residual @ w / w.sum())[:, None])
            noise[i] += (residual**2).sum() / (len(v) * rest[i]) * n / (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        dof = np.where(spread > 0, (templates + seeds) ** 2 / spread, np.inf)
    of_folds = templates * [1 / there.sum(0) @ weight for there in tested]  # what a draw's own templates add to draws
    noise = np.where([there.all() for there in tested], noise, of_folds)
    return _Estimate(mean @ weight, np.sqrt(templates + seeds), dof, np.maximum(seeds - noise, 0))


def _weights(template_class: np.ndarray) -> np.ndarray:
    """Of each template [G], summing to 1: every class the same, within it every template."""
    sizes = np.bincount(template_class)
    return 1 / (len(sizes) * sizes[template_class])


def _rows(results: Results, values: np.ndarray) -> dict[str, int]:
    """What the rows of values [S, G] are."""
    return {"n_seeds": len(values), "n_draws": 1} if results.tested is None else {"n_seeds": 1, "n_draws": len(values)}


def _item_accuracy(results: Results, arm: str) -> float:
    hits = np.asarray(results.correct[arm], dtype=float)
    return float(np.mean(hits if results.tested is None else hits[results.tested]))


def _effective(template_class: np.ndarray) -> float:
    return 1 / (_weights(template_class) ** 2).sum()


def _same_items(one: Results, other: Results) -> bool:
    groups = [None if results.groups is None else list(results.groups) for results in (one, other)]
    return np.array_equal(one.labels, other.labels) and groups[0] == groups[1]


def strata(template_class: np.ndarray) -> list[np.ndarray]:
    """Templates [n] of each class, classes with fewer than five pooled into one stratum, "other"."""
    sizes = np.bincount(template_class)
    pooled = sizes < SMALLEST_STRATUM
    for smallest in np.argsort(sizes, kind="stable"):  # while "other" is too small itself, the next joins
        if pooled.any() and sizes[pooled].sum() < SMALLEST_STRATUM:
            pooled[smallest] = True
    strata = [np.flatnonzero(template_class == c) for c in np.flatnonzero(~pooled)]
    return strata + ([np.flatnonzero(pooled[template_class])] if pooled.any() else [])


def _template_means(results: Results) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Means [S, G] of each arm's hits over the items of each template, and the class [G] of each template."""
    correct, labels, groups = results.correct, results.labels, results.groups
    results.check_arm(next(iter(correct), None) if isinstance(correct, Mapping) else None)
    template, template_class = template_ids(labels, groups)
    if groups is not None and len(template_class) > pd.Series(list(groups), dtype=object).nunique():
        raise WorkbenchError("Some groups hold items of several classes, so they cannot be resampled in one: "
                             "make them finer, or pass groups=None.")  # fmt: skip
    if len(template_class) < 2:
        raise WorkbenchError("One test template does not show the spread between templates: add test data.")
    order = np.argsort(template, kind="stable")
    counts = np.bincount(template)
    starts = np.cumsum(counts) - counts
    means = {}
    for arm, values in correct.items():
        try:
            hits = np.atleast_2d(np.asarray(values, dtype=float))
        except (TypeError, ValueError):
            raise WorkbenchError(f"Arm {arm!r} has hits {shown(values)}: give numbers [seeds, items].") from None
        if hits.ndim != 2 or hits.shape[1] != len(template) or not len(hits):
            wanted = f"[seeds, {len(template)}]"
            raise WorkbenchError(f"Arm {arm!r} has hits of shape {list(hits.shape)}: give {wanted}.")
        if not ((hits >= 0) & (hits <= 1)).all():  # NaN fails too
            raise WorkbenchError(f"Arm {arm!r} has hits outside [0, 1]: give right or wrong for every item.")
        means[arm] = np.add.reduceat(hits[:, order], starts, axis=1) / counts
    if results.tested is not None:
        tested = np.asarray(results.tested)[:, order[starts]]  # a fold holds all of a template, or none
        means = {arm: np.where(tested, hits, np.nan) for arm, hits in means.items()}
    return means, template_class


def _difference(hits: dict[str, np.ndarray], arm: str, baseline: str, teacher: str | None) -> np.ndarray:
    """Arm − baseline [S, G], paired by seed; a teacher with one seed meets every seed of the other."""
    sizes = {len(hits[name]) for name in (arm, baseline) if name != teacher or len(hits[name]) > 1}
    if len(sizes) > 1:
        raise WorkbenchError(f"Arm {arm!r} has {len(hits[arm])} seeds, {baseline!r} {len(hits[baseline])}: "
                             "train both with the same, or repeat the only row.")  # fmt: skip
    return hits[arm] - hits[baseline]


def holm(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level at which Holm's step-down procedure tests each of the p-values [m], and adjusted p-values."""
    level, adjusted = np.empty(len(p)), np.empty(len(p))
    current, highest, rejecting = ALPHA, 0.0, True
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        remaining = len(p) - rank
        if rejecting:
            current = ALPHA / remaining
        level[i] = current
        highest = adjusted[i] = max(highest, min(1.0, remaining * p[i]))
        rejecting &= p[i] < current
    return level, adjusted


def judge(low: float, high: float, margin: float) -> str:
    """The verdict on an interval: see `compare`."""
    if low > 0:
        return "BEATS"
    if high < 0:
        return "WORSE"
    return "EQUIVALENT" if -margin < low and high < margin else "INCONCLUSIVE"
