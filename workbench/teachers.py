"""Teachers: from a bag of words to a language model, all with ``logits(texts)`` and ``fingerprint``.

`load_teacher` knows four by name, takes any sequence classifier by hub name or path, fine-tunes any encoder, and reads
what a model elsewhere has answered (`answers`).
"""

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import sklearn
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from workbench import reading, students, weights
from workbench.answers import Answers
from workbench.errors import TEMPERATURE, WorkbenchError, unknown
from workbench.soft_labels import SoftLabels, Teacher
from workbench.store import Store, code_fingerprint, fingerprint
from workbench.tasks import Task
from workbench.training import Job, Run, TrainConfig, find_run, train

MINILM = "all-MiniLM-L6-v2"
# The last step's weights, so that no other label is read than those it is trained on. The rate is ten times the usual
# one for BERT: there are a hundred steps, not thousands.
FINETUNE = TrainConfig(
    student="minilm", kd_weight=0.0, ce_weight=1.0, steps=100, batch_size=8, learning_rate=5e-4, eval_every=50,
    keep="last",
)  # fmt: skip
# Of any other encoder, by hub name or path: the usual rate, and steps enough for few labels of many classes.
FINETUNE_ANY = replace(FINETUNE, steps=500, batch_size=16, learning_rate=5e-5)


class BagOfWords:
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


class FrozenProbe:
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


class Classifier:
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


TEACHERS = {
    "bag-of-words": "TF-IDF and logistic regression on the labelled rows",
    "minilm-frozen": "frozen all-MiniLM-L6-v2 embeddings and logistic regression on the labelled rows",
    "minilm-finetuned": "all-MiniLM-L6-v2 fine-tuned on the labelled rows",
    "smollm2-zero-shot": "SmolLM2-135M-Instruct choosing among the class names, without labels",
    "finetune:<model>": "an encoder, by hub name or path, fine-tuned on the labelled rows",
    "hosted:<URL>#<model>": "a model behind an OpenAI-compatible API; $WORKBENCH_CAP is the most it may cost",
    "answers:<file>": "what any model has answered already: a CSV or JSONL of texts and answers",
}


def load_teacher(name: str, task: Task, *, store: Store | None = None) -> Teacher:
    """A teacher for `task`, by a name in `TEACHERS`, or a classifier's path or hub name.

    A model without the task's classes needs training first: ``"finetune:answerdotai/ModernBERT-base"`` is that encoder
    with a new head, fine-tuned on the labelled rows as `FINETUNE_ANY` says. The run is stored and found again.

    Raises:
        WorkbenchError: no such teacher, or classes that are not the task's.
    """
    if weights.named(name).startswith("finetune:"):
        source = name.removeprefix("finetune:")
        return _finetuned(task, replace(FINETUNE_ANY, student=source), f"fine-tuned {Path(source).name}", store)
    if name.startswith("answers:"):
        return Answers(Path(name.removeprefix("answers:")), task)
    if name.startswith("hosted:"):
        return import_module("workbench.hosted.teacher").from_name(name, task)
    match name:
        case "bag-of-words":
            return BagOfWords(task)
        case "minilm-frozen":
            return FrozenProbe(task)
        case "minilm-finetuned":
            return _finetuned(task, FINETUNE, "fine-tuned MiniLM", store)
        case "smollm2-zero-shot":
            return import_module("workbench.language.zero_shot").teacher(task)
    if "/" not in name and not Path(name).exists():
        raise unknown("teacher", name, TEACHERS)
    return Classifier(name, name, task)


def from_run(run: Run, task: Task, name: str) -> Classifier:
    """A finished run as a teacher."""
    known = run.config.student.startswith("minilm")
    return Classifier(name, run.path, task, weights.WEIGHTS[MINILM].licence if known else "see its model card")


def _finetuned(task: Task, config: TrainConfig, name: str, store: Store | None) -> Classifier:
    job = Job(task, None, config)
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
    theirs = {text.lower(): i for i, text in id2label.items()}
    if all(label.lower() in theirs for label in label_names):
        return [theirs[label.lower()] for label in label_names]
    absent = next(label for label in label_names if label.lower() not in theirs)
    raise WorkbenchError(
        f"Teacher {name} has no class {absent!r}; it has {', '.join(map(repr, list(id2label.values())[:8]))}: rename "
        "the task's labels or the model's id2label so that they agree."
    )

