"""Checking a class against the contract: names one letter off, signatures, halves of a capability."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from recllm_bench.api import model as contract
from recllm_bench.api.method import Method
from recllm_bench.errors import BenchError

_DECLARATIONS = tuple(contract.Declarations.__annotations__)
_RENAMED = {
    "needs": "reads_words = True where the model reads what users say",
    "case_columns": "columns(cases, words) of its Method",
    "stages": "a Method class with this model as its 'model'",
    "load": "a Method class with this model as its 'model'",
    "report": "report(folders) of its Method",
}
"""Names of a model class that have another place in the contract."""


def check(found: Any, name: str = "") -> None:
    """Refuse a model or a method that breaks the contract.

    Parameters
    ----------
    found : type
        A RecBole recommender, or a :class:`~recllm_bench.api.method.Method` whose ``model`` is one.
    name : str
        What it was asked for by, for the message.

    Raises
    ------
    BenchError
        In one line: what is wrong, where, and what to write instead.
    """
    name = name or getattr(found, "__name__", str(found))
    if isinstance(found, type) and issubclass(found, Method):
        _check_method(found, name)
        found = found.model
        _check_recommender(found, name)
    else:
        _check_recommender(found, name)
        _check_parts(found, name)
    if not _is_recboles(found):
        _check_names(found, name, {**_members(), **dict.fromkeys(_DECLARATIONS)}, _RENAMED)
        _check_declarations(found, name)
        _check_capabilities(found, name)


def _check_method(found: type[Method], name: str) -> None:
    if not isinstance(getattr(found, "model", None), type):
        raise BenchError(f"'{name}': {found.__name__} names no model; set its class attribute model = YourRecommender")
    for part in ("stages", "load"):
        if getattr(found, part) is getattr(Method, part):
            raise BenchError(f"'{name}': {found.__name__} defines no {part}(); a method has stages() and load(folders)")
    known = {key: value for key, value in vars(Method).items() if not key.startswith("_") and callable(value)}
    known["comparison_rows"] = Method.comparison_rows
    _check_names(found, name, {**known, "model": None}, {})
    for part in ("stages", "load", "columns", "report", "history_encoder"):
        _check_signature(getattr(found, part), getattr(Method, part), part, name)


def _check_recommender(found: Any, name: str) -> None:
    from recbole.model.abstract_recommender import AbstractRecommender

    if not (isinstance(found, type) and issubclass(found, AbstractRecommender)):
        raise BenchError(
            f"'{name}' is not a model: a model subclasses a RecBole recommender such as "
            "recbole.model.abstract_recommender.SequentialRecommender"
        )


def _check_parts(found: Any, name: str) -> None:
    """Whether a model without a method of its own has what trains and what scores."""
    from recbole.model.abstract_recommender import AbstractRecommender as base

    def has(part: str) -> bool:
        return getattr(found, part, None) not in (None, getattr(base, part, None))

    if not any(map(has, ("calculate_loss", "training_loss", "sequence_states"))):
        raise BenchError(f"'{name}' defines no loss; write calculate_loss(interaction), or sequence_states()")
    if not any(map(has, ("full_sort_predict", "predict", "sequence_states", "query_vectors"))):
        raise BenchError(f"'{name}' cannot score; write full_sort_predict(interaction), or sequence_states()")


def _check_names(found: type, name: str, known: Mapping[str, Any], renamed: Mapping[str, str]) -> None:
    """Public names of the class's own code that are nearly names of the contract."""
    from rapidfuzz.distance import OSA

    for own in _own_names(found):
        if own in known:
            continue
        if own in renamed:
            raise BenchError(f"'{name}': '{own}' is not part of a model's contract; write {renamed[own]}")
        near = [right for right in known if OSA.distance(own.lower(), right.lower()) <= 1 + (len(right) >= 8)]
        if near:
            best = min(near, key=lambda right: OSA.distance(own.lower(), right.lower()))
            raise BenchError(f"'{name}': '{own}' is not part of the contract; did you mean '{best}'?")


def _own_names(found: type) -> list[str]:
    """Public names that the class and its bases define, those of RecBole, torch and the bench's contract left out."""
    foreign = {known for base in found.__mro__ if _is_foreign(base) for known in vars(base)}
    mine = [known for base in found.__mro__ if not _is_foreign(base) for known in vars(base)]
    return [known for known in dict.fromkeys(mine) if not known.startswith("_") and known not in foreign]


def _is_foreign(base: type) -> bool:
    return base in (object, Method) or base.__module__.split(".")[0] in ("recbole", "torch", "typing", "abc")


def _is_recboles(found: type) -> bool:
    return found.__module__.startswith("recbole.model.")


def _check_declarations(found: type, name: str) -> None:
    options = getattr(found, "Options", None)
    if options is not None and not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise BenchError(f"'{name}': Options must be a dataclass of option(...) fields, got {options!r}")
    if options is not None:
        _check_options(options, name)
    wanted: dict[str, type | tuple[type, ...]] = {
        "display_name": str, "default_protocol": str, "reads_words": bool, "reads_facts": bool,
        "training_defaults": Mapping
    }  # fmt: skip
    for key, kind in wanted.items():
        value = getattr(found, key, None)
        if value is not None and not isinstance(value, kind):
            raise BenchError(f"'{name}': {key} must be {_KINDS[key]}, got {value!r}")


def _check_options(options: Any, name: str) -> None:
    for field in dataclasses.fields(options):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise BenchError(f"'{name}': '{field.name}' of Options has no default; write option(default, help)")
    try:
        typing.get_type_hints(options)
    except Exception as error:
        raise BenchError(f"'{name}': a type of Options cannot be read ({error}); import it in its module") from error


_KINDS = {
    "display_name": "text",
    "default_protocol": "the name of a protocol",
    "reads_words": "True or False",
    "reads_facts": "True or False",
    "training_defaults": "a mapping of training options",
}


def _check_capabilities(found: type, name: str) -> None:
    members = _members()
    for own, model in members.items():
        if callable(value := getattr(found, own, None)):
            _check_signature(value, model, own, name)
    for part in ("sequence_states", "query_vectors"):
        if hasattr(found, part) and not hasattr(found, "item_vectors"):
            raise BenchError(f"'{name}': {part}() needs item_vectors() beside it: scores are their products")
    if hasattr(found, "respond") and not getattr(found, "reads_words", False):
        raise BenchError(f"'{name}': respond() reads what users say; declare it: reads_words = True")


def _members() -> dict[str, Any]:
    return {
        key: value
        for capability in contract.CAPABILITIES
        for key, value in vars(capability).items()
        if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod))
    }


def _check_signature(value: Any, model: Any, own: str, name: str) -> None:
    """Whether a function can be called as the contract calls it."""
    wanted = inspect.signature(model.__func__ if isinstance(model, classmethod) else model)
    names = [key for key in wanted.parameters if key not in ("self", "cls")]
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # made in C: nothing to compare
        return
    bound = inspect.ismethod(value)
    try:
        signature.bind(*([] if bound else [None]), *names)
    except TypeError:
        raise BenchError(f"'{name}': {own}{signature} must take ({', '.join(names)})") from None
