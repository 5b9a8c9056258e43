#!/usr/bin/env bash
# Makes the Python stubs in protos/ from the .proto files beside them. The generator is pinned to an old release on
# purpose: stubs made by a newer one refuse older grpcio and protobuf, and would force our users to upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=.build/grpcio-tools-1.74.0
if [ ! -x "$tools/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet "grpcio-tools==1.74.0" "protobuf==6.31.1" "grpcio==1.74.0" "setuptools<81"
fi

rm -f protos/checkpointd/v1/*_pb2.py protos/checkpointd/v1/*_pb2.pyi protos/checkpointd/v1/*_pb2_grpc.py
"$tools/bin/python" -m grpc_tools.protoc --proto_path=protos \
    --python_out=protos --pyi_out=protos --grpc_python_out=protos protos/checkpointd/v1/*.proto
# Only services have something to say in a _grpc module.
for stub in protos/checkpointd/v1/*_pb2_grpc.py; do
    grep -q 'class .*Stub' "$stub" || rm "$stub"
done
