# make demo, make test: all the set-up there is. The first one that runs installs everything into .venv.
#   make demo DATA=DIR    the same on the publisher's MovieLens-1M files
#   make PYTHON=python3.11 ...    another interpreter than python3
PYTHON ?= python3
DATA ?=
OUT ?= demo
PYTEST_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JAX_TESTS := tests/layers tests/interests tests/interactions tests/test_losses.py tests/test_layer_checks.py \
  tests/test_golden_cases.py
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-jax golden lint format docs install clean need-python need-redis

help:
	@echo "make demo    synthetic data through the pipeline to a ranked answer (DATA=DIR: MovieLens-1M files)"
	@echo "make test    lint, types and every test;  make test-jax  only the layers' tests on the JAX backend"
	@echo "make golden  which published numbers are reproduced, by architecture"
	@echo "make lint    ruff and mypy;  make format  let ruff rewrite;  make docs  build the pages into site/"
	@echo "make clean   remove what these made, .venv too"

demo: $(READY)
	$(BIN)/python -m pipeline.demo --out $(OUT) $(if $(DATA),--data $(DATA))

test: need-redis lint docs
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_FLAGS)
	$(MAKE) test-jax

# A process of its own: Keras takes its backend when it is imported.
test-jax: $(READY)
	KERAS_BACKEND=jax $(BIN)/python -m pytest --lane -n 2 $(JAX_TESTS)

golden: $(READY)
	$(BIN)/python -m tests.golden_table

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

install: $(READY)

need-python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "error: no $(PYTHON) here; as root: apt-get install -y python3 python3-venv python3-dev g++" >&2; exit 2; }

need-redis: need-python
	@command -v redis-server >/dev/null || $(PYTHON) scripts/setup_venv.py --check redis-server $(VENV)

$(READY): requirements.lock setup.py pyproject.toml scripts/setup_venv.py | need-python
	@$(PYTHON) scripts/setup_venv.py $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) demo site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
