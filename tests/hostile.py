"""Names that would do harm if anything but their letters were read, and a task that carries them everywhere."""

import random
from pathlib import Path

# Each would set `window.hit`, or ask evil.invalid for something, if a browser took it for more than text.
NAMES = [
    "<script>window.hit=1</script>",
    "<img src=x onerror=\"window.hit=1\">",
    "<img src=//evil.invalid/img.png>",
    "<svg/onload=window.hit=1>",
    "<meta http-equiv=refresh content='0;url=//evil.invalid/'>",
    "<form action=//evil.invalid/><input name=a autofocus onfocus=window.hit=1></form>",
    "<base href=//evil.invalid/>",
    "<iframe src=//evil.invalid/></iframe>",
    "<object data=//evil.invalid/></object>",
    "<link rel=stylesheet href=//evil.invalid/x.css>",
    "<style>@import '//evil.invalid/x.css';</style>",
    "</style><script>window.hit=1</script>",
    "</td></tr></table><h1>broken out</h1>",
    "<a href=\"javascript:window.hit=1\">click</a>",
    "<!-- a comment",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "[a link](javascript:window.hit=1)",
    "[a link](//evil.invalid/)",
    "![a picture](//evil.invalid/img.png)",
    "https://evil.invalid/ and www.evil.invalid",
    "`code` **bold** _slanted_ ~~gone~~",
    "# a heading",
    "- a list | a cell",
    "$\\href{javascript:window.hit=1}{x}$",
    "\\(\\href{javascript:window.hit=1}{x}\\) \\begin{equation}\\frac\\end{equation}",
    "$5 or $6, 100 % \\invalid{",
    "\u202eemit txen\u202c \u200fright to left\u200e",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "bell\x07 zero\u200bwidth soft\u00adhyphen",
    "\"quoted' & &lt;b&gt; &#60;",
]  # fmt: skip
NUL = "nul\x00 and more"  # a file that holds one is refused
TITLE = "<img src=x onerror=window.hit=1> $\\href{javascript:window.hit=1}{t}$ **task**"


def write_csv(folder: Path, rows: int = 12) -> Path:
    """A CSV whose file name, texts, labels and groups are hostile; columns utterance, intent, group."""
    import pandas as pd

    rng = random.Random(0)
    table = [
        {
            "utterance": f"word{c} word{c}{rng.randrange(6)} {rng.choice(NAMES)} {i}",
            "intent": name,
            "group": f"{name} {i // 2}",
        }
        for c, name in enumerate(NAMES)
        for i in range(rows)
    ]
    path = folder / f"{TITLE}.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    return path
