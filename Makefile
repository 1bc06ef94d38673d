# Few targets; each does its own set-up. Needs python3.11 or newer; everything else comes from requirements-dev.lock.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
BIN := .venv/bin
STAMP := .venv/.installed
DEMO_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-system check bench

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)  ## the daemon on an embedded Postgres with made data (DEMO_ARGS=--once ends when all promises are kept)
	$(BIN)/python -m retentiond demo $(DEMO_ARGS)

test: $(STAMP)  ## all tests that need nothing but Python
	$(BIN)/python -m pytest -m "not system" -n 2 --dist loadfile $(TEST_ARGS)

test-system: $(STAMP)  ## tests that need faketime, or pgbouncer (installed where root and apt-get are there)
	@for tool in faketime pgbouncer; do \
		if ! command -v $$tool >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -q && apt-get install -q -y --no-install-recommends $$tool || echo "$$tool can't be installed"; \
		fi; done
	@command -v faketime >/dev/null || [ "$$CI" != true ] || { echo "faketime is missing, and CI does without no test" >&2; exit 1; }
	$(BIN)/python -m pytest -m system $(TEST_ARGS)

check: $(STAMP)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## measure; results as JSON in benchmarks/results
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.idle

# An existing .venv is used as it is found. --no-build-isolation: the build backend is in the lock as well.
$(STAMP): requirements-dev.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)
