# One door. `make help` lists the targets from the comments behind their names.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CAMERAS ?= 10
SECONDS ?= 20
FPS ?= 30
MODELS ?= examples/football/models
PROTOS := $(wildcard proto/headworks/v1/*.proto)
NATIVE := $(wildcard ext/headworks_native/*.pyx ext/headworks_native/*.pxd ext/headworks_native/src/*.hpp)

.PHONY: help demo serve test check proto bench fuzz sanitize clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# What a fresh machine may lack is told in one sentence, before anything is installed.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) on PATH: install Python 3.11 or newer, or name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"make: Headworks needs Python 3.11 or newer, {sys.executable} is {v[0]}.{v[1]}: name another with PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: this Python cannot make virtual environments: install its venv package (Debian: python3-venv)"; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { echo "make: no C++ compiler on PATH: install g++ or clang (C++20)"; exit 1; }
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml setup.py clients/python/pyproject.toml $(NATIVE)
	@echo "installing headworks and headworks-server (builds the extension, about a minute)"
	@$(BIN)/pip install -q --disable-pip-version-check -e clients/python -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "installing the development tools"
	@$(BIN)/pip install -q --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/pip install -q --disable-pip-version-check --group dev
	@touch $@

demo: $(VENV)/.installed ## Ten rendered match cameras through a server on this machine (CAMERAS, SECONDS, FPS)
	@$(BIN)/headworks demo --cameras $(CAMERAS) --seconds $(SECONDS) --fps $(FPS)

serve: $(VENV)/.installed ## Leave a server running (MODELS=folder)
	@$(BIN)/headworks serve $(MODELS)

test: check ## Lint, types, proto lint, then every test
	@$(BIN)/python -m pytest

check: $(VENV)/.dev ## Lint, types and proto lint only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/buf lint proto

proto: $(VENV)/.dev ## Regenerate the stubs after a change in proto/
	@$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=clients/python --pyi_out=clients/python --grpc_python_out=clients/python $(PROTOS)

bench: $(VENV)/.dev ## Every benchmark, or one with ONLY=name; a record goes to docs/measurements
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

fuzz: $(VENV)/.dev ## Fuzz the wire reader and the picture headers for MINUTES (default 10)
	@HEADWORKS_FUZZ_SECONDS=$$(( 60 * $(or $(MINUTES),10) )) $(BIN)/python -m pytest --timeout 0 tests/native/test_wire_fuzz.py tests/property/test_image_bytes.py

sanitize: $(VENV)/.dev ## The native stress tests at length under ThreadSanitizer and AddressSanitizer
	@$(BIN)/python tests/native/sanitize.py

clean: ## Remove what was built, keep the virtual environment
	@rm -rf build dist demo-out ext/headworks_native/*.so $(VENV)/.installed
