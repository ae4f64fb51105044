# The README's two commands are `make demo` and `make test`. Both need Python 3.11 to 3.14 with venv,
# make and the package registry. `make PYTHON=/path/to/python3.13 demo` chooses another Python.

# The first Python that runs and can make a virtual environment.
find_python = for version in 3.11 3.12 3.13 3.14; do \
	if python$$version -c 'import ensurepip, venv' 2>/dev/null; then echo python$$version; break; fi; \
	done
PYTHON ?= $(shell $(find_python))
BIN := .venv/bin
export AUTHFACE_CACHE ?= $(CURDIR)/.assets

.PHONY: demo test fast light-test storm train-storm docs lint clean

.venv/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "make: no Python from 3.11 to 3.14 with \
	venv was found; install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name one: \
	make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || echo "Installing into .venv with $(PYTHON): about 8 GB, mostly PyTorch \
	with CUDA; downloading and unpacking them takes minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --no-compile --constraint constraints.txt \
		--editable '.[data,train,dev,docs]'
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

# The tests that need only the light installation, in a virtual environment of its own.
EXTRAS_NEEDED := test_object_store.py test_damaged_parts.py test_disk_full.py test_lock.py \
	test_migrate.py test_missing_files.py
light-test:
	$(PYTHON) -m venv .venv-light
	.venv-light/bin/pip install --quiet --disable-pip-version-check --no-compile \
		--constraint constraints.txt --editable . filelock openpyxl pytest pytest-xdist
	.venv-light/bin/pytest -q -m "not slow" tests/manifests tests/authface_data/review \
		$(addprefix --ignore=tests/manifests/,$(EXTRAS_NEEDED))

storm: .venv/.installed
	$(BIN)/authface demo --fetch
	$(BIN)/python tests/support/public_faces.py
	$(BIN)/python benchmarks/storm.py

train-storm: .venv/.installed
	$(BIN)/authface demo --fetch
	$(BIN)/python benchmarks/train_storm.py

docs: .venv/.installed
	$(BIN)/python docs/generator/write.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-light demo site .assets build dist *.egg-info
