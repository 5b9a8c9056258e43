"""Conversion of LangGraph's arguments: texts, ids, versions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc.errors import CorruptValueError, InvalidArgumentError

_ONLY_STR = frozenset({str})


class Key(NamedTuple):
    """A namespace, which has a version."""

    thread_id: str
    checkpoint_ns: str


def namespace(config: RunnableConfig) -> Key:
    """Returns the namespace that a config names. Raises InvalidArgumentError if it names no thread."""
    configurable = config.get("configurable") or {}
    thread_id = configurable.get("thread_id")
    if thread_id is None:
        raise InvalidArgumentError(
            'thread_id: missing; pass config={"configurable": {"thread_id": "..."}}', field="thread_id"
        )
    checkpoint_ns = configurable.get("checkpoint_ns") or ""
    if type(thread_id) is type(checkpoint_ns) is str and thread_id and thread_id.isascii() and checkpoint_ns.isascii():
        return Key(thread_id, checkpoint_ns)
    return Key(thread(thread_id), text("checkpoint_ns", checkpoint_ns))


def checkpoint_id(config: RunnableConfig | None) -> str:
    """Returns the checkpoint id that a config names; "" for none."""
    found = (config or {}).get("configurable", {}).get("checkpoint_id")
    return text("checkpoint_id", found) if found else ""


def config_of(thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> RunnableConfig:
    """Returns the config of a checkpoint: only these three keys, because LangGraph compares configs."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "checkpoint_id": checkpoint_id}}


def thread(thread_id: Any, field: str = "thread_id") -> str:
    """Returns a thread id as text: LangGraph also accepts ints and UUIDs."""
    if not isinstance(thread_id, str) and (
        thread_id is None or isinstance(thread_id, bytes | bytearray | Sequence | Set | Mapping)
    ):
        raise InvalidArgumentError(f"{field}: must be one name, not {type(thread_id).__name__}", field=field)
    name = text(field, thread_id if type(thread_id) is str else str(thread_id))
    if not name:
        raise InvalidArgumentError(f"{field}: must not be empty", field=field)
    return name


def names(field: str, given: Any) -> Iterable[Any]:
    """Returns what was given as a list of names. One name alone would be taken for the names of its letters."""
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Iterable):
        raise InvalidArgumentError(f"{field}: must be a list of names, not {type(given).__name__}", field=field)
    return given


def text(field: str, value: Any) -> str:
    """Returns text that protobuf can encode."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{field}: must be text, not {type(value).__name__}", field=field)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{field}: is not valid Unicode (it holds a lone surrogate)", field=field) from None
    # A str enum: protobuf needs the plain text.
    return value if type(value) is str else str.__str__(value)


def are_plain(values: Collection[Any]) -> bool:
    """Returns whether `text` surely returns all values unchanged, in a few passes in C."""
    return _ONLY_STR.issuperset(map(type, values)) and "".join(values).isascii()


def version_tag(version: Any) -> str:
    """Returns a channel's version as tagged text."""
    kind = type(version)
    if kind is str:
        return f"s{version}" if version.isascii() else "s" + text("channel_versions", version)
    if kind is int and -(2**63) <= version < 2**63:
        return f"i{version}"
    if kind is float:
        return f"f{version!r}"
    raise InvalidArgumentError(
        f"channel_versions: a version must be a str, a 64-bit int or a float, not {kind.__name__}",
        field="channel_versions",
    )


def version_of(tag: str) -> str | int | float:
    """Returns the version of a tagged text. Raises CorruptValueError."""
    kind = tag[:1]
    if kind == "s":
        return tag[1:]
    try:
        if kind == "i":
            return int(tag[1:])
        if kind == "f":
            return float(tag[1:])
    except ValueError:
        pass
    raise CorruptValueError("the server answered with an invalid channel version")
