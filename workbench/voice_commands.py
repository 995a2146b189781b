"""The embedded task: spoken commands sampled from Home Assistant's English grammar (Apache-2.0).

The grammar ships as a package (`home-assistant-intents`), so the task needs no download of its own. A *template*
is one rule of the grammar, such as ``turn on [the] {area} lights``; sentences of one template are near copies, so
templates, not sentences, are what the splits keep apart and what intervals count.

Each template draws from a stream of its own, so that a new one moves no other. `sample` makes it all; `workbench.tasks`
turns it into a `Task`.
"""

import math
import random
import re
from collections import defaultdict
from collections.abc import Iterator

from hassil.expression import Alternative, Expression, ListReference, Permutation, RuleReference, Sequence, TextChunk
from hassil.parse_expression import parse_sentence
from home_assistant_intents import get_intents

from workbench.splits import places

SEED = 20261124
MIN_TEMPLATES = 8  # an intent with fewer rules can't fill four disjoint splits: it becomes out-of-scope data
TRIES = 60
SENTENCES_PER_TEMPLATE = {"train": 10, "validation": 4, "calibration": 4, "test": 4}
SHARES = {"test": 0.3, "validation": 0.125, "calibration": 0.125}  # of an intent's templates; the rest trains
SOURCE = "home-assistant-intents==2026.10.27, sampled with hassil==3.12.1"
LICENCE = "Apache-2.0"

# The grammar leaves areas, names and free text to the household; these stand in for one.
SLOTS = {
    "area": "kitchen,living room,bedroom,bathroom,garage,office,hallway,garden,attic,basement,nursery,study,"
    "dining room,guest room,laundry room,porch",
    "floor": "ground floor,first floor,second floor,upstairs,downstairs,top floor",
    "name": "ceiling fan,coffee maker,desk lamp,tv,front door,garage door,thermostat,heater,speaker,robot,"
    "bedside lamp,humidifier,radio,christmas tree,washing machine,air purifier,back gate,projector,kettle,mower",
    "message": "dinner is ready,time for school,the taxi is here,please come down",
    "search_query": "abbey road,jazz classics,the daily news,bohemian rhapsody,blade runner,miles davis,road trip",
    "zone": "work,school,the gym,home,the office",
    "timer_name": "pizza,egg,laundry,tea,bread,homework,workout,pasta",
    "timer_command": "turn off the lights,open the garage door,start the vacuum,lock the front door",
    "shopping_list_item": "milk,eggs,bread,apples,coffee,toilet paper",
    "todo_list_item": "call the bank,water the plants,pay rent,book a flight,clean the oven",
}


def spoken_name(intent: str) -> str:
    """``HassClimateSetFanMode`` -> ``climate set fan mode``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", intent.removeprefix("Hass")).lower()


def _speak(node: Expression, rng: random.Random, rules: dict, lists: dict) -> str:
    """One random sentence of a hassil expression."""

    def say(child: Expression) -> str:
        return _speak(child, rng, rules, lists)

    match node:
        case TextChunk():
            return node.original_text
        case Alternative():
            return say(rng.choice(node.items))
        case Sequence():
            return "".join(say(child) for child in node.items)
        case Permutation():
            return " ".join(say(child) for child in rng.sample(node.items, len(node.items)))
        case RuleReference():
            return say(rules[node.rule_name].expression)
        case ListReference() if node.is_inline_range:
            start, stop, step = node.get_inline_range()
            return str(rng.randrange(start, stop + 1, step))
        case ListReference():
            return lists[node.list_name](rng)
    raise TypeError(f"hassil expression {type(node).__name__} is not one the sampler knows")


def _slot_samplers(raw_lists: dict, rules: dict) -> dict:
    """A function rng -> text for every list of the grammar."""
    def choice(values: list[str]):
        parsed = [parse_sentence(v).expression for v in values]
        return lambda rng: _speak(rng.choice(parsed), rng, rules, samplers)

    def number(spec: dict):
        return lambda rng: str(rng.randrange(spec["from"], spec["to"] + 1, spec.get("step", 1)))

    samplers: dict = {}
    for name, spec in raw_lists.items():
        if "range" in spec:
            samplers[name] = number(spec["range"])
        elif "values" in spec:
            samplers[name] = choice([v if isinstance(v, str) else v["in"] for v in spec["values"]])
    samplers.update({name: choice(text.split(",")) for name, text in SLOTS.items()})
    return samplers


def _templates() -> Iterator[tuple[str, str, list[str]]]:
    """(intent, template, distinct sentences), in the grammar's order."""
    grammar = get_intents("en")
    rules = {name: parse_sentence(text) for name, text in grammar["expansion_rules"].items()}
    lists = _slot_samplers(grammar["lists"], rules)
    for intent, body in grammar["intents"].items():
        texts = dict.fromkeys(text for block in body["data"] for text in block["sentences"])
        for text in texts:
            rng = random.Random(f"{SEED}|{intent}|{text}")  # its own stream: a new template moves no other
            node = parse_sentence(text).expression
            spoken = (" ".join(_speak(node, rng, rules, lists).lower().split()) for _ in range(TRIES))
            yield intent, text, list(dict.fromkeys(s for s in spoken if s))


def sample(fold: int = 0) -> tuple[list[str], dict[str, list[dict]]]:
    """Sample a fold of the task: (label names, split -> rows of text, label, group).

    Splits are ``train``, ``validation``, ``calibration``, ``test`` and ``out_of_scope`` (label -1). No template and no
    sentence stands in two splits; a sentence that two intents could mean is left out.
    """
    by_intent: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    owner: dict[str, str] = {}  # sentence -> the one template that keeps it
    ambiguous: set[str] = set()
    intent_of: dict[str, str] = {}
    for intent, template, sentences in _templates():
        group = f"{intent}: {template}"
        by_intent[intent].append((group, sentences))
        for sentence in sentences:
            if intent_of.setdefault(sentence, intent) != intent:
                ambiguous.add(sentence)
            owner.setdefault(sentence, group)

    names = sorted(i for i, templates in by_intent.items() if len(templates) >= MIN_TEMPLATES)
    rows: dict[str, list[dict]] = {s: [] for s in (*SENTENCES_PER_TEMPLATE, "out_of_scope")}
    for intent, templates in by_intent.items():
        label = names.index(intent) if intent in names else -1
        templates = random.Random(f"{SEED}|{intent}").sample(templates, len(templates))
        counts = {split: math.ceil(share * len(templates)) for split, share in SHARES.items()}
        splits = places(len(templates), counts, fold) if label >= 0 else ["out_of_scope"] * len(templates)
        for (group, sentences), split in zip(templates, splits, strict=True):
            keep = [s for s in sentences if s not in ambiguous and owner[s] == group]
            keep = keep[: SENTENCES_PER_TEMPLATE.get(split, 4)]
            rows[split] += [{"text": s, "label": label, "group": group} for s in keep]
    return [spoken_name(i) for i in names], rows
