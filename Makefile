# make run    start a hub with no configuration (installs what is needed into .venv first)
# make test   install what the tests need and run all of them
# make bench  measure beside Postfix and aiosmtpd (about half an hour; QUICK=1 for a first look)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/constraints.txt
BENCH_FLAGS := $(if $(QUICK),--quick,--save)

.PHONY: help run venv test check unit bench clean
.DEFAULT_GOAL := help

help: ## say what can be made
	@sed -n 's/^# make /make /p' Makefile
	@echo "make venv   make .venv with the waypost command"
	@echo "make check  format, lint, types, layers, generated pages"
	@echo "make unit   the quick tests only"
	@echo "make clean  remove .venv and caches"

run: venv ## start a hub with zero config
	@echo "Starting a hub; stop it with Ctrl-C. In another shell, for example:"
	@echo "  $(BIN)/waypost send --to 'alerts@[127.0.0.1]' --subject hello"
	@echo "  $(BIN)/waypost mailbox show alerts"
	@exec $(BIN)/waypost serve

venv: $(BIN)/.waypost

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Waypost needs Python 3.11 or newer; name one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh tests/support/debian.sh python3-venv
	$(PYTHON) -m venv $(VENV)

$(BIN)/.waypost: $(BIN)/python pyproject.toml VERSION $(LOCK)
	@echo "Installing Waypost into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -e .
	@touch $@

$(BIN)/.tests: $(BIN)/.waypost requirements/tests.txt
	@echo "Installing what the tests need"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -r requirements/tests.txt
	$(BIN)/python -m pip download --quiet --disable-pip-version-check -c $(LOCK) --no-deps \
		--no-binary :all: --dest $(VENV)/sdists email-validator
	@$(BIN)/python -c 'import test.test_email' 2>/dev/null || \
		sh tests/support/debian.sh libpython3-testsuite
	sh tests/support/debian.sh bind9-utils curl dnsmasq-base dovecot-core glewlwyd haproxy iproute2 ldnsutils \
		mosquitto mosquitto-clients msmtp nsd openssl pebble postfix postgrey strace swaks unbound
	@touch $@

check: $(BIN)/.tests ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests/support docs/generate.py
	$(BIN)/lint-imports

unit: $(BIN)/.tests ## the quick tests
	$(BIN)/python -m pytest tests/unit tests/protocol tests/docs

test: check ## everything, on real servers started by the tests
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

$(BIN)/.bench: $(BIN)/.tests benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -r benchmarks/requirements.txt
	@touch $@

bench: $(BIN)/.bench ## beside Postfix and aiosmtpd
	$(BIN)/python -m benchmarks $(BENCH_FLAGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
