# make demo   the whole suite on a synthetic volume, from nothing to a scored segmentation
# make test   the tests            make lint   the checks
# make venv   the environment alone
# make bench  measured beside its peers, which get environments of their own: benchmarks/RESULTS.md

PYTHON ?= python3
CORES ?= $(shell nproc)
BIN := .venv/bin
# Several test processes share the cores: each computes on one.
TEST_WORKERS ?= $(CORES)

.PHONY: venv demo test bench lint format lock

venv: .venv/installed

.venv/installed: requirements.lock containers/cuda.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), expected Python 3.11 or newer (make PYTHON=python3.12)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock triton -c containers/cuda.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# The workflow ends by saying what it found; where there was nothing left to do, it is said again.
demo: venv
	@was_there=$$(ls results/phantom/small/*/*/scores.json 2>/dev/null); \
	$(BIN)/snakemake --cores $(CORES) --quiet rules --config dataset=phantom network=small && \
	{ [ -z "$$was_there" ] || $(BIN)/python 04_segment/summary.py results/phantom/small; }

test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadgroup tests

PEERS := benchmarks/peers

bench: venv $(PEERS)/gunpowder/.venv/installed $(PEERS)/volara/.venv/installed $(PEERS)/careamics/.venv/installed
	$(BIN)/python benchmarks/run_all.py

$(PEERS)/%/.venv/installed: $(PEERS)/%/requirements.lock
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/Snakefile *.smk 0*/*.smk
	$(BIN)/snakemake --lint
	$(BIN)/snakemake --snakefile plates.smk --lint
	$(BIN)/snakemake --snakefile transfer.smk --lint
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/Snakefile *.smk 0*/*.smk

PINS := $(BIN)/python -m pip freeze --all | grep -Ev '^(emsuite|pip|triton|(nvidia|cuda)-.*)( |=)' | sed 's/^\(torch==[0-9.]*\)+.*/\1/'

lock:
	rm -rf .venv && $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade .
	$(PINS) > .venv/stages
	$(BIN)/python -m pip install --quiet --upgrade --constraint .venv/stages ".[workflow,development]"
	{ echo "# Everything that runs the suite, its tests and its checks, pinned; made by 'make lock' from pyproject.toml."; \
	  echo "# What the stages need, and so every image:"; cat .venv/stages; \
	  echo "# What the workflow, the tests and the checks need besides:"; $(PINS) | grep -vxFf .venv/stages; } > requirements.lock
	$(BIN)/python containers/lock_cuda > .venv/cuda && mv .venv/cuda containers/cuda.lock
