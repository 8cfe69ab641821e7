# ptewalk. `make` is lint and unit tests; `make cosim` the co-simulation; `make test` everything that can fail.
# Every target makes .venv with pinned dependencies when it is missing, or when what it is made from has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
SYSTEM_PACKAGES := iverilog:iverilog ccache:ccache
test nightly: SYSTEM_PACKAGES += qemu-system-x86_64:qemu-system-x86 fusermount3:fuse3 xz:xz-utils busybox:busybox-static sqlite3:sqlite3 chromium:chromium berkeley-abc:berkeley-abc
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: check setup lint unit cosim test mutants nightly site clean

check: lint unit

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
	  || { echo "ptewalk needs Python 3.11 to 3.14, and $(PYTHON) is none: install one, or name it with make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "python3 has no venv: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@mkdir -p $(VENV)/typing/ptewalk && for part in rtl model cosim; do ln -sfn ../../../$$part $(VENV)/typing/ptewalk/$$part; done
	@touch $@

# What only the system's package manager has: installed where that is allowed, else named, and its parts are not run.
.PHONY: system
system:
	@missing=""; for pair in $(SYSTEM_PACKAGES); do \
	  command -v $${pair%%:*} > /dev/null || missing="$$missing $${pair##*:}"; done; \
	test -z "$$missing" && exit 0; \
	sudo=""; test "$$(id -u)" = 0 || sudo="sudo -n"; \
	if command -v apt-get > /dev/null && { test -z "$$sudo" || sudo -n true 2> /dev/null; }; then \
	  echo "installing$$missing"; \
	  { $$sudo apt-get -qq update && DEBIAN_FRONTEND=noninteractive $$sudo apt-get -qq install -y --no-install-recommends $$missing; } > /dev/null 2>&1 \
	    && exit 0; \
	fi; \
	echo "missing:$$missing; what needs them is not run. Mend: sudo apt-get install$$missing"

lint: $(STAMP)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	MYPYPATH=$(VENV)/typing $(BIN)/mypy --no-error-summary -p ptewalk.rtl -p ptewalk.model -p ptewalk.cosim

unit: $(STAMP)
	$(BIN)/pytest -q -n 2 -m "not slow and not thorough"

cosim: $(STAMP) system
	$(BIN)/ptewalk doctor
	$(BIN)/ptewalk cosim

test: $(STAMP) system lint
	$(BIN)/pytest -q -n 2 --maxschedchunk 4

# 300 random one-token changes of model/ and rtl/: do the tests notice? Goes on where it was interrupted.
mutants: $(STAMP)
	$(BIN)/python tests/mutate.py --draw 300

# Hours, not minutes: what the tests do on a few hundred cases, on many (docs/campaigns.md). Goes on where it was interrupted.
nightly: $(STAMP) system
	$(BIN)/ptewalk campaign nightly

# The documentation as a site, in results/site; a warning is an error.
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:
	rm -rf $(VENV) build dist results *.egg-info
