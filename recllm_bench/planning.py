"""Which cells a comparison or a sweep has, and their recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from recllm_bench import plugins
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.locations import resource
from recllm_bench.options import read_options
from recllm_bench.recipe import ConversationOptions, Recipe, read_recipe_file, recipe_from

HISTORY_ROWS = ("pop", "recbole:SASRec", "GRU4Rec", "sasrec", "iclrec")
_SHARED_OPTIONS = ("llm", "llm_precision")
SHUFFLED = {"model": "latentcrs", "label": "LatentCRS, shuffled words", "conversation": {"shuffle_utterances": True}}
TEXT_ROWS: tuple[Any, ...] = ("text-retrieval", SHUFFLED)


def recipe_values(model: str, dataset: str, protocol: str = "") -> dict[str, Any]:
    """Values of the recipe that ships for a model on a dataset, or just their names.

    ``recipes/<model>-<dataset>.yaml`` holds what was tuned for the pair; its protocol applies unless one is given.
    """
    values: dict[str, Any] = {"model": model, "dataset": dataset}
    stem = f"{model.lower().replace(':', '-')}-{_canonical(dataset)}"
    path = resource("recipes") / f"{stem}.yaml"
    if path.exists():
        values = {**read_recipe_file(str(path)), "model": model, "dataset": dataset}
    if protocol:
        values["protocol"] = protocol
    return values


def comparison_recipes(values: Mapping[str, Any], where: str) -> list[tuple[str, Recipe]]:
    """Recipes of a comparison: the rows to compare with, then the model itself.

    Parameters
    ----------
    values : mapping
        A recipe's values; ``compare`` lists its rows, each a model name or a mapping of changes.
    where : str
        Named in messages.

    Returns
    -------
    list of (label, Recipe)
        ``label`` is empty where the model's own display name serves.
    """
    main = resolved(recipe_from(values, where))
    rows = values.get("compare")
    model_class = plugins.resolve("models", main.model) if plugins.model_kind(main.model) == "own" else None
    if rows is None and hasattr(model_class, "comparison_rows"):
        rows = model_class.comparison_rows(main.options)
    if rows is None:
        hears = model_class is not None and reads_text(model_class)
        rows = HISTORY_ROWS + (TEXT_ROWS if hears else ())
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise BenchError(f"{where}: 'compare' must be a list of model names")
    recipes = [_row(row, main, where) for row in rows]
    chosen = [(label, recipe) for label, recipe in recipes if recipe != main]
    return [*chosen, ("", main)]


def sweep_recipes(values: Mapping[str, Any], where: str) -> list[tuple[str, Recipe]]:
    """Recipes of a sweep: the base recipe with each of its ``rows`` applied.

    Raises
    ------
    BenchError
        When the recipe has no rows.
    """
    rows = values.get("rows")
    if not isinstance(rows, list) or not rows:
        raise BenchError(f"{where}: a sweep needs 'rows', a list of changes such as '- {{options: {{intents: 64}}}}'")
    result = []
    for row in rows:
        if not isinstance(row, Mapping):
            raise BenchError(f"{where}: each row of a sweep is a mapping, got {row!r}")
        label, merged = _merged(values, row)
        result.append((label or _difference(row), resolved(recipe_from(merged, where))))
    return result


def resolved(recipe: Recipe) -> Recipe:
    """Fill in what the model decides: its default protocol, and no conversation where it reads no text.

    Model and dataset get their canonical names.
    """
    protocol, conversation = recipe.protocol or "unified.full", ConversationOptions()
    if plugins.model_kind(recipe.model) == "own":
        model_class = plugins.resolve("models", recipe.model)
        protocol = recipe.protocol or getattr(model_class, "default_protocol", "unified.full")
        if reads_text(model_class):
            conversation = recipe.conversation
        if hasattr(model_class, "Options"):  # a mistake is refused before the first row is trained
            read_options(model_class.Options, recipe.options, f"{recipe.model} on {recipe.dataset}: options")
    protocol_named(protocol)
    return dataclasses.replace(
        recipe,
        model=plugins.canonical_name(recipe.model),
        dataset=_canonical(recipe.dataset),
        protocol=protocol,
        conversation=conversation,
    )


def reads_text(model_class: type) -> bool:
    """Whether a model sees what users say."""
    return "text" in getattr(model_class, "needs", ())


def _row(row: Any, main: Recipe, where: str) -> tuple[str, Recipe]:
    """One row of a comparison: a model's own recipe for this dataset, under the comparison's protocol."""
    changes = {"model": row} if isinstance(row, str) else row
    if not isinstance(changes, Mapping) or "model" not in changes:
        raise BenchError(f"{where}: a row of 'compare' is a model name or a mapping with 'model', got {row!r}")
    shared = {"seed": main.seed, "device": main.device}
    if changes["model"] == main.model:
        base = {**main.as_dict()}
    else:
        base = {**recipe_values(changes["model"], main.dataset), "protocol": main.protocol}
        talk = dataclasses.asdict(main.conversation)
        base["conversation"] = {**talk, **(base.get("conversation") or {})}
        base["conversation"]["users"] = main.conversation.users
    base["options"] = {**(base.get("options") or {}), **_shared_options(changes["model"], main)}
    label, merged = _merged({**base, **shared}, changes)
    return label, resolved(recipe_from(merged, where))


def _shared_options(model: str, main: Recipe) -> dict[str, Any]:
    """Options that a comparison holds equal: all its rows have one language model."""
    if plugins.model_kind(model) != "own":
        return {}
    known = getattr(getattr(plugins.resolve("models", model), "Options", None), "__dataclass_fields__", ())
    return {name: main.options[name] for name in _SHARED_OPTIONS if name in main.options and name in known}


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    merged = dict(base)
    for key, value in changes.items():
        if key in ("label", "published"):
            continue
        merged[key] = {**(merged.get(key) or {}), **value} if isinstance(value, Mapping) else value
    return str(changes.get("label", "")), merged


def _difference(row: Mapping[str, Any]) -> str:
    parts = []
    for key, value in row.items():
        if key == "published":
            continue
        parts += [f"{k}={v}" for k, v in value.items()] if isinstance(value, Mapping) else [f"{key}={value}"]
    return ", ".join(parts)


def _canonical(dataset: str) -> str:
    from recllm_bench.data.prepare import canonical_name

    return canonical_name(dataset)
