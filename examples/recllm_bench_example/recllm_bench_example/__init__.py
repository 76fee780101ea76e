"""A model for recllm_bench in one class."""
