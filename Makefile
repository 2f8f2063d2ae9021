# Everything a user or a developer does here has one name. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
# The Python that the environment was made with, else the newest of these that is here; PYTHON= names another.
PYTHONS := python3.14 python3.13 python3.12 python3.11
MADE_WITH := $(shell cat $(VENV)/.python 2>/dev/null)
PYTHON ?= $(or $(MADE_WITH),$(firstword $(foreach name,$(PYTHONS),$(shell $(name) -c "" 2>/dev/null && echo $(name)))),python3)
BIN := $(VENV)/bin
# The deployment's, with the SageMaker SDK, and the notebook's, with Jupyter.
DEPLOY := .venv-deploy
# The documentation's, with Sphinx.
DOCS := .venv-docs
NOTEBOOK := .venv-notebook
CODE := dags plugins lambdas cli embedded infrastructure sagemaker_local benchmarks tests docker
# The longest first, so that all processes end together.
SUITES := tests/integration tests/browser tests/contract tests/dags tests/unit
# The platform reads .env itself; `make` only passes the environment on.
export PYTHONUTF8 := 1
# Modules meant for another Python shall not come before the locked ones; and each module is compiled once, when it is
# first needed.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: run
run: $(VENV)/.runtime ## Set up, bring everything up, train, deploy, score a batch, report; end everything
	@$(BIN)/python -m embedded run

.PHONY: up
up: $(VENV)/.runtime ## Bring everything up and leave it up: Airflow UI on 127.0.0.1:8080, login admin / admin
	@$(BIN)/python -m embedded up

.PHONY: down
down: ## End what `make up` brought up; data stays in .run
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m embedded down; else echo "Nothing was set up, so nothing runs."; fi

.PHONY: status
status: $(VENV)/.runtime ## Say what runs and where
	@$(BIN)/python -m embedded status

.PHONY: aws-env
aws-env: $(VENV)/.runtime ## Print what a shell needs for the AWS CLI and notebooks: eval "$$(make -s aws-env)"
	@$(BIN)/python -m embedded aws-env

.PHONY: notebook
notebook: $(NOTEBOOK)/.ready ## Open the notebook of the whole exercise, on the AWS or platform the environment points at
	@$(NOTEBOOK)/bin/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/scones.ipynb $(ARGS)

.PHONY: test
test: $(VENV)/.dev $(DEPLOY)/.ready ## Run the tests, in three processes (slow ones: `make test-slow`)
	@$(BIN)/pytest -n 3 --dist loadscope --no-loadscope-reorder --durations 12 -m "not slow and not compose" $(or $(ARGS),$(SUITES))

.PHONY: test-slow
test-slow: $(VENV)/.dev $(DEPLOY)/.ready $(NOTEBOOK)/.ready ## Run the tests that take minutes: kill tests, drills, large batches
	@$(BIN)/pytest -m slow --timeout 1800 $(ARGS)

.PHONY: test-pythons
test-pythons: ## Run make check and make test on every supported Python that is here, each in an environment of its own
	@for python in $(PYTHONS); do \
	  if ! $$python -c "" 2>/dev/null; then echo "No $$python here"; continue; fi; \
	  echo "== $$python"; \
	  $(MAKE) --no-print-directory check test PYTHON=$$python VENV=.venv-$${python#python} DEPLOY=.venv-deploy-$${python#python} || exit 1; done

.PHONY: check
check: $(VENV)/.dev ## Lint, type-check and validate; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/uv pip check --quiet --python $(BIN)/python
	@$(BIN)/mypy $(CODE)
	@$(BIN)/cfn-lint infrastructure/template.yaml infrastructure/mwaa/template.yaml
	@$(BIN)/python -m sagemaker_local.coverage --check
	@$(BIN)/pytest -q -p no:cacheprovider tests/unit/project/test_secrets.py tests/unit/project/test_links.py tests/unit/embedded/test_containers.py

.PHONY: check-asl
check-asl: $(VENV)/.dev ## Validate the state machines with the independent npm asl-validator; needs npm
	@npm install --silent --no-audit --no-fund --prefix .run/node asl-validator@4.0.0
	@$(BIN)/pytest -q tests/unit/infrastructure/test_state_machines.py

.PHONY: format
format: $(VENV)/.dev ## Format the code and mend what the linter can mend
	@$(BIN)/ruff check --fix . || true
	@$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.dev ## Run the benchmarks (one of them: make bench ONLY=name); results in .run/bench.json
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

.PHONY: docs
docs: $(DOCS)/.ready ## Build the documentation as a site in .run/site; a broken link fails it
	@$(DOCS)/bin/sphinx-build -q -W --keep-going -E -c docs/site -d .run/doctrees . .run/site
	@echo "Open .run/site/index.html"

.PHONY: env
env: ## Write .env with secrets of its own, for docker compose
	@$(shell command -v $(PYTHON) || command -v python3) -m embedded.env_file

.PHONY: compose-test
compose-test: $(VENV)/.dev ## Build and try the compose set-up for real; needs a Docker engine
	@$(BIN)/pytest tests/compose -m compose --timeout 3600 $(ARGS)

.PHONY: plan
plan: $(DEPLOY)/.ready ## Show what `make deploy` would change on the AWS the environment points at
	@$(DEPLOY)/bin/python -m infrastructure plan $(ARGS)

.PHONY: deploy
deploy: $(DEPLOY)/.ready ## Deploy the resources to the AWS the environment points at
	@$(DEPLOY)/bin/python -m infrastructure deploy $(ARGS)

.PHONY: destroy
destroy: $(DEPLOY)/.ready ## Remove the deployed resources
	@$(DEPLOY)/bin/python -m infrastructure destroy $(ARGS)

.PHONY: mwaa
mwaa: $(VENV)/.runtime ## Write what an environment of Amazon MWAA 3.3.1 needs into .run/mwaa
	@$(BIN)/python -m infrastructure.mwaa_files .run/mwaa

# Airflow's own constraints for the version and the Python that MWAA has: a URL or a file.
MWAA_CONSTRAINTS ?= https://raw.githubusercontent.com/apache/airflow/constraints-3.3.1/constraints-3.12.txt

# One lock for every Python and system: what differs between them stands in the file with its condition.
LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

.PHONY: lock
lock: $(VENV)/.dev ## Choose versions anew and write the requirements files
	@$(LOCK) pyproject.toml --upgrade --group platform --group embedded -o requirements.txt
	@$(LOCK) pyproject.toml -c requirements.txt --group platform --group embedded --group dev -o requirements-dev.txt
	@$(LOCK) pyproject.toml -c requirements.txt --group compose -o requirements-airflow.txt
	@$(LOCK) -c requirements.txt --group pyproject.toml:platform -o requirements-platform.txt
	@$(LOCK) --group pyproject.toml:deploy -o requirements-deploy.txt
	@$(LOCK) --group pyproject.toml:docs -o requirements-docs.txt
	@$(LOCK) -c requirements.txt --group pyproject.toml:notebook -o requirements-notebook.txt
	@$(BIN)/uv pip compile -q --python-version 3.12 --no-annotate --no-header --only-binary :all: -c $(MWAA_CONSTRAINTS) infrastructure/mwaa/requirements.in -o infrastructure/mwaa/constraints.txt
	@sed -i '1i # Locked by `make lock` from pyproject.toml, for Python 3.11 to 3.14.' requirements.txt requirements-dev.txt requirements-airflow.txt requirements-platform.txt requirements-deploy.txt requirements-docs.txt requirements-notebook.txt

.PHONY: clean
clean: down ## End everything and remove what was made here: data, models, logs, the virtual environment
	@rm -rf .venv* .run .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew when another Python is named than the one it was made with.
$(BIN)/uv: requirements-setup.txt $(if $(filter-out $(MADE_WITH),$(PYTHON)),FORCE)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null || { \
	  echo "No Python 3.11 to 3.14 was found (looked for $(PYTHON))."; \
	  echo "  Debian, Ubuntu:  sudo apt-get install python3 python3-venv"; \
	  echo "  Fedora:          sudo dnf install python3"; \
	  echo "  macOS:           brew install python@3.14"; \
	  echo "  elsewhere:       name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.14"; exit 1; }
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV) || { echo "Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	@echo $(PYTHON) > $(VENV)/.python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-setup.txt
	@touch $@

# On a terminal uv shows how far it is. Ended in the middle, the next `make` goes on: the stamp comes last.
define INSTALL
echo "Installing $$(grep -c '^[^ #]*==' $(1)) locked packages into $(VENV): $(2) on disk, once, in a minute or a few"; \
$(BIN)/uv pip install $$([ -t 2 ] || echo --quiet) --python $(BIN)/python --require-hashes -r $(1)
endef

# What runs in a box of its own finds the packages read-only, and would compile them anew at each start.
BOXED := import awslambdaric.bootstrap, boto3, numpy, onnxruntime, scipy.fft, scipy.optimize; from PIL import Image; Image.init()

$(VENV)/.runtime: $(BIN)/uv requirements.txt
	@if [ ! -e $(VENV)/.dev ] || [ requirements.txt -nt $(VENV)/.dev ]; then \
	  $(call INSTALL,requirements.txt,800 MB); fi
	@$(BIN)/python -c "$(BOXED)"
	@touch $@

# Environments of their own, for what the runtime shall not carry or cannot live with.
$(DEPLOY)/.ready: requirements-deploy.txt
$(DOCS)/.ready: requirements-docs.txt
$(NOTEBOOK)/.ready: requirements-notebook.txt
$(DEPLOY)/.ready $(DOCS)/.ready $(NOTEBOOK)/.ready: $(BIN)/uv
	@echo "Installing $(filter requirements-%,$^) in $(@D)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $(filter requirements-%,$^)
	@touch $@

$(VENV)/.dev: $(BIN)/uv requirements-dev.txt
	@$(call INSTALL,requirements-dev.txt,1.7 GB) --compile-bytecode
	@touch $@

.PHONY: FORCE
FORCE:
