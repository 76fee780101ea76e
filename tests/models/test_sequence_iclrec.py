"""ICLRec: augmentations, contrast, intents, the published layout and its released checkpoint."""

from __future__ import annotations

import dataclasses
import gzip
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import leave_one_out
from recllm_bench.data.windows import DeviceHistories, WindowBatch
from recllm_bench.errors import BenchError
from recllm_bench.models.sequence.augmentation import crop, mask, random_view, reorder
from recllm_bench.models.sequence.iclrec import ICLRec, ICLRecOptions
from recllm_bench.models.sequence.intents import contrast, kmeans, nearest_centroids
from recllm_bench.models.sequence.sasrec import SASRec, SASRecOptions
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.training.sequence import EpochContext, encoder_loss
from recllm_bench.training.training_options import TrainingOptions


def iclrec(n_items=30, max_length=10, seed=0, **options) -> ICLRec:
    torch.manual_seed(seed)
    settings = {"hidden_size": 16, "inner_size": 32, "intents": 4, "dropout": 0.2, "attention_dropout": 0.0, **options}
    return ICLRec(bare_config(ICLRecOptions(**settings), max_length, torch.device("cpu")), Ids(n_items))


def sequences(n=400, width=10, shortest=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, width + 1, (n,), generator=generator)
    seq = torch.arange(1, width + 1).expand(n, width) + 10 * torch.randint(0, 3, (n, 1), generator=generator)
    return seq * (torch.arange(width) < lengths[:, None]), lengths, generator


def real(row):
    return row[row > 0].tolist()


def batch_of(seq, lengths):
    targets = torch.where(seq > 0, seq % 30 + 1, 0)
    return WindowBatch(torch.arange(1, len(seq) + 1), seq, targets, lengths)


@pytest.fixture(scope="module")
def beauty(data_mirror):
    with gzip.open(data_mirror / "sequences/s3rec/Beauty.txt.gz", "rt") as file:
        rows = [[int(item) for item in line.split()[1:]] for line in file]
    return leave_one_out(Histories.from_rows(rows))


class TestAugmentation:
    def test_crop_keeps_a_run(self):
        seq, lengths, generator = sequences()
        views = crop(seq, lengths, 0.4, generator)
        starts = set()
        for row, view, length in zip(seq, views, lengths.tolist(), strict=True):
            kept = real(view)
            assert len(kept) == max(1, int(0.4 * length))
            assert view[: len(kept)].tolist() == kept
            start = real(row).index(kept[0])
            assert real(row)[start : start + len(kept)] == kept
            starts.add((length, start))
        assert starts >= {(10, start) for start in range(7)}  # every place where the run fits

    def test_mask_hides_a_share_in_place(self):
        seq, lengths, generator = sequences()
        views = mask(seq, lengths, 0.7, generator)
        hidden = (views == 0) & (seq > 0)
        assert torch.equal(hidden.sum(1), (lengths * 0.7).long())
        assert torch.equal(torch.where(hidden, seq, views), seq)
        assert hidden[lengths == 10].float().mean(0).sub(0.7).abs().max() < 0.25

    def test_reorder_shuffles_one_run(self):
        seq, lengths, generator = sequences()
        views = reorder(seq, lengths, 0.5, generator)
        moved = 0
        for row, view, length in zip(seq, views, lengths.tolist(), strict=True):
            assert sorted(real(row)) == sorted(real(view))
            assert view[:length].min() > 0
            places = (row != view).nonzero().flatten().tolist()
            if places:
                moved += 1
                assert places[-1] - places[0] < int(0.5 * length)
        assert moved > 150

    def test_one_item_stays(self):
        seq, lengths = torch.tensor([[7, 0, 0]]), torch.tensor([1])
        for operator in (crop, mask, reorder):
            for seed in range(5):
                assert torch.equal(operator(seq, lengths, 0.7, torch.Generator().manual_seed(seed)), seq)

    def test_random_view_uses_all_three(self):
        seq, lengths, generator = sequences(n=3000, shortest=10)
        views, new_lengths = random_view(seq, lengths, (0.2, 0.7, 0.5), generator)
        cropped = new_lengths == 2
        masked = ~cropped & ((views > 0).sum(1) == 3)
        whole = ~cropped & ((views > 0).sum(1) == 10)
        assert torch.equal(new_lengths[~cropped], lengths[~cropped])
        for share in (cropped, masked, whole):
            assert share.float().mean().item() == pytest.approx(1 / 3, abs=0.04)


class TestContrast:
    @pytest.mark.parametrize("with_groups", [False, True])
    def test_by_hand(self, with_groups):
        generator = torch.Generator().manual_seed(0)
        one, two = torch.randn(2, 5, 3, generator=generator).unbind(0)
        groups = torch.tensor([0, 1, 0, 2, 1]) if with_groups else torch.arange(5)
        everything, total = torch.cat((one, two)), 0.0
        for i in range(10):
            scores = {}
            for j in range(10):
                if j != i and (groups[i % 5] != groups[j % 5] or j % 5 == i % 5):
                    scores[j] = (everything[i] @ everything[j]).item() / 0.5
            positive = scores[(i + 5) % 10]
            total -= positive - math.log(sum(map(math.exp, scores.values())))
        found = contrast(one, two, 0.5, groups if with_groups else None)
        assert found.item() == pytest.approx(total / 10, rel=1e-5)

    def test_one_sequence_has_no_negatives(self):
        assert contrast(torch.ones(1, 3), torch.ones(1, 3)).item() == pytest.approx(0.0)


class TestIntents:
    def test_kmeans_finds_planted_clusters(self):
        rng = np.random.default_rng(0)
        centres = np.array([[0, 10], [10, 0], [-10, 0]], dtype=np.float32)
        points = np.repeat(centres, 40, 0) + rng.normal(size=(120, 2)).astype(np.float32) * 0.3
        found = kmeans(points, 3)
        assert np.abs(np.sort(found, 0) - np.sort(centres, 0)).max() < 0.3
        assert np.array_equal(found, kmeans(points, 3))

    def test_more_intents_than_users(self):
        with pytest.raises(BenchError, match="5 intents need at least as many users, found 3"):
            kmeans(np.zeros((3, 2), np.float32), 5)

    def test_nearest_is_euclidean(self):
        generator = torch.Generator().manual_seed(0)
        points, centroids = torch.randn(50, 4, generator=generator), 3 * torch.randn(7, 4, generator=generator)
        assert torch.equal(nearest_centroids(points, centroids), torch.cdist(points, centroids).argmin(1))

    @pytest.mark.parametrize("pool", ["last", "mean_all", "mean_nonpad"])
    def test_pooled_states_are_what_the_padded_layout_gives(self, pool):
        model = iclrec(pool=pool).eval()
        seq, lengths, _ = sequences(n=20)
        left = model._to_left(seq, lengths)
        states = model.padded_states(left)
        expected = {
            "last": states[:, -1],
            "mean_all": states.mean(1),
            "mean_nonpad": torch.stack([rows[ids > 0].mean(0) for rows, ids in zip(states, left, strict=True)]),
        }
        assert torch.allclose(model.pooled_states(seq, lengths), expected[pool], atol=1e-5)

    def test_before_epoch_clusters_training_data_alone(self, tmp_path):
        rng = np.random.default_rng(0)
        rows = [rng.integers(1, 31, size=rng.integers(4, 14)) for _ in range(40)]
        poisoned = [np.concatenate((row[:-2], [30, 30])) for row in rows]
        found = []
        for version in (rows, poisoned):
            model = iclrec().eval()
            split = leave_one_out(Histories.from_rows(version, 30))
            context = EpochContext(split, DeviceHistories(split.histories, "cpu"), 10, torch.device("cpu"), 0)
            with torch.no_grad():
                model.before_epoch(1, context)
            found.append(model.centroids.clone())
        assert found[0].abs().sum() > 0
        assert torch.equal(*found)
        model.write_products(tmp_path)
        saved = np.load(tmp_path / "centroids.npy")
        assert np.allclose(np.linalg.norm(saved, axis=1), 1, atol=1e-6)
        assert np.allclose(saved, F.normalize(model.centroids, dim=1).numpy())


class TestLayout:
    def test_right_padded_states_are_those_of_left_padding(self):
        model = iclrec(n_layers=2).eval()
        seq, lengths, _ = sequences(n=30)
        ours = model.sequence_states(seq, lengths)
        padded = model.padded_states(model._to_left(seq, lengths))
        for row, length in enumerate(lengths.tolist()):
            assert torch.allclose(ours[row, :length], padded[row, 10 - length :], atol=1e-5)

    def test_padding_outputs_follow_the_published_mask(self):
        """Where a row has no visible key, softmax sees all scores equally lowered: it attends to every position."""
        model = iclrec(n_layers=1).eval()
        left = torch.tensor([[0] * 7 + [4, 9, 2]])
        with torch.no_grad():
            x = model.input_norm(model.item_embedding(left) + model.position_embedding.weight)
            block = model.blocks[0]
            query, key, value = (part.view(10, 2, 8) for part in block.attention.project(x)[0].chunk(3, -1))
            scores = torch.einsum("ihd,jhd->hij", query, key) / math.sqrt(8)
            visible = torch.tril(torch.ones(10, 10)) * (left[0] > 0).float()
            weights = (scores + (1 - visible) * -10000.0).softmax(-1)
            mixed = torch.einsum("hij,jhd->ihd", weights, value).reshape(1, 10, 16)
            middle = block.attention_norm(block.attention.dense(mixed) + x)
            expected = block.network_norm(block.narrow(F.gelu(block.widen(middle))) + middle)
            # -10000 leaves about three decimals of the scores in fp32
            assert torch.allclose(model.padded_states(left), expected, atol=1e-3)

    def test_equals_post_norm_sasrec_on_full_histories(self):
        ours = iclrec().eval()
        options = {"hidden_size": 16, "inner_size": 32, "norm": "post", "layer_norm_eps": 1e-12}
        other = SASRec(bare_config(SASRecOptions(**options), 10, torch.device("cpu")), Ids(30)).eval()
        shared = {key: value for key, value in ours.state_dict().items() if "centroids" not in key}
        other.load_state_dict(shared)
        seq = torch.randint(1, 31, (6, 10))
        lengths = torch.full((6,), 10)
        assert torch.allclose(ours.sequence_states(seq, lengths), other.sequence_states(seq, lengths), atol=1e-6)


class TestLoss:
    @pytest.mark.parametrize("loss", ["bce", "ce"])
    @pytest.mark.parametrize("switch", [{"contrast": "none"}, {"sequence_weight": 0.0, "intent_weight": 0.0}])
    def test_without_contrast_it_is_sasrec_with_its_loss_step_by_step(self, switch, loss):
        seq, lengths, _ = sequences(n=32)
        split = leave_one_out(Histories.from_rows([[1, 2, 3, 30]] * 5, 30))
        ours, plain = iclrec(**switch, item_loss=loss), iclrec()
        losses = (ours.training_loss, encoder_loss(plain, split, TrainingOptions(objective=loss), torch.device("cpu")))
        for step in range(5):
            values = []
            for model, loss_of in zip((ours, plain), losses, strict=True):
                torch.manual_seed(step)
                optimiser = torch.optim.SGD(model.parameters(), 0.5)
                optimiser.zero_grad()
                value = loss_of(batch_of(seq, lengths), torch.Generator().manual_seed(step))
                value.backward()
                optimiser.step()
                values.append(value.item())
            assert values[0] == values[1]
        for one, two in zip(ours.parameters(), plain.parameters(), strict=True):
            assert torch.equal(one, two)

    @pytest.mark.parametrize("views", [2, 3])
    @pytest.mark.parametrize("pool", ["last", "mean_all", "mean_nonpad"])
    def test_contrasts_by_hand(self, views, pool):
        """In evaluation mode nothing is random but negatives and views: the sum is rebuilt from its parts."""
        model = iclrec(views=views, pool=pool, temperature=0.7).eval()
        model.centroids.copy_(torch.randn(4, 16))
        model.has_centroids.fill_(True)
        seq, lengths, _ = sequences(n=12)
        found = model.training_loss(batch_of(seq, lengths), torch.Generator().manual_seed(9))

        generator = torch.Generator().manual_seed(9)
        plain = iclrec(contrast="none").eval()
        expected = plain.training_loss(batch_of(seq, lengths), generator)
        made = [random_view(seq, lengths, (0.2, 0.7, 0.2), generator) for _ in range(views)]
        outputs = [model.padded_states(model._to_left(*view)) for view in made]
        pooled = [model._pool(states, model._to_left(*view)) for states, view in zip(outputs, made, strict=True)]
        nearest = torch.cdist(model.pooled_states(seq, lengths), model.centroids).argmin(1)
        intents = F.normalize(model.centroids[nearest], dim=1)
        for i in range(views):
            for j in range(i + 1, views):
                expected = expected + 0.1 * contrast(outputs[i].flatten(1), outputs[j].flatten(1), 0.7)
                expected = expected + 0.05 * (contrast(pooled[i], intents, 0.7) + contrast(pooled[j], intents, 0.7))
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)

    def test_intents_pull_only_the_encoder(self):
        model = iclrec(contrast="intent")
        model.centroids.copy_(torch.randn(4, 16))
        model.has_centroids.fill_(True)
        seq, lengths, generator = sequences(n=12)
        model.training_loss(batch_of(seq, lengths), generator).backward()
        assert not model.centroids.requires_grad
        assert model.item_embedding.weight.grad[0].abs().max() == 0  # padding never learns

    def test_recbole_batch(self):
        model = iclrec(contrast="sequence")
        seq, lengths, _ = sequences(n=6)
        batch = {"item_id_list": seq, "item_length": lengths, "item_id": torch.arange(1, 7)}
        loss = model.calculate_loss(batch)
        loss.backward()
        assert torch.isfinite(loss)


class TestReleasedCheckpoint:
    @pytest.mark.shared
    def test_published_numbers(self, data_mirror, beauty):
        from recllm_bench.evaluation.metrics import per_user
        from recllm_bench.evaluation.protocols import protocol_named
        from recllm_bench.evaluation.ranks import rank_cases

        path = data_mirror / "sequences/iclrec_checkpoints/ICLRec-Beauty-1.pt"
        model = ICLRec.load_released(path, n_items=beauty.histories.n_items)
        protocol = dataclasses.replace(protocol_named("unified.full"), seen_score="zero")
        ranks = rank_cases(model, beauty, beauty.test, protocol, max_length=model.history_length)
        means = {key: values.mean() for key, values in per_user(ranks, ("HR", "NDCG"), (5, 10, 20)).items()}
        published = {
            "HR@5": 0.0500,
            "NDCG@5": 0.0326,
            "HR@10": 0.0744,
            "NDCG@10": 0.0403,
            "HR@20": 0.1058,
            "NDCG@20": 0.0483,
        }
        assert {key: round(float(value), 4) for key, value in means.items()} == published

    @pytest.mark.shared
    def test_two_layer_checkpoint_of_movielens(self, data_mirror):
        model = ICLRec.load_released(data_mirror / "sequences/iclrec_checkpoints/ICLRec-ml-1m-1.pt")
        assert (len(model.blocks), model.history_length, model.n_items) == (2, 200, 3417)

    @pytest.mark.shared
    def test_another_dataset_is_refused(self, data_mirror):
        with pytest.raises(BenchError, match="12101 items, the dataset 50"):
            ICLRec.load_released(data_mirror / "sequences/iclrec_checkpoints/ICLRec-Beauty-1.pt", n_items=50)

    def test_other_files_are_refused(self, tmp_path):
        with pytest.raises(BenchError, match="no checkpoint at"):
            ICLRec.load_released(tmp_path / "absent.pt")
        (tmp_path / "text.pt").write_text("hello")
        with pytest.raises(BenchError, match="cannot be read"):
            ICLRec.load_released(tmp_path / "text.pt")
        torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
        with pytest.raises(BenchError, match="not a released ICLRec checkpoint"):
            ICLRec.load_released(tmp_path / "other.pt")
