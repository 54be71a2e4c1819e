# make demo: the pipeline on the embedded default. make test: all tests. Both set up .venv first, where it is not yet.
PYTHON ?= python3
VENV := .venv
# Stages are run as `python -m stages.NAME`: the environment's python must come first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: demo test lint setup repository lock torture bench

demo: repository setup
	dvc repro
	derain results
	@! git diff --quiet HEAD -- params.yaml || git diff --quiet HEAD -- dvc.lock metrics || echo \
	  "This machine's last digits differ from those of the recorded run: dvc.lock and metrics/summary.json hold its own" \
	  "now. Commit them, or 'git checkout HEAD dvc.lock metrics' for the recorded ones."

test: repository setup
	ruff check . && ruff format --check . && mypy
	pytest -n 2

# Kills, signals, stale states, rot, full disks, hostile files ... (docs/reliability.md): about an hour.
torture: setup
	python -m torture

# Ratios against a plain transcription of the published training script: some minutes, on a machine that does nothing else.
# make bench DEVICE=cuda: on a GPU.
bench: setup
	python -m benchmarks $(if $(DEVICE),--device $(DEVICE))

lint: setup
	ruff check --fix . && ruff format . && mypy

# DVC works in git repositories only, and says no more than that. A zip of the project is none.
repository:
	@test "$$(git rev-parse --show-toplevel 2>/dev/null)" = "$$(pwd -P)" || { echo "This folder is no git repository,"\
	  "which DVC needs (a zip holds none). Make it one, then run make again:"; \
	  echo "  git init && git add --all && git commit --message 'The project as it came'"; exit 1; }

setup: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit(f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# The pinned versions, anew: needs `pip install uv`.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --fork-strategy fewest \
	  --generate-hashes --no-header --no-annotate --upgrade --quiet --output-file requirements.lock
