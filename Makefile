# Uses the active virtual or conda environment, or makes .venv. `make help` lists the targets.
BUDGET ?= laptop
TORCH  ?=
DATA   := $(or $(WORKBENCH_DATA),data)
# conda's "base" is for conda itself
CONDA  := $(if $(filter base,$(CONDA_DEFAULT_ENV)),,$(CONDA_PREFIX))
ENV    := $(or $(VIRTUAL_ENV),$(CONDA),.venv)
PYTHON := $(ENV)/bin/python
READY  := $(ENV)/.workbench-installed
PYTEST := $(PYTHON) -m pytest -q -n 2 --dist worksteal

.PHONY: help report report-all lab test test-fast test-long test-soak lint release-check clean clean-data
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15
	@echo 'Options: BUDGET=quick|laptop|gpu (now $(BUDGET)), TORCH=cpu (a smaller download). Environment: $(ENV)'

report: $(READY)  ## run the core walk, notebooks 00 to 03, and publish it as pages
	$(PYTHON) -m workbench report --budget $(BUDGET) --only 00 01 02 03

report-all: $(READY)  ## every notebook
	$(PYTHON) -m workbench report --budget $(BUDGET)

lab: $(READY)  ## open the notebooks in JupyterLab
	cd notebooks && $(abspath $(PYTHON)) -m jupyter lab 00_overview.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

test: $(READY)  ## all tests but the long ones and the soak
	$(PYTEST) -m 'not long and not soak'

test-fast: $(READY)  ## tests that take seconds
	$(PYTEST) -m 'not slow and not long and not soak'

test-long: $(READY)  ## the long tests; none selected (status 5) is no failure
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m 'long and not soak' || [ $$? -eq 5 ]

test-soak: $(READY)  ## the same, many times over: kills, a million rows, ten minutes (SOAK_SECONDS=…) of abusing a server
	$(PYTEST) -n 0 -s -m soak

lint: $(READY)  ## ruff
	$(PYTHON) -m ruff check .

release-check: $(READY) lint  ## what a release must pass: a clean clone runs all (hours), links, licences, spelling, sizes
	$(PYTHON) tests/release.py

clean:  ## remove what tools and smoke runs left
	rm -rf build *.egg-info .pytest_cache .ruff_cache $(DATA)/quick
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

clean-data:  ## remove everything made: store, weights, reports; asks first
	@printf 'Remove store, cache, quick and reports in $(DATA)? Making them again takes a while. [y/N] '; \
	read answer; [ "$$answer" = y ] && rm -rf $(DATA)/store $(DATA)/cache $(DATA)/quick $(DATA)/reports || echo 'Kept.'

$(READY): pyproject.toml
	@[ -x $(PYTHON) ] || python3 -m venv $(ENV)
	@$(PYTHON) -m pip show -q torch 2>/dev/null || case '$(TORCH)-'$$(uname) in \
	  cpu-*|*-Darwin) echo 'Downloading about 0.6 GB (2 GB on disk), some 3 minutes, into $(ENV).';; \
	  *) echo 'Downloading about 4 GB (8 GB on disk), some 10 minutes, into $(ENV): PyTorch with CUDA.'; \
	     echo 'Without an NVIDIA GPU stop here and use: make TORCH=cpu $(MAKECMDGOALS)   (0.6 GB, 3 minutes)';; esac
	$(if $(filter cpu,$(TORCH)),$(PYTHON) -m pip install -q 'torch~=2.13.0' --index-url https://download.pytorch.org/whl/cpu)
	$(PYTHON) -m pip install -q -e '.[dev]'
	@touch $@
