"""The same endpoint as a writer: reasoning traces for 07, and transfer texts where there are none.

`Writer` is one as `workbench.language.traces.sample` takes it; texts of `write_texts` go into a task by
`workbench.language.texts.with_texts`.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from workbench.errors import SEED, WorkbenchError, shown, unknown, whole
from workbench.hosted.endpoint import Endpoint, Request
from workbench.hosted.prices import Price
from workbench.store import code_fingerprint, fingerprint
from workbench.tasks import Task

LINES = 10  # texts asked for in one request


class Written(NamedTuple):
    """One text, its reasoning before it if that came apart; its tokens; and whether it came to an end by itself."""

    text: str
    tokens: int
    finished: bool


class Writer:
    """A model behind an API as a writer of traces. What fails or is refused is an empty text that did not finish."""

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        told = [endpoint.asked(Request({})), code_fingerprint("hosted.writer:Writer")]
        self.fingerprint = fingerprint(["endpoint", *told])

    def write(self, questions: Sequence[str], how: Any) -> list[Written]:
        """One text a question, in order; `how` is a `workbench.language.causal.Sampling`.

        Its seed tells draws of one question apart; the model's own draws are its vendor's.
        """
        body = {"max_tokens": how.max_new_tokens, "temperature": how.temperature, "stop": list(how.stop) or None}
        requests = [
            Request({"messages": [{"role": "user", "content": question}], **body}, how.seed + i)
            for i, question in enumerate(questions)
        ]
        replies, written = self.endpoint.ask(requests), []
        for request, reply in zip(requests, replies, strict=True):
            said = self.endpoint.read(request, reply)
            text = f"<think>\n{said.reasoning.strip()}\n</think>\n{said.text}" if said.reasoning else said.text
            written.append(Written(text, reply.tokens_out or 0, said.kind == "answer"))
        return written


def behind(model: str, base_url: str, *, price: Sequence[float] | Price | None = None, **options: Any) -> Writer:
    """A `Writer` by what a notebook's parameters can say: an `Endpoint`'s attributes, the price as two numbers.

    Raises:
        WorkbenchError: no price of two numbers, an option that no `Endpoint` has, or what it refuses.
    """
    if odd := set(options) - {field.name for field in fields(Endpoint)}:
        raise unknown("option of an endpoint", min(odd), [field.name for field in fields(Endpoint)])
    if isinstance(price, Sequence):
        if len(price) != 2:
            raise WorkbenchError(f"price is {shown(price)}: give dollars for a million tokens read, and written.")
        price = Price(*price)
    return Writer(Endpoint(base_url, model, price=price, **options))


def write_texts(
    endpoint: Endpoint, task: Task, *, per_class: int = 50, examples: int = 5, seed: int = 0, max_tokens: int = 600
) -> list[str]:
    """New texts of each class, `per_class` or fewer, from `examples` labelled ones shown in every request.

    Their terms go along with a task that says who wrote them: ``with_texts(task, texts, how)`` with `how` as
    ``"transfer set: written by MODEL at URL"``.

    Raises:
        WorkbenchError: a class without a labelled text.
    """
    per_class, examples = whole("per_class", per_class, 1, 100_000), whole("examples", examples, 1, 1_000)
    rng, requests = random.Random(f"texts {SEED.check('seed', seed)}"), []
    for label, name in enumerate(task.label_names):
        own = [t for t, of in zip(task.labelled["text"], task.labelled["label"], strict=True) if of == label]
        if not own:
            raise WorkbenchError(f"Class {name!r} has no labelled text to show the model: label one.")
        for _ in range(-(-per_class // LINES)):
            drawn = "\n".join(f"- {text}" for text in rng.sample(own, min(examples, len(own))))
            asked = f'Texts of the class "{name}":\n{drawn}\n\nWrite {LINES} more, all different, one a line.'
            body = {"messages": [{"role": "user", "content": asked}], "max_tokens": max_tokens, "temperature": 1}
            requests.append(Request(body, len(requests)))
    texts = []
    for request, reply in zip(requests, endpoint.ask(requests), strict=True):
        said = endpoint.read(request, reply)
        lines = [re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", line).strip() for line in said.text.splitlines()]
        whole_lines = lines if said.kind == "answer" else lines[:-1]  # the last of a cut answer is cut
        texts += [line for line in whole_lines if line]
    return texts
