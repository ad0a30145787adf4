# Two commands for a newcomer: `make run` and `make test`. Each does all its own set-up.
# the first that really runs: a version manager's shim may stand on the PATH for a Python that is not there
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
  $$python -c 'import sys, venv; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# what one process compiled, hundreds that the tests start need not compile again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run models wheel test test-parts lint style types bench bench-calls bench-web bench-echo bench-engine bench-ears bench-consent bench-watermark gpu-check prove prove-null prove-null-halves prove-detector prove-wheel prove-api prove-steady prove-soak prove-faults prove-fuzz prove-browsers prove-peers prove-examples prove-gpu-check soak clean

run: models $(if $(filter chroma,$(VOICEGATE_ENGINE)),$(VENV)/.chroma)
	@$(BIN)/voicegate run

# files that the default engine and consent's checks read beside the packages; quick when they are there
models: $(VENV)/.run
	@$(BIN)/voicegate models get --default || echo "going on without it"

# for `pipx install dist/*.whl`; what an earlier build left must not get into it
wheel: $(VENV)/.python
	rm -rf build dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

# types are checked while the first tests run: mypy has one thread, and takes a minute. Whole gateways last: they are
# called in real time, and mostly wait
test: $(VENV)/.test models style
	@$(BIN)/voicegate models get smollm2 || echo "going on without it"
	@$(MAKE) --no-print-directory -j2 types test-parts
	$(BIN)/python -m pytest tests/e2e -n 3 --dist loadfile --no-loadscope-reorder

test-parts: $(VENV)/.test
	$(BIN)/python -m pytest --ignore tests/e2e -n 3 --dist loadfile --no-loadscope-reorder

lint: style types

style: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.test
	$(BIN)/mypy

bench: bench-calls bench-web bench-echo bench-engine bench-ears bench-consent bench-watermark

bench-calls: $(VENV)/.test
	$(BIN)/python -m benchmarks.calls

bench-web: $(VENV)/.test
	$(BIN)/python -m benchmarks.web

bench-echo: $(VENV)/.test
	$(BIN)/python -m benchmarks.speakerphones

bench-engine: $(VENV)/.test
	$(BIN)/python -m benchmarks.understanding
	$(BIN)/python -m benchmarks.engine
	@if $(BIN)/python -c 'import triton' 2>/dev/null; then $(BIN)/python -m benchmarks.engine_kernels; \
	else echo "without the kernels: pip install triton==3.9.0 (1 GB)"; fi

bench-ears: export OPENBLAS_NUM_THREADS := 1
bench-ears: $(VENV)/.test
	@$(BIN)/voicegate models get whisper-base || echo "without whisper-base"
	$(BIN)/python -m benchmarks.ears
	$(BIN)/python -m benchmarks.meaning
	$(BIN)/python -m benchmarks.meaning_heard
	$(BIN)/python -m benchmarks.turn_ends
	$(BIN)/python -m benchmarks.noisy_lines

bench-consent: $(VENV)/.test
	$(BIN)/python -m benchmarks.consent
	$(BIN)/python -m benchmarks.consent_speakers
	$(BIN)/python -m benchmarks.statement_words
	$(BIN)/python -m benchmarks.revocation

bench-watermark: export OPENBLAS_NUM_THREADS := 1
bench-watermark: $(VENV)/.test
	$(BIN)/python -m benchmarks.watermark
	$(BIN)/python -m benchmarks.watermark.figures
	$(BIN)/python -m benchmarks.watermark.among_calls

# what only a GPU can tell, in ten minutes; a second run goes on. More: make gpu-check ASKED='--checkpoint DIR'
gpu-check: $(VENV)/.chroma
	$(BIN)/voicegate engine gpu-check $(ASKED)

# long proofs, hours together; each goes on where it was killed
prove: prove-null prove-null-halves prove-detector prove-wheel prove-api prove-steady prove-soak prove-faults prove-fuzz prove-browsers prove-peers prove-examples prove-gpu-check
	@$(BIN)/python -m benchmarks.prove

prove-null: export OPENBLAS_NUM_THREADS := 1
prove-null: $(VENV)/.test
	$(BIN)/python -m benchmarks.prove null

prove-null-halves: export OPENBLAS_NUM_THREADS := 1
prove-null-halves: $(VENV)/.test
	$(BIN)/python -m benchmarks.prove null-halves

prove-detector: $(VENV)/.test
	$(BIN)/python -m benchmarks.prove detector

prove-wheel: $(VENV)/.prove
	$(BIN)/python -m benchmarks.prove wheel

# two minutes of what nobody would ask of the API
prove-api: $(VENV)/.prove models
	$(BIN)/python -m benchmarks.prove api

prove-steady: $(VENV)/.test
	$(BIN)/python -m benchmarks.prove steady

prove-soak: $(VENV)/.test models
	$(BIN)/python -m benchmarks.prove soak

# the faults of docs/faults.md by number, with what was noticed of each
prove-faults: $(VENV)/.test models
	$(BIN)/python -m benchmarks.prove faults

# a million changed datagrams to the edge, ten minutes
prove-fuzz: $(VENV)/.test
	$(BIN)/python -m benchmarks.prove fuzz

# JsSIP and SIP.js, and TURN behind a NAT: needs npm, coturn, nftables and root
prove-browsers: $(VENV)/.test models
	$(BIN)/python -m benchmarks.prove browsers

# Kamailio, rtpengine, softphones: needs rtpengine-daemon, kamailio-websocket-modules and root
prove-peers: $(VENV)/.test models
	$(BIN)/python -m benchmarks.prove peers

# examples that nobody has seen yet, a thousand for each property; `make test` has the same ones each time
prove-examples: $(VENV)/.test models
	$(BIN)/python -m pytest --ignore tests/e2e -m hypothesis --hypothesis-profile search --timeout 0 -n 2 --dist loadfile

# calls that come and go for so many minutes, and whether anything grows: make soak MINUTES=60
MINUTES ?= 60
soak: $(VENV)/.test models
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

# what a GPU will be asked, whole, as far as a CPU can be asked it; a golden is named by VOICEGATE_GOLDENS
prove-gpu-check: $(VENV)/.test
	$(BIN)/voicegate engine gpu-check --device cpu --seconds 1500 --out benchmarks/out/gpu-check $(if $(VOICEGATE_GOLDENS),--golden $(VOICEGATE_GOLDENS)/chroma-a --checkpoint $(VOICEGATE_GOLDENS)/chroma-a)

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "voicegate needs Python 3.11 or 3.12 with its venv module (on Debian: apt-get install python3-venv); found $$(python3 --version 2>&1). If yours is elsewhere: make PYTHON=/path/to/python3.12 run"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.run: pyproject.toml $(VENV)/.python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.chroma: pyproject.toml $(VENV)/.run
	$(BIN)/pip install --quiet --editable '.[chroma]'
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.run
	$(BIN)/pip install --quiet --editable '.[chroma,cluster,test]'
	@touch $@

$(VENV)/.prove: $(VENV)/.test
	$(BIN)/pip install --quiet --editable '.[prove]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
