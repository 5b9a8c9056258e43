"""Checks the rules of this house that no other tool knows. Prints violations; exit code 1 if there are any."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 500
DOMAIN = Path("server/checkpointd_server/domain")
TESTS = Path("tests")
SHARED = "support"
FOLDERS = (".ci", ".github", "client", "deploy", "docs", "examples", "protos", "scripts", "server", "tests")
SUFFIXES = {"", ".md", ".proto", ".py", ".sh", ".sql", ".toml", ".yaml", ".yml"}

FORBIDDEN_IMPORTS = {
    Path("server"): {"cloudpickle", "dill", "langchain", "langchain_core", "langgraph", "marshal", "pickle", "shelve"},
    Path("protos"): {"langchain_core", "langgraph"},
}
"""Forbidden imports, by folder: the server must never build an agent's objects. The other rules of this kind are
contracts of import-linter, which can't tell our part of the namespace `langgraph` from the others."""

FLOWS = Path("client")
DRIVERS = {
    Path("client/langgraph/checkpoint/grpc/_transport/flows.py"),
    # Here a thread or a task itself waits, for a pipeline that both use.
    Path("client/langgraph/checkpoint/grpc/_runs/calls.py"),
}
"""Modules of the client that may contain both a blocking and an awaiting version of the same code."""

CODE = ("client", "examples", "protos", "scripts", "server")
BEGINNINGS = {"How", "Notes", "Tells", "What", "When", "Where", "Whether", "Which", "Who", "Why"}
"""No docstring begins with these: it begins with a verb ("Returns whether") or a noun."""

# A user's home folder or checkout. Paths that are fixed by a container or a package manager are allowed.
MACHINE_PATH = re.compile(r"""(?<![\w.~}<)*-])/(?:root|work|Users|home/(?!checkpointd\b|user\b)\w+)/\w+""")


def main() -> int:
    """Runs every rule and returns the exit code."""
    broken = [f"{path}:{problem}" for path in hand_written() for problem in problems(path)]
    print("\n".join(broken))
    return 1 if broken else 0


def hand_written() -> Iterator[Path]:
    """Yields every hand-written file, relative to the root."""
    candidates = [*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    for path in sorted(candidates):
        relative = path.relative_to(ROOT)
        generated = "_pb2" in path.name or any(part.endswith(("__pycache__", ".egg-info")) for part in relative.parts)
        if path.is_file() and path.name != ".git" and path.suffix in SUFFIXES and not generated:
            yield relative


def problems(path: Path) -> Iterator[str]:
    """Yields the problems of a file, as "line: problem"."""
    try:
        text = (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    lines = text.splitlines()
    if len(lines) > LONGEST_FILE:
        yield f"{LONGEST_FILE}: the file has {len(lines)} lines; make two of it"
    for number, line in enumerate(lines, 1):
        if found := MACHINE_PATH.search(line):
            yield f"{number}: names a path of somebody's machine: {found[0]}"
    if path.suffix == ".py":
        for number, name in imports(text):
            root = name.partition(".")[0]
            if path.is_relative_to(DOMAIN) and not is_own_or_standard(name):
                yield f"{number}: the domain imports the standard library only, not {name}"
            for folder, roots in FORBIDDEN_IMPORTS.items():
                if path.is_relative_to(folder) and root in roots:
                    yield f"{number}: {folder}/ never imports {root}"
        if path.parts[0] in CODE:
            yield from docstring_beginnings(text)
        if path.is_relative_to(FLOWS) and path not in DRIVERS:
            yield from flows_written_twice(text)
        if path.is_relative_to(TESTS):
            yield from stray_helpers(path, text)


def stray_helpers(path: Path, text: str) -> Iterator[str]:
    """Yields imports in a test module that take helpers from the wrong place."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom():
                package = path.parts[: -node.level] if node.level else ()
                module = (*package, *(node.module or "").split("."))
                names = [".".join(filter(None, (*module, alias.name))) for alias in node.names]
            case _:
                continue
        for parts in (name.split(".") for name in names):
            if parts[0] != TESTS.name or len(parts) < 2:
                continue
            if any(part == "conftest" or part.startswith("test_") for part in parts[1:3]):
                yield f"{node.lineno}: nothing is imported from tests and conftests, as from {'.'.join(parts[:3])}"
            elif parts[1] not in (SHARED, path.parts[1]):
                yield f"{node.lineno}: what several folders of tests use is in {TESTS}/{SHARED}, not {TESTS}/{parts[1]}"


def flows_written_twice(text: str) -> Iterator[str]:
    """Yields functions that a module writes twice, blocking and awaiting, though a flow would do.

    Pairs are `name` and `aname` in one class or module, and methods of one name in classes `X` and `AsyncX` or `AioX`.
    Both may exist if they are thin: a pair with loops or error handling in both is a flow.
    """
    found: dict[tuple[str, str], ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for scope in ast.walk(ast.parse(text)):
        for node in scope.body if isinstance(scope, ast.Module | ast.ClassDef) else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[getattr(scope, "name", ""), node.name] = node
    for (owner, name), node in found.items():
        if not isinstance(node, ast.AsyncFunctionDef):
            continue
        sync_owner = re.sub(r"^(_*)(Async|Aio)", r"\1", owner)
        sync_name = re.sub(r"^(_*)a", r"\1", name)
        for key in sorted({(owner, sync_name), (sync_owner, name), (sync_owner, sync_name)}):
            twin = found.get(key)
            if isinstance(twin, ast.FunctionDef) and has_control_flow(node) and has_control_flow(twin):
                yield f"{node.lineno}: {name} does the same as {twin.name}: write it once, as a flow"


def has_control_flow(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Returns whether a function has a loop or handles errors."""
    return any(isinstance(node, ast.For | ast.AsyncFor | ast.While | ast.Try) for node in ast.walk(function))


def docstring_beginnings(text: str) -> Iterator[str]:
    """Yields docstrings of a module, its classes, functions and variables that begin with neither a verb nor a noun.

    For a variable, "How long it takes, in seconds" is fine, and so are "When" and "Where".
    """
    for node in ast.walk(ast.parse(text)):
        for before, statement in pairwise([None, *getattr(node, "body", ())] if has_statements(node) else ()):
            match statement:
                case ast.Expr(value=ast.Constant(value=str(docstring))):
                    first = docstring.split(maxsplit=1)[:1]
                case _:
                    continue
            refused = BEGINNINGS if before is None else BEGINNINGS - {"How", "When", "Where"}
            if refused.intersection(first):
                yield f"{statement.lineno}: a docstring begins with a verb or a noun, not {first[0]!r}"


def has_statements(node: ast.AST) -> bool:
    """Returns whether a node is a module, a class or a function."""
    return isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)


def imports(text: str) -> Iterator[tuple[int, str]]:
    """Yields every import of a module, wherever it is: the line, and the name."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                yield node.lineno, "." * node.level + (node.module or "")


def is_own_or_standard(name: str) -> bool:
    """Returns whether a module belongs to the domain or to the standard library."""
    package = ".".join(DOMAIN.parts[1:])
    return name == package or name.startswith(f"{package}.") or name.partition(".")[0] in sys.stdlib_module_names


if __name__ == "__main__":
    sys.exit(main())
