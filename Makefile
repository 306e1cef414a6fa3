# The verbs of the project. Each sets up .venv when it is missing; after that nothing needs the network.

.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
READY := .venv/.ready
export OPENBLAS_NUM_THREADS ?= 1
# Tests wait for what they start half of their time: four runners keep two cores busy. One that has nothing left takes from
# the others, and neighbours stay together, so that what a module's tests share is made once.
TEST := $(BIN)/python -m pytest -q -n 4 --dist worksteal

help:            ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

demo: $(READY)   ## start everything with simulated viewers and watch it learn
	$(BIN)/topbill demo

up: $(READY)     ## start service, worker and dashboard on the example experiments
	$(BIN)/topbill up

test: $(READY)-dev   ## the tests
	$(TEST) -m "not slow and not end_to_end"

test-end-to-end: $(READY)-dev  ## dashboards, databases, wheels, other languages' clients and killed processes at work
	$(TEST) -m "end_to_end and not slow"

test-all: $(READY)-dev  ## all tests, the slow statistical simulations too
	$(TEST)

check: $(READY)-dev  ## lint, formatting, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd dashboards && ../$(BIN)/mypy .
	$(BIN)/python -m pytest -q -p no:xdist tests/unit/test_ranks.py

docs: $(READY)-dev  ## the documentation and its reference as a site, in site/
	$(BIN)/python .ci/notebooks.py
	$(BIN)/zensical build --clean --strict

screenshots: $(READY)-dev  ## the documentation's pictures of the dashboards, in docs/images/
	TOPBILL_IMAGES=docs/images $(BIN)/python -m pytest -q -n 0 tests/integration/dashboards/test_docs_images.py

bench: $(READY)  ## a durable decision over HTTP beside an empty FastAPI echo
	$(BIN)/python -m benchmarks.service

bench-learning: $(READY)  ## what each policy learns, stream by stream
	$(BIN)/python -m benchmarks.learning

bench-regret: $(READY)  ## how much of the gap to the known best the policies close
	$(BIN)/python -m benchmarks.regret

DATA ?=
bench-public: $(READY)  ## Topbill beside the libraries of the day, installed from PyPI (DATA="DIR DIR" has more streams)
	$(BIN)/python -m benchmarks.public --venv .peers $(if $(DATA),--data $(DATA))

lock:            ## resolve both lock files anew (needs uv and the network)
	$(COMPILE) --extra build --extra otel --extra postgres --extra objects -o requirements.lock
	$(COMPILE) --extra build --extra otel --extra onnx --extra postgres --extra objects --extra spark --extra mcp --extra dev -c requirements.lock -o requirements-dev.lock

COMPILE = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-index-url --custom-compile-command "make lock"
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(READY): requirements.lock pyproject.toml
	@set -e; for python in python3 python3.13 python3.12 python3.11 python3.14 python; do \
		if $$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; \
		then usable=$$python; break; fi; done; \
	if [ -z "$$usable" ]; then \
		echo "Topbill needs a Python from 3.11 to 3.14 with venv, and finds none as python3 or python3.11 to python3.14"; \
		echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; fi; \
	echo "Setting up .venv with $$($$usable --version); this takes about a minute, once"; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $$usable -m venv --clear .venv
	$(INSTALL) --no-compile --require-hashes -r requirements.lock
	$(INSTALL) --no-build-isolation --no-deps -e .
	$(BIN)/python -m topbill.policies.linear.library || true # compiled now, so that no start waits for a compiler
	@touch $@

$(READY)-dev: requirements-dev.lock $(READY)
	$(INSTALL) --no-compile --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: help demo up test test-end-to-end test-all check docs screenshots bench bench-learning bench-regret bench-public lock
