"""Tests that a plug-in's author inherits."""

from recllm_bench.testing.conformance import ModelConformance, planted_histories

__all__ = ["ModelConformance", "planted_histories"]
