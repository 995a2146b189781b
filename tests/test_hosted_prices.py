"""What a request costs: exact, from the file that wins, and never a guess."""

import pytest
import yaml
from refusal import refused

from workbench.hosted import prices
from workbench.hosted.prices import Price, find_price

OPENAI = "https://api.openai.com/v1"


def test_dollars():
    price = Price(0.5, 2.0, cached=0.1, batch=0.5)
    assert price.dollars(1000, 10) == pytest.approx(0.00052)
    assert price.dollars(1000, 10, 900) == pytest.approx((100 * 0.5 + 900 * 0.1 + 10 * 2) / 1e6)
    assert price.dollars(1000, 10, batch=True) == pytest.approx(0.00026)
    assert Price(0.5, 2.0).dollars(1000, 0, 900) == Price(0.5, 2.0).dollars(1000, 0)


BAD = {
    "nothing": ({"input": 0}, "input is 0: give a number above 0"),
    "less than nothing": ({"output": -1}, "output is -1"),
    "words": ({"input": "0.5"}, "input is '0.5'"),
    "not a number": ({"input": float("nan")}, "input is nan"),
    "no price": ({"input": None}, "input is None"),
    "a batch that costs more": ({"batch": 2}, "batch is 2"),
    "free once read": ({"cached": 0}, "cached is 0"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_prices(what):
    values, sentence = BAD[what]
    with refused(sentence):
        Price(**{"input": 1.0, "output": 1.0, **values})


def test_the_file_in_the_data_folder_wins_then_the_repositorys_then_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    known = find_price("http://127.0.0.1:1/v1", "minilm-finetuned")
    assert (known.source, known.date, known.batch) == ("pretended", "2026-11-24", 0.5)
    published = find_price(OPENAI, "gpt-4o-mini")
    assert published.source.startswith("genai-prices ") and published.date >= "2026" and published.batch == 0.5
    assert published.cached < published.input < published.output
    own = [{"model": "gpt-4o-mini", "input": 7, "output": 8, "base_url": f"{OPENAI}/", "date": "2026-11-01"},
           {"model": "gpt-4o-mini", "input": 9, "output": 9, "retires": "2027-01-01"}]  # fmt: skip
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(own))
    assert find_price(OPENAI, "gpt-4o-mini") == Price(7, 8, source="prices.yaml", date="2026-11-01")
    assert find_price("https://other/v1", "gpt-4o-mini").retires == "2027-01-01"


def test_every_price_of_the_repository_has_a_source_and_a_date():
    entries = yaml.safe_load(prices.files()[1].read_text(encoding="utf-8"))
    assert entries and all({"source", "date"} <= entry.keys() for entry in entries)


FILES = {
    "no YAML": ("a: [", "Can't read the prices in"),
    "no list": ("a: 1", "is no list of prices"),
    "no model": ("- {input: 1, output: 1}", "is no list of prices"),
    "another field": ("- {model: m, input: 1, out: 1}", "use the fields of Price"),
    "a price of 0": ("- {model: m, input: 0, output: 1}", "input is 0"),
}


@pytest.mark.parametrize("what", FILES)
def test_bad_files(what, tmp_path, monkeypatch):
    content, sentence = FILES[what]
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    (tmp_path / "prices.yaml").write_text(content)
    with refused(sentence):
        find_price(OPENAI, "m")


def test_an_unknown_model_has_no_price():
    with refused("No price is known for 'nobody-1'", "unpriced is not free"):
        find_price(OPENAI, "nobody-1")
