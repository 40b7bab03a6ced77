#!/usr/bin/env bash
# Kubernetes, inside the cluster's network: the control plane, the agents of the one node, DNS. up.sh runs it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

mkdir -p "$pids" "$logs" "$state"/{etcd,kubelet,containerd,pod-logs,cni,volumes} "$state/registries/$node_ip:$registry_port"

control_plane() {
	start etcd "$kubernetes/etcd" --name "$node" --data-dir "$state/etcd" --log-level warn --unsafe-no-fsync \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
		--initial-cluster "$node=http://127.0.0.1:2380"
	start apiserver "$kubernetes/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
		--bind-address "$node_ip" --advertise-address "$node_ip" --secure-port 6443 \
		--service-cluster-ip-range "$service_cidr" --profiling=false \
		--authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
		--client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
		--kubelet-preferred-address-types InternalIP \
		--kubelet-client-certificate "$pki/apiserver-kubelet-client.crt" \
		--kubelet-client-key "$pki/apiserver-kubelet-client.key" \
		--service-account-issuer https://kubernetes.default.svc.cluster.local \
		--service-account-key-file "$pki/service-account.key" --service-account-signing-key-file "$pki/service-account.key" \
		--requestheader-client-ca-file "$pki/ca.crt" --requestheader-allowed-names front-proxy-client \
		--requestheader-extra-headers-prefix X-Remote-Extra- --requestheader-group-headers X-Remote-Group \
		--requestheader-username-headers X-Remote-User \
		--proxy-client-cert-file "$pki/front-proxy-client.crt" --proxy-client-key-file "$pki/front-proxy-client.key"
}

snapshotter() { # overlayfs, unless an overlay cannot be mounted here: on one of a container, say
	local tried=$state/overlay found=native
	mkdir -p "$tried"/{lower,upper,work,merged}
	if mount -t overlay overlay -o "lowerdir=$tried/lower,upperdir=$tried/upper,workdir=$tried/work" "$tried/merged" 2>/dev/null; then
		umount "$tried/merged"
		found=overlayfs
	fi
	rm -rf "$tried"
	echo "$found"
}

containers() {
	snapshotter=$(snapshotter) render config/containerd.toml | keep "$state/containerd.toml"
	render config/bridge.conflist | keep "$state/cni/10-bridge.conflist"
	render config/hosts.toml | keep "$state/registries/$node_ip:$registry_port/hosts.toml"
	start containerd containerd --config "$state/containerd.toml" --log-level warn
	await containerd 30 ctr version
	"$here/images.sh" import pause-1 static-1 base "daprd-$DAPR_VERSION"
}

agents() {
	local name
	: | keep "$state/resolv.conf" # no name server: DNS forwards nothing
	for name in kubelet.yaml kube-proxy.yaml Corefile; do render "config/$name" | keep "$state/$name"; done
	local admin=(--kubeconfig "$pki/admin.kubeconfig")
	start controller-manager "$kubernetes/kube-controller-manager" "${admin[@]}" --leader-elect=false --bind-address 127.0.0.1 \
		--service-account-private-key-file "$pki/service-account.key" --root-ca-file "$pki/ca.crt" \
		--cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
		--horizontal-pod-autoscaler-sync-period 1s
	start scheduler "$kubernetes/kube-scheduler" "${admin[@]}" --leader-elect=false --bind-address 127.0.0.1
	start proxy "$kubernetes/kube-proxy" --config "$state/kube-proxy.yaml"
	start kubelet "$kubernetes/kubelet" --config "$state/kubelet.yaml" --kubeconfig "$pki/kubelet.kubeconfig" \
		--root-dir "$state/kubelet" --cert-dir "$state/kubelet/pki" --hostname-override "$node" --node-ip "$node_ip"
	start coredns "$programs/coredns-$COREDNS_VERSION/coredns" -conf "$state/Corefile"
}

"$here/pki.sh"
control_plane
containers
await "the API server" 90 kubectl get --raw /readyz
agents
await "the node" 90 kubectl wait --for=condition=Ready --timeout=1s "node/$node"
await "the default service account" 30 kubectl get serviceaccount default
await "DNS" 30 curl -fs http://127.0.0.1:8053/health
