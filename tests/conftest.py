"""Every test session has data of its own; pretrained weights are shared with the checkout."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; results depend on it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def own_data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if "WORKBENCH_CACHE" not in os.environ:
            patch.setenv("WORKBENCH_CACHE", str(Path(__file__).parents[1] / "data" / "cache"))
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        yield
