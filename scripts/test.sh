#!/usr/bin/env bash
# All checks and all tests, with a real Kafka, a real Mosquitto, a real image registry and a real Docker engine for those
# that need them. FN_TEST_KAFKA, FN_TEST_MOSQUITTO, FN_TEST_REGISTRY and FN_TEST_DOCKER name some to use instead of
# starting them; FN_TEST_BASE names a tarball with Python to build images on, instead of making one.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "$1" && pwd)/bin
export PATH="$bin:$PATH"

ruff format --check .
ruff check .
mypy
lint-imports

# One test reads a trace of system calls, one runs a benchmark; where their tools are missing they are skipped, but not in CI.
for tool in strace wrk; do
	if ! command -v "$tool" >/dev/null && [ "$(id -u)" = 0 ] && [ "${CI:-}" = true ]; then
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$tool"
	fi
done

started=()
trap 'for each in "${started[@]}"; do "$each" stop; done' EXIT

broker() { # SCRIPT: start it, to be stopped in the end; its address
	"$1" start >&2
	"$1" wait >&2
	"$1" address
}

if [ -z "${FN_TEST_KAFKA:-}" ]; then
	started+=(scripts/kafka.sh)
	FN_TEST_KAFKA=$(broker scripts/kafka.sh)
fi
if [ -z "${FN_TEST_MOSQUITTO:-}" ]; then
	started+=(scripts/mosquitto.sh)
	FN_TEST_MOSQUITTO=$(broker scripts/mosquitto.sh)
fi
if [ -z "${FN_TEST_REGISTRY:-}" ]; then
	started+=(scripts/registry.sh)
	FN_TEST_REGISTRY=$(broker scripts/registry.sh)
fi
export FN_TEST_KAFKA FN_TEST_MOSQUITTO FN_TEST_REGISTRY

# An engine starts, and a base image is made, as root alone: others name theirs, or go without.
if [ -z "${FN_TEST_DOCKER:-}" ] && { [ "$(id -u)" = 0 ] || [ "${CI:-}" = true ]; }; then
	started+=(scripts/docker.sh)
	FN_TEST_DOCKER=$(broker scripts/docker.sh)
	export FN_TEST_DOCKER
fi
if [ -z "${FN_TEST_BASE:-}" ] && { [ "$(id -u)" = 0 ] || [ "${CI:-}" = true ]; }; then
	FN_TEST_BASE=$(scripts/base_image.sh)
	export FN_TEST_BASE
fi

services="kafka or mqtt or node or slow or docker or registry"
python -m pytest -q -n 2 tests/unit tests/property tests/contract -m "not ($services) and not dapr"
# Those of Dapr are run by `make dapr`, those on a cluster by `make e2e`: what they need takes minutes to build.
# One after the other: they start processes and brokers of their own, and measure waits. What one leaves open is told by
# whichever runs when it is collected, so that is shown and fails nobody.
leftovers=(-W default::pytest.PytestUnraisableExceptionWarning)
python -m pytest -q tests/unit tests/property tests/contract -m "($services) and not dapr" "${leftovers[@]}"
python -m pytest -q tests/integration -m "not dapr" "${leftovers[@]}"
