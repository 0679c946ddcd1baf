# The words of the README. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
INSTALL := tests/install/install.sh
FIRN_CACHE ?= $(HOME)/.cache/firn
export FIRN_CACHE

PORT ?= 9092
DATA ?= ./firn-data
SECTIONS ?= all
SECONDS_EACH ?= 60
SEED ?= 1
FROM ?= 1
SEEDS ?=
SIM_SECONDS ?= 120
BROKERS ?= 10,100,300
FIRN_SIM := $(CARGO) run --quiet --config tests/simulation/build.toml --package firn-tests --bin firn-sim --locked --
FAULTS ?= 200
RECORDS ?= 1000000
CUTS ?= 50
WOUNDS ?= 1000
FILE_SYSTEM ?= ext4
# Crate that a fuzz target belongs to, and the target.
FUZZ := core/protocol:frame_decoder core/records:batch_validator core/tier:object_footer storage:segment_recovery

.PHONY: help run build test test-crates test-suites bench bench-quick sim scale soak chaos rot power-cuts fuzz verify fix install-build install-verify install-fuzz install-chaos install-tests

help: ## What there is to say
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: install-build ## Build Firn and run one broker on 127.0.0.1:9092, data under ./firn-data (PORT=, DATA=)
	$(CARGO) build --release --locked --package firn
	exec target/release/firn dev --port $(PORT) --data $(DATA)

build: install-build ## Build the release binary, target/release/firn
	$(CARGO) build --release --locked --package firn

test: test-crates test-suites ## Install what the tests need, and pass them all

test-crates: install-build ## The crates' own tests: no network, no other programs
	$(CARGO) test --workspace --exclude firn-tests --locked --no-fail-fast

test-suites: install-tests ## Real clients and tools, a real S3 server, real power cuts
	$(CARGO) build --locked --package firn
	$(CARGO) test --package firn-tests --locked --no-fail-fast

bench: install-tests ## Firn against Apache Kafka, as a table and a plot in target/bench (SECTIONS=produce,latency,...)
	$(CARGO) build --release --locked --package firn
	FIRN_BIN=$(CURDIR)/target/release/firn $(CARGO) bench --package firn-tests --bench performance --locked -- --sections $(SECTIONS)

bench-quick: install-tests ## The same with short runs: to see that it works, not to quote
	$(CARGO) build --release --locked --package firn
	FIRN_BIN=$(CURDIR)/target/release/firn $(CARGO) bench --package firn-tests --bench performance --locked -- --quick --sections $(SECTIONS)

sim: install-build ## One seed of the simulation, every event of it (SEED=7, SIM_SECONDS=120)
	$(FIRN_SIM) run --seed $(SEED) --seconds $(SIM_SECONDS) --print

scale: install-build ## Hundreds of brokers, simulated: to register, to have partitions, to go on without a zone (BROKERS=10,100,300)
	CARGO_TARGET_DIR=target/scale $(CARGO) run --quiet --config tests/simulation/scale.toml --package firn-tests --bin firn-sim --locked -- scale --brokers $(BROKERS)

soak: install-build ## Seeds of the simulation until one breaks a promise, or you stop it (FROM=1, SEEDS=5000, SIM_SECONDS=120)
	$(FIRN_SIM) soak --from $(FROM) $(addprefix --seeds ,$(SEEDS)) --seconds $(SIM_SECONDS)

chaos: install-chaos ## Faults of every kind on three real brokers under load; needs root or sudo (FAULTS=200, RECORDS=1000000, SEED=1)
	$(CARGO) build --locked --package firn
	$(CARGO) run --quiet --package firn-tests --bin firn-chaos --locked -- run --faults $(FAULTS) --records $(RECORDS) --seed $(SEED) --file-system $(FILE_SYSTEM)

rot: install-chaos ## Flipped bits, wiped blocks and files cut short on the disks of three real brokers; needs root or sudo (WOUNDS=1000, SEED=1)
	$(CARGO) build --package firn --locked
	$(CARGO) run --quiet --package firn-tests --bin firn-chaos --locked -- rot --wounds $(WOUNDS) --seed $(SEED) --file-system $(FILE_SYSTEM)

power-cuts: install-chaos ## The power of three real brokers at once, again and again; needs root or sudo (CUTS=50, FILE_SYSTEM=xfs)
	$(CARGO) build --locked --package firn
	$(CARGO) run --quiet --package firn-tests --bin firn-chaos --locked -- cut --cuts $(CUTS) --file-system $(FILE_SYSTEM)

fuzz: install-build install-fuzz ## Let cargo-fuzz look for new inputs, SECONDS_EACH=60 for each target; `make test` replays the corpora
	@# The pinned compiler, told to take the flags of a nightly one. What is found lies outside the corpora that are kept.
	for each in $(FUZZ); do \
	  target=$${each#*:}; found=$(CURDIR)/target/fuzz/$$target; mkdir -p "$$found"; \
	  (cd "broker/$${each%%:*}" && RUSTC_BOOTSTRAP=1 $(FIRN_CACHE)/bin/cargo-fuzz-0.13.2 run --target-dir $(CURDIR)/target/fuzz/build "$$target" \
	    "$$found" "fuzz/corpus/$$target" -- -max_total_time=$(SECONDS_EACH) -rss_limit_mb=512 -max_len=1048576); \
	done

verify: install-build install-verify ## Format, lints, licences, tidiness: what every change must pass; writes nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
	$(FIRN_CACHE)/bin/cargo-deny-0.20.2 --log-level error check bans licenses sources
	$(CARGO) test --package firn-tests --test tidy --locked --quiet

fix: install-build ## Format, and apply what clippy can
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

install-build: ## A C compiler, if the machine has none
	@$(INSTALL) build

install-verify:
	@$(INSTALL) verify

install-fuzz:
	@$(INSTALL) fuzz

install-chaos:
	@$(INSTALL) build clients filesystems faults

install-tests: ## Apache Kafka, kcat, MinIO and file system tools, into $FIRN_CACHE
	@$(INSTALL) build clients kafka kafka-old java minio filesystems faults
