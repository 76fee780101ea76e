"""Tests of many paired differences at once, so that a table's marks hold together and do not hang on resampling.

Each difference gets a t statistic from the same users (and, where there are several, from the seeds of both rows). What
is corrected for is the largest of all statistics of the family, with their correlation: max-T (Westfall and Young,
1993), stepped down. Statistics become normal scores through their own t distribution, and the largest one's
distribution is that of the normal limit, integrated over fixed quasi-random points. Where the points are too few for
the tail, Holm's bound takes over, so nothing limits how small a p-value can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recllm_bench.errors import BenchError

ALPHA = 0.05
SEED = 20_240_501
_POINTS = 1 << 14
_FIRST_VALUES = 1 << 23
_MOST_POINTS = 1 << 19
_MOST_VALUES = 1 << 28
_VALUES_AT_ONCE = 1 << 22
_CERTAIN = 1e-4
_SURE = 3.3  # standard errors: a decision this far from the threshold is wrong once in a thousand


@dataclass(frozen=True)
class Contrast:
    """A difference of two rows, ``first - factor * second``.

    Attributes
    ----------
    estimate, error : float
        Its mean and standard error.
    freedom : float
        Degrees of freedom of the error (Welch and Satterthwaite).
    user_variance, seed_variance : float
        Parts of ``error ** 2``: from the choice of users, and from the seeds of both rows.
    p : float
        Two-sided p-value of this difference alone.
    """

    estimate: float
    error: float
    freedom: float
    user_variance: float
    seed_variance: float
    p: float


class Rows:
    """Means of rows over the same users, and how they vary together.

    Parameters
    ----------
    values : sequence of float [seeds, users]
        One matrix for each row, users in the same order; rows may have different numbers of seeds.

    Attributes
    ----------
    means : float64 [rows]
    deviations : float64 [rows]
        Standard deviation between seeds; NaN for a row of one seed.
    users : int

    Raises
    ------
    BenchError
        Without values, with other users in a row, or with values that are not numbers.
    """

    def __init__(self, values: Sequence[np.ndarray]) -> None:
        matrices = [np.asarray(matrix, dtype=np.float64) for matrix in values]
        if not matrices or any(matrix.ndim != 2 or not matrix.size for matrix in matrices):
            raise BenchError("rows to compare are matrices [seeds, users], with at least one of each")
        if len({matrix.shape[1] for matrix in matrices}) > 1:
            raise BenchError(f"paired rows need the same users: got {sorted({m.shape[1] for m in matrices})}")
        if not all(np.isfinite(matrix).all() for matrix in matrices):
            raise BenchError("a per-user value is not a number; there is nothing to average")
        self.users = matrices[0].shape[1]
        self.seeds = np.array([len(matrix) for matrix in matrices])
        of_users = np.stack([matrix.mean(0) for matrix in matrices])
        self.means = of_users.mean(1)
        self._centred = of_users - self.means[:, None]
        self._user_part = self._centred @ self._centred.T / (self.users * max(self.users - 1, 1))
        self._of_seeds = [matrix.mean(1) for matrix in matrices]
        self.deviations = np.array([each.std(ddof=1) if len(each) > 1 else np.nan for each in self._of_seeds])
        # Seeds move a mean also because each answers single users in its own way: that is in the users' part already.
        answers = np.array([_disagreement(matrix) for matrix in matrices])
        raw, freedom = moderated(np.nan_to_num(self.deviations) ** 2, answers, self.seeds - 1)
        apart = np.maximum(raw - answers, 0)
        # A row of one seed beside rows of several: what seeds do to it is taken from them.
        moved = (self.seeds > 1) & (raw > 0)
        if moved.any():
            single = self.seeds == 1
            raw[single], apart[single] = raw[moved].mean(), apart[moved].mean()
            freedom[single] = (self.seeds[moved] - 1).sum()
        self._seed_freedom = np.maximum(freedom, 1)
        self._seed_raw, self._seed_part = raw / self.seeds, apart / self.seeds

    def variance(self, row: int) -> tuple[float, float, float]:
        """User part and seed part of a mean's variance, and the degrees of freedom of their sum."""
        seed = float(self._seed_part[row]) if self.seeds[row] > 1 else 0.0
        user = float(self._user_part[row, row])
        raw = float(self._seed_raw[row]) if self.seeds[row] > 1 else 0.0
        below = user**2 / max(self.users - 1, 1) + raw**2 / float(self._seed_freedom[row])
        return user, seed, (user + seed) ** 2 / below if below else float(max(self.users - 1, 1))

    def contrast(self, first: int, second: int, factor: float = 1.0) -> Contrast:
        """The difference of two rows; with a factor, ``first - factor * second``."""
        (found,) = self.contrasts([(first, second)], factor)
        return found

    def contrasts(self, pairs: Sequence[tuple[int, int]], factor: float = 1.0) -> list[Contrast]:
        """:meth:`contrast` of many pairs."""
        from scipy import stats

        if not pairs:
            return []
        a, b = np.array(pairs).T
        scale = self._user_part.diagonal()
        user = scale[a] + factor**2 * scale[b] - 2 * factor * self._user_part[a, b]
        user = np.where(user < 1e-12 * (scale[a] + scale[b]), 0.0, user)  # equal rows: what rounding leaves is nothing
        of_a, of_b = self._seed_part[a], factor**2 * self._seed_part[b]
        total = user + of_a + of_b
        estimate = self.means[a] - factor * self.means[b]
        estimate = np.where(np.abs(estimate) < 1e-12 * np.abs(self.means[a]), 0.0, estimate)
        raw = self._seed_raw**2 / self._seed_freedom  # variance of the seed parts' estimates, over 2
        parts = user**2 / max(self.users - 1, 1) + raw[a] + factor**4 * raw[b]
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.where(parts > 0, total**2 / parts, max(self.users - 1, 1))
            t = np.where(estimate == 0, 0.0, np.abs(estimate) / np.sqrt(total))
        p = 2 * stats.t.sf(t, freedom)
        columns = (estimate, np.sqrt(total), freedom, user, of_a + of_b, p)
        return [Contrast(*map(float, each)) for each in zip(*columns, strict=True)]

    def skewness(self, first: int, second: int, factor: float = 1.0) -> float:
        """Skewness over users of ``first - factor * second``; 0 where they do not differ."""
        apart = self._centred[first] - factor * self._centred[second]
        spread = float(np.sqrt((apart**2).mean()))
        return float((apart**3).mean()) / spread**3 if spread > 0 else 0.0

    def covariance(self) -> np.ndarray:
        """Covariance of the rows' means over users and seeds, float64 [rows, rows]."""
        return self._user_part + np.diag(self._seed_part)


def _disagreement(matrix: np.ndarray) -> float:
    """Variance of one seed's mean that comes from seeds answering single users differently, beside any common shift."""
    seeds, users = matrix.shape
    if seeds == 1 or users == 1:
        return 0.0
    rest = matrix - matrix.mean(0) - matrix.mean(1, keepdims=True) + matrix.mean()
    return float((rest**2).sum()) / ((seeds - 1) * (users - 1)) / users


def moderated(found: np.ndarray, answers: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances between seeds that lend each other what the table knows (empirical Bayes; Smyth, 2004).

    Two degrees of freedom say little of a variance, and the other rows of a table say more: the more alike the rows'
    variances are, the more is taken from what they have in common.

    Parameters
    ----------
    found : float [rows]
        Variance between each row's seeds; 0 for one seed, and for a model that knows no chance.
    answers : float [rows]
        Part of it from seeds that answer single users differently.
    freedom : int [rows]
        Seeds less one.

    Returns
    -------
    variance, freedom : float64 [rows]
    """
    from scipy import special, stats

    variance, degrees = found.astype(np.float64), freedom.astype(np.float64)
    lent = (freedom > 0) & (found > 0)
    if lent.sum() < 3:
        return variance, degrees
    d, s = degrees[lent], variance[lent]
    prior = max(float(np.average(s - answers[lent], weights=d)), 0.0) + answers[lent]
    prior = np.where(prior > 0, prior, s.mean())
    away = np.log(s / prior) - special.digamma(d / 2) + np.log(d / 2)
    # How far the rows' variances are apart, guessed high: few rows cannot show that they are alike.
    spread = away.var(ddof=1) * (len(d) - 1) / stats.chi2.ppf(0.25, len(d) - 1)
    shared = min(_inverse_trigamma(float(spread - special.polygamma(1, d / 2).mean())), d.sum() - d.max())
    variance[lent], degrees[lent] = (shared * prior + d * s) / (shared + d), shared + d
    return variance, degrees


def _inverse_trigamma(value: float) -> float:
    """Twice the argument at which the trigamma function has this value; infinite for 0 or less."""
    from scipy import special

    if value <= 0:
        return float("inf")
    low, high = 1e-3, 1e6
    for _ in range(80):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if special.polygamma(1, middle) > value else (low, middle)
    return 2 * low


def all_pairs(rows: int) -> list[tuple[int, int]]:
    """Each pair of rows once."""
    return [(a, b) for a in range(rows) for b in range(a + 1, rows)]


def max_t(
    families: Sequence[tuple[Rows, Sequence[tuple[int, int]]]], *, seed: int = SEED, step_down: bool = True
) -> tuple[list[list[Contrast]], list[np.ndarray]]:
    """Differences with p-values that are corrected for all of them together.

    Parameters
    ----------
    families : sequence of (Rows, pairs)
        One entry for each metric, all over the same rows and users; together they are one family.
    seed : int
        Of the quasi-random points. Points are added until no decision at 5 % hangs on them.
    step_down : bool
        Hold a difference against those that are no larger than it (more power), not against all.

    Returns
    -------
    contrasts : list of list of Contrast
    adjusted : list of float64 [pairs]
    """
    if not families:
        return [], []
    contrasts = [rows.contrasts(pairs) for rows, pairs in families]
    p = np.array([contrast.p for each in contrasts for contrast in each])
    where = [(number, *pair) for number, (_, pairs) in enumerate(families) for pair in pairs]
    order = np.argsort(p, kind="stable")
    leave = np.arange(len(p)) if step_down else np.full(len(p), len(p) - 1)
    adjusted = _adjusted([rows for rows, _ in families], [where[each] for each in order], leave, p[order], seed)
    return contrasts, _as_before(adjusted, order, contrasts)


def with_best(
    families: Sequence[Rows], best: Sequence[int], *, seed: int = SEED
) -> tuple[list[list[Contrast]], list[np.ndarray]]:
    """Every row against the best, with p-values corrected for the choice of the best by the data.

    The largest difference is held against all pairs of rows, since any two could have been the best and the worst. A
    row that is marked takes part no longer, so the next largest is held against the pairs of those that are left. The
    first row that is marked wrongly leaves with all rows that truly are no worse than the best still there, so any
    wrong mark has a chance of 5 %. Pairs without the best are never marked, and nothing is paid for them.

    Parameters
    ----------
    families : sequence of Rows
        One entry for each metric, all over the same rows and users; together they are one family.
    best : sequence of int
        Row that is the best of each metric.
    seed : int
        Of the quasi-random points.

    Returns
    -------
    contrasts : list of list of Contrast
        Of each metric, ``row - best`` for every other row, in the order of rows.
    adjusted : list of float64 [rows - 1]
    """
    if not families:
        return [], []
    size = len(families[0].means)
    others = [[row for row in range(size) if row != top] for top in best]
    contrasts = [
        rows.contrasts([(row, top) for row in each]) for rows, top, each in zip(families, best, others, strict=True)
    ]
    p = np.array([contrast.p for each in contrasts for contrast in each])
    order = np.argsort(p, kind="stable")
    step = np.full((len(families), size), len(p))  # when a row leaves; the best never does
    where = np.array([(number, row) for number, each in enumerate(others) for row in each]).reshape(-1, 2)
    step[tuple(where[order].T)] = np.arange(len(p))
    pairs = sorted(
        (int(min(step[number, a], step[number, b])), number, a, b)
        for number in range(len(families))
        for a, b in all_pairs(size)
    )
    leave = np.array([first for first, *_ in pairs])
    adjusted = _adjusted(families, [(number, a, b) for _, number, a, b in pairs], leave, p[order], seed)
    return contrasts, _as_before(adjusted, order, contrasts)


def _as_before(adjusted: np.ndarray, order: np.ndarray, contrasts: list[list[Contrast]]) -> list[np.ndarray]:
    """Sorted values in the places of the contrasts that they belong to."""
    result = np.empty(len(order))
    result[order] = adjusted
    ends = np.cumsum([len(each) for each in contrasts])
    return np.split(result, ends[:-1])


def _adjusted(
    rows: Sequence[Rows], where: Sequence[tuple[int, int, int]], leave: np.ndarray, p: np.ndarray, seed: int
) -> np.ndarray:
    """Corrected p-values of differences in the order of their own, float64 [differences].

    Parameters
    ----------
    where : sequence of (metric, row, row)
        Pairs in the order in which they leave.
    leave : int [pairs]
        The last difference that is held against a pair.
    p : float [differences]
        Ascending.
    """
    from scipy import stats

    starts = np.searchsorted(leave, np.arange(len(p)))
    bound = np.minimum(p * (len(where) - starts), 1.0)
    adjusted = np.maximum.accumulate(bound)
    first = int(np.count_nonzero(adjusted < _CERTAIN))
    if first < len(p) and len(where) - starts[first] > 1:
        score = stats.norm.isf(np.maximum(p[first:], 1e-300) / 2)
        largest = _Largest(rows, where[starts[first] :], seed)
        shares = _shares(largest, score, starts[first:] - starts[first])
        adjusted[first:] = np.minimum(bound[first:], shares)
        adjusted = np.maximum.accumulate(adjusted)
    return adjusted


def critical(rows: Rows, pairs: Sequence[tuple[int, int]], *, level: float = 0.95, seed: int = SEED) -> float:
    """Normal score that the largest of the pairs' statistics stays under with this probability."""
    from scipy import stats

    if len(pairs) == 1:
        return float(stats.norm.isf((1 - level) / 2))
    largest = _Largest([rows], [(0, *pair) for pair in pairs], seed)
    values = np.concatenate([block.max(0) for block in largest.blocks(_POINTS * 4)])
    return float(np.quantile(values, level))


class _Largest:
    """Absolute normal scores of contrasts under the null hypothesis, at quasi-random points."""

    def __init__(self, rows: Sequence[Rows], contrasts: Sequence[tuple[int, int, int]], seed: int) -> None:
        self.seed = seed
        size = len(rows[0].means)
        covariance = _joint(rows)
        values, vectors = np.linalg.eigh(covariance)
        places = np.array(contrasts)
        a, b = places[:, 0] * size + places[:, 1], places[:, 0] * size + places[:, 2]
        spread = np.sqrt(np.maximum(covariance[a, a] + covariance[b, b] - 2 * covariance[a, b], 0))
        spread[spread <= 1e-9 * np.sqrt(covariance[a, a] + covariance[b, b])] = np.inf  # equal rows: always 0
        kept = values > values[-1] * 1e-12
        root = (vectors[:, kept] * np.sqrt(values[kept])).T
        self.weights = ((root[:, a] - root[:, b]) / spread).astype(np.float32).T

    def blocks(self, points: int) -> Iterator[np.ndarray]:
        """Float32 blocks ``[contrasts, points]`` of scores."""
        from scipy import special
        from scipy.stats import qmc

        sobol = qmc.Sobol(self.weights.shape[1], scramble=True, seed=np.random.default_rng(self.seed))
        step = 1 << max(8, (max(1, _VALUES_AT_ONCE // len(self.weights))).bit_length() - 1)
        for _ in range(0, points, min(step, points)):
            uniform = np.clip(sobol.random(min(step, points)), 1e-12, 1 - 1e-12)
            scores = self.weights @ special.ndtri(uniform).astype(np.float32).T
            yield np.abs(scores, out=scores)


def _joint(rows: Sequence[Rows]) -> np.ndarray:
    """Covariance of all rows' means in all metrics, float64 [metrics * rows, metrics * rows]."""
    if len(rows) == 1:
        return rows[0].covariance()
    centred = np.concatenate([each._centred for each in rows])
    users, size = rows[0].users, len(rows[0].means)
    joint = centred @ centred.T / (users * max(users - 1, 1))
    for row in range(size):
        places = np.arange(len(rows)) * size + row
        if rows[0].seeds[row] > 1:
            of_seeds = np.stack([each._of_seeds[row] for each in rows])
            common = np.corrcoef(of_seeds) if (of_seeds.std(1) > 0).all() else np.eye(len(rows))
            spread = np.sqrt([each._seed_part[row] for each in rows])
            joint[np.ix_(places, places)] += common * np.outer(spread, spread)
        else:
            joint[places, places] += [each._seed_part[row] for each in rows]
    return joint


def _shares(largest: _Largest, score: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Share of points at which a pair from ``starts`` on reaches the score; more points while a decision is open."""
    points = 1 << int(np.clip(_FIRST_VALUES // len(largest.weights), 1 << 10, _POINTS)).bit_length() - 1
    groups, of_score = np.unique(starts, return_inverse=True)
    while True:
        counts = np.zeros(len(score))
        for block in largest.blocks(points):
            top, end = np.zeros(block.shape[1], dtype=np.float32), len(block)
            for group in range(len(groups) - 1, -1, -1):
                np.maximum(top, block[groups[group] : end].max(0), out=top)
                end = groups[group]
                for place in np.flatnonzero(of_score == group):
                    counts[place] += np.count_nonzero(top >= score[place])
        shares = np.maximum.accumulate(np.maximum(counts, 1) / points)
        reach = _SURE * np.sqrt(ALPHA * (1 - ALPHA) / points)
        more = points * 4
        if more > _MOST_POINTS or more * len(largest.weights) > _MOST_VALUES:
            return shares
        if not (np.abs(shares - ALPHA) < reach).any():
            return shares
        points = more
