"""PortableSerializer: values in the form that LangGraph.js reads and writes.

What both languages have is carried: messages of LangChain, texts, numbers, booleans, None, lists, maps, sets and bytes,
and LangGraph's own interrupts, sends and snapshots of delta channels. What isn't is refused, by its name and its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core import messages
from langgraph.checkpoint.grpc.errors import CheckpointdError
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, TASKS, _DeltaSnapshot

LARGEST_INTEGER = 2**53 - 1
"""The largest whole number that JavaScript holds exactly."""

_MESSAGES: Mapping[str, type[messages.BaseMessage]] = {
    kind.__name__: kind
    for kind in (
        messages.AIMessage,
        messages.AIMessageChunk,
        messages.ChatMessage,
        messages.ChatMessageChunk,
        messages.FunctionMessage,
        messages.FunctionMessageChunk,
        messages.HumanMessage,
        messages.HumanMessageChunk,
        messages.RemoveMessage,
        messages.SystemMessage,
        messages.SystemMessageChunk,
        messages.ToolMessage,
        messages.ToolMessageChunk,
    )
}
_JS_MODULE = ["langchain_core", "messages"]
_REVIVED = {1, 2}
"""The mark of LangChain's and LangGraph.js's own objects, under the key "lc"."""


class UnportableValueError(CheckpointdError, TypeError):
    """A value can't be carried to the other language. Nothing was stored.

    Attributes:
        path: Where in the value it is, e.g. "messages[2].content"; "" for the value itself.
    """

    def __init__(self, message: str, path: str = "") -> None:
        self.path = path
        super().__init__(message, path)

    def __str__(self) -> str:
        return f"{self.path or 'the value'}: {self.args[0]}"


class SerializerMismatchError(CheckpointdError):
    """A thread was written by another serializer than this saver's. Nothing of it was returned, and nothing was stored.

    Attributes:
        thread_id: The thread.
        type: The type tag of what was found, e.g. "json"; "" where the server has refused a write.
        family: The family of the serializer that it was written by: "langgraph-msgpack" for LangGraph's own,
            "langgraph-json" for that of LangGraph.js and PortableSerializer, "other" for any other.
    """

    def __init__(self, thread_id: str, type: str = "", *, family: str = "") -> None:
        self.thread_id = thread_id
        self.type = type
        self.family = family or family_name(type)
        super().__init__(thread_id, type)

    def __str__(self) -> str:
        match self.family:
            case "langgraph-json":
                how = "LangGraph.js, or PortableSerializer: use GrpcSaver(serde=PortableSerializer())"
            case "langgraph-msgpack" if self.type.startswith("pickle"):
                how = "LangGraph's own serializer, with pickle_fallback=True: use the same"
            case "langgraph-msgpack":
                how = "LangGraph's own serializer: use a GrpcSaver without `serde`"
            case _:
                how = "another serializer than this saver's: use the one that has written it"
        found = f" (its values have the type {self.type!r})" if self.type else ""
        return f"thread {self.thread_id!r} was written by {how}{found}"


def family_name(type_tag: str) -> str:
    """Returns the family of the serializer that gives values this type, as the server names it.

    Args:
        type_tag: The type of a checkpoint's metadata.
    """
    return _FAMILY_NAMES.get(type_tag.partition("+")[0], "other")


_FAMILY_NAMES = {"msgpack": "langgraph-msgpack", "pickle": "langgraph-msgpack", "json": "langgraph-json"}


class PortableSerializer(SerializerProtocol):
    """Turns values into the JSON of LangGraph.js, and back: for threads that both languages read and write.

    Whole floats come back from JavaScript as integers, tuples as lists, and maps with other keys than texts as dicts.

    Example:
        ```python
        saver = GrpcSaver(serde=PortableSerializer())
        ```
    """

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Returns the type and the bytes of a value.

        Args:
            obj: The value.

        Raises:
            UnportableValueError: LangGraph.js couldn't read it.
        """
        if isinstance(obj, bytes | bytearray | memoryview):
            return "bytes", bytes(obj)
        try:
            text = json.dumps(_encoded(obj, ""), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return "json", text.encode()
        except RecursionError:
            raise UnportableValueError("it nests too deep, or holds itself") from None

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Returns the value of a type and bytes.

        Args:
            data: The type tag and the bytes.

        Raises:
            UnportableValueError: The type is that of another serializer.
            ValueError: The bytes aren't JSON.
        """
        type_tag, content = data
        if type_tag == "bytes":
            return content
        if type_tag != "json":
            raise UnportableValueError(f"its type is {type_tag!r}, which PortableSerializer doesn't read")
        return json.loads(content, object_hook=_revived)

    @staticmethod
    def restored(channel: str, value: Any) -> Any:
        """Returns what LangGraph expects on a channel: in JSON its own objects are plain maps.

        Args:
            channel: The channel's name.
            value: What was read there.
        """
        if channel == INTERRUPT and isinstance(value, list):
            return tuple(map(_interrupt, value))
        if channel == TASKS:
            return [_send(each) for each in value] if isinstance(value, list) else _send(value)
        if channel == ERROR and isinstance(value, dict) and set(value) >= {"name", "message"}:
            # As LangGraph's own serializer has it.
            return f"{value['name']}({value['message']!r})"
        return value


def _encoded(value: Any, path: str) -> Any:
    """Returns a value as JSON has it. Raises UnportableValueError."""
    encode = _ENCODERS.get(type(value)) or _encoder(type(value))
    return encode(value, path)


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UnportableValueError("it holds a lone surrogate, which JSON doesn't carry", path) from None
    return value


def _integer(value: int, path: str) -> int:
    if abs(value) > LARGEST_INTEGER:
        raise UnportableValueError(f"JavaScript doesn't hold integers beyond {LARGEST_INTEGER} exactly", path)
    return value


def _float(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise UnportableValueError("JSON has no infinity and no NaN", path)
    return value


def _list(value: Any, path: str) -> list[Any]:
    return [_encoded(item, f"{path}[{at}]") for at, item in enumerate(value)]


def _map(value: Mapping[Any, Any], path: str) -> dict[str, Any]:
    if all(type(key) is str for key in value):
        if value.get("lc") in _REVIVED and "type" in value:
            raise UnportableValueError('a map with the key "lc" would be taken for an object of LangChain', path)
        return {_text(key, path): _encoded(item, f"{path}.{key}" if path else key) for key, item in value.items()}
    entries = [[_encoded(key, path), _encoded(item, f"{path}[{key!r}]")] for key, item in value.items()]
    return _record("Map", [entries])


def _record(name: str, args: list[Any], method: str | None = None) -> dict[str, Any]:
    return {"lc": 2, "type": "constructor", "id": [name], "method": method, "args": args, "kwargs": {}}


def _message(value: messages.BaseMessage, path: str) -> dict[str, Any]:
    fields = dict(value.to_json()["kwargs"])  # type: ignore[typeddict-item]
    fields.pop("type", None)
    encoded = {name: _encoded(item, f"{path}.{name}" if path else name) for name, item in fields.items()}
    return {"lc": 1, "type": "constructor", "id": [*_JS_MODULE, type(value).__name__], "kwargs": encoded}


def _encoded_interrupt(value: Any, path: str) -> dict[str, Any]:
    if getattr(value, "response_schema", None) is None:
        return {"id": value.id, "value": _encoded(value.value, path)}
    schema = _encoded(value.response_schema, f"{path}.response_schema")
    return {"id": value.id, "value": _encoded(value.value, path), "response_schema": schema}


def _encoded_send(value: Any, path: str) -> dict[str, Any]:
    if getattr(value, "timeout", None) is not None:
        raise UnportableValueError("a Send with a timeout, which the other language counts otherwise", path)
    return {"node": value.node, "args": _encoded(value.arg, path)}


def _refused(value: Any, path: str) -> Any:
    kind = type(value)
    raise UnportableValueError(f"PortableSerializer can't carry {kind.__module__}.{kind.__qualname__}", path)


_ENCODERS: dict[type, Callable[[Any, str], Any]] = {
    type(None): lambda value, path: value,
    bool: lambda value, path: value,
    str: _text,
    int: _integer,
    float: _float,
    list: _list,
    tuple: _list,
    dict: _map,
    set: lambda value, path: _record("Set", [_list(value, path)]),
    frozenset: lambda value, path: _record("Set", [_list(value, path)]),
    bytes: lambda value, path: _record("Uint8Array", [list(value)], "from"),
    bytearray: lambda value, path: _record("Uint8Array", [list(value)], "from"),
    _DeltaSnapshot: lambda value, path: {"lc": 2, "type": "delta_snapshot", "value": _encoded(value.value, path)},
    **dict.fromkeys(_MESSAGES.values(), _message),
}


def _encoder(kind: type) -> Callable[[Any, str], Any]:
    """Returns how values of a type that isn't plain are encoded. LangGraph's own types are known by their names."""
    match kind.__module__, kind.__qualname__:
        case "langgraph.types", "Interrupt":
            return _encoded_interrupt
        case "langgraph.types", "Send":
            return _encoded_send
        case "langgraph.types", "Overwrite":
            return lambda value, path: {"__overwrite__": _encoded(value.value, path)}
    if issubclass(kind, BaseException):
        return lambda value, path: {"name": kind.__name__, "message": str(value)}
    return _refused


def _revived(found: dict[str, Any]) -> Any:
    """Returns the object that a map of JSON stands for, or the map itself. Raises UnportableValueError."""
    mark, kind = found.get("lc"), found.get("type")
    if mark == 1 and kind == "constructor":
        return _revived_message(found)
    if mark != 2:
        return found
    if kind == "undefined":
        return None
    if kind == "delta_snapshot":
        return _DeltaSnapshot(found.get("value"))
    match found:
        case {"type": "constructor", "id": ["Set"], "args": [list(items)]}:
            return set(items)
        case {"type": "constructor", "id": ["Map"], "args": [list(entries)]}:
            return dict(entries)
        case {"type": "constructor", "id": ["Uint8Array"], "args": [list(numbers)]}:
            return bytes(numbers)
    raise UnportableValueError(f"it holds an object of JavaScript that Python has none for: {found.get('id')}")


def _revived_message(found: dict[str, Any]) -> messages.BaseMessage:
    identity, fields = found.get("id"), found.get("kwargs")
    name = identity[-1] if isinstance(identity, list) and identity else None
    made = _MESSAGES.get(name) if isinstance(name, str) else None
    if made is None or not isinstance(fields, dict):
        raise UnportableValueError(f"it holds an object of LangChain that isn't a message: {identity}")
    given = {key: value for key, value in fields.items() if value is not None and key != "type"}
    if made is messages.RemoveMessage:
        given.pop("content", None)
    return made(**given)


def _interrupt(value: Any) -> Any:
    from langgraph.types import Interrupt

    if not isinstance(value, dict) or "value" not in value:
        return value
    known = {key: value[key] for key in ("id", "response_schema") if value.get(key) is not None}
    return Interrupt(value["value"], **known)


def _send(value: Any) -> Any:
    from langgraph.types import Send

    if not isinstance(value, dict) or "node" not in value:
        return value
    if value.get("timeout") is not None:
        raise UnportableValueError("it holds a Send with a timeout, which JavaScript counts otherwise")
    return Send(value["node"], value.get("args"))
