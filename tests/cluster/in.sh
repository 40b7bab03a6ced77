#!/usr/bin/env bash
# Run a command in the cluster's network, with what it needs to know: KUBECONFIG, kubectl on the path, and FN_E2E_*.
#
#   tests/cluster/in.sh kubectl get pods --all-namespaces
#   tests/cluster/in.sh pytest tests/e2e
set -euo pipefail
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || fail "a command enters the cluster's network as root alone." "sudo tests/cluster/in.sh ...; from outside: see tests/cluster/README.md"
is_up || fail "the cluster is not up." "tests/cluster/up.sh"
export KUBECONFIG=$pki/admin.kubeconfig FN_E2E_KUBECONFIG=$pki/admin.kubeconfig PATH=$kubernetes:$PATH
export FN_E2E_REGISTRY=127.0.0.1:$registry_port
export FN_E2E_KAFKA=$node_ip:9092 FN_E2E_MOSQUITTO=$node_ip:1883 FN_E2E_REDIS=$node_ip:6379
export FN_E2E_POSTGRESQL="host=$node_ip port=5432 user=fn password=fn-secret dbname=fn"
exec nsenter --net="/run/netns/$netns" "$@"
