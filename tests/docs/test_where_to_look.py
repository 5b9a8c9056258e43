"""Ten behaviours can be found by the names of folders, and the table in docs/architecture.md leads to each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER, CLIENT = "server/checkpointd_server", "client/langgraph/checkpoint/grpc"

FOLDERS = {
    "overload": f"{SERVER}/rpc/calls",
    "scope": f"{SERVER}/rpc/auth",
    "connections are bounded": f"{SERVER}/rpc/listener",
    "in order": f"{SERVER}/rpc/pipeline",
    "share a commit": f"{SERVER}/store/writes",
    "dead connections": f"{SERVER}/store/connections",
    "worker": f"{SERVER}/process",
    "postgresql of one's own": f"{SERVER}/embedded_postgres",
    "before it is durable": f"{CLIENT}/_runs",
    "patches": f"{CLIENT}/_values",
}
"""A phrase for each behaviour, and the folder where a reader looks for it. Chosen before the code was moved there."""

ROW = re.compile(r"^\| ([^|]+) \| \[([^]]+)\]\(\.\./([^)]+)\) \| `(\w+)` \|$", re.MULTILINE)
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TABLE = ROW.findall(TEXT.partition("## Where to look")[2].partition("\n## ")[0])


def test_the_table_has_them_all() -> None:
    assert len(TABLE) == len(FOLDERS) == 10


@pytest.mark.parametrize("behaviour", FOLDERS)
def test_it_is_in_the_folder_where_one_looks_for_it(behaviour: str) -> None:
    (row,) = (row for row in TABLE if behaviour in row[0].lower())
    _, shown, path, name = row
    assert path == f"{FOLDERS[behaviour]}/{Path(path).name}"
    assert path.endswith(f"/{shown}")
    assert name in defined(ROOT / path)


def defined(module: Path) -> set[str]:
    """Returns the names of a module's classes, functions and annotated constants."""
    names = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names
