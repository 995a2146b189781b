"""Sampled text: what a model writes to problems, checked, kept, and made once.

A **writer** is anything with a `fingerprint` and `write`. `Local` runs a causal language model of `transformers`;
`VLLM` the same models under vLLM, the engine for hub-scale teachers on a GPU (``pip install -e '.[vllm]'``).
`sample` asks in shards, each with a seed of its own, so that a killed call resumes to the same texts. Next to read:
`workbench.language.lessons`, where a `trace_task` of such texts teaches a student.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import joblib
import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from workbench import reading, students, weights
from workbench.errors import Number, Text, WorkbenchError, sequence, setting, settle, shown, unknown, whole
from workbench.language import causal
from workbench.language.causal import Sampling
from workbench.language.problems import Problem, TraceTask, Verdict, verify
from workbench.store import Entry, Hold, Store, code_fingerprint, fingerprint, write_atomic
from workbench.turns import one_thread_workers
from workbench.verdicts import Results, arm_estimates, compare

if TYPE_CHECKING:
    from workbench.training import Run

SHARD = 256  # texts written in one go
_THINK = "<think>"
_MARKER = "marker-5f3a"  # stands for an answer while a template is read


class Written(NamedTuple):
    """One text: what was written, its tokens with the end, and whether it came to an end by itself."""

    text: str
    tokens: int
    finished: bool


class Writer(Protocol):
    """An engine. `fingerprint` changes whenever its texts could."""

    fingerprint: str

    def write(self, questions: Sequence[str], how: Sampling) -> list[Written]:
        """One text a question, in order; the same texts for the same arguments."""
        ...


@dataclass(frozen=True)
class Local:
    """A causal language model of `transformers`, by folder or hub name; a process loads it when it first writes.

    Attributes:
        model: a run's `path`, another folder, or a hub name.
        threads: CPU threads; part of the identity, because sums in another order can tip a draw.
    """

    model: str | Path
    threads: int = setting(1, Number(1, 1024, whole=True))

    def __post_init__(self) -> None:
        if not isinstance(self.model, Path):
            Text().check("model", self.model)
        settle(self)

    @cached_property
    def fingerprint(self) -> str:
        """Of its weights, its tokenizer, its threads and how it is read and written with."""
        source, code = students.source_fingerprint(self.model), code_fingerprint("language.traces:Local")
        return fingerprint(["local", source, self.threads, code])

    @cached_property
    def _loaded(self):
        return causal.load_causal(self.model, causal.default_device())

    def __getstate__(self) -> dict:
        """Send the name, not the weights, to a worker process."""
        return {k: v for k, v in self.__dict__.items() if k != "_loaded"}

    @torch.inference_mode()
    def write(self, questions: Sequence[str], how: Sampling) -> list[Written]:
        """See `Writer`."""
        model, tokenizer = self._loaded
        prompts = [chat_prompt(tokenizer, q) for q in questions]
        padded = {"padding": True, "padding_side": "left", "return_tensors": "pt"}  # where no text grows
        read = tokenizer(prompts, add_special_tokens=False, **padded).to(model.device)
        ids, mask = read["input_ids"], read["attention_mask"]
        out = causal.generate(model, tokenizer, ids, mask, how, threads=self.threads)
        ends = np.atleast_1d(model.generation_config.eos_token_id or tokenizer.eos_token_id)
        new = out[:, ids.shape[1] :].tolist()
        return [read_back(tokenizer, p, row, how, ends) for p, row in zip(prompts, new, strict=True)]


def read_back(
    tokenizer: PreTrainedTokenizerBase, prompt: str, row: list[int], how: Sampling, ends: Sequence[int] | np.ndarray
) -> Written:
    """What the tokens `row` say that a model wrote after `prompt`; `ends` are the tokens that end a text."""
    end = next((i for i, token in enumerate(row) if token in ends), None)
    ids = row if end is None else row[:end]
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    text, stopped = how.cut(text)
    if stopped:
        ids = [i for i in ids if i != tokenizer.pad_token_id]
    return Written(_opened(prompt, text), len(ids) + (end is not None), end is not None or stopped)


class VLLM:
    """The same models under vLLM, for teachers of billions of parameters; needs a GPU and the extra ``vllm``.

    Texts are seeded, but vLLM does not promise the same texts on another GPU or version: both are in its
    fingerprint's model and version only, so keep a store to a machine.
    """

    def __init__(self, model: str, **engine: object):
        """Name a hub model; `engine` goes to `vllm.LLM`, such as ``max_model_len=8192``."""
        try:
            import vllm
        except ImportError:
            raise WorkbenchError("The engine vllm is not installed: pip install -e '.[vllm]', on a GPU.") from None
        if "trust_remote_code" in engine:
            raise WorkbenchError("trust_remote_code is no option here: leave it out, a model's own code is never run.")
        self.model, self.engine, self.tokenizer = model, engine, students.load_tokenizer(model)
        source = students.source_fingerprint(model)
        self.fingerprint = fingerprint(["vllm", vllm.__version__, source, {k: str(v) for k, v in engine.items()}])

    @cached_property
    def _llm(self):
        import vllm

        # Without a format it would take pickled weights where there are no others.
        return vllm.LLM(model=self.model, trust_remote_code=False, **({"load_format": "safetensors"} | self.engine))

    def write(self, questions: Sequence[str], how: Sampling) -> list[Written]:
        """See `Writer`."""
        import vllm

        prompts = [chat_prompt(self.tokenizer, q) for q in questions]
        # Ids, not text: vLLM would put a second token of beginning before a rendered template.
        ids = [{"prompt_token_ids": self.tokenizer(p, add_special_tokens=False)["input_ids"]} for p in prompts]
        asked = [
            vllm.SamplingParams(
                temperature=how.temperature, max_tokens=how.max_new_tokens, stop=list(how.stop), seed=how.seed + i
            )
            for i in range(len(prompts))
        ]
        outputs = [request.outputs[0] for request in self._llm.generate(ids, asked)]
        return [
            Written(_opened(prompt, out.text), len(out.token_ids), out.finish_reason == "stop")
            for prompt, out in zip(prompts, outputs, strict=True)
        ]


ENGINES = {
    "local": "a causal language model of transformers, run here",
    "vllm": "the same under vLLM, on a GPU",
    "endpoint": "a model behind an OpenAI-compatible API; base_url says where, cap what it may cost",
}


def by_engine(engine: str, model: str, **options: object) -> Writer:
    """Who writes, by the name of an engine in `ENGINES`.

    Args:
        engine: ``"local"``, ``"vllm"`` or ``"endpoint"``.
        model: a hub name or a folder; of an endpoint what it calls the model.
        options: of `Local`, `VLLM` or `workbench.hosted.endpoint.Endpoint`, whose price may be a pair: dollars for a
            million tokens read, and written.

    Raises:
        WorkbenchError: no such engine, or an option that it lacks or needs.
    """
    if not isinstance(engine, str) or engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    kind = Local if engine == "local" else VLLM if engine == "vllm" else import_module("workbench.hosted.writer").behind
    try:
        inspect.signature(kind).bind(model, **options)
    except TypeError as error:
        raise WorkbenchError(f"The engine {engine} can't take these options ({error}): see its options.") from None
    return kind(model, **options)


def chat_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """What a model reads: the question in its chat template, or the question itself where there is none."""
    if not tokenizer.chat_template:
        return question
    return _rendered(tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True)


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], **options: bool) -> str:
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, **options)
    except Exception as error:  # a template is a program, in a sandbox: it may fail in any way
        raise WorkbenchError(
            f"The chat template of {tokenizer.name_or_path} fails ({weights.reason(error)}): use a model with another."
        ) from None


def chat_pair(tokenizer: PreTrainedTokenizerBase, question: str, text: str) -> tuple[str, str]:
    """(prompt, completion) that teach a student to write `text`, its reasoning block included.

    Many templates drop the ``<think>`` block of an assistant's turn, or open it themselves. So the template is never
    given the text: it renders the prompt and shows how it ends a turn; the text stands between, unchanged, except
    that a block the prompt has opened is not opened again.

    Raises:
        WorkbenchError: a template that does not show where an assistant's turn ends.
    """
    prompt = chat_prompt(tokenizer, question)
    if not tokenizer.chat_template:
        return prompt, text
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": _MARKER}]
    whole = _rendered(tokenizer, turns)
    if whole.count(_MARKER) != 1:
        raise WorkbenchError(
            f"The chat template of {tokenizer.name_or_path} does not keep an assistant's answer: use a model with a "
            "template that does."
        )
    end = whole.partition(_MARKER)[2].rstrip("\n")
    if prompt.rstrip().endswith(_THINK):
        text = text.removeprefix(_THINK).removeprefix("\n")
    return prompt, text + end


def _opened(prompt: str, text: str) -> str:
    """A text whose reasoning block the prompt has opened, with that opening: it can then be read by itself."""
    return f"{_THINK}\n{text}" if prompt.rstrip().endswith(_THINK) and not text.startswith(_THINK) else text


def sample(
    writer: Writer,
    problems: Sequence[Problem],
    how: Sampling | None = None,
    *,
    per_problem: int = 1,
    store: Store | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Texts to problems, verified: one row per text, the draws of a problem side by side.

    Columns: problem (its number), draw, difficulty, prompt, text, tokens, finished, verdict, first_wrong (a step's
    number from 0, NaN where none is wrong), answer_right, verified. A text that was cut has no answer, whatever
    stands in it.

    Args:
        writer: who writes.
        problems: what is asked.
        how: temperature, length, stops and seed.
        per_problem: texts of each problem, 1 or more.
        store: where they are kept, in shards of `SHARD` texts.
        progress: called with (texts made or found, texts asked for) after each shard.

    Raises:
        WorkbenchError: no problems, or several greedy texts of one.
    """
    how, store, per_problem = how or Sampling(), store or Store(), whole("per_problem", per_problem, 1, 1_000_000)
    problems = sequence("problems", problems, "problems")
    if not isinstance(how, Sampling):
        raise WorkbenchError(f"how is {shown(how)}: give a Sampling, or None for its own values.")
    if wrong := [problem for problem in problems if not isinstance(problem, Problem)]:
        raise WorkbenchError(f"problems hold {shown(wrong[0])}: give what workbench.language.problems.problems makes.")
    if not problems:
        raise WorkbenchError("There is nothing to write: give problems.")
    if per_problem > 1 and how.temperature == 0:
        raise WorkbenchError(f"{per_problem} texts at temperature 0 are all the same: raise temperature.")
    asked = [(i, draw) for i in range(len(problems)) for draw in range(per_problem)]
    rows: list[dict] = []
    for start in range(0, len(asked), SHARD):
        shard = asked[start : start + SHARD]
        chosen = [problems[i] for i, _ in shard]
        inputs = {
            "problems": fingerprint([asdict(p) for p in chosen]),
            "draws": [draw for _, draw in shard],
            "how": how,
        }
        # Each shard's seed follows from what is asked in it: not from the shards before, and not from our code.
        seeded = replace(how, seed=int(fingerprint([*inputs.values()])[:8], 16) >> 1)
        inputs |= {"writer": writer.fingerprint, "code": code_fingerprint("language.traces:sample")}

        def build(folder: Path, chosen: list[Problem] = chosen, how: Sampling = seeded) -> dict:
            texts = writer.write([p.prompt for p in chosen], how)
            checked = [_checked(problem, text) for problem, text in zip(chosen, texts, strict=True)]
            write_atomic(folder / "traces.json", json.dumps(checked))
            return {"texts": len(checked)}

        text = (store.make("traces", inputs, build).path / "traces.json").read_text(encoding="utf-8")
        for (i, draw), row in zip(shard, json.loads(text), strict=True):
            rows.append({"problem": i, "draw": draw, "difficulty": problems[i].difficulty, **row})
        if progress:
            progress(len(rows), len(asked))
    table = pd.DataFrame(rows).astype({"first_wrong": float})
    found = [Verdict(verdict) for verdict in table["verdict"]]
    return table.assign(answer_right=[v.answer_right for v in found], verified=[v.verified for v in found])


def _checked(problem: Problem, written: Written) -> dict[str, object]:
    """A row of `sample`: what was written, and what the verifier finds in it."""
    found = verify(problem, written.text)
    if not written.finished:
        found = replace(found, verdict="no answer")
    return {"prompt": problem.prompt, **written._asdict(), **asdict(found)}


def sample_all(
    writers: Mapping[str, Writer],
    problems: Sequence[Problem],
    how: Sampling | None = None,
    *,
    workers: int | None = None,
    store: Store | None = None,
    **options: object,
) -> pd.DataFrame:
    """`sample` of several writers in a pool of one-thread processes; a first column, writer, names them."""
    store = store or Store()
    if not isinstance(writers, Mapping) or not writers:
        raise WorkbenchError(f"writers is {shown(writers)}: give a dict of names with at least one writer.")
    workers = one_thread_workers(workers)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        parallel = joblib.Parallel(n_jobs=min(workers, len(writers)), batch_size=1)
        tables = parallel(joblib.delayed(sample)(w, problems, how, store=store, **options) for w in writers.values())
    named = [table.assign(writer=name) for name, table in zip(writers, tables, strict=True)]
    return pd.concat(named, ignore_index=True)[["writer", *tables[0].columns]]


def kept_by_filter(traces: pd.DataFrame, *, or_all: bool = False) -> dict[str, list[tuple[str, str]]]:
    """What one writer's traces can teach, by how they are filtered: (prompt, text) pairs.

    "unfiltered": the first trace of each problem, as it came, if it came to an end; "verified": of each problem the
    first trace that the verifier let through; "several": every such trace.

    Args:
        traces: one writer's rows of `sample`.
        or_all: where no trace is verified, take all: only a smoke run may.

    Raises:
        WorkbenchError: no trace is verified.
    """
    ended = traces[traces["finished"]] if traces["finished"].any() else traces
    good = traces[traces["verified"]]
    if good.empty and not or_all:
        raise WorkbenchError(f"None of {len(traces)} traces is verified: train their writer longer.")
    good = ended if good.empty else good
    kinds = {"unfiltered": ended[ended["draw"] == 0], "verified": good.drop_duplicates("problem"), "several": good}
    return {
        kind: [(p, t) for p, t in zip(rows["prompt"], rows["text"], strict=True) if t] for kind, rows in kinds.items()
    }


def graded(papers: pd.DataFrame, column: str = "answer_right") -> Results:
    """Which problems each arm's writers got right; labels are their difficulties, so that each counts the same.

    Args:
        papers: rows of `sample_all`, one text per writer and problem, and a column arm beside.
        column: ``"answer_right"``, or ``"verified"``, which asks for every step, too.
    """
    wide = {"index": "writer", "columns": "problem", "values": column}
    hits = {arm: rows.pivot(**wide).to_numpy() for arm, rows in papers.groupby("arm", sort=False)}
    return Results(hits, papers.groupby("problem")["difficulty"].first().to_numpy())


def marks(right: Results, strict: Results) -> pd.DataFrame:
    """One row an arm, its index: `arm_estimates`, n_problems for n_templates; verified; stuck.

    Args:
        right: those of `graded`.
        strict: of the same items, by the column verified: its share is that column.

    A training that lay on a plateau to its last step makes an arm's mean a matter of luck: stuck counts the seeds that
    are right on less than half.
    """
    means = {arm: np.asarray(hits).mean(-1) for arm, hits in right.correct.items()}
    stuck = {arm: int((seeds < 0.5).sum()) for arm, seeds in means.items()}
    verified = {arm: float(np.mean(hits)) for arm, hits in strict.correct.items()}
    table = arm_estimates(right).set_index("arm").rename(columns={"n_templates": "n_problems"})
    return table.assign(verified=pd.Series(verified), stuck=pd.Series(stuck))


def by_difficulty(results: Results) -> pd.DataFrame:
    """`arm_estimates` at each difficulty, for `lines_by`: difficulty, arm, estimate, low, high, n_problems, n_seeds, ….

    Labels are difficulties, as those of `graded`.
    """
    found = [arm_estimates(results.at(results.labels == d)).assign(difficulty=d) for d in np.unique(results.labels)]
    return pd.concat(found, ignore_index=True).rename(columns={"n_templates": "n_problems"})


def steeper(results: Results, arm: str, baseline: str, **judge: float | str) -> pd.Series:
    """How much more an arm gains than its baseline from the easiest problems to the hardest: a row of `compare`.

    Its estimate is negative where the arm falls further behind as problems get harder. Judged is a hit on the hardest
    and a miss on the easiest, whose mean moves by half of that; so the row's differences are doubled.

    Args:
        results: those of `graded`.
        arm: the one in question.
        baseline: what it is held to.
        judge: options of `compare`; margin is one of the doubled difference.
    """
    easiest, hardest = results.labels.min(), results.labels.max()
    ends = results.only(arm, baseline).at((results.labels == easiest) | (results.labels == hardest))
    turned = {a: np.where(ends.labels == easiest, 1.0 - np.asarray(h), h) for a, h in ends.correct.items()}
    judge |= {"margin": judge.get("margin", 0.01) / 2}
    found = compare(Results(turned, ends.labels), [(arm, baseline)], **judge).iloc[0].copy()
    for name in ("estimate", "se", "low", "high", "detectable"):
        found[name] *= 2
    return found


def tokens_read(runs: pd.DataFrame) -> pd.Series:
    """Tokens, prompts included, that an arm's runs were trained on: a mean over them by arm. Columns: arm and run."""
    tokens = pd.Series([run.entry.record["train_tokens"] for run in runs["run"]], name="tokens", dtype=float)
    return tokens.groupby(runs["arm"].to_numpy(), sort=False).mean()


def flops(run: "Run", read: float | None = None, written: float = 0.0) -> float:
    """Floating-point operations of a run, by the usual estimate: 6 per parameter and token read, 2 per token written.

    Args:
        run: a language model's.
        read: tokens that it was trained on; None: all that it read.
        written: tokens that it wrote since.
    """
    record = run.entry.record
    return record["parameters"] * (6 * (record["train_tokens"] if read is None else read) + 2 * written)


def matched_steps(corrected: Iterable["Run"], begun: "Run", teacher: "Run") -> dict[str, int]:
    """Steps on finished traces for what on-policy runs took, a mean over them, by the names of two rival arms.

    FLOPs by the estimate of `flops`: each of a run's tokens its student reads or writes (2 a parameter) and learns
    from (6), and the teacher reads it (2 of the teacher's); of finished text a student only learns.

    Args:
        corrected: on-policy runs.
        begun: one of finished text, whose steps are as long.
        teacher: the run that made their teacher.
    """
    runs, a_step = list(corrected), begun.entry.record["train_tokens"] / begun.config.steps
    steps = float(np.mean([run.entry.record["train_tokens"] for run in runs])) / a_step
    larger = teacher.entry.record["parameters"] / runs[0].entry.record["parameters"]
    equal = {"tokens": steps, "FLOPs": steps * (8 + 2 * larger) / 6}
    return {f"more traces, equal {what}": max(1, round(n)) for what, n in equal.items()}


def price(runs: pd.DataFrame, target: float) -> pd.DataFrame:
    """What it took each arm until a look at validation found `target` or more: one row an arm.

    Columns: tokens read and flops, medians over the seeds that got there (NaN if none did); reached, of: how many did.

    Args:
        runs: columns arm and run.
        target: share of the validation completions written without a fault.
    """
    rows = []
    for row in runs.itertuples():
        looks = row.run.history.dropna(subset=["validation"])
        tokens_by_step = row.run.entry.record["train_tokens"] / row.run.config.steps
        tokens = float(looks["step"][looks["validation"] >= target].min()) * tokens_by_step
        rows.append({"arm": row.arm, "tokens": tokens, "flops": flops(row.run, tokens)})
    by_arm = pd.DataFrame(rows).groupby("arm", sort=False)
    return by_arm[["tokens", "flops"]].median().assign(reached=by_arm["tokens"].count(), of=by_arm.size())


def trace_task(
    name: str,
    pairs: Iterable[tuple[str, str]],
    validation: Iterable[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> TraceTask:
    """(question, text) pairs as a student's task, in its chat template if its `tokenizer` has one."""

    def rendered(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple(tuple(pair) if tokenizer is None else chat_pair(tokenizer, *pair) for pair in pairs)

    taught = rendered(pairs)
    return TraceTask(name, tuple(p for p, _ in taught), tuple(c for _, c in taught), rendered(validation))


@dataclass(frozen=True)
class SoftTraces:
    """A teacher's logits at every completion token of one `TraceTask`, on disk: rows of unequal length in one array."""

    entry: Entry
    hold: Hold | None = field(default=None, repr=False, compare=False)  # on its files, against `Store.prune`

    @property
    def fingerprint(self) -> str:
        """Of the teacher, the task and the code that asked the one about the other."""
        return fingerprint(["soft traces", self.entry.key])

    def open(self, task: TraceTask) -> Callable[[np.ndarray], np.ndarray]:
        """A function from row numbers to logits ``[completion tokens of those rows, V]``, read as they are needed.

        Raises:
            WorkbenchError: another task's rows.
        """
        if task.fingerprint != self.entry.record["inputs"]["task"]:
            raise WorkbenchError(f"These soft labels are not of {task.name}: make them with trace_labels(model, task).")
        logits = np.load(self.entry.path / "logits.npy", mmap_mode="r", allow_pickle=False)
        ends = np.cumsum([0, *self.entry.record["counts"]])
        return lambda rows: np.concatenate([logits[ends[i] : ends[i + 1]] for i in rows])


@torch.inference_mode()
def trace_labels(model: str | Path, task: TraceTask, *, store: Store | None = None) -> SoftTraces:
    """The teacher's next-token logits on a task's completions, in one pass, kept as float32.

    For vocabularies of characters: V floats a token. A student must read with the teacher's tokenizer.
    """
    source = students.source_fingerprint(model)
    inputs = {"teacher": source, "task": task.fingerprint, "code": code_fingerprint("language.traces:trace_labels")}

    def build(folder: Path) -> dict:
        teacher, tokenizer = causal.load_causal(model)
        pairs = [causal.encode_pair(tokenizer, p, c) for p, c in zip(task.prompts, task.completions, strict=True)]
        found: list[np.ndarray] = [np.empty(0)] * len(pairs)
        for chosen, ids, mask in reading.batches([a + b for a, b in pairs], tokenizer.pad_token_id):
            logits = teacher(input_ids=ids, attention_mask=mask).logits.float().numpy()
            for row, i in zip(logits, chosen, strict=True):
                start = len(pairs[i][0]) - 1  # position t tells of token t + 1
                found[i] = row[start : start + len(pairs[i][1])]
        np.save(folder / "logits.npy", np.concatenate(found), allow_pickle=False)
        return {"counts": [len(rows) for rows in found]}

    store = store or Store()
    hold = store.hold("soft_traces")  # first: what is found must still be there when it is read
    return SoftTraces(store.make("soft_traces", inputs, build), hold)
