#!/usr/bin/env bash
# The tests that need Dapr, with sidecars and stores that are started for them: scripts/test_dapr.sh PYTHON. FN_TEST_DAPR
# names sidecars that run, to use those.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${FN_TEST_DAPR:-}" ]; then
	trap 'scripts/dapr.sh stop' EXIT
	scripts/dapr.sh start >&2
	scripts/dapr.sh wait >&2
	FN_TEST_DAPR=$(scripts/dapr.sh address)
	export FN_TEST_DAPR
fi
"$1" -m pytest -q tests/contract tests/integration -m dapr
