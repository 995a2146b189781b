"""What bad input must come to."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from workbench.errors import WorkbenchError


def check_sentence(message: str, *parts: str) -> None:
    """One sentence with all of ``parts`` in it; what another program says may stand in brackets."""
    own = re.sub(r"\(.*\)", "", message)
    assert "\n" not in message and message.endswith(".") and not re.search(r"\. [A-Z]", own), message
    assert [part for part in parts if part not in message] == [], message


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """The block ends in a `WorkbenchError` of one sentence that holds all of ``parts``."""
    with pytest.raises(WorkbenchError) as error:
        yield
    check_sentence(str(error.value), *parts)
