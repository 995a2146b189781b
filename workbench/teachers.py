"""Teachers: from a bag of words to a language model, each a `workbench.teacher.Teacher`.

`load_teacher` knows four by name and chooses among three (``"auto"``), takes any sequence classifier by hub name or
path, fine-tunes any encoder, reads what a model elsewhere has answered (`answers`), and takes a teacher of your own.
An `Ensemble` makes one of several.
"""

import runpy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from workbench import reading, students, weights
from workbench.answers import Answers, Names
from workbench.errors import MANY, TEMPERATURE, WorkbenchError, reason, sequence, unknown
from workbench.soft_labels import SoftLabels
from workbench.store import Store, code_fingerprint, fingerprint
from workbench.tasks import Task
from workbench.teacher import ANSWER, Teacher, as_teacher, authors
from workbench.training import Epochs, Job, Run, TrainConfig, choose_device, find_run, train
from workbench.verdicts import Results, arm_estimates

MINILM = "all-MiniLM-L6-v2"
# The rate is ten times the usual one for BERT: there are a hundred steps, not thousands. It is looked at once, at its
# end, and that changes nothing: no other label is read than those it is trained on.
FINETUNE = TrainConfig(
    student="minilm", kd_weight=0.0, ce_weight=1.0, steps=100, batch_size=8, learning_rate=5e-4, eval_every=MANY
)
FINETUNE_STEPS = Epochs(8, FINETUNE.steps, 1500)  # over the labelled rows
# Of any other encoder, by hub name or path: the usual rate, and steps enough for few labels of many classes.
FINETUNE_ANY = replace(FINETUNE, steps=500, batch_size=16, learning_rate=5e-5)


class BagOfWords(Teacher):
    """TF-IDF of words and word pairs, then logistic regression: the rival every neural claim must beat.

    Given soft labels it is a student: taught what the teacher says of the whole transfer set, it is the cheapest there
    is, and what a sceptic tries before any transformer.
    """

    licence = "no weights"

    def __init__(
        self,
        task: Task,
        inverse_regularisation: float = 10.0,
        *,
        labels: SoftLabels | None = None,
        temperature: float = 1.0,
    ):
        """Fit on the labelled rows, or by soft labels at a temperature (seconds, so it is never stored)."""
        self.label_names = task.label_names
        self.vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        code, start = code_fingerprint("teachers:BagOfWords"), "bag of words"
        if labels is None:
            self.name = start
            features = self.vectoriser.fit_transform(task.labelled["text"])
            self.head = _fit_head(features, task, self.name, inverse_regularisation)
            self.fingerprint = _head_fingerprint(code, start, task, inverse_regularisation)
        else:
            self.name = "distilled bag of words"
            temperature = TEMPERATURE.check("temperature", temperature)
            targets = softmax(labels.logits(task.transfer_texts) / temperature, axis=1)
            features = self.vectoriser.fit_transform(task.transfer_texts)
            self.head = _fit_soft(features, targets, inverse_regularisation)
            taught = [labels.fingerprint, task.transfer_texts, temperature, inverse_regularisation]
            self.fingerprint = fingerprint([start, *taught, sklearn.__version__, code])

    def logits(self, texts: list[str]) -> np.ndarray:
        """``[N, C]``."""
        return self.head.logits(self.vectoriser.transform(texts))

    def describe(self, texts: list[str]) -> dict[str, int]:
        """Weights of the linear head; FLOPs of a text of median length."""
        size = self.head.weights.size + self.head.bias.size
        words = int(np.median([row.nnz for row in self.vectoriser.transform(texts)]))
        return {"parameters": size, "bytes": 8 * size, "flops": 2 * words * len(self.label_names)}


class FrozenProbe(Teacher):
    """Sentence embeddings of a frozen all-MiniLM-L6-v2, then logistic regression."""

    name = "frozen MiniLM"
    licence = weights.WEIGHTS[MINILM].licence

    def __init__(self, task: Task, inverse_regularisation: float = 10.0):
        """Embed the labelled rows and fit the head."""
        self.label_names = task.label_names
        self.model, self.tokenizer = _minilm_encoder()
        embedded = reading.embed(self.model, self.tokenizer, list(task.labelled["text"]))
        self.head = _fit_head(embedded, task, self.name, inverse_regularisation)
        self.fingerprint = _head_fingerprint(
            code_fingerprint("teachers:FrozenProbe"), weights.WEIGHTS[MINILM].sha256, task, inverse_regularisation
        )

    def logits(self, texts: list[str]) -> np.ndarray:
        """``[N, C]``."""
        return self.head.logits(reading.embed(self.model, self.tokenizer, texts))

    def describe(self, texts: list[str]) -> dict[str, int]:
        """Of the encoder and the head."""
        return reading.describe(self.model, self.tokenizer, texts)


class Classifier(Teacher):
    """A transformers sequence classifier, from a path or a hub name."""

    def __init__(self, name: str, source: str | Path, task: Task, licence: str = "see its model card"):
        """Load it and put its classes in the task's order."""
        self.name, self.licence, self.label_names = name, licence, task.label_names
        self.model, self.tokenizer = students.load(source)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(device)
        self.columns = _match_classes(name, self.model.config.id2label, task.label_names)
        where = Path(source)
        start = students.folder_fingerprint(where) if where.is_dir() else students.source_fingerprint(str(source))
        reads = [self.tokenizer.model_max_length, str(self.model.dtype), self.columns]
        self.fingerprint = fingerprint([start, *reads, code_fingerprint("teachers:Classifier")])

    def logits(self, texts: list[str]) -> np.ndarray:
        """``[N, C]``."""
        return reading.predict(self.model, self.tokenizer, texts)[:, self.columns]

    def describe(self, texts: list[str]) -> dict[str, int]:
        """Parameters, bytes, FLOPs of a text of median length."""
        return reading.describe(self.model, self.tokenizer, texts)


class Ensemble(Teacher):
    """Several teachers as one: the mean of their probabilities (arXiv:1503.02531), under the terms of each."""

    def __init__(self, teachers: Sequence[Teacher], name: str = ""):
        """`teachers`: one or more of the same classes; `name`: by default how many they are.

        Raises:
            WorkbenchError: none, or teachers of other classes than the first.
        """
        self.teachers = [as_teacher(one) for one in sequence("teachers", teachers, "teachers")]
        if not self.teachers:
            raise WorkbenchError("An ensemble has no teachers: give at least one.")
        self.label_names = tuple(self.teachers[0].label_names)
        for one in self.teachers:
            if tuple(one.label_names) != self.label_names:
                told = f"{one.name} has other classes than {self.teachers[0].name}"
                raise WorkbenchError(f"{told}: an ensemble takes teachers of one task.")
        self.name = name or f"{len(self.teachers)} teachers"
        self.licence = "; ".join(dict.fromkeys(one.licence for one in self.teachers))
        self.timed = all(one.timed for one in self.teachers)
        self.authors = list(dict.fromkeys(author for one in self.teachers for author in authors(one)))
        members = sorted(one.fingerprint for one in self.teachers)
        self.fingerprint = fingerprint([members, code_fingerprint("teachers:Ensemble")])

    def logits(self, texts: list[str]) -> np.ndarray:
        """``[N, C]`` logs of the mean probabilities."""
        log_p = [log_softmax(np.asarray(one.logits(texts), float), axis=1) for one in self.teachers]
        return (logsumexp(log_p, axis=0) - np.log(len(log_p))).astype(np.float32)

    def describe(self, texts: list[str]) -> dict[str, float]:
        """Sums over the teachers."""
        return dict(pd.DataFrame([one.describe(texts) for one in self.teachers]).sum(skipna=False))

    def kinds(self, texts: Sequence[str]) -> list[str]:
        """An answer takes one of each; else what the first has instead."""
        of = zip(*(one.kinds(texts) for one in self.teachers), strict=True)
        return [next((kind for kind in kinds if kind != ANSWER), ANSWER) for kinds in of]


TEACHERS = {
    "auto": "the best of the next three by cross-validation on the labelled rows",
    "bag-of-words": "TF-IDF and logistic regression on the labelled rows",
    "minilm-frozen": "frozen all-MiniLM-L6-v2 embeddings and logistic regression on the labelled rows",
    "minilm-finetuned": "all-MiniLM-L6-v2 fine-tuned on the labelled rows",
    "smollm2-zero-shot": "SmolLM2-135M-Instruct choosing among the class names, without labels",
    "finetune:<model>": "an encoder, by hub name or path, fine-tuned on the labelled rows",
    "hosted:<URL>#<model>": "a model behind an OpenAI-compatible API; $WORKBENCH_CAP is the most it may cost",
    "answers:<file>": "what any model has answered already: a CSV or JSONL of texts and answers",
    "python:<file>": "your own: a Python file whose teacher(task) gives one",
}
CANDIDATES = ("bag-of-words", "minilm-frozen", "minilm-finetuned")  # the cheaper first
FOLDS, JUDGED_ROWS = 3, 2000
# What cross-validation may fine-tune on, in tokens: about two minutes of one core. A step costs its tokens and, for the
# update of all weights, as much as some more.
WORK, A_STEP = 150_000, 300


def load_teacher(name: str | Teacher, task: Task, *, store: Store | None = None) -> Teacher:
    """A teacher for `task`, by a name in `TEACHERS`, or a classifier's path or hub name.

    ``"auto"`` is the best of `candidates`, the cheapest of those that are equally good.

    A model without the task's classes needs training first: ``"finetune:answerdotai/ModernBERT-base"`` is that encoder
    with a new head, fine-tuned on the labelled rows as `FINETUNE_ANY` says. The run is stored and found again.

    A file of yours (``"python:mine.py"``) is run, with all the rights you have.

    Raises:
        WorkbenchError: no such teacher, or classes that are not the task's.
    """
    if not isinstance(name, str):
        return as_teacher(name)
    if name == "auto":
        name = best(candidates(task, store=store))
    if weights.named(name).startswith("finetune:"):
        source = name.removeprefix("finetune:")
        return _finetuned(task, replace(FINETUNE_ANY, student=source), f"fine-tuned {Path(source).name}", store)
    if name.startswith("answers:"):
        return Answers(Path(name.removeprefix("answers:")), task)
    if name.startswith("python:"):
        return _own(Path(name.removeprefix("python:")), task)
    if name.startswith("hosted:"):
        return import_module("workbench.hosted.teacher").from_name(name, task)
    if name in CANDIDATES:
        return _fast(name, task, store)
    if name == "smollm2-zero-shot":
        return import_module("workbench.language.zero_shot").teacher(task)
    if "/" not in name and not Path(name).exists():
        raise unknown("teacher", name, TEACHERS)
    return Classifier(name, name, task)


def _fast(name: str, task: Task, store: Store | None) -> Teacher:
    """One of `CANDIDATES`; apart from all others, so that their code is no part of what cross-validation found."""
    match name:
        case "bag-of-words":
            return BagOfWords(task)
        case "minilm-frozen":
            return FrozenProbe(task)
    return _finetuned(task, FINETUNE, "fine-tuned MiniLM", store)


def candidates(task: Task, *, store: Store | None = None) -> pd.DataFrame:
    """How good the fast teachers are by cross-validation on the labelled rows; no other label is read.

    Rows of a group are held out together, every fold's training rows have every class, and a class with one labelled
    group is therefore trained on and never judged. Beyond `JUDGED_ROWS` rows, the first of each class are used. As many
    of the three folds are judged as fine-tuning is done with in `WORK`; where one takes more, fine-tuning is left out.
    What was found is stored: the second call reads it.

    Returns:
        One row a teacher of `CANDIDATES`, the cheaper first: teacher, accuracy (class-balanced), low, high (its 95 %
        interval), seconds (of all fits); NaN where it was not tried or no class has two groups.

    Raises:
        WorkbenchError: a class without a labelled row.
    """
    labelled = task.labelled.to_pandas()
    rank = labelled.groupby("label").cumcount()
    rows = np.sort(np.lexsort((labelled["label"], rank))[:JUDGED_ROWS])
    task = replace(task, labelled=task.labelled.select(rows), unlabelled=task.unlabelled.select([]))
    fold_of = _folds(task.labelled["label"][:], task.labelled["group"][:])
    fits = _affordable(task)
    judged = np.flatnonzero((fold_of >= 0) & (fold_of < (fits or FOLDS)))
    found, tried = pd.DataFrame(columns=["estimate", "low", "high"], dtype=float), {}
    if len(judged):
        names = CANDIDATES if fits else CANDIDATES[:-1]
        tried = {name: _held_out(name, task, fold_of, judged, store or Store()) for name in names}
        truth = (np.array(task.labelled[column][:])[judged] for column in ("label", "group"))
        found = arm_estimates(Results({name: r["correct"] for name, r in tried.items()}, *truth)).set_index("arm")
    table = found[["estimate", "low", "high"]].reindex(list(CANDIDATES)).rename(columns={"estimate": "accuracy"})
    table["seconds"] = pd.Series({name: r["seconds"] for name, r in tried.items()}, dtype=float)
    return table.rename_axis("teacher").reset_index()


def best(scores: pd.DataFrame) -> str:
    """The name that ``"auto"`` means, from `candidates`; where nothing could be judged, the frozen probe."""
    if scores["accuracy"].isna().all():
        return "minilm-frozen"
    return scores["teacher"][scores["accuracy"].idxmax()]  # the first of equals: the cheapest


def _folds(labels: list[int], groups: list[Any]) -> np.ndarray:
    """Which fold holds out each row, ``[N]``; -1 for rows of a class that would then have none left."""
    rows = pd.DataFrame({"label": labels, "group": groups})
    first = rows.drop_duplicates("group")
    fold = pd.Series(((first.groupby("label").cumcount() + first["label"]) % FOLDS).to_numpy(), first["group"])
    rows["fold"] = rows["group"].map(fold)
    alone = rows.groupby("label")["fold"].transform("nunique") < 2
    return rows["fold"].mask(alone, -1).to_numpy()


def _affordable(task: Task) -> int:
    """On how many of the folds fine-tuning may be tried."""
    tokens = sum(min(len(text) / 4, FINETUNE.max_length) for text in task.labelled["text"])
    rows = len(task.labelled)
    config = finetune(replace(task, labelled=task.labelled.select(range(rows * (FOLDS - 1) // FOLDS))))
    return min(FOLDS, int(WORK / (config.steps * (config.batch_size * tokens / max(rows, 1) + A_STEP))))


def _held_out(name: str, task: Task, fold_of: np.ndarray, judged: np.ndarray, store: Store) -> dict[str, Any]:
    """Whether a teacher is right on each judged row when it is trained without the row's fold; seconds."""
    columns = [task.labelled[column][:] for column in ("text", "label", "group")]

    def build(folder: Path) -> dict[str, Any]:
        began, right = time.monotonic(), np.zeros(len(fold_of), bool)
        for fold in np.unique(fold_of[judged]):
            held = np.flatnonzero(fold_of == fold)
            asked = task.labelled.select(held)
            # Only these are looked at: the splits of the task have labels that are not to be read.
            part = replace(task, labelled=task.labelled.select(np.flatnonzero(fold_of != fold)))
            part = replace(part, validation=asked, calibration=asked, test=asked)
            with tempfile.TemporaryDirectory() as place:  # a fine-tuned model of a fold is 90 MB that nobody wants
                logits = _fast(name, part, Store(place)).logits(asked["text"][:])
            right[held] = logits.argmax(-1) == np.array(asked["label"])
        return {"correct": right[judged].tolist(), "seconds": round(time.monotonic() - began, 2)}

    inputs = {
        "teacher": name,
        "rows": fingerprint([columns, list(task.label_names), fold_of.tolist(), judged.tolist()]),
        "code": code_fingerprint("teachers:_held_out", "training:train", "training:ClassifierLesson"),
        "device": choose_device()[0].type,
        "sklearn": sklearn.__version__,
    }
    return store.make("teacher_scores", inputs, build).record


def _own(path: Path, task: Task) -> Teacher:
    try:
        make = runpy.run_path(str(path))["teacher"]
    except OSError as error:
        raise WorkbenchError(f"Can't read {path} ({reason(error)}): check the path after 'python:'.") from None
    except KeyError:
        raise WorkbenchError(f"{path} defines no teacher: write a function teacher(task) that gives one.") from None
    return as_teacher(make(task))


def finetune(task: Task, config: TrainConfig | None = None) -> TrainConfig:
    """What a fine-tuned teacher of `task` is trained with: `FINETUNE_STEPS` of the labelled rows.

    Never fewer steps than the config has (`FINETUNE` if None). A hundred are eight epochs of 95 rows, but three of 265
    rows of 53 classes, where they reach 38 % and eight epochs 49 % (`tests/benchmarks/steps.py`).
    """
    config = config or FINETUNE
    return replace(config, steps=max(config.steps, FINETUNE_STEPS.steps(len(task.labelled), config.batch_size)))


def from_run(run: Run, task: Task, name: str) -> Classifier:
    """A finished run as a teacher."""
    known = run.config.student.startswith("minilm")
    return Classifier(name, run.path, task, weights.WEIGHTS[MINILM].licence if known else "see its model card")


def _finetuned(task: Task, config: TrainConfig, name: str, store: Store | None) -> Classifier:
    job = Job(task, None, finetune(task, config))
    for _ in train(job, store=store):
        pass
    return from_run(find_run(job, store), task, name)


def _minilm_encoder():
    folder = weights.path(MINILM)
    return weights.load(AutoModel, folder).eval(), weights.load(AutoTokenizer, folder)


@dataclass(frozen=True)
class Linear:
    """A linear head: weights ``[C, F]`` (of two classes only the second's ``[1, F]``) and bias."""

    weights: np.ndarray
    bias: np.ndarray

    def logits(self, features) -> np.ndarray:
        """``[N, C]`` float32."""
        scores = features @ self.weights.T + self.bias
        if scores.shape[1] == 1:  # two classes, of which scikit-learn keeps only the second's log-odds
            scores = np.hstack([np.zeros_like(scores), scores])
        return scores.astype(np.float32)


def _fit_head(features, task: Task, name: str, inverse_regularisation: float) -> Linear:
    head = LogisticRegression(C=inverse_regularisation, max_iter=2000)
    labels = np.array(task.labelled["label"])
    if len(set(labels)) < len(task.label_names):
        raise WorkbenchError(f"The labelled rows lack some of the {len(task.label_names)} classes: {name} needs each.")
    head.fit(features, labels)
    return Linear(head.coef_, head.intercept_)


def _fit_soft(features, targets: np.ndarray, inverse_regularisation: float) -> Linear:
    """`LogisticRegression`'s objective with probabilities ``[N, C]`` for targets, which it doesn't take."""
    rows, classes = targets.shape
    size = features.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: size * classes].reshape(size, classes), flat[size * classes :]
        log_q = log_softmax(features @ weights + bias, axis=1)
        error = inverse_regularisation * (np.exp(log_q) - targets)
        gradient = np.concatenate([(features.T @ error + weights).ravel(), error.sum(0)])
        return -inverse_regularisation * (targets * log_q).sum() + (weights**2).sum() / 2, gradient

    found = minimize(loss, np.zeros((size + 1) * classes), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    return Linear(found[: size * classes].reshape(size, classes).T.copy(), found[size * classes :])


def _head_fingerprint(code: str, start: str, task: Task, inverse_regularisation: float) -> str:
    rows = [list(task.labelled["text"]), list(task.labelled["label"])]
    return fingerprint([start, rows, list(task.label_names), inverse_regularisation, sklearn.__version__, code])


def _match_classes(name: str, id2label: dict[int, str], label_names: tuple[str, ...]) -> list[int]:
    """The model's column of each class of the task."""
    named = [id2label[i] for i in sorted(id2label)]
    theirs, ours, columns = Names(named), Names(label_names), []
    for i, label in enumerate(label_names):
        alike = theirs.alike(label)
        if len(alike) != 1 or ours.find(named[alike[0]]) != i:  # none, several, or one that is another class's, too
            some = ", ".join(repr(named[j]) for j in alike or range(min(len(named), 8)))
            why = f"has {some} for class {label!r}" if alike else f"has no class {label!r}; it has {some}"
            raise WorkbenchError(
                f"Teacher {name} {why}: rename the task's labels or the model's id2label so that they agree."
            )
        columns += alike
    return columns
