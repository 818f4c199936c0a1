# Everything a person or CI does here. Needs Python 3.11+, make and a package index; all else goes into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# A file's tests run in one process, since they share fixtures; files run side by side, slow rooms first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

MATHEMATICS := losses metrics stats calibrators

.PHONY: help demo test test-system test-long test-newest test-lowest test-lowest-stores test-doors coverage lint types format api tables results dist bench bench-check examples docs docs-serve \
	all-checks clean

help:          ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 14

demo: $(VENV)/.bench   ## six methods x five seeds on embedded digits; prints verdict, table and where the report is
	$(BIN)/fedlas bench demo

test: $(VENV)/.test    ## the tests of what fedlas itself computes, three minutes on two cores
	$(PYTEST) -m "not system"

test-system: $(VENV)/.test   ## those with processes, a browser, exporters, compilers, whole models, many data sets, the docs; ten minutes
	$(PYTEST) -m system

test-long: $(VENV)/.test   ## the tests that take minutes, and many more examples of every property
	$(PYTEST) -m long
	$(PYTEST) -m "hypothesis and not system" --hypothesis-profile thorough

test-newest: $(VENV)-newest/.test   ## the quick tests on the newest Python here with the newest packages; 7 GB, of which CUDA is the most
	OMP_NUM_THREADS=1 $(VENV)-newest/bin/python -m pytest -n logical --dist loadfile --no-loadscope-reorder -m "not system"

test-lowest: $(VENV)-lowest/.test   ## the quick tests with the lowest versions that pyproject.toml allows; as large
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest -n logical --dist loadfile --no-loadscope-reorder -m "not system"

test-lowest-stores: $(VENV)/.test   ## the tests of stores and temporary folders with the lowest fsspec, which decides what a store lists; 1 MB beside $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/lowest-stores \
	  "fsspec==$$(sed -n 's/.*"fsspec>=\([0-9.]*\)".*/\1/p' pyproject.toml)"
	PYTHONPATH=$(VENV)/lowest-stores OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/unit/cli/test_hostile_stores.py \
	  tests/unit/cli/test_temporary_folders.py tests/contract/test_tables.py

# What the doors are installed from: this checkout, or a wheel that `make dist` has built.
FROM ?= --editable .

test-doors:    ## what each install of the README can do, in an environment that holds nothing else; FROM=dist/NAME.whl takes a wheel
	$(PYTHON) -m venv --clear $(VENV)-doors
	for door in fedlas tables bench; do \
	  case $$door in fedlas) extra= ;; *) extra="[$$door]" ;; esac; \
	  $(VENV)-doors/bin/python -m pip install --quiet --disable-pip-version-check $(FROM)"$$extra" && \
	  $(VENV)-doors/bin/python tests/doors.py $$door || exit 1; \
	done

coverage: $(VENV)/.test   ## lines and branches of the mathematics that its own tests run; a room under 95 % fails
	$(PYTEST) -m "not system" $(MATHEMATICS:%=--cov=src/fedlas/%) --cov-branch --cov-report= \
	  $(MATHEMATICS:%=src/fedlas/%) $(MATHEMATICS:%=tests/unit/%) tests/golden tests/property \
	  $(wildcard $(MATHEMATICS:%=tests/contract/test_%_*.py))
	@for room in $(MATHEMATICS); do \
	  $(BIN)/python -m coverage report --include="src/fedlas/$$room/*" --show-missing --skip-covered --fail-under=95 || exit 1; \
	done

lint: $(VENV)/.dev     ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev    ## mypy, strict
	$(BIN)/mypy

format: $(VENV)/.dev   ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

api: $(BIN)/python     ## write the public names and signatures to tests/api.txt, which a test compares
	$(BIN)/python tests/api.py

tables: $(VENV)/.test  ## fill the tables in docs/ from the registries
	$(BIN)/python docs/tables.py

results: $(VENV)/.bench   ## write the leaderboard, tables and figures of results/ from its packed runs
	$(BIN)/python docs/results.py

bench: $(VENV)/.test   ## speed: losses, metrics and the training step, as ratios measured side by side
	$(BIN)/python benchmarks/bounds.py
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/stats.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/peers.py --out bench.json

bench-check: $(VENV)/.test   ## fail where fedlas is 20 % slower against other libraries than at the last release
	$(BIN)/python benchmarks/peers.py --check

examples: $(VENV)/.test   ## FedLAS inside the training code of other libraries; accuracy and ECE before and after
	@for example in examples/[a-z]*_*.py; do case $$example in */noisy_digits.py) continue;; esac; \
	  echo "$$example"; OMP_NUM_THREADS=1 $(BIN)/python $$example || exit 1; done

docs: $(VENV)/.docs   ## build the documentation site into site/, warnings as errors; what has not changed is kept
	$(BIN)/python -m sphinx -W --keep-going -j auto -c docs -d build/doctrees . site
	@echo "open site/index.html"

docs-serve: $(VENV)/.docs   ## the site at http://127.0.0.1:8000, built again when a page changes
	$(BIN)/python -m sphinx_autobuild -q -c docs -d build/doctrees . build/site --ignore docs/figures --ignore docs/gallery

dist:          ## the wheel and source archive of a release, checked, and build/sbom.json: what a plain install of the wheel brings
	$(PYTHON) -m venv --clear $(VENV)-dist
	$(VENV)-dist/bin/python -m pip install --quiet --disable-pip-version-check build twine cyclonedx-bom
	rm -rf dist
	$(VENV)-dist/bin/python -m build --outdir dist
	$(VENV)-dist/bin/twine check --strict dist/*
	$(PYTHON) -m venv --clear $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	mkdir -p build
	$(VENV)-dist/bin/cyclonedx-py environment --output-reproducible --output-file build/sbom.json $(VENV)-wheel/bin/python

all-checks: lint types test test-system coverage   ## what CI runs

clean:         ## remove the environment and what tools left behind
	rm -rf $(VENV) $(VENV)-newest $(VENV)-lowest $(VENV)-docs $(VENV)-doors $(VENV)-dist $(VENV)-wheel build dist site docs/figures docs/gallery examples/gallery/runs .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fedlas needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Run e.g. make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The newest Python that can make an environment; those of pyenv count too.
NEWEST ?= $(shell for python in $$(ls -d /usr/bin/python3.* $$HOME/.pyenv/versions/3.*/bin/python3 2>/dev/null) python3; do \
  $$python -c 'import ensurepip, sys; print(*sys.version_info[:3], sys.executable)' 2>/dev/null; \
  done | sort -n -k1,1 -k2,2 -k3,3 | tail -n 1 | cut -d' ' -f4)

# uv reads no settings of pip, takes the newest or the lowest versions, and is ready in half a minute.
$(VENV)-newest/.test: pyproject.toml
	$(NEWEST) -m venv --clear $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-newest/bin/uv pip install --quiet --python $(VENV)-newest/bin/python --editable '.[test]'
	@touch $@

$(VENV)-lowest/.test: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct --editable '.[test]'
	@touch $@

# One stamp an extra: an environment is brought up to date when pyproject.toml changes, and not otherwise.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
