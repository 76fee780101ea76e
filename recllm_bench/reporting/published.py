"""The papers' numbers, how far they can be trusted, and how ours stand to them. Reads CSV only."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.dialogue import at_bounds
from recllm_bench.evaluation.statistics import Interval, wilson
from recllm_bench.locations import resource

PAPERS = ("cesrec", "latentcrs", "relrec")
CLOSE = 0.10
_RATES = ("Recall", "HR", "S")
_RANKED = ("one_turn_full_rank_all_users", "one_turn_full_rank_500_users", "full_rank", "sampled_100neg")
_TABLES = {
    "latentcrs.one_turn": ("latentcrs", ("T2", "T5")),
    "latentcrs.one_turn.sample500": ("latentcrs", ("T3",)),
    "latentcrs.multi_turn": ("latentcrs", ("T4", "T3")),
    "cesrec.sampled100": ("cesrec", ("T2",)),
    "cesrec.sampled100.n1000": ("cesrec", ("T2",)),
    "cesrec.sampled100.n100": ("cesrec", ("T2",)),
    "relrec.full": ("relrec", ("T2", "T8")),
}
_ABLATIONS = {
    "no_inference": "B_wo_inference_model",
    "direct_kl": "B_direct_kl",
    "no_rec": "B_wo_recloss",
    "no_augmentation": "B_wo_augmentation",
}
_DATASETS = {"ml1m": "movielens1m", "movielens": "movielens1m"}


@dataclass(frozen=True)
class PublishedCell:
    """One printed number.

    Attributes
    ----------
    paper, table, dataset, protocol, model, variant, metric : str
        Columns of the file; ``variant`` may be empty.
    k : int or None
        Cut-off, None where the metric has none.
    value : float
        The number.
    unit : float
        Unit of its last printed decimal: it was rounded by up to half of that.
    """

    paper: str
    table: str
    dataset: str
    protocol: str
    model: str
    variant: str
    metric: str
    k: int | None
    value: float
    unit: float

    @property
    def name(self) -> str:
        """Metric with its cut-off, such as ``"Recall@5"``."""
        return self.metric if self.k is None else f"{self.metric}@{self.k}"

    @property
    def place(self) -> str:
        """Where it is printed, such as ``"latentcrs T2"``."""
        return f"{self.paper} {self.table}"


@dataclass(frozen=True)
class Flag:
    """A doubt about printed numbers."""

    paper: str
    table: str
    dataset: str
    model: str
    variant: str
    issue: str

    def concerns(self, cell: PublishedCell) -> bool:
        """Whether the doubt is about this number."""
        if self.paper != cell.paper or cell.table not in self.table.split("/") or not self.model:
            return False
        if self.dataset not in ("all", "both") and cell.dataset not in re.split(r"[+;]", self.dataset):
            return False
        if self.model != cell.model or self.variant not in ("", "all", cell.variant):
            return False
        named = self._named_metrics()
        return not named or cell.name in named

    def _named_metrics(self) -> set[str]:
        """Metrics the text is about; empty when it is about the whole row."""
        text = self.issue.partition(" given ")[0]
        if text.startswith("AT="):
            return {"AT"}
        gain = re.search(r"gain [\d.]+ from k=(\d+) to (\d+)", text)
        if gain:
            return {f"{metric}@{k}" for metric in ("Recall", "HR", "NDCG") for k in gain.groups()}
        short = {"R": "Recall", "N": "NDCG"}
        found = re.findall(r"\b(Recall|NDCG|HR|MRR|S|R|N)@(\d+)", text)
        return {f"{short.get(metric, metric)}@{k}" for metric, k in found}


@dataclass(frozen=True)
class Verdict:
    """How our number stands to a printed one.

    Attributes
    ----------
    word : str
        ``inside`` (the printed value lies in our 95 % interval), ``close`` (relative gap of at most 10 %), ``off``,
        or ``not comparable``.
    gap : float
        Relative difference of ours from the printed value; NaN when that is 0.
    reason : str
        Why it is not comparable; empty otherwise.
    """

    word: str
    gap: float
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.word} ({self.reason})" if self.reason else self.word


@lru_cache(maxsize=1)
def load_published() -> tuple[PublishedCell, ...]:
    """All printed numbers, in file order.

    Raises
    ------
    BenchError
        When a file is malformed, with file and line.
    """
    cells = []
    for paper in PAPERS:
        for place, row in _rows(f"{paper}.csv"):
            try:
                k = int(row["k"]) if row["k"] else None
                value = float(row["value"])
            except (ValueError, TypeError, KeyError) as error:
                raise BenchError(f"{place}: not a row of published numbers ({error})") from error
            names = ("paper", "table", "dataset", "protocol", "model", "variant", "metric")
            cells.append(
                PublishedCell(*(row[name] for name in names), k, value, 10.0 ** -len(row["value"].partition(".")[2]))
            )
    return tuple(cells)


@lru_cache(maxsize=1)
def load_flags() -> tuple[Flag, ...]:
    """All doubts about printed numbers, in file order."""
    names = ("paper", "table", "dataset", "model", "variant", "issue")
    return tuple(Flag(*(row[name] for name in names)) for _, row in _rows("consistency_flags.csv"))


def published(
    paper: str, dataset: str, model: str, metric: str, k: int | None, *, table: str | None = None, variant: str = ""
) -> PublishedCell | None:
    """Look one printed number up.

    Parameters
    ----------
    paper, dataset, model, metric : str
        As in the files; dataset and model without regard to case and punctuation, ``ml1m`` is MovieLens-1M.
    k : int or None
        Cut-off.
    table : str, optional
        Such as ``"T2"``; by default the first table that has the number.
    variant : str
        By default the row without a variant, or the table's only one.

    Returns
    -------
    PublishedCell or None
        None when nothing is printed.
    """
    if paper not in PAPERS:
        raise BenchError(f"no published numbers of '{paper}'; known: {', '.join(PAPERS)}")
    found = [
        cell
        for cell in load_published()
        if cell.paper == paper
        and (table is None or cell.table == table)
        and _same(cell.dataset, dataset)
        and _plain(cell.model) == _plain(model)
        and (cell.metric, cell.k) == (metric, k)
        and "improvement" not in cell.variant
    ]
    exact = [cell for cell in found if cell.variant == variant]
    if exact:
        return exact[0]
    return found[0] if not variant and len({cell.variant for cell in found}) == 1 else None


def published_for(record: Any) -> dict[str, PublishedCell]:
    """The printed numbers that a run record can be held against.

    Parameters
    ----------
    record : RunRecord
        Its protocol names the table, its recipe the row.

    Returns
    -------
    dict of str to PublishedCell
        By metric name, such as ``"Recall@5"``; empty when the papers have no such row.
    """
    protocol = record.protocol.get("name", "")
    if protocol not in _TABLES or _is_control(record.recipe):
        return {}
    paper, tables = _TABLES[protocol]
    model = record.recipe["model"].rpartition(":")[2]
    options = record.recipe.get("options") or {}
    variant = {"latentcrs": "B", "relrec": "full"}.get(_plain(model), "")
    if paper == "cesrec" and _plain(model) == "sasrec":
        variant = "base"
    ablation = options.get("ablation") or "none"
    if ablation != "none":
        variant = _ABLATIONS.get(ablation, f"unpublished {ablation}")
    found: dict[str, PublishedCell] = {}
    for table in tables:
        for name in [*record.metrics, *(name for name in record.dialogue if name in ("S@3", "S@5", "AT"))]:
            metric, _, cut = name.partition("@")
            cell = published(
                paper, record.dataset["name"], model, metric, int(cut) if cut else None, table=table, variant=variant
            )
            if cell is not None:
                found.setdefault(name, cell)
    return found


def _is_control(recipe: Mapping[str, Any]) -> bool:
    """Whether the words were not the user's own."""
    talk = recipe.get("conversation", {})
    return talk.get("words", "own") != "own" or bool(talk.get("shuffle_utterances"))


def flags_of(cell: PublishedCell) -> list[Flag]:
    """Doubts about a printed number."""
    return [flag for flag in load_flags() if flag.concerns(cell)]


def published_users(cell: PublishedCell) -> int | None:
    """Number of users behind a printed number, stated or inferred; None when it is unknown."""
    if "500_users" in cell.protocol:
        return 500
    if cell.paper == "cesrec":  # not stated; inferred from the decimals (consistency_flags.csv)
        return {"SASRec": 1000, "LLaRA": 100, "Recformer": 80}.get(cell.model)
    for other in load_published():
        if other.paper == cell.paper and other.dataset == cell.dataset and other.metric == "n_users":
            return int(other.value) - (other.paper == "relrec")  # ReLRec's counts include the padding id
    return None


def published_interval(cell: PublishedCell) -> tuple[float, float] | None:
    """Wilson 95 % interval of a printed rate; None for other metrics or unknown n."""
    n = published_users(cell)
    if n is None or cell.metric not in _RATES or not 0 <= cell.value <= 1:
        return None
    return wilson(cell.value * n, n)


def verdict(
    cell: PublishedCell, ours: Interval | Mapping[str, float], substitutes: Mapping[str, str] | None = None
) -> Verdict:
    """Say how our number stands to a printed one.

    Parameters
    ----------
    cell : PublishedCell
        The printed number.
    ours : Interval or mapping
        Our mean with ``low`` and ``high``.
    substitutes : mapping
        What stood in for the paper's language model or simulator: with any of it numbers do not compare.
    """
    facts = ours.as_dict() if isinstance(ours, Interval) else ours
    gap = (facts["mean"] - cell.value) / abs(cell.value) if cell.value else math.nan
    flags = flags_of(cell)
    if substitutes:
        stand_ins = ", ".join(f"{what} {who}" for what, who in substitutes.items())
        return Verdict("not comparable", gap, f"substitutes: {stand_ins}")
    if flags:
        return Verdict("not comparable", gap, f"the printed number is doubtful: {flags[0].issue}")
    if cell.paper == "cesrec":
        return Verdict("not comparable", gap, "the paper does not state which users it evaluated")
    if facts["low"] <= cell.value <= facts["high"]:
        return Verdict("inside", gap)
    return Verdict("close" if abs(gap) <= CLOSE else "off", gap)


def audit(cells: Iterable[PublishedCell]) -> list[Flag]:
    """Find printed numbers that cannot be, from arithmetic alone.

    With one relevant item a user, NDCG lies between Recall / log2(K + 1) and Recall, and its gain from K0 to K
    between dR / log2(K + 1) and dR / log2(K0 + 2). Rates over 500 users are multiples of 1/500. AT follows from S@3
    and S@5 up to a range. The same cell printed in two tables has one value.
    """
    rows: dict[tuple[str, ...], dict[str, PublishedCell]] = {}
    for cell in cells:
        if "improvement" not in cell.variant and cell.protocol in (*_RANKED, "multi_turn_500_users"):
            key = (cell.paper, cell.table, cell.dataset, cell.model, cell.variant)
            rows.setdefault(key, {})[cell.name] = cell
    flags = []
    for key, row in rows.items():
        flags += [Flag(*key, issue) for issue in (*_one_target_issues(row), *_dialogue_issues(row))]
    return flags + _repeated_issues(rows)


def _one_target_issues(row: Mapping[str, PublishedCell]) -> Iterable[str]:
    for rate in ("Recall", "HR"):
        cuts = sorted(cell.k for cell in row.values() if cell.metric == rate and f"NDCG@{cell.k}" in row)
        for k in cuts:
            r, n = row[f"{rate}@{k}"], row[f"NDCG@{k}"]
            if n.value > r.value + (n.unit + r.unit) / 2:
                yield f"NDCG@{k}={n.value:.4f} exceeds Recall/HR@{k}={r.value:.4f}: impossible for one relevant item"
            if n.value < (r.value - r.unit / 2) / math.log2(k + 1) - n.unit / 2:
                yield (
                    f"NDCG@{k}={n.value:.4f} is below Recall/HR@{k}={r.value:.4f} divided by log2({k + 1}): "
                    "impossible for one relevant item"
                )
        for k0, k in itertools.pairwise(cuts):
            r, n = row[f"{rate}@{k}"], row[f"NDCG@{k}"]
            gain_r, gain_n = r.value - row[f"{rate}@{k0}"].value, n.value - row[f"NDCG@{k0}"].value
            # Each gain is a difference of two rounded numbers: off by up to one unit of the last decimal.
            least = (gain_r - r.unit) / math.log2(k + 1) - n.unit
            most = (gain_r + r.unit) / math.log2(k0 + 2) + n.unit
            start = f"NDCG gain {gain_n:.4f} from k={k0} to {k}"
            end = f"that a {rate} gain of {gain_r:.4f} allows (single relevant item)"
            if gain_n > most:
                yield f"{start} exceeds the maximum {most:.4f} {end}"
            if gain_n < least:
                yield f"{start} is below the minimum {least:.4f} {end}"


def _dialogue_issues(row: Mapping[str, PublishedCell]) -> Iterable[str]:
    for name in ("S@3", "S@5"):
        if name in row and abs(row[name].value * 500 - round(row[name].value * 500)) > 1e-6:
            yield f"{name}={row[name].value:.3f} is not a multiple of 1/500: another sample was used"
    if not {"S@3", "S@5", "AT"} <= row.keys():
        return
    s3, s5, at = row["S@3"].value, row["S@5"].value, row["AT"].value
    low, high = at_bounds(s3, s5)
    if low - row["AT"].unit / 2 <= at <= high + row["AT"].unit / 2:
        return
    among = ((low - 5 * (1 - s5)) / s5, (high - 5 * (1 - s5)) / s5) if s5 else (0.0, 0.0)
    fits = among[0] <= at <= among[1]
    ending = "it fits an average over successes only" if fits else "it does not fit a successes-only average either"
    yield (
        f"AT={at:.3f} lies outside [{low:.3f},{high:.3f}], the range possible when failures count as 5 turns "
        f"given S@3={s3:g}, S@5={s5:g}; {ending}"
    )


def _repeated_issues(rows: Mapping[tuple[str, ...], Mapping[str, PublishedCell]]) -> list[Flag]:
    """The main model's row is printed again in the ablation table of LatentCRS."""
    flags = []
    for (paper, table, dataset, model, variant), row in rows.items():
        again = rows.get((paper, "T5", dataset, model, variant), {}) if (paper, table) == ("latentcrs", "T2") else {}
        for name, cell in row.items():
            if variant and name in again and again[name].value != cell.value:
                issue = f"{name}: {cell.value:.4f} in T2 but {again[name].value:.4f} in T5 for the same run description"
                flags.append(Flag(paper, "T2/T5", dataset, model, variant, issue))
    return flags


def _rows(name: str) -> Iterable[tuple[str, dict[str, str]]]:
    path = resource("results", "published", name)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield f"{path.name}:{reader.line_num}", row


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _same(printed: str, ours: str) -> bool:
    names = [_plain(printed), _plain(ours)]
    return len({_DATASETS.get(name, name) for name in names}) == 1
