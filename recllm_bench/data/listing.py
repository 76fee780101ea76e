"""What is known of every dataset without reading any of them. Imports nothing heavy, so that listings start at once."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from recllm_bench.artifacts import MANIFEST, ArtifactStore
from recllm_bench.data.cards import all_cards, default_store
from recllm_bench.errors import BenchError, nearest
from recllm_bench.locations import data_mirror

# Where a dataset's files come from, in the order in which preparation looks.
PLACES = {
    "package": "inside an installed package",
    "mirror": "under RECLLM_DATA_MIRROR",
    "download": "at a public address",
    "by form": "not here and at no public address: get them from the owner and put them under RECLLM_DATA_MIRROR",
}
_SHARED = ("corpus", "reviews")  # what datasets of the same files have in common
_COUNTS = ("users", "items", "interactions")


@dataclass(frozen=True)
class Listed:
    """One line of the listing.

    Attributes
    ----------
    name, title, domain, licence : str
        From the card; the name of a template has ``{category}`` in it.
    aliases, filters : tuple of str
        Other names; filters of the card.
    counts : dict of str to int
        ``users, items, interactions`` as far as the card, or the prepared data, says.
    counted : str
        Filter of these counts, ``", published"`` behind it when they are only a paper's; empty without counts.
    prepared : tuple of str
        Filters under which the dataset lies ready in the store.
    bytes : int
        Size of its folders in the store.
    place : str
        A key of :data:`PLACES`.
    categories : int
        0, or how many datasets a template stands for.
    """

    name: str
    title: str
    domain: str
    licence: str
    aliases: tuple[str, ...]
    filters: tuple[str, ...]
    counts: Mapping[str, int]
    counted: str
    prepared: tuple[str, ...]
    bytes: int
    place: str
    categories: int = 0


def listed_datasets(
    wanted: Sequence[str] = (),
    *,
    every: bool = False,
    store: ArtifactStore | None = None,
    cards: Mapping[str, dict[str, Any]] | None = None,
) -> list[Listed]:
    """Lines for the listing, sorted by name.

    Cards of one template are one line, and those of them that are prepared or on the mirror have a line of their own.

    Parameters
    ----------
    wanted : sequence of str
        Parts of names, other names or titles (upper and lower case alike, dashes as good as spaces): only datasets
        with one of them, each on its own line.
    every : bool
        A line for every card.
    store : ArtifactStore, optional
        Where prepared data lies; by default the cache folder's store.
    cards : mapping, optional
        Cards by name; by default all that are known.

    Raises
    ------
    BenchError
        When no dataset has a wanted name, with the nearest known one.
    """
    cards = all_cards() if cards is None else cards
    ready = _prepared((store or default_store()).root)
    nothing = _Ready({}, {})
    pairs = [
        (_listed(card, ready.get(card["name"], nothing)), card.get("template")) for _, card in sorted(cards.items())
    ]
    if wanted:
        for part in wanted:
            if not any(_has(row, part) for row, _ in pairs):
                known = [name for row, _ in pairs for name in (row.name, *row.aliases)]
                raise BenchError(f"no dataset has '{part}' in its name.{nearest(part, known)}")
        return [row for row, _ in pairs if any(_has(row, part) for part in wanted)]
    if every:
        return [row for row, _ in pairs]
    groups: dict[str, list[Listed]] = {}
    for row, template in pairs:
        if template:
            groups.setdefault(template, []).append(row)
    own = [row for row, template in pairs if not template or row.prepared or row.place in ("package", "mirror")]
    return sorted([*own, *(_collapsed(name, rows) for name, rows in groups.items())], key=lambda row: row.name)


_RIGHT = {2, 3, 4, 6}
_LEAST = (8, 1, 7, 6, 4, 5)  # columns that a narrow terminal does without, in this order


def dataset_table(rows: Iterable[Listed], width: int = 0) -> str:
    """The lines as a table for people, with a legend.

    Parameters
    ----------
    rows : iterable of Listed
        From :func:`listed_datasets`.
    width : int
        Columns of the terminal: what is least needed is left out where it is too narrow; 0 for no limit.
    """
    rows = list(rows)
    head = ("name", "title", *_COUNTS, "prepared", "size", "files", "licence")
    marked = any(row.counts and row.counted != "all" for row in rows)
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    shown, gone = list(range(len(head))), []
    for column in _LEAST:
        if not width or 2 + sum(widths[at] + 2 for at in shown) - 2 <= width:
            break
        shown.remove(column)
        gone.append(head[column])
    lines = [
        "  "
        + "  ".join(
            f"{line[at]:>{widths[at]}}" if at in _RIGHT else f"{line[at]:<{widths[at]}}" for at in shown
        ).rstrip()
        for line in cells
    ]
    lines.append("")
    if gone:
        lines.append(f"  (too narrow for {', '.join(gone)})")
    if marked:
        said = sorted({row.counted for row in rows if row.counts and row.counted != "all"})
        lines.append(f"  * not of the whole source, but after a filter or as a paper prints it: {'; '.join(said)}")
    lines += [f"  files {place}: {PLACES[place]}" for place in _places_of(rows)]
    if any(row.categories for row in rows):
        lines.append("  {category} stands for many datasets: 'recllm-bench datasets --all', or a part of the name")
    return "\n".join(lines)


def human_size(count: int) -> str:
    """Bytes in decimal units: ``999 B``, ``12.3 MB``."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def _cells(row: Listed) -> tuple[str, ...]:
    mark = "" if row.counted == "all" else "*"
    counts = [f"{row.counts[name]:,}{mark}" if name in row.counts else "-" for name in _COUNTS]
    size = human_size(row.bytes) if row.bytes else "-"
    return (row.name, row.title, *counts, ", ".join(row.prepared) or "-", size, row.place, row.licence)


def _places_of(rows: Iterable[Listed]) -> list[str]:
    used = {place for row in rows for place in row.place.split(", ")}
    return [place for place in PLACES if place in used]


def _has(row: Listed, part: str) -> bool:
    return any(_folded(part) in _folded(name) for name in (row.name, *row.aliases, row.title))


def _folded(name: str) -> str:
    return name.casefold().replace("-", " ").replace("_", " ")


class _Ready(NamedTuple):
    """What the store holds of a dataset: bytes by filter (``""``: what its filters share), counts of ``all``."""

    sizes: dict[str, int]
    counts: dict[str, int]


def _listed(card: Mapping[str, Any], ready: _Ready) -> Listed:
    counts, counted = _known_counts(card, ready.counts)
    return Listed(
        name=card["name"],
        title=card["title"],
        domain=card["domain"],
        licence=card["licence"]["name"],
        aliases=tuple(card.get("aliases", ())),
        filters=tuple(card["filters"]),
        counts=counts,
        counted=counted,
        prepared=tuple(sorted(name for name in ready.sizes if name)),
        bytes=sum(ready.sizes.values()),
        place=_place(card),
    )


def _collapsed(template: str, rows: list[Listed]) -> Listed:
    shared = takewhile(lambda words: len(set(words)) == 1, zip(*(row.title.split() for row in rows), strict=False))
    title = " ".join(words[0] for words in shared).rstrip(" ,:(-") or template
    if len(rows) > 1:
        title += f" ({len(rows)} categories)"
    places = ", ".join(place for place in PLACES if any(row.place == place for row in rows))
    return replace(
        rows[0],
        name=template if "{" in template else f"{template}-{{category}}",
        title=title,
        aliases=(),
        counts={},
        counted="",
        prepared=(f"{sum(bool(row.prepared) for row in rows)} of {len(rows)}",),
        bytes=sum(row.bytes for row in rows),
        place=places,
        categories=len(rows),
    )


def _known_counts(card: Mapping[str, Any], found: Mapping[str, int]) -> tuple[dict[str, int], str]:
    """Counts of the whole source: expected, found or published; else of the filter of which most is known."""
    kinds = (card.get("expected") or {}, {"all": found} if found else {}, card.get("published") or {})
    known = [
        ({key: part[key] for key in _COUNTS if key in part}, name, kind is kinds[2])
        for kind in kinds
        for name, part in kind.items()
        if isinstance(part, Mapping)
    ]
    known.sort(key=lambda entry: (entry[1] != "all", -len(entry[0])))  # stable: the kinds keep their order
    for counts, name, published in known:
        if counts:
            return counts, name + (", published" if published else "")
    return {}, ""


def _place(card: Mapping[str, Any]) -> str:
    variants = card["variants"]
    if any("package" in variant and importlib.util.find_spec(variant["package"]) for variant in variants):
        return "package"
    mirror = data_mirror()
    if mirror and not mirror.startswith(("http://", "https://")):
        folder = Path(mirror).expanduser()
        if any(_lies_in(folder, variant) for variant in variants if "package" not in variant):
            return "mirror"
    return "download" if any(_has_address(variant) for variant in variants) else "by form"


def _lies_in(folder: Path, variant: Mapping[str, Any]) -> bool:
    """Whether all files that the variant must have, or its archive, are there under their names."""
    needed = [entry for entry in variant.get("files", {}).values() if not entry.get("optional")]
    if needed and all(any((folder / name).is_file() for name in _names(entry)) for entry in needed):
        return True
    archive = variant.get("archive") or {}
    name = archive.get("file") or PurePosixPath(archive.get("url", "")).name
    return bool(name) and any(path.is_file() for path in (folder / name, folder / Path(name).stem / name))


def _names(entry: Mapping[str, Any]) -> tuple[str, str]:
    bare = entry["path"].removesuffix(".gz")
    return bare, f"{bare}.gz"


def _has_address(variant: Mapping[str, Any]) -> bool:
    needed = [entry for entry in variant.get("files", {}).values() if not entry.get("optional")]
    return bool((variant.get("archive") or {}).get("url")) or (bool(needed) and all(e.get("url") for e in needed))


def _prepared(root: Path) -> dict[str, _Ready]:
    """What the store holds, by dataset."""
    found: dict[str, _Ready] = {}
    sharing: dict[str, set[str]] = {}
    for folder, key in _artifacts(root / "dataset"):
        name, filter = str(key.get("name")), str(key.get("filter"))
        ready = found.setdefault(name, _Ready({}, {}))
        ready.sizes[filter] = ready.sizes.get(filter, 0) + _size(folder)
        sharing.setdefault(_files(key), set()).add(name)
        if filter == "all":
            ready.counts.update(_read_counts(folder))
    shared = (artifact for kind in _SHARED for artifact in _artifacts(root / kind))
    for folder, key in shared:
        for name in sharing.get(_files(key), ()):
            sizes = found[name].sizes
            sizes[""] = sizes.get("", 0) + _size(folder)
    return found


def _artifacts(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        if "." in manifest.parent.name:
            continue  # damaged, and set aside
        try:
            key = json.loads(manifest.read_text(encoding="utf-8"))["key"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a listing must not fail on one odd folder; preparing will report it
        if isinstance(key, dict):
            yield manifest.parent, key


def _files(key: Mapping[str, Any]) -> str:
    """The source files a product was made of: a corpus belongs to the datasets of the same files."""
    return json.dumps([key.get("sources"), key.get("reader")], sort_keys=True)


def _read_counts(folder: Path) -> dict[str, int]:
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        return {name: int(facts[name]) for name in _COUNTS}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # removed meanwhile
    return total
