"""Ready profiles by others as labels: the JSON lines of XRec, with one user's and one item's summary a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recllm_bench.errors import BenchError
from recllm_bench.language.json_lines import read_lines
from recllm_bench.language.labels.label_records import KINDS, Labels, find_label_file, is_refusal, valid_text

if TYPE_CHECKING:
    from recllm_bench.data.prepared import PreparedDataset

_IDS = {"user": "uid", "item": "iid"}
_SUMMARIES = {"user": "user_summary", "item": "item_summary"}
_OWNER_IDS = {"user": ("user_id", "reviewerID", "username"), "item": ("business_id", "asin", "product_id")}
_MOST_OTHER_TITLES = 0.1


def import_profiles(
    path: str | Path,
    dataset: PreparedDataset,
    *,
    user_map: str | Path | None = None,
    item_map: str | Path | None = None,
) -> Labels:
    """Read profiles and give them to the users and items of a dataset.

    A line has ``uid`` and ``iid`` with ``user_summary`` and ``item_summary``, and usually ``title``. Whose numbers
    these are decides what they are compared with: the dataset's own tokens (``xrec-yelp``), or, through a map of
    numbers to the owner's ids as RLMRec publishes it (``{"uid": 0, "user_id": ...}``), the tokens of a dataset made of
    the owner's files. The explanation that XRec's lines also hold is made of the pair's own review and is not read.

    Users and items without a profile have no label; profiles of users and items that the dataset does not have are
    counted as ``unknown ids``. Different texts for one id become its versions.

    Parameters
    ----------
    path : str or Path
        JSON lines, plain or ``.gz``; a relative path is also looked for in the folder ``RECLLM_DATA_MIRROR``.
    dataset : PreparedDataset
        Gives ids their tokens, and titles to compare with.
    user_map, item_map : str or Path, optional
        JSON lines of number and owner's id; found as ``path`` is.

    Returns
    -------
    Labels
        ``scope`` is ``"unknown"``: the publishers do not say which reviews the summaries are made of.

    Raises
    ------
    BenchError
        With file and line for what is no profile; when no profile fits; and when the titles are of other items.
    """
    found = find_label_file(path)
    catalogue = dataset.catalogue
    tokens = {"user": dataset.user_tokens, "item": catalogue.tokens}
    ids = {kind: {token: id for id, token in enumerate(tokens[kind]) if id and token} for kind in KINDS}
    maps = {"user": _owner_ids(user_map, "user"), "item": _owner_ids(item_map, "item")}
    texts: dict[str, list[tuple[str, ...]]] = {kind: [()] * len(tokens[kind]) for kind in KINDS}
    counts = Counter({"profiles": 0, "empty": 0, "refusals": 0, "unknown ids": 0})
    unknown: set[tuple[str, str]] = set()
    same = other = 0
    for where, entry in read_lines(found, "profile"):
        counts["profiles"] += 1
        title = entry.get("title")
        for kind in KINDS:
            number = _field(entry, _IDS[kind], (int, str), where)
            text = valid_text(_field(entry, _SUMMARIES[kind], str, where))
            owners = maps[kind]
            token = str(number) if owners is None else owners.get(str(number), "")
            id = ids[kind].get(token, 0)
            if not id:
                unknown.add((kind, str(number)))
                continue
            if kind == "item" and isinstance(title, str) and title.strip() and catalogue.titles[id]:
                alike = _letters(title) == _letters(catalogue.titles[id])
                same, other = same + alike, other + (not alike)
            if reason := "empty" if not text else "refusals" if is_refusal(text) else "":
                counts[reason] += 1
            elif text not in texts[kind][id]:
                texts[kind][id] += (text,)
    counts["unknown ids"] = len(unknown)
    for kind in KINDS:
        counts[f"{kind}s without label"] = sum(1 for versions in texts[kind][1:] if not versions)
    if other > _MOST_OTHER_TITLES * max(same + other, 1):
        raise BenchError(
            f"{found}: {other} of {same + other} profiles have another title than the item of {dataset.name} with "
            "their number; the profiles belong to another dataset, or need an id map"
        )
    if not any(texts["user"]) and not any(texts["item"]):
        raise BenchError(
            f"{found}: none of its {counts['profiles']} profiles is of a user or item of {dataset.name}; use the "
            "dataset they were made for (xrec-yelp for XRec's), or give the map of their numbers to the owner's ids"
        )
    return Labels(texts["user"], texts["item"], f"profiles of {found.name}", "unknown", dict(counts))


def _field(entry: Mapping[str, Any], name: str, kinds: Any, where: str) -> Any:
    value = entry.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        wanted = "text" if kinds is str else "a number or text"
        needed = ", ".join([*_IDS.values(), *_SUMMARIES.values()])
        raise BenchError(f"{where}: '{name}' is {wanted}, not {value!r}; a profile has {needed}")
    return value


def _owner_ids(path: str | Path | None, kind: str) -> dict[str, str] | None:
    """Owner's ids by number."""
    if path is None:
        return None
    owners: dict[str, str] = {}
    for where, entry in read_lines(find_label_file(path), "number and id"):
        number, names = entry.get(_IDS[kind]), [name for name in _OWNER_IDS[kind] if name in entry]
        if number is None or len(names) != 1:
            raise BenchError(f"{where}: an id map has {_IDS[kind]} and one of {', '.join(_OWNER_IDS[kind])} a line")
        owners[str(number)] = str(entry[names[0]])
    return owners


def _letters(title: str) -> str:
    return "".join(sign for sign in title.casefold() if sign.isalnum())
