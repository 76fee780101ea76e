"""The bench from Python; ``import recllm_bench`` offers what stands here.

Each function goes the way that the command of its name goes, so a number from here is the number from there.
"""
