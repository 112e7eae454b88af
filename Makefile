# Two commands on a fresh machine: `make bench` runs the benchmark, `make test` the tests. Both set up what they need.
# `make gpu` is for a machine with a GPU, and uses the Python that it has: PYTHON=… SECONDS_OF_GPU=600 OUT=out/gpu.
PYTHON ?= python3
VENV ?= .venv
INTEGRATIONS ?= .venv-integrations
RUN = $(VENV)/bin/python
SECONDS_OF_GPU ?= 600
OUT ?= out/gpu

.PHONY: bench test gpu integrations lint cells clean

bench: $(VENV)/ready
	$(RUN) -m benchmarks

test: $(VENV)/ready
	$(RUN) -m pytest -n 2 --dist worksteal -m "not heavy and not exhaustive"

gpu:
	$(PYTHON) -m benchmarks.gpu --seconds $(SECONDS_OF_GPU) --out $(OUT)

# Models of other packages: tests and times. They want an environment of their own.
integrations: $(INTEGRATIONS)/ready
	$(INTEGRATIONS)/bin/python -m pytest tests/integrations
	$(INTEGRATIONS)/bin/python -m benchmarks.integrations --json out/integrations.json

lint: $(VENV)/ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

# The kernels of every cell, from their equations.
cells: $(VENV)/ready
	$(RUN) -m seqcells.derive

$(VENV)/ready: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet torch==2.13.0 numpy
	$(RUN) -m pip install --quiet --editable ".[dev]"
	touch $@

$(INTEGRATIONS)/ready: tests/integrations/requirements.txt setup.py pyproject.toml
	$(PYTHON) -m venv $(INTEGRATIONS)
	$(INTEGRATIONS)/bin/pip install --quiet --requirement tests/integrations/requirements.txt
	$(INTEGRATIONS)/bin/pip install --quiet --editable .
	touch $@

clean:
	rm -rf $(VENV) $(INTEGRATIONS) build *.egg-info
