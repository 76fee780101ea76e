"""A dataset's description as one screen of text, and as JSON."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from recllm_bench.artifacts import write_json
from recllm_bench.data.dataset_description import RARE, Description, Histogram, TextCoverage, TimeSpan
from recllm_bench.data.sequential_structure import CUTOFF, SequentialStructure

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_BAR = 16
_WIDTH = 100
_LISTED_YEARS = 5
# From this share on, ties in time are worth a warning.
_MANY_TIES = 0.05


def format_description(description: Description) -> str:
    """One screen, 100 columns wide, without a final newline.

    Parameters
    ----------
    description : Description
        From :func:`recllm_bench.data.dataset_description.describe`.
    """
    lengths = [
        "history lengths (interactions per user)",
        *_bars(description.lengths),
        f"  percentiles {'/'.join(map(str, description.length_quantiles))}:",
        "    " + " / ".join(f"{value:,.0f}" for value in description.length_quantiles.values()),
    ]
    popularity = ["interactions of the most popular items", *_popularity(description)]
    if description.ratings is not None:
        popularity += ["", f"ratings, mean {description.mean_rating:.2f}", *_bars(description.ratings)]
    sections = [
        _head(description),
        _counts(description),
        _beside(lengths, popularity),
        _facts(description),
        _structure(description),
    ]
    return "\n\n".join("\n".join(line.rstrip() for line in lines) for lines in sections)


def write_description(description: Description, path: Path) -> None:
    """Write every number as JSON, atomically."""
    write_json(path, description.as_dict())


def _head(description: Description) -> list[str]:
    has = (("times", description.has_times), ("ratings", description.has_ratings))
    said = ", ".join(f"{'with' if there else 'no'} {what}" for what, there in has)
    called = "" if description.title == description.name else f" ({description.name})"
    lines = (
        f"{description.title}{called} · filter {description.filter} · variant {description.variant} · {said}",
        f"licence: {description.licence} · data checksum {description.checksum}",
    )
    return [piece for line in lines for piece in _wrapped(line, _WIDTH)]


def _counts(description: Description) -> list[str]:
    counts, again = description.counts, description.repeats
    known = counts["catalogue_items"]
    cells = [
        ("users", f"{counts['users']:,}", "mean length", f"{counts['mean_length']:,.2f}"),
        ("items", f"{counts['items']:,}", "median length", f"{counts['median_length']:,.10g}"),
        ("interactions", f"{counts['interactions']:,}", "longest", f"{counts['max_length']:,}"),
        ("items in the source", f"{known:,}" if known else "-", "shortest", f"{counts['min_length']:,}"),
    ]
    more = [
        ("density", percent(counts["density"])),
        ("sparsity", percent(counts["sparsity"])),
        ("repeated interactions", f"{again.interactions:,} ({percent(again.share)})"),
        ("tied in time", "-" if description.tied_share is None else percent(description.tied_share)),
    ]
    return [
        f"  {first:<20}{one:>12}   {second:<14}{two:>9}   {third:<22}{three}"
        for (first, one, second, two), (third, three) in zip(cells, more, strict=True)
    ]


def _popularity(description: Description) -> list[str]:
    found = description.popularity
    lines = [f"  {f'top {top} %':>8}  {bar(share)}  {_tenths(share)}" for top, share in found.top_shares.items()]
    rare = found.rare_items / description.counts["items"]
    return [
        *lines,
        f"  Gini {found.gini:.3f} · {_number(found.rare_items, 'item')} ({percent(rare)}) seen < {RARE} times",
    ]


def _facts(description: Description) -> list[str]:
    lines = []
    if description.times is not None:
        lines += _wrapped(f"time: {_span(description.times)}", _WIDTH, "      ")
    lines += _wrapped(f"item text: {_text(description.text)}", _WIDTH, "           ")
    return lines


def _text(text: TextCoverage) -> str:
    words = "" if text.description_words is None else f" ({text.description_words:,.0f} words on average)"
    parts = [
        f"title {percent(text.title)}",
        f"year {percent(text.year)}",
        f"categories {percent(text.categories)}",
        f"description {percent(text.description)}{words}",
    ]
    if text.shared_titles:
        parts.append(f"{_number(text.shared_titles, 'title')} shared by {_number(text.items_sharing, 'item')}")
    if text.reviews is not None:
        words = "" if text.review_words is None else f" ({text.review_words:,.0f} words on average)"
        parts.append(f"review text with {percent(text.reviews)} of the interactions{words}")
    return " · ".join(parts)


def _span(times: TimeSpan) -> str:
    years = times.by_year
    said = f"{times.first} to {times.last}"
    if len(years) <= _LISTED_YEARS:
        return f"{said} · " + " · ".join(f"{year}: {count:,}" for year, count in years.items())
    first, last = min(years), max(years)
    peak = max(years, key=lambda year: years[year])
    series = [years.get(year, 0) for year in range(first, last + 1)]
    if len(series) > 40:  # odd timestamps: only the years that there are
        series = list(years.values())
    return f"{said} · interactions per year {sparkline(series)} · most in {peak} ({years[peak]:,})"


def _structure(description: Description) -> list[str]:
    found = description.structure
    if found is None:
        return [f"sequential structure: not checked ({description.no_structure})"]
    some = f" (a sample of {found.users:,})" if found.cases < found.users else ""
    candidates = "all items but the history" if found.history_excluded else "all items, history included"
    lines = [
        f"sequential structure: {found.verdict}{_cost(found)}",
        *_wrapped(
            f"  a first-order Markov chain ranks the last item of {found.cases:,} users{some} among {candidates}",
            _WIDTH,
        ),
        f"  {'':<22}{f'HR@{CUTOFF}':>9}{f'NDCG@{CUTOFF}':>9}",
        _scores("true order", found.true),
        _scores(f"shuffled, {found.shuffles} times", found.shuffled) + _fall(found),
    ]
    if found.ties_shuffled is not None:
        lines.append(_scores("only ties shuffled", found.ties_shuffled))
    lines.append(_scores("popularity alone", found.popularity))
    lines += _wrapped(f"  {found.rule}", _WIDTH, "  ")
    if found.tied_targets is not None and found.tied_targets >= _MANY_TIES:
        lines += _wrapped(
            f"  {percent(found.tied_targets)} of the targets share their second with the item before: there the order "
            "is that of the file",
            _WIDTH,
            "  ",
        )
    return lines


def _scores(name: str, values: dict[str, float]) -> str:
    return f"  {name:<22}" + "".join(f"{values[metric]:>9.4f}" for metric in (f"HR@{CUTOFF}", f"NDCG@{CUTOFF}"))


def _fall(found: SequentialStructure) -> str:
    if found.fall_low is None:
        return ""
    return f"   falls by {found.fall:.4f} [{found.fall_low:.4f}, {found.fall_high:.4f}] (95 %)"


def _cost(found: SequentialStructure) -> str:
    change, spread = found.change[f"NDCG@{CUTOFF}"], found.change_spread[f"NDCG@{CUTOFF}"]
    if change is None or found.verdict == "cannot tell":
        hits = found.true[f"HR@{CUTOFF}"] * found.cases
        return f"; only {hits:,.0f} of {_number(found.cases, 'target')} among the first {CUTOFF}"
    around = "" if spread is None else f" ± {100 * spread:.1f}"
    return f"; shuffling changes NDCG@{CUTOFF} by {100 * change:+.1f}{around} %"


def _bars(histogram: Histogram) -> list[str]:
    total = max(sum(histogram.counts), 1)
    most = max(histogram.counts)
    width = max(map(len, histogram.labels))
    counts = [f"{count:,}" for count in histogram.counts]
    digits = max(map(len, counts))
    return [
        f"  {label:>{width}}  {bar(count / most)}  {said:>{digits}}  {_tenths(count / total)}"
        for label, count, said in zip(histogram.labels, histogram.counts, counts, strict=True)
    ]


def bar(share: float, width: int = _BAR) -> str:
    """A horizontal bar of ``width`` columns, in eighths of a column; something above 0 always shows."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[part] if part else "")).ljust(width)


def sparkline(values: Sequence[float]) -> str:
    """One character for each value, its height relative to the largest."""
    most = max(values)
    return "".join(_LEVELS[math.ceil(value / most * 8) - 1] if value > 0 else " " for value in values)


def percent(share: float) -> str:
    """A share in percent with three digits: ``93.7 %``, ``0.0123 %``; 100 % and 0 % only when it is exactly that."""
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    if value >= 99:
        return f"{min(value, 99.9999):.4g} %" if value < 99.995 else ">99.99 %"
    return f"{value:#.3g} %" if value >= 0.001 else "<0.001 %"


def _tenths(share: float) -> str:
    """A share in percent for a column."""
    return f"{100 * share:>5.1f} %" if share >= 0.0005 or share == 0 else " <0.1 %"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _beside(left: list[str], right: list[str]) -> list[str]:
    return [f"{one:<{_WIDTH // 2}}  {two}" for one, two in itertools.zip_longest(left, right, fillvalue="")]


def _wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    first = text[: len(text) - len(text.lstrip())]
    return textwrap.wrap(text.lstrip(), width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
