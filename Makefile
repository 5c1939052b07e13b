# One obvious command for each thing. `make` lists them.
BIN := .venv/bin
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast stack stack-stop lint format bench docs wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with the locked development environment
	@tools/bootstrap

demo: setup ## run the example: real data, another locked environment for each step
	$(BIN)/python examples/flights/flow.py run

test: setup ## run all tests
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

test-fast: setup ## run the tests that need no service and no download, stop at the first failure
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -x -m "not e2e and not slow"

stack: setup ## start the services that the tests use, and say what they are
	@$(BIN)/python -m tests.services
	@$(BIN)/python -m tests.stack start

stack-stop: ## stop the services that are running; what they are made of stays in the cache
	@$(BIN)/python -m tests.stack stop

lint: setup ## style, types, import rules, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.docs --check

format: setup ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## measure against other tools and write docs/benchmarks.md
	$(BIN)/python -m benchmarks --write

docs: setup ## write the generated pages of docs/ and run the examples in the texts
	$(BIN)/python -m tools.docs
	$(BIN)/pytest tests/test_docs.py

wheel: setup ## build the wheel and sdist into dist/
	$(BIN)/uv build --quiet --out-dir dist

clean: ## remove what the targets made inside the tree
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
