# Airgap: `make up` and open the page it names. `make` alone lists every target.

PYTHON ?= python3
PY := .venv/bin/python
# Tests choose their own settings; what the caller's shell has set for an instance is not theirs.
CLEAN := env -u DATABASE_URL -u REDIS_URL -u AIRGAP_DATA_DIR -u AIRGAP_BIND -u AIRGAP_BASE_URL -u AIRGAP_SIDE -u AIRGAP_SCHEDULE \
	-u AIRGAP_SECRET_KEY -u AIRGAP_ADMIN_PASSWORD -u AIRGAP_TEST_SERVERS -u DJANGO_SETTINGS_MODULE -u PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests up demo test test-servers lint format types check bench screenshots lock offline-kit install-service uninstall-service

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: .python  ## .venv with the locked requirements (PYTHON=python3.12 chooses another Python)
	@"$(PYTHON)" airgap/running/prepare.py requirements.lock

setup-tests: .python
	@"$(PYTHON)" airgap/running/prepare.py requirements.lock tests/requirements.lock

.PHONY: .python
.python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "There is no $(PYTHON) here; install Python 3.11 or later (apt install python3 python3-venv), or name one: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$("$(PYTHON)" -V 2>&1), and Airgap needs Python 3.11 or later; name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }

up: setup  ## run everything here until Ctrl-C
	@exec $(PY) manage.py up $(ARGS)

demo: setup  ## the same with an upstream of its own, data in data-demo/: needs no internet
	@exec $(PY) manage.py up --demo $(ARGS)

test: setup-tests  ## the suite (ARGS='-k freshness' and the like go to pytest)
	@$(CLEAN) $(PY) -m pytest -n 2 --dist worksteal $(ARGS)

test-servers: setup-tests  ## the suite on PostgreSQL and a stand-alone redis-server with two workers
	@$(CLEAN) $(PY) tests/servers/run.py $(ARGS)

lint: setup-tests  ## ruff
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

format: setup-tests  ## ruff, changing the files
	@$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

types: setup-tests  ## mypy
	@$(CLEAN) $(PY) -m mypy airgap mirrors

check: lint types  ## what .ci/run checks, on this machine
	@$(CLEAN) $(PY) manage.py makemigrations --check --dry-run
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-servers

bench: setup-tests  ## ratios against peers, written to docs/performance.md
	@$(CLEAN) $(PY) -m tests.bench $(ARGS)

screenshots: setup-tests  ## pictures of a running instance (ARGS="URL PASSWORD")
	@$(CLEAN) $(PY) tests/browser/screenshots.py $(ARGS)

lock: setup-tests  ## requirements.lock and tests/requirements.lock from the requirements.txt files
	@$(PY) -m pip install --quiet --disable-pip-version-check uv
	@for folder in . tests; do \
		.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
			$$folder/requirements.txt -o $$folder/requirements.lock || exit 1; done

offline-kit: setup  ## one signed archive for a machine without a package index (ARGS="--python 3.12 --arch x86_64")
	@$(PY) manage.py migrate --check >/dev/null 2>&1 || $(PY) manage.py up --prepare
	@$(PY) manage.py offline_kit $(ARGS)

install-service: setup  ## systemd units for this checkout (system-wide as root, else for this user)
	@$(PY) -m airgap.running.service install $(if $(SERVICE_USER),--user "$(SERVICE_USER)")

uninstall-service: setup  ## remove them again; data stays
	@$(PY) -m airgap.running.service uninstall
