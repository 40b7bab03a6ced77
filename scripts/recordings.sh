#!/usr/bin/env bash
# Make the environment that turns recorded drives into telemetry. It is apart from FleetFn's own: its package fastsim
# brings many others along.
#
#   scripts/recordings.sh VENV FOLDER        VENV: FleetFn's, for its uv
set -euo pipefail
venv=$1 folder=$2
cd "$(dirname "$0")/.."
echo "Installing the recordings (fastsim) into $folder ..." >&2
[ -x "$folder/bin/python" ] || "$venv/bin/uv" venv --quiet --python "$venv/bin/python" "$folder"
"$venv/bin/uv" pip install --quiet --python "$folder/bin/python" -r samples/recordings/requirements.txt
touch "$folder/ready"
