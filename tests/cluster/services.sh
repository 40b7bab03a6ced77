#!/usr/bin/env bash
# What functions speak to, as processes beside the cluster, on the node's address: Kafka, Mosquitto and the image registry
# by the repository's own scripts, which say what else they listen on; Redis and PostgreSQL, for Dapr's components.
#
#   in.sh tests/cluster/services.sh start|wait|end [kafka|mosquitto|registry|redis|postgresql]...
set -euo pipefail
. "$(dirname "$0")/lib.sh"
command=$1
shift

by_script() { # NAME COMMAND
	local pid
	if [ "$2" != end ]; then
		"$repository/scripts/$1.sh" "$2"
	elif pid=$("$repository/scripts/$1.sh" status 2>/dev/null); then
		kill -KILL "$pid"
	fi
}

# Open to pods, beside the listeners on loopback. A group's first member waits for no others: tests measure from zero.
kafka() {
	local -x FN_KAFKA_DIR=$state/kafka FN_KAFKA_PORT=9092 FN_KAFKA_PROPERTIES="
listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093,SASL://0.0.0.0:9094,TLS://0.0.0.0:9095
advertised.listeners=PLAINTEXT://$node_ip:9092,SASL://$node_ip:9094,TLS://$node_ip:9095
group.initial.rebalance.delay.ms=0"
	by_script kafka "$1"
}

mosquitto() {
	local -x FN_MOSQUITTO_DIR=$state/mosquitto FN_MOSQUITTO_PORT=1883 FN_MOSQUITTO_SETTINGS="
listener 1883 $node_ip
allow_anonymous true
listener 1885 $node_ip
password_file $state/mosquitto/passwords"
	by_script mosquitto "$1"
}

registry() {
	local -x FN_REGISTRY_DIR=$state/registry FN_REGISTRY_PORT=$registry_port REGISTRY_HTTP_ADDR=:$registry_port
	by_script registry "$1"
}

redis() {
	case $1 in
	start) start redis redis-server --bind "$node_ip" --port 6379 --protected-mode no --save "" --dir "$state" ;;
	wait) await Redis 60 bash -c ": </dev/tcp/$node_ip/6379" ;;
	end) end redis ;;
	esac
}

# Nothing is to survive: without fsync. It refuses to run as root.
postgresql() {
	local data=$state/postgresql as=(setpriv --reuid=postgres --regid=postgres --init-groups) bin
	bin=$(echo /usr/lib/postgresql/*/bin)
	case $1 in
	start)
		if [ ! -s "$data/PG_VERSION" ]; then
			install -d -o postgres -g postgres -m 700 "$data"
			(cd / && "${as[@]}" "$bin/initdb" --pgdata "$data" --auth=trust --username=postgres --no-sync >"$logs/initdb.log" 2>&1) ||
				fail "PostgreSQL could not make its files." "see $logs/initdb.log"
			echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
		fi
		start postgresql "${as[@]}" "$bin/postgres" -D "$data" -h "$node_ip" -p 5432 -k "$data" -c fsync=off
		;;
	wait)
		local ask=("${as[@]}" "$bin/psql" --host "$data" --username postgres --quiet --no-align --tuples-only --command)
		await PostgreSQL 20 "${ask[@]}" "select 1"
		[ -n "$("${ask[@]}" "select 1 from pg_roles where rolname = 'fn'")" ] || {
			"${ask[@]}" "create role fn login password 'fn-secret'"
			"${ask[@]}" "create database fn owner fn"
		}
		;;
	end) end postgresql QUIT ;; # it has memory that is shared
	esac
}

for service in "$@"; do
	"$service" "$command" 2>>"$logs/services.log" || { tail -n 3 "$logs/services.log" >&2; exit 1; }
	[ "$command" != wait ] || say "$service: answers"
done
