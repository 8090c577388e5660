# netdiag: every command a developer or a build needs. `make demo` and `make test` work on a bare Debian 12 or Ubuntu 24.04.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The first interpreter that is new enough (3.11) and can make a virtual environment.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Debian package names: the second opinion, then what the labs start.
SYSTEM_PACKAGES := tshark tcpdump iproute2 iputils-ping ethtool nftables conntrack openssl util-linux \
	rtpengine-daemon sip-tester kamailio kamailio-tls-modules baresip-core coturn

.PHONY: help demo test check lint types unit labs install install-dev install-system bench bench-large fuzz samples clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: install  ## analyse a recorded real capture and write its evidence section
	@mkdir -p out
	@echo; echo '$$ netdiag analyze --point lan=captures/samples/cases/one-way-audio-behind-nat/broken.lan.pcap \'
	@echo '                  --point relay=captures/samples/cases/one-way-audio-behind-nat/broken.relay.pcap'; echo
	@$(BIN)/netdiag analyze --fail-on never \
		--point lan=captures/samples/cases/one-way-audio-behind-nat/broken.lan.pcap \
		--point relay=captures/samples/cases/one-way-audio-behind-nat/broken.relay.pcap
	@$(BIN)/netdiag evidence -o out/evidence.md \
		--point lan=captures/samples/cases/one-way-audio-behind-nat/broken.lan.pcap \
		--point relay=captures/samples/cases/one-way-audio-behind-nat/broken.relay.pcap
	@echo; echo 'The evidence section for a postmortem: out/evidence.md'; sed -n 1,24p out/evidence.md

test: install-system install-dev  ## install what the tests need and run all of them, labs included
	$(MAKE) --no-print-directory check unit labs

check: lint types  ## lint and types

lint:
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

unit:
	$(BIN)/python -m pytest -m 'not lab' -n 2 -q

labs:
	$(BIN)/python -m pytest -m lab -n 3 -q

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo 'netdiag needs Python 3.11 or newer, and none was found' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); \
		$(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3-venv python3-pip && $(PYTHON) -m venv $(VENV); }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo 'installing netdiag into $(VENV)' && $(BIN)/python -m pip install -qq --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev,labs,tshark]'
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed  ## install netdiag into its own virtual environment

install-dev: $(VENV)/.installed-dev  ## the same with all that the tests need

install-system:  ## install the Debian packages that tests and labs need
	@missing=$$(for p in $(SYSTEM_PACKAGES); do dpkg-query -W -f='$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		$(SUDO) apt-get update -qq; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

bench: install-dev  ## measure against other tools and write docs/performance.md (25 minutes)
	$(BIN)/python bench/run.py

bench-large: install-dev  ## the same with a capture of 12 GB
	$(BIN)/python bench/run.py --large

FUZZ_SECONDS ?= 1800

fuzz: install-dev  ## search FUZZ_SECONDS long for input that breaks something, and write the figures of docs/reliability.md
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[fuzz]' || \
		echo 'atheris cannot be installed here: the search is not guided by coverage' >&2
	nice $(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS) --jobs 2 --report docs/reliability.md

samples: install-dev  ## write the sample captures again from their recipes
	$(BIN)/python tests/recipes.py

clean:  ## remove what these targets made
	rm -rf $(VENV) out build dist bench/data .mypy_cache .ruff_cache .pytest_cache
