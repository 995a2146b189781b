"""Prices of machines, the figures of money and their panel."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from refusal import refused
from test_economics import HOUR, case

from workbench.hosted import economics
from workbench.hosted.hosts import find_host, how_old
from workbench.hosted.prices import find_price
from workbench.show import money
from workbench.show.frames import FRAMES
from workbench.show.widgets import stamped

COSTS = pd.DataFrame({
    "arm": ["teacher", "teacher", "distilled", "distilled"], "requests_per_month": [1e4, 1e8] * 2,
    "dollars": [0.3, 0.3, 40.0, 0.004], "low": [np.nan, np.nan, 30.0, 0.003], "high": [np.nan, np.nan, 50.0, 0.005],
})  # fmt: skip
POINTS = pd.DataFrame({
    "name": ["teacher", "distilled"], "dollars": [0.3, 0.06], "accuracy": [0.9, 0.8], "low": [0.8, 0.7],
    "high": [0.95, 0.9],
})  # fmt: skip
SHARE = np.linspace(0, 1, 101)
CURVE = pd.DataFrame({"share": SHARE, "dollars": 0.06 + 0.3 * SHARE, "random": 0.8 + 0.1 * SHARE})
OFFERS = pd.DataFrame({
    "offer": ["more labels", "a teacher of another kind"], "dollars": [600.0, 12_345.0], "points": [2.0, np.nan],
    "low": [-0.5, np.nan], "high": [4.0, np.nan],
})  # fmt: skip
CORNER = pd.DataFrame({"foretold": [0.93, 0.9], "found": 0.931}, index=["the law", "the nearest run"])
CURVE = CURVE.assign(cascade=CURVE["random"] + 0.05, oracle=CURVE["random"] + 0.1)


def prices(tmp_path, monkeypatch, text: str) -> None:
    (tmp_path / "prices.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))


@pytest.mark.parametrize("name", ["small-vm", "gpu", "own-device"])
def test_hosts_have_a_price_a_source_and_a_day(name):
    host = find_host(name)
    assert 0 < host.dollars_per_hour < 10 and host.source
    assert date.fromisoformat(host.date) <= date.today()


def test_a_device_that_one_owns_costs_its_electricity():
    assert find_host("own-device").dollars_per_hour == pytest.approx(0.030 * 0.253)


def test_a_file_of_ones_own_wins_and_prices_models_and_hosts(tmp_path, monkeypatch):
    rows = "- {host: small-vm, dollars_per_hour: 0.5, currency: USD, source: me, date: 2026-11-01}\n"
    prices(tmp_path, monkeypatch, rows + "- {model: mine, input: 1, output: 2}\n")
    assert str(find_host("small-vm")) == "$ 0.5 an hour (by me, 2026-11-01)"
    assert find_price("http://127.0.0.1/v1", "mine").output == 2
    assert find_host("gpu").name == "gpu", "the others are still there"


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("{host: vm, dollars_per_hour: 0.5, currency: EUR, source: a, date: 2026-11-01}", "EUR"),
        ("{host: vm, dollars_per_hour: 0.5, source: a, date: 2026-11-01}", "currency"),
        ("{host: vm, dollars_per_hour: 0, currency: USD, source: a, date: 2026-11-01}", "dollars_per_hour is 0"),
        ("{host: vm, dollars_per_hour: 1, currency: USD, date: 2026-11-01}", "source"),
        ("{host: vm, watts: 30, currency: USD, source: a, date: 2026-11-01}", "dollars_per_kwh"),
        ("{host: 7, dollars_per_hour: 1}", "list of prices"),
        ("{vm: 7}", "list of prices"),
    ],
)
def test_a_host_that_is_priced_badly_is_refused(tmp_path, monkeypatch, row, part):
    prices(tmp_path, monkeypatch, f"- {row}\n")
    with refused(part):
        find_host("vm")


def test_an_unknown_host_names_those_there_are():
    with refused("did you mean 'small-vm'"):
        find_host("small vm")


def test_old_prices_are_said_to_be_old():
    today = date(2026, 11, 28)
    assert how_old("2026-07-31", today) == "" and how_old("2026-07-30", today) == "old: 121 days"
    assert how_old("unknown", today) == "of unknown date"


def test_the_figures_say_what_they_show():
    swings = economics.tornado(case(), {"people_days": (0.5, 30), "dollars_per_hour": (HOUR, 0.2)}, "break_even_months")
    made = {
        "distilled costs less than the teacher from 1,330,000": money.break_even(COSTS, 1e6),
        "Most depends on people_days": money.tornado(swings, case().break_even_months, "months"),
        "Highest: teacher 90.0 % for $ 0.3 per 1,000": money.accuracy_for_dollars(
            POINTS, {"distilled": CURVE}, {"distilled": 0.2}
        ),
        "What to buy next": money.purchases(OFFERS, CORNER),
    }
    for title, fig in made.items():
        data, _ = fig._repr_mimebundle_()
        assert data["text/plain"].startswith(title) and data["image/png"].startswith(b"\x89PNG")


def test_a_tornado_says_never_where_it_never_pays():
    swings = economics.tornado(case(), {"teacher_dollars_per_1k": (0.05, 0.5)}, "break_even_months")
    fig = money.tornado(swings, np.inf, "months")
    assert [text.get_text() for text in fig.axes[0].texts] == ["never, at 0.05"]


def test_offers_stand_with_their_price_beside_who_foretold_the_corner():
    corner, offers = money.purchases(OFFERS, CORNER).axes
    found, foretold = corner.lines
    assert found.get_xdata() == pytest.approx([93.1, 93.1]) and foretold.get_xdata() == pytest.approx([93, 90])
    assert [text.get_text() for text in offers.texts] == ["$ 600\ngain not shown", "$ 12,345\nnot foretold"]
    surely = money.purchases(OFFERS.assign(low=0.5), CORNER).axes[1].texts[0].get_text()
    assert surely == "$ 600\n3.33 per $ 1,000"
    (band, _) = offers.collections[0].get_segments()
    assert band[:, 0] == pytest.approx([-0.5, 4])


def test_a_figure_of_nothing_is_refused():
    with refused("points"):
        money.purchases(OFFERS.drop(columns="points"), CORNER)
    with refused("rows"):
        money.break_even(COSTS[:0], 1e6)
    with refused("at_low"):
        money.tornado(pd.DataFrame({"input": ["e"]}), 1.0, "months")


def panel(seen: list) -> money.WhatIfPanel:
    def costs(price: float, mistake: float) -> tuple[str, list[money.Way]]:
        seen.append((price, mistake))
        ways = [("teacher", price, ""), ("student", 0.06 + mistake, f"{mistake:.2g} each")]
        return "DISTIL" if price > 0.06 + mistake else "NOT FOR MONEY", ways

    dials = {"price": ("$", "of 1,000", 0.01, 10.0, 0.3), "mistake": ("$", "of one", 1e-5, 1.0, 1e-3)}
    return money.WhatIfPanel(costs, dials)


def test_a_decision_stands_above_its_costs_in_plain_words():
    lines = panel([]).frames()["lines"].split("\n")
    assert {"Decision: distil", "Decision: not for money"} < {*lines} and "NOT FOR MONEY" not in lines


def test_a_slider_redraws_from_its_value():
    seen = []
    shown = panel(seen)
    before = shown.image.value
    shown.controls[0].value = 3.0
    assert seen == [(pytest.approx(0.3), pytest.approx(1e-3)), (pytest.approx(3.0), pytest.approx(1e-3))]
    assert bytes(shown.image.value[:4]) == b"\x89PNG" and shown.image.value != before
    assert shown._repr_mimebundle_()[0]["text/plain"].startswith("What each way")


def test_what_the_user_should_mend_stands_above_the_picture():
    def costs(price: float) -> tuple[str, list[money.Way]]:
        return "", [("teacher", case(teacher_dollars_per_1k=price - 1).over(12), "")]

    shown = money.WhatIfPanel(costs, {"price": ("$", "of 1,000", 0.1, 10.0, 2.0)})
    picture = shown.image.value
    shown.controls[0].value = 0.5
    assert "teacher_dollars_per_1k" in shown.note.value and shown.image.value == picture
    bundle, _ = shown._repr_mimebundle_()  # its frames would be for such a price too
    assert "without sliders" in shown.note.value and FRAMES not in bundle
    assert bundle["image/png"] == stamped(bytes(picture))
