"""What a server said of a downloaded file, so that a change at its owner's can be found when somebody asks."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from recllm_bench.artifacts import ArtifactStore, set_aside, write_json
from recllm_bench.data.cards import find_card
from recllm_bench.errors import BenchError
from recllm_bench.locations import data_mirror

ORIGIN = "origin.json"
"""Beside a downloaded file: its address and what the server said of it."""
_SAID = ("ETag", "Last-Modified", "Content-Length")
_TIMEOUT_S = 30.0


def note_origin(folder: Path, url: str, headers: Mapping[str, str]) -> None:
    """Write down where a file came from and by what a later version of it could be told."""
    write_json(folder / ORIGIN, {"url": url, **{name: headers[name] for name in _SAID if headers.get(name)}})


def set_aside_changed(store: ArtifactStore, urls: Collection[str]) -> list[str]:
    """Ask the servers of files without a checksum; what has changed, or cannot be told, is set aside.

    Parameters
    ----------
    store : ArtifactStore
    urls : collection of str
        Addresses to ask.

    Returns
    -------
    list of str
        A line for each file: the same as when it was fetched, or set aside and why.

    Raises
    ------
    BenchError
        When a server cannot be asked; nothing is set aside then.
    """
    found = []
    for path in sorted(store.root.glob(f"download/*/{ORIGIN}")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # the store finds such damage itself
        if ".damaged-" not in path.parent.name and told.get("url") in urls:
            found.append((path.parent, told, _change(told)))
    for folder, told, change in found:
        if change:
            set_aside(folder, f"{told['url']}: {change}; fetching it again")
    return [f"{told['url']}: {change or 'as it was fetched'}" for _, told, change in found]


def ask_owners(name: str, store: ArtifactStore) -> list[str]:
    """Ask the servers of a dataset's downloads without a checksum whether they changed.

    Parameters
    ----------
    name : str
        Of the dataset; a path to data of one's own has nothing to ask.
    store : ArtifactStore

    Returns
    -------
    list of str
        A line for each file, as :func:`set_aside_changed`.

    Raises
    ------
    BenchError
        For an unknown dataset, or when a server cannot be asked.
    """
    if Path(name).exists():
        return []
    card = find_card(name)
    lists = [{"files": files} for files in card.get("id_lists", {}).values()]
    mirror, urls = (data_mirror() or "").rstrip("/") + "/", set()
    for variant in (*card["variants"], *lists):
        for entry in (*variant.get("files", {}).values(), variant.get("archive", {})):
            near = entry.get("path") or PurePosixPath(entry.get("file") or entry.get("url", "")).name
            urls |= {entry.get("url", ""), mirror + near}
    return set_aside_changed(store, urls)


def _change(told: Mapping[str, str]) -> str:
    """What the server says of a file otherwise than when it was fetched; "" when it is the same."""
    request = urllib.request.Request(
        told["url"], method="HEAD", headers={"User-Agent": "recllm-bench", "Accept-Encoding": "identity"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            now = answer.headers
    except (OSError, HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise BenchError(f"cannot ask {told['url']} ({reason}); without --again the cached file serves") from error
    both = [name for name in _SAID if told.get(name) and now.get(name)]
    for name in both:
        if told[name] != now[name]:
            return f"its {name} is {now[name]}, and was {told[name]}"
    # A length alone says nothing of a change that keeps it.
    return "" if {"ETag", "Last-Modified"} & set(both) else "the server does not say whether it has changed"
