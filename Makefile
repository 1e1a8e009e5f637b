# Needs python3 (>= 3.11) with pip, and make. Everything else comes with it, pinned by hash, into .venv.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
# The system's pip installs into .venv: works without Debian's python3-venv, and saves a second pip.
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check --no-input
# What runs is compiled once here: else each of the demo's processes would do it anew, where the user's settings forbid
# Python to write what it compiled. What only tests use is compiled when the tests first import it.
INSTALL := $(PIP) install --quiet --no-compile --require-hashes --only-binary :all:
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-demo demo test lint bench soak ci-deps requirements clean distclean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "ssmd needs Python 3.11 or later, $(PYTHON) is older: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m pip --version >/dev/null \
		|| { echo "$(PYTHON) has no pip: apt-get install python3-pip" >&2; exit 2; }
	$(PYTHON) -m venv --without-pip .venv

.venv/.runtime: requirements.txt requirements-build.txt pyproject.toml | $(BIN)/python
	@echo 'Installing ssmd and what it needs into .venv (about 20 s) ...'
	@$(INSTALL) -r requirements.txt -r requirements-build.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 .venv/lib src
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.runtime
	@echo 'Installing what the tests and checks need (about 15 s) ...'
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

setup: .venv/.dev  ## Create .venv with everything pinned (skipped when up to date)

setup-demo: .venv/.runtime

demo: setup-demo  ## Run the whole main job against the simulator and show what it holds
	$(BIN)/ssmd demo

test: lint  ## Lint, type-check and run every test
	@# The tests start hundreds of processes: what was edited since setup is compiled once, not by each of them, also where the
	@# user's settings forbid Python to write it.
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(WORKERS) --dist worksteal

lint: setup  ## Style, types and the layer contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## Measure the hot paths (benchmarks/*.py): one table, each figure beside a baseline of the same run
	$(BIN)/python benchmarks/_bench.py

soak: setup  ## Long runs with real durations (benchmarks/soak_*.py); writes docs/measurements/*.json
	@set -e; for script in $(sort $(wildcard benchmarks/soak_*.py)); do echo "== $$script"; $(BIN)/python "$$script"; done

ci-deps:  ## Install the Debian packages some tests use (capnproto, jq, zstd, chromium, promtool)
	@.ci/debian-packages

requirements: setup  ## Pin anew what pyproject.toml asks for
	@# Everything first: what runs alone must agree with what runs beside the extras and the tests.
	$(COMPILE) --upgrade --all-extras --group dev --group build pyproject.toml --output-file requirements-dev.txt
	$(COMPILE) --upgrade --extra embedded --constraints requirements-dev.txt pyproject.toml --output-file requirements.txt
	$(COMPILE) --upgrade --extra s3 --extra vault --extra export --extra otel --constraints requirements-dev.txt pyproject.toml --output-file requirements-image.txt
	$(COMPILE) --upgrade --group build --constraints requirements-dev.txt --output-file requirements-build.txt

clean:  ## Remove the demo's data and all caches; captured data in .ssmd stays
	rm -rf .ssmd/demo dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## Also remove .venv and .tools
	rm -rf .venv .tools
