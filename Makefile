# What people do with Hark every day. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help serve test test-gpu check format bench bench-gpu bench-runtimes bench-serving load openapi picture augmentations constraints clean

export VENV ?= .venv
PYTHON_IN_VENV := $(VENV)/bin/python
PORT ?= 8000
HOST ?= 127.0.0.1
PYTEST_ARGS ?=
BENCH_ARGS ?=

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

serve:  ## install what is missing and serve on http://localhost:8000 (PORT= and HOST= change that)
	@.ci/install
	@exec $(PYTHON_IN_VENV) -m server.cli serve --host $(HOST) --port $(PORT)

test:  ## run the tests (PYTEST_ARGS= adds arguments)
	@.ci/install cpu train load dev
	$(PYTHON_IN_VENV) -m pytest $(PYTEST_ARGS)

test-gpu:  ## run the tests that need a CUDA device
	@.ci/install train load dev
	$(PYTHON_IN_VENV) -m pytest -m gpu $(PYTEST_ARGS)

check:  ## format, lint, types, layout
	@.ci/install cpu train load dev
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m mypy model server export loadtest
	$(PYTHON_IN_VENV) -m pytest -q tests/test_layout.py

format:  ## format and mend what ruff can mend
	@.ci/install cpu train load dev
	$(PYTHON_IN_VENV) -m ruff format .
	$(PYTHON_IN_VENV) -m ruff check --fix .

bench:  ## time the bundled models, the scan and AuM against AST on this machine (some ten minutes; docs/benchmarks.md)
	@.ci/install load
	$(PYTHON_IN_VENV) -m server.cli bench
	$(PYTHON_IN_VENV) -m tests.benchmarks.bench_scan
	$(PYTHON_IN_VENV) -m tests.benchmarks.bench_network
	$(PYTHON_IN_VENV) -m tests.benchmarks.bench_tokens

bench-gpu:  ## measure scan, networks, features, lengths and training on a GPU: one short table last (docs/benchmarks.md)
	@.ci/install load
	$(PYTHON_IN_VENV) -m tests.benchmarks.bench_gpu $(BENCH_ARGS)

bench-runtimes:  ## time AST-base in every CPU runtime against transformers' own model (some ten minutes; docs/runtimes.md)
	@.ci/install cpu train load bench
	$(PYTHON_IN_VENV) -m tests.benchmarks.bench_runtimes --cold $(BENCH_ARGS)

bench-serving:  ## measure latency, throughput, overload, drain and memory of the server (BARS= names some; some fifteen minutes)
	@.ci/install load dev
	$(PYTHON_IN_VENV) -m tests.benchmarks.bench_serving $(BARS)

load:  ## load-test the served models and print a table (URL= names a running server, else one is started)
	@.ci/install load
	.ci/with-server $(PYTHON_IN_VENV) -m loadtest.compare

openapi:  ## write docs/openapi.json from the app
	@.ci/install
	$(PYTHON_IN_VENV) -m server.openapi docs/openapi.json

picture:  ## draw docs/page.png anew; needs chromium
	@.ci/install cpu train load dev
	.ci/with-server $(PYTHON_IN_VENV) .ci/picture.py

augmentations:  ## draw docs/images/augmentations.png anew
	@.ci/install load
	PYTHONPATH=. $(PYTHON_IN_VENV) .ci/augmentations.py

constraints:  ## resolve every extra that installs without a GPU anew and pin the result
	VENV=build/constraints .ci/pin

clean:  ## remove the virtual environment, caches and build products
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
