# minialign: `make` lists what there is to do. Every target first makes .venv, or finds it in order.
#
# PYTHON       the Python that .venv is made with, if not the first found: make setup PYTHON=/path/to/python3.12
# TORCH_INDEX  where pip looks for torch besides PyPI. On a public Linux machine without a GPU, this saves gigabytes of CUDA:
#              make course TORCH_INDEX=https://download.pytorch.org/whl/cpu
#
# GNU make 3.81, which macOS has, is enough.

PYTHON ?=
TORCH_INDEX ?=

SHELL := /bin/bash
RUN := .venv/bin/python
SETUP := .venv/.setup
SETUP_TESTS := .venv/.setup-tests
PPO := build/benchmark/ppo-venv
SETUP_PPO := $(PPO)/.setup

.PHONY: help setup course lab test artifacts notebooks benchmark
.NOTPARALLEL:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s  %s\n", $$1, $$2 }' Makefile

setup: $(SETUP)  ## make .venv with the pinned versions; the others do it too
	@echo ".venv is ready"

course: $(SETUP)  ## run all notebooks in a copy, into build/course/, and say how each did
	@$(RUN) -m minialign.course

lab: $(SETUP)  ## open the notebooks in JupyterLab
	@$(RUN) -m jupyterlab --notebook-dir=notebooks

artifacts: $(SETUP)  ## rebuild tokenizer and checkpoints from nothing
	@$(RUN) -m minialign.course.artifacts

notebooks: $(SETUP)  ## run the notebooks and store their outputs in place
	@$(RUN) -m minialign.course --in-place

benchmark: $(SETUP_TESTS) $(SETUP_PPO)  ## compare the engine's speed with transformers' and TRL's
	@$(RUN) tests/benchmarks/speed.py && $(RUN) tests/benchmarks/contention.py

# The engine's tests are many and small: processes of one thread each beat one process whose threads wait for each other.
# The notebooks run one at a time with all threads, as they were stored and as the reader runs them: what they say about
# time and memory must not depend on a neighbour. A failure in one part does not hide the other's.
test: $(SETUP_TESTS)  ## run all tests, the notebooks' outputs included
	@part() { \
	  title=$$1; shift; SECONDS=0; result=passed; \
	  printf '\n%s\n' "$$title ..."; \
	  "$$@" || { result=FAILED; failed=1; }; \
	  summary+="$$title: $$result in $$SECONDS s"$$'\n'; \
	}; \
	part "engine tests" env OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile tests; \
	part "notebook outputs" $(RUN) -m pytest --nbval --nbval-current-env notebooks; \
	printf '\n%s' "$$summary"; exit $${failed:-0}

# --- set-up: a stamp is written at the very end, so an interrupted set-up is taken up again ---

# A stamp holds the folder it was made in: a copied or moved .venv is set up again, as is one whose Python is gone.
ifneq "$(shell test -x $(RUN) && cat $(SETUP) 2>/dev/null)" "$(CURDIR)"
$(shell rm -f $(SETUP) $(SETUP_TESTS) $(SETUP_PPO))
endif

# $(call pip_install,ARGUMENTS,WHAT,PYTHON): pip, .venv's unless another PYTHON is named, with its large downloads and its errors on the
# screen, and all of it in .venv/setup.log.
define pip_install
set -o pipefail; $(or $(3),$(RUN)) -m pip install --no-input --disable-pip-version-check $(1) 2>&1 | tee -a .venv/setup.log \
| awk '/^Downloading.* [MG]B/ || (/^ *(ERROR|error)/ && !/Ignored|Could not find a version/) { print "  " substr($$0, 1, 160); fflush() } \
       /^Installing collected/ { print "  installing"; fflush() }' \
|| { echo "Set-up stopped while installing $(2). If a package could not be had: is the network (or the proxy) up?"; \
     echo "What pip said is in .venv/setup.log. The same command, once more, goes on from here."; exit 1; }
endef

WHERE_TORCH_IS = $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")
REPORT_VERSION := import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 11))

$(SETUP): requirements.txt pyproject.toml
	@if ! $(RUN) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
	    if version=$$("$$python" -c '$(REPORT_VERSION)' 2>/dev/null); then \
	      echo "Making .venv with $$python ($$version)"; \
	      "$$python" -m venv --clear .venv; exit; \
	    fi; \
	    found+="$${version:+ $$python is $$version;}"; \
	  done; \
	  echo "minialign needs Python 3.11 or newer; found:$${found:- none;}" \
	    "get it from https://www.python.org/downloads/ or name it: make setup PYTHON=/path/to/python3.12"; \
	  exit 1; \
	fi
	@echo "Setting up .venv; the first time this takes some minutes"
	@rm -f .venv/setup.log
	@$(call pip_install,$(WHERE_TORCH_IS) -r requirements.txt,requirements.txt)
	@$(call pip_install,--no-build-isolation --no-deps -e .,minialign itself)
	@printf '%s' "$(CURDIR)" > $@

$(SETUP_TESTS): $(SETUP) tests/requirements.txt
	@echo "Setting up the tests' packages"
	@$(call pip_install,-r tests/requirements.txt,tests/requirements.txt)
	@touch $@

$(SETUP_PPO): $(SETUP) tests/benchmarks/requirements-ppo.txt
	@echo "Setting up $(PPO), for the last TRL that has PPO"
	@$(RUN) -m venv --clear $(PPO)
	@$(call pip_install,$(WHERE_TORCH_IS) -r tests/benchmarks/requirements-ppo.txt,tests/benchmarks/requirements-ppo.txt,$(PPO)/bin/python)
	@touch $@
