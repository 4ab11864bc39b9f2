# Thin names for the commands in README.md. `make` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup repro paper test test-all lint bench ui clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make the environment in .venv (done by the others when needed)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[farm,test,lint]'
	@# DVC looks for git; in a plain download of the project there is none.
	@if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then $(BIN)/dvc config --local --unset core.no_scm 2>/dev/null || true; \
	else printf '[core]\n    no_scm = True\n' > .dvc/config.local; fi
	@touch $@

repro: $(READY) ## run the pipeline that params.yaml describes (committed: profile quick)
	dvc repro

paper: $(READY) ## switch params.yaml to profile paper (CIFAR-10, the paper's lengths) and run the pipeline
	sed -i.bak -E 's/^profile: .*/profile: paper/' params.yaml && rm params.yaml.bak
	dvc repro

test: $(READY) ## run the tests (6 to 11 minutes on 2 cores)
	pytest -n auto --dist loadfile --no-loadscope-reorder -m 'not slow'

test-all: $(READY) ## run the slow tests too
	pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(READY) ## style, types and the order of imports
	ruff check . && ruff format --check . && mypy && lint-imports --no-cache

bench: $(READY) ## measure the speed ratios
	python -m benchmarks

ui: $(READY) ## open the MLflow UI on this project's runs
	eosrepro ui

clean: ## remove the environment; results stay
	rm -rf $(VENV)
