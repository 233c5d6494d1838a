# Needs: Python 3.11+, make, a C compiler, and for the real services Java 17 and Maven.
# Everything is installed into $(VENV), in the versions of requirements/lock.txt.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --constraint requirements/lock.txt
# A build that changes any of these is out of date.
BUILD_INPUTS := pyproject.toml setup.py requirements/lock.txt $(wildcard prosody/_core/*_c.pyx prosody/_core/*_c.pxd)
WHICH_HALF := import prosody._core as core; print("prosody core:", core.IMPLEMENTATION, core.FALLBACK_REASON or "")
# No half at all, or the wrong one, ends the run: the tests must not quietly test one half twice.
COMPILED_HALF := import sys, prosody._core as core; sys.exit(core.FALLBACK_REASON)

# Tests whose outcome depends on which half of the core runs; those that look at a client from outside do not.
FROM_OUTSIDE := codecs counts logs metrics probes telemetry_spans tracing
OVER_THE_CORE := $(filter-out $(FROM_OUTSIDE:%=tests/client/test_%.py),$(wildcard tests/client/test_*.py)) \
	tests/consume $(wildcard tests/simulation/test_*.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-kafka test test-real test-rest test-pure lint bench bench-floors bench-compare bench-compare-peers services services-stop build lock clean distclean

help:
	@echo "make demo           the main job on the embedded broker and stores"
	@echo "make demo-kafka     the same on a real Apache Kafka and Cassandra, started and stopped here"
	@echo "make test           all tests, both halves of the core, real services included"
	@echo "make lint           ruff and mypy"
	@echo "make bench          the benchmarks"
	@echo "make bench-floors   path and core against their floors, as ratios within the run; part of CI"
	@echo "make bench-compare  those of the core against the stored run, by ratios; ARGS=--store makes a new one"
	@echo "make bench-compare-peers  beside other packages, each in an environment of its own, on real services"
	@echo "make services       start Kafka and Cassandra and print the variables that point tests at them"
	@echo "make services-stop  end them"
	@echo "make build          sdist and wheel into dist/"
	@echo "make lock           resolve the dependencies again and write requirements/lock.txt"
	@echo "make clean          remove what was built;  make distclean: the virtual environment too"
	@echo "PYTHON=python3.13 picks the interpreter, VENV=folder the environment, ARGS=... is passed on."

demo: $(VENV)/.base
	@$(PY) -m demo $(ARGS)

demo-kafka: $(VENV)/.base
	@$(PY) -m demo --kafka $(ARGS)

# PROSODY_PURE_PYTHON is set or unset here, whatever the caller's environment says, so that both halves run.
# Two at a time, which take about as long: those with real services, which often wait for others, and the rest.
test test-real test-rest test-pure: export PROSODY_REQUIRE_EXTENSIONS = 1
test: $(VENV)/.dev
	env -u PROSODY_PURE_PYTHON $(PY) -c '$(COMPILED_HALF)'
ifdef ARGS
	env -u PROSODY_PURE_PYTHON $(PY) -m pytest $(ARGS)
	PROSODY_PURE_PYTHON=1 $(PY) -m pytest -q -m "not real" -k "not mutant" $(ARGS)
else
	@echo "beside these run the tests with real services; what they say comes at the end (.cache/test-real.log)"
	@mkdir -p .cache; $(MAKE) --no-print-directory test-real > .cache/test-real.log 2>&1 & real=$$!; \
	trap 'kill $$real; wait; exit 1' INT TERM; failed=0; \
	$(MAKE) --no-print-directory test-rest || failed=1; \
	$(MAKE) --no-print-directory test-pure || failed=1; \
	wait $$real || failed=1; cat .cache/test-real.log; exit $$failed
endif

test-real: $(VENV)/.dev
	env -u PROSODY_PURE_PYTHON $(PY) -m pytest --durations=12 -m real

test-rest: $(VENV)/.dev
	env -u PROSODY_PURE_PYTHON $(PY) -m pytest --durations=12 -m "not real"

# Those that run over the core: tests of the core itself import each half by its name, and that tests notice
# a rule that is switched off is shown once.
test-pure: $(VENV)/.dev
	PROSODY_PURE_PYTHON=1 $(PY) -m pytest -q -m "not real" -k "not mutant" $(OVER_THE_CORE)

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# The structures of the core one by one, the whole path on the embedded broker and on a real Kafka, then what is
# kept in stores, in memory and on a real Cassandra.
bench: $(VENV)/.dev
	$(PY) -m pytest -q --benchmark-only $(wildcard benchmarks/bench_*.py)
	$(PY) -m benchmarks.path $(ARGS)
	$(PY) -m benchmarks.path.layers
	$(PY) -m benchmarks.timers
	$(PY) -m benchmarks.deferral
	$(PY) -m tools.services run kafka -- sh -c '$(PY) -m benchmarks.path --kafka $$PROSODY_TEST_KAFKA $(ARGS) \
	  && $(PY) -m benchmarks.path.latency --kafka $$PROSODY_TEST_KAFKA \
	  && $(PY) -m benchmarks.path.memory --kafka $$PROSODY_TEST_KAFKA \
	  && $(PY) -m benchmarks.qos --kafka $$PROSODY_TEST_KAFKA \
	  && $(PY) -m benchmarks.rebalance --kafka $$PROSODY_TEST_KAFKA'
	$(PY) -m tools.services run cassandra -- sh -c '$(PY) -m benchmarks.stores --cassandra $$PROSODY_TEST_CASSANDRA \
	  && $(PY) -m benchmarks.timers --no-memory --cassandra $$PROSODY_TEST_CASSANDRA \
	  && $(PY) -m benchmarks.deferral --no-memory --cassandra $$PROSODY_TEST_CASSANDRA'

# Fails when the whole path or the core is below a floor in three runs of three, by ratios within a run.
bench-floors: $(VENV)/.dev
	$(PY) -m benchmarks.tracking.floors

# Fails when a ratio of the two halves fell; makes docs/benchmarks from the stored run.
bench-compare: $(VENV)/.dev
	$(PY) -m benchmarks.tracking $(ARGS)

# Some 25 minutes, on a machine that does nothing else; fails when a row is BROKEN or a bar is missed.
# The servers get a collector without pauses: theirs would be counted as the latency of whoever is measured.
bench-compare-peers: export JDK_JAVA_OPTIONS ?= -XX:+UseZGC
bench-compare-peers: $(VENV)/.dev
	$(PY) -m tools.services run kafka cassandra -- $(PY) -m benchmarks.compare $(ARGS)

# With the standard library alone, so that eval "$$(make services)" gets the variables and nothing else.
services:
	@$(PYTHON) -m tools.services start $(ARGS)

services-stop:
	@$(PYTHON) -m tools.services stop $(ARGS)

build: $(VENV)/.dev
	$(PY) -m build --no-isolation --outdir dist .

# The newest versions that the ranges of pyproject.toml allow, found in an environment of its own.
# Then run make test, and commit the file.
lock:
	rm -rf .cache/lock
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/python -m pip install --quiet --upgrade pip
	.cache/lock/bin/python -m pip install --quiet --group build --group dev ".[demo,otlp,prometheus,uvloop]"
	{ echo "# Made by 'make lock'; a pip constraints file. Everything that make demo and make test install."; \
	  .cache/lock/bin/python -m pip freeze --all --exclude prosody-asyncio; } > .cache/lock.txt
	mv .cache/lock.txt requirements/lock.txt
	rm -rf .cache/lock

clean:
	rm -rf build dist prosody_asyncio.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f prosody/_core/*_c.c prosody/_core/*_c.html prosody/_core/*_c.*.so prosody/_core/*_c.*.pyd
	rm -f $(VENV)/.base $(VENV)/.dev

distclean: clean
	rm -rf $(VENV)

# The virtual environment in three steps, each a stamp: a second call does nothing.

$(VENV)/.made:
	@echo "making the virtual environment $(VENV)"
	@rm -rf $(VENV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.x")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) pip setuptools cython
	@touch $@

# Editable: the demo and the tests run from the checkout, whose folder stands first on the path. The
# build's word of caution about that is left out; a core that does not compile is shown.
$(VENV)/.base: $(VENV)/.made $(BUILD_INPUTS)
	@echo "installing prosody and compiling its core"
	@$(PIP_INSTALL) pip setuptools cython
	@PYTHONWARNINGS="ignore:Editable installation" $(PIP_INSTALL) --no-build-isolation --editable ".[demo]"
	@$(PY) -c '$(WHICH_HALF)'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "installing the tools for tests and lint"
	@$(PIP_INSTALL) --group dev
	@touch $@
