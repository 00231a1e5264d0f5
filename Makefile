# What people type. `make help` lists it; ARGS=… goes to pytest, as in `make test ARGS="-k digest"`.

PYTHON ?= python3
CONFIG ?= config/wasm-mirror.yaml
E2E ?= e2e or integration or needs
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
SPHINX := $(VENV)/docs
# Most tests wait for something most of the time: two of them for each core. Those of make e2e keep a core busy with
# servers and herds of clients, and count what upstream was asked: one more than there are cores, or they starve Redis.
PYTEST = $(PY) -m pytest -n $$((2 * $$(getconf _NPROCESSORS_ONLN)))
# Tests that share what takes long to make, such as the image, are a group, and run in one process.
BUSY = $(PY) -m pytest -n $$((1 + $$(getconf _NPROCESSORS_ONLN))) --dist loadgroup

# Compiled files are kept, whatever the shell says: without them each of the programs that tests start compiles the mirror.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run demo test e2e chaos fuzz bench check setup lock docs sbom
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):[^#]*## /\1\t/p' Makefile | expand -t 8

run: setup ## serve config/wasm-mirror.yaml; another file: make run CONFIG=file.yaml
	@$(VENV)/bin/wasm-mirror serve --config $(CONFIG)

demo: setup ## a real Envoy behind the mirror, and an outage, told step by step
	@$(PY) -m demo

test: setup ## all tests but those that make e2e is for
	@$(PYTEST) tests --ignore=tests/e2e --ignore=tests/bench -m "not integration" $(ARGS)
	@echo "Left out: tests/e2e, with real clients and registries, and those marked integration, with many servers (make"
	@echo "e2e); tests/bench (make bench)."

e2e: setup $(SPHINX)/.ready ## the tests with real clients, registries, many servers; a missing program is a failure
	@$(PY) -m tests.support.tools build
	@WASM_MIRROR_REQUIRE_TOOLS=1 $(BUSY) tests --ignore=tests/bench -m "$(E2E)" $(ARGS)

chaos: setup ## two minutes in which everything fails at random, under load; make chaos ARGS="--seconds 600 --seed 7"
	@$(PY) -m tests.chaos $(ARGS)

fuzz: setup ## a minute of faulty modules and archives; what goes wrong joins the corpus; make fuzz ARGS="--seconds 600"
	@$(PY) -m tests.wasm.fuzz $(ARGS)

bench: setup ## the benchmarks: one table, every figure beside its peers
	@$(PY) -m tests.bench $(ARGS)

check: setup ## format, lint, types; changes no file
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

setup: $(READY) ## .venv with the package and its tools; nothing to do when nothing changed

$(READY): requirements.lock pyproject.toml mirror/__init__.py
	@$(PY) -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory $(VENV)
	@echo "Installing what requirements.lock names into $(VENV): this takes a minute or two, once"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: $(VENV)
$(VENV):
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON). wasm-mirror needs Python 3.11 or newer: make setup PYTHON=path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "wasm-mirror needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1): make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)

COMPILE = $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --custom-compile-command "make lock"

lock: setup ## write requirements.lock, and runtime.lock out of it, anew from pyproject.toml; newer versions: make lock UPGRADE=--upgrade
	@$(PY) -m venv $(VENV)/lock
	@$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check uv==0.13.8
	@$(COMPILE) $(UPGRADE) --extra dev --output-file requirements.lock pyproject.toml
	@$(COMPILE) --constraint requirements.lock --extra cluster --extra tracing --output-file runtime.lock pyproject.toml
	@printf '%s\n' 'furo>=2025.12' 'myst-parser>=5.2' 'sphinx>=9' | $(COMPILE) $(UPGRADE) --output-file docs/requirements.lock -
	@echo 'cyclonedx-bom>=7.5' | $(COMPILE) $(UPGRADE) --output-file sbom.lock -

# Sphinx, with MyST for Markdown, in an environment of its own: nothing of it is needed to run or to test the mirror.
SITE ?= build/site

docs: $(SPHINX)/.ready ## the documentation as a site, in build/site
	@rm -rf $(SITE)
	@$(SPHINX)/bin/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --builder html --conf-dir docs \
	  --doctree-dir $(SITE).doctrees . $(SITE)
	@rm -rf $(SITE).doctrees
	@echo "The site is in $(SITE): open $(SITE)/index.html"

# What runs, with licences, out of an environment that has just that.
BILL := $(VENV)/sbom
RUNTIME := $(VENV)/runtime

sbom: $(BILL)/.ready $(RUNTIME)/.ready ## the bill of materials of what runs, as CycloneDX, in build/sbom.cdx.json
	@mkdir -p build
	@$(BILL)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
	  --output-format JSON --output-file build/sbom.cdx.json $(RUNTIME)
	@echo "The bill of materials is build/sbom.cdx.json"

$(BILL)/.ready: sbom.lock
$(RUNTIME)/.ready: runtime.lock
$(SPHINX)/.ready: docs/requirements.lock
$(BILL)/.ready $(RUNTIME)/.ready $(SPHINX)/.ready: | $(READY)
	@echo "Installing $< into $(@D)"
	@$(PY) -m venv --clear --without-pip $(@D)
	@$(PY) -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
