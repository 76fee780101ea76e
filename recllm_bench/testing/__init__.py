"""Tests that a plug-in's author inherits."""

from recllm_bench.testing.conformance import ModelConformance
from recllm_bench.testing.method_conformance import MethodConformance
from recllm_bench.testing.planted import planted_files, planted_histories

__all__ = ["MethodConformance", "ModelConformance", "planted_files", "planted_histories"]
