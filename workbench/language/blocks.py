"""Text for language models: whole topics held out, tokens packed into blocks of one length.

A block never crosses from one topic to the next, so that a topic can be in one split alone: were blocks split instead,
a student would be tested on the other half of what it has read. ``load_text("python-docs", tokenizer)`` is embedded:
the language reference that ships with Python and the docstrings of its standard library.
``load_text("folder:path", tokenizer)`` reads ``.txt`` and ``.md`` files, each a topic. Next to read:
`workbench.language.labels`, what a teacher says of the blocks.
"""

import ast
import hashlib
import json
import os
import platform
import random
import re
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from workbench.errors import MANY, Number, WorkbenchError, check_name, unknown, whole
from workbench.own_data import files_below
from workbench.store import Store, code_fingerprint, fingerprint

SPLITS = ("train", "validation", "test")
HELD_OUT = {"test": 0.15, "validation": 0.1}  # of the topics
ENTRIES = 100_000  # files and folders that a folder of text may hold
COMMON = 40  # characters from which on a paragraph counts as copied, not as a coincidence
TEXTS = ("python-docs", "folder:<path>")


@dataclass(frozen=True)
class TextTask:
    """Blocks of token ids, split by topic.

    No topic is in two splits, and no paragraph either: what a held-out topic says is taken out of the others (Python's
    reference repeats itself). Validation picks checkpoints, test judges, once.

    Attributes:
        train: ``[blocks, length]`` int32, memory-mapped; a block lies within one topic.
        validation: the same.
        test: the same.
        topics: split -> the topic of each block, ``[blocks]``.
        tokenizer: fingerprint of the tokenizer that made the ids.
        given: tokens at the start of a training block that are not to be learnt, at least 1.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    topics: dict[str, np.ndarray]
    tokenizer: str
    source: str
    licence: str
    given: int = 1
    label_draw = 0  # a classification task's; here nothing is drawn
    lessons = "workbench.language.lessons"  # the module that knows how to teach it

    @property
    def length(self) -> int:
        """Tokens in a block; the first is given, the others are predicted."""
        return self.train.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """Depends on every token of every split and on the tokenizer."""
        digests = [hashlib.sha256(getattr(self, s).tobytes()).hexdigest() for s in SPLITS]
        return fingerprint([self.tokenizer, self.given, *digests])


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of everything that turns text into ids: the same for a student cut from its teacher, another for any other."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend else json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load_text(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int = 128,
    max_blocks: int | None = None,
    max_held_out: int | None = None,
    store: Store | None = None,
) -> TextTask:
    """Load text as blocks of tokens.

    Args:
        name: ``"python-docs"`` or ``"folder:<path>"``.
        tokenizer: the teacher's, and so the student's.
        length: tokens in a block, ≥ 2.
        max_blocks: keep this many training blocks, drawn at random; None keeps all.
        max_held_out: the same for validation and for test.
        store: where the blocks are kept.

    Raises:
        WorkbenchError: no such text, too few topics, or a split with less than one block.
    """
    length, limit = whole("length", length, 2, 1_048_576), Number(1, MANY, whole=True, optional=True)
    max_blocks, max_held_out = limit.check("max_blocks", max_blocks), limit.check("max_held_out", max_held_out)
    limits = {"train": max_blocks, "validation": max_held_out, "test": max_held_out}
    if name == "python-docs":
        documents, licence = _python_docs(), "PSF-2.0"
        source = f"pydoc_data.topics and docstrings of the standard library, Python {platform.python_version()}"
    elif isinstance(name, str) and name.startswith("folder:"):
        documents, licence, source = _folder(name.removeprefix("folder:")), "yours", name
    else:
        raise unknown("text", name, TEXTS)
    digest = hashlib.sha256(json.dumps(documents).encode()).hexdigest()
    inputs = {"text": digest, "tokenizer": tokenizer_fingerprint(tokenizer), "length": length}

    def build(folder: Path) -> None:
        split_of = split_topics(documents)
        for split, docs in without_copies(documents, split_of).items():
            packed = {topic: pack(text, tokenizer, length) for topic, text in docs.items()}
            blocks = np.concatenate(list(packed.values()))
            if not len(blocks):
                raise WorkbenchError(
                    f"No {split} topic of {name} has {length} tokens: give more text or set a smaller length."
                )
            np.save(folder / f"{split}.npy", blocks, allow_pickle=False)
            topics = np.repeat(list(packed), [len(b) for b in packed.values()])
            np.save(folder / f"{split}_topics.npy", topics, allow_pickle=False)

    entry = (store or Store()).make("texts", inputs | {"code": code_fingerprint("language.blocks:load_text")}, build)
    blocks = {s: np.load(entry.path / f"{s}.npy", mmap_mode="r", allow_pickle=False) for s in SPLITS}
    topics = {s: np.load(entry.path / f"{s}_topics.npy", allow_pickle=False) for s in SPLITS}
    for split, limit in limits.items():
        if limit is not None and limit < len(blocks[split]):
            chosen = sorted(random.Random("blocks").sample(range(len(blocks[split])), limit))
            blocks[split], topics[split] = blocks[split][chosen], topics[split][chosen]
    about = {"tokenizer": inputs["tokenizer"], "source": f"{source} (sha256 {digest[:12]})", "licence": licence}
    return TextTask(name, **blocks, topics=topics, **about)


def split_topics(documents: dict[str, str]) -> dict[str, str]:
    """Topic -> split, drawn with a fixed seed."""
    topics = sorted(documents)
    if len(topics) < len(SPLITS):
        raise WorkbenchError(f"There are {len(topics)} topics: give at least {len(SPLITS)}, one for each split.")
    random.Random("topics").shuffle(topics)
    held_out = [s for s, share in HELD_OUT.items() for _ in range(max(1, round(share * len(topics))))]
    return {t: held_out[i] if i < len(held_out) else "train" for i, t in enumerate(topics)}


def without_copies(documents: dict[str, str], split_of: dict[str, str]) -> dict[str, dict[str, str]]:
    """Split -> topic -> text. Of each paragraph of `COMMON` characters or more one copy stays, a held-out one first."""
    seen: set[str] = set()
    kept: dict[str, dict[str, str]] = {}
    for split in reversed(SPLITS):
        kept[split] = {}
        for topic in sorted(t for t in documents if split_of[t] == split):
            paragraphs = []
            for paragraph in re.split(r"\n\s*\n", documents[topic]):
                key = " ".join(paragraph.split())
                if key not in seen:
                    paragraphs.append(paragraph)
                if len(key) >= COMMON:
                    seen.add(key)
            kept[split][topic] = "\n\n".join(paragraphs)
    return kept


def pack(text: str, tokenizer: PreTrainedTokenizerBase, length: int) -> np.ndarray:
    """Whole blocks ``[blocks, length]`` int32 of a text's tokens; what is left over at its end is dropped."""
    length = whole("length", length, 1, 1_048_576)
    ids = np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)
    return ids[: len(ids) // length * length].reshape(-1, length)


def _python_docs() -> dict[str, str]:
    from pydoc_data.topics import topics

    documents = {f"topic {name}": text for name, text in topics.items()}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(path.read_bytes())
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
        strings = [text for n in nodes if (text := ast.get_docstring(n))]
        if strings:
            documents[f"module {path.stem}"] = "\n\n".join(strings)
    return documents


def _folder(name: str) -> dict[str, str]:
    check_name("text", name)
    path = Path(name)
    if not name or not os.path.isdir(path):
        raise WorkbenchError(f"'folder:{name}' is not a folder: give one with a .txt or .md file a topic.")
    files = [file for file in files_below(path, (".txt", ".md"), ENTRIES) if file.suffix in (".txt", ".md")]
    if not files:
        raise WorkbenchError(f"{path} holds no .txt or .md files: give a folder with one file a topic.")
    documents = {}
    for file in files:
        try:
            if not file.is_file():
                raise OSError(0, "Not a regular file")  # a pipe or a device may never end
            documents[file.relative_to(path).as_posix()] = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise WorkbenchError(f"{ascii(str(file))} is not UTF-8 ({error.reason}): save it again as UTF-8.") from None
        except OSError as error:
            raise WorkbenchError(f"Can't read {ascii(str(file))}: {error.strerror}; remove it or repair it.") from None
    return documents
