# Everything happens in .venv, which the targets make themselves. `make` alone explains.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Options for the program behind the target: make run ARGS="README.md", make test ARGS="-k redis -x"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test bench lint format type wheel clean

help:  ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.dev  ## Make .venv with all that development needs

run: $(VENV)/.run  ## Run the demo on the embedded broker; needs nothing but Python
	@$(BIN)/gotasks demo $(ARGS)

test: $(VENV)/.dev  ## Run the tests and say which backends they ran against
	@$(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/.dev  ## Measure a worker on the Redis at 127.0.0.1:6379, beside a bare client loop
	@$(BIN)/python benchmarks/redis_worker.py $(ARGS)

lint: $(VENV)/.dev  ## Check style, formatting and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev  ## Mend style and formatting where a tool can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

type: $(VENV)/.dev  ## Check types (mypy, strict)
	@$(BIN)/mypy

wheel: $(VENV)/.dev  ## Build the sdist, and the wheel from it, into dist/
	@$(BIN)/python -m build

clean:  ## Remove everything that these targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "gotasks needs Python 3.10 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "This Python can't make a virtual environment (Debian: apt install python3-venv)" >&2; exit 1; }

# Both are editable, so a change in the code needs no new installation; a change in pyproject.toml does.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@$(PIP) install --editable '.[dev,redis]'
	@touch $(VENV)/.run $@
