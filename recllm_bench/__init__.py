"""recllm_bench: does a language model make a recommender better, by how much, and at what cost?

    import recllm_bench as rb

    run = rb.run("sasrec", "ml-100k", training={"epochs": 3})
    print(rb.compare([run, "pop"]))

``docs/python.md`` goes through it. Each name below is imported when it is first used, so that the import itself costs
nothing; types stand in ``__init__.pyi``.
"""

from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    "recllm_bench.python.runs": ("Run", "compare", "run"),
    "recllm_bench.python.outside": ("evaluate",),
    "recllm_bench.python.datasets": ("Dataset", "load_dataset"),
    "recllm_bench.python.run_tables": ("Table",),
    "recllm_bench.api": (
        "CausalEncoder",
        "Converses",
        "Job",
        "Measure",
        "Method",
        "OwnLoss",
        "PreparesEpochs",
        "QueryEncoder",
        "Stage",
        "Words",
        "check",
    ),
    "recllm_bench.evaluation.protocols": ("Protocol",),
    "recllm_bench.options": ("option",),
    "recllm_bench.errors": ("BenchError",),
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'recllm_bench' has no attribute '{name}'; it has {', '.join(sorted(_HOMES))}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
