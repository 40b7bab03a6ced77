#!/usr/bin/env bash
# Make the environment of what one would use instead of FleetFn, apart from its own: bench/peers.sh FOLDER
set -euo pipefail
folder=$1
cd "$(dirname "$0")/.."
[ "$folder/ready" -nt bench/requirements-peers.txt ] && exit
command -v uv >/dev/null || { echo "Error: uv is missing. Hint: run 'make bench'." >&2; exit 1; }
echo "Installing the other libraries (uvicorn, FastAPI, functions-framework, func-python, Quix Streams, Faust) ..." >&2
uv venv --quiet --clear --python "$(command -v python)" "$folder"
uv pip install --quiet --python "$folder/bin/python" -r bench/requirements-peers.txt
touch "$folder/ready"
