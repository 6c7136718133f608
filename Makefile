# Each target does its own set-up in .venv; python3.11 and git are all that is needed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all check format lint types contracts clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch first and exact: a looser pin would fetch a CUDA build.
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/.developer: $(VENV)/.installed
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/reelign demo

# loadgroup: the sample of faults shares one warm process.
test: $(VENV)/.developer
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# Every fault instead of a sample of them; their counts go into docs/reliability.md, also if some are wrong.
test-all: $(VENV)/.developer
	rm -f build/faults.jsonl
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --whole; status=$$?; \
	$(BIN)/python -m tests.faults.table && exit $$status

check: lint types contracts test

lint: $(VENV)/.developer
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples

types: $(VENV)/.developer
	$(BIN)/pyright

contracts: $(VENV)/.developer
	$(BIN)/lint-imports

format: $(VENV)/.developer
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/ruff check --fix src tests benchmarks examples

clean:
	rm -rf $(VENV) build dist
