# make help lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
STAMP := $(VENV)/.complete

.PHONY: help install venv demo demo-down clean test proof attacks sites lint mutants soak chaos endurance bench bench-scale bench-streams

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Make .venv with the programs in it: all that a host needs that runs them

$(INSTALLED): requirements.lock pyproject.toml deploy/local/make-venv
	@deploy/local/make-venv $(VENV)
	@touch $@

venv: $(STAMP) ## Make .venv with what linting and testing need too

$(STAMP): requirements.lock requirements-dev.lock pyproject.toml deploy/local/make-venv
	@deploy/local/make-venv $(VENV) dev
	@touch $@ $(INSTALLED)

demo: install ## Set up a private Slurm, Apptainer and vLLM, serve a small model, ask it something
	@$(PY) deploy/demo/demo.py up

demo-down: ## Stop everything that `make demo` started
	@if [ -x $(PY) ]; then $(PY) deploy/demo/demo.py down; else echo "nothing to stop"; fi

clean: demo-down ## Remove everything that was set up, .venv included
	@rm -rf .local $(VENV) $(VENV)s .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

test: venv ## Run the whole test suite, installing what it needs
	@$(PY) tests/run.py test

proof: venv ## Run the long searches: all schedules, each rule taken out, many examples, chaos
	@$(PY) tests/run.py proof

attacks: venv ## Attack a running installation as another user of its hosts
	@$(PY) tests/run.py attacks

sites: venv ## Run on clusters as real sites set them up: filters, closed partitions, hidden nodes, modules
	@$(PY) tests/run.py sites

lint: venv ## Check style, types and layers
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

mutants: venv ## Take each rule of the protocol out, and show that the simulation notices
	@$(PY) -W ignore -m tests.simulation.mutants

soak: venv ## Simulate SCHEDULES=100000 schedules of faults, from seed FIRST=10000
	@$(PY) -W ignore -m tests.simulation.schedules $(or $(SCHEDULES),100000) $(or $(FIRST),10000)

chaos: venv ## Kill the controller KILLS=200 times on a real Slurm while everything breaks and lies (SEED=…, MINUTES=60)
	@$(PY) tests/run.py setup
	@$(PY) -m tests.cluster.chaos --kills $(or $(KILLS),200) --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

endurance: venv ## Ask a service without an end, whose jobs end every minute, over LIMITS=15 of them and what else befalls it (PHASES="…")
	@$(PY) tests/run.py setup
	@$(PY) -m tests.cluster.endurance --limits $(or $(LIMITS),15) $(if $(PHASES),--phases $(PHASES))

bench: venv ## Measure, and print the tables
	@$(PY) bench/run.py

bench-scale: venv ## Measure 10,000 watches, and 10,000 services of three replicas, which takes twelve minutes
	@$(PY) bench/run.py watches scale

bench-streams: venv ## Follow logs and watch with 500 clients for MINUTES=10, while the API is restarted and killed
	@MINUTES=$(MINUTES) $(PY) bench/run.py streams
