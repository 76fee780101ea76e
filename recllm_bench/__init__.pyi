from recllm_bench.api import (
    CausalEncoder,
    Converses,
    Job,
    Measure,
    Method,
    OwnLoss,
    PreparesEpochs,
    QueryEncoder,
    Stage,
    Words,
    check,
)
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import Protocol
from recllm_bench.options import option
from recllm_bench.python.datasets import Dataset, load_dataset
from recllm_bench.python.outside import evaluate
from recllm_bench.python.run_tables import Table
from recllm_bench.python.runs import Run, compare, run

__version__: str
__all__ = [
    "BenchError",
    "CausalEncoder",
    "Converses",
    "Dataset",
    "Job",
    "Measure",
    "Method",
    "OwnLoss",
    "PreparesEpochs",
    "Protocol",
    "QueryEncoder",
    "Run",
    "Stage",
    "Table",
    "Words",
    "__version__",
    "check",
    "compare",
    "evaluate",
    "load_dataset",
    "option",
    "run",
]
