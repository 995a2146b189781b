"""Students: small models made from a config or cut from a larger one, each with its tokenizer.

A student is named by a string: ``"2x64"`` (2 layers of width 64, with a tokenizer learnt from the transfer texts),
``"minilm"`` (all-MiniLM-L6-v2), ``"minilm-2"`` (its first and last layer), or any hub name or local path. A causal
language model is ``"llama-2x64"`` (see `workbench.language.causal`), or any hub name or local path. How a model reads
texts, and what it weighs, is in `workbench.reading`; how it learns in `workbench.training`.
"""

import functools
import hashlib
import re
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.hub import resolve_revision

from workbench import weights
from workbench.errors import WorkbenchError
from workbench.reading import describe as describe  # for notebooks: what one does with a student, beside loading it
from workbench.reading import predict as predict
from workbench.store import Store, code_fingerprint, fingerprint, sha256_file

VOCABULARY = 1000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SMALL = re.compile(r"(\d{1,9})x(\d{1,9})")  # layers x width
LAYERS, PARAMETERS = 256, 2_000_000_000  # of a new model, at most
MINILM = re.compile(r"minilm(?:-(\d{1,9}))?")
LLAMA = re.compile(r"llama-(\d{1,9})x(\d{1,9})")  # layers x width


def build(
    spec: str | Path, label_names: tuple[str, ...], texts: list[str], *, dropout: float = 0.0, max_length: int = 128
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A student ready to train; its new weights come from torch's global generator, so seed that first.

    Args:
        spec: see the module's first lines.
        label_names: class names, in the order of the label indices.
        texts: the transfer texts, from which a small student's tokenizer is learnt. No labels are used.
        dropout: in [0, 1), everywhere the architecture has it. Small students on 300 steps want none.
        max_length: how many tokens are read of a text. A small student reads the first ``4 * max_length``
            *characters*: that cut is part of its tokenizer, so that a plain `transformers.pipeline` makes it too.
    """
    weights.quiet_transformers()
    spec = weights.named(spec)
    if small := SMALL.fullmatch(spec):
        layers, width = sizes("student", spec, *small.groups())
        heads = max(1, width // 32)
        tokenizer = _learn_tokenizer(texts, max_length)
        config = ModernBertConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,  # gated, so about the size of an ungated 4 * width
            num_hidden_layers=layers,
            num_attention_heads=heads,
            global_attn_every_n_layers=1,
            pad_token_id=tokenizer.pad_token_id,
            cls_token_id=tokenizer.cls_token_id,
            sep_token_id=tokenizer.sep_token_id,
            bos_token_id=None,
            eos_token_id=None,
            classifier_pooling="mean",
            embedding_dropout=dropout,
            mlp_dropout=dropout,
            attention_dropout=dropout,
            classifier_dropout=dropout,
            **_labels(label_names),
        )
        return ModernBertForSequenceClassification(config), tokenizer
    if cut := MINILM.fullmatch(spec):
        model, tokenizer = _pretrained(weights.path("all-MiniLM-L6-v2"), label_names, dropout)
        if cut.group(1):
            _cut_layers(model, int(cut.group(1)))
            # BERT has a table of positions, so the cut must hold in the worst case: one token a character.
            tokenizer = _limit_characters(tokenizer.backend_tokenizer, model.config.max_position_embeddings - 2)
        else:
            tokenizer.model_max_length = max_length
        return model, tokenizer
    model, tokenizer = _pretrained(spec, label_names, dropout)
    tokenizer.model_max_length = min(max_length, tokenizer.model_max_length)
    return model, tokenizer


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a saved model or of a hub name."""
    return weights.load(AutoTokenizer, name)


def source_fingerprint(spec: str | Path) -> str:
    """What a student starts from: the recorded hash of embedded weights, the files of a path, a hub commit."""
    spec = weights.named(spec)
    if SMALL.fullmatch(spec) or LLAMA.fullmatch(spec):
        return "config"
    if MINILM.fullmatch(spec):
        return weights.WEIGHTS["all-MiniLM-L6-v2"].sha256
    if Path(spec).is_dir():
        return folder_fingerprint(Path(spec))
    weights.load(AutoConfig, spec)  # so that a name that is none is refused
    return str(getattr(resolve_revision(spec), "resolved", spec))


def folder_fingerprint(folder: Path) -> str:
    """Hash of a saved model."""
    return fingerprint([[f.name, sha256_file(f)] for f in saved_files(folder)])


def saved_files(folder: Path) -> list[Path]:
    """Those a saved model is made of: weights, config and tokenizer."""
    return sorted(f for f in folder.iterdir() if f.suffix in {".safetensors", ".json", ".txt", ".model"})


def load(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A saved student (or any Auto classifier, by path or hub name) and its tokenizer, in eval mode."""
    model = weights.load(AutoModelForSequenceClassification, folder)
    return model.eval(), weights.load(AutoTokenizer, folder)


def sizes(what: str, spec: str, layers: str, width: str) -> tuple[int, int]:
    """Layers and width of a new model, refused before a model that fits no machine is begun."""
    depth, wide = int(layers), int(width)
    if not depth or not wide or wide % (2 * max(1, wide // 32)):
        raise WorkbenchError(f"Can't build {what} {spec!r}: give 1 layer or more and a width divisible by 32.")
    if depth > LAYERS or 10 * depth * wide**2 > PARAMETERS:  # a layer has about 10 * width * width
        raise WorkbenchError(
            f"Can't build {what} {spec!r}: give at most {LAYERS} layers and about {PARAMETERS:,} parameters in them."
        )
    return depth, wide


def _labels(label_names: tuple[str, ...]) -> dict[str, dict]:
    return {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}


def _pretrained(name: str | Path, label_names: tuple[str, ...], dropout: float):
    config = weights.load(AutoConfig, name)
    fields = [f for f in vars(config) if "dropout" in f and not isinstance(getattr(config, f), bool)]
    options = _labels(label_names) | dict.fromkeys(fields, dropout)
    model = weights.load(AutoModelForSequenceClassification, name, new_head=True, dtype=torch.float32, **options)
    return model, weights.load(AutoTokenizer, name)


def _cut_layers(model: PreTrainedModel, keep: int) -> None:
    """Keep `keep` layers spread evenly from first to last (DistilBERT, arXiv:1910.01108)."""
    layers = model.base_model.encoder.layer
    if not 1 <= keep <= len(layers):
        raise WorkbenchError(f"Can't keep {keep} of {len(layers)} layers: choose 1 to {len(layers)}.")
    chosen = np.linspace(0, len(layers) - 1, keep).round().astype(int)
    model.base_model.encoder.layer = nn.ModuleList(layers[i] for i in chosen)
    model.config.num_hidden_layers = keep


def _limit_characters(backend: Tokenizer, limit: int) -> PreTrainedTokenizerFast:
    """A tokenizer that itself drops what follows the first `limit` characters, counted after normalisation.

    `transformers.pipeline` asks for no truncation, and a tokenizer's own truncation setting is then ignored: a long
    text would fail, or get another label than it got here. The plain class is used because a model's own class
    (BertTokenizer) builds its normaliser anew when it is loaded.
    """
    cut = normalizers.Replace(Regex(rf"(?m)(?<=\A.{{{limit}}}).+"), "")
    backend.normalizer = normalizers.Sequence([*([backend.normalizer] if backend.normalizer else []), cut])
    backend.no_truncation()
    backend.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=4 * limit + 3,  # four bytes a character, a leading space, two ends: this never cuts
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )


def _learn_tokenizer(texts: list[str], max_length: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from the transfer texts; learnt once for each set of texts.

    BPE and not WordPiece, whose trainer breaks ties in another order in every process.
    """
    digest = hashlib.sha256()
    for i, text in enumerate(texts):
        digest.update(("\x00" + text if i else text).encode())
    inputs = {
        "texts": digest.hexdigest(),
        "vocabulary": VOCABULARY,
        "max_length": max_length,
        "code": code_fingerprint("students:_learn_tokenizer"),
    }

    def train(folder: Path) -> None:
        backend = Tokenizer(models.BPE(unk_token="[UNK]"))
        backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(sorted(texts), trainer)
        ends = [(token, SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")]
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
        )
        _limit_characters(backend, 4 * max_length).save_pretrained(folder)

    return _loaded(Store().make("tokenizers", inputs, train).path)


@functools.lru_cache(maxsize=4)
def _loaded(folder: Path) -> PreTrainedTokenizerFast:
    """One object for all students of a sweep, which nothing changes: so what it has read can be kept as well."""
    return weights.load(AutoTokenizer, folder)
