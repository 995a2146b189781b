"""Panels without a kernel: controls are set as a browser would set them, pictures and threads are looked at."""

import ast
import io
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from legible import faults
from matplotlib import image as mpl_image
from tiny import PLAIN, each

from workbench.errors import WorkbenchError
from workbench.language.problems import problems
from workbench.language.traces import trace_task
from workbench.show import panels, style, widgets
from workbench.show.training_panel import config_code
from workbench.sweeps import run_all
from workbench.training import Job, TrainConfig, find_run

NAMES = ["lights on", "lights off", "play <music>", "stop"]
LONG = [f"{i} {'a rather long name of some eighty characters, as nobody would give it to a class'}" for i in range(77)]
SOURCES = [Path(panels.__file__).with_name(f"{name}.py") for name in ("widgets", "training_panel", "panels")]


def logits(rows: int = 60, names: list[str] = NAMES) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, len(names))) * 3


def pixels(panel: panels.Panel) -> np.ndarray:
    return mpl_image.imread(io.BytesIO(panel.image.value), format="png")


def temperature_panel(names: list[str] = NAMES) -> panels.TemperaturePanel:
    truth = np.where(np.arange(60) < 30, np.arange(60) % 4, -1)
    texts = [f"command {i} {'loud' if i % 7 == 0 else 'soft'} {names[i % len(names)]}" for i in range(60)]
    return panels.TemperaturePanel(logits(names=names), texts, names, truth=truth)


@pytest.fixture
def make_panel(task, labels):
    """Make a panel that trains a small student; options are the panel's."""
    return lambda **options: panels.TrainingPanel({"3 labels a class": (task, labels)}, PLAIN, **options)


def moved(panel: panels.Panel, control: str, value: object) -> bool:
    """Whether the picture is another one once the control has the value."""
    before = panel.image.value
    getattr(panel, control).value = value
    return panel.image.value != before


def idle(panel: panels.TrainingPanel) -> bool:
    """Whether the run has ended and the buttons and threads know."""
    ended = panel.wait(60) and "workbench-train" not in {thread.name for thread in threading.enumerate()}
    return ended and not panel.train.disabled and not panel.reset.disabled and panel.stop.disabled


def sweep_panel() -> panels.SweepPanel:
    arms, settings = {"distilled": "forward_kl", "rival": "hard_labels"}, ["arm", "temperature", "seed"]
    runs = pd.MultiIndex.from_product([arms, (1.0, 4.0, 16.0), (0, 1)], names=settings).to_frame(index=False)
    runs = runs.assign(loss=runs["arm"].map(arms), steps=5)[["arm", "loss", "temperature", "seed", "steps"]]
    t, seed = runs["temperature"], runs["seed"]
    return panels.SweepPanel(runs.assign(**{"validation.accuracy": t / 20 + seed / 100, "test.nll": seed - t}))


def compare_panel(rival: str = "labels only") -> panels.ComparePanel:
    measures = {"accuracy": [0.9, 0.8, 0.7], "p50_ms": [100.0, 5.0, 9.0], "bytes": [9e7, 6e5, 7e5]}
    table = pd.DataFrame(measures, index=["teacher", "distilled", rival])
    arms = {"teacher": logits(), "distilled": logits()[::-1]}
    return panels.ComparePanel(table, arms, [f"text {i}" for i in range(60)], np.arange(60) % 4, NAMES)


def try_panel(names: list[str] = NAMES, text: str = "hello", models: Sequence[str] = ("teacher",)) -> panels.TryItPanel:
    return panels.TryItPanel(dict.fromkeys(models, lambda texts: logits(len(texts), names)), names, text)


def traces_panel() -> panels.TracesPanel:
    table = pd.DataFrame({
        "question": ["Ann has 3 boxes of 4 pens and gives 5 away. How many are left?", "What is 2 + 2?"],
        "answer": [7, 4],
        "teacher": ["3 x 4 = 12\n12 - 5 = 7\nThe answer is 7.", "2 + 2 = 4"],
        "student": [["3 x 4 = 12", "12 - 5 = 8", "The answer is 8."], ["2 + 2 = 4"]],
        "student first wrong": [1, None],
    })  # fmt: skip
    return panels.TracesPanel(table, ["teacher", "student"])


def test_no_pyplot_and_no_output_widget():
    names = {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
             for source in SOURCES for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))}  # fmt: skip
    assert not {"pyplot", "Output", "interact", "interactive"} & names


def test_every_control_has_a_plain_name_a_tooltip_and_the_keyboard(make_panel):
    for panel in (temperature_panel(), make_panel(), try_panel(), sweep_panel(), compare_panel(), traces_panel()):
        for control in panel.controls:
            assert control.tooltip and control.tabbable is not False
            assert control.description and "()" not in control.description and "no unit" not in control.description


@pytest.mark.parametrize("make", [
    lambda: temperature_panel(["yes", "no"]), lambda: temperature_panel(LONG), lambda: try_panel(["yes", "no"]),
    lambda: try_panel(LONG, "word " * 60, ("teacher", LONG[0], LONG[1])), sweep_panel, compare_panel,
    lambda: compare_panel(LONG[0]), traces_panel,
])  # fmt: skip
def test_a_picture_is_legible_with_two_classes_and_with_long_names_of_many(make):
    with style.drawing():
        fig = make().draw()
        for artist in fig.findobj(lambda artist: artist.get_animated()):
            artist.set_animated(False)  # so that it is drawn with the rest
        assert faults(fig) == []


def test_a_panel_is_a_widget_and_a_picture_whose_text_names_no_memory():
    panel = temperature_panel()
    assert panel.image.tooltip is None  # with one, ipywidgets 8.1 shows an error in its place
    data, size = panel._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and size["image/png"]["width"] == 700
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"].startswith("One text's soft label")


def test_the_temperature_moves_labels_entropy_and_map_and_nothing_else():
    panel = temperature_panel()
    seen = {}
    for temperature in (1, 16, 1):
        panel.temperature.value = temperature
        before = seen.setdefault(temperature, pixels(panel))
        assert (pixels(panel) == before).all()
    changed = (seen[1] != seen[16]).any(axis=2)
    for x, y in ((0.4, 1.4), (0.8, 1.4), (0.6, 5)):  # label, entropy and map: parts of the width, inches from the top
        row, column = round(widgets.DPI * y), round(changed.shape[1] * x)
        assert changed[row - 90 : row + 90, column - 120 : column + 120].any()
    assert not changed.any(axis=1).all()


def test_examples_are_found_by_words_certainty_and_mistakes():
    panel = temperature_panel()
    panel.search.value = "LOUD"
    assert len(panel.example.options) == 9
    panel.search.value = ""
    certain = np.exp(panel.logits).max(1) / np.exp(panel.logits).sum(1)
    for order, first in (("most", certain.argmax()), ("least", certain.argmin())):
        panel.order.value = f"{order} certain first"
        assert panel.example.value == first
    panel.order.value = "teacher wrong"
    wrong = [i for i in range(30) if panel.top[i] != i % 4]
    assert sorted(i for _, i in panel.example.options) == wrong
    kept = panel.example.value
    panel.search.value = "no such words"
    assert "No such text" in panel.note.value and panel.example.value == kept


@pytest.mark.parametrize(("make", "words"), [
    (lambda: panels.TemperaturePanel(logits(), ["a", "b"], NAMES), "do not fit 2 texts and 4 label names"),
    (lambda: panels.ComparePanel(pd.DataFrame({"bytes": [1.0, 2.0]}), {"a": logits(), "b": logits()}, [], [], NAMES),
     "1 measures and 2 arms"),
    (lambda: panels.TracesPanel(traces_panel().problems, ["rival"]), "no column 'rival'"),
    (lambda: panels.SweepPanel(pd.DataFrame({"seed": [1]})), "no scores"),
])  # fmt: skip
def test_what_fits_nothing_is_refused(make, words):
    with pytest.raises(WorkbenchError, match=words):
        make()


@pytest.mark.slow
def test_forty_rapid_moves_from_four_threads_end_on_what_the_controls_say():
    panel = temperature_panel()

    def move(seed: int) -> None:
        for value in np.random.default_rng(seed).uniform(0.25, 16, 10):
            panel.temperature.value = float(value)

    with ThreadPoolExecutor(4) as movers:
        list(movers.map(move, range(4)))
    shown = panel.image.value
    panel.redraw()
    assert panel.image.value == shown
    again = temperature_panel()
    again.temperature.value = panel.temperature.value
    assert again.image.value == shown


def test_a_sentence_is_put_to_every_model():
    asked = []

    def model(texts: list[str]) -> np.ndarray:
        asked.append(texts)
        return logits(1)

    panel = panels.TryItPanel({"teacher": model, "distilled": model}, NAMES, "first")
    assert moved(panel, "text", "a <b>second</b> one") and asked[-1] == ["a <b>second</b> one"]
    table = panel.ask("third")
    assert list(table.index.get_level_values("model")) == ["teacher", "distilled"]
    assert np.allclose(table.sum(axis=1), 1) and (table.index.get_level_values("ms") >= 0).all()
    assert not moved(panel, "text", "  ") and "There is no sentence" in panel.note.value


@pytest.mark.parametrize(("make", "number"), [
    (lambda: panels.TryItPanel({}, NAMES, "hello"), "03"),
    (lambda: panels.TrainingPanel({}), "02"),
    (lambda: panels.SweepPanel(None), "04"),
    (lambda: panels.ComparePanel(None, {}, [], [], NAMES), "05"),
    (lambda: panels.TracesPanel(None, []), "07"),
])  # fmt: skip
def test_missing_inputs_name_the_notebook_that_makes_them(make, number):
    panel = make()
    assert f"notebook {number}" in panel.note.value and panel.children == (panel.note,)
    assert panel._repr_mimebundle_()[0]["image/png"]


def test_the_code_shown_makes_the_config_of_the_controls(make_panel):
    panel = make_panel()
    assert panel.settings["learning_rate"].value == 0.004
    panel.settings["learning_rate"].value = 0.005
    panel.settings["kd_weight"].value = 0.30000000000000004
    panel.settings["loss"].value = "hard_labels"
    assert panel.config.learning_rate == 0.005 and panel.config.kd_weight == 0.3
    assert eval(config_code(panel.config), {"TrainConfig": TrainConfig}) == panel.config
    assert "hard_labels" in panel.code.value and "kd_weight=0.3," in panel.code.value
    panel.reset.click()
    assert panel.config.loss == PLAIN.loss and panel.config.kd_weight == PLAIN.kd_weight


def test_training_without_a_browser_makes_an_ordinary_run(task, labels, make_panel):
    panel = make_panel()
    history = panel.run()
    run = find_run(Job(task, labels, panel.config))
    assert history["step"].tolist() == list(range(1, PLAIN.steps + 1))
    assert run.history["loss"].tolist() == history["loss"].tolist()
    assert list(panel.finished) == ["1: 3 labels a class, as given"]
    assert "Done: 12 steps" in panel.status.value and "in the store" in panel.status.value
    panel.settings["seed"].value = 5
    panel.run()
    assert panel.overlay.value == ("1: 3 labels a class, as given",), "the run before is drawn along by itself"
    assert list(panel.overlay.options) == ["1: 3 labels a class, as given", "2: 3 labels a class, seed 5"]
    assert moved(panel, "overlay", panel.overlay.options) and "seed 5" in panel.table.value
    panel.settings["seed"].value = 6
    panel.run()
    assert len(panel.overlay.value) == 2, "what was chosen stays"
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


def test_train_and_stop_in_the_background(make_panel):
    slow = Slow()
    panel = make_panel(train=slow)
    panel.train.click()
    assert panel.running and panel.train.disabled and not panel.stop.disabled
    with pytest.raises(WorkbenchError, match="training already"):
        panel.run()
    panel.stop.click()
    slow.go.release()
    assert idle(panel) and slow.closed == 1
    assert "Stopped at step 1 of 12" in panel.status.value and not panel.finished
    slow.go.release(12)
    panel.train.click()
    assert idle(panel) and panel.finished


@pytest.mark.slow
def test_twenty_rapid_clicks_leave_a_consistent_panel_and_no_thread(task, labels, make_panel):
    panel = make_panel()
    panel.settings["steps"].value = 200
    for _ in range(20):
        panel.train.click()
        panel.stop.click()
    assert idle(panel)
    panel.train.click()
    assert idle(panel) and len(panel.finished) == 1
    assert len(find_run(Job(task, labels, panel.config)).history) == 200


def test_an_interrupted_run_is_reported_and_goes_on(task, labels, make_panel):
    panel = make_panel()
    panel.settings["steps"].value = 31
    records = panel.train_function(Job(task, labels, panel.config))
    for _ in range(3):
        next(records)
    records.close()
    for told in ("was interrupted: Train goes on from its last checkpoint", "have been trained"):
        again = make_panel()
        again.settings["steps"].value = 31
        assert told in again.status.value
        assert len(again.run()) == 31


def test_a_failing_run_shows_its_text_and_train_is_enabled_again(make_panel):
    def fail(job):
        yield {"step": 1, "loss": 1.0}
        raise ValueError("a <bad> value")

    panel = make_panel(train=fail)
    panel.train.click()
    assert idle(panel) and "ValueError: a &lt;bad&gt; value" in panel.status.value
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
    assert moved(panel, "x", "temperature")
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
    assert dict(panel.x.options)["p50 (ms)"] == "p50_ms" and dict(panel.y.options)["accuracy (%)"] == "accuracy"
    panel.x.value = panel.y.value = "bytes"
    assert panel.front() == ["distilled"]


def test_traces_are_stepped_through_and_filtered():
    panel = traces_panel()
    assert panel.number.max == 1 and panel.wrong(0, "student") == 1 and panel.wrong(1, "student") is None
    first = panel.image.value
    assert moved(panel, "number", 1)
    second = panel.image.value
    panel.only.value = "one is wrong"
    assert panel.number.max == 0 and panel.image.value == first
    panel.only.value = "all are right"
    assert panel.image.value == second
