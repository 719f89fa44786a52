# The verbs of this checkout. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
MEMBERS := $(patsubst %/pyproject.toml,%,$(wildcard services/*/pyproject.toml plugins/*/pyproject.toml))
MEMBERS := $(filter-out plugins/template,$(MEMBERS))

# Bytecode is kept whatever the shell says: without it every process of a run compiles torch's imports again.
export PYTHONDONTWRITEBYTECODE :=
export HF_HUB_OFFLINE ?= 1
export HF_DATASETS_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export RAY_ENABLE_UV_RUN_RUNTIME_ENV ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: help setup setup-deepspeed setup-four-bits run test test-unit test-models test-charts test-integration test-full e2e \
  lint generate bench clean lock

help: ## List the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: .venv/ready ## Make the environment in .venv

.venv/ready: requirements.lock pyproject.toml $(addsuffix /pyproject.toml,$(MEMBERS)) | $(UV)
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.14' .venv
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --no-deps --python $(BIN)/python $(addprefix -e ,$(MEMBERS)) -e .
	@touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

setup-deepspeed: setup ## DeepSpeed in .venv, for where.zero_stage above 0
	DS_BUILD_OPS=0 $(UV) pip install --quiet --no-deps --require-hashes --python $(BIN)/python -r requirements-deepspeed.lock

setup-four-bits: setup ## bitsandbytes in .venv, for a base in four bits (quantise: nf4)
	$(UV) pip install --quiet --no-deps --require-hashes --python $(BIN)/python -r requirements-four-bits.lock

run: setup ## Build, compare and serve the demo: examples/support-triage
	@$(BIN)/python examples/support-triage/demo.py

test: test-unit test-models test-charts test-integration ## All tests

UNITS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile
WITHOUT_MODELS = --ignore-glob '*/tests/models'

test-unit: setup ## The unit layer alone: seconds, without Ray, PyTorch or a server
	$(UNITS) $(WITHOUT_MODELS) -m 'not servers and not heavy' services plugins tests/architecture

test-models: setup ## The tests that open or train small models, without Ray
	$(UNITS) services/*/tests/models plugins/*/tests/models

test-charts: setup ## The chart, rendered by helm: `HELM`, else helm on PATH, else skipped
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/charts -rs

test-integration: setup ## The tests that need Ray, a server or a browser; two at a time, each with a Ray of its own
	$(UNITS) $(WITHOUT_MODELS) -m servers services
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/integration

test-full: setup-four-bits test setup-deepspeed ## All tests; bitsandbytes and DeepSpeed, which some need, stay in .venv
	$(BIN)/python -m pytest -m heavy tests/integration

e2e: setup ## The whole story on a cluster, `make e2e KUBECONFIG=...`: HELM, KUBECTL, E2E_NAMESPACE, E2E_VALUES, E2E_S3 are optional
	$(BIN)/python -m pytest -s -x --timeout 3600 tests/e2e

lint: setup ## Style, types, and the arrows between distributions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python charts/generate.py --check

generate: setup ## Write the generated references and tables again
	$(BIN)/python docs/generate.py
	$(BIN)/python charts/generate.py

bench: setup ## Benchmarks: ratios against named peers, each in one run
	$(BIN)/python tests/benchmarks/training_overhead.py
	$(BIN)/python tests/benchmarks/gateway_overhead.py

lock: | $(UV) ## Resolve again and write requirements.lock (versions and hashes, no addresses)
	$(UV) lock
	$(UV) export --quiet --all-packages --all-groups --all-extras --no-extra deepspeed --no-extra four-bits \
	  --no-emit-workspace --no-header --format requirements-txt -o requirements.lock
	for image in core torch; do $(UV) export --quiet --package espalier-platform --no-dev --extra $${image/torch/all} \
	  --no-emit-workspace --no-header --format requirements-txt -o infra/images/$$image.lock; done

clean: ## Remove the environment and all that runs left in this checkout
	rm -rf .venv .uv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name .espalier -type d -prune -exec rm -rf {} +
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
