#!/usr/bin/env bash
# Makes the reference of the protocol as HTML, from the comments of the .proto files, into .build/reference (or where told).
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${1:-.build/reference}")
tools=.build/sabledocs-0.19.1050
if [ ! -f "$tools/.ready" ]; then
    echo "reference: installing the pinned generator into $tools" >&2
    rm -rf "$tools"
    "${PYTHON:-python3}" -m venv "$tools"
    "$tools/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input install "sabledocs==0.19.1050"
    touch "$tools/.ready"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${VENV:-.venv}/bin/buf" build --path protos/checkpointd -o "$scratch/descriptor.pb"
cat >"$scratch/sabledocs.toml" <<EOF
module-title = "checkpointd"
input-descriptor-file = "descriptor.pb"
output-dir = "$out"
EOF
generator=$PWD/$tools/bin/sabledocs
(cd "$scratch" && "$generator" >/dev/null)
echo "$out/index.html"
