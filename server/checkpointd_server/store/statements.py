"""The SQL, read from the .sql files beside this module.

A file holds statements and fragments, each begun by a line that names it and described by the comments below:

    -- name: put_checkpoint
    -- fragment: put_checkpoint_rows

A line `-- include: put_checkpoint_rows` stands for that fragment. The only thing that is ever put into the text is the
schema's name, quoted, for `__schema__`; values are bound. Comments don't go to the database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

_HEADING = re.compile(r"^-- (name|fragment): (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"^ *-- include: (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^ *--.*\n?", re.MULTILINE)
_SCHEMA = "__schema__"


def quote_identifier(name: str) -> str:
    """Quotes a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Quotes a text for SQL."""
    escape = "E" if "\\" in text else ""
    return escape + "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def with_schema(sql: str, schema: str) -> str:
    """Puts the schema's quoted name into SQL. Inside a literal, as nextval takes it, it is quoted once more."""
    quoted = quote_identifier(schema)
    in_literals = re.sub(rf"'{_SCHEMA}(\.\w+)'", lambda match: quote_literal(quoted + match.group(1)), sql)
    return in_literals.replace(_SCHEMA, quoted)


def load_statements(schema: str, folder: Traversable | None = None) -> Mapping[str, str]:
    """Returns every statement by its name, ready for a schema.

    Args:
        schema: The schema.
        folder: Where the .sql files are. None: the store's own.
    """
    bodies: dict[str, str] = {}
    names: list[str] = []
    folder = folder or files(__package__).joinpath("sql")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        _, *parts = _HEADING.split(file.read_text(encoding="utf-8"))
        for kind, name, body in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
            if name in bodies:
                raise ValueError(f"two statements are named {name}")
            bodies[name] = body
            if kind == "name":
                names.append(name)

    def include(match: re.Match[str]) -> str:
        return expand(match.group(1))

    def expand(name: str) -> str:
        return _INCLUDE.sub(include, bodies[name]).strip("\n")

    return {name: with_schema(_COMMENT.sub("", expand(name)), schema).strip() for name in names}
