# Two commands do everything on a fresh Debian machine with Python 3.11: `make demo`, `make test`.
# They make .cache and .venv here, which `make clean` removes, and keep fetched and frozen parts in
# ~/.cache/edgekit; as root they also install the Debian packages that they name.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp-$(shell cat requirements/test.txt requirements/uv.txt | sha256sum | cut -c1-16)

.PHONY: demo test lint check model lock bench clean help

help:
	@echo "make demo    build a set, install it on a sealed host, ask it a question"
	@echo "make test    all tests, linters and type checks"
	@echo "make lint    linters and type checks alone"
	@echo "make bench   measurements next to peers (python -m benchmarks)"
	@echo "make model   train and convert the demo model again"
	@echo "make lock    resolve requirements/test.txt and clients.txt again"
	@echo "make clean   remove .venv, .cache and build output"

demo: $(STAMP)
	@$(BIN)/python -m tools.demo

test: $(STAMP)
	@$(BIN)/python -m tools.run_tests

lint: $(STAMP)
	@$(BIN)/python -m tools.run_tests --lint-only

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

$(STAMP): requirements/test.txt requirements/uv.txt
	@$(PYTHON) -m tools.make_environment $(VENV) $@

lock:
	@$(BIN)/uv pip compile -q --extra test --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header -o requirements/test.txt pyproject.toml
	@$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header -o requirements/clients.txt requirements/clients.in
	@echo "requirements/test.txt and clients.txt are up to date; commit them"

model:
	@$(PYTHON) -m venv .cache/model-venv
	@.cache/model-venv/bin/pip install -q -r models/demo/requirements.txt
	@cd models/demo && ../../.cache/model-venv/bin/python train.py
	@cd models/demo && ../../.cache/model-venv/bin/python export_gguf.py
	@cd models/demo && ../../.cache/model-venv/bin/python check.py

clean:
	rm -rf $(VENV) .cache build dist
