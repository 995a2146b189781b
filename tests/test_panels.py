"""Panels without a kernel: controls are set as a browser would set them, pictures and threads are looked at."""

import ast
import io
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as mpl_image
from tiny import PLAIN, each

from workbench.errors import WorkbenchError
from workbench.language.problems import problems
from workbench.language.traces import trace_task
from workbench.show import panels
from workbench.show.training_panel import config_code
from workbench.sweeps import run_all
from workbench.training import Job, TrainConfig, find_run

NAMES = ["lights on", "lights off", "play <music>", "stop"]
SOURCES = [Path(panels.__file__).with_name(f"{name}.py") for name in ("widgets", "training_panel", "panels")]


def logits(rows: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, len(NAMES))) * 3


def pixels(panel: panels.Panel) -> np.ndarray:
    return mpl_image.imread(io.BytesIO(panel.image.value), format="png")


def temperature_panel() -> panels.TemperaturePanel:
    truth = np.where(np.arange(60) < 30, np.arange(60) % 4, -1)
    texts = [f"command {i} {'loud' if i % 7 == 0 else 'soft'}" for i in range(60)]
    return panels.TemperaturePanel(logits(), texts, NAMES, truth=truth)


def training_panel(task, labels, **options) -> panels.TrainingPanel:
    return panels.TrainingPanel({"3 labels a class": (task, labels)}, PLAIN, **options)


def sweep_panel() -> panels.SweepPanel:
    rows = [
        {"arm": arm, "loss": loss, "temperature": t, "seed": seed, "steps": 5,
         "validation.accuracy": t / 20 + seed / 100, "test.nll": seed - t}
        for arm, loss in (("distilled", "forward_kl"), ("rival", "hard_labels")) for t in (1.0, 4.0, 16.0)
        for seed in (0, 1)
    ]  # fmt: skip
    return panels.SweepPanel(pd.DataFrame(rows))


def compare_panel() -> panels.ComparePanel:
    measures = {"accuracy": [0.9, 0.8, 0.7], "p50_ms": [100.0, 5.0, 9.0], "bytes": [9e7, 6e5, 7e5]}
    table = pd.DataFrame(measures, index=["teacher", "distilled", "labels only"])
    arms = {"teacher": logits(), "distilled": logits()[::-1]}
    return panels.ComparePanel(table, arms, [f"text {i}" for i in range(60)], np.arange(60) % 4, NAMES)


def traces_panel() -> panels.TracesPanel:
    table = pd.DataFrame({
        "question": ["Ann has 3 boxes of 4 pens and gives 5 away. How many are left?", "What is 2 + 2?"],
        "answer": [7, 4],
        "teacher": ["3 x 4 = 12\n12 - 5 = 7\nThe answer is 7.", "2 + 2 = 4"],
        "student": [["3 x 4 = 12", "12 - 5 = 8", "The answer is 8."], ["2 + 2 = 4"]],
        "student first wrong": [1, None],
    })  # fmt: skip
    return panels.TracesPanel(table, ["teacher", "student"])


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "workbench-train"]


def test_no_pyplot_and_no_output_widget():
    names = {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
             for source in SOURCES for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))}  # fmt: skip
    assert not {"pyplot", "Output", "interact", "interactive"} & names


def test_every_control_has_a_unit_a_tooltip_and_the_keyboard(task, labels):
    every = [
        temperature_panel(),
        training_panel(task, labels),
        panels.TryItPanel({"teacher": lambda texts: logits(len(texts))}, NAMES, "hello"),
        sweep_panel(),
        compare_panel(),
        traces_panel(),
    ]
    for panel in every:
        for control in panel.controls:
            assert control.tooltip and control.tabbable is not False
            assert not hasattr(control, "value") or "(" in control.description, control.description


def test_a_panel_is_a_widget_and_a_picture_whose_text_names_no_memory():
    panel = temperature_panel()
    assert panel.image.tooltip is None  # with one, ipywidgets 8.1 shows an error in its place
    data, size = panel._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and size["image/png"]["width"] == 700
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"].startswith("One text's soft label")


def test_the_temperature_moves_labels_entropy_and_map_and_nothing_else():
    panel = temperature_panel()
    panel.temperature.value = 1
    before = pixels(panel)
    entropy = panel._dot.get_ydata()[0]
    panel.temperature.value = 16
    after = pixels(panel)
    assert before.shape == after.shape
    assert panel._dot.get_ydata()[0] > entropy
    changed = (before != after).any(axis=(1, 2))
    assert changed.any() and not changed.all()
    panel.temperature.value = 1
    assert (pixels(panel) == before).all()


def test_examples_are_found_by_words_certainty_and_mistakes():
    panel = temperature_panel()
    panel.search.value = "LOUD"
    assert len(panel.example.options) == 9
    panel.search.value = ""
    certain = np.exp(panel.logits).max(1) / np.exp(panel.logits).sum(1)
    panel.order.value = "most certain first"
    assert panel.example.value == certain.argmax()
    panel.order.value = "least certain first"
    assert panel.example.value == certain.argmin()
    panel.order.value = "teacher wrong"
    wrong = [i for i in range(30) if panel.top[i] != i % 4]
    assert sorted(i for _, i in panel.example.options) == wrong
    kept = panel.example.value
    panel.search.value = "no such words"
    assert "No such text" in panel.note.value and panel.example.value == kept


def test_logits_that_fit_nothing_are_refused():
    with pytest.raises(WorkbenchError, match="do not fit 2 texts and 4 label names"):
        panels.TemperaturePanel(logits(), ["a", "b"], NAMES)


@pytest.mark.slow
def test_a_hundred_rapid_moves_from_four_threads_end_on_what_the_controls_say():
    panel = temperature_panel()

    def move(seed: int) -> None:
        for value in np.random.default_rng(seed).uniform(0.25, 16, 25):
            panel.temperature.value = float(value)

    movers = [threading.Thread(target=move, args=(seed,)) for seed in range(4)]
    for mover in movers:
        mover.start()
    for mover in movers:
        mover.join()
    shown = panel.image.value
    panel.redraw()
    assert panel.image.value == shown
    assert panel._sub.get_text().startswith(f"T = {panel.temperature.value:.3g};")


def test_a_sentence_is_put_to_every_model():
    asked = []

    def model(texts: list[str]) -> np.ndarray:
        asked.append(texts)
        return logits(1)

    panel = panels.TryItPanel({"teacher": model, "distilled": model}, NAMES, "first")
    before = panel.image.value
    panel.text.value = "a <b>second</b> one"
    assert asked[-1] == ["a <b>second</b> one"] and panel.image.value != before
    table = panel.ask("third")
    assert list(table.index.get_level_values("model")) == ["teacher", "distilled"]
    assert np.allclose(table.sum(axis=1), 1) and (table.index.get_level_values("ms") >= 0).all()
    shown = panel.image.value
    panel.text.value = "  "
    assert "There is no sentence" in panel.note.value and panel.image.value == shown


def test_missing_inputs_name_the_notebook_that_makes_them():
    for panel, number in [
        (panels.TryItPanel({}, NAMES, "hello"), "03"),
        (panels.TrainingPanel({}), "02"),
        (panels.SweepPanel(None), "04"),
        (panels.ComparePanel(None, {}, [], [], NAMES), "05"),
        (panels.TracesPanel(None, []), "07"),
    ]:
        assert f"notebook {number}" in panel.note.value and panel.children == (panel.note,)
        assert panel._repr_mimebundle_()[0]["image/png"]


def test_the_code_shown_makes_the_config_of_the_controls(task, labels):
    panel = training_panel(task, labels)
    assert panel.settings["learning_rate"].value == 0.004
    panel.settings["learning_rate"].value = 0.005
    panel.settings["kd_weight"].value = 0.30000000000000004
    panel.settings["loss"].value = "hard_labels"
    assert panel.config.learning_rate == 0.005 and panel.config.kd_weight == 0.3
    assert eval(config_code(panel.config), {"TrainConfig": TrainConfig}) == panel.config
    assert "hard_labels" in panel.code.value and "kd_weight=0.3," in panel.code.value
    panel.reset.click()
    assert panel.config.loss == PLAIN.loss and panel.config.kd_weight == PLAIN.kd_weight


def test_training_without_a_browser_makes_an_ordinary_run(task, labels):
    panel = training_panel(task, labels)
    history = panel.run()
    run = find_run(Job(task, labels, panel.config))
    assert history["step"].tolist() == list(range(1, PLAIN.steps + 1))
    assert run.history["loss"].tolist() == history["loss"].tolist()
    assert list(panel.finished) == ["1: 3 labels a class, as given"]
    assert "Done: 12 steps" in panel.status.value and "in the store" in panel.status.value
    panel.settings["seed"].value = 5
    panel.run()
    assert list(panel.overlay.options) == ["1: 3 labels a class, as given", "2: 3 labels a class, seed 5"]
    one = panel.image.value
    panel.overlay.value = panel.overlay.options
    assert panel.image.value != one and "seed 5" in panel.table.value
    panel.reset.click()
    assert panel.table.value == "" and not panel.overlay.options


class Slow:
    """Records that arrive when the test says so."""

    def __init__(self) -> None:
        self.go, self.closed = threading.Semaphore(0), 0

    def __call__(self, job):
        try:
            for step in range(1, job.config.steps + 1):
                assert self.go.acquire(timeout=30)
                yield {"step": step, "loss": 1 / step, "kd": 1 / step, "seconds": step / 100, "validation": 0.5}
        finally:
            self.closed += 1


def test_train_and_stop_in_the_background(task, labels):
    slow = Slow()
    panel = training_panel(task, labels, train=slow)
    panel.train.click()
    assert panel.running and panel.train.disabled and not panel.stop.disabled
    with pytest.raises(WorkbenchError, match="training already"):
        panel.run()
    panel.stop.click()
    slow.go.release()
    assert panel.wait(30) and slow.closed == 1
    assert "Stopped at step 1 of 12" in panel.status.value and not panel.finished
    assert not panel.train.disabled and panel.stop.disabled
    slow.go.release(12)
    panel.train.click()
    assert panel.wait(30) and list(panel.finished)
    assert threads() == []


@pytest.mark.slow
def test_twenty_rapid_clicks_leave_a_consistent_panel_and_no_thread(task, labels):
    panel = training_panel(task, labels)
    panel.settings["steps"].value = 200
    for _ in range(20):
        panel.train.click()
        panel.stop.click()
    assert panel.wait(60) and threads() == []
    assert not panel.train.disabled and not panel.reset.disabled and panel.stop.disabled
    panel.train.click()
    assert panel.wait(60) and len(panel.finished) == 1
    assert len(find_run(Job(task, labels, panel.config)).history) == 200


def test_an_interrupted_run_is_reported_and_goes_on(task, labels):
    panel = training_panel(task, labels)
    panel.settings["steps"].value = 31
    records = panel.train_function(Job(task, labels, panel.config))
    for _ in range(3):
        next(records)
    records.close()
    panel._describe()
    assert "was interrupted: Train goes on from its last checkpoint" in panel.status.value
    assert len(panel.run()) == 31
    again = training_panel(task, labels)
    again.settings["steps"].value = 31
    assert "have been trained" in again.status.value


def test_a_failing_run_shows_its_text_and_train_is_enabled_again(task, labels):
    def fail(job):
        yield {"step": 1, "loss": 1.0}
        raise ValueError("a <bad> value")

    panel = training_panel(task, labels, train=fail)
    panel.train.click()
    assert panel.wait(30)
    assert "ValueError: a &lt;bad&gt; value" in panel.status.value and not panel.train.disabled
    with pytest.raises(WorkbenchError, match="ValueError: a <bad> value"):
        panel.run()
    panel.settings["kd_weight"].value = panel.settings["ce_weight"].value = 0.0
    assert "nothing to learn from" in panel.status.value
    panel.train.click()
    assert "nothing to learn from" in panel.status.value and not panel.running


def test_a_config_of_another_type_gets_controls_for_what_it_shares():
    @dataclass(frozen=True)
    class Other:
        steps: int = 3
        temperature: float = 1.0
        rank: int = 4

    def train(job):
        for step in range(1, job.config.steps + 1):
            yield {"step": step, "loss": 1.0}

    panel = panels.TrainingPanel({"problems": (None, None)}, Other(), train=train)
    assert list(panel.settings) == ["temperature", "steps"]
    panel.settings["steps"].value = 5
    assert len(panel.run()) == 5 and panel.config == Other(steps=5)
    assert config_code(replace(panel.config, rank=2)) == "Other(steps=5, rank=2)"


def test_a_causal_language_model_is_trained_and_found_again():
    pairs = [(p.prompt, p.completion) for p in problems("sums", [2], 8)]
    lesson = trace_task("lesson", pairs, pairs[:2])
    base = replace(PLAIN, student="llama-1x32", kd_weight=0.0, ce_weight=1.0, steps=3, batch_size=4)
    panel = panels.TrainingPanel({"traces": (lesson, None)}, base, students=["llama-1x64"])
    assert panel.settings["student"].options == ("llama-1x32", "llama-1x64")
    assert list(panel.run()["step"]) == [1, 2, 3]
    assert find_run(Job(lesson, None, panel.config))
    panel.settings["seed"].value = 1
    panel.settings["seed"].value = 0
    assert "have been trained" in panel.status.value


def test_a_sweep_is_sliced_and_its_best_run_offered_first(task, labels):
    panel = sweep_panel()
    assert panel.x.options == ("loss", "temperature") and panel.slice.value == "arm"
    assert panel.metric.options == ("validation.accuracy", "test.nll")
    assert panel.chosen.options[0][0].startswith("0.81:")
    shown = panel.image.value
    panel.x.value = "temperature"
    assert panel.image.value != shown
    panel.metric.value = "test.nll"  # less is better
    assert panel.chosen.options[0][0].startswith("-16:")
    runs = run_all(each([replace(PLAIN, steps=2, temperature=t) for t in (1.0, 4.0)], task, labels), workers=1)
    panel = panels.SweepPanel(runs)
    panel.chosen.value = 1
    assert "temperature=4.0," in panel.code.value


def test_arms_are_compared_by_two_measures_and_by_what_they_disagree_on():
    panel = compare_panel()
    assert (panel.x.value, panel.y.value) == ("p50_ms", "accuracy")
    assert panel.front() == ["teacher", "distilled"]  # "labels only" is slower and worse than "distilled"
    table = panel.disagreements()
    assert len(table) == (logits().argmax(1) != logits()[::-1].argmax(1)).sum()
    panel.only.value = 2
    assert set(panel.disagreements()["truth"]) == {"play <music>"} and "&lt;music&gt;" in panel.table.value
    panel.x.value = panel.y.value = "bytes"
    assert panel.front() == ["distilled"]
    with pytest.raises(WorkbenchError, match="1 measures and 2 arms"):
        panels.ComparePanel(panel.measures[["bytes"]], {"a": logits(), "b": logits()}, [], [], NAMES)


def test_traces_are_stepped_through_and_filtered():
    panel = traces_panel()
    assert panel.number.max == 1 and panel.wrong(0, "student") == 1 and panel.wrong(1, "student") is None
    first = panel.image.value
    panel.number.value = 1
    second = panel.image.value
    assert second != first
    panel.only.value = "one is wrong"
    assert panel.number.max == 0 and panel.image.value == first
    panel.only.value = "all are right"
    assert panel.image.value == second
    with pytest.raises(WorkbenchError, match="no column 'rival'"):
        panels.TracesPanel(panel.problems, ["rival"])
