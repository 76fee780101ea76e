"""The command line. Every import that costs time happens inside the command that needs it."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recllm_bench import __version__
from recllm_bench.errors import BenchError

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
  RECLLM_API_KEY       key of a chat model's server
  RECLLM_BAD_LINES     share of lines of a large JSON source that may be bad and are skipped (default 0.001)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0 when all went well, 2 after a user's mistake, 130 after Ctrl-C or kill.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "command"):
        parser.print_help()
        return 0
    from recllm_bench.data.cards import hide_card_folder
    from recllm_bench.progress import show_log

    hide_card_folder()
    show_log()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # kill stops it as Ctrl-C does: no half line stays
    try:
        if options.command in NEED_RECBOLE:
            _require_recbole()
        options.command(options)
    except BenchError as error:
        return _refuse(_damaged_product(error) or str(error))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        names = error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
        hint = "no such file can be; check the name" if names else "check space and permissions, then repeat"
        return _refuse(f"{place}{error.strerror or error}; {hint}")
    except Exception as error:
        said = _damaged_product(error) or _memory(error)
        if not said:
            raise
        return _refuse(said)
    return 0


def _refuse(message: str) -> int:
    """Print why a command stops, as one line; a word too long to read, such as a wrong argument, is cut."""
    line = re.sub(r"\S{300,}", lambda word: f"{word[0][:80]}...", " ".join(message.splitlines()))
    print(f"error: {line}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
    return 2


def _memory(error: Exception) -> str:
    """What to say when memory did not suffice; empty for an error of another kind."""
    text = str(error)
    if isinstance(error, MemoryError) or "allocate" in text or "out of memory" in text:
        return f"the memory does not suffice ({' '.join(text.split())[:200]}); make sizes or batches smaller"
    return ""


def _damaged_product(error: Exception) -> str:
    """What to say when a product that was read proves damaged; empty for an error of another kind."""
    from recllm_bench.artifacts import set_aside_culprit

    return set_aside_culprit(error)


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

    run = _command(commands, "run", _run, "train and evaluate a model, compare it, print one table")
    run.add_argument("model", nargs="?", default="latentcrs", help="name, recbole:Name, or package.module:Class")
    run.add_argument("dataset", nargs="?", default="ml-100k", help="name, atomic-file folder, or CSV/Parquet file")
    _cell_arguments(run)
    run.add_argument("--recipe", help="a recipe file or name; MODEL and DATASET then come from it")
    run.add_argument("--alone", action="store_true", help="no rows to compare with")
    run.add_argument(
        "--quick",
        type=int,
        nargs="?",
        const=2,
        default=0,
        metavar="PASSES",
        help="a first look: at most this many passes over the data in every training of every row (2)",
    )
    _metrics_argument(run)
    run.add_argument("--again", action="store_true", help="evaluate again even when a record exists")

    sweep = _command(commands, "sweep", _sweep, "run every row of a sweep or ablation recipe, print one table")
    sweep.add_argument("recipe", help="a recipe file or name with 'rows'")
    _cell_arguments(sweep)

    compare = _command(commands, "compare", _compare, "print the table of the runs that exist")
    compare.add_argument("dataset", nargs="?", help="only this dataset")
    compare.add_argument("--protocol", default="", help="only this protocol")
    _metrics_argument(compare)
    compare.add_argument("--markdown", action="store_true", help="print Markdown")
    compare.add_argument("--subject", default="", metavar="ROW", help="the row that the table is about")
    compare.add_argument("--baseline", default="best", metavar="ROW", help="hold all rows against this one")
    compare.add_argument(
        "--test", default="max-t", help="max-t (default), t, sign-flip, mcnemar or wilcoxon; see docs/statistics.md"
    )
    compare.add_argument("--results", type=Path, help="folder of run records (default results/runs)")

    plan = _command(commands, "plan", _plan, "what difference a dataset, a protocol and so many seeds can tell")
    plan.add_argument("dataset", help="name or path")
    plan.add_argument("--protocol", default="unified.full", help="evaluation protocol (default unified.full)")
    plan.add_argument("--seeds", type=int, default=1, help="seeds of every row (default 1)")
    plan.add_argument("--rows", type=int, default=6, help="rows of the table (default 6)")
    plan.add_argument(
        "--deviation", type=float, default=0.05, help="standard deviation between seeds over the mean (default 0.05)"
    )
    plan.add_argument("--results", type=Path, help="folder of run records, for how models agree (default results/runs)")

    report = _command(commands, "report", _report, "write one HTML page of the runs that exist")
    report.add_argument("--output", type=Path, help="file to write (default results/report.html)")
    report.add_argument("--results", type=Path, help="folder of run records (default results/runs)")

    share = _command(commands, "share", _share, "copy run records without the dataset's own content, to publish them")
    share.add_argument("runs", nargs="+", type=Path, help="folders of run records")
    share.add_argument(
        "--to", type=Path, default=Path("results/reference"), help="where to (default results/reference)"
    )

    verify = _command(commands, "verify", _verify, "check run records, or the cache, against what was written")
    verify.add_argument("runs", nargs="*", type=Path, help="run records, or folders of them (default results/runs)")
    verify.add_argument("--cache", action="store_true", help="hash every file of every product in the cache instead")
    verify.add_argument("--repair", action="store_true", help="with --cache: set aside what is damaged")

    why = _command(commands, "why", _why, "what a run record depends on, and what has changed since")
    why.add_argument("runs", nargs="+", type=Path, help="folders of run records")

    prepare = _command(commands, "prepare", _prepare, "prepare a dataset and check it against its card")
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

    describe = _command(commands, "describe", _describe, "what a dataset looks like: counts, shapes, text, order")
    describe.add_argument("dataset", help="name or path")
    describe.add_argument("--filter", default="all", help="a filter of its card, or min_rating=4,... (default all)")
    describe.add_argument("--json", type=Path, metavar="FILE", help="write every number to this file as well")
    describe.add_argument("--seed", type=int, default=42, help="seed of the shuffles (default 42)")
    describe.epilog = DESCRIBE_EPILOG
    describe.formatter_class = argparse.RawDescriptionHelpFormatter

    datasets = _command(commands, "datasets", _datasets, "every dataset known: size, prepared or not, files, licence")
    datasets.add_argument("names", nargs="*", metavar="NAME", help="only datasets with this in their name or title")
    datasets.add_argument("--all", action="store_true", help="every category of a template on its own line")

    evaluate = _command(commands, "evaluate", _evaluate, "evaluate a released checkpoint")
    evaluate.add_argument("--checkpoint", required=True, type=Path, help="a released ICLRec state file (.pt)")
    evaluate.add_argument("--dataset", required=True, help="name or path")
    evaluate.add_argument("--model", default="iclrec", help="whose class reads the checkpoint (default iclrec)")
    evaluate.add_argument("--protocol", default="iclrec.released", help="evaluation protocol")
    _metrics_argument(evaluate)
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")

    chat = _command(commands, "chat", _chat, "talk with a trained conversational model")
    chat.add_argument("model", nargs="?", default="latentcrs")
    chat.add_argument("dataset", nargs="?", default="ml-100k")
    chat.add_argument("--user", type=int, default=1, help="whose history it knows (1 is the first user)")
    _cell_arguments(chat, seeds=1)

    listing = _command(commands, "list", _list, "what is known by name")
    listing.add_argument(
        "what",
        nargs="?",
        choices=("models", "datasets", "protocols", "metrics", "recipes", "zoo"),
        help="only this kind",
    )
    explain = _command(commands, "options", _options, "the options of a model, with defaults")
    explain.add_argument("model")
    _command(commands, "doctor", _doctor, "what is installed, which device is used, what is missing")
    return parser


def _command(commands: Any, name: str, function: Any, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.set_defaults(command=function)
    return parser


def _metrics_argument(parser: argparse.ArgumentParser) -> None:
    help = "print these of the same ranks: NDCG,Recall@5,my.metrics:novelty (default: the protocol's)"
    parser.add_argument("--metrics", metavar="LIST", help=help)


def _metric_names(options: argparse.Namespace) -> list[str]:
    """What ``--metrics`` asks for, refused before anything is trained; empty without it."""
    if options.metrics is None:
        return []
    from recllm_bench.reporting.chosen_metrics import metric_names

    return metric_names(options.metrics)


def _cell_arguments(parser: argparse.ArgumentParser, seeds: int | str = "+") -> None:
    parser.add_argument("--protocol", default="", help="evaluation protocol (default: the model's own)")
    several = "; several run every row once for each and show means" if seeds == "+" else ""
    parser.add_argument("--seed", type=int, nargs=seeds, default=[], help=f"seed of all chance (default 42){several}")
    parser.add_argument("--device", default="", help="auto, cpu, cuda, cuda:N (default auto)")
    parser.add_argument(
        "--llm",
        default="",
        help="language model of every row that has one: a folder, a name under RECLLM_MODELS, a hub id",
    )
    parser.add_argument("--backend", default="", help="recommender under a model that takes one, such as gru4rec")
    parser.add_argument(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change a recipe value: training.epochs=20, conversation.users=100, or a model option intents=64",
    )


def _settings(options: argparse.Namespace) -> list[str]:
    settings = [setting for group in options.set for setting in group]
    settings += [f"{name}={value}" for name in ("llm", "backend") if (value := getattr(options, name))]
    if options.device:
        settings.append(f"device={options.device}")
    if getattr(options, "quick", 0):
        settings.append(f"quick={options.quick}")
    return settings


def _values(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from recllm_bench.planning import recipe_values
    from recllm_bench.recipe import override, read_recipe_file

    if getattr(options, "recipe", None) is not None:
        values, where = read_recipe_file(options.recipe), options.recipe
        if options.protocol:
            values["protocol"] = options.protocol
    else:
        values = recipe_values(options.model, options.dataset, options.protocol)
        where = f"{options.model} on {options.dataset}"
    return override(values, _settings(options)), where


def _seeded(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """The recipe's values, once for each seed asked for."""
    from recllm_bench.recipe import under_seeds

    values, where = _values(options)
    return under_seeds(values, where, options.seed), where


def _run(options: argparse.Namespace) -> None:
    from recllm_bench.planning import comparison_recipes
    from recllm_bench.runner import run_cells

    each, where = _seeded(options)
    if options.alone:
        each = [{**values, "compare": []} for values in each]
    cells = [cell for values in each for cell in comparison_recipes(values, where)]
    metrics = _metric_names(options)
    finished = run_cells(cells, again=options.again)
    asked = {recipe.hash() for label, recipe in cells if not label}
    _print_table(finished.folders, metrics, asked, finished.failures)


def _sweep(options: argparse.Namespace) -> None:
    from recllm_bench.planning import sweep_recipes
    from recllm_bench.runner import run_cells

    each, where = _seeded(options)
    recipes = [cell for values in each for cell in sweep_recipes(values, where)]
    table = str(each[0].get("published") or "")
    if table:
        from recllm_bench.reporting.ablation import ablation_table, check_table

        check_table(table)
    finished = run_cells(recipes)
    folders = finished.folders
    _print_table(folders, failures=finished.failures)
    if table:
        from recllm_bench.reporting.records import read_record
        from recllm_bench.reporting.seeds import over_seeds

        variants = [str(row.get("published") or "") for row in each[0]["rows"]]
        records = over_seeds([read_record(folder) for folder in folders])
        print("\n" + ablation_table(records, variants, table, colour=sys.stdout.isatty()))


def _print_table(
    folders: Sequence[Path],
    metrics: Sequence[str] = (),
    asked: Collection[str] = (),
    failures: Sequence[tuple[str, str]] = (),
) -> None:
    """The table of some records; it is about the one whose recipe was asked for."""
    from recllm_bench.reporting.records import read_record

    records = [read_record(folder) for folder in folders]
    subject = next((record.name for record in records[::-1] if record.recipe_hash in asked), "")
    print(_table(records, metrics, subject=subject, failures=failures))


def _table(records: Sequence[Any], metrics: Sequence[str], **choices: Any) -> str:
    from recllm_bench.reporting.table import comparison_table

    columns = None
    if metrics and records:
        from recllm_bench.reporting.chosen_metrics import with_metrics

        records, columns = with_metrics(records, metrics)
    return comparison_table(records, metrics=columns, colour=sys.stdout.isatty(), **choices)


def _existing(folder: Path | None) -> list[Any]:
    """Every run record below a folder, in the order they were made."""
    from recllm_bench.locations import results_folder
    from recllm_bench.reporting.records import find_records
    from recllm_bench.reporting.verification import whole_records

    root = folder or results_folder() / "runs"
    folders = find_records(root)
    if not folders:
        raise BenchError(f"{root} holds no run records; make one with 'recllm-bench run'")
    records = whole_records(folders)
    if not records:
        raise BenchError(f"none of the {len(folders)} run records in {root} is whole; see 'recllm-bench verify'")
    return sorted(records, key=_made)


def _made(record: Any) -> str:
    return record.created


def _compare(options: argparse.Namespace) -> None:
    metrics = _metric_names(options)
    records = _existing(options.results)
    if options.dataset:
        from recllm_bench.data.prepare import canonical_name

        name = canonical_name(options.dataset)
        records = [record for record in records if record.recipe["dataset"] == name]
    if options.protocol:
        records = [record for record in records if record.recipe["protocol"] == options.protocol]
    if not records:
        raise BenchError("no run record matches; see them all with 'recllm-bench compare'")
    choices = {"subject": options.subject, "test": options.test, "markdown": options.markdown}
    print(_table(records, metrics, baseline=options.baseline, **choices))


def _report(options: argparse.Namespace) -> None:
    from recllm_bench.locations import results_folder
    from recllm_bench.reporting.html import write_report

    records = _existing(options.results)
    output = options.output or results_folder() / "report.html"
    write_report(records, output)
    print(f"wrote {output}")


def _plan(options: argparse.Namespace) -> None:
    from recllm_bench.data.cards import default_store
    from recllm_bench.data.prepare import prepare
    from recllm_bench.data.splits import split_named
    from recllm_bench.evaluation.candidates import evaluated_cases
    from recllm_bench.evaluation.power import AGREEMENT, Plan
    from recllm_bench.evaluation.protocols import protocol_named
    from recllm_bench.locations import results_folder
    from recllm_bench.reporting.plan import measured_agreement, plan_table
    from recllm_bench.reporting.records import find_records
    from recllm_bench.reporting.verification import whole_records

    protocol = protocol_named(options.protocol)
    prepared = prepare(options.dataset, filter=protocol.filter, store=default_store())
    split = split_named(protocol.split, prepared.histories, **dict(protocol.split_params))
    users = len(set(evaluated_cases(split.test, protocol).users.tolist()))
    place = (prepared.name, protocol.fingerprint())
    known = whole_records(find_records(options.results or results_folder() / "runs"))
    known = sorted((each for each in known if (each.dataset.get("name"), each.fingerprint) == place), key=_made)
    agreement, pairs = measured_agreement(known)
    plan = Plan(users, options.rows, options.seeds, options.deviation, agreement if pairs else AGREEMENT)
    print(plan_table(f"{prepared.name} · {protocol.name}", plan, pairs))


def _share(options: argparse.Namespace) -> None:
    from recllm_bench.reporting.sharing import share_record

    for folder in options.runs:
        print(share_record(folder, options.to))


def _verify(options: argparse.Namespace) -> None:
    from recllm_bench.checking import check_cache, check_records

    if options.repair and not options.cache:
        raise BenchError("--repair belongs to --cache; a run record is mended by the 'recllm-bench run' that made it")
    if options.cache and options.runs:
        raise BenchError("--cache checks the cache, not run records; give one or the other")
    for line in check_cache(options.repair) if options.cache else check_records(options.runs):
        print(line)


def _why(options: argparse.Namespace) -> None:
    from recllm_bench.checking import record_folders
    from recllm_bench.reporting.dependence import why
    from recllm_bench.reporting.records import read_record
    from recllm_bench.runner import present_dependencies

    print("\n\n".join(why(read_record(folder), present_dependencies) for folder in record_folders(options.runs)))


def _prepare(options: argparse.Namespace) -> None:
    from recllm_bench.data.cards import default_store
    from recllm_bench.data.interactions import NothingLeft
    from recllm_bench.data.prepare import filter_names, format_check, prepare

    for name in [options.filter] if options.filter else filter_names(options.dataset):
        try:
            prepared = prepare(options.dataset, filter=name, store=default_store(), most_bad=options.bad_lines)
        except NothingLeft as error:
            if options.filter:
                raise
            print(f"{error}\n")  # the other filters are no worse for it
            continue
        print(format_check(prepared))
        if options.text and (reviews := prepared.reviews()) is not None:
            print(f"  review text of {len(reviews):,} interactions is ready")
        print()


def _describe(options: argparse.Namespace) -> None:
    from recllm_bench.data.cards import default_store
    from recllm_bench.data.description import describe
    from recllm_bench.data.prepare import prepare
    from recllm_bench.reporting.description import format_description, write_description

    if options.seed < 0:
        raise BenchError(f"--seed must be 0 or more, got {options.seed}")
    if options.json and options.json.is_dir():
        raise BenchError(f"--json names a file, but {options.json} is a folder; write {options.json}/NAME.json")
    found = describe(prepare(options.dataset, filter=options.filter, store=default_store()), seed=options.seed)
    print(format_description(found))
    if options.json:
        write_description(found, options.json)
        print(f"wrote {options.json}")


def _datasets(options: argparse.Namespace) -> None:
    from recllm_bench.data.listing import dataset_table, listed_datasets

    print(dataset_table(listed_datasets(options.names, every=options.all)))


def _evaluate(options: argparse.Namespace) -> None:
    from recllm_bench.runner import evaluate_checkpoint

    place, metrics = options.device, _metric_names(options)
    print(evaluate_checkpoint(options.model, options.checkpoint, options.dataset, options.protocol, place, metrics))


def _chat(options: argparse.Namespace) -> None:
    from recllm_bench.planning import resolved
    from recllm_bench.recipe import recipe_from
    from recllm_bench.runner import chat

    (values, *_), where = _seeded(options)
    values.pop("compare", None)
    chat(resolved(recipe_from(values, where)), options.user)


def _list(options: argparse.Namespace) -> None:
    from recllm_bench.api import registry

    if options.what in (None, "models"):
        print("models of this bench and of plug-ins\n  " + "  ".join(registry.names("models")))
    if options.what in (None, "zoo"):
        print("RecBole's zoo (by name, or recbole:Name)\n  " + "  ".join(registry.zoo_names()))
    if options.what in (None, "datasets"):
        from recllm_bench.data.listing import dataset_table, listed_datasets

        print("datasets\n" + dataset_table(listed_datasets()))
    if options.what in (None, "protocols"):
        from recllm_bench.evaluation.protocols import protocol_lines

        _print_lines("protocols", protocol_lines())
    if options.what in (None, "metrics"):
        from recllm_bench.evaluation.metrics import metric_lines

        _print_lines("metrics", metric_lines())
    if options.what in (None, "recipes"):
        from recllm_bench.recipe import recipe_names

        print("recipes\n  " + "  ".join(recipe_names()))


def _print_lines(title: str, rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    print("\n".join([title, *(f"  {name:<{width}}  {about}".rstrip() for name, about in rows)]))


def _options(options: argparse.Namespace) -> None:
    from recllm_bench.planning import settable

    for title, rows in settable(options.model):
        print(title)
        for name, default, text in rows:
            print(f"  {name} = {default}" + (f"\n      {text}" if text else ""))
        print()


def _doctor(options: argparse.Namespace) -> None:
    from recllm_bench.doctor import report

    print(report())


NEED_RECBOLE = (_run, _sweep, _evaluate, _chat, _options)
"""Commands that name a model: without RecBole they say at once how to get it, not after data was prepared."""


def _require_recbole() -> None:
    if find_spec("recbole") is None:
        from recllm_bench.recbole_bridge import load_recbole

        load_recbole()


if __name__ == "__main__":
    sys.exit(main())
