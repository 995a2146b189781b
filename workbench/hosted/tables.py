"""Tables that a person keeps in YAML, such as prices and terms: the data folder's file, then the repository's."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import yaml

from workbench.errors import WorkbenchError, reason
from workbench.store import data_dir

FOLDER = Path(__file__).resolve().parents[2] / "data"


def files(name: str) -> list[Path]:
    """Where a table may stand, the file that wins first."""
    return [data_dir() / name, FOLDER / name]


def rows(path: Path, what: str, keys: Sequence[str], form: str) -> list[dict]:
    """The rows of a file, days as text (``2026-11-24``); none where there is no such file.

    Args:
        path: of the file.
        what: it holds, such as "prices", and `form` what a row is: for the sentence.
        keys: of which a row has at least one, with a text that names it.
        form: see `what`.

    Raises:
        WorkbenchError: a file that can't be read, or one that is no list of such rows.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except FileNotFoundError:
        return []
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise WorkbenchError(f"Can't read the {what} in {path} ({reason(error)}): mend it or remove it.") from None
    good = isinstance(found, list) and all(isinstance(row, dict) for row in found)
    named = [[row[key] for key in keys if key in row] for row in found] if good else [[]]
    if not all(names and all(isinstance(name, str) for name in names) for names in named):
        raise WorkbenchError(f"{path} is no list of {what}: each is a mapping with {form}.")
    return [{str(k): v.isoformat() if isinstance(v, date) else v for k, v in row.items()} for row in found]
