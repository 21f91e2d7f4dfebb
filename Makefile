# minialign: `make` lists what there is to do. Every target first makes .venv, or finds it in order.
#
# PYTHON       the Python that .venv is made with, if not the first found: make setup PYTHON=/path/to/python3.12
# TORCH_INDEX  where pip looks for torch besides PyPI. On a public Linux machine without a GPU, this saves gigabytes of CUDA:
#              make course TORCH_INDEX=https://download.pytorch.org/whl/cpu
# MODULES      which modules of the engine to spoil, if not all that are listed: make mutants MODULES="dpo masked"
#
# GNU make 3.81, which macOS has, is enough.

PYTHON ?=
TORCH_INDEX ?=
MODULES ?=

SHELL := /bin/bash
RUN := .venv/bin/python
OURS := .venv/.made-in
SETUP := .venv/.setup
SETUP_TESTS := .venv/.setup-tests
PPO := build/benchmark/ppo-venv
SETUP_PPO := $(PPO)/.setup

.PHONY: help setup course lab test artifacts notebooks benchmark mutants
.NOTPARALLEL:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s  %s\n", $$1, $$2 }' Makefile

setup: $(SETUP)  ## make .venv with the pinned versions; the others do it too
	@echo ".venv is ready"

course: $(SETUP)  ## run all notebooks in a copy, into build/course/, and say how each did
	@$(RUN) -m minialign.course

# minialign is imported first: it tells torch's threads how to wait, in the kernels that start from here, too.
lab: $(SETUP)  ## open the notebooks in JupyterLab
	@[ -n "$$JUPYTER_CONFIG_DIR" ] || [ -w "$$HOME" ] || { echo "JupyterLab keeps its settings in HOME, and may not write into" \
	  "'$$HOME': name a folder that it may write into, HOME=/tmp make lab"; exit 1; }
	@$(RUN) -c 'import sys, minialign; from jupyterlab.labapp import main; sys.exit(main())' \
	  --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

artifacts: $(SETUP)  ## rebuild tokenizer, models and result tables from nothing, on all cores
	@$(RUN) -m minialign.course.artifacts

notebooks: $(SETUP)  ## run the notebooks and store their outputs in place
	@$(RUN) -m minialign.course --in-place

benchmark: $(SETUP_TESTS) $(SETUP_PPO)  ## compare the engine's speed with transformers' and TRL's
	@$(RUN) tests/benchmarks/speed.py && $(RUN) tests/benchmarks/contention.py

mutants: $(SETUP_TESTS)  ## spoil the engine in two thousand places, one at a time, and see that a test notices
	@OMP_NUM_THREADS=1 $(RUN) -m tests.mutants $(MODULES)

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

# What a shell tells every Python would reach ours, too: what lies on a PYTHONPATH (a cluster's `module load`
# sets one) would count as installed, and PYTHONINSPECT would have it wait for us.
unexport PYTHONPATH PYTHONHOME PYTHONINSPECT

# A stamp holds the folder it was made in: a copied or moved .venv is set up again, as is one whose Python is gone.
ifneq "$(shell test -x $(RUN) && cat $(SETUP) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(SETUP)
endif

MUST_WRITE = for folder in . $(wildcard .venv); do [ -w $$folder ] || { \
  echo "Set-up is due, and may not write here: make a copy of your own and run make there:" \
    "cp -R \"$(CURDIR)\" ~/minialign && chmod -R u+w ~/minialign"; exit 1; }; done

# $(call pip_install,ARGUMENTS,WHAT,PYTHON): pip, .venv's unless another PYTHON is named, with its large downloads and its errors on the
# screen, and all of it in .venv/setup.log.
define pip_install
set -o pipefail; $(or $(3),$(RUN)) set_up.py install --no-input --disable-pip-version-check $(1) 2>&1 | tee -a .venv/setup.log \
| awk '/^Downloading.* [MG]B/ || (/^ *(ERROR|error)/ && !/Ignored|Could not find a version/) { print "  " substr($$0, 1, 160); fflush() } \
       /^Installing collected/ { print "  installing"; fflush() }' \
|| { echo "Set-up stopped while installing $(2). If a package could not be had: is the network (or the proxy) up?"; \
     echo "What pip said is in .venv/setup.log. The same command, once more, goes on from here."; exit 1; }
endef

WHERE_TORCH_IS = $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")

# $(OURS) names the folder in which make made .venv, from the first moment on. Such a .venv is made anew when it was
# copied or moved (its scripts start the other folder's Python), or when it has no Python that will do. Any other
# is the reader's: never cleared.
$(SETUP): requirements.txt pyproject.toml set_up.py
	@$(MUST_WRITE)
	@if { [ -e $(OURS) ] && [ "$$(cat $(OURS))" != "$(CURDIR)" ]; } \
	   || ! { $(RUN) -c 'import pip' && $(RUN) set_up.py; } >/dev/null 2>&1; then \
	  if [ ! -e $(OURS) ] && [ -n "$$(ls -A .venv 2>/dev/null)" ]; then \
	    echo "The .venv here is not of make's making, and has no pip or no Python that will do (see README.md):" \
	      "move it away (mv .venv .venv-old) and run make again"; \
	    exit 1; \
	  fi; \
	  for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3.14 python3); do \
	    $(if $(PYTHON),,command -v $$python >/dev/null || continue;) \
	    if words=$$("$$python" set_up.py 2>&1); then \
	      echo "Making .venv with $$python ($$words)"; \
	      mkdir -p .venv && find .venv/ -mindepth 1 -delete && printf '%s' "$(CURDIR)" > $(OURS) \
	        && "$$python" -m venv .venv; \
	      exit; \
	    fi; \
	    found+=" $$python: $${words%%$$'\n'*};"; \
	  done; \
	  echo "minialign needs Python 3.11 to 3.14 on Linux or WSL (x86_64 or aarch64, glibc 2.28 or newer) or" \
	    "macOS 14 or newer on Apple silicon; found:$${found:- none;}" \
	    "get it from https://www.python.org/downloads/ or name it: make setup PYTHON=/path/to/python3.12"; \
	  exit 1; \
	fi
	@echo "Setting up .venv; the first time this takes some minutes"
	@rm -f .venv/setup.log
	@$(call pip_install,$(WHERE_TORCH_IS) -r requirements.txt,requirements.txt)
	@$(call pip_install,--no-build-isolation --no-deps -e .,minialign itself)
	@printf '%s' "$(CURDIR)" > $@

$(SETUP_TESTS): $(SETUP) tests/requirements.txt
	@$(MUST_WRITE)
	@echo "Setting up the tests' packages"
	@$(call pip_install,-r tests/requirements.txt,tests/requirements.txt)
	@touch $@

$(SETUP_PPO): $(SETUP) tests/benchmarks/requirements-ppo.txt
	@$(MUST_WRITE)
	@echo "Setting up $(PPO), for the last TRL that has PPO"
	@$(RUN) -m venv --clear $(PPO)
	@$(call pip_install,$(WHERE_TORCH_IS) -r tests/benchmarks/requirements-ppo.txt,tests/benchmarks/requirements-ppo.txt,$(PPO)/bin/python)
	@touch $@
