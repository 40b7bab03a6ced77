#!/usr/bin/env bash
# The images that the cluster starts with. Those of functions come out of its registry.
#
#   images.sh build            make what is missing, as archives in the cache
#   images.sh import NAME...   give containerd those that it lacks; inside the cluster's network
set -euo pipefail
. "$(dirname "$0")/lib.sh"
images=$cache/images

make() { # NAME ARGUMENTS...: fleetfn.test/NAME
	local archive=$images/${1/:/-}.tar
	[ -s "$archive" ] && return
	python3 "$here/image.py" "fleetfn.test/$1" "$archive.new" "${@:2}"
	mv "$archive.new" "$archive"
	say "image fleetfn.test/$1: made"
}

build() {
	local dapr=$programs/dapr-$DAPR_VERSION each control=()
	mkdir -p "$images"
	make pause:1 "$programs/pause-1/pause:/pause" -- /pause
	make static:1 --folder /tmp # for static programs, which are mounted from the cache
	make "daprd:$DAPR_VERSION" --user 65532 "$dapr/daprd:/daprd" -- /daprd
	# One for the whole control plane: its chart names the program to run.
	for each in injector operator placement scheduler sentry; do control+=("$dapr/$each:/$each"); done
	make "dapr-control:$DAPR_VERSION" --user 65532 "${control[@]}"
	# Debian with Python, which functions' images are built on: tests run their own pods from it, too.
	cp --update "$("$repository/scripts/base_image.sh" "$@")" "$images/base.tar"
}

import() {
	local name archive stamp
	mkdir -p "$state/imported"
	for name in "$@"; do
		archive=$images/$name.tar
		stamp=$state/imported/$name
		[ "$stamp" -nt "$archive" ] && continue
		ctr images import "$archive" >/dev/null
		# Dapr's sidecar has the name, too, that manifests give it elsewhere.
		[[ $name != daprd-* ]] || ctr images tag --force "fleetfn.test/${name/-/:}" "docker.io/daprio/${name/-/:}" >/dev/null
		touch "$stamp"
		say "image $name: in containerd"
	done
}

"$@"
