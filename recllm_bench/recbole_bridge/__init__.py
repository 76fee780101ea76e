"""The one place that knows RecBole 1.2.1's quirks: shims, configuration, data in memory, its zoo of models.

Every shim names the place in RecBole it is for. Importing this package imports neither RecBole nor torch.
"""

from recllm_bench.api.registry import zoo_names
from recllm_bench.recbole_bridge.configuration import model_config, zoo_class, zoo_options
from recllm_bench.recbole_bridge.models import build_model, interaction, training_dataset
from recllm_bench.recbole_bridge.shims import load_recbole
from recllm_bench.recbole_bridge.state import load_state, save_state
from recllm_bench.recbole_bridge.training import training_batches, trains_by_gradient, zoo_training

__all__ = [
    "build_model",
    "interaction",
    "load_recbole",
    "load_state",
    "model_config",
    "save_state",
    "training_batches",
    "training_dataset",
    "trains_by_gradient",
    "zoo_class",
    "zoo_names",
    "zoo_options",
    "zoo_training",
]
