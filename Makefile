# `make help` says what there is. Everything is installed inside this folder (.venv/, .cache/); nothing needs root.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.PHONY: help run test test-fast test-vm bench load chaos verifier dist lint format setup lock clean
.DEFAULT_GOAL := help

BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPATH :=

help: ## show this
	@printf 'anchorhold: a local language model in a sealed cell that sees only the files you hand it.\n\n'
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS=$$'\t' read -r n t; do printf '  make %-10s %s\n' "$$n" "$$t"; done
	@printf '\nA first run builds the engine from source, which takes a few minutes.\n'

run: ## set everything up, then ask the demo model about a letter in docs/sample/
	@tools/set-up run
	@tools/demo

test: ## install what is missing and check everything: format, lint, types, tests, coverage
	@tools/set-up dev
	@$(MAKE) --no-print-directory lint
	@mkdir -p .cache/coverage && chmod 1777 .cache/coverage && rm -f .cache/coverage/data*
	$(BIN)/coverage run -m pytest $(PYTEST)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

test-fast: ## only the tests that take no more than a few seconds each; no coverage
	@tools/set-up dev
	$(BIN)/python -m pytest -m 'not slow' $(PYTEST)

bench: ## measure against the peers that are installed, and print the table
	@tools/set-up dev
	$(BIN)/python -m tests.bench $(BENCH)

load: ## 64 clients at a real service for five minutes: errors, memory, fairness, the log
	@tools/set-up dev
	$(BIN)/python -m tests.load $(LOAD)

chaos: ## 500 faults at a real service, by a seed: what dies, what stays, what the log says; takes some minutes
	@tools/set-up dev
	$(BIN)/python -m tests.chaos $(CHAOS)

test-vm: ## the limits and attacks in a virtual machine with systemd and cgroup v2; takes half an hour
	@tools/set-up dev
	tests/vm/run $(VM)

verifier: ## build the log's verifier as one file that runs without anchorhold: dist/anchorhold-verify.pyz
	@tools/verifier

dist: ## wheel, sdist, Debian packages, man pages, completions, SBOM: in dist/, the same bytes from the same commit
	@tools/set-up dev
	@tools/set-up build
	tools/dist

lint: ## format check, lint, strict types
	@tools/set-up dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: ## put the code into the project's format
	@tools/set-up dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: ## only install what `make run` and `make test` need
	@tools/set-up dev

lock: ## resolve the dependencies anew and write requirements/
	@tools/set-up lock
	.cache/lock-venv/bin/python tools/lock.py

clean: ## remove everything that was installed or built in this folder
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage*
	find daemon tests tools -name __pycache__ -prune -exec rm -rf {} +
