# The two commands to start: `make repro` and `make test`. Everything they need goes into .venv.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test faults bench lint setup clean-venv

# DVC empties these two files before it writes them: killed in between, it would refuse to start again.
repro: .venv/.pipeline
	find dvc.lock .dvc/tmp/rwlock -maxdepth 0 -empty -delete 2>/dev/null || true
	dvc repro
	@echo; sed -n 's/^- //p' reports/audit.md

test: .venv/.test
	python -m pytest

# What broken pictures, broken texts and random input do: minutes that the daily tests do not need.
faults: .venv/.test
	python -m pytest tests/faults

# The figures of docs/performance.md, into reports/benchmarks.md; half an hour, on an idle machine.
bench: .venv/.test
	python -m benchmarks

lint: .venv/.test
	ruff check .
	ruff format --check .

setup: .venv/.test

# A stamp a file of requirements, so that an unchanged one installs nothing.
.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11 repro")'
	$(PYTHON) -m venv .venv

.venv/.pipeline: requirements.txt | .venv/bin/python
	.venv/bin/python -m pip install -r requirements.txt
	touch $@

.venv/.test: requirements-test.txt .venv/.pipeline
	.venv/bin/python -m pip install -r requirements-test.txt
	touch $@

clean-venv:
	rm -rf .venv
