"""Each control on planted data where it must win, and where it must lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recllm_bench.api.registry import model_named
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.conversation.attributes import AttributeTable
from recllm_bench.conversation.rules import RuleSimulator
from recllm_bench.conversation.understanding import Understanding, Wish
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.metrics import per_user
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.models.controls.fused import standardised
from recllm_bench.models.recent_knn import RecentKNN, RecentKNNOptions
from recllm_bench.planning import comparison_recipes, resolved
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recipe import recipe_from
from recllm_bench.runner import BenchCell
from recllm_bench.testing import MethodConformance
from tests.conftest import planted_catalogue

GENRES = ("Action", "Comedy", "Drama", "Horror", "Romance", "Western", "Musical", "Crime", "Fantasy", "War")
N_USERS, N_ITEMS, LENGTH = 80, 60, 10
AMONG = {"pop": {}, "recent-knn": {}}


def data(folder: Path, genres: list[str], follows: bool) -> Path:
    """Histories by chance, or such in which an item is nearly always followed by its neighbour."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(1, N_USERS + 1):
        first = int(rng.integers(N_ITEMS))
        seen = (first + np.arange(LENGTH)) % N_ITEMS if follows else rng.permutation(N_ITEMS)[:LENGTH]
        rows += [f"u{user},i{item},5,{1_500_000_000 + time}" for time, item in enumerate(seen.tolist())]
    items = [f"i{item},The Story of {item},{genre}" for item, genre in enumerate(genres)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.csv").write_text("user_id,item_id,rating,timestamp\n" + "\n".join(rows) + "\n")
    (folder / "own.items.csv").write_text("item_id,title,categories\n" + "\n".join(items) + "\n")
    return folder / "own.csv"


TELLING = [GENRES[item % len(GENRES)] for item in range(N_ITEMS)]
IDLE = ["Drama"] * (N_ITEMS - 1) + ["Comedy"]
"""Facts that leave nearly every item."""


class Mumbler(RuleSimulator):
    """Says nothing that could be understood, though its facts are known."""

    def open(self, profiles):
        """The same for everybody."""
        return ["Hm."] * len(profiles)


class Quiet:
    """A simulator that does not tell its facts."""

    def __init__(self, catalogue, seed=0):
        self.name = "quiet"

    def open(self, profiles):
        """The same for everybody."""
        return ["Hm."] * len(profiles)

    def reply(self, profiles, dialogues, shown):
        """Never."""
        return []


def score(tmp_path: Path, model: str, source: Path, simulator: str = "rules:2", whose: str = "own", **options) -> float:
    """Recall@10 on the test cases, under full ranking; nothing is kept between calls but trainings."""
    values = {"model": model, "dataset": str(source), "device": "cpu", "protocol": "latentcrs.one_turn"}
    values |= {"options": options}
    if model_named(model).reads_words:
        values |= {"conversation": {"simulator": simulator, "words": whose}}
    cell = BenchCell(resolved(recipe_from(values, "test")), store=ArtifactStore(tmp_path / "store"))
    trained, cases = cell.cell.load(), cell.split.test
    ranks = rank_cases(
        trained, cell.split, cases, cell.protocol, columns=cell.columns(cases),
        max_length=cell.cell.history_length(trained),
    )  # fmt: skip
    return float(per_user(ranks, ["Recall"], [10], "expected")["Recall@10"].mean())


def test_fitting_items_win_where_words_tell_and_lose_where_histories_do(tmp_path):
    telling, idle = data(tmp_path / "a", TELLING, follows=False), data(tmp_path / "b", IDLE, follows=True)
    pop = {"among": {"pop": {}}}
    assert score(tmp_path, "words-fit", telling, **pop) > 0.7, "five of six that fit, and one may be in the history"
    assert score(tmp_path, "words-fit", telling, whose="none", **pop) == score(tmp_path, "pop", telling)
    assert score(tmp_path, "words-fit", telling, whose="another", **pop) < 0.3
    assert score(tmp_path, "words-fit", idle, **pop) < 0.3 < 0.5 < score(tmp_path, "recent-knn", idle)


def test_the_best_history_row_is_found_by_validation(tmp_path):
    idle = data(tmp_path / "b", IDLE, follows=True)
    best = score(tmp_path, "words-fit", idle, among=AMONG)
    assert best > 0.5 > score(tmp_path, "words-fit", idle, among={"pop": {}})
    chance = data(tmp_path / "c", IDLE, follows=False)
    assert score(tmp_path, "words-fit", chance, among=AMONG) < 0.3, "with nothing to find it finds nothing"


def test_the_ceiling_wins_where_nobody_is_understood_and_gives_nothing_where_facts_are_idle(tmp_path):
    telling, idle = data(tmp_path / "a", TELLING, follows=False), data(tmp_path / "b", IDLE, follows=True)
    mumbler = f"{__name__}:Mumbler"
    assert score(tmp_path, "facts-fit", telling, mumbler) > 0.7 > 0.3 > score(tmp_path, "words-fit", telling, mumbler)
    assert score(tmp_path, "facts-fit", idle, mumbler) < 0.3
    assert score(tmp_path, "facts-fit", telling) == score(tmp_path, "words-fit", telling), "the rules are understood"


def test_fusing_wins_over_its_parts_and_takes_the_better_one_where_the_other_is_noise(tmp_path):
    both, noise = data(tmp_path / "a", TELLING, follows=True), data(tmp_path / "c", IDLE, follows=True)
    fused = score(tmp_path, "text-fused", both, among=AMONG)
    assert fused >= max(score(tmp_path, "text-retrieval", both), score(tmp_path, "recent-knn", both)) - 0.03
    parts = score(tmp_path, "text-retrieval", noise), score(tmp_path, "recent-knn", noise)
    assert parts[0] < 0.3 < score(tmp_path, "text-fused", noise, among=AMONG) <= parts[1] + 0.1
    chance = data(tmp_path / "d", IDLE, follows=False)
    assert score(tmp_path, "text-fused", chance, among=AMONG) < 0.3


def test_only_a_declared_class_is_handed_the_facts(tmp_path):
    source = data(tmp_path / "a", TELLING, follows=False)
    values = {"model": "words-fit", "dataset": str(source), "conversation": {"simulator": "rules:2"}}
    cell = BenchCell(resolved(recipe_from(values, "test")), store=ArtifactStore(tmp_path / "store"))
    with pytest.raises(BenchError, match="reads_facts = True"):
        cell.job.words.facts(cell.split.test)
    told = BenchCell(resolved(recipe_from({**values, "model": "facts-fit"}, "test")), store=cell.store)
    assert all(told.job.words.facts(told.split.test))
    assert set(told.job.words.of("none").facts(told.split.test)) == {((), ())}
    with pytest.raises(BenchError, match=r"give it facts_said\(profiles\)"):
        score(tmp_path, "facts-fit", source, f"{__name__}:Quiet")


def test_a_row_that_reads_words_orders_nothing(tmp_path):
    source = data(tmp_path / "a", TELLING, follows=False)
    with pytest.raises(BenchError, match="reads words; name rows that see histories alone"):
        score(tmp_path, "words-fit", source, among={"text-retrieval": {}})


def test_what_fits_comes_first_in_the_order_it_had():
    catalogue = planted_catalogue(30)
    reader = Understanding(catalogue, AttributeTable(catalogue))
    wishes = [Wish((0,)), Wish((0, 1), (2,)), Wish(())]
    scores = torch.randint(0, 5, (3, 31), generator=torch.Generator().manual_seed(1)).float() - 2
    batch = {name: torch.from_numpy(column) for name, column in reader.columns(wishes).items()}
    found = reader.fitting_first(scores, batch)
    for row, wish in enumerate(wishes):
        keys = [(bool(reader.fits(wish)[item]), float(scores[row, item])) for item in range(31)]
        for first in range(31):
            for second in range(31):
                assert (found[row, first] > found[row, second]) == (keys[first] > keys[second])
    assert reader.fitting_first(scores, {}) is scores


def test_recent_knn_sums_cosines_by_brute_force():
    rng = np.random.default_rng(2)
    users = (rng.random((12, 9)) < 0.4).astype(float)
    users[:, [0, 8]] = 0  # padding, and an item that nobody had
    from scipy import sparse

    model = RecentKNN(bare_config(RecentKNNOptions(last=2), 2, "cpu"), Ids(8), sparse.csr_matrix(users))
    items, lengths = torch.tensor([[3, 1, 2, 0], [4, 0, 0, 0]]), torch.tensor([3, 1])
    found = model.full_sort_predict({"item_id_list": items, "item_length": lengths}).numpy()
    for row, newest in enumerate(([1, 2], [4])):
        for item in range(9):
            wanted = sum(
                users[:, item] @ users[:, other] / max(1e-9, np.sqrt(users[:, item].sum() * users[:, other].sum()))
                for other in newest
                if other != item
            )
            assert found[row, item] == pytest.approx(wanted, abs=1e-6)


def test_standardised_scores():
    scores = torch.tensor([[9.0, 1.0, 2.0, 3.0], [9.0, 5.0, 5.0, 5.0]])
    found = standardised(scores)
    assert torch.isneginf(found[:, 0]).all()
    assert found[0, 1:].tolist() == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])
    assert found[1, 1:].tolist() == [0, 0, 0]


def test_every_reader_of_words_has_the_controls_by_default(tmp_path):
    source = data(tmp_path / "a", TELLING, follows=False)
    labels = [label for label, _ in comparison_recipes({"model": "text-retrieval", "dataset": str(source)}, "test")]
    for who in ("Popularity", "ItemKNN", "Best history row"):
        assert f"{who} among items that fit the words" in labels
        assert f"{who} among items that fit, told the facts" in labels
    assert "Text retrieval with the best history row" in labels
    assert "Text retrieval only, another user's words" in labels and "Text retrieval only, no words" in labels
    silent = [recipe.model for _, recipe in comparison_recipes({"model": "sasrec", "dataset": str(source)}, "test")]
    assert not {"words-fit", "facts-fit", "text-fused"} & set(silent)


class TestWordsFit(MethodConformance):
    method = "words-fit"
    conversation = {"simulator": "rules:2"}  # noqa: RUF012
    options = {"among": AMONG}  # noqa: RUF012
    changes = {"among": {"pop": {}}}  # noqa: RUF012


class TestFactsFit(TestWordsFit):
    method = "facts-fit"


class TestTextFused(TestWordsFit):
    method = "text-fused"
    changes = {"among": {"pop": {}}, "steps": 3}  # noqa: RUF012
