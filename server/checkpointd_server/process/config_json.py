"""The server's configuration as JSON, as a parent sends it to its workers."""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from checkpointd_server.config import ServeConfig


def dump_config(config: ServeConfig) -> dict[str, Any]:
    """Returns a configuration as a JSON object with an entry for every option.

    It contains the database's password.
    """
    dumped: dict[str, Any] = _dump(config)
    return dumped


def load_config(data: dict[str, Any]) -> ServeConfig:
    """Returns the configuration that was given to `dump_config`.

    Raises:
        KeyError, TypeError, ValueError: It isn't one. That is a bug: parent and worker are of the same build.
    """
    loaded: ServeConfig = _load(ServeConfig, data)
    return loaded


def _dump(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
    match value:
        case Enum():
            return value.value
        case Path():
            return str(value)
        case tuple():
            return [_dump(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{type(value).__name__} has no form in JSON here")


def _load(kind: Any, value: Any) -> Any:
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        (kind,) = (each for each in typing.get_args(kind) if each is not types.NoneType)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: _load(hints[field.name], value[field.name]) for field in dataclasses.fields(kind)})
    if typing.get_origin(kind) is tuple:
        return tuple(_load(typing.get_args(kind)[0], item) for item in value)
    if kind in (bool, int, str) and type(value) is not kind:
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return kind(value)
