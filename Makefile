# make quickstart   from a bare machine to a corpus, a student and a report
# make test         everything that CI runs: lint, types, tests but the long ones
# make test-all     the long ones too: engines that die, servers, rounds, a real cron; over an hour on 2 cores
# make bench        every benchmark, one after another; best on a machine that does nothing else
# make install      .venv with the CPU teacher; GPU=1 for a machine with NVIDIA GPUs
.PHONY: install install-dev quickstart test test-all lint bench clean
.DEFAULT_GOAL := install

PYTHON ?= python3
comma := ,
BIN := .venv/bin
ifdef GPU
EXTRA := gpu
else
EXTRA := cpu
UV_FLAGS := --override requirements/cpu-overrides.txt
endif

# PyTorch's CPU build: from the wheel folder that pip is set up with, if it has one, else from PyTorch's own index.
WHEELS = $${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$($(BIN)/pip config get global.find-links 2>/dev/null)}}
define uv_install
	wheels="$(WHEELS)"; backend="$(if $(GPU),,--torch-backend=cpu)"; \
	if ls $$wheels/torch-*+cpu*.whl >/dev/null 2>&1; then export UV_FIND_LINKS="$$wheels"; backend=; fi; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python $$backend $(UV_FLAGS) -c requirements/constraints.txt -e '.[$(1)]'
endef

.venv/bin/uv:
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot make a .venv: install its venv module (Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/pip install -qq --disable-pip-version-check uv

.venv/installed-$(EXTRA): .venv/bin/uv pyproject.toml requirements/cpu-overrides.txt requirements/constraints.txt
	@echo "installing distill-data with its $(EXTRA) teacher into .venv"
	@$(call uv_install,$(EXTRA))
	@touch $@

.venv/installed-$(EXTRA)-dev: .venv/installed-$(EXTRA)
	@echo "installing what the tests need"
	@$(call uv_install,$(EXTRA)$(comma)dev)
	@touch $@

install: .venv/installed-$(EXTRA)

install-dev: .venv/installed-$(EXTRA)-dev

quickstart: install
	$(BIN)/distill-data run configs/quickstart.yaml

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Engines, servers and browsers on two busy cores: what failed there is tried once more with the machine to itself.
define pytest
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(1) \
	|| $(BIN)/pytest -rA --last-failed --last-failed-no-failures none
endef

test: lint
	$(call pytest,-m "not long")

test-all: lint
	$(call pytest)

BENCHMARKS = overhead ceiling first_token memory kills soft_labels tried_layouts losses reading server_client filtering deduplication recipe republish tried_chunks scaling classification
bench: install-dev
	@set -e; for name in $(BENCHMARKS); do $(BIN)/python -m tests.benchmarks.$$name; echo; done

clean:
	rm -rf .venv
