"""Tasks: no leak between splits, the same rows on every machine, and one sentence for every bad file."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from refusal import refused, sentence

from workbench import own_data
from workbench.own_data import PAIR
from workbench.store import fingerprint
from workbench.tasks import SPLITS, Columns, Task, load_task

# Of the embedded task with its default arguments: another machine must sample the very same rows. It changes only
# with what is sampled; then every published number changes too.
FINGERPRINT = "0f677c04339ed61b7f4a9ca8cccf798d"
JUDGES = ("validation", "calibration", "test", "out_of_scope")
CLASSES = ("light", "lock", "music")


def rows(task: Task, split: str) -> list[tuple[str, int, str]]:
    table = getattr(task, split)[:]
    return list(zip(table["text"], table["label"], table["group"], strict=True))


def write(path: Path, table: list[tuple], header: str = "text,label") -> str:
    """A CSV of `table`; returns the name `load_task` knows it by."""
    pd.DataFrame(table, columns=header.split(",")).to_csv(path, index=False)
    return f"csv:{path}"


def grouped(copies: int = 4, groups: int = 12) -> list[tuple[str, str, str]]:
    """(text, label, group) of `copies` near copies a group, in a mixed order."""
    table = [(f"{c} {g}, copy {i}", c, f"{c}-{g}") for c in CLASSES for g in range(groups) for i in range(copies)]
    random.Random(0).shuffle(table)
    return table


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("voice-commands")


# The embedded task


def test_the_embedded_task_is_the_same_everywhere(task):
    assert task.fingerprint == FINGERPRINT  # in another process, too: test_students


def test_no_template_and_no_sentence_stands_in_two_splits_and_no_sentence_twice(task):
    for what in ("text", "group"):
        parts = {"transfer": {*task.labelled[what], *task.unlabelled[what]}}
        parts |= {split: set(getattr(task, split)[what]) for split in JUDGES}
        assert all(parts.values())
        assert sum(map(len, parts.values())) == len(set().union(*parts.values())), f"a {what} leaks"
    texts = [text for split in SPLITS for text in getattr(task, split)["text"]]
    assert len(texts) == len(set(texts))


def test_classes(task):
    assert len(task.label_names) == len(set(task.label_names)) == 19
    for split in ("labelled", "validation", "calibration", "test"):
        assert set(getattr(task, split)["label"]) == set(range(19)), split
    assert set(task.out_of_scope["label"]) == {-1}
    assert task.licence == "Apache-2.0" and "home-assistant-intents==" in task.source


def test_a_template_has_one_class(task):
    labels = {}
    for split in ("labelled", "validation", "calibration", "test"):
        for _, label, group in rows(task, split):
            assert labels.setdefault(group, label) == label


def test_describe_counts_what_is_there(task):
    table = task.describe()
    assert list(table.index) == list(SPLITS)
    for split in SPLITS:
        assert table.loc[split, "rows"] == len(getattr(task, split)) > 0
        assert table.loc[split, "groups"] == len(set(getattr(task, split)["group"]))
    assert table["classes"].to_dict() == dict(zip(SPLITS, (19, 0, 19, 19, 19, 0), strict=True))
    assert table.loc["labelled", "smallest class"] == 5


def test_the_fingerprint_is_the_stores_of_all_columns(task, monkeypatch):
    columns = {s: [getattr(task, s)[c][:] for c in ("text", "label", "group")] for s in SPLITS}
    monkeypatch.setattr("workbench.tasks.ROWS", 7)  # computed in batches, which must not show
    assert replace(task).fingerprint == fingerprint([list(task.label_names), columns]) == FINGERPRINT


# Who may see which labels


def test_the_transfer_set_and_the_judges_stay_whatever_the_labels(task):
    assert task.transfer_texts == [*task.labelled["text"], *task.unlabelled["text"]]
    for options in ({"labels_per_class": 1}, {"label_draw": 7}, {"labels_per_class": None}):
        other = load_task("voice-commands", **options)
        assert set(other.transfer_texts) == set(task.transfer_texts)
        assert len(other.transfer_texts) == len(task.transfer_texts)
        for split in JUDGES:
            assert rows(other, split) == rows(task, split)
        assert other.fingerprint != task.fingerprint


@pytest.mark.parametrize("count", [1, 5, 12])
def test_labels_per_class(count):
    task = load_task("voice-commands", labels_per_class=count)
    assert Counter(task.labelled["label"]) == dict.fromkeys(range(19), count)
    assert set(task.unlabelled["label"]) == {-1}  # hidden, not only unused


def test_every_label_can_be_kept_and_a_small_class_gives_all_it_has(task):
    full = load_task("voice-commands", labels_per_class=None)
    assert len(full.unlabelled) == 0 and len(full.labelled) == len(task.transfer_texts)
    sizes = Counter(full.labelled["label"])
    some = load_task("voice-commands", labels_per_class=100)
    assert Counter(some.labelled["label"]) == {label: min(100, size) for label, size in sizes.items()}
    assert min(sizes.values()) < 100 < max(sizes.values())


def test_a_draw_is_repeatable_and_draws_differ(task):
    assert load_task("voice-commands").fingerprint == task.fingerprint
    drawn = [set(load_task("voice-commands", label_draw=draw).labelled["text"]) for draw in range(4)]
    assert drawn[0] == set(task.labelled["text"])
    assert all(len(a & b) < len(a) / 2 for i, a in enumerate(drawn) for b in drawn[:i])
    fewer = load_task("voice-commands", labels_per_class=2)
    assert set(fewer.labelled["text"]) < drawn[0]  # more labels contain fewer


# Folds


def check_folds(load) -> None:
    """Over the folds every group is tested once, nothing leaks, and fold 0 is the split there was."""
    folds = [load(fold=fold) for fold in range(3)]
    assert folds[0].fingerprint == load().fingerprint and [t.folds for t in folds] == [3, 3, 3]
    groups = [{*t.labelled["group"], *t.unlabelled["group"]} for t in folds]
    held = [{s: set(getattr(t, s)["group"]) for s in JUDGES[:3]} for t in folds]
    everything = groups[0].union(*held[0].values())
    assert sum(len(h["test"]) for h in held) == len(everything) == len(set().union(*(h["test"] for h in held)))
    for task, train, judges in zip(folds, groups, held, strict=True):
        assert train and not any(train & g for g in judges.values()) and train.union(*judges.values()) == everything
        assert {*task.test["label"]} == {*task.labelled["label"]} == {*range(len(task.label_names))}


def test_every_template_is_tested_in_one_of_three_folds(tmp_path):
    check_folds(lambda **options: load_task("voice-commands", labels_per_class=None, **options))
    name = write(tmp_path / "a.csv", grouped(groups=5), "text,label,family")
    check_folds(lambda **options: load_task(name, group="family", labels_per_class=None, **options))


def test_a_given_test_split_or_a_small_class_has_one_fold(tmp_path):
    small = write(tmp_path / "a.csv", grouped(groups=4), "text,label,family")
    assert load_task(small, group="family").folds == 1
    assert "has one fold, because of a class with too few rows" in refusal(small, group="family", fold=1)
    table = [(f"{c} {i}", c, "test" if i % 4 else "train") for i in range(40) for c in CLASSES]
    own = write(tmp_path / "b.csv", table, "text,label,part")
    assert load_task(own, split="part").folds == 1
    assert "because of its own test split: leave fold at 0" in refusal(own, split="part", fold=2)
    assert "fold is 3: give a whole number from 0 to 2" in refusal(own, split="part", fold=3)


# A file of one's own


def test_csv_round_trip(tmp_path):
    table = [(f"{c} number {i}, “quoted”", c) for i in range(20) for c in CLASSES]
    task = load_task(write(tmp_path / "mine.csv", table), labels_per_class=None)
    assert task.name == "mine" and task.label_names == CLASSES and "mine.csv" in task.source
    found = [(text, CLASSES[label]) for split in SPLITS for text, label, _ in rows(task, split)]
    assert sorted(found) == sorted(table)
    sizes = task.describe()["rows"].to_dict()
    assert sizes == dict(labelled=36, unlabelled=0, validation=6, calibration=6, test=12, out_of_scope=0)
    for split in ("labelled", "validation", "calibration", "test"):
        assert len(set(Counter(getattr(task, split)["label"]).values())) == 1  # each class alike


def test_csv_hides_labels_as_the_embedded_task_does(tmp_path):
    name = write(tmp_path / "mine.csv", [(f"{c} {i}", c) for i in range(20) for c in CLASSES])
    task = load_task(name, labels_per_class=2)
    assert Counter(task.labelled["label"]) == {0: 2, 1: 2, 2: 2} and set(task.unlabelled["label"]) == {-1}
    other = load_task(name, labels_per_class=2, label_draw=1)
    assert set(other.labelled["text"]) != set(task.labelled["text"])
    assert sorted(other.transfer_texts) == sorted(task.transfer_texts)


def test_csv_rows_without_a_label_are_unlabelled(tmp_path):
    known = [(f"{c} {i}", c) for i in range(20) for c in CLASSES]
    more = [(f"who knows {i}", "") for i in range(30)]
    plain = load_task(write(tmp_path / "a.csv", known), labels_per_class=None)
    name = write(tmp_path / "b.csv", [*known, *more, ("light 3", " ")])
    with pytest.warns(UserWarning, match="left out 1 rows without a label whose text has one in another row"):
        task = load_task(name, labels_per_class=None)
    assert sorted(task.unlabelled["text"]) == sorted(text for text, _ in more)
    assert set(task.unlabelled["label"]) == {-1} and task.label_names == CLASSES
    for split in ("labelled", *JUDGES):
        assert rows(task, split) == rows(plain, split)


def test_csv_near_copies_of_what_is_held_out_are_not_learnt_from(tmp_path):
    table = grouped() + [(f"{c}, or so, {g}", "", f"{c}-{g}") for c in CLASSES for g in range(12)]
    with pytest.warns(UserWarning, match="without a label whose group is held out"):
        task = load_task(write(tmp_path / "a.csv", table, "text,label,family"), group="family", labels_per_class=None)
    held_out = {group for split in JUDGES[:3] for group in getattr(task, split)["group"]}
    assert not held_out & set(task.unlabelled["group"]) and len(task.unlabelled) > 0
    assert all(label >= 0 for split in JUDGES[:3] for label in getattr(task, split)["label"])


def test_csv_a_column_of_splits_decides(tmp_path):
    parts = ("train", "train", "Test", "dev", "train")
    table = [(f"{c} {i}", c, parts[i % 5]) for i in range(40) for c in CLASSES]
    task = load_task(write(tmp_path / "a.csv", table, "text,label,part"), split="part", labels_per_class=None)
    named = {part: {text for text, _, where in table if where == part} for part in parts}
    assert set(task.test["text"]) == named["Test"] and set(task.validation["text"]) == named["dev"]
    assert set(task.labelled["text"]) | set(task.calibration["text"]) == named["train"]
    assert len(task.calibration) == 3 * 2  # which is not named, so a tenth of the training rows of each class
    torn = [*table, ("light 0", "light", "test")]
    with pytest.warns(UserWarning, match="left out 1 rows whose text stands in its test or validation split"):
        task = load_task(write(tmp_path / "b.csv", torn, "text,label,part"), split="part", labels_per_class=None)
    assert "light 0" in task.test["text"] and "light 0" not in task.transfer_texts


def test_a_named_label_is_out_of_scope(tmp_path):
    table = [(f"{c} {i}", c) for i in range(20) for c in (*CLASSES, "no idea")]
    task = load_task(write(tmp_path / "a.csv", table), out_of_scope="no idea", labels_per_class=None)
    inside = load_task(write(tmp_path / "b.csv", [r for r in table if r[1] != "no idea"]), labels_per_class=None)
    assert task.label_names == CLASSES
    assert set(task.out_of_scope["text"]) == {text for text, c in table if c == "no idea"}
    assert set(task.out_of_scope["label"]) == {-1}
    counts = task.describe()["rows"].drop("out_of_scope")
    assert counts.equals(inside.describe()["rows"].drop("out_of_scope"))


def test_csv_with_other_column_names_and_surrounding_space(tmp_path):
    table = [(i, f"  {c} {i} ", c) for i in range(8) for c in CLASSES]
    task = load_task(write(tmp_path / "a.csv", table, "id,utterance,intent"), text="utterance", label="intent")
    assert {text for s in SPLITS for text, _, _ in rows(task, s)} == {text.strip() for _, text, _ in table}


def test_csv_groups_are_never_torn_apart(tmp_path):
    table = grouped()
    task = load_task(write(tmp_path / "a.csv", table, "text,label,family"), group="family", labels_per_class=None)
    groups = {split: set(getattr(task, split)["group"]) for split in SPLITS}
    split_of = {group: {split for split in SPLITS if group in groups[split]} for _, _, group in table}
    assert all(len(splits) == 1 for splits in split_of.values())
    assert {*map(frozenset, split_of.values())} == {*map(frozenset, zip(("labelled", *JUDGES[:3]), strict=True))}
    assert sum(len(getattr(task, s)) for s in SPLITS) == len(table)


def test_csv_identical_texts_stay_in_one_split(tmp_path):
    table = [(f"{c} {i}", c) for i in range(15) for c in CLASSES] * 3
    task = load_task(write(tmp_path / "a.csv", table), labels_per_class=None)
    texts = [set(getattr(task, split)["text"]) for split in SPLITS]
    assert sum(map(len, texts)) == len(set().union(*texts)) == 45
    assert sum(len(getattr(task, s)) for s in SPLITS) == 135


def test_csv_a_text_in_two_groups_stays_in_the_first(tmp_path):
    table = grouped() + [(f"{c} common", c, f"{c}-{g}") for c in CLASSES for g in range(12)]
    name = write(tmp_path / "a.csv", table, "text,label,family")
    with pytest.warns(UserWarning, match="a.csv: left out 33 rows whose text stands in an earlier group"):
        task = load_task(name, group="family", labels_per_class=None)
    texts = [text for split in SPLITS for text in getattr(task, split)["text"]]
    assert len(texts) == len(set(texts)) == len(table) - 33


def test_csv_a_text_with_two_labels_stays_in_one_split(tmp_path):
    table = [(f"{c} {i}", c) for i in range(8) for c in CLASSES] + [("light 3", "lock")]
    with pytest.warns(UserWarning, match="1 texts carry more than one label"):
        task = load_task(write(tmp_path / "a.csv", table), labels_per_class=None)
    assert sum("light 3" in getattr(task, split)["text"] for split in SPLITS) == 1


def test_csv_split_is_stable(tmp_path):
    table = grouped()
    first = load_task(write(tmp_path / "a.csv", table, "text,label,family"), group="family")
    (tmp_path / "elsewhere").mkdir()
    moved = load_task(write(tmp_path / "elsewhere" / "b.csv", table, "text,label,family"), group="family")
    assert moved.fingerprint == first.fingerprint
    reordered = load_task(write(tmp_path / "c.csv", table[::-1], "text,label,family"), group="family")
    for split in JUDGES:
        assert sorted(rows(reordered, split)) == sorted(rows(first, split))
    changed = load_task(
        write(tmp_path / "d.csv", [("other", *table[0][1:]), *table[1:]], "text,label,family"), group="family"
    )
    assert changed.fingerprint != first.fingerprint


@pytest.mark.parametrize("encoding, end", [("utf-8-sig", "\n"), ("utf-8", "\r\n")])
def test_csv_as_spreadsheets_write_it(tmp_path, encoding, end):
    lines = ["text,label", *(f"café {i} {c},{c}" for i in range(8) for c in CLASSES)]
    (tmp_path / "a.csv").write_bytes((end.join(lines) + end).encode(encoding))
    task = load_task(f"csv:{tmp_path / 'a.csv'}", labels_per_class=None)
    assert task.label_names == CLASSES and all(text.startswith("café") for text in task.labelled["text"])


def test_csv_pairs_become_one_text_each(tmp_path):
    table = [(f"{c} {i}", f"is it {c}, or not", c) for i in range(8) for c in CLASSES]
    name = write(tmp_path / "a.csv", table, "premise,hypothesis,label")
    task = load_task(name, text="premise,hypothesis", labels_per_class=None)
    texts = {text for split in SPLITS for text in getattr(task, split)["text"]}
    assert texts == {f"{first}{PAIR}{second}" for first, second, _ in table}
    assert load_task(name, text=("premise", "hypothesis"), labels_per_class=None).fingerprint == task.fingerprint
    turned = load_task(name, text=("hypothesis", "premise"), labels_per_class=None)
    assert turned.fingerprint != task.fingerprint


def test_csv_a_comma_in_a_columns_name_is_no_pair(tmp_path):
    frame = pd.DataFrame([(f"{c} {i}", c) for i in range(8) for c in CLASSES], columns=["a,b", "label"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert "light 0" in load_task(f"csv:{tmp_path / 'a.csv'}", text="a,b", labels_per_class=None).transfer_texts


# Datasets in hub format: from folders here, which `datasets` reads as it reads the hub's

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["music", "light", "lock"])})


def part(count: int, start: int = 0, **columns) -> Dataset:
    texts = [f"text {i}" for i in range(start, start + count)]
    return Dataset.from_dict({"text": texts, "label": [i % 3 for i in range(count)], **columns}, FEATURES)


def save(folder: Path, splits: dict[str, Dataset], how: str = "parquet") -> str:
    folder.mkdir(exist_ok=True)
    if how == "save_to_disk":
        DatasetDict(splits).save_to_disk(folder)
    for split, rows in splits.items():
        if how == "parquet":
            rows.to_parquet(folder / f"{split}.parquet")
        elif how == "jsonl":
            rows.to_json(folder / f"{split}.jsonl")
    return f"hub:{folder}"


@pytest.mark.parametrize("how", ["parquet", "save_to_disk"])
def test_hub_keeps_class_names_and_its_own_splits(tmp_path, how):
    splits = {"train": part(60), "test": part(9, 100), "validation": part(6, 200)}
    task = load_task(save(tmp_path / "mine", splits, how), labels_per_class=2)
    assert task.name == "mine" and task.label_names == ("music", "light", "lock")  # the order of the ClassLabel
    assert list(task.test["text"]) == splits["test"]["text"][:] and task.test["label"][:] == splits["test"]["label"][:]
    assert task.validation["text"][:] == splits["validation"]["text"][:]
    assert Counter(task.calibration["label"]) == {0: 2, 1: 2, 2: 2}  # what it lacks is held out of its training rows
    assert Counter(task.labelled["label"]) == {0: 2, 1: 2, 2: 2} and len(task.unlabelled) == 60 - 6 - 6
    assert {*task.transfer_texts, *task.calibration["text"]} == set(splits["train"]["text"])


def test_hub_without_splits_is_split_as_a_csv_is(tmp_path):
    rows = [(f"{c} {i}", c) for i in range(20) for c in CLASSES]
    frame = pd.DataFrame(rows, columns=["text", "label"])
    name = save(tmp_path / "mine", {"train": Dataset.from_pandas(frame)}, "jsonl")
    csv = load_task(write(tmp_path / "mine.csv", rows))
    assert load_task(name).fingerprint == csv.fingerprint


def test_hub_rows_may_name_their_split_where_the_data_set_has_none(tmp_path):
    rows = [(f"{c} {i}", c, ("Test", "train", "train", "dev")[i % 4]) for i in range(20) for c in CLASSES]
    frame = pd.DataFrame(rows, columns=["text", "label", "part"])
    name = save(tmp_path / "mine", {"train": Dataset.from_pandas(frame)}, "jsonl")
    csv = load_task(write(tmp_path / "mine.csv", rows, "text,label,part"), split="part")
    task = load_task(name, split="part")
    assert task.fingerprint == csv.fingerprint
    assert {text for text, _, part in rows if part == "Test"} == {*task.test["text"]}
    with refused("has no column 'prt'", "--split"):
        load_task(name, split="prt")
    numbered = save(tmp_path / "numbers", {"train": part(60).add_column("part", [i % 2 for i in range(60)])})
    with refused("numbers: column 'part' names the split '0': write train, validation"):
        load_task(numbered, split="part")
    with refused("own has splits of its own ('test', 'train'): leave the column of splits out (--split)"):
        load_task(save(tmp_path / "own", {"train": part(60), "test": part(9, 100)}), split="part")


def test_columns_are_given_as_one_or_by_name(tmp_path):
    path = write(tmp_path / "a.csv", [(f"{c} {i}", c) for i in range(20) for c in CLASSES], "question,kind")
    one = load_task(path, Columns("question", "kind"))
    assert load_task(path, text="question", label="kind").fingerprint == one.fingerprint
    assert load_task(path, Columns("question"), label="kind").fingerprint == one.fingerprint
    with refused("columns is 'question': give Columns, or name them"):
        load_task(path, "question")


def test_hub_numbers_are_classes_in_their_order(tmp_path):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(48)], "label": [i % 12 for i in range(48)]})
    task = load_task(save(tmp_path / "mine", {"train": Dataset.from_pandas(frame)}))
    assert task.label_names == tuple(map(str, range(12)))


def test_hub_rows_without_a_label_are_unlabelled_and_judge_nothing(tmp_path):
    hidden = part(9, 100).map(lambda row: {"label": -1}, features=FEATURES)
    more = part(5, 300).map(lambda row: {"label": -1}, features=FEATURES)
    name = save(tmp_path / "mine", {"train": part(60), "test": hidden, "unsupervised": more}, "save_to_disk")
    with pytest.warns(UserWarning, match="mine: left out 9 rows without a label in a test or validation split"):
        task = load_task(name)
    assert len(task.test) == 12 and set(task.test["label"]) == {0, 1, 2}  # held out, as there is no other
    assert set(more["text"]) < set(task.unlabelled["text"])


def test_hub_a_text_in_two_splits_stays_with_the_judge(tmp_path):
    name = save(tmp_path / "mine", {"train": part(60), "test": part(9), "dev2": part(3, 500)}, "save_to_disk")
    with pytest.warns(UserWarning) as warned:
        task = load_task(name)
    told = [str(w.message) for w in warned]
    assert "mine: left out 9 rows whose text stands in its test or validation split." in told
    assert "mine: the splits 'dev2' are not used." in told
    assert len(task.test) == 9 and not set(task.test["text"]) & set(task.transfer_texts)


def test_hub_rows_without_a_text_are_left_out(tmp_path):
    rows = part(60).map(lambda row, i: {"text": None if i == 3 else " " if i == 4 else row["text"]}, with_indices=True)
    with pytest.warns(UserWarning, match="mine: left out 2 rows without a text"):
        task = load_task(save(tmp_path / "mine", {"train": rows}))
    assert sum(len(getattr(task, split)) for split in SPLITS) == 58


def test_hub_pairs(tmp_path):
    rows = {"a": [f"a {i}" for i in range(60)], "b": [f"b {i}" for i in range(60)], "label": [i % 3 for i in range(60)]}
    features = Features({"a": Value("string"), "b": Value("string"), "label": FEATURES["label"]})
    task = load_task(save(tmp_path / "mine", {"train": Dataset.from_dict(rows, features)}), text="a,b")
    assert task.label_names == ("music", "light", "lock") and f"a 7{PAIR}b 7" in {
        text for split in SPLITS for text in getattr(task, split)["text"]
    }


def test_hub_configs_are_told_apart(tmp_path):
    for config in "xy":
        (tmp_path / config).mkdir()
        frame = pd.DataFrame([(f"{config} {i}", CLASSES[i % 3]) for i in range(60)], columns=["text", "label"])
        frame.to_csv(tmp_path / config / "train.csv", index=False)
    listed = "".join(f"- config_name: {c}\n  data_files: {c}/train.csv\n" for c in "xy")
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{listed}---\n")
    assert set(text[0] for text in load_task(f"hub:{tmp_path}/y").transfer_texts) == {"y"}
    assert f"has the configs ['x', 'y']: write hub:{tmp_path}/<config>" in refusal(f"hub:{tmp_path}")


def test_hub_refuses_what_is_no_classification(tmp_path):
    several = Features({"text": Value("string"), "label": List(FEATURES["label"])})
    lists = Dataset.from_dict({"text": ["a", "b"], "label": [[0, 1], [2]]}, several)
    assert "'label' holds several labels a row (multi-label)" in refusal(save(tmp_path / "lists", {"train": lists}))
    scores = Dataset.from_dict({"text": ["a", "b"], "label": [0.5, 1.5]})
    assert "holds float64 values, not classes" in refusal(save(tmp_path / "scores", {"train": scores}))
    assert "'text' holds no texts" in refusal(
        save(tmp_path / "numbers", {"train": Dataset.from_dict({"text": [1, 2], "label": ["a", "b"]})})
    )
    assert "has no column 'intent'; it has 'text', 'label'" in refusal(
        save(tmp_path / "named", {"train": part(9)}), label="intent"
    )
    assert "has no split 'train'" in refusal(save(tmp_path / "test", {"test": part(9)}))
    one = save(tmp_path / "one", {"train": part(31).select([*range(0, 30, 3), *range(1, 30, 3), 2])})
    assert "class 'lock' has 1 distinct row(s)" in refusal(one)
    (tmp_path / "nothing").mkdir()
    assert "doesn't contain any data files" in refusal(f"hub:{tmp_path / 'nothing'}")


def test_hub_out_of_reach_is_said_at_once(monkeypatch):
    monkeypatch.setattr(own_data.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(own_data.config, "HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    own_data._hub_in_reach.cache_clear()
    for name in ("nobody/nothing", "nobody/nothing/config", "nothing"):
        text = refusal(f"hub:{name}")
        assert "The hub is out of reach and n" in text and "hub:<folder>" in text
    assert not own_data.config.HF_HUB_OFFLINE  # only while it was asked
    own_data._hub_in_reach.cache_clear()
    assert "write hub:owner/name" in refusal("hub:a/b/c/d")


# Refusals; those of a CSV are rows of test_bad_files


def refusal(name: str, **options) -> str:
    return sentence(lambda: load_task(name, **options))


def test_unknown_task_names_the_nearest():
    assert "did you mean 'voice-commands'?" in refusal("voice-comands")
    assert "csv:<path>, hub:<dataset>[/<config>]" in refusal("huub")


# --- a smaller transfer set


def test_a_smaller_transfer_set_keeps_the_labelled_rows_and_the_judges(tmp_path):
    task = load_task(write(tmp_path / "a.csv", grouped(), "text,label,group"), group="group", labels_per_class=2)
    total = len(task.transfer_texts)
    small = task.smaller(20)
    assert len(small.transfer_texts) == 20 and rows(small, "labelled") == rows(task, "labelled")
    assert set(rows(small, "unlabelled")) < set(rows(task, "unlabelled"))
    assert all(rows(small, split) == rows(task, split) for split in JUDGES)
    assert task.smaller(20).fingerprint == small.fingerprint != task.fingerprint
    assert task.smaller(20, draw=1).fingerprint != small.fingerprint
    assert task.smaller(total).fingerprint == task.fingerprint
    for wrong in (5, total + 1):
        with refused(f"{wrong} rows: choose from 6 "):
            task.smaller(wrong)
