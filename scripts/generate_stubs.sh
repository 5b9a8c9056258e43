#!/usr/bin/env bash
# Makes the Python stubs from the .proto files in protos/, beside them or in another folder: generate_stubs.sh [FOLDER].
# The generator is pinned to an old release on purpose: stubs made by a newer one refuse older grpcio and protobuf, and
# would force our users to upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-protos}
tools=.build/grpcio-tools-1.74.0
if [ ! -f "$tools/.ready" ]; then
    echo "protos: installing the pinned generator into $tools" >&2
    rm -rf "$tools"
    "${PYTHON:-python3}" -m venv "$tools"
    # Wheels only (Python 3.9 to 3.13): building the generator from source takes half an hour.
    "$tools/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input install --only-binary=:all: \
        "grpcio-tools==1.74.0" "protobuf==6.31.1" "grpcio==1.74.0" "setuptools<81"
    touch "$tools/.ready"
fi

mkdir -p "$out/checkpointd/v1"
rm -f "$out"/checkpointd/v1/*_pb2.py "$out"/checkpointd/v1/*_pb2.pyi "$out"/checkpointd/v1/*_pb2_grpc.py
"$tools/bin/python" -m grpc_tools.protoc --proto_path=protos \
    --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" protos/checkpointd/v1/*.proto
# Only services have something to say in a _grpc module.
for stub in "$out"/checkpointd/v1/*_pb2_grpc.py; do
    grep -q 'class .*Stub' "$stub" || rm "$stub"
done
