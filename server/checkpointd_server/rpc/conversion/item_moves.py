"""Items with everything that belongs to them: protobuf to domain and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from json import loads

from google.protobuf.timestamp_pb2 import Timestamp

from checkpointd.v1 import store_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.items import ItemKey, ItemWord, ListedKey, RestoreOutcome, WholeItem
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.conversion.item_index import project_item
from checkpointd_server.rpc.conversion.items import check_value, read_key, read_vectors
from checkpointd_server.rpc.conversion.metadata_index import unproject
from checkpointd_server.rpc.conversion.validation import check_count, check_text

_MAX_LEXEME_BYTES = 2046
_MAX_POSITIONS = 255
_MAX_POSITION = 16383
_MAX_WORDS_BYTES = 2**20 - 1
"""Maximum size of an item's words in PostgreSQL."""
_DEFAULT_PAGE_SIZE = 100
_OUTCOMES = {
    RestoreOutcome.RESTORED: pb.RESTORE_OUTCOME_RESTORED,
    RestoreOutcome.SAME: pb.RESTORE_OUTCOME_SAME,
    RestoreOutcome.DIFFERENT: pb.RESTORE_OUTCOME_DIFFERENT,
    RestoreOutcome.EXPIRED: pb.RESTORE_OUTCOME_EXPIRED,
}


def read_after(request: pb.ListItemsRequest, limits: Limits) -> ItemKey | None:
    """Returns the item after which the list begins. Raises InvalidArgument."""
    if not request.HasField("after"):
        return None
    with _within("after."):
        return read_key(request.after, limits)


def read_page_size(request: pb.ListItemsRequest, limits: Limits) -> int:
    """Returns the maximum number of items to list. Raises InvalidArgument."""
    size, limit = request.page_size, limits.max_search_limit
    if not 0 <= size <= limit:
        raise InvalidArgument("page_size", f"is {size}, must be from 0 to {limit}", limit=limit)
    return size or _DEFAULT_PAGE_SIZE


def read_view(request: pb.ListItemsRequest) -> pb.ItemView:
    """Returns how much of each item to list. Raises InvalidArgument."""
    if request.view not in pb.ItemView.values():
        raise InvalidArgument("view", f"{request.view} is not a view that this server knows")
    return request.view or pb.ITEM_VIEW_WHOLE


def write_keys(keys: Sequence[ListedKey], response: pb.ListItemsResponse) -> None:
    """Fills in keys."""
    for key, version in keys:
        response.items.add(item=pb.Item(namespace=key.namespace, key=key.key, version=version))


def write_whole(items: Sequence[WholeItem], limits: Limits, response: pb.ListItemsResponse) -> None:
    """Fills in items."""
    for item in items:
        message = response.items.add(vectors_left_out=item.vectors_left_out, has_words=item.words is not None)
        found = message.item
        found.namespace.extend(item.key.namespace)
        found.key = item.key.key
        found.version = item.version
        found.value.type = item.type
        found.value.data = item.data
        if not _is_made_of_value(item, limits):
            found.value.index = unproject(item.doc)
        found.created_at.FromDatetime(item.created_at)
        found.updated_at.FromDatetime(item.updated_at)
        if item.expires_at is not None:
            found.expires_at.FromDatetime(item.expires_at)
        if item.ttl is not None:
            message.ttl.FromTimedelta(timedelta(seconds=item.ttl))
        for vector in item.vectors:
            message.vectors.add(path=vector.path, values=vector.components)
        for word in item.words or ():
            message.words.add(lexeme=word.lexeme, positions=word.positions)


def _is_made_of_value(item: WholeItem, limits: Limits) -> bool:
    """Returns whether a server can derive what filters see of an item from its value."""
    try:
        return bool(loads(item.doc) == loads(project_item(item.type, item.data, b"", limits)))
    except InvalidArgument:
        return False


def read_restore(request: pb.RestoreItemsRequest, limits: Limits) -> list[WholeItem]:
    """Returns the items to restore. Raises InvalidArgument."""
    check_count(len(request.items), "items", limits.max_batch)
    read: dict[ItemKey, WholeItem] = {}
    components = 0
    for position, message in enumerate(request.items):
        with _within(f"items[{position}]."):
            item = _read_whole(message, limits)
        if item.key in read:
            raise InvalidArgument(f"items[{position}]", "is an item that comes before it already")
        read[item.key] = item
        components += sum(len(vector.components) for vector in item.vectors)
    if components > limits.max_item_components:
        limit = limits.max_item_components
        problem = f"have vectors of {components} components, at most {limit} are allowed"
        raise InvalidArgument("items", problem, limit=limit)
    return list(read.values())


def _read_whole(message: pb.WholeItem, limits: Limits) -> WholeItem:
    found = message.item
    with _within("item."):
        key = read_key(found, limits)
        check_value(found, limits)
        doc = project_item(found.value.type, found.value.data, found.value.index, limits)
        created_at = _read_time(found.created_at, "created_at")
        updated_at = _read_time(found.updated_at, "updated_at")
        expires_at = _read_time(found.expires_at, "expires_at") if found.HasField("expires_at") else None
    ttl = None
    if message.HasField("ttl"):
        ttl = message.ttl.seconds + message.ttl.nanos / 1e9
        limit = limits.max_ttl_minutes
        if not 0 < ttl <= limit * 60:
            raise InvalidArgument("ttl", f"is {ttl} s, must be more than 0 and at most {limit} minutes", limit=limit)
    if (ttl is None) != (expires_at is None):
        raise InvalidArgument("ttl", "and item.expires_at belong together: both must be set, or none")
    return WholeItem(
        key=key,
        type=found.value.type,
        data=found.value.data,
        doc=doc,
        words=_read_words(message),
        vectors=read_vectors(message.vectors, limits),
        vectors_left_out=message.vectors_left_out,
        ttl=ttl,
        created_at=created_at,
        updated_at=updated_at,
        expires_at=expires_at,
    )


@contextmanager
def _within(prefix: str) -> Iterator[None]:
    """Adds a prefix to the fields that errors name."""
    try:
        yield
    except InvalidArgument as error:
        raise InvalidArgument(f"{prefix}{error.field}", error.problem, limit=error.limit) from None


def _read_time(time: Timestamp, field: str) -> datetime:
    if time.ByteSize() == 0:
        raise InvalidArgument(field, "is required")
    try:
        return time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(field, "is no time between the years 1 and 9999") from None


def _read_words(message: pb.WholeItem) -> list[ItemWord] | None:
    if not message.has_words:
        if message.words:
            raise InvalidArgument("has_words", "must be set where there are words")
        return None
    size, words = 0, []
    for position, word in enumerate(message.words):
        with _within(f"words[{position}]."):
            check_text(word.lexeme, "lexeme", _MAX_LEXEME_BYTES)
            check_count(len(word.positions), "positions", _MAX_POSITIONS)
            if not all(0 < place <= _MAX_POSITION for place in word.positions):
                raise InvalidArgument("positions", f"must be from 1 to {_MAX_POSITION}", limit=_MAX_POSITION)
        size += len(word.lexeme.encode()) + 4 + 2 * len(word.positions)
        words.append(ItemWord(word.lexeme, list(word.positions)))
    if size > _MAX_WORDS_BYTES:
        problem = f"have {size} bytes, at most {_MAX_WORDS_BYTES} are allowed"
        raise InvalidArgument("words", problem, limit=_MAX_WORDS_BYTES)
    return words


def write_outcomes(outcomes: Sequence[RestoreOutcome]) -> pb.RestoreItemsResponse:
    """Returns the response with the outcomes."""
    return pb.RestoreItemsResponse(outcomes=[_OUTCOMES[outcome] for outcome in outcomes])
