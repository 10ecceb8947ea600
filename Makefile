# Two commands for everybody: `make demo` and `make test`. The rest is for those who work on the code.
#
# Needs git, make, Python >= 3.11 and its venv module. Everything else is installed here: Python packages into
# .venv, each file checked against the hash in its lock; programs the tests start come from the distribution.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCKED := install --quiet --require-hashes --only-binary :all:

RUN_READY := $(VENV)/.ready-run
DEV_READY := $(VENV)/.ready-dev
RUN_LOCKS := requirements.txt requirements-build.txt

# Debian keeps servers where a user's own path does not look.
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format generate fuzz bench chaos lock image-check install install-dev test-tools clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(RUN_READY) ## installs, then runs a service, the proxy, traffic and faults; Ctrl-C ends it
	@exec $(BIN)/python -m sidecar.demo $(ARGS)

test: $(DEV_READY) test-tools ## installs what the tests need and runs the tests; ARGS=-n0: one at a time
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile $(ARGS)

chaos: $(DEV_READY) test-tools ## the slow proofs: restic killed, starved and damaged, a slow store, a server that is away
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(DEV_READY) ## lint, format, strict types, the floors, generated files fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/generate.py --check
	$(BIN)/python -m benchmarks.report --check

format: $(DEV_READY) ## formats the code and sorts its imports
	$(BIN)/ruff check --select I --fix --quiet .
	$(BIN)/ruff format .

generate: $(DEV_READY) ## writes the generated files anew
	$(BIN)/python scripts/generate.py

fuzz: $(DEV_READY) ## runs the fuzzers; SECONDS=600 for longer
	$(BIN)/python -m pytest tests/fuzz -o addopts= --timeout 0 $(ARGS)

bench: $(DEV_READY) ## measures against the peers on this machine; about 40 minutes
	benchmarks/install.sh
	$(BIN)/python -m benchmarks.load $(ARGS)
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.footprint
	$(BIN)/python -m benchmarks.report

image-check: $(DEV_READY) ## lints the Dockerfile and runs its install steps without a container
	$(BIN)/hadolint Dockerfile
	$(BIN)/python scripts/dockerfile_steps.py

lock: $(DEV_READY) ## resolves the dependencies anew; UPGRADE=1 takes newer releases
	scripts/lock $(if $(UPGRADE),--upgrade)

install: $(RUN_READY) ## what running needs, into .venv
install-dev: $(DEV_READY) ## what developing and testing need, into .venv

test-tools:
	@scripts/install-test-tools

clean: ## removes caches and the demo's state, keeps .venv
	rm -rf .demo .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

# A stamp is newer than its lock: installed. An environment made by other means is completed, not replaced.
$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "make: cannot create $(VENV); on Debian: apt-get install python3-venv" >&2; exit 1; }

$(RUN_READY): $(RUN_LOCKS) pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing the locked dependencies into $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	@$(PIP) $(LOCKED) $(addprefix -r ,$(RUN_LOCKS))
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_READY): requirements-dev.txt $(RUN_READY)
	@echo "installing what developing and testing need into $(VENV)"
	@$(PIP) $(LOCKED) -r requirements-dev.txt
	@touch $@
