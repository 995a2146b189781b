"""What the makers' terms say about training a student on what a teacher answers: a reading, no legal advice.

A verdict belongs to a model's revision, a route, a use and a kind of student: the same weights change verdict behind
another door. `data/teachers.yaml` holds what was read, with quotes and days; a model that isn't in it is judged by the
licence field of its weights, and by nothing where there is none. Terms are looked up when they are shown, by the name
that a record holds (`workbench.soft_labels.Author`): no key of anything stored depends on them.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import yaml

from workbench import weights
from workbench.errors import Choice, Switch, Text, WorkbenchError, reason, setting, settle, shown, strings
from workbench.hosted import tables
from workbench.hosted.hosts import how_old
from workbench.teacher import Author, Teacher, as_teacher, authors

FILE = "teachers.yaml"
USES = ("inside", "published")  # by the company that trained it, or passed on
STUDENTS = ("classifier", "language model")
VERDICTS = ("allowed", "allowed if", "ask", "not known", "forbidden")  # of several the last counts
PASSED_ON = "the model's"  # a route's verdict: that of the model that is called
COLUMNS = {
    "internal_classifier": "a classifier that stays inside",
    "published_classifier": "a classifier that is passed on",
    "commercial_llm": "a commercial language model",
}
OBLIGATIONS = ("name_prefix", "notice", "copy_licence", "use_policy", "permission", "condition")
SECOND_HAND = "check the text itself: it was read second hand"
NO_ADVICE = "This is a dated reading of public texts and no legal advice: whoever ships asks counsel of their own."
# Licences of weights that ask nothing of what is trained on outputs, and no weights at all.
FREE = {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "unlicense", "no weights"}
OURS = {"bag-of-words": "no weights"} | {  # by the names of `workbench.teachers.TEACHERS` and of the weights
    name: weights.WEIGHTS[model].licence
    for model, names in {
        "all-MiniLM-L6-v2": ("minilm-frozen", "minilm-finetuned"),
        "SmolLM2-135M-Instruct": ("smollm2", "smollm2-zero-shot"),
    }.items()
    for name in (model, *names)
}


@dataclass(frozen=True)
class Row:
    """What was read of one model revision on one route; the head of ``data/teachers.yaml`` explains the fields."""

    name: str = setting(None, Text())
    teacher: str = setting(None, Text())
    route: str = setting(None, Choice(("api", "app", "weights")))
    how: str = setting(None, Text())
    verdicts: Mapping[str, str] = field(default_factory=dict)
    on_top: bool = setting(False, Switch())
    clause: str = ""
    quotes: Sequence[str] = ()
    licence: str = ""
    url: str = ""
    text_date: str = ""
    seen: str = ""
    retires: str = ""
    obligations: Mapping[str, str] = field(default_factory=dict)
    access: Mapping[str, object] = field(default_factory=dict)
    models: Sequence[str] = ()
    places: Sequence[str] = ()
    licences: Sequence[str] = ()

    def __post_init__(self) -> None:
        settle(self)
        for name in ("verdicts", "obligations", "access"):
            if not isinstance(getattr(self, name), Mapping):
                raise WorkbenchError(f"{name} is {shown(getattr(self, name))}: give a mapping.")
        for name in ("quotes", "models", "places", "licences"):
            strings(name, getattr(self, name))
        strings("obligations", self.obligations.values())
        for name in ("clause", "licence", "url", "text_date", "seen", "retires"):
            if not isinstance(getattr(self, name), str):
                raise WorkbenchError(f"{name} is {shown(getattr(self, name))}: give a text.")
        if set(self.verdicts) != set(COLUMNS) or set(self.verdicts.values()) - {*VERDICTS, PASSED_ON}:
            what = f"{', '.join(COLUMNS)}, each {', '.join(VERDICTS)} or {PASSED_ON}"
            raise WorkbenchError(f"verdicts are {shown(dict(self.verdicts))}: give {what}.")
        if odd := set(self.obligations) - set(OBLIGATIONS):
            raise WorkbenchError(f"the obligation {shown(min(odd))} is unknown: choose from {', '.join(OBLIGATIONS)}.")

    @property
    def second_hand(self) -> bool:
        """Whether nobody here saw the text itself."""
        return self.how.startswith("second hand")


@dataclass(frozen=True)
class Terms:
    """The answer for one teacher, use and kind of student; `str` says it in a sentence.

    Attributes:
        teacher: who was asked about.
        row: what the verdict stands on: the name of a row, a licence, or the teacher's own name where nothing is known.
        verdict: of `VERDICTS`.
        student: what is trained, in words.
        basis: clause, quote or licence, with address, days and how it was read; or why nothing is known.
        obligations: what an "allowed if" asks for, and whose permission lifts a "forbidden", by kind (`OBLIGATIONS`).
        old: why the text should be read again; "" where it need not.
    """

    teacher: str
    row: str
    verdict: str
    student: str
    basis: str
    obligations: Mapping[str, str] = field(default_factory=dict)
    old: str = ""

    @property
    def permitted(self) -> bool:
        """Whether nobody has to be asked first."""
        return self.verdict in VERDICTS[:2]

    def __str__(self) -> str:
        told = f"{self.teacher}, for {self.student}: {self.verdict}"
        if self.obligations:
            joined = "; ".join(f"{kind.replace('_', ' ')}: {what}" for kind, what in self.obligations.items())
            told += f" ({joined})"
        return told + f", by {self.basis}" + f"; read it again ({self.old})" * bool(self.old) + "."


def load_rows() -> list[Row]:
    """All rows, those of the data folder first; of two with one name the first counts.

    Raises:
        WorkbenchError: a file that can't be read, or a row with a field that is none or can't be.
    """
    found: dict[str, Row] = {}
    for path in tables.files(FILE):
        for given in tables.rows(path, "terms", ("name",), "name, teacher, route, how and verdicts"):
            try:
                found.setdefault(given["name"], Row(**given))
            except TypeError as error:
                raise WorkbenchError(f"{path}, {given['name']}: {reason(error)}: use the fields of Row.") from None
            except WorkbenchError as error:
                raise WorkbenchError(f"{path}, {given['name']}: {error}") from None
    return list(found.values())


def terms(
    teacher: Teacher | Author | str, *, use: str, student: str = "classifier", today: date | None = None
) -> Terms:
    """Whether a student may be trained on what a teacher answers: allowed, allowed if, ask, not known, forbidden.

    Args:
        teacher: one of ours, who is in a record, or a name: of a row, of a model on the hub, a folder,
            ``hosted:<URL>#<model>``. Of a teacher of several authors the strictest terms count.
        use: "inside" or "published", sold included.
        student: "classifier" or "language model"; of the latter only commercial use was read, inside or not.
        today: the day from which the age of a reading is counted; 120 days are old.

    Raises:
        WorkbenchError: another use or kind of student, or a table that can't be read.
    """
    Choice(USES).check("use", use), Choice(STUDENTS).check("student", student)
    inside, passed_on, generative = COLUMNS
    column = generative if student == "language model" else inside if use == "inside" else passed_on
    rows = load_rows()
    return _strictest([_look_up(author, rows, column, today) for author in _authors(teacher)])


def overview(today: date | None = None) -> pd.DataFrame:
    """Every row that was read: name (the index), teacher, route, the three verdicts, seen, old."""
    kept = ["name", "teacher", "route", *COLUMNS, "seen", "old"]
    rows = load_rows()
    told = [{**vars(r), **{c: _verdict(r, c) for c in COLUMNS}, "old": how_old(r.seen, today)} for r in rows]
    return pd.DataFrame(told)[kept].set_index("name")


def _strictest(found: Sequence[Terms]) -> Terms:
    return max(found, key=lambda one: VERDICTS.index(one.verdict))


def _authors(teacher: Teacher | Author | str) -> list[Author]:
    if isinstance(teacher, Author):
        return [teacher]
    if isinstance(teacher, str):
        name = Text().check("teacher", teacher).removeprefix("finetune:")
        place, _, model = name.removeprefix("hosted:").rpartition("#") if name.startswith("hosted:") else ("", "", name)
        return [Author(model, place)]
    return authors(as_teacher(teacher))


def _look_up(author: Author, rows: Sequence[Row], column: str, today: date | None) -> Terms:
    """By name, by the API's address, by the model's name, by its licence: the first that is known."""
    about = (author.name, column, today)
    for row in rows:  # a model behind an API may be called as a row is
        if row.name == author.licence or (row.name == author.name and not author.place):
            return _say(row, *about)
    host = urlsplit(author.place).hostname or ""
    at_hand = not host or _own_machine(host)
    doors = [row for row in rows if host and any(fnmatchcase(host, pattern) for pattern in row.places)]
    models = [row for row in rows if any(fnmatchcase(author.name, pattern) for pattern in row.models)]
    if doors and not doors[0].on_top:
        return _say(doors[0], *about)
    if not doors and not at_hand:
        return _unknown(author, column, f"the terms of {host} were not read")
    model = _say(models[0], *about) if models else _by_licence(author, rows, column, today)
    if not doors:
        return model
    door = _say(doors[0], *about)
    first = model if doors[0].verdicts[column] == PASSED_ON else _strictest([model, door])
    owed = first.obligations
    if first.verdict == "allowed if":
        owed = {kind: "; ".join(demands) for kind, demands in obligations([model, door]).items()}
    return replace(first, obligations=owed, old=model.old or door.old)


def _own_machine(host: str) -> bool:
    """Whether weights at hand answer there, so that no vendor stands between."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"


def _verdict(row: Row, column: str) -> str:
    verdict = row.verdicts[column]
    return "allowed if" if verdict == "allowed" and row.second_hand else verdict


def _say(row: Row, name: str, column: str, today: date | None) -> Terms:
    """What one row says, of a route that passes terms on, that nothing is known of the model."""
    verdict = _verdict(row, column)
    if verdict == PASSED_ON:
        return Terms(name, row.name, "not known", COLUMNS[column], f"{row.clause}: it hangs on the model")
    owed = {kind: what for kind, what in row.obligations.items() if kind != "permission"}
    if verdict == "forbidden":
        owed = {"permission": f"of {row.obligations['permission']}"} if "permission" in row.obligations else {}
    elif verdict != "allowed if":
        owed = {}
    elif row.second_hand:
        owed["condition"] = "; ".join(filter(None, [owed.get("condition"), SECOND_HAND]))
    if row.how == "not found":
        return Terms(name, row.name, verdict, COLUMNS[column], f"{row.teacher}: its text was not found")
    said = " and ".join(f"“{quote.rstrip('.')}”" for quote in row.quotes)
    named = ": ".join(filter(None, [row.clause or f"the licence {row.licence}", said]))
    days = [f"text of {row.text_date}" * bool(row.text_date), f"seen {row.seen}" * bool(row.seen)]
    where = ", ".join(filter(None, [row.url, *days, row.how]))
    return Terms(name, row.name, verdict, COLUMNS[column], f"{named} ({where})", owed, how_old(row.seen, today))


def _by_licence(author: Author, rows: Sequence[Row], column: str, today: date | None) -> Terms:
    """By the licence that the weights carry, or their card."""
    licence = author.licence
    if not licence or licence.startswith("see "):
        licence = OURS.get(author.name) or card_licence(author.name)
    known = licence.lower()
    for row in rows:
        if known in row.licences:
            return _say(row, author.name, column, today)
    if not known or known in ("other", "unknown"):
        return _unknown(author, column, "no licence of its weights is known")
    verdict, basis = "ask", f"the licence {licence}, which was not read"
    if known in FREE:
        verdict, basis = "allowed", f"the licence {licence}" if known != "no weights" else "having no weights of others"
    return Terms(author.name, licence, verdict, COLUMNS[column], basis)


def _unknown(author: Author, column: str, why: str) -> Terms:
    return Terms(author.name, author.name, "not known", COLUMNS[column], f"nothing, as {why}")


def card_licence(source: str) -> str:
    """The licence field of a model card, in a folder or in the hub's cache; "" where there is none. Nothing is fetched.

    A licence of another name is given by that name.
    """
    from huggingface_hub import metadata_load, try_to_load_from_cache

    folder = Path(source)
    try:
        card = folder / "README.md" if folder.is_dir() else try_to_load_from_cache(source, "README.md")
        about = metadata_load(card) if isinstance(card, str | Path) and Path(card).is_file() else None
    except (OSError, ValueError, yaml.YAMLError):  # such as a name that can't be one of the hub's
        return ""
    if not isinstance(about, Mapping):
        return ""
    licence = about.get("license")
    return str(about.get("license_name") or "" if licence == "other" else licence or "")


def obligations(found: Iterable[Terms]) -> dict[str, list[str]]:
    """What several terms ask for together: kind -> each demand once."""
    together: dict[str, list[str]] = {}
    for one in found:
        for kind, what in one.obligations.items():
            if what not in together.setdefault(kind, []):
                together[kind].append(what)
    return together
