"""A stand-in for a protoc plugin: for each file, writes down the Go package that it is given."""

import sys

from google.protobuf.compiler import plugin_pb2

request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
answer = plugin_pb2.CodeGeneratorResponse()
for file in request.proto_file:
    if file.name in request.file_to_generate:
        answer.file.add(name=f"{file.name}.{sys.argv[1]}", content=file.options.go_package)
sys.stdout.buffer.write(answer.SerializeToString())
