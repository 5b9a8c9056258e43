"""GrpcSaver: LangGraph's checkpointer interface over a checkpointd server.

Each method exists twice, blocking and awaiting, as thin as can be: what is to be sent is built, sent and read by what
both share.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.grpc._convert import encode, warnings
from langgraph.checkpoint.grpc._convert.arguments import config_of, namespace
from langgraph.checkpoint.grpc._convert.random_ids import random_id
from langgraph.checkpoint.grpc._convert.reads import OnRead, Reader
from langgraph.checkpoint.grpc._convert.serde import ValueSerde, searchable_keys
from langgraph.checkpoint.grpc._convert.state import StateFilter
from langgraph.checkpoint.grpc._convert.strict_types import Strict, strict_serde
from langgraph.checkpoint.grpc._runs.calls import RunCalls
from langgraph.checkpoint.grpc._runs.lease_tokens import LeaseTokens
from langgraph.checkpoint.grpc._runs.registry import Runs
from langgraph.checkpoint.grpc._threads.operations import ThreadOperations
from langgraph.checkpoint.grpc._threads.queries import ttl_of
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._transport.client import Client
from langgraph.checkpoint.grpc._transport.lifetime import ConnectionLifetime
from langgraph.checkpoint.grpc._transport.probe import ConnectionProbe
from langgraph.checkpoint.grpc._transport.tuning import Tuning
from langgraph.checkpoint.grpc._values.cache import ValueCache
from langgraph.checkpoint.grpc._values.outgoing import OutgoingCheckpoint, OutgoingWrites
from langgraph.checkpoint.grpc.encryption import Encryption
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.checkpoint.grpc.leases import LeaseMixin
from langgraph.checkpoint.grpc.options import (
    DEFAULT_CACHE_BYTES,
    ClientOptions,
    Concurrency,
    default_insecure_token,
    default_target,
    default_token,
)
from langgraph.checkpoint.grpc.state_hooks import StateHooks
from langgraph.checkpoint.grpc.tls import TlsOptions
from langgraph.checkpoint.serde.base import SerializerProtocol

from checkpointd.v1 import checkpoint_service_pb2 as pb

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

logger = logging.getLogger("langgraph.checkpoint.grpc")


class GrpcSaver(LeaseMixin, ThreadOperations, ConnectionProbe, ConnectionLifetime, BaseCheckpointSaver[str]):
    """A LangGraph checkpointer that keeps its threads on a checkpointd server.

    One class for `invoke` and `ainvoke`. It can be built anywhere (also where no event loop runs), and used from
    threads, from several event loops and from forked workers at once. Connections are made when they are first needed.

    Example:
        ```python
        with GrpcSaver.from_conn_string("127.0.0.1:50051") as saver:
            graph = builder.compile(checkpointer=saver)
            graph.invoke({"messages": "hello"}, {"configurable": {"thread_id": "1"}})
        ```

    `with`, `async with` and neither all work; leaving the block closes the connections.

    Args:
        target: The server, "host:port" or "unix:path", or several, "a:1,b:1". Default: the environment's
            CHECKPOINTD_TARGET, or 127.0.0.1:50051.
        serde: Turns values into bytes and back. Default: LangGraph's JsonPlusSerializer.
        strict: Which classes values may be made into. True: LangGraph's safe types alone, such as messages. A
            collection of types, or of their ("module", "name"): these too. What is of another class stays plain data.
            False: any, so whoever may write to a thread can run code in the process that reads it. Default: as
            LangGraph does: strict, and with the classes of each graph's state, if the environment has
            LANGGRAPH_STRICT_MSGPACK=true, else False. A `serde` of your own says it itself.
        encryption: Encrypts the bytes, and binds them to the place where they are stored. Default: they aren't. With it
            the server can read no value, and of the metadata only what LangGraph itself writes into it (`source`,
            `step`, `run_id`, `parents` and the counters of delta channels).
        searchable_metadata: The keys of the metadata that the server may search, besides those that LangGraph itself
            writes. Default: all, or with encryption none.
        token: A bearer token, or a callable that returns one and is asked before each call. Default: the environment's
            CHECKPOINTD_TOKEN. Not sent in plain text off the machine.
        insecure_token: Whether the token may be sent in plain text off the machine, where something else protects the
            way, such as a mesh. Never through a proxy. Default: the environment's CHECKPOINTD_INSECURE_TOKEN, or False.
        tls: True, or TlsOptions with certificates. Default: plain text.
        timeout: How long one attempt of a call may take, in seconds.
        retry_budget: How long a call is tried again while the server is unavailable, in seconds; 0: not at all.
        keepalive: How often an idle connection with calls under way is pinged, in seconds.
        cache_bytes: How much of large states is kept in memory, so that what was sent or received once needn't be
            received again; 0: nothing.
        tracing: Whether calls are traced by OpenTelemetry, from here to the server's statements: True for its global
            tracer provider, or a provider. Needs the extra `otel`.
        concurrency: "optimistic" (default): a run that was overtaken by another on its thread gets
            VersionConflictError. "last_write_wins": it overwrites the other, as stock savers do.
        hooks: Which channels are never stored, which values may not be, and how old states become today's.
        ttl_seconds: How long the threads that this saver writes to are kept after their last use, in seconds; 0: they
            get no time of their own. Default: nothing is said about it.
        reads_count_as_use: Whether `get_tuple` counts as use of the thread, for how long it is kept.
    """

    _tuning: ClassVar[Tuning] = Tuning()

    def __init__(
        self,
        target: str | None = None,
        *,
        serde: SerializerProtocol | None = None,
        strict: Strict | None = None,
        encryption: Encryption | None = None,
        searchable_metadata: Collection[str] | None = None,
        token: str | Callable[[], str] | None = None,
        insecure_token: bool | None = None,
        tls: bool | TlsOptions = False,
        timeout: float = 30.0,
        retry_budget: float = 30.0,
        keepalive: float = 20.0,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        tracing: bool | TracerProvider = False,
        concurrency: Concurrency = "optimistic",
        hooks: StateHooks | None = None,
        ttl_seconds: int | None = None,
        reads_count_as_use: bool = False,
    ) -> None:
        super().__init__(serde=serde if strict is None else strict_serde(strict, serde))
        if not isinstance(encryption, Encryption | None):
            raise InvalidArgumentError(
                f"encryption: must be an Encryption, not {type(encryption).__name__}", field="encryption"
            )
        if not isinstance(hooks, StateHooks | None):
            raise InvalidArgumentError(f"hooks: must be StateHooks, not {type(hooks).__name__}", field="hooks")
        self.ttl_seconds = None if ttl_seconds is None else ttl_of(ttl_seconds)
        self.reads_count_as_use = reads_count_as_use
        self.hooks = hooks
        self._state = None if hooks is None else StateFilter(hooks)
        self.encryption = encryption
        self.searchable_metadata = searchable_keys(searchable_metadata)
        self.options = ClientOptions(
            target=target if target is not None else default_target(),
            token=token if token is not None else default_token(),
            insecure_token=insecure_token if insecure_token is not None else default_insecure_token(),
            tls=tls,
            timeout=timeout,
            retry_budget=retry_budget,
            keepalive=keepalive,
            cache_bytes=cache_bytes,
            tracing=tracing,
            concurrency=concurrency,
            tuning=self._tuning,
        )
        if self.options.exposes_token:
            logger.warning("the token is sent in plain text to %s, as insecure_token allows", self.options.target)
        self._made_serde: ValueSerde | None = None
        self._client = Client(self.options)
        self._cache = ValueCache(cache_bytes)
        self._lease_tokens = LeaseTokens()
        self._runs = Runs(optimistic=concurrency == "optimistic", put_expected_within=self._tuning.put_expected_within)
        self._calls = RunCalls(self._client, self._runs)
        self._closed = False

    # The object.

    def get_next_version(self, current: str | int | float | None, channel: None = None) -> str:
        """Returns a channel's next version: text that sorts after the current one.

        The digits after the point are random, so that two branches of a thread never make the same version for
        different values. They come from the operating system: a seeded `random` would repeat them.

        Args:
            current: The version that the channel has; None: none yet.
            channel: Not used. LangGraph passes it.

        Raises:
            ValueError: The current version is a text that doesn't begin with a number.
        """
        if current is None:
            number = 0
        elif isinstance(current, str):
            number = int(current.partition(".")[0])
        else:
            number = int(current)
        return f"{number + 1:032}.{int.from_bytes(random_id()[:7]):017}"

    # Reading.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Reads one checkpoint: the latest, or the one that the config names.

        Args:
            config: Names the thread and, if need be, `checkpoint_ns` (default: the root graph) and `checkpoint_id`.

        Returns:
            The checkpoint, or None if there is none for certain. A failure to ask raises CheckpointdError.

        Raises:
            InvalidArgumentError: The config names no thread, or can't be used.
            EncryptionError: A value can't be decrypted.
            SerializerMismatchError: Another serializer wrote the thread.
            StateVersionError: The state is newer than this code.
            StateMigrationError: `hooks.migrate` failed.
            CheckpointdError: The call failed.
        """
        return flows.run(self._get(config), partial(self._calls.call, config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Awaits `get_tuple`."""
        return await flows.arun(self._get(config), partial(self._calls.acall, config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Reads checkpoints newest first, a page at a time.

        Args:
            config: Names the thread and, if it has `checkpoint_ns`, the namespace; None for all threads.
            filter: Only checkpoints whose metadata contains this, as PostgreSQL's JSONB `@>` has it.
            before: Only checkpoints whose id is less than this config's.
            limit: The most checkpoints to return; None for all.

        Returns:
            An iterator, which asks for the next page when it gets there.

        Raises:
            InvalidArgumentError: An argument can't be used.
            CheckpointdError: While iterating: a call failed, or a checkpoint can't be read, as with `get_tuple`.
        """
        request = encode.list_checkpoints(self._value_serde(), config, filter=filter, before=before, limit=limit)
        flow = self._reader().pages(request, limit, self._on_read(config, request))
        found = flows.iterate(flow, partial(self._calls.call, config))
        return found if self._state is None else map(self._state.loaded, found)

    def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Awaits what `list` returns."""
        request = encode.list_checkpoints(self._value_serde(), config, filter=filter, before=before, limit=limit)
        flow = self._reader().pages(request, limit, self._on_read(config, request))
        found = flows.aiterate(flow, partial(self._calls.acall, config))
        return found if self._state is None else self._state.aloaded(found)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Reads each channel's writes since its nearest stored value, and that value.

        Args:
            config: The checkpoint whose channels are wanted. Its own writes aren't among them.
            channels: The names of delta channels.

        Returns:
            The history of each channel, by its name.

        Raises:
            InvalidArgumentError: The config names no checkpoint.
            EncryptionError: A value can't be decrypted.
            CheckpointdError: The call failed.
        """
        if not channels:
            return {}
        flow = self._reader().delta_history(encode.delta_history(config, channels))
        return flows.run(flow, partial(self._calls.call, config))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Awaits `get_delta_channel_history`."""
        if not channels:
            return {}
        flow = self._reader().delta_history(encode.delta_history(config, channels))
        return await flows.arun(flow, partial(self._calls.acall, config))

    # Writing.

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint with the values of the channels that changed.

        While LangGraph saves in the background, a put of a run may return before the checkpoint is durable: then task
        writes of the same run are in flight, which end, or raise, when it is.

        Args:
            config: The config of the checkpoint this one was made from, or of its thread.
            checkpoint: The checkpoint.
            metadata: Its metadata; what the config adds to it is merged in.
            new_versions: The channels that changed, with their versions.

        Returns:
            The checkpoint's config.

        Raises:
            WriteConflictError: Another run wrote to the thread after this one had read it, or has the lease on it.
            InvalidArgumentError: A name or a value can't be stored.
            InvalidStateError: `hooks.validate` refuses a value.
            CheckpointdError: The call failed.
        """
        put = self._outgoing(config, checkpoint, metadata, new_versions)
        self._calls.put(config, put)
        return config_of(*put.key, put.request.checkpoint_id)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Awaits `put`."""
        put = self._outgoing(config, checkpoint, metadata, new_versions)
        await self._calls.aput(config, put)
        return config_of(*put.key, put.request.checkpoint_id)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Stores a task's writes beside the checkpoint that the config names. Like puts, they may be handed over.

        Args:
            config: Names the thread, the namespace and the checkpoint.
            writes: Channels and values, in order.
            task_id: The task.
            task_path: Where the task stands among others; pending writes are ordered by it.

        Raises:
            WriteConflictError: Another run wrote to the thread after this one had read it, or has the lease on it.
            InvalidArgumentError: A name or a value can't be stored.
            InvalidStateError: `hooks.validate` refuses a value.
            CheckpointdError: The call failed.
        """
        outgoing = self._outgoing_writes(config, writes, task_id, task_path)
        self._calls.put_writes(config, outgoing, are_special=_are_special(writes))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Awaits `put_writes`."""
        outgoing = self._outgoing_writes(config, writes, task_id, task_path)
        await self._calls.aput_writes(config, outgoing, are_special=_are_special(writes))

    # What the methods above share.

    def _get(self, config: RunnableConfig) -> flows.Flow[CheckpointTuple | None]:
        request = encode.get(config)
        request.counts_as_use = self.reads_count_as_use
        found = yield from self._reader().get(request, self._on_read(config, request))
        if found is None:
            warnings.warn_of_absent(config, request)
        elif self._state is not None:
            return self._state.loaded(found)
        return found

    def _value_serde(self) -> ValueSerde:
        """Returns the serialization of values."""
        made = self._made_serde
        # LangGraph sets another serializer on a clone.
        if made is None or made.serde is not self.serde or made.encryption is not self.encryption:
            searchable = self.searchable_metadata
            made = ValueSerde(serde=self.serde, encryption=self.encryption, searchable_metadata=searchable)
            self._made_serde = made
        return made

    def _reader(self) -> Reader:
        return Reader(serde=self._value_serde(), cache=self._cache, first_version=partial(self.get_next_version, None))

    def _on_read(
        self, config: RunnableConfig | None, request: pb.GetCheckpointRequest | pb.ListCheckpointsRequest
    ) -> OnRead | None:
        """Returns a callback that records a run's read. Lists count: replayed subgraphs load checkpoints with them."""
        if config is None:
            return None
        return partial(self._runs.record_read, config, (request.thread_id, request.checkpoint_ns))

    def _outgoing(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> OutgoingCheckpoint:
        try:
            if self._state is not None:
                checkpoint, metadata, new_versions = self._state.outgoing(config, checkpoint, metadata, new_versions)
            put = encode.put(self._value_serde(), self._cache, config, checkpoint, metadata, new_versions)
        except Exception as error:
            # Others needn't wait for this put any more.
            with suppress(InvalidArgumentError):
                self._runs.put_failed(config, namespace(config), checkpoint.get("id", ""), error)
            raise
        self._lease_tokens.attach(put.request)
        if self.ttl_seconds is not None and not put.request.checkpoint_ns:
            put.request.ttl_seconds = self.ttl_seconds
        return put

    def _outgoing_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> OutgoingWrites:
        if self._state is not None:
            writes = self._state.outgoing_writes(config, writes)
        outgoing = encode.put_writes(self._value_serde(), self._cache, config, writes, task_id, task_path)
        self._lease_tokens.attach(outgoing.request)
        return outgoing


def _are_special(writes: Sequence[tuple[str, Any]]) -> bool:
    """Returns whether any of the writes is on a special channel."""
    return any(channel in WRITES_IDX_MAP for channel, _ in writes)
