# One vocabulary for people and for CI. Everything runs in .venv, which is made on first use.
PYTHON ?= python3.11
BIN := .venv/bin
RUN_STAMP := .venv/.run-installed
DEV_STAMP := .venv/.dev-installed

.PHONY: run venv test check format stubs stubs-check bench soak docs clean

run: $(RUN_STAMP)
	$(BIN)/python -m gateway

venv: $(DEV_STAMP)

$(BIN)/python:
	$(PYTHON) -m venv .venv || python3 -m venv .venv

$(RUN_STAMP): $(BIN)/python requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(DEV_STAMP): $(BIN)/python requirements.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(RUN_STAMP)

test: $(DEV_STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

format: $(DEV_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(DEV_STAMP) stubs-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Generated code is committed; `stubs-check` fails when it is stale.
stubs: $(DEV_STAMP)
	$(BIN)/python -m proto_stubs.generate

stubs-check: $(DEV_STAMP)
	$(BIN)/python -m proto_stubs.generate --check

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
