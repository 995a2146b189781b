"""What bad input must come to, and how much of it a test has tried."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from workbench.errors import WorkbenchError

tried: list[str] = []  # what was said, in the test that runs


def check_sentence(message: str, *parts: str) -> None:
    """One sentence with all of ``parts`` in it; what another program says may stand in brackets."""
    own = re.sub(r"\(.*\)", "", message)
    assert message.isprintable() and message.endswith(".") and not re.search(r"\. [A-Z]", own), message
    assert [part for part in parts if part not in message] == [], message
    tried.append(message)


@contextmanager
def refused(*parts: str) -> Iterator[pytest.ExceptionInfo]:
    """The block ends in a `WorkbenchError` of one sentence that holds all of ``parts``."""
    with pytest.raises(WorkbenchError) as error:
        yield error
    check_sentence(str(error.value), *parts)


def sentence(call: Callable[[], object]) -> str:
    """What such a call says."""
    with refused() as error:
        call()
    assert type(error.value) is WorkbenchError
    return str(error.value)
