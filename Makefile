# One virtual environment in .venv, installed again when pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin

# Threads that wait for work sleep instead of taking the cores that other processes need.
export OMP_WAIT_POLICY = passive

.PHONY: venv demo test quick lint check coverage docs reliability clean

venv: .venv/dev.stamp

# Hear it work: a synthetic corpus, pretraining, fine-tuning, a word error rate, a transcript.
demo: .venv/demo.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" bash recipes/synthetic/run.sh --exp exp/synthetic

test: .venv/dev.stamp
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

# Every test of a few seconds at most: less than 2 minutes on 2 cores.
quick: .venv/dev.stamp
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not reliability"

# Which lines the tests run: half as long again.
coverage: .venv/dev.stamp
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --cov=speechssl --cov-report=term-missing

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

# The pages of docs/ as a site in site/; a broken link or anchor is an error.
docs: .venv/dev.stamp
	$(BIN)/python -m mkdocs build --strict

# The campaigns of tests/reliability with all their tries: 80 minutes on 2 cores. docs/reliability.md has what they printed.
reliability: .venv/dev.stamp
	rm -f reliability.jsonl
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/reliability --full --figures reliability.jsonl

# The environment stays; remove .venv by hand to build it anew.
clean:
	rm -rf build site *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[demo]'
	touch $@

# What develops also runs the demo, so that the demo asks for no second installation.
.venv/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@ .venv/demo.stamp
