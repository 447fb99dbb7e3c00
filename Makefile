# Each target is one line that a person could type; .venv is made on first use.
PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(sort $(wildcard plugins/qpipe-*))
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# Ours first, by the one backend in .venv; then what they need, each built by the backend that it names.
EDITABLE := $(INSTALL) --no-build-isolation --no-deps -e .
NEEDED_BY_TESTS := 'qpipe-core[dev,dask]' $(foreach plugin,$(notdir $(PLUGINS)),'$(plugin)$(if $(findstring tensorrt,$(plugin)),[rtx])')

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
	$(EDITABLE) -e plugins/qpipe-onnxruntime
	$(INSTALL) qpipe-core qpipe-onnxruntime
	touch $@

.venv/test: .venv/build pyproject.toml $(wildcard plugins/*/pyproject.toml)
	$(EDITABLE) $(addprefix -e ,$(PLUGINS))
	$(INSTALL) $(NEEDED_BY_TESTS)
	touch $@
