# Two commands on a fresh machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3
WORKERS ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SMALL  := $(VENV)/.installed-small

.PHONY: demo cluster-demo test elsewhere slow long faults lint bench peers setup setup-small clean

setup: $(STAMP)

setup-small: $(SMALL)  ## what tables on one machine need, and no more: no Spark, no Ray, no test tools

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=24"
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $(STAMP) $(SMALL)

$(SMALL): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=24"
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train,serve]'
	touch $(SMALL)

demo: setup-small      ## read a small lake, train, evaluate, pack and answer a request
	$(BIN)/penstock demo

cluster-demo: setup    ## the same recipe on this machine, on a Spark and on a Ray cluster that are started for it (minutes)
	$(BIN)/python examples/cluster_demo.py

test: setup lint       ## lint and the whole suite (minutes on two cores)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not faults"

elsewhere: setup       ## a part of the suite on another machine: its zone, locale, hash seed and number of threads
	TZ=America/St_Johns LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONHASHSEED=4242 OMP_NUM_THREADS=2 \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not faults" \
	tests/golden tests/contracts tests/recipe tests/formats tests/bundle tests/parts/test_features.py tests/parts/test_features_numbers.py tests/parts/test_words.py tests/prepare/test_prepare.py

slow: setup            ## the slower proofs: whole journeys on the larger data sets
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25 -m "slow and not long"

long: setup            ## the longest proofs: pictures and texts from scratch, ten times the memory, Spark's machines that go and come, and what the slow ring proves a part of (an hour)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long

faults: setup          ## the whole fault matrix: kills, stalls, torn checkpoints, full disks, buckets that refuse (minutes)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "faults and not long" tests/matrix

lint: setup            ## style, types, the floors of the house and its rules for files
	$(BIN)/ruff check penstock tests benchmarks examples recipes
	$(BIN)/ruff format --check -q penstock tests benchmarks examples recipes
	$(BIN)/python -m tests.house
	$(BIN)/python -m tests.messages --check
	$(BIN)/mypy
	$(BIN)/lint-imports --config importlinter.ini

bench: setup           ## every benchmark, peers side by side; minutes to an hour
	$(BIN)/python -m benchmarks

peers: setup           ## the environments of the benchmarks' peers, beside ours; gigabytes
	$(BIN)/python -m benchmarks.peers

clean:
	rm -rf $(VENV) .venv-peers build *.egg-info store demo
