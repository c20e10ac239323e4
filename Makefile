# Each target prepares .venv by itself and installs only when its inputs changed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-quick test-gpu test-install test-triton embed-test fuzz faults soak check clean
.DEFAULT_GOAL := demo

# uv where it is present (faster), else venv + pip. Both compile bytecode, so that the first command starts fast.
$(READY): pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
	    echo "preparing $(VENV) with uv"; \
	    { [ -x $(BIN)/python ] || uv venv --quiet --python $(PYTHON) $(VENV); } && \
	    uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
	    echo "preparing $(VENV) with pip (a few minutes the first time)"; \
	    { [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); } && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	fi
	@$(BIN)/python -m compileall -q tinyres export bench weights embed
	@touch $@

demo: $(READY)
	@$(BIN)/tinyres demo

# A process a core, up to four: each keeps a PyTorch of its own in memory.
test: $(READY)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-quick: $(READY)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not slow"

# On a machine with a GPU: what needs one.
test-gpu: $(READY)
	@$(BIN)/python -m pytest -m gpu

test-install: $(READY)
	@$(BIN)/python tests/release/install.py

test-triton: $(READY)
	@$(BIN)/python tests/release/triton_server.py

# What it needs of npm, PyPI and Debian is installed under build/embed, once; what cannot be had is named as skipped.
embed-test: $(READY)
	@$(BIN)/python -m pytest -n auto --maxprocesses 2 --dist loadfile tests/embed

# They share their helpers with the tests.
fuzz faults soak: export PYTHONPATH := tests:tests/errors

fuzz: $(READY)
	@$(BIN)/python tests/reliability/fuzz.py --cases 200

faults: $(READY)
	@$(BIN)/python tests/reliability/faults.py

soak: $(READY)
	@$(BIN)/python tests/reliability/soak.py
	@$(BIN)/python tests/reliability/heavy.py

# mypy cannot follow the folder mapping of the editable install, so it sees the tree as it installs, through links.
check: $(READY)
	@rm -rf build/types && mkdir -p build/types/tinyres
	@for f in tinyres/*; do ln -s ../../../$$f build/types/$$f; done
	@for f in export bench weights; do ln -s ../../../$$f build/types/tinyres/$$f; done
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs/demo $(VENV)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
