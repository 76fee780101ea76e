"""One table: its rows, which of them differ, and what was planned to be compared. Everything shown is read from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from recllm_bench.artifacts import content_hash
from recllm_bench.conversation.disclosure import in_words
from recllm_bench.errors import BenchError, nearest
from recllm_bench.reporting.record_families import TESTS, Families, Family, Pair, direction, has, mean_of
from recllm_bench.reporting.records import RunRecord
from recllm_bench.reporting.remembered import Remembered
from recllm_bench.reporting.row_names import told_apart
from recllm_bench.reporting.seeds import UserValues, on_disk, over_seeds, with_intervals
from recllm_bench.reporting.subject import is_ceiling, planned_rows, row_named, subject_of
from recllm_bench.reporting.users_file import DIALOGUE_METRICS

BLOCKS = {
    "history": ("History only", "these rows see past interactions and nothing else"),
    "text": (
        "With words",
        "these rows also see what a simulated user says about the target; they know more, so compare them with each "
        "other, not with the rows above",
    ),
}


@dataclass(frozen=True)
class Planned:
    """A planned contrast: the subject minus another row.

    Attributes
    ----------
    row : int
        The other row.
    role : str
        ``best baseline``, ``baseline`` (the one that was named), ``control``, ``ceiling`` (a control that knows what no
        system can), or empty.
    pair : Pair
        The difference, in the primary metric; its interval holds for all planned contrasts together.
    """

    row: int
    role: str
    pair: Pair


@dataclass
class Comparison:
    """Rows under one protocol on one dataset, ready to be shown.

    Attributes
    ----------
    records : list of RunRecord
        Rows in an order that does not depend on when they were made; means with the intervals that are shown.
    metrics : list of str
        Columns.
    primary : str
        Metric of the claims: of :attr:`planned` and of a block's first family.
    subject : int
        The row that the table is about.
    test : str
        How pairs are tested.
    marks : dict of (block, row, metric) to str
        ``better`` than, ``worse`` than or ``equal`` (within 2 %) to the reference, or ``open``: not told apart. The
        best row is ``better`` when all others are worse. The block ``dialogue`` is the multi-turn table's.
    best : dict of (block, metric) to int
        Row with the best mean.
    reference : str
        What the marks are relative to, in words.
    families : dict of str to list of Family
        For each block the family of its primary metric, then that of all other metrics together.
    planned : list of Planned
        The subject minus the best baseline, its controls, and the other rows.
    unpaired : list of str
        Rows that could not be paired with the others, and so carry no marks.
    failures : list of (str, str)
        Rows that could not be run, and why.
    """

    records: list[RunRecord]
    metrics: list[str]
    primary: str
    subject: int = 0
    test: str = "max-t"
    marks: dict[tuple[str, int, str], str] = field(default_factory=dict)
    best: dict[tuple[str, str], int] = field(default_factory=dict)
    reference: str = "the best row of the block"
    families: dict[str, list[Family]] = field(default_factory=dict)
    planned: list[Planned] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def speakers(self) -> list[tuple[str, str]]:
        """Who speaks to rows with words (:attr:`.RunRecord.hears`): first to the subject, then by name."""
        found = sorted({record.hears for record in self.records if record.users})
        return sorted(found, key=lambda who: who != self.records[self.subject].hears)

    @property
    def blocks(self) -> dict[str, tuple[str, str]]:
        """Title and explanation of each block: histories, then one for each speaker (``text``, ``text:2``, ...)."""
        shown = {"history": BLOCKS["history"]}
        title, reason = BLOCKS["text"]
        for number, who in enumerate(self.speakers, 1):
            rows = [record for record in self.records if record.hears == who]
            told = next(filter(None, (in_words(record.measures) for record in rows)), "")
            about = f"users: {who[0]}" + (f"; {told}" if told else "")
            shown[_numbered("text", number)] = (title, f"{about}; {reason}")
        return shown

    @property
    def dialogue_blocks(self) -> list[str]:
        """Blocks of dialogues, one for each speaker: ``dialogue``, ``dialogue:2``, ..."""
        return [_numbered("dialogue", number) for number in range(1, max(1, len(self.speakers)) + 1)]

    def rows(self, block: str) -> list[int]:
        """Rows of a block; the best in the primary metric comes first."""
        block, _, number = block.partition(":")
        heard = [*self.speakers, None][int(number or 1) - 1]
        if block == "dialogue":
            rows = [
                row
                for row, record in enumerate(self.records)
                if record.dialogue and (record.hears == heard or not heard)
            ]
            return sorted(rows, key=lambda row: -self.records[row].dialogue.get("S@5", {}).get("mean", 0.0))
        rows = [row for row, record in enumerate(self.records) if record.block == block]
        rows = [row for row in rows if block == "history" or self.records[row].hears == heard]
        return sorted(rows, key=lambda row: -mean_of(self.records[row], self.primary))

    @property
    def deviations(self) -> dict[int, float]:
        """Standard deviation between the seeds of each row that has several, in the primary metric."""
        found: dict[int, float] = {}
        for block in self.blocks:
            for family in self.families.get(block, [])[:1]:
                found |= family.deviations
        return found

    @property
    def one_seed(self) -> list[str]:
        """Names of the rows that were trained under one seed."""
        return [record.name for record in self.records if not record.members]


def compare(
    records: Sequence[RunRecord],
    baseline: str = "best",
    metrics: Sequence[str] | None = None,
    *,
    subject: str = "",
    test: str = "max-t",
    failures: Sequence[tuple[str, str]] = (),
) -> Comparison:
    """Test the rows of one table against each other; runs that differ in the seed alone are one row.

    ``docs/statistics.md`` says which comparisons are corrected together and how. Nothing depends on the order of the
    records.

    Parameters
    ----------
    records : sequence of RunRecord
        One dataset, one protocol.
    baseline : str
        ``best``, or the name of a row (:func:`.row_named`) that all others are held against.
    metrics : sequence of str, optional
        Columns; by default a readable selection of the protocol's.
    subject : str
        Name of the row that the table is about; by default the best that is a method, see :func:`.subject_of`.
    test : str
        ``max-t``, or ``t``, ``sign-flip``, ``mcnemar``, ``wilcoxon`` with Holm's correction.
    failures : sequence of (str, str)
        Rows that could not be run, and why.

    Raises
    ------
    BenchError
        Without records, for an unknown name, or when protocols or datasets are mixed.
    """
    if not records:
        raise BenchError("there are no run records to compare")
    if len({(record.dataset.get("name"), record.fingerprint) for record in records}) > 1:
        raise BenchError("one table holds one dataset under one protocol; group the records first")
    if test not in TESTS:
        raise BenchError(f"test '{test}' is not one of {', '.join(TESTS)}.{nearest(test, TESTS)}")
    values, remembered = UserValues(), Remembered(records)
    rows = sorted(
        told_apart(over_seeds(records)), key=lambda each: (each.name, content_hash(each.recipe), each.users_hash)
    )
    columns = list(metrics) if metrics else _columns(rows)
    for name in columns:
        if not any(name in record.metrics for record in rows):
            known = {metric for record in rows for metric in record.metrics}
            raise BenchError(f"no run has the metric '{name}'.{nearest(name, known)}")
    rows = [with_intervals(record, columns, values, remembered) for record in rows]
    primary = _primary(columns, test)
    held = None if baseline == "best" else row_named(rows, baseline)
    about = subject_of(rows, subject, primary, but=held)
    if about == held and len(rows) > 1:
        raise BenchError(f"'{rows[about].name}' is the subject and the baseline; name two rows")
    result = Comparison(rows, columns, primary, about, test, failures=list(failures))
    if held is not None:
        result.reference = rows[held].name
    families = Families(rows, values, remembered, test)
    for block in result.blocks:
        _mark(result, block, primary, columns, families, held)
    for block in result.dialogue_blocks:
        _mark(result, block, "S@5", list(DIALOGUE_METRICS), families, held)
    _plan(result, families, held)
    pairing = rows[result.subject].pairing
    result.unpaired = [record.name for record in rows if record.pairing != pairing]
    remembered.save()
    return result


def _numbered(block: str, number: int) -> str:
    return block if number == 1 else f"{block}:{number}"


def _mark(
    result: Comparison, block: str, primary: str, metrics: list[str], families: Families, held: int | None
) -> None:
    """Marks of a block: the primary metric's family, then one of all others, which counts only if the first differs."""
    rows, records = result.rows(block), result.records
    for metric in metrics:
        present = [row for row in rows if has(records[row], metric)]
        if present:
            result.best[block, metric] = max(present, key=lambda row: direction(metric) * mean_of(records[row], metric))
    pairing = records[result.subject].pairing
    paired = sorted(row for row in rows if records[row].pairing == pairing and on_disk(records[row]))
    if block.startswith("dialogue"):  # a row of other dialogues would leave few users that all have in common
        held = _held(records[result.subject]) or max(map(_held, records))
        paired = [row for row in paired if _held(records[row]) == held]
    shared = [metric for metric in metrics if paired and all(has(records[row], metric) for row in paired)]
    if len(paired) < 2 or not shared:
        return
    if primary not in shared:
        primary = shared[0]
    named = held if held in paired else None
    first = families.with_the_best(paired, [primary], named)
    result.families[block] = [first]
    _set_marks(result, block, first, True)
    others = [metric for metric in shared if metric != primary]
    if others:
        second = families.with_the_best(paired, others, named)
        result.families[block].append(second)
        _set_marks(result, block, second, any(pair.significant for pair in first.pairs.values()))


def _held(record: RunRecord) -> int:
    """Dialogues of a row, those included that could not be held."""
    return int(record.dialogue.get("n", 0)) + int(record.dialogue.get("invalid", 0))


def _set_marks(result: Comparison, block: str, family: Family, tested: bool) -> None:
    for (metric, row), pair in family.pairs.items():
        if not pair.tested:
            continue
        word = "equal" if pair.equal else "open"
        if tested and pair.significant:
            word = "better" if direction(metric) * pair.mean > 0 else "worse"
        result.marks[block, row, metric] = word
    for metric, row in family.references.items():
        found = [result.marks.get((block, other, metric)) for name, other in family.pairs if name == metric]
        if found and all(word == "worse" for word in found) and result.reference.startswith("the best"):
            result.marks[block, row, metric] = "better"


def _plan(result: Comparison, families: Families, held: int | None) -> None:
    """The subject against the baselines and its controls; the best baseline of a block, or the given one, is named."""
    records, subject = result.records, result.subject
    if not on_disk(records[subject]) or not has(records[subject], result.primary):
        return
    controls, baselines = planned_rows(records, subject)
    if held is not None and held not in (*controls, *baselines) and records[held].pairs_with(records[subject]):
        baselines.append(held)
    chosen = [row for row in (*controls, *baselines) if on_disk(records[row]) and has(records[row], result.primary)]
    if not chosen:
        return
    family = families.planned(subject, sorted(chosen), result.primary)
    roles = {row: "ceiling" if is_ceiling(records[row]) else "control" for row in controls}
    for block in BLOCKS:
        rows = [row for row in baselines if row in chosen and records[row].block == block]
        if rows and held is None:
            roles[max(rows, key=lambda row: mean_of(records[row], result.primary))] = "best baseline"
    if held is not None:
        roles[held] = "baseline"
    own = records[subject].block
    order = {"baseline": 0, "best baseline": 0, "control": 1, "ceiling": 2, "": 3}
    result.planned = sorted(
        (Planned(row, roles.get(row, ""), pair) for (_, row), pair in family.pairs.items()),
        key=lambda each: (
            order[each.role],
            records[each.row].block != own,
            -mean_of(records[each.row], result.primary),
        ),
    )


def _primary(columns: Sequence[str], test: str) -> str:
    """The metric of a table's claims: NDCG@10, else the last NDCG; the last share of hits for McNemar's test."""
    wanted = ("Recall", "HR") if test == "mcnemar" else ("NDCG",)
    found = [name for name in columns if name.partition("@")[0] in wanted]
    if test == "mcnemar" and not found:
        raise BenchError("McNemar's test compares hits, and this table has neither Recall nor HR; use --test max-t")
    return "NDCG@10" if "NDCG@10" in found else [columns[0], *found][-1]


def _columns(records: Sequence[RunRecord]) -> list[str]:
    """A protocol's metrics when they fit on a line, else those at 10 and 20."""
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    if len(names) <= 6:
        return names
    chosen = [name for name in names if name.endswith(("@10", "@20")) and not name.startswith("MRR")]
    chosen = chosen or names[:6]
    return chosen + [name for name in names if name == "MRR"]
