# Dagwright's commands. `make demo` and `make test` are all a newcomer needs.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TOOLS := $(or $(DAGWRIGHT_TOOLS),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dagwright)
export DAGWRIGHT_TOOLS := $(TOOLS)
export PATH := $(TOOLS)/bin:$(HOME)/.cargo/bin:$(PATH)

.PHONY: help demo build test chaos compat tools wheels kafka lint audit bench clean

help: ## Says what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

build: ## Builds both programs (development profile)
	cargo build --locked --bins -p dagwright-daemon -p dagwright-dataplane

demo: build ## Has the daemon load the flights in the repository, settles a conflict, and meets a deadlock
	examples/demo.sh $(TARGET_DIR)/debug

test: tools lint ## Installs what the tests need, then runs all of them
	cargo build --locked --workspace --all-targets
	tests/scripts/run.sh $(TARGET_DIR)/debug

chaos: tools build ## Kills daemons under load and before Airflows 200 times each (DAGWRIGHT_CHAOS_KILLS), and takes brokers, disks and partitions from them
	DAGWRIGHT_BIN_DIR="$$(cd $(TARGET_DIR)/debug && pwd)" DAGWRIGHT_CHAOS_KILLS=$(or $(DAGWRIGHT_CHAOS_KILLS),200) \
	    cargo test --locked -p dagwright-tests --test chaos --test airflow_loop -- --nocapture

compat: tools build ## Runs the tests of Airflow on the versions between 2.11.2 and 3.3.2, and writes docs/airflow-compat.md
	tests/scripts/compat.sh $(TARGET_DIR)/debug

wheels: ## Builds the wheels dagwright-airflow and dagwright-task (release, or PROFILE=dev) into $(TARGET_DIR)/wheels
	tests/scripts/tools.sh wheels
	out="$$(mkdir -p $(TARGET_DIR)/wheels && cd $(TARGET_DIR)/wheels && pwd)"; PATH="$(TOOLS)/wheels/bin:$$PATH"; \
	    pyproject-build --wheel --no-isolation --outdir "$$out" deploy/airflow; \
	    cd deploy/task && maturin build --profile $(or $(PROFILE),release) --out "$$out"

tools: ## Installs what the tests need (PostgreSQL, Kafka, both Airflows, DuckDB, …) into $(DAGWRIGHT_TOOLS)
	tests/scripts/tools.sh all

kafka: ## Runs an Apache Kafka until Ctrl-C; with SECURE=1 it listens with SCRAM and TLS too
	@tests/scripts/tools.sh kafka
	@tests/scripts/kafka.sh run $(if $(SECURE),--secure)

lint: ## rustfmt, clippy, cargo-deny (bans, licences, sources), ruff, mypy, shellcheck, docker-compose
	tests/scripts/lint.sh

audit: ## cargo-deny's advisories; needs their database from the network
	tests/scripts/tools.sh lint
	PATH="$$(compgen -G "$(TOOLS)/cargo-deny-*/bin" | sort -V | tail -n 1):$$PATH" cargo deny check advisories

bench: ## Builds for release and measures against the peers, side by side
	tests/bench/run.sh

clean: ## Removes what was built
	cargo clean
