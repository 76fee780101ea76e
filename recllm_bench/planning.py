"""Which cells a comparison or a sweep has, and their recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from recllm_bench.api.modules import load_modules
from recllm_bench.api.registry import ModelEntry, canonical_name, model_named
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.models import COMPARED_OPTIONS, HISTORY_ROWS
from recllm_bench.options import shown
from recllm_bench.progress import log
from recllm_bench.recipe import ENCODER, ConversationOptions, Recipe, flat, laid_over, recipe_from, shipped_recipe

_SHARED_OPTIONS = ("llm", "llm_precision", "chat")
_CONTROLS = {"another": "another user's words", "none": "no words"}


def recipe_values(model: str, dataset: str, protocol: str = "", llm: str = "") -> dict[str, Any]:
    """Values of the recipe that ships for a model on a dataset, or just their names.

    ``recipes/<model>-<dataset>.yaml`` holds what was tuned for the pair; its protocol applies unless one is given.
    ``recipes/<model>-<dataset>-<llm>.yaml`` goes before it where that language model is asked for, and so does
    ``recipes/<model>-<dataset>-dialogues.yaml`` where the protocol holds dialogues.
    """
    shipped = shipped_recipe(model, f"{_canonical(dataset)}-{llm}") if llm else {}
    if not shipped and _holds_dialogues(protocol):
        shipped = shipped_recipe(model, f"{_canonical(dataset)}-dialogues")
    values = {**(shipped or shipped_recipe(model, _canonical(dataset))), "model": model, "dataset": dataset}
    if protocol:
        values["protocol"] = protocol
    return values


def _holds_dialogues(protocol: str) -> bool:
    try:
        return bool(protocol) and bool(protocol_named(protocol).turns)
    except BenchError:  # told later, with what asked for it
        return False


def changed_from_default(recipe: Recipe, split: Any = None) -> dict[str, Any]:
    """What differs from the recipe that ships for a model on a dataset, or from the model's own defaults.

    Parameters
    ----------
    recipe : Recipe
        Resolved.
    split : Split, optional
        Data whose counts lower defaults.

    Returns
    -------
    dict of str to value
        By place, such as ``{"options.intents": 64, "training.epochs": 2}``; defaults that were written out are no
        change. Seed, device and protocol are none either.
    """
    shipped = recipe_values(recipe.model, recipe.dataset, recipe.protocol, str(recipe.options.get("llm") or ""))
    try:
        default = _set_values({**shipped, "quick": 0}, split)
    except BenchError:  # the shipped recipe asks more than these data have
        default = _set_values({"model": recipe.model, "dataset": recipe.dataset}, split)
    return {key: value for key, value in _set_values(recipe.as_dict(), split).items() if default.get(key, ()) != value}


def _set_values(values: Mapping[str, Any], split: Any) -> dict[str, Any]:
    """Every value of a recipe by its place, defaults included."""
    from recllm_bench.training.cells import typed_options

    sections = {key: dict(values.get(key) or {}) for key in ("options", "training", "conversation")}
    names = ("model", "dataset", "modules")
    kept = recipe_from({key: values[key] for key in names if key in values} | sections, str(values["model"]))
    own, loop = typed_options(model_named(kept.model), kept.options, kept.training, kept.model, split=split)
    sections["options"] = own if isinstance(own, dict) else dataclasses.asdict(own)
    sections |= {"training": dataclasses.asdict(loop), "conversation": dataclasses.asdict(kept.conversation)}
    return {**flat(sections), "quick": values.get("quick") or 0}


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
    main = resolved(recipe_from(values, where), where)
    if not values.get("protocol"):
        main = dataclasses.replace(main, protocol=_serving(main))
    entry = model_named(main.model)
    rows = values.get("compare")
    if rows is None:
        rows = entry.method.comparison_rows(main.options)
        rows = (
            [*HISTORY_ROWS, *(word_rows(main.conversation.users > 0) if entry.reads_words else ())]
            if rows is None
            else rows
        )
        rows = [*rows, *controls(entry)]
        if protocol_named(main.protocol).turns:
            rows += entry.method.dialogue_rows(main.options)
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise BenchError(f"{where}: 'compare' must be a list of model names, got {shown(rows)}")
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
            raise BenchError(f"{where}: each row of a sweep is a mapping, got {shown(row)}")
        label, merged = _merged(values, row, where)
        own = "conversation" in row or "model" not in row
        result.append((label or _difference(row), resolved(recipe_from(merged, where), where, own_talk=own)))
    return result


def word_rows(dialogues: bool = False) -> list[Any]:
    """What the words are worth without the method: rows beside a model that reads them, each an evaluation.

    With dialogues also what they are worth when they are ignored.
    """
    best: dict[str, dict] = {name: {} for name in HISTORY_ROWS}
    # popularity is what orders by default, so that its row differs from no default
    orders: dict[str, dict[str, Any]] = {
        "Popularity": {},
        "ItemKNN": {"among": {"recent-knn": {}}},
        "Best history row": {"among": best},
    }
    told = {"words-fit": "that fit the words", "facts-fit": "that fit, told the facts"}
    fitting = [
        {"model": model, "label": f"{who} among items {what}", "options": order}
        for model, what in told.items()
        for who, order in orders.items()
    ]
    fused = {"model": "text-fused", "label": "Text retrieval with the best history row", "options": {"among": best}}
    ignoring = [
        {
            "model": "words-fit",
            "label": f"{who}, dialogue ignored",
            "options": {**orders[who], "hears": "nothing"},
        }
        for who in ("Popularity", "Best history row")
    ]
    return ["text-retrieval", fused, *fitting, *(ignoring if dialogues else ())]


def controls(entry: ModelEntry) -> list[dict[str, Any]]:
    """The model itself with another user's words and with none, where it reads words: rows of a comparison.

    Its training is the model's own, so a control costs an evaluation.
    """
    if not entry.reads_words:
        return []
    return [
        {
            "model": entry.name,
            "label": f"{entry.display_name}, {label}",
            "conversation": {"words": whose},
            "options": dict(COMPARED_OPTIONS.get(entry.name, {})),
        }
        for whose, label in _CONTROLS.items()
    ]


def resolved(recipe: Recipe, where: str = "", *, own_talk: bool = True) -> Recipe:
    """Fill in what the model decides: its default protocol, and no conversation where it reads no words.

    Model and dataset get their canonical names; options are checked.

    Parameters
    ----------
    recipe : Recipe
    where : str
        What messages call it.
    own_talk : bool
        Whether ``conversation`` was set for this model; what another row set is left out where it would do nothing.

    Raises
    ------
    BenchError
        Also for a value under ``conversation`` that does nothing in this model.
    """
    from recllm_bench.training.cells import typed_options

    load_modules(recipe.modules)
    entry = model_named(recipe.model)
    protocol = recipe.protocol or entry.default_protocol
    typed_options(entry, recipe.options, recipe.training, where or f"{recipe.model} on {recipe.dataset}")
    try:
        protocol_named(protocol)
    except BenchError as error:
        if recipe.protocol:
            raise
        raise BenchError(f"'{entry.name}': default_protocol: {error}") from error
    talk = recipe.conversation
    if not entry.reads_words:
        talk = _encoder_alone(talk, entry, where or recipe.model) if own_talk else ConversationOptions()
    return dataclasses.replace(
        recipe,
        model=entry.name,
        dataset=_canonical(recipe.dataset),
        protocol=protocol,
        conversation=talk,
    )


def _encoder_alone(talk: ConversationOptions, entry: ModelEntry, where: str) -> ConversationOptions:
    """What a model without words may have set: the text encoder. That it is used is seen when its stages are made."""
    default = ConversationOptions()
    for field in dataclasses.fields(talk):
        if field.name not in ENCODER and getattr(talk, field.name) != getattr(default, field.name):
            raise BenchError(
                f"{where}: {entry.display_name} reads nothing that users say, so conversation.{field.name} would do "
                "nothing; leave it out, or take a model that reads words, such as text-retrieval"
            )
    return talk


def _serving(recipe: Recipe) -> str:
    """The model's default protocol; where the data have too few users or candidates for it, the one that it names."""
    rules = protocol_named(recipe.protocol)
    if not rules.otherwise:
        return rules.name
    from recllm_bench.data.cards import default_store
    from recllm_bench.data.prepare import prepare
    from recllm_bench.data.splits import split_named
    from recllm_bench.evaluation.candidates import evaluated_cases, protocol_candidates

    store = default_store()
    prepared = prepare(recipe.dataset, filter=rules.filter, store=store)
    split = split_named(rules.split, prepared.histories, **dict(rules.split_params))
    try:
        protocol_candidates(rules, split, evaluated_cases(split.test, rules), store)
    except NotEnough as error:
        log.warning(f"{str(error).partition(';')[0]}; {rules.otherwise} takes the place of {rules.name}")
        return rules.otherwise
    return rules.name


def _row(row: Any, main: Recipe, where: str) -> tuple[str, Recipe]:
    """One row of a comparison: a model's own recipe for this dataset, under the comparison's protocol."""
    changes = {"model": row} if isinstance(row, str) else row
    if not isinstance(changes, Mapping) or not isinstance(changes.get("model"), str):
        raise BenchError(f"{where}: a row of 'compare' is a model name or a mapping with 'model', got {shown(row)}")
    same = canonical_name(changes["model"]) == main.model
    shared = {"seed": main.seed, "device": main.device, "quick": main.quick, "modules": main.modules}
    if same:
        base = {**main.as_dict()}
    else:
        base = {**recipe_values(changes["model"], main.dataset), "protocol": main.protocol}
        talk = dataclasses.asdict(main.conversation)
        base["conversation"] = {**talk, **(base.get("conversation") or {})}
        base["conversation"]["users"] = main.conversation.users
    base["options"] = {**(base.get("options") or {}), **_shared_options(changes["model"], main)}
    base.pop("seeds", None)  # all rows have the seeds of the comparison
    label, merged = _merged({**base, **shared}, changes, where)
    return label, resolved(recipe_from(merged, where), where, own_talk=same or "conversation" in changes)


def _shared_options(model: str, main: Recipe) -> dict[str, Any]:
    """Options that a comparison holds equal: all its rows have one language model."""
    known = getattr(model_named(model).options, "__dataclass_fields__", ())
    return {name: main.options[name] for name in _SHARED_OPTIONS if name in main.options and name in known}


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Label of a row, and the base with its changes; mappings are changed key by key."""
    label = changes.get("label") or ""
    if not isinstance(label, str):
        raise BenchError(f"{where}: the label of a row must be text in quotes, got {shown(label)}")
    merged = dict(base)
    for key, value in changes.items():
        if key in ("label", "published"):
            continue
        old = merged.get(key)
        if isinstance(value, Mapping) and not isinstance(old or {}, Mapping):
            raise BenchError(f"{where}: a row changes {key}: {shown(old)} by {shown(value)}; write both as mappings")
        merged[key] = laid_over(old or {}, value) if isinstance(value, Mapping) else value
    return label, merged


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


def settable(model: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Everything that ``--set`` may change for a model, in groups of (name, default, explanation)."""
    from recllm_bench.evaluation.protocols import PROTOCOLS
    from recllm_bench.options import describe_options
    from recllm_bench.training.training_options import TrainingOptions

    entry = model_named(model)
    if entry.options is None:
        from recllm_bench.recbole_bridge import zoo_options

        own = [(name, str(default), "") for name, default in zoo_options(entry.name).items()]
    else:
        own = describe_options(entry.options)
    wanted = {name: str(value) for name, value in entry.training_defaults.items()}
    training = [
        (f"training.{name}", wanted.get(name, default), text)
        for name, default, text in describe_options(TrainingOptions)
    ]
    groups = [(f"options of {entry.display_name}", own), ("training", training)]
    if entry.reads_words:
        talk = [
            (f"conversation.{name}", default, text) for name, default, text in describe_options(ConversationOptions)
        ]
        groups.append(("conversation: simulated users and the text encoder", talk))
    protocols = [(protocol.name, protocol.about) for protocol in PROTOCOLS.values()]
    choices = "; ".join(f"{name}: {about}" for name, about in protocols)
    run = [
        ("protocol", entry.default_protocol, choices),
        ("seed", "42", "of initialisation, data order, dropout and sampling"),
        ("device", "auto", "auto, cpu, cuda, cuda:N"),
    ]
    return [*groups, ("the run", run)]
