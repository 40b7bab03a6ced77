#!/usr/bin/env bash
# A Docker engine for tests, beside any other that runs here: own socket, data and processes, no firewall rules and no
# network of its own. Containers get the network of the machine (`--network host`) or none.
#
#   scripts/docker.sh start [--install]   start it, as root; --install also installs Debian's docker.io
#   scripts/docker.sh wait                until it answers, at most 30 s
#   scripts/docker.sh address             for DOCKER_HOST
#   scripts/docker.sh status              exit 0 and its pid while it runs
#   scripts/docker.sh stop                stop it; images and volumes stay in FN_DOCKER_DIR
#
# FN_DOCKER_DIR  folder of its data, log, socket and pid file; default .cache/docker in this repository
set -euo pipefail

name="A Docker engine" word=docker usual=0 config=docker.sock patience=30
. "$(dirname "${BASH_SOURCE[0]}")/broker.sh"
PATH=$PATH:/usr/sbin # where Debian puts it
address=unix://$dir/$config
listens=

answers() { docker --host "$address" version >/dev/null 2>&1; }

driver() { # overlay2, unless an overlay cannot be mounted here: a file system of the machine, or one that is an overlay itself
	local tried=$dir/overlay found=vfs
	mkdir -p "$tried"/{lower,upper,work,merged}
	if mount -t overlay overlay -o "lowerdir=$tried/lower,upperdir=$tried/upper,workdir=$tried/work" "$tried/merged" 2>/dev/null; then
		umount "$tried/merged"
		found=overlay2
	fi
	rm -rf "$tried"
	echo $found
}

need_tools() {
	local missing=()
	command -v dockerd >/dev/null || missing+=(docker.io)
	obtain "$1" "${missing[@]}"
}

start() {
	free || return 0
	[ "$(id -u)" = 0 ] || fail "$name starts as root alone." "sudo scripts/docker.sh start; or name one that runs by FN_TEST_DOCKER"
	need_tools "$1"
	[ "${#address}" -le 100 ] || fail "the path $dir is too long for a socket." "name another folder by FN_DOCKER_DIR"
	# Namespaces: where a containerd of the machine runs already, Docker would take it, and share its containers with others.
	launch dockerd --host "$address" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" \
		--containerd-namespace fleetfn-tests --containerd-plugins-namespace fleetfn-tests-plugins \
		--storage-driver "$(driver)" --iptables=false --ip6tables=false --bridge=none --ip-forward=false --ip-masq=false
}

broker "$@"
if [ "${1:-}" = stop ] && [ -d "$dir/exec/netns" ]; then
	umount "$dir"/exec/netns/* 2>/dev/null || true # an engine leaves it mounted: its folder could not be removed
fi
