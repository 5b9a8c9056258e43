"""The SQL, read from the .sql files beside this module.

Each statement in a file begins with a line that names it, and is described by the comments below:

    -- name: put_part

Only the schema's quoted name is inserted into the text, for `__schema__`; values are bound. Comments aren't sent to the
database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_HEADING = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
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
    """Inserts the schema's quoted name into SQL. Inside a literal, as for nextval, it is quoted again."""
    quoted = quote_identifier(schema)
    in_literals = re.sub(rf"'{_SCHEMA}(\.\w+)'", lambda match: quote_literal(quoted + match.group(1)), sql)
    return in_literals.replace(_SCHEMA, quoted)


def without_comments(sql: str) -> str:
    """Returns SQL without its lines of comments, which are for us and not for the database."""
    return _COMMENT.sub("", sql).strip()


def load_statements(schema: str, folder: Traversable | None = None) -> Mapping[str, str]:
    """Returns every statement by its name, ready for a schema.

    Args:
        schema: The schema.
        folder: The folder of the .sql files. None: the store's own.

    Raises:
        ValueError: Two statements have the same name.
    """
    return _own_statements(schema) if folder is None else _read_statements(schema, folder)


@cache
def _own_statements(schema: str) -> Mapping[str, str]:
    return _read_statements(schema, files(__package__).joinpath("sql"))


def _read_statements(schema: str, folder: Traversable) -> Mapping[str, str]:
    statements: dict[str, str] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        _, *parts = _HEADING.split(file.read_text(encoding="utf-8"))
        for name, body in zip(parts[0::2], parts[1::2], strict=True):
            if name in statements:
                raise ValueError(f"two statements are named {name}")
            statements[name] = with_schema(without_comments(body), schema)
    return statements
