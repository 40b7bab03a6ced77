#!/usr/bin/env bash
# A real image registry for tests: Debian's docker-registry with a configuration of its own, on loopback, plain HTTP.
#
#   scripts/registry.sh start [--install]   start it; --install also installs the package (Debian, as root)
#   scripts/registry.sh wait                until it answers, at most 20 s
#   scripts/registry.sh address             host:port for clients
#   scripts/registry.sh status              exit 0 and its pid while it runs
#   scripts/registry.sh stop                stop it; images stay in FN_REGISTRY_DIR
#
# FN_REGISTRY_DIR   folder of its images, log and pid file; default .cache/registry in this repository
# FN_REGISTRY_PORT  default 15000
# FN_REGISTRY_HTPASSWD  a file of users and bcrypt hashes of passwords; without one everybody may read and write
set -euo pipefail

name="The registry" word=registry usual=15000 config=registry.yml patience=20
. "$(dirname "${BASH_SOURCE[0]}")/broker.sh"

configure() {
	cat >"$dir/$config" <<-CONF
		version: 0.1
		log: {level: warn, accesslog: {disabled: true}}
		storage: {filesystem: {rootdirectory: $dir/images}}
		http: {addr: "127.0.0.1:$port", secret: tests}
		${FN_REGISTRY_HTPASSWD:+auth: {htpasswd: {realm: tests, path: $FN_REGISTRY_HTPASSWD\}\}}
	CONF
}

start() {
	free || return 0
	command -v docker-registry >/dev/null || obtain "$1" docker-registry
	configure
	launch docker-registry serve "$dir/$config"
}

broker "$@"
