#!/usr/bin/env bash
# Make sure that wrk is there, the program that makes HTTP load: as root on Debian it is installed.
set -euo pipefail
command -v wrk >/dev/null && exit
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq wrk >&2
	exit
fi
echo "Error: wrk is missing, the program that makes HTTP load." >&2
echo "Hint: install it (on Debian, as root: apt-get install wrk), then again." >&2
exit 1
