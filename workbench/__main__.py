"""The command line: `python -m workbench report`, `doctor`, `fetch`, `runs`, `prune`, `replies` and `serve`.

It decides nothing itself: each command checks what was typed and hands it to the module that does the work, and every
`WorkbenchError` becomes one line and exit status 2. Most goes on in `workbench.publish.report`.
"""

import argparse
import math
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

# The rest is imported where it is used: --help needs no torch.
from workbench.errors import WorkbenchError, check_name, unknown
from workbench.store import Store, check_writable, data_dir

COLUMNS = ("text_column", "label_column", "group_column", "split_column", "out_of_scope")
PARAMETERS = ("task_name", *COLUMNS, "labels_per_class", "teacher_name")  # of notebooks, set by flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (2: bad input, in one sentence; 130: stopped by Ctrl-C)."""
    try:
        options = _parser().parse_args(arguments)
        return options.command(options)
    except WorkbenchError as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped: what is finished is kept, the same command goes on from there.", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WorkbenchError(f"{message}; `{self.prog} --help` lists what there is.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m workbench", description="Distillation Workbench")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    report = commands.add_parser("report", help="run the notebooks and publish them as pages")
    report.set_defaults(command=_report)
    report.add_argument("--budget", default="laptop", help="quick (a smoke run), laptop (default) or gpu")
    report.add_argument("--only", nargs="+", action="extend", default=[], metavar="NN", help="such as 01 03")
    report.add_argument("--update", action="store_true", help="maintainers: store outputs in notebooks/")
    # What is not given is not there: a notebook then keeps the value of its parameters cell.
    of = report.add_argument_group("what the notebooks are about", argument_default=argparse.SUPPRESS)
    of.add_argument("--task", dest="task_name", help="voice-commands (default), csv:<path> or hub:<dataset>")
    of.add_argument("--text", dest="text_column", metavar="COLUMN", help="its texts (default: text); of pairs a,b")
    of.add_argument("--label", dest="label_column", metavar="COLUMN", help="its labels (default: label)")
    of.add_argument("--group", dest="group_column", metavar="COLUMN", help="what near copies share")
    of.add_argument("--split", dest="split_column", metavar="COLUMN", help="train, validation, calibration or test")
    of.add_argument("--out-of-scope", metavar="LABEL", help="the label of texts that belong to no class")
    of.add_argument("--labels-per-class", metavar="N|all", type=_count, help="labels that may be read (default: 5)")
    of.add_argument("--teacher", dest="teacher_name", help="the teacher (default: the notebooks' own)")
    of.add_argument("--base-url", default=None, metavar="URL", help="where the teacher hosted:MODEL is")
    of.add_argument("--cap", default=None, metavar="DOLLARS", type=_dollars, help="what it may cost in all")

    doctor = commands.add_parser("doctor", help="say what is installed, fetched, free and missing")
    doctor.set_defaults(command=_doctor)

    fetch = commands.add_parser("fetch", help="fetch pretrained weights (done on first use otherwise)")
    fetch.set_defaults(command=_fetch)
    fetch.add_argument("name", nargs="?", help="which (default: all)")
    fetch.add_argument("--from", dest="source", type=Path, metavar="DIR", help="a folder that has them")

    runs = commands.add_parser("runs", help="list everything made")
    runs.set_defaults(command=_runs)

    prune = commands.add_parser("prune", help="remove what interrupted runs left, and old entries if asked")
    prune.set_defaults(command=_prune)
    prune.add_argument("--older-than-days", type=float, metavar="N", help="also older entries")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    replies = commands.add_parser("replies", help="list, export or import what endpoints have answered")
    replies.set_defaults(command=_replies)
    replies.add_argument("what", nargs="?", default="list", choices=("list", "export", "import"))
    replies.add_argument("files", nargs="*", type=Path, metavar="FILE", help="JSON lines")
    replies.add_argument("--base-url", default="https://api.openai.com/v1", help="where a vendor's files come from")

    serve = commands.add_parser("serve", help="a teacher as an OpenAI-compatible endpoint, on this machine only")
    serve.set_defaults(command=_serve)
    serve.add_argument("name", help="a teacher's name, or smollm2 (by llama.cpp)")
    serve.add_argument("--task", default="voice-commands", help="the teacher's task")
    serve.add_argument("--port", type=int, default=0, help="default: any that is free")
    serve.add_argument("--widest", type=int, default=20, help="log-probabilities it gives at most")
    serve.add_argument("--fault", nargs="+", action="extend", default=[], metavar="KIND=SHARE", help="such as 500=0.1")
    return parser


def _count(text: str) -> int | None:
    """A whole number from 1, or None for all."""
    if text == "all":
        return None
    if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no count: give a whole number of at least 1, or all")
    return int(text)


def _dollars(text: str) -> float:
    """An amount above 0."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of dollars: give a number above 0, such as 2.50")
    return found


def _replies(options: argparse.Namespace) -> int:
    from workbench.hosted import exchange

    return exchange.command(options)


def _serve(options: argparse.Namespace) -> int:
    from workbench.hosted import serve

    return serve.command(options)


def _report(options: argparse.Namespace) -> int:
    from workbench.publish import report

    check_writable(data_dir())
    _check_cache()
    flags = {name: value for name, value in vars(options).items() if name in PARAMETERS}
    _check(flags, options.base_url, options.cap)
    if options.cap is not None:
        os.environ["WORKBENCH_CAP"] = str(options.cap)  # which the notebooks' processes inherit
    failed = report.run(flags=flags, budget=options.budget, only=options.only, update=options.update)
    return 1 if failed else 0


def _check(flags: dict[str, Any], base_url: str | None = None, cap: float | None = None) -> None:
    """Say what is wrong with them now, not in every notebook; make paths absolute, as notebooks run elsewhere."""
    name, teacher = flags.get("task_name"), flags.get("teacher_name", "")
    if name is None and any(column in flags for column in COLUMNS):
        raise WorkbenchError("Columns and labels are named of a file: give it too, with --task csv:<path>.")
    answers = teacher.startswith("answers:")
    if name is not None or answers:
        from workbench.tasks import load_task

        given = {key.removesuffix("_column"): flags[key] for key in (*COLUMNS, "labels_per_class") if key in flags}
        if name is not None:
            check_name("task", name)
            path = Path(os.path.expanduser(name[4:]))
            if name[4:] and (name.startswith("csv:") or (name.startswith("hub:") and os.path.exists(path))):
                flags["task_name"] = name = f"{name[:4]}{os.path.realpath(path)}"
            given["name"] = name
        task = load_task(**given)
    if teacher.startswith("hosted:"):
        if bool(base_url) == ("#" in teacher):
            raise WorkbenchError(f"The teacher {teacher} needs its place once: write hosted:MODEL and --base-url URL.")
        if base_url:
            flags["teacher_name"] = f"hosted:{base_url}#{teacher.removeprefix('hosted:')}"
        return
    for flag, value in (("--base-url", base_url), ("--cap", cap)):
        if value is not None:
            raise WorkbenchError(f"{flag} is about a model behind an API, and no such teacher is given: name it, with "
                                 f"--teacher hosted:MODEL, or leave {flag} out.")  # fmt: skip
    source = re.sub("^(finetune|answers|python):", "", teacher)
    if source and os.path.exists(source):
        flags["teacher_name"] = teacher = teacher.replace(source, str(Path(source).resolve()))
    elif "teacher_name" in flags and source == teacher and "/" not in teacher:
        from workbench.teachers import TEACHERS

        if teacher not in TEACHERS:
            raise unknown("teacher", teacher, TEACHERS)
    if answers:
        from workbench.teachers import load_teacher

        load_teacher(teacher, task).answered(task)


def _doctor(options: argparse.Namespace) -> int:
    from importlib import metadata

    from packaging.requirements import Requirement

    from workbench import weights
    from workbench.publish import report
    from workbench.store import versions

    mend = []
    made = versions()
    print(f"Python {made['python']} on {made['platform']}, in {sys.prefix}")
    try:
        needed = [Requirement(text) for text in metadata.requires("distillation-workbench") or []]
    except metadata.PackageNotFoundError:
        needed = []
        mend.append("the package is not installed: pip install -e .")
    for need in needed:
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            found = "missing"
        fits = found != "missing" and need.specifier.contains(found, prereleases=True)
        print(f"  {need.name} {found}" + ("" if fits else f", needs {need.specifier or 'any version'}"))
        if not fits:
            mend.append(f"{need.name} is {found}: pip install '{re.sub(' ', '', str(need))}'")

    import torch  # what is missing has been said by now

    print(f"Device: {report.device()}; {torch.get_num_threads()} threads for PyTorch")
    print("Weights:")
    for weight in weights.status():
        where = weight["path"] or "not fetched"
        print(f"  {weight['name']}: {weight['megabytes']} MB, {weight['licence']}, {where}")
        if not weight["path"]:
            name = weight["name"]
            mend.append(f"{name} is fetched on first use, or now: python -m workbench fetch {name}")
    folder = data_dir()
    here = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    free = shutil.disk_usage(here).free
    print(f"Data: {folder}, {_megabytes(free)} free")
    try:
        check_writable(folder)
        _check_cache()
        if free < 2e9:
            mend.append("little disk is free: python -m workbench prune, or set WORKBENCH_DATA to another disk")
        table = Store().runs()
        print(f"Store: {len(table)} entries, {_megabytes(table['bytes'].sum())}")
    except WorkbenchError as error:
        mend.append(str(error).rstrip("."))
    print("\n".join(["To mend:", *(f"  {line}" for line in mend)]) if mend else "Nothing is missing.")
    return 0


def _check_cache() -> None:
    """Raise unless the weights are there or can be put there."""
    from workbench import weights

    store = weights.cache()
    if not os.path.isdir(store.root) or len(store.list("weights")) < len(weights.WEIGHTS):
        check_writable(store.root, "WORKBENCH_CACHE")


def _megabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _fetch(options: argparse.Namespace) -> int:
    from workbench import weights

    _check_cache()
    for name in [options.name] if options.name else weights.WEIGHTS:
        print(f"{name}: {weights.fetch(name, source=options.source)}")
    return 0


def _runs(options: argparse.Namespace) -> int:
    import pandas

    store = Store()
    table = store.runs()
    if table.empty:
        check_writable(store.root)
        print(f"Nothing has been made in {store.root} yet.")
        return 0
    table["key"] = table["key"].str[:12]
    table["created"] = table["created"].dt.strftime("%Y-%m-%d %H:%M")
    width = shutil.get_terminal_size((110, 24)).columns
    with pandas.option_context("display.max_rows", None, "display.max_columns", 0, "display.width", width):
        print(table.drop(columns="path").to_string(index=False, max_cols=width // 14, max_colwidth=36))
    return 0


def _prune(options: argparse.Namespace) -> int:
    store = Store()
    check_writable(store.root)
    removed = store.prune(older_than_days=options.older_than_days, dry_run=options.dry_run)
    for folder in removed:
        print(folder)
    print(f"{len(removed)} folders {'would be' if options.dry_run else 'were'} removed.")
    if options.older_than_days is not None:
        for kind in sorted({entry.kind for entry in store.list()}):
            if store.held(kind):
                print(f"{kind} is in use by an open notebook or a run, and was left alone.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
