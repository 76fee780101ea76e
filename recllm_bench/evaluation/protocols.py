"""How a model is measured: named, versioned protocols. A number without its protocol means nothing.

The protocols that ship are files, ``protocols/*.yaml``; a user's own come from a file, a plug-in or ``modules:``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recllm_bench.api import registry
from recllm_bench.api.modules import registered
from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError, nearest
from recllm_bench.locations import resource
from recllm_bench.yaml_files import read_mapping

_CHOICES = {
    "split": ("leave_one_out", "ratio", "global_time"),
    "seen_score": ("neg_inf", "zero"),
    "ties": ("expected", "pessimistic", "optimistic"),
    "at_failure": ("max_turns", "exclude", "max_turns_plus_1"),
}
_EXPECTED = {
    "str": "text",
    "bool": "true or false",
    "int": "a whole number",
    "tuple[str, ...]": "a list of names such as [Recall, NDCG]",
    "tuple[int, ...]": "a list of whole numbers such as [5, 10]",
    "tuple[tuple[str, Any], ...]": "a mapping of the split's parameters such as {share: 0.1}",
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything that decides what a number means.

    Attributes
    ----------
    name, version : str, int
        The version grows when a change of meaning makes older numbers incomparable.
    about : str
        One line for people; not part of the fingerprint.
    filter : str
        Name of the dataset filter (a dataset card's ``filters``).
    split : str
        ``leave_one_out``, ``ratio`` or ``global_time``.
    split_params : tuple of (str, value)
        Parameters of the split function.
    users : int
        Users evaluated: 0 for all, or the size of a sample drawn once with ``user_seed``.
    user_seed : int
        Seed of that sample and of the candidate file.
    candidates : str
        ``all`` for the whole catalogue, ``sampledN`` for the target and N items the user never touched.
    exclude_history : bool
        Whether items of the case's history are taken out of the ranking (the target never is).
    seen_score : str
        How they are taken out: ``neg_inf`` (no candidates), or ``zero`` (they stay with score 0, as some
        released scripts do).
    exclude_pad : bool
        Whether the padding row is no candidate.
    ties : str
        ``expected`` (mean over random orders of equal scores), ``pessimistic`` or ``optimistic``.
    metrics, cutoffs : tuple
        Reported metrics and their K.
    turns, shown_per_turn : int
        For dialogues: the most turns, and items shown at each; ``turns=0`` means there are none.
    at_failure : str
        What a failed dialogue adds to the average number of turns.
    has_text : bool
        Whether the simulated user says something before the ranking.
    dialogues : str
        Whose recorded words are tested in place of the dataset's own users: ``redial``, ``inspired``, ``opendialkg``,
        ``all`` (:mod:`recllm_bench.conversation.real_users`); empty for nobody's.
    otherwise : str
        Protocol that serves where nobody asked for this one and the data have too few users or candidates for it; not
        part of the fingerprint.
    """

    name: str
    about: str = ""
    version: int = 1
    filter: str = "all"
    split: str = "leave_one_out"
    split_params: tuple[tuple[str, Any], ...] = ()
    users: int = 0
    user_seed: int = 2024
    candidates: str = "all"
    exclude_history: bool = True
    seen_score: str = "neg_inf"
    exclude_pad: bool = True
    ties: str = "expected"
    metrics: tuple[str, ...] = ("Recall", "NDCG", "MRR")
    cutoffs: tuple[int, ...] = (1, 5, 10, 20, 50)
    turns: int = 0
    shown_per_turn: int = 0
    at_failure: str = "max_turns"
    has_text: bool = False
    dialogues: str = ""
    otherwise: str = ""

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                value = getattr(self, field)
                raise BenchError(f"protocol {self.name}: {field} '{value}' is not one of {', '.join(known)}")
        if self.candidates != "all" and not re.fullmatch("sampled[1-9][0-9]{0,8}", self.candidates):
            raise BenchError(f"protocol {self.name}: candidates must be 'all' or 'sampledN', got '{self.candidates}'")
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise BenchError(f"protocol {self.name}: cutoffs must be at least 1, got {self.cutoffs}")
        if self.users < 0:
            raise BenchError(f"protocol {self.name}: users must be 0 (all) or a sample size, got {self.users}")
        if not self.metrics:
            raise BenchError(f"protocol {self.name}: metrics must name at least one, such as [Recall, NDCG]")
        for field, least in (("version", 1), ("user_seed", 0), ("turns", 0), ("shown_per_turn", 0)):
            if getattr(self, field) < least:
                value = getattr(self, field)
                raise BenchError(f"protocol {self.name}: {field} must be at least {least}, got {value}")

    @property
    def negatives(self) -> int:
        """Sampled candidates beside the target; 0 for full ranking."""
        return 0 if self.candidates == "all" else int(self.candidates.removeprefix("sampled"))

    @property
    def samples_candidates(self) -> bool:
        """Whether ranks are among sampled candidates (not comparable with full ranking)."""
        return self.negatives > 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a run record."""
        return dataclasses.asdict(self)

    def fingerprint(self) -> str:
        """Hash of everything but the explanation: results pair only when it is equal.

        The metrics and cut-offs are left out: they only say what is printed of the same ranks.
        """
        facts = self.as_dict()
        for key in ("about", "metrics", "cutoffs", "otherwise"):
            facts.pop(key)
        if not self.dialogues:  # as before there were any
            facts.pop("dialogues")
        return content_hash(facts)


def _shipped() -> dict[str, Protocol]:
    found: dict[str, Protocol] = {}
    for path in sorted(resource("protocols").glob("*.yaml")):
        found.update(read_protocols(path, found))
    return found


def protocol_named(name: str) -> Protocol:
    """Return a protocol by name, or the one that a file describes.

    Parameters
    ----------
    name : str
        A name of :data:`PROTOCOLS`; of a plug-in (entry points ``recllm_bench.protocols``), a file under ``modules:``
        or a file in ``protocols/`` of the current folder; ``module:attribute``; or a path ``mine.yaml``, with
        ``mine.yaml#name`` for one of several.

    Raises
    ------
    BenchError
        For an unknown name, with the nearest valid one; for a file with a mistake, with its line; for a name that two
        protocols have.
    """
    if name in PROTOCOLS:
        if name in registered("protocols") or name in _own(strict=False):
            raise BenchError(f"'{name}' is a protocol of the bench; give yours another name")
        return PROTOCOLS[name]
    path, _, chosen = name.partition("#")
    if path.endswith((".yaml", ".yml")) or "/" in path:
        found = read_protocols(Path(path).expanduser(), PROTOCOLS)
        if chosen and chosen not in found:
            raise BenchError(f"{path} has no protocol '{chosen}'.{nearest(chosen, found)}")
        if not chosen and len(found) != 1:
            raise BenchError(f"{path} has {len(found)} protocols; choose one: {path}#{next(iter(found), 'name')}")
        return _measurable(found[chosen or next(iter(found))])
    own = _own(strict=True)
    if name in own:
        return _measurable(own[name])
    offered = registry.names("protocols")
    if ":" not in name and name.casefold() not in {known.casefold() for known in offered}:
        raise BenchError(f"unknown protocol '{name}'.{nearest(name, {*PROTOCOLS, *own, *offered})}")
    return _measurable(_read_value(registry.resolve("protocols", name), name))


def protocol_lines() -> list[tuple[str, str]]:
    """Name and one line about every protocol that has a name: the bench's, the current folder's, plug-ins'."""
    rows = [(name, protocol.about) for name, protocol in PROTOCOLS.items()]
    rows += [(name, protocol.about) for name, protocol in _own(strict=True).items()]
    for name in registry.names("protocols"):
        try:
            rows.append((name, protocol_named(name).about))
        except BenchError as error:  # somebody's broken plug-in is shown, and does not hide the others
            rows.append((name, f"cannot be used: {error}"))
    return rows


def read_protocols(path: Path, known: Mapping[str, Protocol] | None = None) -> dict[str, Protocol]:
    """Read a file of protocols: a mapping of names to fields, or the fields of one (named like the file).

    ``base`` names a protocol that the fields change: one of the same file, or one of ``known``.

    Raises
    ------
    BenchError
        For a mistake, with the file and the line.
    """
    values, lines = read_mapping(path, "a protocol is a mapping such as 'base: unified.full'")
    if values and not any(isinstance(value, Mapping) for name, value in values.items() if name != "split_params"):
        values, lines = {path.stem: values}, {(path.stem, *keys): line for keys, line in lines.items()}
    found: dict[str, Protocol] = {}

    def build(name: str, above: tuple[str, ...]) -> Protocol:
        if name in found:
            return found[name]
        fields, place = values[name], f"{path}:{lines.get((name,), 1)}"
        if not isinstance(fields, Mapping):
            raise BenchError(f"{place}: protocol '{name}' must be a mapping of fields to values, got {fields!r}")
        base: Protocol | None = None
        if "base" in fields:
            wanted, line = str(fields["base"]), f"{path}:{lines[name, 'base']}"
            if wanted in (*above, name):
                raise BenchError(f"{line}: protocol '{name}' is its own base: {' on '.join((*above, name, wanted))}")
            others = known or {}
            if wanted not in values and wanted not in others:
                raise BenchError(f"{line}: unknown protocol '{wanted}'.{nearest(wanted, {*values, *others})}")
            base = build(wanted, (*above, name)) if wanted in values else others[wanted]
        rest = {key: value for key, value in fields.items() if key != "base"}
        found[name] = protocol_from(
            rest, name, base, lambda key: f"{path}:{lines.get((name, key), lines.get((name,), 1))}"
        )
        return found[name]

    return {name: build(name, ()) for name in values}


def protocol_from(
    fields: Mapping[str, Any], name: str, base: Protocol | None = None, place: Callable[[str], str] | None = None
) -> Protocol:
    """A protocol from plain values, on top of another one.

    Parameters
    ----------
    fields : mapping
        Values by the names of :class:`Protocol`'s attributes.
    name : str
        Its name.
    base : Protocol, optional
        What the fields change.
    place : callable, optional
        Where a field was written, for messages.

    Raises
    ------
    BenchError
        For an unknown field or a value that it cannot have.
    """
    say = place or (lambda key: "")
    typed: dict[str, Any] = {}
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Protocol) if field.name != "name"}
    for key, value in fields.items():
        where = f"{say(key)}: protocol {name}".removeprefix(": ")
        if key not in kinds:
            raise BenchError(f"{where}: unknown field '{key}'.{nearest(str(key), (*kinds, 'base'))}")
        typed[key] = _typed(value, kinds[key], f"{where}: {key}")
        try:  # alone, so that the message can name its line
            Protocol(name, **{key: typed[key]})
        except BenchError as error:
            raise BenchError(f"{say(key)}: {error}".removeprefix(": ")) from error
    return dataclasses.replace(base, name=name, **typed) if base else Protocol(name, **typed)


def _typed(value: Any, kind: str, where: str) -> Any:
    """A value of a file as a field of ``Protocol`` has it."""
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int" and _is_whole(value):
        return value
    if kind.startswith("tuple[tuple") and isinstance(value, Mapping):
        if all(isinstance(key, str) and isinstance(each, (str, int, float)) for key, each in value.items()):
            return tuple(sorted(value.items()))
    elif kind.startswith("tuple"):
        several = value if isinstance(value, (list, tuple)) else (value,)
        if kind.startswith("tuple[str") and all(isinstance(each, str) and each for each in several):
            return tuple(several)
        if kind.startswith("tuple[int") and all(_is_whole(each) for each in several):
            return tuple(several)
    raise BenchError(f"{where}: expected {_EXPECTED[kind]}, got {value!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_value(value: Any, name: str) -> Protocol:
    """What a plug-in gives: a protocol, its fields, or a file."""
    if isinstance(value, Protocol):
        return value
    if isinstance(value, Mapping):
        fields = dict(value)
        base = protocol_named(str(fields.pop("base"))) if "base" in fields else None
        return protocol_from(fields, str(fields.pop("name", name)), base)
    if isinstance(value, (str, Path)):
        return protocol_named(str(value))
    raise BenchError(f"'{name}' is no protocol: give a Protocol, a mapping of its fields, or a YAML file")


def _own(strict: bool) -> dict[str, Protocol]:
    """Protocols of ``protocols/*.yaml`` in the current folder; unless ``strict``, broken files are passed over."""
    folder, found = Path("protocols"), dict[str, Protocol]()
    if not folder.is_dir() or folder.resolve() == resource("protocols").resolve():
        return found
    for path in sorted(folder.glob("*.yaml")):
        try:
            new = read_protocols(path, {**PROTOCOLS, **found})
        except BenchError:
            if strict:
                raise
            continue
        if strict and (twice := sorted(new.keys() & {*found, *PROTOCOLS})):
            raise BenchError(f"{path}: there is another protocol '{twice[0]}'; give this one another name")
        found.update(new)
    return found


def _measurable(protocol: Protocol) -> Protocol:
    """The protocol, once each of its metrics is known."""
    from recllm_bench.evaluation.metrics import wanted_metrics

    try:
        wanted_metrics(protocol.metrics, protocol.cutoffs)
    except BenchError as error:
        raise BenchError(f"protocol {protocol.name}: {error}") from error
    return protocol


PROTOCOLS: dict[str, Protocol] = _shipped()
"""Those that ship with the project."""
