# `make demo` and `make test` are all a clone needs: the virtual environment is made on first use and reused.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# Idle threads sleep: spinning ones would take the cores from the rasterizer's own on a busy machine.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-interop test-cluster test-web viewer docs lint clean

demo: $(VENV)/.compiled
	$(BIN)/python scripts/demo.py --quality low

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# Other people's readers and writers of SPZ and SOG, beside ours. Needs Node 20 and npm.
test-interop: $(VENV)/.installed-dev .interop/.installed
	$(BIN)/python -m pytest tests/interop

.interop/.installed: Makefile
	npm install --silent --no-fund --no-audit --prefix .interop @playcanvas/splat-transform@2.7.1
	npm install --silent --no-fund --no-audit --prefix .interop/newer @playcanvas/splat-transform@3.7.0
	$(PYTHON) -m venv .interop/venv
	.interop/venv/bin/python -m pip install --quiet --disable-pip-version-check gsply==0.4.6 zstandard imagecodecs
	@touch $@

# Batches over a Ray cluster of two nodes on this machine.
test-cluster: $(VENV)/.installed-cluster
	$(BIN)/python -m pytest tests/cluster

# The decoder and viewer in JavaScript: types, then Node's tests, most of them in a browser. Needs Node 20 and npm.
test-web: $(VENV)/.installed-dev web/node_modules/.installed
	npm run --silent --prefix web types
	PYTHON=$(abspath $(BIN)/python) npm test --silent --prefix web

# The viewer as one script, as the npm package has it.
viewer: $(VENV)/.installed web/node_modules/.installed
	mkdir -p web/dist
	$(BIN)/python -m gsz.viewer_script | web/node_modules/.bin/terser --config-file web/terser.json > web/dist/gsz-viewer.js

web/node_modules/.installed: web/package.json
	npm install --silent --no-fund --no-audit --no-package-lock --prefix web
	@touch $@

# The documents as a site, in site/; a link or heading that is not there is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

KERNELS := $(wildcard gsz/*.py gsz/*/*.py utils/kernels.py quality/*.py gaussian_renderer/cpu/*.py)
$(VENV)/.compiled: $(VENV)/.installed $(KERNELS)
	$(BIN)/python scripts/compile_kernels.py
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-docs: requirements-docs.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $@

$(VENV)/.installed-cluster: requirements-cluster.txt $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-cluster.txt
	@touch $@

clean:
	rm -rf $(VENV) site .interop web/node_modules web/dist .pytest_cache .mypy_cache .ruff_cache
