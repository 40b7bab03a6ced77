#!/usr/bin/env bash
# The cluster's certificates and kubeconfig files, unless they are there: one authority, and what it signs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

[ -s "$pki/outside.kubeconfig" ] && exit
mkdir -p "$pki"
chmod 700 "$pki"
cd "$pki"

sign() { # NAME SUBJECT USAGE [ALTERNATIVE-NAMES]
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
	openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -days 365 -out "$1.crt" -extfile <(
		printf 'keyUsage=digitalSignature\nextendedKeyUsage=%s\n' "$3"
		[ -z "${4:-}" ] || printf 'subjectAltName=%s\n' "$4"
	) 2>/dev/null
	rm "$1.csr"
}

kubeconfig() { # NAME USER SERVER
	cat >"$1.kubeconfig" <<-YAML
		apiVersion: v1
		kind: Config
		current-context: fleetfn
		contexts:
		- {name: fleetfn, context: {cluster: fleetfn, user: $2}}
		clusters:
		- {name: fleetfn, cluster: {server: "$3", certificate-authority-data: $(base64 -w0 ca.crt)}}
		users:
		- {name: $2, user: {client-certificate-data: $(base64 -w0 "$2.crt"), client-key-data: $(base64 -w0 "$2.key")}}
	YAML
}

umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=fleetfn-tests -days 365 \
	-keyout ca.key -out ca.crt -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
openssl genrsa -out service-account.key 2048 2>/dev/null

sign apiserver /CN=kube-apiserver serverAuth "IP:127.0.0.1,IP:$node_ip,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
sign apiserver-kubelet-client /O=system:masters/CN=apiserver-kubelet-client clientAuth
sign front-proxy-client /CN=front-proxy-client clientAuth
sign admin /O=system:masters/CN=admin clientAuth
sign kubelet "/O=system:nodes/CN=system:node:$node" clientAuth
# KEDA's operator serves gRPC to its adapter, the adapter serves the API server: both prove by this one who they are.
sign keda /CN=keda serverAuth,clientAuth \
	DNS:localhost,DNS:keda-operator,DNS:keda-operator.keda.svc,DNS:keda-operator.keda.svc.cluster.local,DNS:keda-metrics-apiserver.keda.svc
kubeconfig admin admin "https://$node_ip:6443"
kubeconfig kubelet kubelet "https://$node_ip:6443"
kubeconfig outside admin "https://127.0.0.1:$api_port"
