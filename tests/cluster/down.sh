#!/usr/bin/env bash
# Stop the cluster and forget its state; what build.sh made is kept.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || fail "the cluster stops as root alone." "sudo tests/cluster/down.sh"
lock
[ -e "/run/netns/$netns" ] || [ -d "$state" ] || exit 0

left() { # processes of pods, by their control groups; and what containerd has started for each pod
	local each
	for each in $(pod_groups); do find "$each" -name cgroup.procs -exec cat {} + 2>/dev/null || true; done
	[ -e "/run/netns/$netns" ] || return 0
	for each in $(ip netns pids "$netns"); do
		[ "$(cat "/proc/$each/comm" 2>/dev/null)" != containerd-shim ] || echo "$each"
	done
}

# The kubelet first: it would start again what ends.
for name in kubelet containerd; do end "$name"; done
[ ! -d "$logs" ] || "$here/services.sh" end kafka mosquitto registry redis postgresql
for file in "$pids"/*; do end "$(basename "$file")"; done
for ((tries = 0; tries < 50; tries++)); do
	found=$(left | sort -u)
	[ -n "$found" ] || break
	kill -KILL $found 2>/dev/null || true
	sleep 0.1
done
for group in $(pod_groups); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
# Shims that were killed leave their sockets, which lie elsewhere.
cat "$state"/run/containerd/io.containerd.runtime.v2.task/k8s.io/*/address 2>/dev/null | sed 's|unix://||g; s|/run/|\n/run/|g' | xargs -r rm -f || true
awk -v prefix="$state/" 'index($2, prefix) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount --lazy
[ ! -e "/run/netns/$netns" ] || ip netns delete "$netns" # with its bridge, cables and rules
rm -rf "$state"
say "the cluster is down"
