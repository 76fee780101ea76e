"""Scores from outside the bench, measured by its rules: a function, an array, ranked lists, a model of RecBole."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recllm_bench.artifacts import content_hash, write_atomic
from recllm_bench.errors import BenchError
from recllm_bench.python.datasets import Dataset, dataset_name
from recllm_bench.python.ranked_lists import RankedLists, lists_of_frame, lists_of_mapping, read_lists
from recllm_bench.python.runs import OUTSIDE, Run

if TYPE_CHECKING:
    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.data.splits import Cases, Split
    from recllm_bench.evaluation.protocols import Protocol


def evaluate(
    scores: Any,
    dataset: str | Path | Dataset,
    protocol: str | Protocol = "unified.full",
    *,
    name: str = "",
    ids: Any = None,
    reads_words: bool = False,
    seed: int = 42,
) -> Run:
    """Measure scores that the bench did not make, so that they stand in one table with what it made.

    Parameters
    ----------
    scores : object
        One of these:

        - a function ``score(user_ids, histories) -> array [B, n_items + 1]``: user ids ``int64 [B]`` and item ids
          ``int32 [length]`` of each user, oldest first; column 0 is padding and counts for nothing;
        - an array ``[n_users + 1, n_items + 1]``; row and column 0 are padding;
        - ranked lists: a mapping of users to their items, best first; a DataFrame (or a CSV, TSV or Parquet file)
          with ``user_id`` and ``item_id``, ordered by ``rank`` (1 is best) or ``score`` (highest is best) where it has
          one, else by its rows. An item that is not in the list ranks behind all that are, and gains nothing;
        - a trained RecBole model.
    dataset : str, Path or Dataset
        As for ``run``.
    protocol : str or Protocol
        A name, or a protocol of your own.
    name : str
        The row's name; by default the function's or the class's.
    ids : object, optional
        Whose ids ranked lists hold: ``"data"`` (the default), the data's own, or ``"bench"``, ours. For a model, what
        its ids mean: the RecBole dataset that it was built on, or ``"bench"`` for one that ``run.load()`` gave.
        Functions and arrays have ours.
    reads_words : bool
        Whether the scores were made with words that came from the target; decides the block of the table.
    seed : int
        Of what made the scores; runs that differ in it alone become one row.

    Returns
    -------
    Run
        Its record says that the scores came from outside. What they were made from is not known to the bench: keep
        the test part of the split out of it yourself.

    Raises
    ------
    BenchError
        For scores of a wrong shape, that are no numbers, unknown or repeated ids, and users without a list.
    """
    from recllm_bench.conversation.real_users import evaluated_data
    from recllm_bench.data.cards import default_store
    from recllm_bench.evaluation.candidates import evaluated_cases, protocol_candidates
    from recllm_bench.evaluation.protocols import protocol_named
    from recllm_bench.evaluation.ranks import rank_cases
    from recllm_bench.reporting import records

    rules = protocol_named(protocol) if isinstance(protocol, str) else protocol
    store = default_store()
    prepared, split = evaluated_data(dataset_name(dataset), rules, store)
    cases = evaluated_cases(split.test, rules)
    given = _given(scores, prepared, split, cases, rules, ids)
    candidates = protocol_candidates(rules, split, cases, store)
    records.check_writable(_records_folder())
    start = time.perf_counter()
    try:
        ranks = rank_cases(
            given.model,
            split,
            cases,
            rules,
            columns={"case": np.arange(len(cases))},
            candidates=candidates,
            max_length=given.max_length,
            device=given.device,
            top=max(rules.cutoffs),
        )
    except NotImplementedError as error:
        raise BenchError(f"{given.name} gives no scores of all items: it lacks full_sort_predict") from error
    record = records.make_record(
        name=name or given.name,
        recipe=_recipe(prepared, rules, given.form, seed),
        block="text" if reads_words else "history",
        dataset=prepared,
        protocol=rules,
        split=split,
        ranks=ranks,
        evaluation_seconds=time.perf_counter() - start,
        notes=[f"scores from outside ({given.form}): what they were made from is not checked", *given.notes],
        candidates=candidates,
        device=str(given.device),
    )
    folder = records.write_record(_folder(record), record, ranks)
    text = "# The scores came from outside the bench: this cannot be run again from here.\n"
    text += (folder / "recipe.yaml").read_text(encoding="utf-8").partition("\n")[2]
    write_atomic(folder / "recipe.yaml", lambda file: file.write(text.encode()))
    return Run(record)


@dataclass(frozen=True)
class _Given:
    """Scores in the form that ranking takes: something with ``full_sort_predict``."""

    model: Any
    form: str
    name: str
    notes: list[str] = field(default_factory=list)
    max_length: int = 1
    device: Any = "cpu"


def _given(scores: Any, prepared: PreparedDataset, split: Split, cases: Cases, rules: Protocol, ids: Any) -> _Given:
    import pandas as pd

    if isinstance(scores, Run):
        raise BenchError(f"{scores.name} is measured already; run.load() gives its model")
    if hasattr(scores, "full_sort_predict") and not isinstance(scores, type):
        return _of_model(scores, prepared, split, cases, ids)
    if isinstance(scores, (str, Path)):
        scores = read_lists(Path(scores))
    if isinstance(scores, pd.DataFrame):
        return _of_lists(lists_of_frame(scores, prepared, ids or "data"), prepared, cases)
    if isinstance(scores, Mapping):
        return _of_lists(lists_of_mapping(scores, prepared, ids or "data"), prepared, cases)
    if ids is not None:
        raise BenchError("ids= is for ranked lists and models; a function or an array has the bench's ids")
    n_users, n_items = prepared.histories.n_users, prepared.histories.n_items
    keep_values = rules.exclude_history and rules.seen_score == "zero"
    if isinstance(scores, (np.ndarray, torch.Tensor)):
        table = scores.detach().cpu().numpy() if isinstance(scores, torch.Tensor) else scores
        wanted = (n_users + 1, n_items + 1)
        if table.shape != wanted:
            raise BenchError(
                f"scores {list(table.shape)} must be {list(wanted)}: users and items of {prepared.name} with the "
                "padding row and column 0"
            )
        return _Given(_Scored(lambda rows: table[cases.users[rows]], cases, n_items, keep_values), "array", "Scores")
    if callable(scores) and not isinstance(scores, type):
        return _of_function(scores, split, cases, keep_values)
    raise BenchError(
        f"cannot evaluate {type(scores).__name__}: give a function, an array, ranked lists or a RecBole model; a model "
        "of the bench goes to run(...)"
    )


def _of_function(function: Callable[..., Any], split: Split, cases: Cases, keep_values: bool) -> _Given:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise BenchError(f"{_name_of(function)} must take (user_ids, histories)") from None
    except ValueError:  # made in C: nothing to look at
        pass
    histories = split.histories
    starts = histories.offsets[cases.users - 1]

    def scored(rows: np.ndarray) -> Any:
        seen = [histories.items[starts[row] : cases.ends[row]] for row in rows.tolist()]
        return function(cases.users[rows], seen)

    model = _Scored(scored, cases, histories.n_items, keep_values, _name_of(function))
    return _Given(model, "function", _name_of(function))


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "Scores" if name == "<lambda>" else name


class _Scored:
    """Rows of scores by the number of the case."""

    def __init__(
        self, scored: Callable[[np.ndarray], Any], cases: Cases, n_items: int, keep_values: bool, name: str = "scores"
    ) -> None:
        self._scored, self._cases, self._name = scored, cases, name
        self._width, self._keep_values = n_items + 1, keep_values

    def full_sort_predict(self, batch: Any) -> torch.Tensor:
        rows = batch["case"].cpu().numpy()
        found = self._scored(rows)
        found = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
        if found.shape != (len(rows), self._width):
            raise BenchError(
                f"{self._name} gives {list(found.shape)} for {len(rows)} users; it must be "
                f"[{len(rows)}, {self._width}]: a column for padding, then one for each item"
            )
        if not (np.issubdtype(found.dtype, np.number) or found.dtype == bool) or np.iscomplexobj(found):
            raise BenchError(f"{self._name} gives {found.dtype}, not numbers")
        if np.isnan(found[:, 1:]).any():
            user = int(self._cases.users[rows[np.flatnonzero(np.isnan(found[:, 1:]).any(1))[0]]])
            raise BenchError(f"{self._name}: the scores of user {user} are not numbers (NaN)")
        if found.dtype.itemsize > 4 and not self._keep_values:
            found = _places(found)
        return torch.from_numpy(np.array(found, dtype=np.float32))


def _places(scores: np.ndarray) -> np.ndarray:
    """Scores as small whole numbers in the same order, so that single precision makes no ties; -inf stays."""
    found = np.empty(scores.shape, dtype=np.float32)
    for row, values in enumerate(scores):
        found[row] = np.unique(values, return_inverse=True)[1].reshape(-1)
    return np.where(scores == -np.inf, np.float32(-np.inf), found)


def _of_lists(lists: RankedLists, prepared: PreparedDataset, cases: Cases) -> _Given:
    n_items, base = prepared.histories.n_items, prepared.histories.n_items + 1
    keys = lists.users * base + lists.items
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(again):
        user, item = divmod(int(ordered[again[0]]), base)
        own = prepared.user_tokens[user], prepared.catalogue.tokens[item]
        raise BenchError(f"the list of user {own[0]} names item {own[1]} twice")
    users, items, scores = ordered // base, lists.items[order], lists.scores[order]
    known = np.union1d(users, lists.empty)
    lacking = np.setdiff1d(cases.users, known)
    if len(lacking):
        raise BenchError(
            f"{len(lacking)} of {len(np.unique(cases.users))} users have no list, such as user "
            f"{prepared.user_tokens[int(lacking[0])]}; give an empty one to whom nothing is recommended"
        )
    first, last = np.searchsorted(users, cases.users), np.searchsorted(users, cases.users, side="right")

    def scored(rows: np.ndarray) -> np.ndarray:
        found = np.full((len(rows), base), -np.inf, dtype=np.float32)
        for place, row in enumerate(rows.tolist()):
            span = slice(first[row], last[row])
            found[place, items[span]] = scores[span]
        return found

    wanted = cases.users * base + cases.targets
    places = np.minimum(np.searchsorted(ordered, wanted), max(len(ordered) - 1, 0))
    missed = int((ordered[places] != wanted).sum()) if len(ordered) else len(cases)
    notes = [f"{missed:,} of {len(cases):,} targets are in no list: they rank behind all that are and gain nothing"]
    return _Given(_Scored(scored, cases, n_items, True), "ranked lists", "Ranked lists", notes if missed else [])


def _of_model(model: Any, prepared: PreparedDataset, split: Split, cases: Cases, ids: Any) -> _Given:
    name = str(getattr(model, "display_name", "") or type(model).__name__)
    n_ids = prepared.histories.n_items + 1
    if getattr(type(model), "reads_words", False):
        raise BenchError(f"{name} reads what users say, which only a run can give it; use run(...)")
    parameter = next(iter(model.parameters()), None) if hasattr(model, "parameters") else None
    device = parameter.device if parameter is not None else torch.device("cpu")
    length = int(getattr(model, "history_length", 0) or getattr(model, "max_seq_length", 0) or 50)
    if hasattr(ids, "field2id_token"):
        translated = _Translated(model, ids, prepared, split, cases, length, device)
        return _Given(translated, "RecBole model", name, translated.notes, device=device)
    if ids != "bench":
        raise BenchError(
            f"{name}: say what its ids mean: ids=dataset with the RecBole dataset that it was built on, or ids='bench' "
            "for a model that run.load() gave"
        )
    if int(getattr(model, "n_items", n_ids)) != n_ids:
        raise BenchError(
            f"{name} knows {model.n_items - 1} items, and {prepared.name} has {n_ids - 1} under '{prepared.filter}'; "
            "take a run of the same dataset and filter"
        )
    return _Given(model, "model of the bench", name, max_length=length, device=device)


class _Translated:
    """A model of RecBole behind the ids of the RecBole dataset that it was built on."""

    def __init__(
        self,
        model: Any,
        theirs: Any,
        prepared: PreparedDataset,
        split: Split,
        cases: Cases,
        length: int,
        device: torch.device,
    ) -> None:
        self._model, self._length, self._device = model, length, device
        self._split, self._cases = split, cases
        self._items = _their_ids(theirs, theirs.iid_field, prepared.catalogue.tokens, prepared.name)
        self._users = _their_ids(theirs, theirs.uid_field, prepared.user_tokens, prepared.name)
        unknown = int((self._items[1:] == 0).sum())
        strangers = int((self._users[cases.users] == 0).sum())
        self.notes = [f"{unknown:,} items are unknown to the model and get no score"] if unknown else []
        self.notes += [f"{strangers:,} users are unknown to the model"] if strangers else []
        self.training, self.eval, self.train = model.training, model.eval, model.train

    def full_sort_predict(self, batch: Any) -> torch.Tensor:
        from recllm_bench.recbole_bridge import interaction

        rows = batch["case"].cpu().numpy()
        cases, histories = self._cases.take(rows), self._split.histories
        table = np.zeros((len(rows), self._length), dtype=np.int64)
        lengths = np.ones(len(rows), dtype=np.int64)
        starts = histories.offsets[cases.users - 1]
        for place, (start, end) in enumerate(zip(starts, cases.ends, strict=True)):
            seen = self._items[histories.items[start:end]]
            seen = seen[seen > 0][-self._length :]
            table[place, : len(seen)], lengths[place] = seen, max(1, len(seen))
        columns = {
            getattr(self._model, "USER_ID", "user_id"): self._users[cases.users],
            getattr(self._model, "ITEM_SEQ", "item_id_list"): table,
            getattr(self._model, "ITEM_SEQ_LEN", "item_length"): lengths,
        }
        given = {key: torch.from_numpy(value).to(self._device) for key, value in columns.items()}
        scores = torch.as_tensor(self._model.full_sort_predict(interaction(given))).float().reshape(len(rows), -1)
        if scores.shape[1] <= int(self._items.max()):
            raise BenchError(f"the model scores {scores.shape[1]} ids, and the RecBole dataset has more; take its own")
        found = scores[:, torch.from_numpy(self._items).to(scores.device)]
        found[:, torch.from_numpy(self._items == 0).to(scores.device)] = -torch.inf
        return found


def _their_ids(theirs: Any, name: str, tokens: Sequence[str], dataset: str) -> np.ndarray:
    """For each id of ours the RecBole dataset's; 0 where it has none."""
    known = {str(token): row for row, token in enumerate(theirs.field2id_token[name]) if row}
    found = np.array([0, *(known.get(str(token), 0) for token in list(tokens)[1:])], dtype=np.int64)
    if not found.any():
        raise BenchError(f"no {name} of the RecBole dataset is in {dataset}; both must be the same data")
    return found


def _recipe(prepared: PreparedDataset, rules: Protocol, form: str, seed: int) -> Any:
    from recllm_bench.data.prepare import canonical_name
    from recllm_bench.recipe import recipe_from

    values = {"model": OUTSIDE, "dataset": canonical_name(prepared.asked or prepared.name), "protocol": rules.name}
    return recipe_from({**values, "seed": seed, "options": {"scores": form}}, "evaluate")


def _records_folder() -> Path:
    from recllm_bench.locations import results_folder

    return results_folder() / "runs"


def _folder(record: Any) -> Path:
    data = Path(record.recipe["dataset"]).name
    stem = re.sub(r"[^\w.@-]+", "-", f"{OUTSIDE}-{record.name}-{data}-{record.protocol['name']}".lower())
    key = [record.name, record.block, record.recipe, record.pairing, record.users_hash]
    return _records_folder() / f"{stem}-{content_hash(key, 10)}"
