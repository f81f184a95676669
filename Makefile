# `make demo` and `make test` do all the set-up there is. Targets are listed by `make help`.

PYTHON ?= python3
VENV ?= .venv
# What is installed into VENV; .ci/run installs a wheel into another one.
PACKAGE ?= --editable '.[dev]'
# Further arguments of demo, test, bench, torture and board: make test ARGS="-k replay"
ARGS ?=

BIN := $(VENV)/bin
# A process for each core, and in it one thread: small tensors gain nothing by more.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist worksteal
INSTALLED := $(VENV)/.installed
LOG := $(VENV)/install.log
ifneq ($(shell command -v uv 2>/dev/null),)
INSTALLER := uv
MAKE_VENV := uv venv --quiet --seed --python $(PYTHON) $(VENV)
INSTALL := uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt
else
INSTALLER := pip
MAKE_VENV := $(PYTHON) -m venv $(VENV)
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
endif

.PHONY: help demo test check fix bench torture board docs wheel pins clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED)  ## run the main job into runs/ and compare
	$(BIN)/continual-mm demo $(ARGS)

test: $(INSTALLED)  ## run the tests
	$(PYTEST) $(ARGS)

check: $(INSTALLED)  ## format check, lint, import contracts, types, tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(PYTEST)

fix: $(INSTALLED)  ## format, and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## run the benchmarks
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/store.py $(ARGS)

torture: $(INSTALLED)  ## hostile inputs, kills, full disks; counts what must not happen
	$(BIN)/python benchmarks/torture $(ARGS)

board: $(INSTALLED)  ## open TensorBoard on runs/
	$(BIN)/continual-mm board runs $(ARGS)

docs: $(INSTALLED)  ## build the site into site/, every warning an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(INSTALLED)  ## build dist/*.whl
	rm -rf dist
	$(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --wheel-dir dist .

# Packages of the CUDA build are left out: torch itself pins them, and a CPU build has none.
pins: pyproject.toml  ## write constraints.txt anew (needs uv)
	uv pip compile --universal --fork-strategy fewest --python-version 3.11 --extra dev \
	    --no-header --no-annotate --quiet pyproject.toml > constraints.txt.all
	grep -vE '^(cuda|nvidia|triton)\b' constraints.txt.all > constraints.txt
	rm constraints.txt.all

clean:  ## remove what can be made again; runs/ stays
	rm -rf $(VENV) dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Every step says what it is; what pip or uv prints goes into LOG, shown in part where it fails.
# --seed puts pip into an environment that uv made; `make wheel` uses it.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "continual-mm needs Python 3.11 or newer, but '$(PYTHON) --version' says:" \
	    "$$($(PYTHON) --version 2>&1 | head -n 1); try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	    exit 1; }
	@test -x $(BIN)/python || { echo "1/2 making the environment $(VENV) ..."; \
	    rm -rf $(VENV); $(MAKE_VENV); }
	@echo "2/2 installing torch and the rest with $(INSTALLER): minutes, some gigabytes" \
	    "(log: $(LOG)) ..."
	@$(INSTALL) $(PACKAGE) > $(LOG) 2>&1 || \
	    { tail -n 20 $(LOG) >&2; echo "installing failed; all of it is in $(LOG)" >&2; exit 1; }
	@touch $@
