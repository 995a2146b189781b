"""Every test session has data of its own; pretrained weights are shared with the checkout."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import refusal

pytest_plugins = ["lab"]  # its fixtures
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; results depend on it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a script starts with &, and by its children


LONGEST = ["test_notebooks", "test_hostile", "test_pages", "test_browser"]  # in `make test-long`, a file a worker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: at the end one worker would wait for them alone; and `made` is made by one worker only."""

    def place(item: pytest.Item) -> tuple:
        long = item.get_closest_marker("long") and item.path.stem in LONGEST
        alone = item.name.startswith("test_the_notebooks_run_at_quick")
        return not alone, LONGEST.index(item.path.stem) if long else len(LONGEST), "made" not in item.fixturenames

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Note how much bad input the test tries."""
    refusal.tried.clear()
    try:
        return (yield)
    finally:
        item.user_properties.append(("refused", len(refusal.tried)))


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how much bad input was tried, and where most of it."""
    tried: Counter[str] = Counter()
    for report in (report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])):
        where = Path(report.nodeid.partition("::")[0]).stem.removeprefix("test_")
        tried[where] += dict(report.user_properties).get("refused", 0)
    if tried.total():
        parts = ", ".join(f"{where} {count}" for where, count in tried.most_common(12))
        terminalreporter.write_line(f"bad input: {tried.total()} tried, a sentence each ({parts}, …)")


@pytest.fixture(scope="session", autouse=True)
def own_data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if "WORKBENCH_CACHE" not in os.environ:
            patch.setenv("WORKBENCH_CACHE", str(Path(__file__).parents[1] / "data" / "cache"))
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(os, "fsync", lambda descriptor: None)  # thousands wait for it, and none can cut the power
        yield


# Imported inside the fixtures, so that the tests of the store start without torch.
@pytest.fixture(scope="session")
def task(tmp_path_factory, own_data):
    """A small `workbench.tasks.Task`; it and its labels are never changed."""
    from tiny import make_task

    return make_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="session")
def labels(task):
    """Its soft labels, by a bag of words."""
    from tiny import make_labels

    return make_labels(task)


@pytest.fixture(scope="session")
def made(task, tmp_path_factory):
    """A `tiny.Shipped`; nothing writes into its folder."""
    from tiny import make_shipped

    return make_shipped(task, tmp_path_factory.mktemp("made"))


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    from workbench.store import Store

    return Store(tmp_path / "store")


@pytest.fixture
def server():
    """A `server.Server` that answers every request with the letter A."""
    from server import saying

    with saying() as running:
        yield running


@pytest.fixture
def endpoint(server, tmp_path):
    """Who asks it, at a price and with patience for a few faults; replies are kept in the test's folder."""
    from server import PRICE

    from workbench.hosted.endpoint import Endpoint

    options = {"attempts": 3, "timeout": 5, "poll": 0.01, "path": tmp_path / "replies.sqlite"}
    return Endpoint(server.base_url, "m", price=PRICE, **options)
