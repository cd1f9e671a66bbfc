# `make run` and `make test` do all the set-up themselves.
# CROSSPATCH_DATA names the data directory; see README.md.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= results
# Two files of tests at a time; what the tests of a file share is made once.
PYTEST_ARGS ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: run test lint browser docs bench clean

# Without a network, or with one that is slow, the run goes on with simulated recordings.
run: $(VENV)/.run
	$(BIN)/crosspatch fetch tables --time-limit 60 || \
		echo "NO TABLES WERE FETCHED: what is missing is simulated" >&2
	$(BIN)/crosspatch run --protocol quick --out $(OUT)
	$(BIN)/crosspatch explain-models --runs 1 --seeds 0 --no-removed --out $(OUT)/explanation
	$(BIN)/crosspatch learning-curve --protocol quick --models lda-mouse \
		--out $(OUT)/learning-curve
	$(BIN)/crosspatch report $(OUT) $(OUT)/explanation $(OUT)/learning-curve \
		--out $(OUT)/report.html

test: lint browser
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests of the pages use Debian's Chromium; without it they are skipped and say so.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends chromium >/dev/null; } || \
		echo "no chromium, and it cannot be installed: tests of the pages are skipped" >&2

# The site in site/; its notebooks are run, with the tables where CROSSPATCH_DATA has them.
docs: $(VENV)/.dev
	$(BIN)/mkdocs build

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/training.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Installs repeat: every version is pinned in constraints.txt.
$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build src/*.egg-info
