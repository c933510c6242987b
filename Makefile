# Everything a person or a CI job runs. Needs Python 3.11 or newer and make, nothing else.
.DEFAULT_GOAL := help
.PHONY: help demo run env test soak bench bench-check check static unit lock sbom audit format contract clean
SHELL := /bin/sh

BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## one tenant's life on a real broker and engine, in front of you
	@$(BIN)/python -m deploy.demo

run: $(READY) ## the consumer in the foreground, with whatever it needs, until Ctrl-C
	@$(BIN)/python -m deploy.run

env: ## .env for docker-compose.yml, with fresh passwords; one that is there is kept
	@deploy/fresh-env

test: $(READY) ## every test, on servers of their own (ARGS="-k oom" for some)
	@$(BIN)/python -m deploy.lab.packages
	@$(BIN)/pytest $(ARGS)

soak: $(READY) ## random events under random trouble, 20 minutes (SEED=1, SECONDS=1200)
	@$(BIN)/python -m deploy.lab.packages
	@$(BIN)/python -m tests.faults.soak $(if $(SEED),--seed $(SEED)) --seconds $(or $(SECONDS),1200)

fuzz: $(READY) ## odd tenant events, 100,000 of them (SEED=1, COUNT=100000)
	@$(BIN)/python -m deploy.lab.packages
	@$(BIN)/python -m tests.faults.barrage $(if $(SEED),--seed $(SEED)) --count $(or $(COUNT),100000)

bench: $(READY) ## what we cost, against bare scripts on the same servers (ARGS=--quick)
	@$(BIN)/python -m tests.bench $(ARGS)

bench-check: $(READY) ## the same; fails when a ratio is clearly worse than the committed one
	@$(BIN)/python -m tests.bench --check $(ARGS)

check: $(READY) ## format, lint, types, layers, unit tests; under 30 s
	@$(MAKE) --no-print-directory --jobs=2 --output-sync static unit

static: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell

unit: $(READY)
	@$(BIN)/pytest -q tests/unit tests/project tests/escapes/test_documents.py

lock: $(READY) ## uv.lock anew from pyproject.toml, and the files for pip from it
	@UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1 .lab/uv/bin/uv lock
	@deploy/export-locks

sbom: $(READY) ## dist/sbom.cdx.json: what the consumer is made of, with hashes (CycloneDX)
	@mkdir -p dist
	@.lab/uv/bin/uv export --quiet --frozen --no-dev --format cyclonedx1.5 \
		--preview-features sbom-export -o dist/sbom.cdx.json
	@echo "wrote dist/sbom.cdx.json"

audit: $(READY) ## known vulnerabilities of what is locked, asked of OSV; fails if it cannot ask
	@UV_SYSTEM_CERTS=1 .lab/uv/bin/uv audit --frozen --no-dev --preview-features audit-command || { \
		echo "make audit: a vulnerability is known, or OSV could not be asked; see above" >&2; exit 1; }

format: $(READY) ## format, and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

contract: $(READY) ## write deploy/contract/ anew from the code
	@$(BIN)/python -m deploy.renew_contract

clean: ## remove what the targets above made in this folder
	rm -rf .venv .lab .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): uv.lock pyproject.toml deploy/bootstrap deploy/requirements/uv.txt
	@deploy/bootstrap
	@touch $@
