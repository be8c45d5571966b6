# make demo, make test: nothing else sets anything up. The first one that runs installs everything into .venv.
#   make demo DATA=DIR    the same on the publisher's MovieLens-1M files
#   make PYTHON=python3.11 ...    another interpreter than python3
PYTHON ?= python3
DATA ?=
OUT ?= demo
PYTEST_FLAGS ?=
SEED ?= 1

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest -n 2 --no-loadscope-reorder
JAX_TESTS := tests/layers tests/interests tests/interactions tests/test_losses.py tests/test_cl4ctr.py tests/test_layer_checks.py \
  tests/test_golden_cases.py
UNOPTIMIZED := XLA_FLAGS=--xla_backend_optimization_level=0
MODEL_TESTS := tests/layers tests/interests tests/interactions tests/models
QUALITY_TESTS := tests/test_quality.py
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo check test test-jax test-night test-fuzz golden lint format docs lock install clean need-python need-redis

help:
	@echo "make demo    synthetic data through the pipeline to a ranked answer (DATA=DIR: MovieLens-1M files)"
	@echo "make install the locked packages into .venv; the other commands do it when they need it"
	@echo "make check   before a commit: lint, types and the fast tests (three minutes on two idle cores)"
	@echo "make test    before a merge: lint, types, pages and all tests but those of the night"
	@echo "make test-jax    the part of make test that runs on the JAX backend"
	@echo "make test-night  now and then: every interest with every interaction"
	@echo "make test-fuzz   100,000 nearly right inputs to files, cached records and the server (SEED=N)"
	@echo "make golden  run the comparisons with published numbers and print a table by architecture"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff rewrite"
	@echo "make docs    build the pages into site/"
	@echo "make lock    resolve requirements.lock again, from setup.py"
	@echo "make clean   remove what these made, .venv too"

demo: $(READY)
	$(BIN)/python -m pipeline.demo --out $(OUT) $(if $(DATA),--data $(DATA))

# The lanes of the tests; pyproject.toml explains the marks. A lane that takes longer on two idle cores than its budget
# needs faster tests, or marks that move some of them to a later lane.

# Budget: 3 minutes, with lint and types. Layer checks (any_backend) train, save and compile each layer, so they wait.
check: need-redis lint
	$(PYTEST) --dist loadfile -m "not (e2e or slow or night or any_backend)" --ignore tests/pipeline $(PYTEST_FLAGS)

# Budget: 60 minutes, of which 5 for test-jax. Of the composition of interests and interactions only the covering pairs.
# What XLA compiles is for one test, so it need not be fast, but for the trainings of whole models that tests of quality
# are. It stays in memory as long as a process lives, so the tests that compile most have a run of their own.
test: need-redis lint docs
	$(UNOPTIMIZED) $(PYTEST) --dist loadfile $(MODEL_TESTS) $(PYTEST_FLAGS)
	$(UNOPTIMIZED) $(PYTEST) --dist loadfile $(MODEL_TESTS:%=--ignore=%) --ignore=$(QUALITY_TESTS) $(PYTEST_FLAGS)
	$(PYTEST) --dist loadgroup $(QUALITY_TESTS) $(PYTEST_FLAGS)
	$(MAKE) test-jax

# Budget: 5 minutes. A process of its own: Keras takes its backend when it is imported. Most of its time is compilation,
# which is faster without optimizations.
test-jax: $(READY)
	KERAS_BACKEND=jax JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(PYTEST) -m "golden or any_backend" $(JAX_TESTS)

# Budget: 90 minutes. Every interest with every interaction, the tutorials, and second forms of the longest tests.
test-night: $(READY)
	$(PYTEST) -m night $(PYTEST_FLAGS)

# Budget: 5 minutes, and 8 GiB for each process (the server has 4). Inputs that were found to break something stay in .hypothesis and come first in the next run.
test-fuzz: $(READY)
	ulimit -d 8388608 && $(PYTEST) --dist load --hypothesis-profile fuzz --hypothesis-seed $(SEED) -rP tests/fuzz $(PYTEST_FLAGS)

golden: $(READY)
	$(BIN)/python -m tests.golden_table

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Not --quiet: it hides warnings from --strict too, which then lets them pass.
# The reference imports the layers; any backend does, and this one is imported fastest.
docs: $(READY)
	KERAS_BACKEND=jax NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# uv.lock, which git ignores, keeps the versions of the last time; without it every package becomes the newest.
lock: $(READY)
	$(BIN)/uv lock
	$(BIN)/uv export --quiet --frozen --all-extras --no-emit-project --no-annotate --no-header -o requirements.lock

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
