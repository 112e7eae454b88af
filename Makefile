# Two commands on a fresh machine: `make bench` runs the benchmark, `make test` the tests. Both set up what they need.
# `make gpu` is for a machine with a GPU, and uses the Python that it has: PYTHON=… SECONDS_OF_GPU=600 OUT=out/gpu.
PYTHON ?= python3
VENV ?= .venv
INTEGRATIONS ?= .venv-integrations
DOCS ?= .venv-docs
OLDEST ?= .venv-oldest
RUN = $(VENV)/bin/python
EXTRA_DOCS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])
SECONDS_OF_GPU ?= 600
OUT ?= out/gpu

.PHONY: bench test oldest gpu integrations lint cells docs clean

bench: $(VENV)/ready
	$(RUN) -m benchmarks

test: $(VENV)/ready
	$(RUN) -m pytest -n 2 --dist worksteal -m "not heavy and not exhaustive"

# What depends on torch's own machinery, on the oldest torch that the package accepts, with the engine that is built already.
OLDEST_TESTS = parity ops graphs exported native transforms prepared prepared_training delegate delegated_changes stateful swap \
	other_devices resources
oldest: $(VENV)/ready $(OLDEST)/ready
	PYTHONPATH=$(CURDIR) $(OLDEST)/bin/python -m pytest -q -n 2 --dist worksteal -m "not heavy and not exhaustive" \
		$(OLDEST_TESTS:%=tests/test_%.py)

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

# The pages of docs/ as a site in site/. `python docs/pictures.py` draws the pictures, which are committed.
docs: $(DOCS)/ready
	$(PYTHON) docs/quotes.py
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(VENV)/ready: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet torch==2.13.0
	$(RUN) -m pip install --quiet --editable ".[dev]"
	touch $@

$(OLDEST)/ready: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet torch==2.11.0 filelock hypothesis numpy onnx onnxscript pytest pytest-xdist rich setuptools
	touch $@

$(INTEGRATIONS)/ready: tests/integrations/requirements.txt setup.py pyproject.toml
	$(PYTHON) -m venv $(INTEGRATIONS)
	$(INTEGRATIONS)/bin/pip install --quiet --requirement tests/integrations/requirements.txt
	$(INTEGRATIONS)/bin/pip install --quiet --editable .
	touch $@

# The extra `docs` of pyproject.toml without the package, which is read and not imported: no torch is needed. Python 3.11.
$(DOCS)/ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet `$(DOCS)/bin/python -c '$(EXTRA_DOCS)'`
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(INTEGRATIONS) $(DOCS) build site *.egg-info
