# The README's two commands are `make demo` and `make test`. Both need python3.11, make and the
# package registry.

PYTHON ?= python3.11
BIN := .venv/bin
export AUTHFACE_CACHE ?= $(CURDIR)/.assets

.PHONY: demo test fast storm train-storm lint clean

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[data,train,dev]'
	# Two packages require OpenCV with windows, which needs libGL; the build without serves them too.
	$(BIN)/pip uninstall --quiet --yes opencv-python opencv-python-headless
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps opencv-python-headless
	touch $@

demo: .venv/.installed
	$(BIN)/authface demo --workspace demo

test: .venv/.installed
	$(BIN)/authface demo --fetch
	$(BIN)/python tests/support/public_faces.py
	AUTHFACE_NEED_ASSETS=1 $(BIN)/pytest -q

fast: .venv/.installed
	$(BIN)/pytest -q -m "not slow"

storm: .venv/.installed
	$(BIN)/authface demo --fetch
	$(BIN)/python tests/support/public_faces.py
	$(BIN)/python benchmarks/storm.py

train-storm: .venv/.installed
	$(BIN)/authface demo --fetch
	$(BIN)/python benchmarks/train_storm.py

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv demo .assets build dist *.egg-info
