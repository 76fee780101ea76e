"""Labels of users and items: what they are, their file, and how one version is drawn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.artifacts import content_hash, file_hash, write_atomic
from recllm_bench.data.saved_folders import is_saved, saved_files
from recllm_bench.errors import BenchError
from recllm_bench.language.chat_replies import spoken, whole_text
from recllm_bench.language.json_lines import json_line, read_lines
from recllm_bench.locations import data_mirror

KINDS = ("user", "item")
SCOPES = ("train_only", "all")
_FIELDS = ("kind", "id", "stage", "version", "text", "model", "prompt_hash")
_ABOUT = "about"
_REFUSAL_WITHIN = 160  # a refusal says so at once; later on such words may quote somebody
_MATTER = r"(?:information|details|reviews?|context|data)"
_REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|^\W*(?:[\w'’]+[,!.] (?:but )?){0,2}i(?:['’]m| am) (?:really |very |so )?(?:sorry|unable to|not able to|afraid)\b"
    r"|^\W*(?:unfortunately,? |sorry,? (?:but )?)?i (?:can(?:no|['’])t|can not|won['’]t|do not have|don['’]t have)\b"
    r"|^\W*(?:sorry\b|i apologi[sz]e\b|my apologies\b)"
    rf"|^\W*(?:there (?:is|was) )?(?:not enough|insufficient) {_MATTER}\b"
    rf"|^\W*no {_MATTER}\b[^.]{{0,20}}\b(?:is|was|are|were|available|provided|given)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Label:
    """One text about one user or item, and where it came from.

    Attributes
    ----------
    kind : {"user", "item"}
        What it describes.
    id : int
        User or item id, from 1.
    stage : int
        1: a profile as first written; 2: cleaned.
    version : int
        0: the label; above: a rewording of it.
    text : str
        The label.
    model : str
        Who wrote it, such as ``"extractive"`` or a model's name.
    prompt_hash : str
        Hash of what was asked; "" when nothing was.
    """

    kind: str
    id: int
    stage: int
    version: int
    text: str
    model: str = ""
    prompt_hash: str = ""


@dataclass(frozen=True)
class Labels:
    """Labels by id, entry 0 empty; an id without a label has an empty tuple.

    Attributes
    ----------
    users, items : list of tuple of str
        Versions of the label of each id: the label first, then its rewordings.
    source : str
        Who wrote them: ``"extractive"``, the chat model's name, ``"profiles of FILE"`` or a file's name.
    scope : str
        ``"train_only"``, ``"all"``, or ``"unknown"`` when the writer did not say which text was used.
    counts : dict of str to int
        What was left out, by reason: ``empty``, ``refusals``, ``unknown ids`` ...
    writers : tuple of str
        The models that wrote the texts, ``""`` for one that is not named; by default the source.
    """

    users: list[tuple[str, ...]]
    items: list[tuple[str, ...]]
    source: str
    scope: str
    counts: dict[str, int] = field(default_factory=dict)
    writers: tuple[str, ...] = ()

    def of(self, kind: str) -> list[tuple[str, ...]]:
        """Labels of one kind, by id."""
        return self.users if kind == "user" else self.items

    def flat(self, kind: str) -> tuple[list[str], np.ndarray]:
        """All versions in one list, for tokenising each once.

        Returns
        -------
        texts : list of str [total]
            Versions of id 0 (none), of id 1, and so on.
        offsets : int64 [n + 2]
            Id ``k`` owns ``texts[offsets[k]:offsets[k + 1]]``.
        """
        rows = self.of(kind)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return [text for row in rows for text in row], offsets

    def statistics(self) -> dict[str, Any]:
        """What a run record says of them: who has one, how long they are, what was dropped."""
        writers = list(self.writers or (self.source,))
        facts: dict[str, Any] = {"source": self.source, "scope": self.scope, "writers": writers}
        for kind in KINDS:
            rows = self.of(kind)[1:]
            lengths = [len(text.split()) for row in rows for text in row]
            facts[f"{kind}s"] = {
                "total": len(rows),
                "with_label": sum(1 for row in rows if row),
                "versions": len(lengths),
                "mean_words": round(float(np.mean(lengths)), 2) if lengths else 0.0,
                "most_words": max(lengths, default=0),
            }
        return {**facts, "counts": {name: count for name, count in self.counts.items() if count}}


def item_token(item: int) -> str:
    """How a text names an item: ``iid_17``."""
    return f"iid_{item}"


def plural(noun: str) -> str:
    """A domain's word for several: ``movies``, ``businesses``, ``categories``."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def valid_text(text: str) -> str:
    """A label's words: without the thoughts of the model that wrote it, and with nothing that a file cannot hold."""
    return spoken(whole_text(text))


def is_refusal(text: str) -> bool:
    """Whether a text is a generator's refusal or apology and no label."""
    return bool(_REFUSAL.search(text[:_REFUSAL_WITHIN]))


def draw_versions(offsets: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one version for each id, uniformly over those it has (ReLRec, section 2, label sampling).

    Parameters
    ----------
    offsets : int64 [n + 2]
        From :meth:`Labels.flat`.
    ids : int [b]
        User or item ids; repeats are drawn independently.
    rng : numpy.random.Generator
        Seeded by the caller; one number is drawn for each id, with a label or not.

    Returns
    -------
    int64 [b]
        Places in the flat list of texts; -1 where the id has no label.

    Raises
    ------
    IndexError
        For an id outside the table.
    """
    ids = np.asarray(ids, dtype=np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= len(offsets) - 1):
        raise IndexError(f"label ids go from 0 to {len(offsets) - 2}, got {ids.min()} to {ids.max()}")
    starts = offsets[ids]
    counts = offsets[ids + 1] - starts
    drawn = starts + np.minimum((rng.random(len(ids)) * counts).astype(np.int64), counts - 1)
    return np.where(counts > 0, drawn, -1)


def switched(labels: Labels, other: Labels) -> Labels:
    """Give id ``k`` the label of id ``k mod n`` of another dataset (ReLRec, table 4); remainder 0 is id ``n``.

    Sequences and ids stay as they are: only the texts change.

    Raises
    ------
    BenchError
        When the other labels have no users or no items to borrow from.
    """

    def borrowed(mine: list[tuple[str, ...]], theirs: list[tuple[str, ...]], kind: str) -> list[tuple[str, ...]]:
        n = len(theirs) - 1
        if n < 1:
            raise BenchError(
                f"switched labels: {other.source} knows no {kind}s; name labels of a dataset that has some"
            )
        return [(), *(theirs[(k - 1) % n + 1] for k in range(1, len(mine)))]

    return Labels(
        borrowed(labels.users, other.users, "user"),
        borrowed(labels.items, other.items, "item"),
        f"switched: {other.source}",
        other.scope,
        dict(other.counts),
    )


def find_label_file(name: str | Path) -> Path:
    """Find labels or profiles, a file (plain or ``.gz``) or a saved folder: here, or under ``RECLLM_DATA_MIRROR``.

    Raises
    ------
    BenchError
        When it is in neither place.
    """
    given = Path(name).expanduser()
    mirror = data_mirror()
    folders = [Path()]
    if mirror and "://" not in mirror and not given.is_absolute():
        folders.append(Path(mirror).expanduser())
    bare = given.with_name(given.name.removesuffix(".gz"))
    for folder in folders:
        for path in (given, bare, bare.with_name(f"{bare.name}.gz")):
            if (folder / path).is_file() or is_saved(folder / path):
                return folder / path
    raise BenchError(f"{given}: no such file of labels, here or under the folder RECLLM_DATA_MIRROR")


def labels_hash(path: Path) -> str:
    """SHA-256 of what a file or folder of :func:`find_label_file` holds: of a folder also its order and description."""
    if path.is_file():
        return file_hash(path)
    # the state beside each table bears a mark of its own for each time it was saved
    told = {role: part for role, part in saved_files(path).items() if part.name != "state.json"}
    return content_hash({role: file_hash(part) for role, part in told.items()})


def write_labels(path: Path, labels: Labels) -> None:
    """Write labels as JSON lines, atomically; :func:`read_labels` gives them back.

    The first line (``kind: about``) tells source, scope and counts; every other line is a :class:`Label`.
    """

    def write(file: Any) -> None:
        about = {"kind": _ABOUT, "source": labels.source, "scope": labels.scope, "counts": labels.counts}
        file.write(json_line(about))
        for label in label_rows(labels):
            file.write(json_line(asdict(label)))

    write_atomic(Path(path), write)


def label_rows(labels: Labels) -> Iterator[Label]:
    """Each version of each label, users first."""
    for kind in KINDS:
        for id, versions in enumerate(labels.of(kind)):
            for version, text in enumerate(versions):
                yield Label(kind, id, 2, version, text, labels.source)


def read_labels(path: Path, n_users: int, n_items: int) -> Labels:
    """Read a file of labels, one JSON object a line: ``kind, id, version, text``, optionally the rest of a Label.

    Where an id has labels of several stages, those of the highest count. Empty texts and refusals are dropped and
    counted.

    Parameters
    ----------
    path : Path
        The file, UTF-8, plain or gzipped.
    n_users, n_items : int
        Ids go up to these.

    Raises
    ------
    BenchError
        With file and line: for broken JSON, a missing or wrong field, a wrong kind, an id the dataset does not have,
        and a label given twice.
    """
    return labels_of_rows(read_lines(Path(path), "label"), n_users, n_items, Path(path).name)


def labels_of_rows(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    n_users: int,
    n_items: int,
    name: str,
    about: Mapping[str, Any] | None = None,
) -> Labels:
    """Labels of entries with their places, ``FILE:LINE``; see :func:`read_labels`.

    Parameters
    ----------
    name : str
        Their source where neither ``about`` nor an entry names one.
    about : mapping, optional
        ``source, scope, counts``, where no entry of the kind ``about`` gives them.
    """
    about = dict(about or {})
    found: dict[tuple[str, int, int], dict[int, str]] = {}
    top: dict[tuple[str, int], int] = {}
    lines: dict[tuple[str, int, int, int], str] = {}
    models: Counter[str] = Counter()
    counts = Counter({"empty": 0, "refusals": 0})
    for where, entry in rows:
        if entry.get("kind") == _ABOUT:
            about = about or dict(entry)
            continue
        label = _read_label(entry, {"user": n_users, "item": n_items}, where)
        place = (label.kind, label.id, label.stage, label.version)
        if (first := lines.setdefault(place, where)) != where:
            raise BenchError(
                f"{where}: {label.kind} {label.id} has its version {label.version} already in line"
                f" {first.rpartition(':')[2]}; "
                "keep one, or give the other the next version"
            )
        if reason := "empty" if not label.text else "refusals" if is_refusal(label.text) else "":
            counts[reason] += 1
            continue
        models[label.model] += 1
        found.setdefault(place[:3], {})[label.version] = label.text
        top[place[:2]] = max(label.stage, top.get(place[:2], 0))
    held: dict[str, list[tuple[str, ...]]] = {"user": [()] * (n_users + 1), "item": [()] * (n_items + 1)}
    for (kind, id), stage in top.items():
        versions = found[kind, id, stage]
        held[kind][id] = tuple(versions[version] for version in sorted(versions))
    for reason, count in (about.get("counts") or {}).items():
        counts[reason] += count
    source = about.get("source") or ", ".join(model for model, _ in models.most_common() if model) or name
    scope, writers = about.get("scope") or "unknown", tuple(sorted(models))
    return Labels(held["user"], held["item"], source, scope, dict(counts), writers)


def _read_label(entry: Mapping[str, Any], sizes: Mapping[str, int], where: str) -> Label:
    missing = [name for name in ("kind", "id", "version", "text") if name not in entry]
    if missing:
        raise BenchError(f"{where}: the label lacks {', '.join(missing)}; a line has {', '.join(_FIELDS)}")
    kind, text = entry["kind"], entry["text"]
    if kind not in sizes:
        raise BenchError(f"{where}: kind is user or item, not {kind!r}")
    numbers = {name: entry.get(name, 2) for name in ("id", "stage", "version")}
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BenchError(f"{where}: {name} is a whole number, not {value!r}")
    if not 1 <= numbers["id"] <= sizes[kind]:
        raise BenchError(
            f"{where}: there is no {kind} {numbers['id']}, ids go from 1 to {sizes[kind]}; "
            "the labels belong to another dataset or filter"
        )
    if not isinstance(text, str):
        raise BenchError(f"{where}: text is a string, not {text!r}")
    model, asked = entry.get("model") or "", entry.get("prompt_hash") or ""
    return Label(kind, **numbers, text=valid_text(text), model=str(model), prompt_hash=str(asked))
