# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
JOBS ?= 2
# where a machine forbids bytecode, each process of demo and tests would compile the package anew
export PYTHONDONTWRITEBYTECODE =

.PHONY: setup demo test test-all test-consumers test-oldest lint types bundles clean

setup: $(VENV)/.ready

$(VENV)/.ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch setuptools wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/monai-transfer demo --out $(OUT)

test: setup
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-all: setup
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

# the real MONAI Label and MONAI Deploy, in an environment of their own (some minutes the first time)
CONSUMERS := .venv-consumers

test-consumers: $(CONSUMERS)/.ready
	PYTHONPATH=tests/consumers/stubs OMP_NUM_THREADS=1 $(CONSUMERS)/bin/python -m pytest tests/consumers

$(CONSUMERS)/.ready: setup.cfg constraints.txt constraints-consumers.txt
	$(PYTHON) -m venv $(CONSUMERS)
	$(CONSUMERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch setuptools wheel
	$(CONSUMERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[dev]"
	$(CONSUMERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-consumers.txt
	touch $@

# the contracts with the lowest versions that setup.cfg admits, in an environment of their own (torch brings CUDA: some GB)
OLDEST := .venv-oldest

test-oldest: $(OLDEST)/.ready
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest tests/contracts tests/engine/test_loops.py tests/weights/test_loading.py

$(OLDEST)/.ready: setup.cfg constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt torch setuptools wheel
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt --no-build-isolation -e . pytest hypothesis
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(CONSUMERS) $(OLDEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
