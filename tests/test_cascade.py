"""The cascade: thresholds keep their word, curves have their ends, and the verdict is that of the pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusal import refused
from scipy import stats

from workbench.hosted import cascade
from workbench.hosted.cascade import Pair, threshold
from workbench.verdicts import compare

CLASSES = 4


def pair(
    templates: int, seed: int = 0, seeds: int = 2, teacher: float = 0.95, student: float = 0.8, tells: float = 3.0,
    copies: int = 4,
) -> Pair:  # fmt: skip
    """A student whose confidence tells more of its mistakes the larger `tells` is (0: nothing), on 1 to `copies` texts
    a template."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(templates), rng.integers(1, copies + 1, templates))
    hard = rng.normal(size=templates)[groups] + 0.5 * rng.normal(size=(seeds, len(groups)))
    right = hard < stats.norm.ppf(student) * np.sqrt(1.25)
    noise = rng.normal(size=hard.shape)
    sure = stats.norm.cdf((-tells * hard + noise) / np.hypot(1, tells))
    told = rng.random(templates)[groups] < teacher
    return Pair(right, told, sure, groups % CLASSES, groups)


def test_the_least_promise_is_that_of_templates_without_a_loss():
    assert cascade.least_promise(59) == pytest.approx(0.0495, abs=1e-4)  # 1 − .05^(1/59), the rule of 59
    assert cascade.least_promise(1) == pytest.approx(0.95)


def test_a_threshold_worked_by_hand():
    # 100 texts, sure by their number; the 40th, 60th and 80th would be lost. Upper bounds of 1, 2, 3 losses in 100:
    # 4.66 %, 6.16 %, 7.57 %. A promise of 5 % holds one loss, so that 61 is the last that the student may answer.
    sure, lost = np.arange(1, 101) / 100, np.zeros(100)
    lost[[39, 59, 79]] = 1
    assert [threshold(sure, lost, promised) for promised in (0.04, 0.05, 0.07, 0.08)] == [0.81, 0.61, 0.41, 0.01]


def test_a_student_that_errs_where_it_is_surest_answers_nothing():
    sure, lost = np.arange(100.0), np.zeros(100)
    lost[95:] = 1
    assert threshold(sure, lost, 0.04) == np.inf


def test_near_copies_are_one_trial():
    sure, lost = np.repeat([0.9, 0.5], [300, 300]), np.zeros(600)
    assert threshold(sure, lost, 0.01) == 0.5
    with refused("10 calibration templates", "25.9 % is the least", "1 % was asked"):
        threshold(sure, lost, 0.01, groups=np.arange(600) % 10)


def test_ties_go_together():
    sure, lost = np.repeat([0.9, 0.5], 50), np.r_[np.zeros(50), np.ones(10), np.zeros(40)]
    assert threshold(sure, lost, 0.08) == 0.9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.5), st.floats(0.01, 0.4))
def test_a_smaller_promise_never_lets_the_student_answer_more(seed, promised, less):
    one = pair(80, seed, seeds=1)
    promises = max(promised - less, 0.04), promised
    strict, lax = (threshold(one.confidence[0], one.lost[0], p, one.groups) for p in promises)
    assert strict >= lax


@pytest.mark.slow
@pytest.mark.parametrize(("tells", "promised", "copies"), [(3.0, 0.05, 4), (0.3, 0.10, 4), (0.3, 0.10, 1)])
def test_the_promise_is_kept_in_95_of_100_calibration_sets(tells, promised, copies):
    world = pair(20_000, seed=7, seeds=1, tells=tells, student=0.7, copies=copies)
    sure, lost = world.confidence[0], world.lost[0]
    starts = np.flatnonzero(np.r_[True, np.diff(world.groups) > 0])
    sizes = np.diff(np.r_[starts, len(sure)])
    order = np.argsort(-sure)
    truly = np.cumsum((lost / sizes[world.groups])[order]) / len(starts)  # lost when so many of the surest are answered
    rng, broken = np.random.default_rng(1), 0
    for _ in range(1000):
        drawn = rng.integers(0, len(starts), 106)
        items = np.concatenate([np.arange(starts[t], starts[t] + sizes[t]) for t in drawn])
        groups = np.repeat(np.arange(106), sizes[drawn])
        cut = threshold(sure[items], lost[items], promised, groups)
        answered = np.searchsorted(-sure[order], -cut, "right")
        broken += answered > 0 and truly[answered - 1] > promised
    assert broken <= 50
    assert broken > 10 or copies > 1, "where each template is one coin the bound is no wider than it has to be"


def test_halves_show_what_was_promised_and_what_was_kept():
    found = cascade.kept(pair(300), 0.06, draws=40)
    assert len(found) == 80 and found[["deferred", "lost"]].notna().all(axis=None)
    assert found["lost"].mean() < 0.06
    again = cascade.kept(pair(300), 0.06, draws=40)
    assert found.equals(again)


def test_the_curve_goes_from_the_student_to_the_teacher():
    one = pair(200)
    points = cascade.curve(one)
    alone, teacher = (one.student @ one.weights).mean(), one.teacher @ one.weights
    for way in ("cascade", "random", "oracle"):
        assert points[way].iloc[[0, -1]].tolist() == pytest.approx([alone, teacher])
    assert (points["oracle"] >= points[["cascade", "random"]].max(axis=1) - 1e-9).all()
    assert points["oracle"].max() == pytest.approx(((one.student | one.teacher) @ one.weights).mean())


def test_the_curve_is_what_its_thresholds_give():
    one = pair(60, seeds=1)
    points = cascade.curve(one)
    for level in np.quantile(one.confidence, [0.2, 0.5]):
        deferred = one.deferred([level])
        hits = np.where(deferred, one.teacher, one.student)[0] @ one.weights
        share = (deferred @ one.weights)[0]
        assert np.interp(share, points["share"], points["cascade"]) == pytest.approx(hits, abs=0.02)


def test_random_deferral_recovers_half_and_a_perfect_one_more():
    points = cascade.curve(pair(200))
    flat = cascade.recovered(points, "random")
    assert flat == pytest.approx({"apgr": 0.5, "cpt_50": 0.5, "cpt_80": 0.8, "cpt_95": 0.95})
    found, best = cascade.recovered(points), cascade.recovered(points, "oracle")
    assert flat["apgr"] < found["apgr"] < best["apgr"]
    assert best["cpt_80"] < found["cpt_80"] < 0.8


def test_a_teacher_that_does_not_lead_has_nothing_to_win_back():
    with refused("no better than its student"):
        cascade.recovered(cascade.curve(pair(100, teacher=0.5)))


def test_fewest_calls_stop_at_the_first_share_that_is_not_shown():
    found = cascade.smallest_share(pair(300, 1), pair(600, 2), margin=0.02)
    assert found["holds"].iloc[:-1].all() and found["share"].is_monotonic_decreasing
    assert found["deferred"].to_numpy() == pytest.approx(found["share"].to_numpy(), abs=0.08)
    assert found["estimate"].iloc[0] == 0 and found["verdict"].iloc[0] == "EQUIVALENT", "all calls: the teacher itself"
    assert not found["holds"].iloc[-1] and 0 < found["share"].iloc[-1] < 1


def test_a_student_better_than_its_teacher_needs_no_call():
    found = cascade.smallest_share(pair(300, 1, teacher=0.6), pair(600, 2, teacher=0.6), margin=0.02)
    last = found.iloc[-1]
    assert (last["share"], last["deferred"], last["verdict"], last["holds"]) == (0, 0, "BEATS", True)


def test_a_smoke_run_gives_no_verdict():
    found = cascade.smallest_share(pair(50, 1), pair(50, 2), budget="quick", shares=[1.0])
    assert list(found["verdict"]) == ["no verdict (smoke run)"]


def test_a_confidence_that_tells_beats_random_deferral_and_one_that_does_not_is_found_out():
    verdict = {}
    for tells in (3.0, 0.0):
        fitted, test = pair(300, 1, tells=tells), pair(1000, 2, tells=tells)
        cut = [np.quantile(sure, 0.4) for sure in fitted.confidence]
        verdict[tells] = cascade.judged(test, cut).set_index("baseline").loc["random deferral", "verdict"]
    assert verdict[3.0] == "BEATS" and verdict[0.0] != "BEATS"


def test_two_that_err_on_different_texts_are_better_together():
    fitted, test = (pair(n, seed, teacher=0.8, student=0.75) for n, seed in ((400, 1), (800, 2)))
    found = cascade.judged(test, cascade.best_thresholds(fitted)).set_index("baseline")["verdict"]
    assert found["teacher"] == found["student"] == "BEATS"
    shares = cascade.who_errs({"pair": test}).iloc[0]
    assert shares["lost"] > 0.1 and shares["won"] > 0.1
    gap = test.teacher @ test.weights - (test.student @ test.weights).mean()
    assert shares["lost"] - shares["won"] == pytest.approx(gap)


def test_the_best_thresholds_are_those_of_a_search():
    one = pair(40, seeds=1)
    (cut,) = cascade.best_thresholds(one)
    hits = {t: np.where(one.deferred([t]), one.teacher, one.student)[0] @ one.weights for t in one.confidence[0]}
    assert hits[cut] == pytest.approx(max(hits.values()))


def test_hits_of_the_pair_are_paired_with_those_of_the_teacher():
    one = pair(100)
    results = one.results([np.inf, np.inf])
    row = compare(results, [("pair", "teacher")], teacher="teacher").iloc[0]
    assert (row["estimate"], row["se"]) == (0, 0)
    assert np.array_equal(one.results([0.0, 0.0]).correct["pair"], one.student)


def test_logits_give_hits_and_confidence():
    student = np.array([[[2.0, 0.0], [0.0, 1.0]]])
    one = Pair.of(student, [[0.0, 1.0], [0.0, 1.0]], [0, 1])
    assert one.student.tolist() == [[True, True]] and one.teacher.tolist() == [False, True]
    assert one.confidence[0] == pytest.approx([np.e**2 / (1 + np.e**2), np.e / (1 + np.e)])


BAD = {
    "no rows": lambda: Pair(np.zeros((1, 0)), [], np.zeros((1, 0)), []),
    "one short": lambda: Pair([True, False], [True], [0.5, 0.6], [0, 1]),
    "no number": lambda: Pair([True, False], [True, True], [0.5, np.nan], [0, 1]),
    "logits of one seed": lambda: Pair.of(np.zeros((2, 2)), np.zeros((2, 2)), [0, 1]),
    "promise 0": lambda: threshold([0.5], [0], 0.0),
    "promise 1": lambda: threshold([0.5], [0], 1.0),
    "level 1": lambda: threshold([0.5], [0], 0.5, level=1.0),
    "no calibration": lambda: threshold([], [], 0.5),
    "losses short": lambda: threshold([0.5, 0.6], [0], 0.5),
    "losses of money": lambda: threshold([0.5], [12.0], 0.5),
    "a promise nobody can keep": lambda: threshold([0.5, 0.6], [0, 0], 0.05),
    "shares rising": lambda: cascade.smallest_share(pair(50), pair(50), shares=[0.1, 0.5]),
    "shares above 1": lambda: cascade.smallest_share(pair(50), pair(50), shares=[1.5]),
    "draws 0": lambda: cascade.kept(pair(100), 0.1, draws=0),
}


@pytest.mark.parametrize("call", BAD.values(), ids=BAD)
def test_bad_input_comes_to_one_sentence(call):
    with refused():
        call()
