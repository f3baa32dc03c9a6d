# Everything runs from a bare machine: `make demo` needs Python 3.11 and pip, `make test` Node 20 as well.
PYTHON ?= python3.11
# The index that pip takes torch from, e.g. PyTorch's CPU index; none: the default one.
TORCH_INDEX ?=
DEMO ?=

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
  --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
export SOLCX_BINARY_PATH := $(CURDIR)/scripts/solc

.PHONY: help demo test test-ipfs lint gas invariants-long differential-long mutation coverage slither halmos bench-deadline bench-train bench-artifacts bench-oracle bench-noise bench-provenance fuzz-models bench-audit contracts clean

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.demo ## Watch the whole protocol once, on this machine alone (about 8 minutes)
	$(BIN)/pouw demo $(DEMO)

test: .venv/.test node_modules/.installed tests/ipfs/node_modules/.installed lint ## Install the rest, check everything, run every test
	$(BIN)/ape run export_artifacts --check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-ipfs: .venv/.test tests/ipfs/node_modules/.installed ## Only the tests on a real IPFS daemon, a whole round among them
	$(BIN)/python -m pytest tests/ipfs

lint: .venv/.test node_modules/.installed ## Linters, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	node_modules/.bin/solhint --max-warnings 0 'contracts/**/*.sol'

gas: .venv/.test node_modules/.installed benchmarks/node_modules/.installed ## Gas of every call, beside its ceiling and its peers
	$(BIN)/python -m benchmarks.gas

mutation: .venv/.test node_modules/.installed ## 1,500 mistakes in PoUW.sol and TaskQueue.sol: 95 % must be noticed (half an hour)
	PYTHONPATH=tests $(BIN)/python -m mutation

coverage: .venv/.test node_modules/.installed ## Lines and branches of the contracts that forge tests reach: all
	$(BIN)/python tests/audit/check_coverage.py

slither: node_modules/.installed .build/slither-env/.installed ## Static analysis: no finding without an explanation
	$(PYTHON) tests/audit/check_slither.py .build/slither-env/bin/slither

halmos: node_modules/.installed .build/halmos-env/.installed ## Proofs: the pool's order, what a commitment binds, no money lost
	FOUNDRY_TEST=tests/halmos FOUNDRY_OUT=.build/halmos FOUNDRY_CACHE_PATH=.build/halmos-cache \
	  PATH="$$(dirname $(CURDIR)/node_modules/@foundry-rs/forge-*/bin/forge):$$PATH" \
	  .build/halmos-env/bin/halmos --forge-build-out .build/halmos --loop 8 --solver-timeout-assertion 0

bench-deadline: .venv/.demo node_modules/.installed ## Misses and idle time of Phase 1: 100,000 simulated rounds, 20 on anvil
	$(BIN)/python -m benchmarks.deadline --live 20

bench-train: .venv/.demo ## A training step of every network against eager float32
	$(BIN)/python -m benchmarks.train

bench-oracle: .venv/.demo ## Scoring against MONAI's: Dice, a volume, a flood of false claims
	$(BIN)/python -m benchmarks.oracle

bench-noise: .venv/.demo ## How far scores of 100 models differ between threads, kernels and precisions (8 minutes)
	$(BIN)/python -m benchmarks.score_noise

bench-provenance: .venv/.demo ## Honest repetitions of training against forgeries: how far off, and who is told apart
	$(BIN)/python -m benchmarks.provenance

fuzz-models: .venv/.demo ## 100,000 mutated model files against the loader
	$(BIN)/python -m benchmarks.fuzz_models --files 100000

bench-artifacts: .venv/.demo ## Sealing, naming, fetching and loading 270 MB beside what one would write down first
	$(BIN)/python -m benchmarks.artifacts

bench-audit: .venv/.test node_modules/.installed ## Reading and auditing 10,000 rounds, beside web3.py
	$(BIN)/python -m benchmarks.audit

invariants-long: .venv/.test node_modules/.installed ## Play the invariants for 10,000,000 calls (about 20 minutes; goes on after a kill)
	$(BIN)/python tests/forge/invariants.py --calls 10000000

differential-long: .venv/.test ## Play 10,000 random histories on contract and model (about 10 minutes)
	$(BIN)/python tests/unit/ledger/histories.py --sequences 10000

contracts: .venv/.test node_modules/.installed ## Compile and export the contracts' artifacts
	$(BIN)/ape run export_artifacts

clean: ## Remove what make has installed and built
	rm -rf .venv node_modules benchmarks/node_modules tests/ipfs/node_modules .build .cache out cache

.venv/.demo: pyproject.toml constraints.txt
	@echo "Installing into .venv (torch is large: some minutes the first time)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) --editable '.[demo]'
	touch $@

.venv/.test: .venv/.demo
	$(PIP_INSTALL) --editable '.[test]'
	touch $@

# Environments of their own: what slither and halmos need excludes eth-ape.
.build/%-env/.installed: tests/audit/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Not `npm ci`: it refuses a lock file without the binaries of every other platform.
node_modules/.installed: package.json package-lock.json
	npm install --no-save --no-audit --no-fund --loglevel=error
	touch $@

benchmarks/node_modules/.installed: benchmarks/package.json benchmarks/package-lock.json
	npm --prefix benchmarks install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

# The daemon of the tests, 1,100 packages: only where Kubo is not at hand.
tests/ipfs/node_modules/.installed: tests/ipfs/package.json tests/ipfs/package-lock.json
	command -v ipfs >/dev/null || npm --prefix tests/ipfs install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	mkdir -p $(@D)
	touch $@
