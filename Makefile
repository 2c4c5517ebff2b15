# Every target works from a fresh clone: it makes .venv first, and remakes it when the requirements change.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

# The first Python in range wins; `make PYTHON=/path/to/python3.12 ...` names one.
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
ifeq ($(origin PYTHON), undefined)
PYTHON := $(or $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(IN_RANGE)' 2>/dev/null && echo "$$p" && break; done),python3)
endif

VENV := .venv
RUN := $(VENV)/bin/python
VERSION := $(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
BOOK_STAMP := $(VENV)/.book-$(VERSION)-$(shell cat requirements.txt pyproject.toml | cksum | cut -d' ' -f1)
TEST_STAMP := $(VENV)/.test-$(VERSION)-$(shell cat requirements.txt requirements-test.txt pyproject.toml | cksum | cut -d' ' -f1)

# One thread and no progress bars: the same digits and the same output on every run.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export TQDM_DISABLE := 1
export PYTHONHASHSEED := 0

.PHONY: help book test run lint types bench torture notebooks clean python

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

book: $(BOOK_STAMP) ## execute the notebooks and build the book (PROFILE=smoke|full|... builds that edition)
	@$(RUN) -m tools.book $(if $(PROFILE),--profile "$(PROFILE)")

test: lint types ## lint, types, imports, unit tests, notebooks, strict book build and its pages
	@$(RUN) -m tools.book
	@$(RUN) -m pytest -q -n 2 --dist loadfile tests --nbval --nbval-current-env \
		--nbval-sanitize-with tests/sanitize.cfg $(wildcard notebooks/*.ipynb)

run: $(BOOK_STAMP) ## execute one notebook: make run NOTEBOOK=sec2_problem ARGS="-p seed 1"
	@$(RUN) -m efvae run $(NOTEBOOK) $(ARGS)

lint: $(TEST_STAMP) ## ruff and the import contract
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff format --check --quiet . || { echo "make lint: run .venv/bin/ruff format"; exit 1; }
	@out=$$($(VENV)/bin/lint-imports --no-cache 2>&1) || { echo "$$out"; exit 1; }
	@echo "lint: clean"

types: $(TEST_STAMP) ## mypy, strict on efvae
	@$(RUN) -m mypy --no-error-summary
	@echo "types: clean"

bench: $(TEST_STAMP) ## whole-program timings
	@if [ -d benchmarks ]; then $(RUN) -m benchmarks; else echo "no benchmarks yet"; fi

torture: $(TEST_STAMP) ## kill and disturb sweeps 50 times; writes results/torture.csv
	@$(RUN) -m tools.torture $(ARGS)

notebooks: $(TEST_STAMP) ## rebuild the committed .ipynb from the .py sources that changed (FORCE=1: all)
	@$(RUN) -m tools.notebooks $(if $(FORCE),--force)

clean: ## remove everything built, .venv included
	rm -rf $(VENV) _build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

python:
	@"$(PYTHON)" -c '$(IN_RANGE)' 2>/dev/null || { echo "efvae needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is \
	$$("$(PYTHON)" -V 2>/dev/null || echo not there). Name another: make PYTHON=python3.12 ..."; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "'$(PYTHON)' has no venv module: install it \
	(on Debian and Ubuntu: apt-get install python3-venv)"; exit 1; }
	@[ "$$($(RUN) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(VERSION)" ] \
	|| "$(PYTHON)" -m venv --clear $(VENV)

$(BOOK_STAMP): | python
	$(call install,requirements.txt)
	@touch $@

$(TEST_STAMP): | python
	$(call install,requirements-test.txt)
	@touch $(BOOK_STAMP) $@

define install
	@echo "Installing the packages of $(1) into $(VENV): once, some minutes."
	@[ "$$(uname)" != Linux ] || [ -n "$$PIP_EXTRA_INDEX_URL" ] || command -v nvidia-smi >/dev/null || \
	echo "No NVIDIA GPU here: PIP_EXTRA_INDEX_URL=<the CPU index shown on pytorch.org> make $(MAKECMDGOALS)  gets the smaller CPU build."
	@rm -f $(VENV)/.book-* $(VENV)/.test-*
	@$(RUN) -m pip install -qq --disable-pip-version-check -r $(1)
	@$(RUN) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
endef
