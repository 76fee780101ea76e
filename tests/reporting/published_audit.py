"""Printed numbers that cannot be: what arithmetic alone finds in the papers' tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

from recllm_bench.errors import BenchError
from recllm_bench.reporting.published_numbers import Flag, PublishedCell, papers

_RANKED = ("one_turn_full_rank_all_users", "one_turn_full_rank_500_users", "full_rank", "sampled_100neg")


def audit(cells: Iterable[PublishedCell]) -> list[Flag]:
    """Find printed numbers that cannot be, from arithmetic alone.

    With one relevant item a user, NDCG lies between Recall / log2(K + 1) and Recall, and its gain from K0 to K
    between dR / log2(K + 1) and dR / log2(K0 + 2). Rates over 500 users are multiples of 1/500. AT follows from S@3
    and S@5 up to a range. The same cell printed in two tables has one value.
    """
    rows: dict[tuple[str, str, str, str, str], dict[str, PublishedCell]] = {}
    for cell in cells:
        if "improvement" not in cell.variant and cell.protocol in (*_RANKED, "multi_turn_500_users"):
            key = (cell.paper, cell.table, cell.dataset, cell.model, cell.variant)
            rows.setdefault(key, {})[cell.name] = cell
    flags = []
    for key, row in rows.items():
        flags += [Flag(*key, named, issue) for named, issue in (*_one_target_issues(row), *_dialogue_issues(row))]
    return flags + _repeated_issues(rows)


def _one_target_issues(row: Mapping[str, PublishedCell]) -> Iterable[tuple[tuple[str, ...], str]]:
    for rate in ("Recall", "HR"):
        cuts = sorted(cell.k for cell in row.values() if cell.k and cell.metric == rate and f"NDCG@{cell.k}" in row)
        for k in cuts:
            r, n = row[f"{rate}@{k}"], row[f"NDCG@{k}"]
            if n.value > r.value + (n.unit + r.unit) / 2:
                yield (
                    (n.name,),
                    f"NDCG@{k}={n.value:.4f} exceeds Recall/HR@{k}={r.value:.4f}: impossible for one relevant item",
                )
            if n.value < (r.value - r.unit / 2) / math.log2(k + 1) - n.unit / 2:
                yield (
                    (n.name,),
                    f"NDCG@{k}={n.value:.4f} is below Recall/HR@{k}={r.value:.4f} divided by log2({k + 1}): "
                    "impossible for one relevant item",
                )
        for k0, k in itertools.pairwise(cuts):
            r, n = row[f"{rate}@{k}"], row[f"NDCG@{k}"]
            gain_r, gain_n = r.value - row[f"{rate}@{k0}"].value, n.value - row[f"NDCG@{k0}"].value
            # Each gain is a difference of two rounded numbers: off by up to one unit of the last decimal.
            least = (gain_r - r.unit) / math.log2(k + 1) - n.unit
            most = (gain_r + r.unit) / math.log2(k0 + 2) + n.unit
            start = f"NDCG gain {gain_n:.4f} from k={k0} to {k}"
            end = f"that a {rate} gain of {gain_r:.4f} allows (single relevant item)"
            concerned = tuple(f"{metric}@{cut}" for metric in sorted(("NDCG", rate)) for cut in (k0, k))
            if gain_n > most:
                yield concerned, f"{start} exceeds the maximum {most:.4f} {end}"
            if gain_n < least:
                yield concerned, f"{start} is below the minimum {least:.4f} {end}"


def _dialogue_issues(row: Mapping[str, PublishedCell]) -> Iterable[tuple[tuple[str, ...], str]]:
    for name in ("S@3", "S@5"):
        if name in row and abs(row[name].value * 500 - round(row[name].value * 500)) > 1e-6:
            yield (name,), f"{name}={row[name].value:.3f} is not a multiple of 1/500: another sample was used"
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
        ("AT",),
        f"AT={at:.3f} lies outside [{low:.3f},{high:.3f}], the range possible when failures count as 5 turns "
        f"given S@3={s3:g}, S@5={s5:g}; {ending}",
    )


def _repeated_issues(rows: Mapping[tuple[str, str, str, str, str], Mapping[str, PublishedCell]]) -> list[Flag]:
    """Rows that a paper prints in two tables."""
    flags = []
    for (paper, table, dataset, model, variant), row in rows.items():
        for first, second in papers()[paper].repeats if paper in papers() else ():
            again = rows.get((paper, second, dataset, model, variant), {}) if table == first else {}
            for name, cell in row.items():
                if variant and name in again and again[name].value != cell.value:
                    values = f"{cell.value:.4f} in {first} but {again[name].value:.4f} in {second}"
                    issue = f"{name}: {values} for the same run description"
                    flags.append(Flag(paper, f"{first}/{second}", dataset, model, variant, (name,), issue))
    return flags


def at_bounds(s3: float, s5: float, max_turns: int = 5) -> tuple[float, float]:
    """Range that AT must lie in when failures count ``max_turns``, given S@3 and S@5.

    Successes up to turn 3 took 1 to 3 turns, later ones 4 to ``max_turns`` (LatentCRS, Table 4, has 5).

    Returns
    -------
    low, high : float
    """
    if not 0 <= s3 <= s5 <= 1:
        raise BenchError(f"S@3 = {s3} and S@5 = {s5} cannot be: 0 <= S@3 <= S@5 <= 1")
    failures = max_turns * (1 - s5)
    return s3 + 4 * (s5 - s3) + failures, 3 * s3 + max_turns * (s5 - s3) + failures
