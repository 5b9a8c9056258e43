"""GrpcStore: LangGraph's long-term memory over a checkpointd server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from weakref import WeakKeyDictionary, ref

from langchain_core.embeddings import Embeddings
from langgraph.checkpoint.grpc._store.answers import is_too_large, single_answer, single_result
from langgraph.checkpoint.grpc._store.batches import BatchQueue
from langgraph.checkpoint.grpc._store.embedding import aembed, embed
from langgraph.checkpoint.grpc._store.encoding import encode_query
from langgraph.checkpoint.grpc._store.extras import StoreExtras
from langgraph.checkpoint.grpc._store.index import ItemIndex, SearchMode, TextIndexConfig, VectorIndexConfig, Wanted
from langgraph.checkpoint.grpc._store.operations import (
    AnyOp,
    ModedSearch,
    Submit,
    VersionedPut,
    run_batch,
    single,
)
from langgraph.checkpoint.grpc._store.values import ItemSerde
from langgraph.checkpoint.grpc._transport import flows, fork
from langgraph.checkpoint.grpc._transport.client import Client
from langgraph.checkpoint.grpc._transport.lifetime import ConnectionLifetime
from langgraph.checkpoint.grpc._transport.probe import ConnectionProbe
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.checkpoint.grpc.options import (
    ClientOptions,
    default_insecure_token,
    default_target,
    default_token,
)
from langgraph.checkpoint.grpc.tls import TlsOptions
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.store.base import (
    NOT_PROVIDED,
    BaseStore,
    IndexConfig,
    NotProvided,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    _ensure_refresh,
    _ensure_ttl,
    _validate_namespace,
    _validate_namespace_labels,
)

from checkpointd.v1 import store_service_pb2 as pb

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc.saver import GrpcSaver
    from opentelemetry.trace import TracerProvider

_PING = pb.GetItemRequest(namespace=["checkpointd-ping"], key="ping")


class GrpcStore(StoreExtras, ConnectionProbe, ConnectionLifetime, BaseStore):
    """A LangGraph store that keeps its items on a checkpointd server.

    One class for sync and async code. It can be used from several threads and event loops at once, and in forked
    workers. Operations that are started at the same time share a call to the server.

    Example:
        ```python
        with GrpcSaver("127.0.0.1:50051") as saver, GrpcStore.from_saver(saver) as store:
            graph = builder.compile(checkpointer=saver, store=store)
        ```

    Args:
        target: The server, as in GrpcSaver.
        index: Vectors: `dims`, `embed`, `fields` as in LangGraph's IndexConfig, and `distance_type` ("cosine", "l2" or
            "inner_product"). Default: no vectors; `query` then only finds items by words, if `text` is given.
        text: Words: `fields`, as in `index`, and `language`, a text search configuration of PostgreSQL. Default: items
            can't be found by words.
        ttl: Default times to live: `default_ttl` in minutes, and `refresh_on_read`. Expired items are never returned,
            and the server deletes them.
        serde: Turns values into bytes and back. Default: values come back exactly as they were put; objects of classes
            other than LangGraph's safe ones come back as plain data.
        searchable: The entries of values that the server may filter by. Default: all, or none if the serializer
            encrypts.
        token: A bearer token, or a callable that returns one, as in GrpcSaver. It needs the scopes `store:read` and
            `store:write`.
        insecure_token: As in GrpcSaver, like the following arguments.
        tls: True, or TlsOptions with certificates.
        timeout: How long one attempt of a call may take, in seconds.
        retry_budget: How long a call is retried while the server is unavailable, in seconds.
        keepalive: How often an idle connection with calls in flight is pinged, in seconds.
        tracing: Whether to trace calls with OpenTelemetry.

    Raises:
        InvalidArgumentError: An argument is invalid.
    """

    supports_ttl = True
    _asked = _PING

    def __init__(
        self,
        target: str | None = None,
        *,
        index: VectorIndexConfig | IndexConfig | None = None,
        text: TextIndexConfig | None = None,
        ttl: TTLConfig | None = None,
        serde: SerializerProtocol | None = None,
        searchable: Collection[str] | None = None,
        token: str | Callable[[], str] | None = None,
        insecure_token: bool | None = None,
        tls: bool | TlsOptions = False,
        timeout: float = 30.0,
        retry_budget: float = 30.0,
        keepalive: float = 20.0,
        tracing: bool | TracerProvider = False,
    ) -> None:
        options = ClientOptions(
            target=target if target is not None else default_target(),
            token=token if token is not None else default_token(),
            insecure_token=insecure_token if insecure_token is not None else default_insecure_token(),
            tls=tls,
            timeout=timeout,
            retry_budget=retry_budget,
            keepalive=keepalive,
            tracing=tracing,
        )
        self._build(index, text, ttl, serde, searchable)
        self._client = Client(options)

    def _build(
        self,
        index: VectorIndexConfig | IndexConfig | None,
        text: TextIndexConfig | None,
        ttl: TTLConfig | None,
        serde: SerializerProtocol | None,
        searchable: Collection[str] | None,
    ) -> None:
        if isinstance(searchable, str):
            raise InvalidArgumentError('searchable: must be a collection of keys, like {"kind"}', field="searchable")
        self.index_config = index
        self.text_config = text
        self.ttl_config = ttl
        self._index = ItemIndex(index, text)
        self._serde = ItemSerde(serde, searchable)
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, BatchQueue] = WeakKeyDictionary()
        self._here: tuple[ref[asyncio.AbstractEventLoop], int, BatchQueue] | None = None
        """The queue that was used last, if nothing has changed: its event loop, and the connections' generation."""
        self._closed = False

    @classmethod
    def from_saver(
        cls,
        saver: GrpcSaver,
        *,
        index: VectorIndexConfig | IndexConfig | None = None,
        text: TextIndexConfig | None = None,
        ttl: TTLConfig | None = None,
        serde: SerializerProtocol | None = None,
        searchable: Collection[str] | None = None,
    ) -> Self:
        """Builds a store that shares a saver's connections, token and tenant. Each is closed by itself.

        Args:
            saver: The saver. If it encrypts, the store needs a `serde` that encrypts: `Encryption` is for threads only.
            index: Vectors. This and the following arguments are those of the class.
            text: Words.
            ttl: Default times to live.
            serde: Turns values into bytes and back.
            searchable: The entries of values that the server may filter by.

        Returns:
            The store.

        Raises:
            InvalidArgumentError: An argument is invalid.
        """
        if saver.encryption is not None and serde is None:
            raise InvalidArgumentError(
                "serde: this saver encrypts, and items would be stored in plain text; give LangGraph's "
                "EncryptedSerializer, or build the store by itself",
                field="serde",
            )
        store = cls.__new__(cls)
        store._build(index, text, ttl, serde, searchable)
        store._client = saver._client
        store._client.channels.share()
        return store

    @property
    def embeddings(self) -> Embeddings | None:
        """The object that embeds texts, or None."""
        return self._index.embeddings

    # Batches.

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Does operations, and returns their results in order.

        Reads see the store as it was before. Of several puts of one item only the last is done. If an operation fails,
        its error is raised; others may have been done.

        Args:
            ops: LangGraph's operations: GetOp, SearchOp, PutOp and ListNamespacesOp.

        Returns:
            The results: an item or None for GetOp, items for SearchOp, None for PutOp, namespaces for ListNamespacesOp.

        Raises:
            CheckpointdError: An operation failed.
            InvalidNamespaceError: A namespace is invalid.
        """
        return self._run(ops)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Awaits `batch`."""
        return await self._arun(ops)

    def _run(self, operations: Iterable[AnyOp]) -> list[Any]:
        return flows.run(self._flow(list(operations)), self._call)

    async def _arun(self, operations: Iterable[AnyOp]) -> list[Any]:
        given = list(operations)
        if (queue := self._queue_here()) is None:
            return await flows.arun(self._flow(given), self._acall)
        target = self._client.options.target
        # Most calls: a single operation skips the flow, which takes as long as everything else together.
        alone = single(given, self._serde, self._index)
        if alone is not None:
            (outcome,) = await queue.submit(alone)
            if not is_too_large(outcome):
                return [single_result(alone.kinds[0], outcome, self._serde, target)]
        return await flows.arun(run_batch(given, self._serde, self._index, target), self._acall)

    def _flow(self, operations: list[AnyOp]) -> flows.Flow[list[Any]]:
        alone = single(operations, self._serde, self._index)
        if alone is not None:
            (outcome,) = yield Submit(alone)
            if not is_too_large(outcome):
                return [single_result(alone.kinds[0], outcome, self._serde, self._client.options.target)]
        return (yield from run_batch(operations, self._serde, self._index, self._client.options.target))

    def _call(self, step: Any) -> Any:
        match step:
            case Wanted():
                return embed(self._index.embeddings, step)
            case Submit() if not fork.lost_aio():
                done = self._queue_of(self._client.channels.in_background().loop).submit_elsewhere(step.operations)
                try:
                    return done.result()
                finally:
                    done.cancel()  # if this thread was interrupted
            case Submit():
                return self._client.call(pb.BatchRequest.FromString(step.operations.body)).results
        return self._client.call(step)

    async def _acall(self, step: Any) -> Any:
        match step:
            case Wanted():
                return await aembed(self._index.embeddings, step)
            case Submit() if not fork.lost_aio():
                if (here := self._queue_here()) is not None:
                    return await here.submit(step.operations)
                queue = self._queue_of(self._client.channels.aio().loop)
                return await asyncio.wrap_future(queue.submit_elsewhere(step.operations))
            case Submit():
                return await asyncio.to_thread(self._call, step)
        query, here = encode_query(step), self._queue_here()
        if query is None or here is None or (done := here.submit_alone(query)) is None:
            return await self._client.acall(step)
        return single_answer(query.kinds[0], (await done)[0], self._client.options.target)

    def _queue_here(self) -> BatchQueue | None:
        """Returns the queue of the running event loop. None: calls are made in another loop."""
        loop, channels, here = asyncio.get_running_loop(), self._client.channels, self._here
        if here is not None and here[0]() is loop and here[1] == channels.generation:
            return here[2]
        generation = channels.generation
        if fork.lost_aio() or channels.aio().loop is not loop:
            return None
        queue = self._queue_of(loop)
        self._here = ref(loop), generation, queue
        return queue

    def _queue_of(self, loop: asyncio.AbstractEventLoop) -> BatchQueue:
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues.setdefault(loop, BatchQueue(self._client, loop))
        return queue

    # LangGraph's methods, with further arguments.

    def search(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
        mode: SearchMode | None = None,
        exact: bool = False,
    ) -> list[SearchItem]:
        """Searches for items within a namespace prefix. The results are `FoundItem`s, which have a version.

        Args:
            namespace_prefix: The namespace to search, with those below it.
            query: The text to search for. Without it, the items stored last come first.
            filter: Conditions on the values: the value of an entry, or `$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`,
                `$in`, `$nin` and `$exists`, nested like the values.
            limit: The maximum number of items.
            offset: The number of items to skip.
            refresh_ttl: Whether times to live restart. Default: as the store's `ttl` says, else yes.
            mode: "vector", "text" or "hybrid". Default: all that the store was built with.
            exact: Whether to compare the query with all vectors, without an index.

        Returns:
            The items, best first; without a query, those stored last first.

        Raises:
            CheckpointdError: The search failed.
            InvalidNamespaceError: The prefix is invalid.
        """
        operation = self._search(namespace_prefix, query, filter, limit, offset, refresh_ttl, mode, exact)
        return cast("list[SearchItem]", self._run([operation])[0])

    async def asearch(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
        mode: SearchMode | None = None,
        exact: bool = False,
    ) -> list[SearchItem]:
        """Awaits `search`."""
        operation = self._search(namespace_prefix, query, filter, limit, offset, refresh_ttl, mode, exact)
        return cast("list[SearchItem]", (await self._arun([operation]))[0])

    def put(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        if_version_match: int | None = None,
    ) -> None:
        """Stores an item, and replaces an existing one.

        Args:
            namespace: Its namespace.
            key: Its key.
            value: Its value.
            index: The fields to index: None for the store's, paths for others, False for none. They replace those
                indexed before.
            ttl: Its time to live in minutes. None: it doesn't expire. Default: the store's.
            if_version_match: The version that the existing item must have, from `StoredItem.version`. 0: there must be
                no item. Default: any.

        Raises:
            ItemConflictError: It has another version.
            CheckpointdError: The call failed.
            InvalidNamespaceError: The namespace is invalid.
        """
        self._run([self._put(namespace, key, value, index, ttl, if_version_match)])

    async def aput(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        if_version_match: int | None = None,
    ) -> None:
        """Awaits `put`."""
        await self._arun([self._put(namespace, key, value, index, ttl, if_version_match)])

    def delete(self, namespace: tuple[str, ...], key: str, *, if_version_match: int | None = None) -> None:
        """Deletes an item, if there is one.

        Args:
            namespace: Its namespace.
            key: Its key.
            if_version_match: The version that it must have. Default: any.

        Raises:
            ItemConflictError: It has another version, or doesn't exist.
            CheckpointdError: The call failed.
            InvalidNamespaceError: The namespace is invalid.
        """
        self._run([self._delete(namespace, key, if_version_match)])

    async def adelete(self, namespace: tuple[str, ...], key: str, *, if_version_match: int | None = None) -> None:
        """Awaits `delete`."""
        await self._arun([self._delete(namespace, key, if_version_match)])

    # Shared by the sync and async forms.

    def _search(
        self,
        namespace_prefix: tuple[str, ...],
        query: str | None,
        filter: dict[str, Any] | None,
        limit: int,
        offset: int,
        refresh_ttl: bool | None,
        mode: SearchMode | None,
        exact: bool,
    ) -> ModedSearch:
        _validate_namespace_labels(namespace_prefix)
        refresh = _ensure_refresh(self.ttl_config, refresh_ttl)
        return ModedSearch(SearchOp(namespace_prefix, filter, limit, offset, query, refresh), mode, exact)

    def _put(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None,
        ttl: float | NotProvided | None,
        version: int | None,
    ) -> AnyOp:
        _validate_namespace(namespace)
        put = PutOp(namespace, str(key), value, index, _ensure_ttl(self.ttl_config, ttl))
        return put if version is None else VersionedPut(put, version)

    def _delete(self, namespace: tuple[str, ...], key: str, version: int | None) -> AnyOp:
        _validate_namespace_labels(namespace)
        put = PutOp(namespace, str(key), None)
        return put if version is None else VersionedPut(put, version)
