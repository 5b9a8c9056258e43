"""docs/faults.md names a test for each fault, and each of these tests exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"


def test_every_row_has_its_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        named = re.search(r"`(\S+\.py)::(\w+)` \|$", row)
        assert named is not None, row
        module = ast.parse((TESTS / named[1]).read_text())
        functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert named[2] in functions, row
