"""What a record depends on, in groups, and what has changed since it was made.

``RunRecord.depends`` is a mapping of plain values, nested as deep as it takes, with these groups where they apply:
``data`` (checksum of histories and catalogue), ``split``, ``protocol``, ``recipe``, ``stages`` (of each its key's hash,
language model included), ``training`` (hashes of the code of the package and of classes from outside, versions of
libraries, threads), ``evaluation`` (the code that measures), ``words`` (simulator and encoder, where they are read);
records of earlier versions have ``libraries`` and ``package``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.provenance import versions_of_libraries
from recllm_bench.reporting.records import RunRecord

GROUPS = (
    "data",
    "split",
    "protocol",
    "recipe",
    "stages",
    "training",
    "evaluation",
    "words",
    "libraries",
    "package",
)
_ABSENT = object()
_WIDE = 100


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two ``depends``, a line each.

    Parameters
    ----------
    old, new : mapping
        Groups that only one of them has count as well.

    Returns
    -------
    list of str
        Such as ``"libraries.torch: 2.4.0 -> 2.5.1"``, in the order of :data:`GROUPS`; empty when nothing differs.
    """
    lines = []
    for group in _ordered([*old, *new]):
        lines += _changes(old.get(group, _ABSENT), new.get(group, _ABSENT), group)
    return lines


def depends_of(record: RunRecord) -> dict[str, Any]:
    """A record's ``depends``; of a record of an earlier version, what its other fields tell of it."""
    if record.depends:
        return record.depends
    return {
        "data": {name: record.dataset.get(name, "") for name in ("name", "filter", "checksum")},
        "split": {name: record.split.get(name, "") for name in ("name", "checksum")},
        "protocol": {"name": record.protocol.get("name", ""), "fingerprint": record.fingerprint},
        "recipe": record.recipe,
        "libraries": {
            name: number for name, number in record.versions.items() if name not in ("python", "recllm_bench")
        },
        "package": {"version": record.versions.get("recllm_bench", "")},
    }


def installed_now(record: RunRecord) -> dict[str, Any]:
    """``depends`` with the present versions of libraries and package, which can be told without the recipe."""
    from recllm_bench import __version__

    recorded = depends_of(record)
    return {
        **recorded,
        "libraries": versions_of_libraries(recorded.get("libraries", {})),
        "package": {**recorded.get("package", {}), "version": __version__},
    }


def why(record: RunRecord, present: Callable[[RunRecord], Mapping[str, Any]] | None = None) -> str:
    """Say what a record depends on and what has changed since.

    Parameters
    ----------
    present : callable, optional
        Computes what ``depends`` would be if the run were made now. Without it, or where it cannot (the data are
        gone), only libraries and package are compared.

    Returns
    -------
    str
        Lines for a terminal.
    """
    recorded = depends_of(record)
    lines = [f"{record.name}: {record.folder or ''}", f"  made {record.created or 'at an unknown time'}", "depends on"]
    for group in _ordered(recorded):
        values = _flat(recorded[group], "")
        lines.append(f"  {group}" + (f": {_shown(values[0][1])}" if len(values) == 1 and not values[0][0] else ""))
        lines += [f"    {name} = {_shown(value)}" for name, value in values if name]
    if not record.depends:
        lines.append("  (an earlier version made this record and kept no more)")
    asked = "only libraries and the package's version were compared"
    now: Mapping[str, Any] = installed_now(record)
    if present is not None and record.depends:
        try:
            now, asked = present(record), ""
        except BenchError as error:
            asked += f", since the run cannot be looked at now: {error}"
    changed = difference(recorded, now)
    lines.append("changed since" if changed else "nothing has changed since")
    lines += [f"  {line}" for line in changed]
    if asked:
        lines.append(f"({asked})")
    return "\n".join(lines)


def _ordered(groups: Any) -> list[str]:
    names = list(dict.fromkeys(groups))
    return [name for name in GROUPS if name in names] + sorted(name for name in names if name not in GROUPS)


def _changes(old: Any, new: Any, place: str) -> list[str]:
    old, new = (
        {} if side is _ABSENT and isinstance(other, Mapping) else side for side, other in ((old, new), (new, old))
    )
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = dict.fromkeys([*old, *new])
        return [
            line
            for name in names
            for line in _changes(old.get(name, _ABSENT), new.get(name, _ABSENT), f"{place}.{name}")
        ]
    if old is _ABSENT or new is _ABSENT:
        word, value = ("new", new) if old is _ABSENT else ("gone", old)
        return [f"{place}: {word} ({_shown(value)})"]
    same = old == new or (old != old and new != new)
    return [] if same else [f"{place}: {_shown(old)} -> {_shown(new)}"]


def _flat(value: Any, place: str) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        return [(place, value)]
    return [pair for name, part in value.items() for pair in _flat(part, f"{place}.{name}" if place else str(name))]


def _shown(value: Any) -> str:
    text = " ".join(("{}" if value == {} else str(value)).split()) or "''"
    return text if len(text) <= _WIDE else text[: _WIDE - 3] + "..."
