"""LatentCRS_F and _V: what is extracted, the two filters against brute force, and the verifier's order."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from recllm_bench.conversation.attributes import AttributeTable
from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.conversation.understanding import Understanding, Wish
from recllm_bench.models.latentcrs.filtering import Extractor, allowed_features, filtered, first_object
from recllm_bench.models.latentcrs.outputs import VERIFIED
from recllm_bench.models.latentcrs.published import TABLES
from recllm_bench.testing import MethodConformance
from tests.conftest import planted_catalogue
from tests.models.answering import answering, drawn

CATALOGUE = planted_catalogue(30)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(CATALOGUE, None)


def names_of(extractor: Extractor, wish: Wish) -> list[str]:
    return [" ".join(extractor.reader.terms[term]) for term in wish.wanted]


@pytest.mark.parametrize(
    ("text", "features", "intents"),
    [
        ('{"item_features": ["Drama"], "intents": ["slow"]}', ["drama"], ("slow",)),
        ('```json\n{"item_features": [" WESTERN "], "intents": "old and dusty"}\n```', ["western"], ("old and dusty",)),
        ('Here: {"item_features": ["Space", "Drama", 7], "intents": [1, "", "a"]} Enjoy!', ["drama"], ("a",)),
        ('{"item_features": "Drama"}', [], ()),
        ('{not json} {"intents": ["b"]}', [], ("b",)),
        ("[1, 2]", [], ()),
        ("Drama, I think", [], ()),
        ("", [], ()),
        (json.dumps({"item_features": ["Action", "Comedy", "Drama", "Horror", "Romance", "Western"]}), [], ()),
    ],
)
def test_an_answer_is_read_by_its_schema(extractor, text, features, intents):
    found = extractor.parsed(text)
    assert (names_of(extractor, found.wish), found.intents, found.wish.unwanted) == (features, intents, ())


def test_what_could_not_be_read_is_counted():
    extractor = Extractor(CATALOGUE, None)
    for text in ('{"item_features": ["Space", "Drama", "Opera"]}', "no", "", json.dumps({"item_features": [*GENRES]})):
        extractor.parsed(text)
    assert dict(extractor.counts) == {"unknown": 2, "unread": 2, "all": 1}


GENRES = ("Action", "Comedy", "Drama", "Horror", "Romance", "Western")


def test_an_object_is_found_among_words():
    assert first_object('a {"b": {"c": 1}} {"d": 2}') == {"b": {"c": 1}}
    assert first_object("{" * 3000) is None


def test_rules_read_categories_alone(extractor):
    talk = Dialogue(1, np.array([1]), [("user", "A western from the 1970s."), ("user", "No horror, please.")])
    (found,) = extractor.read([talk], [])
    words = [[" ".join(extractor.reader.terms[term]) for term in side] for side in found.wish]
    assert words == [["western"], ["horror"]], "decades are no features here"


def test_many_categories_are_cut_to_common_ones():
    few = planted_catalogue(30)
    assert allowed_features(AttributeTable(few)) == sorted(
        GENRES, key=lambda name: (-sum(name in row for row in few.categories), name)
    )
    many = planted_catalogue(100)
    many.categories[1:] = [(f"shelf {item}", "Drama" if item % 3 else "Opera") for item in range(1, 101)]
    assert set(allowed_features(AttributeTable(many))) == {"Drama", "Opera"}


@pytest.mark.parametrize("rule", ["strict", "overlap_rerank"])
@pytest.mark.parametrize("pool", [0, 4, 12])
def test_the_filters_against_brute_force(rule, pool):
    reader, generator = Understanding(CATALOGUE), torch.Generator().manual_seed(pool)
    scores = torch.randn(20, 31, generator=generator)
    scores[:, 5:7] = scores[:, 7:8]  # equal ones keep the order of their ids
    scores[:, 0] = scores[:, 9] = -torch.inf
    rng = np.random.default_rng(pool)
    terms = [reader.terms.index((genre.lower(),)) for genre in GENRES]
    wishes = []
    for _ in range(20):
        chosen = rng.permutation(terms)[:3].tolist()
        cut = int(rng.integers(0, 4))
        wishes.append(Wish(tuple(sorted(chosen[:cut])), tuple(sorted(chosen[cut:][:1]))))
    found = filtered(scores, wishes, reader, rule, pool)
    for row, wish in enumerate(wishes):
        wanted, refused = ({reader.terms[term][0] for term in side} for side in wish)
        order = sorted(
            (item for item in range(31) if scores[row, item] > -torch.inf), key=lambda item: (-scores[row, item], item)
        )
        head = order[: pool or 31]

        def key(item: int, wanted: set = wanted, refused: set = refused) -> int:
            has = {name.lower() for name in CATALOGUE.categories[item]}
            fits = wanted <= has and not refused & has
            return -int(fits) if rule == "strict" else len(refused & has) - len(wanted & has)

        expected = sorted(head, key=key) + order[len(head) :]  # Python's sort is stable
        got = found[row].argsort(descending=True, stable=True)[: len(order)].tolist()
        assert got == expected
        assert found[row, 0] == found[row, 9] == -torch.inf


def test_the_printed_row_follows_the_output():
    row = TABLES.row
    assert row({"model": "latentcrs", "options": {"variant_output": "V"}}) == ("latentcrs", "V")
    assert row({"model": "latentcrs", "options": {}}) == ("latentcrs", "B")
    assert row({"model": "latentcrs", "options": {"variant_output": "F", "ablation": "direct_kl"}}) is None


def speaks(messages: list[dict]) -> str:
    """As an extractor two features and an intent; as a verifier the first five in an order of its own."""
    if messages[0]["content"].startswith("You check"):
        return ", ".join(map(str, drawn(messages, 5, 5)))
    genres = [GENRES[place - 1] for place in drawn(messages, 6, 1)]
    return json.dumps({"item_features": genres, "intents": [f"mood {drawn(messages, 9, 1)[0]}"]})


class TestLatentCRSV(MethodConformance):
    """With a chat model behind a server as extractor and verifier."""

    method = "latentcrs"
    chosen: ClassVar[dict[str, Any]] = {
        "intents": 4,
        "text_hidden": 8,
        "train_repeat": 1,
        "negatives": 3,
        "warmup_epochs": 1,
        "backbone_options": {"hidden_size": 8, "n_layers": 1, "intents": 4},
        "backbone_training": {"epochs": 1},
        "variant_output": "V",
        "verifies": 6,
    }
    training: ClassVar[dict[str, Any]] = {"epochs": 1}
    changes: ClassVar[dict[str, Any]] = {"variant_output": "F", "hard_filter": "strict", "verifies": 7}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls):
        with answering(speaks) as (spec, server):
            cls.options = {**cls.chosen, "extractor": spec, "verifier": spec}
            yield server

    def test_b_f_and_v_share_their_training(self, trained, place):
        """One key for each trained stage."""
        keys = {}
        for output in ("B", "F", "V"):
            cell = self.cell_of(place, options={"variant_output": output})
            keys[output] = cell.products()
        assert set(keys["F"]) - set(keys["B"]) == {"output"} == set(keys["V"]) - set(keys["B"])
        assert all(keys[output][stage] == path for output in keys for stage, path in keys["B"].items())
        assert keys["F"]["output"] != keys["V"]["output"]

    def test_the_verified_stand_first_in_the_ranking(self, trained):
        """In the order of the answer, before all others; the same items as F has first."""
        cell = trained[0]
        model, cases = cell.cell.load(), cell.split.test.take(np.arange(5))
        columns = cell.columns(cases)
        batch = {name: torch.from_numpy(np.asarray(column)) for name, column in columns.items()}
        histories = [
            cell.split.histories.items[start:end]
            for start, end in zip(cell.split.histories.offsets[cases.users - 1], cases.ends, strict=True)
        ]
        batch["item_id_list"] = torch.from_numpy(np.stack([history[-8:] for history in histories]).astype(np.int64))
        batch["item_length"] = torch.full((5,), 8)
        best = model.full_sort_predict(batch).argsort(1, descending=True)[:, :6].numpy()
        np.testing.assert_array_equal(best, columns[VERIFIED])
        del batch[VERIFIED]
        before = model.full_sort_predict(batch).argsort(1, descending=True)[:, :6].numpy()
        np.testing.assert_array_equal(np.sort(best), np.sort(before))

    def test_the_tokens_of_both_are_counted(self, trained):
        """An extraction and a verification a turn, seven and three tokens each."""
        cell = trained[0]
        talk = Dialogue(1, np.array([3, 4], dtype=np.int32), [("user", "A comedy.")])
        (response,) = cell.cell.load().respond(cell.talking_job(), [talk])
        assert (response.input_tokens, response.output_tokens) == (14, 6)

    def test_an_unreadable_answer_leaves_the_order_of_f(self, place, trained):
        """And is counted."""
        with answering(lambda messages: "I cannot say.") as (spec, _):
            cell = self.cell_of(place, options={"verifier": spec, "extractor": "rules"})
            columns = cell.columns(cell.split.test)
            plain = self.cell_of(place, options={"variant_output": "F", "extractor": "rules"})
            talk = Dialogue(1, np.array([3, 4], dtype=np.int32), [("user", "A comedy.")])
            answers = [each.cell.load().respond(each.talking_job(), [talk])[0].items for each in (cell, plain)]
            found = {measure.label: measure.value for measure in cell.cell.method.output.measures()}
        assert columns[VERIFIED].shape[1] == 6 and answers[0] == answers[1]
        assert found["verifications without an order, share"] == 1
