"""A protocol in one file: the whole catalogue, counted in pages of 5, 10 and 20 items."""

from recllm_bench import Protocol

PROTOCOL = Protocol(
    "example.pages",
    "full ranking without the history, leave-one-out, in pages",
    metrics=("Pages", "NDCG"),
    cutoffs=(5, 10, 20),
)
