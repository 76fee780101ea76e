"""Commands that train, evaluate and compare. What costs time is imported inside the command that needs it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.options import shown


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
        _refuse_another(options, values)
        if options.protocol:
            values["protocol"] = options.protocol
    else:
        unnamed = getattr(options, "unnamed", ("", ""))
        model = unnamed[0] if options.model is None else options.model
        dataset = unnamed[1] if options.dataset is None else options.dataset
        values, where = recipe_values(model, dataset, options.protocol, options.llm), f"{model} on {dataset}"
    found = override(values, _settings(options))
    if options.llm and (own := found["options"]).get("llm") == options.llm and _is_chat_system(found["model"]):
        name = own.pop("llm")
        own["chat"] = name if name.startswith(("local:", "server:", "replay:")) else f"local:{name}"
    return found, where


def _is_chat_system(model: str) -> bool:
    """Whether a model's language model is one that it talks with."""
    from recllm_bench.api.registry import model_named

    try:
        own = getattr(model_named(model).model, "Options", None)
    except BenchError:  # told later, with what asked for it
        return False
    names = {field.name for field in dataclasses.fields(own)} if dataclasses.is_dataclass(own) else set()
    return "chat" in names and "llm" not in names


def _refuse_another(options: argparse.Namespace, values: dict[str, Any]) -> None:
    """Refuse a model or dataset beside a recipe that has another one: only one of the two could be run."""
    from recllm_bench.api.registry import canonical_name as model_name
    from recllm_bench.data.prepare import canonical_name as dataset_name

    changes = []
    for key, canonical in (("model", model_name), ("dataset", dataset_name)):
        given, own = getattr(options, key, None), str(values.get(key) or "")
        if given and own and canonical(given) != canonical(own):
            changes.append((f"{key}={given}", own))
    if changes:
        own, asked = " and ".join(own for _, own in changes), " ".join(change for change, _ in changes)
        raise BenchError(
            f"the recipe {options.recipe} is of {own}; leave MODEL and DATASET out to run it, or change it: "
            f"--recipe {options.recipe} --set {asked}"
        )


def seeded(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """The recipe's values, once for each seed asked for."""
    from recllm_bench.recipe import under_seeds

    values, where = _values(options)
    return under_seeds(values, where, options.seed), where


def run(options: argparse.Namespace) -> None:
    from recllm_bench.planning import comparison_recipes
    from recllm_bench.rows import run_cells

    look, tracked = look_of(options), _trackers(options)
    each, where = seeded(options)
    if options.alone:
        each = [{**values, "compare": []} for values in each]
    tables = [comparison_recipes(values, where) for values in each]
    cells = [cell for table in tables for cell in table]
    metrics = _metric_names(options)
    finished = run_cells(cells, again=options.again)
    asked = {table[-1][1].hash() for table in tables}
    _print_table(finished.folders, look, metrics, asked, failures=finished.failures, **_held(options))
    _track(tracked, finished.folders)
    if finished.refused:
        raise BenchError(finished.refused)


def sweep(options: argparse.Namespace) -> None:
    from recllm_bench.planning import sweep_recipes

    look, tracked = look_of(options), _trackers(options)
    if options.jobs < 1:
        raise BenchError(f"--jobs must be at least 1, got {options.jobs}")
    each, where = seeded(options)
    verbose = each[0].get("verbose", False)
    if not isinstance(verbose, bool):
        raise BenchError(f"{where}: 'verbose' must be true or false, got {shown(verbose)}")
    look = dataclasses.replace(look, verbose=look.verbose or verbose)
    tables = [sweep_recipes(values, where) for values in each]
    recipes = [cell for table in tables for cell in table]
    table = str(each[0].get("published") or "")
    if table:
        from recllm_bench.reporting.ablation import ablation_table, check_table

        check_table(table)
    if options.jobs > 1:
        from recllm_bench.sweeping import run_apart

        finished = run_apart(recipes, options.jobs)
    else:
        from recllm_bench.rows import run_cells

        finished = run_cells(recipes, keep_going=True)
    folders = finished.folders
    _print_table(folders, look, failures=finished.failures, **_held(options))
    if table:
        from recllm_bench.reporting.records import read_record
        from recllm_bench.reporting.seeds import over_seeds

        labels = [(label, recipe.dataset) for label, recipe in tables[0]]
        printed = dict(zip(labels, (str(row.get("published") or "") for row in each[0]["rows"]), strict=True))
        records = over_seeds([read_record(folder) for folder in folders])
        places = [(record.name, record.recipe["dataset"]) for record in records]
        variants = [printed.get(place, printed.get(("", place[1]), "")) for place in places]
        print("\n" + ablation_table(records, variants, table, look))
    _track(tracked, folders)
    if finished.failures:
        names = "; ".join(name for name, _ in finished.failures)
        raise BenchError(f"not run: {names} (reasons above); the others stand, and the same command tries these again")


def _trackers(options: argparse.Namespace) -> list[str]:
    """Trackers that are asked for, refused before anything is trained."""
    if not options.track:
        return []
    from recllm_bench.reporting.tracking import trackers

    return trackers(options.track)


def _track(names: Sequence[str], folders: Sequence[Path]) -> None:
    if names:
        from recllm_bench.locations import results_folder
        from recllm_bench.reporting.records import read_record
        from recllm_bench.reporting.tracking import track_records

        for line in track_records([read_record(folder) for folder in folders], names, results_folder()):
            print(line, file=sys.stderr)


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
    look: Any,
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
    print(_table(records, metrics, look, **choices))


def _table(records: Sequence[Any], metrics: Sequence[str], look: Any, **choices: Any) -> str:
    from recllm_bench.reporting.exported import written
    from recllm_bench.reporting.table import compared

    columns = None
    if metrics and records:
        from recllm_bench.reporting.chosen_metrics import with_metrics

        records, columns = with_metrics(records, metrics)
    return written(compared(records, metrics=columns, **choices), look)


def look_of(options: argparse.Namespace) -> Any:
    """How a command's tables look: what was asked for, as wide as the terminal, coloured where it can be."""
    from recllm_bench.language.chat_spending import price_table
    from recllm_bench.reporting.costs import cost_names
    from recllm_bench.reporting.page import Look

    costs = cost_names(options.cost) if options.cost is not None else ("training",)
    prices = price_table(options.prices) if options.prices or "price" in costs else {}
    if options.prices and "price" not in costs:
        costs += ("price",)
    if "price" in costs and not prices:
        if options.cost != "all":
            raise BenchError(
                "--cost price needs a table: --prices FILE or RECLLM_PRICES, 'MODEL: {input: 1, output: 2}'"
            )
        costs = tuple(name for name in costs if name != "price")
    return Look(options.format, _width(), _has_colour(), options.verbose, costs, prices)


def _width() -> int:
    """Columns of the terminal; where there is none, ``COLUMNS``, else 120."""
    return max(40, shutil.get_terminal_size((120, 24)).columns)


def _has_colour() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


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
    look = look_of(options)
    if len(options.names) > 2:
        raise BenchError("compare takes nothing, a dataset, or two runs: recllm-bench compare RUN RUN")
    given = [Path(name) for name in options.names if (Path(name) / "run.json").exists()]
    records = [] if len(given) == 2 else _existing(options.results)
    metrics = _metric_names(options)  # after the records: the user's own files that they name may define metrics
    if len(options.names) == 1:
        options.dataset = options.names[0]
    if options.protocol:
        records = [record for record in records if record.recipe["protocol"] == options.protocol]
    if options.dataset:
        from recllm_bench.data.prepare import canonical_name

        records = [record for record in records if record.recipe["dataset"] == canonical_name(options.dataset)]
    if len(options.names) == 2:
        print(_two_runs(records, options.names, metrics, look))
        return
    if not records:
        raise BenchError("no run record matches; see them all with 'recllm-bench compare'")
    print(_table(records, metrics, look, test=options.test, **_held(options)))


def _two_runs(records: Sequence[Any], names: Sequence[str], metrics: Sequence[str], look: Any) -> str:
    """Two runs in depth: folders of records, or rows of one of the tables that the records make."""
    from recllm_bench.reporting.exported import written_sections
    from recllm_bench.reporting.records import read_record
    from recllm_bench.reporting.table import tables_with
    from recllm_bench.reporting.two_runs import sections

    folders = [Path(name) for name in names if (Path(name) / "run.json").exists()]
    pair = [read_record(folder) for folder in folders] if len(folders) == 2 else tables_with(records, names)
    columns = None
    if metrics:
        from recllm_bench.reporting.chosen_metrics import with_metrics

        pair, columns = with_metrics(pair, metrics)
    return written_sections(sections(pair[0], pair[1], columns, look.verbose), look)


def report(options: argparse.Namespace) -> None:
    from recllm_bench.locations import results_folder
    from recllm_bench.reporting.html import write_report

    records = _existing(options.results)
    output = options.output or results_folder() / "report.html"
    write_report(records, output, **_held(options))
    print(f"wrote {output}")


def plan(options: argparse.Namespace) -> None:
    from recllm_bench.conversation.real_users import evaluated_data
    from recllm_bench.data.cards import default_store
    from recllm_bench.evaluation.candidates import evaluated_cases
    from recllm_bench.evaluation.power import AGREEMENT, Plan
    from recllm_bench.evaluation.protocols import protocol_named
    from recllm_bench.locations import results_folder
    from recllm_bench.reporting.page import Look
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
    look = Look(width=_width(), colour=_has_colour())
    print(plan_table(f"{prepared.name} · {protocol.name}", plan, pairs, look))


def _metric_names(options: argparse.Namespace) -> list[str]:
    """What ``--metrics`` asks for, refused before anything is trained; empty without it."""
    if options.metrics is None:
        return []
    from recllm_bench.reporting.chosen_metrics import metric_names

    return metric_names(options.metrics)
