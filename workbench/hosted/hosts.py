"""What an hour of a machine costs, from the same files as the prices of models, and how old a price is."""

from dataclasses import dataclass
from datetime import UTC, date, datetime

from workbench.errors import Number, Text, WorkbenchError, setting, settle, unknown
from workbench.hosted.economics import electricity_dollars_per_hour
from workbench.hosted.prices import entries, files

CURRENCY = "USD"
FRESH_DAYS = 120


@dataclass(frozen=True)
class Host:
    """A machine to rent, or one that is owned.

    Attributes:
        name: of the host.
        dollars_per_hour: while it runs, whether or not it works.
        source: who says so.
        date: the day it was read.
    """

    name: str = setting(None, Text())
    dollars_per_hour: float = setting(None, Number(above=0, most=1e6, unit="dollars an hour"))
    source: str = setting(None, Text())
    date: str = setting(None, Text())

    def __post_init__(self) -> None:
        settle(self)

    def __str__(self) -> str:
        return f"$ {self.dollars_per_hour:.3g} an hour (by {self.source}, {self.date})"


def find_host(name: str) -> Host:
    """The host of that name.

    Raises:
        WorkbenchError: no such host, a price in another currency, or one that is incomplete.
    """
    seen = []
    for path in files():
        for entry in entries(path, "host"):
            seen.append(entry["host"])
            if entry["host"] != name:
                continue
            if (currency := entry.get("currency")) != CURRENCY:
                told = f"{path.name}: {name} is priced in {currency} and all else in {CURRENCY}"
                raise WorkbenchError(f"{told}: convert it, say by which rate in its source, and set its currency.")
            hourly = entry.get("dollars_per_hour")
            if hourly is None:
                hourly = electricity_dollars_per_hour(entry.get("watts"), entry.get("dollars_per_kwh"))
            return Host(name, hourly, entry.get("source"), entry.get("date"))
    raise unknown("host", name, seen)


def how_old(day: str, today: date | None = None) -> str:
    """What has to be said of a price read on that day: "" up to 120 days, else that it is old, or of no known date.

    `today` is the day that it is now, unless given.
    """
    try:
        days = ((today or datetime.now(UTC).date()) - date.fromisoformat(day)).days
    except ValueError:
        return "of unknown date"
    return f"old: {days} days" if days > FRESH_DAYS else ""
