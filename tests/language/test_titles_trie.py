"""The trie of titles: every title can be reached, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted_titles import TITLES, UNTITLED, title_tokens

from recllm_bench.data.prepare import prepare
from recllm_bench.errors import BenchError
from recllm_bench.language.backbone import load_backbone
from recllm_bench.language.titles.choosing import Chooser
from recllm_bench.language.titles.paths import PathTrie, build_paths, join
from recllm_bench.language.titles.trie import MASK_WORD, TitleTrie, build_trie, clean_title


def flat(rows):
    return np.array([token for row in rows for token in row]), np.cumsum([0, *map(len, rows)])


def children(trie: PathTrie, node: int) -> dict[int, int]:
    edges = slice(int(trie.edge_start[node]), int(trie.edge_start[node + 1]))
    return dict(zip(trie.edge_token[edges].tolist(), trie.edge_child[edges].tolist(), strict=True))


def check_against_dictionaries(trie: PathTrie, rows: set[tuple[int, ...]]) -> None:
    """Every array of the flat trie against prefixes in Python sets."""
    ordered = sorted(rows)
    paths = [trie.path_token[a:b].tolist() for a, b in zip(trie.path_start[:-1], trie.path_start[1:], strict=True)]
    assert [tuple(row) for row in paths] == ordered
    prefixes = {row[:depth] for row in rows for depth in range(len(row) + 1)}
    assert trie.n_nodes == len(prefixes)
    node_of = {(): 0}
    for prefix in sorted(prefixes, key=len):
        node = node_of[prefix]
        following = {row[len(prefix)] for row in rows if row[: len(prefix)] == prefix and len(row) > len(prefix)}
        found = children(trie, node)
        assert list(found) == sorted(following)
        node_of |= {(*prefix, token): child for token, child in found.items()}
        below = [number for number, row in enumerate(ordered) if row[: len(prefix)] == prefix]
        assert list(range(int(trie.first[node]), int(trie.last[node]))) == below
        assert int(trie.depth[node]) == len(prefix)
    for prefix, node in node_of.items():
        while len(children(trie, node)) == 1:
            node = next(iter(children(trie, node).values()))
        assert int(trie.skip[node_of[prefix]]) == node
    for number, row in enumerate(ordered):
        start = int(trie.path_start[number])
        walked = trie.path_node[start : start + len(row)].tolist()
        assert walked == [node_of[row[:depth]] for depth in range(len(row))]


def test_flat_arrays_are_the_tries_of_prefixes():
    rng = np.random.default_rng(0)
    for n, letters, most in ((1, 3, 4), (30, 2, 6), (200, 5, 5), (50, 40, 3)):
        rows = [[*rng.integers(0, letters, rng.integers(0, most + 1)).tolist(), 99] for _ in range(n)]
        trie, numbers = build_paths(*flat(rows))
        check_against_dictionaries(trie, {tuple(row) for row in rows})
        ordered = sorted({tuple(row) for row in rows})
        assert [ordered[number] for number in numbers] == [tuple(row) for row in rows]


def test_joined_tries_stand_side_by_side():
    one, _ = build_paths(*flat([[1, 2, 9], [1, 3, 9], [4, 9]]))
    other, _ = build_paths(*flat([[1, 7], [2]]))
    both = join(one, other)
    assert both.n_paths == 5 and both.n_nodes == one.n_nodes + other.n_nodes
    root = one.n_nodes
    assert {token: child - root for token, child in children(both, root).items()} == children(other, 0)
    assert children(both, 0) == children(one, 0)
    assert both.first[root] == 3 and both.last[root] == 5
    assert both.path_token[both.path_start[3] : both.path_start[4]].tolist() == [1, 7]
    assert (both.path_node[both.path_start[3] :] >= root).all() and (both.skip[root:] >= root).all()


def test_paths_that_are_empty_or_begin_another_are_refused():
    for rows in ([], [[1], []], [[1, 2], [1, 2, 3]]):
        with pytest.raises(BenchError):
            build_paths(*flat(rows))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A\nPark  in\tspring", "A Park in spring"),
        ("line\u2028one\x85two\r\n", "line one two"),
        ("\x00bell\x07s", "bell s"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("Ｆｕｌｌ ｗｉｄｔｈ ①", "Full width 1"),
        ("Amélie", "Amélie"),
        ("\ud800broken", "broken"),
        (" \n\t ", ""),
    ],
)
def test_titles_are_put_on_one_line(raw, clean):
    assert clean_title(raw) == clean


@pytest.fixture(scope="module")
def tokenizer(models_folder):
    return load_backbone(str(models_folder / "llama2-stories260k"), device="cpu").tokenizer


@pytest.mark.shared
def test_a_catalogue_with_every_difficulty(tokenizer):
    trie = build_trie(TITLES, tokenizer)
    counts = {"items": 15, "titles": 13, "untitled": 1, "duplicates": 2, "truncated": 0, "collisions": 0}
    assert trie.counts == {**counts, "reworded": 0, "unfaithful": 0}
    assert trie.items_of(int(trie.path_of_item[1])) == [1, 5] == trie.items_of(int(trie.path_of_item[5]))
    assert trie.titled.tolist() == [item > 0 and bool(title) for item, title in enumerate(TITLES)]
    for item in range(len(TITLES)):
        shown = MASK_WORD if item == 0 else f"item {UNTITLED}" if item == UNTITLED else clean_title(TITLES[item])
        assert tokenizer.decode(title_tokens(trie, item)).strip() == shown
    assert not trie.free[trie.path_of_item[[0, UNTITLED]]].any()
    assert int(trie.free_before[-1]) == 13


@pytest.mark.shared
def test_titles_are_tokenised_as_they_stand_in_a_list(tokenizer):
    trie = build_trie(TITLES, tokenizer)
    for item in (1, 8, 14, 15):
        text = f"1. {clean_title(TITLES[item])}\n"
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        head = tokenizer("1.", add_special_tokens=False)["input_ids"]
        assert whole == [*head, *title_tokens(trie, item), *trie.line_end]


@pytest.mark.shared
def test_long_titles_are_cut_and_collisions_counted(tokenizer):
    titles = ["", "once upon a time there was a dog", "once upon a time there was a cat", "once", "once upon a time"]
    trie = build_trie(titles, tokenizer, most_tokens=len(title_tokens(build_trie(titles, tokenizer), 4)))
    assert trie.truncated.tolist() == [1, 2]
    assert trie.counts["truncated"] == 2 and trie.counts["collisions"] == 3 and trie.counts["titles"] == 2
    assert trie.items_of(int(trie.path_of_item[2])) == [1, 2, 4]


@pytest.mark.shared
def test_the_text_of_a_special_token_is_no_special_token(tokenizer):
    trie = build_trie(["", "A </s> B", "C"], tokenizer)
    assert trie.counts["reworded"] == 1
    assert not set(title_tokens(trie, 1)) & set(tokenizer.all_special_ids)


@pytest.mark.shared
def test_a_stored_trie_is_the_same(tokenizer, tmp_path):
    trie = build_trie(TITLES, tokenizer)
    trie.save(tmp_path / "trie.safetensors")
    read = TitleTrie.load(tmp_path / "trie.safetensors")
    assert read.counts == trie.counts and read.line_end == trie.line_end
    assert all(torch.equal(value, trie.paths.tensors()[name]) for name, value in read.paths.tensors().items())
    for name in ("path_of_item", "item_start", "item", "free", "free_before", "truncated"):
        assert torch.equal(getattr(read, name), getattr(trie, name))
    (tmp_path / "other").write_bytes(b"no trie")
    with pytest.raises(BenchError, match="holds no trie"):
        TitleTrie.load(tmp_path / "other")


@pytest.mark.shared
def test_no_titles_are_refused(tokenizer):
    with pytest.raises(BenchError, match="has no titles"):
        build_trie(["", "", "\n"], tokenizer)
    with pytest.raises(BenchError, match="most_tokens=0"):
        build_trie(TITLES, tokenizer, most_tokens=0)


def test_a_walk_never_enters_a_branch_of_which_all_is_barred():
    """Against a count of what is left, for random bars, own paths and scores."""
    rng = np.random.default_rng(1)
    rows = sorted({(*rng.integers(0, 3, rng.integers(1, 6)).tolist(), 9) for _ in range(60)})
    trie, _ = build_paths(*flat(rows))
    free = rng.random(len(rows)) < 0.8
    chooser = Chooser(trie, torch.from_numpy(np.concatenate([[0], np.cumsum(free)])))
    for trial in range(40):
        count = 20
        bars = [np.flatnonzero(free & (rng.random(len(rows)) < 0.5 + 0.5 * (trial % 2))) for _ in range(count)]
        table = np.full((count, max(map(len, bars)) + 1), len(rows))
        for row, bar in enumerate(bars):
            table[row, : len(bar)] = rng.permutation(bar)
        own = rng.integers(0, len(rows), count)
        keys = chooser.keys(torch.from_numpy(table))
        node, walked = torch.zeros(count, dtype=torch.long), [()] * count
        going = torch.arange(count)
        while len(going):
            scores = torch.from_numpy(rng.normal(size=(len(going), 10)))
            edge = chooser.choose(scores, node[going], torch.from_numpy(own)[going], going, keys)
            for place, row in enumerate(going.tolist()):
                legal = {rows[p] for p in np.flatnonzero(free) if p not in bars[row]} | {rows[own[row]]}
                depth = len(walked[row])
                allowed = sorted({path[depth] for path in legal if path[:depth] == walked[row]})
                best = allowed[int(scores[place, allowed].argmax())]
                assert int(trie.edge_token[edge[place]]) == best
                walked[row] = (*walked[row], best)
            node[going] = trie.edge_child[edge]
            going = going[[walked[row] not in rows for row in going.tolist()]]


def test_scores_of_minus_infinity_never_let_through_what_is_barred():
    trie, _ = build_paths(*flat([[1, 9], [2, 9], [3, 9]]))
    chooser = Chooser(trie, torch.arange(4))
    scores = torch.tensor([[0.0, 5.0, -torch.inf, -torch.inf, 9.0] + [0.0] * 5])
    zero = torch.zeros(1, dtype=torch.long)
    edge = chooser.choose(scores, zero, zero - 1, zero, chooser.keys(torch.tensor([[0, 3]])))
    assert trie.edge_token[edge].tolist() == [2]
    with pytest.raises(BenchError, match="no title is left"):
        chooser.choose(scores, zero, zero - 1, zero, chooser.keys(torch.tensor([[0, 1, 2]])))


@pytest.mark.shared
@pytest.mark.parametrize("model", ["domain-llama-4m", pytest.param("llama2-tokenizer", marks=pytest.mark.slow)])
def test_every_title_of_amazon_games_can_be_reached(data_mirror, models_folder, model):
    """16,859 walks, each led by scores that like the tokens of one title, end at that title."""
    from transformers import AutoTokenizer

    catalogue = prepare("amazon-games-llmrank").catalogue
    trie = build_trie(catalogue.titles, AutoTokenizer.from_pretrained(models_folder / model))
    assert trie.counts["items"] == 16859 and trie.n_items == 16859
    assert trie.counts["untitled"] == 0 and trie.counts["unfaithful"] == 0
    paths = trie.paths
    goal = trie.path_of_item[1:]
    chooser = Chooser(paths, trie.free_before)
    keys = chooser.keys(torch.full((len(goal), 1), paths.n_paths))
    row, node = torch.arange(len(goal)), torch.zeros(len(goal), dtype=torch.long)
    reached = torch.full_like(goal, -1)
    places, at = torch.unique(paths.edge_token, return_inverse=True)  # tokens that titles have, and no others
    short = PathTrie(**{**paths.tensors(), "edge_token": at})
    chooser = Chooser(short, trie.free_before)
    wanted = torch.searchsorted(places, paths.path_token)
    while len(row):
        chosen = []
        for some in torch.arange(len(row)).split(4096):
            scores = torch.zeros(len(some), len(places))
            scores[torch.arange(len(some)), wanted[paths.path_start[goal[row[some]]] + paths.depth[node[some]]]] = 1
            chosen.append(chooser.choose(scores, node[some], torch.full_like(some, -1), row[some], keys))
        node = paths.edge_child[torch.cat(chosen)]
        ended = paths.last[node] - paths.first[node] == 1
        ended &= paths.edge_start[node + 1] == paths.edge_start[node]
        reached[row[ended]] = paths.first[node[ended]]
        row, node = row[~ended], node[~ended]
    assert torch.equal(reached, goal)
    assert set(trie.item.tolist()) == set(range(1, 16860))
