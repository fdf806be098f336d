# One door. `make help` lists the targets from the comments behind their names.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CAMERAS ?= 10
SECONDS ?= 20
FPS ?= 30
MODEL ?=
MODELS ?= examples/football/models
MINUTES ?= 10
PROTOS := $(wildcard proto/headworks/v1/*.proto)
NATIVE := $(wildcard ext/headworks_native/*.pyx ext/headworks_native/*.pxd ext/headworks_native/src/*.hpp)

# Where the stubs of each proto lie in the Go module, for both of its plugins.
GO_MODULE := headworks/clients/go
GO_OPTIONS = --$(1)_out=clients/go --$(1)_opt=module=$(GO_MODULE) \
  $(foreach proto,$(PROTOS:proto/%=%),'--$(1)_opt=M$(proto)=$(GO_MODULE)/headworks/v1;headworksv1')

.PHONY: help demo serve test test-clients toolchains check proto bench fuzz sanitize clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

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
	@$(BIN)/pip install -q --disable-pip-version-check -e 'clients/python[images,report,table]' -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "installing the development tools"
	@$(BIN)/pip install -q --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/pip install -q --disable-pip-version-check --group dev
	@touch $@

demo: $(VENV)/.installed ## Ten rendered match cameras through a server on this machine (CAMERAS, SECONDS, FPS, MODEL=players|ball|teams)
	@$(BIN)/headworks demo --cameras $(CAMERAS) --seconds $(SECONDS) --fps $(FPS) $(if $(MODEL),--model $(MODEL))

serve: $(VENV)/.installed ## Leave a server running (MODELS=folder)
	@$(BIN)/headworks serve $(MODELS)

test: check ## Lint, types, proto lint, then every test
	@$(BIN)/python -m pytest

toolchains:
	@missing=0; \
	command -v go >/dev/null || { echo "make: no go on PATH: the Go sample needs Go 1.26 or newer"; missing=1; }; \
	{ command -v node && command -v npm; } >/dev/null || { echo "make: no node and npm on PATH: the Node sample needs Node 20 or newer"; exit 1; }; \
	node -e 'process.exit(parseInt(process.version.slice(1)) < 20 ? 1 : 0)' || { echo "make: the Node sample needs Node 20 or newer, this is $$(node --version)"; exit 1; }; \
	exit $$missing

test-clients: toolchains $(VENV)/.dev ## The Go and Node samples against a real server
	@cd clients/go && go vet ./... && go build -o ../../build/clients/go-basic ./samples/basic
	@cd clients/go/tools && go tool -n protoc-gen-go >/dev/null && go tool -n protoc-gen-go-grpc >/dev/null
	@cd clients/node/samples/basic && npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	@$(BIN)/python -m pytest tests/clients

check: $(VENV)/.dev ## Lint, types and proto lint only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/buf lint proto

# Node needs none: its sample reads the protos when it starts.
proto: $(VENV)/.dev ## Regenerate the Python and Go stubs after a change in proto/
	@$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=clients/python --pyi_out=clients/python --grpc_python_out=clients/python $(PROTOS)
	@command -v go >/dev/null || { echo "make: no go on PATH: the Python stubs are new, those of clients/go are not; install Go 1.26 or newer"; exit 1; }
	@go=$$(cd clients/go/tools && go tool -n protoc-gen-go) && grpc=$$(cd clients/go/tools && go tool -n protoc-gen-go-grpc) && \
	  $(BIN)/python -m grpc_tools.protoc -Iproto --plugin=protoc-gen-go=$$go --plugin=protoc-gen-go-grpc=$$grpc \
	    $(call GO_OPTIONS,go) $(call GO_OPTIONS,go-grpc) $(PROTOS)

bench: $(VENV)/.dev ## Every benchmark, or one with ONLY=name; a record goes to docs/measurements
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

soak: $(VENV)/.dev ## Hundreds of cameras that come, go, cancel, stall and reconnect for MINUTES (default 10)
	@$(BIN)/python tests/soak/soak.py $(MINUTES)

fuzz: $(VENV)/.dev ## Fuzz the wire reader and the picture headers for MINUTES (default 10)
	@HEADWORKS_FUZZ_SECONDS=$$(( 60 * $(MINUTES) )) $(BIN)/python -m pytest --timeout 0 tests/native/test_wire_fuzz.py tests/property/test_image_bytes.py

sanitize: $(VENV)/.dev ## The native stress tests at length under ThreadSanitizer and AddressSanitizer
	@$(BIN)/python tests/native/sanitize.py

clean: ## Remove what was built, keep the virtual environment
	@rm -rf build dist demo-out ext/headworks_native/*.so $(VENV)/.installed
