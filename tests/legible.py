"""What is really drawn in a figure, and what of it nobody could read."""

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


def drawn_texts(fig: Figure) -> list[Text]:
    """The texts that really are drawn: findobj also lists ticks outside the limits."""
    seen: list[Text] = []
    draw = Text.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", lambda self, *args, **kw: (seen.append(self), draw(self, *args, **kw))[1])
        fig.draw_without_rendering()
    return [text for text in dict.fromkeys(seen) if text.get_visible() and text.get_text().strip()]


def faults(fig: Figure) -> list[str]:
    """Texts that leave the canvas or overlap."""
    texts = drawn_texts(fig)
    assert texts
    boxes = [Text.get_window_extent(text).padded(-1.5) for text in texts]  # extents have a little air of their own
    found = [f"{text.get_text()!r} leaves the canvas" for text, box in zip(texts, boxes, strict=True)
             if box.x0 < 0 or box.y0 < 0 or box.x1 > fig.bbox.x1 or box.y1 > fig.bbox.y1]  # fmt: skip
    for i, box in enumerate(boxes):
        found += [f"{texts[i].get_text()!r} overlaps {texts[j].get_text()!r}"
                  for j in range(i) if box.overlaps(boxes[j])]  # fmt: skip
    return found
