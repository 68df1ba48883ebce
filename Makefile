# Two commands are enough: `make reproduce` (the main job) and `make test`.
# Each needs only python3 and make and creates the environment if it is missing.
VENV ?= .venv
PYTHON ?= python3
OUT ?= out
BIN := $(VENV)/bin
# One BLAS thread a process: the matrices here are small, and parallelism is over chunks and test workers.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup reproduce figures picture test docs lint architecture format validate-full bench bench-env mutation subtle-faults false-alarms dist-check lower-bounds clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(VENV)/.installed ## Create the environment (done by the other targets when needed).

reproduce: setup ## Check the claims that take seconds, and draw Figures 2 and 3, into out/.
	$(BIN)/python -m validation --quick --out $(OUT)
	$(BIN)/python -m paper_figs 2 3 --out $(OUT)/figures

figures: setup ## Draw every figure into out/figures; the sweep of Figure 6 takes some ten minutes and can be resumed.
	$(BIN)/python -m paper_figs --out $(OUT)/figures

picture: setup ## Draw the picture of README.md anew: Figure 3 of the run with seed 0, in 128 colours.
	$(BIN)/python -m paper_figs 3 --out $(OUT)/figures
	$(BIN)/python -c "from PIL import Image; Image.open('$(OUT)/figures/figure_03.png').convert('RGB').quantize(128).save('docs/figure_03.png', optimize=True)"

docs: setup ## Build the documentation into docs/_build; a warning is an error.
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

test: setup ## Run the tests, doctests included, except those marked slow.
	$(BIN)/python -m pytest -q -n 2 -m 'not slow' --benchmark-disable

validate-full: setup ## Check every claim, and run every test, slow ones included.
	$(BIN)/python -m validation --out $(OUT)
	$(BIN)/python -m pytest -q -n 2 --benchmark-disable

bench-env: setup ## Install the peers that `make bench` compares with; a VENV of their own keeps them apart.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps curvlinops-for-pytorch==3.0.1 backpack-for-pytorch==1.7.1
	$(BIN)/python -c 'import curvlinops.examples, devinterp.optim, devinterp.slt.sampler, jax, posteriors'

bench: setup ## Measure speed: targets, growth with size, and peers if installed (make bench-env).
	JAXTYPING_DISABLE=1 $(BIN)/python -m pytest tests/benchmarks -q --benchmark-only --benchmark-timer=time.process_time --benchmark-columns=min,median,rounds

mutation: setup ## Plant 320 small faults in theory and count those the tests notice (a quarter of an hour).
	$(BIN)/python tests/mutation/run.py --package theory --sample 320 --seed 3 --out $(OUT)/mutation.jsonl

subtle-faults: setup ## Plant the ledger's 69 subtle faults and count those that the unit tests notice (a quarter of an hour).
	$(BIN)/python tests/mutation/subtle.py --out $(OUT)/subtle_faults.jsonl

false-alarms: setup ## Cross-check 500 random data sets, sound and with planted faults (a quarter of an hour of one core).
	$(BIN)/python -m validation.false_alarms --sets 500 --seed 0 --out $(OUT)/false_alarms.jsonl

dist-check: setup ## Build wheel and sdist, and use each in an empty environment; FULL=--full installs dependencies anew.
	$(BIN)/python tests/dist_check.py $(FULL)

# Once a release: the oldest declared version of every direct dependency, with a torch built for CUDA (some 3 GB).
LOWEST := $(VENV)-lowest
lower-bounds: setup ## Run the tests that touch every dependency with the oldest versions that pyproject.toml allows.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(LOWEST)
	VIRTUAL_ENV=$(LOWEST) $(BIN)/uv pip install --quiet --resolution lowest-direct -e '.[test]'
	$(LOWEST)/bin/stagewise --version
	$(LOWEST)/bin/python -m pytest -q --benchmark-disable -m 'not slow' -W ignore::DeprecationWarning -W ignore::FutureWarning \
	  README.md tests/theory/test_hierarchy.py tests/theory/influence tests/numerics/models \
	  tests/numerics/fleets tests/numerics/sampling/test_bayesian_influence.py tests/numerics/sampling/test_chains.py \
	  tests/numerics/language tests/validation/test_data_files.py tests/validation/test_agreement.py \
	  tests/paper_figs/test_cache.py tests/paper_figs/test_command.py tests/stagewise

lint: setup ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

architecture: setup ## Write ARCHITECTURE.md anew from what every file says of itself.
	$(BIN)/python tests/architecture.py

format: setup ## Rewrite the code in the project's style.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the environment and everything made from it.
	rm -rf $(VENV) $(VENV)-lowest $(OUT) build dist docs/_build docs/api .pytest_cache .mypy_cache .ruff_cache .hypothesis
