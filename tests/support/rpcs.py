"""Every RPC of the protocol."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from google.protobuf.descriptor import MethodDescriptor

import checkpointd.v1


def every_method() -> Iterator[MethodDescriptor]:
    """All RPCs of all services in the package, as the stubs have them."""
    for module in pkgutil.iter_modules(checkpointd.v1.__path__, "checkpointd.v1."):
        if module.name.endswith("_service_pb2"):
            for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                yield from service.methods


METHODS = {method.full_name: method for method in every_method()}
