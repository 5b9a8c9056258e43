"""The connections of a saver: one sync channel a process, one aio channel an event loop.

Channels are made when they are first needed, so that a saver can be built anywhere. A grpc channel doesn't survive a
fork, and an aio channel belongs to the loop it was made in; so both are looked up by where the call comes from.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any
from weakref import WeakKeyDictionary

from langgraph.checkpoint.grpc._transport.routes import DIRECT, is_local
from langgraph.checkpoint.grpc.batching import Batcher
from langgraph.checkpoint.grpc.errors import CheckpointdError
from langgraph.checkpoint.grpc.forks import ForkSafeChannel, has_lost_aio, interceptors
from langgraph.checkpoint.grpc.loops import running_loop
from langgraph.checkpoint.grpc.options import ClientOptions, may_have_several_addresses
from langgraph.checkpoint.grpc.replicas import AioReplicas, BlockingReplicas, Rota
from langgraph.checkpoint.grpc.tls import TlsOptions

import grpc
import grpc.aio
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd.v1.lease_service_pb2_grpc import LeaseServiceStub
from checkpointd.v1.piece_service_pb2_grpc import PieceServiceStub
from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub

_BALANCED = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


class Stubs:
    """The services of checkpointd on one channel, or on what looks like one."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.checkpoints = CheckpointServiceStub(channel)
        self.pieces = PieceServiceStub(channel)
        self.threads = ThreadServiceStub(channel)
        self.leases = LeaseServiceStub(channel)
        self.info = InfoServiceStub(channel)


class AioStubs(Stubs):
    """The services of checkpointd on a channel of an event loop."""

    def __init__(self, channel: ForkSafeChannel | AioReplicas, timeout: float) -> None:
        super().__init__(channel)
        self.batcher = Batcher(self.checkpoints, timeout)

    async def close(self) -> None:
        """Closes the channel."""
        try:
            await self.batcher.streams.close(give_up=True)
        finally:
            await self.channel.close()


class Channels:
    """Makes, shares and closes the channels to a saver's servers."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._rota = Rota(len(options.targets))
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._sync: Stubs | None = None
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, AioStubs] = WeakKeyDictionary()
        self._homes: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
        self._closing: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[None]] = WeakKeyDictionary()
        self._abandoned: list[object] = []
        self._used_aio = False
        self._lost_aio = False
        self._users = 1
        self._closed = False

    def sync(self) -> Stubs:
        """Returns the stubs for blocking calls from any thread of this process."""
        stubs = self._sync
        if stubs is not None and self._pid == os.getpid() and not self._closed:
            return stubs
        with self._lock:
            self._check()
            if self._sync is None:
                self._sync = Stubs(self._connect(grpc, BlockingReplicas))
            return self._sync

    def aio(self) -> AioStubs:
        """Returns the stubs for calls awaited in the running event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._check()
            if self._lost_aio or has_lost_aio():
                raise CheckpointdError(
                    "grpc's event loops don't survive a fork, and this process was forked while its parent used them, "
                    "through a saver or another library, so no saver can be awaited here: call the blocking methods, "
                    'start workers with "spawn" or "forkserver", or fork before grpc.aio is first used'
                )
            self._used_aio = True
            stubs = self._by_loop.get(loop)
            if stubs is None:
                # A channel holds its loop, so those of loops that have ended don't go by themselves.
                for ended in [known for known in self._by_loop if known.is_closed()]:
                    del self._by_loop[ended]
                stubs = self._by_loop[loop] = AioStubs(self._connect(grpc.aio, AioReplicas), self._options.timeout)
                if loop in self._homes:
                    stubs.batcher.streams.allow()
            return stubs

    def settle_in(self) -> None:
        """Notes that `move_out` will be called before the running event loop ends, so that calls there may stay open.

        One that is open when its loop ends can't be ended any more, and disturbs grpc in the loops that come after.
        """
        if "," in self._options.target:
            return  # each call goes to the next server: an open one would keep them all at one
        loop = asyncio.get_running_loop()
        with self._lock:
            self._homes[loop] = self._homes.get(loop, 0) + 1
            if (stubs := self._by_loop.get(loop)) is not None:
                stubs.batcher.streams.allow()

    async def move_out(self) -> None:
        """Ends what is open in the running event loop, if nobody else has settled in there."""
        loop = asyncio.get_running_loop()
        with self._lock:
            left = self._homes.pop(loop, 0) - 1
            if left > 0:
                self._homes[loop] = left
                return
            stubs, closing = self._by_loop.get(loop), self._closing.get(loop)
        if stubs is not None:  # others use the saver, without a block of theirs
            await stubs.batcher.streams.close(give_up=False)
        if closing is not None:
            await closing

    def share(self) -> None:
        """Adds a user; the channels close when the last one has closed them."""
        with self._lock:
            self._users += 1

    def close(self) -> None:
        """Takes a user away. With the last one the sync channel closes at once, aio channels with their loops."""
        with self._lock:
            self._users -= 1
            if self._users or self._closed:
                return
            self._closed = True
            sync, self._sync = self._sync, None
            by_loop, self._by_loop = self._by_loop, WeakKeyDictionary()
        if self._pid != os.getpid():
            return
        if sync is not None:
            sync.channel.close()
        for loop, stubs in by_loop.items():
            if loop is running_loop():
                self._close_in(loop, stubs)
            elif loop.is_running():
                loop.call_soon_threadsafe(self._close_in, loop, stubs)

    def _close_in(self, loop: asyncio.AbstractEventLoop, stubs: AioStubs) -> None:
        self._closing[loop] = loop.create_task(stubs.close())

    async def aclose(self) -> None:
        """Takes a user away. With the last one the channels close, this loop's before the call returns."""
        with self._lock:
            last = self._users == 1 and not self._closed
            mine = self._by_loop.pop(asyncio.get_running_loop(), None) if last else None
        self.close()
        if mine is not None:
            await mine.close()

    def _check(self) -> None:
        """Raises if closed; in a forked child, forgets the parent's channels. The lock is held."""
        if self._closed:
            raise CheckpointdError("this saver is closed; build a new one, or keep its `with` block open for longer")
        if self._pid != os.getpid():
            # Closing or collecting the parent's channels here could wait for threads that the fork left behind.
            self._abandoned += [self._sync, *self._by_loop.values()]
            self._sync = None
            self._by_loop = WeakKeyDictionary()
            self._pid = os.getpid()
            # grpc's poller for event loops died with the parent's threads, and is not started again: calls would hang.
            self._lost_aio = self._used_aio

    def _connect(self, flavour: object, replicas: type[BlockingReplicas] | type[AioReplicas]) -> Any:
        """Makes a channel with grpc's sync or aio module; for several servers, what looks like one."""
        channels = [self._channel(flavour, target) for target in self._options.targets]
        if flavour is grpc.aio:
            channels = [ForkSafeChannel(channel) for channel in channels]
        return channels[0] if len(channels) == 1 else replicas(channels, self._rota)

    def _channel(self, flavour: object, target: str) -> grpc.Channel:
        options = self._options
        milliseconds = int(options.keepalive * 1000)
        arguments: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.keepalive_time_ms", milliseconds),
            # Together less than the default timeout: a server that is cut off should be UNAVAILABLE, so that the call
            # is tried again, before the call's time is over.
            ("grpc.keepalive_timeout_ms", min(milliseconds, 5_000)),
            # A server that restarts should be found again at once: grpc would back off for up to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            # In spite of its name: how long one attempt to connect may take. A far server needs some round trips.
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # Servers that are replaced get new addresses. By default a name is looked up every 30 seconds at the most.
            ("grpc.dns_min_time_between_resolutions_ms", 2_000),
            # The saver does its own retries, within its budget.
            ("grpc.enable_retries", 0),
        ]
        if may_have_several_addresses(target):
            # Otherwise all calls would go to the first that answers.
            arguments.append(("grpc.service_config", _BALANCED))
        # Once more: the environment may have changed since the saver was built.
        options.check_token(target)
        if is_local(target) or (options.token and not options.tls):
            arguments += DIRECT
        more = {"interceptors": found} if flavour is grpc.aio and (found := interceptors()) else {}
        if not options.tls:
            return flavour.insecure_channel(target, options=arguments, **more)  # type: ignore[attr-defined]
        tls = options.tls if isinstance(options.tls, TlsOptions) else TlsOptions()
        credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
        return flavour.secure_channel(target, credentials, options=arguments, **more)  # type: ignore[attr-defined]
