# `make demo` and `make test` set up everything themselves: they need only Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
# Nothing is compiled before it is imported, so that what is must be kept, whatever the shell says:
# else each of many processes compiles all packages anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint docs reference tables notebooks clean

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/ready
	$(BIN)/weather-tdr demo

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Warnings are errors, as long as mkdocs is not told to be quiet.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

reference: .venv/ready
	$(BIN)/python tests/configuration_reference.py

tables: .venv/ready
	$(BIN)/python tests/result_tables.py

notebooks: .venv/ready
	$(BIN)/python tests/execute_notebooks.py

clean:
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
