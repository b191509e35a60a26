# surveyproc: `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# A find-links folder with another torch build would break the lock's hashes.
unexport PIP_FIND_LINKS UV_FIND_LINKS PIP_EXTRA_INDEX_URL
export VIRTUAL_ENV := $(CURDIR)/.venv
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0

.DEFAULT_GOAL := help
.PHONY: help env demo test test-clusters test-rest check format bench chaos mutations lock

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

env: .venv/.installed ## make .venv from the lock (about 7 GB with CUDA libraries)

.venv/.installed: pyproject.toml infra/locks/cpu.lock infra/locks/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "surveyproc needs Python 3.11 or newer: make env PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r infra/locks/bootstrap.lock
	$(BIN)/uv pip install --quiet --require-hashes -r infra/locks/cpu.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: env ## simulate a small survey, run the main job on it, write a report to ./demo
	$(BIN)/surveyproc demo

test: env ## the whole test suite: what starts Ray clusters beside the rest
	@$(MAKE) --no-print-directory --jobs 2 --keep-going test-clusters test-rest

CLUSTERS = tests/cluster tests/distributed
test-clusters:
	$(BIN)/python -m pytest -q $(CLUSTERS)

test-rest:
	$(BIN)/python -m pytest -q $(CLUSTERS:%=--ignore=%)

check: env ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env ## format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

bench: env ## throughput and memory of surveyproc run; docs/performance.md says how to read it
	$(BIN)/python jobs/bench/run.py

CHAOS = PYTHONPATH=.:tests:tests/chaos:tests/cluster $(BIN)/python
chaos: env ## 100 random faults over a run on two Ray nodes and a bucket (needs root for namespaces)
	$(CHAOS) tests/chaos/storm.py

mutations: env ## the small storm of the test suite must fail when a rule of the ledger is switched off
	$(CHAOS) tests/chaos/mutations.py

LOCK = $(BIN)/uv pip compile pyproject.toml --extra train --extra serve --extra sim --extra dev --generate-hashes \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11 --quiet
lock: ## resolve pyproject.toml again into infra/locks
	$(LOCK) --extra cpu -o infra/locks/cpu.lock
	$(LOCK) --extra gpu -o infra/locks/gpu.lock
