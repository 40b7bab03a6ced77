#!/usr/bin/env bash
# Can this machine run the cluster? Says what it lacks, before a quarter of an hour is spent on building; changes nothing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

other="name another cluster by FN_E2E_KUBECONFIG"

[ "$(id -u)" = 0 ] || fail "the cluster starts as root alone." "sudo, or $other"

can() { (($((16#$(sed -n 's/^CapEff:\t//p' /proc/self/status))) >> $1 & 1)); }
for each in 0=CHOWN 12=NET_ADMIN 18=SYS_CHROOT 19=SYS_PTRACE 21=SYS_ADMIN 27=MKNOD; do
	can "${each%=*}" || fail "root lacks the capability ${each#*=} here." "in a container: run it privileged; or $other"
done
for each in cpu memory pids; do
	[ -d "/sys/fs/cgroup/$each" ] || grep -qsw "$each" /sys/fs/cgroup/cgroup.controllers ||
		fail "there are no control groups for $each at /sys/fs/cgroup." "mount them; in a container: run it privileged; or $other"
done
[ -d "$state" ] || [ -z "$(pod_groups)" ] ||
	fail "another Kubernetes runs on this machine, or did: $(pod_groups | head -n 1)" "test on that one: FN_E2E_KUBECONFIG; or remove what is left of it"

# What the kernel has to have is tried in namespaces that end at once; what is not installed yet is not tried.
apart() { unshare --net --mount bash -c "$1" >/dev/null 2>&1; }
apart true || fail "no network or mount namespace can be made here." "in a container: run it privileged; or $other"
apart 'mount -t tmpfs none /mnt && cd /mnt && mkdir lower upper work all && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none all' ||
	fail "this kernel mounts no overlay file system, which pods' images are." "$other"
if command -v ip nft >/dev/null; then
	apart 'ip link add bridge0 type bridge && ip link add veth-a type veth peer name veth-b' || fail "this kernel has no bridges, or no veth devices." "load bridge and veth; or $other"
	apart 'nft add table inet t && nft add chain inet t c "{ type filter hook forward priority 0; }"' ||
		fail "this kernel has no nftables, by which policies are enforced." "load nf_tables; or $other"
fi
