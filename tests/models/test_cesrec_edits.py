"""CESRec's controls: other edits, words that rank, acceptance off, and a constructor that collapses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recllm_bench.conversation.attributes import AttributeTable
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.metrics import per_user
from recllm_bench.evaluation.places import Ranks
from recllm_bench.language.titles.counters import Written
from recllm_bench.models.cesrec.edits import (
    any_title,
    collapse,
    fitting_title,
    random_masker,
    repeated,
    retitled,
    when_accepting,
)
from recllm_bench.models.cesrec.options import CESRecOptions, check_options
from recllm_bench.models.cesrec.rounds import Pseudo, Round
from tests.conftest import planted_catalogue
from tests.models.test_cesrec_pipeline import make_job, report_of, rounds_of, tiny_model  # noqa: F401

CATALOGUE = planted_catalogue(30)
READER = Understanding(CATALOGUE, AttributeTable(CATALOGUE))


def ndcg(job) -> float:
    ranks = rounds_of(job).played.ranks[-1]
    return float(per_user(ranks, ["NDCG"], [10], "expected")["NDCG@10"].mean())


def test_words_that_rank_win_where_remarks_tell_and_lose_where_they_say_nothing(tmp_path):
    off = {"early_accept": False, "use_masking": False, "use_constructor": False}
    alone, then = (ndcg(make_job(tmp_path, **off, edit=edit)) for edit in ("words", "words_backend"))
    plain = ndcg(make_job(tmp_path, **off))
    assert alone > 2 * plain and then > 2 * plain
    catalogue = planted_catalogue(130)
    catalogue.categories[:] = [()] * 131
    catalogue.years[:] = 0
    assert ndcg(make_job(tmp_path / "b", catalogue=catalogue, **off, edit="words_backend")) == plain
    assert ndcg(make_job(tmp_path / "b", catalogue=catalogue, **off, edit="words")) < alone / 2


def test_every_edit_ends_in_a_record_and_trains_nothing(tmp_path):
    trained = make_job(tmp_path, early_accept=False)
    own, folders = rounds_of(trained).played, rounds_of(trained).folders
    for edit in ("random_mask", "random_title", "fitting_title", "words", "words_backend"):
        job = make_job(tmp_path, early_accept=False, edit=edit)
        store = rounds_of(job)
        assert store.folders == folders, f"{edit} shares every stage"
        assert {"measures", "substitutes"} <= set(report_of(job))
        last = store.played.rounds[-1]
        if edit.endswith("title"):
            # The same places, other titles.
            every = np.arange(len(own.rounds[0].pseudo))
            start = own.rounds[0].pseudo.lists(every)
            for old, ours, theirs in zip(
                start, own.rounds[-1].pseudo.lists(every), last.pseudo.lists(every), strict=True
            ):
                assert len(ours) == len(theirs)
                assert all(a in old for a, b in zip(ours, theirs, strict=True) if a == b)
        if edit == "random_mask":
            assert (last.pseudo.lengths == own.rounds[0].pseudo.lengths - 1).all()
        if edit.startswith("words"):
            assert (last.pseudo.items == own.rounds[0].pseudo.items).all()
    draws = [rounds_of(make_job(tmp_path, early_accept=False, edit="random_mask", draw=draw)) for draw in (0, 0, 1)]
    items = [store.played.rounds[-1].pseudo.items for store in draws]
    assert (items[0] == items[1]).all() and (items[0] != items[2]).any()


def test_a_random_mask_is_one_of_the_items_and_spares_short_histories():
    items = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0], [9, 10, 11, 12, 0]])
    lengths, seen = torch.tensor([5, 3, 4]), set()
    for seed in range(60):
        found = random_masker(1, 3, "drop", (seed,))(items, lengths)
        assert found.masked.sum(1).tolist() == [1, 0, 1] and found.reduced == 1
        assert found.lengths.tolist() == [4, 3, 3]
        seen.add(int(found.masked[0].nonzero()))
    assert seen == set(range(5))


def test_other_titles_stand_where_the_constructor_wrote():
    written = SimpleNamespace(lists=[[1, 20, 3], [4, 5]], counters={}, tokens={})
    other = retitled(lambda *_: written, any_title(30, (1,)))([[1, 2, 3], [4, 5]], None, ["", ""], [0, 0]).lists
    assert other[0][0] == 1 and other[0][2] == 3 and other[0][1] not in (1, 2, 3, 20)
    assert other[1] == [4, 5]


def test_a_title_that_fits_is_the_most_popular_that_does():
    popularity = np.arange(31)[::-1].copy()
    choose = fitting_title(READER, popularity)
    remark = "No. I would rather have a Comedy movie."
    fits = [item for item in range(1, 31) if "Comedy" in CATALOGUE.categories[item]]
    assert choose(0, remark, set()) == fits[0]
    assert choose(0, remark, set(fits[:2])) == fits[2]
    assert choose(0, "Hm.", {1}) == 2


def played(written: list[int], shown: list[int], before: list[int], after: list[int]) -> SimpleNamespace:
    n = len(written)
    start = Pseudo.from_lists([[1, 2]] * n)
    no = np.zeros(n, dtype=bool)
    rounds = [
        Round(start, no, np.zeros(n, np.int32), no, [""] * n, start.items[:, :0]),
        Round(
            Pseudo.from_lists([[1, item] for item in written]),
            no,
            np.array(shown),
            no,
            ["a Comedy"] * n,
            start.items[:, :0],
        ),
    ]
    ones, targets = np.ones(n, dtype=np.int64), np.arange(1, n + 1)
    ranks = [Ranks(targets, targets, np.array(each), ones, ones * 30, None, ones) for each in (before, after)]
    return SimpleNamespace(rounds=rounds, ranks=ranks)


def test_a_constructor_that_writes_one_title_for_everybody_is_named():
    comedies = [item for item in range(3, 31) if "Comedy" in CATALOGUE.categories[item]]
    measures, warning = collapse(played([5] * 9 + [6], [9] * 10, [0] * 10, [0] * 10), CATALOGUE.titles, READER)
    values = {measure.name: measure.value for measure in measures}
    assert values["distinct titles"] == 2 and values["users with the commonest title (share)"] == 0.9
    assert values["titles that fit the wish (share)"] == (9 * (5 in comedies) + (6 in comedies)) / 10
    assert "Invented Story 5" in warning and "9 of 10" in warning
    many = played(list(range(3, 31)), [9] * 28, [0] * 28, [0] * 28)
    measures, warning = collapse(many, CATALOGUE.titles, READER)
    assert warning == ""
    assert {measure.name: measure.value for measure in measures}["distinct titles"] == 28


def test_acceptance_is_the_place_before_the_edit_of_who_was_shown_the_target():
    rounds = played([5, 6, 7], [1, 9, 3], [0, 4, 1], [8, 2, 5])
    assert when_accepting(rounds).higher.tolist() == [0, 2, 1]
    assert when_accepting(rounds, first=True).higher.tolist() == [0, 2, 0]


def test_controls_ask_a_constructor_once():
    calls = []

    def construct(lists, flags, said, targets):
        calls.append(len(lists))
        return Written([[item + 100 for item in row] for row in lists], {"n_lists": len(lists)}, {}, 0.0)

    users, alone = ([[1, 2], [3, 4], [5, 6]], None, ["a", "b", "c"], [7, 8, 9]), ([[1, 2]], None, ["a"], [7])
    own, control = (repeated(construct, ["one"], reuse) for reuse in (False, True))
    first = own(*users)
    for _ in range(5):
        own(*alone)  # as timings are taken, user by user
    assert calls == [3] + [1] * 5, "the method's own row is computed, however often it is timed"
    again = control(*users)
    assert calls == [3] + [1] * 5 and again == first
    again.lists[0][0] = 0
    assert control(*users) == first, "what is kept is nobody's to change"
    control(users[0], None, ["a", "b", "other"], users[3])
    assert calls == [3] + [1] * 5 + [3], "other words are another question"
    repeated(construct, ["two"], True)(*users)
    assert calls == [3] + [1] * 5 + [3, 3], "and so is another constructor"


def test_edits_that_mean_nothing_are_refused():
    with pytest.raises(BenchError, match="set early_accept=false"):
        check_options(CESRecOptions(edit="words"))
    with pytest.raises(BenchError, match="set use_constructor=true"):
        check_options(CESRecOptions(edit="random_title", use_constructor=False))
