# What the cluster's scripts have in common, to be sourced: where things are, its network, processes by pid file.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$(dirname "$here")")
set -a # the templates in config/ and manifests/ name some of these
. "$here/versions.env"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/fleetfn-cluster # built programs and images, by version; kept
programs=$cache/bin
kubernetes=$programs/kubernetes-$KUBERNETES_VERSION
state=${FN_CLUSTER_DIR:-/var/lib/fleetfn-cluster} # all that a running cluster writes; gone with it
pki=$state/pki
logs=$state/log
pids=$state/pid
containerd_socket=$state/containerd.sock

# A network namespace of its own, without a way out: whatever is misconfigured in it, nothing leaves this machine. The node
# has its address on the bridge that pods are put on.
netns=fleetfn
bridge=fleetfn0
node=fleetfn
node_ip=10.244.0.1
pod_cidr=10.244.0.0/16
service_cidr=10.96.0.0/16
# What is reached from outside the namespace too, on loopback: door.py passes connections in, and none out.
registry_port=5000
api_port=16443
set +a

PATH=$PATH:/usr/sbin:/sbin # where Debian puts some of them
began=${FN_CLUSTER_BEGAN:-$EPOCHREALTIME}
export FN_CLUSTER_BEGAN=$began

say() { printf '%6.1f s  %s\n' "$(bc <<<"$EPOCHREALTIME - $began")" "$*" >&2; }

fail() { # MESSAGE HINT
	printf 'Error: %s\nHint: %s\n' "$1" "$2" >&2
	exit 1
}

inside() { nsenter --net="/run/netns/$netns" "$@" 9>&-; }
kubectl() { "$kubernetes/kubectl" --kubeconfig "$pki/admin.kubeconfig" "$@"; }
ctr() { command ctr --address "$containerd_socket" --namespace k8s.io "$@"; }
is_up() { [ -e "/run/netns/$netns" ] && [ -s "$pki/admin.kubeconfig" ]; }

pod_groups() { find /sys/fs/cgroup -maxdepth 2 -type d -name kubepods; } # control groups; down.sh ends all that is in them

lock() { # one of up and down at a time; children must not inherit descriptor 9
	exec 9>/run/lock/fleetfn-cluster
	flock --nonblock 9 || fail "another up or down of the cluster is at work: $(fuser /run/lock/fleetfn-cluster 2>/dev/null)" "wait until it has ended"
}

# A pid file also holds when its process started: pids are used again. One that has ended counts as gone, reaped or not.
born() { sed -n 's/^.*) \([^ZX] .*\)/\1/p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

running() { # NAME: its pid
	local pid since
	read -r pid since 2>/dev/null <"$pids/$1" && [ "$(born "$pid")" = "$since" ] || return 1
	echo "$pid"
}

start() { # NAME COMMAND...: in the background, unless it runs
	local name=$1
	shift
	running "$name" >/dev/null && return
	setsid "$@" </dev/null >>"$logs/$name.log" 2>&1 9>&- &
	echo "$! $(born $!)" >"$pids/$name"
}

end() { # NAME [SIGNAL]: at once, unless another signal lets it do a little; what it had is not kept
	local pid tries=100
	pid=$(running "$1") || return 0
	kill "-${2:-KILL}" "$pid"
	while running "$1" >/dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || { kill -KILL "$pid"; break; }
		sleep 0.05
	done
}

await() { # WHAT SECONDS COMMAND...: until it succeeds
	local what=$1 limit=$(($(date +%s) + $2))
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt "$limit" ] || { "$@" >&2 || true; fail "$what is not ready in time." "see the logs in $logs"; }
		sleep 0.2
	done
	say "$what: ready"
}

render() { # TEMPLATE: with the values of the variables it names
	envsubst "$(env | sed -n 's/^\([a-z_]*\)=.*/$\1/p')" <"$here/$1"
}

keep() { # FILE: standard input, but an equal file stays as it is: some programs end, or read anew, when theirs is written
	cat >"$1.new"
	if cmp --silent "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

apply() { kubectl apply --server-side --force-conflicts -f - >/dev/null; }
