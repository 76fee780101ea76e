"""Plug-ins for recllm_bench, one file each."""
