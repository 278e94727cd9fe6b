# The ways to work with this project; `make` alone lists them. Needs Python 3.11 to 3.13 and the package registries.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:

# Everything that is not in git: data, run history, masking keys.
EDP_STATE ?= $(CURDIR)/.edp
EDP_PROJECT := $(CURDIR)
DAGSTER_HOME := $(CURDIR)/dagster_home
EDP_DAGSTER_STATE := $(EDP_STATE)/dagster
PORT ?= 3000
PYTEST_ARGS ?=
# Two workers halve the time of all tests, and only add to that of a few.
TEST_WORKERS ?= $(if $(filter -k -m --lf --ff --pdb tests/% code_locations/%,$(PYTEST_ARGS)),0,2)
CHECKS ?=
export EDP_STATE EDP_PROJECT DAGSTER_HOME EDP_DAGSTER_STATE
# dbt and Dagster report usage to their makers unless told otherwise.
export DO_NOT_TRACK := 1
export DAGSTER_DISABLE_TELEMETRY := yes

BIN := .venv/bin
SYNCED := .venv/.synced
# Tests choose their own state; what this file exports must not leak into them. They start hundreds of processes,
# each of which would compile the project anew if it were told to write no bytecode.
UNSET := env -u PYTHONDONTWRITEBYTECODE -u EDP_STATE -u EDP_PROJECT -u EDP_DAGSTER_STATE -u EDP_ENVIRONMENT -u DAGSTER_HOME -u MAKEFLAGS -u MAKELEVEL
PYTEST = $(UNSET) $(BIN)/python -m pytest -n $(TEST_WORKERS) --max-worker-restart 0 --dist loadgroup --no-loadscope-reorder

.PHONY: help demo ui setup test test-fast oracle explore faults spark check validate format clean install

help: ## list these commands
	@echo 'make <command>, where <command> is one of'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

demo: setup ## play two days of the main job on sample data, and show what happened
	@$(BIN)/edp demo

ui: setup ## open the Dagster UI on http://127.0.0.1:3000 (PORT=3001 for another port)
	@$(BIN)/python scripts/ui.py $(PORT)

setup: install ## install what is missing and prepare storage, masking keys and dbt manifests
	@$(BIN)/edp setup

test: setup ## run all tests; PYTEST_ARGS="-k name" for some
	@./scripts/chromium
	@./scripts/mariadb
	@./scripts/azurite
	@$(PYTEST) $(PYTEST_ARGS)

test-fast: setup ## run the tests that need no server and little time
	@$(PYTEST) -m "not services and not slow" $(PYTEST_ARGS)

oracle: setup ## play 100,000 steps of sources, loads and crashes against a model
	@$(UNSET) ORACLE_SCALE=10 $(BIN)/python -m pytest -s tests/oracle

explore: setup ## play the tests of properties and the state machines on examples nobody has seen
	@$(UNSET) HYPOTHESIS_PROFILE=explore ORACLE_SCALE=2 CONTROL_SCALE=2 $(BIN)/python -m pytest -q $$(grep -rl hypothesis tests --include='test_*.py')

faults: setup ## kill 500 loads and 200 applies at named points and random times, and write down what was lost
	@$(UNSET) $(BIN)/python -m tests.faults.campaign --kills 500
	@$(UNSET) $(BIN)/python -m tests.control_plane.campaign --kills 200 --applies 200

spark: setup ## build dbt projects with a real Spark (430 MB, minutes)
	@./scripts/spark
	@$(UNSET) $(BIN)/python -m pytest -q tests/dbt/spark_builds.py

check: setup ## format, lint, types, layers, control files, definitions, generated files, containers, pipeline
	@$(BIN)/python scripts/check.py $(CHECKS)

validate: setup ## load the definitions of one code location: LOCATION=mobility
	@$(BIN)/dagster definitions validate --log-level warning --module-name $(LOCATION).definitions

format: install ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

clean: ## remove all that make wrote: .venv, caches, and .edp with data, history and masking keys
	rm -rf .venv .edp .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage coverage.xml htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment whose interpreter is gone, or that belongs to another folder, is not installed.
ifneq ($(shell $(BIN)/python -c 'print("works")' 2>/dev/null)$(shell cat $(SYNCED) 2>/dev/null),works$(CURDIR))
.PHONY: $(SYNCED)
endif

install: $(SYNCED)

$(SYNCED): uv.lock pyproject.toml $(wildcard code_locations/*/pyproject.toml) scripts/install
	@PYTHON='$(PYTHON)' ./scripts/install
