"""The standard health service, for each of our services, for the whole server (""), and for its readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc.aio
from grpc_health.v1 import health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
READINESS = "checkpointd.readiness"
"""The health service's name for readiness: also NOT_SERVING while calls are rejected for overload. All other names only
tell whether the server works, so an overloaded server isn't restarted."""


class HealthServicer:
    """Reports health. It begins with NOT_SERVING, and ends watches when it ends.

    The servicer of grpcio-health-checking begins with SERVING, and its watches never end: each would delay a graceful
    stop until its timeout.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services) | {"", READINESS}
        self._status = NOT_SERVING
        self._overloaded = False
        self._ended = False
        self._changed = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """True if the status is SERVING."""
        return bool(self._status == SERVING)

    def set_serving(self, serving: bool) -> None:
        """Sets the status of all services. Has no effect after `end`."""
        if not self._ended:
            self._set(SERVING if serving else NOT_SERVING)

    def set_overloaded(self, overloaded: bool) -> None:
        """Sets whether calls are rejected for overload."""
        self._overloaded = overloaded
        self._set(self._status)

    def end(self) -> None:
        """Sets NOT_SERVING for good, sends it to all watches, and ends them."""
        self._ended = True
        self._set(NOT_SERVING)

    def _set(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        self._status = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _response(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._services:
            return health_pb2.HealthCheckResponse(status=SERVICE_UNKNOWN)
        ready = not (service == READINESS and self._overloaded)
        return health_pb2.HealthCheckResponse(status=self._status if ready else NOT_SERVING)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Returns the status of a service."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return self._response(request.service)

    async def List(
        self, request: health_pb2.HealthListRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthListResponse:
        """Returns the status of every service."""
        return health_pb2.HealthListResponse(statuses={service: self._response(service) for service in self._services})

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext) -> None:
        """Sends the status of a service, and each change."""
        sent = None
        while True:
            changed = self._changed
            response = self._response(request.service)
            if response != sent:
                await context.write(response)
                sent = response
            if self._ended and changed is self._changed:
                return
            await changed.wait()
