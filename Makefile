# Everything happens in .venv, which the targets make themselves. `make` alone explains.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Options for the program behind the target: make run ARGS="README.md", make test ARGS="-k redis -x"
ARGS ?=

RECORDS = redis%3A%2F%2F127.0.0.1%3A6379%2F0%3Fdurability%3Dkill
REPORT = --report docs/conformance/$(1).json --markdown docs/conformance/$(1).md

# Some shells and images ask for no bytecode. The tests start a thousand processes, and each would compile anew what it
# imports of this checkout.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run test test-docker conformance bench docs lint format type wheel release-check clean

help:  ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.dev  ## Make .venv with all that development needs

run: $(VENV)/.run  ## Run the demo on a SQLite file here; needs nothing but Python
	@$(BIN)/gotasks demo $(ARGS)

test: $(VENV)/.dev  ## Run the tests and say which backends they ran against
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-docker: $(VENV)/.dev  ## Check every backend on servers in containers, and print what was seen of each version
	@$(BIN)/python -c "import gotasks_nats" 2>/dev/null || $(PIP) install --editable contrib/gotasks-nats
	@$(BIN)/python -m tests.docker.matrix $(ARGS)

conformance: $(VENV)/.dev  ## Check every backend in full, on the servers of this machine, and renew docs/conformance/
	@$(BIN)/python -m gotasks.conformance.markdown > docs/conformance/contract.md
	@$(BIN)/gotasks check "memory://" --profile core $(call REPORT,memory)
	@$(BIN)/gotasks check "redis://127.0.0.1:6379/0?durability=kill" --profile full $(call REPORT,redis)
	@$(BIN)/gotasks check "sqlite:///conformance.db" --profile full $(call REPORT,sqlite)
	@$(BIN)/gotasks check "postgresql+psycopg://postgres@127.0.0.1/postgres" --profile full $(call REPORT,postgresql)
	@$(BIN)/gotasks check "mariadb+pymysql://root@127.0.0.1/test" --profile full $(call REPORT,mariadb)
	@$(BIN)/gotasks check "amqp://guest:guest@127.0.0.1:5672/%2F" --profile durable $(call REPORT,rabbitmq)
	@$(BIN)/gotasks check "amqp://guest:guest@127.0.0.1:5672/%2F?records=$(RECORDS)" --profile full $(call REPORT,rabbitmq-records)

bench: $(VENV)/.dev  ## Measure gotasks beside its peers on the servers that answer
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(VENV)/.docs  ## Renew what is generated in docs/ (ARGS=--check: only see that it's current), and build site/
	@$(BIN)/python -m docs.generate $(ARGS)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

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

release-check: $(VENV)/.dev  ## See whether this can be released: build it, and try each extra on each Python
	@$(BIN)/python -m tests.packaging.release $(ARGS)

clean:  ## Remove everything that these targets made
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "gotasks needs Python 3.10 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "This Python can't make a virtual environment (Debian: apt install python3-venv)" >&2; exit 1; }

# Both are editable, so a change in the code needs no new installation; a change in pyproject.toml does.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing gotasks[sql] into $(VENV), once"
	@$(PIP) install --editable '.[sql]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@$(PIP) install --editable '.[dev,redis,postgres,mysql,rabbitmq]'
	@touch $(VENV)/.run $@

$(VENV)/.docs: $(VENV)/.dev
	@$(PIP) install --editable '.[docs]'
	@touch $@
