"""CESRec's loop: what is shown, who is asked, what is rewritten, and what all of it leaves unchanged."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Cases, leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.candidates import Candidates, sample_candidates
from recllm_bench.evaluation.metrics import aggregate, per_user
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.models.cesrec.backends import TrainedBackend
from recllm_bench.models.cesrec.masking import mask_outliers
from recllm_bench.models.cesrec.model import CESRec
from recllm_bench.models.cesrec.rounds import Loop, Pseudo, Round, check_candidates, sums
from tests.conftest import planted_histories

N_USERS, N_ITEMS, LENGTH = 40, 130, 12


class Mean(nn.Module):
    """A causal recommender: the state is the mean of the items so far, newer ones heavier."""

    def __init__(self, n_items: int = N_ITEMS, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.items = nn.Embedding(n_items + 1, width)

    def sequence_states(self, item_seq: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        weights = torch.arange(1, item_seq.shape[1] + 1)[:, None]
        return (self.items(item_seq) * weights).cumsum(1) / weights.cumsum(0)

    def item_vectors(self) -> torch.Tensor:
        return self.items.weight


class Table(nn.Module):
    """A recommender that only gives scores: fixed ones, whatever the history."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scores", scores)

    def full_sort_predict(self, interaction) -> torch.Tensor:
        return self.scores.expand(len(interaction["item_length"]), -1)


def backend_of(model: nn.Module | None = None, n_items: int = N_ITEMS, length: int = LENGTH) -> TrainedBackend:
    model = (model or Mean(n_items)).eval().requires_grad_(False)
    return TrainedBackend("planted", model, n_items, length)


@pytest.fixture(scope="module")
def data():
    split = leave_one_out(planted_histories(N_USERS, N_ITEMS, 17))
    protocol = protocol_named("cesrec.sampled100")
    return split, split.test, sample_candidates(split.histories, split.test, 100, protocol.user_seed)


def copies(lists, flags, said, targets) -> SimpleNamespace:
    """A constructor that repeats its input."""
    counters = {"n_changed_positions": 0, "n_lists": len(lists)}
    return SimpleNamespace(lists=[list(row) for row in lists], counters=counters, tokens={"prompt": len(said)})


def silent(users, shown, targets, turn) -> list[str]:
    return [f"user {user}: not {item}, round {turn}" for user, item in zip(users, shown, strict=True)]


def loop_of(data, **changes) -> Loop:
    split, cases, candidates = data
    values = {"candidates": candidates, "exclude_history": False, "say": silent, "construct": copies, **changes}
    backend = values.pop("backend", None) or backend_of()
    return Loop(backend, values.pop("cases", cases), values.pop("histories", split.histories), **values)


def play(loop: Loop, rounds: int) -> list[Round]:
    played = [loop.first()]
    for number in range(1, rounds + 1):
        played.append(loop.next(played[-1], number))
    return played


def metrics(data, model: nn.Module, protocol_name: str, pseudo: Pseudo | None = None, length: int = LENGTH) -> dict:
    split, cases, candidates = data
    protocol = protocol_named(protocol_name)
    columns = None if pseudo is None else {"pseudo_list": pseudo.items, "pseudo_length": pseudo.lengths}
    listed = candidates if protocol.samples_candidates else None
    ranks = rank_cases(model, split, cases, protocol, columns=columns, candidates=listed, max_length=length)
    return aggregate(per_user(ranks, protocol.metrics, protocol.cutoffs, protocol.ties))


def cesrec(backend: TrainedBackend) -> CESRec:
    from recllm_bench.recbole_bridge.bare import FIELDS, Ids

    config = {**FIELDS, "MAX_ITEM_LIST_LENGTH": backend.history_length, "device": torch.device("cpu")}
    return CESRec(config, Ids(backend.n_items), backend).eval()


@pytest.mark.parametrize("protocol", ["cesrec.sampled100", "cesrec.full"])
@pytest.mark.parametrize("kind", ["products", "scores"])
def test_a_constructor_that_repeats_its_input_changes_nothing(data, protocol, kind):
    """Oracle 9.4: every metric equals the backend's, to the bit, for any number of rounds."""
    model = Mean() if kind == "products" else Table(torch.randn(N_ITEMS + 1, generator=torch.manual_seed(0)))
    backend = backend_of(model)
    mask = lambda items, lengths: mask_outliers(torch.randn(N_ITEMS + 1, 3), items, lengths, k=0)  # noqa: E731
    listed = data[2] if protocol == "cesrec.sampled100" else None
    played = play(loop_of(data, backend=backend, mask=mask, candidates=listed), 4)
    base = metrics(data, model, protocol)
    for number in range(5):
        assert metrics(data, cesrec(backend), protocol, played[number].pseudo) == base
    assert sums(played, "counters")["n_changed_positions"] == 0
    assert sums(played, "tokens")["prompt"] > 0, "the constructor was asked"


def test_without_the_constructor_it_is_the_back_end_on_the_kept_items(data):
    """Oracle 9.5, first half: 'w/o c.' is the backend on the history minus what was masked."""
    split, cases, _ = data
    vectors = torch.randn(N_ITEMS + 1, 4, generator=torch.manual_seed(2))
    mask = lambda items, lengths: mask_outliers(vectors, items, lengths, k=2)  # noqa: E731
    backend = backend_of()
    played = play(loop_of(data, backend=backend, mask=mask, construct=None), 1)[1]
    for row in np.flatnonzero(~played.accepted).tolist():
        user, end = int(cases.users[row]), int(cases.ends[row])
        items = split.histories.items[max(int(split.histories.offsets[user - 1]), end - LENGTH) : end].tolist()
        own = vectors[items]
        cosines = torch.nn.functional.cosine_similarity(own, own.mean(0, keepdim=True))
        dropped = set(cosines.argsort(stable=True)[:2].tolist())
        kept = [item for place, item in enumerate(items) if place not in dropped]
        assert played.pseudo.lists([row]) == [kept]
        alone = backend.score(torch.tensor([kept]), torch.tensor([len(kept)]), torch.tensor([user]))
        pair = played.pseudo.tensors(np.array([row]), "cpu")
        assert torch.equal(alone, backend.score(*pair, torch.tensor([user])))


def test_marked_items_reach_the_constructor_and_no_other_reader(data):
    vectors = torch.randn(N_ITEMS + 1, 4, generator=torch.manual_seed(2))
    mask = lambda items, lengths: mask_outliers(vectors, items, lengths, k=2, mode="mark")  # noqa: E731
    seen = []

    def construct(lists, flags, said, targets):
        seen.append((lists, flags))
        filled = [
            [0 if mark else item for item, mark in zip(*row, strict=True)] for row in zip(lists, flags, strict=True)
        ]
        return SimpleNamespace(lists=filled, counters={}, tokens={})

    told = play(loop_of(data, mask=mask, construct=construct, keeps_masked=True), 1)[1]
    plain = play(loop_of(data, mask=mask, construct=None, keeps_masked=True), 1)[1]
    (lists, flags) = seen[0]
    assert all(len(row) == len(marks) and sum(marks) == 2 for row, marks in zip(lists, flags, strict=True))
    assert np.array_equal(told.pseudo.items, plain.pseudo.items), "places left empty are left out"
    asked = ~plain.accepted
    assert (plain.pseudo.lengths[asked] == LENGTH - 2).all() and (plain.pseudo.lengths[~asked] == LENGTH).all()


def test_without_masking_the_masker_is_never_called(data):
    """Oracle 9.5, second half: 'w/o d.a.' hands the whole history to the constructor."""
    seen = []

    def construct(lists, flags, said, targets):
        seen.append((lists, flags))
        return copies(lists, flags, said, targets)

    loop = loop_of(data, mask=None, construct=construct)
    played = play(loop, 1)[1]
    rows = np.flatnonzero(~played.accepted)
    assert seen[0] == (loop.start.lists(rows), None)


def backwards(lists, flags, said, targets) -> SimpleNamespace:
    """A constructor that turns histories round."""
    return copies([row[::-1] for row in lists], flags, said, targets)


def test_who_accepts_stays_accepted(data):
    """Oracle 9.11: a target ranked first at round 0 stays first, whatever the constructor does to the others."""
    split, cases, candidates = data
    loop = loop_of(data)
    shown = loop.best(loop.start, np.arange(len(cases)))
    lucky = np.arange(0, len(cases), 4)
    targets, listed = cases.targets.copy(), candidates.items.copy()
    targets[lucky] = shown[lucky]
    for row in lucky:  # the target stands in column 0
        place = int(np.flatnonzero(listed[row] == shown[row])[0])
        listed[row, [0, place]] = listed[row, [place, 0]]
    wanted = (split, Cases(cases.users, cases.ends, targets), Candidates(listed))
    played = play(loop_of(wanted, construct=backwards), 3)
    assert played[1].counters["shown_is_target"] >= len(lucky)
    protocol = protocol_named("cesrec.sampled100")
    for number, later in enumerate(played):
        assert later.accepted[lucky].all() or number == 0
        assert np.array_equal(later.pseudo.items[lucky], played[0].pseudo.items[lucky])
        assert all(later.feedback[row] == "" for row in lucky), "nobody asks who is content"
        columns = {"pseudo_list": later.pseudo.items, "pseudo_length": later.pseudo.lengths}
        ranks = rank_cases(
            cesrec(backend_of()), *wanted[:2], protocol, columns=columns, candidates=wanted[2], max_length=LENGTH
        )
        assert (ranks.higher[lucky] == 0).all()
    assert not np.array_equal(played[1].pseudo.items, played[0].pseudo.items)
    stubborn = play(loop_of(wanted, early_accept=False), 2)
    assert not stubborn[2].accepted.any() and all(stubborn[2].feedback), "everybody is asked in every round"


def test_what_is_shown_is_the_best_candidate(data):
    _, cases, candidates = data
    loop = loop_of(data)
    rows = np.arange(len(cases))
    scores = loop.backend.score(*loop.start.tensors(rows, "cpu"), torch.as_tensor(cases.users)).numpy()
    own = np.take_along_axis(scores, candidates.items.astype(np.int64), 1)
    assert np.array_equal(loop.best(loop.start, rows), candidates.items[rows, own.argmax(1)])


def test_among_equal_scores_the_target_has_no_advantage(data):
    """The candidate list begins with the target: with constant scores it must not be what is shown."""
    _, cases, candidates = data
    for pool in ("candidates", "catalogue"):
        shown = loop_of(data, backend=backend_of(Table(torch.zeros(N_ITEMS + 1))), pool=pool).best(
            Pseudo.of_cases(data[0].histories, cases, LENGTH), np.arange(len(cases))
        )
        if pool == "candidates":
            assert np.array_equal(shown, candidates.items.min(1))
    played = play(loop_of(data, backend=backend_of(Table(torch.zeros(N_ITEMS + 1)))), 1)[1]
    hits = candidates.items.min(1) == cases.targets
    assert np.array_equal(played.accepted, hits)


def test_the_catalogue_pool_leaves_out_the_original_history(data):
    split, cases, _ = data
    scores = torch.zeros(N_ITEMS + 1)
    scores[0] = 9.0
    user, end = int(cases.users[0]), int(cases.ends[0])
    history = split.histories.items[split.histories.offsets[user - 1] : end]
    scores[torch.as_tensor(np.unique(history)).long()] = 5.0
    loop = loop_of(data, backend=backend_of(Table(scores)), pool="catalogue")
    shown = loop.best(loop.start, np.arange(1))[0]
    assert shown not in history[history != cases.targets[0]] and shown > 0
    listed = loop_of(data, backend=backend_of(Table(scores)), candidates=None, exclude_history=False)
    assert listed.best(listed.start, np.arange(1))[0] in history, "the protocol decides about the whole catalogue"


def test_a_target_in_the_pseudo_history_is_counted_once(data):
    _, cases, _ = data

    def tells(lists, flags, said, targets):
        return copies([[*row[:-1], target] for row, target in zip(lists, targets, strict=True)], flags, said, targets)

    played = play(loop_of(data, construct=tells), 1)[1]
    asked = ~played.accepted
    known = Pseudo.of_cases(data[0].histories, cases, LENGTH).contains(cases.targets)
    assert np.array_equal(played.inserted, asked & ~known)
    assert played.counters["target_in_pseudo"] == played.inserted.sum() > 0


def test_refining_from_the_original_forgets_earlier_rounds(data):
    """Each round drops the first item: from the last history it gets shorter, from the original it does not."""
    drops = lambda lists, *rest: copies([row[1:] for row in lists], *rest)  # noqa: E731
    values = {"construct": drops, "early_accept": False}
    last, first = (play(loop_of(data, refine_from=kind, **values), 3) for kind in ("last", "original"))
    assert (last[3].pseudo.lengths == LENGTH - 3).all() and (first[3].pseudo.lengths == LENGTH - 1).all()
    assert np.array_equal(first[3].pseudo.items, first[1].pseudo.items)


def test_histories_shorter_than_min_keep_are_left_alone():
    histories = Histories.from_rows([[1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]], n_items=N_ITEMS)
    cases = Cases(np.array([1, 2]), np.array([2, 10]), np.array([40, 41], dtype=np.int32))
    mask = lambda items, lengths: mask_outliers(torch.randn(N_ITEMS + 1, 3), items, lengths, k=2)  # noqa: E731
    loop = Loop(backend_of(), cases, histories, mask=mask, say=silent)
    played = play(loop, 1)[1]
    assert played.pseudo.lists(np.arange(2))[0] == [1, 2]
    assert played.pseudo.lengths[1] == 4
    assert played.counters["masked_fewer"] == 1 and played.counters["masked"] == 2


def test_only_the_newest_items_are_read(data):
    split, cases, _ = data
    start = Pseudo.of_cases(split.histories, cases, 5)
    for row in range(5):
        user, end = int(cases.users[row]), int(cases.ends[row])
        assert start.lists([row])[0] == split.histories.items[end - 5 : end].tolist()
        assert end <= split.histories.offsets[user] - 1


def test_a_round_survives_the_disk(data, tmp_path):
    played = play(loop_of(data), 1)[1]
    played.save(tmp_path)
    again = Round.load(tmp_path)
    assert np.array_equal(again.pseudo.items, played.pseudo.items) and again.feedback == played.feedback
    assert again.counters == played.counters and np.array_equal(again.accepted, played.accepted)


def test_wrong_candidate_lists_are_refused(data):
    _, cases, candidates = data
    items = candidates.items.copy()
    items[3, 7] = items[3, 9]
    with pytest.raises(BenchError, match=f"list of user {cases.users[3]} repeats an item"):
        check_candidates(items, cases)
    items = candidates.items.copy()
    items[5] = np.roll(items[5], 1)
    with pytest.raises(BenchError, match=f"of user {cases.users[5]} lacks its target"):
        check_candidates(items, cases)


def test_scores_that_are_no_numbers_are_refused(data):
    with pytest.raises(BenchError, match="backend planted has no usable score for user"):
        play(loop_of(data, backend=backend_of(Table(torch.full((N_ITEMS + 1,), torch.nan)))), 1)


def test_nobody_is_left_without_a_history(data):
    empties = lambda lists, *rest: copies([[] for _ in lists], *rest)  # noqa: E731
    with pytest.raises(BenchError, match="was left without a history"):
        play(loop_of(data, construct=empties), 1)


def test_an_oracle_and_constant_scores_have_their_closed_forms(data):
    """Oracle 9.10 at 101 candidates: a perfect ranker has 1 everywhere; ties give the mean over random orders."""
    split, cases, candidates = data

    class Perfect(Table):
        def full_sort_predict(self, interaction):
            scores = -torch.arange(N_ITEMS + 1.0).expand(len(interaction["user_id"]), -1).clone()
            wanted = torch.as_tensor(cases.targets.astype(np.int64))[interaction["user_id"] - 1]
            return scores.scatter(1, wanted[:, None], 1.0)

    assert np.array_equal(cases.users, np.arange(1, N_USERS + 1))
    perfect = metrics(data, cesrec(backend_of(Perfect(torch.zeros(1)))), "cesrec.sampled100")
    assert all(value == pytest.approx(1.0) for value in perfect.values())
    constant = metrics(data, cesrec(backend_of(Table(torch.zeros(N_ITEMS + 1)))), "cesrec.sampled100")
    for k in (5, 10):
        assert constant[f"HR@{k}"] == pytest.approx(k / 101)
        gains = sum(1 / np.log2(rank + 1) for rank in range(1, k + 1))
        assert constant[f"NDCG@{k}"] == pytest.approx(gains / 101)
    assert len(candidates.items[0]) == 101 and len(split.test) == N_USERS
