r"""The searchable part of metadata: msgpack in, the text of a JSON object out.

The index of a checkpoint and the filter of a list are projected by the same rules, and different values are always
written differently: so the JSON of one contains the JSON of the other exactly if the values do. What JSON and
PostgreSQL can't represent is written as text after an escape character, which is doubled where it occurs itself:

    NUL, lone surrogate       \ue000 u 4 hex digits
    \ue000                    \ue000 \ue000
    NaN, infinities           \ue000 d nan | inf | -inf
    bytes                     \ue000 b base64
    timestamp                 \ue000 t seconds . nanoseconds
    other extension           \ue000 x code : base64
    a key that is not text    \ue000 k its value's JSON (or the value itself where it's one of the above)

Numbers are equal where Python's are: 1 and 1.0 are, 1 and true are not.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from contextlib import suppress
from json import JSONEncoder, loads
from math import isfinite
from typing import Any, NamedTuple
from zlib import crc32

import msgpack

from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.threads import VOLATILE_KEYS
from checkpointd_server.domain.values import TypedValue

ESCAPE = "\ue000"
"""Begins what JSON and PostgreSQL can't represent."""
UNSAFE = re.compile("[\0\ud800-\udfff\ue000]")
_ESCAPED = re.compile("\ue000(?:u([0-9a-f]{4})|\ue000)")
to_json = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

_MAX_KEYS_IN_KEYS = 2
"""Maximum nesting of lists and maps as keys within keys. Each level quotes the text again, which doubles it."""
_MAX_ENTRIES = 10_000
"""Maximum number of entries that are tried to find those that fit into an implicit index."""
_OWN_KEYS = ("counters_since_delta_snapshot", "delta_writes_versioned", "parents", "run_id", "source", "step")
"""LangGraph's own entries, which the server uses: they have precedence."""
_OWN_BYTES = 128 * 1024
"""Their maximum total size, in bytes. The counters of a thousand channels take a third of it."""
_COUNTERS, _STEP = "counters_since_delta_snapshot", "step"
_PACKED_OWN_KEYS = {bytes(msgpack.packb(key)): key for key in _OWN_KEYS}
_LONGEST_OWN_KEY = max(map(len, _PACKED_OWN_KEYS)) + 1
_ORDINARY_CONTAINERS = 32
"""Maximum number of maps and lists in metadata for the fast path: then it can't be nested too deeply."""
_ORDINARY_ENTRIES = 256
"""Maximum number of entries of each of them."""


class Projection(NamedTuple):
    """The searchable part of metadata."""

    json: str
    """A JSON object, as text."""
    run_id: str | None
    """The metadata's run_id, if it is text that a DeleteRuns request could name."""
    fingerprint: int
    """A hash to detect changes, without what changes in every step (`domain.threads.VOLATILE_KEYS`)."""


def project_filter(data: bytes, limits: Limits, *, field: str = "filter") -> str | None:
    """Returns a list's filter as JSON, or None. Raises InvalidArgument."""
    if not data:
        return None
    return to_json(_project_strictly(data, field, limits))


def project_metadata(metadata: TypedValue, index: bytes, limits: Limits) -> Projection:
    """Returns the searchable part of a checkpoint's metadata.

    An explicit index must keep the limits. Of the metadata's own value, which may have any size, entries are left out
    until it fits (see Metadata.index in values.proto).

    Args:
        metadata: The metadata's value.
        index: The part that its client wants searchable. Empty: the value itself.
        limits: The limits of both.

    Raises:
        InvalidArgument: There is no usable index.
    """
    if index:
        if len(index) <= limits.max_filter_bytes and (ordinary := _project_ordinary(index, limits)) is not None:
            return ordinary
        entries = _project_strictly(index, "metadata.index", limits)
        return Projection(to_json(entries), _run_id(entries, limits), _fingerprint(entries))
    if metadata.type == "json":
        data = _pack_json(metadata.data, limits)
    elif metadata.type == "msgpack":
        data = metadata.data
    else:
        raise InvalidArgument(
            "metadata.index", f"is required where metadata.value is not 'msgpack' or 'json' but {metadata.type!r}"
        )
    if len(data) > limits.max_filter_bytes:
        pairs: Iterable[tuple[Any, Any]] = _fitting(data, limits)
    elif (ordinary := _project_ordinary(data, limits)) is not None:
        return ordinary
    else:
        pairs = read_map(data, "metadata.value")
    entries = {}
    complete = True
    for key, entry in pairs:
        try:
            entries[project_key(key, limits.max_filter_depth - 1)] = project(entry, limits.max_filter_depth - 1)
        except TooDeep:
            complete = complete and key != _COUNTERS
    if not complete:
        entries.pop(_STEP, None)
    return Projection(to_json(entries), _run_id(entries, limits), _fingerprint(entries))


def _pack_json(data: bytes, limits: Limits) -> bytes:
    """Returns JSON as msgpack. Its size is limited, because it is parsed as a whole."""
    if len(data) > limits.max_filter_bytes:
        limit = limits.max_filter_bytes
        problem = f"is required where metadata.value is JSON of more than {limit} bytes"
        raise InvalidArgument("metadata.index", problem, limit=limit)
    try:
        packed: bytes = msgpack.packb(loads(data), unicode_errors="surrogatepass")
    except (ValueError, OverflowError, RecursionError):
        raise InvalidArgument(
            "metadata.value", "is not JSON, nests too deep, or holds an integer of over 64 bits"
        ) from None
    return packed


def _project_ordinary(data: bytes, limits: Limits) -> Projection | None:
    """Returns the searchable part of metadata that JSON represents as it is, as for nearly all. None: use `project`.

    It does in a few passes in C what `project` does entry by entry.
    """
    try:
        content = msgpack.unpackb(data, max_array_len=_ORDINARY_ENTRIES, max_map_len=_ORDINARY_ENTRIES, max_ext_len=0)
        json = to_json(content)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None
    if (
        type(content) is not dict
        or json.count("{") + json.count("[") > min(_ORDINARY_CONTAINERS, limits.max_filter_depth)
        or "\\u0000" in json
        or ESCAPE in json
    ):
        return None
    run_id = content.get("run_id")
    return Projection(json, _usable_run_id(run_id, limits) if type(run_id) is str else None, _fingerprint(content))


def _fingerprint(entries: dict[str, Any]) -> int:
    # Collisions are harmless: a writer could only hide its own thread from filters.
    return crc32(repr([entry for entry in entries.items() if entry[0] not in VOLATILE_KEYS]).encode())


def _project_strictly(data: bytes, field: str, limits: Limits) -> dict[str, Any]:
    if len(data) > limits.max_filter_bytes:
        limit = limits.max_filter_bytes
        raise InvalidArgument(field, f"has {len(data)} bytes, at most {limit} are allowed", limit=limit)
    try:
        return project_map(read_map(data, field), limits.max_filter_depth)
    except TooDeep:
        limit = limits.max_filter_depth
        problem = f"nests more than {limit} deep, or keys in keys more than {_MAX_KEYS_IN_KEYS}"
        raise InvalidArgument(field, problem, limit=limit) from None


class TooDeep(Exception):
    """A value is nested too deeply."""


class PairMap(list[tuple[Any, Any]]):
    """A msgpack map as pairs. A dict would merge different keys (1 and true) and fail for lists."""

    __slots__ = ()


def read_map(data: bytes, field: str) -> PairMap:
    """Unpacks a map. Memory use is at most a small multiple of the bytes' length, whatever they are.

    Args:
        data: A msgpack map.
        field: The name of the field in errors.

    Raises:
        InvalidArgument: The bytes are no msgpack, or no map.
    """
    try:
        # The unpacker allocates by the lengths that msgpack claims. Skipping doesn't, and fails unless the claimed
        # bytes are there.
        unpacker = _unpacker(data)
        unpacker.skip()
        if unpacker.tell() != len(data):
            raise InvalidArgument(field, "has bytes behind the end of the msgpack map")
        content = _unpack(data)
    except (ValueError, msgpack.UnpackException):
        raise InvalidArgument(field, "is not msgpack") from None
    if type(content) is not PairMap:
        raise InvalidArgument(field, "is not a msgpack map")
    return content


def _unpacker(data: bytes) -> Any:
    unpacker = msgpack.Unpacker(max_buffer_size=len(data), read_size=len(data))
    unpacker.feed(data)
    return unpacker


def _unpack(data: bytes | memoryview) -> Any:
    # Extensions stay ExtType or Timestamp: no user's class is instantiated.
    return msgpack.unpackb(data, strict_map_key=False, object_pairs_hook=PairMap, unicode_errors="surrogatepass")


def _fitting(data: bytes, limits: Limits) -> Iterable[tuple[Any, Any]]:
    """Returns a large map's entries without the largest: the rest fits into an index. LangGraph's own come first.

    If "step" is present, the store relies on complete counters: without them it is left out too.
    """
    field = "metadata.value"
    view = memoryview(data)
    spans: list[tuple[int, int, int]] = []
    try:
        unpacker = _unpacker(data)
        unpacker.skip()
        if unpacker.tell() != len(data):
            raise InvalidArgument(field, "has bytes behind the end of the msgpack map")
        unpacker = _unpacker(data)
        size = unpacker.read_map_header()
        start = unpacker.tell()
        for _ in range(min(size, _MAX_ENTRIES)):
            unpacker.skip()
            middle = unpacker.tell()
            unpacker.skip()
            end = unpacker.tell()
            spans.append((start, middle, end))
            start = end
        own: dict[bytes, tuple[int, int, int]] = {}
        others: list[tuple[int, int, int]] = []
        for span in spans:
            key = data[span[0] : min(span[1], span[0] + _LONGEST_OWN_KEY)]
            if key in _PACKED_OWN_KEYS:
                own[key] = span
            else:
                others.append(span)
        fitting: list[tuple[Any, Any]] = []
        room, complete = _OWN_BYTES, size <= _MAX_ENTRIES
        for packed, name in _PACKED_OWN_KEYS.items():
            if packed not in own or (name == _STEP and not complete):
                continue
            start, middle, end = own[packed]
            if end - start <= room:
                room -= end - start
                fitting.append((name, _unpack(view[middle:end])))
                complete = complete or name == _COUNTERS
            elif name == _COUNTERS:
                complete = False
        room = limits.max_filter_bytes
        for start, middle, end in sorted(others, key=lambda span: span[2] - span[0]):
            room -= end - start
            if room < 0:
                break
            fitting.append((_unpack(view[start:middle]), _unpack(view[middle:end])))
    except (ValueError, msgpack.UnpackException):
        raise InvalidArgument(field, "is not a msgpack map") from None
    return fitting


def project(value: Any, depth: int, keys: int = 0) -> Any:
    """Returns a value in a form that JSON can represent.

    Args:
        value: What msgpack was unpacked to.
        depth: How many levels of lists and maps it may have.
        keys: How many keys of maps it is within: a key may be a list or a map.

    Raises:
        TooDeep: It is nested deeper.
    """
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return value if isfinite(value) else f"{ESCAPE}d{value!r}"
    if kind is PairMap:
        return project_map(value, depth, keys)
    if kind is list:
        if not depth:
            raise TooDeep
        return [project(item, depth - 1, keys) for item in value]
    if kind is bytes:
        return f"{ESCAPE}b{b64encode(value).decode()}"
    if kind is msgpack.Timestamp:
        return f"{ESCAPE}t{value.seconds}.{value.nanoseconds:09}"
    return f"{ESCAPE}x{value.code}:{b64encode(value.data).decode()}"


def project_map(pairs: Iterable[tuple[Any, Any]], depth: int, keys: int = 0) -> dict[str, Any]:
    """Returns a map in a form that JSON can represent. Raises TooDeep."""
    if not depth:
        raise TooDeep
    return {project_key(key, depth - 1, keys): project(value, depth - 1, keys) for key, value in pairs}


def project_key(key: Any, depth: int, keys: int = 0) -> str:
    """Returns a map's key in a form that JSON can represent. Raises TooDeep."""
    if type(key) is str:
        return _text(key)
    if keys == _MAX_KEYS_IN_KEYS and type(key) in (list, PairMap):
        raise TooDeep
    projected = project(key, depth, keys + 1)
    # Such a text begins with the escape character, so no text key equals it.
    return projected if type(projected) is str else f"{ESCAPE}k{to_json(projected)}"


def _text(text: str) -> str:
    return UNSAFE.sub(_escaped, text) if UNSAFE.search(text) else text


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return ESCAPE * 2 if character == ESCAPE else f"{ESCAPE}u{ord(character):04x}"


def _run_id(entries: dict[str, Any], limits: Limits) -> str | None:
    text = entries.get("run_id")
    if type(text) is not str or ESCAPE in text.replace(ESCAPE * 2, ""):
        return None  # It isn't text, or can't be in a request.
    return _usable_run_id(text.replace(ESCAPE * 2, ESCAPE), limits)


def _usable_run_id(run_id: str, limits: Limits) -> str | None:
    return run_id if 0 < len(run_id.encode()) <= limits.max_run_id_bytes else None


def unproject(text: str) -> bytes:
    """Returns msgpack whose projection is this JSON object.

    Entries in which a key isn't text are left out.
    """
    made = {}
    for key, value in loads(text).items():
        with suppress(ValueError, OverflowError):
            made[_unescaped_key(key)] = _unprojected(value)
    return bytes(msgpack.packb(made, unicode_errors="surrogatepass"))


def _unprojected(value: Any) -> Any:
    if isinstance(value, str):
        return _unescaped(value)
    if isinstance(value, list):
        return [_unprojected(item) for item in value]
    if isinstance(value, dict):
        return {_unescaped_key(key): _unprojected(item) for key, item in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)  # PostgreSQL writes large floats with all digits
    return value


def _unescaped_key(text: str) -> str:
    key = _unescaped(text)
    if not isinstance(key, str):
        raise ValueError
    return key


def _unescaped(text: str) -> Any:
    if text.startswith(ESCAPE) and text[1:2] not in ("u", ESCAPE):
        match text[1:2]:
            case "d":
                return float(text[2:])
            case "b":
                return b64decode(text[2:])
            case "t":
                seconds, _, nanoseconds = text[2:].partition(".")
                return msgpack.Timestamp(int(seconds), int(nanoseconds))
            case "x":
                code, _, data = text[2:].partition(":")
                return msgpack.ExtType(int(code), b64decode(data))
        raise ValueError
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else ESCAPE, text)
