"""GrpcSaver: LangGraph's checkpointer interface over a checkpointd server.

Each method exists twice, blocking and awaiting, as thin as can be: a request builder, a call, a response reader, which
both share.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.grpc import advice, requests, responses
from langgraph.checkpoint.grpc.calls import Caller, logger
from langgraph.checkpoint.grpc.channels import Channels
from langgraph.checkpoint.grpc.codec import Codec, searchable_keys
from langgraph.checkpoint.grpc.downloads import Downloads
from langgraph.checkpoint.grpc.encryption import Encryption
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.checkpoint.grpc.known_pieces import KnownPieces, PieceCache
from langgraph.checkpoint.grpc.leases import Leases, LeaseTaker
from langgraph.checkpoint.grpc.options import (
    DEFAULT_CACHE_BYTES,
    ClientOptions,
    Concurrency,
    default_insecure_token,
    default_target,
    default_token,
)
from langgraph.checkpoint.grpc.pieces import NOTHING, Contents
from langgraph.checkpoint.grpc.probes import Prober
from langgraph.checkpoint.grpc.runs import Runs
from langgraph.checkpoint.grpc.strictness import Strict, strict_serde
from langgraph.checkpoint.grpc.threads import ThreadKeeper
from langgraph.checkpoint.grpc.tls import TlsOptions
from langgraph.checkpoint.grpc.uploads import Uploads
from langgraph.checkpoint.serde.base import SerializerProtocol

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values


class GrpcSaver(LeaseTaker, ThreadKeeper, Prober, BaseCheckpointSaver[str]):
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
        searchable_metadata: The keys of the metadata that the server may search, beside those that LangGraph itself
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
        concurrency: "optimistic" (default): a run that was overtaken by another on its thread gets
            VersionConflictError. "last_write_wins": it overwrites the other, as stock savers do.
    """

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
        concurrency: Concurrency = "optimistic",
    ) -> None:
        super().__init__(serde=serde if strict is None else strict_serde(strict, serde))
        if not isinstance(encryption, Encryption | None):
            raise InvalidArgumentError(
                f"encryption: must be an Encryption, not {type(encryption).__name__}", field="encryption"
            )
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
            concurrency=concurrency,
        )
        if self.options.exposes_token:
            logger.warning("the token is sent in plain text to %s, as insecure_token allows", self.options.target)
        self._caller = Caller(self.options, Channels(self.options))
        known, cache = KnownPieces(), PieceCache(cache_bytes)
        self._uploads = Uploads(self._caller, known, cache)
        self._downloads = Downloads(self._caller, known, cache)
        self._leases = Leases(self._caller)
        self._runs = Runs(optimistic=concurrency == "optimistic")
        self._closed = False

    @classmethod
    def from_conn_string(
        cls,
        conn_string: str,
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
        concurrency: Concurrency = "optimistic",
    ) -> Self:
        """Builds a saver for use in a `with` or `async with` block. The arguments are those of the class."""
        return cls(
            conn_string,
            serde=serde,
            strict=strict,
            encryption=encryption,
            searchable_metadata=searchable_metadata,
            token=token,
            insecure_token=insecure_token,
            tls=tls,
            timeout=timeout,
            retry_budget=retry_budget,
            keepalive=keepalive,
            cache_bytes=cache_bytes,
            concurrency=concurrency,
        )

    # The object.

    def __copy__(self) -> Self:
        """LangGraph clones savers at compile time. A clone shares the connections; each is closed on its own."""
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        if not self._closed:
            self._caller.channels.share()
        return clone

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._caller.channels.settle_in()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        finally:
            await self._caller.channels.move_out()

    def close(self) -> None:
        """Closes the connections, unless a clone of this saver still uses them. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._caller.channels.close()

    async def aclose(self) -> None:
        """Closes the connections like `close`, and waits until those of this event loop are closed."""
        if not self._closed:
            self._closed = True
            await self._caller.channels.aclose()

    def get_next_version(self, current: str | int | float | None, channel: None = None) -> str:
        """Returns a channel's next version: text that sorts after the current one.

        The digits after the point are random, so that two branches of a thread never make the same version for
        different values. They come from the operating system: a seeded `random` would repeat them.
        """
        if current is None:
            number = 0
        elif isinstance(current, str):
            number = int(current.partition(".")[0])
        else:
            number = int(current)
        return f"{number + 1:032}.{int.from_bytes(os.urandom(7)):017}"

    # Reading.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Reads one checkpoint: the latest, or the one that the config names.

        Returns:
            The checkpoint, or None if there is none for certain. A failure to ask raises CheckpointdError.
        """
        request = requests.get(config)
        response, contents = self._downloads.get(request)
        self._runs.did_read(config, requests.key_of(request), response.version, _ids([response.tuple]))
        if not response.HasField("tuple"):
            advice.warn_of_absent(config, request)
            return None
        responses.check_place(self._codec(), request, [response.tuple])
        return self._load(response.tuple, contents)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Awaits `get_tuple`."""
        request = requests.get(config)
        response, contents = await self._downloads.aget(request)
        self._runs.did_read(config, requests.key_of(request), response.version, _ids([response.tuple]))
        if not response.HasField("tuple"):
            advice.warn_of_absent(config, request)
            return None
        responses.check_place(self._codec(), request, [response.tuple])
        return await self._aload(response.tuple, contents)

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
        """
        request = requests.list_checkpoints(self._codec(), config, filter=filter, before=before, limit=limit)
        return self._pages(config, request, limit)

    def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yields what `list` returns."""
        request = requests.list_checkpoints(self._codec(), config, filter=filter, before=before, limit=limit)
        return self._apages(config, request, limit)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Reads each channel's writes since its nearest stored value, and that value, in one call."""
        if not channels:
            return {}
        request = requests.delta_history(config, channels)
        response, contents = self._downloads.history(request)
        return responses.delta_history(self._codec(contents), request, response)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Awaits `get_delta_channel_history`."""
        if not channels:
            return {}
        request = requests.delta_history(config, channels)
        response, contents = await self._downloads.ahistory(request)
        return responses.delta_history(self._codec(contents), request, response)

    # Writing.

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint with the values of the channels that changed.

        Args:
            config: The config of the checkpoint this one was made from, or of its thread.
            checkpoint: The checkpoint.
            metadata: Its metadata; what the config adds to it is merged in.
            new_versions: The channels that changed, with their versions.

        Returns:
            The checkpoint's config.

        Raises:
            RefusedError: Another run wrote to the thread after this one had read it, or has the lease on it.
        """
        with self._runs.preparing(config):
            request, cargo = requests.put(self._codec(), config, checkpoint, metadata, new_versions)
        self._leases.sign(request)
        with self._runs.begin_put(config, request) as under_way:
            # What needs pieces may come back for them: nothing goes along with it.
            along = under_way.wait_and_take(takes=not cargo.size)
            try:
                under_way.expect(request)
                response = self._uploads.put(request, cargo, along)
            finally:
                for ride in along:
                    ride.left()
            under_way.made(response.version)
        return responses.config_of(request.thread_id, request.checkpoint_ns, request.checkpoint_id)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Awaits `put`."""
        with self._runs.preparing(config):
            request, cargo = requests.put(self._codec(), config, checkpoint, metadata, new_versions)
        self._leases.sign(request)
        with self._runs.begin_put(config, request) as under_way:
            response = await self._uploads.aput(request, cargo, under_way)
            under_way.made(response.version)
        return responses.config_of(request.thread_id, request.checkpoint_ns, request.checkpoint_id)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Stores a task's writes beside the checkpoint that the config names.

        Raises:
            RefusedError: Another run wrote to the thread after this one had read it, or has the lease on it.
        """
        request, cargo = requests.put_writes(self._codec(), config, writes, task_id, task_path)
        self._leases.sign(request)
        with self._runs.begin_writes(config, request) as under_way:
            under_way.wait()
            under_way.expect(request)
            if cargo.size or self._uploads.tokens_differ or not under_way.offer(request):
                self._uploads.put(request, cargo)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Awaits `put_writes`."""
        request, cargo = requests.put_writes(self._codec(), config, writes, task_id, task_path)
        self._leases.sign(request)
        with self._runs.begin_writes(config, request) as under_way:
            await self._uploads.aput(request, cargo, under_way)

    # What the methods above share.

    def _codec(self, contents: Contents = NOTHING) -> Codec:
        """Returns how values become bytes, and back: the pieces of those that are to be read are in `contents`."""
        # Made anew: LangGraph gives the clone of a saver another serializer.
        return Codec(
            serde=self.serde,
            encryption=self.encryption,
            searchable_metadata=self.searchable_metadata,
            contents=contents,
        )

    def _pages(
        self, config: RunnableConfig | None, request: pb.ListCheckpointsRequest, limit: int | None
    ) -> Iterator[CheckpointTuple]:
        while limit is None or limit > 0:
            page = self._caller.call("ListCheckpoints", lambda stubs: stubs.checkpoints.ListCheckpoints, request)
            self._did_list(config, request, page)
            responses.check_place(self._codec(), request, page.tuples)
            along: Sequence[values.Piece] = page.pieces
            for message in page.tuples:
                contents = self._downloads.complete(message, along)
                along = ()
                if contents is not None:
                    yield self._load(message, contents)
                elif (saved := self._reread(message)) is not None:
                    yield saved
            limit = _next_page(request, page, limit)

    async def _apages(
        self, config: RunnableConfig | None, request: pb.ListCheckpointsRequest, limit: int | None
    ) -> AsyncIterator[CheckpointTuple]:
        while limit is None or limit > 0:
            page = await self._caller.acall("ListCheckpoints", lambda stubs: stubs.checkpoints.ListCheckpoints, request)
            self._did_list(config, request, page)
            responses.check_place(self._codec(), request, page.tuples)
            along: Sequence[values.Piece] = page.pieces
            for message in page.tuples:
                contents = await self._downloads.acomplete(message, along)
                along = ()
                if contents is not None:
                    yield await self._aload(message, contents)
                elif (saved := await self._areread(message)) is not None:
                    yield saved
            limit = _next_page(request, page, limit)

    def _load(self, message: values.CheckpointTuple, contents: Contents) -> CheckpointTuple:
        """Reads what a checkpoint's message and the pieces of its values tell."""
        saved = responses.checkpoint_tuple(self._codec(contents), message)
        if responses.needs_parent_sends(message):
            self._add_parent_sends(saved, *self._downloads.get(responses.parent_request(message)))
        return saved

    async def _aload(self, message: values.CheckpointTuple, contents: Contents) -> CheckpointTuple:
        """Awaits `_load`."""
        saved = responses.checkpoint_tuple(self._codec(contents), message)
        if responses.needs_parent_sends(message):
            self._add_parent_sends(saved, *await self._downloads.aget(responses.parent_request(message)))
        return saved

    def _reread(self, message: values.CheckpointTuple) -> CheckpointTuple | None:
        """Reads a listed checkpoint again that was replaced since. None: it was deleted."""
        request = responses.own_request(message)
        response, contents = self._downloads.get(request)
        responses.check_place(self._codec(), request, [response.tuple] if response.HasField("tuple") else [])
        return self._load(response.tuple, contents) if response.HasField("tuple") else None

    async def _areread(self, message: values.CheckpointTuple) -> CheckpointTuple | None:
        """Awaits `_reread`."""
        request = responses.own_request(message)
        response, contents = await self._downloads.aget(request)
        responses.check_place(self._codec(), request, [response.tuple] if response.HasField("tuple") else [])
        return await self._aload(response.tuple, contents) if response.HasField("tuple") else None

    def _did_list(
        self, config: RunnableConfig | None, request: pb.ListCheckpointsRequest, page: pb.ListCheckpointsResponse
    ) -> None:
        """A list counts as a read of its namespace: a replayed subgraph loads its checkpoint with one."""
        if not page.tuples:
            advice.warn_of_pattern(request)
        if config is not None and request.HasField("checkpoint_ns"):
            self._runs.did_read(config, requests.key_of(request), page.version, _ids(page.tuples))

    def _add_parent_sends(self, saved: CheckpointTuple, parent: pb.GetCheckpointResponse, contents: Contents) -> None:
        sends = responses.pending_writes(self._codec(contents), parent.tuple)
        responses.add_parent_sends(saved, sends, self.get_next_version(None))


def _ids(tuples: Iterable[values.CheckpointTuple]) -> set[str]:
    return {message.checkpoint_id for message in tuples if message.checkpoint_id}


def _next_page(request: pb.ListCheckpointsRequest, page: pb.ListCheckpointsResponse, limit: int | None) -> int | None:
    """Turns a request into that for the next page, and returns how many checkpoints it may still bring."""
    request.page_token = page.next_page_token
    if not page.next_page_token:
        return 0
    if limit is None:
        return None
    limit -= len(page.tuples)
    request.page_size = requests.page_size(limit)
    return limit
