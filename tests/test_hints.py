"""Hints: a student led by its teacher's hidden states is the student of a run, but for the hint."""

from dataclasses import replace

import numpy as np
import pytest
from refusal import refused
from tiny import PLAIN

from workbench import hints
from workbench.sweeps import jobs, run_all

CONFIG = replace(PLAIN, ce_weight=0.5, keep="last")


@pytest.fixture(scope="module")
def states(task) -> np.ndarray:
    """Of a teacher of 5 dimensions, one of which never moves."""
    texts = task.transfer_texts
    lengths = np.array([[len(text), text.count("a"), text.count("e"), len(text.split()), 3] for text in texts])
    return lengths.astype(float)


def test_without_its_weight_a_hint_makes_the_student_that_a_run_makes(task, labels, states, store):
    todo = jobs({"distilled": CONFIG}, task, labels, [0, 1])
    runs = run_all(todo, store=store, workers=1)["run"]
    made = hints.led(todo, states, weight=0, workers=1)
    assert made.shape == (2, len(task.test), 3)
    np.testing.assert_allclose(made, np.stack([run.logits() for run in runs]), atol=1e-5)


def test_a_hint_brings_the_states_of_the_student_to_those_of_its_teacher(task, labels, states, tmp_path):
    (job,) = jobs({"distilled": replace(CONFIG, steps=40)}, task, labels, [0])
    assert not np.allclose(hints.led([job], states, workers=1), hints.led([job], states, weight=0, workers=1))
    np.testing.assert_array_equal(*(hints.led([job], states, workers=1) for _ in range(2)))
    # What the bridge misses: less of it after the steps than before, and less than without the hint.
    missed = {weight: misses(job, states, weight, tmp_path / str(weight)) for weight in (0.0, 3.0)}
    assert missed[3.0][-1] < missed[3.0][0] and missed[3.0][-1] < missed[0.0][-1]


def misses(job, states, weight, folder) -> list[float]:
    import torch

    folder.mkdir()
    scaled = torch.from_numpy(((states - states.mean(0)) / (states.std(0) + 1e-6)).astype(np.float32))
    trainer, rows = hints.Led(job, folder, scaled, weight), np.arange(len(states))

    def missed() -> float:
        lesson = trainer.lesson
        lesson.forward(rows, *lesson.denominators(rows))
        return torch.nn.functional.mse_loss(lesson.bridge(lesson.mean), scaled).item()

    before = missed()
    while not trainer.done:
        trainer.one_step()
    return [before, missed()]


def test_a_led_step_is_split_as_any_other_is_and_the_run_ends_where_any_other_would(task, labels, states):
    whole, split, early = (
        hints.led(jobs({"": replace(CONFIG, **how)}, task, labels, [0]), states, workers=1)
        for how in ({}, {"accumulation": 3}, {"stop_above": 1e-6})
    )
    np.testing.assert_allclose(split, whole, atol=1e-4)
    assert not np.allclose(early, whole), "it stops at the first evaluation that is good enough"


def test_what_cannot_lead_is_refused(task, labels, states):
    todo = jobs({"distilled": CONFIG}, task, labels, [0])
    for bad in (states[1:], states[:, 0], np.where(states > 5, np.nan, states)):
        with refused("The states are"):
            hints.led(todo, bad)
    with refused("A student is led beside soft labels"):
        hints.led(jobs({"labels only": replace(CONFIG, kd_weight=0.0)}, task, labels, [0]), states)
    with refused("A student is led beside soft labels"):
        hints.led([], states)
    with refused("weight is -1"):
        hints.led(todo, states, weight=-1)
