"""The contract: what a model, a method, a simulated user, a metric and a protocol are, in types.

Nothing here imports torch, RecBole or any floor of the bench above it: read it as the description of what a plug-in may
say, and what the bench does with it. ``docs/plugins.md`` goes through it name by name.
"""

from recllm_bench.api.contract import check
from recllm_bench.api.measure import Measure
from recllm_bench.api.method import Job, Method, Stage
from recllm_bench.api.model import CausalEncoder, Converses, OwnLoss, PreparesEpochs, QueryEncoder
from recllm_bench.api.registry import ModelEntry, model_named, names, resolve
from recllm_bench.api.words import Speaker, Words

__all__ = [
    "CausalEncoder",
    "Converses",
    "Job",
    "Measure",
    "Method",
    "ModelEntry",
    "OwnLoss",
    "PreparesEpochs",
    "QueryEncoder",
    "Speaker",
    "Stage",
    "Words",
    "check",
    "model_named",
    "names",
    "resolve",
]
