#!/usr/bin/env bash
# The tests of tests/e2e on a cluster: on that which FN_E2E_KUBECONFIG names (then nothing is started, and FN_E2E_KAFKA and
# the like say where its parts are); else on the one of this folder, which is built from the cache, started, and stopped in
# the end unless it was up before.
#
#   tests/cluster/e2e.sh PYTHON PYTEST-ARGUMENT...
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$repository"
tests=("$1" -m pytest -q "${@:2}")

[ -z "${FN_E2E_KUBECONFIG:-}" ] || exec "${tests[@]}"

exec 8>/run/lock/fleetfn-e2e
flock --nonblock 8 || fail "another run of the tests uses the cluster." "wait until it has ended"
"$here/machine.sh"
"$here/build.sh" packages 8>&-
"$here/machine.sh" # all that it tries needs tools of these packages
"$here/build.sh" 8>&-
is_up || trap '"$here/down.sh"' EXIT
"$here/up.sh" all 8>&-
FN_E2E_WHEEL=$("$1" tests/e2e/prepare.py)
export FN_E2E_WHEEL
"$here/in.sh" "${tests[@]}"
