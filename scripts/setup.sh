#!/usr/bin/env bash
# Make a virtual environment that holds FleetFn with one of its extras, at the pinned versions.
#
#   scripts/setup.sh VENV PYTHON EXTRA        e.g. scripts/setup.sh .venv python3 dev
set -euo pipefail
venv=$1 python=$2 extra=$3
cd "$(dirname "$0")/.."

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	echo "Error: FleetFn needs Python 3.11 or later; '$python' is $("$python" -V 2>&1 || echo missing)." >&2
	echo "Hint: name another one, e.g. 'make $extra PY=python3.11'." >&2
	exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
	if [ "$(id -u)" = 0 ] && [ "${CI:-}" = true ]; then
		apt-get update -qq && apt-get install -y -qq python3-venv
	else
		echo "Error: '$python' cannot make virtual environments here." >&2
		echo "Hint: on Debian 'apt-get install python3-venv', then again." >&2
		exit 1
	fi
fi

[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
echo "Installing FleetFn with its '$extra' parts into $venv ..." >&2
"$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt uv
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" -c constraints.txt -e ".[$extra]"
touch "$venv/$extra"
