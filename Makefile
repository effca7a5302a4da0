# The few named commands; CI calls the same. `make` alone shows them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# A stamp, so that an environment that is there is not made again; deploy/constraints.txt pins every version.
READY := $(VENV)/.ready-$(shell cat pyproject.toml deploy/constraints.txt | cksum | cut -d' ' -f1)

.PHONY: help demo test lint typecheck bench bench-replay chaos clean
.DEFAULT_GOAL := help

help: ## Show these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

$(READY):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[baselines,demo,dev,plot]'
	rm -f $(VENV)/.ready-* && touch $(READY)

demo: $(READY) ## Train on real purchases, stream the rest through a worker, watch lists follow (embedded broker)
	$(BIN)/driftline demo

test: lint typecheck ## Everything that must hold: style, types, layers, tests (real Kafka where there is a JDK)
	$(BIN)/pytest

lint: $(READY) ## Style and the layers of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

typecheck: $(READY) ## Types, strictly
	$(BIN)/mypy

bench: $(READY) ## CPU per event by part, latency, recovery, against Quix Streams; writes build/bench.json
	$(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt -e '.[bench]'
	$(BIN)/python -m tests.bench.bench_stream

bench-replay: $(READY) ## Replay the demo's log in process and beside live workers with faults; writes build/replay.json
	$(BIN)/python -m tests.bench.bench_replay

chaos: $(READY) ## Kill and stop workers on a real Kafka, three runs, count from the topics; writes build/chaos.json
	DRIFTLINE_CHAOS_RUNS=3 $(BIN)/pytest -m chaos

clean: ## Remove the environment and what was built
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
