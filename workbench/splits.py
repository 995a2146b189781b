"""Which groups are held out, and the folds in which every group is tested once."""

from collections.abc import Mapping

FOLDS = 3


def places(groups: int, counts: Mapping[str, int], fold: int = 0) -> list[str]:
    """The split of each of `groups` shuffled groups: ``counts["test"]`` and so on of each, what is left is ``"train"``.

    Fold 0 tests the first of them, folds 1 and 2 half of the others each, so that over the folds each is tested once;
    whatever is not tested fills the other splits in order. Folds 1 and 2 so test more, and train on less.
    """
    tested = counts.get("test", 0)
    ends = [0, tested, tested + (groups - tested + 1) // 2, groups]
    others = iter([split for split, count in counts.items() if split != "test" for _ in range(count)])
    return ["test" if ends[fold] <= group < ends[fold + 1] else next(others, "train") for group in range(groups)]


def fold_count(groups: int, counts: Mapping[str, int]) -> int:
    """How many folds so many groups can take: one where a test split is given, or where a fold would train on none."""
    return FOLDS if "test" in counts and "train" in places(groups, counts, 1) else 1
