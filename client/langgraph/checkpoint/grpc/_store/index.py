"""Indexes of items: vectors, made by the user's `embed`, and words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from langchain_core.embeddings import Embeddings
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.store.base import IndexConfig, PutOp, ensure_embeddings, get_text_at_path, tokenize_path

from checkpointd.v1 import store_service_pb2 as pb

SearchMode = Literal["vector", "text", "hybrid"]
"""How `query` finds items: by the distance of vectors, by words, or by both, merged by reciprocal rank fusion."""

_DISTANCES = {
    "cosine": pb.VECTOR_DISTANCE_COSINE,
    "l2": pb.VECTOR_DISTANCE_L2,
    "inner_product": pb.VECTOR_DISTANCE_INNER_PRODUCT,
}
_MODES = ("vector", "text", "hybrid")
MAX_TEXT_BYTES = 256 * 1024
"""Maximum size of an item's texts, in bytes. The server accepts no more, and searches for words don't find the rest."""
MAX_TEXTS = 1000


class VectorIndexConfig(IndexConfig, total=False):
    """LangGraph's IndexConfig (`dims`, `embed`, `fields`), and a measure of distance."""

    distance_type: Literal["cosine", "l2", "inner_product"]
    """Default: "cosine"."""


class TextIndexConfig(TypedDict, total=False):
    """The fields that can be searched for words."""

    fields: list[str]
    """JSON paths of the texts, as in IndexConfig. Default: ["$"], the whole value as JSON."""
    language: str
    """A text search configuration of PostgreSQL, such as "english". Default: "simple", which doesn't stem words."""


Paths = Sequence[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A text that gets a vector."""

    path: str
    text: str


@dataclass(slots=True)
class Wanted:
    """Texts to embed."""

    documents: dict[str, Sequence[float]] = field(default_factory=dict)
    """Texts of items, and their vectors once they are computed."""
    queries: dict[str, Sequence[float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.documents or self.queries)


class ItemIndex:
    """The indexes of a store's items.

    Args:
        vectors: The configuration of vectors. None: items have none.
        text: The fields whose words are indexed. None: no words are.

    Raises:
        InvalidArgumentError: A configuration is invalid.
    """

    def __init__(self, vectors: VectorIndexConfig | IndexConfig | None, text: TextIndexConfig | None) -> None:
        self.embeddings: Embeddings | None = None
        self._distance = pb.VECTOR_DISTANCE_COSINE
        self._dims = 0
        if vectors is not None:
            self._read_vectors(dict(vectors))
        self._text_paths = None if text is None else _tokenized(text.get("fields") or ["$"], "text.fields")
        self._language = "simple" if text is None else text.get("language", "simple")

    def _read_vectors(self, given: dict[str, Any]) -> None:
        embed, dims = given.get("embed"), given.get("dims", 0)
        if embed is None:
            raise InvalidArgumentError(
                "index.embed: is required: LangChain embeddings, or a function that embeds texts", field="index.embed"
            )
        if type(dims) is not int or dims < 0:
            raise InvalidArgumentError("index.dims: must be the number of a vector's components", field="index.dims")
        distance = given.get("distance_type", "cosine")
        if distance not in _DISTANCES:
            raise InvalidArgumentError(
                f"index.distance_type: {distance!r} is none of {', '.join(_DISTANCES)}", field="index.distance_type"
            )
        self.embeddings = ensure_embeddings(embed)
        self._dims, self._distance = dims, _DISTANCES[distance]
        self._vector_paths = _tokenized(given.get("fields") or ["$"], "index.fields")

    @property
    def has_text(self) -> bool:
        """True if words are indexed."""
        return self._text_paths is not None

    def mode(self, wanted: SearchMode | None) -> SearchMode | None:
        """Returns the mode of a search: the wanted one, or all that is configured. None: nothing is configured."""
        if wanted is not None and wanted not in _MODES:
            raise InvalidArgumentError(f"mode: {wanted!r} is none of {', '.join(_MODES)}", field="mode")
        has_text = self._text_paths is not None
        if (wanted in ("vector", "hybrid") and self.embeddings is None) or (
            wanted in ("text", "hybrid") and not has_text
        ):
            missing = "index" if self.embeddings is None and wanted != "text" else "text"
            raise InvalidArgumentError(f"mode: {wanted!r} needs a store that was built with `{missing}`", field="mode")
        if wanted is not None:
            return wanted
        if self.embeddings is None:
            return "text" if has_text else None
        return "hybrid" if has_text else "vector"

    def embeds(self, put: PutOp) -> bool:
        """Returns whether an item's texts must be embedded before it is stored."""
        return self.embeddings is not None and put.value is not None and put.index is not False

    def chunks(self, put: PutOp) -> list[Chunk]:
        """Returns the texts of an item to embed."""
        if not self.embeds(put):
            return []
        paths = self._vector_paths if put.index is None else _tokenized(put.index, "index")
        found = []
        for path, tokens in paths:
            texts = get_text_at_path(put.value, tokens)
            found += [Chunk(f"{path}.{at}" if len(texts) > 1 else path, text) for at, text in enumerate(texts)]
        return found

    def write_vectors(self, chunks: Iterable[Chunk], wanted: Wanted, request: pb.PutItemRequest) -> None:
        """Writes an item's vectors into the request that stores it."""
        for chunk in chunks:
            request.vectors.add(path=chunk.path, values=self._checked(wanted.documents[chunk.text]))

    def write_text(self, put: PutOp, request: pb.PutItemRequest) -> None:
        """Writes an item's words into the request that stores it."""
        if self._text_paths is None or put.value is None or put.index is False:
            return
        paths = self._text_paths if put.index is None else _tokenized(put.index, "index")
        left = MAX_TEXT_BYTES
        request.text.language = self._language
        for _path, tokens in paths:
            for text in get_text_at_path(put.value, tokens):
                data = text.replace("\0", " ").encode(errors="replace")[:left]
                left -= len(data) + 1
                if left > 0 and len(request.text.texts) < MAX_TEXTS:
                    request.text.texts.append(data.decode(errors="ignore"))
        if not request.text.texts:
            request.ClearField("text")

    def write_query(
        self, query: str, mode: SearchMode, exact: bool, wanted: Wanted, request: pb.SearchItemsRequest
    ) -> None:
        """Writes the query into a search request."""
        if mode != "text":
            request.vector.values.extend(self._checked(wanted.queries[query]))
            request.vector.distance = self._distance
            request.vector.exact = exact
        if mode != "vector":
            request.text.query = query
            request.text.language = self._language

    def _checked(self, vector: Sequence[float]) -> Sequence[float]:
        if self._dims and len(vector) != self._dims:
            raise InvalidArgumentError(
                f"index.embed: returned a vector of {len(vector)} components, index.dims says {self._dims}",
                field="index.dims",
                limit=self._dims,
            )
        return vector


def _tokenized(paths: Any, field: str) -> Paths:
    if isinstance(paths, str) or not all(isinstance(path, str) for path in paths):
        raise InvalidArgumentError(f"{field}: must be a list of paths", field=field)
    return [(path, path if path == "$" else tokenize_path(path)) for path in paths]
