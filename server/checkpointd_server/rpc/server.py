"""The gRPC server: its options and services, from start to drain."""

from __future__ import annotations

import asyncio
import math
import re
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from checkpointd.v1 import (
    checkpoint_service_pb2,
    info_service_pb2,
    lease_service_pb2,
    retention_service_pb2,
    stats_service_pb2,
    store_service_pb2,
    tenant_service_pb2,
    thread_service_pb2,
    value_service_pb2,
)
from checkpointd_server.config import ServeConfig
from checkpointd_server.domain.access import AccessOptions
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.metrics import RpcMetrics
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.domain.tenants import Quotas
from checkpointd_server.domain.tracing import Tracing
from checkpointd_server.rpc.auth import Authenticator
from checkpointd_server.rpc.auth.scopes import needed
from checkpointd_server.rpc.calls.admission import AdmissionController
from checkpointd_server.rpc.calls.call import CallLimits
from checkpointd_server.rpc.calls.executor import BoundedExecutor
from checkpointd_server.rpc.calls.handler import Calls
from checkpointd_server.rpc.health import HealthServicer
from checkpointd_server.rpc.listener.accept_loop import DeafServer, accept_loops, accept_undecodable_paths
from checkpointd_server.rpc.listener.addresses import bind
from checkpointd_server.rpc.listener.connections import Connections
from checkpointd_server.rpc.listener.guarded_server import GuardedServer, GuardLimits, SmallCalls, admit_all
from checkpointd_server.rpc.listener.rejected_calls import LargeHeadersRejector, UnknownMethodsRejector
from checkpointd_server.rpc.operations import Operations
from checkpointd_server.rpc.pipeline.pipelines import PipelineOptions, Pipelines
from checkpointd_server.rpc.quota_refresh import QuotaRefresh
from checkpointd_server.rpc.services.checkpoints import CheckpointServicer
from checkpointd_server.rpc.services.info import InfoServicer
from checkpointd_server.rpc.services.leases import LeaseServicer
from checkpointd_server.rpc.services.retention import RetentionServicer
from checkpointd_server.rpc.services.stats import StatsServicer
from checkpointd_server.rpc.services.store import StoreServicer
from checkpointd_server.rpc.services.tenants import TenantServicer
from checkpointd_server.rpc.services.threads import ThreadServicer
from checkpointd_server.rpc.services.values import ValueServicer
from checkpointd_server.rpc.tenants import Tenants
from checkpointd_server.rpc.values.ranges import RangeOptions, RangeReader

if TYPE_CHECKING:
    from checkpointd_server.rpc.tls import Certificates

_RECEIVE_SLACK_BYTES = 1024 * 1024
"""How far a request may exceed the limit and still get our own error message, which says more than gRPC's."""

_WINDOW_BYTES = 256 * 1024
"""How much of a request gRPC accepts before it is read, in bytes."""
_PENDING_CALLS = 16384
"""Number of new calls that gRPC queues for us."""
MAX_STREAMS = 512
"""Maximum number of calls of one connection. Cancelled ones count until we have handled them."""


_DEFAULTS = ServeConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Options of the listener, and limits of callers. Times are in seconds."""

    listen: tuple[str, ...] = _DEFAULTS.listen
    """The addresses to listen on: HOST:PORT (port 0: a free one), [IPv6]:PORT, unix:PATH or unix-abstract:NAME."""
    limits: Limits = _DEFAULTS.limits
    """The limits of requests. Also bounds the size of messages in both directions."""
    max_concurrent_calls: int = _DEFAULTS.max_concurrent_calls
    """Maximum number of calls in flight, except health and reflection; further ones are rejected with OVERLOADED."""
    max_bytes_in_flight: int = _DEFAULTS.max_bytes_in_flight
    """Maximum size of all requests and answers; beyond it, calls are rejected with OVERLOADED. A larger message is
    accepted if there is no other."""
    quotas: Quotas = _DEFAULTS.quotas
    """The default quotas of tenants."""
    quota_refresh: float = _DEFAULTS.quota_refresh_seconds
    """How often quotas and usage are read from the database."""
    default_timeout: float | None = _DEFAULTS.default_timeout
    """Timeout of calls without a deadline. None: no limit."""
    max_timeout: float | None = _DEFAULTS.max_timeout
    """Maximum timeout of a call, whatever its deadline. None: no limit."""
    max_connections: int = _DEFAULTS.max_connections
    """Maximum number of client connections. Further ones are closed at once."""
    max_wasted_calls: float = _DEFAULTS.max_wasted_calls
    """How many calls per second a connection may cancel, or have rejected for their token or scope, before it is
    closed; five times as many in a burst. 0: no limit, for proxies that share one connection among clients."""
    access: AccessOptions = _DEFAULTS.access
    """The callers that are accepted, and their identities."""
    health_listen: tuple[str, ...] = _DEFAULTS.health_listen
    """The address that serves only health checks, in plain text and without tokens, for probes without TLS."""
    handshake_timeout: float = 10.0
    """How long a new connection may take until it begins HTTP/2."""
    max_connection_idle: float = 300.0
    """How long a connection may be idle."""
    max_connection_age: float = 3600.0
    """How long a connection is used for new calls. Then clients open another, and calls in flight may finish."""
    send_timeout: float = 10.0
    """How long a client may take to read an answer, besides a second per MiB. Then its connection is closed."""
    slow_call_seconds: float | None = _DEFAULTS.slow_call_seconds
    """Duration from which a call is logged, unless it waits for a lease. None: never."""
    warn_checkpoint_bytes: int = _DEFAULTS.warn_checkpoint_bytes
    """Size of changed values from which a checkpoint is logged, in bytes. 0: never."""
    reflection: bool = _DEFAULTS.reflection
    """True to serve reflection, for tools such as grpcurl."""
    guard_limits: GuardLimits = field(default_factory=GuardLimits)
    """The limits of calls of health and reflection."""
    so_reuseport: bool = False
    """True if several processes may share a port. Otherwise a port in use is an error."""
    keepalive_interval: float = 30.0
    """How long a connection may be silent before the server pings the client."""
    keepalive_timeout: float = 10.0
    """How long the server waits for the ping's answer before it closes the connection."""
    min_ping_interval: float = 9.0
    """How often clients may ping, with or without calls under way: meant for clients that do it every 10 seconds."""
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    """The limits of streams of operations."""
    ranges: RangeOptions = field(default_factory=RangeOptions)
    """The limits of ranges of large values."""


class RpcServer:
    """Serves a store over gRPC.

    Create it in its event loop, then call `start`, `set_serving(True)`, and finally `drain`.
    """

    def __init__(self, store: CheckpointStore, options: ServerOptions, tracing: Tracing | None = None) -> None:
        limits = options.limits.fitting()
        self._options = options
        self._certificates = _certificates_of(options.access)
        self._authenticator = Authenticator(options.access)
        call_limits = CallLimits(
            limits.max_message_bytes,
            options.max_concurrent_calls,
            options.default_timeout,
            options.max_timeout,
            options.send_timeout,
            math.inf if options.slow_call_seconds is None else options.slow_call_seconds,
            options.warn_checkpoint_bytes,
        )
        load = AdmissionController(
            calls=options.max_concurrent_calls,
            total_bytes=options.max_bytes_in_flight,
            message_bytes=limits.max_message_bytes,
            timeout=options.default_timeout,
            report=lambda overloaded: self._health.set_overloaded(overloaded),
        )
        self._load = load
        self._connections = Connections(rate=options.max_wasted_calls)
        tenants = Tenants(
            options.quotas,
            max_calls=options.max_concurrent_calls,
            max_bytes=options.max_bytes_in_flight,
            max_streams=options.pipeline.max_streams,
        )
        self._quotas = QuotaRefresh(tenants, store.tenants, seconds=options.quota_refresh)
        self._calls = Calls(call_limits, self._authenticator, load, self._connections, tenants, self._quotas, tracing)
        self._executor = BoundedExecutor()
        operations = Operations(store, limits, self._executor, self._calls.log.slow_call_log)
        items = StoreServicer(store, limits, self._executor, tenants, self._calls.log.metrics.items)
        self._pipelines = Pipelines(
            operations, items.fill_batch, self._calls, self._authenticator, load, options.pipeline
        )
        self._server = grpc.aio.server(options=_channel_arguments(options))
        self._server.add_generic_rpc_handlers((LargeHeadersRejector(self._connections),))
        self._info = InfoServicer(limits, server_id=store.id, has_vectors=store.has_vectors)
        servicers: list[tuple[ServiceDescriptor, object]] = [
            (
                checkpoint_service_pb2.DESCRIPTOR.services_by_name["CheckpointService"],
                CheckpointServicer(operations, self._executor),
            ),
            (
                value_service_pb2.DESCRIPTOR.services_by_name["ValueService"],
                ValueServicer(store, limits, RangeReader(store, limits, self._executor, options.ranges)),
            ),
            (
                thread_service_pb2.DESCRIPTOR.services_by_name["ThreadService"],
                ThreadServicer(operations, self._executor),
            ),
            (stats_service_pb2.DESCRIPTOR.services_by_name["StatsService"], StatsServicer(store, tenants)),
            (tenant_service_pb2.DESCRIPTOR.services_by_name["TenantService"], TenantServicer(store, limits, tenants)),
            (
                store_service_pb2.DESCRIPTOR.services_by_name["StoreService"],
                items,
            ),
            (
                retention_service_pb2.DESCRIPTOR.services_by_name["RetentionService"],
                RetentionServicer(store, limits),
            ),
            (
                lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"],
                LeaseServicer(store, limits, self._calls.active),
            ),
            (info_service_pb2.DESCRIPTOR.services_by_name["InfoService"], self._info),
        ]
        for service, servicer in servicers:
            self._server.add_generic_rpc_handlers((self._handlers(service, servicer),))
        names = [service.full_name for service, _ in servicers]
        self._health = HealthServicer(names)
        small_calls = SmallCalls(self._calls.log, self._connections, options.guard_limits)
        open_to_all = GuardedServer(self._server, small_calls, admit_all)
        guarded = GuardedServer(self._server, small_calls, self._calls.admit)
        place = open_to_all if options.access.open_health else guarded
        health_pb2_grpc.add_HealthServicer_to_server(self._health, place)
        self._health_server = grpc.aio.server(options=_channel_arguments(options))
        self._health_server.add_generic_rpc_handlers((LargeHeadersRejector(self._connections),))
        place = GuardedServer(
            self._health_server, SmallCalls(self._calls.log, self._connections, options.guard_limits), admit_all
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, place)
        if options.reflection:
            names += [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
            servicer = reflection.aio.ReflectionServicer(service_names=names)
            place = open_to_all if options.access.open_reflection else guarded
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, place)
        for server in (self._server, self._health_server):
            server.add_generic_rpc_handlers((UnknownMethodsRejector(self._connections),))
        self._accepting: set[asyncio.Task[Any]] = set()

    def _handlers(self, service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
        """Returns the handlers of a service: `put_checkpoint` handles PutCheckpoint, and so on."""
        handlers = {}
        for method in service.methods:
            name, requires = f"{service.name}/{method.name}", needed(method)
            if method.client_streaming:
                handlers[method.name] = self._pipelines.handler(name)
            else:
                serve = getattr(servicer, re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower())
                handlers[method.name] = self._calls.handler(method, serve, requires)
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    @property
    def active_calls(self) -> int:
        """The number of calls in flight."""
        return self._calls.active.at_work

    @property
    def waiting_calls(self) -> int:
        """The number of calls that wait for another client, most of them for a lease."""
        return self._calls.active.waiting_calls

    @property
    def open_streams(self) -> int:
        """The number of open pipelines."""
        return self._pipelines.open_streams

    @property
    def is_serving(self) -> bool:
        """True if the health status is SERVING."""
        return self._health.is_serving

    @property
    def load(self) -> AdmissionController:
        """The bytes of requests and answers, and their limits."""
        return self._load

    @property
    def tenants(self) -> Tenants:
        """The active tenants."""
        return self._calls.tenants

    @property
    def metrics(self) -> RpcMetrics:
        """Counts of calls."""
        return self._calls.log.metrics

    async def start(self) -> tuple[str, ...]:
        """Binds and starts. Health stays NOT_SERVING until `set_serving` says otherwise.

        Returns:
            The bound addresses, in the order of the options, each with its actual port.

        Raises:
            SetupError: An address is taken or can't be bound.
        """
        options = self._options
        await self._authenticator.start()
        self._quotas.start()
        accept_undecodable_paths()
        before = accept_loops()
        bound = tuple(self._bind(address) for address in options.listen)
        await self._server.start()
        for address in options.health_listen:
            self._connections.serve_at(bind(self._health_server, address, shared=options.so_reuseport))
        if options.health_listen:
            await self._health_server.start()
        self._accepting = accept_loops() - before
        return bound

    async def fail_when_deaf(self) -> None:
        """Waits; raises DeafServer if gRPC stops accepting calls without being told to."""
        if not self._accepting:
            await asyncio.Event().wait()
        await asyncio.wait(self._accepting, return_when=asyncio.FIRST_COMPLETED)
        raise DeafServer

    def _bind(self, address: str) -> str:
        encrypted = self._certificates is not None and not address.startswith("unix")
        credentials = self._certificates.credentials() if self._certificates and encrypted else None
        bound = bind(self._server, address, shared=self._options.so_reuseport, credentials=credentials)
        self._connections.serve_at(bound)
        return bound

    def set_serving(self, serving: bool, reason: str = "") -> None:
        """Sets the health status of all services, and the reason of NOT_SERVING, for people."""
        self._health.set_serving(serving)
        self._info.set_not_serving_reason(reason)

    async def drain(self, grace: float) -> None:
        """Stops in order: health becomes NOT_SERVING, new calls are rejected, calls in flight finish.

        Args:
            grace: How long calls in flight may take to finish, in seconds. Then they are cancelled.
        """
        deadline = monotonic() + grace
        self._health.end()
        self._calls.active.refuse_new()
        self._pipelines.end()
        with suppress(TimeoutError):
            # Until then the ports stay open, so that a new call is told why it is refused. And a connection that gRPC
            # closes as soon as its last answer is written may take that answer along: what the client has sent
            # meanwhile, if only that it has room for more, makes it a reset.
            await asyncio.wait_for(self._calls.active.until_idle(), grace)
        await self._server.stop(max(deadline - monotonic(), 0))
        await self._health_server.stop(0)
        await self._authenticator.stop()
        await self._quotas.stop()
        self._executor.stop()
        self._calls.stop()
        await self._connections.stop()


def check_access(access: AccessOptions) -> None:
    """Raises SetupError if a file is unusable, or options contradict each other."""
    Authenticator(access)
    _certificates_of(access)


def _certificates_of(access: AccessOptions) -> Certificates | None:
    if access.tls is None:
        return None
    # Imported here because cryptography is slow to import, and only TLS needs it.
    from checkpointd_server.rpc.tls import Certificates

    return Certificates(access.tls)


def _channel_arguments(options: ServerOptions) -> list[tuple[str, int]]:
    limit = options.limits.max_message_bytes
    return [
        # So that what is too much is refused in our own words: gRPC cancels without one what it can't hand over. Each
        # costs it some 10 KiB, and what of a request fits into a stream's window.
        ("grpc.server.max_pending_requests", _PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_CALLS),
        # Otherwise two servers would silently share a port, which is the default.
        ("grpc.so_reuseport", int(options.so_reuseport)),
        ("grpc.max_receive_message_length", limit + _RECEIVE_SLACK_BYTES),
        ("grpc.max_send_message_length", limit),
        # Otherwise gRPC lets some megabytes of every request in before anybody has asked for it. Once one is read, its
        # window is as large as the request all the same; that takes a round trip, which most requests are spared.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
        ("grpc.keepalive_time_ms", int(options.keepalive_interval * 1000)),
        ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout * 1000)),
        # By default a client that pings more often than every 5 minutes is disconnected.
        ("grpc.keepalive_permit_without_calls", 1),
        # This is GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS; the name that it suggests is ignored.
        ("grpc.http2.min_ping_interval_without_data_ms", int(options.min_ping_interval * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        # Limits on connections: their number, idle time and age, and the calls of each.
        ("grpc.max_allowed_incoming_connections", options.max_connections),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.server_handshake_timeout_ms", int(options.handshake_timeout * 1000)),
        ("grpc.http2.settings_timeout", int(options.handshake_timeout * 1000)),
        ("grpc.max_connection_idle_ms", int(options.max_connection_idle * 1000)),
        ("grpc.max_connection_age_ms", int(options.max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", int((options.max_timeout or options.max_connection_age) * 1000)),
        # gRPC's compression would inflate messages a thousandfold before we can check them.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    ]
