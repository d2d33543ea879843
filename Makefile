# Two commands do all the set-up: `make dev` and `make test`. Everything they need beyond Python and make is installed
# by tools/environment.py (into .venv) and tools/system_parts.py (with apt, where that is allowed).
# Arguments are passed on: make dev ARGS="--port 9000", make test ARGS="-k windows".

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
# Whole stacks mostly wait, and are one worker's; the other one has all the rest meanwhile (tests/conftest.py).
WORKERS ?= -n 2 --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help dev test test-fast lint format bench soak run-environment dev-environment parts upgrade clean

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: run-environment ## Start the whole stack on this machine (http://connect.localhost:8080)
	@exec $(BIN)/python -m connect_trio dev $(ARGS)

test: dev-environment parts lint ## Install what tests need, then run every check
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-fast: dev-environment ## Only the tests that need no browser and a few seconds at most
	$(BIN)/python -m pytest -m "not browser and not slow" $(ARGS)

lint: dev-environment ## Static checks: ruff, formatting, mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: dev-environment ## Put imports and layout right
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

bench: dev-environment ## Speed, beside a plain relay chain of as many hops
	$(BIN)/python -m benchmarks $(ARGS)

soak: dev-environment parts ## The long form of what the tests show in short: more data, connections and examples
	CONNECT_E2E_FULL=1 CONNECT_TEST_EXAMPLES=2000 CONNECT_TEST_WALKS=50000 $(BIN)/python -m pytest -o faulthandler_timeout=1800 tests/e2e tests/mux tests/ssh tests/agent/shell $(ARGS)

run-environment:
	@$(PYTHON) tools/environment.py run

dev-environment:
	@$(PYTHON) tools/environment.py dev

parts:
	@$(PYTHON) tools/system_parts.py

upgrade: ## Pin the newest versions that fit pyproject.toml
	@$(PYTHON) tools/environment.py upgrade

clean: ## Remove everything that can be made again
	rm -rf .venv .dev build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis test-artifacts
