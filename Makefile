# Every verb that a person needs. Each does its own set-up, in .venv and nowhere else.
#
#   make test                        with python3 (3.11 or later)
#   make test PYTHON=python3.13      with another one; .venv is rebuilt for it
#   make test ARGS="-k fork -x"      with pytest's own options; the same for test-all
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
MINUTES ?= 10
TIMES ?= 10

# Two processes for each core, or none more for a single file (tests/conftest.py). One that has nothing left takes from the others.
PYTEST := $(BIN)/python -m pytest -q -n auto --dist worksteal

export PYTHON VENV

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-memory test test-all bounds js reference flaky soak fuzz bench docs lint format protos pins audit clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Build .venv with the server, the client and every development tool
	@scripts/setup.sh $(if $(filter-out file default undefined,$(origin PYTHON)),--exactly)

demo: setup ## Watch an agent die in mid-run and be finished by another process (a minute, no model or key needed)
	@$(BIN)/python -m examples.demo $(ARGS)

demo-memory: setup ## Watch an agent remember across threads and processes (half a minute)
	@$(BIN)/python -m examples.memory $(ARGS)

test: setup ## Run the tests, but for the long ones
	@$(PYTEST) -m "not long" $(ARGS)

test-all: setup ## Run all tests, as CI does
	@$(PYTEST) $(ARGS)

js: setup ## Build the JavaScript client, check its types and run its tests (Node.js 20 or later)
	@cd clients/js && npm ci --no-audit --no-fund && npm run build && npm run check && npm test -- $(ARGS)

bounds: ## Run what dependencies matter to with the oldest releases that are allowed (ARGS=newest: the newest)
	@scripts/test_bounds.sh $(or $(ARGS),oldest)

flaky: setup ## Run the tests again and again, in random order and with pauses (TIMES=10; ARGS="--seed 7 -- tests/rpc")
	@$(BIN)/python -m scripts.flaky --times $(TIMES) $(ARGS)

soak: setup ## Break things at random under load, and check that nothing is lost (MINUTES=10; ARGS="--seed 1234" repeats one)
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(ARGS)

fuzz: setup ## Throw more at every RPC than the tests do (MINUTES=10; Linux and macOS)
	@$(BIN)/python -m pip install --quiet --group fuzz
	@mkdir -p .build/fuzz
	@$(BIN)/python -m tests.fuzz.guided -max_total_time=$$(($(MINUTES) * 30)) -timeout=5 -artifact_prefix=.build/fuzz/
	@CHECKPOINTD_FUZZ_EXAMPLES=$$(($(MINUTES) * 150)) $(BIN)/python -m pytest -q tests/fuzz $(ARGS)

bench: setup ## Measure checkpointd beside the stock savers (takes a while; ARGS="--help" for more)
	@$(BIN)/python -m tests.bench $(ARGS)

lint: setup ## Check style, types, import rules, the protocol and the scripts
	@scripts/lint.sh

format: setup ## Put code into the house's format
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

protos: ## Make the Python stubs from the .proto files
	@scripts/generate_stubs.sh

docs: setup ## Build the documentation site, in .build/site (ARGS=serve shows it while you write)
	@scripts/docs.sh $(ARGS)

reference: setup ## Make the protocol's reference as HTML, in .build/reference
	@scripts/protocol_reference.sh

pins: ## Pin anew what the server image is made of, with hashes
	@scripts/pin_constraints.sh

audit: setup ## Look for known vulnerabilities in what the server image is made of
	@$(BIN)/python -m scripts.audit

clean: ## Remove everything that can be made again
	rm -rf $(VENV) .build clients/js/node_modules clients/js/dist clients/js/build clients/js/src/gen .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
