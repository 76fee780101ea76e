"""The methods of the bench pass the suite that plug-ins inherit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from recllm_bench.models.sequence.iclrec import ICLRec
from recllm_bench.models.text_retrieval import TextRetrieval
from recllm_bench.testing import MethodConformance, ModelConformance


class TestTextRetrieval(MethodConformance):
    method = "text-retrieval"


class TestLatentCRS(MethodConformance):
    method = "latentcrs"
    options: ClassVar[dict[str, Any]] = {
        "intents": 4,
        "text_hidden": 8,
        "train_repeat": 1,
        "negatives": 3,
        "warmup_epochs": 1,
        "backbone_options": {"hidden_size": 8, "n_layers": 1, "intents": 4},
        "backbone_training": {"epochs": 1},
    }
    training: ClassVar[dict[str, Any]] = {"epochs": 1}
    changes: ClassVar[dict[str, Any]] = {
        "intents": 5,
        "backbone_options": {"hidden_size": 16, "n_layers": 1, "intents": 4},
    }


@pytest.mark.shared
class TestReLRec(MethodConformance):
    method = "relrec"
    options: ClassVar[dict[str, Any]] = {"llm": "llama2-stories260k", "p": 8, "label_tokens": 16, "label_versions": 1}
    training: ClassVar[dict[str, Any]] = {"epochs": 1, "max_length": 6}
    changes: ClassVar[dict[str, Any]] = {"p": 16, "alpha": 0.5}
    n_users, n_items = 16, 12

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def small_model(cls, models_folder: Path) -> None:
        """The small real language model."""


@pytest.mark.shared
class TestCESRec(MethodConformance):
    method = "cesrec"
    options: ClassVar[dict[str, Any]] = {
        "llm": "llama2-stories260k",
        "preset": "8b",
        "backend_options": {"hidden_size": 8, "n_layers": 1},
        "backend_training": {"epochs": 1},
        "adapter_hidden": 8,
        "adapter_epochs": 1,
        "prompt_items": 3,
        "examples": 10,
        "lora_rank": 2,
        "tune_epochs": 1,
        "tune_batch": 8,
        "tune_tokens": 400,
        "latency_users": 0,
    }
    changes: ClassVar[dict[str, Any]] = {"lora_rank": 4, "backend_options": {"hidden_size": 16, "n_layers": 1}}
    protocol = "cesrec.full"
    n_users = 16

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def small_model(cls, models_folder: Path) -> None:
        """The small real language model."""


class TestSASRecInOneStage(MethodConformance):
    """The method of a model that has none of its own."""

    method = "sasrec"
    options: ClassVar[dict[str, Any]] = {"hidden_size": 8, "n_layers": 1}
    changes: ClassVar[dict[str, Any]] = {"hidden_size": 16}


class TestICLRecModel(ModelConformance):
    """A loss of its own, and something to prepare before an epoch."""

    model = ICLRec
    options: ClassVar[dict[str, Any]] = {"hidden_size": 16, "n_layers": 1, "intents": 4, "dropout": 0.1}
    # Positions count from the end of the window, as in the released code: a prefix alone is another sequence.
    test_all_positions_agree_with_the_last_one = None  # type: ignore[assignment]


class TestTextRetrievalModel(ModelConformance):
    """Query vectors made with words."""

    model = TextRetrieval
    options: ClassVar[dict[str, Any]] = {"text_width": 8}
    learns = False
    training: ClassVar[dict[str, Any]] = {"epochs": 1}
