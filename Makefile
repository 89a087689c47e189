# Two commands do everything on a fresh machine:
#   make run    set up, then run the main job on the embedded digits; open runs/digits/report.html
#   make test   set up, then lint, type-check and pass the tests

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SETUP = $(VENV)/.ready
ARGS ?=

.PHONY: run test lint clean

run: $(SETUP)
	$(BIN)/phasewise run $(ARGS)

test: $(SETUP) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(SETUP)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
