"""Stored values as plain data, for people to read.

No class is imported or instantiated: an object that LangGraph serialized under its type's name is shown with that
name. Unreadable values (encrypted, pickled, corrupt) are shown as their tag and size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgpack

# The extension types of LangGraph's JsonPlusSerializer (langgraph.checkpoint.serde.jsonplus). The payload of each is
# msgpack again: (module, name, argument, ...).
_SINGLE_ARGUMENT = 0
_POSITIONAL_ARGUMENTS = 1
_KEYWORD_ARGUMENTS = 2
_METHOD_ARGUMENT = 3
_PYDANTIC = (4, 5)
_NUMPY_ARRAY = 6
_DELTA_SNAPSHOT = 7

_MAX_DEPTH = 100

TYPE = "$type"
VALUE = "$value"
ARGUMENTS = "$args"
BYTES = "$bytes"
EXTENSION = "$ext"
TAG = "$serialized"
FLOAT = "$float"


def plain(type: str, data: bytes) -> Any:
    """Returns a serialized value as JSON has it: None, bool, int, float, str, list and dict with text keys.

    Anything that JSON lacks is a dict with keys that begin with "$" (a stored key that does gets one more):

    - an object: {"$type": "module.Name", ...its fields}, or {"$type": ..., "$value": argument} or {"$type": ...,
      "$args": [...]} if it was built from arguments
    - bytes: {"$bytes": length}
    - NaN and infinities: {"$float": "nan"}
    - unreadable, large, or nested more than 100 levels deep: {"$serialized": tag, "$bytes": length}

    Never raises.
    """
    try:
        match type:
            case "null" | "empty":
                return None
            case "msgpack":
                return _unpack(data, 0)
            case "json":
                return _plain(json.loads(data), 0)
            case "bytes" | "bytearray":
                return {BYTES: len(data)}
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException):
        pass
    return left_out(type, len(data))


def left_out(type: str, size: int) -> Any:
    """Returns the placeholder of a serialized value that isn't shown."""
    return {TAG: type, BYTES: size}


def text(value: Any) -> str:
    """Returns plain data as one line of text, similar to Python's repr, without empty fields.

    Control characters are escaped: a stored value can't control the terminal.
    """
    if isinstance(value, list):
        return f"[{', '.join(map(text, value))}]"
    if not isinstance(value, dict):
        return repr(value)
    if TAG in value:
        return f"<{_printable(value[TAG])}, {value[BYTES]} bytes>"
    if EXTENSION in value:
        return f"<extension {value[EXTENSION]}, {value[BYTES]} bytes>"
    if TYPE in value:
        return _object_text(value)
    if FLOAT in value:
        return str(value[FLOAT])
    if BYTES in value:
        return f"<{value[BYTES]} bytes>"
    return "{" + ", ".join(f"{key!r}: {text(item)}" for key, item in value.items()) + "}"


def _object_text(value: Mapping[str, Any]) -> str:
    name = _printable(value[TYPE].rpartition(".")[2])
    if VALUE in value:
        return f"{name}({text(value[VALUE])})"
    if ARGUMENTS in value:
        return f"{name}({', '.join(map(text, value[ARGUMENTS]))})"
    fields = ((key, item) for key, item in value.items() if key != TYPE and item not in (None, "", [], {}))
    return f"{name}({', '.join(f'{_printable(key)}={text(item)}' for key, item in fields)})"


class _Pairs(list[tuple[Any, Any]]):
    """A map with any keys, even ones that aren't hashable in Python."""


def _unpack(data: bytes, depth: int) -> Any:
    # The unpacker allocates by the lengths that data claims. Skipping doesn't, and checks them.
    unpacker = msgpack.Unpacker(max_buffer_size=len(data), read_size=max(len(data), 1))
    unpacker.feed(data)
    unpacker.skip()
    # Extensions are decoded later, not by a hook: hooks recurse in C, where hostile data would overflow the stack.
    value = msgpack.unpackb(
        data, object_pairs_hook=_Pairs, strict_map_key=False, unicode_errors="surrogatepass", timestamp=0
    )
    return _plain(value, depth)


def _plain(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise RecursionError
    match value:
        case msgpack.ExtType():
            return _object(value.code, value.data, depth + 1)
        case _Pairs():
            return {_key(key, depth + 1): _plain(item, depth + 1) for key, item in value}
        case dict():
            return {_key(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
        case list():
            return [_plain(item, depth + 1) for item in value]
        case bytes():
            return {BYTES: len(value)}
        case float() if not math.isfinite(value):
            return {FLOAT: str(value)}
        case msgpack.Timestamp():
            return {TYPE: "msgpack.Timestamp", VALUE: f"{value.seconds}.{value.nanoseconds:09}"}
    return value


def _key(key: Any, depth: int) -> str:
    """Returns a map's key as text. One that looks like ours gets another "$"."""
    if isinstance(key, str):
        return f"${key}" if key.startswith("$") else key
    return text(_plain(key, depth))


def _object(code: int, data: bytes, depth: int) -> Any:
    try:
        content = _unpack(data, depth)
        if code == _DELTA_SNAPSHOT:
            return {TYPE: "langgraph.DeltaSnapshot", VALUE: content}
        if code == _NUMPY_ARRAY:
            dtype, shape, _, elements = content
            return {TYPE: "numpy.ndarray", "dtype": dtype, "shape": shape, "elements": elements}
        module, name, argument, *_ = content
        if isinstance(module, str) and isinstance(name, str):
            named = {TYPE: f"{module}.{name}"}
            if code in (_KEYWORD_ARGUMENTS, *_PYDANTIC) and isinstance(argument, dict):
                return {**named, **argument}
            if code == _POSITIONAL_ARGUMENTS and isinstance(argument, list):
                return {**named, ARGUMENTS: argument}
            if code in (_SINGLE_ARGUMENT, _METHOD_ARGUMENT):
                return {**named, VALUE: argument}
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        pass
    return {EXTENSION: code, BYTES: len(data)}


def _printable(name: str) -> str:
    """Returns a name without quotes, its control characters escaped."""
    return repr(name)[1:-1]
