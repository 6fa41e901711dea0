# The two commands to start: `make repro` and `make test`. Everything they need goes into .venv.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test test-long test-processors faults bench lint setup clean-venv

# DVC empties these two files before it writes them, and makes a folder in its run cache before it fills it: killed
# in between, it would refuse to start again.
repro: setup
	find dvc.lock .dvc/tmp/rwlock -maxdepth 0 -empty -delete 2>/dev/null || true
	find .dvc/cache/runs -mindepth 2 -type d -empty -delete 2>/dev/null || true
	dvc repro
	@echo; sed -n 's/^- //p' reports/audit.md

test: setup
	python -m pytest

# The pipeline through DVC, studies, and encoders in the loop: each runs it many times over.
test-long: setup
	python -m pytest tests/long

# What depends on the processor, as other processors compute it: ATen without AVX-512, oneDNN without AVX-512.
test-processors: setup
	ATEN_CPU_CAPABILITY=avx2 python -m pytest tests/test_features.py tests/test_network.py tests/test_training.py
	ONEDNN_MAX_CPU_ISA=AVX2 python -m pytest tests/test_features.py tests/test_network.py tests/test_training.py

# The promises of docs/promises.md: kills, full disks, damage, broken input. Minutes that the daily tests do not need.
faults: setup
	python -m pytest tests/faults

# The figures of docs/performance.md, into docs/benchmarks.md; half an hour, on an idle machine.
bench: setup
	python -m benchmarks

lint: setup
	ruff check .
	ruff format --check .
	mypy

setup: .venv/.setup

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11 repro")'
	$(PYTHON) -m venv .venv

# A stamp, so that an unchanged lock installs nothing. The project itself is installed for its command, spp-scl.
.venv/.setup: requirements.txt pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install -r requirements.txt
	.venv/bin/python -m pip install --no-deps --no-build-isolation --editable .
	touch $@

clean-venv:
	rm -rf .venv
