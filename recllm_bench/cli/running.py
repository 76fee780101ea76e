"""Commands that train, evaluate and compare. What costs time is imported inside the command that needs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError


def _settings(options: argparse.Namespace) -> list[str]:
    settings = [setting for group in options.set for setting in group]
    settings += [f"{name}={value}" for name in ("llm", "backend") if (value := getattr(options, name))]
    if options.device:
        settings.append(f"device={options.device}")
    if getattr(options, "quick", 0):
        settings.append(f"quick={options.quick}")
    return settings


def _values(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from recllm_bench.api.modules import load_modules
    from recllm_bench.planning import recipe_values
    from recllm_bench.recipe import override, read_recipe_file

    load_modules(override({}, _settings(options)).get("modules") or ())  # they may define what is named here
    if getattr(options, "recipe", None) is not None:
        values, where = read_recipe_file(options.recipe), options.recipe
        if options.protocol:
            values["protocol"] = options.protocol
    else:
        values = recipe_values(options.model, options.dataset, options.protocol, options.llm)
        where = f"{options.model} on {options.dataset}"
    return override(values, _settings(options)), where


def seeded(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """The recipe's values, once for each seed asked for."""
    from recllm_bench.recipe import under_seeds

    values, where = _values(options)
    return under_seeds(values, where, options.seed), where


def run(options: argparse.Namespace) -> None:
    from recllm_bench.planning import comparison_recipes
    from recllm_bench.rows import run_cells

    each, where = seeded(options)
    if options.alone:
        each = [{**values, "compare": []} for values in each]
    cells = [cell for values in each for cell in comparison_recipes(values, where)]
    metrics = _metric_names(options)
    finished = run_cells(cells, again=options.again)
    asked = {recipe.hash() for label, recipe in cells if not label}
    _print_table(finished.folders, metrics, asked, failures=finished.failures, **_held(options))
    if finished.refused:
        raise BenchError(finished.refused)


def sweep(options: argparse.Namespace) -> None:
    from recllm_bench.planning import sweep_recipes
    from recllm_bench.rows import run_cells

    each, where = seeded(options)
    recipes = [cell for values in each for cell in sweep_recipes(values, where)]
    table = str(each[0].get("published") or "")
    if table:
        from recllm_bench.reporting.ablation import ablation_table, check_table

        check_table(table)
    finished = run_cells(recipes)
    folders = finished.folders
    _print_table(folders, failures=finished.failures, **_held(options))
    if table:
        from recllm_bench.reporting.records import read_record
        from recllm_bench.reporting.seeds import over_seeds

        variants = [str(row.get("published") or "") for row in each[0]["rows"]]
        records = over_seeds([read_record(folder) for folder in folders])
        print("\n" + ablation_table(records, variants, table, colour=sys.stdout.isatty()))


def evaluate(options: argparse.Namespace) -> None:
    from recllm_bench.released import evaluate_checkpoint

    place, metrics = options.device, _metric_names(options)
    print(evaluate_checkpoint(options.model, options.checkpoint, options.dataset, options.protocol, place, metrics))


def chat(options: argparse.Namespace) -> None:
    from recllm_bench.planning import resolved
    from recllm_bench.recipe import recipe_from
    from recllm_bench.talk import talk

    wording, options.llm = options.llm, ""  # it words answers here, and is no option of the model
    (values, *_), where = seeded(options)
    values.pop("compare", None)
    recipe = resolved(recipe_from(values, where))
    talk(recipe, options.user, options.history, llm=wording, shown=options.items, filters=options.filter)


def _held(options: argparse.Namespace) -> dict[str, str]:
    """Which row a table is about, and against which one."""
    return {"subject": options.subject, "baseline": options.baseline}


def _print_table(
    folders: Sequence[Path],
    metrics: Sequence[str] = (),
    asked: Collection[str] = (),
    **choices: Any,
) -> None:
    """The table of some records; it is about the one whose recipe was asked for."""
    from recllm_bench.reporting.records import read_record
    from recllm_bench.reporting.subject import compared_as, row_key

    records = [read_record(folder) for folder in folders]
    if not choices["subject"]:
        own = next((row for row, record in enumerate(records) if record.recipe_hash in asked), None)
        choices["subject"] = "" if own is None else row_key(records[compared_as(records, own)])
    print(_table(records, metrics, **choices))


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


def compare(options: argparse.Namespace) -> None:
    records = _existing(options.results)  # first: the files of the user's own that they name may define metrics
    metrics = _metric_names(options)
    if options.dataset:
        from recllm_bench.data.prepare import canonical_name

        name = canonical_name(options.dataset)
        records = [record for record in records if record.recipe["dataset"] == name]
    if options.protocol:
        records = [record for record in records if record.recipe["protocol"] == options.protocol]
    if not records:
        raise BenchError("no run record matches; see them all with 'recllm-bench compare'")
    print(_table(records, metrics, test=options.test, markdown=options.markdown, **_held(options)))


def report(options: argparse.Namespace) -> None:
    from recllm_bench.locations import results_folder
    from recllm_bench.reporting.html import write_report

    records = _existing(options.results)
    output = options.output or results_folder() / "report.html"
    write_report(records, output)
    print(f"wrote {output}")


def plan(options: argparse.Namespace) -> None:
    from recllm_bench.conversation.real_users import evaluated_data
    from recllm_bench.data.cards import default_store
    from recllm_bench.evaluation.candidates import evaluated_cases
    from recllm_bench.evaluation.power import AGREEMENT, Plan
    from recllm_bench.evaluation.protocols import protocol_named
    from recllm_bench.locations import results_folder
    from recllm_bench.reporting.plan import measured_agreement, plan_table
    from recllm_bench.reporting.records import find_records
    from recllm_bench.reporting.verification import whole_records

    protocol = protocol_named(options.protocol)
    prepared, split = evaluated_data(options.dataset, protocol, default_store())
    users = len(set(evaluated_cases(split.test, protocol).users.tolist()))
    place = (prepared.name, protocol.fingerprint())
    known = whole_records(find_records(options.results or results_folder() / "runs"))
    known = sorted((each for each in known if (each.dataset.get("name"), each.fingerprint) == place), key=_made)
    agreement, pairs = measured_agreement(known)
    plan = Plan(users, options.rows, options.seeds, options.deviation, agreement if pairs else AGREEMENT)
    print(plan_table(f"{prepared.name} · {protocol.name}", plan, pairs))


def _metric_names(options: argparse.Namespace) -> list[str]:
    """What ``--metrics`` asks for, refused before anything is trained; empty without it."""
    if options.metrics is None:
        return []
    from recllm_bench.reporting.chosen_metrics import metric_names

    return metric_names(options.metrics)
