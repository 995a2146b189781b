"""The procedure that reaches verdicts, put to the test on data whose truth is known."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from refusal import refused

from workbench.metrics import balanced_accuracy, slices
from workbench.verdicts import (
    Results,
    arm_estimates,
    by_slice,
    choose,
    compare,
    decision,
    holm,
    judge,
    share_of_gap,
    strata,
)

EVEN = [10] * 19  # templates a class, as in the default task
UNEVEN = [3, 4] + [5] * 6 + [6, 8, 10, 20, 30, 40]
PAIR = [("new", "old")]


def simulated_hits(rng, sizes, *, by_template, by_seed, by_both, seeds=5, fat=False, items=6):
    """Two arms drawn from one process, so that the null holds exactly: hits [S, N], labels and groups [N]."""
    templates = sum(sizes)
    items = np.broadcast_to(items, templates)  # of each template
    group = np.repeat(np.arange(templates), items)
    label = np.repeat(np.arange(len(sizes)), sizes)

    def effects(*shape):
        return rng.standard_t(2.5, shape) / 2.2 if fat else rng.normal(size=shape)

    difficulty = 1 + 0.8 * rng.normal(size=len(sizes))[label] + effects(templates)
    latent = difficulty + by_template * effects(2, 1, templates) + by_seed * rng.normal(size=(2, seeds, 1))
    latent = (latent + by_both * rng.normal(size=(2, seeds, templates)))[:, :, group]
    hits = latent + 0.8 * rng.normal(size=len(group)) + 0.3 * rng.normal(size=latent.shape) > 0
    return {"new": hits[0], "old": hits[1]}, label[group], group


def side_by_side(data_sets: list[tuple]) -> pd.DataFrame:
    """`compare` of the two arms of each of these (hits, labels, …) of the same items, in one call, which is far faster.

    Holm's procedure then knows of all pairs, so `p` is what each would be judged by alone.
    """
    arms = {f"{arm} {i}": rows for i, (hits, *_) in enumerate(data_sets) for arm, rows in hits.items()}
    return compare(Results(arms, *data_sets[0][1:]), [(f"new {i}", f"old {i}") for i in range(len(data_sets))])


def share_that_beat(table: pd.DataFrame) -> float:
    """Pairs of which each, declared alone, would be called BEATS: `test_interval_excludes_zero_…` has why."""
    return ((table["p"] < 0.05) & (table["estimate"] > 0)).mean()


def share_that_lost(table: pd.DataFrame) -> float:
    return share_that_beat(table.assign(estimate=-table["estimate"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "variances"),
    [
        (EVEN, {"by_template": 0.7, "by_seed": 0.1, "by_both": 0.5}),
        (UNEVEN, {"by_template": 0.7, "by_seed": 0.15, "by_both": 0.5, "fat": True}),
        (EVEN, {"by_template": 0.0, "by_seed": 0.1, "by_both": 0.7}),  # the same arm trained again
    ],
    ids=["ordinary", "fat-tailed and imbalanced", "A/A retrained"],
)
def test_false_beats_in_at_most_4_percent_of_1000_null_data_sets(sizes, variances):
    rng, tables = np.random.default_rng(0), []
    for _ in range(20):
        items = rng.integers(1, 25, sum(sizes)) if variances.get("fat") else 6
        tables.append(side_by_side([simulated_hits(rng, sizes, items=items, **variances) for _ in range(50)]))
    table = pd.concat(tables)
    assert 0.005 <= share_that_beat(table) <= 0.04  # nominal 0.025; almost none would mean too wide intervals
    assert 0.005 <= share_that_lost(table) <= 0.04


def gaussian_hits(rng, sizes, effect=0.0, seeds=5, by_template=0.06, by_seed=0.004, by_both=0.05):
    """Hits as floats round 0.5, one item a template, and the true SE of the difference of the two arms."""
    templates, label = sum(sizes), np.repeat(np.arange(len(sizes)), sizes)
    hits = 0.5 + 0.05 * rng.normal(size=templates) + by_template * rng.normal(size=(2, 1, templates))
    hits = hits + by_seed * rng.normal(size=(2, seeds, 1)) + by_both * rng.normal(size=(2, seeds, templates))
    hits[0] += effect
    weight = 1 / (len(sizes) * np.asarray(sizes)[label])
    noise = (weight**2).sum() * (by_template**2 + by_both**2 / seeds) + by_seed**2 / seeds
    return {"new": hits[0], "old": hits[1]}, label, np.sqrt(2 * noise)


def test_effect_of_2_8_standard_errors_is_found_four_times_in_five():
    rng = np.random.default_rng(1)

    def tables(effect, times):
        return side_by_side([gaussian_hits(rng, EVEN, effect)[:2] for _ in range(times)])

    detectable = tables(0.0, 100)["detectable"].mean()  # as reported, which is what the reader relies on
    assert detectable == pytest.approx(2.8 * gaussian_hits(rng, EVEN)[2], rel=0.10)
    found = tables(detectable, 500)
    assert 0.70 <= share_that_beat(found) <= 0.90
    assert found["estimate"].mean() == pytest.approx(detectable, rel=0.05)


@pytest.mark.parametrize("sizes", [[5] * 8, [5, 7, 9, 30]], ids=str)
def test_variance_is_unbiased_with_few_templates(sizes):
    """Without n/(n-1) the first case would be a fifth too small."""
    rng = np.random.default_rng(2)
    data = [gaussian_hits(rng, sizes, seeds=1, by_seed=0.0) for _ in range(300)]
    found = side_by_side([each[:2] for each in data])["se"] ** 2
    assert found.mean() == pytest.approx(data[0][2] ** 2, rel=0.06)


def test_the_closed_form_is_that_of_a_naive_bootstrap():
    rng = np.random.default_rng(3)
    data = simulated_hits(rng, [6] * 5, by_template=0.7, by_seed=0, by_both=0.3, seeds=1)
    closed = compare(Results(*data), PAIR)["se"][0]
    hits, labels, groups = data
    by_item = pd.Series(hits["new"][0] * 1.0 - hits["old"][0])
    difference = by_item.groupby(groups).mean().to_numpy().reshape(5, 6)
    naive = [np.mean([rng.choice(row, 6).mean() for row in difference]) for _ in range(3000)]
    assert np.std(naive) * np.sqrt(6 / 5) == pytest.approx(closed, rel=0.05)


def test_results_of_logits_are_cut_and_added_to_as_asked():
    logits, labels = np.random.default_rng(4).normal(size=(3, 8, 2)), np.arange(8) % 2
    found = Results.of({"a": logits}, labels, list("ppqqrrss")).add({"b": logits[0]})
    assert (found.correct["a"] == (logits.argmax(-1) == labels)).all() and found.correct["b"].shape == (8,)
    part = found.only("b").at(labels == 0)
    assert list(part.correct) == ["b"] and list(part.groups) == list("pqrs") and (part.labels == 0).all()
    assert (part.correct["b"] == found.correct["b"][::2]).all()
    with refused("Unknown arm 'c'"):
        found.only("c")


def test_an_arm_never_beats_itself():
    hits, labels, groups = simulated_hits(np.random.default_rng(5), EVEN, by_template=0.7, by_seed=0.1, by_both=0.5)
    row = compare(Results(hits, labels, groups), [("new", "new")]).iloc[0]
    assert (row["estimate"], row["se"], row["p"], row["verdict"]) == (0, 0, 1, "EQUIVALENT")


def test_estimate_is_the_balanced_accuracy_averaged_over_seeds():
    rng = np.random.default_rng(6)
    items = rng.integers(1, 25, sum(UNEVEN))
    hits, labels, groups = simulated_hits(rng, UNEVEN, by_template=0.7, by_seed=0.1, by_both=0.5, fat=True, items=items)
    by_hand = {
        arm: np.mean([balanced_accuracy(np.where(seed, labels, labels + 1), labels, groups) for seed in rows])
        for arm, rows in hits.items()
    }
    table = arm_estimates(Results(hits, labels, groups)).set_index("arm")
    assert table["estimate"].to_dict() == pytest.approx(by_hand)
    assert table["item_accuracy"].to_dict() == pytest.approx({arm: rows.mean() for arm, rows in hits.items()})
    assert ((table["low"] < table["estimate"]) & (table["estimate"] < table["high"])).all()
    row = compare(Results(hits, labels, groups), PAIR).iloc[0]
    assert row["estimate"] == pytest.approx(by_hand["new"] - by_hand["old"])
    assert (row["n_templates"], row["n_seeds"]) == (sum(UNEVEN), 5)
    shuffled = rng.permutation(len(labels))
    moved = {arm: rows[:, shuffled] for arm, rows in hits.items()}
    again = compare(Results(moved, labels[shuffled], groups[shuffled]), PAIR)
    assert again["estimate"][0] == pytest.approx(row["estimate"])


def test_seed_variance_counts_and_one_seed_has_none():
    labels = np.repeat([0, 1], 50)
    new = np.tile([[0.5], [0.6], [0.7]], (1, 100))  # no spread over templates at all
    row = compare(Results({"new": new, "old": np.full((3, 100), 0.5)}, labels), PAIR).iloc[0]
    assert (row["se"], row["dof"]) == (pytest.approx(0.1 / np.sqrt(3)), pytest.approx(2))
    single = compare(Results({"new": new[2], "old": np.full(100, 0.5)}, labels), PAIR).iloc[0]
    assert (single["n_seeds"], single["se"]) == (1, pytest.approx(0, abs=1e-12))


def test_holm_golden():
    level, adjusted = holm(np.array([0.01, 0.04, 0.03]))
    assert level == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2])  # stops at 0.03, which 0.04 inherits
    assert adjusted == pytest.approx([0.03, 0.06, 0.06])
    level, adjusted = holm(np.array([0.04, 0.001]))
    assert (level.tolist(), adjusted.tolist()) == ([0.05, 0.025], [0.04, 0.002])


def test_interval_excludes_zero_exactly_when_holm_rejects():
    rng = np.random.default_rng(7)
    decided = []
    for _ in range(60):
        hits, labels, true_se = gaussian_hits(rng, EVEN)
        arms = {f"arm{i}": hits["new"] + shift * true_se for i, shift in enumerate([0, 2, 2.5, 3, 4])}
        declared = [(arm, "old") for arm in arms]
        table = compare(Results({**arms, "old": hits["old"]}, labels), declared)
        excluded = (table["low"] > 0) | (table["high"] < 0)
        assert (excluded == (table["p_holm"] < 0.05)).all()
        alone = compare(Results({**arms, "old": hits["old"]}, labels), declared[:1]).iloc[0]
        assert table["low"][0] <= alone["low"] + 1e-12 and alone["high"] <= table["high"][0] + 1e-12
        decided += excluded.tolist()
    assert 0.1 < np.mean(decided) < 0.9


def test_verdict():
    ends = {
        "BEATS": [(0.001, 0.2), (0.001, 0.002)],  # certain though small
        "WORSE": [(-0.2, -0.001)],
        "EQUIVALENT": [(-0.009, 0.009)],
        "INCONCLUSIVE": [(0.0, 0.2), (-0.01, 0.005), (-0.02, 0.005)],
    }
    assert {v: [pair for pair in pairs if judge(*pair, 0.01) == v] for v, pairs in ends.items()} == ends


def student_and_teacher(deficit, spread=0.02):
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(10), 20)
    noise = rng.normal(size=200).reshape(10, 20)
    noise = (noise - noise.mean(1, keepdims=True)).ravel() / noise.std()
    student = np.tile(0.7 - deficit + spread * noise, (5, 1))
    return {"student": student, "teacher": np.full((1, 200), 0.7)}, labels


@pytest.mark.parametrize(
    ("deficit", "replaces", "verdict"),
    [(0.0, True, "EQUIVALENT"), (0.012, True, "WORSE"), (0.0195, False, "WORSE"), (0.05, False, "WORSE")],
)
def test_replaces(deficit, replaces, verdict):
    hits, labels = student_and_teacher(deficit)
    pairs = [("student", "teacher"), ("teacher", "student")]
    table = compare(Results(hits, labels), pairs, teacher="teacher")
    assert (table["replaces"][0], table["verdict"][0]) == (replaces, verdict)
    assert table["replaces"][1] is None
    assert np.isfinite(table["items_needed"][0]) == (deficit == 0.0195)  # the others are settled


def test_teacher_with_one_seed_meets_every_seed():
    rng = np.random.default_rng(9)
    hits, labels, groups = simulated_hits(rng, EVEN, by_template=0.7, by_seed=0.3, by_both=0.5)
    one = {"new": hits["new"], "old": hits["old"][:1]}
    broadcast = compare(Results(one, labels, groups), PAIR, teacher="old")
    repeated = {"new": hits["new"], "old": np.repeat(hits["old"][:1], 5, axis=0)}
    expected = compare(Results(repeated, labels, groups), PAIR, teacher="old")
    pd.testing.assert_frame_equal(broadcast, expected)
    with refused("'new' has 5 seeds, 'old' 1"):
        compare(Results(one, labels, groups), PAIR)


@pytest.mark.parametrize("effect", [0.004, 0.0015])
def test_items_needed_settle_it(effect):
    hits, labels = student_and_teacher(-effect, spread=0.08)
    hits["teacher"] = np.repeat(hits["teacher"], 5, axis=0)
    pair = {"declared": [("student", "teacher")]}  # not named as teacher: an ordinary pair
    row = compare(Results(hits, labels), **pair).iloc[0]
    assert row["verdict"] == "INCONCLUSIVE" and row["items_needed"] > 200
    times = int(np.ceil(row["items_needed"] / 200))
    more = {arm: np.tile(rows, times) for arm, rows in hits.items()}
    settled = compare(Results(more, np.tile(labels, times)), **pair).iloc[0]
    assert settled["verdict"] == ("BEATS" if effect == 0.004 else "EQUIVALENT")
    assert np.isnan(settled["items_needed"])


def test_only_seeds_settle_what_seeds_leave_open_but_templates_what_seeds_do_to_single_ones():
    shaky = np.tile([[0.45], [0.6], [0.5], [0.55], [0.48]], (1, 100))
    arms = {"new": shaky, "old": np.full((5, 100), 0.5)}
    assert compare(Results(arms, np.repeat([0, 1], 50)), PAIR)["items_needed"][0] == np.inf
    rng = np.random.default_rng(13)
    data = [gaussian_hits(rng, EVEN, by_template=0.005, by_seed=0.0, by_both=0.06)[:2] for _ in range(60)]
    needed = pd.concat([compare(Results(*d), PAIR) for d in data])["items_needed"].dropna()
    assert len(needed) > 20 and np.isfinite(needed).mean() > 0.4


def test_smoke_run_has_no_verdict():
    hits, labels = student_and_teacher(0.0)
    pairs = [("student", "teacher")]
    table = compare(Results(hits, labels), pairs, teacher="teacher", budget="quick")
    assert table["verdict"].tolist() == ["no verdict (smoke run)"] and table["replaces"].tolist() == [None]


def test_small_classes_are_pooled():
    classes = np.repeat([0, 1, 2, 3], [10, 3, 2, 6])
    assert [len(s) for s in strata(classes)] == [10, 6, 5]
    assert set(classes[strata(classes)[2]]) == {1, 2}
    joined = strata(np.repeat([0, 1, 2], [10, 3, 6]))  # three templates are too few for "other" itself
    assert sorted(len(s) for s in joined) == [9, 10]
    assert [len(s) for s in strata(np.repeat([0, 1], [1, 2]))] == [3]


def test_classes_of_one_template_get_an_honest_interval():
    rng = np.random.default_rng(10)
    data = (Results(*gaussian_hits(rng, [1] * 12 + [10] * 4, effect=0.03)[:2]) for _ in range(300))
    rows = pd.concat([compare(each, PAIR) for each in data])
    assert 0.92 <= ((rows["low"] < 0.03) & (0.03 < rows["high"])).mean() <= 0.985


def test_share_of_gap_covers_the_truth():
    rng = np.random.default_rng(11)
    covered = []
    for _ in range(300):
        hits, labels, true_se = gaussian_hits(rng, EVEN)
        arms = {
            "labels": hits["old"],
            "student": hits["new"] + 3 * true_se,
            "teacher": 5 * true_se + hits["old"][:1] + 0.03 * rng.normal(size=190),
        }
        share = share_of_gap(Results(arms, labels), "student", "labels", "teacher")
        covered.append(share["low"] <= 0.6 <= share["high"])
    assert 0.92 <= np.mean(covered) <= 0.985


def test_share_of_gap_at_its_ends():
    hits, labels, _ = gaussian_hits(np.random.default_rng(12), EVEN)
    arms = {"labels": hits["old"], "teacher": hits["new"] + 0.1, "student": hits["new"] + 0.1}
    for arm, end in (("student", 1), ("labels", 0)):
        share = share_of_gap(Results(arms, labels), arm, "labels", "teacher")
        assert share == pytest.approx({"estimate": end, "low": end, "high": end}, abs=1e-6)
    no_lead = {**arms, "teacher": hits["new"] - np.mean(hits["new"] - hits["old"]) + 0.001}
    unbounded = share_of_gap(Results(no_lead, labels), "student", "labels", "teacher")
    assert unbounded["estimate"] > 0 and (unbounded["low"], unbounded["high"]) == (-np.inf, np.inf)
    assert np.isnan(share_of_gap(Results(arms, labels), "student", "labels", "labels")["estimate"])


FOLDS = [0.3, 0.35, 0.35]  # of the templates of each class


def simulated_draws(
    rng, effect=0.0, *, draws=3, seeds=5, by_draw=0.01, by_template=0.08, by_seed=0.01, by_both=0.05, folds=True,
    arms=("new",),
):  # fmt: skip
    """Draws of 10 x 20 templates, of which each draw tests one of three folds (or all), with arms of equal worth."""
    labels, place = np.repeat(np.arange(10), 20), np.tile(np.arange(20), 10)
    ends, made = np.cumsum([0, *FOLDS]) * 20, []
    template = {arm: by_template * rng.normal(size=len(labels)) for arm in arms}
    for k in range(draws):
        tested = (ends[k % 3] <= place) & (place < ends[k % 3 + 1]) if folds else place >= 0
        old = np.full((seeds, len(labels)), 0.5)
        hits = {"old": old, "teacher": old[:1]}
        for arm in arms:
            new = 0.5 + effect + by_draw * rng.normal() + template[arm] + by_seed * rng.normal(size=(seeds, 1))
            hits[arm] = np.clip(new + by_both * rng.normal(size=(seeds, len(labels))), 0, 1)
        made.append(Results(hits, labels, np.arange(len(labels))).at(tested))
    return Results.pooled(made)


THREE, NINE = {"draws": 3, "seeds": 5}, {"draws": 9, "seeds": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "variances"),
    [
        (THREE, {}),
        (THREE, {"by_draw": 0.02}),
        (THREE, {"by_draw": 0.0, "by_seed": 0.03}),
        (THREE, {"by_draw": 0.0, "by_template": 0.0}),
        (NINE, {"by_draw": 0.02}),
        (NINE, {"by_draw": 0.0, "by_template": 0.0}),
    ],
    ids=["draws as templates", "draws twice templates", "seeds alone", "A/A retrained", "nine draws", "nine, A/A"],
)
def test_pooled_folds_beat_falsely_in_at_most_4_percent_of_1000_null_data_sets(made, variances):
    rng, arms = np.random.default_rng(12), [f"new {i}" for i in range(50)]
    pairs = [(arm, "old") for arm in arms]
    draws = (simulated_draws(rng, arms=arms, **made, **variances) for _ in range(20))
    table = pd.concat(compare(each, pairs) for each in draws)
    assert share_that_beat(table) <= 0.04 and share_that_lost(table) <= 0.04
    assert set(table["n_draws"]) == {made["draws"]} and set(table["n_templates"]) == {200}


def test_nine_draws_of_one_seed_find_smaller_effects_than_three_draws_of_three():
    rng = np.random.default_rng(15)

    def median_width(**made):
        rows = [compare(simulated_draws(rng, by_draw=0.02, **made), PAIR).iloc[0] for _ in range(100)]
        return np.median([row["high"] - row["low"] for row in rows])

    assert median_width(draws=9, seeds=1) < 0.75 * median_width(draws=3, seeds=3)


def test_pooled_folds_find_what_they_say_they_would_in_two_of_three():
    rng = np.random.default_rng(13)
    nothing = [compare(simulated_draws(rng, by_draw=0.005), PAIR)["detectable"][0] for _ in range(100)]
    detectable = np.mean(nothing)
    found = [compare(simulated_draws(rng, detectable, by_draw=0.005), PAIR).iloc[0] for _ in range(300)]
    assert np.mean([row["verdict"] == "BEATS" for row in found]) > 0.66
    assert np.mean([row["estimate"] for row in found]) == pytest.approx(detectable, rel=0.05)
    apart = compare(simulated_draws(rng, detectable, by_draw=0.005, folds=False), PAIR).iloc[0]
    assert (apart["n_draws"], apart["n_seeds"]) == (3, 1) and apart["n_templates"] == 200


def test_pooled_draws_of_the_same_items_cover_the_truth():
    rng = np.random.default_rng(12)
    rows = [compare(simulated_draws(rng, 0.03, folds=False), PAIR).iloc[0] for _ in range(300)]
    assert 0.93 <= np.mean([row["low"] < 0.03 < row["high"] for row in rows]) <= 0.99


def test_pooled_folds_are_the_balanced_mean_over_all_their_templates():
    rng = np.random.default_rng(14)
    labels, groups = np.repeat([0, 1], [12, 18]), np.arange(30)
    whole = Results({"new": rng.random((3, 30)), "old": rng.random((1, 30))}, labels, groups)
    pooled = Results.pooled([whole.at(groups % 3 == k) for k in range(3)])
    expected = arm_estimates(whole)["estimate"].to_numpy()
    assert arm_estimates(pooled)["estimate"].to_numpy() == pytest.approx(expected)
    assert arm_estimates(pooled)["n_effective"][0] == pytest.approx(4 / (1 / 12 + 1 / 18))
    assert compare(pooled, PAIR)["estimate"][0] == pytest.approx(expected[0] - expected[1])
    again = {"new": rng.random((1, 30)), "old": whole.correct["old"]}
    more = [whole.at(groups % 3 == k) for k in range(3)] + [replace(whole, correct=again).at(groups % 3 == 0)]
    twice = Results.pooled(more)  # one fold of two draws: its templates weigh what they weighed
    both = {"new": (whole.correct["new"].mean(0) + again["new"][0]) / 2, "old": whole.correct["old"][0]}
    mean = {arm: np.where(groups % 3 == 0, both[arm], np.mean(whole.correct[arm], 0)) for arm in both}
    estimates = arm_estimates(twice)
    assert estimates["estimate"].to_numpy() == pytest.approx(arm_estimates(replace(whole, correct=mean))["estimate"])
    assert set(estimates["n_draws"]) == {4} and estimates["n_items"][0] == 30
    first = np.concatenate([d.correct["old"][0] for d in more])
    assert estimates["item_accuracy"][1] == pytest.approx(first.mean())
    inside = twice.at(groups[np.argsort(groups % 3, kind="stable")] % 3 == 0)
    rows = arm_estimates(inside)
    assert (rows["n_items"][0], rows["n_draws"][0]) == (10, 2)  # the other two draws test none of them
    assert (rows["low"] < rows["estimate"]).all() and (rows["estimate"] < rows["high"]).all()
    with refused("2 draws can't be pooled"):
        Results.pooled([whole, whole.only("new")])
    with refused("0 draws can't be pooled"):
        Results.pooled([])
    with refused("share some of their groups"):
        Results.pooled([whole.at(groups < 20), whole.at(groups > 10)])
    with refused("share some of their groups"):
        Results.pooled([replace(whole.at(groups < n), groups=None) for n in (20, 10)])


def test_no_interval_leaves_the_possible_range():
    hits = {"new": np.tile([1.0, 0.0, 1.0], (3, 1)), "old": np.tile([0.0, 1.0, 0.0], (3, 1))}
    row = compare(Results(hits, [0, 1, 1]), PAIR).iloc[0]
    assert (row["low"], row["high"]) == (-1, 1)


def test_by_slice_is_arm_estimates_of_each_slice():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat([0, 1, 2], 40), np.repeat(np.arange(30), 4)
    correct = {"new": rng.random((3, 120)) < 0.8, "old": rng.random((1, 120)) < 0.7}
    cut = slices(rng.random(120), 3)
    table = by_slice(Results(correct, labels, groups), cut)
    assert table["slice"].unique().tolist() == list(cut.categories) and len(table) == 6
    for name, part in table.groupby("slice"):
        of = cut == name
        alone = arm_estimates(Results({arm: hits[:, of] for arm, hits in correct.items()}, labels[of], groups[of]))
        pd.testing.assert_frame_equal(part.drop(columns="slice").reset_index(drop=True), alone)
    rare = pd.Categorical(np.where(groups == 7, "one template", "the rest"))
    assert by_slice(Results(correct, labels, groups), rare)["slice"].unique().tolist() == ["the rest"]
    with refused("No slice holds two templates"):
        by_slice(Results(correct, labels, groups), pd.Categorical(groups))


@pytest.mark.parametrize(
    ("change", "word", "sentence"),
    [
        ({"replaces": True, "low": -0.01}, "REPLACES", "settle it"),
        ({"high": -0.03}, "DOES NOT REPLACE", "settle it"),
        ({}, "NOT SHOWN TO REPLACE", r"About 400 test templates \(1,600 texts\) in place of 200 \(800\)"),
        ({"items_needed": np.inf}, "NOT SHOWN TO REPLACE", "more seeds"),
        ({"verdict": "no verdict (smoke run)", "replaces": None}, "NO DECISION", "real run"),
    ],
)
def test_decision_says_what_is_decided_and_what_would_settle_it(change, word, sentence):
    row = {"baseline": "teacher", "verdict": "INCONCLUSIVE", "replaces": False, "low": -0.04, "high": 0.02,
           "items_needed": 400.0, "n_templates": 200}  # fmt: skip
    decided, remains = decision(pd.Series(row | change), 800, 0.02)
    assert decided.startswith(word)
    assert re.search(sentence, remains)


def test_decision_agrees_with_compare():
    hits, labels, _ = gaussian_hits(np.random.default_rng(5), EVEN)
    table = compare(Results(hits, labels), PAIR, teacher="old", replace_margin=0.3)
    assert decision(table.iloc[0], len(labels), 0.3)[0] == "REPLACES"
    with refused("not the teacher"):
        decision(compare(Results(hits, labels), PAIR).iloc[0], len(labels))


def test_choose_takes_the_best_mean_and_the_first_of_equals():
    scores = {"kd": {"T=4": 0.7, "T=2": 0.8, "T=1": 0.8}, "ce": {"T=4": 0.6, "T=2": 0.5, "T=1": 0.4}}
    rows = [(arm, c, seed, s + seed / 100) for arm, of in scores.items() for c, s in of.items() for seed in range(3)]
    table = pd.DataFrame(rows, columns=["arm", "config", "seed", "score"])
    picks = choose(table)
    assert picks[["arm", "config"]].to_numpy().tolist() == [["kd", "T=2"], ["ce", "T=4"]]
    assert picks["score"].tolist() == pytest.approx([0.81, 0.61])
    assert (picks["n_configs"].tolist(), picks["n_seeds"].tolist()) == ([3, 3], [3, 3])
    with refused("unequal numbers of configurations (kd 3, ce 2)"):
        choose(table[:-3])
    with refused("'T=1' of arm 'ce' ran with seeds"):
        choose(table[:-1])
    with refused("no gaps"):
        choose(table.assign(score=np.nan))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"declared": [("new", "odl")]}, "did you mean 'old'"),
        ({"declared": []}, "No pairs are declared"),
        ({"teacher": "techer"}, "Unknown arm 'techer'"),
        ({"margin": 1}, "one point is 0.01"),
        ({"groups": [0] * 20}, "items of several classes"),
        ({"labels": [0] * 20, "groups": [0] * 20}, "One test template"),
        ({"labels": [0] * 19}, "shape"),
        ({"correct": {"new": np.full((2, 20), np.nan), "old": np.ones((2, 20))}}, "outside"),
        ({"correct": {"new": np.ones((2, 20)), "old": np.ones((3, 20))}}, "2 seeds, 'old' 3"),
    ],
)
def test_bad_input_is_one_sentence(change, sentence):
    good = {
        "correct": {"new": np.ones((2, 20)), "old": np.ones((2, 20))},
        "labels": np.repeat([0, 1], 10),
        "groups": None,
    }
    how = {"declared": PAIR} | {name: change.pop(name) for name in {*change} - {*good}}
    compare(Results(**good), PAIR)
    with refused(sentence):
        compare(Results(**good | change), **how)


# --- many settings, few seeds


def make_settings(rng, effect: float, templates: float = 0.02, seeds: float = 0.03) -> dict[str, np.ndarray]:
    """Nine settings' chances [2 seeds, items]: 6 classes of 8 templates; the spread of templates and of seeds."""
    chance = 0.7 + rng.normal(0, templates, (9, 1, 48)) + rng.normal(0, seeds, (9, 2, 1))
    chance[0] += effect
    return {f"setting {i}": np.clip(hits, 0, 1) for i, hits in enumerate(chance)}


def sweeps(times: int, effect: float, pool_seeds: bool, **spread: float) -> list[pd.Series]:
    """The verdicts on eight settings in each of so many sweeps."""
    rng, classes = np.random.default_rng(0), np.repeat(np.arange(6), 8)
    pairs = [(f"setting {i}", "setting 0") for i in range(1, 9)]
    made = (Results(make_settings(rng, effect, **spread), classes) for _ in range(times))
    return [compare(each, pairs, pool_seeds=pool_seeds)["verdict"] for each in made]


@pytest.mark.slow
def test_pooled_seeds_keep_the_error_rate_and_find_what_two_seeds_alone_cannot():
    for templates in (0.02, 0.1):
        wrong = [found.isin(["BEATS", "WORSE"]).any() for found in sweeps(200, 0.0, True, templates=templates)]
        assert sum(wrong) <= 16  # of 200: 5 % and two standard errors
    alone, pooled = (pd.concat(sweeps(100, 0.15, pool)).eq("WORSE").mean() for pool in (False, True))
    assert alone < 0.4 < 0.8 < pooled


def test_pooled_seeds_are_the_residual_of_arm_and_seed():
    classes = np.repeat(np.arange(2), 5)
    level = np.array([[0.5, 0.5], [0.6, 0.8], [0.3, 0.3]])  # [arms, seeds]
    correct = {name: np.repeat(row[:, None], 10, axis=1) for name, row in zip("abc", level, strict=True)}
    found = compare(Results(correct, classes), [("b", "a"), ("c", "a")], pool_seeds=True)
    residual = level - level.mean(1, keepdims=True) - level.mean(0) + level.mean()
    expected = np.sqrt(2 * (residual**2).sum() / 2 / 2)  # no spread between templates
    np.testing.assert_allclose(found["se"], expected)
    np.testing.assert_allclose(found["dof"], 2)
    with refused("one baseline"):
        compare(Results(correct, classes), [("b", "a"), ("c", "b")], pool_seeds=True)
