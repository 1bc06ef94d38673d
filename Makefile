# Few targets; each does its own set-up. Needs Python 3.11 or newer with venv; all else comes from requirements-dev.lock.
# PYTHON=… names another interpreter. Found by trying: a shim of a version manager may be there and not work.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
# Outside of .venv, because it has to be there before that and when that is half made.
UNFINISHED := .venv.unfinished
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The floor under the coverage of the whole of `make test`; with TEST_ARGS nothing is measured.
COVERED := 91
COVERAGE = $(if $(TEST_ARGS),,--cov --cov-report=term --cov-fail-under=$(COVERED))
# One process more than there are cores, since a test waits half of its time for a server or a process. Who has nothing left
# to do takes over from who has, so that all end together.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -lt 8 ] || n=8; echo $$((n + 1)))
PARALLEL = -n $(JOBS) --dist worksteal
# Named once more at the very end, since a log that is cut short keeps its last lines.
NAMED = || { $(BIN)/python -m pytest -q --cache-show 'cache/lastfailed'; exit 1; }
DEMO_ARGS ?=
BENCH_ARGS ?=
TEST_ARGS ?=
# Of a campaign: for how many seconds things happen, and the seed of what happens (unset: another one each time).
N ?= 120
SEED ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-system campaign check bench

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)  ## the daemon on an embedded Postgres with made data (DEMO_ARGS=--once ends when all promises are kept)
	@$(BIN)/python -m retentiond demo $(DEMO_ARGS)

test: $(STAMP)  ## all tests that need nothing but Python, and their coverage (TEST_ARGS=tests/unit for some)
	$(BIN)/python -m pytest -m "not system" $(PARALLEL) $(COVERAGE) $(TEST_ARGS) $(NAMED)

test-system: $(STAMP)  ## tests that need faketime, pgbouncer, spin and gcc, or Ceph (installed where root and apt-get are there), and short campaigns
	@for tool in faketime pgbouncer spin gcc radosgw; do \
		if ! command -v $$tool >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			packages="$$tool"; [ $$tool != gcc ] || packages="gcc libc6-dev"; \
			[ $$tool != radosgw ] || packages="radosgw ceph-mon ceph-osd ceph-common"; \
			apt-get update -q && apt-get install -q -y --no-install-recommends $$packages || echo "$$tool can't be installed"; \
		fi; done
	@for tool in faketime spin gcc radosgw; do command -v $$tool >/dev/null || { \
		echo "$$tool is missing; remedy: install the package of that name" >&2; exit 1; }; done
	$(BIN)/python -m pytest -m system $(PARALLEL) $(TEST_ARGS) $(NAMED)

campaign: $(STAMP)  ## processes, servers and a network that fail for N seconds, judged from outside; draining and judging come on top (N=3600 SEED=7)
	$(BIN)/python -m tests.campaign --seconds $(N) $(if $(SEED),--seed $(SEED))

check: $(STAMP)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## measure; results as JSON in benchmarks/results (BENCH_ARGS=--help)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# An existing .venv is used as it is found, unless an installation into it was interrupted: what pip had half written then
# counts for it as installed. --no-build-isolation: the build backend is in the lock as well.
$(STAMP): requirements-dev.lock pyproject.toml
	@if [ -e $(UNFINISHED) ] && [ -e .venv ]; then echo "an installation was interrupted: making .venv anew"; rm -rf .venv; fi
	@if [ ! -x $(BIN)/python ] && [ -z "$(PYTHON)" ]; then \
		echo "no Python 3.11 or newer with venv and ensurepip was found" >&2; \
		echo "  remedy: install one (Debian, Ubuntu: apt-get install python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi
	@touch $(UNFINISHED)
	@test -x $(BIN)/python || "$(PYTHON)" -m venv --clear .venv
	$(PIP) -r requirements-dev.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@rm -f $(UNFINISHED)
	@touch $(STAMP)
