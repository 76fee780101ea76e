"""Layouts of lists: what a prompt shows, what is learnt and what is decoded are the same tokens."""

from __future__ import annotations

import pytest
from planted_titles import TITLES, UNTITLED, title_tokens

from recllm_bench.errors import BenchError
from recllm_bench.language.titles.lists import ListLayout
from recllm_bench.language.titles.trie import MASK_WORD

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module", params=["llama2-stories260k", "domain-llama-4m", "llama2-tokenizer"])
def tokenizer(request, models_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(models_folder / request.param)


@pytest.fixture(scope="module")
def layout(tokenizer) -> ListLayout:
    return ListLayout.of(TITLES, tokenizer, most_lines=20)


def test_lists_read_as_numbered_lines(tokenizer, layout):
    assert tokenizer.decode(layout.encode_history([1, 8, 15])) == "1. The Cat\n2. A Park in spring\n3. 10 Things\n"
    assert tokenizer.decode(layout.encode_history([UNTITLED, 0])) == f"1. item {UNTITLED}\n2. {MASK_WORD}\n"
    masked = layout.encode_history([1, 8, 15], [False, True, False])
    assert tokenizer.decode(masked) == f"1. The Cat\n2. {MASK_WORD}\n3. 10 Things\n"
    assert layout.encode_history([]) == []


def test_answers_are_lists_with_an_end(tokenizer, layout):
    assert layout.encode_sequence([1, 2]) == [*layout.encode_history([1, 2]), tokenizer.eos_token_id]
    assert layout.encode_sequence([]) == [tokenizer.eos_token_id]


def test_edits_are_the_lines_that_change(tokenizer, layout):
    edits = layout.encode_edits([1, 2, 3, 4], [1, 6, 3, 7])
    assert edits[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(edits[:-1]) == "2 -> Lily\n4 -> Lily and Tom\n"
    assert layout.encode_edits([1, 2], [1, 2]) == [tokenizer.eos_token_id]
    assert layout.encode_edits([1, 2], [5, 2]) == [tokenizer.eos_token_id]  # one title, two ids
    assert tokenizer.decode(layout.encode_edits([0, 2], [3, 2])[:-1]) == "1 -> Dog\n"


def test_tokens_are_those_of_the_written_text(tokenizer, layout):
    """With these tokenizers nothing is lost by putting pieces together."""
    items = [1, 8, 2, 15, 14, 12, 7, 3, 4, 6, 10, 11]
    text = tokenizer.decode(layout.encode_history(items))
    whole = tokenizer("\n" + text, add_special_tokens=False)["input_ids"]
    assert whole[-len(layout.encode_history(items)) :] == layout.encode_history(items)


def test_a_title_has_the_same_tokens_everywhere(layout):
    for item in range(1, len(TITLES)):
        tokens = title_tokens(layout.trie, item)
        line = layout.encode_history([item])
        other = 1 if layout.path_of_item[item] != layout.path_of_item[1] else 3
        edit = layout.encode_edits([other], [item])
        closing = len(layout.trie.line_end)
        assert line[-len(tokens) - closing : -closing] == tokens == edit[-len(tokens) - closing - 1 : -closing - 1]


def test_heads_of_lines_differ(layout):
    trie, numbers = layout.positions(20)
    assert trie.n_paths == 21 and sorted(numbers.tolist()) == list(range(21))
    assert trie.path_token[trie.path_start[numbers[0]]] == layout.end


def test_mistakes_are_named(tokenizer, layout):
    cases = [
        (lambda: layout.encode_history([1] * 21), "raise most_lines"),
        (lambda: layout.encode_history([16]), "there are 1 to 15"),
        (lambda: layout.encode_history([-1]), "there are 1 to 15"),
        (lambda: layout.encode_history([1, 2], [True]), "1 masks for a list of 2 items"),
        (lambda: layout.encode_edits([1, 2], [1]), "a list of 2 items cannot give one of 1"),
        (lambda: layout.encode_edits([1, 2], [1, 0]), "cannot mask"),
        (lambda: ListLayout(layout.trie, tokenizer, most_lines=0), "most_lines=0"),
    ]
    for call, message in cases:
        with pytest.raises(BenchError, match=message):
            call()
