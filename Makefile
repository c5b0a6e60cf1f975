# The only door. Every target sets up what it needs, on a machine that has nothing but make and Python 3.11 or newer.

# 3.11 first: requirements.lock was made and tested with it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
READY := .venv/.installed
UNFINISHED := .venv/.unfinished

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
CLUSTER_PROGRAMS := ip unshare nsenter ssh ssh-keygen rsync
.PHONY: help setup quickstart test programs cluster-test cluster-programs bench-driver bench-decisions bench-cache \
	bench-start bench-step bench-packing bench-memory bench-desk bench-peers bench-report simulate compare docs faults soak test-fast lint format types \
	check lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## install everything into .venv (0.8 GB to download, 3 GB on disk; about two minutes, once)
	@echo "ready: make quickstart, make test, or .venv/bin/thawline --help"

quickstart: $(READY) ## a whole study on made-up images, from search to report
	$(BIN)/thawline quickstart

test: $(READY) programs ## every test, those with real networks and Ray too, two files at a time
	$(BIN)/pytest -n 2 --dist loadfile

# The report is looked at in a real Chromium, and shellcheck reads the batch script. Where they are there, this costs nothing;
# where they can't be had, those tests skip.
programs:
	@if { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null 2>&1 \
		&& command -v chromedriver >/dev/null 2>&1 && command -v shellcheck >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "==> chromium and its driver, to look at the report in; shellcheck"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
			chromium chromium-driver shellcheck >/dev/null; } || echo "    could not be installed: those tests skip"; \
	else echo "make: chromium, chromedriver or shellcheck is missing, and only root can install them with apt-get: those tests skip"; fi

cluster-test: $(READY) cluster-programs ## a study on several hosts with networks and disks of their own; needs root on Linux
	$(BIN)/pytest -m cluster -s --durations=0 --durations-min=5 tests/cluster
	$(BIN)/pytest tests/search/test_desk.py tests/faults/test_object_storage.py tests/test_search_to_a_bucket.py

# Hosts are made of namespaces and reached by SSH. Where the programs can't be had, those tests say so and skip.
cluster-programs:
	@if { command -v $(CLUSTER_PROGRAMS) && test -x /usr/sbin/sshd; } >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "==> iproute2, openssh and rsync, to make hosts with"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
			iproute2 openssh-server openssh-client rsync >/dev/null; } \
			|| echo "    could not be installed: the cluster tests skip"; \
	else echo "make: hosts need root and the programs $(CLUSTER_PROGRAMS) sshd: the cluster tests skip"; fi

bench-driver: $(READY) ## what a trial costs beside its training, against stock Ray Tune, at 100 and 1,000 trials
	$(BIN)/python benchmarks/driver.py

bench-decisions: $(READY) ## what a suggestion and a report take, up to 10,000 trials
	$(BIN)/python benchmarks/decisions.py

bench-cache: $(READY) ## epoch time by freeze depth, with and without kept features
	$(BIN)/python benchmarks/cache.py

bench-start: $(READY) ## what a trial's start costs, cold and warm, by freeze depth, against Keras' fit; a quarter of an hour
	$(BIN)/python benchmarks/start.py

bench-step: $(READY) ## what a training step takes, with convolutions alone and with products of matrices
	$(BIN)/python -m benchmarks.step

bench-packing: $(READY) ## two one-thread workers beside one with two threads, and what share of their time is steps
	$(BIN)/python benchmarks/packing.py

bench-memory: $(READY) ## whether a worker grows over 100 real trials
	$(BIN)/python benchmarks/memory.py

bench-desk: $(READY) ## what hosts that do not see the run folder cost
	$(BIN)/python benchmarks/desk.py

simulate: $(READY) ## 10,000 trials on 1,000 virtual workers: driver, utilisation, checkpoint traffic
	$(BIN)/python -m benchmarks.simulation.scale

compare: $(READY) ## samplers and pruners on recorded learning curves; regret.png
	$(BIN)/python -m benchmarks.simulation.compare --plot regret.png

# KerasTuner is no part of the lock: nothing else needs it.
bench-peers: $(READY) ## Ray Tune, Optuna, KerasTuner beside Thawline: make bench-peers DATA=FOLDER WEIGHTS=FILE; hours
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps keras-tuner==1.4.8 kt-legacy==1.0.5
	$(BIN)/python benchmarks/peers search --data $(DATA) --weights $(WEIGHTS)
	$(BIN)/python benchmarks/peers replay --data $(DATA) --weights $(WEIGHTS) --seeds 1

bench-report: $(READY) ## seconds and megabytes of a report, up to 1,000 trials
	$(BIN)/python benchmarks/report.py

faults: $(READY) ## every fault of docs/faults.md, then 200 kills, every cut and every failing write, with figures
	$(BIN)/pytest tests/faults
	$(BIN)/python benchmarks/faults.py

docs: $(READY) ## docs/settings.md, from the code
	$(BIN)/python -m search.commands.settings_page docs/settings.md

soak: $(READY) ## real trials whose workers are killed at random, 20 times or KILLS=200
	$(BIN)/python benchmarks/soak.py --kills $(or $(KILLS),20)

test-fast: $(READY) ## the tests that need neither real networks nor Ray
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not ray"

lint: $(READY) ## style and likely mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

types: $(READY) ## type check
	$(BIN)/mypy

check: lint types test ## everything that must hold before a change goes in

# A mark stands while pip works: whoever finds it knows that the last setup was cut off and starts from an empty .venv.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer with its venv module must be installed, but 'python3' is" \
		"$$(python3 --version 2>&1 | head -n 1); install it, or name it: make PYTHON=/path/to/python3.11 setup" >&2; exit 1; }
	@echo "==> [1/3] .venv with $$($(PYTHON) --version)"
	@if [ -e $(UNFINISHED) ]; then echo "    the last setup was cut off: starting again"; rm -rf .venv; fi
	@mkdir -p .venv && touch $(UNFINISHED)
	@$(PYTHON) -m venv .venv
	@echo "==> [2/3] the versions in requirements.lock (0.8 GB to download, once; pip shows each)"
	@$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock
	@echo "==> [3/3] thawline itself, editable"
	@$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --quiet --editable .
	@rm $(UNFINISHED)
	@touch $(READY)

# Resolved anew in an empty environment, so that nothing left over gets in.
lock: ## remake requirements.lock with the newest versions that pyproject.toml allows
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --upgrade pip setuptools
	build/lock/bin/python -m pip install ".[dev]"
	{ sed -n '/^#/p' requirements.lock; build/lock/bin/python -m pip freeze --all \
		--exclude pip --exclude thawline | LC_ALL=C sort -f; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf build/lock

clean: ## remove .venv and what tools leave behind; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find search trainable analysis tests -name __pycache__ -prune -exec rm -rf {} +
