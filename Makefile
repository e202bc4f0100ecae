# One vocabulary for people and for CI. Everything runs in a virtual environment made on first use.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.run-installed
DEV_STAMP := $(VENV)/.dev-installed
# Where npm is found, the end-to-end tests also run the OpenTelemetry SDK for Node.
NODE_STAMP := $(if $(shell command -v npm),tests/e2e/node/node_modules/.installed)

.PHONY: run venv test soak check bench format stubs stubs-check docs docs-check clean

run: $(RUN_STAMP)
	$(BIN)/python -m gateway

venv: $(DEV_STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)

$(RUN_STAMP): $(BIN)/python requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(DEV_STAMP): $(BIN)/python requirements.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(RUN_STAMP)

tests/e2e/node/node_modules/.installed: tests/e2e/node/package-lock.json
	cd tests/e2e/node && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

test: $(DEV_STAMP) $(NODE_STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The fault tests in their long form: half an hour or more, with a table of figures at the end.
soak: $(DEV_STAMP)
	SOAK=1 $(BIN)/python -m pytest tests/faults $(PYTEST_ARGS)

format: $(DEV_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(DEV_STAMP) stubs-check docs-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Beside Rotel, and the Collector and Tempo where OTELCOL_BIN and TEMPO_BIN name them; needs h2load.
# Takes 20 minutes; BENCH_ARGS=--quick takes two and leaves the page alone.
BENCH_ARGS ?= --json docs/performance.json --svg docs/performance.svg --page docs/performance.md
bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

# Generated code is committed; `stubs-check` fails when it is stale.
stubs: $(DEV_STAMP)
	$(BIN)/python -m proto_stubs.generate

stubs-check: $(DEV_STAMP)
	$(BIN)/python -m proto_stubs.generate --check

# Reference pages and config/env.example are rendered from the code and committed; `docs-check` fails when they are stale.
docs: $(DEV_STAMP)
	$(BIN)/python docs/render.py

docs-check: $(DEV_STAMP)
	$(BIN)/python docs/render.py --check

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
