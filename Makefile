# make help says what there is. Everything is installed into .venv; nothing outside this folder is touched,
# except a RAW and STORE that you name.
PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
BENCH ?= .venv-bench
RAW ?= data/sample
STORE ?= $(if $(filter data/sample,$(RAW)),data/sample-store,)
RUN ?= data/run
FUZZ_SECONDS ?= 60
FULL ?= data/full
ARGS ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup convert info verify report train test test-slow test-faults test-lowest test-slurm test-hosts test-full clean-full test-js test-backends test-site fuzz check format tutorial docs bench bench-full clean

help: ## Show this help
	@echo "make convert                      convert the built-in sample (made on first use)"
	@echo "make convert RAW=... STORE=...    convert an archive; more options with ARGS='--s1 DIR ...'"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

# Converting needs no TensorFlow, so there are two levels of installation.
$(VENV)/.convert: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.all: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	@touch $(VENV)/.convert $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $(VENV)/.convert $@

setup: $(VENV)/.all ## Install everything, for training and development too

data/sample: | $(VENV)/.convert
	$(BIN)/ben-convert sample $@

convert: $(VENV)/.convert $(filter data/sample,$(RAW)) ## Convert RAW (default: the sample) into STORE
	@test -n "$(STORE)" || { echo "Say where the store goes: make convert RAW=$(RAW) STORE=/path/to/store"; exit 2; }
	$(BIN)/ben-convert convert $(RAW) $(STORE) $(ARGS)

info: $(VENV)/.convert ## Say what STORE holds
	$(BIN)/ben-convert info $(STORE) $(ARGS)

report: $(VENV)/.convert ## Show STORE on one page, beside it
	$(BIN)/ben-convert report $(STORE) $(ARGS)

verify: $(VENV)/.convert ## Check every byte of STORE; against the archive with ARGS='--against RAW'
	$(BIN)/ben-convert verify $(STORE) $(ARGS)

data/sample-store: | data/sample
	$(BIN)/ben-convert convert data/sample $@

train: $(VENV)/.all | $(filter data/sample-store,$(STORE)) ## Train on STORE (default: the sample's), into the folder RUN
	$(BIN)/ben-train fit $(STORE) $(RUN) $(ARGS)

test: $(VENV)/.all ## Run all tests but the slow ones and the fault injections
	$(BIN)/python -m pytest -m 'not faults and not slow' -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-slow: $(VENV)/.all ## Train large networks and many members of a comparison, and run the tutorial
	$(BIN)/python -m pytest -m slow $(ARGS)

test-faults: $(VENV)/.all ## Kill, starve and deceive the converter, for real
	$(BIN)/python -m pytest -m faults $(ARGS)

# Old libraries warn of what newer ones have deprecated, which is no fault of theirs or ours: `-W default`.
test-lowest: ## Run all tests with the lowest versions that pyproject.toml names, on Python 3.11
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[all]'
	$(LOWEST)/bin/python -m pytest -m 'not faults and not slow' -W default -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-slurm: $(VENV)/.all ## Submit the scripts of docs/clusters.md to a SLURM of its own (as root; Debian: slurm-wlm, munge)
	$(BIN)/python -m pytest -m slurm tests/clusters $(ARGS)

test-hosts: $(VENV)/.all ## Work on several hosts, which are network namespaces made for it (as root)
	$(BIN)/python -m pytest -m hosts $(ARGS)

test-full: $(VENV)/.all ## Run every command on all 590,326 patches, made of hard links in the folder FULL (6 GB)
	BIGEARTHNET_FULL=$(FULL) $(BIN)/python -m pytest -m full tests/full $(ARGS); status=$$?; \
	test ! -f $(FULL)/log.txt || cat $(FULL)/log.txt; exit $$status

clean-full: ## Remove what test-full keeps in FULL
	@test -n "$(FULL)"
	rm -rf $(FULL)/archive $(FULL)/archive.partial $(FULL)/work $(FULL)/log.txt

test-js: $(VENV)/.all ## Read stores from JavaScript, which needs npm's registry once; `make test` has it too
	$(BIN)/python -m tests.js.packages
	$(BIN)/python -m pytest tests/bigearthnet/test_javascript.py $(ARGS)

test-backends: $(VENV)/.all ## Install PyTorch, Lightning, JAX and Grain, and train and stream with each
	$(BIN)/python -m pip install --quiet --editable '.[all,torch,jax,grain]' lightning
	$(BIN)/python -m pytest tests/trainer/test_backends.py tests/trainer/test_torch_data.py \
		tests/trainer/test_grain_data.py tests/trainer/test_keras_data.py tests/test_documents.py $(ARGS)

test-site: $(VENV)/.all $(VENV)/.docs ## Build the documentation and open it in a browser
	$(BIN)/python -m pytest tests/test_site.py $(ARGS)

fuzz: $(VENV)/.all ## Feed the readers of foreign bytes for FUZZ_SECONDS each
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

check: $(VENV)/.all ## Check format, lint and types, then run the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(VENV)/.all ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tutorial: $(VENV)/.all ## Make the notebook docs/tutorial.ipynb from docs/tutorial.md: run it, with pictures
	rm -rf data/tutorial
	$(BIN)/python docs/notebook.py

docs: $(VENV)/.docs ## Build the documentation as a site, which opens at site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(BENCH)/.done: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet uv
	$(BENCH)/bin/uv pip install --quiet --python $(BENCH)/bin/python --editable '.[all,bench]'
	@touch $@

bench: $(BENCH)/.done ## Run the benchmarks, with rivals and floors from the same run, in some minutes
	$(BENCH)/bin/python -m benchmarks.convert --patches 1024 --few 256 --rounds 1
	$(BENCH)/bin/python -m benchmarks.growth --sizes 1024 4096
	$(BENCH)/bin/python -m benchmarks.stream --patches 2048 --rounds 1 --only warm
	$(BENCH)/bin/python -m benchmarks.fit
	$(BENCH)/bin/python -m benchmarks.remote

bench-full: $(BENCH)/.done ## Run them at length, and write docs/benchmarks.md anew
	$(BENCH)/bin/python -m benchmarks.convert --patches 8192 --rounds 3 --record
	$(BENCH)/bin/python -m benchmarks.stream --rounds 3 --record
	$(BENCH)/bin/python -m benchmarks.growth --sizes 1024 4096 16384 65536 --record
	$(BENCH)/bin/python -m benchmarks.page

clean: ## Remove the virtual environment, the sample and the site
	rm -rf $(VENV) $(LOWEST) $(BENCH) data site
