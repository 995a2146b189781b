"""Causal language models: teachers, students cut from them, and how good and how fast they are on held-out text.

A `LanguageModel` is a model of `transformers` and its tokenizer under one fingerprint; every model is loaded by
`load_causal` and writes by `generate`, as a `Sampling` says. Next to read: `workbench.language.labels`, which stores
what a teacher says of each token, and `workbench.language.traces`, which stores what it writes.
"""

import copy
import hashlib
import re
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from workbench import students, weights
from workbench.errors import (
    SEED,
    Choice,
    Number,
    Text,
    WorkbenchError,
    sequence,
    setting,
    settle,
    shown,
    strings,
    whole,
)
from workbench.language.blocks import TextTask, tokenizer_fingerprint
from workbench.language.fused import Head
from workbench.losses import check_temperature, forward_kl
from workbench.store import Store, code_fingerprint
from workbench.turns import seeded

BATCH = 8  # blocks read at once
BINS = 15  # of confidence, equal width
NAME = r"--[a-z][\w-]+|_*[A-Za-z]\w*(?:[_.]\w+)+|(?:[A-Z][a-z]+){2,}"  # --option, some_name, module.name, CamelCase
CUTS = ("first and last", "importance", "evenly")  # rules of which layers a student keeps
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n"


def build_causal(
    spec: str | Path, *, dropout: float = 0.0, max_length: int = 128
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model to train; new weights come from torch's global generator, so seed that first.

    Args:
        spec: ``"llama-2x64"`` or a hub name or path.
        dropout: in [0, 1); a Llama has it in its attention only.
        max_length: tokens of a prompt and its completion; a new model has positions for four times as many.
    """
    weights.quiet_transformers()
    spec = weights.named(spec)
    if not (small := students.LLAMA.fullmatch(spec)):
        model = weights.load(AutoModelForCausalLM, spec, dtype=torch.float32, attention_dropout=dropout)
        tokenizer = weights.load(AutoTokenizer, spec)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token  # masked wherever it pads
        return model, tokenizer
    layers, width = students.sizes("model", spec, *small.groups())
    if width % 32:
        raise WorkbenchError(f"Can't build model {spec!r}: give 1 layer or more and a width divisible by 32.")
    tokenizer = _characters(max_length)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,  # gated
        num_hidden_layers=layers,
        num_attention_heads=width // 16,  # many narrow heads find the digits of a sum sooner than few wide ones
        num_key_value_heads=width // 16,
        max_position_embeddings=4 * max_length,
        tie_word_embeddings=True,
        initializer_range=0.6 * width**-0.5,  # the usual 0.02 suits widths of a thousand; here it learns far later
        attention_dropout=dropout,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config), tokenizer


def load_causal(folder: str | Path, device: str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A saved causal language model, or one by hub name, and its tokenizer, in eval mode."""
    model, tokenizer = build_causal(folder)
    return model.eval().to(device), tokenizer


def default_device() -> str:
    """Where models write and label: a GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """Token ids of a prompt, and of its completion with the end behind it.

    Apart, because a model that writes has read the prompt's tokens alone. No token is added in front: a rendered
    chat template brings its own. A completion that has its end already (a chat's) keeps that one.
    """
    prompt_ids, ids = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, completion))
    return prompt_ids, ids if tokenizer.eos_token_id in ids[-2:] else [*ids, tokenizer.eos_token_id]


@dataclass(frozen=True)
class Sampling:
    """How a text is drawn.

    Attributes:
        temperature: 0 takes the most likely token; above 0 samples.
        max_new_tokens: where a text is cut that has not ended.
        stop: strings that end a text; they are no part of it.
        seed: of the draws.
    """

    temperature: float = 1.0
    max_new_tokens: int = setting(128, Number(1, 1_048_576, whole=True))
    stop: tuple[str, ...] = ()
    seed: int = setting(0, SEED)

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", check_temperature(self.temperature, or_zero=True))
        settle(self)
        object.__setattr__(self, "stop", tuple(strings("stop", self.stop)))
        if "" in self.stop:
            raise WorkbenchError(f"stop is {shown(self.stop)}: give strings that are not empty.")

    def cut(self, text: str) -> tuple[str, bool]:
        """(what stands before the first of `stop`, whether there is one)."""
        ends = [text.index(s) for s in self.stop if s in text]
        return text[: min(ends, default=None)], bool(ends)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: Tensor,
    mask: Tensor,
    how: Sampling,
    *,
    threads: int | None = None,
    **options: object,
) -> Tensor:
    """Continue ids ``[B, L]``: ``[B, L + how.max_new_tokens]`` or narrower, a text that has ended padded to the right.

    Args:
        model: as it is, on its own device.
        tokenizer: its own.
        ids: padded on the left.
        mask: ``[B, L]``, 1 where `ids` are not padding.
        how: above temperature 0 it samples from all tokens; `stop` ends a text and stands in it.
        threads: on the CPU; None leaves them alone.
        options: others of `transformers`, which win.

    Raises:
        WorkbenchError: its generation_config.json asks for what can't be had.
    """
    drawn = {"do_sample": True, "temperature": how.temperature, "top_k": 0, "top_p": 1.0}
    asked = {"max_new_tokens": how.max_new_tokens, "pad_token_id": tokenizer.pad_token_id}
    asked |= drawn if how.temperature else {"do_sample": False}
    asked |= {"stop_strings": list(how.stop), "tokenizer": tokenizer} if how.stop else {}
    try:
        with seeded(how.seed, threads):
            return model.generate(input_ids=ids, attention_mask=mask, **(asked | options))
    except (ValueError, TypeError, ImportError) as error:  # such as a way of writing that needs code of the hub
        name, why = model.name_or_path or "The model", weights.reason(error)
        raise WorkbenchError(f"{name} can't write ({why}): look at its generation_config.json.") from None


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        name: shown in tables.
        model: of `transformers`, with a linear output layer.
        tokenizer: its own.
        fingerprint: changes whenever what it says could.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str

    @property
    def head(self) -> Head:
        """The output layer, without rows that pad the vocabulary."""
        return Head.of(self.model, len(self.tokenizer))

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.model.device

    @torch.no_grad()
    def hidden(self, blocks: np.ndarray) -> Tensor:
        """Last hidden states after the final norm ``[B, L, H]`` of blocks ``[B, L]``, in the model's own type."""
        training = self.model.training
        self.model.eval()  # a teacher with dropout on would label at random
        ids = torch.from_numpy(np.asarray(blocks, dtype=np.int64)).to(self.device)
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        self.model.train(training)
        return hidden

    def logits(self, blocks: np.ndarray) -> Tensor:
        """``[B, L, V]``, float32: for a few blocks at a time."""
        hidden = self.hidden(blocks)
        logits = self.head.cast(hidden.dtype).logits(hidden.flatten(0, 1))
        return logits.float().reshape(*hidden.shape[:2], -1)

    def check(self, task: TextTask) -> None:
        """Raise unless the task's ids are this model's."""
        if tokenizer_fingerprint(self.tokenizer) != task.tokenizer:
            raise WorkbenchError(
                f"{task.name} holds ids of another tokenizer than {type(self.tokenizer).__name__} of {self.name} (with "
                f"{len(self.tokenizer)} tokens): load the text with this one, or label it across tokenizers, by "
                "text_labels(teacher, task, 'prefix', tokenizer=the student's)."
            )


def load_language_model(name: str | Path) -> LanguageModel:
    """``"smollm2"`` (SmolLM2-135M-Instruct, dequantised from 4 bits), a hub name, or a folder with a saved model."""
    if not isinstance(name, Path):
        name = Text().check("name", name)
    known = weights.WEIGHTS["SmolLM2-135M-Instruct"].sha256 if name == "smollm2" else students.source_fingerprint(name)
    source = weights.path("SmolLM2-135M-Instruct") if name == "smollm2" else name
    model, tokenizer = load_causal(source, default_device())
    return LanguageModel(Path(name).name, model, tokenizer, f"{known} {model.dtype}")


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The model's blocks, first to last."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise WorkbenchError(f"Can't find the {count} layers of {type(model).__name__}: give a decoder of transformers.")


def layer_importance(teacher: LanguageModel, blocks: np.ndarray) -> np.ndarray:
    """How much each layer changes what passes through it, ``[layers]``: 1 - mean cosine (arXiv:2403.03853).

    Args:
        teacher: the model to be cut.
        blocks: ``[B, L]`` of training text; a few suffice.
    """
    layers, sums = layers_of(teacher.model), []

    def watch(_: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        sums.append(float(1 - nn.functional.cosine_similarity(before.float(), after.float(), dim=-1).mean()))

    handles = [layer.register_forward_hook(watch, with_kwargs=True) for layer in layers]
    batches = [blocks[start : start + BATCH] for start in range(0, len(blocks), BATCH)]
    try:
        for batch in batches:
            teacher.hidden(batch)
    finally:
        for handle in handles:
            handle.remove()
    shares = np.array([len(batch) for batch in batches]) / len(blocks)
    return shares @ np.array(sums).reshape(-1, len(layers))


def kept_layers(teacher: LanguageModel, keep: int, rule: str, blocks: np.ndarray) -> list[int]:
    """Which `keep` layers a rule of `CUTS` keeps, in order; `blocks` ``[B, L]`` are read for the importance alone."""
    total = len(layers_of(teacher.model))
    if rule == "importance":
        importance = layer_importance(teacher, blocks)
        return sorted(np.argsort(-importance, kind="stable")[:keep].tolist())
    if rule == "first and last":
        return [*range((keep + 1) // 2), *range(total - keep // 2, total)]
    return np.linspace(0, total - 1, keep).round().astype(int).tolist()


def prune_depth(
    teacher: LanguageModel, keep: int, task: TextTask, *, rule: str = CUTS[0], blocks: int = 16,
    store: Store | None = None,
) -> Path:  # fmt: skip
    """A student made of `keep` of the teacher's layers, in their order, saved in hub format.

    Which rule cuts best is no matter of taste: compare the students' perplexity on held-out text before training them.

    Args:
        teacher: stays as it is.
        keep: layers to keep, from 1 to all.
        task: whose first training blocks measure the importance (`layer_importance`).
        rule: ``"first and last"`` (half of them each), ``"importance"`` or ``"evenly"``.
        blocks: how many of the task's.
        store: where the student goes.

    Returns:
        Its folder, for ``TrainConfig(student=...)`` or `load_language_model`.
    """
    total, blocks = len(layers_of(teacher.model)), whole("blocks", blocks)
    keep, rule = whole("keep", keep, 1, total), Choice(CUTS).check("rule", rule)
    teacher.check(task)
    sample = np.ascontiguousarray(task.train[:blocks])
    digest = hashlib.sha256(sample.tobytes()).hexdigest() if rule == "importance" else None

    def build(folder: Path) -> dict:
        chosen = kept_layers(teacher, keep, rule, sample)
        student = copy.deepcopy(teacher.model).float().cpu()
        layers = layers_of(student)
        kept = [layers[i] for i in chosen]
        del layers[:]
        layers.extend(kept)
        config = student.config.get_text_config()
        config.num_hidden_layers = keep
        if getattr(config, "layer_types", None):
            config.layer_types = [config.layer_types[i] for i in chosen]
        student.save_pretrained(folder / "model")
        teacher.tokenizer.save_pretrained(folder / "model")
        return {"layers": chosen}

    code = code_fingerprint("language.causal:prune_depth")
    inputs = {"teacher": teacher.fingerprint, "keep": keep, "rule": rule, "text": digest, "code": code}
    return (store or Store()).make("pruned", inputs, build).path / "model"


@torch.no_grad()
def evaluate(model: LanguageModel, blocks: np.ndarray, teacher: LanguageModel | None = None) -> pd.DataFrame:
    """Next-token quality of each block: one row a block, every value a mean over its ``L - 1`` predicted tokens.

    Columns: nll (nats), accuracy, confidence (of the likeliest token), bin_0 … the counts, hits and confidences that
    `calibration` adds up; with a teacher also kl (teacher ‖ model, nats) and agreement (same likeliest token).
    """
    rows = []
    for block in blocks:
        logits, labels = model.logits(block[None])[0, :-1], torch.from_numpy(block[1:].astype(np.int64))
        log_q = logits.log_softmax(-1)
        labels = labels.to(log_q.device)
        confidence, top = log_q.exp().max(-1)
        hit = (top == labels).float()
        nll = -log_q.gather(-1, labels[:, None])
        row = {"nll": nll.mean(), "accuracy": hit.mean(), "confidence": confidence.mean()}
        at = (confidence * BINS).long().clamp(max=BINS - 1)
        for name, values in (("n", torch.ones_like(hit)), ("hits", hit), ("confidence", confidence)):
            row |= {f"{name}_{i}": v for i, v in enumerate(torch.bincount(at, values, minlength=BINS))}
        if teacher:
            other = teacher.logits(block[None])[0, :-1].to(logits.device)
            row |= {"kl": forward_kl(logits, other).mean(), "agreement": (other.argmax(-1) == top).float().mean()}
        rows.append({k: float(v) for k, v in row.items()})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Of `evaluate`'s table: perplexity, accuracy, kl and agreement (NaN without teacher), ece (`calibration`)."""
    curve = calibration(table)
    gap = np.average((curve["accuracy"] - curve["confidence"]).abs(), weights=curve["n"])
    means = table.reindex(columns=["accuracy", "kl", "agreement"]).mean()
    return {"perplexity": float(np.exp(table["nll"].mean())), **means.to_dict(), "ece": float(gap)}


def calibration(table: pd.DataFrame) -> pd.DataFrame:
    """Confidence, accuracy and n of the likeliest token in `BINS` bins of equal width, empty ones left out."""
    sums = {name: table[[f"{name}_{i}" for i in range(BINS)]].sum().to_numpy() for name in ("n", "hits", "confidence")}
    filled = sums["n"] > 0
    n = sums["n"][filled]
    return pd.DataFrame({"confidence": sums["confidence"][filled] / n, "accuracy": sums["hits"][filled] / n, "n": n})


@torch.no_grad()
def speed(models: Sequence[LanguageModel], block: np.ndarray, *, tokens: int = 32, repeats: int = 5) -> pd.DataFrame:
    """Reading and writing speed, one text at a time, the models in turns so that a busy moment falls on all.

    Args:
        models: to be timed, on the device where they are and with the threads that PyTorch has now.
        block: ``[L]`` ids of the prompt.
        tokens: written greedily after it, ≥ 2.
        repeats: timed turns; values are medians.

    Returns:
        A row a model: prefill_tokens_per_second, first_token_ms (reading the prompt and choosing one token),
        decode_tokens_per_second, parameters, bytes (of the weights), cache_bytes (keys and values of prompt + tokens).
    """
    tokens, repeats = whole("tokens", tokens, 2, 1_048_576), whole("repeats", repeats, 1, 1_000_000)
    models = _some(models, "time")
    prompt = torch.from_numpy(np.asarray(block, dtype=np.int64))[None]
    times: dict[str, list[tuple[float, float]]] = {m.name: [] for m in models}
    cached: dict[str, int] = {}
    for turn in range(-1, repeats):
        for m in models:
            began = time.perf_counter()
            out = m.model(input_ids=prompt.to(m.device), use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            token.cpu()  # waits for the device
            first = time.perf_counter()
            for _ in range(tokens - 1):
                out = m.model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
                token = out.logits[:, -1].argmax(-1, keepdim=True)
            token.cpu()
            if turn >= 0:
                times[m.name].append((first - began, time.perf_counter() - first))
            cached[m.name] = sum(layer.keys.nbytes + layer.values.nbytes for layer in out.past_key_values.layers)
    rows = {}
    for m in models:
        first, decode = np.median(times[m.name], axis=0)
        rows[m.name] = {
            "prefill_tokens_per_second": prompt.shape[1] / first,
            "first_token_ms": 1000 * first,
            "decode_tokens_per_second": (tokens - 1) / decode,
            "parameters": m.model.num_parameters(),
            "bytes": sum(p.nbytes for p in m.model.parameters()),
            "cache_bytes": cached[m.name],
        }
    return pd.DataFrame(rows).T


@torch.no_grad()
def write(
    model: LanguageModel, blocks: np.ndarray, tokens: int, *, temperature: float = 0.0, seed: int = 0
) -> np.ndarray:
    """Continue each block ``[B, L]`` by `tokens` tokens: ids ``[B, L + tokens]``; greedy at temperature 0."""
    how = Sampling(temperature, whole("tokens", tokens, 1, 1_048_576), seed=seed)
    ids = torch.from_numpy(np.asarray(blocks, dtype=np.int64)).to(model.device)
    out = generate(model.model, model.tokenizer, ids, torch.ones_like(ids), how, min_new_tokens=tokens)
    return out.cpu().numpy().astype(np.int32)


def next_tokens(models: Sequence[LanguageModel], text: str, *, temperature: float = 1.0, top: int = 8) -> pd.DataFrame:
    """What each model expects after `text`: a row for each of the first model's `top` tokens, a column a model."""
    temperature, text, models = check_temperature(temperature), Text().check("text", text), _some(models, "ask")
    top, columns = whole("top", top, 1, len(models[0].head)), {}
    for m in models:
        ids = np.array([m.tokenizer(text, add_special_tokens=False)["input_ids"]])
        columns[m.name] = (m.logits(ids)[0, -1] / temperature).softmax(-1).cpu()
    chosen = columns[models[0].name].topk(top).indices
    names = [models[0].tokenizer.decode([i]) for i in chosen.tolist()]
    return pd.DataFrame({name: p[chosen].numpy() for name, p in columns.items()}, index=pd.Index(names, name="token"))


@torch.no_grad()
def complete(model: LanguageModel, blocks: np.ndarray, *, pattern: str = NAME, given: int = 3) -> pd.DataFrame:
    """Whether a model completes the names in held-out text: all text before one is read, and its first characters.

    Right is a name that greedy writing would finish to its last character, token by token; as each token then is the
    likeliest one, one pass over the block tells.

    Args:
        model: its tokenizer has made the blocks.
        blocks: ``[B, L]`` ids of text.
        pattern: regular expression of what is completed: identifiers and options of programs.
        given: characters of it that are read; the tokens that begin after them must follow, at least one.

    Returns:
        A row a name: block (its number), name, right.
    """
    given, rows = whole("given", given, 1, 1000), []
    for number, block in enumerate(np.asarray(blocks)):
        pieces = model.tokenizer.batch_decode(block[:, None])
        starts = np.cumsum([0, *map(len, pieces[:-1])])
        names = [
            (found.group(), np.flatnonzero((starts >= found.start() + given) & (starts < found.end())))
            for found in re.finditer(pattern, "".join(pieces))
        ]
        if names := [(name, at) for name, at in names if len(at)]:
            hit = np.r_[False, model.logits(block[None])[0, :-1].argmax(-1).cpu().numpy() == block[1:]]
            rows += [{"block": number, "name": name, "right": bool(hit[at].all())} for name, at in names]
    return pd.DataFrame(rows, columns=["block", "name", "right"])


def _some(models: Sequence[LanguageModel], what: str) -> list[LanguageModel]:
    if not (models := sequence("models", models, "language models")):
        raise WorkbenchError(f"There are no models to {what}: give at least one.")
    return models


def _characters(max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of printable ASCII, a character a token; anything else is unknown."""
    special = ("[PAD]", "[UNK]", "[EOS]")
    vocabulary = {token: i for i, token in enumerate([*special, *CHARACTERS])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=4 * max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[EOS]",
    )
