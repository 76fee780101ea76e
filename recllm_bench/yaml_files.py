"""A YAML file that somebody wrote, as plain values, with the line of each; every mistake is one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError

_DEEPEST = 20  # levels of mappings and lists in a file; none needs more than a few
_LARGEST = 100_000  # values, aliases written out


def read_mapping(path: Path, says: str) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """Read a file whose top level is a mapping.

    Parameters
    ----------
    says : str
        What such a file holds, for the message when it holds something else.

    Returns
    -------
    values : dict
        Plain values; every key is text, no key comes twice.
    lines : dict of tuple to int
        Line of each key of the first two levels, from 1: ``lines["a", "b"]`` for ``b`` in the mapping under ``a``.

    Raises
    ------
    BenchError
        When it cannot be read, is no YAML or no mapping, has a key twice or one that is not text, with file and line.
    """
    values, node = parse_yaml(_text(path), str(path))
    if not isinstance(values, dict):
        raise BenchError(f"{path}:1: {says}")
    return values, dict(_lines(node))


def parse_yaml(text: str, where: str) -> tuple[Any, Any]:
    """Plain values of YAML text, and its node (with the place of each part).

    Raises
    ------
    BenchError
        For what is no YAML, has a key twice or one that is not text, or contains itself; with the line.
    """
    import yaml

    try:
        node = yaml.compose(text, yaml.SafeLoader)
        _check_node(node, where, (), {})
        return yaml.safe_load(text), node
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits, a date with month 13
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = f"{where}:{line + 1}" if line is not None else where
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise BenchError(f"{place}: not valid YAML ({problem})") from error
    except RecursionError as error:
        raise BenchError(f"{where}: not valid YAML (lists or mappings are nested too deep)") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise BenchError(f"{path}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except FileNotFoundError as error:
        raise BenchError(f"there is no file {path}") from error
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror})") from error


def _check_node(node: Any, where: str, above: tuple[int, ...], sizes: dict[int, int]) -> int:
    """Refuse keys that are not text or come twice, and values that contain themselves; returns the values in it."""
    import yaml

    if not isinstance(node, yaml.CollectionNode):
        return 1
    place = f"{where}:{node.start_mark.line + 1}"
    if id(node) in above:
        raise BenchError(f"{place}: not valid YAML (a value contains itself: an alias names one of its parents)")
    if len(above) >= _DEEPEST:
        raise BenchError(f"{place}: not valid YAML (lists or mappings are nested deeper than {_DEEPEST} levels)")
    if id(node) not in sizes:
        parts = node.value if isinstance(node, yaml.SequenceNode) else _values(node, where)
        sizes[id(node)] = 1 + sum(_check_node(part, where, (*above, id(node)), sizes) for part in parts)
    if sizes[id(node)] > _LARGEST:
        raise BenchError(f"{place}: not valid YAML (aliases make more than {_LARGEST:,} values of it)")
    return sizes[id(node)]


def _values(node: Any, where: str) -> list[Any]:
    """The values of a mapping whose keys are names, each once."""
    import yaml

    seen: set[str] = set()
    for key, _ in node.value:
        line = f"{where}:{key.start_mark.line + 1}"
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.tag != "tag:yaml.org,2002:str":
            shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise BenchError(f"{line}: the key {shown or 'null'} is not text; write a name, or put it in quotes")
        if key.value in seen:
            raise BenchError(f"{line}: '{key.value}' is here twice; keep one")
        seen.add(key.value)
    return [value for _, value in node.value]


def _lines(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    import yaml

    if not isinstance(node, yaml.MappingNode) or len(above) > 1:
        return
    for key, value in node.value:
        yield (*above, str(key.value)), key.start_mark.line + 1
        yield from _lines(value, (*above, str(key.value)))
