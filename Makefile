# Each target is one line that a person could type; .venv is made on first use.
PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(sort $(wildcard plugins/qpipe-*))
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
TEST_INSTALLS := -e '.[dev,dask]' $(foreach plugin,$(PLUGINS),-e '$(plugin)$(if $(findstring tensorrt,$(plugin)),[rtx])')

unexport PYTHONDONTWRITEBYTECODE # each child would compile again what it imports: 6 CPU seconds for MLflow alone

.PHONY: demo test lint bench clean

demo: .venv/demo  ## the main job: quantize, measure, gate, log, promote
	$(BIN)/qpipe demo

test: .venv/test  ## the suite, without `slow`, `gpu` and `device`
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/test  ## ruff, mypy --strict, the direction of imports
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: .venv/test  ## figures for docs/benchmarks; needs QPIPE_BENCH_DATA
	$(BIN)/python docs/benchmarks/run.py

clean:
	rm -rf .venv demo-run

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/build: .venv/bin/python # what builds our packages: once, not in an environment for each of them
	$(INSTALL) hatchling editables
	touch $@

.venv/demo: .venv/build pyproject.toml plugins/qpipe-onnxruntime/pyproject.toml
	$(INSTALL) --no-build-isolation -e . -e plugins/qpipe-onnxruntime
	touch $@

.venv/test: .venv/build pyproject.toml $(wildcard plugins/*/pyproject.toml)
	$(INSTALL) --no-build-isolation $(TEST_INSTALLS)
	touch $@
