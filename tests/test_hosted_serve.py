"""Teachers behind HTTP: ours with faults on demand, and a real language model by llama.cpp."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from lab import smoke_report
from refusal import refused
from tiny import make_task

from workbench.__main__ import main
from workbench.hosted.endpoint import Endpoint, Request
from workbench.hosted.pilot import probe
from workbench.hosted.prices import Price
from workbench.hosted.replies import read
from workbench.hosted.serve import FAULTS, llama, running
from workbench.hosted.teacher import load_teacher
from workbench.publish import report
from workbench.teachers import BagOfWords

PRICE = Price(0.1, 0.4)
KINDS = {
    "429": "answer", "429-after": "answer", "500": "answer", "slow": "answer", "cut": "unreadable",
    "schema": "unreadable", "refusal": "refused", "no-logprobs": "no log-probabilities", "renamed": "another model",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_on_demand(fault, task, tmp_path):
    with running(BagOfWords(task), "words", slow=0.2, seed=3) as server:
        endpoint = Endpoint(server.base_url, "words", price=PRICE, path=tmp_path / "r.sqlite", attempts=9)
        teacher = load_teacher(endpoint, task)
        server.faults = {fault: 0.4}
        kinds = Counter(teacher.read(task.transfer_texts).kinds)
    assert kinds[KINDS[fault]] and set(kinds) <= {"answer", KINDS[fault]}


def test_what_it_does_not_serve(task, tmp_path):
    words = BagOfWords(task)
    with running(words, "words", widest=5) as server:
        endpoint = Endpoint(server.base_url, "words", price=PRICE, path=tmp_path / "r.sqlite")
        assert probe(endpoint).logprobs == 5
        with refused("has no model 'other' there"):
            probe(replace(endpoint, model="other"))
        assert server.server_address[0] == "127.0.0.1"
        taken = server.server_address[1]
        with refused(f"Can't listen on port {taken}"), running(words, "w", port=taken):
            pass
    with refused("Unknown fault '501': did you mean '50"), running(words, "words", faults={"501": 1}):
        pass
    with refused("the share of 500 is 2"), running(words, "words", faults={"500": 2}):
        pass


def test_the_command(tmp_path, capsys):
    make_task(tmp_path)
    command = [sys.executable, "-m", "workbench", "serve", "bag-of-words", "--task", f"csv:{tmp_path / 'tiny3.csv'}"]
    child = subprocess.Popen([*command, "--fault", "refusal=1", "--widest", "3"], stdout=subprocess.PIPE, text=True)
    try:
        base_url = re.search(r"answers at (http://127\.0\.0\.1:\d+/v1)", child.stdout.readline())[1]
        endpoint = Endpoint(base_url, "bag-of-words", price=PRICE, path=tmp_path / "r.sqlite")
        (reply,) = endpoint.ask([Request({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1})])
        assert read(reply).kind == "refused"
    finally:
        os.kill(child.pid, signal.SIGINT)
        assert child.wait() == 0
    assert main(["serve", "bag-of-words", "--fault", "500=often"]) == 2
    assert "write fault and share" in capsys.readouterr().err


def test_a_report_takes_the_teacher_by_its_url(monkeypatch, capsys):
    asked, caps = [], []
    monkeypatch.setenv("WORKBENCH_CAP", "7")

    def run(**options):
        asked.append(options["flags"])
        caps.append(os.environ["WORKBENCH_CAP"])
        return []

    monkeypatch.setattr(report, "run", run)
    by_url = ["report", "--teacher", "hosted:org/m-1", "--base-url", "http://127.0.0.1:1/v1"]
    assert main(by_url) == main([*by_url, "--cap", "2.5"]) == 0
    assert asked == [{"teacher_name": "hosted:http://127.0.0.1:1/v1#org/m-1"}] * 2 and caps == ["7", "2.5"]


@pytest.mark.long
def test_no_page_and_no_file_of_a_report_holds_the_key(tmp_path):
    key = "sk-canary-41b7"
    done = smoke_report(tmp_path, "--only", "08", OPENAI_API_KEY=key)
    assert done.returncode == 0, done.stderr
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {".html", ".ipynb", ".sqlite"} <= {path.suffix for path in made}
    assert key not in done.stdout + done.stderr
    assert not [path for path in made if key.encode() in path.read_bytes()]


@pytest.mark.long
def test_a_real_language_model(task, tmp_path):
    pytest.importorskip("xllamacpp")
    with llama() as base_url:
        plain = Endpoint(base_url, "smollm2", price=PRICE, path=tmp_path / "r.sqlite", in_flight=1,
                         extra={"cache_prompt": False})  # fmt: skip
        found = probe(plain)
        assert found.logprobs == 20 and found.schema and found.usage
        letters = {"cache_prompt": False, "grammar": "root ::= [ABC]"}  # it would rather talk
        teacher = load_teacher(replace(plain, extra=letters), task, examples=1)
        texts = task.test["text"][:4]
        labels = teacher.read(texts)
        assert set(labels.kinds) <= {"answer", "out of list"} and "answer" in labels.kinds
        told = ~np.isnan(labels.logits).any(1)
        assert np.exp(labels.logits[told]).sum(1) == pytest.approx(1, abs=1e-5)
        assert teacher.repeatability(texts, 4)["nats"] == 0.0  # without llama.cpp's prompt cache
