"""Checks the rules of this house that no other tool knows. Prints what breaks them; exit code 1 if anything does."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 500
DOMAIN = Path("server/checkpointd_server/domain")
FOLDERS = (".ci", "client", "deploy", "docs", "examples", "protos", "scripts", "server", "tests")
SUFFIXES = {"", ".md", ".proto", ".py", ".sh", ".sql", ".toml", ".yaml", ".yml"}

# Somebody's home folder or checkout. What a container or a package manager puts at a fixed place is another matter.
MACHINE_PATH = re.compile(r"""(?<![\w.~}<)*-])/(?:root|work|Users|home/(?!checkpointd\b)\w+)(?=[/\s"'`:,]|$)""")


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
        if path.is_file() and path.suffix in SUFFIXES and not generated:
            yield relative


def problems(path: Path) -> Iterator[str]:
    """Yields what is wrong with a file, as "line: what"."""
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
    if path.is_relative_to(DOMAIN) and path.suffix == ".py":
        yield from foreign_imports(text)


def foreign_imports(text: str) -> Iterator[str]:
    """Yields the imports that are neither the standard library's nor the domain's own."""
    package = ".".join(DOMAIN.parts[1:])
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module), level=0):
                names = [module]
            case ast.ImportFrom():
                names = ["." * node.level]
            case _:
                continue
        for name in names:
            own = name == package or name.startswith(f"{package}.")
            if not own and name.partition(".")[0] not in sys.stdlib_module_names:
                yield f"{node.lineno}: the domain imports the standard library only, not {name}"


if __name__ == "__main__":
    sys.exit(main())
