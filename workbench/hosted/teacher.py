"""A model behind an API as a teacher: one letter a class, and as much of a distribution as the access gives.

From the letters' log-probabilities where there are any; else from repeated answers; else from one, a hard label. A
reply that names no class is counted and never mapped to one. Next to read: `workbench.hosted.pilot`, which finds out
what access there is, and `workbench.soft_labels`, where the labels are kept.
"""

import json
import math
import os
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workbench.answers import FLOOR, SURE, Names
from workbench.errors import Choice, WorkbenchError, shown, unknown, whole
from workbench.hosted.endpoint import Endpoint, Request
from workbench.hosted.pilot import Access, probe
from workbench.hosted.replies import Reply, Said, read
from workbench.soft_labels import SoftLabels, soft_labels
from workbench.store import Store, code_fingerprint, fingerprint
from workbench.tasks import Task
from workbench.teacher import Teacher, in_words

ACCESS = ("logprobs", "repeats", "hard")
LETTERS = string.ascii_uppercase
MOST_CLASSES = len(LETTERS) ** 2
LONGEST = 8  # tokens of an answer by letters


class Labels(NamedTuple):
    """What came of some texts.

    `logits`: log-probabilities ``[N, C]`` float32, NaN where there is no answer; `kinds`: what each reply was, ``[N]``;
    of the answers, `outside`: the mean probability on no class, and `tail`: the mean that no alternative named.
    """

    logits: np.ndarray
    kinds: list[str]
    outside: float
    tail: float


@dataclass(frozen=True, eq=False)
class Hosted(Teacher):
    """An endpoint that answers with classes; `load_teacher` makes one.

    Attributes:
        endpoint: who is asked.
        label_names: the classes.
        codes: letters of an answer -> class.
        turns: what stands before each text: the classes with their letters, then examples with their answers.
        found: the access that the probe found.
        access: the one that is used, of `ACCESS`.
        repeats: requests a text.
        longest: tokens of an answer.
    """

    endpoint: Endpoint
    label_names: tuple[str, ...]
    codes: Mapping[str, int]
    turns: Sequence[Mapping[str, str]]
    found: Access
    access: str
    repeats: int
    longest: int

    licence = "see the terms of the model that answers"
    timed = False

    @property
    def name(self) -> str:
        """The model's."""
        return self.endpoint.model

    @cached_property
    def fingerprint(self) -> str:
        """Of the place, the model as it names itself, everything that is asked, and how answers are read."""
        asked = [self.endpoint.asked(self.requests(["a text"])[0]), self.found.model, self.access, self.repeats]
        return fingerprint([asked, list(self.label_names), code_fingerprint("hosted.teacher:Hosted")])

    def requests(self, texts: Sequence[str], again: int = 0) -> list[Request]:
        """`repeats` requests a text; another number of `again`, other requests."""
        sampling: dict[str, object] = {"max_tokens": self.longest, "temperature": 1 if self.access == "repeats" else 0}
        if self.access == "logprobs":
            sampling |= {"logprobs": True, "top_logprobs": self.found.logprobs}
        bodies = [{"messages": [*self.turns, {"role": "user", "content": text}], **sampling} for text in texts]
        return [Request(body, again * self.repeats + i) for body in bodies for i in range(self.repeats)]

    def read(self, texts: Sequence[str], *, again: bool = False, repeat: int = 0) -> Labels:
        """Ask what isn't answered yet, and read it; `again`: ask also what was no answer."""
        replies = self.endpoint.ask(self.requests(texts, repeat), again=again, model=self.found.model)
        logits, kinds, outside = np.full((len(texts), len(self.label_names)), np.nan, np.float32), [], []
        tails = []
        for i in range(len(texts)):
            shares, odd = [], []
            for reply in replies[i * self.repeats : (i + 1) * self.repeats]:
                kind, share, tail = self._share(reply)
                if kind == "answer":
                    shares.append(share)
                    tails.append(tail)
                else:
                    odd.append(kind)
            kinds.append("answer" if shares else Counter(odd).most_common(1)[0][0])
            if shares:
                share = np.sum(shares, 0)
                if self.access == "repeats":  # Jeffreys' prior: half an answer to each class
                    share = (share + 0.5) / (len(shares) + 0.5 * len(share))
                outside.append(max(1 - share.sum(), 0))
                logits[i] = np.log(np.maximum(share, FLOOR) / np.maximum(share, FLOOR).sum())
        return Labels(logits, kinds, float(np.mean(outside or [0])), float(np.mean(tails or [0])))

    def logits(self, texts: list[str]) -> np.ndarray:
        """Log-probabilities ``[N, C]``.

        Raises:
            WorkbenchError: texts without an answer; `answered` takes them out of a task.
        """
        labels = self.read(texts)
        if odd := Counter(kind for kind in labels.kinds if kind != "answer"):
            first = next(text for text, kind in zip(texts, labels.kinds, strict=True) if kind != "answer")
            raise WorkbenchError(
                f"{self.name} answered {len(texts) - odd.total():,} of {len(texts):,} texts ({in_words(odd)}), not "
                f"{shown(first)}: its answered(task) narrows a task to those that it answers."
            )
        return labels.logits

    def kinds(self, texts: Sequence[str]) -> list[str]:
        """What each reply is, see `Labels`; what isn't answered yet is asked, and what was no answer isn't again."""
        return self.read(texts).kinds

    def repeatability(self, texts: Sequence[str], rows: int = 20) -> dict[str, float]:
        """The first `rows` texts asked twice: rows answered both times, equal answers, the largest gap in nats."""
        texts = texts[: whole("rows", rows)]
        once, twice = self.read(texts).logits, self.read(texts, repeat=1).logits
        both = ~(np.isnan(once) | np.isnan(twice)).any(1)
        once, twice = once[both], twice[both]
        gap = float(np.abs(once - twice).max()) if both.any() else 0.0
        return {"rows": int(both.sum()), "equal": int((once.argmax(1) == twice.argmax(1)).sum()), "nats": gap}

    def _share(self, reply: Reply) -> tuple[str, np.ndarray, float]:
        """What a reply is ("answer", or what instead), the probability that it gives each class, and the tail."""
        share, said = np.zeros(len(self.label_names)), read(reply, short=self.longest == 1)
        if said.kind != "answer":
            return said.kind, share, 0.0
        if reply.model != self.found.model:
            return "another model", share, 0.0
        index = self._class(said.text)
        if index is None:
            return "out of list", share, 0.0
        if self.access == "logprobs":
            try:
                return "answer", *self._distribution(said)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError):
                return "no log-probabilities", share, 0.0
        share[index] = 1.0
        if self.access == "hard":
            share += (1 - SURE) / (len(share) - 1)
            share[index] = SURE
        return "answer", share, 0.0

    def _class(self, text: str) -> int | None:
        """By its letters or its name."""
        told = text.strip().rstrip(".").strip()
        return self.codes.get(told.replace("-", ""), self._names.find(told))

    @cached_property
    def _names(self) -> Names:
        return Names(self.label_names)

    def _distribution(self, said: Said) -> tuple[np.ndarray, float]:
        """Of the letters' log-probabilities; past 26 classes the second letter's are known of one group only.

        And the tail: what the alternatives leave over, which is spread over the classes that none of them is.
        """
        spots = [token for token in said.tokens if _letters(token["token"])]
        share, group = np.zeros(len(self.label_names)), _letters(spots[0]["token"])
        first = _alternatives(spots[0])
        for code, p in first.items():
            inside = np.array([index for known, index in self.codes.items() if known.startswith(code)], dtype=int)
            if not len(inside):
                continue
            within = np.full(len(inside), 1 / len(inside))
            if code == group and len(inside) > 1:
                seen = _alternatives(spots[1])
                keys = [known[len(code) :] for known in self.codes if known.startswith(code)]
                within = _spread(np.array([seen.get(key, 0.0) for key in keys]), seen)
                within /= within.sum()
            share[inside] += p * within
        if not share.any():
            raise ValueError("no class among them")
        return _spread(share, first), max(1 - sum(first.values()), 0.0)


def _spread(share: np.ndarray, seen: Mapping[str, float]) -> np.ndarray:
    """What the alternatives leave over, spread over the classes that none of them is: each less than the least seen."""
    rest = share == 0
    left = max(1 - sum(seen.values()), 0.0)
    return np.where(rest, min(left / max(rest.sum(), 1), min(seen.values())), share)


def _letters(token: str) -> str:
    told = token.strip(" -\n")
    return told.replace("-", "") if told and set(told) <= {*LETTERS, "-"} else ""


def _alternatives(token: dict) -> dict[str, float]:
    """Letters, or the token itself -> probability, of one place in an answer."""
    told = {entry["token"]: entry["logprob"] for entry in [token, *token["top_logprobs"]]}
    if not all(math.isfinite(value) and value <= 1e-3 for value in told.values()) or len(told) < 2:
        raise ValueError("no log-probabilities")
    shares: Counter = Counter()
    for entry, value in told.items():
        shares[_letters(entry) or f"other {entry}"] += math.exp(value)
    return shares


def load_teacher(
    endpoint: Endpoint,
    task: Task,
    *,
    access: str | None = None,
    repeats: int = 5,
    longest: int | None = None,
    descriptions: Mapping[str, str] | None = None,
    examples: int = 0,
) -> Hosted:
    """A teacher that asks `endpoint` for the class of each text.

    Args:
        endpoint: it is probed first.
        task: whose classes are the answers; of its rows only the labelled ones are shown, and only as `examples`.
        access: "logprobs", "repeats" or "hard"; None takes log-probabilities where there are any, else "hard".
        repeats: answers a text at temperature 1, for "repeats"; their cost multiplies.
        longest: tokens of an answer; a model that reasons first needs many.
        descriptions: class -> what belongs to it.
        examples: labelled texts of each class shown with their answers.

    Raises:
        WorkbenchError: an access that isn't there, more than 676 classes, a description of no class.
    """
    found, names = probe(endpoint), task.label_names
    if access is not None and Choice(ACCESS).check("access", access) == "logprobs" and not found.logprobs:
        why = "ignores" if "logprobs" in found.ignored else "refuses"
        raise WorkbenchError(f"{endpoint.model} {why} log-probabilities: choose access='repeats' or 'hard'.")
    access = access or ("logprobs" if found.logprobs else "hard")
    if odd := set(descriptions or {}) - set(names):
        raise unknown("class in descriptions", min(odd), names)
    codes = _codes(task)
    if longest is None:
        longest = 1 if access == "logprobs" and len(names) <= len(LETTERS) else LONGEST
    turns = _turns(task, codes, descriptions or {}, whole("examples", examples, 0))
    repeats, longest = whole("repeats", repeats, 1, 1_000), whole("longest", longest, 1, 1_000_000)
    return Hosted(endpoint, names, codes, turns, found, access, repeats if access == "repeats" else 1, longest)


def hard_request(task: Task, teacher: Teacher | None = None) -> tuple[dict, dict[str, str]]:
    """What asks any endpoint for the class of a text, as it asks `teacher` if that is hosted.

    Returns:
        The body as the API takes it, less the model and the text, which goes last; letters of an answer -> class.

    Raises:
        WorkbenchError: more than `MOST_CLASSES` classes.
    """
    if isinstance(teacher, Hosted):
        codes = teacher.codes
        body = teacher.endpoint.body(replace(teacher, access="hard", repeats=1).requests([""])[0])
        body["messages"] = body["messages"][:-1]
    else:
        codes = _codes(task)
        body = {"messages": _turns(task, codes, {}, 0), "max_tokens": LONGEST, "temperature": 0}
    return body, {code: task.label_names[i] for code, i in codes.items()}


def _codes(task: Task) -> dict[str, int]:
    """A letter a class; past 26 two, those of a group sharing the first."""
    count = len(task.label_names)
    if count <= len(LETTERS):
        return {LETTERS[i]: i for i in range(count)}
    if count > MOST_CLASSES:
        raise WorkbenchError(f"{task.name} has {count} classes: two letters name at most {MOST_CLASSES}.")
    size = math.ceil(math.sqrt(count))
    return {LETTERS[i // size] + LETTERS[i % size]: i for i in range(count)}


def _turns(task: Task, codes: Mapping[str, int], descriptions: Mapping[str, str], examples: int) -> list[dict]:
    """The classes with their letters, and the first `examples` labelled texts of each with their answers."""
    spelt = ["-".join(code) for code in codes]
    about = {name: f" ({told})" for name, told in descriptions.items()}
    lines = [f"{code}: {name}{about.get(name, '')}" for code, name in zip(spelt, task.label_names, strict=True)]
    what = "letter" if len(spelt) <= len(LETTERS) else f"code (such as {spelt[1]})"
    system = [f"Answer with the {what} of the text's class and nothing else.", "", *lines]
    turns, seen = [{"role": "system", "content": "\n".join(system)}], Counter()
    for text, index in zip(task.labelled["text"], task.labelled["label"], strict=True):
        seen[index] += 1
        if seen[index] <= examples:
            turns += [{"role": "user", "content": text}, {"role": "assistant", "content": spelt[index]}]
    return turns


def from_name(name: str, task: Task) -> Hosted:
    """The teacher of ``hosted:<base URL>#<model>``, which may cost what ``WORKBENCH_CAP`` says, in dollars."""
    base_url, mark, model = name.removeprefix("hosted:").rpartition("#")
    if not mark:
        raise WorkbenchError(f"The teacher {shown(name)} names no endpoint: write hosted:<base URL>#<model>.")
    cap = os.environ.get("WORKBENCH_CAP")
    try:
        return load_teacher(Endpoint(base_url, model, cap=float(cap) if cap else None), task)
    except ValueError as error:
        if isinstance(error, WorkbenchError):
            raise
        raise WorkbenchError(f"WORKBENCH_CAP is {shown(cap)}: give dollars, or unset it.") from None


def label(
    teacher: Hosted, task: Task, *, store: Store | None = None, again: bool = False
) -> tuple[Task, SoftLabels, dict[str, object]]:
    """Label the transfer set: (the task without the rows that have no answer, its labels, what is known of them).

    What is known is stored beside them, of kind ``hosted_labels``: the access that the probe found and the one that
    was used, repeatability, how many replies of each kind, the mean probability outside the classes, dollars and price.

    Raises:
        WorkbenchError: no text is answered.
    """
    texts = task.transfer_texts
    read_ = teacher.read(texts, again=again)
    kinds = Counter(read_.kinds)
    if not kinds["answer"]:
        odd = in_words(kinds)
        raise WorkbenchError(f"{teacher.name} answers none of {len(texts):,} texts ({odd}): see its replies.")
    known = {
        "access": teacher.access, **{f"probe {name}": value for name, value in asdict(teacher.found).items()},
        "repeatability": teacher.repeatability(texts), "rows": dict(kinds),
        "outside": read_.outside, "tail": read_.tail,
        "dollars": teacher.endpoint.charged(), "price": str(teacher.endpoint.known_price),
        "retires": teacher.endpoint.known_price.retires,
    }  # fmt: skip
    task, _ = teacher.narrowed(task, ["labelled", "unlabelled"])  # `known` counts what is left out
    labels = soft_labels(teacher, task, store=store)

    def build(folder: Path) -> dict:
        (folder / "record.json").write_text(json.dumps(known, indent=1), encoding="utf-8")
        return known

    inputs = {"teacher": teacher.fingerprint, "task": task.fingerprint, "known": json.dumps(known, sort_keys=True)}
    (store or Store()).make("hosted_labels", inputs, build)
    return task, labels, known
