# make run: install and train the diffusion model on digits.  make test: install and run the tests.
# make test-cluster: a Ray cluster on this machine loses a node half-way through a grid; minutes.
# The stamps make the second time quick: pip runs again only if the packaging files change.
PYTHON ?= python3
VENV ?= .venv
ARGS ?= --model diffusion

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
PACKAGING := pyproject.toml constraints.txt

.PHONY: run test test-cluster check clean
.DELETE_ON_ERROR:

run: $(VENV)/.stamp-run
	$(PY) run.py $(ARGS)

test: $(VENV)/.stamp-test
	$(PY) -m pytest

test-cluster: $(VENV)/.stamp-test
	$(PY) -m pytest -n 0 -m slow tests/experiments/test_engine_ray.py

check: $(VENV)/.stamp-dev
	$(PY) -m ruff check .
	$(PY) -m mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-run: $(VENV)/.stamp-venv $(PACKAGING)
	@echo "installing into $(VENV); a few minutes the first time"
	$(PIP) -e .
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-run
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-test
	$(PIP) -e '.[dev]'
	@touch $@
