"""Defences of one's own teacher: what leaves the house, and what an innocent model risks to be taken for."""

import numpy as np
import pytest
from refusal import refused

from workbench.hosted.defences import DEFENCES, STRENGTHS, Defended, fingerprint_test, repeated_errors
from workbench.hosted.endpoint import Endpoint
from workbench.hosted.prices import Price
from workbench.hosted.serve import running
from workbench.hosted.teacher import load_teacher
from workbench.metrics import softmax
from workbench.soft_labels import soft_labels
from workbench.teachers import BagOfWords

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.full(7, 0.4), 500)
DRAWS = RNG.random((500, 2))


@pytest.mark.parametrize("name", DEFENCES)
def test_what_is_told_is_a_distribution_with_the_top_class_unless_flipped(name):
    told = DEFENCES[name](P, DRAWS)
    assert told.shape == P.shape and (told >= 0).all() and (told.sum(1) > 0).all()
    kept = (told.argmax(1) == P.argmax(1)).mean()
    assert kept == (1 - (DRAWS[:, 0] < 0.1).mean() if name == "flipped" else 1)


def test_each_defence_by_hand():
    p, draws = np.array([[0.62, 0.26, 0.08, 0.04], [0.25, 0.25, 0.26, 0.24]]), np.array([[0.05, 0.5], [0.5, 0.5]])
    assert DEFENCES["labels only"](p, draws).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    np.testing.assert_allclose(DEFENCES["rounded"](p, draws)[0], [0.6, 0.3, 0.1, 0.0])
    assert DEFENCES["rounded"](p, draws, digits=0)[1].argmax() == 2
    np.testing.assert_allclose(DEFENCES["top k"](p, draws, k=2)[0], [0.62, 0.26, 0.06, 0.06])
    np.testing.assert_allclose(DEFENCES["flipped"](p, draws, share=0.1), [[0.08, 0.26, 0.62, 0.04], p[1]])
    # y = 0.8: s(0.2 s⁻¹(0.8)) = s(0.27726) = 0.568874, so that 0.8 − 0.5 (0.068874) = 0.765563; 0.2 becomes 0.234437.
    bent = DEFENCES["reverse sigmoid"](np.array([[0.8, 0.2]]), draws[:1], beta=0.5, gamma=0.2)
    np.testing.assert_allclose(bent, [[0.765563, 0.234437]], atol=1e-6)


def test_a_teacher_wears_it_and_says_the_same_thing_twice(task, store):
    plain, texts = BagOfWords(task), task.test["text"][:]
    worn = Defended(plain, "flipped", share=0.5)
    logits = worn.logits(texts)
    np.testing.assert_allclose(softmax(logits).sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(logits, np.vstack([worn.logits([text]) for text in texts]))
    assert 0 < (logits.argmax(1) != plain.logits(texts).argmax(1)).sum() < len(texts)
    assert (worn.logits(texts) != Defended(plain, "flipped", seed=1, share=0.5).logits(texts)).any()
    seen = {worn.fingerprint, plain.fingerprint, Defended(plain, "flipped").fingerprint}
    seen |= {Defended(plain, "flipped", seed=1, share=0.5).fingerprint, Defended(plain, "rounded").fingerprint}
    assert len(seen) == 5 and worn.licence == plain.licence
    assert soft_labels(worn, task, store=store).rows_labelled == len(task.transfer_texts)
    assert set(STRENGTHS) == set(DEFENCES)


def test_it_is_told_over_http_as_it_leaves_the_house(task, tmp_path):
    worn, texts = Defended(BagOfWords(task), "reverse sigmoid"), task.test["text"][:4]
    with running(worn, "words") as server:
        endpoint = Endpoint(server.base_url, "words", price=Price(0.1, 0.4), path=tmp_path / "r.sqlite")
        heard = load_teacher(endpoint, task).read(texts).logits
    np.testing.assert_allclose(heard, worn.logits(texts), atol=1e-3)


BAD = {
    "no defence": (("shout",), {}, "Unknown defence 'shout'"),
    "no setting of it": (("rounded",), {"share": 0.1}, "Unknown setting of rounded 'share'"),
    "more than all": (("flipped",), {"share": 1.5}, "share is 1.5"),
    "half a digit": (("rounded",), {"digits": 0.5}, "digits is 0.5"),
    "no seed": (("rounded", -1), {}, "seed is -1"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_defences(what, task):
    args, strength, sentence = BAD[what]
    with refused(sentence):
        Defended(BagOfWords(task), *args, **strength)


def test_repeated_errors_by_hand():
    labels = np.array([0, 0, 1, 1, 2, 2])
    teacher = np.array([0, 1, 1, 2, 0, 2])  # wrong on items 1, 3 and 4
    students = np.array([teacher, labels, [1, 1, 1, 2, 1, 1]])
    np.testing.assert_allclose(repeated_errors(teacher, students, labels), [1, 0, 2 / 3])
    groups = np.array(["a", "b", "c", "d", "e", "e"])  # item 4 has half of its class's weight
    np.testing.assert_allclose(repeated_errors(teacher, students, labels, groups), [1, 0, 2 / 3])
    with refused("no error on these items"):
        repeated_errors(labels, students, labels)
    with refused("Answers do not fit", "students (3, 6)"):
        repeated_errors(teacher[:3], students, labels[:3])


def answers(rng, labels, accuracy, copied=None, share=0.0):
    """A model's answers; a `share` of the errors of another is copied."""
    wrong = rng.random(len(labels)) > accuracy
    said = np.where(wrong, (labels + rng.integers(1, 10, len(labels))) % 10, labels)
    if copied is not None:
        said = np.where((copied != labels) & (rng.random(len(labels)) < share), copied, said)
    return said


def test_false_alarms_stay_under_five_in_a_hundred_and_a_copy_is_found():
    rng = np.random.default_rng(1)
    alarms, found = [], []
    for _ in range(400):
        labels = rng.integers(0, 10, 200)
        teacher = answers(rng, labels, 0.85)
        crowd = np.array([answers(rng, labels, 0.8) for _ in range(21)])
        shares = repeated_errors(teacher, crowd, labels)
        alarms.append(fingerprint_test(shares[0], shares[1:]).flagged)
        student = answers(rng, labels, 0.8, teacher, 0.4)
        found.append(fingerprint_test(repeated_errors(teacher, student, labels)[0], shares[1:]).flagged)
    assert np.mean(alarms) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(found) > 0.9


def test_a_p_value_is_a_rank_and_needs_enough_models():
    innocent = np.linspace(0.0, 0.38, 20)
    assert fingerprint_test(0.5, innocent) == (1 / 21, True)
    assert fingerprint_test(0.38, innocent) == (2 / 21, False)
    assert fingerprint_test(0.0, innocent).p_value == 1
    with refused("19 innocent models can't show 0.05: take 20 or more"):
        fingerprint_test(0.5, innocent[1:])
    with refused("suspect is 2"):
        fingerprint_test(2, innocent)
    assert fingerprint_test(0.5, innocent[:10], level=0.1).flagged
