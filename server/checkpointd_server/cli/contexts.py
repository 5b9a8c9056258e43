"""Named servers, in a file of the user: their addresses, tokens and TLS files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A server, and how to connect to it."""

    name: str
    target: str
    """HOST:PORT or unix:PATH, or several separated by commas."""
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    """A file that holds the token. It is read for each command."""
    insecure_token: bool = False
    tls: bool = False
    tls_ca: Path | None = None
    tls_client_cert: Path | None = None
    tls_client_key: Path | None = None

    def read_token(self) -> str | None:
        """Returns the token, or None if there is none. Raises ClickException if its file can't be read."""
        if self.token_file is None:
            return self.token
        try:
            return self.token_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it isn't text"
            raise click.ClickException(f"context {self.name}: {self.token_file} can't be read: {reason}") from None

    def as_json(self, *, with_token: bool) -> dict[str, Any]:
        """Returns the settings that differ from their defaults, by name, without the context's own name."""
        found: dict[str, Any] = {}
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            if setting.name != "name" and value not in (None, False):
                found[setting.name] = str(value) if isinstance(value, Path) else value
        if "token" in found and not with_token:
            found["token"] = "..."  # noqa: S105
        return found

    @classmethod
    def from_json(cls, name: str, found: Mapping[str, Any]) -> Self:
        """Reads what `as_json` returned. Raises TypeError or ValueError for anything else."""
        values: dict[str, Any] = dict(found)
        for setting in dataclasses.fields(cls):
            value = values.get(setting.name)
            if value is None:
                continue
            if not isinstance(value, type(setting.default) if setting.default is False else str):
                raise TypeError(setting.name)
            if "Path" in str(setting.type):
                values[setting.name] = Path(str(value))
        return cls(name=name, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """The file of contexts as it was read. Each change writes a new file, readable only by its owner."""

    path: Path
    by_name: Mapping[str, Context]
    current: str | None
    """The context of commands that name no server."""

    @classmethod
    def load(cls) -> Self:
        """Reads the user's file. Raises ClickException if it is unreadable or malformed."""
        path = config_dir() / "contexts.json"
        try:
            found = json.loads(path.read_text())
            contexts = {name: Context.from_json(name, entry) for name, entry in found["contexts"].items()}
            current = found.get("current")
            if current is not None and current not in contexts:
                raise ValueError(current)
        except FileNotFoundError:
            return cls(path=path, by_name={}, current=None)
        except OSError as error:
            raise click.ClickException(f"{path} can't be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise click.ClickException(
                f"{path} is not a valid file of contexts: repair it, or remove it and add them again"
            ) from None
        return cls(path=path, by_name=contexts, current=current)

    def get(self, name: str) -> Context:
        """Returns a context. Raises UsageError if there is none of that name."""
        if name not in self.by_name:
            known = f"known: {', '.join(sorted(self.by_name))}" if self.by_name else "there are none yet"
            raise click.UsageError(f"there is no context {name!r} ({known}); `checkpointd context add` adds one")
        return self.by_name[name]

    def current_context(self) -> Context | None:
        """Returns the one in use, if any."""
        return None if self.current is None else self.by_name[self.current]

    def add(self, context: Context, *, use: bool) -> None:
        """Writes the file with a context added or replaced, and makes it the one in use if `use`."""
        if not _NAME.fullmatch(context.name):
            raise click.UsageError(
                f"{context.name!r} is not a context's name: up to 64 letters, digits, dots, dashes and underscores"
            )
        self._write({**self.by_name, context.name: context}, context.name if use else self.current)

    def use(self, name: str | None) -> None:
        """Writes the file with another context in use; None: none."""
        self._write(self.by_name, None if name is None else self.get(name).name)

    def remove(self, name: str) -> None:
        """Writes the file without a context."""
        self.get(name)
        rest = {other: context for other, context in self.by_name.items() if other != name}
        self._write(rest, None if self.current == name else self.current)

    def _write(self, contexts: Mapping[str, Context], current: str | None) -> None:
        entries = {name: contexts[name].as_json(with_token=True) for name in sorted(contexts)}
        content = json.dumps({"current": current, "contexts": entries}, indent=2) + "\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Readable only by its owner from the start; concurrent readers see the complete old file.
            descriptor, scratch = tempfile.mkstemp(prefix=".contexts-", dir=self.path.parent)
            try:
                with os.fdopen(descriptor, "w") as file:
                    file.write(content)
                Path(scratch).replace(self.path)
            except BaseException:
                Path(scratch).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise click.ClickException(f"{self.path} can't be written: {error.strerror}") from None


def config_dir() -> Path:
    """Returns the user's folder for checkpointd's configuration (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification says to ignore relative paths.
    return Path(base if os.path.isabs(base) else Path.home() / ".config") / "checkpointd"
