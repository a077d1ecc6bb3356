# One command is the gate: `make test`. CI runs the same one (.ci/run).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/pytest -n 2 --dist worksteal --durations=10

.DEFAULT_GOAL := help
.PHONY: help venv lint format types mypy pyright imports fast tests test demo bench bench-groups bench-memory clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(INSTALLED) ## .venv with the package (editable), all extras and the tools

lint: venv ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: venv ## let ruff repair what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: mypy pyright ## strict: mypy on everything, pyright on what users write against the public names

mypy: venv
	$(BIN)/mypy

pyright: venv
	$(BIN)/pyright --pythonpath $(BIN)/python --project tests/typing

imports: venv ## import-linter: the boundaries between the parts
	$(BIN)/lint-imports

fast: venv ## the unit tests: no server, under 20 seconds
	$(PYTEST) tests/unit --hypothesis-profile=fast

# Two at a time: most tests wait more than they work. Each of the two has servers of its own, also to break.
tests: venv ## all tests, without the checks before them
	$(PYTEST) tests/unit tests/typing tests/simulation
	$(PYTEST) tests/conformance tests/integration tests/packaging
	$(PYTEST) tests/faults

test: venv ## the whole gate
	$(MAKE) -j 2 lint mypy pyright imports
	$(MAKE) tests

demo: venv ## the README's one command; other folders: make demo FOLDERS="~/notes ~/books"
	$(BIN)/jq-actors demo $(FOLDERS)

bench: venv ## we and our peers side by side; fewer rows, sooner: make bench ROWS="groups send-each" ROUNDS=1 SCALE=0.1
	$(BIN)/python -m benchmarks --rounds $(or $(ROUNDS),3) --scale $(or $(SCALE),1) $(ROWS)

bench-groups: venv ## groups without rows: rates, lanes at once, send to a group; fewer: make bench-groups LANES=1000
	$(BIN)/python -m benchmarks.groups --lanes $(or $(LANES),10000)

bench-memory: venv ## is a worker's memory flat over many jobs and lost connections? fewer: make bench-memory JOBS=100000
	$(BIN)/python -m benchmarks.memory --jobs $(or $(JOBS),1000000)

clean: ## what tools and builds left behind; .venv stays
	rm -rf build dist .demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# pip of an old Python knows no dependency groups, so it is replaced first.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; call: make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -qy python3-venv; } || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev --editable ".[$$($(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"], sep=",")')]"
	@touch $@
