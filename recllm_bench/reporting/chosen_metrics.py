"""Other metrics of finished runs: computed from the ranks that their records keep, so nothing is trained or ranked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from recllm_bench.api.modules import load_modules, register
from recllm_bench.errors import BenchError, nearest
from recllm_bench.reporting.records import RunRecord, measured
from recllm_bench.reporting.users_file import read_ranks, record_facts


def metric_names(text: str) -> list[str]:
    """Read a list such as ``"NDCG,Recall@5,my.metrics:novelty"`` and refuse what is no metric.

    ``my.py:novelty`` takes a function of a file, which is called ``novelty`` from then on. Only the command line may
    name a file: a record that somebody else wrote must not decide which code runs.

    Raises
    ------
    BenchError
        For an empty list or an unknown metric.
    """
    from recllm_bench.evaluation.metrics import wanted_metrics

    parts = [part.strip() for part in text.split(",") if part.strip()]
    names = list(dict.fromkeys(_of_file(part) if ".py:" in part else part for part in parts))
    if not names:
        raise BenchError("--metrics is empty; write it as --metrics NDCG,Recall@5")
    try:
        wanted_metrics(names, ())
    except BenchError as error:
        raise BenchError(f"--metrics: {error}") from error
    return names


def _of_file(part: str) -> str:
    """Load the file of ``my.py:novelty@5``, register the function, and return ``novelty@5``."""
    path, _, rest = part.rpartition(".py:")
    name, at, cut = rest.partition("@")
    (module,) = load_modules([f"{path}.py"], "--metrics")
    if not hasattr(module, name):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise BenchError(f"--metrics: {path}.py has no '{name}'.{nearest(name, known)}")
    register("metrics", name, getattr(module, name))
    return name + at + cut


def with_metrics(records: Sequence[RunRecord], names: Sequence[str]) -> tuple[list[RunRecord], list[str]]:
    """The records with these metrics, cut where their protocol cuts, and the columns that they make.

    Parameters
    ----------
    records : sequence of RunRecord
        Of one dataset and protocol, with their folders.
    names : sequence of str
        From :func:`metric_names`.
    """
    from recllm_bench.evaluation.metrics import metric_code, per_user, wanted_metrics

    cutoffs = tuple(int(k) for k in records[0].protocol.get("cutoffs") or ())
    columns = [column for column, _, _ in wanted_metrics(names, cutoffs)]
    chosen = []
    for record in records:
        # One's own is computed again even when it is there: its code may have changed.
        missing = [column for column in columns if column not in record.metrics or metric_code(column)]
        if missing:
            ties, facts = record.protocol.get("ties", "expected"), record_facts(record)
            values = per_user(read_ranks(record), missing, (), ties, warn=False, facts=facts)
            record = dataclasses.replace(record, metrics={**record.metrics, **measured(values)})
        chosen.append(record)
    return chosen, columns
