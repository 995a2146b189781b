"""What a request costs: dollars a million tokens, each price with its source and the day it was read.

`data/prices.yaml` wins, the one in the data folder over the one of the repository; then comes the package
`genai-prices`, which knows some fifty vendors. Where neither knows, there is no price, and nothing is sent.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from workbench.errors import Number, Text, WorkbenchError, reason, setting, settle, shown
from workbench.hosted import tables

FILE = "prices.yaml"
DOLLARS = Number(above=0, most=1_000_000, unit="dollars a million tokens")


@dataclass(frozen=True)
class Price:
    """What one model's tokens cost.

    Attributes:
        input: dollars a million tokens read.
        output: dollars a million tokens written, reasoning included.
        cached: dollars a million tokens that the vendor has read before; None: no less than others.
        batch: the share of those prices that the vendor's batch API takes.
        source: who says so.
        date: the day it was read.
        retires: the day from which the vendor no longer serves the model, if known.
    """

    input: float = setting(None, DOLLARS)
    output: float = setting(None, DOLLARS)
    cached: float | None = setting(None, Number(above=0, most=1_000_000, optional=True, unit=DOLLARS.unit))
    batch: float = setting(1.0, Number(above=0, most=1))
    source: str = setting("given", Text())
    date: str = setting("unknown", Text())
    retires: str | None = None

    def __post_init__(self) -> None:
        settle(self)

    def dollars(self, read: float, written: float, cached: float = 0, *, batch: bool = False) -> float:
        """Of so many tokens; those `cached` are among those `read`."""
        cheap = self.input if self.cached is None else self.cached
        total = (read - cached) * self.input + cached * cheap + written * self.output
        return total * (self.batch if batch else 1) / 1e6

    def __str__(self) -> str:
        return f"$ {self.input:g}/{self.output:g} a million tokens (by {self.source}, {self.date})"


def find_price(base_url: str, model: str) -> Price:
    """The price of a model at an endpoint.

    Raises:
        WorkbenchError: nobody knows it, or a file of prices that can't be read.
    """
    for path in files():
        for entry in entries(path, "model"):
            if entry.pop("model") == model and entry.pop("base_url", base_url).rstrip("/") == base_url.rstrip("/"):
                try:
                    return Price(**{"source": path.name, **entry})
                except TypeError as error:
                    raise WorkbenchError(f"{path}, {model}: {reason(error)}: use the fields of Price.") from None
    if found := _published(base_url, model):
        return found
    raise WorkbenchError(
        f"No price is known for {shown(model)} at {base_url}, and unpriced is not free: give price=Price(input, "
        f"output) in dollars a million tokens, or add it to {files()[0]}."
    )


def files() -> list[Path]:
    """Where prices may stand, the file that wins first."""
    return tables.files(FILE)


def entries(path: Path, kind: str) -> Iterator[dict]:
    """The rows of a file that price a "model" or a "host", dates as text; none where there is no such file.

    Raises:
        WorkbenchError: a file that can't be read, or rows that price neither.
    """
    rows = tables.rows(path, "prices", ("host", "model"), "model, input and output, or a host")
    yield from (row for row in rows if kind in row)


def _published(base_url: str, model: str) -> Price | None:
    """What genai-prices says, the dearest tier of each, so that a worst case stays one."""
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None

    def asked(**context: str) -> tuple[object, tuple[float | None, ...]]:
        usage = Usage(input_tokens=1, output_tokens=1)
        found = calc_price(usage, model, provider_api_url=base_url, price_context=context)
        numbers = (getattr(found.model_price, f"{kind}_mtok") for kind in ("input", "output", "cache_read"))
        tiers = [[n, *(t.price for t in n.tiers)] if hasattr(n, "tiers") else [n] for n in numbers]
        return found, tuple(max((float(getattr(n, "base", n)) for n in tier if n), default=None) for tier in tiers)

    try:
        (found, listed), (_, halved) = asked(), asked(processing="batch")
    except LookupError:
        return None
    if not (listed[0] and listed[1]):
        return None
    dates = re.findall(r"20\d\d-\d\d-\d\d", found.model.price_comments or "")
    share = max(cheap / full for cheap, full in zip(halved[:2], listed[:2], strict=True))
    source = f"genai-prices {metadata.version('genai-prices')}"
    return Price(*listed, batch=min(share, 1.0), source=source, date=max(dates, default="unknown"))
