"""What a panel shows at each stop of its dials, as data: a published page moves them where no kernel runs.

The idea: a panel asks its own functions once for each combination of stops and packs what they say. A frame is a list
of lines, a sentence or a bar each, and all frames of a panel are built alike, so that a page only has to fill the n-th
place with the n-th line. Few lines differ: each is kept once. Who shows them: `workbench.publish.notebook`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import WorkbenchError
from workbench.escape import visible

FRAMES = "application/vnd.workbench.frames+json"
MOST = 300_000  # characters a panel

Bar = tuple[str, float, str]  # its name, its length in [0, 1], and what stands behind it
Frame = Sequence[str | Bar]


@dataclass(frozen=True)
class Dial:
    """A control of a page.

    Attributes:
        name: with its unit.
        about: what it does, in a sentence.
        stops: what it says at each of them, from left to right.
        at: the number of the stop on which it stands at first.
    """

    name: str
    about: str
    stops: Sequence[str]
    at: int


def pack(about: str, dials: Sequence[Dial], frames: Iterable[Frame], colours: Sequence[str]) -> dict[str, Any]:
    """Frames as JSON of plain texts; characters that hide or turn others are shown.

    Args:
        about: what the frames show.
        dials: at least one.
        frames: one for each combination of stops, the last dial moving fastest, all with sentences and bars alike.
        colours: of the bars, ``#rrggbb``.

    Returns:
        about, dials, colours; lines: the different lines, one a line, a bar's three parts tab-separated, its length in
        %; frames: one a line, the numbers of its lines.

    Raises:
        WorkbenchError: frames that are not built alike, or are too many for a page.
    """
    lines: dict[str, int] = {}  # line -> its number
    packed, shapes = [], set()
    for frame in frames:
        told = [visible(line) if isinstance(line, str) else _bar(*line) for line in frame]
        shapes.add(tuple("\t" in line for line in told))
        packed.append(" ".join(str(lines.setdefault(line, len(lines))) for line in told))
    wanted = math.prod(len(dial.stops) for dial in dials)
    if len(packed) != wanted or len(shapes) != 1 or sum(*shapes) != len(colours):
        told = f"{about}: {len(packed)} frames for {wanted} combinations, built in {len(shapes)} ways"
        raise WorkbenchError(f"{told}: give one each, with the same sentences and {len(colours)} bars.")
    shown = [{"name": visible(dial.name), "about": visible(dial.about), "stops": [*map(visible, dial.stops)],
              "at": int(dial.at)} for dial in dials]  # fmt: skip
    found = {"about": visible(about), "dials": shown, "colours": [*colours]}
    found |= {"lines": "\n".join(lines), "frames": "\n".join(packed)}
    if (size := len(found["lines"]) + len(found["frames"])) > MOST:
        raise WorkbenchError(f"{about}: its frames take {size:,} characters of {MOST:,}: give fewer stops.")
    return found


def first(found: dict[str, Any]) -> list[str]:
    """The lines of the frame on which the dials stand at first."""
    at = 0
    for dial in found["dials"]:
        at = at * len(dial["stops"]) + dial["at"]
    lines = found["lines"].split("\n")
    return [lines[int(number)] for number in found["frames"].split("\n")[at].split(" ")]


def _bar(name: str, length: float, said: str) -> str:
    return f"{visible(name)}\t{100 * length:.0f}\t{visible(said)}"
