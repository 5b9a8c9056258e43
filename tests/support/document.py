"""A document, as readers see it."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Document:
    """A Markdown file of the repository.

    Args:
        path: The file, relative to the repository's root.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = (ROOT / path).read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[tuple[int, str]]:
        """Returns the code blocks in a language, each with the number of its first line."""
        found = re.finditer(rf"^```{language}\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)
        return [(self.text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]

    @cached_property
    def prose(self) -> str:
        """The text without its code blocks."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)

    @cached_property
    def anchors(self) -> set[str]:
        """The valid fragments of links: the headings, in GitHub's form."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def table(self, heading: str) -> dict[str, list[str]]:
        """Returns the rows of the table whose first column has this heading: the other cells, by the first one."""
        lines = iter(self.prose.splitlines())
        for line in lines:
            if line.startswith(f"| {heading} |"):
                next(lines)
                break
        else:
            raise AssertionError(f"{self.path} has no table of {heading!r}")
        rows = {}
        for line in lines:
            if not line.startswith("|"):
                break
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            rows[first.strip("`")] = others
        return rows


def documents() -> list[str]:
    """Returns the path of every document for people, relative to the repository's root."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/README.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in paths)
