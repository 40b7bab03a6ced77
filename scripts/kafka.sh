#!/usr/bin/env bash
# A real Kafka for tests: one process, its own KRaft controller, broker defaults wherever they matter to us
# (a group's first member waits the 3 s of group.initial.rebalance.delay.ms; topics are not made by touching them).
#
#   scripts/kafka.sh start [--install]   start it; --install also installs Java and Maven (Debian, as root)
#   scripts/kafka.sh fetch [--install]   only fetch what it is made of
#   scripts/kafka.sh wait                until it answers, at most 90 s
#   scripts/kafka.sh address             host:port for clients
#   scripts/kafka.sh status              exit 0 and its pid while it runs
#   scripts/kafka.sh stop                stop it; its topics stay in FN_KAFKA_DIR
#
# FN_KAFKA_DIR   folder of its data, log and pid file; default .cache/kafka in this repository
# FN_KAFKA_PORT  default 19092. The next three are used too: controller, SASL_PLAINTEXT (PLAIN, SCRAM-SHA-512), SSL.
#                SASL user `fn`, password `fn-secret`; the SSL listener's certificate: FN_KAFKA_DIR/tls/ca.pem
# FN_KAFKA_PROPERTIES  more lines of server.properties
set -euo pipefail

name=Kafka word=kafka usual=19092 config=server.properties patience=90
. "$(dirname "${BASH_SOURCE[0]}")/broker.sh"
version=4.1.0
jars=$cache/kafka-$version

need_tools() {
	local missing=()
	command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
	[ -d "$jars" ] || command -v mvn >/dev/null || missing+=(maven)
	command -v openssl >/dev/null || missing+=(openssl)
	obtain "$1" "${missing[@]}"
}

fetch_jars() {
	[ -d "$jars" ] && return
	echo "Fetching Kafka $version from Maven Central ..." >&2
	mkdir -p "$cache"
	local fresh
	fresh=$(mktemp -d "$cache/kafka-fetch-XXXXXX")
	mvn -q -B -f "$here/kafka/pom.xml" -Dkafka.version="$version" \
		dependency:copy-dependencies -DoutputDirectory="$fresh" >&2 || {
		rm -rf "$fresh"
		fail "Maven could not fetch Kafka $version." "its output is above; a mirror can be named in ~/.m2/settings.xml"
	}
	mv -T "$fresh" "$jars" 2>/dev/null || rm -rf "$fresh" # somebody else was quicker
}

make_certificate() { # PEM: what the SSL listener shows, signed by itself
	[ -s "$dir/tls/server.pem" ] && return
	mkdir -p "$dir/tls"
	openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
		-keyout "$dir/tls/key.pem" -out "$dir/tls/ca.pem" 2>/dev/null
	cat "$dir/tls/key.pem" "$dir/tls/ca.pem" >"$dir/tls/server.pem"
}

configure() {
	local jaas=org.apache.kafka.common.security
	cat >"$dir/$config" <<-PROPERTIES
		node.id=1
		process.roles=broker,controller
		controller.quorum.voters=1@127.0.0.1:$((port + 1))
		controller.listener.names=CONTROLLER
		listeners=PLAINTEXT://$address,CONTROLLER://127.0.0.1:$((port + 1)),SASL://127.0.0.1:$((port + 2)),TLS://127.0.0.1:$((port + 3))
		advertised.listeners=PLAINTEXT://$address,SASL://127.0.0.1:$((port + 2)),TLS://127.0.0.1:$((port + 3))
		listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL
		inter.broker.listener.name=PLAINTEXT
		sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
		listener.name.sasl.plain.sasl.jaas.config=$jaas.plain.PlainLoginModule required user_fn="fn-secret";
		listener.name.sasl.scram-sha-512.sasl.jaas.config=$jaas.scram.ScramLoginModule required;
		listener.name.tls.ssl.keystore.type=PEM
		listener.name.tls.ssl.keystore.location=$dir/tls/server.pem
		log.dirs=$dir/data
		auto.create.topics.enable=false
		offsets.topic.num.partitions=1
		offsets.topic.replication.factor=1
		transaction.state.log.num.partitions=1
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		share.coordinator.state.topic.replication.factor=1
		share.coordinator.state.topic.min.isr=1
		${FN_KAFKA_PROPERTIES:-}
	PROPERTIES
}

jvm=(java -Xms64m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
	"-Dlog4j2.configurationFile=$here/kafka/log4j2.yaml" -cp "$jars/*")

start() {
	free || return 0
	need_tools "$1"
	fetch_jars
	make_certificate
	configure
	if [ ! -s "$dir/data/meta.properties" ]; then
		"${jvm[@]}" kafka.tools.StorageTool format --config "$dir/$config" --cluster-id ZmxlZXRmbi10ZXN0cy0wMQ \
			--add-scram 'SCRAM-SHA-512=[name=fn,password=fn-secret]' >"$log" 2>&1 ||
			fail "Kafka could not format '$dir/data': $(tail -n 1 "$log")" "see $log"
	fi
	launch "${jvm[@]}" kafka.Kafka "$dir/$config"
}

if [ "${1:-}" = fetch ]; then
	need_tools "${2:-}"
	fetch_jars
	exit
fi
broker "$@"
