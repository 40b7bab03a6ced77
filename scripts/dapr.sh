#!/usr/bin/env bash
# Two real Dapr sidecars for tests, both of the app-id `tests--fleet` and with the same components, each over a store of its
# own: `redis` (written through to disk), `postgresql`, `sqlite`; `pubsub` (redis streams) and the binding `files`.
#
#   scripts/dapr.sh start [--install]   start what does not run of stores and sidecars; --install also installs redis and
#                                       postgresql (Debian, as root)
#   scripts/dapr.sh wait                until they answer, at most 60 s
#   scripts/dapr.sh address             host:port of the first sidecar; the second one has port + 3
#   scripts/dapr.sh status              exit 0 and the first sidecar's pid while it runs
#   scripts/dapr.sh stop                stop all; what they keep stays in FN_DAPR_DIR
#
# FN_DAPR_DIR   folder of data, logs and pid files; default .cache/dapr in this repository
# FN_DAPR_PORT  default 21100. The next seven are used too: three of each sidecar (HTTP, gRPC, internal), redis, postgresql
# FN_DAPRD      the sidecar's program; default: the one that tests/cluster/build.sh makes of its Go module
set -euo pipefail

name=Dapr word=dapr usual=21100 config=sidecar.yaml patience=60
. "$(dirname "${BASH_SOURCE[0]}")/broker.sh"
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
. "$here/../tests/cluster/versions.env"
daprd=${FN_DAPRD:-${XDG_CACHE_HOME:-$HOME/.cache}/fleetfn-cluster/bin/dapr-$DAPR_VERSION/daprd}
redis=$((port + 6)) postgresql=$((port + 7))

need_tools() {
	local missing=()
	command -v redis-server >/dev/null || missing+=(redis-server)
	command -v initdb >/dev/null || missing+=(postgresql)
	obtain "$1" "${missing[@]}"
	hash -r
	PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
	[ -x "$daprd" ] || "$here/../tests/cluster/build.sh" dapr >&2
}

component() { # NAME TYPE VALUE...: `key value`, a line of metadata each
	local name=$1 type=$2 each
	shift 2
	printf 'apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: %s}\nspec:\n  type: %s\n  version: %s\n  metadata:\n' \
		"$name" "${type%/*}" "${type#*/}"
	for each in "$@"; do printf '  - {name: %s, value: "%s"}\n' "${each%% *}" "${each#* }"; done
	echo ---
}

configure() {
	mkdir -p "$dir/components" "$dir/files" "$dir/redis"
	{
		component redis state.redis/v1 "redisHost 127.0.0.1:$redis"
		component postgresql state.postgresql/v2 "connectionString host=127.0.0.1 port=$postgresql user=postgres database=postgres sslmode=disable"
		component sqlite state.sqlite/v1 "connectionString $dir/state.db" "busyTimeout 10s"
		component pubsub pubsub.redis/v1 "redisHost 127.0.0.1:$redis"
		component files bindings.localstorage/v1 "rootPath $dir/files"
	} >"$dir/components/all.yaml"
	cat >"$dir/$config" <<-YAML
		apiVersion: dapr.io/v1alpha1
		kind: Configuration
		metadata: {name: sidecar}
		spec:
		  metric: {enabled: false}
		  tracing: {samplingRate: "0"}
	YAML
}

alive() { # NAME: its pid
	local pid
	pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 1
	tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qE "^([^ ]*/)?(daprd|redis-server|postgres) " || return 1
	echo "$pid"
}

service() { # NAME COMMAND...: beside the sidecar, by a pid file of its own, unless it runs
	local name=$1
	shift
	! alive "$name" >/dev/null || return 0
	setsid bash -c 'echo $$ >"$0" && exec "$@"' "$dir/$name.pid" "$@" >"$dir/$name.log" 2>&1 </dev/null &
}

start_stores() {
	service redis redis-server --port "$redis" --bind 127.0.0.1 --dir "$dir/redis" --appendonly yes --appendfsync always --save ""
	local as=() # it refuses to run as root
	if [ "$(id -u)" = 0 ]; then
		as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
		chmod o+x "$dir" && install -d -m 700 -o postgres -g postgres "$dir/postgresql"
	fi
	[ -s "$dir/postgresql/PG_VERSION" ] ||
		"${as[@]}" initdb -D "$dir/postgresql" -U postgres -A trust --no-sync >"$dir/initdb.log" 2>&1 ||
		fail "postgresql could not make '$dir/postgresql': $(tail -n 1 "$dir/initdb.log")" "see $dir/initdb.log; may user postgres enter the folder?"
	service postgresql "${as[@]}" postgres -D "$dir/postgresql" -p "$postgresql" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c shared_buffers=32MB
}

takes() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

sidecar() { # PORT
	echo "$daprd" --app-id tests--fleet --resources-path "$dir/components" --config "$dir/$config" \
		--dapr-http-port "$1" --dapr-grpc-port $(($1 + 1)) --dapr-internal-grpc-port $(($1 + 2)) \
		--dapr-listen-addresses 127.0.0.1 --enable-metrics=false --log-level warn
}

start() {
	local tries=300
	running >/dev/null || free || return 0
	need_tools "$1"
	configure
	start_stores
	until takes "$redis" && pg_isready -q -h 127.0.0.1 -p "$postgresql"; do # a sidecar ends that cannot reach its store
		tries=$((tries - 1))
		[ $tries -gt 0 ] || fail "redis or postgresql does not answer on port $redis, $postgresql." "see redis.log and postgresql.log in $dir"
		sleep 0.1
	done
	service second $(sidecar $((port + 3)))
	running >/dev/null || launch $(sidecar "$port")
}

answers() { ready "$port" && ready $((port + 3)); }

ready() { # PORT: a sidecar whose components are loaded
	local status
	exec 8<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf 'GET /v1.0/healthz/outbound HTTP/1.0\r\n\r\n' >&8
	read -r -t 5 _ status _ <&8 || status=
	exec 8>&-
	[ "$status" = 204 ]
} 2>/dev/null

eval "stop_first() $(declare -f stop | tail -n +2)"
stop() {
	local each pid tries=200
	stop_first
	for each in second redis postgresql; do
		if pid=$(alive "$each"); then
			kill -INT "$pid" # of postgresql: do not wait for clients
			while [ -e "/proc/$pid" ] && [ $tries -gt 0 ]; do
				tries=$((tries - 1))
				sleep 0.1
			done
		fi
		rm -f "$dir/$each.pid"
	done
}

broker "$@"
