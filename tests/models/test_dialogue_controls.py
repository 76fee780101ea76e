"""Controls in dialogues: each on planted data where its number is known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.conversation.dialogue import Response
from recllm_bench.conversation.dialogue_loop import run_dialogues
from recllm_bench.evaluation.candidates import evaluated_cases
from recllm_bench.evaluation.dialogue_outcomes import success_at
from recllm_bench.planning import comparison_recipes, resolved
from recllm_bench.recipe import recipe_from
from recllm_bench.reporting.records import read_record
from recllm_bench.runner import BenchCell
from tests.models.test_controls import IDLE, TELLING, data


def held(tmp_path: Path, source: Path | str, model="words-fit", whose="own", talk: dict | None = None, **options):
    talk = {"users": 80, "words": whose, "opens": 0.4, "patience": 0, **(talk or {})}
    values = {"model": model, "dataset": str(source), "device": "cpu", "protocol": "latentcrs.one_turn"}
    recipe = resolved(recipe_from({**values, "options": options, "conversation": talk}, "test"))
    cell = BenchCell(recipe, store=ArtifactStore(tmp_path / "store"))
    return cell._dialogues(cell.cell.load()), cell


def shares(outcomes) -> list[float]:
    return [float(success_at(outcomes.turns, turn).mean()) for turn in range(1, 6)]


def test_what_ignores_the_dialogue_is_at_popularitys_level_and_what_fits_is_above(tmp_path):
    source = data(tmp_path / "a", TELLING, follows=False)
    deaf, cell = held(tmp_path, source, hears="nothing")
    seen = cell.split.histories.items[cell.split.histories.before(cell.split.train_ends)]
    counts = np.bincount(seen, minlength=61)[1:]
    ranks = np.argsort(np.argsort(-counts, kind="stable"))[deaf.targets - 1]
    tied = [abs(share - (ranks < 5 * turn).mean()) for turn, share in enumerate(shares(deaf), 1)]
    assert max(tied) < 0.1, "equal counts may come in another order"
    first, _ = held(tmp_path, source, hears="opening")
    whole, _ = held(tmp_path, source)
    assert shares(whole)[4] > shares(deaf)[4] + 0.2 and shares(whole)[0] == shares(first)[0] > shares(deaf)[0]
    assert shares(whole)[4] >= shares(first)[4]


def test_the_best_history_row_ignores_the_dialogue_too(tmp_path):
    source = data(tmp_path / "b", IDLE, follows=True)
    among = {"pop": {}, "recent-knn": {}}
    best, plain = (shares(held(tmp_path, source, hears="nothing", **given)[0]) for given in ({"among": among}, {}))
    assert best[1] > 0.5 > 0.3 > plain[1], "two turns of five items each"


def test_another_users_words_and_none_are_heard_in_dialogues(tmp_path):
    source = data(tmp_path / "a", TELLING, follows=False)
    own, cell = held(tmp_path, source)
    other, _ = held(tmp_path, source, whose="another")
    none, _ = held(tmp_path, source, whose="none")
    deaf, _ = held(tmp_path, source, hears="nothing")
    assert shares(other)[1] < shares(own)[1] - 0.15
    assert shares(none) == shares(deaf)
    openings = {talk.user: talk.messages[0][1] for talk in own.dialogues}
    swapped = {talk.user: talk.messages[0][1] for talk in other.dialogues}
    moved = [talk for talk in swapped if swapped[talk] not in openings.values()]
    assert all("this one" in swapped[talk] for talk in moved) and len(moved) < 8, "the guard knows both targets"
    assert sum(swapped[user] == openings[user] for user in openings) < 20
    titles = cell.dataset.catalogue.titles
    for talk, target in zip(other.dialogues, other.targets, strict=True):
        assert not any(titles[target] in text for text in talk.user_sentences())


def test_every_table_with_dialogues_holds_the_controls(tmp_path):
    source = data(tmp_path / "a", TELLING, follows=False)
    for users, expected in ((0, 0), (20, 2)):
        values = {"model": "text-retrieval", "dataset": str(source), "conversation": {"users": users}}
        rows = comparison_recipes({**values, "protocol": "latentcrs.one_turn"}, "test")
        labels = [label for label, _ in rows if "dialogue ignored" in label]
        assert len(labels) == expected
        others = {label for label, _ in rows}
        assert {"Text retrieval only, another user's words", "Popularity among items that fit the words"} <= others
        assert all(recipe.conversation.users == users for _, recipe in rows if recipe.model == "words-fit")


def test_the_fused_control_converses(tmp_path):
    source = data(tmp_path / "a", TELLING, follows=True)
    fused, _ = held(tmp_path, source, "text-fused", among={"recent-knn": {}}, steps=1)
    assert len(fused) == 80 and shares(fused)[4] > 0.3


def test_users_separate_systems_on_real_films(tmp_path):
    """Opened as vaguely as on MovieLens-1M (some five hundred items fit), the facts alone leave half to be found."""
    users = {"users": 300, "opens": 0.3, "patience": None}
    fits, cell = held(tmp_path, "ml-100k", talk=users)
    deaf, _ = held(tmp_path, "ml-100k", talk=users, hears="nothing")
    assert 0.1 + shares(deaf)[4] < shares(fits)[4] <= 0.5
    seen = cell.split.histories.items[cell.split.histories.before(cell.split.train_ends)]
    counts = np.bincount(seen, minlength=cell.split.histories.n_items + 1)[1:]
    ranks = np.argsort(np.argsort(-counts, kind="stable"))[deaf.targets - 1]
    assert abs(shares(deaf)[4] - (ranks < 25).mean()) < 0.02
    words, cases = cell.job.words, evaluated_cases(cell.split.test, dataclasses.replace(cell.protocol, users=300))
    target = dict(zip(cases.users.tolist(), cases.targets.tolist(), strict=True))
    knows = run_dialogues(
        lambda talks: [Response([target[talk.user]]) for talk in talks], words.speaker(), words.profiles(cases), cases,
        cell.dataset.histories, cell.dataset.catalogue,
    )  # fmt: skip
    assert shares(knows) == [1.0] * 5
    assert np.median(fits.left[:, 0]) > 400 and not fits.leaked.any()


def test_a_record_tells_what_still_fits_at_each_turn(tmp_path):
    outcomes, cell = held(tmp_path, data(tmp_path / "a", TELLING, follows=False))
    folder = cell.run()
    table = pq.read_table(folder / "users.parquet").to_pydict()
    of_user = dict(zip(table["user"], zip(*(table[f"fit_{turn}"] for turn in range(1, 6)), strict=True), strict=True))
    for user, left in zip(outcomes.users.tolist(), outcomes.left.tolist(), strict=True):
        assert list(of_user[user]) == [None if count < 0 else count for count in left]
    lines = [json.loads(line) for line in (folder / "dialogues.jsonl").read_text().splitlines()]
    assert [line["n_match_by_turn"] for line in lines] == [[n for n in row if n >= 0] for row in outcomes.left.tolist()]
    told = {measure.label: measure.value for measure in read_record(folder).measures}
    assert told["items that still fit, median, turn 1"] == np.median(outcomes.left[:, 0])
    assert told["S@5, dialogues"] == shares(outcomes)[4] and "AT, dialogues, successes alone" in told
