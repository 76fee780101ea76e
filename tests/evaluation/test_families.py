"""Many paired differences at once, against scipy, a plain max-T and planted truths."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from benchmarks.marks import METHODS, planted_table
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.families import Rows, all_pairs, critical, max_t, with_best


def normal_rows(rng: np.random.Generator, rows: int, users: int) -> Rows:
    return Rows([rng.normal(size=(1, users)) for _ in range(rows)])


def adjusted(rows: Rows, pairs, **changes) -> np.ndarray:
    return max_t([(rows, pairs)], **changes)[1][0]


def test_one_difference_is_students_paired_test():
    (values,) = planted_table(np.random.default_rng(0), 2, 300)
    rows = Rows(values)
    expected = stats.ttest_rel(values[0][0], values[1][0])
    found = rows.contrast(0, 1)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.freedom == pytest.approx(299)
    reach = stats.t.isf(0.025, 299) * found.error
    limits = expected.confidence_interval()
    assert (found.estimate - reach, found.estimate + reach) == pytest.approx((limits.low, limits.high))
    assert adjusted(rows, [(0, 1)])[0] == found.p, "a pair on its own pays for nothing"


def test_seeds_that_shift_whole_means_are_welchs_test():
    rng = np.random.default_rng(1)
    people = rng.random(50)
    shifts = [rng.normal(0, 0.1, seeds) for seeds in (3, 5)]
    rows = Rows([people + each[:, None] for each in shifts])  # users do not tell the rows apart: seeds alone do
    found, expected = rows.contrast(0, 1), stats.ttest_ind(*shifts, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.freedom == pytest.approx(expected.df)
    assert rows.deviations == pytest.approx([each.std(ddof=1) for each in shifts])
    assert found.user_variance == pytest.approx(0, abs=1e-15)


def test_seeds_that_only_answer_users_differently_add_nothing_beside_the_users():
    rng = np.random.default_rng(2)
    people, noise = rng.random(400), [rng.normal(0, 0.3, (3, 400)) for _ in range(2)]
    for each in noise:
        each -= each.mean(1, keepdims=True)
    found = Rows([people + each for each in noise]).contrast(0, 1)
    assert found.seed_variance == 0
    assert found.error == pytest.approx(
        np.std([a - b for a, b in zip(*noise, strict=True)], axis=1).mean() / 20 / 3**0.5, rel=0.1
    )


def test_a_row_of_one_seed_takes_what_seeds_do_from_the_others():
    rng = np.random.default_rng(3)
    people = rng.random(200)
    three = people + np.array([-0.02, 0.0, 0.02])[:, None]
    rows = Rows([three, people[None] + 0.03, three])
    assert np.isnan(rows.deviations[1])
    assert rows.contrast(1, 0).seed_variance == pytest.approx(0.0004 * (1 + 1 / 3))
    alone = Rows([people[None] + 0.03, people[None] + rng.normal(0, 0.1, 200)])
    assert alone.contrast(0, 1).seed_variance == 0, "nothing is known of seeds where no row has two"


def test_all_pairs_are_tukeys_test():
    rng = np.random.default_rng(4)
    rows = normal_rows(rng, 6, 4000)
    found = adjusted(rows, all_pairs(6), step_down=False)
    t = np.array([abs(each.estimate) / each.error for each in rows.contrasts(all_pairs(6))])
    # Independent columns with one variance: the range of 6 normal means.
    assert found == pytest.approx(stats.studentized_range.sf(t * 2**0.5, 6, np.inf), abs=0.02)
    assert critical(rows, all_pairs(6)) == pytest.approx(
        stats.studentized_range.isf(0.05, 6, np.inf) / 2**0.5, abs=0.03
    )


def test_rows_against_one_row_are_dunnetts_test():
    rng = np.random.default_rng(5)
    samples = [rng.normal(0.03 * row, 1, 3000) for row in range(4)]
    rows = Rows([each[None] for each in samples])
    expected = stats.dunnett(*samples[1:], control=samples[0], rng=rng)
    found = adjusted(rows, [(row, 0) for row in range(1, 4)], step_down=False)
    assert found == pytest.approx(expected.pvalue, abs=0.03)


def plain_max_t(values: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Step-down max-T of all pairs by turning the signs of users, written down (Westfall and Young, 1993)."""
    pairs = all_pairs(len(values))
    differences = np.array([values[a] - values[b] for a, b in pairs])

    def statistic(signs: np.ndarray) -> np.ndarray:
        turned = differences * signs
        return np.abs(turned.mean(1)) / (turned.std(1, ddof=1) / len(signs) ** 0.5)

    observed = statistic(np.ones(values.shape[1]))
    drawn = np.array([statistic(signs) for signs in flips])
    order = np.argsort(-observed)
    result, highest = np.empty(len(pairs)), 0.0
    for place, pair in enumerate(order):
        share = (drawn[:, order[place:]].max(1) >= observed[pair]).mean()
        highest = max(highest, share)
        result[pair] = highest
    return result


@pytest.mark.parametrize("rows", [3, 5])
def test_a_plain_max_t_over_turned_signs_agrees(rows: int):
    rng = np.random.default_rng(rows)
    (values,) = planted_table(rng, rows, 600, gains=(1.25,))
    flips = rng.choice([-1.0, 1.0], (4000, 600))
    expected = plain_max_t(np.array([each[0] for each in values]), flips)
    assert adjusted(Rows(values), all_pairs(rows)) == pytest.approx(expected, abs=0.03)


def plain_with_best(values: np.ndarray, flips: np.ndarray) -> dict[int, float]:
    """Comparisons with the best by turning the signs of users: whoever is marked leaves the pairs that are held."""
    best, left = int(values.mean(1).argmax()), list(range(len(values)))

    def statistic(a: int, b: int, signs: np.ndarray) -> np.ndarray:
        turned = (values[a] - values[b]) * signs
        return np.abs(turned.mean(-1)) / (turned.std(-1, ddof=1) / values.shape[1] ** 0.5)

    drawn = {pair: statistic(*pair, flips) for pair in all_pairs(len(values))}
    observed = {row: float(statistic(row, best, np.ones(values.shape[1]))) for row in left if row != best}
    result, highest = {}, 0.0
    for row in sorted(observed, key=lambda each: -observed[each]):
        largest = np.max([drawn[a, b] for a, b in drawn if a in left and b in left], axis=0)
        highest = max(highest, float((largest >= observed[row]).mean()))
        result[row] = highest
        left.remove(row)
    return result


@pytest.mark.parametrize("seed", range(3))
def test_plain_comparisons_with_the_best_agree(seed: int):
    rng = np.random.default_rng([4, seed])
    (values,) = planted_table(rng, 5, 400, gains=(1.3, 1.15))
    plain = np.array([each[0] for each in values])
    expected = plain_with_best(plain, rng.choice([-1.0, 1.0], (4000, 400)))
    best = int(plain.mean(1).argmax())
    _, (found,) = with_best([Rows(values)], [best])
    assert found == pytest.approx([expected[row] for row in range(5) if row != best], abs=0.03)


@pytest.mark.parametrize("seed", range(6))
def test_scipy_and_statsmodels_agree_on_random_tables(seed: int):
    """Independent columns with one variance: Tukey's and Dunnett's tests, of which there are public implementations."""
    from statsmodels.stats.multicomp import pairwise_tukeyhsd

    rng = np.random.default_rng([11, seed])
    size, users = int(rng.integers(3, 9)), 2000
    samples = rng.normal(rng.normal(0, 0.03, (size, 1)), 1, (size, users))
    rows, pairs = Rows(list(samples[:, None])), all_pairs(size)
    tukey = stats.tukey_hsd(*samples)
    other = pairwise_tukeyhsd(samples.ravel(), np.repeat(np.arange(size), users))
    found = adjusted(rows, pairs, step_down=False)
    assert found == pytest.approx([tukey.pvalue[pair] for pair in pairs], abs=0.05)
    assert found == pytest.approx(other.pvalues, abs=0.05)
    # The method of marks: Tukey's range of as many rows as are left.
    best = int(samples.mean(1).argmax())
    contrasts, (marks,) = with_best([rows], [best])
    t = np.array([abs(each.estimate) / each.error for each in contrasts[0]])
    steps = [stats.studentized_range.sf(t[place] * 2**0.5, size - k, np.inf) for k, place in enumerate(np.argsort(-t))]
    assert np.sort(marks) == pytest.approx(np.maximum.accumulate(steps), abs=0.02)
    # Against a named row.
    expected = stats.dunnett(*np.delete(samples, best, 0), control=samples[best], rng=rng)
    named = adjusted(rows, [(row, best) for row in range(size) if row != best], step_down=False)
    assert named == pytest.approx(expected.pvalue, abs=0.05)


@pytest.mark.parametrize("apart", [0.5, 1.5, 3.0, 6.0, 12.0])
@pytest.mark.parametrize("groups", [(2, 3), (3, 2), (4, 1), (1, 4), (2, 2, 2), (3, 1, 1)])
def test_a_wrong_mark_is_rare_whatever_the_groups_of_equals(groups: tuple[int, ...], apart: float):
    """Wrong: a row that truly is no worse than the best of the table. Thresholds are Tukey's, as the method's."""
    rng = np.random.default_rng([sum(groups), int(10 * apart)])
    truth = np.repeat(-apart * np.arange(len(groups)), groups)
    size, times = len(truth), 20_000
    threshold = [0.0, np.inf, *(stats.studentized_range.isf(0.05, rows, np.inf) for rows in range(2, size + 1))]
    found = truth + rng.normal(size=(times, size))
    order = np.argsort(-found, axis=1)
    found, true = np.take_along_axis(found, order, 1), truth[order]
    going, wrong = np.ones(times, dtype=bool), np.zeros(times, dtype=bool)
    for last in range(size - 1, 0, -1):
        going &= found[:, 0] - found[:, last] > threshold[last + 1]
        wrong |= going & (true[:, last] >= true[:, 0])
    assert wrong.mean() <= stats.binom.isf(1e-4, times, 0.05) / times


def test_comparisons_with_the_best_find_no_less_than_all_pairs():
    rng = np.random.default_rng(12)
    more = 0
    for _ in range(20):
        table = planted_table(rng, 6, 500, gains=(1.4, 1.3, 1.1))
        ours, pairs = (METHODS[name](table) for name in list(METHODS)[:2])
        assert (ours <= pairs + 0.01).all()
        more += int(((ours < 0.05) & (pairs >= 0.05)).sum())
    assert more > 0


def test_two_rows_and_two_metrics_with_a_best_of_their_own():
    rng = np.random.default_rng(13)
    table = planted_table(rng, 2, 300)
    rows = Rows(table[0])
    best = int(rows.means.argmax())
    _, (found,) = with_best([rows], [best])
    assert found[0] == rows.contrast(0, 1).p
    other = Rows(table[0][::-1])  # the same metric with the rows' names turned
    contrasts, (first, second) = with_best([rows, other], [best, 1 - best])
    assert first == second and contrasts[0][0].estimate == pytest.approx(contrasts[1][0].estimate)
    assert with_best([], []) == ([], [])


def test_metrics_of_one_family_pay_for_each_other_as_much_as_they_differ():
    rng = np.random.default_rng(6)
    (values,) = planted_table(rng, 4, 500, gains=(1.2,))
    rows, pairs = Rows(values), all_pairs(4)
    alone = adjusted(rows, pairs, step_down=False)
    _, (first, second) = max_t([(rows, pairs), (Rows([2 * each for each in values]), pairs)], step_down=False)
    assert first == pytest.approx(alone, abs=0.01), "the same metric twice is one metric"
    assert second == pytest.approx(first)
    _, (first, _) = max_t([(rows, pairs), (normal_rows(rng, 4, 500), pairs)], step_down=False)
    assert (first >= alone - 0.01).all() and (first > alone + 0.02).any()


def test_sixty_rows_mark_what_is_there_and_quickly():
    rng = np.random.default_rng(7)
    values = [(rng.random((3, 6000)) < (0.30 if row == 0 else 0.01)).astype(float) for row in range(60)]
    start = time.perf_counter()
    rows = Rows(values)
    _, (found,) = with_best([rows], [0])
    assert time.perf_counter() - start < 10
    assert found.max() < 1e-6, "no resampling limits a p-value"
    found = dict(zip(all_pairs(60), adjusted(rows, all_pairs(60)), strict=True))
    assert min(p for (a, _), p in found.items() if a) > 0.001


def test_no_decision_hangs_on_the_points():
    rng = np.random.default_rng(8)
    (values,) = planted_table(rng, 6, 800, gains=(1.3, 1.15, 1.1))
    rows = Rows(values)
    best = int(rows.means.argmax())
    for find in (
        lambda seed: adjusted(rows, all_pairs(6), seed=seed),
        lambda seed: with_best([rows], [best], seed=seed)[1][0],
    ):
        assert len({tuple(find(seed) < 0.05) for seed in range(30)}) == 1


def test_equal_rows_and_rows_in_another_order():
    (values,) = planted_table(np.random.default_rng(9), 3, 200, gains=(2.0,))
    rows = Rows([*values, values[0]])
    pairs = all_pairs(4)
    found = dict(zip(pairs, adjusted(rows, pairs), strict=True))
    assert found[0, 3] == 1
    turned = Rows([values[0], *values[::-1]])
    again = dict(zip(pairs, adjusted(turned, pairs), strict=True))
    assert again[0, 2] == pytest.approx(found[1, 3], abs=0.005)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "at least one"),
        ([np.ones(3)], "seeds, users"),
        ([np.ones((0, 3))], "at least one"),
        ([np.ones((1, 3)), np.ones((1, 4))], "same users"),
        ([np.full((1, 3), np.nan)], "not a number"),
    ],
)
def test_what_cannot_be_compared_is_refused(values, said):
    with pytest.raises(BenchError, match=said):
        Rows(values)


@pytest.mark.parametrize("rows", [2, 5])
def test_false_marks_stay_under_their_level(rows: int):
    rng = np.random.default_rng(rows)
    tables = 300
    false = sum((adjusted(Rows(planted_table(rng, rows, 300)[0]), all_pairs(rows)) < 0.05).any() for _ in range(tables))
    assert false <= stats.binom.isf(0.001, tables, 0.05)


def test_false_marks_over_seeds_stay_under_their_level():
    rng = np.random.default_rng(0)
    tables, pairs = 150, all_pairs(4)
    for deviation in (0.003, 0.008):
        values = (planted_table(rng, 4, 300, seeds=3, deviation=deviation)[0] for _ in range(tables))
        false = sum((adjusted(Rows(each), pairs) < 0.05).any() for each in values)
        assert false <= stats.binom.isf(0.001, tables, 0.05)
