"""Rows of one's own, from a CSV or a data set of the hub, and how they are divided into splits.

`read_csv` and `read_hub` clean what they find into one table, a row a text: ``text``, ``label``, ``group``, ``split``.
`divide` holds out what the data brings no split for. Whatever can't be used is refused here, in a sentence that names
the file and row, or left out with a warning; `tasks.load_task` draws the labels that may be seen.
"""

import math
import os
import random
import re
import unicodedata
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, config, disable_progress_bars, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError
from datasets.utils import logging as datasets_logging
from pandas.io.common import get_handle

from workbench.columns import Columns
from workbench.errors import WorkbenchError, unknown
from workbench.splits import FOLDS, fold_count, places

HELD_OUT = {"test": 0.2, "validation": 0.1, "calibration": 0.1}  # of the groups, within each class
ENTRIES = 5_000  # files and folders that a folder of data may hold: `datasets` walks them all, several times
DATA_FILES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".txt", ".xml", ".zip", ".tar")
# Between the texts of a pair: plain characters, so that every tokenizer, language model and `transformers.pipeline`
# reads the same string. A tokenizer's own separator differs from model to model.
PAIR = " || "
_OWN_SPLIT = " split"  # the column that says in which split of a data set a row stood


def read_csv(path: Path, columns: Columns) -> tuple[pd.DataFrame, list[str]]:
    """Rows of a CSV, cleaned: text, label, group, split; and the classes."""
    _check_content(path)
    as_written = {"dtype": str, "encoding": "utf-8", "keep_default_na": False}
    try:
        header = pd.read_csv(path, header=None, nrows=1, **as_written)  # pandas would number a repeated name
        table = pd.read_csv(path, na_values=[""], **as_written)
    except UnicodeDecodeError:
        raise WorkbenchError(f"{path} is not UTF-8: save it again as UTF-8.") from None
    except pd.errors.EmptyDataError:
        raise WorkbenchError(f"{path} has no rows: it needs a header and one row per text.") from None
    except pd.errors.ParserError as error:
        reason = str(error).strip().rpartition("error: ")[2]
        raise WorkbenchError(f"{path} is not a well-formed CSV ({reason}): quote texts that hold a comma.") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the surplus cells for names of the rows
        raise WorkbenchError(f"{path} has rows with more cells than the header: quote texts that hold a comma.")
    there = header.iloc[0].tolist()
    wanted = columns.among(path, there)
    if table.empty:
        raise WorkbenchError(f"{path} has no rows: it needs a header and one row per text.")
    table = table[wanted].apply(lambda cells: cells.str.strip()).replace("", np.nan)
    for column in wanted:
        bad = table.index[table[column].isin(["NaN", "nan"]) | (table[column].isna() & (column != columns.label))]
        if len(bad):
            more = f" and {len(bad) - 1} more rows" if len(bad) > 1 else ""
            raise WorkbenchError(
                f"{path}, row {bad[0] + 2}{more}: column {column!r} is empty or NaN; fill it in or delete the row."
            )
    known = table[columns.label].dropna()
    if known.empty:
        raise WorkbenchError(f"{path}: column {columns.label!r} is empty in every row: label some rows of each class.")
    if known.str.fullmatch(r"\[.*\]").all():
        raise _several_labels(path, columns.label)
    names, labels = _classes(table[columns.label])
    split = _named_splits(path, table[columns.split]) if columns.split else "train"
    frame = _rows(table, columns.texts(there), labels, columns.group).assign(split=split)
    return frame, names


def read_hub(name: str, columns: Columns) -> tuple[str, str, str, pd.DataFrame, list[str]]:
    """(title, source, licence, rows as those of `read_csv`, classes) of a dataset in hub format."""
    title, found = _load_hub(name)
    if "train" not in found:
        raise WorkbenchError(f"{title} has no split 'train', only {', '.join(map(repr, found))}: rename one.")
    used = [split for split in ("test", "validation", "train", "unsupervised") if split in found]  # judges come first
    if ignored := sorted(found.keys() - set(used)):
        warnings.warn(f"{title}: the splits {', '.join(map(repr, ignored))} are not used.", stacklevel=3)
    info = found["train"].info
    commit = re.search(r"@(\w{7,40})/", " ".join(info.download_checksums or {}))
    source = f"{title}{f' at {commit[1][:12]}' if commit else ''}, by datasets.load_dataset"

    features = found["train"].features
    if columns.split and len(used) > 1:
        raise WorkbenchError(
            f"{title} has splits of its own ({', '.join(map(repr, used))}): leave the column of splits out (--split)."
        )
    wanted, texts = columns.among(title, list(features)), columns.texts(list(features))
    label, group = columns.label, columns.group
    kind = getattr(features[label], "dtype", None)
    if not isinstance(kind, str) or kind.startswith(("list", "struct", "dict")):
        raise _several_labels(title, label)
    if not re.match("u?int|bool|string|large_string", kind):
        raise WorkbenchError(f"{title}: column {label!r} holds {kind} values, not classes: name a column of classes.")
    for column in texts:
        if getattr(features[column], "dtype", None) not in ("string", "large_string"):
            raise WorkbenchError(f"{title}: column {column!r} holds no texts: name a column of strings with --text.")
    try:
        tables = [_frame(found[split].select_columns(wanted)).assign(**{_OWN_SPLIT: split}) for split in used]
    except Exception as error:  # files are read only now
        raise WorkbenchError(f"{title} can't be read ({_reason(error)}): make its files again.") from None
    table = pd.concat(tables, ignore_index=True)
    names, labels = _classes(table[label], getattr(features[label], "names", None))
    if group and table[group].isna().any():
        raise WorkbenchError(f"{title}: column {group!r} is empty in {table[group].isna().sum()} rows: fill it in.")

    if columns.split:
        split = _named_splits(title, table[columns.split])
    else:
        split = table[_OWN_SPLIT].replace("unsupervised", "train")
    frame = _rows(table, texts, labels, group).assign(split=split)
    blank = frame["text"].isna() | (frame["text"].str.strip() == "")
    frame = _leave_out(title, frame, blank, "without a text")
    return title, source, info.license or "see its dataset card", frame, names


def divide(
    where: object, frame: pd.DataFrame, names: list[str], columns: Columns, fold: int
) -> tuple[list[str], dict[str, pd.DataFrame], int]:
    """The classes, the rows of each split, and the number of folds.

    Splits are its own where `frame` names them, else held out of the training rows.
    """
    outside = {}
    if columns.out_of_scope is not None:
        if columns.out_of_scope not in names:
            raise unknown(f"label for what is out of scope in {where}", columns.out_of_scope, names)
        index = names.index(columns.out_of_scope)
        rows = frame[frame["label"] == index].drop_duplicates("text")
        outside = {"out_of_scope": rows.assign(label=-1)}
        frame = frame[(frame["label"] != index) & ~frame["text"].isin(rows["text"])]
        frame = frame.assign(label=frame["label"] - (frame["label"] > index))
        names = [name for name in names if name != columns.out_of_scope]
    if len(names) < 2:
        have = f"one class ({names[0]!r} " if names else "no class ("
        raise WorkbenchError(f"{where} has {have}in column {columns.label!r}): add rows of another, it needs two.")
    _warn_of_lookalikes(where, names)
    judges = ("test", "validation", "calibration")  # come first: what stands in two splits stays with its judge
    order = frame["split"].map({split: i for i, split in enumerate((*judges, "train"))})
    frame = frame.loc[order.sort_values(kind="stable").index]
    unlabelled = (frame["split"] != "train") & (frame["label"] < 0)
    frame = _leave_out(where, frame, unlabelled, "without a label in a test or validation split")
    known = frame.loc[frame["label"] >= 0, "text"]
    copies = (frame["label"] < 0) & frame["text"].isin(known)
    frame = _leave_out(where, frame, copies, "without a label whose text has one in another row")
    for column in ("text", "group"):
        torn = frame["split"] != frame.groupby(column)["split"].transform("first")
        frame = _leave_out(where, frame, torn, f"whose {column} stands in its test or validation split")
    own = {split: rows for split in judges if len(rows := frame[frame["split"] == split])}
    train = _without_copies(where, frame[frame["split"] == "train"])
    held_out = {split: share for split, share in HELD_OUT.items() if split not in own}
    split, available = _split(where, train, names, held_out, fold)
    return names, split | own | outside, available


def files_below(folder: Path, suffixes: Sequence[str], entries: int) -> list[Path]:
    """The files below a folder with such a suffix (``a.csv.gz`` has two), sorted; links to folders aren't followed.

    Raises:
        WorkbenchError: more than `entries` files and folders are there: it is no folder of data.
    """
    found, seen = [], 0
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        seen += len(folders) + len(names)
        if seen > entries:
            raise WorkbenchError(f"{folder} holds more than {entries:,} files: give a folder that holds only the data.")
        found += [Path(place, name) for name in names if set(Path(name).suffixes) & set(suffixes)]
    return sorted(found)


def _split(
    where: object, frame: pd.DataFrame, names: list[str], held_out: dict[str, float], fold: int
) -> tuple[dict[str, pd.DataFrame], int]:
    """Held-out shares of each class's groups, drawn with a fixed seed; what is left trains. And the number of folds."""
    labelled = frame[frame["label"] >= 0]
    first = labelled.drop_duplicates("group").set_index("group")["label"]
    crossing = labelled.groupby("text")["label"].nunique().gt(1).sum()
    if crossing:
        warnings.warn(f"{where}: {crossing} texts carry more than one label; they stay in one split.", stacklevel=4)
    split_of, available = pd.Series("train", first.index), FOLDS
    for index, name in enumerate(names):
        groups = sorted(first.index[first == index])
        if len(groups) < len(held_out) + 1:
            raise WorkbenchError(
                f"{where}: class {name!r} has {len(groups)} distinct row(s) or group(s); it needs at least "
                f"{len(held_out) + 1}, one for each split: add rows or drop the class."
            )
        random.Random(f"split {name}").shuffle(groups)
        counts = {split: max(1, math.floor(share * len(groups))) for split, share in held_out.items()}
        available = min(available, fold_count(len(groups), counts))
        split_of[groups] = places(len(groups), counts, fold)
    if fold >= available:
        why = "a class with too few rows or groups to be tested in turn" if "test" in held_out else "its own test split"
        raise WorkbenchError(f"{where} has one fold, because of {why}: leave fold at 0.")
    split = frame["group"].map(split_of).fillna("train")
    unlabelled = (frame["label"] < 0) & (split != "train")  # near copies of what is held out
    frame = _leave_out(where, frame, unlabelled, "without a label whose group is held out")
    return {s: frame[split[frame.index] == s] for s in ("train", *held_out)}, available


def _load_hub(name: str) -> tuple[str, dict[str, Dataset]]:
    """(what it is called, its splits, memory-mapped)."""
    disable_progress_bars()
    datasets_logging.set_verbosity(datasets_logging.CRITICAL)  # what is wrong is said once, below
    path = Path(os.path.expanduser(name))
    lists_configs = path.is_absolute() and os.path.isfile(path.parent / "README.md")
    local = path if os.path.isdir(path) else path.parent if lists_configs else None
    if local:
        dataset, part = str(local), None if local == path else path.name
        files = files_below(local, DATA_FILES, ENTRIES)
        if not files:
            raise WorkbenchError(f"{local} doesn't contain any data files ({', '.join(DATA_FILES)}): check the path.")
        if odd := next((file for file in files if not os.path.isfile(file)), None):
            raise WorkbenchError(f"{odd} is not a regular file: remove it from the folder of data files.")
    else:
        dataset, part = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:]) or None
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*){0,2}", name):
            raise WorkbenchError(
                f"'hub:{name}' is no folder and no dataset: write hub:owner/name, hub:owner/name/config or hub:folder."
            )
    offline = not local and not _hub_in_reach()
    try:
        if local and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
            found = load_from_disk(dataset)
        else:
            with _offline(offline):
                found = load_dataset(dataset, part)
    except Exception as error:  # every format has errors of its own
        if configs := re.search(r"(?:configs|Available): (\[.*?\])", str(error)):
            raise WorkbenchError(f"{dataset} has the configs {configs[1]}: write hub:{dataset}/<config>.") from None
        if offline:
            raise WorkbenchError(
                f"The hub is out of reach and {dataset} was not downloaded before: check the network (and "
                "HF_HUB_OFFLINE), or give a folder with its files, as hub:<folder>."
            ) from None
        check = "check its files" if local else "check its name"
        raise WorkbenchError(
            f"Can't load the dataset {dataset} ({_reason(error)}): {check}, or give a folder with csv, json or parquet "
            "files."
        ) from None
    return Path(dataset).name if local else name, dict(found) if isinstance(found, DatasetDict) else {"train": found}


@cache  # asked once: without a network the hub's own retries take half a minute for every dataset
def _hub_in_reach() -> bool:
    if config.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(config.HF_ENDPOINT, method="HEAD"), timeout=5)
    except urllib.error.HTTPError:  # an answer, if an unfriendly one
        return True
    except OSError:
        return False
    return True


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """`datasets` then answers at once, from what it has downloaded before."""
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = offline or before
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _check_content(path: Path) -> None:
    """Unpack it once to its end: pandas would cut a cell at a NUL byte, and has an error for each packer."""
    try:
        with get_handle(path, "rb", compression="infer", is_text=False) as opened:
            nul = any(b"\0" in block for block in iter(lambda: opened.handle.read(1 << 20), b""))
    except Exception as error:
        raise WorkbenchError(
            f"{path} can't be unpacked ({_reason(error)}): pack one whole CSV again, or give it unpacked."
        ) from None
    if nul:
        raise WorkbenchError(f"{path} is not UTF-8 text, it holds NUL bytes: save it again as UTF-8.")


def _named_splits(where: object, cells: pd.Series) -> pd.Series:
    named = cells.astype(str).str.strip().str.lower()
    named = named.replace({"val": "validation", "valid": "validation", "dev": "validation"})
    if odd := sorted(set(named) - {"train", *HELD_OUT}):
        raise WorkbenchError(
            f"{where}: column {cells.name!r} names the split {odd[0]!r}: write train, validation, calibration or test."
        )
    return named


def _classes(cells: pd.Series, names: Sequence[str] | None = None) -> tuple[list[str], pd.Series]:
    """Class names and each row's index among them, -1 without a label; where `names` are known, cells are indices."""
    if names:
        return list(names), cells.fillna(-1).astype(int)
    values = sorted(cells.dropna().unique())
    return [str(v) for v in values], cells.map({v: i for i, v in enumerate(values)}).fillna(-1).astype(int)


def _rows(table: pd.DataFrame, texts: list[str], labels: pd.Series, group: str | None) -> pd.DataFrame:
    """Text, label and group of each row; without a column of groups identical texts are one, or they would leak."""
    joined = table[texts[0]] if len(texts) == 1 else table[texts[0]] + PAIR + table[texts[1]]
    groups = table[group] if group else joined.groupby(joined, sort=False).ngroup().astype(str).radd("row ")
    return pd.DataFrame({"text": joined, "label": labels, "group": groups.astype(str)})


def _frame(rows: Dataset) -> pd.DataFrame:
    """As pandas, with strings that stay Arrow's: Python's take several times the memory."""
    strings = pd.StringDtype(na_value=np.nan)
    return rows.with_format("arrow")[:].to_pandas(types_mapper=lambda t: strings if "string" in str(t) else None)


def _without_copies(where: object, frame: pd.DataFrame) -> pd.DataFrame:
    copies = frame["group"] != frame.groupby("text")["group"].transform("first")
    return _leave_out(where, frame, copies, "whose text stands in an earlier group")


def _leave_out(where: object, frame: pd.DataFrame, rows: pd.Series, why: str) -> pd.DataFrame:
    if rows.any():
        warnings.warn(f"{where}: left out {rows.sum()} rows {why}.", stacklevel=4)
    return frame[~rows]


def _warn_of_lookalikes(where: object, names: Sequence[str]) -> None:
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_look(name), []).append(name)
    if pairs := [" and ".join(map(ascii, same)) for same in alike.values() if len(same) > 1]:
        more = f" (and {len(pairs) - 3} more)" if len(pairs) > 3 else ""
        warnings.warn(
            f"{where}: the labels {'; '.join(pairs[:3])}{more} differ only in case, spaces, Unicode form or invisible "
            "characters; they are kept as separate classes: write them alike if they are one.",
            stacklevel=4,
        )


def _look(name: str) -> str:
    """What a reader sees of a name: no case, one form of each character, single spaces, nothing invisible."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = (c for c in folded if unicodedata.category(c) != "Cf" and c not in "\u034f\u115f\u1160\ufe0e\ufe0f")
    return " ".join("".join(seen).split())


def _several_labels(where: object, label: str) -> WorkbenchError:
    return WorkbenchError(
        f"{where}: column {label!r} holds several labels a row (multi-label), which is not supported here: keep one "
        "class a row, or make a task of each label."
    )


def _reason(error: BaseException) -> str:
    """The first clause of a library's message."""
    if isinstance(error, DatasetGenerationError) and error.__cause__:
        return _reason(error.__cause__)
    clause = re.split(r"[.:]?(?:\s\s|[\n\r]|\. |$)", str(error).strip())[0][:200]
    return clause if clause and not isinstance(error, KeyError) else f"{type(error).__name__} {clause}".strip()
