#!/usr/bin/env bash
# Start the cluster, and wait until all of it answers; what runs already is left as it is. As root.
#
#   tests/cluster/up.sh [PART...]
#
# Always: Kubernetes with volumes, NetworkPolicy and an image registry, KEDA, Kafka, Mosquitto. Parts to be added, now or
# later: http-add-on, dapr (its control plane; a sidecar alone needs none), redis, postgresql; or `all` of them.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

extra=()
for part in "$@"; do
	case $part in
	http-add-on | dapr | redis | postgresql) extra+=("$part") ;;
	all) extra=(http-add-on dapr redis postgresql) ;;
	*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
	esac
done

check_cache() {
	local each
	for each in "$kubernetes/kubelet" "$programs/keda-$KEDA_VERSION/keda" "$cache/images/base.tar"; do
		[ -e "$each" ] || fail "$(basename "$each") is not in the cache $cache." "tests/cluster/build.sh"
	done
	for each in bc containerd nft docker-registry mosquitto java envsubst; do
		command -v "$each" >/dev/null || fail "$each is missing." "tests/cluster/build.sh --install"
	done
}

make_network() {
	[ -e "/run/netns/$netns" ] || ip netns add "$netns"
	inside sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
	# Of the whole machine: every kubelet, containerd and kubectl that watches files takes some.
	[ "$(sysctl -n fs.inotify.max_user_instances)" -ge 1024 ] || sysctl -qw fs.inotify.max_user_instances=1024
	inside ip link show "$bridge" >/dev/null 2>&1 && return
	inside ip link set lo up
	inside ip link add "$bridge" type bridge
	inside ip address add "$node_ip/16" dev "$bridge"
	inside ip link set "$bridge" up
	# A service's address exists in kube-proxy's rules alone; until they are there, what is sent to one ends here.
	inside ip route replace "$service_cidr" dev "$bridge" src "$node_ip"
}

answers() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
door_answers() { running door >/dev/null && answers "$registry_port" && answers "$api_port"; }

open_door() { # outside: it is the only process that is
	local port
	running door >/dev/null || for port in "$registry_port" "$api_port"; do
		! answers "$port" || fail "port $port is taken by another program: the cluster is reached by it." "stop that program"
	done
	start door python3 "$here/door.py" "/run/netns/$netns" "$registry_port=$node_ip:$registry_port" "$api_port=$node_ip:6443"
	await "the door on 127.0.0.1:$registry_port (registry) and :$api_port (API)" 60 door_answers
}

"$here/machine.sh"
check_cache
lock
mkdir -p "$pids" "$logs"
make_network
inside "$here/services.sh" start registry kafka mosquitto &
services=$!
inside "$here/kubernetes.sh"
wait $services
inside "$here/add.sh" policies volumes keda
inside "$here/services.sh" wait registry kafka mosquitto
open_door
for part in "${extra[@]}"; do
	case $part in
	redis | postgresql) inside "$here/services.sh" start "$part" && inside "$here/services.sh" wait "$part" ;;
	*) inside "$here/add.sh" "$part" ;;
	esac
done
say "the cluster is up: tests/cluster/in.sh COMMAND; from outside: KUBECONFIG=$pki/outside.kubeconfig, registry 127.0.0.1:$registry_port"
