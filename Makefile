# make demo runs the whole pipeline, make test the test suite. Both set up .venv first and reuse it afterwards.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
override DEMO := demo
# Waiting threads sleep instead of spinning, which would slow a busy machine down many times over.
export OMP_WAIT_POLICY ?= passive

.PHONY: setup setup-test demo test test-fast test-portable test-cuda lint clean

setup: $(VENV)/ready
setup-test: $(VENV)/ready-test

$(VENV)/ready: requirements.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed, but this is " + sys.version.split()[0] + "; name another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/ready-test: $(VENV)/ready requirements-test.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

# The embedded data set, both unimodal networks, a search with the published settings, the best network trained.
demo: setup
	rm -rf $(DEMO)
	$(BIN)/python avmnist_gen.py --source embedded --datadir $(DEMO)/data
	$(BIN)/python train_image.py --datadir $(DEMO)/data --checkpointdir $(DEMO)/checkpoints --run_dir $(DEMO)/image --schedule onecycle
	$(BIN)/python train_audio.py --datadir $(DEMO)/data --checkpointdir $(DEMO)/checkpoints --run_dir $(DEMO)/audio --schedule onecycle
	$(BIN)/python main_searchable_avmnist.py --datadir $(DEMO)/data --checkpointdir $(DEMO)/checkpoints --run_dir $(DEMO)/search
	$(BIN)/python main_found_avmnist.py --datadir $(DEMO)/data --checkpointdir $(DEMO)/checkpoints --run_dir $(DEMO)/found \
		--conf $(DEMO)/search/best.json --inner_representation_size 64 --schedule onecycle --epochs 2

test: setup-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-fast: setup-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not long"

# The tests that depend on a training, with the kernels of other processors: without vectors, with AVX2, on one thread.
test-portable: setup-test
	for kernels in "ATEN_CPU_CAPABILITY=default NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES=" "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2" OMP_NUM_THREADS=1; do \
		echo "$$kernels"; \
		env $$kernels $(BIN)/python -m pytest -n 2 --dist loadgroup -m trained || exit; \
	done

# The CUDA tests, then the fast ones with every search and training on the first GPU.
test-cuda: setup-test
	$(BIN)/python -c 'import torch; torch.cuda.is_available() or exit("make test-cuda: torch sees no CUDA device")'
	$(BIN)/python -m pytest tests/test_cuda.py
	PYTORCH_NVML_BASED_CUDA_CHECK=1 MFAS_TEST_DEVICE=cuda $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not long"

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .ruff_cache .mypy_cache .hypothesis
