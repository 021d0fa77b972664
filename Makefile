# Everything here sets up .venv by itself. `make test` is what CI runs; `make demo` shows the package at work.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: test demo docs embedded lint types tests lowest clean

test: lint types tests

demo: $(STAMP)
	$(BIN)/dydiff-env demo --out demo --overwrite

docs: $(STAMP)
	$(BIN)/sphinx-build --fail-on-warning --quiet docs build/site
	@echo "Open build/site/index.html in a browser."

embedded: $(STAMP)
	$(BIN)/python benchmarks/build_embedded.py

lint: $(STAMP)
	$(BIN)/ruff check .

# agents/ and cli/ are sub-packages by pyproject's mapping only, which mypy cannot see: show it the tree as installed.
types: $(STAMP)
	rm -rf build/types && mkdir -p build/types/dydiff_env
	ln -s $(CURDIR)/dydiff_env/* $(CURDIR)/agents $(CURDIR)/cli build/types/dydiff_env/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache

# Hypothesis draws the same examples in each run; `.venv/bin/pytest` by itself looks for new ones. In two processes: make tests PYTEST="-n 2".
tests: $(STAMP)
	$(BIN)/pytest --hypothesis-profile=ci $(PYTEST)

# The lowest version of everything that pyproject.toml allows, in an environment of its own.
LOWEST := build/lowest
lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct \
		-e '.[maze,onnx,report,video]' 'hypothesis>=6.100' 'pytest>=8'
	$(LOWEST)/bin/python -m pytest tests/test_package.py tests/test_world.py tests/test_env.py tests/test_export.py \
		tests/test_report.py tests/test_cli.py tests/test_policies.py

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
