#!/usr/bin/env bash
# A real MQTT broker for tests: Debian's mosquitto with a configuration of its own, on loopback. It keeps sessions and
# messages over restarts, each change at once, and queues more than its defaults would.
#
#   scripts/mosquitto.sh start [--install]   start it; --install also installs the package (Debian, as root)
#   scripts/mosquitto.sh wait                until it answers, at most 60 s
#   scripts/mosquitto.sh address             host:port for clients
#   scripts/mosquitto.sh status              exit 0 and its pid while it runs
#   scripts/mosquitto.sh stop                stop it; sessions and messages stay in FN_MOSQUITTO_DIR
#
# FN_MOSQUITTO_DIR   folder of its data, log and pid file; default .cache/mosquitto in this repository
# FN_MOSQUITTO_PORT  default 18883. The next two are used too: TLS that wants a client's certificate (files in
#                    FN_MOSQUITTO_DIR/tls: ca.pem, client.pem, client.key), and one that wants a password (user `fn`,
#                    password `fn-secret`)
# FN_MOSQUITTO_SETTINGS  more lines of mosquitto.conf
set -euo pipefail

name=Mosquitto word=mosquitto usual=18883 config=mosquitto.conf patience=60
. "$(dirname "${BASH_SOURCE[0]}")/broker.sh"
PATH=$PATH:/usr/sbin # where Debian puts it

need_tools() {
	local missing=()
	command -v mosquitto >/dev/null || missing+=(mosquitto)
	command -v openssl >/dev/null || missing+=(openssl)
	obtain "$1" "${missing[@]}"
}

signed() { # name, subject, extension: a key and a certificate that our authority has signed
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
	openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -out "$1.pem" \
		-extfile <(echo "$3") 2>/dev/null
	rm "$1.csr"
}

make_certificates() {
	[ -s "$dir/tls/client.pem" ] && return
	mkdir -p "$dir/tls"
	(
		cd "$dir/tls"
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=fleetfn tests" -keyout ca.key -out ca.pem \
			-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
		signed server /CN=127.0.0.1 subjectAltName=IP:127.0.0.1
		signed client /CN=fn extendedKeyUsage=clientAuth
	)
}

configure() {
	: >"$dir/passwords"
	mosquitto_passwd -b "$dir/passwords" fn fn-secret 2>/dev/null
	mkdir -p "$dir/data"
	cat >"$dir/$config" <<-CONF
		per_listener_settings true
		user $(id -un)
		persistence true
		persistence_location $dir/data/
		autosave_on_changes true
		autosave_interval 1
		max_queued_messages 1000000
		max_inflight_messages 1000
		log_type error
		log_type warning
		log_type notice
		${FN_MOSQUITTO_SETTINGS:-}
		listener $port 127.0.0.1
		allow_anonymous true
		listener $((port + 1)) 127.0.0.1
		allow_anonymous true
		cafile $dir/tls/ca.pem
		certfile $dir/tls/server.pem
		keyfile $dir/tls/server.key
		require_certificate true
		listener $((port + 2)) 127.0.0.1
		password_file $dir/passwords
	CONF
	chmod 600 "$dir/passwords"
}

start() {
	free || return 0
	need_tools "$1"
	make_certificates
	configure
	launch mosquitto -c "$dir/$config"
}

broker "$@"
