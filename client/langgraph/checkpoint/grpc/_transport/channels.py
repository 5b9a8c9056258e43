"""The connections of a saver: one in the background, and one in each event loop with an `async with` block.

They are created when first needed, so a saver can be built anywhere. A stream that is open when its event loop ends
can't be ended any more, and disturbs gRPC in later loops. So only a loop in which the saver is used in an `async with`
block has its own connection. All others, and threads, share that of the background loop. A forked child, where gRPC
can't serve event loops, has a blocking one.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from langgraph.checkpoint.grpc._transport import fork
from langgraph.checkpoint.grpc._transport.fork import ForkSafeChannel
from langgraph.checkpoint.grpc._transport.loops import background, running_loop
from langgraph.checkpoint.grpc._transport.operation import BATCH, GET, PUT, WRITES, Kind
from langgraph.checkpoint.grpc._transport.pipeline import Drive, Pipeline
from langgraph.checkpoint.grpc._transport.proxies import DIRECT, is_local
from langgraph.checkpoint.grpc._transport.replicas import AioFailoverChannel, FailoverChannel, Picker
from langgraph.checkpoint.grpc._transport.unary_pipeline import UnaryPipeline
from langgraph.checkpoint.grpc.errors import CheckpointdError
from langgraph.checkpoint.grpc.options import ClientOptions, may_have_several_addresses
from langgraph.checkpoint.grpc.tls import TlsOptions

import grpc
import grpc.aio
from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd.v1.lease_service_pb2_grpc import LeaseServiceStub
from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub
from checkpointd.v1.store_service_pb2_grpc import StoreServiceStub
from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
from checkpointd.v1.value_service_pb2_grpc import ValueServiceStub

_BALANCED = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
_PIPELINE = "/checkpointd.v1.CheckpointService/Pipeline"


class Stubs:
    """The services of checkpointd on one channel, or on what looks like one."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.checkpoints = CheckpointServiceStub(_Unary(channel))
        self.values = ValueServiceStub(channel)
        self.threads = ThreadServiceStub(channel)
        self.leases = LeaseServiceStub(channel)
        self.retention = RetentionServiceStub(channel)
        self.store = StoreServiceStub(channel)
        self.info = InfoServiceStub(channel)
        self.operations: dict[Kind, Callable[..., Any]] = {
            kind: channel.unary_unary(
                f"/checkpointd.v1.{kind.service}/{kind.method}", response_deserializer=kind.response.FromString
            )
            for kind in (PUT, WRITES, GET, BATCH)
        }
        """Methods that do the same as operations, for serialized requests."""


class _Unary:
    """A channel without its streams: pipelines open these."""

    def __init__(self, channel: Any) -> None:
        self.unary_unary = channel.unary_unary

    def stream_stream(self, method: str, **arguments: Any) -> None:
        """Opens nothing."""


class Connection:
    """A saver's connection in one event loop."""

    def __init__(self, channels: list[ForkSafeChannel], options: ClientOptions, picker: Picker, drive: Drive) -> None:
        self.loop = asyncio.get_running_loop()
        self._options = options
        self._drive = drive
        self._openers = [
            channel.stream_stream(_PIPELINE, response_deserializer=pb.PipelineResponse.FromString)
            for target, channel in zip(options.targets, channels, strict=True)
            # Of a list of addresses in one target, grpc gives each stream the next.
            for _ in range(target.count(",") + 1)
        ]
        self._picker = picker if len(channels) == len(self._openers) else Picker(len(self._openers))
        self._channel = channels[0] if len(channels) == 1 else AioFailoverChannel(channels, picker)
        self.stubs = Stubs(self._channel)
        self.pipeline = self._new_pipeline()

    async def end_streams(self) -> None:
        """Ends streams once they are answered."""
        pipeline, self.pipeline = self.pipeline, self._new_pipeline()
        await pipeline.close(give_up=False)

    async def close(self) -> None:
        """Closes the channel, and gives up calls in flight."""
        try:
            await self.pipeline.close(give_up=True)
        finally:
            await self._channel.close()

    def _new_pipeline(self) -> Pipeline:
        return Pipeline(self._options, self._picker, self._openers, self.stubs.operations, self._drive)


class Channels:
    """Creates, shares and closes the connections to a saver's servers.

    Args:
        options: The saver's options.
        drive: Runs a flow in an event loop, with calls of the same saver.
        drive_blocking: Runs a flow, blocking.
    """

    def __init__(self, options: ClientOptions, drive: Drive, drive_blocking: Callable[[Any], bytes | None]) -> None:
        self._options = options
        self._drive = drive
        self._drive_blocking = drive_blocking
        self._picker = Picker(len(options.targets))
        self._users = 1
        self._closed = False
        self._abandoned: list[object] = []
        self.generation = 0
        """Grows whenever an event loop may have got another connection."""
        self._begin()
        fork.in_child_for(self, "_begin_anew")

    def _begin(self) -> None:
        self.generation += 1
        self._lock = threading.Lock()
        self._sync: Stubs | None = None
        self._plain: UnaryPipeline | None = None
        self._background: Connection | None = None
        # Not weak: a connection references its loop.
        self._by_loop: dict[asyncio.AbstractEventLoop, Connection] = {}
        self._loop_refs: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
        self._closing: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[None]] = WeakKeyDictionary()

    def _begin_anew(self) -> None:
        """Forgets the parent's connections in a forked child.

        Closing or collecting them could wait for threads that don't exist in the child.
        """
        self._abandoned += [self._sync, self._background, *self._by_loop.values(), self._closing]
        self._begin()

    def sync(self) -> Stubs:
        """Returns the stubs for blocking calls in a forked child."""
        stubs = self._sync
        if stubs is not None and not self._closed:
            return stubs
        with self._lock:
            self._check()
            return self._connect_blocking()

    def aio(self) -> Connection:
        """Returns the connection for the running event loop, which may be another loop's."""
        if self._by_loop:
            connection = self._by_loop.get(asyncio.get_running_loop())
            if connection is not None and not self._closed:
                return connection
        return self.in_background()

    def in_background(self) -> Connection:
        """Returns the connection of the background loop."""
        connection = self._background
        if connection is not None and not self._closed:
            return connection
        fork.note_aio()
        loop = background()
        with self._lock:
            self._check()
            if self._background is None:
                self._background = loop.do(self._connect)
                loop.loop.call_soon_threadsafe(loop.at_exit, self, self._background.close)
            return self._background

    def plain(self) -> UnaryPipeline:
        """Returns the replacement of a pipeline in a forked child, where grpc.aio can't be used."""
        with self._lock:
            self._check()
            if self._plain is None:
                self._plain = UnaryPipeline(self._options, self._connect_blocking().operations, self._drive_blocking)
            return self._plain

    def retain_loop(self) -> None:
        """Records that `release_loop` will be called before the running event loop ends."""
        if fork.lost_aio():
            return
        fork.note_aio()
        loop = asyncio.get_running_loop()
        with self._lock:
            self.generation += 1
            self._loop_refs[loop] = self._loop_refs.get(loop, 0) + 1
            if loop not in self._by_loop and not self._closed:
                for ended in [known for known in self._by_loop if known.is_closed()]:
                    del self._by_loop[ended]
                self._by_loop[loop] = self._connect()

    async def release_loop(self) -> None:
        """Closes the running event loop's connection, if no other block retains it."""
        loop = asyncio.get_running_loop()
        with self._lock:
            left = self._loop_refs.pop(loop, 0) - 1
            if left > 0:
                self._loop_refs[loop] = left
                return
            self.generation += 1
            connection, closing = self._by_loop.pop(loop, None), self._closing.pop(loop, None)
        if connection is not None:  # others use the saver without a block
            await connection.end_streams()
            await connection.close()
        if closing is not None:
            await closing

    def share(self) -> None:
        """Adds a user; the channels close when the last one has closed them."""
        with self._lock:
            self._users += 1

    def close(self) -> None:
        """Drops a user. With the last one, the sync channel closes at once, and the others in their loops."""
        with self._lock:
            self._users -= 1
            if self._users or self._closed:
                return
            self._closed = True
            self.generation += 1
            sync, self._sync = self._sync, None
            behind, self._background = self._background, None
            by_loop, self._by_loop = self._by_loop, {}
        if sync is not None:
            sync.channel.close()
        if behind is not None:
            background().close_for(self)
        for loop, connection in by_loop.items():
            if loop is running_loop():
                self._close_in(loop, connection)
            elif loop.is_running():
                loop.call_soon_threadsafe(self._close_in, loop, connection)

    def _close_in(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self._closing[loop] = loop.create_task(connection.close())

    async def aclose(self) -> None:
        """Drops a user. With the last one the channels close, this loop's before the call returns."""
        with self._lock:
            last = self._users == 1 and not self._closed
            mine = self._by_loop.pop(asyncio.get_running_loop(), None) if last else None
        self.close()
        if mine is not None:
            await mine.close()

    def _check(self) -> None:
        if self._closed:
            raise CheckpointdError("this saver is closed; build a new one, or keep its `with` block open for longer")

    def _connect_blocking(self) -> Stubs:
        if self._sync is None:
            channels = [self._channel(grpc, target) for target in self._options.targets]
            self._sync = Stubs(channels[0] if len(channels) == 1 else FailoverChannel(channels, self._picker))
        return self._sync

    def _connect(self) -> Connection:
        """Connects in the running event loop."""
        channels = [ForkSafeChannel(self._channel(grpc.aio, target)) for target in self._options.targets]
        return Connection(channels, self._options, self._picker, self._drive)

    def _channel(self, flavour: Any, target: str) -> Any:
        options = self._options
        milliseconds = int(options.keepalive * 1000)
        arguments: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.keepalive_time_ms", milliseconds),
            # Together less than the default timeout: a server that is cut off should be UNAVAILABLE, so that the call
            # is tried again, before the call's time is over.
            ("grpc.keepalive_timeout_ms", min(milliseconds, 5_000)),
            # A restarted server should be found again at once: by default gRPC backs off for up to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            # Despite its name, the timeout of one attempt to connect. A distant server needs some round trips.
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # Replaced servers get new addresses. By default a name is resolved at most every 30 seconds.
            ("grpc.dns_min_time_between_resolutions_ms", 2_000),
            # The saver does its own retries, within its budget.
            ("grpc.enable_retries", 0),
        ]
        if may_have_several_addresses(target):
            # Otherwise all calls would go to the first address that answers.
            arguments.append(("grpc.service_config", _BALANCED))
        # Once more: the environment may have changed since the saver was built.
        options.check_token(target)
        if is_local(target) or (options.token and not options.tls):
            arguments += DIRECT
        more = {"interceptors": found} if flavour is grpc.aio and (found := fork.interceptors()) else {}
        if not options.tls:
            return flavour.insecure_channel(target, options=arguments, **more)
        tls = options.tls if isinstance(options.tls, TlsOptions) else TlsOptions()
        credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
        return flavour.secure_channel(target, credentials, options=arguments, **more)
