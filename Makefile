# Everything a developer types. `make demo` and `make test` set up all they need.
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECORDINGS := .cache/recordings
NEEDS := pyproject.toml constraints.txt scripts/setup.sh

.PHONY: help setup demo test bench bench-build bench-cluster cluster cluster-down dapr e2e unit check format reference clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

$(VENV)/node: $(NEEDS)
	scripts/setup.sh $(VENV) $(PY) node

$(VENV)/demo: $(NEEDS)
	scripts/setup.sh $(VENV) $(PY) demo

$(VENV)/dev: $(NEEDS)
	scripts/setup.sh $(VENV) $(PY) dev

$(RECORDINGS)/ready: samples/recordings/requirements.txt scripts/recordings.sh
	scripts/recordings.sh $(VENV) $(RECORDINGS)

setup: $(VENV)/node  ## `fn`, ready to use: source .venv/bin/activate

demo: $(VENV)/demo $(RECORDINGS)/ready  ## recorded drives become alerts, warnings and a report, on embedded parts; ends by itself
	$(BIN)/python samples/demo.py $(RECORDINGS)/bin/python

test: $(VENV)/dev $(RECORDINGS)/ready  ## every check and every test, with a real Kafka, Mosquitto, image registry and Docker engine started for it
	scripts/test.sh $(VENV)

bench: $(VENV)/dev $(RECORDINGS)/ready  ## what it costs beside other libraries: a table, and bench/results/latest.json
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python bench $(BENCH)

bench-build: $(VENV)/dev  ## builds of images beside docker build, in Docker engines of its own, as root: bench/results/build.json
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python bench --only build --runs 3 --to bench/results/build.json $(BENCH)

bench-cluster: $(VENV)/dev $(RECORDINGS)/ready  ## from zero and awake on the cluster of tests/cluster, as root: bench/results/cluster.json
	tests/cluster/build.sh
	tests/cluster/up.sh http-add-on redis
	FN_E2E_WHEEL=$$($(BIN)/python tests/e2e/prepare.py) PATH="$(CURDIR)/$(BIN):$$PATH" \
		tests/cluster/in.sh $(BIN)/python bench --only cluster --runs 10 --to bench/results/cluster.json $(BENCH)

soak: $(VENV)/dev  ## kill -9, restarts and disorder under load, three times, and a proof of what came of it: half an hour; SEED=7 for one
	cd tests && ../$(BIN)/python -m soak $(if $(SEED),--seeds $(SEED)) $(if $(SIZE),--size $(SIZE))

cluster:  ## a Kubernetes of one node with KEDA, Dapr, Kafka and Mosquitto, as root; the first time a quarter of an hour. tests/cluster/README.md
	tests/cluster/build.sh
	tests/cluster/up.sh all

cluster-down:  ## stop it and forget its state
	tests/cluster/down.sh

dapr: $(VENV)/dev  ## tests with two real Dapr sidecars over redis, postgresql and sqlite, some minutes; their program is built the first time
	scripts/test_dapr.sh $(BIN)/python

e2e: $(VENV)/dev $(RECORDINGS)/ready $(if $(E2E)$(FN_E2E_KUBECONFIG),,dapr)  ## tests on a cluster, as root: one that is made for them, or that which FN_E2E_KUBECONFIG names; E2E="tests/e2e -k kafka" for some
	tests/cluster/e2e.sh $(BIN)/python $(or $(E2E),tests/e2e)

unit: $(VENV)/dev  ## tests that need no service, under a minute
	$(BIN)/pytest -q -n 2 tests/unit tests/property tests/contract -m "not kafka and not mqtt and not node and not slow and not docker and not registry and not dapr"

check: $(VENV)/dev  ## format, lint, types, import rule
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev  ## format, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/dev  ## generate the JSON Schemas and the reference pages from the models
	$(BIN)/python -m fleetfn_spec.schema
	$(BIN)/python -m fleetfn_spec.reference
	$(BIN)/python -m fleetfn_cli.reference

clean:  ## remove what the targets above made here
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
