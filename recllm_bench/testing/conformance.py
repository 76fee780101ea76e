"""What every model must do to be benched, as tests to inherit.

    from recllm_bench.testing import ModelConformance

    class TestMyModel(ModelConformance):
        model = MyModel

The data is planted: a chain in which each item has one likely successor. Nothing is downloaded, and one class takes
seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from recllm_bench.recbole_bridge import build_model, interaction, load_state, save_state, trains_by_gradient
from recllm_bench.testing.planted import planted_histories


class ModelConformance:
    """Inherit, set ``model``, and let pytest collect the class.

    Attributes
    ----------
    model : type or str
        The model's class (or a name of RecBole's zoo).
    options : mapping
        Options to test with, where the defaults are too large for a quick test.
    training : mapping
        Options of the training loop.
    max_length : int
        Items of a history the model sees.
    text_width : int
        Numbers of an utterance's vector, for a model that reads words.
    learns : bool
        Whether the trained model must find the planted successors (at least three times as often as chance).
    """

    model: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}
    training: ClassVar[Mapping[str, Any]] = {"epochs": 12, "batch_size": 32, "learning_rate": 0.01}
    max_length: ClassVar[int] = 10
    text_width: ClassVar[int] = 8
    learns: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def split(cls) -> Any:
        """Leave-one-out split of the planted histories."""
        from recllm_bench.data.splits import leave_one_out

        return leave_one_out(planted_histories())

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, split: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[float]]:
        """The trained model, and its loss at every epoch (empty when it takes no steps)."""
        return cls.train(split, tmp_path_factory.mktemp("conformance"))

    @classmethod
    def build(cls, split: Any, seed: int = 0) -> Any:
        """A fresh model on the CPU."""
        model, _, _ = build_model(
            cls.model, split.histories, split.train_ends, cls.options, seed=seed, max_length=cls.max_length
        )
        return model.eval()

    @classmethod
    def train(cls, split: Any, work: Path, seed: int = 0, **training: Any) -> tuple[Any, list[float]]:
        """Build and train as the bench does; ``training`` changes options of the loop."""
        from recllm_bench.training.sequence import train_sequence_model
        from recllm_bench.training.training_options import TrainingOptions

        model = cls.build(split, seed)
        if not trains_by_gradient(model):
            return model, []
        defaults = getattr(type(model), "training_defaults", {})
        values = {**defaults, **cls.training, "max_length": cls.max_length, **training}
        outcome = train_sequence_model(model, split, TrainingOptions(**values), validate=None, work=work, seed=seed)
        return model.eval(), [entry["loss"] for entry in outcome.history]

    def scores(self, model: Any, histories: list[list[int]], width: int | None = None) -> Any:
        """Scores ``float [B, n_items + 1]`` of right-padded histories, as the evaluator asks for them."""
        import torch

        batch = _batch(histories, width)
        with torch.no_grad():
            if hasattr(model, "item_vectors") and hasattr(model, "sequence_states"):
                lengths = batch["item_length"]
                states = model.sequence_states(batch["item_id_list"], lengths)[
                    torch.arange(len(histories)), lengths - 1
                ]
                return states @ model.item_vectors().T
            return model.full_sort_predict(interaction(batch)).reshape(len(histories), -1)

    def test_is_a_recbole_recommender(self) -> None:
        """The class can run in plain RecBole."""
        from recbole.model.abstract_recommender import AbstractRecommender

        from recllm_bench.recbole_bridge.configuration import class_of

        assert issubclass(class_of(self.model), AbstractRecommender)

    def test_scores_every_item_with_a_number(self, split: Any) -> None:
        """One finite score for each item; column 0 is padding, which the evaluator ignores."""
        import torch

        scores = self.scores(self.build(split), [[1, 2, 3], [4], [5, 6]])
        assert scores.shape == (3, split.histories.n_items + 1)
        assert torch.isfinite(scores[:, 1:]).all()

    def test_loss_falls(self, trained: tuple[Any, list[float]]) -> None:
        """Training makes the loss smaller."""
        losses = trained[1]
        if not losses:
            pytest.skip("the model takes no gradient steps")
        assert np.isfinite(losses).all()
        assert losses[-1] < losses[0]

    def test_half_precision_trains_alike(self, trained: tuple[Any, list[float]], split: Any, tmp_path: Path) -> None:
        """Under bfloat16 autocast, the default on CUDA for models that train on windows, the loss is about the same."""
        from recllm_bench.training.sequence import reads_windows

        if not trained[1] or not reads_windows(trained[0]):
            pytest.skip("the model takes no steps in half precision unless asked to")
        losses = self.train(split, tmp_path, precision="bf16", epochs=1)[1]
        assert losses[0] == pytest.approx(trained[1][0], rel=0.05)

    def test_finds_the_planted_successors(self, trained: tuple[Any, list[float]], split: Any) -> None:
        """The held-out item is among the ten percent best far more often than by chance."""
        if not self.learns:
            pytest.skip("declared not to learn first-order structure")
        first, test = split.histories.offsets[split.test.users - 1], split.test
        rows = [
            split.histories.items[max(start, end - self.max_length) : end].tolist()
            for start, end in zip(first, test.ends, strict=True)
        ]
        scores = self.scores(trained[0], rows).numpy()[:, 1:]
        targets = scores[np.arange(len(rows)), test.targets - 1]
        best = (scores > targets[:, None]).sum(1) < split.histories.n_items // 10
        assert best.mean() > 0.3

    def test_same_seed_gives_the_same_model(self, trained: tuple[Any, list[float]], split: Any, tmp_path: Path) -> None:
        """Two runs with one seed are equal to the last bit on the CPU."""
        again, losses = self.train(split, tmp_path)
        assert losses == trained[1]
        rows = [[1, 2, 3], [4, 5]]
        np.testing.assert_array_equal(self.scores(again, rows).numpy(), self.scores(trained[0], rows).numpy())

    def test_saved_model_scores_the_same(self, trained: tuple[Any, list[float]], split: Any, tmp_path: Path) -> None:
        """A model built anew and given the saved state scores what the trained one scores."""
        save_state(trained[0], tmp_path / "state.pt")
        other = self.build(split, seed=1)
        load_state(other, tmp_path / "state.pt")
        rows = [[1, 2, 3], [7]]
        np.testing.assert_array_equal(self.scores(other.eval(), rows).numpy(), self.scores(trained[0], rows).numpy())

    def test_padding_changes_no_score(self, trained: tuple[Any, list[float]]) -> None:
        """A history scores the same in a wide batch and in a narrow one."""
        narrow = self.scores(trained[0], [[3, 1, 2]])[:, 1:].numpy()
        wide = self.scores(trained[0], [[3, 1, 2]], width=self.max_length)[:, 1:].numpy()
        np.testing.assert_allclose(wide, narrow, rtol=1e-4, atol=1e-5)

    def test_a_full_window_has_scores(self, trained: tuple[Any, list[float]], split: Any) -> None:
        """The longest history the model is given, and the shortest."""
        longest = [int(item) for item in split.histories.of(1)[: self.max_length]]
        assert np.isfinite(self.scores(trained[0], [longest, longest[:1]])[:, 1:].numpy()).all()

    def test_the_future_changes_no_state(self, trained: tuple[Any, list[float]]) -> None:
        """The state at a position depends on nothing after it (causal encoders)."""
        import torch

        model = trained[0]
        if not hasattr(model, "sequence_states"):
            pytest.skip("the model is no causal encoder")
        one, other = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 9, 8]])
        with torch.no_grad():
            states, changed = (model.sequence_states(rows, torch.tensor([5])) for rows in (one, other))
        np.testing.assert_allclose(states[:, :3].numpy(), changed[:, :3].numpy(), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(states[:, 3:], changed[:, 3:])

    def test_all_positions_agree_with_the_last_one(self, trained: tuple[Any, list[float]]) -> None:
        """Every position's state, times the item table, is what RecBole's own interface scores for that prefix."""
        import torch

        model = trained[0]
        if not hasattr(model, "sequence_states"):
            pytest.skip("the model is no causal encoder")
        row = [4, 3, 2, 1]
        with torch.no_grad():
            states = model.sequence_states(torch.tensor([row]), torch.tensor([len(row)]))[0]
            together = (states @ model.item_vectors().T)[:, 1:]
            for length in range(1, len(row) + 1):
                alone = model.full_sort_predict(interaction(_batch([row[:length]]))).reshape(1, -1)[0, 1:]
                np.testing.assert_allclose(together[length - 1].numpy(), alone.numpy(), rtol=1e-4, atol=1e-5)

    def test_scoring_twice_is_the_same(self, trained: tuple[Any, list[float]]) -> None:
        """In evaluation mode nothing is left to chance."""
        rows = [[1, 2, 3], [4]]
        first, second = self.scores(trained[0], rows), self.scores(trained[0], rows)
        np.testing.assert_array_equal(first.numpy(), second.numpy())

    def test_a_user_unknown_to_training_has_scores(self, split: Any) -> None:
        """A user of whom nothing is trained is ranked all the same."""
        import torch

        ends = split.train_ends.copy()
        ends[0] = split.histories.offsets[0]
        model = self.build(dataclasses.replace(split, train_ends=ends))
        assert torch.isfinite(self.scores(model, [[1, 2, 3]])[:, 1:]).all()

    def test_queries_agree_with_scores(self, trained: tuple[Any, list[float]]) -> None:
        """Query vectors times item vectors are the scores of RecBole's interface, with words where they are read."""
        import torch

        model = trained[0]
        if not hasattr(model, "query_vectors"):
            pytest.skip("the model has no query vectors")
        batch = _batch([[3, 1, 2], [5]])
        if getattr(type(model), "reads_words", False):
            batch["utterance_vector"] = torch.randn(2, self.text_width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            queries, items = model.query_vectors(batch), model.item_vectors()
            scores = model.full_sort_predict(interaction(batch)).reshape(2, -1)
        assert queries.shape == (2, items.shape[1])
        np.testing.assert_allclose((queries @ items.T)[:, 1:].numpy(), scores[:, 1:].numpy(), rtol=1e-4, atol=1e-5)

    def test_own_loss_takes_its_chance_from_the_generator(self, split: Any) -> None:
        """One finite number with a gradient; equal generators give equal losses, whatever was drawn elsewhere."""
        import torch

        model = self.build(split)
        if not hasattr(model, "training_loss"):
            pytest.skip("the model has no loss of its own")
        batch, losses = self.windows(model, split), []
        for elsewhere in (1, 2):
            torch.manual_seed(elsewhere)
            losses.append(model.training_loss(batch, torch.Generator().manual_seed(5)))  # without dropout
        assert losses[0].shape == () and torch.isfinite(losses[0]) and losses[0].requires_grad
        assert losses[0].item() == losses[1].item()

    def test_preparing_an_epoch_again_changes_nothing(self, split: Any) -> None:
        """After a kill an epoch is prepared once more: the loss must be the same."""
        import torch

        if not hasattr(self.build(split), "before_epoch"):
            pytest.skip("the model prepares nothing")
        losses = []
        for times in (1, 2):
            model = self.build(split)
            batch = self.windows(model, split)
            with torch.no_grad():
                for _ in range(times):
                    model.before_epoch(1, self.context(split))
            if hasattr(model, "training_loss"):
                losses.append(model.training_loss(batch, torch.Generator().manual_seed(5)).item())
            else:
                losses.append(self.scores(model, [[1, 2, 3]]).sum().item())
        assert losses[0] == losses[1]

    @classmethod
    def context(cls, split: Any) -> Any:
        """What ``before_epoch`` is given."""
        import torch

        from recllm_bench.data.windows import DeviceHistories
        from recllm_bench.training.sequence import EpochContext

        device = torch.device("cpu")
        return EpochContext(split, DeviceHistories(split.histories, device), cls.max_length, device, 0)

    @classmethod
    def windows(cls, model: Any, split: Any) -> Any:
        """A batch of training windows, the first epoch prepared."""
        import torch

        from recllm_bench.data.windows import training_windows

        found = training_windows(split.histories, split.train_ends, cls.max_length)
        context = cls.context(split)
        if hasattr(model, "before_epoch"):
            with torch.no_grad():
                model.before_epoch(1, context)
        return context.histories.window_batch(found, np.arange(16), cls.max_length)


def _batch(histories: list[list[int]], width: int | None = None) -> dict[str, Any]:
    """Columns of right-padded histories, as the evaluator gives them."""
    import torch

    width = width or max(map(len, histories))
    return {
        "user_id": torch.arange(1, len(histories) + 1),
        "item_id_list": torch.tensor([row + [0] * (width - len(row)) for row in histories]),
        "item_length": torch.tensor([len(row) for row in histories]),
    }
