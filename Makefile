# Baton's commands; `make` alone lists them. Each does the set-up it needs, once.
#
# Owns the order of steps; scripts/setup.py owns downloads and their places.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:           # cargo uses all cores by itself

LLM := $(abspath $(or $(XDG_CACHE_HOME),$(HOME)/.cache))/baton/smollm2-135m-instruct/llm
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE_BATON := $(TARGET)/release/baton
QUICK_BATON := $(TARGET)/quick/baton
DEV_BATON := $(TARGET)/debug/baton

# The place where tests find the large model. Plain `cargo test` needs it set to the same path.
export BATON_LLM_DIR := $(LLM)
# The place where tests find small models that translate.
export BATON_STUDENTS_DIR := $(abspath $(or $(XDG_CACHE_HOME),$(HOME)/.cache))/baton/firefox-students-0.2.0
# The S3 server that tests start.
export BATON_WEED := $(abspath $(or $(XDG_CACHE_HOME),$(HOME)/.cache))/baton/tools/bin/weed
# The proxy with which the fault suite disturbs connections.
export BATON_ENVOY := $(abspath $(or $(XDG_CACHE_HOME),$(HOME)/.cache))/baton/tools/bin/envoy

# The crates that do nothing but compute: no runtime, no sockets.
PURE := baton-markup baton-segments baton-generation baton-formats baton-quality baton-reuse baton-job \
	baton-lanes baton-decoding
# The crates that must build on a machine without libtorch.
TORCHLESS := $(PURE) baton-text baton-store baton-bundle baton-import baton-proto baton-telemetry \
	baton-coordinator

# $(call never,CRATES,BANNED): fails if one of CRATES depends on one of BANNED, directly or not.
define never
@for crate in $(1); do \
	tree=$$(cargo tree --locked -e normal --prefix none -f '{p}' -p $$crate) || exit 1; \
	for banned in $(2); do \
		if printf '%s\n' "$$tree" | grep -q "^$$banned "; then \
			echo "error: $$crate reaches $$banned, which ARCHITECTURE.md rules out;" \
				"see: cargo tree -p $$crate -i $$banned" >&2; \
			exit 1; \
		fi; \
	done; \
done
endef

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: setup ## Translate a real corpus with the committed bundle
	cargo build --locked --profile quick -p baton-cli
	@python3 scripts/setup.py import-models $(QUICK_BATON)
	@scripts/demo.sh $(QUICK_BATON)

.PHONY: test
test: setup tools layering width format-if-installed ## Run everything that must hold: lints, layering, tests
	$(LINTED) cargo build --locked --workspace --all-targets
	@python3 scripts/setup.py import-models $(DEV_BATON)
	python3 -m unittest discover -s scripts/tests
	python3 scripts/k8s_check.py --binaries $(TARGET)/debug
	$(LINTED) cargo test --locked --workspace

# Libtorch's products round differently on other CPUs. If this CPU lacks an instruction set (/proc/cpuinfo
# lists them), libtorch falls back to the next best one.
ISAS := AVX2 AVX512_CORE_VNNI DEFAULT
ISA_TESTS := --lib --test families --test packing --test parity --test beam_parity --test batch_decoder \
	--test training --test end_to_end

.PHONY: test-isa
test-isa: setup tools ## Run the tests that compute as on CPUs with only AVX2, with VNNI, and this one
	cargo build --locked --workspace --bins
	@python3 scripts/setup.py import-models $(DEV_BATON)
	@for isa in $(ISAS); do \
		case $$isa in AVX2) aten=avx2 ;; *) aten= ;; esac; \
		echo "test-isa: $$isa"; \
		DNNL_MAX_CPU_ISA=$$isa $${aten:+env ATEN_CPU_CAPABILITY=$$aten} \
			cargo test --locked --workspace $(ISA_TESTS) || exit 1; \
	done

.PHONY: k8s
k8s: libtorch tools ## Render the Kubernetes manifests and check them, their flags against the binaries
	cargo build --locked --bins -p baton-coordinator -p baton-encoder-svc -p baton-decoder-svc
	python3 scripts/k8s_check.py --binaries $(TARGET)/debug

# make chaos SEEDS=100 runs a hundred seeds; make chaos SEEDS=1 FIRST_SEED=17 runs one of them again.
SEEDS := 20
FIRST_SEED := 1

.PHONY: chaos
chaos: libtorch tools ## Run the fault suite: real processes, seeded faults (make chaos SEEDS=100)
	cargo build --locked --workspace --bins
	BATON_CHAOS_SEEDS=$(SEEDS) BATON_CHAOS_FIRST_SEED=$(FIRST_SEED) cargo test --locked --workspace --test chaos

.PHONY: build
build: libtorch ## Build the baton binary, target/release/baton
	cargo build --locked --release -p baton-cli

.PHONY: dist
dist: libtorch ## Pack the programs and their libraries for any Linux on x86-64, into dist/
	cargo build --locked --release --workspace --bins
	python3 scripts/dist.py --binaries $(TARGET)/release

# Needs root, debootstrap and a bundle of a small model alone: make dist-check BUNDLE=DIR
.PHONY: dist-check
dist-check: dist ## Run a job with the archive on bare Debian 11, 12 and 13
	scripts/dist_check.py dist/baton-*-x86_64.tar.zst --bundle $(BUNDLE)

# The variables ENGINE, BUILDER_IMAGE and others are in scripts/images.py.
# make images ARGS="--binaries target/release" compiles nothing.
.PHONY: images
images: libtorch ## Build all container images (make images BUNDLE=models/en-it)
	python3 scripts/images.py $(if $(BUNDLE),--bundle $(BUNDLE)) $(ARGS)

.PHONY: images-check
images-check: tools ## Run a job in the images as pods do: not as root, on a read-only root
	python3 scripts/images_check.py $(ARGS)

# KUBECONFIG names the cluster; ARGS loads the images into it, see tests/kubernetes/__main__.py:
# make e2e-kubernetes ARGS="--images dist/images --load 'kind load image-archive'"
.PHONY: e2e-kubernetes
e2e-kubernetes: llm tools ## Run jobs on a real cluster, disturb them, and compare bytes with a local run
	python3 tests/kubernetes --baton $(RELEASE_BATON) --bundle $(or $(BUNDLE),models/en-pt) $(ARGS)

.PHONY: llm
llm: setup build ## Build, then import the models for the bundles under models/
	@python3 scripts/setup.py import-models $(RELEASE_BATON)

# The place of the systems that Baton is measured against.
PEERS := $(abspath $(or $(XDG_CACHE_HOME),$(HOME)/.cache))/baton/peers

.PHONY: bench-peers
bench-peers: llm ## Measure Baton beside CTranslate2 and transformers (make bench-peers ARGS="--models small")
	@test -x $(PEERS)/bin/python || python3 -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --requirement scripts/requirements-peers.txt
	$(PEERS)/bin/python scripts/bench_peers.py --baton $(RELEASE_BATON) --llm $(LLM) $(ARGS)

.PHONY: plots
plots: build ## Measure and draw docs/experiments/plots (make plots ARGS="--input corpus.jsonl")
	@test -x $(PEERS)/bin/python || python3 -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --requirement scripts/requirements-plots.txt
	$(PEERS)/bin/python scripts/plot_performance.py --baton $(RELEASE_BATON) $(ARGS)

.PHONY: corpus
corpus: prerequisites ## Fetch the training corpora into data/ (make corpus ARGS="translation --language it")
	python3 scripts/corpus.py $(or $(ARGS),translation)

.PHONY: setup
setup: libtorch ## Download libtorch and the published models into the user's cache directory
	@python3 scripts/setup.py llm
	@python3 scripts/setup.py students

.PHONY: tools
tools: prerequisites ## Download the servers that tests start into the user's cache directory
	@python3 scripts/setup.py tools

.PHONY: libtorch
libtorch: prerequisites
	@python3 scripts/setup.py libtorch

.PHONY: prerequisites
prerequisites:
	@command -v python3 >/dev/null || \
		{ echo "error: python3 is missing: install it with 'sudo apt install python3 python3-pip'" >&2; exit 1; }
	@python3 scripts/setup.py check

.PHONY: lint
lint: libtorch width prose ## Check formatting, widths, sentences, clippy and rustdoc; warnings are errors
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --lib --bins --examples

.PHONY: width
width: prerequisites
	python3 scripts/line_width.py

.PHONY: prose
prose: prerequisites ## Name sentences in comments and documents that are hard to read
	python3 scripts/prose.py

# Lints need two rustup components that a bare Rust lacks; tests do not. With them, tests compile through
# scripts/lint_rustc.py, which finds the same problems as `make lint` without compiling every dependency
# again.
HAS_LINTS := $(shell cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1 \
	&& echo yes)
LINTED := $(if $(HAS_LINTS),RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/scripts/lint_rustc.py)

.PHONY: format-if-installed
format-if-installed: libtorch
	@if [ -n "$(HAS_LINTS)" ]; then \
		cargo fmt --all --check; \
	else \
		echo "lint: SKIPPED, clippy or rustfmt is missing; get both with: rustup component add clippy rustfmt"; \
	fi

.PHONY: layering
layering: prerequisites ## Check that crates depend only on what ARCHITECTURE.md lets them
	$(call never,$(TORCHLESS),tch torch-sys)
	$(call never,$(PURE),tokio tonic)
	$(call never,baton-trainer,tonic)
	$(call never,baton-coordinator,baton-worker baton-encoder-svc baton-decoder-svc baton-import)
	$(call never,baton-coordinator,candle-core gemm)
	$(call never,baton-worker,baton-store baton-encoder-svc baton-decoder-svc)
	$(call never,baton-bundle baton-encoder-svc baton-decoder-svc,baton-import candle-core)
	$(call never,baton-encoder-svc,baton-coordinator baton-decoder-svc baton-store)
	$(call never,baton-decoder-svc,baton-coordinator baton-encoder-svc)

# Advisories need a database from the network: make deny CHECKS=all
CHECKS := bans licenses sources

.PHONY: deny
deny: prerequisites ## Check licences and sources of all dependencies with cargo-deny
	@cargo deny --version >/dev/null 2>&1 || \
		{ echo "error: cargo-deny is missing: install it with 'cargo install --locked cargo-deny'" >&2; exit 1; }
	cargo deny --locked check $(CHECKS)
