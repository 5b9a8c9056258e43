"""Statements that rank items: by vectors, if the database has them, and by words."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from checkpointd_server.store.statements import quote_identifier, with_schema, without_comments

BY_WORDS = "rank_items_by_words"
"""The function that ranks by words: migrations/0020_store."""
_PARAMETERS_BY_WORDS, _PARAMETERS_BY_VECTOR = 8, 6
"""The number of parameters of a function, of which the first is the tenant."""
_RANK = "SELECT * FROM __ranking__"


def ranking_statements(vector_functions: Sequence[str], schema: str) -> dict[str, str]:
    """Returns two statements for each function that ranks: one of its name, and one of `read_` and its name.

    Args:
        vector_functions: The names of those that rank by vectors.
        schema: The schema.
    """
    read = without_comments(files(__package__).joinpath("sql", "read_ranked.sql").read_text(encoding="utf-8"))
    parameters = {BY_WORDS: _PARAMETERS_BY_WORDS, **dict.fromkeys(vector_functions, _PARAMETERS_BY_VECTOR)}
    statements = {}
    for name, count in parameters.items():
        function = f"__schema__.{quote_identifier(name)}"
        ranking = f"{function}($1, {_places(2, count - 1)})"
        ranking_for_reading = f"{function}($1, {_places(5, count - 1)})"
        statements[name] = with_schema(_RANK.replace("__ranking__", ranking), schema)
        statements[f"read_{name}"] = with_schema(read.replace("__ranking__", ranking_for_reading), schema)
    return statements


def _places(first: int, count: int) -> str:
    return ", ".join([f"${number}" for number in range(first, first + count)])
