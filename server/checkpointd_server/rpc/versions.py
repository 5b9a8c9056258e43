"""Channel versions: three types on the wire, tagged text in the store.

The first character of the text is the type: "s" text, "i" integer, "f" float. The round trip is exact: Python's `repr`
of a float is the shortest text that reads back as the same float, and it keeps -0.0 and the infinities.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from checkpointd.v1.values_pb2 import ChannelVersion
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.validation import are_plain, check_optional_text


def read_version(version: ChannelVersion, field: str, limits: Limits) -> str:
    """Returns a version of a request as tagged text. Raises InvalidArgument."""
    kind = version.WhichOneof("value")
    if kind == "text":
        check_optional_text(version.text, f"{field}.text", limits.max_channel_version_bytes)
        return "s" + version.text
    if kind == "integer":
        return f"i{version.integer}"
    if kind == "number":
        if isnan(version.number):
            raise InvalidArgument(f"{field}.number", "is NaN, which is no version")
        return f"f{version.number!r}"
    raise InvalidArgument(field, "is required: set text, integer or number")


def read_plain_versions(versions: Sequence[ChannelVersion], limits: Limits) -> list[str] | None:
    """Returns versions as tagged texts if all are ordinary texts, as LangGraph's are; None: read them one by one."""
    texts = [version.text for version in versions]
    return ["s" + text for text in texts] if are_plain(texts, limits.max_channel_version_bytes) else None


def write_version(text: str, version: ChannelVersion) -> None:
    """Writes tagged text into a version of an answer."""
    kind = text[0]
    if kind == "s":
        version.text = text[1:]
    elif kind == "i":
        version.integer = int(text[1:])
    elif kind == "f":
        version.number = float(text[1:])
    else:
        raise ValueError(f"unknown kind of channel version: {kind!r}")
