"""Training pairs: what may occur in them, what is replaced by what, how they are drawn, stored and written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Split, global_time, leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.language.titles.lists import ListLayout
from recllm_bench.models.cesrec.masking import mask_outliers
from recllm_bench.models.cesrec.pairs import Pairs, make_pairs
from recllm_bench.models.cesrec.prompts import PromptWriter
from tests.conftest import planted_catalogue, planted_histories

ITEMS, USERS, LENGTH = 300, 80, 24
READINGS = ({}, {"replace_with": "neighbour"}, {"replace_with": "neighbour", "outliers": 3}, {"outliers": 3})


@pytest.fixture(scope="module")
def split() -> Split:
    """Histories without repeats, as in the sources that keep one interaction of a pair."""
    rng = np.random.default_rng(0)
    return leave_one_out(Histories.from_rows([rng.permutation(ITEMS)[:LENGTH] + 1 for _ in range(USERS)], ITEMS))


@pytest.fixture(scope="module")
def catalogue():
    return planted_catalogue(ITEMS)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((ITEMS + 1, 8)).astype(np.float32)


def speak(shown, targets, users):
    return [f"not {item}, rather like {target}" for item, target in zip(shown, targets, strict=True)]


def mask(vectors, **options):
    return lambda rows, lengths: mask_outliers(torch.from_numpy(vectors), rows, lengths, **options)


def training_part(split: Split, user: int) -> list[int]:
    return split.histories.items[split.histories.offsets[user - 1] : split.train_ends[user - 1]].tolist()


@pytest.mark.parametrize("reading", READINGS)
def test_differs_in_the_sampled_places_alone(split, catalogue, vectors, reading):
    pairs = make_pairs(split, catalogue, speak, vectors=vectors, items=10, **reading)
    outliers = reading.get("outliers", 1)
    assert pairs.counts["pairs"] == len(pairs) > USERS
    for row in range(len(pairs)):
        before, after, places = pairs.before[row], pairs.after[row], pairs.places[row]
        changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        assert changed == places == sorted(set(places)) and len(places) == outliers
        assert places[0] >= len(before) - 10
        *own, target = training_part(split, pairs.users[row])
        assert before == own and pairs.targets[row] == target
        assert pairs.shown[row] == before[places[-1]]
        assert pairs.remarks[row] == f"not {pairs.shown[row]}, rather like {target}"
        assert len(set(after)) == len(after)
        if reading.get("replace_with") == "neighbour":
            assert target not in after
        else:
            assert after[places[-1]] == target


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("targets", ["last", "any"])
def test_nothing_held_out_is_ever_in_a_pair(split, catalogue, vectors, reading, targets):
    """No validation or test item of a user, though all are training items of others; and nothing of the future."""
    asked: list[tuple[int, int, int]] = []

    def listening(shown, wanted, users):
        asked.extend(zip(shown, wanted, users, strict=True))
        return speak(shown, wanted, users)

    pairs = make_pairs(
        split, catalogue, listening, vectors=vectors, targets=targets, mask=mask(vectors, k=2), **reading
    )
    assert len(asked) == len(pairs)
    for row, user in enumerate(pairs.users):
        own = split.histories.of(user).tolist()
        used = {*pairs.before[row], *pairs.after[row], pairs.targets[row], pairs.shown[row]}
        assert not used & set(own[-2:])
        at = own.index(pairs.targets[row])
        assert at <= LENGTH - 3 and (targets == "any" or at == LENGTH - 3)
        assert set(pairs.before[row]) <= set(own[:at])


def test_a_poisoned_future_changes_nothing(split, catalogue, vectors):
    """What users validate and test on may be anything else: pairs stay the same."""
    items = split.histories.items.copy()
    later = np.arange(len(items)) % LENGTH >= LENGTH - 2
    unseen = np.setdiff1d(np.arange(1, ITEMS + 1), items[~later])
    assert len(unseen) == 0  # so every item is a training item of somebody
    items[later] = 1
    poisoned = leave_one_out(Histories(items, split.histories.offsets, ITEMS))
    ours, theirs = (
        make_pairs(one, catalogue, speak, vectors=vectors, mask=mask(vectors, k=1), n=USERS)
        for one in (split, poisoned)
    )
    kept = [row for row in range(len(ours)) if 1 not in (*ours.before[row], ours.targets[row])]
    assert 0 < len(kept) < len(ours)  # the others' future is now in their history
    assert [ours.users[row] for row in kept] == theirs.users
    for name in ("before", "after", "places", "remarks"):
        assert [getattr(ours, name)[row] for row in kept] == getattr(theirs, name)


def test_neighbours_are_the_most_alike_of_the_category(split, catalogue, vectors):
    pairs = make_pairs(split, catalogue, speak, vectors=vectors, replace_with="neighbour", outliers=2, n=60)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row, user in enumerate(pairs.users):
        target = pairs.targets[row]
        allowed = [
            item
            for item in range(1, ITEMS + 1)
            if catalogue.categories[item][0] == catalogue.categories[target][0] and item not in split.histories.of(user)
        ]
        best = sorted(allowed, key=lambda item: -float(unit[item] @ unit[target]))[:2]
        assert [pairs.after[row][place] for place in pairs.places[row]] == best[::-1]
    assert pairs.counts["neighbours_of_any_category"] == 0


def test_neighbours_leave_the_category_only_where_it_is_used_up(split, vectors):
    catalogue = planted_catalogue(ITEMS)
    catalogue.categories[1:] = [(f"only {item}",) for item in range(1, ITEMS + 1)]
    pairs = make_pairs(split, catalogue, speak, vectors=vectors, replace_with="neighbour", n=20)
    assert pairs.counts["neighbours_of_any_category"] == len(pairs) == 20


def test_untitled_and_untrained_items_are_never_written(split, vectors):
    catalogue = planted_catalogue(ITEMS)
    silent = set(range(1, ITEMS + 1, 2))
    for item in silent:
        catalogue.titles[item] = ""
    pairs = make_pairs(split, catalogue, speak, vectors=vectors, replace_with="neighbour", n=USERS)
    assert pairs.counts["untitled"] == USERS - len(pairs) > 0
    assert not {pairs.after[row][pairs.places[row][0]] for row in range(len(pairs))} & silent
    small = leave_one_out(Histories.from_rows([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]], ITEMS))
    pairs = make_pairs(small, planted_catalogue(ITEMS), speak, vectors=vectors, replace_with="neighbour", n=6)
    trained = {1, 2, 3, 4, 7, 8, 9, 10}
    assert {item for after in pairs.after for item in after} <= trained


def test_of_items_with_one_title_none_is_written_twice(split, vectors):
    catalogue = planted_catalogue(ITEMS)
    catalogue.titles[1:] = [f"Story {item // 3}" for item in range(1, ITEMS + 1)]
    for reading in ({"replace_with": "neighbour", "outliers": 2}, {"outliers": 2}):
        pairs = make_pairs(split, catalogue, speak, vectors=vectors, **reading)
        assert pairs.counts["repeats"] > 0
        for row, places in enumerate(pairs.places):
            new = [catalogue.titles[pairs.after[row][place]] for place in places]
            assert len(set(new)) == 2
            assert not {catalogue.titles[item] for item in pairs.before[row]} & set(new)


def test_trains_on_what_masking_leaves(split, catalogue, vectors):
    for mode, longer in (("drop", 0), ("tail", 2)):
        pairs = make_pairs(split, catalogue, speak, mask=mask(vectors, k=2, mode=mode), n=USERS)
        assert {len(before) for before in pairs.before} == {LENGTH - 5 + longer}
    for row, user in enumerate(pairs.users):
        own = training_part(split, user)[:-1]
        found = mask_outliers(
            torch.from_numpy(vectors), torch.tensor([own]), torch.tensor([len(own)]), k=2, mode="tail"
        )
        assert found.items[0].tolist() == pairs.before[row]


def test_hidden_places_are_filled_first(split, catalogue, vectors):
    hiding = mask(vectors, k=2, mode="mark")
    for outliers, hidden_after in ((1, 1), (2, 0), (3, 0)):
        pairs = make_pairs(
            split, catalogue, speak, mask=hiding, vectors=vectors, outliers=outliers, n=USERS, items=LENGTH
        )
        for row, user in enumerate(pairs.users):
            own = training_part(split, user)[:-1]
            assert pairs.before[row].count(0) == 2 and pairs.after[row].count(0) == hidden_after
            holes = {at for at, item in enumerate(pairs.before[row]) if item == 0}
            assert len(holes & set(pairs.places[row])) == min(2, outliers)
            assert pairs.shown[row] == own[pairs.places[row][-1]]  # the remark may name what the prompt hides
            assert [item for item in pairs.before[row] if item] == [i for at, i in enumerate(own) if at not in holes]


def test_users_give_one_pair_each_before_they_give_more(split, catalogue):
    few = make_pairs(split, catalogue, speak, n=30)
    assert len(few) == len(set(few.users)) == 30
    many = make_pairs(split, catalogue, speak, n=10_000, items=7)
    assert len(many) == USERS * 7  # every place of every user, once
    assert len({(user, places[0]) for user, places in zip(many.users, many.places, strict=True)}) == len(many)
    anywhere = make_pairs(split, catalogue, speak, n=500, targets="any")
    assert len(anywhere) == 500 and len({*zip(anywhere.users, anywhere.targets, strict=True)}) > 350
    assert all(len(before) >= 2 for before in anywhere.before)


def test_users_are_held_out_whole(split, catalogue):
    pairs = make_pairs(split, catalogue, speak, n=USERS * 4, held_out=0.25)
    sides = {
        flag: {user for user, aside in zip(pairs.users, pairs.held_out, strict=True) if aside == flag}
        for flag in (0, 1)
    }
    assert not sides[0] & sides[1] and len(sides[1]) == USERS // 4


def test_equal_seeds_give_equal_pairs(split, catalogue, vectors):
    ours, theirs, other = (make_pairs(split, catalogue, speak, vectors=vectors, seed=seed, n=99) for seed in (1, 1, 2))
    assert ours == theirs and ours != other


def test_short_histories_are_counted(catalogue):
    rows = [[1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14, 15, 16]]
    pairs = make_pairs(leave_one_out(Histories.from_rows(rows, ITEMS)), catalogue, speak, n=6)
    assert set(pairs.users) == {2, 3} and pairs.counts["users"] == 2
    with pytest.raises(BenchError, match="no user has 3 training items"):
        make_pairs(leave_one_out(Histories.from_rows(rows[:1], ITEMS)), catalogue, speak)


def test_repeated_items_never_reach_a_pair():
    """A user who tests on an item of the own history gives no pair; nor one whose target is in the history."""
    rows = [[1, 2, 3, 4, 5, 6, 2], [1, 2, 3, 2, 7, 8], [1, 2, 3, 4, 5, 6, 7]]
    pairs = make_pairs(leave_one_out(Histories.from_rows(rows, ITEMS)), planted_catalogue(ITEMS), speak, n=3)
    assert pairs.users == [3]
    assert (pairs.counts["held_out_in_history"], pairs.counts["repeats"]) == (1, 1)


def test_other_splits_use_their_training_part(catalogue):
    histories = planted_histories(60, ITEMS, 20)
    times = np.tile(np.arange(20), 60) * 100 + np.repeat(np.arange(60), 20)
    split = global_time(Histories(histories.items, histories.offsets, ITEMS, times=times.astype(np.int64)))
    pairs = make_pairs(split, catalogue, speak, n=60)
    for user, target in zip(pairs.users, pairs.targets, strict=True):
        assert target == training_part(split, user)[-1]


def test_stored_pairs_are_the_pairs(split, catalogue, tmp_path):
    pairs = make_pairs(split, catalogue, speak, n=20)
    pairs.save(tmp_path / "pairs.json")
    assert Pairs.load(tmp_path / "pairs.json") == pairs


@pytest.mark.shared
@pytest.mark.parametrize("output", ["edits", "sequence"])
def test_examples_ask_and_answer_in_the_layouts_tokens(split, catalogue, models_folder, output):
    tokenizer = AutoTokenizer.from_pretrained(models_folder / "llama2-stories260k")
    layout = ListLayout.of(catalogue.titles, tokenizer)
    prompts = PromptWriter(layout, tokenizer, output=output, limit=4000, items=6, small=True)
    pairs = make_pairs(split, catalogue, speak, n=USERS, items=6, held_out=0.1)
    learnt, aside = pairs.examples(prompts)
    assert (len(learnt), len(aside)) == (USERS - 8, 8)
    rows = itertools.compress(range(len(pairs)), [not flag for flag in pairs.held_out])
    for row, (prompt, answer) in zip(rows, learnt, strict=True):
        before, after, place = pairs.before[row][-6:], pairs.after[row][-6:], pairs.places[row][0] - LENGTH + 3 + 6
        asked, said = tokenizer.decode(prompt), tokenizer.decode(answer)
        assert all(catalogue.titles[item] in asked for item in before) and pairs.remarks[row] in asked
        assert catalogue.titles[pairs.before[row][-7]] + "\n" not in asked
        if output == "edits":
            assert answer == layout.encode_edits(before, after)
            assert said == f"{place + 1} -> {catalogue.titles[after[place]]}\n</s>"
        else:
            assert answer == layout.encode_sequence(after)
            assert said.startswith(f"1. {catalogue.titles[after[0]]}\n2. ")
    limit = int(np.median([len(prompt) + len(answer) for prompt, answer in learnt]))
    tight = PromptWriter(layout, tokenizer, output=output, limit=limit, items=6, small=True)
    fewer, _ = pairs.examples(tight)
    assert 0 < len(fewer) < len(learnt)
    assert max(len(prompt) + len(answer) for prompt, answer in fewer) <= limit


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replace_with": "friend"}, "replace_with='friend'"),
        ({"targets": "first"}, "targets='first'"),
        ({"n": 0}, "n=0"),
        ({"replace_with": "neighbour"}, "need item vectors"),
        ({"outliers": 2}, "need item vectors"),
    ],
)
def test_refuses_what_has_no_meaning(split, catalogue, options, said):
    with pytest.raises(BenchError, match=said):
        make_pairs(split, catalogue, speak, **options)


def test_refuses_a_speaker_who_says_too_little(split, catalogue):
    with pytest.raises(BenchError, match="80 remarks were asked for, 1 came"):
        make_pairs(split, catalogue, lambda *_: ["no"], n=USERS)
