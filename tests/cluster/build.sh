#!/usr/bin/env bash
# Build and fetch what the cluster is made of, unless the cache has it: Go modules, Debian's packages, Maven's. This alone
# needs the package registries.
#
#   tests/cluster/build.sh [--install] [PART...]   all parts; --install also installs Debian's packages (as root; so does CI=true)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
export CGO_ENABLED=0 GOWORK=off GOTOOLCHAIN=local GOFLAGS="-trimpath -buildvcs=false"
install=
[ "${CI:-}" != true ] || install=--install
[ "${1:-}" != --install ] || { install=--install && shift; }
mkdir -p "$programs"

need_go() {
	local wanted has
	command -v go >/dev/null || fail "the cluster's programs are built from Go modules, and there is no Go here." "install Go: https://go.dev/doc/install"
	wanted=$(cat "$here"/go/*/go.mod | sed -n 's/^go //p' | sort -V | tail -n 1)
	has=$(go env GOVERSION)
	printf 'go%s\n%s\n' "$wanted" "$has" | sort -VC || fail "the cluster's programs need Go $wanted, and this is ${has#go}." "install a newer one: https://go.dev/doc/install"
}

go_build() { # PRODUCT VERSION LDFLAGS NAME=PACKAGE...: programs of the module go/PRODUCT
	local product=$1 version=$2 ldflags=$3 each target
	shift 3
	for each in "$@"; do
		target=$programs/$product-$version/${each%%=*}
		[ -x "$target" ] && continue
		need_go
		(cd "$here/go/$product" && go build -ldflags "-s -w $ldflags" -o "$target.new" "${each#*=}") ||
			fail "$product/${each%%=*} $version could not be built." "its output is above; does GOPROXY name a proxy in reach?"
		mv "$target.new" "$target"
		say "$product/${each%%=*} $version: built"
	done
}

folder_of() { # PRODUCT MODULE FOLDER: a folder of the module's files, beside its programs
	local target=$programs/$1/$(basename "$3")
	[ -d "$target" ] && return
	cp -r --no-preserve=mode "$(cd "$here/go/${1%-*}" && go list -m -f '{{.Dir}}' "$2")/$3" "$target.new"
	mv "$target.new" "$target"
}

build_packages() {
	local packages=(bc conntrack containerd containernetworking-plugins curl docker-registry gettext-base iproute2 iptables
		mosquitto nftables openssl postgresql procps psmisc python3 redis-server runc) each missing=()
	for each in "${packages[@]}"; do
		dpkg-query --show --showformat '${Status}' "$each" 2>/dev/null | grep -q 'ok installed' || missing+=("$each")
	done
	if [ ${#missing[@]} -gt 0 ]; then
		command -v apt-get >/dev/null || fail "the cluster needs ${missing[*]}, and there is no apt-get here." "it is made for Debian 12; FN_E2E_KUBECONFIG names any other cluster to test on"
		[ -n "$install" ] && [ "$(id -u)" = 0 ] || fail "the cluster needs ${missing[*]}, which this machine lacks." "as root: apt-get install ${missing[*]} (or: tests/cluster/build.sh --install)"
		# RUNLEVEL: no package is to start a service of its own
		{ apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2
		say "Debian's packages: installed"
	fi
}

build_kubernetes() {
	local ldflags= package k8s=k8s.io/kubernetes/cmd
	for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		ldflags+=" -X $package.gitVersion=v$KUBERNETES_VERSION -X $package.gitCommit=unknown -X $package.gitMajor=1"
		ldflags+=" -X $package.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES_VERSION") -X $package.gitTreeState=clean"
		ldflags+=" -X $package.buildDate=1970-01-01T00:00:00Z"
	done
	go_build kubernetes "$KUBERNETES_VERSION" "$ldflags" etcd=go.etcd.io/etcd/server/v3 \
		kube-apiserver=$k8s/kube-apiserver kube-controller-manager=$k8s/kube-controller-manager \
		kube-scheduler=$k8s/kube-scheduler kubelet=$k8s/kubelet kube-proxy=$k8s/kube-proxy kubectl=$k8s/kubectl
	go_build coredns "$COREDNS_VERSION" "" coredns=.
	go_build pause 1 "" pause=.
	go_build policies "$(cat "$here"/go/policies/* | sha256sum | cut -c1-12)" "" policies=.
	go_build volumes "$VOLUMES_VERSION" "" local-path-provisioner=github.com/rancher/local-path-provisioner
}

build_keda() {
	local keda=github.com/kedacore/keda/v2
	go_build keda "$KEDA_VERSION" "-X $keda/version.Version=$KEDA_VERSION" keda=$keda/cmd/operator keda-adapter=$keda/cmd/adapter
	folder_of "keda-$KEDA_VERSION" $keda config/crd/bases
}

build_http_add_on() {
	local addon=github.com/kedacore/http-add-on
	go_build http-add-on "$HTTP_ADD_ON_VERSION" "" operator=$addon/operator interceptor=$addon/interceptor scaler=$addon/scaler
	folder_of "http-add-on-$HTTP_ADD_ON_VERSION" $addon config/crd/bases
}

build_dapr() {
	local dapr=github.com/dapr/dapr each parts=()
	for each in daprd injector operator placement scheduler sentry; do parts+=("$each=$dapr/cmd/$each"); done
	GOFLAGS="$GOFLAGS -tags=stablecomponents" go_build dapr "$DAPR_VERSION" \
		"-X $dapr/pkg/buildinfo.version=$DAPR_VERSION -X github.com/dapr/kit/logger.DaprVersion=$DAPR_VERSION" "${parts[@]}"
	folder_of "dapr-$DAPR_VERSION" $dapr charts/dapr
	go_build helm "$HELM_VERSION" "-X helm.sh/helm/v3/internal/version.version=v$HELM_VERSION" helm=helm.sh/helm/v3/cmd/helm
}

build_kafka() { "$repository/scripts/kafka.sh" fetch $install; }

build_images() { "$here/images.sh" build $install; }

[ $# -gt 0 ] || set -- packages kubernetes keda http_add_on dapr kafka images
for part in "$@"; do "build_$part"; done
say "all is built; the cache $cache holds $(du -sh "$cache" | cut -f1)"
