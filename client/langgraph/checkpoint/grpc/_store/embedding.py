"""Embedding of texts with the user's embeddings, which may be sync or async, from sync and async calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from langchain_core.embeddings import Embeddings
from langgraph.checkpoint.grpc._store.index import Wanted
from langgraph.checkpoint.grpc._transport.loops import background
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.store.base.embed import EmbeddingsLambda


def embed(embeddings: Embeddings | None, wanted: Wanted) -> None:
    """Embeds texts and stores their vectors in `wanted`. Raises what the user's function raises."""
    assert embeddings is not None
    if isinstance(embeddings, EmbeddingsLambda) and not hasattr(embeddings, "func"):
        # An async function. It always runs in the same loop, where its HTTP clients may keep connections.
        asyncio.run_coroutine_threadsafe(aembed(embeddings, wanted), background().loop).result()
        return
    if wanted.documents:
        _take(wanted, embeddings.embed_documents(list(wanted.documents)))
    for query in wanted.queries:
        wanted.queries[query] = embeddings.embed_query(query)


async def aembed(embeddings: Embeddings | None, wanted: Wanted) -> None:
    """Awaits `embed`."""
    assert embeddings is not None
    if wanted.documents:
        _take(wanted, await embeddings.aembed_documents(list(wanted.documents)))
    if wanted.queries:
        vectors = await asyncio.gather(*map(embeddings.aembed_query, wanted.queries))
        wanted.queries.update(zip(wanted.queries, vectors, strict=True))


def _take(wanted: Wanted, vectors: Sequence[Sequence[float]]) -> None:
    if len(vectors) != len(wanted.documents):
        raise InvalidArgumentError(
            f"index.embed: returned {len(vectors)} vectors for {len(wanted.documents)} texts", field="index.embed"
        )
    wanted.documents.update(zip(wanted.documents, vectors, strict=True))
