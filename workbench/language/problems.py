"""Problems with a difficulty dial, their steps written by a program, and a verifier that trusts no step.

``"sums"``: k two-digit terms, added one after the other. In prompt and steps digits stand in reverse, as one adds
them, and totals have three, so that columns line up; the answer is written as usual. Small digits are commoner than
large ones.
``"reduce"``: a nested expression over digits modulo 10, rewritten until one digit is left; any order counts.
``"gym:<name>"``: a generator of `reasoning-gym` (an extra: ``pip install -e '.[reasoning]'``).
``"hub:<name>"``: worded problems with a rationale, such as ``"hub:openai/gsm8k"``; needs a network.

A completion is ``steps # answer``. A problem belongs to one split by the hash of its prompt, whatever the seed:
nothing that judges a student can have taught its teacher. Next to read: `workbench.language.traces`.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice

import pandas as pd

from workbench.errors import SEED, Text, WorkbenchError, sequence, unknown, whole
from workbench.escape import html
from workbench.store import fingerprint

SPLITS = {"test": range(0, 2), "validation": range(2, 3), "train": range(3, 10)}  # tenths of all prompts
VERDICTS = ("verified", "right answer, wrong step", "wrong answer", "no answer")
MARK = "#"  # stands before the answer
MISSING = "(missing)"  # stands for a step
# What turns the dial of a reasoning-gym generator: its smallest and its largest value are set alike.
GYM = {
    "chain_sum": ("min_terms", "max_terms"),
    "basic_arithmetic": ("min_terms", "max_terms"),
    "leg_counting": ("min_animals", "max_animals"),
    "number_sorting": ("min_numbers", "max_numbers"),
    "propositional_logic": ("min_statements", "max_statements"),
}


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        family: see the module's first lines.
        difficulty: terms of a sum, operations of an expression, or what the generator's dial counts.
        prompt: what a model reads.
        answer: the true answer, as it is to be written.
        trace: true steps, without the answer; None where no program writes them.
        entry: JSON that a `reasoning-gym` scorer needs, else "".
    """

    family: str
    difficulty: int
    prompt: str
    answer: str
    trace: str | None = None
    entry: str = ""

    @property
    def completion(self) -> str:
        """The true steps, if there are any, and the answer."""
        return f"{self.trace or ''}{MARK}{self.answer}"

    @property
    def answer_only(self) -> str:
        """The completion of a student that is taught no steps."""
        return f"{MARK}{self.answer}"


@dataclass(frozen=True)
class Verdict:
    """What the verifier found.

    Attributes:
        verdict: one of `VERDICTS`. "verified" asks for every step and the answer; where steps can't be checked
            (`gym:`, `hub:`), for the answer alone.
        first_wrong: index of the first step that is wrong, missing or too many; None if there is none.
    """

    verdict: str
    first_wrong: int | None = None

    @property
    def answer_right(self) -> bool:
        """Whether the answer is right, however it was reached."""
        return self.verdict in VERDICTS[:2]

    @property
    def verified(self) -> bool:
        """Whether every step and the answer are right."""
        return self.verdict == VERDICTS[0]


def problems(
    family: str, difficulties: Iterable[int], count: int, *, split: str = "train", seed: int = 0
) -> list[Problem]:
    """`count` distinct problems of each difficulty.

    Args:
        family: see the module's first lines.
        difficulties: ``sums``: terms, 2 or more; ``reduce``: operations, 1 or more.
        count: of each difficulty, 1 or more.
        split: "train", "validation" or "test"; no prompt is in two.
        seed: another seed draws other problems from the same split.

    Raises:
        WorkbenchError: unknown family or split, a difficulty below the smallest, or fewer problems than asked for.
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise unknown("split", split, SPLITS)
    count, seed, family = whole("count", count, 1, 10_000_000), SEED.check("seed", seed), Text().check("family", family)
    difficulties = [whole("difficulty", d, 0, 1000) for d in sequence("difficulties", difficulties, "whole numbers")]
    kind, _, name = family.partition(":")
    if kind not in SOURCES or bool(name) == (kind in FAMILIES):
        raise unknown("family", family, [*FAMILIES, "gym:<name>", "hub:<name>"])
    found: list[Problem] = []
    for difficulty in difficulties:
        stream = SOURCES[kind](name or kind, difficulty, f"{family} {difficulty} {split} {seed}")
        mine: dict[str, Problem] = {}
        for problem in islice(stream, 100 * count + 1000):
            if _tenth(problem.prompt) in SPLITS[split]:
                mine.setdefault(problem.prompt, problem)
            if len(mine) == count:
                break
        if len(mine) < count:
            raise WorkbenchError(
                f"{family} at difficulty {difficulty} has {len(mine)} problems in the {split} split, not {count}: "
                "ask for fewer or for other difficulties."
            )
        found += mine.values()
    return found


def verify(problem: Problem, text: str) -> Verdict:
    """Check a completion: every step, in its place, and the answer; nothing before, between or after them."""
    kind = problem.family.partition(":")[0]
    if kind in ("gym", "hub"):
        answer = final_answer(text)
        if answer is None:
            return Verdict("no answer")
        right = _gym_score(problem, answer) == 1.0 if kind == "gym" else _number(answer) == _number(problem.answer)
        return Verdict("verified" if right else "wrong answer")
    steps, mark, answer = text.partition(MARK)
    first_wrong = FAMILIES[kind].first_wrong(problem, steps_of(steps))
    if not mark:
        return Verdict("no answer", first_wrong)
    if answer != problem.answer:
        return Verdict("wrong answer", first_wrong)
    return Verdict("verified" if first_wrong is None else VERDICTS[1], first_wrong)


def steps_of(text: str) -> list[str]:
    """The steps of a completion, its answer left out."""
    trace = text.partition(MARK)[0]
    return trace.split(";") if trace else []


def summarised(text: str, family: str) -> str:
    """A completion told in short, as a maker does who shows no reasoning but a summary of it; the answer stays.

    Of a step that works something out what follows its "=", without what it was worked out of; of steps without one
    (``reduce``), every second, the last among them. Of worded text what follows its ``<think>`` block, as hosted
    models show it; where there is none, every second line, the last among them.
    """
    if family not in FAMILIES:
        _, thought, said = text.rpartition("</think>")
        return said.strip() if thought else "\n".join(text.strip().splitlines()[::-1][::2][::-1])
    steps, mark, answer = text.partition(MARK)
    found = steps.split(";")
    short = [step.rpartition("=")[2] for step in found] if "=" in steps else found[::-1][::2][::-1]
    return ";".join(short) + mark + answer


def novel(asked: Sequence[Problem], taught: Iterable[Problem]) -> list[bool]:
    """Which problems are more than a lesson with its terms in another order; of other families than sums, all are."""
    known = {_terms(problem) for problem in taught}
    return [problem.family != "sums" or _terms(problem) not in known for problem in asked]


def _terms(problem: Problem) -> tuple[str, ...]:
    return tuple(sorted(problem.prompt.rstrip(":").split("+")))


def final_answer(text: str) -> str | None:
    r"""The answer of a worded completion: what follows ``#`` on its last line, else the last ``\boxed{}``, else None.

    A model that thinks in a block answers after it: what stands before ``</think>`` doesn't count.
    """
    said = text.rpartition("</think>")[2]
    if "<think>" in said:  # still thinking when its tokens ran out
        return None
    if marked := re.search(rf"{MARK} *([^{MARK}\n]+)$", said.strip()):
        return marked[1].strip()
    boxed = re.findall(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}", said)
    return boxed[-1].strip() if boxed else None


@dataclass(frozen=True)
class TraceTask:
    """What a causal language model learns to write: prompts, completions, and pairs to look at while training.

    `workbench.training.train` takes it where a classifier's run takes a `Task`. The loss counts on completions and
    on the end that follows them, never on prompts. The validation pairs should be of the kind that is taught, for a
    look asks how many of them the model would write token for token.
    """

    name: str
    prompts: tuple[str, ...]
    completions: tuple[str, ...]
    validation: tuple[tuple[str, str], ...]
    label_draw = 0  # a classification task's; here nothing is drawn
    lessons = "workbench.language.lessons"  # the module that knows how to teach it

    def __post_init__(self) -> None:
        """Refuse what no run could learn from."""
        if len(self.prompts) != len(self.completions):
            counts = f"{len(self.prompts)} prompts and {len(self.completions)} completions"
            raise WorkbenchError(f"{self.name} has {counts}: give one completion per prompt.")
        if not self.prompts or not self.validation:
            raise WorkbenchError(f"{self.name} has no rows to train on or to validate with: give some of both.")
        if not all([*self.prompts, *self.completions, *(text for pair in self.validation for text in pair)]):
            raise WorkbenchError(f"{self.name} has an empty prompt or completion: leave that row out.")

    @cached_property
    def fingerprint(self) -> str:
        """Depends on every prompt and completion, and on their order."""
        return fingerprint([self.prompts, self.completions, self.validation])


def trace_view(chosen: Sequence[Problem], texts: Mapping[str, Sequence[str]]) -> "TraceView":
    """Problems side by side: a row a problem, a column a writer, the first wrong step marked.

    Args:
        chosen: the problems.
        texts: writer -> its completion of each problem, in the same order.

    Raises:
        WorkbenchError: a writer with another number of completions.
    """
    return TraceView(list(chosen), {writer: list(written) for writer, written in texts.items()})


@dataclass(frozen=True)
class TraceView:
    """A table that a notebook shows as HTML; marks are words and signs first, colour second."""

    problems: list[Problem]
    texts: dict[str, list[str]]

    def __post_init__(self) -> None:
        for writer, written in self.texts.items():
            if len(written) != len(self.problems):
                counts = f"{len(written)} completions of {len(self.problems)} problems"
                raise WorkbenchError(f"{writer} wrote {counts}: give one each.")

    def frame(self) -> pd.DataFrame:
        """A row a problem: question, answer, each writer's steps and answer, and ``<writer> first wrong`` (from 0)."""
        rows = []
        for i, problem in enumerate(self.problems):
            row = {"question": f"{problem.prompt} (difficulty {problem.difficulty})", "answer": problem.answer}
            for writer, written in self.texts.items():
                steps, answer, found = _read(problem, written[i])
                wrong = len(steps) if found.first_wrong is None and not found.answer_right else found.first_wrong
                row |= {writer: [*steps, f"answer: {answer or 'none'}"], f"{writer} first wrong": wrong}
            rows.append(row)
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html(name)}</th>' for name in ["problem", "truth", *self.texts])
        rows = []
        for i, problem in enumerate(self.problems):
            cells = [f"<b>{html(problem.prompt)}</b><br>difficulty {problem.difficulty}"]
            cells += [_html(problem, problem.completion, judged=False)]
            cells += [_html(problem, written[i]) for written in self.texts.values()]
            rows.append("".join(f'<td style="vertical-align:top;text-align:left">{cell}</td>' for cell in cells))
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        note = "✗ marks the first wrong, missing or needless step; ✓ a right answer."
        return f"<table><caption>{note}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        """The same in plain text, a block a problem."""
        lines = []
        for i, problem in enumerate(self.problems):
            lines.append(f"{problem.prompt}  (truth: {problem.completion})")
            for writer, written in self.texts.items():
                found = verify(problem, written[i])
                at = "" if found.first_wrong is None else f", step {found.first_wrong + 1}"
                lines.append(f"  {writer}: {written[i]}  [{found.verdict}{at}]")
        return "\n".join(lines)


def _read(problem: Problem, text: str) -> tuple[list[str], str, Verdict]:
    """(steps, among them the first that is missing; answer, "" if there is none; verdict)."""
    found = verify(problem, text)
    if problem.family in FAMILIES:
        steps, answer = steps_of(text), text.partition(MARK)[2]
    else:  # worded: its steps are not checked
        steps, answer = text.strip().splitlines(), final_answer(text) or ""
    return steps + [MISSING] * (found.first_wrong == len(steps)), answer, found


def _html(problem: Problem, text: str, judged: bool = True) -> str:
    """A completion, a line a step."""
    steps, answer, found = _read(problem, text)
    lines = [f"<code>{html(step)}</code>" for step in steps]
    if judged and (wrong := found.first_wrong) is not None:
        what = "missing" if steps[wrong] is MISSING else f"<s>{lines[wrong]}</s> wrong"
        lines[wrong] = f"<mark>✗ {what} step {wrong + 1}</mark>"
    lines.append(f"answer <code>{html(answer)}</code>" if answer else "no answer")
    if judged:
        lines[-1] += f" {'✓' if found.answer_right else '✗'}<br><i>{found.verdict}</i>"
    return "<br>".join(lines)


# --- families


@dataclass(frozen=True)
class _Family:
    easiest: int
    make: Callable[[random.Random, int], tuple[str, str, str]]  # -> prompt, trace, answer
    first_wrong: Callable[[Problem, list[str]], int | None]


def _tenth(prompt: str) -> int:
    return hashlib.blake2b(prompt.encode(), digest_size=4).digest()[0] * 10 // 256


def _total(number: int) -> str:
    """Reversed, so that a carry moves on as one writes, and of three digits, so that columns lie equally far apart."""
    return f"{number:03d}"[::-1]


def _make_sum(rng: random.Random, terms: int) -> tuple[str, str, str]:
    """Small digits are commoner than large ones.

    Were all equally common, one of two digits alone would tell nothing of their sum's last digit: a small model then
    waits, by luck for hundreds of steps, until it happens to heed both at once.
    """
    numbers = [10 * _digit(rng, 1) + _digit(rng, 0) for _ in range(terms)]
    steps = _sum_steps(numbers)
    return "+".join(str(n)[::-1] for n in numbers) + ":", ";".join(steps), str(sum(numbers))


def _digit(rng: random.Random, smallest: int) -> int:
    return min(rng.randint(smallest, 9) for _ in range(3))


def _sum_steps(numbers: list[int]) -> list[str]:
    """Each step restates its operands, so that the one in which a total went wrong can be told."""
    totals = list(accumulate(numbers))
    rows = zip(totals, numbers[1:], totals[1:], strict=False)
    return [f"{_total(a)}+{str(b)[::-1]}={_total(c)}" for a, b, c in rows]


def _wrong_in_sum(problem: Problem, steps: list[str]) -> int | None:
    true = _sum_steps([int(term[::-1]) for term in problem.prompt.rstrip(":").split("+")])
    return next((i for i in range(max(len(true), len(steps))) if steps[i : i + 1] != true[i : i + 1]), None)


_INNERMOST = re.compile(r"\((\d)([+-])(\d)\)")


def _make_expression(rng: random.Random, operations: int) -> tuple[str, str, str]:
    text = _tree(rng, operations)
    steps, current = [], text
    while match := _INNERMOST.search(current):
        current = _reduced(current, match)
        steps.append(current)
    return f"{text}:", ";".join(steps), current


def _tree(rng: random.Random, operations: int) -> str:
    if not operations:
        return str(rng.randrange(10))
    left = rng.randrange(operations)
    return f"({_tree(rng, left)}{rng.choice('+-')}{_tree(rng, operations - 1 - left)})"


def _reduced(text: str, match: re.Match[str]) -> str:
    a, b = int(match[1]), int(match[3])
    value = (a + b if match[2] == "+" else a - b) % 10
    return f"{text[: match.start()]}{value}{text[match.end() :]}"


def _wrong_in_expression(problem: Problem, steps: list[str]) -> int | None:
    """Each step must be the one before with exactly one bracket, any of the innermost, worked out."""
    current = problem.prompt.rstrip(":")
    for i, step in enumerate(steps):
        if step not in {_reduced(current, match) for match in _INNERMOST.finditer(current)}:
            return i
        current = step
    return len(steps) if _INNERMOST.search(current) else None


FAMILIES = {
    "sums": _Family(2, _make_sum, _wrong_in_sum),
    "reduce": _Family(1, _make_expression, _wrong_in_expression),
}


def _made(family: str, difficulty: int, key: str) -> Iterable[Problem]:
    rng, made = random.Random(key), FAMILIES[family]
    if difficulty < made.easiest:
        raise WorkbenchError(f"A difficulty of {difficulty} makes no {family} problem: start at {made.easiest}.")
    while True:
        prompt, trace, answer = made.make(rng, difficulty)
        yield Problem(family, difficulty, prompt, answer, trace)


def _gym(name: str, difficulty: int, key: str) -> Iterable[Problem]:
    if name not in GYM:
        raise unknown("reasoning-gym generator", name, GYM)
    try:
        import reasoning_gym
    except ImportError:
        raise WorkbenchError("gym: problems need reasoning-gym: pip install -e '.[reasoning]'.") from None
    smallest, largest = GYM[name]
    seed = random.Random(key).randrange(2**31)
    # 101,000 is more than `problems` looks at for a thousand; an item is made when it is asked for.
    data = reasoning_gym.create_dataset(name, size=101_000, seed=seed, **{smallest: difficulty, largest: difficulty})
    for entry in data:
        kept = json.dumps(entry, default=str)
        yield Problem(f"gym:{name}", difficulty, entry["question"], str(entry["answer"]), entry=kept)


def _gym_score(problem: Problem, answer: str) -> float:
    import reasoning_gym

    name = problem.family.partition(":")[2]
    return reasoning_gym.get_score_answer_fn(name)(answer, json.loads(problem.entry))


def _hub(name: str, difficulty: int, key: str) -> Iterable[Problem]:
    """Rows with ``question`` and ``answer`` ("steps #### answer"); the difficulty is the number of steps."""
    from datasets import load_dataset

    config = "main" if name.endswith("gsm8k") else None
    try:
        rows = load_dataset(name, config, split="train").shuffle(seed=random.Random(key).randrange(2**31))
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise WorkbenchError(f"Can't load {name!r} ({reason}): check the name and the network.") from None
    for row in rows:
        steps, _, answer = row["answer"].rpartition("####")
        trace = steps.strip()
        if len(trace.splitlines()) == difficulty:
            yield Problem(f"hub:{name}", difficulty, row["question"], answer.strip().replace(",", ""), f"{trace}\n###")


def _number(text: str) -> float | str:
    """The number in an answer, "$1,200." as 1200.0; the text itself if there is none or more than one."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return float(found[0].replace(",", "")) if len(found) == 1 else text.strip()


SOURCES = {**dict.fromkeys(FAMILIES, _made), "gym": _gym, "hub": _hub}  # of problems, without end or until all are seen
