from recllm_bench.api import CausalEncoder as CausalEncoder
from recllm_bench.api import Converses as Converses
from recllm_bench.api import Job as Job
from recllm_bench.api import Method as Method
from recllm_bench.api import OwnLoss as OwnLoss
from recllm_bench.api import PreparesEpochs as PreparesEpochs
from recllm_bench.api import QueryEncoder as QueryEncoder
from recllm_bench.api import Stage as Stage
from recllm_bench.api import Words as Words
from recllm_bench.api import check as check
from recllm_bench.errors import BenchError as BenchError
from recllm_bench.evaluation.protocols import Protocol as Protocol
from recllm_bench.options import option as option
from recllm_bench.python.datasets import Dataset as Dataset
from recllm_bench.python.datasets import load_dataset as load_dataset
from recllm_bench.python.outside import evaluate as evaluate
from recllm_bench.python.runs import Run as Run
from recllm_bench.python.runs import compare as compare
from recllm_bench.python.runs import run as run
from recllm_bench.python.tables import Table as Table

__version__: str
