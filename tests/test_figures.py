"""Figures say what they show, nothing in them overlaps or is cut off, and an arm looks the same in all."""

import subprocess
import sys
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import pandas as pd
import pytest
from legible import drawn_texts, faults
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from workbench import metrics
from workbench.errors import WorkbenchError
from workbench.show import figures, money, style

ARMS = list(style.ARM_STYLES)
LONG = [f"{i} {'a rather long name of forty characters'}"[:40] for i in range(150)]
DEVICES = ("climate set", "light", "cover", "media", "fan")
NAMES = [f"{what} {how}" for what in DEVICES for how in ("mode", "on", "off", "up")][:19]


def make_logits(n: int = 150, classes: int = 19) -> np.ndarray:
    """Logits [n, classes] whose argmax falls on every class."""
    z = np.random.default_rng(0).normal(size=(n, classes)) * 3
    z[np.arange(n), np.arange(n) % classes] += 6
    return z


def make_histories(arms: list[str], seeds: int = 3, first: float = 0.5, spread: float = 0.4) -> pd.DataFrame:
    """Arms that end at `first`, and `spread` over them the others; validation is measured at every other step."""
    index = pd.MultiIndex.from_product([arms, range(seeds), range(0, 101, 10)], names=["arm", "seed", "step"])
    rows = index.to_frame(index=False)
    end = rows["arm"].map({arm: first + spread * i / len(arms) for i, arm in enumerate(arms)})
    value = end * rows["step"] / 100 + 0.01 * rows["seed"]
    return rows.assign(validation=value.where(rows["step"] % 20 == 0))


def make_estimates(arms: list[str], interval: float = 0.03) -> pd.DataFrame:
    estimate = np.linspace(0.6, 0.9, len(arms))
    n_seeds = [1 if arm == "teacher" else 5 for arm in arms]
    return pd.DataFrame({"arm": arms, "estimate": estimate, "low": estimate - interval,
                         "high": estimate + interval, "n_templates": 190, "n_seeds": n_seeds})  # fmt: skip


def make_verdicts(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    kinds = ["BEATS", "WORSE", "EQUIVALENT", "INCONCLUSIVE", "no verdict (smoke run)"]
    rows = [(arm, baseline, d, d - 0.02, d + 0.02, kinds[i % 5])
            for i, (arm, baseline) in enumerate(pairs) for d in [0.03 * (1 - i)]]  # fmt: skip
    table = pd.DataFrame(rows, columns=["arm", "baseline", "estimate", "low", "high", "verdict"])
    return table.assign(n_templates=190, n_seeds=5)


def make_costs(names: list[str], spread: float = 100.0) -> pd.DataFrame:
    rng, n = np.random.default_rng(1), len(names)
    accuracy = 0.8 + 0.1 * rng.random(n)
    return pd.DataFrame({"name": names, "accuracy": accuracy, "low": accuracy - 0.01, "high": accuracy + 0.01,
                         "latency_ms": spread ** rng.random(n), "bytes": 10 ** rng.uniform(5, 9, n),
                         "n_templates": 190, "n_seeds": 5})  # fmt: skip


def make_models(temperature: float = 1.0, names: Sequence[str] = ("teacher", "distilled")) -> dict:
    return {name: (metrics.softmax(Z, temperature * (i + 1)), LABELS) for i, name in enumerate(names)}


def make_fidelity(arms: list[str]) -> pd.DataFrame:
    rows = [(arm, seed, 0.5 + 0.04 * i + 0.01 * seed, 0.4 + 0.07 * i, 2.0 - 0.2 * i)
            for i, arm in enumerate(arms) for seed in range(1 if arm == "teacher" else 5)]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "seed", "accuracy", "agreement", "mean_kl"])


def make_flips(classes: int) -> pd.DataFrame:
    rate = np.linspace(0.3, 0, classes)
    return pd.DataFrame({"label": np.arange(classes), "negative": rate, "positive": rate[::-1] / 2,
                         "low": rate / 3, "high": rate + 0.1, "n_templates": 10})  # fmt: skip


def make_refusals(names: list[str]) -> dict:
    rng = np.random.default_rng(2)
    return {name: (rng.beta(5, 1 + i / 2, 150), rng.beta(2, 2, 60), 0.5) for i, name in enumerate(names)}


def make_slices(arms: list[str], names: Sequence[str] = ("1–5", "6", "7–9", "10–31")) -> pd.DataFrame:
    tables = [make_estimates(arms).assign(slice=name, n_templates=48) for name in names]
    return pd.concat(tables, ignore_index=True)


def make_sweep(losses: list[str], temperatures: list[float], seeds: int = 2) -> pd.DataFrame:
    """hard_labels has one temperature, which plays no part."""
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        {"loss": loss, "temperature": T, "seed": seed, "idle": "temperature, x" if loss == "hard_labels" else "x",
         "validation.balanced_accuracy": rng.uniform(0.6, 0.9)}
        for loss in losses for T in ([2.0] if loss == "hard_labels" else temperatures) for seed in range(seeds)
    ])  # fmt: skip


def make_effects(factors: dict[str, list[object]]) -> pd.DataFrame:
    rows = [(factor, level, -0.01 * i, -0.01 * i - 0.02, -0.01 * i + 0.015) if i else
            (factor, level, 0.0, np.nan, np.nan)
            for factor, levels in factors.items() for i, level in enumerate(levels)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["factor", "level", "estimate", "low", "high"])
    return table.assign(n_templates=190, n_seeds=5)


def make_doses(arms: list[str], doses: list[float]) -> pd.DataFrame:
    return pd.concat([make_estimates(arms).assign(x=x, n_seeds=5) for x in doses])


def make_decided(names: Sequence[str]) -> pd.DataFrame:
    decided = ["NOT SHOWN TO REPLACE", "REPLACES", "NO DECISION (smoke run)"]
    return pd.DataFrame({"estimate": 0.007, "low": -0.025, "high": 0.05, "decided": decided[: len(names)]}, index=names)


def make_gaps(names: Sequence[str]) -> pd.DataFrame:
    """The last has no gap to close."""
    rows = [(1.07, 0.82, 1.44), (1.27, 1.08, 1.6), (1.21, -np.inf, np.inf)]
    return pd.DataFrame(rows[-len(names) :], names, columns=["estimate", "low", "high"])


def make_shares(index: object) -> pd.DataFrame:
    return pd.DataFrame([[0.7, 0.25, 0.05], [0.2, 0.3, 0.5]], index=index, columns=["good", "fair", "bad"])


SWEEP = make_sweep(["forward_kl", "jsd", "hard_labels"], [0.25, 1.0, 4.0, 16.0])
N = "n = 190 templates, 5 seeds"
PAIRS = [("distilled", baseline) for baseline in ARMS if baseline != "distilled"]
LONG_PAIRS = [(LONG[0], other) for other in LONG[1:4]] + [(LONG[5], LONG[6])]
Z, LABELS = make_logits(), np.arange(150) % 19
COMPARED = make_estimates(ARMS), make_verdicts(PAIRS)
PERPLEXITIES = pd.DataFrame([(arm, 100.0 * 4**seed) for arm in ARMS for seed in (0, 1)], columns=["arm", "perplexity"])
PASSES = pd.DataFrame([(a, s, p, 9.0 + s + p) for a in ARMS for s in range(3) for p in range(1, 6)],
                      columns=["arm", "seed", "passes", "perplexity"])  # fmt: skip
NEXT = pd.DataFrame({"teacher": [0.6, 0.3, 0.001], "distilled": [0.2, 0.5, 0.02]}, index=[" a", "\n", "$x_"])
GROUPED = pd.MultiIndex.from_tuples([("teacher", 2), ("teacher", 3)], names=["writer", "difficulty"])
BY_NUMBER = pd.DataFrame([(arm, d, 0.5, 0.4, 0.6, 3) for arm in ("teacher", "student") for d in (2, 3, 4)],
                         columns=["arm", "difficulty", "estimate", "low", "high", "n_seeds"])  # fmt: skip

SAVED = pd.DataFrame([(9e7, 20.0, 131.0), (9e5, 2.0, 3033.0), (2.25e7, 4.0, np.nan)],
                     ["teacher", "student", "teacher in int8"], ["bytes", "p50_ms", "rows_per_second"])  # fmt: skip
CORNER = pd.DataFrame({"foretold": [0.93, 0.9, 0.95], "found": 0.931},
                      index=["the law", "the nearest run", "the best teacher"])  # fmt: skip


def make_offers(names: Sequence[str]) -> pd.DataFrame:
    """Worth less and less; the last is not foretold."""
    points = np.r_[np.linspace(3, 0, len(names) - 1), np.nan]
    return pd.DataFrame({"offer": names, "dollars": np.geomspace(600, 1e9, len(names)), "points": points,
                         "low": points - 1, "high": points + 2})  # fmt: skip


# name: (draws it, words that have to be in it)
TYPICAL: dict[str, tuple[Callable[[], Figure], list[str]]] = {
    "training_curves": (lambda: figures.training_curves(make_histories(ARMS), note="n = 190 templates"),
                        ["validation accuracy (%)", "optimizer step", "3 seeds", "n = 190"]),
    "soft_labels": (lambda: figures.soft_labels(Z[:3], ["turn on the light"] * 3, NAMES),
                    ["probability (%)", "3 texts", "T = 0.5", "T = 4", "turn on the light"]),
    "entropy": (lambda: figures.entropy_by_temperature({"teacher": Z, "distilled": Z / 3}),
                ["n = 150 texts", "mean entropy (nats)", "log 19 = 2.94 nats", "temperature T", "distilled"]),
    "similarity": (lambda: figures.class_similarity(Z, NAMES, 2.0),
                   ["n = 150 texts", "T = 2", "(%)", "predicted class", "other class", *NAMES]),
    "comparison": (lambda: figures.comparison(*COMPARED, "teacher"),
                   [f"{N} (teacher 1)", "accuracy, class-balanced (%)", "dashed: teacher",
                    "95 % interval", "better than labels only (+3.0)", "worse than", "equal to",
                    "not settled against", "no verdict against"]),
    "by_draw": (lambda: figures.comparison_by_draw({f"label draw {i}": COMPARED for i in (1, 2)}, "teacher"),
                ["label draw 1", "label draw 2", N, "accuracy, class-balanced (%)"]),
    "differences": (lambda: figures.differences({f"label draw {i}": make_verdicts(PAIRS) for i in (1, 2, 3)}),
                    [N, "percentage points", "±1 pp", "label draw 3", "not settled"]),
    "decision": (lambda: figures.decision(make_decided(["the student to ship", "mean over seeds"]), 0.02),
                 ["At worst −2.5 points", "grey: a loss of more than 2 points", "it can take over", "mean over seeds"]),
    "gap closed": (lambda: figures.gap_closed(make_gaps(["together", "5 labels", "20 labels"])),
                   ["107 %", "no gap is shown", "left line: labels only, right: teacher", "95 % interval"]),
    "savings": (lambda: figures.savings(SAVED),
                ["student: 1/100 of the size", "latency, teacher in int8", "900 kB, teacher 90 MB", "131 texts/s"]),
    "differences, draws apart": (
        lambda: figures.differences({"9 draws together": make_verdicts(PAIRS).assign(n_draws=9, n_seeds=1)},
                                    apart=pd.concat([make_verdicts(PAIRS).assign(n_seeds=1)] * 3)),
        ["9 draws", "percentage points", "better"]),
    "quality": (lambda: figures.quality_against_cost(make_costs(ARMS)),
                ["latency (ms per text, log scale)", "accuracy (%)", N, "10 MB", "837 MB", *ARMS]),
    "reliability": (lambda: figures.reliability({"teacher": (metrics.softmax(Z), LABELS)}),
                    ["n = 150 items", "accuracy (%)", "confidence", "items", "teacher: ECE"]),
    "reliability_after": (lambda: figures.reliability(make_models(), after=make_models(2.0)),
                          ["before temperature scaling", "after", "teacher: ECE", " → "]),
    "fidelity": (lambda: figures.fidelity(make_fidelity(ARMS)),
                 ["5 seeds (teacher 1)", "agreement with the teacher (%)", "KL", "(nats)", "accuracy", *ARMS]),
    "flips": (lambda: figures.flips(make_flips(19), NAMES, note="5 seeds"),
              ["n = 190 templates", "5 seeds", "share of the class's texts (%)", "teacher right, student wrong",
               f"{NAMES[0]} (10)"]),
    "refusal": (lambda: figures.refusal(make_refusals(["teacher", "distilled", "labels only"])),
                ["in scope: n = 150 texts", "out of scope: n = 60 texts", "texts refused (%)", "AUROC", "guessing"]),
    "difficulty": (lambda: figures.difficulty({f"dial {i}": make_slices(ARMS[:4]) for i in range(4)}),
                   ["dial 3", "n = 48", "n: templates", "accuracy (%)", "95 % interval", *ARMS[:4]]),
    "sweep map": (lambda: figures.sweep_map(SWEEP, note="validation split"),
                  ["mean of 2 seeds", "hatched: temperature plays no part", "framed: the best", "validation (%)",
                   "temperature", "0.25", "16", "forward_kl", "hard_labels", "validation split"]),
    "main effects": (lambda: figures.main_effects(make_effects({"temperature": [1, 4, 16], "loss": ["jsd", "tvd"]})),
                     [N, "95 % interval", "hollow: the reference", "percentage points", "temperature = 16"]),
    "accuracy by": (lambda: figures.accuracy_by(make_doses(ARMS[:4], [300, 1000, 3239]), "transfer texts"),
                    [N, "transfer texts, log scale", "accuracy, class-balanced (%)", "3,239", *ARMS[:4]]),
    "finished curve": (lambda: figures.reliability({"teacher": metrics.reliability(metrics.softmax(Z), LABELS)}),
                       ["n = 150 items", f"teacher: ECE {100 * metrics.ece(metrics.softmax(Z), LABELS):.1f} %"]),
    "perplexity by": (lambda: figures.perplexity_by(PASSES, "passes", xlabel="passes over 64 blocks"),
                      ["perplexity (log scale)", "passes over 64 blocks", "3 seeds", "bold: geometric mean", *ARMS]),
    "perplexities": (lambda: figures.perplexities(PERPLEXITIES, reference="teacher"),
                     ["perplexity (log scale)", "geometric mean", "200", *ARMS]),
    "purchases": (lambda: money.purchases(make_offers(["more labels", "twice the texts", "a larger student"]), CORNER),
                  ["diamond: foretold, line: found", "95 % band", "accuracy (%)", "points of accuracy", "more labels",
                   "the nearest run", "$ 600", "5 per $ 1,000", "gain not shown", "$ 1,000,000,000", "not foretold"]),
    "next_tokens": (lambda: figures.next_tokens(NEXT, "What comes after this"),
                    ["What comes after this", "probability (%)", "␣a", "teacher", "distilled", "<1"]),
}  # fmt: skip
NO_INTERVAL = {"low": np.nan, "high": np.nan}
EXTREME: dict[str, Callable[[], Figure]] = {
    "perplexity by, one": lambda: figures.perplexity_by(PASSES[:1], "passes", xlabel="passes", log=True),
    "perplexity by, long": lambda: figures.perplexity_by(
        PASSES.assign(arm=PASSES["arm"].map(dict(zip(ARMS, LONG, strict=False)))), "passes", xlabel="x", log=True),
    "perplexities, one": lambda: figures.perplexities(PERPLEXITIES[:1]),
    "perplexities, long": lambda: figures.perplexities(PERPLEXITIES.assign(arm=[*LONG[:8], *LONG[:8]])),
    "purchases, long": lambda: money.purchases(make_offers(LONG[:6]), CORNER),
    "purchases, one": lambda: money.purchases(make_offers(["labels"]), CORNER[:1]),
    "next tokens, one": lambda: figures.next_tokens(NEXT.iloc[:1, :1], "x"),
    "next tokens, long": lambda: figures.next_tokens(NEXT.set_axis(LONG[:3]), "word " * 60),
    "curves, one point": lambda: figures.training_curves(make_histories(ARMS[:1], 1).query("step == 0")),
    "curves, long names": lambda: figures.training_curves(make_histories(LONG[:9]), title="A long title " * 9),
    "soft labels, long": lambda: figures.soft_labels(make_logits(2, 150), ["word " * 60, "x"], LONG),
    "soft labels, two classes": lambda: figures.soft_labels([[0.1, 0.0]], ["yes or no"], ["yes", "no"]),
    "entropy, two classes": lambda: figures.entropy_by_temperature(make_logits(9, 2)),
    "entropy, sizes differ": lambda: figures.entropy_by_temperature({LONG[0]: make_logits(9, 2), LONG[1]: Z}),
    "similarity, two classes": lambda: figures.class_similarity(make_logits(9, 2), ["yes", "no"]),
    "similarity, 24 long": lambda: figures.class_similarity(make_logits(99, 24), LONG[:24]),
    "similarity, 150 long": lambda: figures.class_similarity(make_logits(140, 150), LONG),
    "comparison, one arm": lambda: figures.comparison(make_estimates(["distilled"]).assign(**NO_INTERVAL)),
    "comparison, long": lambda: figures.comparison(make_estimates(LONG[:12]), make_verdicts(LONG_PAIRS)),
    "differences, long": lambda: figures.differences({name: make_verdicts(LONG_PAIRS) for name in LONG[:5]}),
    "decision, long": lambda: figures.decision(make_decided(LONG[:3]), 0.5),
    "gap closed, none": lambda: figures.gap_closed(make_gaps(LONG[:1])),
    "savings, long": lambda: figures.savings(SAVED.set_axis(["teacher", *LONG[:2]])),
    "savings, none": lambda: figures.savings(SAVED * np.nan, note="accuracy on test"),
    "quality, one": lambda: figures.quality_against_cost(make_costs(["distilled"]).assign(**NO_INTERVAL)),
    "quality, crowded": lambda: figures.quality_against_cost(make_costs(LONG[:16], spread=1.3)),
    "sweep map, one cell": lambda: figures.sweep_map(make_sweep(["jsd"], [1.0], 1)),
    "sweep map, only hard labels": lambda: figures.sweep_map(make_sweep(["hard_labels"], [])),
    "sweep map, large": lambda: figures.sweep_map(make_sweep([*LONG[:12], "hard_labels"], [*2.0 ** np.arange(-2, 5)])),
    "main effects, long": lambda: figures.main_effects(make_effects({name: LONG[:3] for name in LONG[3:9]})),
    "accuracy by, one dose": lambda: figures.accuracy_by(make_doses(LONG[:5], [1]).assign(**NO_INTERVAL), "x"),
    "lines by, linear": lambda: figures.lines_by(make_doses(ARMS, [0, 1, 2]), "x", xlabel="x", title="t"),
    "reliability, long": lambda: figures.reliability(make_models(names=LONG[:4])),
    "reliability, long, after": lambda: figures.reliability(
        make_models(1.0, LONG[:3]), after=make_models(3.0, LONG[:3])),
    "fidelity, one arm": lambda: figures.fidelity(make_fidelity(["distilled"])),
    "fidelity, long": lambda: figures.fidelity(make_fidelity(LONG[:9])),
    "flips, 150 long": lambda: figures.flips(make_flips(150), LONG),
    "flips, none": lambda: figures.flips(make_flips(2) * [1, 0, 0, 0, 1, 1], ["yes", "no"]),
    "refusal, long": lambda: figures.refusal(make_refusals(LONG[:6])),
    "difficulty, one": lambda: figures.difficulty({LONG[0]: make_slices(["distilled"], ["5"])}),
    "difficulty, three long": lambda: figures.difficulty({x: make_slices(LONG[:6]) for x in LONG[:3]}),
    "difficulty, six slices": lambda: figures.difficulty(
        {x: make_slices(ARMS, [f"{i}200–{i + 1}300 %" for i in range(6)]) for x in "ab"}),
}  # fmt: skip


@pytest.mark.parametrize("name", [*TYPICAL, *(pytest.param(name, marks=pytest.mark.slow) for name in EXTREME)])
def test_a_figure_says_what_it_shows_and_is_legible(name):
    make, words = TYPICAL.get(name) or (EXTREME[name], [])
    fig = make()
    texts = drawn_texts(fig)
    everything = "\n".join(text.get_text() for text in texts)
    assert not [word for word in words if word not in everything]
    assert fig.get_figwidth() == 7 and to_hex(fig.get_facecolor()) == "#ffffff"
    if name in TYPICAL:
        assert min(text.get_fontsize() for text in texts) >= 8  # points; 11 px at 700 px
    assert faults(fig) == []


def test_the_check_for_faults_can_fail():
    fig = Figure()
    fig.text(0.5, 0.5, "one")
    fig.text(0.5, 0.5, "two")
    fig.text(0.99, 0.2, "off the canvas")
    assert len(faults(fig)) == 2


@pytest.mark.parametrize("make", [
    lambda n: figures.comparison(make_estimates(ARMS).assign(**n)),
    lambda n: figures.differences({"": make_verdicts(PAIRS).assign(**n)}),
    lambda n: figures.quality_against_cost(make_costs(ARMS).assign(**n)),
    lambda n: figures.main_effects(make_effects({"loss": ["jsd", "tvd"]}).assign(**n)),
    lambda n: figures.accuracy_by(make_doses(ARMS, [1, 2]).assign(**n), "x"),
    lambda n: figures.flips(make_flips(19).assign(**n), NAMES),
    lambda n: figures.difficulty({"a": make_slices(ARMS[:2]).assign(**n)}),
])  # fmt: skip
def test_where_each_text_is_its_own_n_counts_texts(make):
    for items, unit, other in ((10, "texts", "templates"), (20, "templates", "texts")):
        subtitle = make({"n_templates": 10, "n_items": items}).texts[1].get_text()
        assert unit in subtitle and other not in subtitle


def named(ticks: list[Text], cut: str) -> list[str]:
    """What ticks say before a word of their own."""
    return [tick.get_text().split(cut)[0] for tick in ticks]


@pytest.mark.parametrize("arm", ["distilled", "a new arm"])
@pytest.mark.parametrize("make", [
    lambda arm: figures.training_curves(make_histories(["labels only", arm])),
    lambda arm: figures.entropy_by_temperature({"labels only": Z, arm: Z}),
    lambda arm: figures.comparison(make_estimates([arm, "bag of words"])),
    lambda arm: figures.quality_against_cost(make_costs(["all true labels", arm])),
    lambda arm: figures.reliability(make_models(names=("labels only", arm))),
])  # fmt: skip
def test_an_arm_has_one_colour_in_all_figures(make, arm):
    axes = make(arm).axes
    lines = [line.get_color() for ax in axes for line in ax.lines]
    colours = [*lines, *(colour for ax in axes for dots in ax.collections for colour in dots.get_facecolor())]
    assert style.arm_styles([arm])[arm][0].lower() in set(map(to_hex, colours))


def test_styles_differ_and_do_not_depend_on_order():
    many = [f"arm {i}" for i in range(30)]
    styles = style.arm_styles([*many, *ARMS])
    assert len(set(styles.values())) == 38 and list(styles) == [*many, *ARMS]
    assert styles == style.arm_styles([*ARMS, *many[::-1]])
    assert len({colour for colour, _ in style.arm_styles(many[:9]).values()}) == 9
    assert styles["distilled"] == style.ARM_STYLES["distilled"]
    told = style.NOTEBOOK_STYLES  # alone, among others and in any order
    assert style.arm_styles([*reversed(told), *many])["verified traces"] == told["verified traces"]
    assert len(style.arm_styles(map(str, range(200)))) == 200  # more than there are styles


def test_words_have_contrast_and_markers_differ():
    for colour in (*figures.VERDICT_COLOURS.values(), style.INK, style.GREY):
        rgb = np.array(matplotlib.colors.to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5  # WCAG AA on white
    assert len({marker for _, marker in style.ARM_STYLES.values()}) == len(ARMS)


def test_training_curves_draw_seeds_and_their_mean_as_far_as_all_seeds_go_and_name_arms_where_they_end():
    histories = make_histories(["distilled"], first=0.9)
    *seeds, mean = figures.training_curves(histories).axes[0].lines
    assert len(seeds) == 3 and mean.get_linewidth() > seeds[0].get_linewidth()
    np.testing.assert_allclose(mean.get_ydata()[[0, -1]], [1.0, 91.0])  # per cent, mean of offsets 0, 1, 2
    (ax,) = figures.training_curves(histories.query("seed != 1 or step <= 40")).axes
    assert ax.lines[-1].get_xdata()[-1] == 40
    apart, near = (figures.training_curves(make_histories(ARMS[:2], spread=spread)) for spread in (0.4, 0))
    assert not apart.legends and {text.get_text() for text in apart.axes[0].texts} == set(ARMS[:2])
    assert near.legends and not near.axes[0].texts  # there the names would collide


def test_soft_labels_show_the_softmax_in_one_order():
    logits = np.log([[0.1, 0.6, 0.3]])
    fig = figures.soft_labels(logits, ["a text"], ["a", "b", "c"], temperatures=(1, 2), top=2)
    one, two = ([bar.get_width() for bar in ax.patches] for ax in fig.axes if ax.patches)
    np.testing.assert_allclose(one, [60, 30])
    np.testing.assert_allclose(two, 100 * np.sqrt([0.6, 0.3]) / np.sqrt([0.1, 0.6, 0.3]).sum())


def test_entropy_lies_below_log_c_and_rises():
    curve, uniform = (line.get_ydata() for line in figures.entropy_by_temperature(Z).axes[0].lines)
    assert (np.diff(curve) > 0).all() and curve[-1] < np.log(19)
    np.testing.assert_allclose(uniform, np.log(19))


def test_class_similarity_gives_the_mean_of_the_other_classes_and_puts_similar_ones_side_by_side():
    logits = np.log(np.array([[0.6, 0.05, 0.3, 0.05], [0.7, 0.05, 0.2, 0.05], [0.05, 0.6, 0.05, 0.3],
                              [0.3, 0.05, 0.6, 0.05], [0.05, 0.3, 0.05, 0.6]]))  # fmt: skip
    ax = figures.class_similarity(logits, list("abcd"), 1.0).axes[0]
    names = named(ax.get_yticklabels(), " ")
    assert {frozenset(names[:2]), frozenset(names[2:])} == {frozenset("ac"), frozenset("bd")}
    table = pd.DataFrame(np.ma.filled(ax.images[0].get_array(), np.nan), names, names)
    assert table.loc["a", "c"] == pytest.approx(25) and table.loc["d", "b"] == pytest.approx(30)
    assert np.isnan(np.diag(table)).all()


def test_comparison_sorts_marks_the_reference_and_shares_axis_and_order_between_draws():
    (ax,) = figures.comparison(make_estimates(["labels only", "teacher", "distilled"]), reference="teacher").axes
    assert named(ax.get_yticklabels(), "  ") == ["distilled", "teacher", "labels only"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is on top
    (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed.get_xdata() == pytest.approx([75, 75])
    other = COMPARED[0].assign(estimate=COMPARED[0]["estimate"].to_numpy()[::-1] / 2)
    one, two = figures.comparison_by_draw({"1": COMPARED, "2": (other, None)}).axes
    assert named(one.get_yticklabels(), "  ") == ARMS[::-1], "the first panel is in order"
    assert named(one.get_yticklabels(), "  ") == named(two.get_yticklabels(), "  ") and one.get_xlim() == two.get_xlim()


def test_a_decision_shades_the_loss_that_is_not_allowed_and_a_gap_without_ends_is_not_drawn():
    (ax,) = figures.decision(make_decided(["a"]), 0.02).axes
    (grey,) = ax.patches
    assert grey.get_x() + grey.get_width() == pytest.approx(-2) and ax.get_xlim()[0] == pytest.approx(grey.get_x())
    (bar,) = ax.collections[0].get_segments()
    assert bar[:, 0] == pytest.approx([-2.5, 5])
    (ax,) = figures.gap_closed(make_gaps(["a", "b"])).axes
    assert len(ax.collections) == 1 and [text.get_text() for text in ax.texts] == ["127 %", "no gap is shown"]


def test_savings_are_times_the_teachers():
    (ax,) = figures.savings(SAVED).axes
    assert [bar.get_x() + bar.get_width() for bar in ax.patches] == pytest.approx([100, 4, 10, 5, 3033 / 131])


def test_a_map_shows_means_of_seeds_frames_the_best_and_leaves_gaps():
    table = SWEEP.copy()
    score = "validation.balanced_accuracy"
    table.loc[(table["loss"] == "jsd") & (table["temperature"] == 4), score] = np.nan
    table.loc[(table["loss"] == "jsd") & (table["temperature"] == 16), score] = [0.93, 0.95]
    ax = figures.sweep_map(table).axes[0]
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert shown.shape == (3, 4) and np.isnan(shown[1, 2]) and shown[1, 3] == pytest.approx(94)
    assert (shown[2] == shown[2, 0]).all(), "hard labels have one value"
    assert len(ax.texts) == 8  # a number a cell
    assert ax.patches[-1].get_xy() == (2.5, 0.5) and ax.patches[-1].get_width() == 1


def test_quality_draws_the_pareto_front():
    table = make_costs(["a", "b", "c"]).assign(latency_ms=[1, 2, 4], accuracy=[0.7, 0.6, 0.9])
    (ax,) = figures.quality_against_cost(table).axes
    (front,) = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    np.testing.assert_allclose(front.get_xdata()[:-1], [1, 4])
    np.testing.assert_allclose(front.get_ydata(), [70, 90, 90])


def test_reliability_quotes_the_ece_and_counts_all_items():
    p = metrics.softmax(Z)
    fig = figures.reliability({"teacher": (p, LABELS)}, bins=10)
    assert fig.legends[0].get_texts()[0].get_text() == f"teacher: ECE {100 * metrics.ece(p, LABELS, 10):.1f} %"
    assert fig.axes[1].patches[0].get_data().values.sum() == 150
    drawn = [line for line in fig.axes[0].lines if line.get_linestyle() == "-"][0].get_xdata()
    counts = metrics.reliability(p, LABELS, 10)["n"]
    assert len(drawn) == (counts >= 10).sum() < len(counts)


def test_fidelity_draws_seeds_and_their_mean_and_nearer_is_right():
    agreement, kl = figures.fidelity(make_fidelity(["distilled", "teacher"])).axes
    mean, *_ = agreement.lines
    assert (mean.get_xdata()[0], mean.get_ydata()[0]) == pytest.approx((40, 52))
    assert len(agreement.collections[0].get_offsets()) == 5
    assert agreement.get_xlim()[0] < agreement.get_xlim()[1] and kl.get_xlim()[0] > kl.get_xlim()[1]


def test_flips_show_the_worst_classes_losses_to_the_left():
    (ax,) = figures.flips(make_flips(50), LONG, top=5).axes
    lost, won = ([line.get_xdata()[0] for line in ax.lines if line.get_marker() == marker] for marker in "so")
    assert lost == pytest.approx(-100 * np.linspace(0.3, 0, 50)[:5]) and min(won) >= 0
    assert "worst 5 of 50 classes" in ax.figure.texts[1].get_text()


def test_flips_of_classes_with_few_templates_share_a_row_without_an_interval():
    table = make_flips(4).assign(n_templates=[12, 3, 9, 30])
    (ax,) = figures.flips(table, NAMES).axes
    assert named(ax.get_yticklabels(), "!") == [
        f"{NAMES[0]} (12)", f"{NAMES[3]} (30)", "2 classes below 10 together (12)"
    ]  # fmt: skip
    lost = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "s"]
    assert lost[2] == pytest.approx(-100 * np.average([0.2, 0.1], weights=[3, 9]))
    ends = [path.vertices[:, 0] for bars in ax.collections for path in bars.get_paths()]
    assert np.isfinite([ends[0], ends[1]]).all() and np.isnan(ends[-1]).all()
    assert min(np.min(end) for end in ends[:2]) >= -100 and max(np.max(end) for end in ends[:2]) <= 0


def test_refusal_curve_has_the_auroc_as_area_and_marks_the_threshold():
    inside, outside, threshold = make_refusals(["a"])["a"]
    _, curve, chosen = figures.refusal({"a": (inside, outside, threshold)}).axes[0].lines
    area = np.trapezoid(curve.get_ydata(), curve.get_xdata()) / 1e4
    assert area == pytest.approx(metrics.auroc(inside, outside))
    at = chosen.get_xdata()[0], chosen.get_ydata()[0]
    assert at == pytest.approx((100 * np.mean(inside < 0.5), 100 * np.mean(outside < 0.5)))


def test_difficulty_keeps_the_order_of_slices_and_shares_the_axis():
    tables = {"a": make_slices(["distilled"]), "b": make_slices(["distilled"], ["x", "y"])}
    first, second = figures.difficulty(tables).axes
    assert named(first.get_xticklabels(), "\n") == ["1–5", "6", "7–9", "10–31"]
    assert first.get_ylim() == second.get_ylim()


def test_stacked_shares_fill_each_bar_and_say_what_colour_says():
    (ax,) = figures.stacked_shares(make_shares(GROUPED), xlabel="share (%)", title="Shares").axes
    assert [bar.get_x() + bar.get_width() for bar in ax.containers[-1]] == pytest.approx([100, 100])
    assert named(ax.get_yticklabels(), "!") == ["teacher, difficulty 2", "teacher, difficulty 3"]
    assert [text for text in named(ax.texts, "!") if text] == ["70", "20", "25", "30", "50"]  # 5 % has no room
    assert len({bar.patches[0].get_hatch() for bar in ax.containers}) == 3


def test_lines_by_a_number_are_moved_apart_only_where_arms_share_places():
    options = {"x": "difficulty", "xlabel": "difficulty", "title": "t"}
    (ax,) = figures.lines_by(BY_NUMBER, beyond=3.5, **options).axes
    at = [line.get_xdata() for line in ax.lines]
    assert (at[0] != at[1]).all() and np.mean(at, axis=0) == pytest.approx([2, 3, 4])
    assert "beyond training" in named(ax.texts, "!") and list(ax.get_xticks()) == [2, 3, 4]
    some = BY_NUMBER[(BY_NUMBER["arm"] == "teacher") | (BY_NUMBER["difficulty"] < 4)]
    at = [line.get_xdata() for line in figures.lines_by(some, **options).axes[0].lines]
    assert list(at[0]) == [2, 3, 4] and list(at[1]) == [2, 3]


@pytest.mark.parametrize(("call", "words"), [
    (lambda: figures.training_curves(pd.DataFrame({"arm": ["a"]})), "seed, step, validation"),
    (lambda: figures.training_curves(make_histories(["a"]).assign(validation=np.nan)), "no values of validation"),
    (lambda: figures.soft_labels(Z[:2], ["one"], NAMES), "1 texts do not fit"),
    (lambda: figures.soft_labels(Z[:1], ["one"], NAMES[:3]), "3 label names"),
    (lambda: figures.entropy_by_temperature({}), "no logits"),
    (lambda: figures.class_similarity(Z, NAMES, 0), "temperature is 0"),
    (lambda: figures.comparison(make_estimates(["distilled"]), None, "distiled"), "did you mean 'distilled'"),
    (lambda: figures.comparison(make_estimates(ARMS)[:0]), "no rows"),
    (lambda: figures.comparison_by_draw({}), "no draws"),
    (lambda: figures.differences({}), "no verdicts"),
    (lambda: figures.decision(make_decided(["a"]).drop(columns="decided"), 0.02), "decided in the decision"),
    (lambda: figures.gap_closed(make_gaps(["a"])[:0]), "no rows"),
    (lambda: figures.savings(SAVED.drop(columns="bytes")), "bytes in the cost"),
    (lambda: figures.quality_against_cost(make_costs(["a"]).assign(latency_ms=0)), "above 0"),
    (lambda: figures.reliability({"a": (Z, LABELS)}), "softmax"),
    (lambda: figures.fidelity(make_fidelity(ARMS).drop(columns="mean_kl")), "mean_kl in scores"),
    (lambda: figures.flips(make_flips(2)[:0], NAMES), "no rows"),
    (lambda: figures.refusal({}), "no models"),
    (lambda: figures.difficulty({}), "no slices"),
    (lambda: figures.stacked_shares(pd.DataFrame(np.ones((1, 5))), xlabel="x", title="t"), "1 to 4 shares"),
    (lambda: figures.lines_by(BY_NUMBER, "tokens", xlabel="tokens", title="t"), "No column"),
])  # fmt: skip
def test_bad_input_is_explained(call, words):
    with pytest.raises(WorkbenchError, match=words):
        call()


def test_pyplot_is_not_imported_and_settings_are_left_alone():
    code = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy(); from workbench.show import figures;"
        "fig = figures.entropy_by_temperature([[1., 2.], [2., 1.]]); fig._repr_mimebundle_();"
        "assert matplotlib.rcParams.copy() == before;"  # reading each item would import pyplot
        "sys.exit('matplotlib.pyplot' in sys.modules or 'pylab' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_notebook_shows_a_figure_at_700_px_with_twice_the_pixels_and_its_words_as_text():
    data, size = figures.reliability({"teacher": (metrics.softmax(Z), LABELS)})._repr_mimebundle_()
    said = f"The confidence of teacher is off by {100 * metrics.ece(metrics.softmax(Z), LABELS):.1f} points"
    assert data["text/plain"] == f"{said} – n = 150 items; 15 bins, those of fewer than 10 not drawn"
    assert int.from_bytes(data["image/png"][16:20]) == 1400 and size["image/png"]["width"] == 700
