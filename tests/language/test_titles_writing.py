"""Constrained writing of lists: what is written, whatever the scores are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_titles import TITLES, UNTITLED, Scripted, path, written_slowly

from recllm_bench.data.prepare import prepare
from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import Backbone, load_backbone
from recllm_bench.language.titles.counters import fallback_rate
from recllm_bench.language.titles.lists import ListLayout
from recllm_bench.language.titles.writing import write_lists

pytestmark = pytest.mark.shared

LISTS = [[1, 3, 6], [2, 7, 10, 11], [UNTITLED, 4], [12], [5, 5, 8], [14, 13, 12, 11, 10, 8], [15, 2], [3, 4, 6, 7]]
TITLED = [item for item in range(1, len(TITLES)) if TITLES[item]]


@pytest.fixture(scope="module")
def stories(models_folder) -> Backbone:
    return load_backbone(str(models_folder / "llama2-stories260k"), device="cpu")


@pytest.fixture(scope="module")
def layout(stories) -> ListLayout:
    return ListLayout.of(TITLES, stories.tokenizer, most_lines=20)


@pytest.fixture(scope="module")
def prompts(stories, layout) -> list[list[int]]:
    begin = stories.tokenizer("Lily has a list of the things that she likes to see with her friend.\n")["input_ids"]
    more = [
        stories.tokenizer("She likes " + "cats and " * row + "dogs.\n", add_special_tokens=False)["input_ids"]
        for row in range(len(LISTS))
    ]
    return [begin + layout.encode_history(items) + own for items, own in zip(LISTS, more, strict=True)]


def titles_of(layout: ListLayout, items: list[int]) -> list[tuple[int, ...]]:
    return [path(layout, item) for item in items]


def check_lists(layout, before, lists, most_edits=None):
    """Titles of the catalogue, as many lines, no new title twice, and none that the list had elsewhere."""
    titled = layout.trie.titled.tolist()
    for old, new in zip(before, lists, strict=True):
        assert len(old) == len(new)
        had = titles_of(layout, old)
        fresh = [path(layout, item) for item, was in zip(new, old, strict=True) if item != was]
        assert all(titled[item] for item, was in zip(new, old, strict=True) if item != was)
        assert len(set(fresh)) == len(fresh) and not set(fresh) & set(had)
        assert most_edits is None or len(fresh) <= most_edits


@pytest.mark.parametrize("mode", ["sequence", "edits"])
@pytest.mark.parametrize("most_edits", [None, 1])
def test_a_real_model_writes_what_a_search_through_all_legal_answers_writes(stories, layout, prompts, mode, most_edits):
    def best_for(prompt):
        def best(answer, allowed):
            with torch.no_grad():
                logits = stories.model(torch.tensor([prompt + answer])).logits[0, -1]
            return allowed[int(logits[allowed].argmax())]

        return best

    expected = [
        written_slowly(layout, best_for(prompt), before, mode, most_edits)
        for prompt, before in zip(prompts, LISTS, strict=True)
    ]
    written = write_lists(stories, layout, prompts, LISTS, mode=mode, most_edits=most_edits)
    assert written.lists == expected
    assert expected != LISTS
    check_lists(layout, LISTS, written.lists, most_edits)
    changed = sum(a != b for old, new in zip(LISTS, expected, strict=True) for a, b in zip(old, new, strict=True))
    assert written.counters["n_changed_positions"] == changed
    assert fallback_rate(written.counters) == 0 and written.counters["n_exact"] == written.counters["n_lines"]


def test_batches_and_their_order_do_not_matter(stories, layout, prompts):
    together = write_lists(stories, layout, prompts, LISTS, mode="sequence").lists
    assert write_lists(stories, layout, prompts, LISTS, mode="sequence", batch_size=1).lists == together
    turned = write_lists(stories, layout, prompts[::-1], LISTS[::-1], mode="sequence", batch_size=3).lists
    assert turned[::-1] == together


@pytest.mark.parametrize("likes_copies", [0.0, 3.0, 30.0])
def test_speculation_changes_nothing_but_the_work(stories, layout, prompts, likes_copies):
    """At every taste for the tokens of the list as it is, from none to one that copies it whole."""
    common = torch.zeros(stories.vocabulary)
    common[[token for items in LISTS for token in layout.encode_sequence(items)]] = likes_copies
    unlike = torch.randn(stories.width, stories.vocabulary, generator=torch.Generator().manual_seed(3))
    score = {"score": lambda states: stories.logits(states) + states @ unlike + common}
    plain = write_lists(stories, layout, prompts, LISTS, mode="sequence", speculate=False, **score)
    drafted = write_lists(stories, layout, prompts, LISTS, mode="sequence", speculate=True, **score)
    assert drafted.lists == plain.lists
    assert drafted.counters == plain.counters
    assert plain.tokens["verified"] == 0


def test_a_script_is_followed_alike_in_edits_and_in_sequence(stories, layout):
    """The pseudo-history is the same when the same positions change, whichever way it is written."""
    rng = np.random.default_rng(0)
    before, after = [], []
    for _ in range(120):
        size = int(rng.integers(1, 6))
        chosen = rng.permutation([item for item in TITLED if item != 5])
        old, new = chosen[:size].tolist(), chosen[:size].tolist()
        for position, item in zip(rng.permutation(size)[: rng.integers(0, size + 1)], chosen[size:], strict=False):
            new[position] = int(item)
        before.append(old)
        after.append(new)
    for mode, speculate in (("edits", False), ("sequence", False), ("sequence", True)):
        answers = [
            layout.encode_edits(old, new) if mode == "edits" else layout.encode_sequence(new)
            for old, new in zip(before, after, strict=True)
        ]
        script = Scripted(stories.vocabulary, answers)
        options = {"mode": mode, "speculate": speculate, "score": script.score, "batch_size": 50}
        written = write_lists(script, layout, script.prompts(120), before, **options)
        assert written.lists == after
        assert written.counters["n_unchanged"] == sum(old == new for old, new in zip(before, after, strict=True))


def test_a_thousand_random_draws_give_titles_lines_and_no_repeats(stories, layout):
    rng = np.random.default_rng(1)
    before = [rng.choice(TITLED, int(rng.integers(1, 6)), replace=False).tolist() for _ in range(500)]
    seen = set()
    for mode in ("sequence", "edits"):
        script = Scripted(stories.vocabulary)
        written = write_lists(script, layout, script.prompts(500), before, mode=mode, batch_size=250)
        check_lists(layout, before, written.lists)
        seen |= {item for row in written.lists for item in row}
    assert seen >= {item for item in TITLED if item != 5}


def test_random_draws_from_sixteen_thousand_titles(stories, data_mirror):
    layout = ListLayout.of(prepare("amazon-games-llmrank").catalogue.titles, stories.tokenizer)
    rng = np.random.default_rng(2)
    before = [(rng.permutation(16859)[: rng.integers(1, 5)] + 1).tolist() for _ in range(100)]
    for mode in ("sequence", "edits"):
        script = Scripted(stories.vocabulary)
        written = write_lists(script, layout, script.prompts(100), before, mode=mode, speculate=False)
        check_lists(layout, before, written.lists)
        assert written.counters["n_changed_positions"] > 50


def test_a_constructor_that_repeats_its_input_changes_nothing(stories, layout):
    for mode, answer in (("sequence", layout.encode_sequence), ("edits", lambda items: [layout.end])):
        script = Scripted(stories.vocabulary, [answer(items) for items in LISTS])
        written = write_lists(script, layout, script.prompts(len(LISTS)), LISTS, mode=mode, score=script.score)
        assert written.lists == LISTS
        assert written.counters["n_unchanged"] == len(LISTS) == written.counters["n_lists"]
        assert written.counters["n_changed_positions"] == 0
        assert written.tokens["passes"] == 1 and written.tokens["generated"] < 30


def test_forbidden_titles_are_never_new_not_even_by_another_id(stories, layout):
    before, forbid = [[3, 6], [1, 6]], [[5], [7, 10]]
    answers = [layout.encode_edits(before[0], [1, 6]), layout.encode_edits(before[1], [7, 10])]
    script = Scripted(stories.vocabulary, answers)
    options = {"mode": "edits", "score": script.score}
    assert write_lists(script, layout, script.prompts(2), before, **options).lists == [[1, 6], [7, 10]]
    written = write_lists(script, layout, script.prompts(2), before, forbid=forbid, **options).lists
    assert 1 not in written[0] and 5 not in written[0] and not {7, 10} & set(written[1])
    # What is there already may stay.
    script = Scripted(stories.vocabulary, [layout.encode_sequence(items) for items in before])
    options = {"mode": "sequence", "score": script.score, "forbid": [[3], [1, 6]]}
    assert write_lists(script, layout, script.prompts(2), before, **options).lists == before


def test_of_two_items_with_one_title_the_popular_one_is_meant_and_one_in_the_list_stays(stories, layout):
    before = [[3], [5]]
    script = Scripted(stories.vocabulary, [layout.encode_edits([3], [1]), layout.encode_edits([5], [2])])
    options = {"mode": "edits", "score": script.score}
    written = write_lists(script, layout, script.prompts(2), before, **options)
    assert written.lists == [[1], [2]] and written.counters["n_ambiguous"] == 1
    popularity = np.zeros(len(TITLES))
    popularity[5] = 2
    assert write_lists(script, layout, script.prompts(2), before, popularity=popularity, **options).lists[0] == [5]
    script = Scripted(stories.vocabulary, [layout.encode_sequence([5])])
    written = write_lists(script, layout, script.prompts(1), [[5]], mode="sequence", score=script.score)
    assert written.lists == [[5]] and written.counters["n_ambiguous"] == 0


def test_a_masked_place_is_filled_or_left_empty(stories, layout):
    before, after = [[3, 0, 6], [3, 0, 6]], [[3, 1, 6], [3, 0, 6]]
    for mode in ("sequence", "edits"):
        answers = [
            layout.encode_sequence(new) if mode == "sequence" else layout.encode_edits(old, new)
            for old, new in zip(before, after, strict=True)
        ]
        script = Scripted(stories.vocabulary, answers)
        written = write_lists(script, layout, script.prompts(2), before, mode=mode, score=script.score)
        assert written.lists == after and written.counters["n_changed_positions"] == 1


def test_nothing_to_write_needs_no_model(stories, layout):
    script = Scripted(stories.vocabulary)
    lists = [[], [3, 6]]
    for options in ({"most_edits": 0}, {"forbid": [TITLED, TITLED]}):
        for mode in ("sequence", "edits"):
            written = write_lists(script, layout, script.prompts(2), lists, mode=mode, **options)
            assert written.lists == lists
    assert script.read == 0
    assert write_lists(script, layout, [], []).lists == []


def test_the_last_title_left_is_written_once(stories, layout):
    """With one free title, only one line can change; then nothing is left and the rest stays."""
    forbid = [[item for item in TITLED if item not in (3, 6, 10)]]
    for mode in ("sequence", "edits"):
        for row in range(20):
            script = Scripted(stories.vocabulary)
            prompt = [[3, 3, 3, 3, row]]
            written = write_lists(script, layout, prompt, [[3, 6]], mode=mode, forbid=forbid)
            assert written.lists[0] in ([3, 6], [10, 6], [3, 10])


def test_a_list_ends_where_the_context_does_and_keeps_the_rest(stories, layout):
    rng = np.random.default_rng(2)
    before = [rng.permutation([item for item in TITLED if item != 5])[:6].tolist() for _ in range(30)]
    script = Scripted(stories.vocabulary, context=5 + 30 + layout.reserve)
    prompts = script.prompts(30)
    results = [
        write_lists(script, layout, prompts, before, mode="sequence", speculate=speculate)
        for speculate in (True, False)
    ]
    assert results[0].lists == results[1].lists and results[0].counters == results[1].counters
    assert results[0].counters["n_len_mismatch"] > 0
    check_lists(layout, before, results[0].lists)
    edits = write_lists(script, layout, prompts, before, mode="edits")
    check_lists(layout, before, edits.lists)


def test_mistakes_are_named(stories, layout, prompts):
    cases = [
        ({"mode": "lists"}, "in mode 'lists'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"before": LISTS[:2]}, "as many prompts as lists: 8 prompts, 2 lists"),
        ({"forbid": [[1]]}, "1 forbidden"),
        ({"popularity": np.zeros(3)}, "popularity of 3 ids"),
        ({"before": [[99]] * 8}, "99"),
        ({"before": [[1] * 21] * 8}, "raise most_lines"),
        ({"prompts": [[1] * 600] * 8}, "prompt 0 has 600 tokens"),
        ({"prompts": [[]] * 8}, "prompt 0 has 0 tokens"),
        ({"score": lambda states: torch.full((len(states), 512), torch.nan)}, "not numbers"),
    ]
    for change, message in cases:
        arguments = {"prompts": prompts, "before": LISTS, **change}
        with pytest.raises(BenchError, match=message):
            write_lists(stories, layout, arguments.pop("prompts"), arguments.pop("before"), **arguments)
