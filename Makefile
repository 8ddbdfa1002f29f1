# Needs Python 3.11 or newer, make and git; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
OUTPUT ?= demo-colorized

.PHONY: demo test check format clean

# The main job: colorizes manifests/demo on the embedded model, then proves the luminance of every picture.
demo: $(VENV)/installed
	$(BIN)/diffcolor-batch submit manifests/demo/demo.parquet --output $(OUTPUT)
	$(BIN)/diffcolor-batch verify $(OUTPUT)

# Many tests wait for processes that they start: four at once keep two cores busy. For a few: PYTEST="-n 0 -k NAME".
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 4 $(PYTEST)

# Style, types, the direction of imports, and the report's script.
check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/oxlint --deny-warnings pipelines/curation/report

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OUTPUT) build *.egg-info

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/installed: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --group dev
	touch $@
