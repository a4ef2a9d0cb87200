# Two commands: `make demo` and `make test`. Both make .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(shell find registration fluoronav models -name '*.cpp' -o -name '*.hpp' -o -name '*.h' -o -name CMakeLists.txt) CMakeLists.txt pyproject.toml constraints.txt
DEMO_ARGS ?=
# the page's tests wait for a browser that draws on these same cores: they come after, alone
TEST_ARGS ?= -n 2
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check bench clean doctor

demo: $(VENV)/.base
	$(BIN)/fluoronav demo $(DEMO_ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(TEST_ARGS) -m "not browser"
	$(BIN)/python -m pytest -m browser

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test
	-$(PIP) install -q -c constraints.txt -e '.[peers]'
	@for b in $$($(BIN)/fluoronav bench --list); do $(BIN)/fluoronav bench $$b --json || exit 1; done

doctor: $(VENV)/.base
	$(BIN)/fluoronav doctor

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fluoronav needs Python >= 3.11, got " + sys.version.split()[0] + "; give make PYTHON=python3.12 or the like")'
	$(PYTHON) -m venv $(VENV)

# pip compiles to bytecode on one core and in series with everything else: half of its time
COMPILE := $(BIN)/python -m compileall -q -j 0 -x '/(tests?|torch|sympy|mpmath)/'

$(VENV)/.base: $(VENV)/bin/python $(NATIVE)
	$(PIP) install -q --no-compile -c constraints.txt -e .
	-$(COMPILE) $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') registration models overlays fluoronav
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) install -q --no-compile -c constraints.txt -e '.[train,test,check]'
	touch $@

clean:
	rm -rf $(VENV) build
