"""Commands that look, check and prepare. What costs time is imported inside the command that needs it."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from recllm_bench.errors import BenchError


def share(options: argparse.Namespace) -> None:
    from recllm_bench.reporting.sharing import share_record

    for folder in options.runs:
        print(share_record(folder, options.to))


def serve(options: argparse.Namespace) -> None:
    from recllm_bench.locations import results_folder
    from recllm_bench.reporting.serving import serve

    serve(options.folder or results_folder() / "runs", options.port, lambda line: print(line, flush=True))


def verify(options: argparse.Namespace) -> None:
    from recllm_bench.checking import check_cache, check_records, repeated

    if options.repair and not options.cache:
        raise BenchError("--repair belongs to --cache; a run record is mended by the 'recllm-bench run' that made it")
    if options.cache and options.runs:
        raise BenchError("--cache checks the cache, not run records; give one or the other")
    for line in check_cache(options.repair) if options.cache else check_records(options.runs):
        print(line, flush=True)
    if options.runs and not options.files and all((folder / "run.json").exists() for folder in options.runs):
        _each(repeated, options.runs)


def _each(command: Callable[[Path], Iterator[str]], folders: Sequence[Path]) -> None:
    """Print what a command says of each record; one that fails does not stop the others."""
    failed = []
    for folder in folders:
        try:
            for line in command(folder):
                print(line, flush=True)
        except BenchError as error:
            failed.append(str(error))
            if len(folders) > 1:
                print(f"failed  {folder}: {error}", flush=True)
    if failed:
        raise BenchError(
            failed[0] if len(folders) == 1 else f"{len(failed)} of {len(folders)} records were not repeated"
        )


def why(options: argparse.Namespace) -> None:
    from recllm_bench.checking import record_folders
    from recllm_bench.reporting.dependence import why
    from recllm_bench.reporting.records import read_record
    from recllm_bench.rows import present_dependencies

    print("\n\n".join(why(read_record(folder), present_dependencies) for folder in record_folders(options.runs)))


def show(options: argparse.Namespace) -> None:
    from recllm_bench.checking import record_named
    from recllm_bench.reporting.case import show_case

    print(show_case(record_named(options.run), options.user))


def prepare(options: argparse.Namespace) -> None:
    from recllm_bench.data.cards import default_store
    from recllm_bench.data.interactions import NothingLeft
    from recllm_bench.data.prepare import filter_names, format_check, prepare

    if options.again:
        from recllm_bench.data.origins import ask_owners

        asked = ask_owners(options.dataset, default_store())
        print("\n".join(asked) or f"{options.dataset}: the cache holds no download without a checksum to ask about")
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


def describe(options: argparse.Namespace) -> None:
    from recllm_bench.data.cards import default_store
    from recllm_bench.data.dataset_description import describe
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


def datasets(options: argparse.Namespace) -> None:
    from recllm_bench.data.listing import dataset_table, listed_datasets

    columns = shutil.get_terminal_size((0, 24)).columns  # in a file nothing is left out
    print(dataset_table(listed_datasets(options.names, every=options.all), columns))


def model_options(options: argparse.Namespace) -> None:
    from recllm_bench.planning import settable

    for title, rows in settable(options.model):
        print(title)
        for name, default, text in rows:
            print(f"  {name} = {default}" + (f"\n      {text}" if text else ""))
        print()


def doctor(options: argparse.Namespace) -> None:
    from recllm_bench.doctor import report

    print(report())
