# Every target sets itself up: the virtual environment in $(VENV) is built from pyproject.toml and
# constraints.txt on first use and rebuilt when either changes. `make` lists the targets.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
# Threads of each test process. With more than one a worker, the workers fight over the cores.
THREADS ?= 1
# Extra arguments for `pip install torch`, for example an index with another build (see README, Installation).
PIP_TORCH_ARGS ?=
# Extra arguments for pytest (make test) and for contraverse (make quickstart).
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.contraverse-installed
DOCS_STAMP := $(VENV)/.contraverse-docs-installed
TORCH := $(shell grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-all check format method-pages results docs build clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## build the environment (.venv) with pinned, tested versions

quickstart: $(STAMP) ## train and attack two classifiers on the bundled encoder, write an HTML report
	$(BIN)/contraverse quickstart $(ARGS)

test: $(STAMP) ## run the tests, without those marked slow, gpu or network
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-all: $(STAMP) ## run the slow tests too
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not network and not gpu' $(ARGS)

check: $(STAMP) ## format, lint, types, import direction, spelling; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py
	$(BIN)/codespell

format: $(STAMP) ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

method-pages: $(STAMP) ## write the tables of docs/methods: settings of each method, all methods
	$(BIN)/python -m contraverse.methods._pages docs/methods

results: $(STAMP) ## write the studies' part of docs/results.md from studies/ and docs/results/
	$(BIN)/python -m contraverse.pipeline._results studies docs/results docs/results.md

docs: $(DOCS_STAMP) ## build the documentation as a site into build/site, with an API reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

build: $(STAMP) ## build a wheel into dist/
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean: ## remove the environment, caches and builds; keeps runs/
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: $(PYTHON) not found; install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.12" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { \
	  echo "make: '$(PYTHON) -m venv' failed; on Debian and Ubuntu the package python3-venv is needed" >&2; exit 2; }
	@if [ -z "$(PIP_TORCH_ARGS)" ] && ! command -v nvidia-smi >/dev/null && [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  echo "No NVIDIA GPU found. If pip starts to download a CUDA build of torch (gigabytes), stop it and"; \
	  echo "set PIP_TORCH_ARGS to PyTorch's index of CPU builds: README.md, Installation."; fi
	$(BIN)/python -m pip install $(PIP_TORCH_ARGS) $(TORCH)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,images,onnx,peft,quickstart,search,tensorboard]'
	@touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e '.[docs]'
	@touch $@
