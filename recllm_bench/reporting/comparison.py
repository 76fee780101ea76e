"""Which rows of a table differ, decided by paired tests over the same users and kept for the next time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from recllm_bench.artifacts import content_hash
from recllm_bench.errors import BenchError, nearest
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.remembered import Remembered
from recllm_bench.reporting.seeds import UserValues, over_seeds
from recllm_bench.reporting.users_file import DIALOGUE_METRICS

ALPHA = 0.05
BLOCKS = {
    "history": ("History only", "these rows see past interactions and nothing else"),
    "text": (
        "With words",
        "these rows also see what a simulated user says about the target; they know more, so compare them with each "
        "other, not with the rows above",
    ),
}
_VERSION = 1


@dataclass(frozen=True)
class Pair:
    """A paired mean difference: interval, p-value, and the p-value adjusted for the table's tests (Holm)."""

    mean: float
    low: float
    high: float
    p: float
    adjusted: float = float("nan")

    @property
    def significant(self) -> bool:
        """Whether the difference survives the correction at 5 %."""
        return self.adjusted < ALPHA


@dataclass
class Comparison:
    """Rows under one protocol on one dataset, ready to be shown.

    Attributes
    ----------
    records : list of RunRecord
        In the order given.
    metrics : list of str
        Columns.
    primary : str
        Metric of :attr:`differences`.
    marks : dict of (block, row, metric) to str
        ``better`` than, ``equal`` to or ``worse`` than the reference; rows by their place in :attr:`records`. The
        block ``dialogue`` is the multi-turn table's.
    best : dict of (block, metric) to int
        Row with the best mean.
    reference : str
        What the marks are relative to, in words.
    differences : list of (other row, Pair)
        The subject (the last record) minus each other row.
    unpaired : list of str
        Rows that could not be paired with the others, and so carry no marks.
    """

    records: list[RunRecord]
    metrics: list[str]
    primary: str
    marks: dict[tuple[str, int, str], str] = field(default_factory=dict)
    best: dict[tuple[str, str], int] = field(default_factory=dict)
    reference: str = "the best row of the block"
    differences: list[tuple[int, Pair]] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)

    def rows(self, block: str) -> list[int]:
        """Rows of a block; the best in the primary metric comes first."""
        if block == "dialogue":
            rows = [row for row, record in enumerate(self.records) if record.dialogue]
            return sorted(rows, key=lambda row: -self.records[row].dialogue.get("S@5", {}).get("mean", 0.0))
        rows = [row for row, record in enumerate(self.records) if record.block == block]
        return sorted(rows, key=lambda row: -_mean(self.records[row], self.primary))


def compare(records: Sequence[RunRecord], baseline: str = "best", metrics: Sequence[str] | None = None) -> Comparison:
    """Test the rows of one table against each other; runs that differ in the seed alone are one row.

    In each block every row is held against the best other row (so the best one against the runner-up) by a paired
    bootstrap over users, or over seeds and users; the p-values of a block are corrected together (Holm).

    Parameters
    ----------
    records : sequence of RunRecord
        One dataset, one protocol; the last one is the subject.
    baseline : str
        ``best``, or the name of a row that all others are held against.
    metrics : sequence of str, optional
        Columns; by default a readable selection of the protocol's.

    Raises
    ------
    BenchError
        Without records, for an unknown metric or baseline, or when protocols or datasets are mixed.
    """
    if not records:
        raise BenchError("there are no run records to compare")
    if len({(record.dataset.get("name"), record.fingerprint) for record in records}) > 1:
        raise BenchError("one table holds one dataset under one protocol; group the records first")
    values, remembered = UserValues(), Remembered(records)
    records = over_seeds(records, values, remembered)
    columns = list(metrics) if metrics else _columns(records)
    for name in columns:
        if not any(name in record.metrics for record in records):
            known = {metric for record in records for metric in record.metrics}
            raise BenchError(f"no run has the metric '{name}'.{nearest(name, known)}")
    names = [record.name for record in records]
    if baseline != "best" and baseline not in names:
        raise BenchError(f"no row is named '{baseline}'.{nearest(baseline, names)}")
    primary = "NDCG@10" if "NDCG@10" in columns else next((c for c in columns[::-1] if "NDCG" in c), columns[0])
    result = Comparison(records, columns, primary)
    pairs = _Pairs(records, values, remembered)
    for block in BLOCKS:
        _mark(result, block, result.rows(block), columns, baseline, pairs)
    _mark(result, "dialogue", result.rows("dialogue"), list(DIALOGUE_METRICS), baseline, pairs)
    if baseline != "best":
        result.reference = baseline
    subject = len(records) - 1
    found = [(row, pairs.of(subject, row, primary)) for row in range(subject)]
    found = [(row, pair) for row, pair in found if pair is not None]
    result.differences = list(zip([row for row, _ in found], _adjusted([pair for _, pair in found]), strict=True))
    result.unpaired = [record.name for record in records if len(records) > 1 and record.pairing != records[-1].pairing]
    remembered.save()
    return result


def _mark(result: Comparison, block: str, rows: list[int], metrics: list[str], baseline: str, pairs: _Pairs) -> None:
    tests: list[tuple[int, str, Pair]] = []
    for metric in metrics:
        present = [row for row in rows if _has(result.records[row], metric)]
        if not present:
            continue
        sign = -1 if metric == "AT" else 1
        ranked = sorted(present, key=lambda row: -sign * _mean(result.records[row], metric))
        result.best[block, metric] = ranked[0]
        named = [row for row in present if result.records[row].name == baseline]
        for row in ranked:
            reference = named[0] if named else ranked[0] if row != ranked[0] else ranked[1] if ranked[1:] else row
            pair = pairs.of(row, reference, metric) if row != reference else None
            if pair is not None:
                tests.append((row, metric, pair))
    for (row, metric, _), pair in zip(tests, _adjusted([pair for *_, pair in tests]), strict=True):
        sign = -1 if metric == "AT" else 1
        word = "equal" if not pair.significant else "better" if sign * pair.mean > 0 else "worse"
        result.marks[block, row, metric] = word


class _Pairs:
    """Paired differences of the rows of a table."""

    def __init__(self, records: list[RunRecord], values: UserValues, remembered: Remembered) -> None:
        self.records, self.values, self.remembered = records, values, remembered

    def of(self, a: int, b: int, metric: str) -> Pair | None:
        """Difference of two rows, or None when they cannot be paired."""
        first, second = self.records[a], self.records[b]
        if first.pairing != second.pairing or not (_has(first, metric) and _has(second, metric)):
            return None
        if not (_on_disk(first) and _on_disk(second)):
            return None
        code = [facts["code"] for facts in (first.metrics.get(metric, {}),) if "code" in facts]  # of somebody's own
        key = content_hash([_VERSION, first.users_hash, second.users_hash, metric, first.protocol.get("ties"), *code])
        found = self.remembered.get(key, lambda: self._test(first, second, metric))
        return Pair(*found) if found else None

    def _test(self, a: RunRecord, b: RunRecord, metric: str) -> list[float]:
        from recllm_bench.evaluation.statistics import align_pairs, hierarchical_difference, paired_bootstrap

        try:
            (left_users, left), (right_users, right) = self.values.of(a, metric), self.values.of(b, metric)
            align_pairs(left_users, right_users, (a.pairing, b.pairing), (a.name, b.name))
        except BenchError:
            return []
        both = (left == left).all(0) & (right == right).all(0)  # NaN: a dialogue that could not be held
        if not both.any():
            return []
        if a.members or b.members:
            found = hierarchical_difference(left[:, both], right[:, both])
        else:
            found = paired_bootstrap(left[0, both], right[0, both])
        return [found.mean, found.low, found.high, found.p]


def _on_disk(record: RunRecord) -> bool:
    return all(run.folder is not None for run in record.members or [record])


def _adjusted(pairs: list[Pair]) -> list[Pair]:
    from recllm_bench.evaluation.statistics import holm

    p_values = holm([pair.p for pair in pairs])
    return [Pair(pair.mean, pair.low, pair.high, pair.p, p) for pair, p in zip(pairs, p_values, strict=True)]


def _columns(records: Sequence[RunRecord]) -> list[str]:
    """A protocol's metrics when they fit on a line, else those at 10 and 20."""
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    if len(names) <= 6:
        return names
    chosen = [name for name in names if name.endswith(("@10", "@20")) and not name.startswith("MRR")]
    chosen = chosen or names[:6]
    return chosen + [name for name in names if name == "MRR"]


def _mean(record: RunRecord, metric: str) -> float:
    facts = record.metrics.get(metric) or record.dialogue.get(metric)
    return float(facts["mean"]) if facts else float("-inf")


def _has(record: RunRecord, metric: str) -> bool:
    return metric in (record.dialogue if metric in DIALOGUE_METRICS else record.metrics)
