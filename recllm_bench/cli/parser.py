"""The commands and their arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recllm_bench import __version__
from recllm_bench.cli import listed, looking, running

FORMATS = ("text", "markdown", "latex", "csv", "json")

EPILOG = """\
first steps:
  recllm-bench run latentcrs ml-100k      train, evaluate and compare; needs no download
  recllm-bench list                       models, datasets, protocols and recipes by name
  recllm-bench describe ml-100k           a dataset before you bench it: lengths, popularity, text, does order matter
  recllm-bench doctor                     what is installed, which device is used, what is missing

environment:
  RECLLM_DATA_MIRROR   folder or URL tried before any download
  RECLLM_MODELS        folder in which language models are looked up first
  RECLLM_CACHE         downloads and artifacts (default .recllm)
  RECLLM_RESULTS       run records (default results)
  RECLLM_API_KEY       key of a chat model's server (else OPENAI_API_KEY)
  RECLLM_PRICES        file of prices of chat models: 'MODEL: {input: 1, output: 2}' for a million tokens
  RECLLM_TOKEN_BUDGET  most tokens of chat models on other machines, together; none is asked without it, -1: no limit
  RECLLM_BAD_LINES     share of lines of a large JSON source that may be bad and are skipped (default 0.001)
  HF_HUB_OFFLINE=1     fetch nothing from the hub
  OMP_NUM_THREADS      threads of a process; NO_COLOR=1: plain text
"""

DESCRIBE_EPILOG = """\
examples:
  recllm-bench describe ml-100k
  recllm-bench describe ml1m --filter latentcrs --json ml1m.json
  recllm-bench describe path/to/data.csv --filter users_min=5,items_min=5

The sequential-structure check fits a first-order Markov chain to the training part of a leave-one-out split and ranks
each user's last item, once from the true history and again from the history in random order. Where that makes hardly
any difference, expect little from a sequential model.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="recllm-bench",
        description="Does a language model make a recommender better, by how much, at what cost, and is it real?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"recllm-bench {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    run = _command(commands, "run", running.run, "train and evaluate a model, compare it, print one table")
    run.add_argument("model", nargs="?", help="name, recbole:Name, or package.module:Class (default latentcrs)")
    run.add_argument("dataset", nargs="?", help="name, atomic-file folder, or CSV/Parquet file (default ml-100k)")
    run.set_defaults(unnamed=("latentcrs", "ml-100k"))
    _cell_arguments(run)
    run.add_argument("--recipe", help="a recipe file or name, in place of MODEL and DATASET")
    run.add_argument("--alone", action="store_true", help="no rows to compare with")
    _quick_argument(run)
    _metrics_argument(run)
    _table_arguments(run)
    _track_argument(run)
    run.add_argument("--again", action="store_true", help="evaluate again even when a record exists")

    sweep = _command(commands, "sweep", running.sweep, "run every row of a sweep or ablation recipe, print one table")
    sweep.add_argument("recipe", help="a recipe file or name with 'rows'")
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="cells that run side by side (default 1)")
    _cell_arguments(sweep)
    _quick_argument(sweep)
    _track_argument(sweep)
    _table_arguments(sweep)

    compare = _command(
        commands,
        "compare",
        running.compare,
        "print the tables of the runs that exist, or hold two runs side by side",
    )
    compare.add_argument(
        "names",
        nargs="*",
        metavar="DATASET | RUN RUN",
        help="a dataset: only its tables; two runs (rows or folders of records): these in depth",
    )
    compare.add_argument("--dataset", default="", help="only this dataset")
    compare.add_argument("--protocol", default="", help="only this protocol")
    _metrics_argument(compare)
    compare.add_argument(
        "--markdown", dest="format", action="store_const", const="markdown", default="text", help="as --format markdown"
    )
    _table_arguments(compare)
    compare.add_argument(
        "--test", default="max-t", help="max-t (default), t, sign-flip, mcnemar or wilcoxon; see docs/statistics.md"
    )
    compare.add_argument("--results", type=Path, help="folder of run records (default results/runs)")

    plan = _command(commands, "plan", running.plan, "what difference a dataset, a protocol and so many seeds can tell")
    plan.add_argument("dataset", help="name or path")
    plan.add_argument("--protocol", default="unified.full", help="evaluation protocol (default unified.full)")
    plan.add_argument("--seeds", type=int, default=1, help="seeds of every row (default 1)")
    plan.add_argument("--rows", type=int, default=6, help="rows of the table (default 6)")
    plan.add_argument(
        "--deviation", type=float, default=0.05, help="standard deviation between seeds over the mean (default 0.05)"
    )
    plan.add_argument("--results", type=Path, help="folder of run records, for how models agree (default results/runs)")

    report = _command(commands, "report", running.report, "write one HTML page of the runs that exist")
    report.add_argument("--output", type=Path, help="file to write (default results/report.html)")
    report.add_argument("--results", type=Path, help="folder of run records (default results/runs)")
    _row_arguments(report)

    serve = _command(
        commands, "serve", looking.serve, "serve the page of a folder of results that grow, to this machine"
    )
    serve.add_argument("folder", nargs="?", type=Path, help="folder of run records (default results/runs)")
    serve.add_argument("--port", type=int, default=8008, help="port on 127.0.0.1; 0 takes a free one (default 8008)")

    share = _command(
        commands, "share", looking.share, "copy run records without the dataset's own content, to publish them"
    )
    share.add_argument("runs", nargs="+", type=Path, help="folders of run records")
    share.add_argument(
        "--to", type=Path, default=Path("results/reference"), help="where to (default results/reference)"
    )

    verify = _command(
        commands, "verify", looking.verify, "repeat a run and say whether it agrees; check records and the cache"
    )
    verify.add_argument(
        "runs",
        nargs="*",
        type=Path,
        help="records, which are checked and run again; or folders of them, which are checked alone (default "
        "results/runs)",
    )
    verify.add_argument("--files", action="store_true", help="only check that records are as they were written")
    verify.add_argument("--cache", action="store_true", help="hash every file of every product in the cache instead")
    verify.add_argument("--repair", action="store_true", help="with --cache: set aside what is damaged")

    why = _command(commands, "why", looking.why, "what a run record depends on, and what has changed since")
    why.add_argument("runs", nargs="+", type=Path, help="folders of run records")

    show = _command(
        commands, "show", looking.show, "one user of a run: history, what was wanted and said, what came of it"
    )
    show.add_argument("run", help="folder of a run record, or the beginning of its name under results/runs")
    show.add_argument("--user", type=int, default=1, help="which user (1 is the first of the data)")

    prepare = _command(commands, "prepare", looking.prepare, "prepare a dataset and check it against its card")
    prepare.add_argument("dataset", help="name or path")
    prepare.add_argument("--filter", default="", help="one filter of the card (default: all of them)")
    prepare.add_argument(
        "--no-text", dest="text", action="store_false", help="leave the text of reviews until something asks for it"
    )
    prepare.add_argument(
        "--bad-lines",
        type=float,
        metavar="SHARE",
        help="share of lines of a large JSON source that may be bad (default RECLLM_BAD_LINES, or 0.001)",
    )

    prepare.add_argument(
        "--again", action="store_true", help="ask the owners of files without a checksum, and fetch what has changed"
    )

    describe = _command(
        commands, "describe", looking.describe, "what a dataset looks like: counts, shapes, text, order"
    )
    describe.add_argument("dataset", help="name or path")
    describe.add_argument("--filter", default="all", help="a filter of its card, or min_rating=4,... (default all)")
    describe.add_argument("--json", type=Path, metavar="FILE", help="write every number to this file as well")
    describe.add_argument("--seed", type=int, default=42, help="seed of the shuffles (default 42)")
    describe.epilog = DESCRIBE_EPILOG
    describe.formatter_class = argparse.RawDescriptionHelpFormatter

    datasets = _command(
        commands, "datasets", looking.datasets, "every dataset known: size, prepared or not, files, licence"
    )
    datasets.add_argument("names", nargs="*", metavar="NAME", help="only datasets with this in their name or title")
    datasets.add_argument("--all", action="store_true", help="every category of a template on its own line")

    evaluate = _command(commands, "evaluate", running.evaluate, "evaluate a released checkpoint")
    evaluate.add_argument("--checkpoint", required=True, type=Path, help="a released ICLRec state file (.pt)")
    evaluate.add_argument("--dataset", required=True, help="name or path")
    evaluate.add_argument("--model", default="iclrec", help="whose class reads the checkpoint (default iclrec)")
    evaluate.add_argument("--protocol", default="iclrec.released", help="evaluation protocol")
    _metrics_argument(evaluate)
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")

    chat = _command(commands, "chat", running.chat, "talk with a recommender: any model ranks, your words filter")
    chat.add_argument("model", nargs="?", default="latentcrs")
    chat.add_argument("dataset", nargs="?", default="ml-100k")
    chat.add_argument("--user", default="", help="whose history it knows: the data's own id (default: the first user)")
    chat.add_argument("--history", default="", metavar="TITLES", help="your own history instead: 'title, title'")
    chat.add_argument("--items", type=int, default=5, help="items of a list (default 5)")
    chat.add_argument("--no-filter", dest="filter", action="store_false", help="the model alone: nothing is filtered")
    _cell_arguments(chat, seeds=1, llm="chat model that words answers, never their facts: smollm2, server:MODEL@URL")

    listing = _command(commands, "list", listed.listing, "what is known by name, with a line about each")
    listing.add_argument("what", nargs="?", choices=tuple(listed.KINDS), help="only this kind")
    explain = _command(commands, "options", looking.model_options, "the options of a model, with defaults")
    explain.add_argument("model")
    _command(commands, "doctor", looking.doctor, "what is installed, which device is used, what is missing")
    return parser


def _command(commands: Any, name: str, function: Any, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.set_defaults(command=function)
    return parser


def _track_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--track", metavar="LIST", help="hand the runs to tensorboard, mlflow, wandb, where installed")


def _row_arguments(parser: argparse.ArgumentParser) -> None:
    row = "by its name in the table, its record's folder, or its model's name"
    parser.add_argument(
        "--subject", default="", metavar="ROW", help=f"what the table is about (default: the best method), {row}"
    )
    parser.add_argument(
        "--baseline", default="best", metavar="ROW", help=f"what all rows are held against (default: the best), {row}"
    )


def _table_arguments(parser: argparse.ArgumentParser) -> None:
    _row_arguments(parser)
    parser.add_argument("--format", choices=FORMATS, default="text", help="how the table is written (default text)")
    parser.add_argument(
        "--cost",
        metavar="LIST",
        help="columns of cost: parameters, training, evaluation, memory, tokens, latency, price; all or none "
        "(default training)",
    )
    parser.add_argument(
        "--prices", type=Path, metavar="FILE", help="prices of language models, 'MODEL: {input: 1, output: 2}'"
    )
    parser.add_argument("--verbose", action="store_true", help="show the workings that methods count, too")


def _quick_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--quick",
        type=int,
        nargs="?",
        const=2,
        default=0,
        metavar="PASSES",
        help="a first look: at most this many passes over the data in every training of every row (2)",
    )


def _metrics_argument(parser: argparse.ArgumentParser) -> None:
    help = "print these of the same ranks: NDCG,Recall@5,my.metrics:novelty (default: the protocol's)"
    parser.add_argument("--metrics", metavar="LIST", help=help)


_LLM = "language model of every row that has one: smollm2, a folder, a name under RECLLM_MODELS, a hub id"


def _cell_arguments(parser: argparse.ArgumentParser, seeds: int | str = "+", llm: str = _LLM) -> None:
    parser.add_argument("--protocol", default="", help="evaluation protocol (default: the model's own)")
    several = "; several run every row once for each and show means" if seeds == "+" else ""
    parser.add_argument("--seed", type=int, nargs=seeds, default=[], help=f"seed of all chance (default 42){several}")
    parser.add_argument("--device", default="", help="auto, cpu, cuda, cuda:N (default auto)")
    parser.add_argument("--llm", default="", help=llm)
    parser.add_argument("--backend", default="", help="recommender under a model that takes one, such as gru4rec")
    parser.add_argument(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change a recipe value: training.epochs=20, conversation.users=100, or a model option intents=64",
    )
