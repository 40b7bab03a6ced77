#!/usr/bin/env bash
# Parts of the cluster that are put on a Kubernetes that runs, and waited for; inside its network.
#
#   in.sh tests/cluster/add.sh policies|volumes|keda|http-add-on|dapr...
set -euo pipefail
. "$(dirname "$0")/lib.sh"

rolled_out() { # NAMESPACE DEPLOYMENT...
	local each
	for each in "${@:2}"; do
		await "$each" 90 kubectl rollout status --namespace "$1" "deployment/$each" --timeout=1s
	done
}

# NetworkPolicies become rules of this machine's firewall.
policies() {
	start policies "$programs/policies-$(cat "$here"/go/policies/* | sha256sum | cut -c1-12)/policies" "$pki/admin.kubeconfig"
}

# Claims get folders of the node.
volumes() {
	render manifests/volumes.yaml | apply
	start volumes "$programs/volumes-$VOLUMES_VERSION/local-path-provisioner" start --kubeconfig "$pki/admin.kubeconfig" \
		--namespace local-path-storage --helper-image docker.io/library/fleetfn-base:bookworm
}

keda() {
	kubectl apply --server-side -f "$programs/keda-$KEDA_VERSION/bases" >/dev/null
	keda_programs=$programs/keda-$KEDA_VERSION ca=$(base64 -w0 "$pki/ca.crt") key=$(base64 -w0 "$pki/keda.key") \
		certificate=$(base64 -w0 "$pki/keda.crt") render manifests/keda.yaml | apply
	rolled_out keda keda-operator keda-metrics-apiserver
	await "the external metrics API" 60 kubectl get --raw /apis/external.metrics.k8s.io/v1beta1
}

http-add-on() {
	kubectl apply --server-side -f "$programs/http-add-on-$HTTP_ADD_ON_VERSION/bases" >/dev/null
	add_on_programs=$programs/http-add-on-$HTTP_ADD_ON_VERSION render manifests/http-add-on.yaml | apply
	rolled_out keda keda-add-ons-http-{operator,interceptor,scaler}
}

dapr() {
	local chart=$programs/dapr-$DAPR_VERSION/dapr control=fleetfn.test/dapr-control:$DAPR_VERSION part values
	local settings=(global.imagePullPolicy=Never global.prometheus.enabled=false dapr_scheduler.cluster.inMemoryStorage=true
		dapr_sidecar_injector.sidecarImagePullPolicy=Never "dapr_sidecar_injector.image.name=fleetfn.test/daprd:$DAPR_VERSION"
		"dapr_sidecar_injector.injectorImage.name=$control")
	for part in operator placement scheduler sentry; do settings+=("dapr_$part.image.name=$control"); done
	for part in operator sidecar_injector placement sentry scheduler; do
		settings+=("dapr_$part.readinessProbe.initialDelaySeconds=0" "dapr_$part.readinessProbe.periodSeconds=1")
	done
	values=("$chart" --namespace dapr-system --set "$(IFS=, && echo "${settings[*]}")")
	local helm=("$programs/helm-$HELM_VERSION/helm" --kubeconfig "$pki/admin.kubeconfig")
	if "${helm[@]}" status dapr --namespace dapr-system 2>/dev/null | grep -q "STATUS: deployed"; then
		rolled_out dapr-system dapr-operator dapr-sentry dapr-sidecar-injector
		return
	fi
	"$here/images.sh" import "dapr-control-$DAPR_VERSION"
	# Dapr's programs end where they come up before its schemas and its configuration are there, and are started again only
	# after a while; the chart makes both after them. So they are made first, and the chart takes them over.
	kubectl apply --server-side --force-conflicts -f "$chart/crds" >/dev/null
	kubectl wait --for=condition=Established --timeout=30s -f "$chart/crds" >/dev/null
	kubectl create namespace dapr-system --dry-run=client --output yaml | apply
	"${helm[@]}" template dapr "${values[@]}" --show-only charts/dapr_config/templates/dapr_default_config.yaml | kubectl apply -f - >/dev/null
	"${helm[@]}" upgrade dapr "${values[@]}" --install --skip-crds --take-ownership --wait --timeout 120s >>"$logs/dapr.log" 2>&1 ||
		fail "Dapr's control plane does not come up." "see $logs/dapr.log, and: tests/cluster/in.sh kubectl get pods --namespace dapr-system"
	say "Dapr's control plane: ready"
}

for part in "$@"; do "$part"; done
