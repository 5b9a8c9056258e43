#!/usr/bin/env bash
# Keeps the protocol of a release as an image, with which `make lint` compares later ones. Run it when a release is made.
set -euo pipefail
cd "$(dirname "$0")/.."

image=${1:-protos/released.binpb}
"${VENV:-.venv}/bin/buf" build --path protos/checkpointd --exclude-source-info --output "$image"
echo "$image"
