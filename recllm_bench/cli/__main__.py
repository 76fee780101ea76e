"""``python -m recllm_bench.cli``."""

import sys

from recllm_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
