"""recllm_bench: does a language model make a recommender better, by how much, and at what cost?"""

__version__ = "0.1.0"
