"""The bench from Python: lazy names, runs, comparisons, and scores that others made."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import recllm_bench as rb
from recllm_bench.errors import BenchError
from tests.conftest import planted_catalogue, planted_histories

SMALL = {"hidden_size": 8, "n_layers": 1}
USERS, ITEMS = 120, 60


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A user's own file; its ids are words, so that they are never ours."""
    catalogue, histories = planted_catalogue(ITEMS), planted_histories(USERS, ITEMS, 12)
    rows = [
        f"u{user},m{item},5,{1_500_000_000 + position}"
        for user in range(1, USERS + 1)
        for position, item in enumerate(histories.of(user).tolist())
    ]
    (tmp_path / "shop.csv").write_text("user_id,item_id,rating,timestamp\n" + "\n".join(rows) + "\n")
    items = [f"m{item},{catalogue.titles[item]},{'|'.join(catalogue.categories[item])}" for item in range(1, ITEMS + 1)]
    (tmp_path / "shop.items.csv").write_text("item_id,title,categories\n" + "\n".join(items) + "\n")
    return tmp_path / "shop.csv"


def some_scores(n_users: int, n_items: int) -> np.ndarray:
    """Distinct scores, one row a user, with the padding row and column."""
    return np.random.default_rng(5).permuted(np.tile(np.arange(n_items + 1.0), (n_users + 1, 1)), axis=1)


class TestImport:
    """``import recllm_bench`` is free."""

    def test_it_takes_no_time_and_no_library(self) -> None:
        code = (
            "import sys, time; start = time.perf_counter(); import recllm_bench; "
            "seconds = time.perf_counter() - start; "
            "print(seconds, *[name for name in ('numpy', 'torch', 'pandas', 'recbole', 'yaml') if name in sys.modules])"
        )
        found = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "123"
        ]
        words = [each.stdout.split() for each in found]
        assert all(len(each) == 1 for each in words), words
        assert min(float(each[0]) for each in words) < 0.05

    def test_every_name_leads_somewhere_and_has_a_type(self) -> None:
        stub = ast.parse(Path(str(rb.__file__)).with_suffix(".pyi").read_text())
        typed = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
        listed = next(node.value for node in stub.body if isinstance(node, ast.Assign))
        assert set(rb.__all__) == set(ast.literal_eval(listed)) == typed | {"__version__"}
        assert all(getattr(rb, name) is not None for name in rb.__all__)
        assert set(rb.__all__) <= set(dir(rb))

    def test_an_unknown_name_is_told_what_there_is(self) -> None:
        with pytest.raises(AttributeError, match=r"has no attribute 'evalute'; it has .*evaluate"):
            _ = rb.evalute  # type: ignore[attr-defined]


class TestRun:
    """One cell, and what can be asked of it."""

    def test_a_run_is_what_the_record_says(self, shop: Path) -> None:
        run = rb.run("sasrec", shop, options=SMALL, training={"epochs": 2}, device="cpu", seed=np.int64(3))
        stored = json.loads((run.folder / "run.json").read_text())
        assert run.metrics == {name: facts["mean"] for name, facts in stored["metrics"].items()}
        assert stored["recipe"]["seed"] == 3 and stored["recipe"]["training"]["epochs"] == 2
        for name, (low, high) in run.intervals.items():
            assert low <= run.metrics[name] <= high
        means = run.users[list(run.metrics)].mean()
        np.testing.assert_allclose(means, list(run.metrics.values()))
        assert len(run.cases) == len(run.users) == USERS and (run.users.targets == 1).all()
        first = run.cases.iloc[0]
        assert first["rank"] == first.higher + (first.tied + 1) / 2
        assert run.users["Recall@10"].eq((run.users["rank"] <= 10) * 1.0).mean() == 1.0
        assert repr(run).startswith("<Run SASRec (ours) on shop, unified.full: Recall@1")
        assert "SASRec" in run.table() and "<table>" in run._repr_html_()
        again = rb.Run.read(run.folder)
        assert again.metrics == run.metrics and again.name == run.name

    def test_the_trained_model_comes_back_and_nothing_is_trained(self, shop: Path, tmp_path: Path) -> None:
        run = rb.run("sasrec", shop, options=SMALL, training={"epochs": 2}, device="cpu")
        before = sorted((tmp_path / "cache").rglob("artifact.json"))
        model = run.load()
        assert not model.training and sorted((tmp_path / "cache").rglob("artifact.json")) == before
        again = rb.evaluate(model, shop, ids="bench", name="again")
        pd.testing.assert_frame_equal(again.users, run.users)
        shutil.rmtree(tmp_path / "cache" / "artifacts" / "sasrec")
        with pytest.raises(BenchError, match=r"stage 'train' is no longer in .*run\(\.\.\., again=True\)"):
            run.load()
        assert not list((tmp_path / "cache" / "artifacts").glob("sasrec/*"))

    def test_a_reader_of_words_a_recipe_and_a_class(self, shop: Path) -> None:
        from recllm_bench.models.text_retrieval import TextRetrievalMethod

        recipe = {"model": "text-retrieval", "dataset": str(shop), "conversation": {"simulator": "rules:2"}}
        run = rb.run(recipe=recipe, protocol="unified.full", label="words")
        assert run.name == "words" and run.record.block == "text"
        assert run.record.protocol["name"] == "unified.full"
        other = rb.run(TextRetrievalMethod, shop, protocol="unified.full", conversation={"simulator": "rules:2"})
        assert other.metrics == run.metrics
        assert run.load().item_vectors().shape[0] == ITEMS + 1

    def test_dialogues_are_told(self, shop: Path) -> None:
        run = rb.run("text-retrieval", shop, conversation={"users": 30})
        assert {"S@3", "S@5", "AT"} <= set(run.metrics)
        assert run.users.turns.notna().sum() == 30
        assert (run.users.turns.dropna().between(1, 3)).mean() == pytest.approx(run.metrics["S@3"])

    def test_several_targets_of_a_user_are_several_cases(self, shop: Path) -> None:
        run = rb.run("pop", shop, protocol="unified.ratio")
        assert len(run.cases) > len(run.users) == USERS and run.users.targets.sum() == len(run.cases)
        np.testing.assert_allclose(run.users["NDCG@10"].mean(), run.metrics["NDCG@10"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "name a model"),
            ({"model": "sasrek", "dataset": "ml-100k"}, "unknown model 'sasrek'. Did you mean 'SASRec"),
            ({"model": "pop", "dataset": "ml-100kk"}, "unknown dataset 'ml-100kk'"),
            ({"model": "pop", "protocol": "unified.ful"}, "unknown protocol"),
            ({"model": "sasrec", "options": {"hiden": 3}}, "unknown option 'hiden'"),
            ({"model": "sasrec", "training": [3]}, "training must be a mapping"),
            ({"model": "sasrec", "seed": 1.5}, "seed must be a whole number"),
            ({"model": "sasrec", "seed": -1}, "seed must be a whole number from 0"),
            ({"model": "pop", "device": "gpu"}, "device 'gpu' is unknown"),
            ({"model": 5}, "a model is a name or a class"),
            ({"model": type("Mine", (), {"__module__": "__main__"})}, "lives in this session only"),
            ({"recipe": "no-such"}, "no recipe 'no-such'"),
            ({"recipe": {"model": "pop", "datset": "ml-100k"}}, "unknown key 'datset'"),
            ({"recipe": "latentcrs-ml1m-sweep-intents"}, "is a sweep of several rows"),
        ],
    )
    def test_a_mistake_is_one_line(self, arguments: dict, message: str) -> None:
        with pytest.raises(BenchError) as caught:
            rb.run(**arguments)
        assert message.casefold() in str(caught.value).casefold() and "\n" not in str(caught.value)


class TestCompare:
    """Runs held against each other are the command's comparison."""

    def test_names_and_runs(self, shop: Path) -> None:
        run = rb.run("sasrec", shop, options=SMALL, training={"epochs": 20, "learning_rate": 0.01}, device="cpu")
        table = rb.compare([run.folder, "pop"])
        ours = "SASRec (ours), hidden_size=8, n_layers=1 and 2 more"  # what differs from the default recipe
        assert {each.name for each in table.records} == {ours, "Pop (RecBole)"}
        from recllm_bench.reporting.table import comparison_table

        assert repr(table) == comparison_table(table.records, subject="Pop (RecBole)")
        frame = table.to_frame()
        wide = frame.pivot(index="model", columns="metric", values="mean")
        assert wide.loc[ours, "NDCG@10"] == run.metrics["NDCG@10"]
        assert dict(zip(frame.model, frame.mark, strict=True)).keys() == {ours, "Pop (RecBole)"}
        (difference,) = table.differences().to_dict("records")
        ndcg = {each.name: rb.Run(each).users["NDCG@10"] for each in table.records}
        assert difference["other"] == ours
        assert difference["mean"] == pytest.approx((ndcg["Pop (RecBole)"] - ndcg[ours]).mean())
        assert f"<td>{ours}</td>" in table._repr_html_() and "▲" in table._repr_html_()

    def test_what_cannot_stand_in_one_table_is_refused(self, shop: Path) -> None:
        one, other = rb.run("pop", shop), rb.run("pop", shop, protocol="unified.ratio")
        for rows, message in (
            ([one, other], "got shop under unified.full and shop under unified.ratio"),
            (["pop"], "say on which data"),
            ("pop", "takes a list"),
            (one, "takes a list"),
            ([], "no run records"),
            ([3], "a row is a run"),
            ([one, shop.parent], "no run record"),
            ([one, "popp"], "unknown model 'popp'"),
        ):
            with pytest.raises(BenchError, match=message):
                rb.compare(rows)  # type: ignore[arg-type]
        with pytest.raises(BenchError, match="no run has the metric 'NDCG@11'"):
            rb.compare([one], metrics=["NDCG@11"])


class TestDataset:
    """What one wants at hand of a dataset."""

    def test_it_is_the_prepared_dataset(self, shop: Path) -> None:
        data = rb.load_dataset(shop)
        assert repr(data) == "<Dataset shop (filter all): 120 users, 60 items, 1,440 interactions>"
        frame = data.to_frame()
        assert len(frame) == 1440 and list(frame) == ["user", "item", "time", "rating"]
        last = int(data.histories.of(1)[-1])
        assert data.history(1)[-1] == data.titles[last] == f"Invented Story {data.item_tokens[last][1:]}"
        assert data.user_tokens[1] == "u1" and data.texts[last].startswith(data.titles[last])
        assert data.split().test.targets[0] == last
        with pytest.raises(BenchError, match="no user 121"):
            data.history(121)
        with pytest.raises(BenchError, match="unknown split"):
            data.split("leave_two_out")


class TestEvaluate:
    """Scores that the bench did not make are measured by its rules."""

    def test_a_function_an_array_and_lists_of_one_order_are_one(self, shop: Path) -> None:
        data = rb.load_dataset(shop)
        table = some_scores(USERS, ITEMS)
        best = np.argsort(-table[:, 1:], axis=1) + 1
        lists = {
            data.user_tokens[user]: [data.item_tokens[item] for item in best[user]] for user in range(1, USERS + 1)
        }
        flat = [(user, item, rank) for user, items in lists.items() for rank, item in enumerate(items)]
        frame = pd.DataFrame(flat, columns=["user_id", "item_id", "rank"]).sample(frac=1, random_state=1)
        scored = frame.assign(score=-frame["rank"]).drop(columns="rank")
        files = [shop.with_name("lists.csv"), shop.with_name("lists.tsv"), shop.with_name("lists.parquet")]
        frame.to_csv(files[0], index=False)
        scored.to_csv(files[1], index=False, sep="\t")
        frame.to_parquet(files[2])
        ours = {user: best[user] for user in range(1, USERS + 1)}

        def score(users: np.ndarray, histories: list[np.ndarray]) -> np.ndarray:
            for user, history in zip(users, histories, strict=True):
                np.testing.assert_array_equal(history, data.histories.of(user)[:-1])
            return table[users]

        runs = [
            rb.evaluate(given, shop) for given in (score, table, torch.from_numpy(table), lists, frame, scored, *files)
        ]
        runs.append(rb.evaluate(ours, data, ids="bench", name="ours"))
        for run in runs[1:]:
            pd.testing.assert_frame_equal(run.users, runs[0].users)
        assert [run.name for run in runs[:4]] == ["score", "Scores", "Scores", "Ranked lists"]
        target, history = int(data.histories.of(1)[-1]), data.histories.of(1)[:-1]
        among = [item for item in best[1] if item == target or item not in history]
        assert runs[0].users["rank"].loc[1] == 1 + among.index(target)

    def test_the_record_says_that_the_scores_came_from_outside(self, shop: Path) -> None:
        run = rb.evaluate(some_scores(USERS, ITEMS), shop, name="theirs", reads_words=True)
        stored = json.loads((run.folder / "run.json").read_text())
        assert stored["recipe"]["model"] == "outside" and stored["block"] == "text"
        assert "scores from outside (array)" in stored["notes"][0]
        assert "cannot be run again" in (run.folder / "recipe.yaml").read_text()
        assert "scores from outside (array)" in run.table()
        assert "0.0 s" not in run.table(), "no training here, and none is claimed"
        with pytest.raises(BenchError, match="no model to load"):
            run.load()

    def test_it_stands_in_one_table_under_the_same_tests(self, shop: Path) -> None:
        data = rb.load_dataset(shop)
        split = data.split()
        train = [data.histories.items[a:b] for a, b in zip(data.histories.offsets[:-1], split.train_ends, strict=True)]
        counts = np.bincount(np.concatenate(train), minlength=ITEMS + 1)
        pop = rb.run("pop", shop)
        mine = rb.evaluate(lambda users, histories: np.tile(counts, (len(users), 1)), shop, name="counts")
        np.testing.assert_allclose(mine.users, pop.users)
        table = rb.compare([mine, pop])
        assert table.differences()["mean"].tolist() == [0.0] and not table.comparison.unpaired

    def test_seeds_become_one_row(self, shop: Path) -> None:
        rng = np.random.default_rng(0)
        rows = [rb.evaluate(rng.random((USERS + 1, ITEMS + 1)), shop, name="noise", seed=seed) for seed in (1, 2)]
        (row,) = rb.compare(rows).records
        assert rb.Run(row).metrics["NDCG@10"] == pytest.approx(np.mean([run.metrics["NDCG@10"] for run in rows]))

    def test_a_target_that_is_not_in_a_short_list_ranks_behind_all(self, shop: Path) -> None:
        data = rb.load_dataset(shop)
        fresh = {}  # the last item first, for every second user
        for user in range(1, USERS + 1):
            target = int(data.histories.of(user)[-1])
            other = [item for item in range(1, ITEMS + 1) if item not in data.histories.of(user)][:2]
            fresh[data.user_tokens[user]] = [data.item_tokens[item] for item in ([target, *other], other, [])[user % 3]]
        run = rb.evaluate(fresh, shop, "unified.full")
        hit = run.users.index.to_numpy() % 3 == 0
        assert (run.users["rank"][hit] == 1).all() and run.users["rank"][~hit].isna().all()
        assert (run.users["MRR"] == hit).all() and (run.users["Recall@50"] == hit).all()
        assert run.record.notes[1] == "80 of 120 targets are in no list: they rank behind all that are and gain nothing"

    def test_near_scores_are_no_ties_and_equal_ones_are(self, shop: Path) -> None:
        close = np.zeros((USERS + 1, ITEMS + 1)) + 1.0 + 1e-12 * np.arange(ITEMS + 1)
        run = rb.evaluate(close, shop, "latentcrs.one_turn")
        assert (run.cases.tied == 1).all()
        assert (run.cases["rank"] == ITEMS + 1 - run.cases.target).all()
        equal = rb.evaluate(np.ones_like(close), shop, "latentcrs.one_turn")
        assert (equal.cases.tied == ITEMS).all() and "tie with another item" in equal.table()

    def test_other_protocols_and_one_of_your_own(self, shop: Path) -> None:
        table = some_scores(USERS, ITEMS)
        sampled = rb.Protocol("mine", candidates="sampled20", metrics=("HR",), cutoffs=(1, 3))
        run = rb.evaluate(table, shop, sampled)
        assert list(run.metrics) == ["HR@1", "HR@3"] and (run.cases.candidates == 21).all()
        assert len(rb.evaluate(table, shop, "unified.ratio").cases) > USERS

    def test_a_model_of_recbole_keeps_its_own_ids(self, shop: Path, tmp_path: Path) -> None:
        from recllm_bench.recbole_bridge import load_recbole

        load_recbole()
        from recbole.config import Config
        from recbole.data import create_dataset
        from recbole.model.sequential_recommender import SASRec

        (tmp_path / "theirs").mkdir()
        rows = [line.split(",") for line in shop.read_text().splitlines()[1:]]
        lines = [f"{user}\t{item}\t{time}" for user, item, _, time in sorted(rows[::-1], key=lambda row: row[1])]
        head = "user_id:token\titem_id:token\ttimestamp:float\n"
        (tmp_path / "theirs" / "theirs.inter").write_text(head + "\n".join(lines) + "\n")
        settings = {
            "data_path": str(tmp_path),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "train_neg_sample_args": None,
            "hidden_size": 8,
            "inner_size": 8,
            "MAX_ITEM_LIST_LENGTH": 6,
        }
        theirs = create_dataset(Config(model="SASRec", dataset="theirs", config_dict=settings))
        model = SASRec(theirs.config, theirs).eval()
        run = rb.evaluate(model, shop, ids=theirs)
        data = rb.load_dataset(shop)
        history = data.histories.of(7)
        seen = [theirs.token2id("item_id", data.item_tokens[item]) for item in history[:-1].tolist()][-6:]
        with torch.no_grad():
            batch = {"item_id_list": torch.tensor([seen]), "item_length": torch.tensor([len(seen)])}
            scores = model.full_sort_predict(batch)[0]
        ours = {item: float(scores[theirs.token2id("item_id", data.item_tokens[item])]) for item in range(1, ITEMS + 1)}
        target = int(history[-1])
        left = [item for item in ours if item == target or item not in history[:-1]]
        assert run.users["rank"].loc[7] == 1 + sum(ours[item] > ours[target] for item in left)
        assert "RecBole model" in run.record.notes[0]
        with pytest.raises(BenchError, match="say what its ids mean"):
            rb.evaluate(model, shop)

    @pytest.mark.parametrize(
        ("given", "changes", "message"),
        [
            (np.zeros((USERS, ITEMS)), {}, r"scores \[120, 60\] must be \[121, 61\]"),
            (np.full((USERS + 1, ITEMS + 1), np.nan), {}, "scores of user 1 are not numbers"),
            (np.full((USERS + 1, ITEMS + 1), "x"), {}, "not numbers"),
            (np.zeros((USERS + 1, ITEMS + 1)), {"ids": "bench"}, "ids= is for ranked lists and models"),
            (lambda users: 0, {}, r"must take \(user_ids, histories\)"),
            (lambda users, histories: np.zeros(3), {}, r"gives \[3\] for 120 users; it must be \[120, 61\]"),
            (lambda users, histories: np.zeros((len(users), ITEMS)), {}, r"gives \[120, 60\]"),
            ("sasrec", {}, r"no file of ranked lists; to run a model by name use run\('sasrec'"),
            (5, {}, "cannot evaluate int"),
            (dict, {}, "cannot evaluate type"),
            ({"u1": ["m1"]}, {}, "119 of 120 users have no list, such as user u"),
            ({"u1": ["m1", "m2", "m1"]}, {}, "the list of user u1 names item m1 twice"),
            ({"nobody": ["m1"]}, {}, "user 'nobody' is not in shop"),
            ({"u1": ["m1", "m99"]}, {}, r"item 'm99' is not in shop .* \(1 such items\)"),
            ({"u1": "m1"}, {}, "must hold items, best first"),
            ({1: [1, 61]}, {"ids": "bench"}, "item 61 is none of the bench's ids, 1 to 60"),
            ({1: [1.5]}, {"ids": "bench"}, "item 1.5 is none of the bench's ids"),
            ({1: [1]}, {"ids": "theirs"}, "ids must be 'data' or 'bench'"),
            (pd.DataFrame({"user": ["u1"]}), {}, "need a column item_id; there are user"),
            (pd.DataFrame({"user": ["u1"], "item": ["m1"], "rank": ["a"]}), {}, "rank holds what is no number"),
            (pd.DataFrame({"user": ["u1"], "item": ["m1"], "score": [np.nan]}), {}, "score is empty in row 0"),
        ],
    )
    def test_a_mistake_is_one_line(self, shop: Path, given: object, changes: dict, message: str) -> None:
        with pytest.raises(BenchError, match=message) as caught:
            rb.evaluate(given, shop, **changes)
        assert "\n" not in str(caught.value)

    def test_runs_and_readers_of_words_are_sent_to_run(self, shop: Path) -> None:
        run = rb.run("text-retrieval", shop)
        with pytest.raises(BenchError, match="measured already"):
            rb.evaluate(run, shop)
        with pytest.raises(BenchError, match="reads what users say"):
            rb.evaluate(run.load(), shop, ids="bench")
        pop = rb.run("pop", shop).load()
        with pytest.raises(BenchError, match=r"knows 60 items, and ml-100k has 1682"):
            rb.evaluate(pop, "ml-100k", ids="bench")
