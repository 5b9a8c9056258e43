"""Classes that a saver may instantiate from values.

LangGraph's serializer stores an object's class and arguments, and calls the class when it reads. It can't know who
wrote the value.
"""

from __future__ import annotations

from collections.abc import Collection

from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

Strict = bool | Collection["type | tuple[str, ...]"]
"""True: LangGraph's safe types. A collection: these and its types. False: any."""


def strict_serde(strict: Strict, serde: SerializerProtocol | None) -> SerializerProtocol:
    """Returns a serializer that instantiates no other classes.

    Raises:
        InvalidArgumentError: It isn't known which classes those are, or there is a serializer already.
    """
    if serde is not None:
        raise InvalidArgumentError(
            "strict: can't be combined with serde; give the serializer allowed_msgpack_modules", field="strict"
        )
    if isinstance(strict, bool):
        return JsonPlusSerializer(allowed_msgpack_modules=None if strict else True)
    if isinstance(strict, str) or not isinstance(strict, Collection) or not all(map(_names_a_type, strict)):
        raise InvalidArgumentError(
            'strict: must be True, False, or a collection of types or of their ("module", "name")', field="strict"
        )
    return JsonPlusSerializer(allowed_msgpack_modules=tuple(strict) or None)


def _names_a_type(entry: object) -> bool:
    if isinstance(entry, tuple):
        return len(entry) >= 2 and all(isinstance(part, str) for part in entry)
    return isinstance(entry, type)
